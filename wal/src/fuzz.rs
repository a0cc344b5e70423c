//! The decoders, for the fuzz targets in `tools/fuzz`. No part of the API. What is said about a decoded structure goes into
//! room that the caller has made, so that he can tell what the decoder itself takes.

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::{
    LogId, checkpoint,
    frame::{Header, entry_range},
    header::SegmentHeader,
    index::SealedIndex,
    segment::PAGE_BYTES,
    trailer::Trailer,
};

/// A frame that was decoded.
#[derive(Debug)]
pub struct Frame {
    /// Its header, encoded again.
    pub header: [u8; 48],
    /// Length of its body.
    pub body_bytes: usize,
}

/// The whole frame at the start of `bytes`; where its entries lie in the body goes to `entries`.
pub fn frame(
    bytes: &[u8],
    salt: u32,
    offset: u64,
    entries: &mut Vec<Range<usize>>,
) -> Option<Frame> {
    let header = Header::decode(bytes.first_chunk()?, salt, offset)?;
    let encoded = header.encode(salt, offset);
    let padded = bytes.get(encoded.len()..usize::try_from(header.frame_bytes()).ok()?)?;
    if header.body_fault(padded).is_some() {
        return None;
    }
    let body = &padded[..usize::try_from(header.body_len).ok()?];
    entries.extend((0..header.count).map(|number| entry_range(body, header.count, number)));
    Some(Frame { header: encoded, body_bytes: body.len() })
}

/// The checkpoint in `body`, encoded again into `encoded`.
pub fn checkpoint(body: &Bytes, encoded: &mut Vec<u8>) -> Option<()> {
    let checkpoint = checkpoint::decode(body)?;
    checkpoint::encode_segments(0, &checkpoint.segments, encoded);
    let mut logs = 0;
    for (log, bounds) in checkpoint.into_logs() {
        logs += 1;
        checkpoint::encode_log(log, &bounds, encoded);
    }
    LittleEndian::write_u32(encoded, logs);
    Some(())
}

/// The trailer in `page`, encoded again, and where it says that its segment's index lies.
pub fn trailer(page: &[u8], salt: u32, sequence: u64, bytes: u64) -> Option<(Vec<u8>, Range<u64>)> {
    let trailer = Trailer::decode(page, salt, sequence, bytes)?;
    Some((trailer.encode(salt), trailer.index_at(bytes)..bytes - PAGE_BYTES))
}

/// First index and end of the frame in which the index in `bytes` locates each of `wanted`, into `located`.
pub fn index(
    bytes: &[u8],
    logs: u32,
    frames: u32,
    wanted: &[(u32, u64)],
    located: &mut Vec<Option<Range<u64>>>,
) -> Option<()> {
    let index = SealedIndex::new(Bytes::copy_from_slice(bytes), logs, frames)?;
    let locate = |&(log, wanted)| index.locate(LogId(log), wanted);
    located.extend(wanted.iter().map(locate).map(|found| found.map(|at| at.first..at.end)));
    Some(())
}

/// Whether `page` is the header page of a segment with this number and length.
pub fn header_page(page: &[u8], sequence: u64, bytes: u64) -> bool {
    SegmentHeader::decode(page, "a segment", sequence, bytes).is_ok()
}
