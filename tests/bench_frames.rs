//! The benches compare the log with a raw disk that writes as many bytes as the log's frames take.
//! They reckon that without the log; here it is held against what the log writes.

#![forbid(unsafe_code)]

#[path = "../benches/support/frames.rs"]
mod frames;

use bytes::Bytes;
use kontiki_wal::{
    LogId, Wal,
    inspect::{FrameKind, Scan},
};

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
    let reckoned = shapes.map(|(count, bytes)| frames::frame_bytes(count, count * bytes) as u64);
    assert_eq!(written, reckoned);
}
