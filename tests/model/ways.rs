//! The same steps on the simulated disk and on the machine's, there in both ways of writing. Nothing fails here, and a power cut is a
//! killed process: all show the same, and their files are the same, byte for byte.

#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kontiki_disk::{Access, Disk, MemoryDisk, real};
use kontiki_sim::{
    model::{Operation, World},
    session::{DIRECTORY, SEGMENT_BYTES},
};
use kontiki_wal::{AppendError, LogId, Options, Pending, Wal, WriteMode};

use crate::{Step, Tally};

/// Where a log lies.
enum Home {
    Simulated(MemoryDisk),
    Machine { path: PathBuf, mode: WriteMode },
}

/// A log in one of the ways.
struct Trial {
    home: Home,
    wal: Wal,
}

impl Trial {
    fn open(home: Home, nonce: u64) -> Self {
        let options = Wal::options().segment_bytes(SEGMENT_BYTES).uuid([7; 16]).nonce(nonce);
        let wal = home.open(options.without_threads());
        Self { home, wal }
    }

    fn perform(&self, log: LogId, operation: &Operation, now: Duration) -> Pending {
        loop {
            match operation.perform(&self.wal, log) {
                Ok(pending) => return pending,
                Err(AppendError::Full { .. }) => drop(self.wal.work(now)),
                Err(error) => panic!("{log:?} {operation:?}: {error}"),
            }
        }
    }

    /// One group from begin to end.
    fn sync(&self, now: Duration) {
        if let Some(job) = self.wal.begin_sync(now) {
            let result = job.run();
            self.wal.finish_sync(job, result);
        }
    }

    /// One preparing, sealing or freeing.
    fn work_on_segment(&self) {
        if let Some(job) = self.wal.begin_segment() {
            let result = job.run();
            self.wal.finish_segment(job, result);
        }
    }

    /// Ends the process where it stands, and begins another one.
    fn kill(self, nonce: u64) -> Self {
        let home = match &self.home {
            Home::Simulated(disk) => Home::Simulated(disk.reopen()),
            Home::Machine { path, mode } => {
                let copy = path.with_extension(nonce.to_string());
                fs::create_dir(&copy).unwrap();
                for (name, bytes) in self.home.files() {
                    fs::write(copy.join(name), bytes).unwrap();
                }
                Home::Machine { path: copy, mode: *mode }
            }
        };
        drop(self.wal);
        Self::open(home, nonce)
    }

    fn close(self, nonce: u64) -> Self {
        self.wal.close().unwrap();
        drop(self.wal);
        let home = match self.home {
            Home::Simulated(disk) => Home::Simulated(disk.reopen()),
            machine @ Home::Machine { .. } => machine,
        };
        Self::open(home, nonce)
    }
}

/// What the log held, from the last opening on, after no operation, the first, and so on.
struct History {
    worlds: Vec<World>,
    /// How many operations are durable in one of the ways at least.
    acknowledged: Arc<AtomicUsize>,
}

impl History {
    fn new(world: World) -> Self {
        Self { worlds: vec![world], acknowledged: Arc::default() }
    }

    fn world(&self) -> &World {
        self.worlds.last().expect("there is a first")
    }

    /// The operation that comes next is durable with this.
    fn wait(&self, pending: Pending) {
        let (place, acknowledged) = (self.worlds.len(), Arc::clone(&self.acknowledged));
        pending.on_durable(move |result| {
            let count = if result.is_ok() { place } else { 0 };
            acknowledged.fetch_max(count, Ordering::Relaxed);
        });
    }
}

impl Home {
    fn open(&self, options: Options) -> Wal {
        let opened = match self {
            Self::Simulated(disk) => options.disk(Arc::new(disk.clone())).open(DIRECTORY),
            Self::Machine { path, mode } => options.write_mode(*mode).open(path),
        };
        opened.unwrap_or_else(|error| panic!("the log does not open: {error}"))
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let directory = match self {
            Self::Simulated(disk) => disk.open_directory(Path::new(DIRECTORY), Access::Read),
            Self::Machine { path, .. } => real().open_directory(path, Access::Read),
        };
        let directory = directory.unwrap();
        let read = |(name, length): (String, u64)| {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            directory.open(&name).unwrap().read_at(0, &mut bytes).unwrap();
            (name, bytes)
        };
        directory.list().unwrap().into_iter().map(read).collect()
    }
}

/// # Panics
/// If one of the three logs shows something else than it must, or has other bytes than the others.
pub(crate) fn run(steps: &[Step], tally: &mut Tally) {
    let directory = tempfile::tempdir().unwrap();
    let machine = |name, mode| Home::Machine { path: directory.path().join(name), mode };
    let homes = [
        Home::Simulated(MemoryDisk::new()),
        machine("positional", WriteMode::Positional),
        machine("mapped", WriteMode::Mapped),
    ];
    let mut trials = homes.map(|home| Trial::open(home, 0));
    let (mut history, mut now) = (History::new(World::default()), Duration::ZERO);
    for (step, number) in steps.iter().zip(1..) {
        match step {
            Step::Do { log, action } => {
                let operation = action.on(&history.world().log(*log), number);
                let world = history.world().after(*log, &operation);
                for trial in &trials {
                    history.wait(trial.perform(*log, &operation, now));
                }
                history.worlds.push(world);
            }
            Step::Sync | Step::Fail => trials.iter().for_each(|trial| trial.sync(now)),
            Step::Segment => trials.iter().for_each(Trial::work_on_segment),
            Step::Settle => trials.iter().for_each(|trial| _ = trial.wal.work(now)),
            Step::Sleep => now += Duration::from_millis(60),
            Step::PowerCut { .. } | Step::Kill => {
                count(&trials[0].wal, tally);
                // Before the old process lets go of its log, which then syncs in vain.
                let acknowledged = history.acknowledged.load(Ordering::Relaxed);
                trials = trials.map(|trial| trial.kill(number));
                let found = World::of(&trials[0].wal);
                assert!(
                    history.worlds[acknowledged..].contains(&found),
                    "step {number}: {found:#?}"
                );
                history = History::new(found);
            }
            Step::Close => {
                count(&trials[0].wal, tally);
                trials = trials.map(|trial| trial.close(number));
            }
        }
        for trial in &trials {
            assert_eq!(&World::of(&trial.wal), history.world(), "after step {number}, {step:?}");
        }
        compare(&trials, number);
    }
    count(&trials[0].wal, tally);
}

fn count(wal: &Wal, tally: &mut Tally) {
    let statistics = wal.statistics();
    tally.sealed += statistics.sealed_segments;
    tally.recycled += statistics.recycled_segments;
}

fn compare(trials: &[Trial], number: u64) {
    let simulated = trials[0].home.files();
    for trial in &trials[1..] {
        let Home::Machine { mode, .. } = &trial.home else { continue };
        let files = trial.home.files();
        let names = files.keys().collect::<Vec<_>>();
        assert_eq!(names, simulated.keys().collect::<Vec<_>>(), "{mode:?}, step {number}");
        for (name, bytes) in &files {
            assert!(*bytes == simulated[name], "{name} differs, {mode:?}, step {number}");
        }
    }
}
