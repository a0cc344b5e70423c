//! A node without threads: whoever holds it calls its steps, one at a time and in any order, and says what time it is. What
//! a node's threads do is loops over the same steps.
//!
//! For simulations: with the same disk, transport, times and random numbers the same calls do the same. The log's steps are
//! called beside these ([`Steps::wal`]): nothing that was proposed becomes durable by itself.

use std::sync::Arc;

use bytes::Bytes;
use kontiki_core::{Instant, Message, Raft};
use kontiki_wal::{Log, Wal};

use crate::{
    Node, StateMachine,
    applier::{Applier, ApplyQueue},
    driver::Driver,
    envelope::{self, Envelope},
    fetcher::{self, FetchQueue},
    node::{self, Workers},
    shared::Shared,
    snapshots::keeper::{Keeper, KeeperQueue},
};

/// A node that does nothing by itself; made by [`Builder::start_in_steps`](crate::Builder::start_in_steps).
///
/// To drop it is to end the process: nobody is told anything, and the log is not closed.
pub struct Steps<S> {
    node: Node<S>,
    shared: Arc<Shared>,
    driver: Driver,
    applier: Applier<S>,
    applies: Arc<ApplyQueue>,
    fetches: Arc<FetchQueue>,
    keeper: Keeper,
    jobs: Arc<KeeperQueue>,
    log: Log,
    wal: Wal,
}

impl<S: StateMachine> Steps<S> {
    /// The driver has begun.
    pub(crate) fn begin(node: Node<S>, workers: Workers<S>, now: Instant) -> Self {
        let Workers { mut driver, mut applier, keeper, log } = workers;
        while applier.count_passed() {}
        driver.begin(now);
        let (shared, wal) = (node.shared().clone(), driver.wal());
        let (applies, fetches, jobs) = (driver.applies(), driver.fetches(), driver.keeper());
        Self { node, shared, driver, applier, applies, fetches, keeper, jobs, log, wal }
    }

    /// The handle to propose and to read with.
    pub fn node(&self) -> &Node<S> {
        &self.node
    }

    /// The log, without threads.
    pub fn wal(&self) -> &Wal {
        &self.wal
    }

    /// What the state machine holds.
    pub fn machine(&self) -> &S {
        self.applier.machine()
    }

    /// The protocol: none before the first start is complete, and after a failure.
    pub fn core(&self) -> Option<&Raft> {
        self.driver.core()
    }

    /// Something waits for a turn of the driver.
    pub fn has_arrivals(&self) -> bool {
        !self.shared.inbox.is_empty()
    }

    /// When a turn of the driver is due though nothing arrives.
    pub fn turn_at(&self) -> Option<Instant> {
        self.driver.poll_timeout()
    }

    /// One turn of the driver: takes all that waits, and does what follows. False once the node has ended.
    ///
    /// # Panics
    /// If `now` is before an earlier one.
    pub fn turn(&mut self, now: Instant) -> bool {
        self.shared.clock.set(now);
        if !self.driver.is_closing() {
            self.driver.turn(now);
        }
        !self.driver.is_closing()
    }

    /// Something waits for the applier.
    pub fn has_work(&self) -> bool {
        !self.applies.is_empty()
    }

    /// When somebody who waits for the applier has waited too long.
    pub fn apply_at(&self) -> Option<Instant> {
        self.applier.poll_timeout()
    }

    /// One piece of the applier's work, if one waits, and the end of those who have waited too long.
    ///
    /// # Panics
    /// As for [`turn`](Self::turn).
    pub fn apply(&mut self, now: Instant) {
        self.shared.clock.set(now);
        if let Some(work) = self.applies.pop() {
            self.applier.step(work);
        }
        self.applier.expire(now);
    }

    /// Something waits for the keeper of the images.
    pub fn has_snapshot_jobs(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// One job of the keeper, with all its IO, if one waits.
    pub fn keep(&mut self) {
        if let Some(job) = self.jobs.pop() {
            self.keeper.step(job);
        }
    }

    /// A snapshot is due, or on its way.
    pub fn owes_snapshot(&self) -> bool {
        self.applier.owes_snapshot()
    }

    /// A follower needs a piece of the log.
    pub fn has_fetches(&self) -> bool {
        !self.fetches.is_empty()
    }

    /// Reads one piece of the log that a follower needs, if there is one.
    pub fn fetch(&mut self) {
        if let Some(fetch) = self.fetches.pop() {
            fetcher::step(&self.shared, &self.log, fetch);
        }
    }

    /// Ends a node that was [shut down](Node::shutdown) and has had its last [turn](Self::turn): everybody who waits is
    /// answered, and the log is closed. Jobs of the log that are out keep it from that, and are finished before.
    pub fn stop(self) {
        let Self { node, shared, driver, mut applier, applies, fetches, keeper, jobs, log, wal } =
            self;
        let of_driver = driver.stop();
        while let Some(work) = applies.pop() {
            applier.step(work);
        }
        // Any of them can hold the directory.
        drop((node, applier, fetches, keeper, jobs, log, wal));
        node::finish(&shared, of_driver);
    }
}

/// What a message between nodes says, if it is one of the protocol: those may be lost, repeated and reordered. The others are
/// those of images, or pass on proposals and tell their outcomes, and of these no transport may repeat one.
pub fn protocol_message(message: &Bytes) -> Option<Message> {
    match envelope::decode(message.clone()) {
        Ok(Envelope::Protocol(message)) => Some(message),
        _ => None,
    }
}

/// Whether a message asks for a piece of an image or brings one: those may be lost and repeated.
pub fn is_of_image(message: &Bytes) -> bool {
    matches!(envelope::decode(message.clone()), Ok(Envelope::Ask(_) | Envelope::Piece(_)))
}

impl<S> std::fmt::Debug for Steps<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Steps").field("id", &self.shared.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        io,
        path::PathBuf,
        pin::pin,
        task::{Context, Wake, Waker},
        time::Duration,
    };

    use kontiki_disk::MemoryDisk;
    use parking_lot::Mutex;

    use super::*;
    use crate::{ApplyContext, Loopback, Options, SnapshotWriter, StartError, storage::Storage};

    #[derive(Default)]
    struct Sum(u64);

    impl StateMachine for Sum {
        fn apply(&mut self, _: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
            self.0 += u64::from(command[0]);
            Ok(Bytes::new())
        }

        fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn restore(&mut self, _: &mut dyn io::Read) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Everything that is due, a millisecond after the other, until the sum is what it should be; how long that took.
    fn drive(steps: &mut Steps<Sum>, sum: u64) -> u64 {
        for ms in 0..10_000 {
            let now = Instant(ms * 1_000_000);
            assert!(steps.turn(now));
            while steps.wal().work(Duration::from_nanos(now.0)) {}
            while steps.has_work() {
                steps.apply(now);
            }
            if steps.machine().0 == sum {
                return ms;
            }
        }
        panic!("nothing is applied");
    }

    #[test]
    fn a_node_in_steps_does_what_it_is_called_for_and_the_same_each_time() {
        let run = || {
            let mut drawn = 0;
            let draw = move || {
                drawn += 1;
                drawn
            };
            let mut steps = Node::builder(1, "d")
                .initial_members([(1, "a:1")])
                .disk(Arc::new(MemoryDisk::new()))
                .transport(Loopback::new().transport(1))
                .start_in_steps(Sum::default(), Instant(0), draw)
                .unwrap();
            let proposal = steps.node().propose(vec![5]);
            let proposal = proposal.wait_timeout(Duration::ZERO).expect_err("nothing was called");
            let took = drive(&mut steps, 5);
            let Ok(applied) = proposal.wait_timeout(Duration::ZERO) else { panic!("not applied") };
            applied.unwrap();
            (took, steps.core().unwrap().status())
        };
        let (took, status) = run();
        assert!(took > 500, "an election comes first, {took} ms");
        assert_eq!(run(), (took, status));
    }

    #[test]
    fn a_node_in_steps_that_is_shut_down_answers_whoever_waits_and_keeps_what_it_was_given() {
        let disk = MemoryDisk::new();
        let start = |disk: &MemoryDisk| {
            let mut drawn = 0;
            let draw = move || {
                drawn += 1;
                drawn
            };
            Node::builder(1, "d")
                .initial_members([(1, "a:1")])
                .disk(Arc::new(disk.clone()))
                .transport(Loopback::new().transport(1))
                .start_in_steps(Sum::default(), Instant(0), draw)
                .unwrap()
        };
        let mut steps = start(&disk);
        let first = steps.node().propose(vec![5]);
        let took = drive(&mut steps, 5);
        first.wait_timeout(Duration::ZERO).expect("answered").unwrap();
        let (node, open) = (steps.node().clone(), steps.node().propose(vec![6]));
        drop(node.shutdown());
        assert!(!steps.turn(Instant(took * 1_000_000)), "its last turn");
        assert!(node.propose(vec![7]).wait_timeout(Duration::ZERO).is_ok(), "refused at once");
        steps.stop();
        let open = open.wait_timeout(Duration::ZERO).expect("everybody has an answer");
        assert!(!open.unwrap_err().is_certainly_not_applied(), "it is in the log");
        assert_eq!(node.status().role, crate::Role::Stopped);
        // As a power cut now would leave it.
        drive(&mut start(&disk.image(|_| false)), 11);
    }

    /// Opens the log as soon as it is told that the directory is free.
    struct Opens(PathBuf, Mutex<Option<Result<(), StartError>>>);

    impl Wake for Opens {
        fn wake(self: Arc<Self>) {
            let opened = Storage::open(&self.0, 1, &Options::default(), None);
            *self.1.lock() = Some(opened.map(drop));
        }
    }

    #[test]
    fn the_directory_is_free_when_it_is_told_that_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut steps = Node::builder(1, directory.path())
            .initial_members([(1, "a:1")])
            .transport(Loopback::new().transport(1))
            .start_in_steps(Sum::default(), Instant(0), || 7)
            .unwrap();
        let opens = Arc::new(Opens(directory.path().to_owned(), Mutex::default()));
        let mut shutdown = pin!(steps.node().shutdown());
        let waker = Waker::from(opens.clone());
        assert!(shutdown.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        steps.turn(Instant(1));
        steps.stop();
        opens.1.lock().take().expect("somebody was told").unwrap();
    }
}
