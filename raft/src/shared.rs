//! What all parts of a node share.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{
    Event, Options,
    error::Closing,
    events::EventHub,
    inbox::Inbox,
    proposal::Clock,
    slot::{Completer, Outcome, slot},
    status::Board,
    storage::Storage,
};

/// The parts of a node that every thread of it may use: each has its own lock, none is held while
/// another one is taken.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) inbox: Inbox,
    pub(crate) events: EventHub,
    pub(crate) board: Board,
    pub(crate) end: End,
}

impl Shared {
    pub(crate) fn new(id: u64, options: &Options, storage: &Storage) -> Self {
        Self {
            id,
            clock: Clock::start(),
            inbox: Inbox::new(options),
            events: EventHub::new(options.events_max),
            board: Board::new(id, storage.state.incarnation.0, storage.wal.clone()),
            end: End::default(),
            options: options.clone(),
        }
    }

    /// Ends the node because of a failure: nothing more is taken, acknowledged or sent.
    pub(crate) fn fail(&self, cause: Arc<str>) {
        if self.inbox.closed().is_some() {
            return;
        }
        tracing::error!(node = self.id, %cause, "the node failed and stops");
        self.board.update(|status| status.fatal = Some(cause.clone()));
        self.events.tell(Event::Fatal { cause: cause.clone() });
        self.inbox.close(Closing::Fatal(cause));
    }
}

/// The end of a node: when its threads are done and its directory is free.
#[derive(Default)]
pub(crate) struct End(Mutex<EndState>);

#[derive(Default)]
struct EndState {
    has_come: bool,
    waiting: Vec<Completer<()>>,
}

impl End {
    pub(crate) fn wait(&self) -> Outcome<()> {
        let mut state = self.0.lock();
        if state.has_come {
            return Outcome::ready(());
        }
        let (completer, outcome) = slot();
        state.waiting.push(completer);
        outcome
    }

    pub(crate) fn come(&self) {
        let mut state = self.0.lock();
        state.has_come = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for completer in waiting {
            completer.complete_and_wake(());
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}
