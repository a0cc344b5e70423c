use std::path::Path;

use kontiki_disk::{Access, Disk, MemoryDisk};

use super::*;
use crate::{
    LogId, frame, frame::HEADER_BYTES, header::SegmentHeader, segment::checkpoint_bytes_max,
};

const SEGMENT_BYTES: u64 = 16 << 10;
const SEQUENCE: u64 = 5;
const BASE: u64 = 4096;
const UUID: [u8; 16] = *b"a log's identity";

/// The first two frames of segment 5, as a writer would make them until a test changes something.
struct Draft {
    uuid: [u8; 16],
    base: u64,
    previous: u64,
    /// Behind the start frame's body.
    more: &'static [u8],
    start: Header,
    checkpoint_body: Vec<u8>,
    checkpoint: Header,
}

impl Draft {
    fn new() -> Self {
        let mut checkpoint_body = Vec::new();
        checkpoint::encode_segments(0, &[(2, 4)], &mut checkpoint_body);
        let header = |kind| Header::new(kind, LogId(0), &[]);
        Self {
            uuid: UUID,
            base: BASE,
            previous: SEQUENCE - 1,
            more: &[],
            start: Header { link: 77, ..header(FrameKind::SegmentStart) },
            checkpoint_body,
            checkpoint: header(FrameKind::Checkpoint),
        }
    }

    /// Lays the frames into a file; bodies, their lengths and their checksums are filled in, and the second link.
    fn lay(&self) -> SegmentFile {
        let uuid = UUID;
        let header = SegmentHeader {
            uuid,
            sequence: SEQUENCE,
            segment_bytes: SEGMENT_BYTES,
            owner: [0; 32],
        };
        let salt = frame::salt(&uuid, SEQUENCE);
        let mut body = self.uuid.to_vec();
        body.extend_from_slice(&self.base.to_le_bytes());
        body.extend_from_slice(&self.previous.to_le_bytes());
        body.extend_from_slice(self.more);
        let directory = MemoryDisk::new().open_directory(Path::new("log"), Access::Write).unwrap();
        let file = directory.create("5", SEGMENT_BYTES).unwrap();
        let put = |header: Header, body: &[u8], offset| {
            let made = Header::new(header.kind, header.log, body);
            let (body_len, body_crc) = (made.body_len, made.body_crc);
            let header = Header { body_len, body_crc, ..header };
            let bytes = header.encode(salt, offset);
            file.write_at(offset, &[&bytes, body]).unwrap();
            (offset + header.frame_bytes(), frame::header_crc(&bytes))
        };
        let (end, link) = put(self.start, &body, FRAMES_AT);
        let link = self.checkpoint.link ^ link;
        put(Header { link, ..self.checkpoint }, &self.checkpoint_body, end);
        SegmentFile { header, file, trailer: None, was_sealed: false, salt }
    }

    fn read(&self) -> Result<Opening, &'static str> {
        let expected = Expected { base: Lsn(BASE), previous: SEQUENCE - 1, link: 77 };
        let opening = read_opening(&self.lay(), Some(expected)).unwrap();
        opening.map_err(|fault| fault.what)
    }
}

#[test]
fn a_segment_begins_with_its_start_and_one_whole_checkpoint() {
    let opening = Draft::new().read().unwrap();
    assert_eq!(opening.base, Lsn(BASE));
    assert_eq!(opening.checkpoint.into_logs().count(), 0);
    // Nothing before it is known: then all that it says of itself is believed.
    let other = Draft { base: 8192, previous: 3, ..Draft::new() };
    assert_eq!(read_opening(&other.lay(), None).unwrap().unwrap().base, Lsn(8192));
}

/// Each of these has checksums that hold, as only a fault in a writer or a forger makes them.
#[test]
fn what_does_not_begin_a_segment_as_a_writer_would_is_named() {
    let draft = Draft::new;
    let start = |change: fn(&mut Header)| {
        let mut draft = draft();
        change(&mut draft.start);
        draft
    };
    let checkpoint = |change: fn(&mut Header)| {
        let mut draft = draft();
        change(&mut draft.checkpoint);
        draft
    };
    let body = |bytes: &[u8]| Draft { checkpoint_body: bytes.to_vec(), ..draft() };
    let listing = |run: (u64, u64)| {
        let mut bytes = Vec::new();
        checkpoint::encode_segments(0, &[run], &mut bytes);
        body(&bytes)
    };
    let cases = [
        (start(|header| header.link = 78), "link to the frame before"),
        (start(|header| header.kind = FrameKind::Checkpoint), "kind of a frame"),
        (Draft { uuid: [0; 16], ..draft() }, "body of a segment-start frame"),
        (Draft { more: &[0; 8], ..draft() }, "body of a segment-start frame"),
        (Draft { base: BASE + 8, ..draft() }, "base LSN of a segment"),
        (Draft { previous: SEQUENCE - 2, ..draft() }, "segment before a segment"),
        (start(|header| header.durable_lsn = Lsn(BASE + 8)), "watermark of a frame"),
        (checkpoint(|header| header.link = 1), "link to the frame before"),
        (checkpoint(|header| header.kind = FrameKind::Freed), "kind of a frame"),
        (checkpoint(|header| header.durable_lsn = Lsn(BASE + 88)), "watermark of a frame"),
        (body(&[0; 7]), "body of a checkpoint"),
        (body(&[0; 9]), "body of a checkpoint"),
        (listing((2, SEQUENCE)), "older segments in a checkpoint"),
    ];
    for (number, (draft, what)) in cases.iter().enumerate() {
        assert_eq!(draft.read().unwrap_err(), *what, "case {number}");
    }
    assert!(checkpoint(|header| header.durable_lsn = Lsn(BASE + 80)).read().is_ok());
    assert!(start(|header| header.durable_lsn = Lsn(BASE)).read().is_ok());
}

#[test]
fn an_opening_whose_place_cannot_be_is_none() {
    // Beyond what can be counted, and so near to it that what follows in the log would be.
    for base in [u64::MAX - 8, u64::MAX - (1 << 40)] {
        let beyond = Draft { base, ..Draft::new() };
        let fault = read_opening(&beyond.lay(), None).unwrap().unwrap_err();
        assert_eq!(fault.what, "watermark of a frame");
    }
}

#[test]
fn a_checkpoint_that_leaves_no_room_for_marks_is_none() {
    let lay = |bytes: u64| {
        let mut body = Vec::new();
        checkpoint::encode_segments(0, &[], &mut body);
        // As many bytes as there are, in the state of one log after the other.
        let mut logs = 0;
        while (body.len() as u64) < bytes {
            let left = bytes - body.len() as u64 - checkpoint::LOG_BYTES;
            let state = vec![0; usize::try_from(left.min(4096)).unwrap()];
            let bounds = crate::Bounds { state: Some(state.into()), ..crate::Bounds::default() };
            logs += 1;
            checkpoint::encode_log(LogId(logs), &bounds, &mut body);
        }
        LittleEndian::write_u32(&mut body, logs);
        let draft = Draft { checkpoint_body: body, ..Draft::new() };
        let opening = read_opening(&draft.lay(), None).unwrap();
        opening.map(drop).map_err(|fault| (fault.what, fault.expected, fault.found))
    };
    let start = 48 + START_BODY_BYTES;
    let room = SEGMENT_BYTES - 2 * 4096 - start - HEADER_BYTES - 2 * HEADER_BYTES;
    assert_eq!(lay(checkpoint_bytes_max(SEGMENT_BYTES)), Ok(()));
    assert_eq!(lay(room), Ok(()));
    let end = FRAMES_AT + start + HEADER_BYTES + room + 8;
    assert_eq!(lay(room + 8), Err((NO_ROOM, SEGMENT_BYTES, end)));
}
