//! Who waits for durability, in the order of their LSNs.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use crate::{
    Lsn, WalError,
    sync::{
        AtomicBool, Instant,
        thread::{self, Thread},
    },
};

/// All that wait. One waker for each: no herd on a shared condition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<(Lsn, u64), Waiter>,
    /// Those of them that are blocked: found without a walk over the others, of which there can be many.
    blocked: BTreeSet<(Lsn, u64)>,
    tickets: u64,
    /// How many of them need somebody else to sync.
    passive: usize,
}

/// One that waits.
pub(crate) enum Waiter {
    /// A thread in `Pending::wait`; it can sync by itself.
    Blocked(Arc<Parker>),
    Task(Waker),
    /// A thread that follows: it asks nobody to sync.
    Follower(Arc<Parker>),
    Callback(Box<dyn FnOnce(Result<(), WalError>) + Send>),
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Blocked(_) => "Blocked",
            Self::Task(_) => "Task",
            Self::Follower(_) => "Follower",
            Self::Callback(_) => "Callback",
        })
    }
}

/// Foreign code that is called once the lock is released: who waits for room, or who hears of an event.
pub(crate) struct Deferred(pub(crate) Box<dyn FnOnce() + Send>);

impl Deferred {
    pub(crate) fn new(foreign: impl FnOnce() + Send + 'static) -> Self {
        Self(Box::new(foreign))
    }
}

impl std::fmt::Debug for Deferred {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deferred")
    }
}

/// Whom to tell once the lock is released.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) outcome: Option<WalError>,
    pub(crate) room: Vec<Deferred>,
    /// Event of what has happened, told before anybody acts on it.
    pub(crate) news: Option<Deferred>,
}

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(Lsn, u64);

impl Waiters {
    /// Joins the queue for `lsn`.
    pub(crate) fn add(&mut self, lsn: Lsn, waiter: Waiter) -> Ticket {
        self.tickets += 1;
        self.passive += usize::from(waiter.is_passive());
        if matches!(waiter, Waiter::Blocked(_)) {
            self.blocked.insert((lsn, self.tickets));
        }
        let ticket = Ticket(lsn, self.tickets);
        self.waiting.insert((lsn, self.tickets), waiter);
        ticket
    }

    /// Leaves the queue; `None` if it was served already.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiting.remove(&(ticket.0, ticket.1))?;
        self.blocked.remove(&(ticket.0, ticket.1));
        self.passive -= usize::from(waiter.is_passive());
        Some(waiter)
    }

    /// Takes out all that wait for `durable` or less.
    pub(crate) fn take_until(&mut self, durable: Lsn) -> Vec<Waiter> {
        let end = (Lsn(durable.0.saturating_add(1)), 0);
        self.blocked = self.blocked.split_off(&end);
        let rest = self.waiting.split_off(&end);
        let served = std::mem::replace(&mut self.waiting, rest);
        let served: Vec<Waiter> = served.into_values().collect();
        self.passive -= served.iter().filter(|waiter| waiter.is_passive()).count();
        served
    }

    /// Takes out all.
    pub(crate) fn take_all(&mut self) -> Vec<Waiter> {
        self.take_until(Lsn(u64::MAX))
    }

    /// The thread that should sync next, if one waits.
    pub(crate) fn next_syncer(&self) -> Option<Arc<Parker>> {
        match self.waiting.get(self.blocked.first()?) {
            Some(Waiter::Blocked(parker)) => Some(Arc::clone(parker)),
            other => unreachable!("a blocked thread waits, not {other:?}"),
        }
    }

    /// Someone waits who cannot sync by itself.
    pub(crate) fn has_passive(&self) -> bool {
        self.passive > 0
    }
}

impl Waiter {
    fn is_passive(&self) -> bool {
        matches!(self, Self::Task(_) | Self::Callback(_))
    }

    /// Tells it the outcome. Called with no lock held; a panic in foreign code stays here.
    pub(crate) fn serve(self, outcome: &Result<(), WalError>) {
        match self {
            Self::Blocked(parker) | Self::Follower(parker) => parker.wake(),
            Self::Task(waker) => guard(|| waker.wake()),
            Self::Callback(callback) => {
                let outcome = outcome.clone();
                guard(|| callback(outcome));
            }
        }
    }
}

impl Wakeups {
    /// Serves all; the lock must not be held.
    pub(crate) fn serve(self) {
        self.news.into_iter().for_each(|news| guard(news.0));
        let outcome = self.outcome.map_or(Ok(()), Err);
        self.waiters.into_iter().for_each(|waiter| waiter.serve(&outcome));
        self.room.into_iter().for_each(|callback| guard(callback.0));
    }
}

/// Runs foreign code; its panic harms nobody else.
pub(crate) fn guard(foreign: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(foreign)).is_err() {
        tracing::error!("a callback, waker or recorder panicked");
    }
}

/// A thread that sleeps until woken.
#[derive(Debug)]
pub(crate) struct Parker {
    thread: Thread,
    woken: AtomicBool,
}

impl Parker {
    /// For the calling thread.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), woken: AtomicBool::new(false) })
    }

    /// Ends the sleep, or keeps the next one from beginning.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }

    /// Sleeps until woken, or until `deadline`.
    pub(crate) fn park(&self, deadline: Option<Instant>) {
        while !self.woken.swap(false, Ordering::Acquire) {
            match deadline {
                None => thread::park(),
                Some(deadline) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return;
                    }
                    thread::park_timeout(deadline - now);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn callback() -> Waiter {
        Waiter::Callback(Box::new(|_| ()))
    }

    #[test]
    fn only_those_who_cannot_sync_themselves_need_the_logs_thread_and_only_while_they_wait() {
        let mut waiters = Waiters::default();
        let blocked = Parker::new();
        waiters.add(Lsn(8), Waiter::Follower(Parker::new()));
        assert!(!waiters.has_passive() && waiters.next_syncer().is_none());
        let ticket = waiters.add(Lsn(8), callback());
        waiters.add(Lsn(16), Waiter::Task(Waker::noop().clone()));
        waiters.add(Lsn(24), Waiter::Blocked(Arc::clone(&blocked)));
        assert!(waiters.has_passive());
        let syncer = waiters.next_syncer().expect("one that is blocked");
        assert!(Arc::ptr_eq(&syncer, &blocked));

        assert!(waiters.remove(ticket).is_some() && waiters.remove(ticket).is_none());
        assert!(waiters.has_passive(), "the task waits still");
        assert_eq!(waiters.take_until(Lsn(16)).len(), 2, "the follower and the task");
        assert!(!waiters.has_passive());
        waiters.add(Lsn(32), callback());
        assert_eq!(waiters.take_all().len(), 2);
        assert!(!waiters.has_passive() && waiters.next_syncer().is_none());
    }

    #[test]
    fn the_blocked_thread_that_waits_for_least_syncs_next_and_none_that_left_or_was_served() {
        let mut waiters = Waiters::default();
        let mut add = |lsn| {
            let parker = Parker::new();
            (waiters.add(Lsn(lsn), Waiter::Blocked(Arc::clone(&parker))), parker)
        };
        let [(_, last), (_, first), (leaves, second)] = [32, 8, 16].map(&mut add);
        waiters.add(Lsn(4), callback());
        let is_next = |waiters: &Waiters, parker| {
            waiters.next_syncer().is_some_and(|next| Arc::ptr_eq(&next, parker))
        };
        assert!(is_next(&waiters, &first));
        waiters.take_until(Lsn(8));
        assert!(is_next(&waiters, &second));
        waiters.remove(leaves);
        assert!(is_next(&waiters, &last));
        waiters.take_until(Lsn(32));
        assert!(waiters.next_syncer().is_none());
    }

    #[test]
    fn waiters_are_served_in_the_order_of_what_they_wait_for() {
        let mut waiters = Waiters::default();
        let (sender, receiver) = std::sync::mpsc::channel();
        for lsn in [24, 8, 16] {
            let sender = sender.clone();
            let tell = move |_| sender.send(lsn).expect("it is heard");
            waiters.add(Lsn(lsn), Waiter::Callback(Box::new(tell)));
        }
        let served = waiters.take_until(Lsn(23));
        served.into_iter().for_each(|waiter| waiter.serve(&Ok(())));
        assert_eq!(receiver.try_iter().collect::<Vec<u64>>(), [8, 16]);
    }
}
