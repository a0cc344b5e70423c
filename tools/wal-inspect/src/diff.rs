//! `diff`: where the logs of two replicas part, if they do.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use kontiki_wal::{Corruption, Entry, Log, LogId, ReadError, Wal};
use serde::Serialize;

use crate::{
    look::{log_directory, reader},
    outcome::{Failure, Outcome, corruption_line},
    place, progress,
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

Exit codes: 0 no difference in what both hold, 1 different, 2 damaged on either side (see the
log's line and standard error), different or not, 3 cannot read, 4 usage.";

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
    let mut sides = [Side::open(&arguments.a)?, Side::open(&arguments.b)?];
    let mut is_corrupt = false;
    for (side, name) in sides.iter().zip(NAMES) {
        for corruption in side.wal.damage() {
            let line = corruption_line(&corruption);
            // The exit code says it, too.
            let _unheard = writeln!(io::stderr(), "wal-inspect: corrupt: {name}: {line}");
            is_corrupt = true;
        }
    }
    let mut is_different = false;
    let mut out = BufWriter::new(io::stdout().lock());
    for log in asked_logs(&sides, &arguments.logs) {
        let directory = sides[0].directory.clone();
        let compared = progress::watched(&directory, || compare(&mut sides, log))?;
        is_corrupt |= compared.verdict == Verdict::Damaged;
        is_different |= compared.verdict == Verdict::Different;
        match compared.write(arguments.json, &mut out) {
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
        let directory = log_directory(directory);
        Ok(Self { wal: reader(&directory)?, directory })
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
            return Ok(Compared::of(sides, &logs, ended));
        };
        match error {
            ReadError::Recycled { .. } | ReadError::Compacted { .. } => {}
            ReadError::Corruption(_) if damaged_before == Some(*index) => {
                return Ok(Compared::of(sides, &logs, ended));
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

/// How the reading of both sides ended.
enum Ended {
    Same,
    Different(Difference),
    Unreadable { index: u64, side: usize, error: ReadError },
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

/// First and last index that both hold; the last one lies before the first if there is none.
fn held_by_both(logs: &[Log; 2]) -> (u64, u64) {
    let [a, b] = logs;
    (a.first().max(b.first()), a.last().min(b.last()))
}

/// What is found of a log.
#[derive(Debug, Serialize)]
struct Compared {
    log: u32,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomparable: Option<Incomparable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<Damage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Same,
    Different,
    Damaged,
    Incomparable,
}

/// Some indexes, both included.
#[derive(Clone, Copy, Debug, Serialize)]
struct Span {
    first_index: u64,
    last_index: u64,
}

/// Entries that one side has and the other has no longer.
#[derive(Debug, Serialize)]
struct Incomparable {
    #[serde(flatten)]
    span: Span,
    missing_in: &'static str,
    cause: &'static str,
}

#[derive(Debug, Serialize)]
struct Difference {
    index: u64,
    what: &'static str,
    a: Found,
    b: Found,
}

/// What one side has at an index; of an entry before its first, the term.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc: Option<String>,
}

#[derive(Debug, Serialize)]
struct Damage {
    of: &'static str,
    why: String,
}

impl Compared {
    fn of(sides: &[Side; 2], logs: &[Log; 2], ended: Ended) -> Self {
        let (start, last) = held_by_both(logs);
        let [a, b] = [0, 1].map(|side| Span::of(logs[side].first(), logs[side].last()));
        let cut_short = Damage::at_the_end(sides, logs);
        let (verdict, end, difference, damage) = match ended {
            Ended::Same => {
                let verdict = match cut_short {
                    Some(_) => Verdict::Damaged,
                    None if start > last.saturating_add(1) => Verdict::Incomparable,
                    None => Verdict::Same,
                };
                (verdict, last.saturating_add(1), None, cut_short)
            }
            Ended::Different(found) => (Verdict::Different, found.index, Some(found), None),
            Ended::Unreadable { index, side, error } => {
                let why = match error {
                    ReadError::Corruption(corruption) => corruption_line(&corruption),
                    error => error.to_string(),
                };
                (Verdict::Damaged, index, None, Some(Damage { of: KEYS[side], why }))
            }
        };
        let compared = Span::of(start, end.saturating_sub(1));
        let incomparable = Incomparable::of(sides, logs);
        Self { log: logs[0].id().0, verdict, compared, incomparable, difference, damage, a, b }
    }

    fn write(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        if json {
            serde_json::to_writer(&mut *out, self)?;
            out.write_all(b"\n")?;
        } else {
            writeln!(out, "log {}: {}", self.log, self.text())?;
        }
        out.flush()
    }

    fn text(&self) -> String {
        let same = self.compared.map(|span| format!("same in index {}", span.text()));
        let mut parts = Vec::new();
        match (&self.difference, &self.damage) {
            (Some(difference), _) => {
                parts.push(difference.text());
                parts.extend(same);
            }
            (None, Some(Damage { of, why })) => {
                parts.extend(same);
                parts.push(format!("{} is damaged: {why}", shown(of)));
            }
            _ if self.verdict == Verdict::Same => {
                parts.push(same.unwrap_or_else(|| "same, without an index in both".to_owned()));
            }
            _ => parts.push("not comparable, without an index in both".to_owned()),
        }
        if let Some(Incomparable { span, missing_in, cause }) = &self.incomparable {
            let side = shown(missing_in);
            parts.push(format!("{} not comparable, {cause} in {side}", span.text()));
        }
        parts.push(match [self.a, self.b].map(|span| span.map(|span| span.last_index)) {
            [Some(a), Some(b)] if a == b => format!("both end at {a}"),
            [Some(a), Some(b)] => format!("A ends at {a}, B at {b}"),
            [Some(a), None] => format!("A ends at {a}, B is empty"),
            [None, Some(b)] => format!("A is empty, B ends at {b}"),
            [None, None] => "both are empty".to_owned(),
        });
        parts.join("; ")
    }
}

impl Span {
    fn of(first_index: u64, last_index: u64) -> Option<Self> {
        (first_index <= last_index).then_some(Self { first_index, last_index })
    }

    fn text(self) -> String {
        place::range(self.first_index, self.last_index)
    }
}

impl Damage {
    /// What may have ended the log of one side before that of the other.
    fn at_the_end(sides: &[Side; 2], logs: &[Log; 2]) -> Option<Self> {
        let short = match logs[0].last().cmp(&logs[1].last()) {
            Ordering::Less => 0,
            Ordering::Equal => return None,
            Ordering::Greater => 1,
        };
        // Behind a header that does not hold lie frames of every log, whichever log that one was of.
        let damage = sides[short].wal.damage();
        let its_own = |found: &&Corruption| found.log == Some(logs[short].id());
        let found = damage.iter().find(its_own).or(damage.first())?;
        Some(Self { of: KEYS[short], why: corruption_line(found) })
    }
}

impl Incomparable {
    fn of(sides: &[Side; 2], logs: &[Log; 2]) -> Option<Self> {
        let missing = usize::from(logs[0].first() < logs[1].first());
        let (holds, lacks) = (&logs[1 - missing], &logs[missing]);
        let span = Span::of(holds.first(), holds.last().min(lacks.first() - 1))?;
        let is_whole = sides[missing].wal.damage().is_empty();
        let cause = if is_whole { "compacted" } else { "compacted or lost" };
        Some(Self { span, missing_in: KEYS[missing], cause })
    }
}

impl Difference {
    /// Of the entry before `start`, of which one side knows the term alone.
    fn before(start: u64, logs: &[Log; 2]) -> Option<Self> {
        let index = start - 1;
        let [a, b] = [logs[0].term(index)?, logs[1].term(index)?];
        let found = |term| Found { term, bytes: None, crc: None };
        (a != b).then(|| Self { index, what: "term", a: found(a), b: found(b) })
    }

    fn between(a: &Entry, b: &Entry) -> Option<Self> {
        let what = match (a.term == b.term, a.bytes == b.bytes) {
            (true, true) => return None,
            (false, _) => "term",
            (true, false) => "payload",
        };
        Some(Self { index: a.index, what, a: Found::of(a), b: Found::of(b) })
    }

    fn text(&self) -> String {
        let Self { index, what, a, b } = self;
        if *what == "term" {
            return format!("different at index {index}: term {} in A, {} in B", a.term, b.term);
        }
        let (term, a, b) = (a.term, a.payload(), b.payload());
        format!("different at index {index} term {term}: payload of {a} in A, {b} in B")
    }
}

impl Found {
    fn of(entry: &Entry) -> Self {
        let crc = format!("{:#010x}", crc32fast::hash(&entry.bytes));
        Self { term: entry.term, bytes: Some(entry.bytes.len()), crc: Some(crc) }
    }

    fn payload(&self) -> String {
        let (bytes, crc) = (self.bytes.unwrap_or(0), self.crc.as_deref().unwrap_or("unknown"));
        format!("{bytes} bytes with crc {crc}")
    }
}

fn shown(key: &str) -> &'static str {
    if key == KEYS[0] { NAMES[0] } else { NAMES[1] }
}

/// The two sides as lines name them, and as JSON does.
const NAMES: [&str; 2] = ["A", "B"];
const KEYS: [&str; 2] = ["a", "b"];

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
