//! Word of room: whoever asks for it while something is in the way hears when that is out of it.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, ENOSPC, Fault, Kind},
};
use kontiki_wal::{AppendError, Log, LogId, Wal, steps::SegmentJob};

/// Is set when there is room.
fn ask(log: &Log) -> Arc<AtomicBool> {
    let told = Arc::new(AtomicBool::new(false));
    let callback = Arc::clone(&told);
    log.on_room(move || callback.store(true, Ordering::Relaxed));
    told
}

/// What a job does, without the disk it does it on.
fn work(job: &SegmentJob) -> String {
    let text = format!("{job:?}");
    text[text.find("work: ").unwrap()..].to_owned()
}

/// Appends and compacts with everything durable, so that nothing but the job which `before` is shown is in the way of whoever
/// asks for room while it is out.
fn ask_during_every_job(disk: &MemoryDisk, mut before: impl FnMut(&str)) -> Wal {
    let options = Wal::options().segment_bytes(16 << 10).without_threads();
    let wal = options.disk(Arc::new(disk.clone())).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    for _ in 0..200 {
        log.push(vec![1; 500]).unwrap().1.wait().unwrap();
        log.compact_before(log.last().saturating_sub(20).max(1)).unwrap().wait().unwrap();
        while let Some(job) = wal.begin_segment() {
            let work = work(&job);
            before(&work);
            let told = ask(&log);
            assert!(!told.load(Ordering::Relaxed), "it is in the way: {work}");
            let result = job.run();
            wal.finish_segment(job, result);
            assert!(told.load(Ordering::Relaxed), "nobody told that it is done: {work}");
        }
    }
    wal
}

/// A prepared segment, a sealed one and freed ones alike: the asker has seen only that a job was out.
#[test]
fn who_asks_during_work_on_segments_hears_when_it_is_done() {
    let statistics = ask_during_every_job(&MemoryDisk::new(), |_| ()).statistics();
    assert!(statistics.sealed_segments > 0 && statistics.recycled_segments > 0, "{statistics:?}");
}

#[test]
fn who_asks_while_files_are_removed_hears_also_if_that_fails() {
    let (disk, mut failures) = (MemoryDisk::new(), 0);
    ask_during_every_job(&disk, |work| {
        if work.starts_with("work: Free") && !work.contains("kept: []") {
            disk.inject(Kind::Rename, 1, Fault::Fail(EIO));
            failures += 1;
        }
    });
    assert!(failures > 0 && !disk.has_faults(), "{failures}");
}

/// What it was told, `Full`, is no news any more by then: without room on the disk nothing else would be.
#[test]
fn who_asks_after_a_preparation_has_failed_hears_of_the_next_failure() {
    let disk = MemoryDisk::new();
    let options = Wal::options().segment_bytes(16 << 10).without_threads();
    let wal = options.disk(Arc::new(disk.clone())).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let refused = loop {
        if let Err(refused) = log.push(vec![1; 500]) {
            break refused;
        }
    };
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    disk.inject(Kind::Create, 1, Fault::Fail(ENOSPC));
    let prepare = || {
        let job = wal.begin_segment().expect("a preparation is due");
        let result = job.run();
        assert!(result.is_err());
        wal.finish_segment(job, result);
    };
    prepare();
    disk.inject(Kind::Create, 1, Fault::Fail(ENOSPC));
    let told = ask(&log);
    prepare();
    assert!(told.load(Ordering::Relaxed), "nobody told that the disk takes nothing");
    assert!(matches!(log.push(vec![1; 500]).unwrap_err(), AppendError::NoSpace { .. }));
}

/// There will be no more room, and nobody who could tell it later.
#[test]
fn who_asks_after_a_close_hears_at_once() {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(MemoryDisk::new()));
    let wal = options.without_threads().open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while log.push(vec![1; 500]).is_ok() {}
    wal.close().unwrap();
    assert!(ask(&log).load(Ordering::Relaxed), "the segment that was in the way is never made");
}

/// The second attempt follows the first, because what failed may have freed something; the others wait.
#[test]
fn a_disk_without_room_is_not_asked_all_the_time() {
    let disk = MemoryDisk::new();
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    let wal = options.open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    (1..=3).for_each(|nth| disk.inject(Kind::Create, nth, Fault::Fail(ENOSPC)));
    let fourth = disk.hold(Kind::Create, 4);
    let begun = Instant::now();
    while log.push(vec![1; 500]).is_ok() {}
    fourth.wait_reached();
    assert!(begun.elapsed() > Duration::from_millis(400), "twice a pause of 250 ms");
    fourth.release();
    wal.close().unwrap();
}

/// What waits for its sync is bounded; a single append that is larger goes alone.
#[test]
fn beyond_the_bound_of_what_is_unsynced_an_append_is_refused_until_a_sync() {
    const LIMIT: u64 = 4096;
    let options = Wal::options().segment_bytes(64 << 10).unsynced_bytes_max(LIMIT);
    let wal = options.disk(Arc::new(MemoryDisk::new())).without_threads().open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let mut taken = 0;
    let refusal = loop {
        match log.push(vec![1; 500]) {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    let AppendError::Full { unsynced, limit: LIMIT } = refusal else { panic!("{refusal}") };
    assert!((LIMIT - 600..=LIMIT).contains(&unsynced) && taken >= 5, "{taken}: {unsynced}");
    // A frame takes 52 bytes more than its one entry, and its length is a multiple of 8.
    let exact = usize::try_from(LIMIT - unsynced - 52).unwrap();
    log.push(vec![1; exact + 1]).unwrap_err();
    drop(log.push(vec![1; exact]).expect("the bound itself is allowed"));
    let told = ask(&log);
    assert!(!told.load(Ordering::Relaxed));
    wal.work(Duration::ZERO);
    assert!(told.load(Ordering::Relaxed), "a sync made room");
    drop(log.push(vec![1; 6000]).expect("nothing else waits"));
    log.push(vec![1; 1]).unwrap_err();
}

/// For who has no threads: once, once more after whatever can make room, and then in the next call again.
#[test]
fn a_call_for_all_work_asks_a_disk_without_room_twice() {
    let disk = MemoryDisk::new();
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    let wal = options.without_threads().open("log").unwrap();
    while wal.log(LogId(1)).unwrap().push(vec![1; 500]).is_ok() {}
    (1..=9).for_each(|nth| disk.inject(Kind::Create, nth, Fault::Fail(ENOSPC)));
    for call in 1..=2 {
        disk.start_trace();
        wal.work(Duration::ZERO);
        let trace = disk.take_trace();
        let asked = trace.iter().filter(|operation| operation.kind == Kind::Create).count();
        assert_eq!(asked, 2, "call {call}");
    }
}
