//! A follower (or learner): takes in the leader's entries, and asks the leader about reads.

use alloc::collections::VecDeque;

use crate::{
    AppendEntries, AppendOutcome, AppendResponse, HaltReason, InstallSnapshot, Instant, LogIndex,
    Message, NodeId, Output, Position, ReadId, ReadIndexRequest, ReadIndexResponse, WriteSeq,
    local::Local, log::Log,
};

/// The follower's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    /// The leader of the current term, once it was heard.
    pub(crate) leader: Option<NodeId>,
    /// Whether it may be a leader no more: contact was lost, and it was not heard as leader since.
    is_doubted: bool,
    /// When it was last heard.
    heard_at: Option<Instant>,
    /// Reads the leader was asked about, oldest first, numbers rising.
    questions: VecDeque<Question>,
    /// The snapshot that was offered and is not here yet, and the round of the newest offer.
    fetching: Option<(Position, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    /// As the leader knows it.
    number: ReadId,
    /// As the runtime knows it.
    read: ReadId,
    expires_at: Instant,
}

/// How a leader's entries lie to the own log.
enum Fit {
    /// The log has the previous entry and the first `known` of the entries.
    Follows { known: usize },
    /// The log does not have the previous entry.
    Misses,
    /// The entry contradicts one that is committed here.
    Contradicts(Position),
}

impl Follower {
    /// A follower of nobody yet, or of a leader that was not heard yet.
    pub(crate) fn new(leader: Option<NodeId>) -> Self {
        Self {
            leader,
            is_doubted: false,
            heard_at: None,
            questions: VecDeque::new(),
            fetching: None,
        }
    }

    /// The leader, if there is reason to believe that it is one still.
    pub(crate) fn known_leader(&self) -> Option<NodeId> {
        self.leader.filter(|_| !self.is_doubted)
    }

    /// The leader may be one no more: it counts as such, and is asked, once it was heard again.
    pub(crate) fn doubt(&mut self, local: &mut Local) {
        self.is_doubted = true;
        self.leave(local);
    }

    /// The leader gave a sign of life.
    pub(crate) fn hear(&mut self, local: &mut Local, now: Instant) {
        self.heard_at = Some(now);
        local.timers.restart_election(now);
    }

    /// Whether a leader was heard so recently that no other candidate is supported.
    pub(crate) fn trusts_leader(&self, local: &Local, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now < at + local.patience())
    }

    /// Takes in what the leader of the current term says.
    pub(crate) fn append_entries(
        &mut self,
        local: &mut Local,
        now: Instant,
        request: AppendEntries,
    ) {
        self.hear(local, now);
        self.is_doubted = false;
        let leader = self.leader.expect("set by the caller");
        match fit(&local.log, &request) {
            Fit::Contradicts(theirs) => {
                let ours = local.log.term_at(theirs.index).unwrap_or_default();
                let (index, theirs) = (theirs.index, theirs.term);
                local.halt(HaltReason::CommittedOverwritten { index, ours, theirs, leader });
            }
            Fit::Misses => {
                let previous = request.previous;
                let hint = local.log.last_at_most(previous.index, previous.term);
                let outcome = AppendOutcome::Rejected { previous, hint };
                answer(local, now, leader, request.round, outcome, WriteSeq(0));
            }
            Fit::Follows { known } => follow(local, now, leader, &request, known),
        }
    }

    /// The leader of the current term offers its snapshot.
    pub(crate) fn install_snapshot(
        &mut self,
        local: &mut Local,
        now: Instant,
        request: InstallSnapshot,
    ) {
        self.hear(local, now);
        self.is_doubted = false;
        let leader = self.leader.expect("set by the caller");
        let InstallSnapshot { round, at, .. } = request;
        let (ours, is_committed) = (local.log.term_at(at.index), at.index <= local.log.committed());
        match ours {
            Some(ours) if is_committed && ours != at.term => {
                let (index, theirs) = (at.index, at.term);
                local.halt(HaltReason::CommittedOverwritten { index, ours, theirs, leader });
            }
            // RAFT-CASE 48: what is committed here already needs no snapshot; nor does, RAFT-CASE 47, who holds
            // its last entry: then the logs are the same up to there, and all of it is committed.
            _ if is_committed || ours == Some(at.term) => {
                self.fetching = None;
                local.commit_to(at.index);
                let (matched, needs) = vouch(local, at.index);
                answer(local, now, leader, round, AppendOutcome::Matched(matched), needs);
            }
            _ => {
                let is_new = self.fetching.is_none_or(|(known, _)| known != at);
                self.fetching = Some((at, round));
                if is_new {
                    local.output(Output::FetchSnapshot { from: leader, at });
                }
                answer(local, now, leader, round, AppendOutcome::Fetching { at }, WriteSeq(0));
            }
        }
    }

    /// A snapshot was installed: the leader that offered it need not wait for its next heartbeat.
    pub(crate) fn installed(&mut self, local: &mut Local, now: Instant, last: LogIndex) {
        if let (Some(leader), Some((_, round))) = (self.leader, self.fetching.take()) {
            let outcome = AppendOutcome::Matched(last);
            answer(local, now, leader, round, outcome, WriteSeq(0));
        }
    }

    /// The snapshot could not be had: the next offer counts as the first.
    pub(crate) fn forget_offer(&mut self) {
        self.fetching = None;
    }

    /// Asks the leader at which index the read may run; fails it if there is none.
    pub(crate) fn read(&mut self, local: &mut Local, now: Instant, read: ReadId) {
        match self.known_leader() {
            Some(leader) if self.questions.len() < local.config.reads_max => {
                let number = local.next_question();
                let expires_at = now + local.config.election_timeout_max;
                self.questions.push_back(Question { number, read, expires_at });
                let term = local.term();
                let request = ReadIndexRequest { term, id: number };
                local.send(leader, Message::ReadIndexRequest(request));
            }
            _ => local.output(Output::ReadFailed { id: read }),
        }
    }

    /// The leader has answered a question, if it is still open.
    pub(crate) fn read_index(&mut self, local: &mut Local, response: ReadIndexResponse) {
        let place = self.questions.binary_search_by_key(&response.id, |question| question.number);
        let open = place.ok().and_then(|place| self.questions.remove(place));
        if let Some(Question { read: id, .. }) = open {
            local.output(match response.index {
                Some(index) => Output::ReadReady { id, index },
                None => Output::ReadFailed { id },
            });
        }
    }

    /// Fails the questions that were not answered in time.
    pub(crate) fn expire(&mut self, local: &mut Local, now: Instant) {
        while let Some(question) = self.questions.pop_front_if(|next| next.expires_at <= now) {
            local.output(Output::ReadFailed { id: question.read });
        }
    }

    /// When the oldest question expires.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.questions.front().map(|question| question.expires_at)
    }

    /// The leader or the term is gone, or in doubt: what it was asked is not answered any more.
    pub(crate) fn leave(&mut self, local: &mut Local) {
        for question in self.questions.drain(..) {
            local.output(Output::ReadFailed { id: question.read });
        }
    }
}

/// Compares a leader's entries with the log. What lies below `compacted` is committed, and so the
/// same in every later leader's log.
fn fit(log: &Log, request: &AppendEntries) -> Fit {
    let (compacted, previous) = (log.compacted(), request.previous);
    if previous.index >= compacted.index && !log.holds(previous) {
        let committed = previous.index <= log.committed();
        return if committed { Fit::Contradicts(previous) } else { Fit::Misses };
    }
    let entries = request.entries.entries();
    let next = previous.index.next();
    assert!(entries.first().is_none_or(|entry| entry.index == next), "entries follow `previous`");
    for (known, entry) in entries.iter().enumerate() {
        if entry.index < compacted.index || log.holds(entry.position()) {
            continue;
        }
        if entry.index <= log.committed() {
            return Fit::Contradicts(entry.position());
        }
        return Fit::Follows { known };
    }
    Fit::Follows { known: entries.len() }
}

/// Appends what the log does not have, replacing only what conflicts, and answers.
fn follow(local: &mut Local, now: Instant, leader: NodeId, request: &AppendEntries, known: usize) {
    let entries = &request.entries;
    let fresh = entries.slice(known..entries.len());
    if let Some(first) = fresh.first() {
        if first <= local.log.last() {
            local.truncate_from(first);
        }
        local.append(now, fresh);
    }
    let verified = request.previous.index.plus(entries.len());
    local.commit_to(request.commit.min(verified));

    // A heartbeat is answered at once with what is durable; entries once they are.
    let (matched, needs) = if entries.is_empty() {
        (verified.min(local.log.durable()), WriteSeq(0))
    } else {
        vouch(local, verified)
    };
    answer(local, now, leader, request.round, AppendOutcome::Matched(matched), needs);
}

/// What can be said of the entries up to `verified`, and the write that it has to wait for.
fn vouch(local: &Local, verified: LogIndex) -> (LogIndex, WriteSeq) {
    if verified <= local.log.durable() {
        return (verified, WriteSeq(0));
    }
    let needs = local.durability.vouching_for(verified);
    (verified, needs.expect("every entry that is not durable has an outstanding write"))
}

fn answer(
    local: &mut Local,
    now: Instant,
    leader: NodeId,
    round: u64,
    outcome: AppendOutcome,
    needs: WriteSeq,
) {
    let response = AppendResponse { term: local.term(), round, outcome };
    local.send_when_durable(now, leader, Message::AppendResponse(response), needs);
}
