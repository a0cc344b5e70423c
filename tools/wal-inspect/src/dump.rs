//! `dump`: the frames of a log, each with its place, and what they hold.

use std::io::{self, BufWriter, ErrorKind, Write};

use bytes::Bytes;
use kontiki_wal::{
    LogId,
    inspect::{Bounds, Frame, FrameKind, Scan},
};

use crate::{
    arguments::{DumpArguments, Format, Kind},
    look::{Look, log_directory},
    outcome::{Failure, Outcome},
    raft::{RaftEntry, RaftLogs, RaftState},
    rows::{EntryRow, FrameRow, LogRow, Payload, StateRow, belongs_to_a_log},
};

pub(crate) fn dump(arguments: &DumpArguments) -> Result<Outcome, Failure> {
    let look = Look::at(&log_directory(&arguments.directory))?;
    match write_frames(&look.scan, arguments, &mut BufWriter::new(io::stdout().lock())) {
        // The reader has seen enough, as in `| head`.
        Err(Failure::Write(error)) if error.kind() == ErrorKind::BrokenPipe => {
            return Ok(Outcome::Whole);
        }
        Ok(0) => {
            let _unheard = writeln!(io::stderr(), "wal-inspect: no frame is what was asked for");
        }
        result => drop(result?),
    }
    Ok(look.remark())
}

/// Returns how many frames were shown.
fn write_frames(
    scan: &Scan,
    arguments: &DumpArguments,
    out: &mut impl Write,
) -> Result<usize, Failure> {
    let mut raft_logs = RaftLogs::default();
    let limit = arguments.limit.unwrap_or(usize::MAX);
    let mut shown = 0;
    for frame in scan.frames() {
        let frame = frame?;
        raft_logs.observe(&frame);
        if shown == limit {
            break;
        }
        let Some(row) = row(&frame, arguments, raft_logs.contain(frame.log)) else { continue };
        shown += 1;
        match arguments.format {
            Format::Text => row.write_text(out)?,
            Format::Jsonl => {
                serde_json::to_writer(&mut *out, &row).map_err(io::Error::from)?;
                out.write_all(b"\n")?;
            }
        }
    }
    out.flush()?;
    Ok(shown)
}

/// What is shown of a frame, if anything is asked for.
fn row(frame: &Frame, arguments: &DumpArguments, is_raft: bool) -> Option<FrameRow> {
    let DumpArguments { logs, kinds, index, preview, .. } = arguments;
    let of_an_asked_log = belongs_to_a_log(frame.kind) && logs.contains(&frame.log.0);
    if !(logs.is_empty() || of_an_asked_log) {
        return None;
    }
    if !kinds.is_empty() && !kinds.contains(&Kind::from(frame.kind)) {
        return None;
    }
    if let Some(indexes) = index {
        let end = frame.first_index.saturating_add(u64::from(frame.count));
        let overlaps = frame.first_index <= *indexes.end() && *indexes.start() < end;
        if frame.kind != FrameKind::Entries || !overlaps {
            return None;
        }
    }
    let mut row = FrameRow::of(frame);
    match (frame.kind, &frame.body) {
        (FrameKind::Entries, Ok(_)) => {
            row.entries = frame
                .entries()
                .into_iter()
                .filter(|(number, _)| index.as_ref().is_none_or(|asked| asked.contains(number)))
                .map(|(number, bytes)| entry_row(number, frame.term, bytes, is_raft, *preview))
                .collect();
        }
        (FrameKind::State, Ok(body)) => row.state = Some(state_row(body, *preview)),
        (FrameKind::Checkpoint, Ok(_)) => {
            row.logs = frame
                .checkpoint()
                .into_iter()
                .map(|(log, bounds)| log_row(log, bounds, *preview))
                .collect();
        }
        _ => {}
    }
    Some(row)
}

fn entry_row(index: u64, term: u64, bytes: Bytes, is_raft: bool, preview: usize) -> EntryRow {
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

fn log_row(log: LogId, bounds: Bounds, preview: usize) -> LogRow {
    LogRow {
        log: log.0,
        first_index: bounds.first,
        last_index: bounds.last,
        term_before: bounds.term_before,
        runs: bounds.runs,
        state: bounds.state.map(|state| state_row(&state, preview)),
    }
}

fn state_row(body: &Bytes, preview: usize) -> StateRow {
    let (raft, raft_unreadable) = match RaftState::read(body) {
        None => (None, None),
        Some(Ok(raft)) => (Some(raft), None),
        Some(Err(reason)) => (None, Some(reason)),
    };
    let payload = if raft.is_some() { Payload::none() } else { Payload::of(body, preview) };
    StateRow { bytes: body.len(), raft, raft_unreadable, payload }
}
