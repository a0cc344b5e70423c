//! Time as a number, handed in with every input.

use core::{ops::Add, time::Duration};

/// Nanoseconds since a moment of the runtime's choice; monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time, some 580 years on.
    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}
