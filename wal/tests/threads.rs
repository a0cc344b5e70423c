//! The log with its threads, on the machine's own disk.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{
    path::Path,
    sync::{Arc, Barrier, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_wal::{AppendError, LogId, Wal};
use tempfile::TempDir;

use support::mode;

fn open(directory: &TempDir) -> Wal {
    Wal::options()
        .segment_bytes(64 << 10)
        .write_mode(mode())
        .open(directory.path().join("log"))
        .unwrap()
}

/// Appends, waiting for room as long as the log is full.
fn push(log: &kontiki_wal::Log, text: &str) -> kontiki_wal::Pending {
    loop {
        match log.push(text.to_owned()) {
            Ok((_, pending)) => return pending,
            Err(AppendError::Full { .. }) => {
                let (sender, receiver) = mpsc::channel();
                log.on_room(move || sender.send(()).unwrap());
                receiver.recv().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What is dead at open goes although nothing is appended: the frame that frees it is synced by nobody but the log.
#[test]
fn a_dead_segment_goes_while_the_log_is_idle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let options = || Wal::options().segment_bytes(16 << 10).write_mode(mode());
    let wal = options().without_threads().open(&path).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().sealed_segments < 3 {
        if let Ok((_, pending)) = log.push("x".repeat(500)) {
            pending.wait().unwrap();
        }
        wal.work(Duration::ZERO);
    }
    log.compact_before(log.last()).unwrap().wait().unwrap();
    wal.close().unwrap();
    drop((wal, log));
    let first = path.join("0000000000000001.wal");
    assert!(first.exists(), "nobody has removed it yet");
    let wal = options().open(&path).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while first.exists() {
        assert!(std::time::Instant::now() < deadline, "{:?}", wal.statistics());
        thread::sleep(Duration::from_millis(5));
    }
}

/// The error says to open the log again: that must be possible in the same process.
#[test]
fn a_poisoned_log_with_threads_gives_its_directory_back() {
    let disk = MemoryDisk::new();
    let open = || Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone())).open("log");
    let wal = open().unwrap();
    let log = wal.log(LogId(1)).unwrap();
    push(&log, "kept").wait().unwrap();
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    push(&log, "lost").wait().unwrap_err();
    assert!(wal.close().is_err());
    drop((wal, log));
    let wal = open().unwrap();
    assert!(wal.log(LogId(1)).unwrap().last() >= 1);
}

#[test]
fn waiting_threads_share_syncs_and_all_they_wrote_is_there_after_reopening() {
    const THREADS: u32 = 8;
    const ENTRIES: u64 = 200;
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let start = Arc::new(Barrier::new(THREADS as usize));
    let writers: Vec<_> = (1..=THREADS)
        .map(|id| {
            let (log, start) = (wal.log(LogId(id)).unwrap(), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                for number in 1..=ENTRIES {
                    push(&log, &format!("{id} {number} {}", "x".repeat(100))).wait().unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let statistics = wal.statistics();
    assert_eq!(statistics.entries_appended, u64::from(THREADS) * ENTRIES);
    assert!(statistics.syncs < statistics.entries_appended, "{statistics:?}");
    assert!(statistics.segments > 2, "{statistics:?}");
    drop(wal);

    let wal = open(&directory);
    for id in 1..=THREADS {
        let log = wal.log(LogId(id)).unwrap();
        let entries: Vec<_> = log.read(1..ENTRIES + 1, usize::MAX).map(|e| e.unwrap()).collect();
        assert_eq!(entries.len() as u64, ENTRIES);
        for (number, entry) in (1..).zip(&entries) {
            assert!(entry.bytes.starts_with(format!("{id} {number} x").as_bytes()));
        }
    }
}

#[test]
fn what_nobody_waits_for_is_synced_soon() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    let (_, pending) = log.push("alone").unwrap();
    let lsn = pending.lsn();
    drop(pending);
    let (sender, receiver) = mpsc::channel();
    let waiting = wal.clone();
    thread::spawn(move || {
        while waiting.durable_lsn() < lsn {
            thread::yield_now();
        }
        sender.send(()).unwrap();
    });
    receiver.recv_timeout(Duration::from_secs(10)).unwrap();
}

#[test]
fn a_future_and_a_callback_are_served_by_the_logs_own_thread() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    pollster::block_on(log.push("a future").unwrap().1).unwrap();
    let (sender, receiver) = mpsc::channel();
    let again = log.clone();
    log.push("a callback").unwrap().1.on_durable(move |outcome| {
        outcome.unwrap();
        let (index, pending) = again.push("from within").unwrap();
        pending.on_durable(move |outcome| sender.send((index, outcome)).unwrap());
    });
    let (index, outcome) = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
    outcome.unwrap();
    assert_eq!(index, 3);
}

/// WAL-CASE 60: all files but the lock, while the log is at work and when it is opened again.
#[test]
fn after_compaction_the_directory_holds_the_live_segments_and_no_more_than_two_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let options = || Wal::options().segment_bytes(64 << 10).write_mode(mode()).without_threads();
    let check = |wal: &Wal, round: u64| {
        let live = wal.statistics().segments;
        assert!(live <= 2, "round {round}: one entry lives, in {live} segments");
        let files = files(&path);
        assert!(files.len() as u64 <= live + 2, "round {round}, {live} live: {files:?}");
    };
    let wal = options().open(&path).unwrap();
    let (log, mut most) = (wal.log(LogId(1)).unwrap(), 0);
    for round in 1..=200 {
        log.push("y".repeat(5000)).unwrap().1.wait().unwrap();
        wal.work(Duration::ZERO);
        most = most.max(files(&path).len());
        if round % 40 == 0 {
            log.compact_before(log.last()).unwrap().wait().unwrap();
            wal.work(Duration::ZERO);
            check(&wal, round);
        }
    }
    assert!(most >= 5, "{most} files at most: there was nothing to free");
    wal.close().unwrap();
    drop((log, wal));
    let wal = options().open(&path).unwrap();
    check(&wal, 0);
    wal.work(Duration::ZERO);
    check(&wal, 0);
}

/// Names in a log's directory, but for the lock.
fn files(path: &Path) -> Vec<String> {
    let files = std::fs::read_dir(path).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "LOCK").collect()
}

/// Also when the log was idle for so long that its thread sleeps.
#[test]
fn what_nobody_waits_for_becomes_durable_too() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    let mut follow = log.follow(1).unwrap();
    for round in 0..3 {
        let idle = follow.wait_next_timeout(Duration::from_millis(200)).unwrap();
        assert!(idle.is_none(), "nothing was appended");
        drop(push(&log, "alone"));
        // A follower does not sync.
        let followed = follow.wait_next_timeout(Duration::from_secs(20)).unwrap();
        assert!(followed.is_some(), "round {round}: it is not durable after 20 s");
    }
}

/// WAL-CASE 45, with the log's own threads and on the machine's own disk: it does not grow. That nothing is written at all
/// is shown where writes are counted.
#[test]
fn a_thousand_openings_and_closings_leave_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let options = || Wal::options().segment_bytes(16 << 10).write_mode(mode());
    let wal = options().without_threads().open(&path).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().sealed_segments < 2 {
        log.push("x".repeat(500)).unwrap().1.wait().unwrap();
        wal.work(Duration::ZERO);
    }
    wal.close().unwrap();
    let last = log.last();
    drop((log, wal));
    let contents = || -> Vec<(String, Vec<u8>)> {
        let names = files(&path).into_iter();
        names.map(|name| (name.clone(), std::fs::read(path.join(name)).unwrap())).collect()
    };
    let before = contents();
    for round in 0..1000 {
        let wal = options().open(&path).unwrap();
        assert_eq!(wal.log(LogId(1)).unwrap().last(), last);
        wal.close().unwrap();
        drop(wal);
        assert!(contents() == before, "round {round}");
    }
}

/// WAL-CASE 38: the half without recycling.
#[test]
fn a_view_outlives_its_entry_its_segment_and_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    push(&log, &"kept ".repeat(100)).wait().unwrap();
    let view = log.read(1..2, usize::MAX).next().unwrap().unwrap().bytes;
    for _ in 0..40 {
        push(&log, &"z".repeat(5000)).wait().unwrap();
    }
    log.compact_before(log.last()).unwrap().wait().unwrap();
    drop((log, wal));
    assert_eq!(view, Bytes::from("kept ".repeat(100)));
    let options = Wal::options().segment_bytes(64 << 10);
    let locked = options.open(directory.path().join("log")).unwrap_err();
    assert!(matches!(locked, kontiki_wal::OpenError::Locked { .. }), "{locked}");
    drop(view);
    open(&directory);
}
