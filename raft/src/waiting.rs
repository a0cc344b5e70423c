//! Proposals that are in the log and wait to be applied.

use std::collections::VecDeque;

use bytes::Bytes;
use kontiki_core::{LogIndex, Position as LogPosition, Term};

use crate::{
    Applied, Position, ProposeError,
    proposal::{Group, Settled},
};

/// The proposals of this leadership that have a place in the log and no outcome.
///
/// Owned by the applier, so that an answer and a loss can never cross: both arrive by one queue.
/// `groups` ascend without overlap; each begins at the index of its first command without outcome.
#[derive(Default)]
pub(crate) struct Waiting {
    groups: VecDeque<WaitingGroup>,
}

struct WaitingGroup {
    term: Term,
    /// Index of the first command that has no outcome yet.
    next: LogIndex,
    group: Group,
}

impl Waiting {
    /// `groups` lie one after the other from `first` on.
    pub(crate) fn extend(&mut self, first: LogPosition, groups: Vec<Group>) {
        let mut next = first.index;
        if let Some(last) = self.groups.back() {
            assert!(last.end() <= next, "proposals lie in the order they were made");
        }
        for group in groups {
            let count = group.count as u64;
            self.groups.push_back(WaitingGroup { term: first.term, next, group });
            next = LogIndex(next.0 + count);
        }
    }

    /// An entry was applied: whoever waits for its index has an outcome.
    pub(crate) fn answer(&mut self, position: LogPosition, reply: Bytes, settled: &mut Settled) {
        let Some(front) = self.groups.front_mut().filter(|front| front.next <= position.index)
        else {
            return;
        };
        assert_eq!(front.next, position.index, "every applied entry is answered");
        let result = if front.term == position.term {
            Ok(Applied { position: position.into(), reply })
        } else {
            Err(ProposeError::Superseded { position: position.into() })
        };
        front.next = LogIndex(front.next.0 + 1);
        if front.group.push(result, settled) {
            self.groups.pop_front();
        }
    }

    /// Ends every group that has a command at or behind `first`, with `error` of its place.
    pub(crate) fn lose(
        &mut self,
        first: LogIndex,
        error: impl Fn(Option<Position>) -> ProposeError,
        settled: &mut Settled,
    ) {
        while self.groups.back().is_some_and(|last| last.end() > first) {
            let Some(WaitingGroup { term, next, group }) = self.groups.pop_back() else { return };
            let answered = group.answered();
            group.fail(
                |number| {
                    let index = next.0 + (number - answered) as u64;
                    error(Some(Position { term: term.0, index }))
                },
                settled,
            );
        }
    }
}

impl WaitingGroup {
    fn end(&self) -> LogIndex {
        LogIndex(self.next.0 + (self.group.count - self.group.answered()) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Proposal, ProposalBatch, proposal::ProposeResult};

    fn at(term: u64, index: u64) -> LogPosition {
        LogPosition { term: Term(term), index: LogIndex(index) }
    }

    fn unknown(position: Option<Position>) -> ProposeError {
        ProposeError::Unknown { position }
    }

    fn one(waiting: &mut Waiting, place: LogPosition) -> Proposal {
        let (group, proposal) = Group::one(1);
        waiting.extend(place, vec![group]);
        proposal
    }

    fn three(waiting: &mut Waiting, place: LogPosition) -> ProposalBatch {
        let (group, proposal) = Group::many(3, 3);
        waiting.extend(place, vec![group]);
        proposal
    }

    fn applied(term: u64, index: u64) -> ProposeResult {
        Ok(Applied { position: Position { term, index }, reply: Bytes::new() })
    }

    #[test]
    fn a_match_of_term_and_index_is_an_answer() {
        let (mut waiting, mut settled) = Default::default();
        let proposal = one(&mut waiting, at(2, 5));
        waiting.answer(at(2, 4), Bytes::new(), &mut settled);
        waiting.answer(at(2, 5), Bytes::new(), &mut settled);
        assert_eq!(proposal.wait(), applied(2, 5));
        assert_eq!((settled.count, settled.bytes), (1, 1));
    }

    /// RAFT-CASE 57
    #[test]
    fn another_term_applied_at_the_index_means_superseded() {
        let (mut waiting, mut settled) = Default::default();
        let proposal = one(&mut waiting, at(2, 5));
        waiting.answer(at(3, 5), Bytes::new(), &mut settled);
        let position = Position { term: 3, index: 5 };
        assert_eq!(proposal.wait(), Err(ProposeError::Superseded { position }));
    }

    /// RAFT-CASE 57
    #[test]
    fn a_loss_leaves_what_lies_before_it_and_what_was_answered() {
        let (mut waiting, mut settled) = Default::default();
        let before = one(&mut waiting, at(2, 5));
        let partly = three(&mut waiting, at(2, 6));
        let after = one(&mut waiting, at(2, 9));
        waiting.answer(at(2, 5), Bytes::new(), &mut settled);
        waiting.answer(at(2, 6), Bytes::new(), &mut settled);
        waiting.lose(LogIndex(7), unknown, &mut settled);
        let lost = |index| Err(unknown(Some(Position { term: 2, index })));
        assert_eq!(before.wait(), applied(2, 5));
        assert_eq!(partly.wait(), vec![applied(2, 6), lost(7), lost(8)]);
        assert_eq!(after.wait(), lost(9));
        assert_eq!(settled.count, 5);
    }

    #[test]
    fn what_lies_before_a_loss_is_still_answered() {
        let (mut waiting, mut settled) = Default::default();
        let proposal = one(&mut waiting, at(2, 5));
        waiting.lose(LogIndex(6), unknown, &mut settled);
        waiting.answer(at(2, 5), Bytes::new(), &mut settled);
        assert_eq!(proposal.wait(), applied(2, 5));
    }
}
