//! Looks that stop in the middle while a writer goes on, or the disk fails: whatever happens meanwhile is no damage.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    fmt, io,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::{Access, Directory, Disk, File, GrowingFile, MemoryDisk};
use kontiki_wal::{
    AppendError, LogId, OpenError, Wal,
    inspect::{Effort, Scan, Verdict},
};

/// Before one of the reads, lists and opens of this disk something else happens.
#[derive(Clone)]
struct Interrupted<T: ?Sized> {
    inner: Arc<T>,
    /// Counts down to the interruption.
    left: Arc<AtomicUsize>,
    interruption: Arc<dyn Fn() -> io::Result<()> + Send + Sync>,
}

impl<T: ?Sized> Interrupted<T> {
    fn with<U: ?Sized>(&self, inner: Arc<U>) -> Arc<Interrupted<U>> {
        let (left, interruption) = (Arc::clone(&self.left), Arc::clone(&self.interruption));
        Arc::new(Interrupted { inner, left, interruption })
    }

    fn step(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1 => (self.interruption)(),
            _ => Ok(()),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Interrupted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Interrupted").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Disk for Interrupted<MemoryDisk> {
    fn open_directory(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Directory>> {
        assert_eq!(access, Access::Read, "only looks are interrupted");
        Ok(self.with(self.inner.open_directory(path, access)?))
    }
}

impl Directory for Interrupted<dyn Directory> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.step()?;
        self.inner.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        self.inner.create(name, bytes)
    }

    fn create_growing(&self, name: &str) -> io::Result<Box<dyn GrowingFile>> {
        self.inner.create_growing(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.step()?;
        Ok(self.with(self.inner.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn is_locked(&self) -> io::Result<bool> {
        self.inner.is_locked()
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }
}

impl File for Interrupted<dyn File> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.step()?;
        self.inner.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.inner.write_at(offset, parts)
    }

    fn sync(&self) -> io::Result<()> {
        self.inner.sync()
    }

    fn publish(&self, end: u64) {
        self.inner.publish(end);
    }

    fn view(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        Arc::clone(&self.inner).view(range)
    }
}

fn open(disk: &MemoryDisk, segment_bytes: u64) -> Wal {
    let options = Wal::options().segment_bytes(segment_bytes).disk(Arc::new(disk.clone()));
    options.without_threads().open("log").unwrap()
}

/// Appends so many entries, each unlike the one before; compacts behind itself if it `compacts`.
fn fill(wal: &Wal, entries: u64, entry_bytes: usize, compacts: bool) {
    let log = wal.log(LogId(1)).unwrap();
    let end = log.last() + entries;
    while log.last() < end {
        match log.push(log.last().to_le_bytes().repeat(entry_bytes / 8)) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
        if compacts {
            log.compact_before(log.last()).unwrap().wait().unwrap();
        }
        wal.work(Duration::ZERO);
    }
}

/// Looks with an interruption at each of its steps, one after the other; how many there were.
fn interrupt_each_step(look: impl Fn(&Arc<dyn Disk>, usize)) -> usize {
    for step in 1.. {
        let disk = MemoryDisk::new();
        // Ten entries to a segment.
        let wal = open(&disk, 16 << 10);
        fill(&wal, 45, 700, false);
        let writer = wal.clone();
        let interruption = Arc::new(move || {
            fill(&writer, 80, 700, true);
            Ok(())
        });
        let left = Arc::new(AtomicUsize::new(step));
        let inner = Arc::new(disk.clone());
        let interrupted = Interrupted { inner, left: Arc::clone(&left), interruption };
        look(&(Arc::new(interrupted) as Arc<dyn Disk>), step);
        // More steps than there are.
        if (1..=step).contains(&left.load(Ordering::Relaxed)) {
            return step - 1;
        }
        assert!(wal.statistics().recycled_segments >= 4, "step {step}: all files were used again");
    }
    unreachable!("a look ends some day")
}

/// WAL-CASE 41: what `wal-inspect verify` and `dump` stand on.
#[test]
fn a_scan_that_is_interrupted_by_rotation_and_recycling_anywhere_finds_no_damage() {
    for is_deep in [false, true] {
        let effort = Effort { is_deep, ..Effort::default() };
        let steps = interrupt_each_step(|disk, step| {
            let scan = Scan::open_on_with(&**disk, "log", effort).unwrap();
            let verdict = scan.verdict();
            assert!(!matches!(verdict, Verdict::Corrupt(_)), "step {step}: {verdict:?}");
            assert!(scan.frames().all(|frame| frame.unwrap().body.is_ok()), "step {step}");
        });
        assert!(steps >= 30, "{steps}");
    }
}

/// WAL-CASE 41: the log itself, opened for reading.
#[test]
fn an_opening_for_reading_that_is_interrupted_anywhere_finds_no_damage() {
    let steps = interrupt_each_step(|disk, step| {
        let opened = Wal::options().disk(Arc::clone(disk)).open_read_only("log").unwrap();
        assert_eq!(opened.damage(), [], "step {step}");
    });
    assert!(steps >= 15, "{steps}");
}

/// WAL-CASE 41: a frame that is read in two pieces, its header before the interruption and its body after it.
#[test]
fn a_frame_whose_file_is_used_again_while_it_is_read_is_no_damage() {
    for step in 1.. {
        let disk = MemoryDisk::new();
        let wal = open(&disk, 2 << 20);
        fill(&wal, 9, 400 << 10, false);
        let writer = wal.clone();
        let interruption = Arc::new(move || {
            fill(&writer, 16, 400 << 10, true);
            Ok(())
        });
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let interrupted =
            Interrupted { inner: Arc::new(disk), left: Arc::clone(&left), interruption };
        let scan = Scan::open_on(&interrupted, "log").unwrap();
        left.store(step, Ordering::Relaxed);
        assert!(scan.frames().all(|frame| frame.unwrap().body.is_ok()), "step {step}");
        if wal.statistics().recycled_segments == 0 {
            return assert!(step > 5, "{step}");
        }
    }
}

/// The disk's refusal says nothing of the bytes.
#[test]
fn an_opening_for_reading_during_which_the_disk_fails_anywhere_finds_no_damage() {
    let disk = MemoryDisk::new();
    fill(&open(&disk, 16 << 10), 45, 700, false);
    for step in 1.. {
        let (left, failures) = (Arc::new(AtomicUsize::new(step)), Arc::new(AtomicUsize::new(0)));
        let (again, counted) = (Arc::clone(&left), Arc::clone(&failures));
        // Likewise in the next look, if there is one.
        let interruption = Arc::new(move || {
            again.store(step, Ordering::Relaxed);
            counted.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::other("the disk fails"))
        });
        let inner = Arc::new(disk.clone());
        let failing = Arc::new(Interrupted { inner, left, interruption });
        match Wal::options().disk(failing).open_read_only("log") {
            Ok(wal) => assert_eq!(wal.damage(), [], "step {step}"),
            Err(error) => assert!(matches!(error, OpenError::Io { .. }), "step {step}: {error}"),
        }
        // More steps than there are.
        if failures.load(Ordering::Relaxed) == 0 {
            return assert!(step > 15, "{step}");
        }
    }
}
