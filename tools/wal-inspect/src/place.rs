//! Words for places in a log and for bytes, the same in every line that is printed.

use std::fmt::{Display, Write};

use kontiki_wal::{Corruption, inspect::Frame};
use serde::Serialize;

/// Where something lies. What is not known is left out.
#[derive(Debug, Serialize)]
pub(crate) struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) segment: Option<u64>,
    pub(crate) file: String,
    pub(crate) offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lsn: Option<u64>,
}

/// The log that something is of, and its entries. What it does not have, or is not known, is left out.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Entries {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term: Option<u64>,
}

impl Place {
    /// In the file of a segment.
    pub(crate) fn new(file: &str, offset: u64, lsn: Option<u64>) -> Self {
        Self { segment: segment_number(file), file: file.to_owned(), offset, lsn }
    }
}

impl Entries {
    /// What is known to be lost with it.
    pub(crate) fn of(found: &Corruption) -> Self {
        Self {
            log: found.log.map(|log| log.0),
            first_index: found.indexes.map(|(first, _)| first),
            last_index: found.indexes.map(|(_, last)| last),
            term: found.term,
        }
    }

    pub(crate) fn push_text(&self, line: &mut String) {
        push(line, "log", self.log);
        let index = self.first_index.map(|first| match self.last_index {
            Some(last) => range(first, last),
            None => first.to_string(),
        });
        push(line, "index", index);
        push(line, "term", self.term);
    }
}

/// Appends ` name value` if there is a value.
pub(crate) fn push(line: &mut String, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        write!(line, " {name} {value}").expect("a String takes everything");
    }
}

/// The indexes from `first` to `last`, both included.
pub(crate) fn range(first: u64, last: u64) -> String {
    if first == last { format!("{first}") } else { format!("{first}..={last}") }
}

/// The number of a segment by its file's name, which has it in hexadecimal.
pub(crate) fn segment_number(file: &str) -> Option<u64> {
    u64::from_str_radix(file.strip_suffix(".wal")?, 16).ok()
}

/// The name of its file.
pub(crate) fn file_name(segment: u64) -> String {
    format!("{segment:016x}.wal")
}

/// Two digits for each byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a frame of entries. What a frame says of itself may be anything.
pub(crate) fn last_index(frame: &Frame) -> u64 {
    frame.first_index.saturating_add(u64::from(frame.count).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kontiki_wal::{LogId, Lsn, inspect::FrameKind};

    use super::*;
    use crate::rows::FrameRow;

    /// WAL-CASE 29
    #[test]
    fn a_frame_that_claims_more_indexes_than_there_are_is_shown_all_the_same() {
        let frame = Frame {
            segment: 1,
            file: "1.wal".to_owned(),
            offset: 4096,
            lsn: Lsn(0),
            kind: FrameKind::Entries,
            closed: false,
            log: LogId(1),
            first_index: u64::MAX - 1,
            count: 3,
            term: 1,
            durable_lsn: Lsn(0),
            frame_bytes: 64,
            body: Ok(Bytes::from_static(&[0; 12])),
        };
        assert_eq!(last_index(&frame), u64::MAX);
        let mut text = Vec::new();
        FrameRow::of(&frame).write_text(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains(" index 18446744073709551614..=18446744073709551615 "), "{text}");
    }
}
