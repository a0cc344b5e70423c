//! `dump`: the frames of a log, each with its place, and what they hold.

use std::{
    io::{self, BufWriter, ErrorKind, StdoutLock, Write},
    ops::RangeInclusive,
};

use bytes::Bytes;
use kontiki_wal::{
    LogId,
    inspect::{Bounds, Frame, FrameKind},
};

use crate::{
    arguments::{DumpArguments, Format, Kind},
    follow::follow,
    look::{Look, log_directory},
    outcome::{Failure, Outcome},
    progress,
    raft::{RaftEntry, RaftLogs, RaftState},
    rows::{EntryRow, FrameRow, LogRow, Payload, Preview, StateRow, belongs_to_a_log},
    terminal,
};

pub(crate) fn dump(arguments: &DumpArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    let look = progress::watched(&directory, || Look::at(&directory))?;
    look.remark_mark();
    let mut printer = Printer::new(arguments);
    let outcome = if arguments.follow {
        follow(&directory, look, &mut printer)?
    } else {
        // On a screen the frames themselves show that it goes on.
        match terminal::is_output_unseen() {
            true => progress::watched(&directory, || printer.show_all(&look))?,
            false => printer.show_all(&look)?,
        }
        look.remark(&directory)
    };
    if let Some(remark) = printer.remark(outcome) {
        let _unheard = writeln!(io::stderr(), "wal-inspect: {remark}");
    }
    Ok(outcome)
}

/// Writes what is asked for of the frames that it is shown, in their order.
pub(crate) struct Printer<'a> {
    arguments: &'a DumpArguments,
    raft_logs: RaftLogs,
    /// How many frames were read.
    read: usize,
    /// How many of them were written.
    shown: usize,
    out: BufWriter<StdoutLock<'static>>,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a DumpArguments) -> Self {
        let out = BufWriter::new(io::stdout().lock());
        Self { arguments, raft_logs: RaftLogs::default(), read: 0, shown: 0, out }
    }

    fn show_all(&mut self, look: &Look) -> Result<(), Failure> {
        for frame in look.scan.frames() {
            if !self.show(&frame?)? {
                break;
            }
        }
        self.flush()
    }

    /// Returns whether more is asked for.
    pub(crate) fn show(&mut self, frame: &Frame) -> Result<bool, Failure> {
        self.read += 1;
        let is_behind = |lsns: &RangeInclusive<u64>| *lsns.end() < frame.lsn.0;
        if self.arguments.lsn.as_ref().is_some_and(is_behind) {
            return Ok(false);
        }
        self.raft_logs.observe(frame);
        if let Some(row) = row(frame, self.arguments, self.raft_logs.contain(frame.log)) {
            self.shown += 1;
            if !is_taken(self.write(&row))? {
                return Ok(false);
            }
        }
        Ok(self.arguments.limit.is_none_or(|limit| self.shown < limit))
    }

    /// Why nothing was written, if nothing was, and no damage says it that was told with this `outcome`.
    fn remark(&self, outcome: Outcome) -> Option<&'static str> {
        match (self.read, self.shown) {
            (0, _) if outcome == Outcome::Corrupt => None,
            (0, _) => Some(ALL_IS_GONE),
            (_, 0) => Some("no frame is what was asked for"),
            _ => None,
        }
    }

    fn write(&mut self, row: &FrameRow) -> io::Result<()> {
        match self.arguments.format() {
            Format::Text => row.write_text(&mut self.out),
            Format::Jsonl => terminal::write_json_line(row, &mut self.out),
        }
    }

    /// Hands on what was written, if somebody takes it.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        is_taken(self.out.flush()).map(drop)
    }
}

/// False if the reader has seen enough, as in `| head`: what the look found is told all the same.
fn is_taken(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => Ok(written.map(|()| true)?),
    }
}

/// The log is compacted faster than it is read.
const ALL_IS_GONE: &str =
    "all that was there was freed and used again meanwhile: try once more, or with --follow";

/// What is shown of a frame, if anything is asked for.
fn row(frame: &Frame, arguments: &DumpArguments, is_raft: bool) -> Option<FrameRow> {
    if !is_asked_for(frame, arguments) {
        return None;
    }
    let index = arguments.index.as_ref();
    let preview = Preview { bytes_max: arguments.preview, is_hex: arguments.hex };
    let mut row = FrameRow::of(frame);
    match (frame.kind, &frame.body) {
        (FrameKind::Entries, Ok(_)) => {
            row.entries = frame
                .entries()
                .into_iter()
                .filter(|(number, _)| index.is_none_or(|asked| asked.contains(number)))
                .map(|(number, bytes)| entry_row(number, frame.term, bytes, is_raft, preview))
                .collect();
        }
        (FrameKind::State, Ok(body)) => row.state = Some(state_row(body, preview)),
        (FrameKind::Checkpoint, Ok(_)) => {
            row.logs =
                frame.checkpoint().map(|(log, bounds)| log_row(log, bounds, preview)).collect();
        }
        _ => {}
    }
    Some(row)
}

fn is_asked_for(frame: &Frame, arguments: &DumpArguments) -> bool {
    let DumpArguments { logs, kinds, index, term, lsn, .. } = arguments;
    let of_an_asked_log = belongs_to_a_log(frame.kind) && logs.contains(&frame.log.0);
    let end = frame.first_index.saturating_add(u64::from(frame.count));
    let is_entries = frame.kind == FrameKind::Entries;
    (logs.is_empty() || of_an_asked_log)
        && (kinds.is_empty() || kinds.contains(&Kind::from(frame.kind)))
        && lsn.as_ref().is_none_or(|asked| asked.contains(&frame.lsn.0))
        && term.as_ref().is_none_or(|asked| is_entries && asked.contains(&frame.term))
        && index.as_ref().is_none_or(|asked| {
            is_entries && frame.first_index <= *asked.end() && *asked.start() < end
        })
}

fn entry_row(index: u64, term: u64, bytes: Bytes, is_raft: bool, preview: Preview) -> EntryRow {
    let length = bytes.len();
    let (raft, unexplained) = if is_raft {
        let (raft, unexplained) = RaftEntry::read(index, term, bytes);
        (Some(raft), unexplained)
    } else {
        (None, Some(bytes))
    };
    let payload = unexplained.map_or_else(Payload::none, |bytes| Payload::of(&bytes, preview));
    EntryRow { index, bytes: length, raft, payload }
}

fn log_row(log: LogId, bounds: Bounds, preview: Preview) -> LogRow {
    LogRow {
        log: log.0,
        first_index: bounds.first,
        last_index: bounds.last,
        term_before: bounds.term_before,
        runs: bounds.runs().to_vec(),
        state: bounds.state.map(|state| state_row(&state, preview)),
    }
}

fn state_row(body: &Bytes, preview: Preview) -> StateRow {
    let (raft, raft_unreadable) = match RaftState::read(body) {
        None => (None, None),
        Some(Ok(raft)) => (Some(raft), None),
        Some(Err(reason)) => (None, Some(reason)),
    };
    let payload = if raft.is_some() { Payload::none() } else { Payload::of(body, preview) };
    StateRow { bytes: body.len(), raft, raft_unreadable, payload }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kontiki_wal::{AppendError, Wal};

    use super::*;

    /// Appends until so many segments were sealed.
    fn fill(wal: &Wal, sealed: u64) {
        let log = wal.log(LogId(1)).unwrap();
        while wal.statistics().sealed_segments < sealed {
            match log.push("a line that is dumped".repeat(4)) {
                Ok((_, pending)) => drop(pending),
                Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn remark_of(look: &Look, limit: u64) -> Option<&'static str> {
        let arguments =
            DumpArguments { lsn: Some(0..=limit), preview: 0, ..DumpArguments::default() };
        let mut printer = Printer::new(&arguments);
        printer.show_all(look).unwrap();
        printer.remark(Outcome::Whole)
    }

    /// WAL-CASE 41: it is not said that nothing fits what was asked for.
    #[test]
    fn a_dump_from_which_everything_was_taken_says_so() {
        let directory = tempfile::TempDir::new().unwrap();
        let wal = Wal::options().segment_bytes(16 << 10).without_threads();
        let wal = wal.open(directory.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        fill(&wal, 1);
        let look = Look::at(directory.path()).unwrap();
        assert_eq!(remark_of(&look, 0), None, "the first frame is shown");
        for sealed in 2..12 {
            drop(log.compact_before(log.last()).unwrap());
            fill(&wal, sealed);
        }
        assert!(wal.statistics().recycled_segments > 4, "{:?}", wal.statistics());
        assert_eq!(remark_of(&look, u64::MAX), Some(ALL_IS_GONE));
    }
}
