//! Where a node stands, as a copy for the runtime to look at.

use alloc::vec::Vec;

use crate::{Configuration, LogIndex, NodeId, Position, Term, progress::Progress};

/// What a node is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads.
    Leader,
    /// Follows without a vote: a learner, or not in the configuration at all.
    Learner,
}

/// A copy of where a node stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// This node.
    pub id: NodeId,
    /// Its role.
    pub role: Role,
    /// Newest term seen.
    pub term: Term,
    /// The leader of the term, as far as known: none while it is in doubt.
    pub leader: Option<NodeId>,
    /// Last entry of the newest snapshot that is visible here; (0, 0) if there is none.
    pub snapshot: Position,
    /// Newest entry no longer in the log.
    pub compacted: Position,
    /// Newest entry the state machine has taken in.
    pub applied: LogIndex,
    /// Newest entry known to be committed.
    pub committed: LogIndex,
    /// Newest entry known to be on this node's disk.
    pub durable: LogIndex,
    /// Newest entry in the log.
    pub last: Position,
    /// The configuration in force.
    pub configuration: Configuration,
    /// When leader: every other member.
    pub followers: Vec<FollowerStatus>,
}

/// Where a node's log stands: of its status what changes with every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cursors {
    /// Newest entry known to be committed.
    pub committed: LogIndex,
    /// Newest entry known to be on this node's disk.
    pub durable: LogIndex,
    /// Newest entry in the log.
    pub last: Position,
}

/// How a leader serves a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FollowerMode {
    /// Where the logs agree is being found out, one message at a time.
    Probe,
    /// Messages follow each other without waiting for answers.
    Replicate,
    /// It needs entries that are in the snapshot only, and is offered that.
    Snapshot,
}

/// A follower as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FollowerStatus {
    /// The follower.
    pub id: NodeId,
    /// Everything up to here is on its disk.
    pub matched: LogIndex,
    /// The next entry to send.
    pub next: LogIndex,
    /// How it is served.
    pub mode: FollowerMode,
    /// Messages with entries on their way.
    pub inflight_messages: usize,
    /// What those weigh.
    pub inflight_bytes: usize,
    /// It has lost what it had acknowledged and counts for nothing.
    pub regressed: bool,
}

impl FollowerStatus {
    pub(crate) fn new(id: NodeId, progress: &Progress) -> Self {
        Self {
            id,
            matched: progress.matched,
            next: progress.next,
            mode: match progress.offered() {
                Some(_) => FollowerMode::Snapshot,
                None if progress.is_probing() => FollowerMode::Probe,
                None => FollowerMode::Replicate,
            },
            inflight_messages: progress.inflight_messages(),
            inflight_bytes: progress.inflight_bytes(),
            regressed: progress.regressed,
        }
    }
}
