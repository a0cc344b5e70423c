//! What a node has whatever its role: its durable state, membership, log, disk, timers and the
//! outputs it has made.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use crate::{
    Apply, Batch, Config, ConfigError, Configuration, FetchId, HaltReason, HardState, Instant,
    LogIndex, Message, NodeId, Output, Position, ReadId, Recovered, Snapshot, State, Term,
    WriteSeq,
    durability::{Durability, Held},
    log::{Log, Slice},
    membership::Membership,
    random::Random,
    timers::Timers,
};

/// One node, without its role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Local {
    pub(crate) config: Config,
    pub(crate) membership: Membership,
    pub(crate) log: Log,
    pub(crate) durability: Durability,
    pub(crate) timers: Timers,
    /// The newest one that is visible here.
    pub(crate) snapshot: Option<Snapshot>,
    /// The last entry of the one before it.
    pub(crate) snapshot_before: LogIndex,
    /// One that is ahead of the log, and waits until nobody reads that any more.
    pub(crate) ahead: Option<Snapshot>,
    state: State,
    /// The state differs from the one last written.
    state_changed: bool,
    /// The write that carried the newest state; every answer in this term waits for it.
    state_seq: WriteSeq,
    outputs: VecDeque<Output>,
    newest_fetch: FetchId,
    /// Questions to leaders are numbered from a random place, so that an answer to a question of
    /// an earlier process is known as such.
    newest_question: u64,
    halted: bool,
}

impl Local {
    pub(crate) fn recover(
        config: Config,
        recovered: Recovered,
        seed: u64,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        config.validate()?;
        recovered.snapshot.as_ref().map_or(Ok(()), Snapshot::validate)?;
        let log = Log::recover(&recovered, &config)?;
        let state = recovered.state;
        let snapshot = recovered.snapshot;
        let membership = Membership::recover(&state.configurations, |position| {
            is_held(&log, snapshot.as_ref(), position)
        });
        let membership =
            membership.ok_or(ConfigError("the recovered state has no configuration"))?;
        let mut random = Random::new(seed);
        let newest_question = random.next() >> 1;
        Ok(Self {
            membership,
            log,
            durability: Durability::new(now),
            timers: Timers::new(&config, random, now),
            config,
            snapshot,
            snapshot_before: LogIndex(0),
            ahead: None,
            state,
            state_changed: false,
            state_seq: WriteSeq(0),
            outputs: VecDeque::new(),
            newest_fetch: FetchId(0),
            newest_question,
            halted: false,
        })
    }

    /// Goes on in a later term, in which nobody has this node's vote yet.
    pub(crate) fn adopt_term(&mut self, term: Term) {
        assert!(term > self.term(), "terms only rise");
        self.state.hard = HardState { term, vote: None };
        self.state_changed = true;
        self.durability.drop_before(term);
    }

    /// Gives this node's vote in the current term.
    pub(crate) fn vote_for(&mut self, candidate: NodeId) {
        assert!(self.may_vote_for(candidate), "one vote a term");
        self.state_changed |= self.vote() != Some(candidate);
        self.state.hard.vote = Some(candidate);
    }

    pub(crate) fn may_vote_for(&self, candidate: NodeId) -> bool {
        self.vote().is_none_or(|vote| vote == candidate)
    }

    /// Writes the state, if it changed since it was last written. Its sequence number.
    pub(crate) fn write_state(&mut self, now: Instant) -> WriteSeq {
        if self.state_changed {
            self.write(now, Batch::default());
        }
        self.state_seq
    }

    /// Appends entries to the log and writes them, the state before them if it changed.
    pub(crate) fn append(&mut self, now: Instant, entries: Batch) {
        assert!(!entries.is_empty());
        self.log.append(&entries);
        self.write(now, entries);
    }

    fn write(&mut self, now: Instant, entries: Batch) {
        let seq = self.durability.begin(now, entries.last().unwrap_or_default());
        let state = self.state_changed.then(|| self.state.clone());
        if state.is_some() {
            self.state_changed = false;
            self.state_seq = seq;
        }
        self.output(Output::Write { seq, state, entries });
    }

    /// Drops the whole log, which goes on behind `at`, and writes the state, which names this
    /// configuration and no other.
    pub(crate) fn reset(
        &mut self,
        now: Instant,
        at: Position,
        configuration: (Position, Configuration),
    ) {
        self.log.reset(at);
        // No write that is under way vouches for anything any more.
        self.durability.truncate_after(LogIndex(0));
        self.state.configurations = alloc::vec![configuration];
        self.state_changed = false;
        self.state_seq = self.durability.begin(now, LogIndex(0));
        let (seq, state) = (self.state_seq, self.state.clone());
        self.output(Output::Reset { seq, at, state });
    }

    /// The newest configuration at or before `index`, if it is known: of two that the state names,
    /// the older one can already lie behind it. One whose entry was cut off counts for nothing
    /// (RAFT-CASES 44, 50), though the state that was written last still names it.
    pub(crate) fn configuration_at(&self, index: LogIndex) -> Option<&(Position, Configuration)> {
        let is_held = |position| is_held(&self.log, self.snapshot.as_ref(), position);
        let known = self.state.configurations.iter().rev();
        known.into_iter().find(|(position, _)| position.index <= index && is_held(*position))
    }

    /// Drops the entries from `first` on, in favour of those about to be appended.
    pub(crate) fn truncate_from(&mut self, first: LogIndex) {
        self.log.truncate_after(first.previous());
        self.durability.truncate_after(first.previous());
    }

    /// Everything up to `index` is committed: hands out what the state machine may take. Says
    /// whether that is news.
    pub(crate) fn commit_to(&mut self, index: LogIndex) -> bool {
        let news = self.log.commit_to(index);
        if news {
            self.apply();
        }
        news
    }

    /// Hands committed entries to the state machine, as far as it keeps up.
    pub(crate) fn apply(&mut self) {
        while let Some(slice) = self.log.hand_out() {
            self.output(Output::Apply(match slice {
                Slice::Entries(batch) => Apply::Entries(batch),
                Slice::Fetch { first, end } => Apply::Range { first, end },
                Slice::Compacted => unreachable!("what is compacted was applied"),
            }));
        }
    }

    /// Takes in that writes up to `seq` are durable, and sends what waited for them. Says whether
    /// that is news.
    pub(crate) fn written(&mut self, now: Instant, seq: WriteSeq) -> bool {
        let Some(vouched) = self.durability.complete(now, seq) else { return false };
        self.log.durable_to(vouched);
        if self.config.applies_durable_only {
            self.apply();
        }
        for held in self.durability.release() {
            self.send(held.to, held.message);
        }
        true
    }

    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.output(Output::Send { to, message });
    }

    /// Sends once the write `needs` and the newest state are durable: nothing is said in a term
    /// that a crash could make this node forget.
    pub(crate) fn send_when_durable(
        &mut self,
        now: Instant,
        to: NodeId,
        message: Message,
        needs: WriteSeq,
    ) {
        let needs = needs.max(self.write_state(now));
        if self.durability.is_durable(needs) {
            self.send(to, message);
        } else {
            self.durability.hold(Held { to, message, needs, term: self.term() });
        }
    }

    /// Asks for entries from the log.
    pub(crate) fn fetch(&mut self, first: LogIndex, end: LogIndex) -> FetchId {
        self.newest_fetch = FetchId(self.newest_fetch.0 + 1);
        let id = self.newest_fetch;
        let bytes_max = self.config.fetch_bytes_max.min(self.config.append_bytes_max);
        self.output(Output::Fetch { id, first, end, bytes_max });
        id
    }

    /// A number for a question to the leader.
    pub(crate) fn next_question(&mut self) -> ReadId {
        self.newest_question += 1;
        ReadId(self.newest_question)
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Asks for this node to be stopped; nothing more is done after it.
    pub(crate) fn halt(&mut self, reason: HaltReason) {
        self.halted = true;
        self.output(Output::Halt { reason });
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted
    }

    pub(crate) fn id(&self) -> NodeId {
        self.config.id
    }

    pub(crate) fn term(&self) -> Term {
        self.state.hard.term
    }

    pub(crate) fn vote(&self) -> Option<NodeId> {
        self.state.hard.vote
    }

    pub(crate) fn is_voter(&self) -> bool {
        self.membership.is_voter(self.id())
    }

    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.membership.peers(self.id())
    }

    /// Whether the disk makes no progress: then this node can neither lead nor be elected.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.durability.is_stalled(now, self.config.disk_stall)
    }

    /// How long a follower trusts a leader, and a leader a quorum, without a sign of life.
    pub(crate) fn patience(&self) -> Duration {
        self.config.election_timeout_min
    }
}

/// Whether a configuration that the state names counts: its entry is in the log. Of those whose place has left the log only the one
/// does that the snapshot names, on the strength of which it left; and the first, which never was an entry.
fn is_held(log: &Log, snapshot: Option<&Snapshot>, position: Position) -> bool {
    position == Position::default()
        || snapshot.is_some_and(|snapshot| snapshot.configuration.0 == position)
        || log.holds(position)
}
