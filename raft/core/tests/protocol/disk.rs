//! A disk in memory that keeps what was asked for apart from what is durable.

use std::collections::VecDeque;

use kontiki_core::{Batch, Entry, LogIndex, Position, Recovered, Snapshot, State, Term, WriteSeq};

/// What a log holds: its state, and its entries from the one behind `base` on.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) state: State,
    pub(crate) base: Position,
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    fn write(&mut self, state: Option<&State>, entries: &Batch) {
        if let Some(state) = state {
            self.state = state.clone();
        }
        if let Some(first) = entries.first() {
            let kept = usize::try_from(first.0 - self.base.index.0).unwrap() - 1;
            assert!(kept <= self.entries.len(), "a write leaves no gap");
            self.entries.truncate(kept);
            self.entries.extend_from_slice(entries.entries());
        }
        if let Some(last) = self.entries.last() {
            assert!(last.term <= self.state.hard.term, "RAFT-CASE 6: a term before its entries");
        }
    }

    fn reset(&mut self, at: Position, state: &State) {
        *self = Self { state: state.clone(), base: at, entries: Vec::new() };
    }

    fn compact(&mut self, last: LogIndex) {
        let term = self.term_at(last).expect("what goes was there");
        self.entries.retain(|entry| entry.index > last);
        self.base = Position { term, index: last };
    }

    /// Whether this very entry is there, or was and is in a snapshot.
    pub(crate) fn holds(&self, position: Position) -> bool {
        position.index < self.base.index || self.term_at(position.index) == Some(position.term)
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.last().map_or(self.base, Entry::position)
    }

    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let place = index.0.checked_sub(self.base.index.0 + 1)?;
        self.entries.get(usize::try_from(place).unwrap()).map(|entry| entry.term)
    }

    /// What there is of a range; nothing if it begins behind the last entry.
    pub(crate) fn range(&self, first: LogIndex, end: LogIndex) -> Vec<Entry> {
        let within = self.entries.iter().filter(|entry| first <= entry.index && entry.index < end);
        within.cloned().collect()
    }
}

struct Write {
    seq: WriteSeq,
    reset: Option<Position>,
    state: Option<State>,
    entries: Batch,
}

impl Write {
    fn reach(&self, image: &mut Image) {
        if let (Some(at), Some(state)) = (self.reset, &self.state) {
            image.reset(at, state);
        }
        image.write(self.state.as_ref(), &self.entries);
    }
}

pub(crate) struct Disk {
    /// What a reader sees while the process lives.
    pub(crate) cached: Image,
    /// What is left after a crash.
    pub(crate) durable: Image,
    /// The newest snapshot, and what the state machine had taken in when it was made.
    pub(crate) snapshot: Option<(Snapshot, Vec<Entry>)>,
    pending: VecDeque<Write>,
}

impl Disk {
    pub(crate) fn new(state: State) -> Self {
        let image = Image { state, base: Position::default(), entries: Vec::new() };
        let (cached, durable) = (image.clone(), image);
        Self { cached, durable, snapshot: None, pending: VecDeque::new() }
    }

    pub(crate) fn write(&mut self, seq: WriteSeq, state: Option<State>, entries: Batch) {
        self.push(Write { seq, reset: None, state, entries });
    }

    pub(crate) fn reset(&mut self, seq: WriteSeq, at: Position, state: State) {
        let (reset, state) = (Some(at), Some(state));
        self.push(Write { seq, reset, state, entries: Batch::default() });
    }

    fn push(&mut self, write: Write) {
        write.reach(&mut self.cached);
        self.pending.push_back(write);
    }

    /// Drops a prefix, as soon as the disk has got to where it can.
    pub(crate) fn compact(&mut self, last: LogIndex) {
        let (snapshot, _) = self.snapshot.as_ref().expect("RAFT-CASE 49: nothing goes before");
        assert!(last <= snapshot.at.index, "RAFT-CASE 49: what goes is in a snapshot");
        for image in [&mut self.cached, &mut self.durable] {
            if image.base.index < last && last <= image.last().index {
                image.compact(last);
            }
        }
    }

    /// Makes the oldest pending write durable, without telling anybody.
    pub(crate) fn sync_one(&mut self) -> Option<WriteSeq> {
        let write = self.pending.pop_front()?;
        write.reach(&mut self.durable);
        Some(write.seq)
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Loses what is not durable.
    pub(crate) fn crash(&mut self) {
        self.pending.clear();
        self.cached = self.durable.clone();
    }

    /// What a runtime makes of it at a start: a log that does not go on where the snapshot ends begins anew there.
    pub(crate) fn recover(&mut self) -> Recovered {
        let snapshot = self.snapshot.as_ref().map(|(snapshot, _)| snapshot.clone());
        if let Some(Snapshot { at, configuration }) = &snapshot
            && !self.durable.holds(*at)
        {
            let mut state = self.durable.state.clone();
            state.configurations = vec![configuration.clone()];
            state.hard.term = state.hard.term.max(at.term);
            self.durable.reset(*at, &state);
            self.cached = self.durable.clone();
        }
        let Image { state, base, entries } = &self.durable;
        let runs = entries.chunk_by(|a, b| a.term == b.term);
        Recovered {
            state: state.clone(),
            applied: snapshot.as_ref().map_or(LogIndex(0), |snapshot| snapshot.at.index),
            snapshot,
            compacted: *base,
            runs: runs.map(|run| (run[0].index, run[0].term)).collect(),
            last: self.durable.last().index,
        }
    }
}
