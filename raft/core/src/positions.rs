//! Numbers with types: nodes, terms, indexes, and the places they make.

use core::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Names a node, for as long as the cluster lives. Never 0.
    NodeId(u64)
}
number! {
    /// A random number that a node draws once per empty disk.
    Incarnation(u64)
}
number! {
    /// Hash of the first configuration: names the cluster.
    ClusterId(u64)
}
number! {
    /// Names a Raft group; equal to its log id. Every message carries it, in the transport's
    /// envelope.
    GroupId(u32)
}
number! {
    /// A leadership period, counted from 1; 0 is before the first.
    Term(u64)
}
number! {
    /// A place in the log, counted from 1; 0 stands before the first entry.
    LogIndex(u64)
}
number! {
    /// Counts the writes the core asked for, from 1. Never repeats within a process, so that a
    /// late completion vouches for nothing else.
    WriteSeq(u64)
}
number! {
    /// Names a read; chosen by the runtime, unique within a process.
    ReadId(u64)
}
number! {
    /// Names a fetch from the log; chosen by the core, never repeats within a process.
    FetchId(u64)
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LogIndex {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The index `count` entries further on.
    #[must_use]
    pub fn plus(self, count: usize) -> Self {
        Self(self.0 + count as u64)
    }

    /// How many entries lie after `earlier`, up to and with this one; 0 if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A place in a log with the term that makes it unique. Ordered as votes compare logs: term first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Term of the entry there.
    pub term: Term,
    /// Index of the entry.
    pub index: LogIndex,
}

impl Position {
    /// The entry with `index` that was made in `term`.
    #[must_use]
    pub fn new(term: u64, index: u64) -> Self {
        Self { term: Term(term), index: LogIndex(index) }
    }
}

impl fmt::Display for Position {
    /// `term/index`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_compare_by_term_before_index() {
        assert!(Position::new(2, 1) > Position::new(1, 9));
        assert!(Position::new(2, 2) > Position::new(2, 1));
    }

    #[test]
    fn nothing_lies_before_index_zero() {
        assert_eq!(LogIndex(0).previous(), LogIndex(0));
        assert_eq!(LogIndex(3).since(LogIndex(5)), 0);
    }
}
