//! What a repair leaves in a log's directory: that it was begun and not finished, and what the log has lost by it.
//!
//! A log that was cut or salvaged opens like any other, and nothing in its frames tells that it once had more. So whoever has
//! promised something on the strength of a log asks for its mark before it goes on. The file is specified in `FORMAT.md`,
//! "Repair of a damaged log".

use std::{fmt::Write, io, path::Path};

use kontiki_disk::{Access, Directory, Disk};

use crate::{
    OpenError,
    recovery::{repair::sync, scan::io_error},
    repair::{CutPlace, LogOutcome, StateOutcome, TermRun, Truncation},
};

/// The mark of a repair: in the file `REPAIR` of the log's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mark {
    /// How far the repair has come.
    pub stage: Stage,
    /// What this repair and those before it took, or can have taken, from what the log had acknowledged: a line each. Never
    /// empty once the repair is done: one that took nothing leaves no mark.
    pub losses: Vec<String>,
}

/// How far a repair has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A cut in place was begun and not ended: the log is not opened until [`truncate`](super::truncate) was called again.
    Cutting,
    /// The directory was being salvaged into: the log in it is not opened, and not repaired.
    Salvaging,
    /// The log can be opened.
    Done,
}

impl Mark {
    /// Name of the file. Who removes it vouches for what the log has lost.
    pub const FILE: &str = "REPAIR";

    /// The mark in `directory` of the real disk; `None` without one, and where there is no such directory. One that cannot be
    /// made sense of counts as that of a cut that was not ended.
    ///
    /// # Errors
    /// What the disk says.
    pub fn of(directory: impl AsRef<Path>) -> Result<Option<Self>, OpenError> {
        Self::of_on(&*kontiki_disk::real(), directory)
    }

    /// The mark in `directory` of `disk`.
    ///
    /// # Errors
    /// As for [`Mark::of`].
    pub fn of_on(disk: &dyn Disk, directory: impl AsRef<Path>) -> Result<Option<Self>, OpenError> {
        let path = directory.as_ref();
        match disk.open_directory(path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("open", &path.display().to_string(), error)),
            Ok(directory) => Self::read(&*directory),
        }
    }

    /// The mark in an open directory.
    pub(crate) fn read(directory: &dyn Directory) -> Result<Option<Self>, OpenError> {
        let failed = |source| refused("read", directory, source);
        let file = match directory.open(Self::FILE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // No plain file, so nothing that a repair wrote.
            Err(error) if is_no_file(error.kind()) => return Ok(Some(Self::decode(""))),
            file => file.map_err(failed)?,
        };
        let length = file.len().min(BYTES_MAX);
        let mut bytes = vec![0; usize::try_from(length).expect("at most 1 MiB")];
        file.read_at(0, &mut bytes).map_err(failed)?;
        Ok(Some(Self::decode(&String::from_utf8_lossy(&bytes))))
    }

    /// The mark, where the log in `directory` may be worked on: so not in what is left of a salvage.
    pub(super) fn of_repairable(directory: &dyn Directory) -> Result<Option<Self>, OpenError> {
        let mark = Self::read(directory)?;
        if mark.as_ref().is_some_and(|mark| mark.stage == Stage::Salvaging) {
            return Err(unfinished(directory, Stage::Salvaging));
        }
        Ok(mark)
    }

    /// Refuses a directory whose repair was begun and not finished.
    pub(crate) fn check_finished(directory: &dyn Directory) -> Result<(), OpenError> {
        match Self::read(directory)? {
            Some(Self { stage: stage @ (Stage::Cutting | Stage::Salvaging), .. }) => {
                Err(unfinished(directory, stage))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The mark of a repair that begins, where there was `before`: what was lost by then stays lost. Durable when this returns.
    pub(super) fn begin(
        directory: &dyn Directory,
        stage: Stage,
        before: Option<Self>,
        mut losses: Vec<String>,
    ) -> Result<Self, OpenError> {
        let mut all = before.as_ref().map(|mark| mark.losses.clone()).unwrap_or_default();
        // A repair that goes on with one that was stopped finds the same.
        losses.retain(|line| !all.contains(line));
        all.append(&mut losses);
        if all.len() > LINES_MAX {
            all.truncate(LINES_MAX);
            all.push("more than is told here".to_owned());
        }
        let mark = Self { stage, losses: all };
        match mark.write(directory) {
            Ok(()) => Ok(mark),
            Err(error) => {
                // Its name can be there all the same. That it failed is what the caller has to know.
                let _undone = match &before {
                    Some(before) => before.write(directory),
                    None => Self::remove(directory),
                };
                Err(error)
            }
        }
    }

    /// Ends the repair, durably; without a loss nothing is left of the mark.
    pub(super) fn finish(self, directory: &dyn Directory) -> Result<(), OpenError> {
        if !self.losses.is_empty() {
            return Self { stage: Stage::Done, ..self }.write(directory);
        }
        Self::remove(directory)
    }

    fn remove(directory: &dyn Directory) -> Result<(), OpenError> {
        for name in [NEW_FILE, Self::FILE] {
            match directory.remove(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(|source| refused("remove", directory, source))?,
            }
        }
        sync(directory)
    }

    /// Under another name until it is whole.
    fn write(&self, directory: &dyn Directory) -> Result<(), OpenError> {
        let write = || {
            match directory.open(NEW_FILE) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Whatever has the name.
                Ok(_) | Err(_) => directory.remove(NEW_FILE)?,
            }
            let text = self.encode();
            let file = directory.create(NEW_FILE, text.len() as u64)?;
            file.write_at(0, &[text.as_bytes()])?;
            file.sync()?;
            directory.rename(NEW_FILE, Self::FILE)
        };
        write().map_err(|source| refused("write", directory, source))?;
        sync(directory)
    }

    fn encode(&self) -> String {
        let stage =
            STAGES.iter().find(|(stage, _)| *stage == self.stage).expect("all are listed").1;
        let mut text = format!("{START}{stage}\n{}", about(self.stage));
        for line in &self.losses {
            text.push_str(&format!("{LOSS}{line}\n"));
        }
        text
    }

    fn decode(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let stage = STAGES.iter().find(|(_, name)| first.strip_prefix(START) == Some(*name));
        let losses = text.lines().filter_map(|line| line.strip_prefix(LOSS)).map(escaped);
        let mut mark = Self { stage: Stage::Cutting, losses: losses.collect() };
        match stage {
            // That without losses is gone when it is done.
            Some((stage, _)) if *stage != Stage::Done || !mark.losses.is_empty() => {
                mark.stage = *stage;
            }
            _ => mark.losses.push("the mark of a repair cannot be read".to_owned()),
        }
        mark
    }
}

/// What is said in the file, for whoever finds it.
fn about(stage: Stage) -> &'static str {
    match stage {
        Stage::Cutting => {
            "This log is being cut in place, and must not be opened before that has ended: do it again\n\
             (wal-inspect repair DIR --truncate-tail --yes). It will lack what is told below, if anything is.\n\n"
        }
        Stage::Salvaging => {
            "This log was being salvaged and is not whole: remove it, and salvage again. It will lack what\n\
             is told below, if anything is.\n\n"
        }
        Stage::Done => {
            "This log was damaged and repaired, and lacks, or can lack, what is told below. A replicated node\n\
             is not started from it: it could break what it has promised its peers. Remove this file, at your\n\
             own risk, only if nothing that was acknowledged is lost, or nobody relies on it any more.\n\n"
        }
    }
}

/// What a cut takes from what was acknowledged, as far as can be told; nothing if that is empty.
pub(super) fn losses_of_cut(truncation: &Truncation, unknown: &[String]) -> Vec<String> {
    let how = match &truncation.cut {
        Some(CutPlace { segment, offset, lsn }) => {
            format!("cut in place at segment {segment} offset {offset} lsn {}", lsn.0)
        }
        None => "mended in place".to_owned(),
    };
    losses(how, &truncation.logs, truncation.is_end_known, unknown)
}

/// What a log lacks that was salvaged from `original`.
pub(super) fn losses_of_salvage(
    original: &Path,
    logs: &[LogOutcome],
    is_end_known: bool,
    unknown: &[String],
) -> Vec<String> {
    let how = format!("salvaged from {}", original.display());
    losses(how, logs, is_end_known, unknown)
}

fn losses(how: String, logs: &[LogOutcome], is_end_known: bool, unknown: &[String]) -> Vec<String> {
    let harmed: Vec<&LogOutcome> = logs.iter().filter(|log| !log.is_unharmed()).collect();
    let mut lines: Vec<String> = harmed.iter().take(LOGS_MAX).map(|log| loss_of(log)).collect();
    if harmed.len() > LOGS_MAX {
        lines.push(format!("{} more logs", harmed.len() - LOGS_MAX));
    }
    if !unknown.is_empty() {
        let named = &unknown[..unknown.len().min(RUNS_MAX)];
        let more = if unknown.len() > RUNS_MAX { " and more" } else { "" };
        lines.push(format!("what else was in {}{more}", named.join(", ")));
    }
    if !is_end_known {
        lines.push("more than can be told: the log went on".to_owned());
    }
    if !lines.is_empty() {
        // A path can have any byte.
        lines.insert(0, escaped(&how));
    }
    lines
}

fn loss_of(outcome: &LogOutcome) -> String {
    let mut line = format!("log {}:", outcome.log.0);
    for (what, runs) in [
        ("lost", &outcome.lost),
        ("left out", &outcome.left_out),
        ("back from before they were cut, replaced or compacted", &outcome.returning),
    ] {
        for run in runs.iter().take(RUNS_MAX) {
            let TermRun { first, last, term } = run;
            write!(line, " index {first}..={last} term {term} {what};")
                .expect("a string takes all");
        }
        if runs.len() > RUNS_MAX {
            write!(line, " more {what};").expect("a string takes all");
        }
    }
    for (first, last) in outcome.unknown.iter().take(RUNS_MAX) {
        write!(line, " of index {first}..={last} nothing is known;").expect("a string takes all");
    }
    if outcome.unknown.len() > RUNS_MAX {
        line.push_str(" of more nothing is known;");
    }
    line.push_str(match outcome.state {
        StateOutcome::None | StateOutcome::Kept => "",
        StateOutcome::MayBeOlder => " its state can be an older one;",
        StateOutcome::Older => " its state is an older one;",
        StateOutcome::Lost => " its state is lost;",
    });
    if outcome.is_moved {
        line.push_str(" it goes on at another index or term;");
    }
    if outcome.may_be_replaced {
        line.push_str(" entries that are there can be older ones (not in a log of Raft);");
    }
    line.trim_end_matches(';').to_owned()
}

/// On one line, and nothing in it that a terminal would obey.
fn escaped(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for character in line.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn is_no_file(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory)
}

fn unfinished(directory: &dyn Directory, stage: Stage) -> OpenError {
    OpenError::RepairUnfinished { directory: directory.path().display().to_string(), stage }
}

fn refused(operation: &'static str, directory: &dyn Directory, source: io::Error) -> OpenError {
    io_error(operation, &directory.path().join(Mark::FILE).display().to_string(), source)
}

/// Takes the name of the mark when it is whole; what a stop left of it says nothing.
const NEW_FILE: &str = "REPAIR.new";
const START: &str = "Kontiki repair: ";
const STAGES: [(Stage, &str); 3] =
    [(Stage::Cutting, "cutting"), (Stage::Salvaging, "salvaging"), (Stage::Done, "done")];
/// Begins a line that tells a loss.
const LOSS: &str = "- ";

/// Bounds what a file that is no mark can take.
const BYTES_MAX: u64 = 1 << 20;
/// So that the longest mark is read whole.
const LINES_MAX: usize = 200;
const LOGS_MAX: usize = 64;
const RUNS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mark(stage: Stage, losses: &[&str]) -> Mark {
        Mark { stage, losses: losses.iter().map(|&line| line.to_owned()).collect() }
    }

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        for mark in [
            mark(Stage::Cutting, &[]),
            mark(Stage::Salvaging, &["salvaged from d", "log 1: its state is lost"]),
            mark(Stage::Done, &["log 1: index 3..=3 term 1 lost"]),
        ] {
            assert_eq!(Mark::decode(&mark.encode()), mark);
        }
    }

    /// Whatever is in the file: nobody takes the log for one that has lost nothing, or for one that was cut to the end.
    #[test]
    fn what_cannot_be_read_is_the_mark_of_a_cut_that_was_not_ended() {
        for text in ["", "\u{fffd}", "Kontiki repair: dune\n- all\n", "Kontiki repair: done\n"] {
            let found = Mark::decode(text);
            assert_eq!(found.stage, Stage::Cutting, "{text:?}");
            assert!(found.losses.iter().any(|line| line.contains("cannot be read")), "{text:?}");
        }
    }

    /// Who owns the log can name its directory, and write its mark, as he likes.
    #[test]
    fn a_loss_stays_one_line_and_tells_a_terminal_nothing() {
        let path = Path::new("a\n- all of log 7\r\u{1b}[2J\u{e9}");
        let losses = losses_of_salvage(path, &[], false, &[]);
        assert_eq!(
            losses[0],
            r"salvaged from a\n- all of log 7\r\u{1b}[2J\u{e9}".replace(r"\u{e9}", "\u{e9}")
        );
        let mark = Mark { stage: Stage::Done, losses };
        assert_eq!(Mark::decode(&mark.encode()), mark);

        let written = Mark::decode("Kontiki repair: done\n- \u{1b}[2Jlog 7\n");
        assert_eq!(written.losses, [r"\u{1b}[2Jlog 7"]);
    }

    /// No repair made it; but whoever finds no mark takes the log for one that has lost nothing.
    #[test]
    fn what_is_no_plain_file_is_the_mark_of_a_cut_that_was_not_ended() {
        let room = tempfile::tempdir().unwrap();
        let place = room.path().join(Mark::FILE);
        let disk = kontiki_disk::real();
        let other = room.path().join("other");
        std::fs::write(&other, "Kontiki repair: done\n- what root knows\n").unwrap();
        let is_cutting = || {
            for access in [Access::Read, Access::Write] {
                let directory = disk.open_directory(room.path(), access).unwrap();
                let mark = Mark::read(&*directory).unwrap().expect("a mark");
                assert_eq!(mark, Mark::decode(""), "{access:?}");
            }
        };
        for leads_to in [Path::new("nowhere"), &other] {
            symlink(leads_to, &place).unwrap();
            is_cutting();
            std::fs::remove_file(&place).unwrap();
        }
        std::fs::create_dir(&place).unwrap();
        is_cutting();
    }
}
