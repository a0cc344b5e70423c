//! Every bound, by name.

use std::time::Duration;

use kontiki_core::{Config, NodeId};

use crate::{
    StartError,
    envelope::PARTS_MAX,
    fetcher::PIECES_MAX,
    snapshots::download::{PIECE_BYTES_MAX, Pace, WINDOW_PIECES},
    transport::MESSAGE_BYTES_MAX,
};

/// What can be set. Every queue of a node is bounded by one of these; together they are the memory
/// bound, see [`memory_bytes_max`](Self::memory_bytes_max).
///
/// ```
/// let mut options = kontiki::Options::default();
/// options.proposal_timeout = std::time::Duration::from_secs(1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How often a leader without work shows that it is alive. 100 ms: far above a round trip, far
    /// below an election timeout.
    pub heartbeat: Duration,
    /// The shortest time without a leader after which a follower campaigns. 600 ms: six lost
    /// heartbeats, or a disk or scheduler that stalls for half a second, depose nobody.
    pub election_timeout_min: Duration,
    /// The longest such time; each is drawn anew in between, so that two followers seldom
    /// campaign together. 1200 ms.
    pub election_timeout_max: Duration,
    /// After this long without progress of its own disk a leader steps down. 2 s: longer than
    /// the stalls of a healthy disk.
    pub disk_stall: Duration,
    /// After this long without progress a leader names a follower that lacks entries
    /// ([`Event::FollowerStalled`](crate::Event::FollowerStalled)). 5 s: several elections, and longer than a healthy disk stalls.
    pub follower_stall: Duration,
    /// How long a proposal may wait for a leader, and once more, after a leader has appended it or
    /// it was passed on to one, for its outcome: then it ends as `Unknown`. So it has an outcome
    /// after twice this time at the latest, and a read after this time, unless the state machine
    /// itself blocks. 5 s: several elections.
    pub proposal_timeout: Duration,
    /// The longest command, and the longest batch of one `propose_batch`. 8 MiB; at most a quarter
    /// of `segment_bytes` less 4 KiB.
    pub command_bytes_max: usize,
    /// Proposals without an outcome; beyond it `Overloaded`. 65,536: about 20 MiB of bookkeeping.
    /// At most 262,144, as many as one message may pass on.
    pub proposals_max: usize,
    /// Bytes of commands without an outcome; beyond it `Overloaded`. 64 MiB: some tenths of a
    /// second of a fast disk's work. At least `command_bytes_max`.
    pub proposal_bytes_max: usize,
    /// Reads without an outcome; beyond it `Overloaded`. 65,536.
    pub reads_max: usize,
    /// Bytes of commands that one turn of the driver hands to the protocol. 4 MiB: large enough
    /// to keep a disk busy, small enough that messages do not wait long behind them. A
    /// follower passes on as much in one message: at most 16 MiB.
    pub turn_bytes_max: usize,
    /// Bytes of messages from peers that wait for the driver, with what they take decoded; what
    /// comes on top is dropped, as a network may, but for a message that finds none before it.
    /// 64 MiB: more than the windows of the peers, so that it is never reached in a healthy
    /// cluster.
    pub inbound_bytes_max: usize,
    /// Payload of one message that replicates entries. 1 MiB; at most 16 MiB.
    pub append_bytes_max: usize,
    /// Messages with entries under way to one follower. 256.
    pub inflight_messages_max: usize,
    /// Bytes of entries under way to one follower. 8 MiB: the delay of a network times its speed.
    pub inflight_bytes_max: usize,
    /// Newest entries kept in memory to serve followers; older ones are read back from the log.
    /// Also bounds what is handed to the state machine and not applied yet. 32 MiB.
    pub tail_bytes_max: usize,
    /// Bytes of one such reading back, and of one step of applying from the log. 1 MiB.
    pub fetch_bytes_max: usize,
    /// Size of a file of the log; 64 MiB. From 32 KiB to 1 GiB, a multiple of 4 KiB.
    pub segment_bytes: u64,
    /// Bytes appended to the log and not yet on the disk; beyond it the node keeps its writes
    /// back. 64 MiB.
    pub unsynced_bytes_max: u64,
    /// A snapshot is taken when the commands behind the newest one are at least so many times as long as that; 4, so that writing
    /// snapshots costs at most a quarter of what writing the log does.
    pub snapshot_ratio: u64,
    /// And not for fewer bytes of commands than these. 64 MiB; `u64::MAX` takes none by itself.
    pub snapshot_log_bytes_min: u64,
    /// The longest image that is taken from a peer. 1 TiB.
    pub snapshot_bytes_max: u64,
    /// Bytes of an image that a message brings, of which eight are under way. 256 KiB, which is also the most. Less where a connection
    /// carries less than these within `election_timeout_max`: what takes longer is asked for again, with all that is under way.
    pub snapshot_piece_bytes: usize,
    /// Bytes a second of an image that this node takes from a peer, at most: so that bringing one node up to date leaves room for
    /// the others on a network or a disk. `u64::MAX`: no limit. At least two pieces in `election_timeout_max`.
    pub snapshot_rate_max: u64,
    /// Entries that stay in the log although a snapshot contains them: a follower that is no further behind needs none. 4096, and
    /// none that the snapshot before the newest contains: one that is [asked for](crate::Node::snapshot) right behind another one
    /// leaves nothing but what was written between the two.
    pub trailing_entries: u64,
    /// Events that one receiver may leave unread before it loses the oldest. 1024.
    pub events_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(600),
            election_timeout_max: Duration::from_millis(1200),
            disk_stall: Duration::from_secs(2),
            follower_stall: Duration::from_secs(5),
            proposal_timeout: Duration::from_secs(5),
            command_bytes_max: 8 << 20,
            proposals_max: 1 << 16,
            proposal_bytes_max: 64 << 20,
            reads_max: 1 << 16,
            turn_bytes_max: 4 << 20,
            inbound_bytes_max: 64 << 20,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 8 << 20,
            tail_bytes_max: 32 << 20,
            fetch_bytes_max: 1 << 20,
            segment_bytes: 64 << 20,
            unsynced_bytes_max: 64 << 20,
            snapshot_ratio: 4,
            snapshot_log_bytes_min: 64 << 20,
            snapshot_bytes_max: 1 << 40,
            snapshot_piece_bytes: PIECE_BYTES_MAX,
            snapshot_rate_max: u64::MAX,
            trailing_entries: 1 << 12,
            events_max: 1024,
        }
    }
}

impl Options {
    /// The bound of what a node with `peers` other members keeps in memory: the sum of the bounds
    /// above, of which most share their bytes in practice. The state machine, the transport's own
    /// buffers and the mapped pages of the log come on top.
    pub fn memory_bytes_max(&self, peers: usize) -> usize {
        let bookkeeping = (self.proposals_max + self.reads_max) * BOOKKEEPING_BYTES;
        let unsynced = usize::try_from(self.unsynced_bytes_max).unwrap_or(usize::MAX);
        [
            self.proposal_bytes_max,
            self.unapplied_bytes_max(),
            self.inbound_bytes_max,
            self.tail_bytes_max,
            peers.saturating_mul(self.inflight_bytes_max + self.fetch_bytes_max),
            unsynced,
            SNAPSHOT_PIECES_BYTES,
            bookkeeping,
        ]
        .into_iter()
        .fold(0, usize::saturating_add)
    }

    /// The options as the protocol takes them.
    pub(crate) fn config(&self, id: u64) -> Config {
        let mut config = Config::new(NodeId(id));
        config.heartbeat = self.heartbeat;
        config.election_timeout_min = self.election_timeout_min;
        config.election_timeout_max = self.election_timeout_max;
        config.disk_stall = self.disk_stall;
        config.append_bytes_max = self.append_bytes_max;
        config.command_bytes_max = self.command_bytes_max;
        config.inflight_messages_max = self.inflight_messages_max;
        config.inflight_bytes_max = self.inflight_bytes_max;
        config.unapplied_bytes_max = self.unapplied_bytes_max();
        config.tail_bytes_max = self.tail_bytes_max;
        config.fetch_bytes_max = self.fetch_bytes_max;
        config.reads_max = self.reads_max;
        config.trailing_entries = self.trailing_entries;
        config
    }

    /// How quickly an image is taken from a peer.
    pub(crate) fn pace(&self) -> Pace {
        Pace { piece_bytes: self.snapshot_piece_bytes, rate_max: self.snapshot_rate_max }
    }

    /// More than may be proposed, so that a node that refuses does so at its queue: the protocol
    /// adds an overhead to each entry, and entries whose proposers have got an answer, that nobody
    /// knows, can still wait to be applied.
    fn unapplied_bytes_max(&self) -> usize {
        self.proposal_bytes_max
            .saturating_add(self.proposals_max.saturating_mul(BOOKKEEPING_BYTES))
            .saturating_mul(2)
    }

    /// What the proposals of one turn weigh at most, unless they are those of a peer: no more than all that may wait for one. Of what
    /// may be unapplied that is half at most, so what waits to be applied does not by itself leave no room.
    pub(crate) fn turn_weight_max(&self) -> usize {
        let bookkeeping = self.proposals_max.saturating_mul(BOOKKEEPING_BYTES);
        let bytes = self.turn_bytes_max.min(self.proposal_bytes_max).max(self.command_bytes_max);
        bytes.saturating_add(bookkeeping)
    }

    /// The longest entry that the log is given: a quarter of a segment, less what frames it.
    pub(crate) fn entry_bytes_max(&self) -> usize {
        let quarter = usize::try_from(self.segment_bytes / 4).unwrap_or(usize::MAX);
        quarter.min(16 << 20).saturating_sub(4 << 10)
    }

    /// Checks what the protocol and the log do not check themselves.
    pub(crate) fn check(&self, id: u64) -> Result<(), StartError> {
        let refused = |option, reason| Err(StartError::Options { option, reason });
        if self.segment_bytes < SEGMENT_BYTES_MIN {
            let reason = format!("{}, at least {SEGMENT_BYTES_MIN}", self.segment_bytes);
            return refused("segment_bytes", reason);
        }
        let (command, room) = (self.command_bytes_max, self.entry_bytes_max());
        if command == 0 || command > room {
            let rule = "a quarter of segment_bytes less 4 KiB";
            return refused(
                "command_bytes_max",
                format!("{command} is not within 1..={room}, {rule}"),
            );
        }
        if self.proposal_bytes_max < command {
            let reason =
                format!("{} is less than command_bytes_max, {command}", self.proposal_bytes_max);
            return refused("proposal_bytes_max", reason);
        }
        for (option, value, least, most) in [
            ("proposals_max", self.proposals_max, 1, PARTS_MAX),
            ("reads_max", self.reads_max, 1, usize::MAX),
            ("events_max", self.events_max, 1, usize::MAX),
            ("snapshot_piece_bytes", self.snapshot_piece_bytes, 1, PIECE_BYTES_MAX),
            ("turn_bytes_max", self.turn_bytes_max, 0, PAYLOAD_BYTES_MAX),
            ("append_bytes_max", self.append_bytes_max, 0, PAYLOAD_BYTES_MAX),
        ] {
            if value < least {
                return refused(option, format!("{value}, at least {least}"));
            }
            if value > most {
                return refused(option, format!("{value}, at most {most}"));
            }
        }
        // Followers are looked at once a heartbeat.
        if self.follower_stall < self.heartbeat * 2 {
            let reason = format!("{:?}, at least two heartbeats", self.follower_stall);
            return refused("follower_stall", reason);
        }
        // A piece that takes longer would count as lost.
        if self.pace().a_piece() * 2 > self.election_timeout_max {
            let least = "two pieces in election_timeout_max";
            return refused(
                "snapshot_rate_max",
                format!("{}, at least {least}", self.snapshot_rate_max),
            );
        }
        self.config(id).validate().or_else(|error| refused("of the protocol", error.to_string()))
    }
}

/// The commands or entries of one message: half of what it may have, so that there is room for what
/// frames each of them.
const PAYLOAD_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// The log takes smaller segments, which would leave hardly any room for a command.
const SEGMENT_BYTES_MIN: u64 = 32 << 10;

/// Pieces of snapshots on their way out of the disk and onto it.
const SNAPSHOT_PIECES_BYTES: usize = (PIECES_MAX + WINDOW_PIECES) * PIECE_BYTES_MAX;

/// What a waiting proposal or read costs beside its bytes.
const BOOKKEEPING_BYTES: usize = 320;

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(options: &Options) -> &'static str {
        match options.check(1) {
            Err(StartError::Options { option, .. }) => option,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        Options::default().check(1).unwrap();
    }

    #[test]
    fn what_would_not_fit_into_a_message_is_refused() {
        let limit = MESSAGE_BYTES_MAX / 2;
        let mut options =
            Options { append_bytes_max: limit, turn_bytes_max: limit, ..Options::default() };
        options.check(1).unwrap();
        options.append_bytes_max = limit + 1;
        assert_eq!(refused(&options), "append_bytes_max");
        options = Options { turn_bytes_max: limit + 1, ..Options::default() };
        assert_eq!(refused(&options), "turn_bytes_max");
        options = Options { follower_stall: Duration::from_millis(199), ..Options::default() };
        assert_eq!(refused(&options), "follower_stall");
        options = Options { snapshot_rate_max: 400_000, ..Options::default() };
        assert_eq!(refused(&options), "snapshot_rate_max", "a piece takes more than half a second");
        options = Options { snapshot_rate_max: 500_000, ..Options::default() };
        options.check(1).unwrap();
        options = Options { proposals_max: PARTS_MAX + 1, ..Options::default() };
        assert_eq!(refused(&options), "proposals_max");
    }

    #[test]
    fn a_segment_too_small_for_any_command_is_refused_by_its_own_name() {
        let mut options =
            Options { segment_bytes: 16 << 10, command_bytes_max: 1, ..Options::default() };
        assert_eq!(refused(&options), "segment_bytes");
        options.segment_bytes = 32 << 10;
        options.command_bytes_max = 4 << 10;
        options.check(1).unwrap();
        options.command_bytes_max += 1;
        assert_eq!(refused(&options), "command_bytes_max");
    }
}
