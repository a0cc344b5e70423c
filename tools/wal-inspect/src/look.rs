//! Finding the log that is meant, and a look at it that stands still.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
};

use kontiki_wal::{
    Corruption, OpenError, Wal,
    inspect::{Effort, RawFrame, Scan, Verdict},
};

use crate::{
    marked::Marked,
    outcome::{Failure, Outcome, corruption_line, unread_line},
    terminal::pasted,
};

/// A scan, whether a writer is at work, and what an earlier repair has left.
pub(crate) struct Look {
    pub(crate) scan: Scan,
    pub(crate) is_live: bool,
    pub(crate) marked: Option<Marked>,
}

impl Look {
    /// Looks at the log in `directory`.
    pub(crate) fn at(directory: &Path) -> Result<Self, Failure> {
        Self::with(directory, Effort { threads: cores(), ..Effort::default() })
    }

    /// The same with more effort.
    pub(crate) fn with(directory: &Path, effort: Effort) -> Result<Self, Failure> {
        Self::from(Scan::open_with(directory, effort)?, directory, effort)
    }

    /// What a crash leaves and what a writer has under way look alike. A writer that is there tells
    /// them apart; one that ended after the scan does not, but then the next scan finds something
    /// else.
    fn from(mut scan: Scan, directory: &Path, effort: Effort) -> Result<Self, Failure> {
        // A directory without segments is most likely the wrong one, and never a good answer.
        if matches!(scan.verdict(), Verdict::Whole { .. }) && scan.segments().is_empty() {
            return Err(no_log(directory));
        }
        loop {
            let is_live = scan.is_live();
            if is_live || !matches!(scan.verdict(), Verdict::TornTail { .. }) {
                return Ok(Self { scan, is_live, marked: Marked::of(directory)? });
            }
            let again = Scan::open_with(directory, effort)?;
            if again.verdict() == scan.verdict() {
                let marked = Marked::of(directory)?;
                return Ok(Self { scan: again, is_live: false, marked });
            }
            scan = again;
        }
    }

    /// Whole frames end where bytes that were durable are damaged: none comes behind them.
    pub(crate) fn ends_in_damage(&self) -> Result<bool, Failure> {
        let (Verdict::Corrupt(damage), Some(tail)) = (self.scan.verdict(), self.scan.tail()) else {
            return Ok(false);
        };
        Ok(self.scan.raw_frame(tail.lsn())?.is_some_and(|end| is_at(&end, damage)))
    }

    /// Says on standard error what an earlier repair has left: the frames do not tell.
    pub(crate) fn remark_mark(&self) {
        if let Some(marked) = &self.marked {
            let _unheard = writeln!(io::stderr(), "wal-inspect: {}", marked.line());
        }
    }

    /// Says on standard error what a reader of the frames in `directory` cannot see in them.
    pub(crate) fn remark(&self, directory: &Path) -> Outcome {
        let mut remarks = io::stderr().lock();
        // An unheard remark changes nothing: `verify` is the command that tells.
        match self.scan.verdict() {
            Verdict::Whole { .. } => Outcome::Whole,
            Verdict::TornTail { .. } if self.is_live => Outcome::Whole,
            Verdict::TornTail { segment, offset, .. } => {
                let _unheard = writeln!(
                    remarks,
                    "wal-inspect: torn tail at segment {segment} offset {offset}"
                );
                Outcome::Whole
            }
            Verdict::Corrupt(corruptions) => {
                for corruption in corruptions {
                    let _unheard =
                        writeln!(remarks, "wal-inspect: corrupt: {}", corruption_line(corruption));
                }
                for unread in self.scan.unread() {
                    let _unheard =
                        writeln!(remarks, "wal-inspect: not read: {}", unread_line(unread));
                }
                drop(remarks);
                self.remark_way_out(directory);
                Outcome::Corrupt
            }
        }
    }

    /// Says on standard error what to do about damage of the log in `directory`, unless its mark says it.
    pub(crate) fn remark_way_out(&self, directory: &Path) {
        if self.marked.as_ref().is_some_and(Marked::is_unfinished) {
            return;
        }
        let directory = pasted(directory);
        let first = if self.is_live { "; stop the writer first" } else { "" };
        let line = format!(
            "`wal-inspect repair {directory}` says what can be done about it, and changes nothing{first}"
        );
        let _unheard = writeln!(io::stderr(), "wal-inspect: {line}");
    }
}

/// Whether some of the damage is that of this frame.
pub(crate) fn is_at(frame: &RawFrame, damage: &[Corruption]) -> bool {
    damage.iter().any(|found| found.segment == frame.file && found.offset == frame.offset)
}

/// The log in `directory`, to be read entry by entry.
pub(crate) fn reader(directory: &Path) -> Result<Wal, Failure> {
    Wal::open_read_only(directory).map_err(|error| match error {
        OpenError::Io { source, .. }
            if source.kind() == ErrorKind::NotFound
                && directory.is_dir()
                && !has_segments(directory) =>
        {
            no_log(directory)
        }
        error => error.into(),
    })
}

/// There are no segments in `directory`, though it can be listed.
pub(crate) fn is_no_log(directory: &Path) -> bool {
    segments(directory).is_ok_and(|has_some| !has_some)
}

/// What is said of a directory without segments.
pub(crate) fn no_log(directory: &Path) -> Failure {
    Failure::NoLog { directory: directory.to_owned(), below: below(directory) }
}

/// The directory of the log that is meant by `directory`: a node of Kontiki keeps its log in `wal`
/// below its data directory. Says so on standard error if it is that.
pub(crate) fn log_directory(directory: &Path) -> PathBuf {
    let below = directory.join(NODE_LOG);
    if has_segments(directory) || !may_have_segments(&below) {
        return directory.to_owned();
    }
    // Whoever hears nothing sees the log all the same.
    let _unheard = writeln!(io::stderr(), "wal-inspect: looking into {}", below.display());
    below
}

/// The first directory by name below `directory` that holds a log, or is a node's: what was meant, where `directory` holds none.
fn below(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?;
    let holds_a_log = |path: &PathBuf| has_segments(path) || has_segments(&path.join(NODE_LOG));
    entries.flatten().map(|entry| entry.path()).filter(holds_a_log).min()
}

/// What cannot be listed is reported by the look itself.
fn has_segments(directory: &Path) -> bool {
    segments(directory).unwrap_or(false)
}

/// What is there and must not be listed is most likely what was meant: the look says why it cannot be had. Whether it is there
/// is not known where the one above must not be searched: then that one is what is told of.
fn may_have_segments(directory: &Path) -> bool {
    segments(directory)
        .unwrap_or_else(|error| error.kind() == ErrorKind::PermissionDenied && directory.is_dir())
}

fn segments(directory: &Path) -> io::Result<bool> {
    let entries = fs::read_dir(directory)?;
    let is_segment = |path: &Path| path.is_file() && path.extension().is_some_and(|e| e == "wal");
    Ok(entries.flatten().any(|entry| is_segment(&entry.path())))
}

/// As many threads as this machine runs at the same time.
pub(crate) fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Where a node keeps its log in its data directory.
pub(crate) const NODE_LOG: &str = "wal";

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use bytes::Bytes;
    use kontiki_wal::LogId;

    use super::*;

    #[test]
    fn a_torn_tail_that_a_writer_repaired_after_the_scan_is_none() {
        let (writing, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let wal = Wal::options().without_threads().open(writing.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        log.append(1, 1, &[Bytes::from_static(b"torn")]).unwrap().wait().unwrap();
        let scan = Scan::open(writing.path()).unwrap();
        let last = scan.frames().last().unwrap().unwrap();
        let path = crashed.path();
        fs::copy(writing.path().join(&last.file), path.join(&last.file)).unwrap();
        let file = File::options().write(true).open(path.join(&last.file)).unwrap();
        file.write_all_at(b"!", last.offset + 48).unwrap();

        let torn = Scan::open(path).unwrap();
        assert!(matches!(torn.verdict(), Verdict::TornTail { .. }), "{:?}", torn.verdict());
        Wal::options().without_threads().open(path).unwrap().close().unwrap();
        let look = Look::from(torn, path, Effort::default()).unwrap();
        assert!(!look.is_live);
        let verdict = look.scan.verdict();
        assert!(matches!(verdict, Verdict::Whole { .. }), "{verdict:?}");
    }
}
