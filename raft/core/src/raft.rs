//! The protocol's face: one input, then poll outputs until there are none, then sleep until
//! `poll_timeout` or the next input.

use alloc::vec::Vec;

use bytes::Bytes;

use crate::{
    AppendEntries, AppendOutcome, AppendResponse, Config, ConfigError, Configuration, Entry,
    FetchId, HaltReason, InstallSnapshot, Instant, LogIndex, Message, NodeId, Output, Position,
    ReadId, ReadIndexRequest, ReadIndexResponse, Snapshot, State, Term, VoteKind, VoteRequest,
    VoteResponse, WriteSeq,
    candidate::{Candidate, answer_pre_vote, answer_vote},
    follower::Follower,
    leader::Leader,
    local::Local,
    quorum::VoteResult,
    reads::Asker,
    snapshot::Consequence,
    status::{Cursors, FollowerStatus, Role, Status},
};

/// One node of a Raft group.
///
/// After every input poll [`Raft::poll_output`] until `None`. The same inputs with the same seed
/// give the same outputs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    local: Local,
    state: RoleState,
    /// Role, term and leader as last told by an output.
    told: (Role, Term, Option<NodeId>),
}

/// What a node's disk held when it started.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovered {
    /// As written by the last `Output::Write` that had one. It must have a configuration: the
    /// runtime completes the first start before it makes a core.
    pub state: State,
    /// The newest one that is visible. The log begins at the latest right behind it, and holds its
    /// last entry or goes on behind that: the runtime resets one that does not.
    pub snapshot: Option<Snapshot>,
    /// Newest entry that the state machine holds. It is the snapshot's, unless the state machine keeps a disk of its own; what it
    /// holds is committed, and the log goes on behind it.
    pub applied: LogIndex,
    /// Newest entry no longer in the log; (0, 0) if none.
    pub compacted: Position,
    /// First index and term of each run of entries with one term, ascending.
    pub runs: Vec<(LogIndex, Term)>,
    /// Last index of the log; all of it is durable.
    pub last: LogIndex,
}

/// Why commands were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// Only a leader takes commands.
    #[error("not the leader")]
    NotLeader {
        /// Who is, as far as known.
        leader: Option<NodeId>,
    },
    /// Too much is not applied yet.
    #[error("{bytes} bytes are not applied yet, the limit is {limit}")]
    Overloaded {
        /// What is not both applied and durable yet.
        bytes: usize,
        /// `Config::unapplied_bytes_max`.
        limit: usize,
    },
    /// A command is too long.
    #[error("a command of {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// `Config::command_bytes_max`.
        limit: usize,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum RoleState {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

impl Raft {
    /// A node as its disk remembers it: a follower of nobody, with nothing committed beyond what
    /// its snapshot contains. `seed` decides election timeouts; it differs from process to process.
    ///
    /// # Errors
    /// If options contradict each other, or `recovered` contradicts itself.
    pub fn new(
        config: Config,
        recovered: Recovered,
        seed: u64,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let mut local = Local::recover(config, recovered, seed, now)?;
        // What the snapshot contains is committed, also where the state machine's own disk does not hold all of it.
        local.apply();
        let state = RoleState::Follower(Follower::new(None));
        let mut raft = Self { told: (Role::Follower, local.term(), None), local, state };
        raft.told.0 = raft.role();
        Ok(raft)
    }

    /// Appends the payloads (made by [`Entry::encode_command`]) as consecutive entries; returns
    /// the position of the first. All or none. When everything is applied a batch is taken
    /// whatever it weighs, so its size is the caller's to bound.
    ///
    /// # Errors
    /// If this node does not lead, a command is too long, or too much is not applied.
    ///
    /// # Panics
    /// If there is no payload, or one is not a command's.
    pub fn propose(
        &mut self,
        now: Instant,
        payloads: Vec<Bytes>,
    ) -> Result<Position, ProposeError> {
        let RoleState::Leader(leader) = &mut self.state else {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        };
        if self.local.is_halted() {
            return Err(ProposeError::NotLeader { leader: None });
        }
        leader.propose(&mut self.local, now, payloads)
    }

    /// Asks for a linearizable read. Ends in `ReadReady` or `ReadFailed`, on a leader, or on a
    /// follower by asking its leader.
    pub fn read(&mut self, now: Instant, id: ReadId) {
        match &mut self.state {
            _ if self.local.is_halted() => self.local.output(Output::ReadFailed { id }),
            RoleState::Leader(leader) => leader.read(&mut self.local, Asker::Here, id),
            RoleState::Follower(follower) => follower.read(&mut self.local, now, id),
            RoleState::Candidate(_) => self.local.output(Output::ReadFailed { id }),
        }
    }

    /// Takes in a message from a peer.
    pub fn handle_message(&mut self, now: Instant, from: NodeId, message: Message) {
        // A voter answers whoever asks for its vote: it may not have learnt of the asker yet.
        let is_request = matches!(message, Message::VoteRequest(_));
        let is_member = self.local.membership.is_member(from);
        if self.local.is_halted() || from == self.local.id() || !(is_member || is_request) {
            return;
        }
        if message.term() > self.local.term()
            && (message.term().0 - self.local.term().0 > TERM_JUMP_MAX
                || !self.enter_term(now, from, &message))
        {
            return;
        }
        match message {
            Message::VoteRequest(request) => self.vote_request(now, from, request),
            Message::VoteResponse(response) => self.vote_response(now, from, response),
            Message::AppendEntries(request) => self.append_entries(now, from, request),
            Message::InstallSnapshot(request) => self.install_snapshot(now, from, request),
            Message::AppendResponse(response) => self.append_response(now, from, response),
            Message::ReadIndexRequest(request) => self.read_index_request(from, request),
            Message::ReadIndexResponse(response) => self.read_index_response(from, response),
        }
        self.finish(now);
    }

    /// Bytes of a message that is still arriving: from the leader they count as contact.
    pub fn handle_contact(&mut self, now: Instant, from: NodeId) {
        if let RoleState::Follower(follower) = &mut self.state
            && follower.leader == Some(from)
        {
            follower.hear(&mut self.local, now);
        }
    }

    /// A peer may lead no more: a connection to it was lost, so it may be another process by now, or
    /// it says so itself. If it is the leader, none is known until it is heard as one again. Terms,
    /// votes and the election timeout go on as they were.
    pub fn handle_doubt(&mut self, now: Instant, peer: NodeId) {
        if let RoleState::Follower(follower) = &mut self.state
            && follower.leader == Some(peer)
            && !self.local.is_halted()
        {
            follower.doubt(&mut self.local);
            self.finish(now);
        }
    }

    /// Every write up to `seq` is durable.
    ///
    /// # Panics
    /// If no write `seq` was asked for.
    pub fn handle_written(&mut self, now: Instant, seq: WriteSeq) {
        if self.local.is_halted() || !self.local.written(now, seq) {
            return;
        }
        match &mut self.state {
            RoleState::Leader(leader) => leader.written(&mut self.local),
            RoleState::Candidate(candidate) => {
                candidate.count_own_vote(&self.local);
                self.decide_election(now);
            }
            RoleState::Follower(_) => {}
        }
        self.finish(now);
    }

    /// Entries have been read from the log; `Err` if that failed. What does not fit the log as it
    /// is now is dropped.
    pub fn handle_fetched(&mut self, now: Instant, id: FetchId, result: Result<Vec<Entry>, ()>) {
        if self.local.is_halted() {
            return;
        }
        if let RoleState::Leader(leader) = &mut self.state {
            leader.fetched(&mut self.local, id, result);
        }
        self.finish(now);
    }

    /// The state machine has taken in everything up to `index`.
    ///
    /// # Panics
    /// If that was not handed to it.
    pub fn handle_applied(&mut self, now: Instant, index: LogIndex) {
        self.local.log.applied_to(index);
        if let RoleState::Leader(leader) = &mut self.state {
            leader.settle(&self.local);
        }
        if !self.local.is_halted() {
            if !self.local.log.is_read()
                && let Some(snapshot) = self.local.ahead.take()
            {
                self.take_snapshot(now, snapshot);
            }
            self.local.apply();
            self.finish(now);
        }
    }

    /// A snapshot is whole, durable and visible here: one of this node's state machine, or one that came from a peer. The
    /// log gives up what it contains, now or later; if it is ahead of the log, that begins anew behind it.
    ///
    /// # Panics
    /// If the snapshot is not valid ([`Snapshot::validate`]).
    pub fn handle_snapshot(&mut self, now: Instant, snapshot: Snapshot) {
        assert_eq!(snapshot.validate(), Ok(()), "the runtime refuses what is not valid");
        if self.local.is_halted() {
            return;
        }
        self.take_snapshot(now, snapshot);
        self.finish(now);
    }

    /// The snapshot that was asked for cannot be had now.
    pub fn handle_snapshot_failed(&mut self) {
        if let RoleState::Follower(follower) = &mut self.state {
            follower.forget_offer();
        }
    }

    /// The newest configuration at or before `index`, and its place, for the snapshot that ends there; `None` if it is not known
    /// any more, since two later ones are.
    #[must_use]
    pub fn configuration_at(&self, index: LogIndex) -> Option<&(Position, Configuration)> {
        self.local.configuration_at(index)
    }

    /// Does what is due at `now`; harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.local.is_halted() {
            return;
        }
        match &mut self.state {
            RoleState::Leader(leader) => {
                let stalled = self.local.is_stalled(now);
                let due = self.local.timers.heartbeat_at() <= now;
                if stalled || (due && !leader.heartbeat(&mut self.local, now)) {
                    self.become_follower(now, None);
                }
            }
            RoleState::Follower(follower) => {
                follower.expire(&mut self.local, now);
                self.campaign_if_due(now);
            }
            RoleState::Candidate(_) => self.campaign_if_due(now),
        }
        self.finish(now);
    }

    /// The next thing to do, in the order they were made.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.local.poll_output()
    }

    /// When [`Raft::handle_timeout`] is due; `None` if nothing but an input can change anything.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.local.is_halted() {
            return None;
        }
        let election = self.local.is_voter().then(|| self.local.timers.election_at());
        match &self.state {
            RoleState::Leader(_) => {
                let stalls = self.local.durability.stalls_at(self.local.config.disk_stall);
                stalls.into_iter().chain([self.local.timers.heartbeat_at()]).min()
            }
            RoleState::Follower(follower) => {
                follower.expires_at().into_iter().chain(election).min()
            }
            RoleState::Candidate(_) => election,
        }
    }

    /// Where this node stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let log = &self.local.log;
        Status {
            id: self.local.id(),
            role: self.role(),
            term: self.local.term(),
            leader: self.leader(),
            snapshot: self.local.snapshot.as_ref().map_or(Position::default(), |s| s.at),
            compacted: log.compacted(),
            applied: log.applied(),
            committed: log.committed(),
            durable: log.durable(),
            last: log.last_position(),
            configuration: self.local.membership.configuration().clone(),
            followers: self.followers(),
        }
    }

    /// Where this node's log stands; unlike [`Raft::status`] it copies nothing else.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        let log = &self.local.log;
        Cursors { committed: log.committed(), durable: log.durable(), last: log.last_position() }
    }

    /// Whether proposals that weigh so much together would not be [`ProposeError::Overloaded`]; what does not lead is not.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        match &self.state {
            RoleState::Leader(leader) => {
                leader.has_room(self.local.config.unapplied_bytes_max, bytes)
            }
            RoleState::Follower(_) | RoleState::Candidate(_) => true,
        }
    }

    /// When leader: how every other member stands, in ascending order of ids.
    #[must_use]
    pub fn followers(&self) -> Vec<FollowerStatus> {
        let RoleState::Leader(leader) = &self.state else { return Vec::new() };
        let followers = leader.followers.iter();
        followers.map(|(id, progress)| FollowerStatus::new(*id, progress)).collect()
    }

    /// Asserts what holds between inputs; for tests and simulations.
    ///
    /// # Panics
    /// If something does not.
    pub fn check(&self) {
        crate::invariants::check(&self.local);
        if let RoleState::Leader(leader) = &self.state {
            leader.check(&self.local);
        }
    }

    /// Goes on in the later term of `message`, if it is one that carries its term to others. Says
    /// whether the message is to be looked at.
    fn enter_term(&mut self, now: Instant, from: NodeId, message: &Message) -> bool {
        let leader = match message {
            Message::VoteRequest(VoteRequest { kind: VoteKind::Pre, .. })
            | Message::VoteResponse(VoteResponse { kind: VoteKind::Pre, granted: true, .. }) => {
                return true;
            }
            Message::VoteRequest(_) if self.trusts_leader(now) => return false,
            Message::AppendEntries(_) | Message::InstallSnapshot(_) => Some(from),
            _ => None,
        };
        // The old role says its last words in the old term.
        self.leave_role();
        self.local.adopt_term(message.term());
        self.become_follower(now, leader);
        true
    }

    fn vote_request(&mut self, now: Instant, from: NodeId, request: VoteRequest) {
        match request.kind {
            VoteKind::Pre => {
                let free = !self.trusts_leader(now);
                answer_pre_vote(&mut self.local, from, request, free);
            }
            VoteKind::Real if request.term < self.local.term() => {
                let term = self.local.term();
                let response = VoteResponse { kind: VoteKind::Real, term, granted: false };
                let message = Message::VoteResponse(response);
                self.local.send_when_durable(now, from, message, WriteSeq(0));
            }
            VoteKind::Real => answer_vote(&mut self.local, now, from, request),
        }
    }

    fn vote_response(&mut self, now: Instant, from: NodeId, response: VoteResponse) {
        if let RoleState::Candidate(candidate) = &mut self.state {
            candidate.vote_response(&self.local, from, response);
            self.decide_election(now);
        }
    }

    fn append_entries(&mut self, now: Instant, from: NodeId, request: AppendEntries) {
        if self.follows(now, from, request.term, request.previous)
            && let RoleState::Follower(follower) = &mut self.state
        {
            follower.append_entries(&mut self.local, now, request);
        }
    }

    fn install_snapshot(&mut self, now: Instant, from: NodeId, request: InstallSnapshot) {
        if self.follows(now, from, request.term, request.at)
            && let RoleState::Follower(follower) = &mut self.state
        {
            follower.install_snapshot(&mut self.local, now, request);
        }
    }

    /// Whether this node follows `from`, who says that it leads in `told`; from now on, if nobody was known to lead then.
    fn follows(&mut self, now: Instant, from: NodeId, told: Term, previous: Position) -> bool {
        let term = self.local.term();
        if told < term {
            // Tells a leader of an earlier term that its time is over. It may lead again by then, and count its rounds anew: the
            // answer is to none of them.
            let outcome = AppendOutcome::Rejected { previous, hint: Position::default() };
            let response = AppendResponse { term, round: 0, outcome };
            let message = Message::AppendResponse(response);
            self.local.send_when_durable(now, from, message, WriteSeq(0));
            return false;
        }
        let leader = match &self.state {
            RoleState::Follower(follower) => follower.leader,
            _ => self.leader(),
        };
        match leader {
            Some(first) if first != from => {
                self.local.halt(HaltReason::TwoLeaders { term, first, second: from });
            }
            Some(_) => {}
            None => self.become_follower(now, Some(from)),
        }
        !self.local.is_halted()
    }

    fn take_snapshot(&mut self, now: Instant, snapshot: Snapshot) {
        match self.local.judge_snapshot(&snapshot) {
            Some(Consequence::Installation) if self.local.log.is_read() => {
                self.local.ahead = Some(snapshot);
            }
            Some(Consequence::Installation) => self.install(now, snapshot),
            Some(Consequence::Compaction) => {
                self.local.keep_snapshot(snapshot);
                self.handle_snapshot_failed();
            }
            // Whatever is offered next is asked for: this was not it.
            None => self.handle_snapshot_failed(),
        }
    }

    /// The log begins anew behind a snapshot.
    fn install(&mut self, now: Instant, snapshot: Snapshot) {
        let (at, is_follower) = (snapshot.at, matches!(self.state, RoleState::Follower(_)));
        let is_later = at.term > self.local.term();
        if is_later {
            self.leave_role();
            self.local.adopt_term(at.term);
        }
        // Who leads or stands for election without what is committed does so in a term that is over.
        if is_later || !is_follower {
            self.become_follower(now, None);
        }
        self.local.install_snapshot(now, snapshot);
        if let RoleState::Follower(follower) = &mut self.state {
            follower.installed(&mut self.local, now, at.index);
        }
    }

    fn append_response(&mut self, now: Instant, from: NodeId, response: AppendResponse) {
        if let RoleState::Leader(leader) = &mut self.state
            && response.term == self.local.term()
        {
            leader.append_response(&mut self.local, now, from, response);
        }
    }

    fn read_index_request(&mut self, from: NodeId, request: ReadIndexRequest) {
        let term = self.local.term();
        match &mut self.state {
            RoleState::Leader(leader) if request.term == term => {
                leader.read(&mut self.local, Asker::Peer(from), request.id);
            }
            _ => {
                let response = ReadIndexResponse { term, id: request.id, index: None };
                self.local.send(from, Message::ReadIndexResponse(response));
            }
        }
    }

    fn read_index_response(&mut self, from: NodeId, response: ReadIndexResponse) {
        if let RoleState::Follower(follower) = &mut self.state
            && response.term == self.local.term()
            && follower.leader == Some(from)
        {
            follower.read_index(&mut self.local, response);
        }
    }

    /// Stands for election if the time has come and the disk could bear it.
    fn campaign_if_due(&mut self, now: Instant) {
        if !self.local.is_voter() || now < self.local.timers.election_at() {
            return;
        }
        if self.local.is_stalled(now) {
            return self.local.timers.restart_election(now);
        }
        self.leave_role();
        self.state = RoleState::Candidate(Candidate::probe(&mut self.local, now));
        self.decide_election(now);
    }

    /// Draws the consequence of how the election stands.
    fn decide_election(&mut self, now: Instant) {
        while let RoleState::Candidate(candidate) = &self.state {
            self.state = match (candidate.result(&self.local), candidate.kind()) {
                (VoteResult::Pending, _) => return,
                (VoteResult::Lost, _) => return self.become_follower(now, None),
                (VoteResult::Won, VoteKind::Pre) => {
                    RoleState::Candidate(Candidate::stand(&mut self.local, now))
                }
                (VoteResult::Won, VoteKind::Real) => {
                    RoleState::Leader(Leader::begin(&mut self.local, now))
                }
            };
        }
    }

    fn become_follower(&mut self, now: Instant, leader: Option<NodeId>) {
        self.leave_role();
        self.state = RoleState::Follower(Follower::new(leader));
        self.local.timers.restart_election(now);
    }

    /// Fails what the role still owes an answer.
    fn leave_role(&mut self) {
        match &mut self.state {
            RoleState::Leader(leader) => leader.leave(&mut self.local),
            RoleState::Follower(follower) => follower.leave(&mut self.local),
            RoleState::Candidate(_) => {}
        }
    }

    /// Whether this node leads, or has heard its leader so recently that it supports nobody else.
    fn trusts_leader(&self, now: Instant) -> bool {
        match &self.state {
            RoleState::Leader(_) => true,
            RoleState::Follower(follower) => follower.trusts_leader(&self.local, now),
            RoleState::Candidate(_) => false,
        }
    }

    /// After each input: the state is written if it changed, and changes of role are told.
    fn finish(&mut self, now: Instant) {
        self.local.write_state(now);
        let pinned = match &self.state {
            RoleState::Leader(leader) => leader.pinned(&self.local, now),
            _ => None,
        };
        self.local.compact(pinned);
        let current = (self.role(), self.local.term(), self.leader());
        if current != self.told {
            self.told = current;
            let (role, term, leader) = current;
            self.local.output(Output::RoleChanged { role, term, leader });
        }
    }

    fn role(&self) -> Role {
        match &self.state {
            RoleState::Leader(_) => Role::Leader,
            RoleState::Candidate(candidate) => match candidate.kind() {
                VoteKind::Pre => Role::PreCandidate,
                VoteKind::Real => Role::Candidate,
            },
            RoleState::Follower(_) if !self.local.is_voter() => Role::Learner,
            RoleState::Follower(_) => Role::Follower,
        }
    }

    /// Who leads, as far as there is no reason to doubt it.
    fn leader(&self) -> Option<NodeId> {
        match &self.state {
            RoleState::Leader(_) => Some(self.local.id()),
            RoleState::Follower(follower) => follower.known_leader(),
            RoleState::Candidate(_) => None,
        }
    }
}

/// How many terms a node can have missed: an election a second for a century. A term further away
/// is a mistake, and adopting it would leave none to come after it in the end.
const TERM_JUMP_MAX: u64 = 1 << 32;
