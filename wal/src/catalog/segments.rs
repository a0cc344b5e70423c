//! The segments that are not freed: what lives in each, and where their frames are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{LogId, checkpoint, index::FrameIndex, numbers::Numbers};

/// Every segment that is not freed, the newest one active.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    /// All of them, also those that only a checkpoint speaks of: their files may not be there.
    numbers: Numbers,
    /// Those whose files were found.
    held: BTreeMap<u64, Held>,
    /// Segments without a live entry, but for the active one.
    dead: BTreeSet<u64>,
    /// Segments whose index is in memory, but for the active one.
    unsealed: BTreeSet<u64>,
}

/// What lives in one segment.
#[derive(Debug, Default)]
struct Held {
    /// Logs with an extent in it.
    live: u64,
    /// Its frames; `None` once it is sealed, then its file tells.
    frames: Option<Arc<FrameIndex>>,
}

impl Segments {
    /// Those that a checkpoint at the start of segment `active` speaks of, and that one.
    pub(super) fn restore(active: u64, older: &[(u64, u64)]) -> Self {
        let mut segments = Self { numbers: Numbers::of(older), ..Self::default() };
        segments.open(active);
        segments
    }

    /// Takes in an older segment whose file was found, with its frames if they were walked; false if it is freed.
    pub(super) fn attach(&mut self, sequence: u64, frames: Option<FrameIndex>) -> bool {
        if !self.numbers.contains(sequence) {
            return false;
        }
        if frames.is_some() {
            self.unsealed.insert(sequence);
        }
        self.held.insert(sequence, Held { live: 0, frames: frames.map(Arc::new) });
        self.dead.insert(sequence);
        true
    }

    /// Goes on in a new segment: what the one before holds stands from now on.
    pub(crate) fn open(&mut self, sequence: u64) {
        if let Some((&full, segment)) = self.held.last_key_value()
            && segment.frames.is_some()
        {
            self.unsealed.insert(full);
            if segment.live == 0 {
                self.dead.insert(full);
            }
        }
        assert!(self.numbers.insert(sequence), "a segment is opened once");
        self.held.insert(sequence, Held { live: 0, frames: Some(Arc::default()) });
    }

    /// Number and frames of the active segment.
    pub(super) fn active_mut(&mut self) -> (u64, &mut FrameIndex) {
        let (&sequence, _) = self.held.last_key_value().expect("there is an active segment");
        let segment = self.held.get_mut(&sequence).expect("as above");
        (sequence, segment.frames.as_mut().and_then(Arc::get_mut).expect("it takes frames"))
    }

    /// A log has a live entry in the segment from now on.
    pub(super) fn hold(&mut self, sequence: u64) {
        self.held.get_mut(&sequence).expect("opened or attached before").live += 1;
        self.dead.remove(&sequence);
    }

    /// A log has no live entry in the segment any more.
    pub(super) fn release(&mut self, sequence: u64) {
        let is_active = sequence == self.active();
        if let Some(segment) = self.held.get_mut(&sequence) {
            segment.live -= 1;
            if segment.live == 0 && !is_active {
                self.dead.insert(sequence);
            }
        }
    }

    /// The active segment's index has this log: another frame of it adds less.
    pub(super) fn is_indexed(&self, log: LogId) -> bool {
        let newest = self.held.last_key_value().and_then(|(_, segment)| segment.frames.as_ref());
        newest.is_some_and(|frames| frames.has(log))
    }

    /// The frames of a segment; `None` in the inner option once it is sealed.
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
        }
    }

    /// The oldest segment whose index is in memory, but for the active one.
    pub(crate) fn unsealed(&self) -> Option<(u64, &Arc<FrameIndex>)> {
        let &sequence = self.unsealed.first()?;
        Some((sequence, self.held.get(&sequence)?.frames.as_ref()?))
    }

    /// How many such segments there are.
    pub(crate) fn unsealed_count(&self) -> usize {
        self.unsealed.len()
    }

    /// The segment's file has its index from now on.
    pub(crate) fn sealed(&mut self, sequence: u64) {
        self.unsealed.remove(&sequence);
        if let Some(segment) = self.held.get_mut(&sequence) {
            segment.frames = None;
        }
    }

    /// The frames of the active segment, which is not used any more.
    pub(crate) fn take_frames(mut self) -> FrameIndex {
        let (_, segment) = self.held.pop_last().expect("there is an active segment");
        let frames = segment.frames.expect("it takes frames");
        Arc::try_unwrap(frames).expect("nobody else has them")
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

    fn active(&self) -> u64 {
        *self.held.last_key_value().expect("there is an active segment").0
    }

    /// How many are remembered one by one.
    #[cfg(test)]
    pub(super) fn held_count(&self) -> usize {
        self.held.len() + self.dead.len() + self.unsealed.len()
    }

    /// Nothing lives in it, once the log has gone on elsewhere.
    #[cfg(test)]
    pub(super) fn is_dead(&self, sequence: u64) -> bool {
        self.held[&sequence].live == 0
    }
}
