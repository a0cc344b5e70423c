//! Waiting until an append is durable: by blocking, as a future, by callback.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    Lsn, WalError,
    core::{Core, State},
    sync::{Instant, thread},
    threads,
    waiters::{Parker, Ticket, Waiter, guard},
};

/// Durability of one append. Dropping it cancels nothing.
#[must_use = "the append is not durable before this resolves"]
pub struct Pending {
    core: Arc<Core>,
    lsn: Lsn,
    /// The task's place in the queue, once it was polled.
    ticket: Option<Ticket>,
}

impl Pending {
    pub(crate) fn new(core: Arc<Core>, lsn: Lsn) -> Self {
        Self { core, lsn, ticket: None }
    }

    /// Everything below this LSN is durable when the wait returns.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Blocks until durable. The caller may become the syncer itself.
    ///
    /// # Errors
    /// The log was poisoned or closed before.
    pub fn wait(self) -> Result<(), WalError> {
        match self.wait_until(None) {
            Some(outcome) => outcome,
            None => unreachable!("a wait without a deadline has an outcome"),
        }
    }

    /// Blocks until durable, at most about `timeout`: `Err` gives the wait back. A sync that the caller itself began is
    /// seen through, however long it takes.
    ///
    /// # Errors
    /// The outer one gives `self` back; the inner one is that of [`Pending::wait`].
    pub fn wait_timeout(self, timeout: Duration) -> Result<Result<(), WalError>, Self> {
        let deadline = Instant::now().checked_add(timeout);
        self.wait_until(deadline).ok_or(self)
    }

    /// Calls `callback` exactly once: on the syncer's thread, or here if the outcome is known. No lock is held, and a
    /// panic in it harms nobody.
    pub fn on_durable(self, callback: impl FnOnce(Result<(), WalError>) + Send + 'static) {
        let mut state = self.core.state.lock();
        if let Some(outcome) = self.outcome(&state) {
            drop(state);
            guard(|| callback(outcome));
            return;
        }
        state.waiters.add(self.lsn, Waiter::Callback(Box::new(callback)));
        self.core.hand_over(&state);
    }

    fn outcome(&self, state: &State) -> Option<Result<(), WalError>> {
        if self.core.durable() >= self.lsn {
            return Some(Ok(()));
        }
        state.mode.end().map(Err)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Option<Result<(), WalError>> {
        if self.core.durable() >= self.lsn {
            return Some(Ok(()));
        }
        let parker = Parker::new();
        let mut yielded = false;
        loop {
            let mut state = self.core.state.lock();
            if let Some(outcome) = self.outcome(&state) {
                return Some(outcome);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                // This one may have been woken to sync.
                self.core.hand_over(&state);
                return None;
            }
            if !state.syncing && state.is_crowded && !yielded {
                drop(state);
                // Those who were just woken are about to append: they come into the same group.
                thread::yield_now();
                yielded = true;
                continue;
            }
            if !state.syncing {
                drop(state);
                threads::sync_once(&self.core, None);
                continue;
            }
            let ticket = state.waiters.add(self.lsn, Waiter::Blocked(Arc::clone(&parker)));
            drop(state);
            parker.park(deadline);
            // Woken to sync, or late: still in the queue, and about to act or to leave.
            self.core.state.lock().waiters.remove(ticket);
        }
    }
}

impl Future for Pending {
    type Output = Result<(), WalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.ticket.is_none() && self.core.durable() >= self.lsn {
            return Poll::Ready(Ok(()));
        }
        let core = Arc::clone(&self.core);
        let waker = context.waker().clone();
        let mut state = core.state.lock();
        if let Some(outcome) = self.outcome(&state) {
            return Poll::Ready(outcome);
        }
        let before = self.ticket.take().and_then(|ticket| state.waiters.remove(ticket));
        self.ticket = Some(state.waiters.add(self.lsn, Waiter::Task(waker)));
        core.hand_over(&state);
        drop(state);
        // A waker is foreign code, also when it is dropped: with no lock held.
        drop(before);
        Poll::Pending
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            // As above: dropped with no lock held.
            let waiter = self.core.state.lock().waiters.remove(ticket);
            drop(waiter);
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("lsn", &self.lsn).finish_non_exhaustive()
    }
}
