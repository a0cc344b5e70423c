//! The queue of group commit, in every order of its threads that takes few preemptions: the log itself over a disk in
//! memory, on loom's locks and threads. How to run it and how to replay a failure: CONTRIBUTING.md.
//!
//! loom switches threads where the log locks, notifies, parks or uses an atomic, so also between taking a group out and
//! writing it, and between its sync and its outcome. A wake-up that is lost is a deadlock, which loom sees.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_wal::{
    AppendError, FollowError, Followed, Log, LogId, Options, Pending, Wal, WalError, pass_time,
};
use loom::{
    sync::{Condvar, Mutex},
    thread,
};
use tracing_subscriber::util::SubscriberInitExt;

/// Runs `test` in every order with at most `LOOM_MAX_PREEMPTIONS` (2) preemptions.
fn model(test: impl Fn() + Send + Sync + 'static) {
    let logging = std::env::var_os("LOOM_LOG").map(|_| {
        let filter = tracing_subscriber::EnvFilter::from_env("LOOM_LOG");
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_test_writer()
            .without_time()
            .finish()
            .set_default()
    });
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 10_000;
    builder.check(test);
    drop(logging);
}

/// A log, and its disk.
struct World {
    disk: MemoryDisk,
    wal: Wal,
    log: Log,
}

impl World {
    fn new(options: Options) -> Self {
        let disk = MemoryDisk::new();
        let options = options.segment_bytes(16 << 10).uuid([1; 16]).nonce(1);
        let wal = options.disk(Arc::new(disk.clone())).open("log").unwrap();
        let log = wal.log(LogId(1)).unwrap();
        Self { disk, wal, log }
    }

    /// Without the log's threads: who waits syncs.
    fn without_threads() -> Self {
        Self::new(Wal::options().without_threads())
    }

    fn push(&self, text: &'static str) -> Pending {
        self.log.push(text).unwrap().1
    }
}

/// Waits in another thread.
fn wait(pending: Pending) -> thread::JoinHandle<Outcome> {
    thread::spawn(move || pending.wait())
}

type Outcome = Result<(), WalError>;

/// A power cut that takes everything that was not synced leaves `text`.
fn is_on_disk(disk: &MemoryDisk, text: &str) -> bool {
    let bytes = disk.image(|_| false).contents("log/0000000000000001.wal").unwrap();
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// What a callback or a waker tells to one who waits for it.
struct Told<T> {
    value: Mutex<Option<T>>,
    changed: Condvar,
}

impl<T> Told<T> {
    fn new() -> Arc<Self> {
        Arc::new(Self { value: Mutex::new(None), changed: Condvar::new() })
    }

    fn tell(&self, value: T) {
        *self.value.lock().unwrap() = Some(value);
        self.changed.notify_one();
    }

    fn wait(&self) -> T {
        let mut value = self.value.lock().unwrap();
        loop {
            if let Some(value) = value.take() {
                return value;
            }
            value = self.changed.wait(value).unwrap();
        }
    }
}

impl Wake for Told<()> {
    fn wake(self: Arc<Self>) {
        self.tell(());
    }
}

/// The outcome of a callback.
fn call_back(pending: Pending) -> Arc<Told<Outcome>> {
    let told = Told::new();
    let callback = Arc::clone(&told);
    pending.on_durable(move |outcome| callback.tell(outcome));
    told
}

fn block_on(pending: Pending) -> Outcome {
    let woken = Told::new();
    let waker = Waker::from(Arc::clone(&woken));
    let mut pending = pin!(pending);
    loop {
        match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => return outcome,
            Poll::Pending => woken.wait(),
        }
    }
}

/// The acknowledgement of each of three ways to wait finds its own bytes on the disk, and not only those of an earlier group.
#[test]
fn no_wait_ends_before_its_own_sync_returned() {
    model(|| {
        let world = World::without_threads();
        let (log, disk) = (world.log.clone(), world.disk.clone());
        let other = thread::spawn(move || {
            log.push("other").unwrap().1.wait().unwrap();
            assert!(is_on_disk(&disk, "other"));
        });
        let (told, disk) = (Told::new(), world.disk.clone());
        let callback = Arc::clone(&told);
        world.push("callback").on_durable(move |outcome| {
            callback.tell(outcome.is_ok() && is_on_disk(&disk, "callback"));
        });
        world.push("own").wait().unwrap();
        assert!(is_on_disk(&world.disk, "own"));
        assert!(told.wait());
        other.join().unwrap();
    });
}

/// Whether a waiter was in the group that failed or comes when all is over: nobody is told that it is durable, and nothing is
/// taken any more.
#[test]
fn every_waiter_of_a_failed_group_and_all_later_ones_get_the_error() {
    model(|| {
        let world = World::without_threads();
        world.disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
        let [early, blocked, callback, own] =
            ["early", "blocked", "callback", "own"].map(|text| world.push(text));
        let (blocked, told, own) = (wait(blocked), call_back(callback), own.wait());
        for outcome in [own, blocked.join().unwrap(), told.wait(), early.wait()] {
            assert!(matches!(outcome, Err(WalError::Poisoned { .. })), "{outcome:?}");
        }
        assert!(matches!(world.log.push("late"), Err(AppendError::Wal(WalError::Poisoned { .. }))));
    });
}

/// What is appended while a group fails is in the queue for a group that never comes.
#[test]
fn who_waits_behind_a_group_that_fails_gets_the_error_and_who_was_before_it_does_not() {
    model(|| {
        let world = World::without_threads();
        world.disk.inject(Kind::Sync, 2, Fault::Fail(EIO));
        let others = ["first", "second"].map(|text| {
            let (log, disk) = (world.log.clone(), world.disk.clone());
            thread::spawn(move || push_and_wait(&log, &disk, text))
        });
        push_and_wait(&world.log, &world.disk, "own");
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Its outcome is `Ok` exactly if its bytes are on the disk.
fn push_and_wait(log: &Log, disk: &MemoryDisk, text: &'static str) {
    match log.push(text).map(|(_, pending)| pending.wait()) {
        Ok(Ok(())) => assert!(is_on_disk(disk, text)),
        Ok(Err(WalError::Poisoned { .. })) | Err(AppendError::Wal(WalError::Poisoned { .. })) => {
            assert!(!is_on_disk(disk, text))
        }
        other => panic!("{other:?}"),
    }
}

/// Three who sync for each other, and nobody else who could.
#[test]
fn no_wake_up_of_a_blocked_waiter_is_lost() {
    model(|| {
        let world = World::without_threads();
        let waiters = ["first", "second"].map(|text| {
            let log = world.log.clone();
            thread::spawn(move || log.push(text).unwrap().1.wait())
        });
        world.push("own").wait().unwrap();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
    });
}

/// A callback and a future need somebody else to sync: a waiter that happens to, or the log's thread.
#[test]
fn no_wake_up_of_the_logs_thread_is_lost() {
    model(|| {
        let world = World::new(Wal::options());
        let blocked = wait(world.push("blocked"));
        let told = call_back(world.push("callback"));
        block_on(world.push("future")).unwrap();
        told.wait().unwrap();
        blocked.join().unwrap().unwrap();
        world.wal.close().unwrap();
    });
}

/// Who asks for room while a sync is out hears of it.
#[test]
fn no_word_of_room_is_lost() {
    let has_waited = Arc::new(AtomicBool::new(false));
    let waited = Arc::clone(&has_waited);
    model(move || {
        // Room for the first frame of a log and one more.
        let world = World::new(Wal::options().without_threads().unsynced_bytes_max(220));
        let blocked = wait(world.push("blocked"));
        let pending = loop {
            match world.log.push("own") {
                Ok((_, pending)) => break pending,
                Err(AppendError::Full { .. }) => {
                    let told = Told::new();
                    let callback = Arc::clone(&told);
                    world.log.on_room(move || callback.tell(()));
                    told.wait();
                    waited.store(true, Ordering::Relaxed);
                }
                Err(error) => panic!("{error}"),
            }
        };
        pending.wait().unwrap();
        blocked.join().unwrap().unwrap();
    });
    assert!(has_waited.load(Ordering::Relaxed), "there was room in every order");
}

/// Who asks while nobody waits relies on the log's thread, and on no timed round of it.
#[test]
fn who_asks_for_room_while_nobody_waits_hears_of_it() {
    model(|| {
        let world = World::new(Wal::options().unsynced_bytes_max(220));
        drop(world.push("nobody waits"));
        assert!(matches!(world.log.push("own"), Err(AppendError::Full { .. })));
        let told = Told::new();
        let callback = Arc::clone(&told);
        world.log.on_room(move || callback.tell(()));
        told.wait();
        drop(world.push("own"));
        world.wal.close().unwrap();
    });
}

/// Whichever of the waiters syncs: it panics, and the others are told.
#[test]
fn a_panic_in_a_waiter_that_syncs_reaches_everyone() {
    model(|| {
        let world = World::without_threads();
        world.disk.inject(Kind::Sync, 1, Fault::Panic);
        let [blocked, callback, own] = ["blocked", "callback", "own"].map(|text| world.push(text));
        let blocked = thread::spawn(|| catch(|| blocked.wait()));
        let (told, own) = (call_back(callback), catch(|| own.wait()));
        let outcomes = [own, blocked.join().unwrap()];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 1, "{outcomes:?}");
        for outcome in outcomes.into_iter().flatten().chain([told.wait()]) {
            assert!(matches!(outcome, Err(WalError::SyncerPanicked)), "{outcome:?}");
        }
        let late = world.log.push("late");
        assert!(matches!(late, Err(AppendError::Wal(WalError::SyncerPanicked))), "{late:?}");
    });
}

#[test]
fn a_panic_in_the_logs_thread_reaches_everyone() {
    model(|| {
        let world = World::new(Wal::options());
        world.disk.inject(Kind::Sync, 1, Fault::Panic);
        let (callback, future) = (world.push("callback"), world.push("future"));
        let (told, outcome) = (call_back(callback), block_on(future));
        for outcome in [outcome, told.wait(), world.wal.close()] {
            assert!(matches!(outcome, Err(WalError::SyncerPanicked)), "{outcome:?}");
        }
    });
}

/// The outcome, or `None` if the panic that the test planned came instead.
fn catch(wait: impl FnOnce() -> Outcome) -> Option<Outcome> {
    match catch_unwind(AssertUnwindSafe(wait)) {
        Ok(outcome) => Some(outcome),
        Err(panic) => {
            let is_planned =
                panic.downcast_ref::<String>().is_some_and(|text| text.contains("as planned"));
            if is_planned { None } else { resume_unwind(panic) }
        }
    }
}

/// The one that leaves is the first in the queue, so it is woken to sync next: perhaps just when it gives up.
#[test]
fn a_waiter_that_goes_away_hands_leadership_on() {
    model(|| {
        let world = World::without_threads();
        drop(world.push("in the group that is out"));
        let job = world.wal.begin_sync(Duration::ZERO).unwrap();
        let (leaving, staying) = (world.push("leaving"), world.push("staying"));
        let leaving = thread::spawn(move || match leaving.wait_timeout(Duration::from_millis(1)) {
            Ok(outcome) => outcome.unwrap(),
            Err(left) => drop(left),
        });
        let staying = wait(staying);
        pass_time();
        let result = job.run();
        world.wal.finish_sync(job, result);
        leaving.join().unwrap();
        staying.join().unwrap().unwrap();
    });
}

/// What the future asked of the log's thread is done for those who are left.
#[test]
fn a_future_that_is_dropped_takes_nothing_along() {
    model(|| {
        let world = World::new(Wal::options());
        let mut dropped = Box::pin(world.push("dropped"));
        let waker = Waker::from(Told::new());
        let _ = dropped.as_mut().poll(&mut Context::from_waker(&waker));
        let told = call_back(world.push("callback"));
        drop(dropped);
        told.wait().unwrap();
        world.wal.close().unwrap();
    });
}

/// Closing syncs for those who wait, and tells those who come too late.
#[test]
fn whoever_waits_while_the_log_closes_is_told() {
    model(|| {
        let world = World::without_threads();
        let blocked = wait(world.push("blocked"));
        let told = call_back(world.push("callback"));
        world.wal.close().unwrap();
        told.wait().unwrap();
        blocked.join().unwrap().unwrap();
        assert!(matches!(world.log.push("late"), Err(AppendError::Wal(WalError::Closed))));
    });
}

/// It waits for what comes next, and there will be nothing.
#[test]
fn a_follower_that_waits_while_the_log_closes_is_told() {
    model(|| {
        let world = World::without_threads();
        world.push("entry").wait().unwrap();
        let mut follow = world.log.follow(2).unwrap();
        let follower = thread::spawn(move || follow.wait_next());
        world.wal.close().unwrap();
        let ended = follower.join().unwrap();
        assert!(matches!(ended, Err(FollowError::Wal(WalError::Closed))), "{ended:?}");
    });
}

/// The log has failed, and who is told of it by one of its threads closes it, while another thread waits for that one in a close.
#[test]
fn who_is_told_of_a_failure_can_close_while_another_does() {
    model(|| {
        let world = World::new(Wal::options());
        world.disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
        let told = Told::new();
        let (callback, wal) = (Arc::clone(&told), world.wal.clone());
        world.push("entry").on_durable(move |_| callback.tell(wal.close()));
        let closed = world.wal.close();
        for outcome in [closed, told.wait()] {
            let is_told = matches!(outcome, Err(WalError::Poisoned { .. } | WalError::Closed));
            assert!(is_told, "{outcome:?}");
        }
    });
}

/// What is cut while a follower looks for its place anew, because the segment that it stood in is gone, it tells.
#[test]
fn a_follower_whose_segment_is_gone_tells_what_is_cut_meanwhile() {
    model(|| {
        let world = World::without_threads();
        let other = world.wal.log(LogId(2)).unwrap();
        let fill = || {
            while let Err(AppendError::Full { .. }) = other.push(vec![7; 4000]).map(drop) {
                world.wal.work(Duration::ZERO);
            }
            world.wal.work(Duration::ZERO);
        };
        world.log.append(1, 1, &["1".into(), "2".into()]).unwrap().wait().unwrap();
        (0..3).for_each(|_| fill());
        let mut follow = world.log.follow(1).unwrap();
        for index in 1..3 {
            let followed = follow.try_next().unwrap().unwrap();
            assert!(matches!(followed, Followed::Entry(entry) if entry.index == index));
        }
        assert_eq!(follow.try_next().unwrap(), None, "it stands behind the other log's entries");
        (0..4).for_each(|_| fill());
        other.compact_before(other.last()).unwrap().wait().unwrap();
        world.wal.work(Duration::ZERO);

        let log = world.log.clone();
        let mut replaced = Some(thread::spawn(move || {
            log.append(2, 2, &["b".into(), "c".into()]).unwrap().wait().unwrap();
        }));
        // What it has told so far is 1 and 2.
        let mut told = vec![Bytes::from("1"), Bytes::from("2")];
        loop {
            match follow.try_next() {
                Ok(Some(Followed::Entry(entry))) => told.push(entry.bytes),
                Ok(Some(Followed::Truncated { last })) => {
                    told.truncate(usize::try_from(last).unwrap())
                }
                Err(FollowError::Compacted { first: 1, .. }) => told.clear(),
                Ok(None) => match replaced.take() {
                    Some(replaced) => replaced.join().unwrap(),
                    None => break,
                },
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(told, ["1", "b", "c"]);
    });
}
