//! The queue to one peer, between those who send and the one thread that writes.
//!
//! A message that was taken is never put back: it is written to one connection or dropped with it
//! (RAFT-CASE 65). So the queue is emptied whenever the connection ends, and takes nothing before
//! the next one stands; that of images takes what the next one is made for.

use std::{
    io,
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::transport::{
    Lane, MESSAGE_BYTES_MAX,
    tcp::{TcpOptions, stop::Stop},
};

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) group: u32,
    pub(super) chunks: Vec<Bytes>,
    bytes: usize,
}

/// What the sender should do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Write what was taken, the own hello first if it changed.
    Write { hello: bool },
    /// Nothing waited for the whole time: say that this node is alive.
    Keepalive,
    /// The peer has ended the connection.
    Lost,
    /// This node does not want it any more.
    Stopped,
}

/// One peer at one address. `messages <= queue_messages_max`, and `bytes <= queue_bytes_max` unless
/// there is one message only; both count what the sender has taken and not written yet.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: u64,
    pub(super) lane: Lane,
    pub(super) address: String,
    /// Ends the wait for an answer to a connect, which no condition variable could.
    pub(super) stop: Stop,
    queue_messages_max: usize,
    queue_bytes_max: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: Vec<Outgoing>,
    messages: usize,
    bytes: usize,
    /// Greeted both ways: messages are taken.
    connected: bool,
    /// The socket in use, also while it greets; shut down to wake whoever blocks on it.
    stream: Option<Arc<TcpStream>>,
    /// Somebody saw the end of this connection.
    lost: bool,
    hello_changed: bool,
    /// The peer shows life, so a pause before the next try is over.
    nudged: bool,
    stopped: bool,
    /// The sender waits on `changed`.
    sleeping: bool,
}

impl Link {
    pub(super) fn new(
        peer: u64,
        lane: Lane,
        address: String,
        options: &TcpOptions,
    ) -> io::Result<Self> {
        Ok(Self {
            peer,
            lane,
            address,
            stop: Stop::new()?,
            queue_messages_max: options.queue_messages_max,
            queue_bytes_max: options.queue_bytes_max,
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Queues a message, or drops it and says so.
    pub(super) fn offer(&self, group: u32, chunks: Vec<Bytes>) -> bool {
        let bytes = chunks.iter().map(Bytes::len).sum();
        if bytes > MESSAGE_BYTES_MAX {
            tracing::error!("a message of {bytes} bytes, the limit is {MESSAGE_BYTES_MAX}");
            return false;
        }
        let mut state = self.state.lock();
        let full = state.messages >= self.queue_messages_max
            || (state.messages > 0 && state.bytes + bytes > self.queue_bytes_max);
        let is_open = match self.lane {
            Lane::Messages => state.connected,
            Lane::Images => !state.stopped,
        };
        if !is_open || full {
            return false;
        }
        state.queue.push(Outgoing { group, chunks, bytes });
        state.messages += 1;
        state.bytes += bytes;
        // One wake-up for a burst: the first of it finds the sender asleep, the others do not.
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.changed.notify_one();
        }
        true
    }

    /// The own hello changed; it goes out before anything that is offered after this call.
    pub(super) fn say_hello(&self) {
        self.change(|state| state.hello_changed = true);
    }

    /// The peer lives: try to connect to it now.
    pub(super) fn nudge(&self) {
        self.change(|state| state.nudged = true);
    }

    /// The connection came to its end, as the one who reads from it saw.
    pub(super) fn lose(&self) {
        self.change(|state| state.lost = true);
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.state.lock().messages
    }

    /// Ends the sender, whatever it is doing.
    pub(super) fn stop(&self) {
        self.stop.stop();
        self.change(|state| {
            state.stopped = true;
            state.connected = false;
            if let Some(stream) = &state.stream {
                shut(stream);
            }
        });
    }

    // What follows is for the sender thread only.

    /// Waits until a connection is wanted: for messages it always is. False if the link is stopped.
    pub(super) fn wait_wanted(&self) -> bool {
        let mut state = self.state.lock();
        while self.lane == Lane::Images && state.queue.is_empty() && !state.stopped {
            state.sleeping = true;
            self.changed.wait(&mut state);
            state.sleeping = false;
        }
        !state.stopped
    }

    /// A new socket, before its greeting. False if the link is stopped.
    pub(super) fn open(&self, stream: &Arc<TcpStream>) -> bool {
        let mut state = self.state.lock();
        assert!(!state.connected && state.messages == state.queue.len());
        assert!(state.queue.is_empty() || self.lane == Lane::Images);
        if state.stopped {
            return false;
        }
        state.stream = Some(Arc::clone(stream));
        state.lost = false;
        // The greeting that follows says what is true from now on.
        state.hello_changed = false;
        true
    }

    /// The greeting is done: messages are taken from now on. False if the link is stopped.
    pub(super) fn connect(&self) -> bool {
        let mut state = self.state.lock();
        state.connected = !state.stopped;
        state.nudged = false;
        state.connected
    }

    /// Forgets the socket, and every message that was offered to it.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.connected = false;
            state.stream = None;
            state.messages = 0;
            state.bytes = 0;
            std::mem::take(&mut state.queue)
        };
        drop(dropped); // Outside the lock: the chunks may be the last views of something large.
    }

    /// Forgets the socket of images, and nothing of what was offered since the last was written.
    pub(super) fn rest(&self) {
        let mut state = self.state.lock();
        state.connected = false;
        state.stream = None;
    }

    /// Gives back the room of `written`, which is then empty, and takes everything that waits into
    /// it; waits up to `patience` for something to do.
    pub(super) fn take(&self, written: &mut Vec<Outgoing>, patience: Duration) -> Next {
        let bytes: usize = written.iter().map(|message| message.bytes).sum();
        let messages = written.len();
        written.clear();

        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        assert!(messages <= state.messages && bytes <= state.bytes);
        state.messages -= messages;
        state.bytes -= bytes;
        loop {
            if state.stopped {
                return Next::Stopped;
            }
            if state.lost {
                return Next::Lost;
            }
            if state.hello_changed || !state.queue.is_empty() {
                std::mem::swap(&mut state.queue, written);
                return Next::Write { hello: std::mem::take(&mut state.hello_changed) };
            }
            if !self.sleep(&mut state, deadline) {
                return Next::Keepalive;
            }
        }
    }

    /// Waits before the next try to connect. False if the link is stopped.
    pub(super) fn pause(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut state = self.state.lock();
        while !state.stopped && !state.nudged && self.sleep(&mut state, deadline) {}
        state.nudged = false;
        !state.stopped
    }

    /// False if the deadline has passed.
    fn sleep(&self, state: &mut parking_lot::MutexGuard<'_, State>, deadline: Instant) -> bool {
        state.sleeping = true;
        let timed_out = self.changed.wait_until(state, deadline).timed_out();
        state.sleeping = false;
        !timed_out
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock());
        self.changed.notify_one();
    }
}

/// Ends a connection for everybody who blocks on it. That it has ended already is no error.
pub(super) fn shut(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests;
