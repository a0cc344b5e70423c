//! Segments made ahead: what is written to them, when, and who uses them.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use kontiki_disk::{
    Access, Disk, MemoryDisk,
    memory::{ENOSPC, Fault, Kind},
};
use kontiki_wal::{AppendError, LogId, Options, Wal};

fn options(disk: &MemoryDisk) -> Options {
    Wal::options().disk(Arc::new(disk.clone())).without_threads()
}

/// No sync of a group has to convert extents, and nothing of an earlier use of the disk's blocks is read.
#[test]
fn a_new_segment_is_written_from_its_first_byte_to_its_last() {
    // The last step of the filling is a whole one, and not.
    for segment_bytes in [64 << 10, 1 << 20, 3 << 20, (3 << 20) + 4096] {
        let disk = MemoryDisk::new();
        disk.start_trace();
        let wal = options(&disk).segment_bytes(segment_bytes).open("log").unwrap();
        let mut writes = disk.take_trace();
        writes.retain(|operation| operation.kind == Kind::Write);
        writes.sort_by_key(|write| write.range.start);
        let mut written = 0;
        for write in writes {
            assert_eq!(write.range.start, written, "nothing is left out, nothing written twice");
            written = write.range.end;
        }
        assert_eq!(written, segment_bytes);
        wal.close().unwrap();
    }
}

#[test]
fn the_next_opening_uses_what_was_made_ahead() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).segment_bytes(16 << 10).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while disk.contents(segment(2)).is_none() {
        log.push(vec![1; 500]).unwrap().1.wait().unwrap();
        wal.work(Duration::ZERO);
    }
    assert_eq!(wal.statistics().segments, 1);
    wal.close().unwrap();
    drop((log, wal));

    let wal = options(&disk).segment_bytes(16 << 10).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < 2 {
        log.push(vec![1; 500]).expect("room, though nobody has made any").1.wait().unwrap();
    }
}

/// By their names files of different logs are never taken for each other's.
#[test]
fn every_new_log_draws_a_name() {
    let names = (0..8).map(|_| {
        let disk = MemoryDisk::new();
        options(&disk).segment_bytes(16 << 10).open("log").unwrap().close().unwrap();
        disk.contents(segment(1)).unwrap()[24..40].to_vec()
    });
    assert_eq!(names.collect::<BTreeSet<_>>().len(), 8);
}

fn segment(number: u64) -> impl AsRef<Path> {
    Path::new("log").join(format!("{number:016}.wal"))
}

/// A log that nobody writes to takes little room.
#[test]
fn the_first_segment_of_a_log_is_small_and_nothing_else_is_made_yet() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).open("log").unwrap();
    while wal.work(Duration::ZERO) {}
    assert_eq!(disk.contents(segment(1)).unwrap().len(), 4 << 20);
    let directory = disk.open_directory(Path::new("log"), Access::Read).unwrap();
    let bytes: u64 = directory.list().unwrap().iter().map(|(_, bytes)| bytes).sum();
    assert_eq!(bytes, 4 << 20);
}

#[test]
fn the_next_segment_is_begun_when_this_one_is_half_full_and_not_before() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).segment_bytes(64 << 10).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let pushes = (1..).find(|_| {
        drop(log.push(vec![1; 500]).unwrap());
        wal.work(Duration::ZERO);
        disk.contents(segment(2)).is_some()
    });
    // 560 bytes each, behind the header page and the first frames.
    let half = (32 << 10) / 560 - 4096 / 560;
    assert!((half - 2..=half + 2).contains(&pushes.unwrap()), "{pushes:?} of about {half}");
}

/// So that nobody has to wait for it.
#[test]
fn the_logs_thread_makes_the_next_segment_when_half_of_this_one_is_full() {
    // Several times, as a thread that only begins looks once anyway.
    for _ in 0..20 {
        let disk = MemoryDisk::new();
        let options = Wal::options().segment_bytes(64 << 10).disk(Arc::new(disk.clone()));
        let wal = options.open("log").unwrap();
        let log = wal.log(LogId(1)).unwrap();
        let made = disk.hold(Kind::Create, 1);
        log.push("first").unwrap().1.wait().unwrap();
        for _ in 0..56 {
            drop(log.push(vec![1; 500]).expect("less than three quarters"));
        }
        made.wait_reached();
        made.release();
        wal.close().unwrap();
    }
}

/// The pauses behind failures are none between jobs that succeed.
#[test]
fn the_logs_thread_makes_and_seals_segments_one_after_the_other() {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(MemoryDisk::new()));
    let wal = options.open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let begun = Instant::now();
    while wal.statistics().segments < 24 {
        match log.push(vec![1; 4000]) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => {
                let (sender, receiver) = mpsc::channel();
                log.on_room(move || sender.send(()).unwrap());
                receiver.recv().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "24 times 250 ms are more");
    wal.close().unwrap();
}

/// Appends to the log, and makes segments where that is what keeps it, until it is in the second half of segment `active`.
fn append_without_sealing(wal: &Wal, active: u64) {
    let log = wal.log(LogId(1)).unwrap();
    let mut second_half = 0;
    while second_half < 9 {
        match log.push(vec![1; 500]) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => run_next_job(wal, "Prepare"),
            Err(error) => panic!("{error}"),
        }
        second_half += u64::from(wal.statistics().segments == active);
    }
}

fn run_next_job(wal: &Wal, kind: &str) {
    let job = wal.begin_segment().unwrap();
    assert!(format!("{job:?}").contains(&format!("work: {kind} ")), "not {kind}: {job:?}");
    let result = job.run();
    wal.finish_segment(job, result);
}

/// An append waits for a segment and nobody for a seal; but nothing behind a segment without its seal can be freed.
#[test]
fn making_a_segment_goes_before_sealing_one_unless_two_wait_or_it_failed() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).segment_bytes(16 << 10).open("log").unwrap();
    append_without_sealing(&wal, 2);
    disk.inject(Kind::Create, 1, Fault::Fail(ENOSPC));
    for kind in ["Prepare", "Seal", "Prepare"] {
        run_next_job(&wal, kind);
    }
    assert!(wal.begin_segment().is_none(), "everything was done");

    append_without_sealing(&wal, 3);
    run_next_job(&wal, "Prepare");
    append_without_sealing(&wal, 4);
    for kind in ["Seal", "Prepare", "Seal"] {
        run_next_job(&wal, kind);
    }
    assert!(wal.begin_segment().is_none(), "everything was done");
}
