//! `diff`: where the logs of two replicas part, if they do.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use kontiki_wal::{Corruption, Log, LogId, ReadError, Wal, inspect::Verdict as Found};

use crate::{
    arguments::Format,
    compared::{Compared, Difference, Ended, NAMES, Verdict, held_by_both},
    look::{Look, log_directory, reader},
    outcome::{Failure, Outcome, corruption_line},
    progress,
};

pub(crate) const HELP: &str = "\
Examples, with the data directories of two nodes or the logs' own:
  wal-inspect diff data/1 data/2
  wal-inspect diff data/1 data/2 --log 1 --json | jq .difference

A line for each log. It compares index, term and bytes of every entry that both hold, and the
term of the entry before the first one that both hold. A log that goes on where the other ends is
the same, as a replica that lags is; one that is not there ends before its first entry. If it ends
before the other's compacted beginning, they are not comparable. Entries that only one side still
has, because the other has compacted them, are not comparable either, and named. The states of logs
are each replica's own. Of a live directory it compares what has been written at that moment.
Before it compares it reads all of both sides, as verify does, and names on standard error what is
damaged.

JSON, a line for each log; what there is nothing of is left out:
  log
  verdict       same, different, damaged (one side cannot be read further, or ends before the other
                and has damage that may have cut it short), or incomparable (one side ends before
                the other begins, and neither has the indexes between)
  compared      first_index and last_index of what is the same
  incomparable  first_index, last_index, missing_in (a or b), and cause: compacted, or, in a
                damaged log, compacted or lost
  difference    index, what (term or payload), and for a and b each: term, bytes (their number),
                crc (CRC-32 of the payload)
  damage        of (a or b), why: what is wrong where that side cannot be read further
  a, b          first_index and last_index of what each side holds

Exit codes: 0 no difference in what both hold, 1 different, 2 damaged on either side, in any log and
anywhere that verify looks (see standard error), different or not, 3 cannot read, 4 usage.";

#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// Directory of a log, or the data directory of a node, which has it in wal below it.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The same of another replica.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Only these logs.
    #[arg(long = "log", value_name = "LOG", value_delimiter = ',')]
    logs: Vec<u32>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn diff(arguments: &DiffArguments) -> Result<Outcome, Failure> {
    let directories = [&arguments.a, &arguments.b].map(|directory| log_directory(directory));
    let both = directories.each_ref().map(PathBuf::as_path);
    let [a, b] = progress::watched_all(1, &both, || both.map(Side::open));
    let mut sides = [a?, b?];
    let mut is_corrupt = false;
    for (side, name) in sides.iter().zip(NAMES) {
        for corruption in progress::watched(&side.directory, || side.damage())? {
            let line = corruption_line(&corruption);
            // The exit code says it, too.
            let _unheard = writeln!(io::stderr(), "wal-inspect: corrupt: {name}: {line}");
            is_corrupt = true;
        }
    }
    let mut is_different = false;
    let mut out = BufWriter::new(io::stdout().lock());
    for log in asked_logs(&sides, &arguments.logs) {
        let compared = progress::watched_all(1, &both, || compare(&mut sides, log))?;
        is_corrupt |= compared.verdict == Verdict::Damaged;
        is_different |= compared.verdict == Verdict::Different;
        match compared.write(Format::asked(arguments.json), &mut out) {
            // The exit code tells what the reader did not wait for.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
    }
    Ok(match (is_corrupt, is_different) {
        (true, _) => Outcome::Corrupt,
        (_, true) => Outcome::Different,
        _ => Outcome::Whole,
    })
}

/// Those of both sides, ascending, or those that were asked for.
fn asked_logs(sides: &[Side; 2], asked: &[u32]) -> BTreeSet<LogId> {
    if !asked.is_empty() {
        return asked.iter().copied().map(LogId).collect();
    }
    sides.iter().flat_map(|side| side.wal.logs()).collect()
}

/// One of the two replicas.
struct Side {
    directory: PathBuf,
    wal: Wal,
}

impl Side {
    fn open(directory: &Path) -> Result<Self, Failure> {
        Ok(Self { wal: reader(directory)?, directory: directory.to_owned() })
    }

    /// All that is damaged, found by reading everything: entries alone do not tell of a trailer or a checkpoint, nor of what
    /// lies behind a difference.
    fn damage(&self) -> Result<Vec<Corruption>, Failure> {
        let look = Look::at(&self.directory)?;
        Ok(match look.scan.verdict() {
            Found::Corrupt(damage) => damage.clone(),
            Found::Whole { .. } | Found::TornTail { .. } => Vec::new(),
        })
    }

    fn log(&self, id: LogId) -> Result<Log, Failure> {
        self.wal.log(id).map_err(|error| Failure::Read(error.to_string()))
    }
}

/// Compares a log. What a writer takes away or repairs meanwhile is another log at the next look.
fn compare(sides: &mut [Side; 2], id: LogId) -> Result<Compared, Failure> {
    // Everything below was the same.
    let mut next = 0;
    let mut damaged_before = None;
    loop {
        let logs = [sides[0].log(id)?, sides[1].log(id)?];
        let ended = read_both(&logs, next);
        let Ended::Unreadable { index, error, .. } = &ended else {
            return Ok(told(sides, &logs, ended));
        };
        match error {
            ReadError::Recycled { .. } | ReadError::Compacted { .. } => {}
            ReadError::Corruption(_) if damaged_before == Some(*index) => {
                return Ok(told(sides, &logs, ended));
            }
            ReadError::Corruption(_) => damaged_before = Some(*index),
            error => return Err(Failure::Read(error.to_string())),
        }
        next = *index;
        // Both, so that none is far ahead of the other.
        for side in sides.iter_mut() {
            side.wal = reader(&side.directory)?;
        }
    }
}

fn told(sides: &[Side; 2], logs: &[Log; 2], ended: Ended) -> Compared {
    Compared::of(&sides.each_ref().map(|side| side.wal.damage()), logs, ended)
}

/// Reads the entries that both logs hold, from `next` on, until two differ.
fn read_both(logs: &[Log; 2], next: u64) -> Ended {
    let (start, last) = held_by_both(logs);
    if start > next
        && let Some(difference) = Difference::before(start, logs)
    {
        return Ended::Different(difference);
    }
    let from = start.max(next);
    let mut entries = [0, 1].map(|side| logs[side].read(from..last.saturating_add(1), usize::MAX));
    for index in from..=last {
        // What is between the bounds of a log is an entry or an error: nobody cuts a log that was opened for reading.
        let [a, b] = entries.each_mut().map(|entries| entries.next().expect("within its bounds"));
        let (a, b) = match (a, b) {
            (Ok(a), Ok(b)) => (a, b),
            (Err(error), _) => return Ended::Unreadable { index, side: 0, error },
            (_, Err(error)) => return Ended::Unreadable { index, side: 1, error },
        };
        if let Some(difference) = Difference::between(&a, &b) {
            return Ended::Different(difference);
        }
    }
    Ended::Same
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// WAL-CASE 41: the writer frees and uses again what one side was about to read.
    #[test]
    fn what_is_used_again_under_a_comparison_is_looked_at_again() {
        let directory = tempfile::tempdir().unwrap();
        let options = Wal::options().segment_bytes(16 << 10).without_threads();
        let wal = options.open(directory.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        let push = || {
            log.push("x".repeat(700)).unwrap().1.wait().unwrap();
            wal.work(Duration::ZERO);
        };
        (0..60).for_each(|_| push());
        let [a, b] = [0, 1].map(|_| Side::open(directory.path()).unwrap());
        let mut sides = [a, b];
        while wal.statistics().recycled_segments < 8 {
            log.compact_before(log.last()).unwrap().wait().unwrap();
            push();
        }
        let read = sides[0].log(LogId(1)).unwrap().read(1..61, usize::MAX);
        let errors: Vec<_> = read.filter_map(Result::err).collect();
        assert!(matches!(errors[..], [ReadError::Recycled { .. }]), "{errors:?}");

        let compared = compare(&mut sides, LogId(1)).unwrap();
        assert_eq!(compared.verdict, Verdict::Same, "{compared:?}");
        let span = compared.compared.unwrap();
        assert_eq!((span.first_index, span.last_index), (log.first(), log.last()));
    }
}
