//! The TCP transport: one connection per peer and direction for messages, and one for images while there are any.
//!
//! Each node connects to each peer to send, and accepts to receive. A *link* is the queue to one
//! peer in one of the two lanes, with one sender thread that connects, greets and writes; an accepted
//! connection has one receiver thread. Everything is blocking std; there is no async runtime.
//!
//! Memory is bounded by the sum of
//! - for each peer and lane: `queue_bytes_max` plus one message of at most `MESSAGE_BYTES_MAX` bytes
//!   (references where the caller gave references), 128 bytes for each of `queue_messages_max`
//!   messages, and 512 KiB to gather a burst;
//! - for each of `connections_max` accepted connections: a 256 KiB read buffer and one message in
//!   arrival, which takes at most 1 MiB or twice what has arrived of it; before the greeting only
//!   the greeting's 16 KiB;
//! - the stacks of two threads for each peer and lane and one for each accepted connection.

use std::{
    collections::BTreeMap,
    fmt,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::{
    StartError,
    limiter::Limiter,
    transport::{
        Hello, Inbound, Lane, Transport,
        tcp::{connections::Connections, link::Link, listener::Listener, sender::Sender},
        wire,
    },
};

mod connections;
mod dial;
mod frames;
mod gather;
mod greeting;
mod link;
mod listener;
mod receiver;
mod sender;
mod stop;

/// The bounds of a [`TcpTransport`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpOptions {
    /// Messages that may wait for one peer, and pieces of images; at least 1, by default 8192.
    pub queue_messages_max: usize,
    /// Bytes of messages that may wait for one peer, and of pieces of images, by default 64 MiB each.
    /// An empty queue takes any message, also a longer one.
    pub queue_bytes_max: usize,
    /// How long to wait for one address of a peer to answer; by default 3 s.
    pub connect_timeout: Duration,
    /// How long a greeting may take from its first byte to its last; by default 5 s.
    pub greeting_timeout: Duration,
    /// A connection on which nothing moves for so long is closed; by default 10 s, and the same on
    /// every node, because a sender with nothing to say sends a keepalive four times as often.
    pub silence_max: Duration,
    /// The pause after a first failure to connect, by default 20 ms; it doubles with each failure.
    pub backoff_min: Duration,
    /// The longest pause between two tries to connect; by default 1 s.
    pub backoff_max: Duration,
    /// Accepted connections at a time, greeted or not; more than twice as many as there are peers, by
    /// default 128.
    pub connections_max: usize,
    /// Accepted connections that have not greeted yet; at least 1, by default 32. One more closes
    /// the oldest of them.
    pub greetings_max: usize,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            queue_messages_max: 8192,
            queue_bytes_max: 64 << 20,
            connect_timeout: Duration::from_secs(3),
            greeting_timeout: Duration::from_secs(5),
            silence_max: Duration::from_secs(10),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            connections_max: 128,
            greetings_max: 32,
        }
    }
}

impl TcpOptions {
    fn check(&self) -> Result<(), StartError> {
        let counts = [
            ("queue_messages_max", self.queue_messages_max),
            ("connections_max", self.connections_max),
            ("greetings_max", self.greetings_max),
        ];
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("greeting_timeout", self.greeting_timeout),
            ("silence_max", self.silence_max),
            ("backoff_min", self.backoff_min),
            ("backoff_max", self.backoff_max),
        ];
        for (option, count) in counts {
            if count == 0 {
                return Err(StartError::Options { option, reason: "must be at least 1".into() });
            }
        }
        for (option, time) in times {
            if !(TIME_MIN..=TIME_MAX).contains(&time) {
                let reason = format!("{time:?} is not between {TIME_MIN:?} and {TIME_MAX:?}");
                return Err(StartError::Options { option, reason });
            }
        }
        Ok(())
    }
}

/// The transport of a node over TCP, with plain threads: one connection per peer and direction, and
/// another one for pieces of images as long as there are any.
///
/// For each of those to send on there is one thread that connects and writes and one that watches
/// for its end; for each accepted connection one that reads. Memory is bounded by the options: for
/// each peer twice `queue_bytes_max` and two messages, for each of `connections_max` accepted
/// connections 256 KiB and one message, of which no more than 1 MiB or twice what has arrived.
/// [`stop`](Transport::stop) interrupts everything but a lookup of a peer's name in flight.
///
/// It trusts its network: a greeting shows that the other side is configured to be a peer, not who
/// it is. There is no authentication and no encryption yet.
pub struct TcpTransport {
    address: String,
    options: TcpOptions,
    /// Bound before the start.
    socket: Option<TcpListener>,
    state: State,
}

/// One way only.
enum State {
    New,
    Running(Running),
    Stopped,
}

struct Running {
    shared: Arc<Shared>,
    listener: Listener,
    senders: Mutex<Senders>,
}

/// The sender threads, those of peers that were removed or moved included: a successor waits for
/// its predecessor, so that calls about one peer keep their order.
#[derive(Default)]
struct Senders {
    current: BTreeMap<(u64, Lane), JoinHandle<()>>,
    retired: BTreeMap<(u64, Lane), JoinHandle<()>>,
}

/// What all threads of a transport share.
struct Shared {
    options: TcpOptions,
    inbound: Arc<dyn Inbound>,
    /// Node and incarnation never change.
    hello: Mutex<Hello>,
    links: RwLock<BTreeMap<(u64, Lane), Arc<Link>>>,
    connections: Connections,
    /// Apart from each other, so that strangers cannot drown what is said about peers.
    strangers: Limiter,
    refusals: Limiter,
}

impl TcpTransport {
    /// A transport that will listen at `address`, a `host:port`; port 0 takes any that is free.
    pub fn new(address: impl Into<String>, options: TcpOptions) -> Self {
        Self { address: address.into(), options, socket: None, state: State::New }
    }

    /// Takes the address before the start, which then needs it no more.
    pub(crate) fn bind(&mut self) -> Result<(), StartError> {
        self.socket = Some(listen(&self.address)?);
        Ok(())
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::New | State::Stopped => None,
        }
    }
}

impl Transport for TcpTransport {
    fn start(&mut self, hello: Hello, inbound: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        assert!(matches!(self.state, State::New), "a transport starts once");
        self.options.check()?;
        wire::check_hello(&hello)
            .map_err(|reason| StartError::Options { option: "initial_members", reason })?;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => listen(&self.address)?,
        };
        let failed = |source| self.listen_error(source);
        let address = socket.local_addr().map_err(failed)?;

        let shared = Arc::new(Shared {
            options: self.options.clone(),
            inbound,
            hello: Mutex::new(hello),
            links: RwLock::default(),
            connections: Connections::new(&self.options),
            strangers: Limiter::default(),
            refusals: Limiter::default(),
        });
        let listener = Listener::start(socket, Arc::clone(&shared)).map_err(failed)?;
        self.state = State::Running(Running { shared, listener, senders: Mutex::default() });
        Ok(address)
    }

    fn set_peers(&self, peers: &[(u64, String)]) {
        if let Some(running) = self.running() {
            running.set_peers(peers);
        }
    }

    fn set_hello(&self, hello: Hello) {
        let Some(Running { shared, .. }) = self.running() else { return };
        wire::check_hello(&hello).expect("the limits of a hello");
        {
            let mut current = shared.hello.lock();
            assert_eq!(
                (hello.node, hello.incarnation),
                (current.node, current.incarnation),
                "node and incarnation never change"
            );
            *current = hello;
        }
        // The flag is set after the hello, and a sender takes the flag before it reads the hello:
        // it never says an older one last.
        for link in shared.links.read().values() {
            link.say_hello();
        }
    }

    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        self.running().is_some_and(|running| running.offer((to, Lane::Messages), group, message))
    }

    fn send_image(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        self.running().is_some_and(|running| running.offer((to, Lane::Images), group, message))
    }

    fn stop(&mut self) {
        if let State::Running(running) = std::mem::replace(&mut self.state, State::Stopped) {
            running.stop();
        }
    }
}

impl TcpTransport {
    /// Pieces of images that wait for a peer.
    #[cfg(test)]
    pub(super) fn images_queued(&self, peer: u64) -> usize {
        let running = self.running().expect("it runs");
        running.shared.links.read()[&(peer, Lane::Images)].queued()
    }

    /// Accepted connections that are open.
    #[cfg(test)]
    pub(super) fn accepted(&self) -> usize {
        self.running().expect("it runs").shared.connections.open()
    }

    fn listen_error(&self, source: std::io::Error) -> StartError {
        StartError::Listen { address: self.address.clone(), source: Arc::new(source) }
    }
}

impl Drop for TcpTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpTransport")
            .field("address", &self.address)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Running {
    fn offer(&self, to: (u64, Lane), group: u32, message: Vec<Bytes>) -> bool {
        self.shared.links.read().get(&to).is_some_and(|link| link.offer(group, message))
    }

    fn set_peers(&self, peers: &[(u64, String)]) {
        let own = self.shared.hello.lock().node;
        let mut senders = self.senders.lock();
        senders.retired.retain(|_, thread| !thread.is_finished());
        let mut links = self.shared.links.write();

        let stays = |peer: u64, link: &Link| {
            peers.iter().any(|(node, address)| *node == peer && *address == link.address)
        };
        links.retain(|key, link| {
            let kept = stays(key.0, link);
            if !kept {
                link.stop();
                if let Some(thread) = senders.current.remove(key) {
                    senders.retired.insert(*key, thread);
                }
            }
            kept
        });
        for (peer, address) in peers {
            for key in Lane::ALL.map(|lane| (*peer, lane)) {
                if *peer == own || links.contains_key(&key) {
                    continue;
                }
                match self.add(key, address, senders.retired.remove(&key)) {
                    Ok((link, thread)) => {
                        links.insert(key, link);
                        senders.current.insert(key, thread);
                    }
                    Err(error) => tracing::error!("cannot start a sender to node {peer}: {error}"),
                }
            }
        }
    }

    fn add(
        &self,
        (peer, lane): (u64, Lane),
        address: &str,
        predecessor: Option<JoinHandle<()>>,
    ) -> std::io::Result<(Arc<Link>, JoinHandle<()>)> {
        let link = Arc::new(Link::new(peer, lane, address.to_owned(), &self.shared.options)?);
        let sender = Sender::new(Arc::clone(&self.shared), Arc::clone(&link));
        let name = match lane {
            Lane::Messages => format!("kontiki-send-{peer}"),
            Lane::Images => format!("kontiki-image-{peer}"),
        };
        let thread = thread::Builder::new().name(name).spawn(move || {
            if let Some(predecessor) = predecessor {
                join(predecessor);
            }
            sender.run();
        })?;
        Ok((link, thread))
    }

    fn stop(self) {
        self.listener.stop();
        let links = std::mem::take(&mut *self.shared.links.write());
        links.values().for_each(|link| link.stop());
        let senders = self.senders.into_inner();
        senders.current.into_values().chain(senders.retired.into_values()).for_each(join);
        self.shared.connections.stop();
    }
}

impl Shared {
    fn refuse_stranger(&self, reason: String) {
        if let Some(reason) = self.strangers.pass(Instant::now(), reason) {
            self.inbound.refused(&reason);
        }
    }

    fn refuse_peer(&self, reason: String) {
        if let Some(reason) = self.refusals.pass(Instant::now(), reason) {
            self.inbound.refused(&reason);
        }
    }
}

/// Binds the address, telling a text that is no address from an address that cannot be had.
fn listen(address: &str) -> Result<TcpListener, StartError> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
        return Err(StartError::Address(address.to_owned()));
    }
    TcpListener::bind(address).map_err(|source| StartError::Listen {
        address: address.to_owned(),
        source: Arc::new(source),
    })
}

/// Joins a thread of this transport; if an `Inbound` call panicked there, that ends here.
fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or("?").to_owned();
    if thread.join().is_err() {
        tracing::error!("the transport's thread {name} panicked");
    }
}

const TIME_MIN: Duration = Duration::from_millis(1);
const TIME_MAX: Duration = Duration::from_secs(3600);
