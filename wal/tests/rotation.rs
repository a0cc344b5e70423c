//! Going on in the next segment.

use std::{sync::Arc, time::Duration};

use kontiki_disk::MemoryDisk;
use kontiki_wal::{AppendError, Log, LogId, Wal};

/// Appends until an append is refused; how many were taken.
fn fill(log: &Log) -> usize {
    let mut taken = 0;
    loop {
        match log.push(vec![7; 500]) {
            Ok(_) => taken += 1,
            Err(AppendError::Full { .. }) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_rotation_that_had_to_wait_is_counted_once_and_one_that_had_not_is_not_counted() {
    let options = Wal::options().segment_bytes(64 << 10).without_threads();
    let wal = options.disk(Arc::new(MemoryDisk::new())).open("log").expect("a fresh log");
    let log = wal.log(LogId(1)).expect("an open log");
    assert!(fill(&log) > 10);
    assert_eq!(fill(&log) + fill(&log), 0, "the next segment is not ready");
    assert_eq!(wal.statistics().rotation_waits, 1);

    wal.work(Duration::ZERO);
    while wal.statistics().segments < 4 {
        drop(log.push(vec![7; 500]).unwrap());
        wal.work(Duration::ZERO);
    }
    assert_eq!(wal.statistics().rotation_waits, 1, "the successors were made ahead");

    fill(&log);
    assert_eq!(wal.statistics().rotation_waits, 2);
}
