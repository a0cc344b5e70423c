//! How nodes reach each other: the seam ([`Transport`] and [`Inbound`]) and its TCP side
//! ([`TcpTransport`]), whose bytes are specified in PROTOCOL.md.
//!
//! A transport moves opaque messages. It may lose one, it never delivers one twice, and it never
//! reorders two of one connection. It never reads what it carries.

use std::{fmt, net::SocketAddr, sync::Arc};

use bytes::Bytes;

use crate::StartError;

mod tcp;
#[cfg(test)]
mod tests;
mod wire;

pub use tcp::{TcpOptions, TcpTransport};

/// How nodes reach each other.
///
/// A message may be lost. It is never delivered twice, and never reordered within a connection.
///
/// Every method but [`stop`](Self::stop) returns at once and may be called while the caller holds
/// its own locks, also from inside an [`Inbound`] call.
pub trait Transport: fmt::Debug + Send + 'static {
    /// Begins to listen and returns the address where; everything that arrives goes to `inbound`.
    ///
    /// # Errors
    /// [`StartError::Listen`] if the address cannot be listened on, [`StartError::Address`] if it
    /// is not one, [`StartError::Options`] if a hello or a bound is out of range.
    ///
    /// # Panics
    /// If it was started before.
    fn start(&mut self, hello: Hello, inbound: Arc<dyn Inbound>) -> Result<SocketAddr, StartError>;

    /// Whom to send to from now on: node id and `host:port`. A peer that is not named any more, or
    /// that moved, loses its connection; the own id is skipped. No effect unless started.
    fn set_peers(&self, peers: &[(u64, String)]);

    /// The state of this node as hellos should say it from now on. Peers that are connected hear it
    /// before any message that is sent after this call. No effect unless started.
    ///
    /// # Panics
    /// If node or incarnation differ from what the transport was started with, or if the hello is
    /// larger than [`Hello`] allows.
    fn set_hello(&self, hello: Hello);

    /// Queues a message for a peer: its chunks, back to back. False, and the message is dropped, if
    /// the peer is not connected, if its queue is full, or if the message is longer than
    /// [`MESSAGE_BYTES_MAX`].
    ///
    /// True promises nothing about arrival, only this: either the connection goes on, or
    /// [`Inbound::disconnected`] is called after this call began.
    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool;

    /// Queues a piece of an image for a peer: apart from the messages where the transport can, so that
    /// they do not wait behind it. Between the two there is no order, and nobody is told of a loss:
    /// who asked for the piece asks again. False, and it is dropped, if the peer is none or its queue
    /// is full; where a transport knows no difference, as [`send`](Self::send) says.
    fn send_image(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        self.send(to, group, message)
    }

    /// Stops and joins every thread; no [`Inbound`] call is made afterwards. A second call does
    /// nothing. The caller holds no lock that its `Inbound` takes, and is not inside a call of it.
    fn stop(&mut self);
}

/// What a transport calls, from several threads at once. No call blocks for long: it holds up the
/// connection it came from.
pub trait Inbound: Send + Sync + fmt::Debug {
    /// Says whether to go on with the node that said this, on either side of a new connection or
    /// because it changed. The reason of a refusal is sent to the peer before closing.
    fn hello(&self, hello: Hello) -> Result<(), String>;

    /// A whole message. `message` is its own allocation: keeping it keeps nothing else alive.
    ///
    /// An error means that these bytes are no message this node knows: the peer is told the reason
    /// and the connection closed. What is merely not wanted now is `Ok`.
    fn message(&self, from: u64, group: u32, message: Bytes) -> Result<(), String>;

    /// Part of a long message has arrived; called at most every 20 ms for each connection.
    fn contact(&self, from: u64);

    /// There is a connection to `peer` now, messages can be sent.
    fn connected(&self, peer: u64);

    /// The connection to `peer` is lost, once for each [`connected`](Self::connected). What was
    /// queued or written before may have arrived or not, and is never sent again: answers to
    /// forwarded proposals may not come.
    fn disconnected(&self, peer: u64, reason: &str);

    /// The connection by which `peer` sends to this node is lost, and with it any answer that the
    /// peer had queued on it. Messages of its next connection come after this call.
    fn answers_lost(&self, peer: u64, reason: &str);

    /// A stranger, or a peer that this node refuses or that refuses this node: the one place where
    /// either is told, on both sides. Rate-limited by the transport, which can tell strangers from
    /// peers; the reason says who, and is fit for a log line.
    fn refused(&self, reason: &str);
}

/// What every connection says first, in both directions.
///
/// At most [`Hello::MEMBERS_MAX`] members with addresses of at most
/// [`Hello::ADDRESS_BYTES_MAX`] bytes of UTF-8 without control characters, and at most
/// [`Hello::CONFIGURATION_BYTES_MAX`] bytes of configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who says it.
    pub node: u64,
    /// Which life of its disk: drawn at random when the data directory was empty.
    pub incarnation: u64,
    /// The cluster it belongs to; 0 while the first start is not complete.
    pub cluster: u64,
    /// The initial members as this node was started with: node id and `host:port`.
    pub members: Vec<(u64, String)>,
    /// The configuration in force, encoded, if there is any.
    pub configuration: Option<Bytes>,
    /// True if the log of this node holds nothing.
    pub log_is_empty: bool,
}

impl Hello {
    /// Most members a hello may list.
    pub const MEMBERS_MAX: usize = kontiki_core::MEMBERS_MAX;
    /// Longest address of a member.
    pub const ADDRESS_BYTES_MAX: usize = kontiki_core::ADDRESS_BYTES_MAX;
    /// Longest encoded configuration: what the log's state can hold.
    pub const CONFIGURATION_BYTES_MAX: usize = 4 << 10;
}

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Messages; the connection stands as long as the peer lives.
    Messages,
    /// Pieces of images; made when there are any, and closed when there are none.
    Images,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Messages, Self::Images];
}

/// Longest message, all chunks together: twice the largest entry of the log, and the same on every
/// node, because a longer one closes the connection at its receiver.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;
