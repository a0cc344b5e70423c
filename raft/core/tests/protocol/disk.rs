//! A disk in memory that keeps what was asked for apart from what is durable.

use std::collections::VecDeque;

use kontiki_core::{Batch, Entry, LogIndex, Position, Recovered, State, Term, WriteSeq};

/// What a log holds: its state, and its entries from index 1 on.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) state: State,
    pub(crate) entries: Vec<Entry>,
}

impl Image {
    fn write(&mut self, state: Option<&State>, entries: &Batch) {
        if let Some(state) = state {
            self.state = state.clone();
        }
        if let Some(first) = entries.first() {
            let kept = usize::try_from(first.0).unwrap() - 1;
            assert!(kept <= self.entries.len(), "a write leaves no gap");
            self.entries.truncate(kept);
            self.entries.extend_from_slice(entries.entries());
        }
        if let Some(last) = self.entries.last() {
            assert!(last.term <= self.state.hard.term, "RAFT-CASE 6: a term before its entries");
        }
    }

    pub(crate) fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        let place = usize::try_from(index.0).unwrap().checked_sub(1)?;
        self.entries.get(place).map(|entry| entry.term)
    }

    /// What there is of a range; nothing if it begins behind the last entry.
    pub(crate) fn range(&self, first: LogIndex, end: LogIndex) -> Vec<Entry> {
        let within = self.entries.iter().filter(|entry| first <= entry.index && entry.index < end);
        within.cloned().collect()
    }
}

struct Write {
    seq: WriteSeq,
    state: Option<State>,
    entries: Batch,
}

pub(crate) struct Disk {
    /// What a reader sees while the process lives.
    pub(crate) cached: Image,
    /// What is left after a crash.
    pub(crate) durable: Image,
    pending: VecDeque<Write>,
}

impl Disk {
    pub(crate) fn new(state: State) -> Self {
        let image = Image { state, entries: Vec::new() };
        Self { cached: image.clone(), durable: image, pending: VecDeque::new() }
    }

    pub(crate) fn write(&mut self, seq: WriteSeq, state: Option<State>, entries: Batch) {
        self.cached.write(state.as_ref(), &entries);
        self.pending.push_back(Write { seq, state, entries });
    }

    /// Makes the oldest pending write durable, without telling anybody.
    pub(crate) fn sync_one(&mut self) -> Option<WriteSeq> {
        let write = self.pending.pop_front()?;
        self.durable.write(write.state.as_ref(), &write.entries);
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

    pub(crate) fn recover(&self) -> Recovered {
        let entries = &self.durable.entries;
        let runs = entries.chunk_by(|a, b| a.term == b.term);
        Recovered {
            state: self.durable.state.clone(),
            compacted: Position::default(),
            runs: runs.map(|run| (run[0].index, run[0].term)).collect(),
            last: LogIndex(entries.len() as u64),
        }
    }
}
