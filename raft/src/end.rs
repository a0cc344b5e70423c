//! The end of a node, for those who wait for it.

use parking_lot::Mutex;

use crate::slot::{Completer, Outcome, slot};

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
