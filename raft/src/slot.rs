//! One value on its way from one thread to another: the inside of every future of this crate.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A slot that one side fills and the other empties, each once.
pub(crate) fn slot<T>() -> (Completer<T>, Outcome<T>) {
    let slot = Arc::new(Mutex::new(State::Empty));
    (Completer(slot.clone()), Outcome(slot))
}

/// The side that fills.
pub(crate) struct Completer<T>(Arc<Mutex<State<T>>>);

impl<T> Completer<T> {
    /// True if nobody can receive the value any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// Fills the slot and wakes whoever waits. No lock may be held.
    ///
    /// If nobody waits any more the value is dropped here, with whatever it does then.
    pub(crate) fn complete_and_wake(self, value: T) {
        let complete = || {
            let before = std::mem::replace(&mut *self.0.lock(), State::Ready(value));
            match before {
                State::Empty => {}
                State::Waiting(waker) => waker.wake(),
                State::Ready(_) | State::Taken => unreachable!("this was the only completer"),
            }
            drop(self);
        };
        // Both may do anything, being the application's: a panic is its own affair.
        if catch_unwind(AssertUnwindSafe(complete)).is_err() {
            tracing::error!("a waker, or a value that nobody waited for, panicked");
        }
    }
}

/// The side that empties.
pub(crate) struct Outcome<T>(Arc<Mutex<State<T>>>);

impl<T> Outcome<T> {
    /// A slot that was full from the beginning.
    pub(crate) fn ready(value: T) -> Self {
        Self(Arc::new(Mutex::new(State::Ready(value))))
    }

    pub(crate) fn wait(self) -> T {
        loop {
            match self.poll_with(thread_waker()) {
                Poll::Ready(value) => return value,
                Poll::Pending => thread::park(),
            }
        }
    }

    pub(crate) fn wait_timeout(self, timeout: Duration) -> Result<T, Self> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Poll::Ready(value) = self.poll_with(thread_waker()) {
                return Ok(value);
            }
            match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                None => thread::park(),
                Some(Duration::ZERO) => return Err(self),
                Some(left) => thread::park_timeout(left),
            }
        }
    }

    /// A waker is cloned by the caller, and the one before it is dropped, without the lock: both are
    /// code of the application.
    fn poll_with(&self, waker: Waker) -> Poll<T> {
        let mut state = self.0.lock();
        let before = std::mem::replace(&mut *state, State::Taken);
        match before {
            State::Ready(value) => {
                drop(state);
                Poll::Ready(value)
            }
            State::Taken => {
                drop(state);
                panic!("polled after it was ready")
            }
            State::Empty | State::Waiting(_) => {
                *state = State::Waiting(waker);
                drop(state);
                drop(before);
                Poll::Pending
            }
        }
    }
}

impl<T> Future for Outcome<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.poll_with(context.waker().clone())
    }
}

enum State<T> {
    Empty,
    Waiting(Waker),
    Ready(T),
    Taken,
}

/// Wakes a thread that waits by parking.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static THREAD_WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

fn thread_waker() -> Waker {
    THREAD_WAKER.with(Waker::clone)
}

/// Makes a public future of an [`Outcome`].
macro_rules! future {
    ($(#[$doc:meta])* $name:ident $(<$generic:ident>)? => $output:ty) => {
        $(#[$doc])*
        #[must_use = "the outcome is known only to whoever waits for it"]
        pub struct $name $(<$generic>)? (pub(crate) $crate::slot::Outcome<$output>);

        impl $(<$generic>)? $name $(<$generic>)? {
            /// Blocks this thread until the outcome is known.
            ///
            /// Never call it from a state machine or the closure of a read: those are what it
            /// waits for.
            pub fn wait(self) -> $output {
                self.0.wait()
            }

            /// Blocks this thread for at most `timeout`.
            ///
            /// # Errors
            /// The future itself, to go on waiting, if the outcome is not known by then.
            pub fn wait_timeout(self, timeout: ::std::time::Duration) -> Result<$output, Self> {
                self.0.wait_timeout(timeout).map_err(Self)
            }
        }

        impl $(<$generic>)? ::std::future::Future for $name $(<$generic>)? {
            type Output = $output;

            fn poll(
                mut self: ::std::pin::Pin<&mut Self>,
                context: &mut ::std::task::Context<'_>,
            ) -> ::std::task::Poll<Self::Output> {
                ::std::pin::Pin::new(&mut self.0).poll(context)
            }
        }

        impl $(<$generic>)? ::std::fmt::Debug for $name $(<$generic>)? {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}
pub(crate) use future;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocking_wait_ends_with_the_value() {
        let (completer, outcome) = slot();
        let waiter = thread::spawn(move || outcome.wait());
        completer.complete_and_wake(7);
        assert_eq!(waiter.join().unwrap(), 7);
    }

    #[test]
    fn a_wait_that_times_out_can_go_on() {
        let (completer, outcome) = slot();
        let Err(outcome) = outcome.wait_timeout(Duration::from_millis(1)) else {
            panic!("nothing was completed")
        };
        completer.complete_and_wake(7);
        assert_eq!(pollster::block_on(outcome), 7);
    }

    /// What a waker of an executor may do: anything, also panic.
    struct Probe {
        slot: std::sync::Weak<Mutex<State<u64>>>,
        unlocked: Arc<Mutex<Vec<bool>>>,
        panics: bool,
    }

    impl Probe {
        fn look(&self) {
            if let Some(slot) = self.slot.upgrade() {
                self.unlocked.lock().push(slot.try_lock().is_some());
            }
        }
    }

    impl Wake for Probe {
        fn wake(self: Arc<Self>) {
            self.look();
            assert!(!self.panics, "told to panic");
        }
    }

    impl Drop for Probe {
        fn drop(&mut self) {
            self.look();
        }
    }

    fn probe(outcome: &Outcome<u64>, unlocked: &Arc<Mutex<Vec<bool>>>, panics: bool) -> Waker {
        let slot = Arc::downgrade(&outcome.0);
        Waker::from(Arc::new(Probe { slot, unlocked: unlocked.clone(), panics }))
    }

    #[test]
    fn a_waker_is_dropped_and_woken_without_the_lock() {
        let (completer, mut outcome) = slot();
        let unlocked = Arc::default();
        for _ in 0..3 {
            let waker = probe(&outcome, &unlocked, false);
            let poll = Pin::new(&mut outcome).poll(&mut Context::from_waker(&waker));
            assert!(poll.is_pending());
        }
        completer.complete_and_wake(7);
        let waker = probe(&outcome, &unlocked, false);
        let poll = Pin::new(&mut outcome).poll(&mut Context::from_waker(&waker));
        assert_eq!(poll, Poll::Ready(7));
        drop(waker);
        // Four drops and a wake-up.
        assert_eq!(*unlocked.lock(), [true; 5]);
    }

    #[test]
    fn a_waker_that_panics_harms_nobody() {
        let (completer, mut outcome) = slot();
        let unlocked = Arc::default();
        let waker = probe(&outcome, &unlocked, true);
        let _ = Pin::new(&mut outcome).poll(&mut Context::from_waker(&waker));
        completer.complete_and_wake(7);
        assert_eq!(outcome.wait(), 7);
    }
}
