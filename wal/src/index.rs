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

use crate::{LogId, frame::ALIGN_BYTES};

/// What the first frame of a log adds to an index, besides [`FRAME_BYTES`].
pub(crate) const LOG_BYTES: u64 = 32;
/// What each frame of entries adds.
pub(crate) const FRAME_BYTES: u64 = 8;

/// The frames that held live entries when the segment took its last frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameIndex {
    /// Ascending by log; none is empty.
    tables: Vec<(LogId, Table)>,
}

/// The frames of one log in one segment: contiguous, each reaches to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
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
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes in a frame that continues what the log has here; what it replaces was cut before.
    pub(crate) fn push(&mut self, first: u64, count: u16, offset: u64) {
        if self.frames.is_empty() {
            (self.first, self.end) = (first, first);
        }
        assert!(first == self.end, "a log's frames in a segment leave no gap");
        let ahead = u32::try_from(first - self.first).expect("a segment is at most 1 GiB");
        let place = u32::try_from(offset / ALIGN_BYTES).expect("a segment is at most 1 GiB");
        self.frames.push(Slot { ahead, place });
        self.end = first + u64::from(count);
    }

    /// Drops what the log has here from index `first` on.
    pub(crate) fn cut_from(&mut self, first: u64) {
        let keep = self.frames.partition_point(|slot| self.index(slot) < first);
        self.frames.truncate(keep);
        self.end = self.end.min(first);
    }

    /// The frame that holds `index`.
    pub(crate) fn locate(&self, index: u64) -> Option<Located> {
        if self.frames.is_empty() || index < self.first || index >= self.end {
            return None;
        }
        let after = self.frames.partition_point(|slot| self.index(slot) <= index);
        Some(self.located(after - 1))
    }

    /// The frames behind the one that ends at `range.start`, up to `range.end`; a few at most.
    pub(crate) fn following(&self, range: Range<u64>) -> Vec<Located> {
        if range.is_empty() {
            return Vec::new();
        }
        let start = self.frames.partition_point(|slot| self.index(slot) < range.start);
        let numbers = (start..self.frames.len()).take(FOLLOWING_MAX);
        numbers.map(|number| self.located(number)).take_while(|at| at.first < range.end).collect()
    }

    /// What it has, as `log`'s.
    pub(crate) fn span(&self, log: LogId) -> Option<Span> {
        (!self.frames.is_empty()).then_some(Span { log, first: self.first, end: self.end })
    }

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
    /// Of the tables of a segment's logs.
    pub(crate) fn new(mut tables: Vec<(LogId, Table)>) -> Self {
        tables.retain(|(_, table)| !table.is_empty());
        tables.sort_unstable_by_key(|(log, _)| *log);
        Self { tables }
    }

    /// What a log has here, if it has anything.
    pub(crate) fn table(&self, log: LogId) -> Option<&Table> {
        let number = self.tables.binary_search_by_key(&log, |(log, _)| *log).ok()?;
        Some(&self.tables[number].1)
    }

    /// What each log has here.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.tables.iter().filter_map(|(log, table)| table.span(*log))
    }

    /// The index's bytes, the table of logs first, and how many logs and frames there are.
    pub(crate) fn encode(&self) -> (Vec<u8>, u32, u32) {
        let (mut bytes, mut number, mut logs) = (Vec::new(), 0_u64, 0);
        for (log, table) in &self.tables {
            let frames = u32::try_from(table.frames.len()).expect("bounded by the segment");
            bytes.extend_from_slice(&log.0.to_le_bytes());
            bytes.extend_from_slice(&frames.to_le_bytes());
            for value in [table.first, table.end, number] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            number += u64::from(frames);
            logs += 1;
        }
        for slot in self.tables.iter().flat_map(|(_, table)| &table.frames) {
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
        let (mut l, mut m) = (Table::default(), Table::default());
        m.push(7, 2, 4096);
        l.push(100, 3, 4200);
        l.push(103, 1, 4304);
        m.push(9, 5, 4400);
        FrameIndex::new(vec![(M, m), (LogId(5), Table::default()), (L, l)])
    }

    fn sealed(index: &FrameIndex) -> SealedIndex {
        let (bytes, logs, frames) = index.encode();
        SealedIndex::new(bytes.into(), logs, frames).expect("a whole index")
    }

    #[test]
    fn a_sealed_index_locates_what_the_one_in_memory_did() {
        let index = index();
        let sealed = sealed(&index);
        let locate = |log, number| index.table(log).and_then(|table| table.locate(number));
        for log in [L, M, LogId(0), LogId(5), LogId(10)] {
            for number in 0..120 {
                assert_eq!(sealed.locate(log, number), locate(log, number), "{log:?} {number}");
            }
        }
        assert_eq!(
            locate(L, 102),
            Some(Located { offset: 4200, first: 100, end: 103, next: Some(4304) })
        );
        let (bytes, logs, _) = index.encode();
        let table = &bytes[..usize::try_from(logs).unwrap() * LOG_LEN];
        assert_eq!(spans(table).unwrap(), index.spans().collect::<Vec<_>>());
    }

    #[test]
    fn what_was_cut_is_not_located_and_can_be_replaced() {
        let mut table = index().table(L).unwrap().clone();
        table.cut_from(102);
        assert_eq!(
            table.locate(101),
            Some(Located { offset: 4200, first: 100, end: 102, next: None })
        );
        assert_eq!(table.locate(102), None);
        table.push(102, 9, 5000);
        assert_eq!(table.locate(110).unwrap().offset, 5000);
        table.cut_from(1);
        assert!(table.is_empty() && table.locate(100).is_none() && table.span(L).is_none());
        table.push(50, 1, 6000);
        assert_eq!(table.locate(50).unwrap().offset, 6000);
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
