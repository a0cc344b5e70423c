//! Word of room: whoever asks for it while something is in the way hears when that is out of it.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_wal::{Log, LogId, Wal, steps::SegmentJob};

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
