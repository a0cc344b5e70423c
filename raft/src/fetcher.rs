//! The thread that reads older entries from the log, and pieces of images, for followers that are behind.

use std::{collections::VecDeque, sync::Arc};

use kontiki_core::{Entry, FetchId, LogIndex};
use kontiki_snapshot::{Image, StoreError};
use kontiki_wal::{Log, ReadError};
use parking_lot::{Condvar, Mutex};

use crate::{
    inbox::Completion,
    shared::Shared,
    snapshots::{
        self,
        download::{PIECE_BYTES_MAX, Piece},
    },
    storage,
};

/// What is to be read for a follower.
#[derive(Debug)]
pub(crate) enum Fetch {
    /// Entries of the log, for the protocol.
    Entries { id: FetchId, first: LogIndex, end: LogIndex, bytes_max: usize },
    /// A piece of an image.
    Piece { to: u64, image: Image, offset: u64, bytes: usize },
}

/// Pieces of images that wait to be read; whoever wants more asks again.
pub(crate) const PIECES_MAX: usize = 64;

/// The queue into the fetcher; the protocol asks for at most one piece of the log per follower at a time.
#[derive(Default)]
pub(crate) struct FetchQueue {
    state: Mutex<(VecDeque<Fetch>, bool)>,
    arrived: Condvar,
}

impl FetchQueue {
    pub(crate) fn push(&self, fetch: Fetch) {
        let mut state = self.state.lock();
        let is_piece = |fetch: &Fetch| matches!(fetch, Fetch::Piece { .. });
        if is_piece(&fetch) && state.0.iter().filter(|other| is_piece(other)).count() >= PIECES_MAX
        {
            return;
        }
        state.0.push_back(fetch);
        drop(state);
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
        step(shared, log, fetch);
    }
}

/// Reads what is wanted.
pub(crate) fn step(shared: &Shared, log: &Log, fetch: Fetch) {
    match fetch {
        Fetch::Entries { id, first, end, bytes_max } => {
            let entries = read_entries(shared, log, first, end, bytes_max);
            shared.inbox.complete(Completion::Fetched(id, entries));
        }
        Fetch::Piece { to, image, offset, bytes } => match read_piece(&image, offset, bytes) {
            Ok(piece) => shared.inbox.complete(Completion::Piece(to, piece)),
            // What cannot be read is no better than what is damaged.
            Err(error) => shared.inbox.complete(Completion::ImageDamaged(image, error)),
        },
    }
}

fn read_piece(image: &Image, offset: u64, bytes: usize) -> Result<Piece, StoreError> {
    let mut bytes = vec![0; bytes.min(PIECE_BYTES_MAX)];
    let count = image.read_piece(offset, &mut bytes)?;
    bytes.truncate(count);
    let at = snapshots::position(image.header().place);
    Ok(Piece { at, total: image.bytes(), offset, bytes: bytes.into() })
}

/// The protocol checks the terms of what comes: it may be another leader's now. Damage ends the node.
fn read_entries(
    shared: &Shared,
    log: &Log,
    first: LogIndex,
    end: LogIndex,
    bytes_max: usize,
) -> Result<Vec<Entry>, ()> {
    storage::read(log, first, end, bytes_max).map_err(|error| {
        let (node, cause) = (shared.id, shared.cannot_read(first, &error));
        if matches!(error, ReadError::Corruption(_)) {
            // It does not pass, and the others have the entry; somebody else shall lead.
            shared.inbox.complete(Completion::Failed(cause.into()));
        } else {
            tracing::error!(node, cause, "cannot send entries to a follower");
        }
    })
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
        let fetch =
            |first| Fetch::Entries { id: FetchId(1), first, end: LogIndex(6), bytes_max: 1 << 20 };
        let completions = |first| {
            step(&shared, &storage.log, fetch(LogIndex(first)));
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
