//! The frames of one segment held against what else tells of them: its checkpoint, its index, its trailer, and each other.

use crate::{
    Lsn, OpenError,
    catalog::Catalog,
    frame::FrameKind,
    recovery::{
        check::{Replayed, WATERMARK_DESCENDS},
        scan::{Fault, Found, SegmentFile},
        walk::{Gathered, read_opening},
    },
    segment::{Last, PAGE_BYTES, Room, Segment},
    steps,
    trailer::Trailer,
};

/// Takes the frames of a segment in one by one.
#[derive(Debug)]
pub(super) struct Replay {
    /// The largest watermark so far.
    watermark: Lsn,
    /// `None` from the first frame on that cannot be taken in: what the logs are behind it is not known.
    state: Option<State>,
}

/// All logs as the frames so far made them.
#[derive(Debug)]
struct State {
    gathered: Gathered,
    segment: Segment,
    room: Room,
}

impl Replay {
    /// Begins with what the segment's checkpoint says.
    pub(super) fn begin(file: &SegmentFile, faults: &mut Vec<Fault>) -> Result<Self, OpenError> {
        let state = match read_opening(file, None)? {
            Ok(opening) => {
                let segment = Segment::new(&file.header, opening.base, file.file.clone());
                let (segment_bytes, offset) = (segment.bytes, opening.frames_end());
                let room = Room { segment_bytes, offset, index_bytes: 0 };
                let catalog = Catalog::restore(segment.sequence, opening.checkpoint);
                Some(State { gathered: Gathered::new(catalog), segment, room })
            }
            Err(fault) => {
                faults.push(fault);
                None
            }
        };
        Ok(Self { watermark: Lsn(0), state })
    }

    /// Takes the next frame in; what of it cannot follow the frames before.
    pub(super) fn take(&mut self, found: &Found, body: &[u8]) -> Option<Fault> {
        let header = &found.header;
        let fault = |what, expected: Lsn| {
            let (offset, expected, found) = (found.offset, expected.0, header.durable_lsn.0);
            Some(Fault { offset, what, expected, found, header: Some(*header) })
        };
        let before = self.watermark;
        self.watermark = before.max(header.durable_lsn);
        if found.fault.is_some() {
            self.state = None;
        }
        let wrong = self.state.as_mut().and_then(|state| state.take(found, body));
        if wrong.is_some() {
            self.state = None;
            return wrong;
        }
        if header.durable_lsn < before {
            return fault(WATERMARK_DESCENDS, before);
        }
        let lsn = self.state.as_ref().map(|state| state.segment.lsn(found.offset));
        match lsn.filter(|&lsn| header.kind == FrameKind::Mark && lsn != header.durable_lsn) {
            Some(lsn) => fault("watermark of a mark", lsn),
            None => None,
        }
    }

    /// After the `last` frame: what is to follow it. A trailer and an index that say something else are faults.
    pub(super) fn finish(
        self,
        file: &SegmentFile,
        last: Last,
        faults: &mut Vec<Fault>,
    ) -> Replayed {
        let watermark = self.watermark;
        let Some(State { gathered, mut segment, .. }) = self.state else {
            return Replayed { watermark, checkpoint_crc: None };
        };
        let checkpoint_crc = Some(crc32fast::hash(&gathered.catalog.checkpoint()));
        if let Some(found) = &file.trailer {
            segment.last = Some(last);
            let frames = gathered.catalog.into_frames();
            let (expected, _) = steps::describe(&segment, &frames);
            faults.extend(unlike(&expected, found, segment.bytes));
        }
        Replayed { watermark, checkpoint_crc }
    }
}

impl State {
    fn take(&mut self, found: &Found, body: &[u8]) -> Option<Fault> {
        // The first two frames are what it begins with.
        let is_behind = found.offset >= self.room.offset;
        is_behind
            .then(|| self.gathered.take_found(found, body, &self.segment, &mut self.room))?
            .err()
    }
}

/// What a trailer says that is not what the frames of its segment tell.
fn unlike(expected: &Trailer, found: &Trailer, segment_bytes: u64) -> Option<Fault> {
    if expected == found {
        return None;
    }
    let page = segment_bytes - PAGE_BYTES;
    let (offset, what, expected, found) = if expected.base != found.base {
        (page, "base LSN in a trailer", expected.base.0, found.base.0)
    } else {
        let (expected, index_crc) = (expected.index_crc, found.index_crc);
        (
            found.index_at(segment_bytes),
            "index of a segment's frames",
            expected.into(),
            index_crc.into(),
        )
    };
    Some(Fault { offset, what, expected, found, header: None })
}
