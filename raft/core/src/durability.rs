//! What is on its way to this node's disk, and what must not leave before it is there.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use crate::{AppendOutcome, Instant, LogIndex, Message, NodeId, Term, WriteSeq};

/// Writes not yet reported durable, and messages held back for them.
///
/// A write vouches for the entries it carried, as long as they are not overwritten: a completion
/// that comes after that says nothing about the entries now in their place, even if index and
/// term are the same again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Durability {
    /// The newest write asked for.
    newest: WriteSeq,
    /// The newest write reported durable; `completed <= newest`.
    completed: WriteSeq,
    /// Oldest first; all after `completed`.
    outstanding: VecDeque<Outstanding>,
    held: Vec<Held>,
    /// When the oldest outstanding write became the oldest.
    progress_at: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Outstanding {
    seq: WriteSeq,
    /// Last entry it makes durable that is still in the log; 0 if it carries none.
    vouches: LogIndex,
}

/// A message that vouches for something not yet durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) to: NodeId,
    pub(crate) message: Message,
    /// The write it waits for.
    pub(crate) needs: WriteSeq,
    /// The term it was made in; it is dropped with the term.
    pub(crate) term: Term,
}

impl Durability {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            newest: WriteSeq(0),
            completed: WriteSeq(0),
            outstanding: VecDeque::new(),
            held: Vec::new(),
            progress_at: now,
        }
    }

    /// Counts a write; `last` is the last entry it carries, 0 if none.
    pub(crate) fn begin(&mut self, now: Instant, last: LogIndex) -> WriteSeq {
        if self.outstanding.is_empty() {
            self.progress_at = now;
        }
        self.newest = WriteSeq(self.newest.0 + 1);
        self.outstanding.push_back(Outstanding { seq: self.newest, vouches: last });
        self.newest
    }

    /// Every write up to `seq` is durable. The last entry they vouch for, or `None` if this is no
    /// news.
    pub(crate) fn complete(&mut self, now: Instant, seq: WriteSeq) -> Option<LogIndex> {
        assert!(seq <= self.newest, "write {seq} was never asked for");
        if seq <= self.completed {
            return None;
        }
        self.completed = seq;
        self.progress_at = now;
        let mut vouched = LogIndex(0);
        while let Some(write) = self.outstanding.pop_front_if(|write| write.seq <= seq) {
            vouched = vouched.max(write.vouches);
        }
        Some(vouched)
    }

    /// Entries after `last` were overwritten: no outstanding write vouches for them any more, nor
    /// may an answer that does.
    pub(crate) fn truncate_after(&mut self, last: LogIndex) {
        for write in &mut self.outstanding {
            write.vouches = write.vouches.min(last);
        }
        self.held.retain(|held| match &held.message {
            Message::AppendResponse(response) => match response.outcome {
                AppendOutcome::Matched(matched) => matched <= last,
                AppendOutcome::Rejected { .. } | AppendOutcome::Fetching { .. } => true,
            },
            _ => true,
        });
    }

    /// Keeps a message until its write is durable. A later answer to the same peer for the same
    /// write replaces the earlier one if it says the same, so that repeats do not pile up.
    pub(crate) fn hold(&mut self, held: Held) {
        assert!(!self.is_durable(held.needs));
        let same = |other: &Held| {
            (other.to, other.needs) == (held.to, held.needs)
                && same_outcome(&other.message, &held.message)
        };
        match self.held.iter_mut().find(|other| same(other)) {
            Some(other) => *other = held,
            None => self.held.push(held),
        }
    }

    /// The messages whose writes are durable, in the order they were held.
    pub(crate) fn release(&mut self) -> Vec<Held> {
        let completed = self.completed;
        self.held.extract_if(.., |held| held.needs <= completed).collect()
    }

    /// Drops what was said in an earlier term than `term`.
    pub(crate) fn drop_before(&mut self, term: Term) {
        self.held.retain(|held| held.term >= term);
    }

    pub(crate) fn is_durable(&self, seq: WriteSeq) -> bool {
        seq <= self.completed
    }

    /// The write after which everything up to `index` is durable; `None` if no outstanding write
    /// vouches for it.
    pub(crate) fn vouching_for(&self, index: LogIndex) -> Option<WriteSeq> {
        self.outstanding.iter().find(|write| write.vouches >= index).map(|write| write.seq)
    }

    /// When the disk counts as stalled, if nothing completes before.
    pub(crate) fn stalls_at(&self, limit: Duration) -> Option<Instant> {
        (!self.outstanding.is_empty()).then(|| self.progress_at + limit)
    }

    /// Whether writes are pending and none was completed for `limit`.
    pub(crate) fn is_stalled(&self, now: Instant, limit: Duration) -> bool {
        self.stalls_at(limit).is_some_and(|at| at <= now)
    }

    pub(crate) fn check(&self, term: Term, last: LogIndex) {
        assert!(self.completed <= self.newest);
        assert!(self.outstanding.iter().all(|write| write.seq > self.completed));
        assert!(self.outstanding.iter().all(|write| write.vouches <= last));
        assert!(self.held.iter().all(|held| held.term == term));
        assert!(self.held.iter().all(|held| held.needs > self.completed));
    }
}

fn same_outcome(a: &Message, b: &Message) -> bool {
    match (a, b) {
        (Message::AppendResponse(a), Message::AppendResponse(b)) => {
            a.outcome == b.outcome && a.round <= b.round
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AppendResponse;

    fn matched(index: u64, round: u64) -> Message {
        let outcome = AppendOutcome::Matched(LogIndex(index));
        Message::AppendResponse(AppendResponse { term: Term(1), round, outcome })
    }

    fn held(index: u64, round: u64, needs: WriteSeq) -> Held {
        Held { to: NodeId(2), message: matched(index, round), needs, term: Term(1) }
    }

    /// RAFT-CASE 21
    #[test]
    fn a_write_that_was_overwritten_vouches_only_for_what_is_left_of_it() {
        let mut durability = Durability::new(Instant(0));
        let first = durability.begin(Instant(0), LogIndex(5));
        durability.truncate_after(LogIndex(2));
        let second = durability.begin(Instant(0), LogIndex(5));
        assert_eq!(durability.complete(Instant(1), first), Some(LogIndex(2)));
        assert_eq!(durability.complete(Instant(1), first), None, "a repeat is no news");
        assert_eq!(durability.complete(Instant(2), second), Some(LogIndex(5)));
    }

    #[test]
    fn the_write_an_index_waits_for_is_the_first_that_reaches_it() {
        let mut durability = Durability::new(Instant(0));
        let first = durability.begin(Instant(0), LogIndex(3));
        durability.begin(Instant(0), LogIndex(0));
        let third = durability.begin(Instant(0), LogIndex(6));
        assert_eq!(durability.vouching_for(LogIndex(3)), Some(first));
        assert_eq!(durability.vouching_for(LogIndex(4)), Some(third));
        assert_eq!(durability.vouching_for(LogIndex(7)), None);
    }

    /// RAFT-CASE 63
    #[test]
    fn held_answers_go_with_their_term_and_with_what_they_vouch_for() {
        let mut durability = Durability::new(Instant(0));
        let seq = durability.begin(Instant(0), LogIndex(5));
        durability.hold(held(3, 1, seq));
        durability.hold(held(5, 1, seq));
        durability.truncate_after(LogIndex(3));
        assert_eq!(durability.held.len(), 1);
        durability.drop_before(Term(2));
        durability.complete(Instant(1), seq);
        assert_eq!(durability.release(), []);
    }

    #[test]
    fn repeated_answers_are_held_once_with_the_latest_round() {
        let mut durability = Durability::new(Instant(0));
        let seq = durability.begin(Instant(0), LogIndex(5));
        for round in 1..=9 {
            durability.hold(held(5, round, seq));
        }
        durability.complete(Instant(1), seq);
        assert_eq!(durability.release(), [held(5, 9, seq)]);
    }

    #[test]
    fn a_disk_stalls_when_nothing_completes_not_when_much_is_pending() {
        let limit = Duration::from_nanos(10);
        let mut durability = Durability::new(Instant(0));
        assert!(!durability.is_stalled(Instant(99), limit), "nothing pending");
        let first = durability.begin(Instant(100), LogIndex(1));
        durability.begin(Instant(105), LogIndex(2));
        durability.complete(Instant(108), first);
        assert!(!durability.is_stalled(Instant(117), limit));
        assert!(durability.is_stalled(Instant(118), limit));
    }
}
