//! How often what happened: a check that never meets what it is for shows nothing.

use std::{collections::BTreeMap, fmt};

/// Counts of what happened, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Default for Coverage {
    fn default() -> Self {
        Self(ALL.iter().map(|&what| (what, 0)).collect())
    }
}

impl Coverage {
    /// It happened once more.
    ///
    /// # Panics
    /// If it is none of [`ALL`].
    pub fn count(&mut self, what: &'static str) {
        self.add_to(what, 1);
    }

    /// It happened so many times more.
    pub fn add_to(&mut self, what: &'static str, count: u64) {
        *self.0.get_mut(what).expect("what is counted has a name in ALL") += count;
    }

    /// How often it happened.
    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// Takes in what happened in another world.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            self.add_to(what, *count);
        }
    }

    /// What never happened of all that can.
    pub fn missing(&self) -> Vec<&'static str> {
        ALL.iter().copied().filter(|what| self.of(what) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in ALL {
            writeln!(f, "{:>12}  {what}", self.of(what))?;
        }
        Ok(())
    }
}

/// All that a long run meets.
pub const ALL: [&str; 76] = [
    "power cut",
    "a power cut loses what was not synced",
    "power cut inside a job",
    "power cut inside a start",
    "kill",
    "kill inside a job",
    "power cut inside a job of the keeper",
    "stop",
    "pause",
    "partition",
    "partition of one from all",
    "partition in halves",
    "partition with a bridge",
    "partition in one direction",
    "partition of any directions",
    "clog",
    "full queue",
    "sync fails",
    "sync fails and takes back",
    "write fails",
    "a create fails",
    "a rename fails",
    "a removal fails",
    "a sync of names fails",
    "disk full",
    "slow disk",
    "hung disk",
    "clock jump",
    "rot",
    "lie",
    "misdirected write",
    "wipe",
    "a message is lost",
    "a message comes twice",
    "a message overtakes",
    "a message comes again after seconds",
    "a message finds a full queue",
    "a connection breaks",
    "one direction of a connection breaks",
    "a leader is elected",
    "a durable suffix is cut off",
    "a fetch from the log",
    "a look at a disk behind a step",
    "an acknowledged write is looked for on all disks",
    "a node ends by itself",
    "an answer because a node stops",
    "a log is closed for good",
    "a start is put off",
    "a start fails in a sync",
    "a repair fails in a sync",
    "a torn tail is repaired",
    "a damaged log is refused",
    "a lie is found out",
    "a lie is not found out",
    "a wiped disk is not admitted",
    "a rotation",
    "a segment is used again",
    "a snapshot is taken",
    "a snapshot cannot be taken",
    "a snapshot is needed",
    "a snapshot is refused",
    "a rotten snapshot is noticed",
    "a start goes on from a snapshot",
    "a snapshot takes the place of a state",
    "a start goes on from the state machine's own disk",
    "a write is applied",
    "a swap that does not write",
    "a linearizable read",
    "a local read",
    "a read on a leader that is deposed",
    "certainly not applied",
    "an unknown outcome",
    "writes are held",
    "a stalled follower is named",
    "a search comes to its end",
    "a search is given up",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_happened_is_named() {
        let mut coverage = Coverage::default();
        ALL.iter().skip(1).for_each(|what| coverage.count(what));
        assert_eq!(coverage.missing(), ["power cut"]);
        let mut sum = Coverage::default();
        sum.add(&coverage);
        sum.count("power cut");
        assert!(sum.missing().is_empty() && sum.of("kill") == 1);
    }
}
