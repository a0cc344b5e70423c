//! One entry of the log, and the bytes it has on disk and on the wire.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{LogIndex, Position, Term};

/// What an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// A command of the application.
    Command,
    /// A leader's first entry of its term.
    Empty,
    /// A membership; its body is [`Configuration::encode`](crate::Configuration::encode).
    Configuration,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Place in the log.
    pub index: LogIndex,
    /// Term of the leader that made it.
    pub term: Term,
    /// What lies on disk and travels on the wire: one kind byte, then the body. Encoded once, when
    /// proposed, and shared by reference everywhere after. Never empty.
    pub payload: Bytes,
}

impl Entry {
    /// The payload of a command: the kind byte, then `command`. Copies the command once; the
    /// results for a batch may be slices of one buffer that the caller built the same way.
    #[must_use]
    pub fn encode_command(command: &[u8]) -> Bytes {
        encode(COMMAND, command)
    }

    /// The payload of a leader's first entry.
    #[must_use]
    pub fn encode_empty() -> Bytes {
        Bytes::from_static(&[EMPTY])
    }

    /// The kind, or `None` for a byte this version does not know (or an empty payload).
    #[must_use]
    pub fn kind(&self) -> Option<EntryKind> {
        kind_of(&self.payload)
    }

    /// The body without the kind byte, by reference.
    #[must_use]
    pub fn body(&self) -> Bytes {
        if self.payload.is_empty() { Bytes::new() } else { self.payload.slice(1..) }
    }

    /// Term and index.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { term: self.term, index: self.index }
    }

    /// What the entry weighs against every bound in bytes: its payload and a fixed overhead, so
    /// that very many very small entries are bounded too.
    #[must_use]
    pub fn bytes(&self) -> usize {
        weight(&self.payload)
    }
}

/// The kind that a payload begins with.
pub(crate) fn kind_of(payload: &[u8]) -> Option<EntryKind> {
    match *payload.first()? {
        COMMAND => Some(EntryKind::Command),
        EMPTY => Some(EntryKind::Empty),
        CONFIGURATION => Some(EntryKind::Configuration),
        _ => None,
    }
}

/// What an entry with this payload weighs.
pub(crate) fn weight(payload: &[u8]) -> usize {
    payload.len() + OVERHEAD_BYTES
}

fn encode(kind: u8, body: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(1 + body.len());
    payload.put_u8(kind);
    payload.put_slice(body);
    payload.freeze()
}

/// Kind bytes; 0 is never valid, so that zeroed storage is not an entry.
const COMMAND: u8 = 1;
const EMPTY: u8 = 2;
const CONFIGURATION: u8 = 3;

/// About what an entry costs in memory beside its payload.
pub(crate) const OVERHEAD_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: Bytes) -> Entry {
        Entry { index: LogIndex(1), term: Term(1), payload }
    }

    #[test]
    fn a_command_comes_back_without_its_kind_byte() {
        let command = entry(Entry::encode_command(b"set a"));
        assert_eq!(command.kind(), Some(EntryKind::Command));
        assert_eq!(command.body(), "set a");
    }

    #[test]
    fn unknown_and_missing_kinds_are_none() {
        assert_eq!(entry(Bytes::from_static(&[0, 1])).kind(), None);
        assert_eq!(entry(Bytes::from_static(&[9])).kind(), None);
        assert_eq!(entry(Bytes::new()).kind(), None);
        assert_eq!(entry(Bytes::new()).body(), "");
    }

    #[test]
    fn kind_bytes_are_part_of_the_format_and_stay() {
        assert_eq!(Entry::encode_command(b"x"), &[1, b'x'][..]);
        assert_eq!(Entry::encode_empty(), &[2][..]);
        assert_eq!(kind_of(&[3]), Some(EntryKind::Configuration));
    }
}
