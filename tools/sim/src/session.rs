//! One opening of the log on a simulated disk, with the history it makes and every power cut on
//! the way. Nothing happens by itself: each operation and each step of a job is called from here.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kontiki_disk::{MemoryDisk, memory::Cut};
use kontiki_wal::{
    AppendError, LogId, OpenError, Options, Wal, WalError,
    steps::{SegmentJob, SyncJob},
};

use crate::{
    model::{Operation, World},
    random::Random,
};

/// Where the log lies on every simulated disk.
pub const DIRECTORY: &str = "log";

/// Bytes of a segment: the smallest there are, so that a short life sees many.
pub const SEGMENT_BYTES: u64 = 16 << 10;

/// The options of every log here: no thread, nothing drawn at random. What the disk has been through makes the nonce.
pub fn options(disk: &MemoryDisk) -> Options {
    Wal::options()
        .segment_bytes(SEGMENT_BYTES)
        .uuid(*b"the simulated id")
        .nonce(Random::new(disk.fingerprint() ^ disk.operations()).draw())
        .disk(Arc::new(disk.clone()))
        .without_threads()
}

/// Opens the log on `disk`.
///
/// # Errors
/// What the log says.
pub fn open(disk: &MemoryDisk) -> Result<Wal, OpenError> {
    options(disk).open(DIRECTORY)
}

/// What was done between two openings of the log, and where the power could go.
#[derive(Debug)]
pub struct Life {
    /// What was done, in the order in which the log took it.
    pub operations: Vec<(LogId, Operation)>,
    /// What the log held after none of them, after the first, and so on.
    pub worlds: Vec<World>,
    /// Every operation of the disk since the log was opened, and those of the opening that ended
    /// this life.
    pub cuts: Vec<PowerCut>,
}

/// A place where the power may go: the disk before one operation of it, and what must and may be
/// found there afterwards.
#[derive(Clone, Debug)]
pub struct PowerCut {
    /// The disk, and what it was about to do.
    pub cut: Cut,
    /// How many operations were acknowledged.
    pub acknowledged: usize,
    /// How many operations the log had taken.
    pub appended: usize,
}

impl Life {
    /// A life that begins with `world`.
    pub fn new(world: World) -> Self {
        Self { operations: Vec::new(), worlds: vec![world], cuts: Vec::new() }
    }

    /// What the log holds now.
    pub fn world(&self) -> &World {
        self.worlds.last().expect("a life begins with a world")
    }

    /// Takes in an operation that the log has accepted.
    fn push(&mut self, log: LogId, operation: Operation) {
        self.worlds.push(self.world().after(log, &operation));
        self.operations.push((log, operation));
    }

    /// The longest history of `acknowledged..=appended` operations that ends in the world with
    /// this digest.
    pub fn find(&self, digest: u64, acknowledged: usize, appended: usize) -> Option<usize> {
        (acknowledged..=appended).rev().find(|&place| self.worlds[place].digest() == digest)
    }
}

/// The log while it is open.
#[derive(Debug)]
pub struct Session {
    // Jobs go before the log that they belong to.
    sync: Stage<SyncJob>,
    segment: Stage<SegmentJob>,
    /// The log.
    pub wal: Wal,
    /// Its disk.
    pub disk: MemoryDisk,
    /// What happened so far.
    pub life: Life,
    now: Duration,
    acknowledged: Arc<AtomicUsize>,
    failed: Arc<AtomicBool>,
}

/// How far a job is.
#[derive(Debug)]
enum Stage<Job> {
    None,
    Begun(Job),
    Ran(Job, io::Result<()>),
}

impl Session {
    /// Opens the log on `disk`. The cuts of the opening come back apart: until it is done, what
    /// may be found is still what the life before it left.
    ///
    /// # Errors
    /// What the log says.
    pub fn open(disk: &MemoryDisk) -> Result<(Self, Vec<Cut>), OpenError> {
        disk.start_cuts();
        let session = Self::open_with(disk, options(disk))?;
        Ok((session, disk.take_cuts()))
    }

    /// Opens it with other options, and keeps no cuts.
    pub(crate) fn open_with(disk: &MemoryDisk, options: Options) -> Result<Self, OpenError> {
        let wal = options.open(DIRECTORY)?;
        let session = Self {
            sync: Stage::None,
            segment: Stage::None,
            life: Life::new(World::of(&wal)),
            wal,
            disk: disk.clone(),
            now: Duration::ZERO,
            acknowledged: Arc::default(),
            failed: Arc::default(),
        };
        Ok(session)
    }

    /// How many operations were reported durable.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many operations the log has taken.
    pub fn appended(&self) -> usize {
        self.life.operations.len()
    }

    /// True once a wait for durability has ended in an error.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// True between the begin and the finish of a sync.
    pub fn is_syncing(&self) -> bool {
        !matches!(self.sync, Stage::None)
    }

    /// Does `operation`, and the jobs of the log first as long as it answers `Full`.
    ///
    /// # Errors
    /// What the log says.
    pub fn perform(&mut self, log: LogId, operation: &Operation) -> Result<(), AppendError> {
        let mut patience = 100;
        let pending = loop {
            match operation.perform(&self.wal, log) {
                Err(AppendError::Full { .. }) if patience > 0 => {
                    patience -= 1;
                    self.work_on_sync();
                    self.work_on_segment();
                }
                result => break result?,
            }
        };
        self.life.push(log, operation.clone());
        let place = self.appended();
        let (acknowledged, failed) = (Arc::clone(&self.acknowledged), Arc::clone(&self.failed));
        pending.on_durable(move |result| match result {
            Ok(()) => drop(acknowledged.fetch_max(place, Ordering::Relaxed)),
            Err(_) => failed.store(true, Ordering::Relaxed),
        });
        Ok(())
    }

    /// Lets time pass.
    pub fn sleep(&mut self, time: Duration) {
        self.now += time;
    }

    /// Begins, runs or finishes a sync, whichever is next.
    pub fn work_on_sync(&mut self) {
        self.sync = match std::mem::replace(&mut self.sync, Stage::None) {
            Stage::None => self.wal.begin_sync(self.now).map_or(Stage::None, Stage::Begun),
            Stage::Begun(job) => {
                let result = job.run();
                Stage::Ran(job, result)
            }
            Stage::Ran(job, result) => {
                self.wal.finish_sync(job, result);
                Stage::None
            }
        };
        self.collect();
    }

    /// Begins, runs or finishes the preparation of a segment, whichever is next.
    pub fn work_on_segment(&mut self) {
        self.segment = match std::mem::replace(&mut self.segment, Stage::None) {
            Stage::None => self.wal.begin_segment().map_or(Stage::None, Stage::Begun),
            Stage::Begun(job) => {
                let result = job.run();
                Stage::Ran(job, result)
            }
            Stage::Ran(job, result) => {
                self.wal.finish_segment(job, result);
                Stage::None
            }
        };
        self.collect();
    }

    /// Works until everything is acknowledged and no job is left, or a wait has failed.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn settle(&mut self) {
        let mut rests = 0;
        for round in 0..1000 {
            self.work_on_sync();
            self.work_on_segment();
            let idle = matches!((&self.sync, &self.segment), (Stage::None, Stage::None));
            let done = self.failed() || self.acknowledged() == self.appended();
            // What ended just now can have made work.
            rests = if idle && done { rests + 1 } else { 0 };
            // On a full disk a preparation is tried again and again.
            if rests == 2 || (rests == 1 && round > 100) {
                return;
            }
        }
        panic!("the log does not come to rest");
    }

    /// Closes the log as a program that ends well does; the disk for the next one comes back.
    ///
    /// # Panics
    /// If the log reports an error.
    pub fn close(mut self) -> (Life, MemoryDisk) {
        self.try_to_close().expect("nothing fails here");
        self.kill()
    }

    /// Does all work and closes the log, where that may fail.
    pub(crate) fn try_to_close(&mut self) -> Result<(), WalError> {
        self.settle();
        let closed = self.wal.close();
        self.collect();
        closed
    }

    /// Ends as a killed process does: whatever reached the page cache stays.
    pub fn kill(self) -> (Life, MemoryDisk) {
        let disk = self.disk.reopen();
        // What the log still tries when it is dropped must not happen; and it must not wait for
        // a job that never comes back.
        self.disk.cut_power_after(0);
        let Self { sync, segment, wal, life, .. } = self;
        if let Stage::Begun(job) | Stage::Ran(job, _) = sync {
            wal.finish_sync(job, Err(io::ErrorKind::Interrupted.into()));
        }
        drop(segment);
        drop(wal);
        (life, disk)
    }

    /// Takes in what the disk did since the last time.
    fn collect(&mut self) {
        // Nothing is appended or acknowledged in the same step as the disk works, so this was
        // true before each of these.
        let (acknowledged, appended) = (self.acknowledged(), self.appended());
        let cuts = self.disk.take_cuts().into_iter();
        self.life.cuts.extend(cuts.map(|cut| PowerCut { cut, acknowledged, appended }));
    }
}
