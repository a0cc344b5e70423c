//! Proposals that are in the log and wait to be applied.

use std::collections::VecDeque;

use bytes::Bytes;
use kontiki_core::{Instant, LogIndex, Position as LogPosition, Term};

use crate::{
    Applied, Position, ProposeError,
    proposal::{Group, Settled},
};

/// The proposals that this node has appended as leader and that have no outcome.
///
/// A leadership that ends answers nothing: its entries may still be committed by a later leader.
/// They wait until their index is applied, with this entry or with another one, or until their
/// deadline has passed (RAFT-CASE 57).
///
/// Owned by the applier, so that an answer and a deadline can never cross.
#[derive(Default)]
pub(crate) struct Waiting {
    /// By term, oldest first; none is empty. The places of two leaderships may overlap.
    leaderships: VecDeque<Leadership>,
}

/// What was appended in one term. `groups` ascend without overlap, and so do their deadlines.
struct Leadership {
    term: Term,
    groups: VecDeque<WaitingGroup>,
}

struct WaitingGroup {
    /// Index of the first command that has no outcome yet.
    next: LogIndex,
    deadline: Instant,
    group: Group,
}

impl Waiting {
    /// `groups` lie one after the other from `first` on.
    pub(crate) fn extend(&mut self, first: LogPosition, deadline: Instant, groups: Vec<Group>) {
        let newest = self.leaderships.back().map(|leadership| leadership.term);
        assert!(newest <= Some(first.term), "terms only rise");
        if newest != Some(first.term) {
            self.leaderships.push_back(Leadership { term: first.term, groups: VecDeque::new() });
        }
        let leadership = self.leaderships.back_mut().expect("there is one of this term");
        let mut next = first.index;
        if let Some(last) = leadership.groups.back() {
            assert!(last.end() <= next, "proposals lie in the order they were made");
        }
        for group in groups {
            let count = group.count as u64;
            leadership.groups.push_back(WaitingGroup { next, deadline, group });
            next = LogIndex(next.0 + count);
        }
    }

    /// An entry was applied: whoever waits for its index has an outcome.
    pub(crate) fn answer(&mut self, position: LogPosition, reply: &Bytes, settled: &mut Settled) {
        for leadership in &mut self.leaderships {
            leadership.answer(position, reply, settled);
        }
        self.drop_empty();
    }

    /// Everything up to `index` is in an image that was taken in: nobody knows whose entries that were.
    pub(crate) fn pass(&mut self, index: LogIndex, settled: &mut Settled) {
        for leadership in &mut self.leaderships {
            leadership.pass(index, settled);
        }
        self.drop_empty();
    }

    /// Ends every group whose deadline has passed: its entries may still be applied.
    pub(crate) fn expire(&mut self, now: Instant, settled: &mut Settled) {
        for leadership in &mut self.leaderships {
            while let Some(late) = leadership.groups.pop_front_if(|group| group.deadline <= now) {
                late.fail(leadership.term, |position| ProposeError::Unknown { position }, settled);
            }
        }
        self.drop_empty();
    }

    /// The earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let groups = self.leaderships.iter().filter_map(|leadership| leadership.groups.front());
        groups.map(|group| group.deadline).min()
    }

    /// Ends every group, with `error` of its place.
    pub(crate) fn end(
        &mut self,
        error: impl Fn(Option<Position>) -> ProposeError,
        settled: &mut Settled,
    ) {
        for Leadership { term, groups } in self.leaderships.drain(..) {
            groups.into_iter().for_each(|group| group.fail(term, &error, settled));
        }
    }

    fn drop_empty(&mut self) {
        self.leaderships.retain(|leadership| !leadership.groups.is_empty());
    }
}

impl Leadership {
    fn answer(&mut self, position: LogPosition, reply: &Bytes, settled: &mut Settled) {
        let Some(front) = self.groups.front_mut().filter(|front| front.next <= position.index)
        else {
            return;
        };
        assert_eq!(front.next, position.index, "every applied entry is answered");
        let result = if self.term == position.term {
            Ok(Applied { position: position.into(), reply: reply.clone() })
        } else {
            Err(ProposeError::Superseded { position: position.into() })
        };
        front.next = front.next.next();
        if front.group.push(result, settled) {
            self.groups.pop_front();
        }
    }
}

impl Leadership {
    fn pass(&mut self, index: LogIndex, settled: &mut Settled) {
        while let Some(front) = self.groups.front_mut().filter(|front| front.next <= index) {
            let position = Some(Position { term: self.term.0, index: front.next.0 });
            front.next = front.next.next();
            if front.group.push(Err(ProposeError::Unknown { position }), settled) {
                self.groups.pop_front();
            }
        }
    }
}

impl WaitingGroup {
    fn end(&self) -> LogIndex {
        LogIndex(self.next.0 + (self.group.count - self.group.answered()) as u64)
    }

    fn fail(
        self,
        term: Term,
        error: impl Fn(Option<Position>) -> ProposeError,
        settled: &mut Settled,
    ) {
        let (next, answered) = (self.next.0, self.group.answered());
        let place =
            |number: usize| Position { term: term.0, index: next + (number - answered) as u64 };
        self.group.fail(|number| error(Some(place(number))), settled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Proposal, ProposalBatch, proposal::ProposeResult};

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition { term: Term(term), index: LogIndex(index) }
    }

    fn one(waiting: &mut Waiting, place: LogPosition) -> Proposal {
        let (group, proposal) = Group::one(1);
        waiting.extend(place, Instant(100), vec![group]);
        proposal
    }

    fn three(waiting: &mut Waiting, place: LogPosition) -> ProposalBatch {
        let (group, proposal) = Group::many(3, 3);
        waiting.extend(place, Instant(100), vec![group]);
        proposal
    }

    fn applied(term: u64, index: u64) -> ProposeResult {
        Ok(Applied { position: Position { term, index }, reply: Bytes::new() })
    }

    #[test]
    fn a_match_of_term_and_index_is_an_answer() {
        let (mut waiting, mut settled) = Default::default();
        let proposal = one(&mut waiting, at(2, 5));
        waiting.answer(at(2, 4), &Bytes::new(), &mut settled);
        waiting.answer(at(2, 5), &Bytes::new(), &mut settled);
        settled.tell();
        assert_eq!(proposal.wait(), applied(2, 5));
        assert_eq!((settled.count, settled.bytes), (1, 1));
    }

    /// RAFT-CASE 57
    #[test]
    fn another_term_applied_at_the_index_means_superseded() {
        let (mut waiting, mut settled) = Default::default();
        let proposal = one(&mut waiting, at(2, 5));
        waiting.answer(at(3, 5), &Bytes::new(), &mut settled);
        let position = Position { term: 3, index: 5 };
        settled.tell();
        assert_eq!(proposal.wait(), Err(ProposeError::Superseded { position }));
    }

    /// RAFT-CASE 57
    #[test]
    fn a_deadline_leaves_what_lies_before_it_and_what_was_answered() {
        let (mut waiting, mut settled) = Default::default();
        let before = one(&mut waiting, at(2, 5));
        let partly = three(&mut waiting, at(2, 6));
        let (group, after) = Group::one(1);
        waiting.extend(at(2, 9), Instant(200), vec![group]);
        waiting.answer(at(2, 5), &Bytes::new(), &mut settled);
        waiting.answer(at(2, 6), &Bytes::new(), &mut settled);
        waiting.expire(Instant(99), &mut settled);
        assert_eq!((waiting.deadline(), settled.count), (Some(Instant(100)), 1));
        waiting.expire(Instant(100), &mut settled);
        let lost =
            |index| Err(ProposeError::Unknown { position: Some(Position { term: 2, index }) });
        settled.tell();
        assert_eq!(before.wait(), applied(2, 5));
        assert_eq!(partly.wait(), vec![applied(2, 6), lost(7), lost(8)]);
        assert_eq!((waiting.deadline(), settled.count), (Some(Instant(200)), 4));
        // What was given up is applied after all; nobody waits for it.
        for index in 7..=9 {
            waiting.answer(at(2, index), &Bytes::new(), &mut settled);
        }
        settled.tell();
        assert_eq!(after.wait(), applied(2, 9));
        assert_eq!((waiting.deadline(), settled.count), (None, 5));
    }

    /// RAFT-CASE 57: a snapshot over the index.
    #[test]
    fn who_waits_for_what_is_in_an_image_never_knows() {
        let (mut waiting, mut settled) = Default::default();
        let over = three(&mut waiting, at(2, 5));
        let behind = one(&mut waiting, at(2, 8));
        waiting.pass(LogIndex(6), &mut settled);
        waiting.answer(at(2, 7), &Bytes::new(), &mut settled);
        waiting.answer(at(2, 8), &Bytes::new(), &mut settled);
        settled.tell();
        let lost =
            |index| Err(ProposeError::Unknown { position: Some(Position { term: 2, index }) });
        assert_eq!(over.wait(), vec![lost(5), lost(6), applied(2, 7)]);
        assert_eq!(behind.wait(), applied(2, 8));
        assert_eq!(settled.count, 4);
    }

    /// RAFT-CASE 57: what a later leadership appends lies where an earlier one had its entries.
    #[test]
    fn leaderships_that_overlap_are_each_answered_by_what_was_committed() {
        let (mut waiting, mut settled) = Default::default();
        let kept = one(&mut waiting, at(2, 5));
        let replaced = three(&mut waiting, at(2, 6));
        let later = one(&mut waiting, at(4, 6));
        for position in [at(2, 5), at(4, 6), at(4, 7)] {
            waiting.answer(position, &Bytes::new(), &mut settled);
        }
        settled.tell();
        assert_eq!(kept.wait(), applied(2, 5));
        assert_eq!(later.wait(), applied(4, 6));
        waiting.expire(Instant(100), &mut settled);
        let superseded =
            |index| Err(ProposeError::Superseded { position: Position { term: 4, index } });
        let unknown = Err(ProposeError::Unknown { position: Some(Position { term: 2, index: 8 }) });
        settled.tell();
        assert_eq!(replaced.wait(), vec![superseded(6), superseded(7), unknown]);
    }
}
