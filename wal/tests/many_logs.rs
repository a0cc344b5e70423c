//! Many logs in one stream.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{sync::Arc, time::Duration};

use kontiki_disk::MemoryDisk;
use kontiki_wal::{AppendError, LogId, OpenError, Wal};

fn open(disk: &MemoryDisk, segment_bytes: u64) -> Wal {
    let options = Wal::options().segment_bytes(segment_bytes).uuid([5; 16]);
    options.disk(Arc::new(disk.clone())).without_threads().open("log").unwrap()
}

/// WAL-CASE 37
#[test]
fn ten_thousand_logs_share_one_stream_and_one_sync_and_all_come_back() {
    const LOGS: u32 = 10_000;
    /// One of them, in the middle.
    const HOT: u32 = 5000;
    let disk = MemoryDisk::new();
    let wal = open(&disk, 8 << 20);
    let logs: Vec<_> = (1..=LOGS).map(|id| wal.log(LogId(id)).unwrap()).collect();
    for round in 1..=6_u64 {
        for log in &logs {
            let text = format!("{round} of {}", log.id().0);
            drop(log.append(round, round, &[text.into()]).unwrap());
        }
        wal.work(Duration::ZERO);
    }
    // One of them is hot, and takes the log on by some segments.
    let hot = logs.iter().find(|log| log.id() == LogId(HOT)).unwrap();
    for index in 7..=20_000_u64 {
        while let Err(error) = hot.append(index, 7, &[vec![7; 1000].into()]) {
            assert!(matches!(error, AppendError::Full { .. }), "{error}");
            wal.work(Duration::ZERO);
        }
        if index % 1000 == 0 {
            hot.compact_before(index).unwrap().wait().unwrap();
            wal.work(Duration::ZERO);
        }
    }
    wal.work(Duration::ZERO);
    let statistics = wal.statistics();
    assert!(statistics.syncs < 200, "one stream, one sync: {statistics:?}");
    assert!(statistics.segments <= 4, "what only the hot one had is gone: {statistics:?}");
    // All others hold back the first segment, and nothing else.
    let laggards = wal.laggards();
    assert_eq!(laggards.len(), usize::try_from(LOGS).unwrap());
    assert!(laggards.iter().all(|laggard| laggard.oldest_segment == 1 || laggard.log == hot.id()));

    logs[0].forget().unwrap().wait().unwrap();
    logs[1].set_state("state").unwrap().wait().unwrap();
    wal.close().unwrap();
    drop((logs, wal));
    let wal = open(&disk.reopen(), 8 << 20);
    assert_eq!(wal.logs().len(), usize::try_from(LOGS).unwrap() - 1);
    assert_eq!(wal.log(LogId(2)).unwrap().state().as_deref(), Some(&b"state"[..]));
    for id in (2..=LOGS).filter(|id| *id != HOT) {
        let log = wal.log(LogId(id)).unwrap();
        assert_eq!((log.first(), log.last(), log.term(6)), (1, 6, Some(6)), "log {id}");
        // The disk in memory copies what a reader maps.
        if id % 500 > 1 {
            continue;
        }
        let entries: Vec<_> = log.read(1..99, usize::MAX).map(|entry| entry.unwrap()).collect();
        assert_eq!(entries.len(), 6);
        assert_eq!(entries[5].bytes, format!("6 of {id}"));
        assert_eq!(entries[5].term, 6);
    }
}

/// WAL-CASE 37: bounded, and said so.
#[test]
fn what_would_make_a_checkpoint_too_large_is_refused_and_nothing_is_taken() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 16 << 10);
    let mut taken = 0;
    let error = loop {
        let log = wal.log(LogId(taken + 1)).unwrap();
        match log.append(1, 1, &["x".into()]) {
            Ok(pending) => {
                drop(pending);
                taken += 1;
            }
            Err(AppendError::Full { .. }) => {}
            Err(error) => break error,
        }
        wal.work(Duration::ZERO);
    };
    let AppendError::CheckpointTooLarge { bytes, limit } = error else { panic!("{error}") };
    assert!(bytes > limit && limit <= 4 << 10, "{bytes} of {limit}");
    assert!((60..100).contains(&taken), "{taken} logs");
    assert_eq!(wal.logs().len(), usize::try_from(taken).unwrap());
    // Those that are there go on, and one that goes makes room for another.
    wal.log(LogId(1)).unwrap().append(2, 1, &["y".into()]).unwrap().wait().unwrap();
    wal.log(LogId(2)).unwrap().forget().unwrap().wait().unwrap();
    wal.log(LogId(taken + 1)).unwrap().append(1, 1, &["x".into()]).unwrap().wait().unwrap();
    wal.close().unwrap();
    drop(wal);
    assert_eq!(open(&disk.reopen(), 16 << 10).logs().len(), usize::try_from(taken).unwrap());
}

/// WAL-CASE 37: segments of a size that could not carry the logs that are there are refused, and nothing is changed.
#[test]
fn segments_too_small_for_the_logs_in_the_directory_are_refused() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 64 << 10);
    for id in 1..=150 {
        drop(wal.log(LogId(id)).unwrap().set_state(vec![1; 32]).unwrap());
        wal.work(Duration::ZERO);
    }
    wal.close().unwrap();
    drop(wal);
    let operations = disk.operations();
    let small = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    let error = small.without_threads().open("log").unwrap_err();
    assert!(matches!(error, OpenError::Options { option: "segment_bytes", .. }), "{error}");
    assert_eq!(disk.operations(), operations);
    assert_eq!(open(&disk, 64 << 10).logs().len(), 150);
}

/// Sets the last of some states as long as the checkpoint allows, less `spare` bytes; one more is refused if none is spare.
fn fill_checkpoint(wal: &Wal, spare: u64) {
    let state = |id, length: u64| {
        let state = vec![1; usize::try_from(length).unwrap()];
        wal.log(LogId(id)).unwrap().set_state(state)
    };
    state(8, 2000).unwrap().wait().unwrap();
    let AppendError::CheckpointTooLarge { bytes, limit } = state(9, 2000).map(drop).unwrap_err()
    else {
        panic!("there is room for more than half of it")
    };
    let most = 2000 - (bytes - limit);
    let refused = state(9, most + 1).map(drop).unwrap_err();
    assert!(matches!(refused, AppendError::CheckpointTooLarge { bytes, .. } if bytes == limit + 1));
    state(9, most - spare).expect("the limit itself is allowed").wait().unwrap();
}

/// WAL-CASE 37: also by the opening that finds it.
#[test]
fn a_checkpoint_may_be_as_large_as_its_limit() {
    let disk = MemoryDisk::new();
    let wal = open(&disk, 16 << 10);
    fill_checkpoint(&wal, 0);
    wal.close().unwrap();
    drop(wal);
    assert_eq!(open(&disk, 16 << 10).logs(), [LogId(8), LogId(9)]);
}

/// WAL-CASE 37: a hole among the segments is a run more in each checkpoint, of 16 bytes.
#[test]
fn a_segment_between_others_is_freed_if_the_checkpoint_has_room_for_the_hole() {
    for (spare, is_freed) in [(15, false), (16, true)] {
        let disk = MemoryDisk::new();
        let wal = open(&disk, 16 << 10);
        let (slow, fast) = (wal.log(LogId(1)).unwrap(), wal.log(LogId(2)).unwrap());
        slow.push("holds the first segment").unwrap().1.wait().unwrap();
        fast.push("x").unwrap().1.wait().unwrap();
        fill_checkpoint(&wal, spare);
        while wal.statistics().segments < 3 {
            match fast.push(vec![1; 3000]) {
                Ok((_, pending)) => pending.wait().unwrap(),
                Err(error) => assert!(matches!(error, AppendError::Full { .. }), "{error}"),
            }
            wal.work(Duration::ZERO);
        }
        fast.compact_before(fast.last()).unwrap().wait().unwrap();
        wal.work(Duration::ZERO);
        assert_eq!(wal.statistics().segments, if is_freed { 2 } else { 3 }, "{spare} bytes spare");
        drop((slow, fast, wal));
        assert_eq!(open(&disk, 16 << 10).logs().len(), 4, "{spare} bytes spare");
    }
}

/// Without a next segment entries leave an eighth of this one alone, besides what its index will take.
#[test]
fn where_the_index_of_many_logs_fills_a_segment_what_has_no_room_is_refused() {
    for length in (0..64).step_by(8) {
        let disk = MemoryDisk::new();
        let wal = open(&disk, 64 << 10);
        drop(wal.log(LogId(1)).unwrap().set_state(vec![1; length]).unwrap());
        for id in 1..=250 {
            drop(wal.log(LogId(id)).unwrap().append(1, 1, &["x".into()]).unwrap());
        }
        let log = wal.log(LogId(1)).unwrap();
        (0..233).for_each(|_| drop(log.push("x").unwrap()));
        // Two frames: the first that is not refused fits exactly.
        let call = |last| log.append(235, 1, &[vec![1; 9000].into(), vec![1; last].into()]);
        assert!((0..12_000).rev().any(|last| call(last).is_ok()));
        while log.push("x").is_ok() {}
        log.set_state("there is room for it").unwrap().wait().unwrap();
        assert_eq!(wal.statistics().segments, 1);
        let found = open(&disk.image(|_| false), 64 << 10);
        assert_eq!(found.log(LogId(1)).unwrap().last(), log.last());
    }
}
