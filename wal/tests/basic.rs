//! Appending, reading, reopening.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::MemoryDisk;
use kontiki_wal::{AppendError, LogId, Wal, WalError};

fn open(disk: &MemoryDisk) -> Wal {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    options.without_threads().open(Path::new("log")).unwrap()
}

fn texts(wal: &Wal, log: u32) -> Vec<(u64, u64, String)> {
    let log = wal.log(LogId(log)).unwrap();
    let read = log.read(log.first()..log.last() + 1, usize::MAX);
    read.map(|entry| entry.unwrap())
        .map(|entry| (entry.index, entry.term, String::from_utf8(entry.bytes.to_vec()).unwrap()))
        .collect()
}

#[test]
fn what_was_waited_for_is_there_after_a_power_cut() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    log.set_state("vote").unwrap().wait().unwrap();
    let entries: Vec<Bytes> = ["a", "bc", ""].iter().map(|text| Bytes::from(*text)).collect();
    log.append(1, 1, &entries).unwrap().wait().unwrap();
    let pending = log.append(4, 2, &[Bytes::from("lost")]).unwrap();
    assert_eq!(texts(&wal, 1).len(), 4);
    let cut = disk.image(|_| false);
    drop(pending);

    let wal = open(&cut);
    let log = wal.log(LogId(1)).unwrap();
    assert_eq!(log.state().unwrap(), "vote");
    let expected = [(1, 1, "a"), (2, 1, "bc"), (3, 1, "")];
    assert_eq!(texts(&wal, 1), expected.map(|(i, t, s)| (i, t, s.to_string())));
    assert_eq!((log.first(), log.last(), log.term(3), log.term(0)), (1, 3, Some(1), Some(0)));
}

#[test]
fn a_log_of_many_segments_reads_back_after_close_and_after_a_power_cut() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(7)).unwrap();
    let mut expected = Vec::new();
    for number in 1..=400_u64 {
        let text = format!("entry {number} {}", "x".repeat((number % 300) as usize));
        let (index, pending) = log.push(text.clone()).unwrap();
        assert_eq!(index, number);
        pending.wait().unwrap();
        wal.work(Duration::ZERO);
        expected.push((index, 0, text));
    }
    assert!(wal.statistics().segments > 5);
    assert_eq!(texts(&wal, 7), expected);
    let cut = disk.image(|_| false);
    assert_eq!(texts(&open(&cut), 7), expected);
    wal.close().unwrap();
    drop(log);
    drop(wal);
    let wal = open(&disk);
    assert_eq!(texts(&wal, 7), expected);
}

/// A job that is out cannot be waited for: whoever closes does not hang, and nothing more is said to be durable.
#[test]
fn a_close_while_a_job_is_out_ends_the_log_and_tells_everyone() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    let (_, first) = log.push("in the job").unwrap();
    let job = wal.begin_sync(Duration::ZERO).unwrap();
    let (_, second) = log.push("behind it").unwrap();
    let (sender, outcomes) = mpsc::channel();
    for pending in [first, second] {
        let sender = sender.clone();
        pending.on_durable(move |outcome| sender.send(outcome).unwrap());
    }
    assert!(matches!(wal.close(), Err(WalError::Closed)));
    let told: Vec<_> = outcomes.try_iter().collect();
    assert!(matches!(told[..], [Err(WalError::Closed), Err(WalError::Closed)]), "{told:?}");
    assert!(matches!(log.push("late"), Err(AppendError::Wal(WalError::Closed))));

    let operations = disk.operations();
    let result = job.run();
    assert!(result.is_err(), "a job that comes late writes nothing");
    wal.finish_sync(job, result);
    assert!(!wal.work(Duration::from_secs(1)), "and nothing is due any more");
    assert_eq!(disk.operations(), operations);
    drop((log, wal));
    assert_eq!(texts(&open(&disk), 1), []);
}

#[test]
fn a_wait_with_a_deadline_gives_itself_back_until_its_entry_is_durable() {
    let wal = open(&MemoryDisk::new());
    let (_, pending) = wal.log(LogId(1)).unwrap().push("entry").unwrap();
    let end = pending.lsn();
    let job = wal.begin_sync(Duration::ZERO).unwrap();
    let pending = pending.wait_timeout(Duration::from_millis(1)).expect_err("the sync is out");
    assert!(wal.durable_lsn() < end);
    let result = job.run();
    wal.finish_sync(job, result);
    assert_eq!(wal.durable_lsn(), end);
    pending.wait_timeout(Duration::ZERO).expect("it is durable").unwrap();
}

#[test]
fn what_is_written_and_synced_is_counted() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    disk.start_trace();
    for text in ["first", "second"] {
        wal.log(LogId(1)).unwrap().push(text).unwrap().1.wait().unwrap();
    }
    let trace = disk.take_trace();
    let written: u64 = trace.iter().map(|done| done.range.end - done.range.start).sum();
    let statistics = wal.statistics();
    assert!(written > 4096, "to the end of a page each time: {written}");
    assert_eq!((statistics.bytes_written, statistics.syncs), (written, 2));
}

#[test]
fn a_log_is_idle_when_nothing_was_appended_for_50_ms() {
    let wal = open(&MemoryDisk::new());
    wal.log(LogId(1)).unwrap().push("entry").unwrap().1.wait().unwrap();
    let mark_is_due = |nanoseconds| wal.begin_sync(Duration::from_nanos(nanoseconds));
    assert!(mark_is_due(7).is_none() && mark_is_due(50_000_006).is_none());
    let job = mark_is_due(50_000_007).expect("50 ms after it was first seen to be idle");
    let result = job.run();
    wal.finish_sync(job, result);
}
