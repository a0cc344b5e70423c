//! What happens to a node, for whoever wants to know.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{Position, Role};

/// Something that happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The node changed its role.
    RoleChanged {
        /// What it was.
        from: Role,
        /// What it is.
        to: Role,
        /// The term in which it is that.
        term: u64,
    },
    /// The node follows another leader, or none.
    LeaderChanged {
        /// Who leads; `None` while it is unknown.
        leader: Option<u64>,
        /// The term.
        term: u64,
    },
    /// The first start is complete: the cluster has its configuration and its name.
    ClusterFormed {
        /// The name.
        cluster: u64,
    },
    /// The cluster knows this node with another disk; it takes no part.
    NotAdmitted {
        /// Who said so.
        peer: u64,
    },
    /// Messages can be sent to a peer.
    PeerConnected {
        /// Which.
        peer: u64,
    },
    /// Messages can not be sent to a peer.
    PeerLost {
        /// Which.
        peer: u64,
        /// Why.
        reason: String,
    },
    /// A connection was refused, by this node or by the other one.
    PeerRefused {
        /// Why, and what can be done.
        reason: String,
    },
    /// A follower has less than it had acknowledged: it lost its disk, or lies.
    PeerRegressed {
        /// Which.
        peer: u64,
        /// The index it had acknowledged.
        matched: u64,
        /// The index it reports now.
        reported: u64,
    },
    /// A follower lacks entries and has got none, and nothing of a snapshot, for
    /// [`follower_stall`](crate::Options::follower_stall): it is down or cut off, its disk is stuck, or it cannot take in what it
    /// is sent. Told by the leader, once; it goes on trying.
    FollowerStalled {
        /// Which.
        peer: u64,
        /// Everything up to this index is on its disk; 0 if it has not answered this leader.
        matched: u64,
        /// How many entries lie behind that.
        lag: u64,
    },
    /// A follower that was stalled gets on again. The end of a leadership ends what it has told of stalled followers.
    FollowerResumed {
        /// Which.
        peer: u64,
    },
    /// The log cannot make its next segment: the disk or a quota is full, too many files are open,
    /// or the directory is gone, read-only or not permitted. Nothing that was acknowledged is lost.
    /// What is written waits and is tried again by itself; a leader gives up its office after
    /// [`disk_stall`](crate::Options::disk_stall). Told once, and again when the cause changes.
    WritesHeld {
        /// What the disk says, where, and what to do.
        cause: Arc<str>,
    },
    /// The log takes writes again.
    WritesResumed,
    /// A snapshot of this node, or one that came from its leader, is whole and durable: a start goes on from it, and the log may lose
    /// what it contains.
    SnapshotVisible {
        /// The last entry that it contains.
        position: Position,
        /// Of its file.
        bytes: u64,
    },
    /// A snapshot could not be taken; the node goes on, and its log grows. It is tried again when as much was applied once more.
    SnapshotFailed {
        /// What the state machine or the disk says.
        cause: Arc<str>,
    },
    /// The newest snapshot of this node, or one that came from its leader, has rotted on its disk, which is found as a follower
    /// is to get it. Nothing of it that has rotted is given to anybody. Another one is taken as soon as the state machine is behind
    /// its end, which it is unless it keeps itself; but no sooner than `election_timeout_max` after the last that was taken for
    /// such a reason. If that one fails, it is tried again when a follower asks again, or as the log grows.
    SnapshotDamaged {
        /// The last entry that it contains.
        position: Position,
        /// What is wrong, and where.
        cause: Arc<str>,
    },
    /// The leader's log does not hold any more what this node needs next: it gets the leader's snapshot.
    SnapshotNeeded {
        /// The leader.
        from: u64,
        /// What the snapshot contains at least.
        position: Position,
    },
    /// A snapshot that came was of no use: it is damaged, or there is no room for it. It is asked for again after a while, and after a
    /// longer one each time.
    SnapshotRefused {
        /// The leader that sent it.
        from: u64,
        /// The last entry that it contains.
        position: Position,
        /// What is wrong.
        cause: Arc<str>,
    },
    /// The node failed; it does nothing more until it is started again.
    Fatal {
        /// What failed.
        cause: Arc<str>,
    },
    /// This receiver was slow and lost this many events, the oldest.
    Lagged(u64),
    /// The node is stopped. The last event.
    Stopped,
}

/// Receives the events of a node from the moment it was made.
///
/// Bounded by [`events_max`](crate::Options::events_max): who reads too slowly loses the oldest
/// and learns how many; the node never waits.
#[derive(Debug)]
pub struct Events(Arc<Receiver>);

impl Events {
    /// The next event, if there is one by now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.waiting.lock().next()
    }

    /// The next event, or `None` after `timeout` or when the node is stopped and all were read.
    pub fn next_timeout(&mut self, timeout: Duration) -> Option<Event> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Option<Event> {
        let mut waiting = self.0.waiting.lock();
        loop {
            if let Some(event) = waiting.next() {
                return Some(event);
            }
            if waiting.ended {
                return None;
            }
            match deadline {
                None => self.0.arrived.wait(&mut waiting),
                Some(deadline) => {
                    if self.0.arrived.wait_until(&mut waiting, deadline).timed_out() {
                        return waiting.next();
                    }
                }
            }
        }
    }
}

/// Blocks until something happens; ends when the node is stopped.
impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.next_until(None)
    }
}

/// Where a node tells its events.
#[derive(Debug)]
pub(crate) struct EventHub {
    events_max: usize,
    hub: Mutex<Hub>,
}

#[derive(Debug, Default)]
struct Hub {
    receivers: Vec<Weak<Receiver>>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Receiver {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    lost: u64,
    ended: bool,
}

impl Waiting {
    fn next(&mut self) -> Option<Event> {
        match std::mem::take(&mut self.lost) {
            0 => self.events.pop_front(),
            lost => Some(Event::Lagged(lost)),
        }
    }
}

impl EventHub {
    pub(crate) fn new(events_max: usize) -> Self {
        Self { events_max, hub: Mutex::default() }
    }

    pub(crate) fn receiver(&self) -> Events {
        let mut hub = self.hub.lock();
        let receiver = Arc::new(Receiver::default());
        receiver.waiting.lock().ended = hub.ended;
        hub.receivers.retain(|receiver| receiver.strong_count() > 0);
        hub.receivers.push(Arc::downgrade(&receiver));
        Events(receiver)
    }

    pub(crate) fn tell(&self, event: Event) {
        let mut hub = self.hub.lock();
        if hub.ended {
            return;
        }
        hub.ended = event == Event::Stopped;
        for receiver in hub.receivers.iter().filter_map(Weak::upgrade) {
            let mut waiting = receiver.waiting.lock();
            if waiting.events.len() == self.events_max {
                waiting.events.pop_front();
                waiting.lost += 1;
            }
            waiting.events.push_back(event.clone());
            waiting.ended = hub.ended;
            drop(waiting);
            receiver.arrived.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_receiver_loses_the_oldest_and_learns_how_many() {
        let hub = EventHub::new(2);
        let mut events = hub.receiver();
        assert_eq!(events.try_next(), None);
        for cluster in 1..=4 {
            hub.tell(Event::ClusterFormed { cluster });
        }
        hub.tell(Event::Stopped);
        assert_eq!(events.try_next(), Some(Event::Lagged(3)));
        let expected = [Event::ClusterFormed { cluster: 4 }, Event::Stopped];
        assert_eq!(events.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_receiver_made_after_the_end_ends_at_once() {
        let hub = EventHub::new(2);
        hub.tell(Event::Stopped);
        assert_eq!(hub.receiver().next(), None);
    }
}
