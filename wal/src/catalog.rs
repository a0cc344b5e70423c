//! What every log holds and where: bounds, terms, state, and the frames' places. Kept in memory, rebuilt at open.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
};

use bytes::Bytes;

use crate::{
    AppendError, LogId, Lsn,
    checkpoint::{self, Bounds},
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

/// A frame of entries, some of which are live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Location {
    pub(crate) first: u64,
    pub(crate) place: Place,
    pub(crate) frame_bytes: u32,
    pub(crate) count: u16,
}

impl Location {
    /// One past the last index that the frame holds.
    pub(crate) fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

/// All logs.
#[derive(Debug)]
pub(crate) struct Catalog {
    logs: BTreeMap<LogId, LogCatalog>,
    /// Length of the body of a checkpoint taken now.
    checkpoint_bytes: u64,
    segments: BTreeMap<u64, Usage>,
}

/// A live entry that no frame was found for.
#[derive(Debug)]
pub(crate) struct Missing {
    pub(crate) log: LogId,
    pub(crate) index: u64,
    /// The segment with the entry before, and the one with the next entry found.
    pub(crate) before: Option<u64>,
    pub(crate) after: Option<u64>,
}

/// What lives in one segment.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Frames with a live entry.
    live: u64,
    /// End of the newest frame that took the last live entry from one of the segment's frames.
    killed: Lsn,
}

/// One log.
#[derive(Clone, Debug)]
pub(crate) struct LogCatalog {
    pub(crate) bounds: Bounds,
    /// Frames of `first..=last`, ascending; each reaches to the next one's first index.
    frames: VecDeque<Location>,
    /// Counts what removed entries other than from the front, so that a reader notices.
    pub(crate) cuts: u64,
}

impl Default for LogCatalog {
    fn default() -> Self {
        let bounds = Bounds { first: 1, last: 0, term_before: 0, runs: Vec::new(), state: None };
        Self { bounds, frames: VecDeque::new(), cuts: 0 }
    }
}

impl Catalog {
    pub(crate) fn new() -> Self {
        Self {
            logs: BTreeMap::new(),
            checkpoint_bytes: checkpoint::EMPTY_BYTES,
            segments: BTreeMap::new(),
        }
    }

    /// Replaces the bounds of all logs by those of a checkpoint; the frames' places come by `attach`.
    pub(crate) fn restore(&mut self, logs: Vec<(LogId, Bounds)>) {
        *self = Self::new();
        for (log, bounds) in logs {
            self.checkpoint_bytes += bounds.checkpoint_bytes();
            self.logs.insert(log, LogCatalog { bounds, ..LogCatalog::default() });
        }
    }

    /// The first live entry that is not among the frames found, which come in the order of their LSNs.
    pub(crate) fn missing(&self, found: &BTreeMap<LogId, Vec<Location>>) -> Option<Missing> {
        self.logs.iter().find_map(|(&log, entry)| {
            let (first, last) = (entry.bounds.first, entry.bounds.last);
            let frames = newest_wins(found.get(&log).cloned().unwrap_or_default(), first, last);
            let (index, number) = first_missing(&frames, first, last)?;
            let before = number.checked_sub(1).and_then(|number| frames.get(number));
            let segment = |location: &Location| location.place.sequence();
            let (before, after) = (before.map(segment), frames.get(number).map(segment));
            Some(Missing { log, index, before, after })
        })
    }

    /// Takes in where frames were found, none of them missing.
    pub(crate) fn attach(&mut self, mut found: BTreeMap<LogId, Vec<Location>>) {
        self.segments.clear();
        for (log, entry) in &mut self.logs {
            let (first, last) = (entry.bounds.first, entry.bounds.last);
            let frames = newest_wins(found.remove(log).unwrap_or_default(), first, last);
            assert!(first_missing(&frames, first, last).is_none(), "looked for before");
            for location in &frames {
                self.segments.entry(location.place.sequence()).or_default().live += 1;
            }
            entry.frames = frames;
        }
    }

    /// Drops from each log what lies below its last entry that was found nowhere: then nothing is missing. For reading
    /// what is left of a damaged log.
    pub(crate) fn drop_missing(&mut self, found: &BTreeMap<LogId, Vec<Location>>) {
        for (log, entry) in &mut self.logs {
            let bounds = &mut entry.bounds;
            loop {
                let frames = found.get(log).cloned().unwrap_or_default();
                let frames = newest_wins(frames, bounds.first, bounds.last);
                let Some((_, number)) = first_missing(&frames, bounds.first, bounds.last) else {
                    break;
                };
                let next = frames.get(number).map_or(bounds.last + 1, |after| after.first);
                let term_before = bounds.term(next - 1).expect("an entry of the log");
                bounds.compact(next, term_before);
            }
        }
    }

    /// `Err` if `count` entries from `first` on cannot follow what `log` holds.
    pub(crate) fn check_append(
        &self,
        log: LogId,
        first: u64,
        count: u64,
        term: u64,
    ) -> Result<(), AppendError> {
        self.bounds(log).check_append(first, count, term)
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

    /// Takes in `change`, which `check` let pass, made by the frame at `place` that ends at `end`.
    pub(crate) fn apply(
        &mut self,
        log: LogId,
        change: Change,
        place: Place,
        frame_bytes: u32,
        end: Lsn,
    ) {
        let before = self.logs.get(&log).map_or(0, |entry| entry.bounds.checkpoint_bytes());
        let forgets = matches!(change, Change::Forget);
        let entry = self.logs.entry(log).or_default();
        let mut killed = Vec::new();
        match change {
            Change::Entries { first, count, term } => {
                entry.cut_from(first, &mut killed);
                entry.frames.push_back(Location { first, place, frame_bytes, count });
                entry.bounds.append(first, u64::from(count), term);
                self.segments.entry(place.sequence()).or_default().live += 1;
            }
            Change::State(state) => entry.bounds.state = Some(state),
            Change::Truncate { first } => entry.cut_from(first, &mut killed),
            Change::Compact { first, term_before } => {
                entry.compact(first, term_before, &mut killed)
            }
            Change::Reset { next, term_before } => entry.reset(next, term_before, &mut killed),
            Change::Forget => entry.reset(1, 0, &mut killed),
        }
        let after = if forgets { 0 } else { entry.bounds.checkpoint_bytes() };
        if forgets {
            self.logs.remove(&log);
        }
        self.checkpoint_bytes = self.checkpoint_bytes - before + after;
        for location in &killed {
            let usage = self.segments.entry(location.place.sequence()).or_default();
            usage.live -= 1;
            usage.killed = usage.killed.max(end);
        }
    }

    /// True if segment `sequence` holds no live entry, and will not after a power cut either.
    pub(crate) fn is_dead(&self, sequence: u64, durable: Lsn) -> bool {
        self.segments.get(&sequence).is_none_or(|usage| usage.live == 0 && usage.killed <= durable)
    }

    /// Forgets a segment that was freed.
    pub(crate) fn drop_segment(&mut self, sequence: u64) {
        self.segments.remove(&sequence);
    }

    /// The body of a checkpoint taken now.
    pub(crate) fn checkpoint(&self) -> Vec<u8> {
        let length = usize::try_from(self.checkpoint_bytes).expect("bounded by the segment");
        let mut body = Vec::with_capacity(length);
        let logs = u32::try_from(self.logs.len()).expect("bounded by the segment");
        body.extend_from_slice(&logs.to_le_bytes());
        for (log, entry) in &self.logs {
            checkpoint::encode_log(*log, &entry.bounds, &mut body);
        }
        assert!(body.len() == length, "the length of a checkpoint was counted wrongly");
        body
    }

    /// Length of the body of a checkpoint taken now.
    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        self.checkpoint_bytes
    }

    /// By how much `change` can lengthen the checkpoint.
    pub(crate) fn growth(&self, log: LogId, change: &Change) -> u64 {
        let bounds = self.logs.get(&log).map(|entry| &entry.bounds);
        let new_log = if bounds.is_none() { checkpoint::LOG_BYTES } else { 0 };
        let more = match change {
            Change::Entries { .. } => checkpoint::RUN_BYTES,
            Change::State(state) => {
                let held = bounds.and_then(|bounds| bounds.state.as_ref()).map_or(0, Bytes::len);
                state.len().saturating_sub(held) as u64
            }
            _ => 0,
        };
        new_log + more
    }

    /// The bounds of a log; those of an empty one if nothing is known of it.
    pub(crate) fn bounds(&self, log: LogId) -> Cow<'_, Bounds> {
        match self.logs.get(&log) {
            Some(entry) => Cow::Borrowed(&entry.bounds),
            None => Cow::Owned(LogCatalog::default().bounds),
        }
    }

    pub(crate) fn log(&self, log: LogId) -> Option<&LogCatalog> {
        self.logs.get(&log)
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.logs.keys().copied()
    }
}

impl Missing {
    /// The number of the segment that should be there, where `first` is the first of those that are.
    pub(crate) fn segment(&self, first: u64) -> u64 {
        match (self.before, self.after) {
            (Some(before), _) => before + 1,
            (None, Some(after)) => after - 1,
            (None, None) => first.saturating_sub(1),
        }
    }
}

impl LogCatalog {
    /// The frame that holds `index`, and one past the last index that it holds live.
    pub(crate) fn locate(&self, index: u64) -> Option<(Location, u64)> {
        if index < self.bounds.first || index > self.bounds.last {
            return None;
        }
        let after = self.frames.partition_point(|location| location.first <= index);
        let end = self.frames.get(after).map_or(self.bounds.last + 1, |next| next.first);
        Some((self.frames[after - 1], end))
    }

    fn cut_from(&mut self, first: u64, killed: &mut Vec<Location>) {
        if first > self.bounds.last {
            return;
        }
        self.cuts += 1;
        while self.frames.back().is_some_and(|location| location.first >= first) {
            killed.extend(self.frames.pop_back());
        }
        self.bounds.cut_from(first);
        self.drop_dead_front(killed);
    }

    fn compact(&mut self, first: u64, term_before: u64, killed: &mut Vec<Location>) {
        self.bounds.compact(first, term_before);
        self.drop_dead_front(killed);
    }

    fn reset(&mut self, next: u64, term_before: u64, killed: &mut Vec<Location>) {
        self.cuts += 1;
        killed.extend(self.frames.drain(..));
        self.bounds.first = next;
        self.bounds.last = next - 1;
        self.bounds.term_before = term_before;
        self.bounds.runs.clear();
    }

    /// Frames all of whose live indexes lie below `first`.
    fn drop_dead_front(&mut self, killed: &mut Vec<Location>) {
        while !self.frames.is_empty() {
            let end = self.frames.get(1).map_or(self.bounds.last + 1, |next| next.first);
            if end > self.bounds.first {
                return;
            }
            killed.extend(self.frames.pop_front());
        }
    }
}

impl Bounds {
    /// Term of `index`, or of the entry before the first.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index.checked_add(1) == Some(self.first) {
            return Some(self.term_before);
        }
        if index < self.first || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.0 <= index);
        Some(self.runs[after - 1].1)
    }

    fn check_append(&self, index: u64, count: u64, term: u64) -> Result<(), AppendError> {
        if index < self.first {
            return Err(AppendError::Compacted { index, first: self.first });
        }
        if index > self.last + 1 {
            return Err(AppendError::Gap { index, next: self.last + 1 });
        }
        // The end of the log must be a number itself.
        if index.checked_add(count).is_none() {
            return Err(AppendError::Beyond { index, limit: u64::MAX - count });
        }
        let newest =
            self.term(index - 1).expect("the entry before is in the log, or before its first");
        if term < newest { Err(AppendError::TermDecreases { term, newest }) } else { Ok(()) }
    }

    fn append(&mut self, first: u64, count: u64, term: u64) {
        self.last = first + count - 1;
        if self.runs.last().is_none_or(|run| run.1 != term) {
            self.runs.push((first, term));
        }
    }

    fn cut_from(&mut self, first: u64) {
        self.last = self.last.min(first - 1);
        let keep = self.runs.partition_point(|run| run.0 < first);
        self.runs.truncate(keep);
    }

    fn compact(&mut self, first: u64, term_before: u64) {
        if first <= self.first {
            return;
        }
        let covering = self.runs.partition_point(|run| run.0 <= first);
        self.runs.drain(..covering.saturating_sub(1));
        self.first = first;
        self.term_before = term_before;
        if first > self.last {
            self.runs.clear();
        } else if let Some(run) = self.runs.first_mut() {
            run.0 = first;
        }
    }

    fn checkpoint_bytes(&self) -> u64 {
        let state = self.state.as_ref().map_or(0, Bytes::len) as u64;
        checkpoint::LOG_BYTES + self.runs.len() as u64 * checkpoint::RUN_BYTES + state
    }
}

/// The frames that hold `first..=last`, each index in the newest frame that has it.
///
/// A live entry is always in the newest frame with its index: any newer one would have replaced it. No segment is missing
/// among those that the frames come from.
fn newest_wins(found: Vec<Location>, first: u64, last: u64) -> VecDeque<Location> {
    let mut frames: VecDeque<Location> = VecDeque::new();
    for location in found {
        while frames.back().is_some_and(|before| before.first >= location.first) {
            frames.pop_back();
        }
        frames.push_back(location);
    }
    while frames.back().is_some_and(|location| location.first > last) {
        frames.pop_back();
    }
    while frames.len() > 1 && frames[1].first <= first {
        frames.pop_front();
    }
    if first > last {
        frames.clear();
    }
    frames
}

/// The first of `first..=last` that `frames` do not hold, and the number of the frame that should follow it.
fn first_missing(frames: &VecDeque<Location>, first: u64, last: u64) -> Option<(u64, usize)> {
    let mut next = first;
    for (number, location) in frames.iter().enumerate() {
        if location.first > next {
            return Some((next, number));
        }
        let end = frames.get(number + 1).map_or(last + 1, |after| after.first);
        if location.end() < end {
            return Some((location.end().max(first), number + 1));
        }
        next = end;
    }
    (next <= last).then_some((next, frames.len()))
}

#[cfg(test)]
mod tests;
