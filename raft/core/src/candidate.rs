//! A candidate, in a pre-vote or in a real one; and how a voter answers.

use alloc::collections::BTreeMap;

use crate::{
    Instant, Message, NodeId, VoteKind, VoteRequest, VoteResponse, WriteSeq,
    local::Local,
    quorum::{VoteResult, vote_result},
};

/// The candidate's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Candidate {
    kind: VoteKind,
    /// Who answered, and whether it granted. Answers of voters only.
    votes: BTreeMap<NodeId, bool>,
    /// The own vote counts once this is durable.
    own_vote: WriteSeq,
}

impl Candidate {
    /// Asks who would vote for this node in the next term. Changes nothing durable.
    pub(crate) fn probe(local: &mut Local, now: Instant) -> Self {
        local.timers.restart_election(now);
        let term = local.term().next();
        for voter in other_voters(local) {
            let request =
                VoteRequest { kind: VoteKind::Pre, term, last: local.log.last_position() };
            local.send(voter, Message::VoteRequest(request));
        }
        Self::with_own_vote(local, VoteKind::Pre, WriteSeq(0))
    }

    /// Begins a term and asks for votes in it, as soon as the own vote is durable.
    pub(crate) fn stand(local: &mut Local, now: Instant) -> Self {
        local.timers.restart_election(now);
        local.adopt_term(local.term().next());
        local.vote_for(local.id());
        let own_vote = local.write_state(now);
        for voter in other_voters(local) {
            let (term, last) = (local.term(), local.log.last_position());
            let request = VoteRequest { kind: VoteKind::Real, term, last };
            local.send_when_durable(now, voter, Message::VoteRequest(request), own_vote);
        }
        Self::with_own_vote(local, VoteKind::Real, own_vote)
    }

    fn with_own_vote(local: &Local, kind: VoteKind, own_vote: WriteSeq) -> Self {
        let mut candidate = Self { kind, votes: BTreeMap::new(), own_vote };
        candidate.count_own_vote(local);
        candidate
    }

    /// Counts the own vote if it is durable.
    pub(crate) fn count_own_vote(&mut self, local: &Local) {
        if local.durability.is_durable(self.own_vote) {
            self.votes.insert(local.id(), true);
        }
    }

    /// Takes in an answer that was given in this term, or granted for the next one in a pre-vote.
    pub(crate) fn vote_response(&mut self, local: &Local, from: NodeId, response: VoteResponse) {
        let asked = match (self.kind, response.granted) {
            (VoteKind::Pre, true) => local.term().next(),
            _ => local.term(),
        };
        let counts = response.kind == self.kind && response.term == asked;
        if counts && local.membership.is_voter(from) {
            self.votes.entry(from).or_insert(response.granted);
        }
    }

    /// How the election stands.
    pub(crate) fn result(&self, local: &Local) -> VoteResult {
        let granted = self.votes.values().filter(|granted| **granted).count();
        vote_result(local.membership.voters().count(), granted, self.votes.len() - granted)
    }

    pub(crate) fn kind(&self) -> VoteKind {
        self.kind
    }
}

/// Answers whether this node would vote for the asker. `free` says that no leader is trusted.
pub(crate) fn answer_pre_vote(local: &mut Local, from: NodeId, request: VoteRequest, free: bool) {
    let newer = request.term > local.term() && request.last >= local.log.last_position();
    let granted = free && newer && local.is_voter();
    let term = if granted { request.term } else { local.term() };
    let response = VoteResponse { kind: VoteKind::Pre, term, granted };
    local.send(from, Message::VoteResponse(response));
}

/// Answers a request for a vote in the current term, once the vote is durable.
pub(crate) fn answer_vote(local: &mut Local, now: Instant, from: NodeId, request: VoteRequest) {
    assert_eq!(request.term, local.term());
    let current = request.last >= local.log.last_position();
    let granted = current && local.may_vote_for(from) && local.is_voter();
    if granted {
        local.vote_for(from);
        local.timers.restart_election(now);
    }
    let response = VoteResponse { kind: VoteKind::Real, term: local.term(), granted };
    local.send_when_durable(now, from, Message::VoteResponse(response), WriteSeq(0));
}

fn other_voters(local: &Local) -> alloc::vec::Vec<NodeId> {
    local.membership.voters().filter(|voter| *voter != local.id()).collect()
}
