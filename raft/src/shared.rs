//! What all parts of a node share.

use std::sync::Arc;

use kontiki_core::LogIndex;
use kontiki_wal::ReadError;

use crate::{
    Event, Options, board::Board, clock::Clock, end::End, entropy::Entropy, error::Closing,
    events::EventHub, inbox::Inbox, storage::Storage,
};

/// The parts of a node that every thread of it may use: each has its own lock, none is held while
/// another one is taken.
pub(crate) struct Shared {
    pub(crate) id: u64,
    pub(crate) options: Options,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) inbox: Inbox,
    pub(crate) events: EventHub,
    pub(crate) board: Board,
    pub(crate) end: End,
}

impl Shared {
    /// With the clock and the random numbers of the process.
    #[cfg(test)]
    pub(crate) fn new(id: u64, options: &Options, storage: &Storage) -> Self {
        Self::with(id, options, storage, Clock::start(), Entropy::System)
    }

    pub(crate) fn with(
        id: u64,
        options: &Options,
        storage: &Storage,
        clock: Clock,
        entropy: Entropy,
    ) -> Self {
        Self {
            id,
            clock,
            entropy,
            inbox: Inbox::new(options),
            events: EventHub::new(options.events_max),
            board: Board::new(id, storage.state.incarnation.0, storage.wal.clone()),
            end: End::default(),
            options: options.clone(),
        }
    }

    /// What is wrong with the own log at `index`; damage is written down as such, for the node fails
    /// of it.
    pub(crate) fn cannot_read(&self, index: LogIndex, error: &ReadError) -> String {
        if let ReadError::Corruption(corruption) = error {
            self.board.update(|status| status.corruption = Some(corruption.clone()));
        }
        format!("cannot read index {index} of the own log: {error}")
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

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}
