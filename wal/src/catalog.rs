//! What every log holds and where: bounds, terms, state, and which segment has which
//! entries. Kept in memory, rebuilt at open. It does not grow with entries: of each log a few dozen bytes, its runs of
//! terms and 16 bytes for each segment it lives in; of the newest segments 8 bytes for each frame until they are sealed.

mod log;
mod missing;
mod segments;

use std::{borrow::Cow, mem, ops::Range};

use bytes::Bytes;
use indexmap::{IndexMap, map::Entry};
use rustc_hash::{FxBuildHasher, FxHashSet};

use self::{log::Extent, segments::Segments};
pub(crate) use self::{log::LogCatalog, missing::Missing};
use crate::{
    AppendError, Bounds, LogId, Lsn,
    checkpoint::{self, Checkpoint},
    index::{self, FrameIndex, Located, Span, Table},
    segment::Place,
};

/// A change of one log, as one frame carries it.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// Entries `first..first + count`; a suffix from `first` on is replaced.
    Entries {
        first: u64,
        count: u16,
        term: u64,
    },
    State(Bytes),
    /// Cuts the entries from `first` on.
    Truncate {
        first: u64,
    },
    /// Drops the entries below `first`.
    Compact {
        first: u64,
        term_before: u64,
    },
    Reset {
        next: u64,
        term_before: u64,
    },
    Forget,
}

/// Where entries are to be appended, and what that takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    pub(crate) term: u64,
    /// What their first frame adds to the active segment's index.
    pub(crate) index_bytes: u64,
    /// By how much they can lengthen the checkpoint.
    pub(crate) growth: u64,
}

/// One behind the other in memory, in the order in which they came: a checkpoint goes through all of them while appends wait,
/// and sorts what is nearly sorted.
type Logs = IndexMap<LogId, LogCatalog, FxBuildHasher>;

/// All logs, and all segments that hold frames.
#[derive(Debug)]
pub(crate) struct Catalog {
    logs: Logs,
    /// Logs that were forgotten, whose place in the active segment's index was taken before.
    indexed: FxHashSet<LogId>,
    pub(crate) segments: Segments,
    /// Length of what the logs add to a checkpoint.
    logs_bytes: u64,
    /// End of the last frame that forgot a log; of an opened log the end of what was found.
    forgot: Lsn,
    /// How often entries were removed.
    removals: u64,
}

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) sequence: u64,
    /// One past the last index that is live in that segment.
    pub(crate) end: u64,
    /// Its frame; `None` if the segment is sealed.
    pub(crate) frame: Option<Located>,
}

impl Catalog {
    /// Without logs and segments.
    pub(crate) fn empty() -> Self {
        Self {
            logs: Logs::default(),
            indexed: FxHashSet::default(),
            segments: Segments::default(),
            logs_bytes: 0,
            forgot: Lsn(0),
            removals: 0,
        }
    }

    /// Of a log without frames, whose first segment is `active`.
    pub(crate) fn new(active: u64) -> Self {
        Self { segments: Segments::restore(active, &[]), ..Self::empty() }
    }

    /// As a checkpoint at the start of segment `active` says. Which logs live in the older segments comes by `attach`.
    pub(crate) fn restore(active: u64, checkpoint: Checkpoint) -> Self {
        let segments = Segments::restore(active, &checkpoint.segments);
        let mut catalog = Self { segments, ..Self::empty() };
        for (log, bounds) in checkpoint.into_logs() {
            catalog.logs_bytes += bounds.checkpoint_bytes();
            catalog.logs.insert(log, LogCatalog { bounds, ..LogCatalog::default() });
        }
        catalog
    }

    /// Goes on in a new segment: what the one before holds stands from now on.
    pub(crate) fn open_segment(&mut self, sequence: u64) {
        let frames = self.take_frames();
        self.segments.open(sequence, frames);
    }

    /// The frames of the active segment, which is not used any more.
    pub(crate) fn into_frames(mut self) -> FrameIndex {
        self.take_frames()
    }

    fn take_frames(&mut self) -> FrameIndex {
        self.indexed.clear();
        let mut tables = Vec::new();
        for (&log, entry) in &mut self.logs {
            (entry.is_indexed, entry.is_held) = (false, false);
            if !entry.frames.is_empty() {
                tables.push((log, mem::take(&mut entry.frames)));
            }
        }
        FrameIndex::new(tables)
    }

    /// Takes in what the logs have in an older segment; the segments come in their order. Its frames are given if they
    /// were walked.
    pub(crate) fn attach(&mut self, sequence: u64, spans: &[Span], frames: Option<FrameIndex>) {
        if !self.segments.attach(sequence, frames) {
            return;
        }
        for span in spans {
            let Some(entry) = self.logs.get_mut(&span.log) else { continue };
            let bounds = &entry.bounds;
            let is_empty = bounds.first > bounds.last;
            if is_empty || span.first > bounds.last || span.end <= bounds.first {
                continue;
            }
            while let Some(replaced) = entry.extents.pop_back_if(|old| old.first >= span.first) {
                self.segments.release(replaced.sequence);
            }
            entry.extents.push_back(Extent { first: span.first, sequence });
            self.segments.hold(sequence);
            // What a later one reaches below the first index is all that lives of those before it.
            let mut killed = Vec::new();
            while entry.extents.get(1).is_some_and(|next| next.first <= entry.bounds.first) {
                killed.extend(entry.extents.pop_front());
            }
            killed.into_iter().for_each(|extent| self.segments.release(extent.sequence));
        }
    }

    /// Of `count` entries appended to `log`, by default behind the last one and of its term. `Err` if they cannot follow what
    /// the log holds.
    pub(crate) fn plan_append(
        &self,
        log: LogId,
        first: Option<u64>,
        term: Option<u64>,
        count: u64,
    ) -> Result<Plan, AppendError> {
        let plan = |bounds: &Bounds, is_indexed, new_log| {
            let first = first.unwrap_or(bounds.last + 1);
            let term = term.unwrap_or_else(|| bounds.newest_term());
            bounds.check_append(first, count, term)?;
            let growth = new_log + bounds.append_growth(first, term);
            Ok(Plan { first, term, index_bytes: index_bytes(is_indexed), growth })
        };
        match self.logs.get(&log) {
            Some(entry) => plan(&entry.bounds, entry.is_indexed, 0),
            None => plan(&Bounds::default(), self.indexed.contains(&log), checkpoint::LOG_BYTES),
        }
    }

    /// `Err` if `change` cannot follow what `log` holds.
    pub(crate) fn check(&self, log: LogId, change: &Change) -> Result<(), AppendError> {
        let bounds = self.bounds(log);
        let (first, next) = (bounds.first, bounds.last + 1);
        match *change {
            Change::Entries { first: index, count, term } => {
                bounds.check_append(index, u64::from(count), term)
            }
            Change::State(_) | Change::Forget => Ok(()),
            Change::Truncate { first: index } if index < first => {
                Err(AppendError::Compacted { index: index.saturating_sub(1), first })
            }
            Change::Truncate { .. } => Ok(()),
            Change::Compact { first: index, .. } if index > next => {
                Err(AppendError::Beyond { index, limit: next })
            }
            Change::Compact { .. } => Ok(()),
            Change::Reset { next: 0, .. } => Err(AppendError::Compacted { index: 0, first: 1 }),
            Change::Reset { .. } => Ok(()),
        }
    }

    /// Takes in `count` entries from `first` on, which `check` let pass, of the frame at `place` of the active segment that
    /// ends at `end`.
    pub(crate) fn append(
        &mut self,
        log: LogId,
        first: u64,
        count: u16,
        term: u64,
        place: Place,
        end: Lsn,
    ) {
        let Self { logs, indexed, segments, forgot, removals, logs_bytes } = self;
        let active = segments.active();
        assert!(place.sequence() == active, "frames are placed in the active segment");
        let (entry, before) = entry(logs, indexed, *forgot, log);
        if first <= entry.bounds.last {
            let mut killed = Vec::new();
            entry.cut = end;
            *removals += 1;
            entry.cut_from(first, &mut killed);
            killed.into_iter().for_each(|extent| segments.release(extent.sequence));
        }
        entry.frames.push(first, count, place.offset());
        entry.is_indexed = true;
        entry.bounds.append(first, u64::from(count), term);
        if !entry.is_held && entry.extents.back().is_none_or(|extent| extent.sequence != active) {
            entry.extents.push_back(Extent { first, sequence: active });
            segments.hold(active);
        }
        entry.is_held = true;
        *logs_bytes = *logs_bytes - before + entry.bounds.checkpoint_bytes();
    }

    /// Takes in `change`, which `check` let pass, made by the frame at `place` of the active segment that ends
    /// at `end`.
    pub(crate) fn apply(&mut self, log: LogId, change: Change, place: Place, end: Lsn) {
        if let Change::Entries { first, count, term } = change {
            return self.append(log, first, count, term, place, end);
        }
        let Self { logs, indexed, segments, forgot, removals, .. } = self;
        assert!(place.sequence() == segments.active(), "frames are placed in the active segment");
        let forgets = matches!(change, Change::Forget);
        let (entry, before) = entry(logs, indexed, *forgot, log);
        let (last, mut killed) = (entry.bounds.last, Vec::new());
        let cuts = match change {
            Change::Truncate { first } => first <= last,
            Change::Reset { .. } | Change::Forget => true,
            Change::Entries { .. } | Change::State(_) | Change::Compact { .. } => false,
        };
        if cuts {
            entry.cut = end;
        }
        *removals += u64::from(cuts || matches!(change, Change::Compact { .. }));
        match change {
            Change::Entries { .. } => unreachable!("taken in above"),
            Change::State(state) => entry.bounds.state = Some(state),
            Change::Truncate { first } => entry.cut_from(first, &mut killed),
            Change::Compact { first, term_before } => {
                entry.bounds.compact(first, term_before);
                entry.drop_dead_front(&mut killed);
            }
            Change::Reset { next, term_before } => entry.reset(next, term_before, &mut killed),
            Change::Forget => entry.reset(1, 0, &mut killed),
        }
        let after = if forgets { 0 } else { entry.bounds.checkpoint_bytes() };
        if forgets {
            if entry.is_indexed {
                indexed.insert(log);
            }
            logs.swap_remove(&log);
            *forgot = end;
        }
        self.logs_bytes = self.logs_bytes - before + after;
        killed.into_iter().for_each(|extent| segments.release(extent.sequence));
    }

    /// The body of a checkpoint taken now, to be followed by a new segment.
    pub(crate) fn checkpoint(&self) -> Vec<u8> {
        let length = usize::try_from(self.checkpoint_bytes()).expect("bounded by the segment");
        let mut body = Vec::with_capacity(length);
        let logs = u32::try_from(self.logs.len()).expect("bounded by the segment");
        let runs: Vec<(u64, u64)> = self.segments.numbers().runs().collect();
        checkpoint::encode_segments(logs, &runs, &mut body);
        for (log, entry) in self.sorted() {
            checkpoint::encode_log(log, &entry.bounds, &mut body);
        }
        assert!(body.len() == length, "the length of a checkpoint was counted wrongly");
        body
    }

    /// Length of the body of a checkpoint taken now.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        checkpoint::EMPTY_BYTES + self.segments.checkpoint_bytes() + self.logs_bytes
    }

    /// The same, were these segments freed.
    pub(crate) fn checkpoint_bytes_without(&self, freed: &[u64]) -> u64 {
        let segments = self.segments.checkpoint_bytes_without(freed);
        checkpoint::EMPTY_BYTES + segments + self.logs_bytes
    }

    /// End of the last frame that removed entries of the log other than from the front.
    pub(crate) fn cut(&self, log: LogId) -> Lsn {
        self.logs.get(&log).map_or(self.forgot, |entry| entry.cut)
    }

    /// After an opening: what was cut before is not known one by one.
    pub(crate) fn opened_at(&mut self, end: Lsn) {
        self.forgot = end;
        self.logs.values_mut().for_each(|entry| entry.cut = end);
    }

    /// By how much `change`, which is no append, can lengthen the checkpoint.
    pub(crate) fn growth(&self, log: LogId, change: &Change) -> u64 {
        let bounds = self.logs.get(&log).map(|entry| &entry.bounds);
        let new_log = if bounds.is_none() { checkpoint::LOG_BYTES } else { 0 };
        let Change::State(state) = change else { return new_log };
        let held = bounds.and_then(|bounds| bounds.state.as_ref()).map_or(0, Bytes::len);
        new_log + state.len().saturating_sub(held) as u64
    }

    /// The bounds of a log; those of an empty one if nothing is known of it.
    pub(crate) fn bounds(&self, log: LogId) -> Cow<'_, Bounds> {
        match self.logs.get(&log) {
            Some(entry) => Cow::Borrowed(&entry.bounds),
            None => Cow::Owned(Bounds::default()),
        }
    }

    /// What the next frame of a log's entries adds to the active segment's index.
    pub(crate) fn index_bytes(&self, log: LogId) -> u64 {
        index_bytes(match self.logs.get(&log) {
            Some(entry) => entry.is_indexed,
            None => self.indexed.contains(&log),
        })
    }

    /// Where an entry lies, if the log has it.
    pub(crate) fn locate(&self, log: LogId, index: u64) -> Option<Location> {
        let entry = self.logs.get(&log)?;
        let (extent, end) = entry.extent(index)?;
        let frame = match self.table(log, extent.sequence)? {
            Some(table) => Some(table.locate(index)?),
            None => None,
        };
        Some(Location { sequence: extent.sequence, end, frame })
    }

    /// The frames of a log behind the one that ends at `range.start`, up to `range.end`, in a segment whose frames are in
    /// memory; a few at most.
    pub(crate) fn following(&self, log: LogId, sequence: u64, range: Range<u64>) -> Vec<Located> {
        let table = self.table(log, sequence).flatten();
        table.map_or_else(Vec::new, |table| table.following(range))
    }

    /// The frames of a log in a segment; `None` in the inner option if the segment is sealed.
    fn table(&self, log: LogId, sequence: u64) -> Option<Option<&Table>> {
        if sequence == self.segments.active() {
            return Some(Some(&self.logs.get(&log)?.frames));
        }
        match self.segments.frames(sequence)? {
            Some(frames) => Some(Some(frames.table(log)?)),
            None => Some(None),
        }
    }

    /// How often entries were removed, from the front or from the end of any log.
    pub(crate) fn removals(&self) -> u64 {
        self.removals
    }

    pub(crate) fn log(&self, log: LogId) -> Option<&LogCatalog> {
        self.logs.get(&log)
    }

    /// All logs, ascending.
    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.sorted().into_iter().map(|(log, _)| log)
    }

    fn sorted(&self) -> Vec<(LogId, &LogCatalog)> {
        let mut logs: Vec<_> = self.logs.iter().map(|(&log, entry)| (log, entry)).collect();
        logs.sort_unstable_by_key(|(log, _)| *log);
        logs
    }

    /// The segments that a log lives in, ascending.
    pub(crate) fn segments_of(&self, log: LogId) -> impl Iterator<Item = u64> + '_ {
        let extents = self.logs.get(&log).into_iter().flat_map(|entry| &entry.extents);
        extents.map(|extent| extent.sequence)
    }
}

/// A log that a change is made of, and what it adds to a checkpoint before that; a new one if there is none yet.
fn entry<'a>(
    logs: &'a mut Logs,
    indexed: &mut FxHashSet<LogId>,
    forgot: Lsn,
    log: LogId,
) -> (&'a mut LogCatalog, u64) {
    match logs.entry(log) {
        Entry::Occupied(entry) => {
            let entry = entry.into_mut();
            let before = entry.bounds.checkpoint_bytes();
            (entry, before)
        }
        Entry::Vacant(place) => {
            let is_indexed = indexed.remove(&log);
            let fresh = LogCatalog { cut: forgot, is_indexed, ..LogCatalog::default() };
            (place.insert(fresh), 0)
        }
    }
}

fn index_bytes(is_indexed: bool) -> u64 {
    index::FRAME_BYTES + if is_indexed { 0 } else { index::LOG_BYTES }
}

#[cfg(test)]
mod tests;
