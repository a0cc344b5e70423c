//! The thread that reads older entries from the log, for followers that are behind.

use std::{collections::VecDeque, sync::Arc};

use kontiki_core::{FetchId, LogIndex};
use kontiki_wal::{Log, ReadError};
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

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().0.is_empty()
    }

    /// The next one, if one waits.
    pub(crate) fn pop(&self) -> Option<Fetch> {
        self.state.lock().0.pop_front()
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
/// Damage ends the node.
pub(crate) fn step(shared: &Shared, log: &Log, fetch: &Fetch) {
    let result = storage::read(log, fetch.first, fetch.end, fetch.bytes_max);
    let result = result.map_err(|error| {
        let (node, cause) = (shared.id, shared.cannot_read(fetch.first, &error));
        if matches!(error, ReadError::Corruption(_)) {
            // It does not pass, and the others have the entry; somebody else shall lead.
            shared.inbox.complete(Completion::Failed(cause.into()));
        } else {
            tracing::error!(node, cause, "cannot send entries to a follower");
        }
    });
    shared.inbox.complete(Completion::Fetched(fetch.id, result));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, inbox::Arrivals, storage::tests::open_with_damage};

    #[test]
    fn damage_met_for_a_follower_ends_the_node_that_has_it() {
        let options = Options::default();
        let storage = open_with_damage(&options);
        let shared = Shared::new(1, &options, &storage);
        let fetch = |first| Fetch { id: FetchId(1), first, end: LogIndex(6), bytes_max: 1 << 20 };
        let completions = |first| {
            step(&shared, &storage.log, &fetch(LogIndex(first)));
            let mut arrivals = Arrivals::default();
            shared.inbox.take(&mut arrivals);
            arrivals.completions
        };
        let whole = completions(1);
        let [Completion::Fetched(_, Ok(entries))] = &whole[..] else { panic!("{whole:?}") };
        assert_eq!(entries.len(), 2, "what is before it is whole");
        let damaged = completions(3);
        let [Completion::Failed(cause), Completion::Fetched(_, Err(()))] = &damaged[..] else {
            panic!("{damaged:?}")
        };
        assert!(cause.contains("index 3 "), "{cause}");
        assert!(shared.board.status().corruption.is_some());
    }
}
