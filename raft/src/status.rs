//! How a node stands, as a copy.

use std::sync::Arc;

use crate::{Corruption, Position};

/// How a node stands; a copy of what it knew after its last turn.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The node.
    pub id: u64,
    /// Its cluster; 0 before the first start is complete.
    pub cluster: u64,
    /// The number its disk was given when it was empty.
    pub incarnation: u64,
    /// What it is.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Whom it follows, itself when it leads: the id, and the address peers use. None while its connection is lost, and then until
    /// it is heard as leader again: it may have been started anew.
    pub leader: Option<(u64, String)>,
    /// Its newest entry.
    pub last: Position,
    /// Everything up to this index is on its own disk.
    pub durable: u64,
    /// Everything up to this index is on the disks of a quorum, as far as it knows.
    pub committed: u64,
    /// Everything up to this index is in its state machine.
    pub applied: u64,
    /// The last entry of its newest snapshot; 0/0 if there is none.
    pub snapshot: Position,
    /// The index of the first entry that its log holds.
    pub log_first: u64,
    /// The members of the cluster with their addresses.
    pub members: Vec<(u64, String)>,
    /// Members that answer as nodes of another cluster: the data directory of one side is not where
    /// it belongs. Each leaves the list when it says something else.
    pub foreign_members: Vec<u64>,
    /// When leader: every other member, as it was at the last heartbeat, in ascending order of ids.
    pub followers: Vec<FollowerStatus>,
    /// Files of its log.
    pub log_segments: u64,
    /// Syncs of its log since it was started.
    pub log_syncs: u64,
    /// Why the disk takes no writes of this node, in words, while that lasts: it is full, say. They
    /// wait, and go on by themselves. See [`Event::WritesHeld`](crate::Event::WritesHeld).
    pub writes_held: Option<Arc<str>>,
    /// What failed, if the node did.
    pub fatal: Option<Arc<str>>,
    /// The damage in its log that it failed of: the same directory will not do again.
    pub corruption: Option<Corruption>,
}

/// A follower as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FollowerStatus {
    /// The follower.
    pub id: u64,
    /// How it is served.
    pub mode: FollowerMode,
    /// Everything up to this index is on its disk; 0 as long as it has not answered this leader.
    pub matched: u64,
    /// How many entries lie behind that.
    pub lag: u64,
    /// Entries that it took in, a second, over the last second or a little more.
    pub rate: u64,
    /// Messages with entries that are on their way to it.
    pub inflight_messages: usize,
    /// What those weigh.
    pub inflight_bytes: usize,
    /// Where the furthest piece begins that it has asked for of the snapshot that it is getting, in bytes; 0 if it is getting none.
    pub snapshot_bytes_asked: u64,
    /// All bytes of that snapshot; 0 if it is getting none.
    pub snapshot_bytes: u64,
    /// It lacks entries and gets none: [`Event::FollowerStalled`](crate::Event::FollowerStalled).
    pub is_stalled: bool,
    /// It has lost what it had acknowledged ([`Event::PeerRegressed`](crate::Event::PeerRegressed)), and counts for nothing.
    pub is_regressed: bool,
}

/// How a leader serves a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FollowerMode {
    /// Where the logs agree is being found out, one message at a time.
    Probe,
    /// Messages follow each other without waiting for answers.
    Replicate,
    /// It needs entries that are in the snapshot only, and gets that.
    Snapshot,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Waits for the first start to be complete.
    Starting,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks to be elected.
    Candidate,
    /// Leads.
    Leader,
    /// Has another disk than the one the cluster admitted: never votes, never leads.
    NotAdmitted,
    /// Shut down, or failed.
    Stopped,
}
