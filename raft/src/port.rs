//! Where the transport hands in what peers say.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;

use crate::{
    Event,
    bootstrap::{Identity, Judgement},
    envelope,
    inbox::Mail,
    limiter::Limiter,
    shared::Shared,
    storage::GROUP,
    transport::{Hello, Inbound},
};

/// Judges and decodes on the transport's threads and leaves the rest to the driver.
#[derive(Debug)]
pub(crate) struct Port {
    shared: Arc<Shared>,
    identity: Arc<Identity>,
    /// Of those that this node refuses; the transport limits what it tells by itself.
    refusals: Limiter,
}

impl Port {
    pub(crate) fn new(shared: Arc<Shared>, identity: Arc<Identity>) -> Self {
        Self { shared, identity, refusals: Limiter::default() }
    }

    fn report(&self, now: Instant, reason: &str) {
        if let Some(reason) = self.refusals.pass(now, reason.to_owned()) {
            self.tell(reason);
        }
    }

    fn tell(&self, reason: String) {
        tracing::warn!(node = self.shared.id, reason, "a connection was refused");
        self.shared.events.tell(Event::PeerRefused { reason });
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
                self.report(Instant::now(), &reason);
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
        self.tell(reason.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use kontiki_core::State;
    use kontiki_disk::memory::MemoryDisk;

    use super::*;
    use crate::{Options, storage::Storage};

    #[test]
    fn a_refusal_is_told_less_and_less_often() {
        let (options, disk) = (Options::default(), Arc::new(MemoryDisk::new()));
        let storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
        let shared = Arc::new(Shared::new(1, &options, &storage));
        let identity = Arc::new(Identity::new(1, Vec::new(), &State::default(), true));
        let port = Port::new(shared.clone(), identity);
        let mut events = shared.events.receiver();
        let start = Instant::now();
        let mut told = |reason: &str, second: u64| {
            port.report(start + Duration::from_secs(second), reason);
            events.next_timeout(Duration::ZERO).is_some()
        };
        assert!(told("a", 1));
        assert!(told("b", 30));
        assert!(!told("a", 60));
        assert!(told("a", 61));
        assert!(!told("a", 180), "two minutes from the last time it was told");
        assert!(told("a", 181));
    }
}
