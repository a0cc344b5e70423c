//! How a node stands, as a copy.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use kontiki_wal::{Statistics, Wal};
use parking_lot::Mutex;

use crate::Position;

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
    /// Whom it follows, with the address peers use.
    pub leader: Option<(u64, String)>,
    /// Its newest entry.
    pub last: Position,
    /// Everything up to this index is on its own disk.
    pub durable: u64,
    /// Everything up to this index is on the disks of a quorum, as far as it knows.
    pub committed: u64,
    /// Everything up to this index is in its state machine.
    pub applied: u64,
    /// The members of the cluster with their addresses.
    pub members: Vec<(u64, String)>,
    /// Files of its log.
    pub log_segments: u64,
    /// Syncs of its log since it was started.
    pub log_syncs: u64,
    /// What failed, if the node did.
    pub fatal: Option<Arc<str>>,
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

/// Where the parts of a node write down how they stand.
#[derive(Debug)]
pub(crate) struct Board {
    status: Mutex<Status>,
    applied: AtomicU64,
    /// For its statistics; given back when the node stops, because it holds the directory's lock.
    wal: Mutex<Option<Wal>>,
}

impl Board {
    pub(crate) fn new(id: u64, incarnation: u64, wal: Wal) -> Self {
        Self {
            status: Mutex::new(Status {
                id,
                cluster: 0,
                incarnation,
                role: Role::Starting,
                term: 0,
                leader: None,
                last: Position::default(),
                durable: 0,
                committed: 0,
                applied: 0,
                members: Vec::new(),
                log_segments: 0,
                log_syncs: 0,
                fatal: None,
            }),
            applied: AtomicU64::new(0),
            wal: Mutex::new(Some(wal)),
        }
    }

    /// Changes what the driver knows.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock());
    }

    pub(crate) fn set_applied(&self, index: u64) {
        self.applied.store(index, Ordering::Release);
    }

    pub(crate) fn release_wal(&self) {
        if let Some(wal) = self.wal.lock().take() {
            self.update(|status| take_statistics(status, wal.statistics()));
        }
    }

    pub(crate) fn status(&self) -> Status {
        let mut status = self.status.lock().clone();
        // Read after the rest: what is applied is never ahead of what it is told to be applied of.
        status.applied = self.applied.load(Ordering::Acquire);
        status.committed = status.committed.max(status.applied);
        if let Some(wal) = &*self.wal.lock() {
            take_statistics(&mut status, wal.statistics());
        }
        status
    }
}

fn take_statistics(status: &mut Status, statistics: Statistics) {
    status.log_segments = statistics.segments;
    status.log_syncs = statistics.syncs;
}
