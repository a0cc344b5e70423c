//! A transport without sockets, for several nodes in one process.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    StartError,
    transport::{Hello, Inbound, Transport},
};

/// Connects the nodes of one process; for tests, examples and benchmarks.
///
/// What one node sends is at once in the other one's inbox, in order. Links can be cut and healed.
///
/// ```
/// let hub = kontiki::Loopback::new();
/// let transport = hub.transport(1); // for `Builder::transport` of node 1
/// # let _ = transport;
/// ```
#[derive(Clone, Default)]
pub struct Loopback {
    hub: Arc<Mutex<Hub>>,
}

#[derive(Default)]
struct Hub {
    nodes: BTreeMap<u64, Station>,
    /// Pairs whose link is cut, the lower id first.
    cut: BTreeSet<(u64, u64)>,
    /// Pairs that are connected, the lower id first.
    connected: BTreeSet<(u64, u64)>,
}

/// A node that is started.
struct Station {
    hello: Hello,
    inbound: Arc<dyn Inbound>,
    peers: BTreeSet<u64>,
}

impl Loopback {
    /// A hub without nodes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of node `id`.
    #[must_use]
    pub fn transport(&self, id: u64) -> Box<dyn Transport> {
        Box::new(LoopbackTransport { id, hub: self.hub.clone() })
    }

    /// Cuts the link between two nodes, in both directions; both see their connection lost.
    pub fn cut(&self, a: u64, b: u64) {
        let mut hub = self.hub.lock();
        hub.cut.insert(pair(a, b));
        hub.disconnect(a, b, "the link was cut");
    }

    /// Cuts every link of a node.
    pub fn isolate(&self, id: u64) {
        let others: Vec<u64> = self.hub.lock().nodes.keys().copied().collect();
        others.into_iter().filter(|other| *other != id).for_each(|other| self.cut(id, other));
    }

    /// Heals the link between two nodes; they are connected if both want to be.
    pub fn heal_link(&self, a: u64, b: u64) {
        let mut hub = self.hub.lock();
        hub.cut.remove(&pair(a, b));
        hub.connect_all();
    }

    /// Heals every link; nodes that want to be connected are.
    pub fn heal(&self) {
        let mut hub = self.hub.lock();
        hub.cut.clear();
        hub.connect_all();
    }
}

impl fmt::Debug for Loopback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hub = self.hub.lock();
        f.debug_struct("Loopback").field("connected", &hub.connected).finish_non_exhaustive()
    }
}

/// Calls into an [`Inbound`] are made under the hub's lock: they end in an inbox, which never calls
/// back. Messages are handed over without it.
impl Hub {
    /// Connects whoever wants to be, as far as both accept each other.
    fn connect_all(&mut self) {
        let pairs: Vec<(u64, u64)> = self
            .nodes
            .iter()
            .flat_map(|(id, station)| station.peers.iter().map(|peer| pair(*id, *peer)))
            .collect();
        for (a, b) in pairs {
            self.connect(a, b);
        }
    }

    fn connect(&mut self, a: u64, b: u64) {
        let is_possible =
            a != b && !self.cut.contains(&(a, b)) && !self.connected.contains(&(a, b));
        let (Some(of_a), Some(of_b)) = (self.nodes.get(&a), self.nodes.get(&b)) else { return };
        if is_possible && of_a.greets(of_b) {
            self.connected.insert((a, b));
            of_a.inbound.connected(b);
            of_b.inbound.connected(a);
        }
    }

    fn disconnect(&mut self, a: u64, b: u64, reason: &str) {
        if !self.connected.remove(&pair(a, b)) {
            return;
        }
        for (one, other) in [(a, b), (b, a)] {
            if let Some(station) = self.nodes.get(&one) {
                station.inbound.disconnected(other, reason);
                station.inbound.answers_lost(other, reason);
            }
        }
    }

    fn disconnect_all_of(&mut self, id: u64, reason: &str) {
        let of_id = self.connected.iter().filter(|(a, b)| *a == id || *b == id);
        for (a, b) in of_id.copied().collect::<Vec<_>>() {
            self.disconnect(a, b, reason);
        }
    }
}

impl Station {
    /// Both say hello; true if both accept. Each hears the other also when it is refused, and both
    /// are told of a refusal.
    fn greets(&self, other: &Self) -> bool {
        let answer = other.inbound.hello(self.hello.clone());
        let own_answer = self.inbound.hello(other.hello.clone());
        for reason in [&answer, &own_answer].into_iter().filter_map(|answer| answer.as_ref().err())
        {
            self.inbound.refused(&format!("node {}: {reason}", other.hello.node));
            other.inbound.refused(&format!("node {}: {reason}", self.hello.node));
        }
        answer.is_ok() && own_answer.is_ok()
    }
}

/// One node's end of a [`Loopback`].
struct LoopbackTransport {
    id: u64,
    hub: Arc<Mutex<Hub>>,
}

impl Transport for LoopbackTransport {
    fn start(&mut self, hello: Hello, inbound: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        let mut hub = self.hub.lock();
        hub.disconnect_all_of(self.id, "the node was started again");
        hub.nodes.insert(self.id, Station { hello, inbound, peers: BTreeSet::new() });
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn set_peers(&self, peers: &[(u64, String)]) {
        let mut hub = self.hub.lock();
        if let Some(station) = hub.nodes.get_mut(&self.id) {
            station.peers = peers.iter().map(|(id, _)| *id).collect();
        }
        hub.connect_all();
    }

    fn set_hello(&self, hello: Hello) {
        let mut hub = self.hub.lock();
        let Some(station) = hub.nodes.get_mut(&self.id) else { return };
        station.hello = hello;
        let connected = hub.connected.iter().filter(|(a, b)| *a == self.id || *b == self.id);
        for (a, b) in connected.copied().collect::<Vec<_>>() {
            let other = if a == self.id { b } else { a };
            let (Some(ours), Some(theirs)) = (hub.nodes.get(&self.id), hub.nodes.get(&other))
            else {
                continue;
            };
            if let Err(reason) = theirs.inbound.hello(ours.hello.clone()) {
                ours.inbound.refused(&format!("node {other}: {reason}"));
                theirs.inbound.refused(&format!("node {}: {reason}", self.id));
                hub.disconnect(a, b, &reason);
            }
        }
        hub.connect_all();
    }

    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        let inbound = {
            let hub = self.hub.lock();
            if !hub.connected.contains(&pair(self.id, to)) {
                return false;
            }
            hub.nodes.get(&to).map(|station| station.inbound.clone())
        };
        let Some(inbound) = inbound else { return false };
        // Copied, as a network would: nobody's message keeps another node's log alive.
        if let Err(reason) = inbound.message(self.id, group, message.concat().into()) {
            let mut hub = self.hub.lock();
            hub.disconnect(self.id, to, &reason);
            hub.connect_all();
        }
        true
    }

    fn stop(&mut self) {
        let mut hub = self.hub.lock();
        hub.disconnect_all_of(self.id, "the node was stopped");
        hub.nodes.remove(&self.id);
    }
}

impl fmt::Debug for LoopbackTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopbackTransport").field("id", &self.id).finish_non_exhaustive()
    }
}

fn pair(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b))
}
