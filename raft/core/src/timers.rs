//! When a node acts by itself: the election deadline and the next heartbeat.

use core::time::Duration;

use crate::{Config, Instant, random::Random};

/// The two deadlines. Which one counts is the role's business.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Timers {
    random: Random,
    election_timeout_min: Duration,
    /// Nanoseconds between the shortest and the longest election timeout; at least 1.
    election_spread: u64,
    heartbeat: Duration,
    election_at: Instant,
    heartbeat_at: Instant,
}

impl Timers {
    pub(crate) fn new(config: &Config, random: Random, now: Instant) -> Self {
        let spread = config.election_timeout_max - config.election_timeout_min;
        let mut timers = Self {
            random,
            election_timeout_min: config.election_timeout_min,
            election_spread: u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX).max(1),
            heartbeat: config.heartbeat,
            election_at: now,
            heartbeat_at: now,
        };
        timers.restart_election(now);
        timers
    }

    /// A whole election timeout from now, drawn anew.
    pub(crate) fn restart_election(&mut self, now: Instant) {
        let spread = Duration::from_nanos(self.random.below(self.election_spread));
        self.election_at = now + self.election_timeout_min + spread;
    }

    pub(crate) fn restart_heartbeat(&mut self, now: Instant) {
        self.heartbeat_at = now + self.heartbeat;
    }

    pub(crate) fn election_at(&self) -> Instant {
        self.election_at
    }

    pub(crate) fn heartbeat_at(&self) -> Instant {
        self.heartbeat_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    #[test]
    fn election_timeouts_stay_between_their_bounds_and_differ() {
        let config = Config::new(NodeId(1));
        let mut timers = Timers::new(&config, Random::new(3), Instant(0));
        let mut seen = alloc::collections::BTreeSet::new();
        for _ in 0..100 {
            timers.restart_election(Instant(5));
            let at = timers.election_at();
            assert!(at >= Instant(5) + config.election_timeout_min);
            assert!(at < Instant(5) + config.election_timeout_max);
            seen.insert(at);
        }
        assert!(seen.len() > 90, "drawn anew each time");
    }
}
