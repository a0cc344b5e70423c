//! Walking segments in the order of their LSNs: up to where whole frames end, and what lies behind.

use crate::{
    Corruption, LogId, Lsn, OpenError,
    catalog::{Catalog, Change},
    checkpoint::{self, Checkpoint},
    frame::{FrameKind, Header},
    recovery::scan::{Fault, Found, SegmentFile, Window},
    segment::{FRAMES_AT, Last, PAGE_BYTES, Place, Room, START_BODY_BYTES, Segment, lsn_at},
};

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

/// What a walk gathers.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) catalog: Catalog,
    /// Segments passed, with their places in the stream.
    pub(crate) segments: Vec<Segment>,
    /// A damaged body below this LSN does not end the walk, since its header tells where the next
    /// frame lies. 0 but for reading only.
    pub(crate) follow_until: Lsn,
    /// The damaged bodies that were followed.
    pub(crate) damage: Vec<Corruption>,
}

/// Where whole frames end.
#[derive(Debug)]
pub(crate) struct End {
    /// Which of the walked segments.
    pub(crate) number: usize,
    pub(crate) offset: u64,
    pub(crate) lsn: Lsn,
    /// Length of the index of that segment, at most.
    pub(crate) index_bytes: u64,
    /// That segment is sealed, and the next one has no whole first frames: it is begun anew.
    pub(crate) is_sealed: bool,
    /// The last whole frame; `None` at the very beginning of a log.
    pub(crate) last: Option<Found>,
    /// The largest watermark passed.
    pub(crate) watermark: Lsn,
    /// End of the last whole frame that is no mark.
    pub(crate) changed: Lsn,
    /// What was found instead of another frame, and in which of the walked segments: the next one, if its first frames
    /// are damaged.
    pub(crate) fault: Fault,
    pub(crate) fault_number: usize,
}

/// What lies behind the end: headers that are whole by themselves.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// The largest watermark in one of them.
    pub(crate) watermark: Lsn,
    /// End of the last frame they speak of in the end's segment.
    pub(crate) frames_end: u64,
    pub(crate) headers: u64,
}

/// The two frames at the start of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) base: Lsn,
    pub(crate) checkpoint: Checkpoint,
    start: Found,
    last: Found,
}

/// What the frame after the last of a segment must say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) base: Lsn,
    pub(crate) previous: u64,
    pub(crate) link: u32,
}

impl Gathered {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self { catalog, segments: Vec::new(), follow_until: Lsn(0), damage: Vec::new() }
    }

    /// Walks `files`, whose numbers follow each other and of which the first begins with `opening`, up to where whole frames
    /// end.
    pub(crate) fn walk(
        &mut self,
        files: &[SegmentFile],
        mut opening: Opening,
    ) -> Result<End, OpenError> {
        let mut number = 0;
        loop {
            let file = &files[number];
            let mut end = self.walk_segment(file, number, opening)?;
            let Some(next) = files.get(number + 1) else { return Ok(end) };
            end.is_sealed = file.trailer.is_some_and(|trailer| trailer.end() == end.lsn);
            let last = end.last.as_ref().expect("a segment that was walked has frames");
            let previous = file.header.sequence;
            let expected = Expected { base: end.lsn, previous, link: last.crc };
            match read_opening(next, Some(expected))? {
                // Whatever lies behind the end before it: who begins a segment there appends nothing in the one before.
                Ok(opened) => {
                    self.compare(next, &opened);
                    opening = opened;
                }
                Err(fault) => {
                    // One that follows proves that end. One whose start frame is whole, and only does not follow, tells that
                    // something is wrong there; and so do a frame, or whole ones in between, and the segment's trailer.
                    let follows = fault.offset > FRAMES_AT;
                    let is_short = file.trailer.is_some_and(|trailer| trailer.end() > end.lsn);
                    let tells = is_short || end.fault.header.is_some();
                    let is_damaged = || match read_opening(next, None) {
                        Ok(Err(alone)) => Ok(alone.offset == FRAMES_AT),
                        read => read.map(|_| false),
                    };
                    let is_hidden =
                        !end.is_sealed && behind(&files[number..=number], end.offset)?.headers > 0;
                    if follows || !tells && !is_hidden && is_damaged()? {
                        (end.fault, end.fault_number) = (fault, number + 1);
                    }
                    return Ok(end);
                }
            }
            let (frames_end, crc) = (end.offset, last.crc);
            self.segments.last_mut().expect("walked").last = Some(Last { frames_end, crc });
            self.catalog.open_segment(next.header.sequence);
            number += 1;
        }
    }

    /// A checkpoint is what the frames before it say, if they could all be taken in.
    fn compare(&mut self, file: &SegmentFile, opening: &Opening) {
        if self.damage.is_empty() {
            let fault = opening.checkpoint_fault(crc32fast::hash(&self.catalog.checkpoint()));
            self.damage.extend(fault.map(|fault| file.corruption(&fault)));
        }
    }

    fn walk_segment(
        &mut self,
        file: &SegmentFile,
        number: usize,
        opening: Opening,
    ) -> Result<End, OpenError> {
        let segment = Segment::new(&file.header, opening.base, file.file.clone());
        let mut offset = opening.frames_end();
        let mut room = Room { segment_bytes: segment.bytes, offset, index_bytes: 0 };
        let mut watermark = opening.start.header.durable_lsn.max(opening.last.header.durable_lsn);
        let mut last = opening.last;
        let mut changed = segment.lsn(offset);
        let mut window = Window::new(file);
        let fault = loop {
            let lsn = segment.lsn(offset);
            if file.trailer.is_some_and(|trailer| offset >= trailer.frames_end) {
                break Fault { offset, what: "a frame", expected: 0, found: 0, header: None };
            }
            let found = match window.frame(offset, Some(last.crc), Some(lsn))? {
                Err(fault) => break fault,
                Ok(found) => found,
            };
            if let Some(fault) = &found.fault {
                if lsn >= self.follow_until {
                    break fault.clone();
                }
                self.damage.push(file.corruption(fault));
            }
            let body = window.body(&found)?;
            if let Err(fault) = self.take_found(&found, body, &segment, &mut room) {
                break fault;
            }
            offset += found.header.frame_bytes();
            watermark = watermark.max(found.header.durable_lsn);
            if found.header.kind != FrameKind::Mark {
                changed = segment.lsn(offset);
            }
            last = found;
        };
        let lsn = segment.lsn(offset);
        self.segments.push(segment);
        let (index_bytes, is_sealed) = (room.index_bytes, false);
        let (last, fault_number) = (Some(last), number);
        Ok(End {
            number,
            offset,
            lsn,
            index_bytes,
            is_sealed,
            last,
            watermark,
            changed,
            fault,
            fault_number,
        })
    }

    /// Takes in a frame that was found in `segment` behind those before; `Err` says why no writer would have put it there.
    pub(super) fn take_found(
        &mut self,
        found: &Found,
        body: &[u8],
        segment: &Segment,
        room: &mut Room,
    ) -> Result<(), Fault> {
        let Found { offset, header, .. } = *found;
        let wrong = |what, expected, value| {
            Err(Fault { offset, what, expected, found: value, header: Some(header) })
        };
        let frame_end = offset + header.frame_bytes();
        let index_bytes = match header.kind {
            FrameKind::Entries => self.catalog.index_bytes(header.log),
            _ => 0,
        };
        if !room.take_found(&header, index_bytes) {
            return wrong(NO_ROOM, segment.bytes, frame_end);
        }
        if found.fault.is_some() && matches!(header.kind, FrameKind::State | FrameKind::Freed) {
            // What the body said is not believed: the state before stands, and so do the segments.
            return Ok(());
        }
        let place = Place::new(segment.sequence, offset);
        let taken = self.take(found, body, place, segment.lsn(frame_end));
        taken.or_else(|(what, expected, value)| wrong(what, expected, value))
    }

    /// Takes a whole frame in; `Err` says why it cannot follow what was passed, and in which number, if it is one.
    fn take(
        &mut self,
        found: &Found,
        body: &[u8],
        place: Place,
        end: Lsn,
    ) -> Result<(), (&'static str, u64, u64)> {
        let without_numbers = |what| (what, 0, 0);
        if found.header.kind == FrameKind::Freed {
            return self.free(body).map_err(without_numbers);
        }
        let change = change(&found.header, body).map_err(without_numbers)?;
        let Some(change) = change else { return Ok(()) };
        let log = found.header.log;
        let order = self.catalog.check(log, &change);
        order.map_err(|_| without_numbers("order of a log's frames"))?;
        self.check_term_before(log, &change)?;
        self.catalog.apply(log, change, place, end);
        Ok(())
    }

    /// The term before what a compaction keeps is that of the entry that lies there. Who writes one takes it from the log, so
    /// the catalog does not ask; with a higher one the next checkpoint could not be read.
    fn check_term_before(
        &self,
        log: LogId,
        change: &Change,
    ) -> Result<(), (&'static str, u64, u64)> {
        let Change::Compact { first, term_before } = *change else { return Ok(()) };
        let before = first.checked_sub(1).and_then(|index| self.catalog.bounds(log).term(index));
        match before {
            Some(term) if term != term_before => {
                Err(("term before what a compaction keeps", term, term_before))
            }
            _ => Ok(()),
        }
    }

    /// Segments go. That nothing in them lives is not checked here: what replaced it can lie in a segment that is freed
    /// further on, and not there any more. At the end no live entry may be in a freed segment.
    fn free(&mut self, body: &[u8]) -> Result<(), &'static str> {
        let freed: Vec<u64> = body.chunks_exact(8).map(LittleEndian::read_u64).collect();
        if !body.len().is_multiple_of(8) || !self.catalog.segments.can_free(&freed) {
            return Err("numbers of freed segments");
        }
        self.catalog.segments.free(&freed);
        Ok(())
    }
}

impl Opening {
    /// Where the two frames end.
    pub(super) fn frames_end(&self) -> u64 {
        self.last.offset + self.last.header.frame_bytes()
    }

    /// The smaller one of the two.
    pub(super) fn watermark(&self) -> Lsn {
        self.start.header.durable_lsn.min(self.last.header.durable_lsn)
    }

    /// Something is wrong with where the segment begins.
    pub(super) fn fault(&self, what: &'static str, expected: u64, found: u64) -> Fault {
        Fault { offset: FRAMES_AT, what, expected, found, header: Some(self.start.header) }
    }

    /// What is wrong with the checkpoint if the frames before it make one with checksum `said`.
    pub(super) fn checkpoint_fault(&self, said: u32) -> Option<Fault> {
        let Found { offset, header, .. } = self.last;
        let (expected, found) = (said.into(), header.body_crc.into());
        let what = "checkpoint of the frames before it";
        (expected != found).then_some(Fault { offset, what, expected, found, header: Some(header) })
    }
}

impl End {
    /// A log whose first segment has not even its first two frames.
    pub(crate) fn nothing(fault: Fault) -> Self {
        let (offset, lsn) = (FRAMES_AT, Lsn(0));
        Self {
            number: 0,
            offset,
            lsn,
            index_bytes: 0,
            is_sealed: false,
            last: None,
            watermark: Lsn(0),
            changed: Lsn(0),
            fault,
            fault_number: 0,
        }
    }

    /// Where the log goes on: the number of the segment, and the offset in it.
    pub(crate) fn resume(&self) -> (usize, u64) {
        if self.is_sealed { (self.number + 1, FRAMES_AT) } else { (self.number, self.offset) }
    }
}

/// Every whole header from `offset` of the first of `files` on.
pub(crate) fn behind(files: &[SegmentFile], offset: u64) -> Result<Behind, OpenError> {
    let mut behind = Behind::default();
    for (number, file) in files.iter().enumerate() {
        let start = if number == 0 { offset } else { FRAMES_AT };
        let base = read_opening(file, None)?.map_or(None, |opening| Some(opening.base));
        Window::new(file).whole_headers(start, |at, header| {
            // No frame was written with a watermark above its own LSN.
            if base.is_some_and(|base| lsn_at(base, at) < header.durable_lsn) {
                return Ok(());
            }
            behind.headers += 1;
            behind.watermark = behind.watermark.max(header.durable_lsn);
            if number == 0 {
                behind.frames_end = behind.frames_end.max(at + header.frame_bytes());
            }
            Ok(())
        })?;
    }
    Ok(behind)
}

/// Where a segment begins in the stream, as its trailer or its first frame alone says, or the trailer of the file `before`.
pub(crate) fn base(
    file: &SegmentFile,
    before: Option<&SegmentFile>,
) -> Result<Option<Lsn>, OpenError> {
    if let Some(trailer) = file.trailer {
        return Ok(Some(trailer.base));
    }
    let mut window = Window::in_steps(file, PAGE_BYTES);
    let Ok(start) = whole(window.frame(FRAMES_AT, None, None)?, FrameKind::SegmentStart) else {
        let before = before.filter(|before| before.header.sequence + 1 == file.header.sequence);
        return Ok(before.and_then(|before| before.trailer).map(|trailer| trailer.end()));
    };
    let base = window.body(&start)?.get(16..24).map(LittleEndian::read_u64);
    // No frame of it may lie beyond all LSNs.
    Ok(base.filter(|base| base.checked_add(1 << 40).is_some()).map(Lsn))
}

/// Whether a segment's first group was durable, as its frames alone tell: one that is of a later group was written after that.
pub(crate) fn is_begin_attested(file: &SegmentFile) -> Result<bool, OpenError> {
    let (mut group, mut has_later) = (None, false);
    Window::new(file).whole_headers(FRAMES_AT, |_, header| {
        has_later |= *group.get_or_insert(header.durable_lsn) != header.durable_lsn;
        Ok(())
    })?;
    Ok(has_later)
}

/// The two frames that a segment begins with; `Err` in the inner result says what is wrong with them.
pub(crate) fn read_opening(
    file: &SegmentFile,
    expected: Option<Expected>,
) -> Result<Result<Opening, Fault>, OpenError> {
    let mut window = Window::new(file);
    let link = expected.as_ref().map(|expected| expected.link);
    let start = match whole(window.frame(FRAMES_AT, link, None)?, FrameKind::SegmentStart) {
        Ok(start) => start,
        Err(fault) => return Ok(Err(fault)),
    };
    let wrong = |found: &Found, what, expected, value| Fault {
        offset: found.offset,
        what,
        expected,
        found: value,
        header: Some(found.header),
    };
    let body = window.body(&start)?;
    if body.len() as u64 != START_BODY_BYTES || body[..16] != file.header.uuid {
        return Ok(Err(wrong(
            &start,
            "body of a segment-start frame",
            START_BODY_BYTES,
            body.len() as u64,
        )));
    }
    let base = Lsn(LittleEndian::read_u64(&body[16..24]));
    let previous = LittleEndian::read_u64(&body[24..32]);
    if let Some(expected) = expected {
        if base != expected.base {
            return Ok(Err(wrong(&start, "base LSN of a segment", expected.base.0, base.0)));
        }
        if previous != expected.previous {
            return Ok(Err(wrong(&start, "segment before a segment", expected.previous, previous)));
        }
    }
    let offset = FRAMES_AT + start.header.frame_bytes();
    let lsn =
        base.0.checked_add(offset - FRAMES_AT).filter(|lsn| lsn.checked_add(1 << 40).is_some());
    let (Some(lsn), true) = (lsn, start.header.durable_lsn <= base) else {
        return Ok(Err(wrong(&start, "watermark of a frame", base.0, start.header.durable_lsn.0)));
    };
    let found = window.frame(offset, Some(start.crc), Some(Lsn(lsn)))?;
    let last = match whole(found, FrameKind::Checkpoint) {
        Ok(last) => last,
        Err(fault) => return Ok(Err(fault)),
    };
    let mut room = Room::empty(file.header.segment_bytes);
    if !room.take_found(&start.header, 0) || !room.take_found(&last.header, 0) {
        let end = last.offset + last.header.frame_bytes();
        return Ok(Err(wrong(&last, NO_ROOM, file.header.segment_bytes, end)));
    }
    let body = Bytes::copy_from_slice(window.body(&last)?);
    let Some(checkpoint) = checkpoint::decode(&body) else {
        return Ok(Err(wrong(&last, "body of a checkpoint", 0, 0)));
    };
    let sequence = file.header.sequence;
    if let Some(run) = checkpoint.segments.last().filter(|run| run.1 >= sequence) {
        return Ok(Err(wrong(&last, "older segments in a checkpoint", sequence, run.1)));
    }
    Ok(Ok(Opening { base, checkpoint, start, last }))
}

fn whole(found: Result<Found, Fault>, kind: FrameKind) -> Result<Found, Fault> {
    let found = found?;
    if let Some(fault) = found.fault {
        return Err(fault);
    }
    if found.header.kind != kind {
        let (expected, value) = (kind as u8, found.header.kind as u8);
        return Err(Fault {
            offset: found.offset,
            what: "kind of a frame",
            expected: expected.into(),
            found: value.into(),
            header: Some(found.header),
        });
    }
    Ok(found)
}

/// The change that a whole frame makes; `None` for a mark.
fn change(header: &Header, body: &[u8]) -> Result<Option<Change>, &'static str> {
    let (first, term) = (header.first_index, header.term);
    Ok(Some(match header.kind {
        FrameKind::SegmentStart | FrameKind::Checkpoint | FrameKind::Freed => {
            return Err("kind of a frame");
        }
        FrameKind::Mark | FrameKind::Opened => return Ok(None),
        FrameKind::Entries => Change::Entries { first, count: header.count, term },
        FrameKind::State => Change::State(Bytes::copy_from_slice(body)),
        FrameKind::Truncate => Change::Truncate { first },
        FrameKind::Compact => Change::Compact { first, term_before: term },
        FrameKind::Reset => Change::Reset { next: first, term_before: term },
        FrameKind::Forget => Change::Forget,
    }))
}

const NO_ROOM: &str = "room for a frame, two marks, the index and the trailer";

#[cfg(test)]
mod tests;
