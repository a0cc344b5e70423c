//! One accepted connection: greets, then hands on what arrives.

use std::{
    io::Write,
    net::{IpAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::transport::{
    Hello, Lane,
    tcp::{
        Shared,
        connections::ConnectionId,
        frames::{Frame, FrameReader, ReadError},
        greeting::{GreetingError, read_greeting, write_greeting},
        link::shut,
    },
    wire::{self, FrameKind, Greeting, Versions, WireError},
};

/// The work of one receiver thread.
pub(super) struct Receiver {
    shared: Arc<Shared>,
    id: ConnectionId,
    stream: Arc<TcpStream>,
    /// Without the port, which is another one each time.
    address: IpAddr,
}

/// Who is at the other end, for as long as the connection lives.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Peer {
    node: u64,
    incarnation: u64,
    lane: Lane,
}

impl Receiver {
    pub(super) fn new(
        shared: Arc<Shared>,
        id: ConnectionId,
        stream: Arc<TcpStream>,
        address: IpAddr,
    ) -> Self {
        Self { shared, id, stream, address }
    }

    pub(super) fn run(self) {
        let Some(peer) = self.greet() else { return };
        if let Some(link) = self.shared.links.read().get(&(peer.node, Lane::Messages)) {
            link.nudge();
        }
        let reason = self.receive(peer);
        match peer.lane {
            Lane::Messages => self.shared.inbound.answers_lost(peer.node, &reason),
            Lane::Images => tracing::debug!("images of node {}: {reason}", peer.node),
        }
    }

    fn greet(&self) -> Option<Peer> {
        match self.exchange() {
            Ok(peer) => peer,
            // A port probe; and whoever is ended while the transport stops.
            Err(GreetingError::Silent) => None,
            Err(_) if self.shared.connections.stopped() => None,
            Err(error) => {
                self.shared.refuse_stranger(format!("{}: {error}", self.address));
                None
            }
        }
    }

    /// Greets both ways. `None` if the reason is told already, or needs no telling.
    fn exchange(&self) -> Result<Option<Peer>, GreetingError> {
        let timeout = self.shared.options.greeting_timeout;
        self.stream.set_nonblocking(false).map_err(GreetingError::Io)?;
        self.stream.set_nodelay(true).map_err(GreetingError::Io)?;
        self.stream.set_write_timeout(Some(timeout)).map_err(GreetingError::Io)?;

        let received = read_greeting(&self.stream, Instant::now() + timeout);
        let received = received.and_then(|(versions, greeting)| {
            // A first word is a hello: no other is excepted from this.
            Ok((Versions::OURS.common(versions)?, greeting))
        });
        let (common, greeting) = match received {
            Err(GreetingError::Wire(error @ WireError::Versions { .. })) => {
                return self.refuse(None, &error.to_string());
            }
            received => received?,
        };
        let Greeting::Hello { to, hello, lane } = greeting else {
            let reason = "a greeting begins with a hello";
            return Err(WireError::Invalid { what: "greeting", reason }.into());
        };
        let peer = Peer { node: hello.node, incarnation: hello.incarnation, lane };
        if let Err(reason) = self.judge(to, hello) {
            return self.refuse(Some(peer.node), &reason);
        }
        if !self.shared.connections.serve(self.id, peer.node, lane) {
            return Ok(None);
        }
        let hello = self.shared.hello.lock().clone();
        let answer = Greeting::Hello { to: peer.node, hello, lane };
        write_greeting(&self.stream, Versions { min: common, max: common }, &answer)?;
        Ok(Some(peer))
    }

    fn judge(&self, to: u64, hello: Hello) -> Result<(), String> {
        let own = self.shared.hello.lock().node;
        if to != own {
            return Err(format!("this is node {own}, not node {to}"));
        }
        if hello.node == own {
            return Err(format!("this is node {own} already"));
        }
        self.shared.inbound.hello(hello)
    }

    fn refuse(&self, node: Option<u64>, reason: &str) -> Result<Option<Peer>, GreetingError> {
        let who = node.map_or_else(String::new, |node| format!("node {node} at "));
        self.shared.refuse_peer(format!("{who}{}: {reason}", self.address));
        write_greeting(&self.stream, Versions::OURS, &Greeting::Refusal(reason.to_owned()))?;
        Ok(None)
    }

    /// Hands on every message until the connection ends; says why it did.
    fn receive(&self, peer: Peer) -> String {
        let silence_max = self.shared.options.silence_max;
        if let Err(error) = self.stream.set_read_timeout(Some(silence_max)) {
            return error.to_string();
        }
        let mut frames = FrameReader::new(&*self.stream, READ_BYTES, silence_max);
        let mut contacted = Instant::now();
        // A piece tells that the peer's machine lives, and nothing of who leads.
        let mut contact = || {
            if peer.lane == Lane::Messages && contacted.elapsed() >= CONTACT_PAUSE {
                contacted = Instant::now();
                self.shared.inbound.contact(peer.node);
            }
        };
        loop {
            let step = match frames.next(&mut contact) {
                Ok(frame) => self.handle(peer, frame),
                Err(ReadError::Wire(error)) => Err(End::Ours(error.to_string())),
                Err(error) => Err(End::Theirs(error.to_string())),
            };
            match step {
                Ok(()) => {}
                Err(End::Theirs(reason)) => return reason,
                Err(End::Ours(reason)) => {
                    self.say_goodbye(peer, &reason);
                    return reason;
                }
            }
        }
    }

    fn handle(&self, peer: Peer, frame: Frame) -> Result<(), End> {
        match frame.kind {
            FrameKind::Message => {
                let Frame { group, payload, .. } = frame;
                self.shared.inbound.message(peer.node, group, payload).map_err(End::Ours)
            }
            FrameKind::Keepalive => Ok(()),
            FrameKind::Hello => {
                let hello = wire::decode_hello(&frame.payload);
                let (to, hello, lane) = hello.map_err(|error| End::Ours(error.to_string()))?;
                let Hello { node, incarnation, .. } = hello;
                if (Peer { node, incarnation, lane }) != peer {
                    return Err(End::Ours("a hello of another node than greeted".into()));
                }
                self.judge(to, hello).map_err(End::Ours)
            }
            FrameKind::Goodbye => {
                let reason = wire::readable(&frame.payload);
                let Peer { node, .. } = peer;
                let address = self.address;
                self.shared.refuse_peer(format!("node {node} at {address} closes: {reason}"));
                Err(End::Theirs(reason))
            }
        }
    }

    fn say_goodbye(&self, peer: Peer, reason: &str) {
        self.shared.refuse_peer(format!("node {} at {}: {reason}", peer.node, self.address));
        // Best effort: the peer learns of the end in any case.
        let _ = (&*self.stream).write_all(&wire::encode_goodbye(reason));
    }
}

impl Drop for Receiver {
    /// Also when an `Inbound` call panicked, and when the thread could not be started.
    fn drop(&mut self) {
        shut(&self.stream);
        self.shared.connections.end(self.id);
    }
}

/// Who ends the connection, and why.
enum End {
    Ours(String),
    Theirs(String),
}

/// Many messages for each system call.
const READ_BYTES: usize = 256 << 10;
/// Far below any election timeout.
const CONTACT_PAUSE: Duration = Duration::from_millis(20);
