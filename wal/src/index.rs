//! Where the frames of one segment's entries lie, by log: in memory while the segment takes frames, in the segment's own
//! file once it is sealed. Bytes are specified in FORMAT.md, "Sealed segments"; change both or neither.
//!
//! ```text
//! logs x (u32 log, u32 frames, u64 first index, u64 end, u64 number of its first frame)   ascending by log
//! frames x (u32 first index of the frame - first index of the log, u32 offset / 8)
//! ```

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;
use rustc_hash::FxHashMap;

use crate::{LogId, frame::ALIGN_BYTES};

/// What the first frame of a log adds to an index, besides [`FRAME_BYTES`].
pub(crate) const LOG_BYTES: u64 = 32;
/// What each frame of entries adds.
pub(crate) const FRAME_BYTES: u64 = 8;

/// The frames that held live entries when the segment took its last frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameIndex {
    /// A log that lost all its entries again stays, empty: its place in the index was taken.
    logs: FxHashMap<LogId, Table>,
}

/// The frames of one log: contiguous, each reaches to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Table {
    first: u64,
    end: u64,
    frames: Vec<Slot>,
}

/// A frame: 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// Its first index, counted from the table's.
    ahead: u32,
    /// Its offset in the segment, in units of 8 bytes.
    place: u32,
}

/// A frame as an index tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) offset: u64,
    /// First index in the frame.
    pub(crate) first: u64,
    /// One past the last index that is not in a later frame of the segment.
    pub(crate) end: u64,
    /// Where the log's next frame in the segment lies, if it has one.
    pub(crate) next: Option<u64>,
}

/// What one log has in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) log: LogId,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

impl Table {
    /// First index of a frame.
    fn index(&self, slot: &Slot) -> u64 {
        self.first + u64::from(slot.ahead)
    }

    fn located(&self, number: usize) -> Located {
        let (slot, next) = (self.frames[number], self.frames.get(number + 1));
        Located {
            offset: slot.offset(),
            first: self.index(&slot),
            end: next.map_or(self.end, |next| self.index(next)),
            next: next.map(Slot::offset),
        }
    }
}

impl Slot {
    fn offset(&self) -> u64 {
        u64::from(self.place) * ALIGN_BYTES
    }
}

impl FrameIndex {
    /// Whether a frame of entries of this log adds no [`LOG_BYTES`] any more.
    pub(crate) fn has(&self, log: LogId) -> bool {
        self.logs.contains_key(&log)
    }

    /// Takes in a frame that continues what the log has here; what it replaces was cut before.
    pub(crate) fn push(&mut self, log: LogId, first: u64, count: u16, offset: u64) {
        let table = self.logs.entry(log).or_default();
        if table.frames.is_empty() {
            (table.first, table.end) = (first, first);
        }
        assert!(first == table.end, "a log's frames in a segment leave no gap");
        let ahead = u32::try_from(first - table.first).expect("a segment is at most 1 GiB");
        let place = u32::try_from(offset / ALIGN_BYTES).expect("a segment is at most 1 GiB");
        table.frames.push(Slot { ahead, place });
        table.end = first + u64::from(count);
    }

    /// Drops what the log has here from index `first` on.
    pub(crate) fn cut_from(&mut self, log: LogId, first: u64) {
        let Some(table) = self.logs.get_mut(&log) else { return };
        let keep = table.frames.partition_point(|slot| table.index(slot) < first);
        table.frames.truncate(keep);
        table.end = table.end.min(first);
    }

    /// The frame that holds `index`.
    pub(crate) fn locate(&self, log: LogId, index: u64) -> Option<Located> {
        let table = self.logs.get(&log)?;
        if table.frames.is_empty() || index < table.first || index >= table.end {
            return None;
        }
        let after = table.frames.partition_point(|slot| table.index(slot) <= index);
        Some(table.located(after - 1))
    }

    /// The frames behind the one that ends at `range.start`, up to `range.end`; a few at most.
    pub(crate) fn following(&self, log: LogId, range: Range<u64>) -> Vec<Located> {
        let Some(table) = self.logs.get(&log).filter(|_| !range.is_empty()) else {
            return Vec::new();
        };
        let start = table.frames.partition_point(|slot| table.index(slot) < range.start);
        let numbers = (start..table.frames.len()).take(FOLLOWING_MAX);
        numbers.map(|number| table.located(number)).take_while(|at| at.first < range.end).collect()
    }

    /// What a log has here.
    pub(crate) fn span(&self, log: LogId) -> Option<Span> {
        let table = self.logs.get(&log).filter(|table| !table.frames.is_empty())?;
        Some(Span { log, first: table.first, end: table.end })
    }

    /// The tables with frames, by their logs.
    fn tables(&self) -> Vec<(LogId, &Table)> {
        let tables = self.logs.iter().filter(|(_, table)| !table.frames.is_empty());
        let mut tables: Vec<_> = tables.map(|(&log, table)| (log, table)).collect();
        tables.sort_unstable_by_key(|(log, _)| *log);
        tables
    }

    /// What each log has here.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let span = |(log, table): (LogId, &Table)| Span { log, first: table.first, end: table.end };
        self.tables().into_iter().map(span)
    }

    /// The index's bytes, the table of logs first, and how many logs and frames there are.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32, u32) {
        let tables = self.tables();
        let (mut bytes, mut number, mut logs) = (Vec::new(), 0_u64, 0);
        for &(log, table) in &tables {
            let frames = u32::try_from(table.frames.len()).expect("bounded by the segment");
            bytes.extend_from_slice(&log.0.to_le_bytes());
            bytes.extend_from_slice(&frames.to_le_bytes());
            for value in [table.first, table.end, number] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            number += u64::from(frames);
            logs += 1;
        }
        for slot in tables.iter().flat_map(|(_, table)| &table.frames) {
            bytes.extend_from_slice(&slot.ahead.to_le_bytes());
            bytes.extend_from_slice(&slot.place.to_le_bytes());
        }
        (bytes, logs, u32::try_from(number).expect("bounded by the segment"))
    }
}

/// The index of a sealed segment as it lies in its file. Its checksums were checked.
#[derive(Clone, Debug)]
pub(crate) struct SealedIndex {
    logs: usize,
    bytes: Bytes,
}

/// A row of its table of logs.
struct SealedTable {
    first: u64,
    end: u64,
    /// How many frames the log has here, and the number of the first of them.
    count: usize,
    start: usize,
}

impl SealedIndex {
    /// Reads the index in `bytes`, of so many logs and frames; `None` if that is not one.
    pub(crate) fn new(bytes: Bytes, logs: u32, frames: u32) -> Option<Self> {
        let frames_total = u64::from(frames);
        let length = u64::from(logs) * LOG_BYTES + frames_total * FRAME_BYTES;
        if bytes.len() as u64 != length {
            return None;
        }
        let index = Self { logs: usize::try_from(logs).ok()?, bytes };
        let spans = spans(&index.bytes[..index.logs * LOG_LEN])?;
        let mut next = 0;
        for number in 0..spans.len() {
            let row = index.row(number);
            let count = u64::from(LittleEndian::read_u32(&row[4..8]));
            if count == 0 || LittleEndian::read_u64(&row[24..32]) != next {
                return None;
            }
            next += count;
        }
        (next == frames_total).then_some(index)
    }

    /// The frame that holds `index`.
    pub(crate) fn locate(&self, log: LogId, index: u64) -> Option<Located> {
        let table = self.table(log)?;
        if index < table.first || index >= table.end {
            return None;
        }
        let ahead = u32::try_from(index - table.first).ok()?;
        // Where it is if all frames are alike: each step of a search is a miss of all caches.
        let part = u128::from(ahead) * table.count as u128 / u128::from(table.end - table.first);
        let guess = usize::try_from(part).expect("less than `count`");
        let after = partition(table.count, guess, |number| self.slot(&table, number).0 <= ahead);
        Some(self.located(&table, after.checked_sub(1)?))
    }

    /// The frames behind the one that ends at `range.start`, up to `range.end`; a few at most.
    pub(crate) fn following(&self, log: LogId, range: Range<u64>) -> Vec<Located> {
        let Some(table) = self.table(log).filter(|_| !range.is_empty()) else { return Vec::new() };
        let ahead = range.start.saturating_sub(table.first);
        let holds = |number| u64::from(self.slot(&table, number).0) < ahead;
        let start = partition(table.count, 0, holds);
        let numbers = (start..table.count).take(FOLLOWING_MAX);
        let located = numbers.map(|number| self.located(&table, number));
        located.take_while(|at| at.first < range.end).collect()
    }

    fn table(&self, log: LogId) -> Option<SealedTable> {
        let row = self.row(self.find(log)?);
        Some(SealedTable {
            count: usize::try_from(LittleEndian::read_u32(&row[4..8])).ok()?,
            first: LittleEndian::read_u64(&row[8..16]),
            end: LittleEndian::read_u64(&row[16..24]),
            start: usize::try_from(LittleEndian::read_u64(&row[24..32])).ok()?,
        })
    }

    /// First index, counted from the table's, and place of a frame.
    fn slot(&self, table: &SealedTable, number: usize) -> (u32, u32) {
        let at = self.logs * LOG_LEN + (table.start + number) * FRAME_LEN;
        let bytes = &self.bytes[at..at + FRAME_LEN];
        (LittleEndian::read_u32(bytes), LittleEndian::read_u32(&bytes[4..]))
    }

    fn located(&self, table: &SealedTable, number: usize) -> Located {
        let slot = |number: usize| {
            let (ahead, place) = self.slot(table, number);
            (table.first.saturating_add(ahead.into()), u64::from(place) * ALIGN_BYTES)
        };
        let (first, offset) = slot(number);
        let next = (number + 1 < table.count).then(|| slot(number + 1));
        let end = next.map_or(table.end, |next| next.0);
        Located { offset, first, end, next: next.map(|next| next.1) }
    }

    fn find(&self, log: LogId) -> Option<usize> {
        let id = |number: usize| LittleEndian::read_u32(&self.row(number)[0..4]);
        let number = partition(self.logs, self.logs / 2, |number| id(number) < log.0);
        (number < self.logs && id(number) == log.0).then_some(number)
    }

    fn row(&self, number: usize) -> &[u8] {
        &self.bytes[number * LOG_LEN..(number + 1) * LOG_LEN]
    }
}

/// What the logs of a table of logs have in its segment; `None` if they do not ascend.
pub(crate) fn spans(table: &[u8]) -> Option<Vec<Span>> {
    let mut spans: Vec<Span> = Vec::with_capacity(table.len() / LOG_LEN);
    for row in table.chunks_exact(LOG_LEN) {
        let span = Span {
            log: LogId(LittleEndian::read_u32(&row[0..4])),
            first: LittleEndian::read_u64(&row[8..16]),
            end: LittleEndian::read_u64(&row[16..24]),
        };
        let ascends = spans.last().is_none_or(|before| before.log < span.log);
        if !ascends || span.first == 0 || span.first >= span.end {
            return None;
        }
        spans.push(span);
    }
    Some(spans)
}

/// How many of `0..length` come before the first for which `holds` is false; looks around `guess` first.
fn partition(length: usize, guess: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high, mut middle) = (0, length, guess);
    while low < high {
        if holds(middle) {
            low = middle + 1;
            // The next one ends the search where the guess was right.
            middle = if middle == guess { low } else { low + (high - low) / 2 };
        } else {
            high = middle;
            middle = low + (high - low) / 2;
        }
    }
    low
}

/// Frames that are looked up together, besides the first.
const FOLLOWING_MAX: usize = 63;

const LOG_LEN: usize = 32;
const FRAME_LEN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const L: LogId = LogId(3);
    const M: LogId = LogId(9);

    fn index() -> FrameIndex {
        let mut index = FrameIndex::default();
        index.push(M, 7, 2, 4096);
        index.push(L, 100, 3, 4200);
        index.push(L, 103, 1, 4304);
        index.push(M, 9, 5, 4400);
        index
    }

    fn sealed(index: &FrameIndex) -> SealedIndex {
        let (bytes, logs, frames) = index.encode();
        SealedIndex::new(bytes.into(), logs, frames).expect("a whole index")
    }

    #[test]
    fn a_sealed_index_locates_what_the_one_in_memory_did() {
        let index = index();
        let sealed = sealed(&index);
        for log in [L, M, LogId(0), LogId(5), LogId(10)] {
            for number in 0..120 {
                assert_eq!(
                    sealed.locate(log, number),
                    index.locate(log, number),
                    "{log:?} {number}"
                );
            }
        }
        assert_eq!(
            index.locate(L, 102),
            Some(Located { offset: 4200, first: 100, end: 103, next: Some(4304) })
        );
        let (bytes, logs, _) = index.encode();
        let table = &bytes[..usize::try_from(logs).unwrap() * LOG_LEN];
        assert_eq!(spans(table).unwrap(), index.spans().collect::<Vec<_>>());
    }

    #[test]
    fn what_was_cut_is_not_located_and_can_be_replaced() {
        let mut index = index();
        index.cut_from(L, 102);
        assert_eq!(
            index.locate(L, 101),
            Some(Located { offset: 4200, first: 100, end: 102, next: None })
        );
        assert_eq!(index.locate(L, 102), None);
        index.push(L, 102, 9, 5000);
        assert_eq!(index.locate(L, 110).unwrap().offset, 5000);
        index.cut_from(M, 1);
        assert!(index.has(M) && index.locate(M, 7).is_none());
        index.push(M, 50, 1, 6000);
        assert_eq!(index.locate(M, 50).unwrap().offset, 6000);
        assert_eq!(index.spans().count(), 2);
    }

    /// WAL-CASE 29: the index's lengths.
    #[test]
    fn an_index_whose_numbers_do_not_add_up_is_none() {
        let (bytes, logs, frames) = index().encode();
        let decode = |bytes: &[u8], logs, frames| {
            SealedIndex::new(Bytes::copy_from_slice(bytes), logs, frames).is_some()
        };
        assert!(decode(&bytes, logs, frames));
        assert!(!decode(&bytes, logs, frames + 1) && !decode(&bytes, logs + 1, frames));
        assert!(!decode(&bytes, u32::MAX, u32::MAX));
        for (at, value) in [(4, 0), (4, u32::MAX), (0, 10), (24, 1), (8, 0), (16, 1)] {
            let mut damaged = bytes.clone();
            LittleEndian::write_u32(&mut damaged[at..at + 4], value);
            assert!(!decode(&damaged, logs, frames), "{at} {value}");
        }
    }
}
