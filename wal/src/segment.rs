//! A segment: its names, its geometry, and its handle while the log is open.

use std::sync::{Arc, OnceLock};

use kontiki_disk::File;

use crate::{
    Lsn,
    frame::{self, FrameKind, HEADER_BYTES, Header},
    header::SegmentHeader,
    index::{self, SealedIndex},
    options::{ENTRY_BYTES_MAX, STATE_BYTES_MAX},
    trailer::Trailer,
};

/// The unit of writing; the header and the trailer take one each.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Where a segment's frames begin.
pub(crate) const FRAMES_AT: u64 = PAGE_BYTES;
/// The number of the first segment of a log.
pub(crate) const FIRST_SEQUENCE: u64 = 1;
/// Kept free behind every other frame: for the idle mark and the mark of a close.
const MARKS_BYTES: u64 = 2 * HEADER_BYTES;
/// Body of a segment-start frame: uuid, base LSN, previous sequence number.
pub(crate) const START_BODY_BYTES: u64 = 32;

/// One segment of an open log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) sequence: u64,
    pub(crate) bytes: u64,
    /// LSN of its first frame.
    pub(crate) base: Lsn,
    pub(crate) salt: u32,
    pub(crate) file: Arc<dyn File>,
    /// Where its frames end; `None` while it is active.
    pub(crate) last: Option<Last>,
    /// `None` until it is sealed.
    pub(crate) trailer: Option<Trailer>,
    /// A view of the index in the file, once it was needed and found whole.
    pub(crate) index: Arc<OnceLock<SealedIndex>>,
}

/// The last frame of a segment that is full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    pub(crate) frames_end: u64,
    /// Its `header_crc`.
    pub(crate) crc: u32,
}

impl Segment {
    /// A segment whose frames begin at `base`, not sealed yet.
    pub(crate) fn new(header: &SegmentHeader, base: Lsn, file: Arc<dyn File>) -> Self {
        let salt = frame::salt(&header.uuid, header.sequence);
        let (sequence, bytes) = (header.sequence, header.segment_bytes);
        let (last, trailer, index) = (None, None, Arc::default());
        Self { sequence, bytes, base, salt, file, last, trailer, index }
    }

    /// The LSN at `offset`.
    pub(crate) fn lsn(&self, offset: u64) -> Lsn {
        lsn_at(self.base, offset)
    }

    /// The offset of `lsn`, which must not lie below the segment.
    pub(crate) fn offset(&self, lsn: Lsn) -> u64 {
        assert!(self.base <= lsn, "an LSN below its segment");
        lsn.0 - self.base.0 + FRAMES_AT
    }

    /// Where the index ends and the trailer begins, once it is sealed.
    pub(crate) fn index_end(&self) -> u64 {
        self.bytes - PAGE_BYTES
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.sequence)
    }
}

/// The LSN at `offset` of a segment whose frames begin at `base`.
pub(crate) fn lsn_at(base: Lsn, offset: u64) -> Lsn {
    Lsn(base.0 + (offset - FRAMES_AT))
}

/// Where a frame lies: sequence number and offset in 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u64);

/// Segments that entries go on in at most: 64 TiB of them at the default size.
pub(crate) const SEGMENTS_MAX: u64 = 1 << 20;
/// Upkeep goes on in a few more, so that a full log can be compacted; its own segments are soon dead and freed. No more are
/// made, as a checkpoint that speaks of them could not be read.
pub(crate) const UPKEEP_SEGMENTS_MAX: u64 = SEGMENTS_MAX + 1023;
/// Offsets are multiples of 8 below 1 GiB.
const OFFSET_BITS: u32 = 27;
/// Sequence numbers are below it.
pub(crate) const SEQUENCE_END: u64 = 1 << (64 - OFFSET_BITS);

impl Place {
    pub(crate) fn new(sequence: u64, offset: u64) -> Self {
        assert!(sequence < SEQUENCE_END && (offset / 8) >> OFFSET_BITS == 0);
        assert!(offset.is_multiple_of(8));
        Self((sequence << OFFSET_BITS) | (offset / 8))
    }

    pub(crate) fn sequence(self) -> u64 {
        self.0 >> OFFSET_BITS
    }

    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) * 8
    }
}

/// Where the bytes of a segment may go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Size of the segment.
    pub(crate) segment_bytes: u64,
    /// Where the next frame would lie.
    pub(crate) offset: u64,
    /// Length of the index that the segment will carry, at most.
    pub(crate) index_bytes: u64,
}

impl Room {
    /// Of a segment without a frame.
    pub(crate) fn empty(segment_bytes: u64) -> Self {
        Self { segment_bytes, offset: FRAMES_AT, index_bytes: 0 }
    }

    /// Takes the place for a frame of `bytes`, which adds `index_bytes` to the index, if it, two marks, the index and the
    /// trailer fit.
    pub(crate) fn take(&mut self, bytes: u64, index_bytes: u64) -> bool {
        let fits = bytes <= self.left(index_bytes);
        if fits {
            (self.offset, self.index_bytes) = (self.offset + bytes, self.index_bytes + index_bytes);
        }
        fits
    }

    /// Length of the frames for which there is a place, if they add `index_bytes` to the index.
    pub(crate) fn left(&self, index_bytes: u64) -> u64 {
        let kept = MARKS_BYTES + self.index_bytes + index_bytes + PAGE_BYTES;
        self.segment_bytes.saturating_sub(self.offset + kept)
    }

    /// Takes the place for a mark, which every other frame has left free.
    pub(crate) fn take_mark(&mut self) {
        assert!(self.try_take_mark(0), "no room was left for a mark");
    }

    /// Takes the place for a mark if there is one, and `more` bytes behind it.
    fn try_take_mark(&mut self, more: u64) -> bool {
        let end = self.offset + HEADER_BYTES;
        let fits = end + more + self.index_bytes + PAGE_BYTES <= self.segment_bytes;
        if fits {
            self.offset = end;
        }
        fits
    }

    /// Takes the place of a frame that was found on disk; false if no writer would have put it there.
    pub(crate) fn take_found(&mut self, header: &Header, index_bytes: u64) -> bool {
        match header.kind {
            FrameKind::Mark if header.closed => self.try_take_mark(0),
            // The mark of a close can follow any other.
            FrameKind::Mark => self.try_take_mark(HEADER_BYTES),
            _ => self.take(header.frame_bytes(), index_bytes),
        }
    }

    /// With `bytes` more, and `index_bytes` more of the index, less than an eighth of the segment would be left for frames.
    pub(crate) fn is_in_last_eighth(&self, bytes: u64, index_bytes: u64) -> bool {
        let taken = self.offset + bytes + self.index_bytes + index_bytes;
        taken + self.segment_bytes / 8 > self.segment_bytes - PAGE_BYTES
    }
}

/// The largest entry for segments of `segment_bytes`.
pub(crate) fn entry_bytes_max(segment_bytes: u64) -> u64 {
    ENTRY_BYTES_MAX.min(segment_bytes / 4)
}

/// The largest state for segments of `segment_bytes`.
pub(crate) fn state_bytes_max(segment_bytes: u64) -> u64 {
    STATE_BYTES_MAX.min(segment_bytes / 8)
}

/// The largest checkpoint body: a quarter of a segment, so that most of each segment is for entries. In the smallest
/// segments it still leaves room for the largest entry, and for the first frame of an opening.
pub(crate) fn checkpoint_bytes_max(segment_bytes: u64) -> u64 {
    let entry = frame::frame_bytes(4 + entry_bytes_max(segment_bytes)) + HEADER_BYTES;
    let start = frame::frame_bytes(START_BODY_BYTES);
    let index = index::LOG_BYTES + index::FRAME_BYTES;
    let room = segment_bytes - 2 * PAGE_BYTES - MARKS_BYTES - index - start - entry;
    (segment_bytes / 4).min(room - HEADER_BYTES - 8)
}

/// The file of segment `sequence`.
pub(crate) fn file_name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// The name under which segment `sequence` is prepared.
pub(crate) fn temporary_name(sequence: u64) -> String {
    format!("{sequence:016x}.new")
}

/// The sequence number in a segment's file name.
pub(crate) fn sequence_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

/// The name of a freed segment's file that waits to be used again.
pub(crate) fn spare_name(sequence: u64) -> String {
    format!("{sequence:016x}.spare")
}

/// A segment under preparation, left by a stop.
pub(crate) fn is_temporary(name: &str) -> bool {
    has_name(name, ".new", temporary_name)
}

/// A file that waits to be used again.
pub(crate) fn is_spare(name: &str) -> bool {
    has_name(name, ".spare", spare_name)
}

fn has_name(name: &str, suffix: &str, named: fn(u64) -> String) -> bool {
    name.strip_suffix(suffix).is_some_and(|digits| {
        u64::from_str_radix(digits, 16).is_ok_and(|sequence| named(sequence) == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;

    #[test]
    fn a_place_gives_back_what_was_put_in() {
        for (sequence, offset) in [(1, 4096), (1 << 36, (1 << 30) - 8), (0, 0)] {
            let place = Place::new(sequence, offset);
            assert_eq!((place.sequence(), place.offset()), (sequence, offset));
        }
    }

    #[test]
    fn only_exact_names_are_segments() {
        assert_eq!(sequence_of("00000000000000ff.wal"), Some(255));
        for name in
            ["ff.wal", "00000000000000FF.wal", "00000000000000ff.new", "+0000000000000ff.wal"]
        {
            assert_eq!(sequence_of(name), None, "{name}");
        }
        assert!(is_temporary("00000000000000ff.new") && !is_temporary("notes.new"));
        assert!(is_spare("00000000000000ff.spare") && !is_spare("ff.spare"));
        assert!(!is_spare("00000000000000ff.new") && !is_temporary("00000000000000ff.wal"));
    }

    /// WAL-CASE 30: the arithmetic; frames around the end are in `tests/`.
    #[test]
    fn a_frame_goes_in_exactly_when_two_marks_the_index_and_the_trailer_still_fit() {
        let size = 16 << 10;
        let most = size - 2 * PAGE_BYTES - MARKS_BYTES - 40;
        assert!(Room::empty(size).take(most, 40));
        assert!(!Room::empty(size).take(most + 8, 40) && !Room::empty(size).take(most, 48));
        let full = || {
            let mut room = Room::empty(size);
            assert!(room.take(most, 40));
            room
        };
        let mut room = full();
        room.take_mark();
        room.take_mark();
        assert_eq!((room.offset, room.index_bytes), (size - PAGE_BYTES - 40, 40));
        assert!(!room.try_take_mark(0), "there is room for two and no more");

        // The same of what is found: behind an idle mark the mark of a close must fit.
        let idle = Header::new(FrameKind::Mark, LogId(0), &[]);
        let closed = Header { closed: true, ..idle };
        let mut room = full();
        assert!(room.take_found(&idle, 0) && !room.take_found(&idle, 0));
        assert!(room.take_found(&closed, 0) && !room.take_found(&closed, 0));
        let body = vec![0; usize::try_from(most - HEADER_BYTES).expect("64-bit only")];
        let state = Header::new(FrameKind::State, LogId(1), &body);
        assert!(Room::empty(size).take_found(&state, 40));
        assert!(!Room::empty(size).take_found(&state, 48));
    }

    #[test]
    fn the_last_eighth_begins_an_eighth_before_the_trailer() {
        let size = 64 << 10;
        let begins = size - PAGE_BYTES - size / 8;
        let room = Room { offset: begins - 100, ..Room::empty(size) };
        assert!(!room.is_in_last_eighth(100, 0) && room.is_in_last_eighth(101, 0));
        assert!(!room.is_in_last_eighth(60, 40) && room.is_in_last_eighth(60, 41));
    }

    #[test]
    fn limits_follow_from_the_size_of_a_segment() {
        assert_eq!(entry_bytes_max(16 << 10), 4 << 10);
        assert_eq!(entry_bytes_max(1 << 30), 16 << 20);
        assert_eq!(state_bytes_max(16 << 10), 2 << 10);
        assert_eq!(state_bytes_max(64 << 20), 4 << 10);
        assert_eq!(checkpoint_bytes_max(64 << 20), 16 << 20);
        // Of the smallest segments the largest entry leaves less than a quarter.
        assert_eq!(checkpoint_bytes_max(16 << 10), 3720);
    }

    #[test]
    fn the_largest_entry_fits_beside_the_largest_checkpoint() {
        for size in [16 << 10, 20 << 10, 64 << 10, 64 << 20, 1 << 30] {
            let mut room = Room::empty(size);
            assert!(room.take(frame::frame_bytes(START_BODY_BYTES), 0));
            assert!(room.take(frame::frame_bytes(checkpoint_bytes_max(size)), 0));
            assert!(room.take(HEADER_BYTES, 0));
            assert!(room.take(frame::frame_bytes(4 + entry_bytes_max(size)), 40));
        }
    }
}
