//! The segments that are not freed: what lives in each, and where their frames are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{checkpoint, index::FrameIndex, numbers::Numbers};

/// Every segment that is not freed, the newest one active.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// All of them, also those that only a checkpoint speaks of: their files may not be there.
    numbers: Numbers,
    /// The newest, which takes frames; 0 before the first is opened.
    active: u64,
    /// Those whose files were found.
    held: BTreeMap<u64, Held>,
    /// Segments without a live entry, but for the active one.
    dead: BTreeSet<u64>,
    /// Segments whose index is in memory, but for the active one.
    unsealed: BTreeSet<u64>,
    /// Segments with a trailer that this opening has found, and not written: it can be in the page cache only.
    found: BTreeSet<u64>,
}

/// What lives in one segment.
#[derive(Debug, Default)]
struct Held {
    /// Logs with an extent in it.
    live: u64,
    /// Its frames: `None` while it is active, then its logs have them, and once it is sealed, then its file tells.
    frames: Option<Arc<FrameIndex>>,
}

impl Segments {
    /// Those that a checkpoint at the start of segment `active` speaks of, and that one.
    pub(super) fn restore(active: u64, older: &[(u64, u64)]) -> Self {
        let mut segments = Self { numbers: Numbers::of(older), ..Self::default() };
        segments.open(active, FrameIndex::default());
        segments
    }

    /// Takes in an older segment whose file was found, with its frames if they were walked; false if it is freed.
    pub(super) fn attach(&mut self, sequence: u64, frames: Option<FrameIndex>) -> bool {
        if !self.numbers.contains(sequence) {
            return false;
        }
        let set = if frames.is_some() { &mut self.unsealed } else { &mut self.found };
        set.insert(sequence);
        self.held.insert(sequence, Held { live: 0, frames: frames.map(Arc::new) });
        self.dead.insert(sequence);
        true
    }

    /// Goes on in a new segment: `frames` is what the one before holds from now on.
    pub(super) fn open(&mut self, sequence: u64, frames: FrameIndex) {
        if let Some(full) = self.held.get_mut(&self.active) {
            full.frames = Some(Arc::new(frames));
            self.unsealed.insert(self.active);
            if full.live == 0 {
                self.dead.insert(self.active);
            }
        }
        assert!(self.numbers.insert(sequence), "a segment is opened once");
        self.held.insert(sequence, Held { live: 0, frames: None });
        self.active = sequence;
    }

    /// Number of the segment that takes frames.
    pub(super) fn active(&self) -> u64 {
        assert!(self.active > 0, "there is an active segment");
        self.active
    }

    /// A log has a live entry in the segment from now on.
    pub(super) fn hold(&mut self, sequence: u64) {
        self.held.get_mut(&sequence).expect("opened or attached before").live += 1;
        self.dead.remove(&sequence);
    }

    /// A log has no live entry in the segment any more.
    pub(super) fn release(&mut self, sequence: u64) {
        let is_active = sequence == self.active;
        if let Some(segment) = self.held.get_mut(&sequence) {
            segment.live -= 1;
            if segment.live == 0 && !is_active {
                self.dead.insert(sequence);
            }
        }
    }

    /// The frames of a segment that is not active; `None` in the inner option once it is sealed.
    pub(super) fn frames(&self, sequence: u64) -> Option<Option<&FrameIndex>> {
        Some(self.held.get(&sequence)?.frames.as_deref())
    }

    /// Segments without a live entry, but for the active one.
    pub(crate) fn dead(&self) -> impl Iterator<Item = u64> + '_ {
        self.dead.iter().copied()
    }

    /// Whether these are segments, and not the active one.
    pub(crate) fn can_free(&self, sequences: &[u64]) -> bool {
        let active = self.active();
        sequences.iter().all(|&number| number != active && self.numbers.contains(number))
    }

    /// Forgets segments: a frame says that they are freed.
    pub(crate) fn free(&mut self, sequences: &[u64]) {
        for sequence in sequences {
            self.numbers.remove(*sequence);
            self.held.remove(sequence);
            self.dead.remove(sequence);
            self.unsealed.remove(sequence);
            self.found.remove(sequence);
        }
    }

    /// The oldest segment whose index is in memory, but for the active one.
    pub(crate) fn unsealed(&self) -> Option<(u64, &Arc<FrameIndex>)> {
        let &sequence = self.unsealed.first()?;
        Some((sequence, self.held.get(&sequence)?.frames.as_ref()?))
    }

    /// The newest segment before `sequence` in which something lives, if nobody knows that its trailer is durable.
    pub(crate) fn found_before(&self, sequence: u64) -> Option<u64> {
        self.found.range(..sequence).next_back()?;
        let (before, _) = self.held.range(..sequence).rev().find(|(_, held)| held.live > 0)?;
        self.found.get(before).copied()
    }

    /// How many of those whose index is in memory there are.
    pub(crate) fn unsealed_count(&self) -> usize {
        self.unsealed.len()
    }

    /// The segment's file has its index from now on.
    pub(crate) fn sealed(&mut self, sequence: u64) {
        self.unsealed.remove(&sequence);
        self.found.remove(&sequence);
        if let Some(segment) = self.held.get_mut(&sequence) {
            segment.frames = None;
        }
    }

    /// Numbers of all segments that are not freed.
    pub(crate) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// What the segments add to a checkpoint.
    pub(super) fn checkpoint_bytes(&self) -> u64 {
        self.numbers.runs_count() * checkpoint::SEGMENTS_BYTES
    }

    /// The same, were these freed; they ascend.
    pub(super) fn checkpoint_bytes_without(&self, freed: &[u64]) -> u64 {
        self.numbers.runs_count_without(freed) * checkpoint::SEGMENTS_BYTES
    }

    /// How many are remembered one by one.
    #[cfg(test)]
    pub(super) fn held_count(&self) -> usize {
        self.held.len() + self.dead.len() + self.unsealed.len() + self.found.len()
    }

    /// Nothing lives in it, once the log has gone on elsewhere.
    #[cfg(test)]
    pub(super) fn is_dead(&self, sequence: u64) -> bool {
        self.held[&sequence].live == 0
    }
}
