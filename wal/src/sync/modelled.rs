//! What the log uses of parking_lot and std, on loom.
//!
//! Time stands still until a thread of the model calls [`pass_time`]. That is a step like any other: loom tries it at every
//! place, so a deadline passes before, during or after whatever else happens. Timed waits on a [`Condvar`] never time out:
//! they are the log's own rounds (idle marks, another attempt at a segment), and a wake-up that was lost would only be
//! hidden by them.

use std::{
    ops::{Add, Deref, DerefMut, Sub},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use loom::sync::Notify;
pub(crate) use loom::sync::atomic::AtomicU64;

/// A flag. loom would let a store go before a swap that has already read the value under it, and so lose it; no machine
/// does. A store that is a swap itself stays where it was made.
#[derive(Debug)]
pub(crate) struct AtomicBool(loom::sync::atomic::AtomicBool);

/// A lock without poisoning, as parking_lot's.
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

/// `None` only while a condition is waited for.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

/// Waits take the guard by reference, as parking_lot's.
#[derive(Debug)]
pub(crate) struct Condvar(loom::sync::Condvar);

/// Timed waits do not time out.
pub(crate) struct WaitTimeoutResult;

/// A reading of the model's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl AtomicBool {
    pub(crate) fn new(value: bool) -> Self {
        Self(loom::sync::atomic::AtomicBool::new(value))
    }

    pub(crate) fn load(&self, ordering: Ordering) -> bool {
        self.0.load(ordering)
    }

    pub(crate) fn store(&self, value: bool, ordering: Ordering) {
        self.0.swap(value, ordering);
    }

    pub(crate) fn swap(&self, value: bool, ordering: Ordering) -> bool {
        self.0.swap(value, ordering)
    }
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect(UNPOISONED)))
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().expect(UNPOISONED)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(LOCKED)
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(LOCKED)
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let locked = guard.0.take().expect(LOCKED);
        guard.0 = Some(self.0.wait(locked).expect(UNPOISONED));
    }

    pub(crate) fn wait_for<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _: Duration,
    ) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _: Instant,
    ) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Instant {
    pub(crate) fn now() -> Self {
        let is_late = CLOCK.lock().is_late;
        Self(if is_late { Duration::from_secs(3600) } else { Duration::ZERO })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Self::now() - *self
    }

    pub(crate) fn checked_add(&self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, other: Self) -> Duration {
        self.0.saturating_sub(other.0)
    }
}

/// Lets an hour go by, once in a model: whoever parks with a deadline wakes. Who was about to park sleeps on until woken, as
/// one may who is late; so nobody's progress can rest on a deadline.
pub fn pass_time() {
    let mut clock = CLOCK.lock();
    clock.is_late = true;
    let sleepers = std::mem::take(&mut clock.sleepers);
    drop(clock);
    sleepers.iter().for_each(|sleeper| sleeper.notify());
}

#[derive(Debug, Default)]
struct Clock {
    is_late: bool,
    /// Who parks with a deadline.
    sleepers: Vec<Arc<Notify>>,
}

loom::lazy_static! {
    static ref CLOCK: Mutex<Clock> = Mutex::new(Clock::default());
}

/// Threads that park on a token, which keeps a wake-up for later as std's do. (loom's own unpark would also run a thread that
/// waits for a lock.)
pub(crate) mod thread {
    use std::{
        any::Any,
        io,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    pub(crate) use loom::thread::{ThreadId, yield_now};

    use super::{Arc, CLOCK, Duration, Notify};

    loom::thread_local! {
        static TOKEN: Arc<Notify> = Arc::new(Notify::new());
    }

    #[derive(Clone, Debug)]
    pub(crate) struct Thread {
        id: ThreadId,
        token: Arc<Notify>,
    }

    #[derive(Debug)]
    pub(crate) struct Builder(loom::thread::Builder);

    #[derive(Debug)]
    pub(crate) struct JoinHandle<T>(loom::thread::JoinHandle<Result<T, Panic>>);

    type Panic = Box<dyn Any + Send>;

    pub(crate) fn current() -> Thread {
        Thread { id: loom::thread::current().id(), token: TOKEN.with(Arc::clone) }
    }

    pub(crate) fn park() {
        TOKEN.with(|token| token.wait());
    }

    /// Returns when woken, or when time passes from now on.
    pub(crate) fn park_timeout(_: Duration) {
        let token = TOKEN.with(Arc::clone);
        CLOCK.lock().sleepers.push(token);
        park();
    }

    impl Thread {
        pub(crate) fn id(&self) -> ThreadId {
            self.id
        }

        pub(crate) fn unpark(&self) {
            self.token.notify();
        }
    }

    impl Builder {
        pub(crate) fn new() -> Self {
            Self(loom::thread::Builder::new())
        }

        pub(crate) fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        /// As std's: a panic ends the thread and goes to whoever joins it. loom's would end the model.
        pub(crate) fn spawn<T: Send + 'static>(
            self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            self.0.spawn(|| catch_unwind(AssertUnwindSafe(work))).map(JoinHandle)
        }
    }

    impl<T> JoinHandle<T> {
        pub(crate) fn thread(&self) -> &loom::thread::Thread {
            self.0.thread()
        }

        pub(crate) fn join(self) -> Result<T, Panic> {
            self.0.join().and_then(|outcome| outcome)
        }
    }
}

const UNPOISONED: &str = "a lock is not held across a panic";
const LOCKED: &str = "locked but while it waits";
