//! The clock of the process, as the protocol reads it.

use std::time::Duration;

use kontiki_core::Instant;

/// Instants of the protocol from the clock of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(std::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::default() + self.0.elapsed()
    }

    /// `None` if it is further away than a clock can tell.
    pub(crate) fn deadline(&self, instant: Instant) -> Option<std::time::Instant> {
        self.0.checked_add(Duration::from_nanos(instant.0))
    }
}
