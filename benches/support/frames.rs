//! What our frames take on the disk, by FORMAT.md and without the log: the raw disk writes as much.

/// The bytes of a frame of `count` entries with `payload_bytes` altogether.
pub(crate) const fn frame_bytes(count: usize, payload_bytes: usize) -> usize {
    (HEADER_BYTES + TABLE_BYTES * count + payload_bytes).next_multiple_of(8)
}

const HEADER_BYTES: usize = 48;
/// For each entry.
const TABLE_BYTES: usize = 4;
