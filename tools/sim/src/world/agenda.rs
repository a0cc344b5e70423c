//! What happens in a world, and when.

use std::collections::BTreeMap;

use crate::world::{host::Actor, network::Sent};

/// What may happen next.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Act {
        host: usize,
        actor: Actor,
    },
    Start {
        host: usize,
    },
    Deliver(Box<Sent>),
    Connect,
    Break {
        a: u64,
        b: u64,
    },
    Operate {
        client: usize,
    },
    GiveUp {
        client: usize,
        serial: u64,
    },
    Strike {
        fault: usize,
    },
    Relent {
        fault: usize,
    },
    Heal,
    /// A look at every disk.
    Audit,
    Look,
}

/// All that is to happen: by the moment, and in one moment in the order in which it was planned.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BTreeMap<(u64, u64), Event>,
    added: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, event: Event) {
        self.added += 1;
        self.events.insert((at, self.added), event);
    }

    pub(super) fn pop(&mut self) -> Option<(u64, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}
