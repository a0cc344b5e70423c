//! Where the transport hands in what peers say.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_core::Instant;
use parking_lot::Mutex;

use crate::{
    Event,
    bootstrap::{Identity, Judgement},
    envelope,
    inbox::Mail,
    shared::Shared,
    storage::GROUP,
    transport::{Hello, Inbound},
};

/// Judges and decodes on the transport's threads and leaves the rest to the driver.
#[derive(Debug)]
pub(crate) struct Port {
    shared: Arc<Shared>,
    identity: Arc<Identity>,
    /// The newest refusals and when they were told: a peer that tries again and again is told of
    /// once a minute.
    refusals: Mutex<VecDeque<(Instant, String)>>,
}

impl Port {
    pub(crate) fn new(shared: Arc<Shared>, identity: Arc<Identity>) -> Self {
        Self { shared, identity, refusals: Mutex::default() }
    }

    fn report(&self, now: Instant, reason: &str) {
        let mut refusals = self.refusals.lock();
        refusals.retain(|(told, _)| now < *told + REPEAT);
        if refusals.iter().any(|(_, known)| known == reason) {
            return;
        }
        if refusals.len() == REFUSALS_MAX {
            refusals.pop_front();
        }
        refusals.push_back((now, reason.to_owned()));
        drop(refusals);
        tracing::warn!(node = self.shared.id, reason, "a connection was refused");
        self.shared.events.tell(Event::PeerRefused { reason: reason.to_owned() });
    }
}

impl Inbound for Port {
    fn hello(&self, hello: Hello) -> Result<(), String> {
        match self.identity.judge(&hello) {
            Judgement::Accept => {
                // Of no use to a node that has a configuration; nobody may fill its inbox with it.
                if self.identity.is_starting() {
                    self.shared.inbox.mail(Mail::Hello(hello));
                }
                Ok(())
            }
            Judgement::Refuse(reason) => {
                self.report(self.shared.clock.now(), &reason);
                Err(reason)
            }
            Judgement::NotAdmitted(reason) => {
                let mail = Mail::NotAdmitted { peer: hello.node, reason: reason.clone() };
                self.shared.inbox.mail(mail);
                Err(reason)
            }
        }
    }

    fn message(&self, from: u64, group: u32, message: Bytes) -> Result<(), String> {
        if group != GROUP {
            return Err(format!("group {group} is not known here"));
        }
        let bytes = message.len();
        let envelope = envelope::decode(message)?;
        self.shared.inbox.mail(Mail::Message { from, envelope, bytes });
        Ok(())
    }

    fn contact(&self, from: u64) {
        self.shared.inbox.contact(from);
    }

    fn connected(&self, peer: u64) {
        self.shared.inbox.mail(Mail::Connected { peer });
    }

    fn disconnected(&self, peer: u64, reason: &str) {
        self.shared.inbox.mail(Mail::Disconnected { peer, reason: reason.to_owned() });
    }

    fn answers_lost(&self, peer: u64, _reason: &str) {
        self.shared.inbox.mail(Mail::AnswersLost { peer });
    }

    fn refused(&self, reason: &str) {
        self.report(self.shared.clock.now(), reason);
    }
}

const REFUSALS_MAX: usize = 32;
const REPEAT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kontiki_core::State;
    use kontiki_disk::memory::MemoryDisk;

    use super::*;
    use crate::{Options, storage::Storage};

    #[test]
    fn a_refusal_is_told_once_a_minute() {
        let (options, disk) = (Options::default(), Arc::new(MemoryDisk::new()));
        let storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
        let shared = Arc::new(Shared::new(1, &options, &storage));
        let identity = Arc::new(Identity::new(1, Vec::new(), &State::default(), true));
        let port = Port::new(shared.clone(), identity);
        let mut events = shared.events.receiver();
        let mut told = |reason: &str, second: u64| {
            port.report(Instant(second * 1_000_000_000), reason);
            events.next_timeout(Duration::ZERO).is_some()
        };
        assert!(told("a", 1));
        assert!(told("b", 30));
        assert!(!told("a", 60));
        assert!(told("a", 61));
        assert!(!told("a", 120), "a minute from the last time it was told");
        assert!(told("a", 121));
    }
}
