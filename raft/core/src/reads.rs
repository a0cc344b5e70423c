//! Linearizable reads on a leader: which wait for what.
//!
//! A read takes the commit index when it arrives, and may run there once a quorum has answered a
//! round that began after the read arrived: then no newer leader had committed anything before it.
//! Reads that arrive while a round is on its way wait together for the next one.

use alloc::vec::Vec;

use crate::{LogIndex, NodeId, ReadId};

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    /// The runtime of this node.
    Here,
    /// A follower.
    Peer(NodeId),
}

/// A read and the index it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    pub(crate) asker: Asker,
    pub(crate) id: ReadId,
    pub(crate) index: LogIndex,
}

/// The reads of one leadership that are not answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    /// Arrived before the leadership committed an entry of its own; their index is not known yet.
    early: Vec<(Asker, ReadId)>,
    /// Wait for a round that begins after now.
    waiting: Vec<Read>,
    /// Wait for the answers to `round`.
    asked: Vec<Read>,
    round: u64,
}

impl Reads {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.early.len() + self.waiting.len() + self.asked.len()
    }

    /// Takes a read in; `committed` is `None` until the leadership committed an entry of its own.
    pub(crate) fn push(&mut self, asker: Asker, id: ReadId, committed: Option<LogIndex>) {
        match committed {
            Some(index) => self.waiting.push(Read { asker, id, index }),
            None => self.early.push((asker, id)),
        }
    }

    /// The leadership has committed an entry of its own.
    pub(crate) fn open(&mut self, committed: LogIndex) {
        let opened = self.early.drain(..);
        self.waiting.extend(opened.map(|(asker, id)| Read { asker, id, index: committed }));
    }

    /// Whether a round should begin now.
    pub(crate) fn wants_round(&self) -> bool {
        self.asked.is_empty() && !self.waiting.is_empty()
    }

    /// `round`, which begins now, will answer for everything that waits.
    pub(crate) fn begin_round(&mut self, round: u64) {
        assert!(self.asked.is_empty() && round > self.round);
        self.round = round;
        self.asked = core::mem::take(&mut self.waiting);
    }

    /// A quorum has answered `round`: the reads it answers for.
    pub(crate) fn confirm(&mut self, round: u64) -> Vec<Read> {
        if round < self.round { Vec::new() } else { core::mem::take(&mut self.asked) }
    }

    /// The leadership is over: everybody who waits.
    pub(crate) fn fail(&mut self) -> Vec<(Asker, ReadId)> {
        let known = self.asked.drain(..).chain(self.waiting.drain(..));
        let mut failed: Vec<_> = known.map(|read| (read.asker, read.id)).collect();
        failed.append(&mut self.early);
        failed
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn ids(reads: &[Read]) -> Vec<u64> {
        reads.iter().map(|read| read.id.0).collect()
    }

    /// RAFT-CASE 31
    #[test]
    fn a_read_is_not_confirmed_by_a_round_that_began_before_it() {
        let mut reads = Reads::default();
        reads.push(Asker::Here, ReadId(1), Some(LogIndex(5)));
        reads.begin_round(3);
        reads.push(Asker::Here, ReadId(2), Some(LogIndex(6)));
        assert!(!reads.wants_round(), "one round at a time");
        assert_eq!(ids(&reads.confirm(2)), vec![]);
        assert_eq!(ids(&reads.confirm(3)), vec![1]);
        assert!(reads.wants_round());
        reads.begin_round(4);
        assert_eq!(ids(&reads.confirm(3)), vec![]);
        assert_eq!(ids(&reads.confirm(9)), vec![2]);
    }

    /// RAFT-CASE 30
    #[test]
    fn early_reads_wait_for_the_first_commit_of_the_leadership() {
        let mut reads = Reads::default();
        reads.push(Asker::Peer(NodeId(2)), ReadId(1), None);
        assert!(!reads.wants_round());
        reads.open(LogIndex(8));
        assert!(reads.wants_round());
        reads.begin_round(1);
        assert_eq!(reads.confirm(1)[0].index, LogIndex(8));
    }

    /// RAFT-CASE 33
    #[test]
    fn everybody_who_waits_learns_of_the_end() {
        let mut reads = Reads::default();
        reads.push(Asker::Here, ReadId(1), Some(LogIndex(1)));
        reads.begin_round(1);
        reads.push(Asker::Here, ReadId(2), Some(LogIndex(1)));
        reads.push(Asker::Here, ReadId(3), None);
        assert_eq!(reads.len(), 3);
        assert_eq!(reads.fail().len(), 3);
        assert_eq!(reads.len(), 0);
    }
}
