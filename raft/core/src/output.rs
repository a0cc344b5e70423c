//! What the core asks of the runtime.
//!
//! Outputs carry no conditions: whatever must wait for the disk is held back by the core until
//! `handle_written`. The runtime keeps writes in order, applies in order, and is otherwise free.

use crate::{
    Batch, FetchId, LogIndex, Message, NodeId, Position, ReadId, Role, State, Term, WriteSeq,
};

/// One thing for the runtime to do now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// Append to the log, the state first, then the entries; a first index at or below the log's
    /// last replaces the suffix. Report `seq` once all of it is durable. Entries of one write may
    /// be of several terms.
    Write {
        /// Names the write.
        seq: WriteSeq,
        /// Replaces the log's state, if there is one.
        state: Option<State>,
        /// To append; may be empty.
        entries: Batch,
    },
    /// Drop all entries of the log, which goes on behind `at`, then write the state; in order with the
    /// writes. Report `seq` once that is durable. A snapshot that contains everything up to `at` is
    /// visible here: a start that finds it and not the reset does the same.
    Reset {
        /// Names the write.
        seq: WriteSeq,
        /// The place before the first entry that comes next.
        at: Position,
        /// Replaces the log's state.
        state: State,
    },
    /// Drop the entries up to `last` from the log, some time: a snapshot contains them.
    Compact {
        /// The newest entry that goes.
        last: LogIndex,
    },
    /// Get the newest snapshot of a peer, which contains at least everything up to `at`, make it visible
    /// here and call `handle_snapshot`; or `handle_snapshot_failed`. One of the same
    /// peer that is on its way goes on; one of another peer is given up.
    FetchSnapshot {
        /// Who has it.
        from: NodeId,
        /// What it contains at least.
        at: Position,
    },
    /// Send to a peer. May be lost, repeated or reordered.
    Send {
        /// The peer; not always a member: votes are answered to whoever asks.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// Hand to the state machine, in this order; then `handle_applied`.
    Apply(Apply),
    /// Read `first..end` from the log, as many entries as weigh at most `bytes_max` together
    /// ([`Entry::bytes`](crate::Entry::bytes)) but at least one, then `handle_fetched`. Every fetch is answered, if only with an error.
    Fetch {
        /// Names the fetch.
        id: FetchId,
        /// First entry wanted.
        first: LogIndex,
        /// After the last entry wanted.
        end: LogIndex,
        /// What the entries may weigh.
        bytes_max: usize,
    },
    /// A linearizable read may run once `index` is applied here.
    ReadReady {
        /// The read.
        id: ReadId,
        /// What it must see.
        index: LogIndex,
    },
    /// The read was not confirmed (no leader, leadership lost, too many reads, or no answer); the
    /// caller may ask again.
    ReadFailed {
        /// The read.
        id: ReadId,
    },
    /// Role, term or leader are not what they were after the previous input.
    RoleChanged {
        /// The role now.
        role: Role,
        /// The term now.
        term: Term,
        /// The leader now, as far as known.
        leader: Option<NodeId>,
    },
    /// A peer answered below what it had acknowledged: it lost its disk, or lies. It counts for
    /// nothing in this leadership any more. Said once per leadership.
    PeerRegressed {
        /// The peer.
        peer: NodeId,
        /// What it had acknowledged.
        matched: LogIndex,
        /// What it says it has now.
        reported: LogIndex,
    },
    /// Stop the node, loudly: going on would spread a broken invariant. The core answers to
    /// nothing after this.
    Halt {
        /// What is broken.
        reason: HaltReason,
    },
}

/// What the state machine is to take in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Apply {
    /// All of the newest snapshot that is visible here, which ends at `at`, in place of what the state machine
    /// holds.
    Snapshot {
        /// The last entry that it contains.
        at: Position,
    },
    /// From memory.
    Entries(Batch),
    /// To be read from the log by the applier itself; compaction waits for it. All of it is durable
    /// here, whatever writes are still on their way.
    Range {
        /// First entry.
        first: LogIndex,
        /// After the last entry.
        end: LogIndex,
    },
}

/// Which invariant of the protocol a message broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HaltReason {
    /// A leader's log contradicts an entry that is committed here.
    #[error("leader {leader} has term {theirs} at index {index}, where term {ours} is committed")]
    CommittedOverwritten {
        /// Where.
        index: LogIndex,
        /// The term committed here.
        ours: Term,
        /// The term the leader has there.
        theirs: Term,
        /// Who sent it.
        leader: NodeId,
    },
    /// A snapshot contradicts an entry that is committed here.
    #[error("a snapshot has term {theirs} at index {index}, where term {ours} is committed")]
    SnapshotContradicts {
        /// Where it ends.
        index: LogIndex,
        /// The term committed here.
        ours: Term,
        /// The term it has there.
        theirs: Term,
    },
    /// Two nodes lead in one term.
    #[error("node {second} leads in term {term}, which has the leader {first}")]
    TwoLeaders {
        /// The term.
        term: Term,
        /// The leader known here.
        first: NodeId,
        /// The other one.
        second: NodeId,
    },
}
