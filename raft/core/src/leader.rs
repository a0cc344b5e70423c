//! A leader: numbers entries, replicates them, commits what a quorum has on disk, answers reads.

use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use bytes::Bytes;

use crate::{
    AppendEntries, AppendOutcome, AppendResponse, Batch, Entry, EntryKind, FetchId,
    InstallSnapshot, Instant, LogIndex, Message, NodeId, Output, Position, ProposeError, ReadId,
    ReadIndexResponse,
    entry::{kind_of, weight},
    local::Local,
    log::Slice,
    progress::{Progress, Reject},
    quorum::reached_by_majority,
    reads::{Asker, Reads},
};

/// The leader's own state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    pub(crate) followers: BTreeMap<NodeId, Progress>,
    /// Counts heartbeats and read rounds of this leadership.
    round: u64,
    /// This leadership's first entry: once it is committed, so is everything before it.
    first: LogIndex,
    reads: Reads,
    /// Own proposals that are not both committed and durable here: last index and weight.
    pending: VecDeque<(LogIndex, usize)>,
    pending_bytes: usize,
}

impl Leader {
    /// Begins to lead the current term, with an empty entry of it.
    pub(crate) fn begin(local: &mut Local, now: Instant) -> Self {
        let last = local.log.last();
        let followers = local.peers().into_iter().map(|id| (id, Progress::new(last, now)));
        let mut leader = Self {
            followers: followers.collect(),
            round: 1,
            first: last.next(),
            reads: Reads::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
        };
        local.timers.restart_heartbeat(now);
        leader.append(local, now, alloc::vec![Entry::encode_empty()]);
        leader
    }

    /// Appends commands as entries of this term. All or none.
    pub(crate) fn propose(
        &mut self,
        local: &mut Local,
        now: Instant,
        payloads: Vec<Bytes>,
    ) -> Result<Position, ProposeError> {
        assert!(!payloads.is_empty(), "a proposal has at least one command");
        let limit = local.config.command_bytes_max;
        for payload in &payloads {
            assert_eq!(kind_of(payload), Some(EntryKind::Command), "only commands are proposed");
            let bytes = payload.len() - 1;
            if bytes > limit {
                return Err(ProposeError::TooLarge { bytes, limit });
            }
        }
        let limit = local.config.unapplied_bytes_max;
        let added = payloads.iter().map(|payload| weight(payload)).sum::<usize>();
        if !self.has_room(limit, added) {
            return Err(ProposeError::Overloaded { bytes: self.pending_bytes, limit });
        }
        Ok(self.append(local, now, payloads))
    }

    /// Whether a batch that weighs `added` is let in: a single one is whatever it weighs, else it could never be.
    pub(crate) fn has_room(&self, limit: usize, added: usize) -> bool {
        self.pending_bytes == 0 || self.pending_bytes.saturating_add(added) <= limit
    }

    fn append(&mut self, local: &mut Local, now: Instant, payloads: Vec<Bytes>) -> Position {
        let (term, last) = (local.term(), local.log.last());
        let entry = |(place, payload)| Entry { index: last.plus(place + 1), term, payload };
        let entries = payloads.into_iter().enumerate().map(entry).collect::<Vec<_>>();
        let batch = Batch::from(entries);
        self.pending.push_back((last.plus(batch.len()), batch.bytes()));
        self.pending_bytes += batch.bytes();
        local.append(now, batch);
        self.replicate_all(local);
        Position { term, index: last.next() }
    }

    /// A follower has answered.
    pub(crate) fn append_response(
        &mut self,
        local: &mut Local,
        now: Instant,
        from: NodeId,
        response: AppendResponse,
    ) {
        let round = self.round;
        let Some(progress) = self.followers.get_mut(&from) else { return };
        // Round 0 answers a leadership of an earlier term, and tells nothing but the term.
        if response.round == 0 || response.round > round || progress.regressed {
            return;
        }
        match response.outcome {
            AppendOutcome::Matched(index) if index > local.log.last() => return,
            AppendOutcome::Matched(index) if progress.contradicts(index, response.round) => {
                return regress(local, progress, from, index);
            }
            AppendOutcome::Matched(index) => progress.acknowledge(index, round),
            // A sign of life; where it stands is said once it has it.
            AppendOutcome::Fetching { .. } => {}
            AppendOutcome::Rejected { previous, hint } => {
                match progress.reject(previous.index, response.round) {
                    Reject::Stale => {}
                    Reject::Regressed => return regress(local, progress, from, hint.index),
                    Reject::Probe => progress.probe_from(agreeing(local, previous, hint).next()),
                }
            }
        }
        progress.answered_round = progress.answered_round.max(response.round);
        progress.answered_at = now;
        self.acknowledge(local);
        self.replicate(local, from);
    }

    /// Own writes have become durable.
    pub(crate) fn written(&mut self, local: &mut Local) {
        self.acknowledge(local);
    }

    /// Commits what a quorum has on disk, and answers the reads that are confirmed.
    fn acknowledge(&mut self, local: &mut Local) {
        let own = local.log.durable();
        let reached = self.quorum(local, own, |progress| progress.matched);
        let reached = reached.unwrap_or_default();
        // Only an entry of this term is committed by counting; it commits those before it.
        if reached >= self.first && local.commit_to(reached) {
            self.reads.open(reached);
            self.replicate_all(local);
        }
        self.settle(local);
        self.confirm_reads(local);
    }

    /// What is durable here and applied does not weigh any more. What the own state machine is behind with does, whether anybody
    /// still waits for it or not: else the log of a leader that applies more slowly than it is written would grow for ever.
    pub(crate) fn settle(&mut self, local: &Local) {
        let settled = local.log.applied().min(local.log.durable());
        while let Some((_, bytes)) = self.pending.pop_front_if(|(last, _)| *last <= settled) {
            self.pending_bytes -= bytes;
        }
    }

    /// Takes in a read of this node or of a follower.
    pub(crate) fn read(&mut self, local: &mut Local, asker: Asker, id: ReadId) {
        if self.reads.len() >= local.config.reads_max {
            return answer_read(local, asker, id, None);
        }
        let committed = local.log.committed();
        self.reads.push(asker, id, (committed >= self.first).then_some(committed));
        self.confirm_reads(local);
    }

    /// Begins a round for the reads that wait, and answers those whose round is confirmed.
    fn confirm_reads(&mut self, local: &mut Local) {
        if self.reads.len() == 0 {
            return;
        }
        for read in self.reads.confirm(self.confirmed_round(local)) {
            answer_read(local, read.asker, read.id, Some(read.index));
        }
        if self.reads.wants_round() {
            self.round += 1;
            self.reads.begin_round(self.round);
            self.heartbeat_all(local);
            // Without other voters the round is confirmed as it begins.
            for read in self.reads.confirm(self.confirmed_round(local)) {
                answer_read(local, read.asker, read.id, Some(read.index));
            }
        }
    }

    /// The newest round that a quorum, this node included, has answered.
    fn confirmed_round(&self, local: &Local) -> u64 {
        let confirmed = self.quorum(local, self.round, |progress| progress.answered_round);
        confirmed.unwrap_or_default()
    }

    /// A heartbeat is due. Says whether a quorum still answers; if not, none leaves.
    pub(crate) fn heartbeat(&mut self, local: &mut Local, now: Instant) -> bool {
        let heard = self.quorum(local, now, |progress| progress.answered_at);
        if heard.is_none_or(|heard| heard + local.patience() <= now) {
            return false;
        }
        local.timers.restart_heartbeat(now);
        self.round += 1;
        for progress in self.followers.values_mut() {
            progress.heartbeat(self.round);
        }
        self.heartbeat_all(local);
        self.replicate_all(local);
        true
    }

    /// Entries for a follower have been read from the log. They leave only if they are the next
    /// ones for it, without a gap, and those of this leadership's log.
    pub(crate) fn fetched(
        &mut self,
        local: &mut Local,
        id: FetchId,
        result: Result<Vec<Entry>, ()>,
    ) {
        let asked = self.followers.iter_mut().find(|(_, progress)| progress.fetch == Some(id));
        let Some((&to, progress)) = asked else { return };
        progress.fetch = None;
        // After a failed read the next heartbeat asks again.
        let Ok(entries) = result else { return };
        let consecutive = entries.windows(2).all(|w| w[1].index == w[0].index.next());
        let next = entries.first().is_some_and(|entry| entry.index == progress.next);
        if !next || !consecutive || !local.log.holds_all(&entries) {
            return;
        }
        let limits = (local.config.inflight_messages_max, local.config.inflight_bytes_max);
        if progress.has_room(limits.0, limits.1) {
            let batch = Batch::from(entries).take(local.config.append_bytes_max);
            send_entries(local, progress, to, self.round, batch);
        }
        self.replicate(local, to);
    }

    /// The last entry of the oldest snapshot that a follower is getting. Who gets one answers every offer of it; who is silent for
    /// as long as any follower waits for its leader may be gone for good, and would keep the log from being compacted.
    pub(crate) fn pinned(&self, local: &Local, now: Instant) -> Option<LogIndex> {
        let patience = local.config.election_timeout_max;
        let answers = |progress: &&Progress| now < progress.answered_at + patience;
        self.followers.values().filter(answers).filter_map(Progress::offered).min()
    }

    /// The leadership is over: nobody who waits for a read is left waiting.
    pub(crate) fn leave(&mut self, local: &mut Local) {
        for (asker, id) in self.reads.fail() {
            answer_read(local, asker, id, None);
        }
    }

    fn replicate_all(&mut self, local: &mut Local) {
        for (&to, progress) in &mut self.followers {
            replicate(local, progress, to, self.round);
        }
    }

    fn replicate(&mut self, local: &mut Local, to: NodeId) {
        if let Some(progress) = self.followers.get_mut(&to) {
            replicate(local, progress, to, self.round);
        }
    }

    fn heartbeat_all(&mut self, local: &mut Local) {
        for (&to, progress) in &mut self.followers {
            send_heartbeat(local, progress, to, self.round);
        }
    }

    /// The largest value that a majority of the voters has reached. Who lost what it acknowledged
    /// counts as having reached nothing.
    fn quorum<T: Ord + Copy + Default>(
        &self,
        local: &Local,
        own: T,
        of: impl Fn(&Progress) -> T,
    ) -> Option<T> {
        let value = |voter| match self.followers.get(&voter) {
            Some(progress) if progress.regressed => T::default(),
            Some(progress) => of(progress),
            None => own,
        };
        let mut values: Vec<_> = local.membership.voters().map(value).collect();
        reached_by_majority(&mut values)
    }

    pub(crate) fn check(&self, local: &Local) {
        assert!(self.first <= local.log.last());
        let is_compacted = self.first <= local.log.compacted().index;
        assert!(is_compacted || local.log.term_at(self.first) == Some(local.term()));
        assert_eq!(self.pending_bytes, self.pending.iter().map(|(_, bytes)| bytes).sum::<usize>());
        for progress in self.followers.values() {
            assert!(progress.answered_round <= self.round);
            progress.check(local.log.last());
            let offered = progress.offered().unwrap_or_default();
            assert!(offered <= local.snapshot_at(), "what is offered is there");
        }
    }
}

/// Sends a follower what it lacks, as far as its window has room; or, if nothing else would tell
/// it soon, what was committed meanwhile.
fn replicate(local: &mut Local, progress: &mut Progress, to: NodeId, round: u64) {
    let limits = (local.config.inflight_messages_max, local.config.inflight_bytes_max);
    while progress.next <= local.log.last() && progress.has_room(limits.0, limits.1) {
        match local.log.entries(progress.next, local.config.append_bytes_max) {
            Slice::Entries(batch) => send_entries(local, progress, to, round, batch),
            Slice::Fetch { first, end } => progress.fetch = Some(local.fetch(first, end)),
            Slice::Compacted => {
                progress.offer(local.snapshot_at());
                return send_heartbeat(local, progress, to, round);
            }
        }
    }
    let is_settled = !progress.is_probing() && progress.offered().is_none();
    let idle = is_settled && progress.inflight_messages() == 0 && !progress.regressed;
    if idle && progress.commit_told < local.log.committed().min(progress.matched) {
        send_heartbeat(local, progress, to, round);
    }
}

fn send_entries(
    local: &mut Local,
    progress: &mut Progress,
    to: NodeId,
    round: u64,
    entries: Batch,
) {
    let previous = local.log.position_at(progress.next.previous());
    let previous = previous.expect("the entry before one in the log is known");
    let last = entries.last().expect("not empty");
    let commit = local.log.committed();
    if !progress.is_probing() {
        progress.commit_told = commit.min(last);
    }
    progress.sent(last, entries.bytes());
    let term = local.term();
    let request = AppendEntries { term, previous, commit, round, entries };
    local.send(to, Message::AppendEntries(request));
}

/// Sends an AppendEntries without entries, at a place where the follower agrees, or at the place
/// that is being probed. It says no more about commits than that place. Who needs a snapshot is
/// offered it instead.
fn send_heartbeat(local: &mut Local, progress: &mut Progress, to: NodeId, round: u64) {
    if let Some(offered) = progress.offered() {
        if offered < local.log.compacted().index {
            // The entries behind the older one are gone as well.
            progress.offer(local.snapshot_at());
        }
        let at = local.snapshot.as_ref().expect("a snapshot is offered").at;
        let request = InstallSnapshot { term: local.term(), round, at };
        return local.send(to, Message::InstallSnapshot(request));
    }
    let place = if progress.is_probing() { progress.next.previous() } else { progress.matched };
    let known = local.log.position_at(place).or_else(|| local.log.position_at(progress.matched));
    let previous = known.unwrap_or_default();
    let commit = local.log.committed().min(previous.index);
    if previous.index <= progress.matched {
        progress.commit_told = progress.commit_told.max(commit);
    }
    let (term, entries) = (local.term(), Batch::default());
    let request = AppendEntries { term, previous, commit, round, entries };
    local.send(to, Message::AppendEntries(request));
}

/// The last place where the logs can agree after a reject.
fn agreeing(local: &Local, previous: Position, hint: Position) -> LogIndex {
    let log = &local.log;
    let agreeing = if hint.index < log.compacted().index {
        hint.index
    } else {
        log.last_at_most(hint.index, hint.term).index
    };
    agreeing.min(previous.index.previous())
}

fn regress(local: &mut Local, progress: &mut Progress, peer: NodeId, reported: LogIndex) {
    progress.probe_from(progress.matched.next());
    progress.regressed = true;
    local.output(Output::PeerRegressed { peer, matched: progress.matched, reported });
}

fn answer_read(local: &mut Local, asker: Asker, id: ReadId, index: Option<LogIndex>) {
    match (asker, index) {
        (Asker::Here, Some(index)) => local.output(Output::ReadReady { id, index }),
        (Asker::Here, None) => local.output(Output::ReadFailed { id }),
        (Asker::Peer(to), index) => {
            let response = ReadIndexResponse { term: local.term(), id, index };
            local.send(to, Message::ReadIndexResponse(response));
        }
    }
}
