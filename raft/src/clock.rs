//! The clock of a node: that of the process, or one that whoever calls its steps sets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use kontiki_core::Instant;

/// Instants of the protocol.
#[derive(Debug)]
pub(crate) enum Clock {
    /// Since the node was started.
    Process(std::time::Instant),
    /// As it was set last; nanoseconds.
    Stepped(AtomicU64),
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self::Process(std::time::Instant::now())
    }

    pub(crate) fn stepped(now: Instant) -> Self {
        Self::Stepped(AtomicU64::new(now.0))
    }

    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::Process(start) => Instant::default() + start.elapsed(),
            Self::Stepped(now) => Instant(now.load(Ordering::Relaxed)),
        }
    }

    /// # Panics
    /// If it is the process's, or would go back.
    pub(crate) fn set(&self, now: Instant) {
        let Self::Stepped(before) = self else { panic!("nobody sets the clock of the process") };
        assert!(before.swap(now.0, Ordering::Relaxed) <= now.0, "a clock never goes back");
    }

    /// `None` if it is further away than a clock can tell, or nobody sleeps by this one.
    pub(crate) fn deadline(&self, instant: Instant) -> Option<std::time::Instant> {
        match self {
            Self::Process(start) => start.checked_add(Duration::from_nanos(instant.0)),
            Self::Stepped(_) => None,
        }
    }
}
