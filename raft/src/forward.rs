//! Proposals that are with the leader: passed on once, never twice.

use std::collections::BTreeMap;

use kontiki_core::Instant;

use crate::{
    ProposeError, StartError,
    entropy::Entropy,
    proposal::{Group, ProposeResult, Settled},
};

/// What this node has passed on and has no answer for.
///
/// A proposal in here may be in the leader's log. Whatever happens to the connection, it is never
/// sent again: it ends with the leader's answer or as unknown.
pub(crate) struct Forwards {
    last_id: u64,
    under_way: BTreeMap<u64, Forward>,
}

struct Forward {
    leader: u64,
    deadline: Instant,
    groups: Vec<Group>,
}

impl Forwards {
    /// Nothing is under way. Ids begin at a random place: a leader may still answer what an earlier
    /// process of this node passed on, and that must not be taken for an answer to this one.
    pub(crate) fn new(entropy: &Entropy) -> Result<Self, StartError> {
        Ok(Self { last_id: entropy.draw()? >> 1, under_way: BTreeMap::new() })
    }

    /// The id for the next message.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// `groups` were handed to the transport as `id`.
    pub(crate) fn sent(&mut self, id: u64, leader: u64, deadline: Instant, groups: Vec<Group>) {
        self.under_way.insert(id, Forward { leader, deadline, groups });
    }

    /// The answer of `from` to `id`; one that nobody waits for any more is dropped.
    pub(crate) fn answer(
        &mut self,
        from: u64,
        id: u64,
        results: Vec<ProposeResult>,
        settled: &mut Settled,
    ) {
        let known = self.under_way.get(&id).is_some_and(|forward| forward.leader == from);
        let Some(forward) = known.then(|| self.under_way.remove(&id)).flatten() else { return };
        // A short answer is a broken peer's: the rest stays unknown.
        let unknown = || Err(ProposeError::Unknown { position: None });
        let mut results = results.into_iter();
        for mut group in forward.groups {
            while !group.push(results.next().unwrap_or_else(unknown), settled) {}
        }
    }

    /// No answer will come from `peer`.
    pub(crate) fn lose_peer(&mut self, peer: u64, settled: &mut Settled) {
        self.lose(settled, |forward| forward.leader == peer);
    }

    /// Another node than those that were asked leads now, or none.
    pub(crate) fn lose_all_but(&mut self, leader: Option<u64>, settled: &mut Settled) {
        self.lose(settled, |forward| Some(forward.leader) != leader);
    }

    /// Gives up what has waited too long for its answer.
    pub(crate) fn expire(&mut self, now: Instant, settled: &mut Settled) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.lose(settled, |forward| forward.deadline <= now);
        }
    }

    /// The earliest deadline: ids are given in the order of time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.under_way.first_key_value().map(|(_, forward)| forward.deadline)
    }

    /// Takes everything, at the end.
    pub(crate) fn take_all(&mut self) -> Vec<Group> {
        std::mem::take(&mut self.under_way).into_values().flat_map(|f| f.groups).collect()
    }

    fn lose(&mut self, settled: &mut Settled, is_lost: impl Fn(&Forward) -> bool) {
        for (_, forward) in self.under_way.extract_if(.., |_, forward| is_lost(forward)) {
            for group in forward.groups {
                group.fail(|_| ProposeError::Unknown { position: None }, settled);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Proposal;

    fn empty() -> Forwards {
        Forwards { last_id: 0, under_way: BTreeMap::new() }
    }

    fn sent(forwards: &mut Forwards, leader: u64) -> (u64, Proposal) {
        let (group, proposal) = Group::one(1);
        let id = forwards.next_id();
        forwards.sent(id, leader, Instant(10 * id), vec![group]);
        (id, proposal)
    }

    const UNKNOWN: ProposeResult = Err(ProposeError::Unknown { position: None });

    /// RAFT-CASE 57, RAFT-CASE 65
    #[test]
    fn a_lost_connection_makes_the_outcome_unknown() {
        let (mut forwards, mut settled) = (empty(), Settled::default());
        let (_, lost) = sent(&mut forwards, 2);
        let (id, kept) = sent(&mut forwards, 3);
        forwards.lose_peer(2, &mut settled);
        settled.tell();
        assert_eq!(lost.wait(), UNKNOWN);
        forwards.answer(3, id, vec![Err(ProposeError::Overloaded)], &mut settled);
        settled.tell();
        assert_eq!(kept.wait(), Err(ProposeError::Overloaded));
    }

    /// RAFT-CASE 57
    #[test]
    fn an_answer_after_the_loss_changes_nothing() {
        let (mut forwards, mut settled) = (empty(), Settled::default());
        let (id, proposal) = sent(&mut forwards, 2);
        forwards.lose_all_but(Some(3), &mut settled);
        forwards.answer(2, id, vec![Err(ProposeError::Overloaded)], &mut settled);
        settled.tell();
        assert_eq!(proposal.wait(), UNKNOWN);
        assert_eq!(settled.count, 1, "its room is given back once");
    }

    #[test]
    fn an_answer_of_another_node_counts_for_nothing() {
        let (mut forwards, mut settled) = (empty(), Settled::default());
        let (id, proposal) = sent(&mut forwards, 2);
        forwards.answer(3, id, vec![Err(ProposeError::Overloaded)], &mut settled);
        forwards.expire(Instant(10), &mut settled);
        settled.tell();
        assert_eq!(proposal.wait(), UNKNOWN);
    }

    #[test]
    fn a_short_answer_leaves_the_rest_unknown() {
        let (mut forwards, mut settled) = (empty(), Settled::default());
        let (group, proposals) = Group::many(2, 2);
        forwards.sent(1, 2, Instant(10), vec![group]);
        forwards.answer(2, 1, vec![Err(ProposeError::Overloaded)], &mut settled);
        settled.tell();
        assert_eq!(proposals.wait(), vec![Err(ProposeError::Overloaded), UNKNOWN]);
    }
}
