//! The network between the nodes of a world: connections that are made and lost, and messages on their way. What becomes of
//! each is decided by the world; nothing here is late or lost by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kontiki::{Hello, Inbound, StartError, Transport};

/// Handles of one network are all the same one.
#[derive(Clone, Debug, Default)]
pub struct Network {
    hub: Arc<Mutex<Hub>>,
}

/// A message that a node has handed over.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Who sent it.
    pub from: u64,
    /// To whom.
    pub to: u64,
    /// As the transport was given it.
    pub group: u32,
    /// The same.
    pub message: Bytes,
    /// Between the two there is no order.
    pub lane: Lane,
    /// It has come before, some time ago.
    pub is_late: bool,
    /// Which of the connections from one to the other.
    connection: u64,
}

impl Sent {
    /// The same, some time later.
    pub fn again(self) -> Self {
        Self { is_late: true, ..self }
    }
}

/// What a message travels among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Messages.
    Messages,
    /// Pieces of images.
    Images,
}

#[derive(Debug, Default)]
struct Hub {
    /// The nodes that run.
    stations: BTreeMap<u64, Station>,
    /// By the lower and the higher id.
    connections: BTreeMap<(u64, u64), Connection>,
    sent: Vec<Sent>,
    made: u64,
    /// From whom to whom nothing is taken at the moment, and how many messages that were not.
    full: BTreeMap<(u64, u64), u32>,
    refused: u64,
}

#[derive(Debug)]
struct Station {
    /// Which of the lives of its node.
    life: u64,
    hello: Hello,
    inbound: Arc<dyn Inbound>,
    peers: BTreeSet<u64>,
}

/// As both ends know it, until each is told that it is lost.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// Of each direction, from the lower id first: by which its messages are known, or `None` if it is lost.
    ways: [Option<u64>; 2],
    /// The lives at its ends, of the lower id first.
    lives: [u64; 2],
}

impl Network {
    /// Without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transport of a node in one of its lives.
    pub fn transport(&self, id: u64, life: u64) -> Box<dyn Transport> {
        Box::new(End { id, life, network: self.clone() })
    }

    /// What was sent since the last call, in its order.
    pub fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut self.hub().sent)
    }

    /// From now on the queue from one to another takes nothing, or does again.
    pub fn set_full(&self, link: (u64, u64), is_full: bool) {
        let mut hub = self.hub();
        let holders = hub.full.entry(link).or_default();
        *holders = if is_full { *holders + 1 } else { holders.saturating_sub(1) };
    }

    /// No queue is full any more.
    pub fn heal(&self) {
        self.hub().full.clear();
    }

    /// How many messages have found a full queue since the last call.
    pub fn take_refused(&self) -> u64 {
        std::mem::take(&mut self.hub().refused)
    }

    /// Pairs of nodes of which one wants to be connected to the other, and is not; the lower id first.
    pub fn unconnected(&self) -> Vec<(u64, u64)> {
        let hub = self.hub();
        let wanted = hub.stations.iter().flat_map(|(&id, station)| {
            station.peers.iter().filter(move |&&peer| peer != id).map(move |&peer| pair(id, peer))
        });
        let wanted: BTreeSet<(u64, u64)> = wanted.collect();
        wanted.into_iter().filter(|&(a, b)| !hub.is_connected(a, b)).collect()
    }

    /// Lets two nodes say hello to each other; they are connected if both accept. What was left of an earlier connection is
    /// lost for whoever still believes in it; where only one direction is lost, only that one is made anew. False if one of them
    /// does not run, or refuses.
    pub fn connect(&self, a: u64, b: u64) -> bool {
        let (a, b) = pair(a, b);
        if !self.hub().has_one_way(a, b) {
            self.disconnect(a, b, "the peer connects anew");
        }
        let mut hub = self.hub();
        let (Some(of_a), Some(of_b)) = (hub.stations.get(&a), hub.stations.get(&b)) else {
            return false;
        };
        let (to_a, to_b) = (Arc::clone(&of_a.inbound), Arc::clone(&of_b.inbound));
        let answers = [to_b.hello(of_a.hello.clone()), to_a.hello(of_b.hello.clone())];
        for reason in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            to_a.refused(&format!("node {b}: {reason}"));
            to_b.refused(&format!("node {a}: {reason}"));
        }
        if answers.iter().any(Result::is_err) {
            return false;
        }
        let lives = [of_a.life, of_b.life];
        hub.made += 1;
        let number = hub.made;
        let known = hub.connections.entry((a, b)).or_insert(Connection { ways: [None; 2], lives });
        let is_new = known.ways.map(|way| way.is_none());
        known.ways = known.ways.map(|way| way.or(Some(number)));
        if is_new[0] {
            to_a.connected(b);
        }
        if is_new[1] {
            to_b.connected(a);
        }
        true
    }

    /// Tells both ends that their connection is lost; who does not run any more hears nothing.
    pub fn disconnect(&self, a: u64, b: u64, reason: &str) {
        let (a, b) = pair(a, b);
        let mut hub = self.hub();
        let Some(connection) = hub.connections.remove(&(a, b)) else { return };
        let [there, back] = connection.ways.map(|way| way.is_some());
        let ends =
            [(a, b, connection.lives[0], there, back), (b, a, connection.lives[1], back, there)];
        for (id, other, life, sends, hears) in ends {
            let Some(inbound) = hub.inbound(id, life) else { continue };
            if sends {
                inbound.disconnected(other, reason);
            }
            if hears {
                inbound.answers_lost(other, reason);
            }
        }
    }

    /// Tells both ends that nothing goes from one to the other any more; what goes the other way does. False if nothing went.
    pub fn break_way(&self, from: u64, to: u64) -> bool {
        let (a, b) = pair(from, to);
        let mut hub = self.hub();
        let Some(connection) = hub.connections.get_mut(&(a, b)) else { return false };
        if connection.ways.contains(&None) {
            return false;
        }
        let (side, lives) = (usize::from(from == b), connection.lives);
        connection.ways[side] = None;
        if let Some(inbound) = hub.inbound(from, lives[side]) {
            inbound.disconnected(to, "the world breaks one direction");
        }
        if let Some(inbound) = hub.inbound(to, lives[1 - side]) {
            inbound.answers_lost(from, "the world breaks one direction");
        }
        true
    }

    /// Whether there is a connection, even one that only one of them believes in.
    pub fn has_connection(&self, a: u64, b: u64) -> bool {
        self.hub().connections.contains_key(&pair(a, b))
    }

    /// Hands a message over, if its connection is still the one between the two.
    ///
    /// # Errors
    /// What the receiver says if it does not know such a message.
    pub fn deliver(&self, sent: &Sent) -> Result<bool, String> {
        let inbound = {
            let hub = self.hub();
            let (a, b) = pair(sent.from, sent.to);
            let connection = hub.connections.get(&(a, b));
            let way = usize::from(sent.from == b);
            let Some(connection) = connection.filter(|one| one.ways[way] == Some(sent.connection))
            else {
                return Ok(false);
            };
            let life = connection.lives[usize::from(sent.to == b)];
            let station = hub.stations.get(&sent.to).filter(|station| station.life == life);
            let Some(station) = station else { return Ok(false) };
            Arc::clone(&station.inbound)
        };
        // Copied, as a network would: no message keeps another node's log alive.
        let message = Bytes::copy_from_slice(&sent.message);
        inbound.message(sent.from, sent.group, message).map(|()| true)
    }

    /// A node runs no more. Its peers are not told: see [`Self::disconnect`].
    pub fn remove(&self, id: u64) {
        self.hub().stations.remove(&id);
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Both believe in their connection, in both directions.
    fn is_connected(&self, a: u64, b: u64) -> bool {
        self.ways(a, b).is_some_and(|ways| !ways.contains(&None))
    }

    /// Both believe in the direction from one to the other.
    fn sends(&self, from: u64, to: u64) -> bool {
        self.ways(from, to).is_some_and(|ways| ways[usize::from(from > to)].is_some())
    }

    /// Both believe in one direction of their connection, and know that the other one is lost.
    fn has_one_way(&self, a: u64, b: u64) -> bool {
        self.ways(a, b).is_some_and(|ways| ways.contains(&None))
    }

    /// The directions of a connection in which both believe.
    fn ways(&self, a: u64, b: u64) -> Option<[Option<u64>; 2]> {
        let (a, b) = pair(a, b);
        let life = |id| self.stations.get(&id).map(|station: &Station| station.life);
        let connection = self.connections.get(&(a, b))?;
        let is_of_both = [life(a), life(b)] == connection.lives.map(Some);
        is_of_both.then_some(connection.ways)
    }

    /// What a node hears in one of its lives, if that lasts.
    fn inbound(&self, id: u64, life: u64) -> Option<Arc<dyn Inbound>> {
        let station = self.stations.get(&id).filter(|station| station.life == life);
        station.map(|station| Arc::clone(&station.inbound))
    }
}

/// One node's end of the network.
struct End {
    id: u64,
    life: u64,
    network: Network,
}

impl Transport for End {
    fn start(&mut self, hello: Hello, inbound: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        let station = Station { life: self.life, hello, inbound, peers: BTreeSet::new() };
        self.network.hub().stations.insert(self.id, station);
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    fn set_peers(&self, peers: &[(u64, String)]) {
        if let Some(station) = self.network.hub().stations.get_mut(&self.id) {
            station.peers = peers.iter().map(|(id, _)| *id).collect();
        }
    }

    fn set_hello(&self, hello: Hello) {
        let (mut refused, mut heard) = (Vec::new(), Vec::new());
        {
            let mut hub = self.network.hub();
            let others: Vec<u64> = hub.stations.keys().copied().collect();
            let others = others.into_iter().filter(|&other| hub.sends(self.id, other));
            let connected: Vec<u64> = others.collect();
            let Some(station) = hub.stations.get_mut(&self.id) else { return };
            station.hello = hello.clone();
            for other in connected {
                heard.push((other, Arc::clone(&hub.stations[&other].inbound)));
            }
        }
        for (other, inbound) in heard {
            if let Err(reason) = inbound.hello(hello.clone()) {
                inbound.refused(&format!("node {}: {reason}", self.id));
                refused.push((other, reason));
            }
        }
        for (other, reason) in refused {
            self.network.disconnect(self.id, other, &reason);
        }
    }

    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        self.hand_over(to, group, message, Lane::Messages)
    }

    fn send_image(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        self.hand_over(to, group, message, Lane::Images)
    }

    fn stop(&mut self) {}
}

impl End {
    fn hand_over(&self, to: u64, group: u32, message: Vec<Bytes>, lane: Lane) -> bool {
        let is_piece = message.iter().flatten().next() == Some(&PIECE);
        assert_eq!(
            is_piece,
            lane == Lane::Images,
            "pieces travel by themselves, and nothing else does"
        );
        let mut hub = self.network.hub();
        let (a, b) = pair(self.id, to);
        let Some(connection) = hub.connections.get(&(a, b)).copied() else { return false };
        let side = usize::from(self.id == b);
        let Some(number) = connection.ways[side].filter(|_| connection.lives[side] == self.life)
        else {
            return false;
        };
        if hub.full.get(&(self.id, to)).is_some_and(|&holders| holders > 0) {
            hub.refused += 1;
            return false;
        }
        let (from, message, connection) = (self.id, message.concat().into(), number);
        hub.sent.push(Sent { from, to, group, message, lane, is_late: false, connection });
        true
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("End")
            .field("id", &self.id)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

/// Tag of PROTOCOL.md.
const PIECE: u8 = 4;

fn pair(a: u64, b: u64) -> (u64, u64) {
    (a.min(b), a.max(b))
}
