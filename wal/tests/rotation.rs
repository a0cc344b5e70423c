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
            Err(AppendError::Full { .. } | AppendError::LogFull { .. }) => return taken,
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

/// At the bound of all segments, where only upkeep goes on in one more.
#[test]
fn a_rotation_by_upkeep_ends_the_wait_of_entries_and_the_next_wait_is_counted() {
    let options = Wal::options().segment_bytes(16 << 10).log_bytes_max(64 << 10).without_threads();
    let wal = options.disk(Arc::new(MemoryDisk::new())).open("log").expect("a fresh log");
    let log = wal.log(LogId(1)).expect("an open log");
    while fill(&log) > 0 {
        wal.work(Duration::ZERO);
    }
    let segments = wal.statistics().segments;
    while log.set_state(vec![1; 2000]).is_ok() {}
    wal.work(Duration::ZERO);
    assert_eq!(fill(&log), 0, "the one more is not for entries, which wait");
    drop(log.set_state(vec![1; 2000]).expect("upkeep goes on in it"));
    assert_eq!(wal.statistics().segments, segments + 1);

    let waits = wal.statistics().rotation_waits;
    assert!(fill(&log) > 0, "in what upkeep left of it");
    assert_eq!(wal.statistics().rotation_waits, waits + 1);
}
