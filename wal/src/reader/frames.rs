//! One frame, read from a segment's file and checked.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    ReadError,
    frame::{self, FrameFault, HEADER_BYTES, Header},
    recovery::scan::Fault,
    segment::{FRAMES_AT, PAGE_BYTES, Segment},
};

/// How a segment's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// As a view of the file's map.
    Mapped,
    /// Through the file, by copy.
    Copied,
}

/// The frame at `offset`, checked.
pub(crate) fn read_frame(
    segment: &Segment,
    access: Access,
    offset: u64,
) -> Result<(Header, Bytes), ReadError> {
    let frames_end = segment.bytes - PAGE_BYTES;
    if offset < FRAMES_AT || offset + HEADER_BYTES > frames_end {
        return Err(misplaced(segment, FRAMES_AT, offset));
    }
    let head = read_bytes(segment, offset..offset + HEADER_BYTES, access)?;
    let header = header_at(segment, offset, &head, frames_end)?;
    let body = offset + HEADER_BYTES..offset + header.frame_bytes();
    let body = read_bytes(segment, body, access)?;
    check_body(segment, offset, header, &body)?;
    Ok((header, body))
}

pub(super) fn misplaced(segment: &Segment, start: u64, offset: u64) -> ReadError {
    let (what, expected, found) = ("place of a frame", start, offset);
    Fault { offset, what, expected, found, header: None }.in_segment(segment.name()).into()
}

/// The header in `head`, which lies at `offset`, of a frame that ends at `end` at the latest.
pub(super) fn header_at(
    segment: &Segment,
    offset: u64,
    head: &[u8],
    end: u64,
) -> Result<Header, ReadError> {
    let head = head.first_chunk().expect("as long as a header");
    let header = Header::decode(head, segment.salt, offset);
    header.filter(|header| offset + header.frame_bytes() <= end).ok_or_else(|| {
        let FrameFault { what, expected, found } = frame::header_fault(head, segment.salt, offset);
        let header = Header::before_a_flip(head, segment.salt, offset);
        let (expected, found) = (expected.into(), found.into());
        Fault { offset, what, expected, found, header }.in_segment(segment.name()).into()
    })
}

/// Each time that it is read, also of a frame that this process wrote: pages leave the cache, and come back as the disk has
/// them.
pub(super) fn check_body(
    segment: &Segment,
    offset: u64,
    header: Header,
    body: &[u8],
) -> Result<(), ReadError> {
    let Some(FrameFault { what, expected, found }) = header.body_fault(body) else { return Ok(()) };
    let (expected, found) = (expected.into(), found.into());
    Err(Fault { offset, what, expected, found, header: Some(header) }
        .in_segment(segment.name())
        .into())
}

/// Bytes of a segment's file.
pub(crate) fn read_bytes(
    segment: &Segment,
    range: Range<u64>,
    access: Access,
) -> Result<Bytes, ReadError> {
    let read = match access {
        Access::Mapped => Arc::clone(&segment.file).view(range),
        Access::Copied => {
            let length = usize::try_from(range.end - range.start).expect("64-bit only");
            let mut copy = vec![0; length];
            segment.file.read_at(range.start, &mut copy).map(|()| Bytes::from(copy))
        }
    };
    read.map_err(|source| ReadError::Io { segment: segment.name(), source: Arc::new(source) })
}
