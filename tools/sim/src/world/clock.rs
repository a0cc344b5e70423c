//! What a machine takes for the time.

/// A clock that runs fast or slow, and can jump forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    drift: i64,
    ahead: u64,
}

impl Clock {
    /// One that gains `drift` millionths.
    pub(crate) fn new(drift: i64) -> Self {
        Self { drift, ahead: 0 }
    }

    /// What it shows at a moment of the world.
    pub(crate) fn shows(&self, now: u64) -> u64 {
        let rate = u128::try_from(1_000_000 + self.drift).expect("drift is small");
        let shown = u128::from(now) * rate / 1_000_000;
        u64::try_from(shown).expect("a short life") + self.ahead
    }

    /// The first moment at which it shows `shown`.
    pub(crate) fn moment(&self, shown: u64) -> u64 {
        let rate = u128::try_from(1_000_000 + self.drift).expect("drift is small");
        let without = u128::from(shown.saturating_sub(self.ahead));
        u64::try_from((without * 1_000_000).div_ceil(rate)).unwrap_or(u64::MAX)
    }

    /// Goes forward.
    pub(crate) fn jump(&mut self, by: u64) {
        self.ahead += by;
    }
}
