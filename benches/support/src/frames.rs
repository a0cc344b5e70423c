//! What our frames take on the disk, by FORMAT.md and without the log: the raw disk writes as much.

/// The bytes of a frame of `count` entries with `payload_bytes` altogether.
pub const fn frame_bytes(count: usize, payload_bytes: usize) -> usize {
    (HEADER_BYTES + TABLE_BYTES * count + payload_bytes).next_multiple_of(8)
}

/// Of every frame.
pub const HEADER_BYTES: usize = 48;
/// For each entry.
const TABLE_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kontiki_wal::{
        LogId, Wal,
        inspect::{FrameKind, Scan},
    };

    use super::*;

    #[test]
    fn the_raw_disk_of_the_benches_writes_as_much_as_our_frames_take() {
        let directory = tempfile::tempdir().unwrap();
        let wal = Wal::options().open(directory.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        let shapes = [(1, 0), (1, 128), (16, 128), (256, 128), (1024, 129), (1, 64 << 10)];
        for (count, bytes) in shapes {
            let entries = vec![Bytes::from(vec![7; bytes]); count];
            log.append(log.last() + 1, 1, &entries).unwrap().wait().unwrap();
        }
        wal.close().unwrap();

        let scan = Scan::open(directory.path()).unwrap();
        let written: Vec<u64> = scan
            .frames()
            .map(Result::unwrap)
            .filter(|frame| frame.kind == FrameKind::Entries)
            .map(|frame| frame.frame_bytes)
            .collect();
        let reckoned = shapes.map(|(count, bytes)| frame_bytes(count, count * bytes) as u64);
        assert_eq!(written, reckoned);
    }
}
