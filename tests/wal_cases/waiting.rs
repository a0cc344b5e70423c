//! Waiting for durability, with the log's own threads. Gates of the disk take the place of sleeps.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use kontiki_disk::memory::{EIO, Fault, Kind};
use kontiki_sim::session::SEGMENT_BYTES;
use kontiki_wal::{Log, Wal, WalError};

use super::*;

/// A log with threads.
fn start_threads(disk: &MemoryDisk) -> (Wal, Log) {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).disk(Arc::new(disk.clone()));
    let wal = options.open(DIRECTORY).unwrap();
    let log = wal.log(L).unwrap();
    (wal, log)
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// WAL-CASE 20
#[test]
fn every_waiter_of_a_failed_sync_is_told() {
    let disk = MemoryDisk::new();
    let (_wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    let (_, first) = log.push("first").unwrap();
    let waiter = thread::spawn(|| first.wait());
    gate.wait_reached();
    // These come into the next group, which is never written.
    let waiters: Vec<_> = (0..8)
        .map(|_| log.push("later").unwrap().1)
        .map(|pending| thread::spawn(|| pending.wait()))
        .collect();
    let (sender, told) = mpsc::channel();
    log.push("callback").unwrap().1.on_durable(move |result| sender.send(result).unwrap());
    gate.release();
    for waiter in waiters.into_iter().chain([waiter]) {
        let result = waiter.join().unwrap();
        assert!(matches!(result, Err(WalError::Poisoned { .. })), "{result:?}");
    }
    assert!(told.recv().unwrap().is_err());
    assert!(log.push("too late").is_err());
}

/// WAL-CASE 22
#[test]
fn a_panic_of_the_syncer_tells_everyone_and_hangs_no_one() {
    let disk = MemoryDisk::new();
    let (wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    disk.inject(Kind::Sync, 1, Fault::Panic);
    let (_, first) = log.push("first").unwrap();
    let leader = thread::spawn(|| first.wait());
    gate.wait_reached();
    let (sender, told) = mpsc::channel();
    for _ in 0..4 {
        let (pending, sender) = (log.push("later").unwrap().1, sender.clone());
        thread::spawn(move || sender.send(pending.wait()).unwrap());
    }
    log.push("callback").unwrap().1.on_durable(move |result| sender.send(result).unwrap());
    gate.release();
    for _ in 0..5 {
        let result = told.recv_timeout(Duration::from_secs(10));
        let result = result.expect("nobody tells those who wait");
        assert!(matches!(result, Err(WalError::SyncerPanicked)), "{result:?}");
    }
    // The leader itself panics, or is told if the log's own thread was the syncer.
    assert!(leader.join().map_or(true, |result| result.is_err()));
    assert!(log.push("too late").is_err());
    assert!(wal.close().is_err());
}

/// WAL-CASE 23
#[test]
fn a_waiter_that_is_dropped_in_the_middle_of_a_sync_takes_nothing_along() {
    let disk = MemoryDisk::new();
    let (_wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let mut dropped = Box::pin(log.push("dropped").unwrap().1);
    let polled = dropped.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    gate.wait_reached();
    let (_, kept) = log.push("kept").unwrap();
    let waiter = thread::spawn(|| kept.wait());
    drop(dropped);
    gate.release();
    waiter.join().unwrap().unwrap();
    assert_eq!(count.0.load(Ordering::SeqCst), 0, "who is gone is not woken");
    drop(waker);
    assert_eq!(Arc::strong_count(&count), 1, "nor kept");
}

/// WAL-CASE 23: where nobody else syncs, leadership goes to one of those who wait, past the one who has left.
#[test]
fn whoever_waits_is_told_to_sync_when_the_syncer_is_done() {
    for _ in 0..20 {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        let log = wal.log(L).unwrap();
        let gate = disk.hold(Kind::Sync, 1);
        let (sender, told) = mpsc::channel();
        let wait = |text: &'static str| {
            let (_, pending) = log.push(text).unwrap();
            let (sender, (waits, waiting)) = (sender.clone(), mpsc::channel());
            thread::spawn(move || {
                waits.send(()).unwrap();
                sender.send(pending.wait()).unwrap();
            });
            waiting.recv().unwrap();
        };
        wait("first");
        gate.wait_reached();
        let mut dropped = Box::pin(log.push("dropped").unwrap().1);
        let polled = dropped.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        (0..4).for_each(|_| wait("later"));
        drop(dropped);
        gate.release();
        for _ in 0..5 {
            let outcome = told.recv_timeout(Duration::from_secs(10));
            outcome.expect("nobody syncs for those who wait").unwrap();
        }
    }
}

/// A future is woken when its entry is durable, by the waker of its last poll.
#[test]
fn a_future_resolves_when_the_sync_is_done() {
    let disk = MemoryDisk::new();
    let (_wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    let mut pending = pin!(log.push("entry").unwrap().1);
    let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
    for count in [&old, &new] {
        let waker = Waker::from(Arc::clone(count));
        assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    gate.wait_reached();
    gate.release();
    log.push("next").unwrap().1.wait().unwrap();
    let waker = Waker::from(Arc::clone(&new));
    let polled = pending.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(polled, Poll::Ready(Ok(()))));
    assert_eq!(old.0.load(Ordering::SeqCst), 0);
}

/// WAL-CASE 58
#[test]
fn a_callback_may_panic_or_append_again() {
    let disk = MemoryDisk::new();
    let (wal, log) = start_threads(&disk);
    log.push("panics").unwrap().1.on_durable(|_| panic!("a callback of the test"));
    let (sender, told) = mpsc::channel();
    let again = log.clone();
    log.push("appends").unwrap().1.on_durable(move |result| {
        result.unwrap();
        let (_, pending) = again.push("from the callback").unwrap();
        pending.on_durable(move |result| sender.send(result).unwrap());
    });
    told.recv().unwrap().unwrap();
    log.push("still works").unwrap().1.wait().unwrap();
    assert_eq!(log.last(), 4);
    wal.close().unwrap();
}

/// WAL-CASE 58
#[test]
fn a_waker_may_panic() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker of the test");
        }
    }
    let disk = MemoryDisk::new();
    let (wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    let mut pending = pin!(log.push("entry").unwrap().1);
    let waker = Waker::from(Arc::new(Panics));
    assert!(pending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    gate.wait_reached();
    gate.release();
    log.push("next").unwrap().1.wait().unwrap();
    wal.close().unwrap();
}

/// Group commit: what is appended during a sync goes into one next sync, whoever waits for it.
#[test]
fn appends_during_a_sync_share_the_next_one() {
    let disk = MemoryDisk::new();
    let (wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    let (_, first) = log.push("first").unwrap();
    let waiter = thread::spawn(|| first.wait());
    gate.wait_reached();
    let others: Vec<_> = (0..16).map(|_| log.push("other").unwrap().1).collect();
    let waiters: Vec<_> =
        others.into_iter().map(|pending| thread::spawn(|| pending.wait())).collect();
    gate.release();
    for waiter in waiters.into_iter().chain([waiter]) {
        waiter.join().unwrap().unwrap();
    }
    assert_eq!(wal.statistics().syncs, 2);
}

/// What is appended while another thread syncs, and waited for by nobody, is the log's own to sync.
#[test]
fn what_comes_during_the_sync_of_a_waiting_thread_is_synced_as_well() {
    let disk = MemoryDisk::new();
    let (wal, log) = start_threads(&disk);
    let gate = disk.hold(Kind::Sync, 1);
    let (_, waited_for) = log.push("waited for").unwrap();
    let waiter = thread::spawn(move || waited_for.wait());
    gate.wait_reached();
    // Longer than the log's thread looks aside: by now it knows that somebody else syncs. Time itself is the event.
    thread::sleep(Duration::from_millis(200));
    let (_, alone) = log.push("alone").unwrap();
    let end = alone.lsn();
    drop(alone);
    gate.release();
    waiter.join().unwrap().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while wal.durable_lsn() < end {
        assert!(Instant::now() < deadline, "nobody syncs it");
        thread::yield_now();
    }
}
