//! The thread that reads older entries from the log, for followers that are behind.

use std::{collections::VecDeque, sync::Arc};

use kontiki_core::{FetchId, LogIndex};
use kontiki_wal::Log;
use parking_lot::{Condvar, Mutex};

use crate::{inbox::Completion, shared::Shared, storage};

/// One request of the protocol.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) id: FetchId,
    pub(crate) first: LogIndex,
    pub(crate) end: LogIndex,
    pub(crate) bytes_max: usize,
}

/// The queue into the fetcher; the protocol asks for at most one piece per follower at a time.
#[derive(Default)]
pub(crate) struct FetchQueue {
    state: Mutex<(VecDeque<Fetch>, bool)>,
    arrived: Condvar,
}

impl FetchQueue {
    pub(crate) fn push(&self, fetch: Fetch) {
        self.state.lock().0.push_back(fetch);
        self.arrived.notify_one();
    }

    /// The thread ends after what it does now.
    pub(crate) fn close(&self) {
        self.state.lock().1 = true;
        self.arrived.notify_one();
    }

    fn take(&self) -> Option<Fetch> {
        let mut state = self.state.lock();
        loop {
            if state.1 {
                return None;
            }
            if let Some(fetch) = state.0.pop_front() {
                return Some(fetch);
            }
            self.arrived.wait(&mut state);
        }
    }
}

/// The thread: reads what is asked for, until it is closed.
pub(crate) fn run(shared: &Shared, queue: &Arc<FetchQueue>, log: &Log) {
    while let Some(fetch) = queue.take() {
        step(shared, log, &fetch);
    }
}

/// Reads one piece. The protocol checks the terms of what comes: it may be another leader's now.
pub(crate) fn step(shared: &Shared, log: &Log, fetch: &Fetch) {
    let result = storage::read(log, fetch.first, fetch.end, fetch.bytes_max);
    if let Err(error) = &result {
        tracing::error!(node = shared.id, first = %fetch.first, %error, "cannot read the own log");
    }
    shared.inbox.complete(Completion::Fetched(fetch.id, result.map_err(drop)));
}
