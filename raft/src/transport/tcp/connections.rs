//! The accepted connections: how many, from whom, and how each is ended.

use std::{collections::BTreeMap, net::TcpStream, sync::Arc, thread::JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::transport::{
    Lane,
    tcp::{TcpOptions, join, link::shut},
};

/// Which accepted connection; they count up.
pub(super) type ConnectionId = u64;

/// All accepted connections of a transport.
///
/// At most one of them serves a peer in a lane: a newer one takes over, and begins when the older has
/// ended, so that nothing of an older connection arrives after something of a newer one. One for
/// messages takes over from one for images, too: they can be of an earlier life of the peer.
#[derive(Debug)]
pub(super) struct Connections {
    connections_max: usize,
    greetings_max: usize,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: ConnectionId,
    /// `open.len() <= connections_max`; each has a thread, which takes it out when it ends.
    open: BTreeMap<ConnectionId, Open>,
    threads: Vec<JoinHandle<()>>,
    stopped: bool,
}

#[derive(Debug)]
struct Open {
    stream: Arc<TcpStream>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Serves(u64, Lane),
    Ending,
}

impl Connections {
    pub(super) fn new(options: &TcpOptions) -> Self {
        Self {
            connections_max: options.connections_max,
            greetings_max: options.greetings_max,
            state: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// Takes a new connection in, which has not greeted. Too many of those end the oldest of them:
    /// it had the longest time, and a flood must not keep peers out. `None` if there is no room.
    pub(super) fn accept(&self, stream: Arc<TcpStream>) -> Option<ConnectionId> {
        let mut state = self.state.lock();
        state.threads.retain(|thread| !thread.is_finished());
        if state.stopped || state.open.len() >= self.connections_max {
            return None;
        }
        let greeting = state.open.values().filter(|open| open.stage == Stage::Greeting);
        if greeting.count() >= self.greetings_max {
            let oldest = state.open.values_mut().find(|open| open.stage == Stage::Greeting);
            oldest.expect("at least one is greeting").end();
        }
        let id = state.next;
        state.next += 1;
        state.open.insert(id, Open { stream, stage: Stage::Greeting });
        Some(id)
    }

    /// Keeps the thread that serves a connection, to be joined.
    pub(super) fn keep(&self, thread: JoinHandle<()>) {
        self.state.lock().threads.push(thread);
    }

    /// The connection has greeted and serves `peer` in `lane` from now on: waits until no earlier
    /// one does.
    /// False if it was ended meanwhile.
    pub(super) fn serve(&self, id: ConnectionId, peer: u64, lane: Lane) -> bool {
        let mut state = self.state.lock();
        if state.open[&id].stage != Stage::Greeting {
            return false;
        }
        let lanes = match lane {
            Lane::Messages => &Lane::ALL[..],
            Lane::Images => &[Lane::Images],
        };
        let mut earlier = Vec::new();
        for (other, open) in &mut state.open {
            if lanes.iter().any(|lane| open.stage == Stage::Serves(peer, *lane)) {
                earlier.push(*other);
                open.end();
            }
        }
        let open = state.open.get_mut(&id).expect("its thread takes it out, and is here");
        open.stage = Stage::Serves(peer, lane);
        // Who waits here waits for those that came here before: there is no circle.
        while earlier.iter().any(|id| state.open.contains_key(id)) {
            self.ended.wait(&mut state);
        }
        state.open[&id].stage == Stage::Serves(peer, lane)
    }

    /// The last thing the thread of a connection does with it.
    pub(super) fn end(&self, id: ConnectionId) {
        self.state.lock().open.remove(&id);
        self.ended.notify_all();
    }

    /// Whether the transport stops: then the end of a connection needs no report.
    pub(super) fn stopped(&self) -> bool {
        self.state.lock().stopped
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        self.state.lock().open.len()
    }

    /// Ends all connections and joins their threads; no new one is taken in.
    pub(super) fn stop(&self) {
        let threads = {
            let mut state = self.state.lock();
            state.stopped = true;
            state.open.values_mut().for_each(Open::end);
            std::mem::take(&mut state.threads)
        };
        threads.into_iter().for_each(join);
    }
}

impl Open {
    fn end(&mut self) {
        self.stage = Stage::Ending;
        shut(&self.stream);
    }
}

#[cfg(test)]
mod tests;
