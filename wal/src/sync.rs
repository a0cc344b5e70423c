//! Where locks, atomics, threads and the clock come from, and nowhere else in this crate but in `recovery::parallel`, whose
//! threads share a counter and end with the call: parking_lot and std. Under
//! `cfg(loom)` they are loom's in the same shape, so that `tests/loom.rs` runs the queue of group commit itself through
//! every order of its threads.

#[cfg(loom)]
mod modelled;

#[cfg(loom)]
pub use self::modelled::pass_time;
#[cfg(loom)]
pub(crate) use self::modelled::{
    AtomicBool, AtomicU64, Condvar, Instant, Mutex, MutexGuard, thread,
};
#[cfg(not(loom))]
pub(crate) use {
    parking_lot::{Condvar, Mutex, MutexGuard},
    std::{
        sync::atomic::{AtomicBool, AtomicU64},
        thread,
        time::Instant,
    },
};
