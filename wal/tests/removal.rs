//! Files that cannot be removed at once: they go later, and hold nothing up.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use kontiki_disk::{
    Access, Disk, MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_wal::{AppendError, LogId, Options, Wal};

fn options(disk: &MemoryDisk) -> Options {
    Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()))
}

/// Appends so many entries, two to a segment, with the work on segments that is due meanwhile.
fn fill(wal: &Wal, entries: u64) {
    let log = wal.log(LogId(1)).unwrap();
    let last = log.last() + entries;
    while log.last() < last {
        match log.push(vec![7; 3000]) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. } | AppendError::NoSpace { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        wal.work(Duration::ZERO);
    }
}

fn compact(wal: &Wal) {
    let log = wal.log(LogId(1)).unwrap();
    log.compact_before(log.last()).unwrap().wait().unwrap();
}

/// Names of the files with this ending.
fn files(disk: &MemoryDisk, ending: &str) -> Vec<String> {
    let directory = disk.open_directory(Path::new("log"), Access::Read).unwrap();
    let names = directory.list().unwrap().into_iter().map(|(name, _)| name);
    names.filter(|name| name.ends_with(ending)).collect()
}

/// Whichever operation of the removal fails, and whatever it did to the others.
#[test]
fn what_could_not_be_removed_is_removed_by_the_next_call() {
    for (kind, nth) in [(Kind::Remove, 1), (Kind::Remove, 3), (Kind::Rename, 1)] {
        let disk = MemoryDisk::new();
        let wal = options(&disk).without_threads().open("log").unwrap();
        fill(&wal, 30);
        wal.work(Duration::ZERO);
        compact(&wal);
        disk.inject(kind, nth, Fault::Fail(EIO));
        wal.work(Duration::ZERO);
        assert!(!disk.has_faults(), "{kind:?} {nth}: a removal failed");
        wal.work(Duration::ZERO);
        wal.work(Duration::ZERO);
        let statistics = wal.statistics();
        let segments = files(&disk, ".wal");
        let successors = segments.len() as u64 - statistics.segments;
        assert!(successors <= 1, "{kind:?} {nth}: {statistics:?}, {segments:?}");
        assert!(files(&disk, ".spare").is_empty(), "{kind:?} {nth}: nobody knows them");
    }
}

#[test]
fn removals_that_fail_all_the_time_hold_no_append_up_and_let_a_call_end() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).without_threads().open("log").unwrap();
    fill(&wal, 30);
    for nth in 1..=10_000 {
        disk.inject(Kind::Remove, nth, Fault::Fail(EIO));
    }
    compact(&wal);
    fill(&wal, 30);
    compact(&wal);
    while let Some(job) = wal.begin_segment() {
        let result = job.run();
        wal.finish_segment(job, result);
    }
    assert!(files(&disk, ".wal").len() > 10, "none was removed");
    assert!(wal.begin_segment().is_some(), "they are tried again");
}

#[test]
fn the_logs_thread_tries_a_failed_removal_again() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).open("log").unwrap();
    fill(&wal, 30);
    disk.inject(Kind::Remove, 1, Fault::Fail(EIO));
    // More than a first attempt removes.
    let again = disk.hold(Kind::Remove, 14);
    let begun = Instant::now();
    compact(&wal);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        again.wait_reached();
        again.release();
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(20)).expect("another attempt");
    assert!(begun.elapsed() > Duration::from_millis(200), "after a pause of 250 ms");
    wal.close().unwrap();
}

#[test]
fn a_segment_is_made_where_a_failed_attempt_could_not_take_its_file_away() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).without_threads().open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while let Ok((_, pending)) = log.push(vec![7; 3000]) {
        pending.wait().unwrap();
    }
    let job = wal.begin_segment().unwrap();
    disk.inject(Kind::Write, 1, Fault::Fail(EIO));
    disk.inject(Kind::Remove, 1, Fault::Fail(EIO));
    let failed = job.run();
    assert!(failed.is_err() && !disk.has_faults());
    wal.finish_segment(job, failed);
    assert_eq!(files(&disk, ".new"), ["0000000000000002.new"]);
    let refused = log.push(vec![7; 3000]).map(drop).unwrap_err();
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused:?}");
    assert!(refused.to_string().starts_with("cannot make another segment ("), "{refused}");

    fill(&wal, 3);
    assert_eq!(wal.statistics().segments, 2);
    assert!(files(&disk, ".new").is_empty());
}

/// It is no spare any more, and its place on the disk must not be lost either.
#[test]
fn a_spare_that_could_not_be_used_is_removed() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).without_threads().open("log").unwrap();
    fill(&wal, 12);
    compact(&wal);
    wal.work(Duration::ZERO);
    let spares = files(&disk, ".spare");
    assert_eq!(spares.len(), 1);
    disk.inject(Kind::Rename, 1, Fault::Fail(EIO));
    disk.inject(Kind::Remove, 1, Fault::Fail(EIO));
    fill(&wal, 6);
    assert!(!disk.has_faults(), "neither its use nor its removal succeeded");
    assert_eq!(files(&disk, ".spare"), [""; 0]);
    assert_eq!(wal.statistics().recycled_segments, 0);
}
