//! What a node knows of the newest image of its state machine, and what follows from one: a log without what the image
//! contains, or one that begins behind it.

use crate::{
    Apply, ConfigError, Configuration, HaltReason, Instant, LogIndex, Output, Position, Term,
    local::Local, membership::Membership,
};

/// An image of the state machine that is whole, durable and visible on this node. What is in it is committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The last entry that it contains.
    pub at: Position,
    /// The newest configuration up to there, and where that lies in the log.
    pub configuration: (Position, Configuration),
}

impl Snapshot {
    /// Checks it against itself.
    ///
    /// # Errors
    /// If it contains nothing, or its configuration is of a later entry or not valid.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (at, (position, configuration)) = (self.at, &self.configuration);
        if at.term == Term(0) || at.index == LogIndex(0) {
            return Err(ConfigError("a snapshot contains no entry"));
        }
        if position.index > at.index || position.term > at.term {
            return Err(ConfigError("a snapshot's configuration lies behind it"));
        }
        configuration.validate().map_err(|_| ConfigError("a snapshot's configuration is not valid"))
    }
}

/// What a snapshot that has become visible asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consequence {
    /// The log holds what it contains, or held it: at most it grows shorter.
    Compaction,
    /// The log does not hold the end of it: it begins anew behind that.
    Installation,
}

impl Local {
    /// What is to be done about a snapshot that is visible now; `None` if it is no news, or broken.
    pub(crate) fn judge_snapshot(&mut self, snapshot: &Snapshot) -> Option<Consequence> {
        let at = snapshot.at;
        if self.snapshot_at() >= at.index {
            return None;
        }
        let ours = self.log.term_at(at.index);
        match ours {
            Some(ours) if ours != at.term && at.index <= self.log.committed() => {
                let (index, theirs) = (at.index, at.term);
                self.halt(HaltReason::SnapshotContradicts { index, ours, theirs });
                None
            }
            // RAFT-CASE 47: the entries behind it stay.
            Some(ours) if ours == at.term => Some(Consequence::Compaction),
            None if at.index < self.log.compacted().index => Some(Consequence::Compaction),
            _ => Some(Consequence::Installation),
        }
    }

    /// A snapshot whose entries the log holds: they may leave it.
    pub(crate) fn keep_snapshot(&mut self, snapshot: Snapshot) {
        self.snapshot_before = self.snapshot_at();
        self.snapshot = Some(snapshot);
    }

    /// The log goes on behind the snapshot, and the state machine gets all of it.
    pub(crate) fn install_snapshot(&mut self, now: Instant, snapshot: Snapshot) {
        let at = snapshot.at;
        // RAFT-CASE 44: a configuration of an entry that is gone must not stay.
        self.membership = Membership::new(snapshot.configuration.1.clone());
        self.reset(now, at, snapshot.configuration.clone());
        self.output(Output::Apply(Apply::Snapshot { at }));
        self.snapshot = Some(snapshot);
    }

    /// Lets entries go that the snapshot contains, are applied, and that nobody is kept waiting for: `pinned` is the
    /// last entry of a snapshot that some follower is getting. What the snapshot before contains goes whatever it is kept
    /// for: so the log is bounded by the bytes between three snapshots, however long its entries are (RAFT-CASE 52).
    pub(crate) fn compact(&mut self, pinned: Option<LogIndex>) {
        let trailing = self.config.trailing_entries;
        let kept = LogIndex(self.snapshot_at().0.saturating_sub(trailing));
        let kept = pinned.map_or(kept, |pinned| kept.min(pinned)).max(self.snapshot_before);
        let last = kept.min(self.log.applied());
        if last > self.log.compacted().index {
            self.log.compact_to(last);
            self.output(Output::Compact { last });
        }
    }

    /// Where the newest snapshot ends; 0 if there is none.
    pub(crate) fn snapshot_at(&self) -> LogIndex {
        self.snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.at.index)
    }
}
