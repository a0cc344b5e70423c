//! What an application implements.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// A deterministic state machine that every member of a cluster runs on the same commands.
///
/// One thread calls all of it; nothing here needs a lock.
pub trait StateMachine: Send + 'static {
    /// Takes in one command and returns the reply for whoever proposed it.
    ///
    /// Called in log order, each command once, on every member: the outcome may depend on nothing
    /// but the state and the command (no clock, no randomness, no iteration over unordered maps).
    /// After a restart the log is replayed behind the newest snapshot.
    ///
    /// # Errors
    /// A refusal is a reply, not an error. An error (or a panic) means that the state machine can
    /// not go on: the node stops with [`Event::Fatal`](crate::Event::Fatal) and the command does
    /// not count as applied. It stays in the log: every member that applies it fails alike, and
    /// again at each start, until the program takes it.
    fn apply(&mut self, context: &ApplyContext, command: &[u8]) -> io::Result<Bytes>;

    /// Captures the state, quickly; the writer that is returned runs on another thread.
    ///
    /// While it runs nothing is applied: what it returns should share the state, or be a copy that is made quickly. Called as
    /// the log grows (see [`snapshot_ratio`](crate::Options::snapshot_ratio)) and by [`Node::snapshot`](crate::Node::snapshot).
    ///
    /// # Errors
    /// The snapshot is given up; the node goes on, and its log grows. After a panic it stops.
    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>>;

    /// Replaces the whole state with the one that a [`SnapshotWriter`] wrote.
    ///
    /// Called before anything is applied, at a start, and later when this node was so far behind that its leader sent its own
    /// snapshot: then what it holds is that of an earlier index.
    ///
    /// # Errors
    /// The state is neither the old one nor the new one: the node stops.
    fn restore(&mut self, image: &mut dyn Read) -> io::Result<()>;

    /// For a state machine that keeps a disk of its own: the place of the newest command that it would still have after a power
    /// cut, with all before it, and 0/0 if it has none. `None`, which is provided, for one that lives in memory.
    ///
    /// Asked for once, at a start, which goes on right behind it if the log holds that place, and otherwise restores the newest
    /// snapshot. Such a state machine is given only commands that are durable in this node's own log, so it never knows more
    /// than that. What [`restore`](Self::restore) takes in counts up to the newest command that is in it, so an image carries the
    /// place of that; and only once all of it is durable: never in between.
    fn durable_position(&self) -> Option<Position> {
        None
    }
}

/// Writes a captured state out.
pub trait SnapshotWriter {
    /// Writes the whole image; what it means is the state machine's own affair.
    ///
    /// # Errors
    /// Passes on what `out` returns; the snapshot is given up then.
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()>;
}

/// What a state machine may know about the command it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApplyContext {
    /// Where the command lies in the log: the same on every member, growing, never repeated.
    pub position: Position,
}

/// A place in the replicated log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The leadership period the entry was proposed in, counted from 1.
    pub term: u64,
    /// The entry's index, counted from 1.
    pub index: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.term, self.index)
    }
}

impl From<kontiki_core::Position> for Position {
    fn from(position: kontiki_core::Position) -> Self {
        Self { term: position.term.0, index: position.index.0 }
    }
}
