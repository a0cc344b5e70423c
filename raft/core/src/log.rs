//! Where a node's log stands: cursors, the terms of its entries, and its newest entries.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use crate::{Batch, Config, ConfigError, Entry, LogIndex, Position, Recovered, Term};

/// The cursors over one node's log, the runs of its terms, and the tail kept in memory.
///
/// `compacted <= applied <= handed <= committed <= last` and `durable <= last`. `committed` may
/// run ahead of `durable`: the quorum that committed an entry need not include this node's disk; and
/// `compacted` ahead of `applied` while the state machine takes in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    /// Newest entry no longer in the log.
    compacted: Position,
    /// Newest entry the state machine has taken in.
    applied: LogIndex,
    /// Newest entry known to be committed.
    committed: LogIndex,
    /// Newest entry known to be on this node's disk.
    durable: LogIndex,
    /// Newest entry in the log at all.
    last: LogIndex,
    /// One per run of entries with one term, from `compacted.index + 1` on; both fields rise.
    runs: Vec<Run>,
    tail: Tail,
    /// What was handed to the state machine and is not applied yet: last index and weight, 0 for what the state machine reads
    /// itself.
    applying: VecDeque<(LogIndex, usize)>,
    applying_bytes: usize,
    /// Newest entry handed to the state machine.
    handed: LogIndex,
    /// Bounds the durable part of the tail, and what is being applied.
    tail_bytes_max: usize,
    /// The state machine gets nothing that this node's disk could lose: it keeps a disk of its own.
    applies_durable_only: bool,
}

/// Entries of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    first: LogIndex,
    term: Term,
}

/// Where wanted entries are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// In memory.
    Entries(Batch),
    /// Older than the tail: to be fetched, `end` exclusive.
    Fetch { first: LogIndex, end: LogIndex },
    /// Older than the log.
    Compacted,
}

impl Log {
    /// The log as the disk held it. Nothing counts as committed before a leader says so, but what
    /// the snapshot contains, and what the state machine holds.
    pub(crate) fn recover(recovered: &Recovered, config: &Config) -> Result<Self, ConfigError> {
        let Recovered { state, snapshot, applied, compacted, runs, last } = recovered;
        let base = snapshot.as_ref().map_or(Position::default(), |snapshot| snapshot.at);
        let runs: Vec<_> = runs.iter().map(|&(first, term)| Run { first, term }).collect();
        let first = compacted.index.next();
        let starts_right = match runs.first() {
            Some(run) => run.first == first && run.term >= compacted.term && run.term > Term(0),
            None => *last == compacted.index,
        };
        let rises = runs.windows(2).all(|w| w[0].first < w[1].first && w[0].term < w[1].term);
        let place = (compacted.term == Term(0)) == (compacted.index == LogIndex(0));
        if !place || !starts_right || !rises || runs.last().is_some_and(|run| run.first > *last) {
            return Err(ConfigError("the recovered runs contradict the bounds of the log"));
        }
        if runs.last().map_or(compacted.term, |run| run.term) > state.hard.term {
            return Err(ConfigError("the recovered log has an entry of a term not yet begun"));
        }
        let log = Self {
            compacted: *compacted,
            applied: *applied,
            committed: base.index.max(*applied),
            durable: *last,
            last: *last,
            runs,
            tail: Tail { batches: VecDeque::new(), bytes: 0, first: last.next() },
            applying: VecDeque::new(),
            applying_bytes: 0,
            handed: *applied,
            tail_bytes_max: config.tail_bytes_max,
            applies_durable_only: config.applies_durable_only,
        };
        if base.index < log.compacted.index || !log.holds(base) {
            return Err(ConfigError("the log does not go on where the snapshot ends"));
        }
        if *applied < log.compacted.index || applied > last {
            return Err(ConfigError("the log does not go on where the state machine stands"));
        }
        Ok(log)
    }

    /// Adds entries right behind the last one.
    pub(crate) fn append(&mut self, batch: &Batch) {
        for entry in batch.entries() {
            assert_eq!(entry.index, self.last.next(), "entries are appended without a gap");
            let newest = self.last_position().term;
            assert!(entry.term >= newest, "terms never fall along the log");
            if entry.term > newest || self.runs.is_empty() {
                self.runs.push(Run { first: entry.index, term: entry.term });
            }
            self.last = entry.index;
        }
        self.tail.append(batch);
        self.trim();
    }

    /// Drops the entries after `last`, which a newer leader overrules.
    pub(crate) fn truncate_after(&mut self, last: LogIndex) {
        assert!(self.committed <= last, "a committed entry can not be overruled");
        assert!(last < self.last);
        self.last = last;
        self.durable = self.durable.min(last);
        while self.runs.last().is_some_and(|run| run.first > last) {
            self.runs.pop();
        }
        self.tail.truncate_after(last);
    }

    /// Whether the state machine is to read entries from the log that it has not taken in yet: they have to stay.
    pub(crate) fn is_read(&self) -> bool {
        self.applying.iter().any(|(_, bytes)| *bytes == 0)
    }

    /// Drops the entries up to `last`, which a snapshot contains.
    pub(crate) fn compact_to(&mut self, last: LogIndex) {
        assert!(last <= self.applied, "what is not applied is needed");
        self.compacted = self.position_at(last).expect("what goes was there");
        let next = last.next();
        let gone = self.runs.partition_point(|run| run.first <= next);
        self.runs.drain(..gone.saturating_sub(1));
        match self.runs.first_mut() {
            Some(run) if next <= self.last => run.first = run.first.max(next),
            _ => self.runs.clear(),
        }
    }

    /// Drops everything: the log goes on behind `at`, which is in a snapshot that the state machine
    /// is about to take in. What the snapshot contains is on this node's disk with it.
    pub(crate) fn reset(&mut self, at: Position) {
        assert!(at.index > self.committed, "what is committed stays");
        (self.compacted, self.committed, self.durable) = (at, at.index, at.index);
        (self.last, self.handed) = (at.index, at.index);
        self.runs.clear();
        self.tail = Tail { batches: VecDeque::new(), bytes: 0, first: at.index.next() };
        self.applying.push_back((at.index, 0));
    }

    /// Everything up to `index` is on this node's disk.
    pub(crate) fn durable_to(&mut self, index: LogIndex) {
        assert!(index <= self.last, "an entry that is not in the log can not be durable");
        self.durable = self.durable.max(index);
        self.trim();
    }

    /// Everything up to `index` is committed. Says whether that is news.
    pub(crate) fn commit_to(&mut self, index: LogIndex) -> bool {
        assert!(index <= self.last, "an entry that is not in the log can not be committed");
        let news = index > self.committed;
        self.committed = self.committed.max(index);
        news
    }

    /// The next committed entries for the state machine, unless it has enough to do; they count as
    /// handed to it.
    pub(crate) fn hand_out(&mut self) -> Option<Slice> {
        let durable_only = self.applies_durable_only;
        let end = if durable_only { self.committed.min(self.durable) } else { self.committed };
        if self.handed >= end || self.applying_bytes >= self.tail_bytes_max {
            return None;
        }
        let first = self.handed.next();
        let (slice, last, bytes) = if first < self.tail.first {
            let last = end.min(self.tail.first.previous());
            (Slice::Fetch { first, end: last.next() }, last, 0)
        } else {
            let batch = self.tail.shared_from(first);
            let wanted = usize::try_from(end.since(self.handed)).unwrap_or(usize::MAX);
            let batch = batch.slice(0..batch.len().min(wanted));
            let (last, bytes) = (batch.last().expect("not empty"), batch.bytes());
            (Slice::Entries(batch), last, bytes)
        };
        self.handed = last;
        self.applying.push_back((last, bytes));
        self.applying_bytes += bytes;
        Some(slice)
    }

    /// The state machine has taken in everything up to `index`.
    pub(crate) fn applied_to(&mut self, index: LogIndex) {
        assert!(index <= self.handed, "only what was handed out can be applied");
        self.applied = self.applied.max(index);
        while let Some((last, bytes)) = self.applying.front().copied() {
            if last > index {
                break;
            }
            self.applying_bytes -= bytes;
            self.applying.pop_front();
        }
    }

    /// Entries from `first` on that weigh at most `bytes_max`, but at least one. Small neighbours
    /// are put together, so that one message carries them.
    pub(crate) fn entries(&self, first: LogIndex, bytes_max: usize) -> Slice {
        assert!(first <= self.last, "there is no entry yet");
        if first <= self.compacted.index {
            return Slice::Compacted;
        }
        if first < self.tail.first {
            return Slice::Fetch { first, end: self.tail.first };
        }
        Slice::Entries(self.tail.coalesced_from(first, bytes_max))
    }

    /// Whether entries read from the disk are those of this log now.
    pub(crate) fn holds_all(&self, entries: &[Entry]) -> bool {
        let are_held = |entry: &Entry| {
            // The place before the log is known, but not the one before that.
            entry.index > self.compacted.index
                && self.holds(entry.position())
                && !entry.payload.is_empty()
        };
        entries.iter().all(are_held)
    }

    /// Whether the log has this very entry. The place before the first one counts as held.
    pub(crate) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The term of the entry at `index`; `None` if the log does not know it.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.compacted.index {
            return Some(self.compacted.term);
        }
        if index == LogIndex(0) {
            return Some(Term(0));
        }
        if index < self.compacted.index || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.first <= index);
        Some(self.runs[after - 1].term)
    }

    /// The entry at `index`, if the log knows its term.
    pub(crate) fn position_at(&self, index: LogIndex) -> Option<Position> {
        self.term_at(index).map(|term| Position { term, index })
    }

    /// The last entry at or before `index` whose term is at most `term`, never before `compacted`.
    /// Skips whole terms where two logs disagree.
    pub(crate) fn last_at_most(&self, index: LogIndex, term: Term) -> Position {
        let mut last = index.min(self.last);
        for run in self.runs.iter().rev().filter(|run| run.first <= index) {
            if run.term <= term {
                return Position { term: run.term, index: last };
            }
            last = run.first.previous();
        }
        self.compacted
    }

    pub(crate) fn compacted(&self) -> Position {
        self.compacted
    }

    pub(crate) fn applied(&self) -> LogIndex {
        self.applied
    }

    pub(crate) fn committed(&self) -> LogIndex {
        self.committed
    }

    pub(crate) fn durable(&self) -> LogIndex {
        self.durable
    }

    pub(crate) fn last(&self) -> LogIndex {
        self.last
    }

    pub(crate) fn last_position(&self) -> Position {
        let term = self.runs.last().map_or(self.compacted.term, |run| run.term);
        Position { term, index: self.last }
    }

    /// Asserts how the cursors lie to each other.
    pub(crate) fn check(&self) {
        let taking_in = self.applying.iter().any(|(last, _)| *last >= self.compacted.index);
        assert!(self.compacted.index <= self.applied || taking_in);
        assert!(self.compacted.index <= self.handed && self.applied <= self.handed);
        assert!(self.handed <= self.committed);
        assert!(self.committed <= self.last);
        assert!(self.durable <= self.last);
        assert!(self.tail.first <= self.durable.next(), "only durable entries leave the tail");
        assert!(self.runs.windows(2).all(|w| w[0].first < w[1].first && w[0].term < w[1].term));
        assert!(self.runs.last().is_none_or(|run| run.first <= self.last));
        let begins = self.runs.first().map_or(self.last.next(), |run| run.first);
        assert_eq!(begins, self.compacted.index.next(), "terms are known from the first entry on");
        self.tail.check(self.last);
    }

    /// Entries that are not durable stay in memory, whatever they weigh: the runtime may still
    /// hold their write back, and then a fetch would not find them.
    fn trim(&mut self) {
        self.tail.drop_to(self.durable, self.tail_bytes_max);
    }
}

/// The newest entries, as the batches they came in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tail {
    /// Consecutive; none is empty.
    batches: VecDeque<Batch>,
    bytes: usize,
    /// First index in the tail; one after the log's last if the tail is empty.
    first: LogIndex,
}

impl Tail {
    fn append(&mut self, batch: &Batch) {
        if !batch.is_empty() {
            self.bytes += batch.bytes();
            self.batches.push_back(batch.clone());
        }
    }

    fn truncate_after(&mut self, last: LogIndex) {
        self.first = self.first.min(last.next());
        while let Some(batch) = self.batches.pop_back() {
            self.bytes -= batch.bytes();
            let kept = batch.entries().iter().filter(|entry| entry.index <= last).count();
            if kept > 0 {
                // A copy, so that the entries cut off do not stay in memory with the others.
                self.append(&Batch::from(batch.entries()[..kept].to_vec()));
                break;
            }
        }
    }

    fn drop_to(&mut self, durable: LogIndex, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(last) = self.batches.front().and_then(Batch::last) else { break };
            if last > durable {
                break;
            }
            self.first = last.next();
            self.bytes -= self.batches.pop_front().map_or(0, |batch| batch.bytes());
        }
    }

    /// The rest of the batch that holds `first`, from there on, by reference.
    fn shared_from(&self, first: LogIndex) -> Batch {
        let batch = &self.batches[self.place_of(first)];
        let before = first.since(batch.first().expect("not empty"));
        batch.slice(usize::try_from(before).expect("within a batch")..batch.len())
    }

    fn coalesced_from(&self, first: LogIndex, bytes_max: usize) -> Batch {
        let shared = self.shared_from(first).take(bytes_max);
        let end = shared.last().expect("not empty").next();
        let mut following = self.batches.range(self.place_of(first) + 1..).peekable();
        let fits = |bytes: usize, next: &Batch| bytes + next.bytes() <= bytes_max;
        match following.peek() {
            Some(next) if next.first() == Some(end) && fits(shared.bytes(), next) => {}
            _ => return shared,
        }
        let (mut entries, mut bytes) = (shared.entries().to_vec(), shared.bytes());
        while let Some(next) = following.next_if(|next| fits(bytes, next)) {
            bytes += next.bytes();
            entries.extend_from_slice(next.entries());
        }
        Batch::new(Arc::from(entries))
    }

    fn place_of(&self, index: LogIndex) -> usize {
        self.batches.partition_point(|batch| batch.last().is_some_and(|last| last < index))
    }

    fn check(&self, last: LogIndex) {
        let mut next = self.first;
        for batch in &self.batches {
            assert_eq!(batch.first(), Some(next), "the tail has no gap");
            next = batch.last().expect("not empty").next();
        }
        assert_eq!(next, last.next(), "the tail ends where the log ends");
        assert_eq!(self.bytes, self.batches.iter().map(Batch::bytes).sum::<usize>());
    }
}

#[cfg(test)]
mod tests;
