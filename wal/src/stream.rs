//! The physical stream: which frame lies where, and the bytes that wait for the disk.
//!
//! A *chunk* is what one group will write: bytes of one segment that begin where everything before is durable by the time
//! they are written, because groups go to the disk strictly one after the other and none is written after a failure. So a
//! frame's watermark is the LSN at which its chunk begins: exact, though it is encoded before that LSN is durable.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
};

use byteorder::{ByteOrder, LittleEndian};
use bytes::{Bytes, BytesMut};
use kontiki_disk::File;

use crate::{
    LogId, Lsn,
    frame::{self, FrameKind, HEADER_BYTES, Header, frame_bytes},
    header::SegmentHeader,
    segment::{
        FIRST_SEQUENCE, FRAMES_AT, Last, PAGE_BYTES, Place, Room, START_BODY_BYTES, Segment,
    },
    trailer::Trailer,
};

/// The segments, the end of the newest, and what is not durable yet.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) uuid: [u8; 16],
    pub(crate) owner: [u8; 32],
    /// Size of new segments.
    pub(crate) segment_bytes: u64,
    /// Distinguishes this opening from all others: without it the bytes that a cut frame left in some sectors could make
    /// a whole frame with the sectors of a new one that is like it.
    nonce: u64,
    /// A frame of this opening carries the nonce.
    opened: bool,
    /// Every segment with a frame, the newest one active.
    segments: BTreeMap<u64, Segment>,
    /// Length of all of them together.
    segments_bytes: u64,
    pub(crate) active: u64,
    /// The segment after the active one, once it has its name.
    pub(crate) successor: Option<Successor>,
    pub(crate) room: Room,
    /// `header_crc` of the newest frame.
    pub(crate) last_crc: u32,
    /// End of the newest frame that is no mark.
    pub(crate) changed: Lsn,
    /// The largest watermark in any frame.
    pub(crate) attested: Lsn,
    /// Everything below is durable: where the oldest bytes held here begin.
    durable: Lsn,
    /// The end of everything appended, marks included.
    end: Lsn,
    /// Never empty; the last one belongs to the active segment and takes what is appended.
    chunks: VecDeque<Chunk>,
    flight: Option<Flight>,
    /// The memory of an earlier group, for the next one: fresh memory costs a fault for each page.
    spare: BytesMut,
    /// The newest frame is the mark of a close.
    closed: bool,
}

/// A prepared segment.
#[derive(Debug)]
pub(crate) struct Successor {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
}

/// Bytes that no group has taken yet.
#[derive(Debug)]
struct Chunk {
    sequence: u64,
    offset: u64,
    /// The LSN at `offset`.
    start: Lsn,
    /// Of its segment.
    salt: u32,
    bytes: BytesMut,
    entries: u64,
    /// No one waits for these bytes.
    marks_only: bool,
}

/// The bytes of the group that is being synced.
#[derive(Debug)]
struct Flight {
    sequence: u64,
    offset: u64,
    /// Padded with zeros to a page.
    bytes: Bytes,
    /// Where the frames end and the padding begins.
    end: u64,
}

/// One write: where, and what.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) segment: Segment,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// Entries in it.
    pub(crate) entries: u64,
    /// Durable when the sync succeeds.
    pub(crate) end: Lsn,
}

/// Where a stream goes on.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) nonce: u64,
    pub(crate) room: Room,
    pub(crate) last_crc: u32,
    pub(crate) attested: Lsn,
    /// End of the last frame that is no mark: a mark that attests it is not added a second time.
    pub(crate) changed: Lsn,
    /// The last frame is the mark of a close.
    pub(crate) closed: bool,
    /// The mark of a clean close: written again by the first group.
    pub(crate) mark: Option<[u8; 48]>,
}

impl Chunk {
    /// What is appended to `segment` from `offset` on; `bytes` may hold a mark already.
    fn new(segment: &Segment, offset: u64, bytes: BytesMut) -> Self {
        let (sequence, start, salt) = (segment.sequence, segment.lsn(offset), segment.salt);
        Self { sequence, offset, start, salt, bytes, entries: 0, marks_only: true }
    }
}

impl Group {
    /// The first one of a segment that the log went on in.
    pub(crate) fn is_rotation(&self) -> bool {
        self.offset == FRAMES_AT && self.segment.sequence > FIRST_SEQUENCE
    }
}

impl Stream {
    /// A stream that goes on at `end` of the last of `segments`.
    pub(crate) fn new(
        header: &SegmentHeader,
        segment_bytes: u64,
        segments: BTreeMap<u64, Segment>,
        end: End,
    ) -> Self {
        let active = *segments.last_key_value().expect("a log has a segment").0;
        let segments_bytes = segments.values().map(|segment| segment.bytes).sum();
        let mark = end.mark.as_ref().map_or(&[][..], |mark| &mark[..]);
        let offset = end.room.offset - mark.len() as u64;
        let bytes = BytesMut::from(mark);
        let chunk = Chunk::new(&segments[&active], offset, bytes);
        let (durable, end_lsn) = (chunk.start, segments[&active].lsn(end.room.offset));
        Self {
            uuid: header.uuid,
            owner: header.owner,
            segment_bytes,
            nonce: end.nonce,
            opened: false,
            segments,
            segments_bytes,
            active,
            successor: None,
            room: end.room,
            last_crc: end.last_crc,
            changed: end.changed,
            attested: end.attested,
            durable,
            end: end_lsn,
            chunks: VecDeque::from([chunk]),
            flight: None,
            spare: BytesMut::new(),
            closed: end.closed,
        }
    }

    /// The segment that takes what is appended.
    pub(crate) fn active(&self) -> &Segment {
        self.segments.get(&self.active).expect("the active segment is among the segments")
    }

    /// The end of everything appended, marks included.
    pub(crate) fn end(&self) -> Lsn {
        self.end
    }

    /// Where the bytes begin that no group has taken.
    fn forming(&self) -> Lsn {
        self.chunks.front().expect("there is always a chunk").start
    }

    /// Up to here everything is durable.
    pub(crate) fn durable(&self) -> Lsn {
        self.durable
    }

    /// Every segment with a frame, by its number.
    pub(crate) fn segments(&self) -> &BTreeMap<u64, Segment> {
        &self.segments
    }

    /// Length of all segments together.
    pub(crate) fn segments_bytes(&self) -> u64 {
        self.segments_bytes
    }

    /// The segment's file has its index and its trailer, and the index may be read.
    pub(crate) fn seal(&mut self, sequence: u64, trailer: Trailer) {
        if let Some(segment) = self.segments.get_mut(&sequence) {
            segment.trailer = Some(trailer);
            segment.file.publish(segment.index_end());
        }
    }

    /// Takes out segments that a frame has freed.
    pub(crate) fn free(&mut self, sequences: &[u64]) -> Vec<Segment> {
        let freed: Vec<Segment> =
            sequences.iter().filter_map(|sequence| self.segments.remove(sequence)).collect();
        self.segments_bytes -= freed.iter().map(|segment| segment.bytes).sum::<u64>();
        freed
    }

    /// Something waits to be synced, other than marks.
    pub(crate) fn has_unsynced(&self) -> bool {
        self.durable() < self.changed
    }

    /// Bytes held in memory until they are durable.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.end().0 - self.durable().0
    }

    /// Everything is durable, and no frame says so of the newest group.
    pub(crate) fn needs_mark(&self) -> bool {
        self.flight.is_none() && !self.has_unsynced() && self.attested < self.changed
    }

    /// The newest frame is the mark of a close.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Appends a frame that adds `index_bytes` to the index to the active segment, whose room was checked before, and
    /// returns its place. Its body is `head` and behind it the bytes of `entries`; its link and its watermark are made here.
    pub(crate) fn push(
        &mut self,
        header: &Header,
        head: &[u8],
        entries: &[Bytes],
        index_bytes: u64,
    ) -> Place {
        let bytes = header.frame_bytes();
        let offset = self.room.offset;
        if header.kind == FrameKind::Mark {
            self.room.take_mark();
        } else {
            assert!(self.room.take(bytes, index_bytes), "the room for a frame was not checked");
        }
        self.end = Lsn(self.end.0 + bytes);
        let chunk = self.chunks.back_mut().expect("there is always a chunk");
        let header = Header { link: self.last_crc, durable_lsn: chunk.start, ..*header };
        let encoded = header.encode(chunk.salt, offset);
        chunk.bytes.extend_from_slice(&encoded);
        chunk.bytes.extend_from_slice(head);
        entries.iter().for_each(|entry| chunk.bytes.extend_from_slice(entry));
        let end = usize::try_from(offset + bytes - chunk.offset).expect("a segment fits");
        chunk.bytes.extend_from_slice(&PADDING[..end - chunk.bytes.len()]);
        chunk.entries += u64::from(header.count);
        self.last_crc = frame::header_crc(&encoded);
        self.attested = header.durable_lsn;
        self.closed = header.closed;
        if header.kind != FrameKind::Mark {
            chunk.marks_only = false;
            self.changed = self.end;
        }
        Place::new(self.active, offset)
    }

    /// Length of the frame that must come before any other, if one must.
    pub(crate) fn opened_bytes(&self) -> Option<u64> {
        (!self.opened).then_some(HEADER_BYTES)
    }

    /// Appends the first frame of this opening, if it has none yet.
    pub(crate) fn push_opened(&mut self) {
        if !self.opened {
            let header = Header::new(FrameKind::Opened, LogId(0), &[]);
            self.push(&Header { first_index: self.nonce, ..header }, &[], &[], 0);
            self.opened = true;
        }
    }

    /// Appends a mark where everything before is durable: its watermark is its own LSN.
    pub(crate) fn push_mark(&mut self, closed: bool) {
        assert!(self.flight.is_none() && self.chunks.len() == 1 && self.chunks[0].bytes.is_empty());
        self.give_back();
        let header = Header { closed, ..Header::new(FrameKind::Mark, LogId(0), &[]) };
        self.push(&header, &[], &[], 0);
    }

    /// Goes on in the successor: a segment-start frame, then `checkpoint`.
    pub(crate) fn rotate(&mut self, checkpoint: &[u8]) {
        let successor = self.successor.take().expect("rotation needs a prepared segment");
        let base = self.end();
        if self.chunks.back().is_some_and(|chunk| chunk.bytes.is_empty()) {
            self.chunks.pop_back();
        }
        let previous = self.active;
        let last = Last { frames_end: self.room.offset, crc: self.last_crc };
        self.segments.get_mut(&previous).expect("the active segment").last = Some(last);
        self.open_segment(Segment::new(&successor.header, base, successor.file));
        self.push_opening(previous, checkpoint);
    }

    fn open_segment(&mut self, segment: Segment) {
        assert!(segment.sequence == self.active + 1);
        self.active = segment.sequence;
        self.room = Room::empty(segment.bytes);
        let bytes = mem::take(&mut self.spare);
        self.chunks.push_back(Chunk::new(&segment, self.room.offset, bytes));
        self.segments_bytes += segment.bytes;
        self.segments.insert(segment.sequence, segment);
    }

    /// The two frames that every segment begins with.
    pub(crate) fn push_opening(&mut self, previous: u64, checkpoint: &[u8]) {
        let start = start_body(&self.uuid, self.active().base, previous);
        let header = Header::new(FrameKind::SegmentStart, LogId(0), &start);
        self.push(&Header { first_index: self.nonce, ..header }, &start, &[], 0);
        self.opened = true;
        let header = Header::new(FrameKind::Checkpoint, LogId(0), checkpoint);
        self.push(&header, checkpoint, &[], 0);
    }

    /// What a rotation takes of a fresh segment.
    pub(crate) fn opened_room(&self, checkpoint_bytes: u64) -> Room {
        let bytes = self
            .successor
            .as_ref()
            .map_or(self.segment_bytes, |successor| successor.header.segment_bytes);
        let mut room = Room::empty(bytes);
        let fits = room.take(frame_bytes(START_BODY_BYTES), 0)
            && room.take(frame_bytes(checkpoint_bytes), 0);
        assert!(fits, "a checkpoint is bounded by the segment");
        room
    }

    /// Takes the oldest chunk for writing, if anything but marks waits.
    pub(crate) fn begin_group(&mut self) -> Option<Group> {
        assert!(self.flight.is_none(), "one group at a time");
        let only = self.chunks.len() == 1;
        if only && self.chunks[0].marks_only {
            return None;
        }
        Some(self.begin_front())
    }

    /// Takes the mark of a close for writing.
    pub(crate) fn begin_marks(&mut self) -> Option<Group> {
        assert!(self.flight.is_none() && self.chunks.len() == 1);
        (!self.chunks[0].bytes.is_empty()).then(|| self.begin_front())
    }

    fn begin_front(&mut self) -> Group {
        let mut chunk = self.chunks.pop_front().expect("there is always a chunk");
        let end = chunk.offset + chunk.bytes.len() as u64;
        if self.chunks.is_empty() {
            let bytes = mem::take(&mut self.spare);
            self.chunks.push_back(Chunk::new(self.active(), self.room.offset, bytes));
        }
        pad(chunk.offset, &mut chunk.bytes);
        let bytes = chunk.bytes.freeze();
        let segment = self.segments[&chunk.sequence].clone();
        let (offset, entries) = (chunk.offset, chunk.entries);
        let group = Group { offset, end: segment.lsn(end), segment, bytes, entries };
        let bytes = group.bytes.clone();
        self.flight = Some(Flight { sequence: chunk.sequence, offset: chunk.offset, bytes, end });
        group
    }

    /// The mark that waits in the forming chunk, to be written without a sync. It stays there: the next group begins with it.
    pub(crate) fn idle_group(&self) -> Group {
        let chunk = self.chunks.front().expect("there is always a chunk");
        assert!(chunk.marks_only && self.chunks.len() == 1 && self.flight.is_none());
        let mut bytes = chunk.bytes.clone();
        pad(chunk.offset, &mut bytes);
        let segment = self.segments[&chunk.sequence].clone();
        let end = segment.lsn(chunk.offset);
        Group { segment, offset: chunk.offset, bytes: bytes.freeze(), entries: 0, end }
    }

    /// The group in flight is durable: its bytes may be read from the file.
    pub(crate) fn finish_group(&mut self) {
        let flight = self.flight.take().expect("a group is in flight");
        if let Some(segment) = self.segments.get(&flight.sequence) {
            segment.file.publish(flight.end);
        }
        self.durable = self.forming();
        // Nobody reads them any more, as a rule.
        if let Ok(mut room) = flight.bytes.try_into_mut()
            && room.capacity() <= SPARE_BYTES.max(4 * room.len())
        {
            room.clear();
            self.spare = room;
        }
    }

    /// Gives back the memory that groups have used: nothing has been appended for a while.
    fn give_back(&mut self) {
        self.spare = BytesMut::new();
        let chunk = self.chunks.back_mut().expect("there is always a chunk");
        chunk.bytes = BytesMut::from(&chunk.bytes[..]);
    }

    /// Drops what will never become durable.
    pub(crate) fn abandon(&mut self) {
        if let Some(flight) = &mut self.flight {
            flight.bytes = Bytes::new();
        }
        self.chunks.iter_mut().for_each(|chunk| chunk.bytes = BytesMut::new());
    }

    /// The bytes of the frame at `place`, if they are not durable yet.
    pub(crate) fn staged(&self, place: Place) -> Option<Bytes> {
        let start = |offset: u64| usize::try_from(place.offset().checked_sub(offset)?).ok();
        let end = |bytes: &[u8], start: usize| {
            let body = LittleEndian::read_u32(bytes.get(start + 12..start + 16)?);
            Some(start + usize::try_from(frame_bytes(body.into())).expect("64-bit only"))
        };
        if let Some(flight) =
            self.flight.as_ref().filter(|flight| flight.sequence == place.sequence())
            && place.offset() < flight.end
        {
            let start = start(flight.offset)?;
            return Some(flight.bytes.slice(start..end(&flight.bytes, start)?));
        }
        let mut chunks = self.chunks.iter().filter(|chunk| chunk.sequence == place.sequence());
        chunks.find_map(|chunk| {
            let start = start(chunk.offset)?;
            Some(Bytes::copy_from_slice(chunk.bytes.get(start..end(&chunk.bytes, start)?)?))
        })
    }
}

/// Behind a body, up to where the next frame begins.
const PADDING: [u8; 8] = [0; 8];

/// So much memory of an earlier group is kept in any case; more if the group filled a quarter of it, until the log is idle.
const SPARE_BYTES: usize = 4 << 20;

/// Body of a segment-start frame.
fn start_body(uuid: &[u8; 16], base: Lsn, previous: u64) -> Vec<u8> {
    let mut body = uuid.to_vec();
    body.extend_from_slice(&base.0.to_le_bytes());
    body.extend_from_slice(&previous.to_le_bytes());
    body
}

/// Zeros up to the next page, so that no page is written in part and has to be read first.
pub(crate) fn pad(offset: u64, bytes: &mut BytesMut) {
    let end = (offset + bytes.len() as u64).next_multiple_of(PAGE_BYTES);
    bytes.resize(usize::try_from(end - offset).expect("a segment fits"), 0);
}

#[cfg(test)]
mod tests;
