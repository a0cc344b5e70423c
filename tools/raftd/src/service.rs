//! What all connections share: the node, and the counters that `INFO` shows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kontiki::{Node, Read};
use tokio::{sync::watch, time::timeout};

use crate::{info, reply::Trouble, store::Store};

/// One running server.
pub(crate) struct Service {
    pub(crate) node: Node<Store>,
    /// When it does, connections finish what they have begun and close.
    pub(crate) stopping: Stopping,
    pub(crate) clients_max: usize,
    port: u16,
    started: Instant,
    clients: AtomicUsize,
    connections: AtomicU64,
    commands: AtomicU64,
}

/// Tells when the server stops.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

/// A place among the clients; given back when dropped.
pub(crate) struct Seat {
    service: Arc<Service>,
    /// Counts connections from 1, for `CLIENT ID`.
    pub(crate) connection: u64,
}

impl Stopping {
    pub(crate) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self(stopping)
    }

    /// Resolves when the server stops, at once if it has begun to.
    pub(crate) async fn begun(&mut self) {
        // Nobody left to tell is as good as being told.
        let _ = self.0.wait_for(|&stopping| stopping).await;
    }
}

impl Service {
    pub(crate) fn new(
        node: Node<Store>,
        port: u16,
        clients_max: usize,
        stopping: Stopping,
    ) -> Self {
        Self {
            node,
            stopping,
            clients_max,
            port,
            started: Instant::now(),
            clients: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            commands: AtomicU64::new(0),
        }
    }

    /// A place for one more client, or `None` if all are taken.
    pub(crate) fn seat(self: &Arc<Self>) -> Option<Seat> {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let before = self.clients.fetch_add(1, Ordering::Relaxed);
        // Made before the check: dropping it takes the count back.
        let seat = Seat { service: Arc::clone(self), connection };
        (before < self.clients_max).then_some(seat)
    }

    pub(crate) fn count_commands(&self, commands: usize) {
        let commands = u64::try_from(commands).expect("a usize is at most 64 bits");
        self.commands.fetch_add(commands, Ordering::Relaxed);
    }

    /// What the node knows of why it does not serve just now.
    pub(crate) fn trouble(&self) -> Trouble {
        Trouble::of(&self.node.status())
    }

    /// The answer to `INFO`.
    pub(crate) async fn info(&self, sections: &[String]) -> String {
        let keys = timeout(KEYS_WAIT, self.node.read(Read::Local, Store::keys)).await;
        let facts = info::Facts {
            keys: keys.ok().and_then(Result::ok),
            status: self.node.status(),
            port: self.port,
            uptime_seconds: self.started.elapsed().as_secs(),
            clients: self.clients.load(Ordering::Relaxed),
            clients_max: self.clients_max,
            connections: self.connections.load(Ordering::Relaxed),
            commands: self.commands.load(Ordering::Relaxed),
        };
        info::render(&facts, sections)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.service.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A node that replays its log is asked how it stands just then: the rest is told without the keys.
const KEYS_WAIT: Duration = Duration::from_secs(1);
