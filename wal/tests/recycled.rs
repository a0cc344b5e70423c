//! Recycling on the machine's own disk, where a view lends the file's map.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::time::Duration;

use bytes::Bytes;
use kontiki_wal::{Entry, Log, LogId, OpenError, Wal};

use support::mode;

const SEGMENT_BYTES: u64 = 16 << 10;

fn open(path: &std::path::Path) -> Result<Wal, OpenError> {
    Wal::options().segment_bytes(SEGMENT_BYTES).write_mode(mode()).without_threads().open(path)
}

/// Appends until the log goes on in so many more segments; compacts behind itself if asked to.
fn fill(wal: &Wal, log: &Log, byte: u8, entries: u64, compacts: bool) {
    for _ in 0..entries {
        log.append(log.last() + 1, 2, &[Bytes::from(vec![byte; 1000])]).unwrap().wait().unwrap();
        if compacts {
            log.compact_before(log.last()).unwrap().wait().unwrap();
        }
        wal.work(Duration::ZERO);
    }
}

fn read(log: &Log, index: u64) -> Entry {
    log.read(index..index + 1, usize::MAX).next().unwrap().unwrap()
}

/// WAL-CASE 38
#[test]
fn a_view_keeps_its_bytes_over_truncation_compaction_and_recycling_and_the_end_of_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let wal = open(&path).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    fill(&wal, &log, b'a', 3, false);
    let views: Vec<Entry> = (1..=3).map(|index| read(&log, index)).collect();
    // Two of them are replaced, then cut off.
    log.append(2, 2, &[Bytes::from(vec![b'c'; 1000])]).unwrap().wait().unwrap();
    log.truncate_after(1).unwrap().wait().unwrap();
    log.compact_before(log.last() + 1).unwrap().wait().unwrap();
    fill(&wal, &log, b'b', 100, true);
    let statistics = wal.statistics();
    assert!(statistics.recycled_segments >= 3, "{statistics:?}");
    for view in &views {
        assert!(view.bytes.iter().all(|&byte| byte == b'a'), "a view shows other bytes");
    }
    assert_eq!(statistics.pinned_segments, 1, "{statistics:?}");
    assert!(!path.join("0000000000000001.wal").exists(), "its name is gone");
    drop((wal, log));
    assert!(matches!(open(&path), Err(OpenError::Locked { .. })), "a view holds the lock");
    assert!(views[2].bytes.iter().all(|&byte| byte == b'a'));
    drop(views);
    assert!(open(&path).is_ok());
}

/// As soon as the view is gone its file may be used again, and only then.
#[test]
fn without_a_view_every_freed_segment_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let wal = open(&path).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    // Reading a sealed segment takes a view of its index, which is the log's own.
    fill(&wal, &log, b'a', 30, false);
    assert!(read(&log, 1).bytes.iter().all(|&byte| byte == b'a'));
    fill(&wal, &log, b'a', 200, true);
    let statistics = wal.statistics();
    assert_eq!(statistics.pinned_segments, 0, "{statistics:?}");
    assert!(statistics.recycled_segments >= 10, "{statistics:?}");
    let files = std::fs::read_dir(&path).unwrap().count();
    assert!(files <= 5, "the lock, a live segment or two, two spares: {files} files");
    let last = log.last();
    assert!(read(&log, last).bytes.iter().all(|&byte| byte == b'a'));
    drop((wal, log));
    let log = open(&path).unwrap().log(LogId(1)).unwrap();
    assert_eq!((log.first(), log.last()), (last, last));
}
