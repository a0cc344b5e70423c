//! Reading looks frames up in advance, and shows none that the log does not hold any more.

#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]
#![forbid(unsafe_code)]

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_disk::MemoryDisk;
use kontiki_wal::{Log, LogId, ReadError, Wal};

/// A log without threads whose work is done when a test says so.
fn wal(segment_bytes: u64) -> Wal {
    let options = Wal::options().segment_bytes(segment_bytes).without_threads();
    options.disk(Arc::new(MemoryDisk::new())).open("log").unwrap()
}

fn entry(index: u64, term: u64) -> Bytes {
    Bytes::from(format!("{index} of {term}"))
}

/// Appends each entry of `indexes` as a frame of its own, and does the log's work.
fn append(wal: &Wal, log: &Log, indexes: Range<u64>, term: u64) {
    for index in indexes {
        drop(log.append(index, term, &[entry(index, term)]).unwrap());
    }
    wal.work(Duration::ZERO);
}

fn indexes(log: &Log, range: Range<u64>) -> Vec<u64> {
    log.read(range, usize::MAX).map(|entry| entry.unwrap().index).collect()
}

/// However often the log was cut before.
#[test]
fn a_reader_that_looked_ahead_ends_where_the_log_is_cut_meanwhile() {
    for cuts_before in 0..3 {
        let wal = wal(64 << 10);
        let log = wal.log(LogId(1)).unwrap();
        for _ in 0..cuts_before {
            append(&wal, &log, 1..2, 1);
            drop(log.truncate_after(0).unwrap());
        }
        append(&wal, &log, 1..11, 1);
        let mut cut = log.read(1..11, usize::MAX);
        let mut replaced = log.read(1..11, usize::MAX);
        assert_eq!(cut.next().unwrap().unwrap().index, 1);
        assert_eq!(replaced.next().unwrap().unwrap().index, 1);
        drop(log.truncate_after(5).unwrap());
        assert!(cut.next().is_none(), "{cuts_before} cuts before");
        append(&wal, &log, 3..5, 2);
        assert!(replaced.next().is_none(), "{cuts_before} cuts before");
        assert_eq!(indexes(&log, 1..11), [1, 2, 3, 4]);
    }
}

#[test]
fn a_reader_that_looked_ahead_is_told_when_what_comes_next_is_compacted() {
    let wal = wal(64 << 10);
    let log = wal.log(LogId(1)).unwrap();
    append(&wal, &log, 1..11, 1);
    let mut entries = log.read(1..11, usize::MAX);
    assert_eq!(entries.next().unwrap().unwrap().index, 1);
    drop(log.compact_before(8).unwrap());
    let told = entries.next().unwrap().unwrap_err();
    assert!(matches!(told, ReadError::Compacted { index: 2, first: 8 }), "{told}");
    assert!(entries.next().is_none());
}

/// Its page can have left the cache since, and come back as the disk has it.
#[test]
fn what_rots_after_this_process_wrote_it_is_found_when_it_is_read() {
    let disk = MemoryDisk::new();
    let options = Wal::options().segment_bytes(64 << 10).without_threads();
    let wal = options.disk(Arc::new(disk.clone())).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    append(&wal, &log, 1..11, 1);
    assert_eq!(indexes(&log, 1..11).len(), 10);
    let bytes = disk.contents("log/0000000000000001.wal").unwrap();
    let at = bytes.windows(6).position(|window| window == b"5 of 1").unwrap();
    disk.corrupt("log/0000000000000001.wal", at as u64, 1);
    let read: Vec<_> = log.read(1..11, usize::MAX).collect();
    let told = read.last().unwrap().as_ref().unwrap_err();
    assert!(
        matches!(told, ReadError::Corruption(found) if found.indexes == Some((5, 5))),
        "{told}"
    );
    assert_eq!(read.len(), 5);
    assert!(log.read(5..6, usize::MAX).next().unwrap().is_err(), "by itself as well");
}

#[test]
fn entries_of_many_frames_terms_and_segments_are_read_in_order_from_anywhere() {
    let wal = wal(16 << 10);
    let [log, other] = [1, 2].map(|id| wal.log(LogId(id)).unwrap());
    let term = |index: u64| 1 + index / 100;
    for index in 1..=1000 {
        append(&wal, &log, index..index + 1, term(index));
        if index % 3 == 0 {
            drop(other.push(entry(index, 7)).unwrap());
        }
    }
    // The last ones are in memory only.
    drop(log.append(1001, term(1001), &[entry(1001, term(1001))]).unwrap());
    assert!(wal.statistics().sealed_segments > 2, "{:?}", wal.statistics());
    for first in (1..=1001).step_by(37) {
        for (found, index) in log.read(first..2000, usize::MAX).zip(first..) {
            let found = found.unwrap();
            assert_eq!((found.index, found.term), (index, term(index)));
            assert_eq!(found.bytes, entry(index, term(index)));
        }
        assert_eq!(log.read(first..2000, usize::MAX).count() as u64, 1002 - first);
        assert_eq!(
            log.read(first..first + 5, usize::MAX).count(),
            5.min(usize::try_from(1002 - first).unwrap())
        );
    }
    assert_eq!(indexes(&other, 1..1000).len(), 333);
}

/// What the iterator gives, one by one: of frames in memory and in files, of one entry and of many, up to so many bytes.
#[test]
fn what_is_read_in_place_is_what_the_iterator_gives() {
    let wal = wal(16 << 10);
    let log = wal.log(LogId(1)).unwrap();
    (0..10).for_each(|part| append(&wal, &log, 1 + 20 * part..21 + 20 * part, 1));
    let many: Vec<Bytes> = (201..221).map(|index| entry(index, 2)).collect();
    drop(log.append(201, 2, &many).unwrap());
    assert!(wal.statistics().rotations > 0);
    for (range, bytes_max) in [(1..221, usize::MAX), (5..500, usize::MAX), (190..220, 100)] {
        let given: Vec<(u64, u64, Bytes)> = log
            .read(range.clone(), bytes_max)
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.index, entry.term, entry.bytes))
            .collect();
        let (mut entries, mut seen) = (log.read(range, bytes_max), Vec::new());
        while let Some(view) = entries.next_in_place() {
            let view = view.unwrap();
            seen.push((view.index, view.term, Bytes::copy_from_slice(view.bytes)));
        }
        assert_eq!(seen, given);
        assert!(entries.next().is_none() && seen.len() > 12, "{}", seen.len());
    }
    let mut entries = log.read(3..220, usize::MAX);
    assert_eq!(entries.next_in_place().unwrap().unwrap().index, 3);
    assert_eq!(entries.next().unwrap().unwrap().index, 4);
    drop(log.compact_before(210).unwrap());
    let told = entries.next_in_place().unwrap().unwrap_err();
    assert!(matches!(told, ReadError::Compacted { index: 5, first: 210 }), "{told}");
    assert!(entries.next_in_place().is_none());
}
