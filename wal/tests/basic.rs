//! Appending, reading, reopening.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_disk::MemoryDisk;
use kontiki_wal::{LogId, Wal};

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
