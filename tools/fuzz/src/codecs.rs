//! The decoders by themselves.

use std::ops::Range;

use bytes::Bytes;
use kontiki_wal::fuzz as decoders;

use super::{mend, within};

/// A frame: a byte of choices, a salt, an offset, then header and body.
pub fn frame(input: &[u8]) {
    let Some((&[choices, s0, s1, s2, s3, o0, o1, o2], rest)) = input.split_first_chunk() else {
        return;
    };
    let salt = u32::from_le_bytes([s0, s1, s2, s3]);
    let offset = 8 * u64::from(u32::from_le_bytes([o0, o1, o2, 0]));
    let mut bytes = rest.to_vec();
    if choices & MEND != 0 {
        mend::frame(&mut bytes, 0, salt, offset);
    }
    let mut entries = Vec::with_capacity(bytes.len() / 4);
    let decoded = within(SLACK_BYTES, || decoders::frame(&bytes, salt, offset, &mut entries));
    let Some(decoders::Frame { header, body_bytes }) = decoded else { return };
    assert_eq!(header, bytes[..48], "a header encodes to what it was decoded from");
    assert!(48 + body_bytes <= bytes.len(), "a frame ends where its bytes end, at most");
    let mut at = 4 * entries.len();
    for entry in &entries {
        assert_eq!(entry.start, at, "entries lie one behind the other");
        at = entry.end;
    }
    assert!(entries.is_empty() || at == body_bytes, "entries fill the body");
}

/// A checkpoint's body, a trailer page, an index or a header page, as the first byte says.
pub fn codecs(input: &[u8]) {
    let Some((&choices, rest)) = input.split_first() else { return };
    match choices % 4 {
        0 => checkpoint(rest),
        1 => trailer(rest),
        2 => index(rest),
        _ => header(rest),
    }
}

fn checkpoint(body: &[u8]) {
    let mut encoded = Vec::with_capacity(body.len());
    let bytes = Bytes::copy_from_slice(body);
    let decoded = within(SLACK_BYTES + body.len(), || decoders::checkpoint(&bytes, &mut encoded));
    if decoded.is_some() {
        assert_eq!(encoded, body, "a checkpoint encodes to what it was decoded from");
    }
}

fn trailer(start: &[u8]) {
    let mut page = mend::page(start);
    mend::seal(&mut page, SALT);
    for (sequence, segment_bytes) in [(1, 16 << 10), (2, 1 << 30)] {
        let decoded = within(SLACK_BYTES + page.len(), || {
            decoders::trailer(&page, SALT, sequence, segment_bytes)
        });
        let Some((encoded, index)) = decoded else { continue };
        assert_eq!(encoded[..52], page[..52], "a trailer encodes to what it was decoded from");
        assert!(
            index.start >= 4096 && index.start <= index.end && index.end == segment_bytes - 4096
        );
    }
}

fn index(input: &[u8]) {
    let Some((&[l0, l1, f0, f1, log], bytes)) = input.split_first_chunk() else { return };
    let (logs, frames) = (u16::from_le_bytes([l0, l1]), u16::from_le_bytes([f0, f1]));
    let (logs, frames) = (u32::from(logs), u32::from(frames));
    let rows = bytes.chunks_exact(32).map(|row| (u32_at(row, 0), u64_at(row, 8), u64_at(row, 16)));
    let wanted: Vec<(u32, u64)> = rows
        .flat_map(|(log, first, end)| [(log, first), (log, end.wrapping_sub(1)), (log, end)])
        .chain([(u32::from(log), 1), (u32::MAX, u64::MAX)])
        .collect();
    let mut located = Vec::with_capacity(wanted.len());
    within(SLACK_BYTES + bytes.len(), || {
        decoders::index(bytes, logs, frames, &wanted, &mut located)
    });
    for ((_, wanted), found) in wanted.iter().zip(located) {
        let Some(Range { start, end }) = found else { continue };
        assert!((start..end).contains(wanted), "what is located holds what was wanted");
    }
}

fn header(start: &[u8]) {
    let mut page = mend::page(start);
    mend::seal(&mut page, 0);
    within(SLACK_BYTES, || decoders::header_page(&page, 1, 16 << 10));
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// The first byte of a frame's input: its checksums are mended.
const MEND: u8 = 1;
/// Any salt.
const SALT: u32 = 0x1234_5678;
/// What an error's text, a collection's first allocation and the fuzzer's own take.
const SLACK_BYTES: usize = 4 << 10;
