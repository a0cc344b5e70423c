//! What can be set, with defaults and the relations that must hold.

use core::time::Duration;

use crate::{NodeId, codec::ENTRIES_MAX, entry::OVERHEAD_BYTES};

/// Options of the protocol; [`Config::new`] has the defaults.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Config {
    /// This node.
    pub id: NodeId,
    /// How often a leader speaks when it has nothing to say. Default 100 ms.
    pub heartbeat: Duration,
    /// The shortest silence after which a follower stands for election, the time that a voter
    /// sticks to a leader it heard, and the time after which a leader that no quorum answers steps
    /// down. At least twice the heartbeat. Default 600 ms.
    pub election_timeout_min: Duration,
    /// The longest such silence; each is drawn anew between the two. Also how long a follower
    /// waits for its leader's answer to a read. Default 1200 ms.
    pub election_timeout_max: Duration,
    /// After this time with writes pending and none completed, a leader steps down, and a node
    /// does not stand for election. Default 2 s.
    pub disk_stall: Duration,
    /// What the entries of one AppendEntries weigh at most, unless a single one weighs more.
    /// Default 1 MiB, at most 16 MiB.
    pub append_bytes_max: usize,
    /// The longest command. Default 8 MiB.
    pub command_bytes_max: usize,
    /// AppendEntries with entries on their way to one follower. Default 256.
    pub inflight_messages_max: usize,
    /// What those weigh together, unless there is only one. Default 16 MiB.
    pub inflight_bytes_max: usize,
    /// What the proposals of this leadership weigh that are not yet both applied and durable here.
    /// Beyond it: `Overloaded`. Default 64 MiB.
    pub unapplied_bytes_max: usize,
    /// What the newest entries kept in memory weigh, as far as they are durable here; older ones
    /// come by `Fetch`. Also bounds what is handed to the state machine and not yet applied.
    /// Default 32 MiB.
    pub tail_bytes_max: usize,
    /// What one `Fetch` asks for at most (never more than an AppendEntries takes). Default 1 MiB.
    pub fetch_bytes_max: usize,
    /// Entries that are kept in the log although a snapshot contains them, for followers that are a
    /// little behind; none that the snapshot before it contains. Default 4096.
    pub trailing_entries: u64,
    /// The state machine is given only what is durable here. For one that keeps a disk of its own: it must not know more after a
    /// power cut than the log does. Otherwise what is committed is applied, on whichever disks it is. Default false.
    pub applies_durable_only: bool,
    /// Linearizable reads that wait, those asked for by followers included. Beyond it a read
    /// fails. Default 65,536.
    pub reads_max: usize,
}

impl Config {
    /// The defaults for node `id`.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            heartbeat: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            disk_stall: Duration::from_secs(2),
            append_bytes_max: 1 << 20,
            command_bytes_max: 8 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 << 20,
            unapplied_bytes_max: 64 << 20,
            tail_bytes_max: 32 << 20,
            fetch_bytes_max: 1 << 20,
            trailing_entries: 1 << 12,
            applies_durable_only: false,
            reads_max: 1 << 16,
        }
    }

    /// Checks the relations between the options.
    ///
    /// # Errors
    /// The first relation that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let rules = [
            (self.id != NodeId(0), "the node id is 0"),
            (!self.heartbeat.is_zero(), "the heartbeat is zero"),
            (
                self.election_timeout_min >= self.heartbeat * 2,
                "the shortest election timeout is less than two heartbeats",
            ),
            (
                self.election_timeout_max > self.election_timeout_min,
                "the longest election timeout does not exceed the shortest",
            ),
            (!self.disk_stall.is_zero(), "the disk stall time is zero"),
            (self.append_bytes_max > 0, "append_bytes_max is zero"),
            (self.command_bytes_max > 0, "command_bytes_max is zero"),
            // A length on the wire is a u32, and its message must fit into one as well.
            (self.command_bytes_max <= 1 << 30, "command_bytes_max is above 1 GiB"),
            // What an entry weighs at least bounds their number.
            (
                self.append_bytes_max <= ENTRIES_MAX * OVERHEAD_BYTES,
                "append_bytes_max is above 16 MiB",
            ),
            (self.inflight_messages_max > 0, "inflight_messages_max is zero"),
            (self.inflight_bytes_max > 0, "inflight_bytes_max is zero"),
            (
                self.unapplied_bytes_max >= self.command_bytes_max,
                "unapplied_bytes_max is less than command_bytes_max",
            ),
            (self.tail_bytes_max > 0, "tail_bytes_max is zero"),
            (self.fetch_bytes_max > 0, "fetch_bytes_max is zero"),
            (self.reads_max > 0, "reads_max is zero"),
        ];
        rules.into_iter().try_for_each(
            |(holds, broken)| {
                if holds { Ok(()) } else { Err(ConfigError(broken)) }
            },
        )
    }
}

/// What keeps a core from being made: options that contradict each other, or a recovered state
/// that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::new(NodeId(1)).validate(), Ok(()));
    }

    #[test]
    fn contradictions_are_named() {
        let mut config = Config::new(NodeId(1));
        config.election_timeout_max = config.election_timeout_min;
        let error = config.validate().unwrap_err();
        assert_eq!(error.0, "the longest election timeout does not exceed the shortest");
        assert!(Config::new(NodeId(0)).validate().is_err());
    }
}
