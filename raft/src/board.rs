//! Where the parts of a node write down how they stand, for [`Status`] to be copied from.

use std::sync::atomic::{AtomicU64, Ordering};

use kontiki_wal::{Statistics, Wal};
use parking_lot::Mutex;

use crate::{Position, Role, Status};

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
                snapshot: Position::default(),
                log_first: 1,
                members: Vec::new(),
                foreign_members: Vec::new(),
                followers: Vec::new(),
                log_segments: 0,
                log_syncs: 0,
                writes_held: None,
                fatal: None,
                corruption: None,
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
