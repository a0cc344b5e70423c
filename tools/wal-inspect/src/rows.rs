//! What is shown of a frame: the same facts as a line of text or as JSON.

use std::io::{self, Write};

use bytes::Bytes;
use kontiki_wal::inspect::{Frame, FrameKind};
use serde::Serialize;

use crate::{
    arguments::Kind,
    outcome::corruption_line,
    place::{self, Entries, Place},
    raft::{RaftEntry, RaftState},
};

/// A frame. Facts that its kind does not have are left out.
#[derive(Debug, Serialize)]
pub(crate) struct FrameRow {
    #[serde(flatten)]
    place: Place,
    kind: &'static str,
    #[serde(flatten)]
    of: Entries,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<bool>,
    frame_bytes: u64,
    durable_lsn: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) entries: Vec<EntryRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) logs: Vec<LogRow>,
}

/// A log as a checkpoint has it.
#[derive(Debug, Serialize)]
pub(crate) struct LogRow {
    pub(crate) log: u32,
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
    pub(crate) term_before: u64,
    /// First index and term of each run of entries.
    pub(crate) runs: Vec<(u64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<StateRow>,
}

/// One entry of a frame.
#[derive(Debug, Serialize)]
pub(crate) struct EntryRow {
    pub(crate) index: u64,
    pub(crate) bytes: usize,
    /// What Raft reads in it, if the log is Raft's.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) raft: Option<RaftEntry>,
    #[serde(flatten)]
    pub(crate) payload: Payload,
}

/// The state of a log, as one frame sets it.
#[derive(Debug, Serialize)]
pub(crate) struct StateRow {
    pub(crate) bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raft: Option<RaftState>,
    /// Why what has Raft's magic is not shown as Raft's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raft_unreadable: Option<String>,
    #[serde(flatten)]
    pub(crate) payload: Payload,
}

/// The beginning of some bytes: with everything escaped that is not printable ASCII, or in hexadecimal.
#[derive(Debug, Serialize)]
pub(crate) struct Payload {
    #[serde(rename = "payload", skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(rename = "payload_hex", skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    /// More bytes follow than are shown.
    #[serde(rename = "payload_cut", skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// How payloads are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Preview {
    /// Of each; 0 for nothing of any.
    pub(crate) bytes_max: usize,
    pub(crate) is_hex: bool,
}

impl FrameRow {
    /// The frame without what is in it.
    pub(crate) fn of(frame: &Frame) -> Self {
        let is_entries = frame.kind == FrameKind::Entries;
        let belongs_to_a_log = belongs_to_a_log(frame.kind);
        let has_index = is_entries
            || matches!(frame.kind, FrameKind::Truncate | FrameKind::Compact | FrameKind::Reset);
        Self {
            place: Place {
                segment: Some(frame.segment),
                file: frame.file.clone(),
                offset: frame.offset,
                lsn: Some(frame.lsn.0),
            },
            kind: Kind::from(frame.kind).name(),
            of: Entries {
                log: belongs_to_a_log.then_some(frame.log.0),
                first_index: has_index.then_some(frame.first_index),
                last_index: is_entries.then(|| place::last_index(frame)),
                term: (has_index && frame.kind != FrameKind::Truncate).then_some(frame.term),
            },
            closed: (frame.kind == FrameKind::Mark).then_some(frame.closed),
            frame_bytes: frame.frame_bytes,
            durable_lsn: frame.durable_lsn.0,
            damage: frame.body.as_ref().err().map(corruption_line),
            entries: Vec::new(),
            state: None,
            logs: Vec::new(),
        }
    }

    /// A line for the frame and an indented one for each thing in it.
    pub(crate) fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = format!("segment {} offset {}", self.place.file, self.place.offset);
        place::push(&mut line, "lsn", self.place.lsn);
        line.push_str(&format!(" {}", self.kind));
        self.of.push_text(&mut line);
        if self.closed == Some(true) {
            line.push_str(" closed");
        }
        place::push(&mut line, "frame_bytes", Some(self.frame_bytes));
        place::push(&mut line, "durable_lsn", Some(self.durable_lsn));
        writeln!(out, "{line}")?;
        if let Some(damage) = &self.damage {
            writeln!(out, "  damaged: {damage}")?;
        }
        for entry in &self.entries {
            entry.write_text(out)?;
        }
        if let Some(state) = &self.state {
            writeln!(out, "  {}", state.text())?;
        }
        for log in &self.logs {
            log.write_text(out)?;
        }
        Ok(())
    }
}

impl LogRow {
    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = format!("  log {}", self.log);
        if self.first_index <= self.last_index {
            place::push(&mut line, "index", Some(place::range(self.first_index, self.last_index)));
        } else {
            line.push_str(&format!(" empty, next index {}", self.first_index));
        }
        place::push(&mut line, "term_before", Some(self.term_before));
        for (first, term) in &self.runs {
            line.push_str(&format!(" from {first} term {term}"));
        }
        if let Some(state) = &self.state {
            line.push_str(&format!(" {}", state.text()));
        }
        writeln!(out, "{line}")
    }
}

impl EntryRow {
    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let mut line = format!("  index {}", self.index);
        if let Some(raft) = &self.raft {
            line.push(' ');
            line.push_str(&raft.text());
        }
        place::push(&mut line, "bytes", Some(self.bytes));
        self.payload.push_text(&mut line);
        writeln!(out, "{line}")
    }
}

impl StateRow {
    fn text(&self) -> String {
        let mut text = match (&self.raft, &self.raft_unreadable) {
            (Some(raft), _) => format!("state {}", raft.text()),
            (None, Some(reason)) => format!("raft state, unreadable: {reason}"),
            (None, None) => "state".to_owned(),
        };
        place::push(&mut text, "bytes", Some(self.bytes));
        self.payload.push_text(&mut text);
        text
    }
}

impl Payload {
    /// Shows the beginning of `bytes`.
    pub(crate) fn of(bytes: &Bytes, Preview { bytes_max, is_hex }: Preview) -> Self {
        if bytes_max == 0 {
            return Self::none();
        }
        let shown = &bytes[..bytes.len().min(bytes_max)];
        let text = (!is_hex).then(|| shown.escape_ascii().to_string());
        Self { text, hex: is_hex.then(|| place::hex(shown)), cut: shown.len() < bytes.len() }
    }

    /// For what was shown in another way.
    pub(crate) fn none() -> Self {
        Self { text: None, hex: None, cut: false }
    }

    fn push_text(&self, line: &mut String) {
        let more = if self.cut { "..." } else { "" };
        if let Some(text) = &self.text {
            line.push_str(&format!(" \"{text}\"{more}"));
        }
        if let Some(hex) = &self.hex {
            line.push_str(&format!(" hex {hex}{more}"));
        }
    }
}

/// Others belong to the whole stream.
pub(crate) fn belongs_to_a_log(kind: FrameKind) -> bool {
    use FrameKind::{Checkpoint, Freed, Mark, Opened, SegmentStart};
    !matches!(kind, SegmentStart | Checkpoint | Mark | Opened | Freed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_cut_and_escaped() {
        let bytes = Bytes::from_static(b"a\"\x1b[31m\n\xff");
        let shown = |bytes_max, is_hex| {
            let mut line = String::new();
            Payload::of(&bytes, Preview { bytes_max, is_hex }).push_text(&mut line);
            line
        };
        assert_eq!(shown(64, false), r#" "a\"\x1b[31m\n\xff""#);
        assert_eq!(shown(2, false), r#" "a\""..."#);
        assert_eq!(shown(0, false), "");
        assert_eq!(shown(64, true), " hex 61221b5b33316d0aff");
        assert_eq!(shown(3, true), " hex 61221b...");
        assert_eq!(shown(0, true), "");
    }
}
