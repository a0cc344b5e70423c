//! Where the transport hands in what peers say.

use std::sync::Arc;

use bytes::Bytes;

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
}

impl Port {
    pub(crate) fn new(shared: Arc<Shared>, identity: Arc<Identity>) -> Self {
        Self { shared, identity }
    }
}

impl Inbound for Port {
    /// A refusal is not told here: the transport knows who it was, and calls `refused`.
    fn hello(&self, hello: Hello) -> Result<(), String> {
        let judgement = self.identity.judge(&hello);
        self.shared.board.update(|status| {
            status.foreign_members.retain(|member| *member != hello.node);
            if let Judgement::OtherCluster(_) = judgement {
                status.foreign_members.push(hello.node);
                status.foreign_members.sort_unstable();
            }
        });
        match judgement {
            Judgement::Accept => {
                // Of no use to a node that has a configuration; nobody may fill its inbox with it.
                if self.identity.is_starting() {
                    self.shared.inbox.mail(Mail::Hello(hello));
                }
                Ok(())
            }
            Judgement::Refuse(reason) | Judgement::OtherCluster(reason) => Err(reason),
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
        tracing::warn!(node = self.shared.id, reason, "a connection was refused");
        self.shared.events.tell(Event::PeerRefused { reason: reason.to_owned() });
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
    fn a_refusal_is_told_once_when_the_transport_tells_it() {
        let (options, disk) = (Options::default(), Arc::new(MemoryDisk::new()));
        let storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
        let shared = Arc::new(Shared::new(1, &options, &storage));
        let identity = Identity::new(1, Vec::new(), &State::default(), true);
        let same_id = identity.hello();
        let port = Port::new(shared.clone(), Arc::new(identity));
        let mut events = shared.events.receiver();
        let mut told = || events.next_timeout(Duration::ZERO);
        let reason = port.hello(same_id).unwrap_err();
        assert_eq!(told(), None);
        port.refused(&reason);
        assert_eq!(told(), Some(Event::PeerRefused { reason }));
        assert_eq!(told(), None);
    }
}
