//! A transport that can lose one kind of message on one link.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use kontiki::{Hello, Inbound, StartError, Transport};

/// Says which message of the protocol is lost; shared by the transports of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Muffle(Arc<Mutex<Option<Rule>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    from: u64,
    to: u64,
    kind: u8,
}

impl Muffle {
    /// From now on AppendEntries of `from` never reach `to`.
    pub(crate) fn lose_appends(&self, from: u64, to: u64) {
        *self.0.lock().unwrap() = Some(Rule { from, to, kind: APPEND_ENTRIES });
    }

    /// `inner`, which is node `id`'s, under this rule.
    pub(crate) fn over(&self, id: u64, inner: Box<dyn Transport>) -> Box<dyn Transport> {
        Box::new(Muffled { id, inner, muffle: self.clone() })
    }
}

#[derive(Debug)]
struct Muffled {
    id: u64,
    inner: Box<dyn Transport>,
    muffle: Muffle,
}

impl Transport for Muffled {
    fn start(&mut self, hello: Hello, inbound: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        self.inner.start(hello, inbound)
    }

    fn set_peers(&self, peers: &[(u64, String)]) {
        self.inner.set_peers(peers);
    }

    fn set_hello(&self, hello: Hello) {
        self.inner.set_hello(hello);
    }

    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        let first: Vec<u8> = message.iter().flatten().take(2).copied().collect();
        let lost = match first[..] {
            [PROTOCOL, kind] => {
                *self.muffle.0.lock().unwrap() == Some(Rule { from: self.id, to, kind })
            }
            _ => false,
        };
        lost || self.inner.send(to, group, message)
    }

    fn send_image(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        self.inner.send_image(to, group, message)
    }

    fn stop(&mut self) {
        self.inner.stop();
    }
}

/// Tags of PROTOCOL.md.
const PROTOCOL: u8 = 0;
const APPEND_ENTRIES: u8 = 3;
