//! What is read of each file, counted below the log: by an opening, and by reads that must not map.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    collections::BTreeMap,
    fmt, io, mem,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::{
    Access, Directory, Disk, File, GrowingFile, MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_wal::{AppendError, LogId, Options, Wal, inspect::Scan};

const SEGMENT_BYTES: u64 = 64 << 10;
const PAGE_BYTES: u64 = 4096;
/// What a log takes in the table of an index.
const LOG_BYTES: u64 = 32;
const LOGS: u32 = 3;
const SEGMENTS: u64 = 12;

type Ranges = BTreeMap<String, Vec<Range<u64>>>;

/// What was asked of the files, by their names.
#[derive(Debug, Default)]
struct Asked {
    reads: Mutex<Ranges>,
    views: Mutex<Ranges>,
}

/// A disk, a directory or a file that notes what is read of it.
struct Counted<T: ?Sized> {
    inner: Arc<T>,
    name: String,
    asked: Arc<Asked>,
}

impl<T: ?Sized> Counted<T> {
    fn with<U: ?Sized>(&self, inner: Arc<U>, name: &str) -> Arc<Counted<U>> {
        Arc::new(Counted { inner, name: name.to_owned(), asked: Arc::clone(&self.asked) })
    }

    fn note(&self, noted: &Mutex<Ranges>, range: Range<u64>) {
        noted.lock().unwrap().entry(self.name.clone()).or_default().push(range);
    }
}

impl<T: ?Sized> fmt::Debug for Counted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Counted").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Disk for Counted<MemoryDisk> {
    fn open_directory(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Directory>> {
        Ok(self.with(self.inner.open_directory(path, access)?, ""))
    }
}

impl Directory for Counted<dyn Directory> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.inner.list()
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        Ok(self.with(self.inner.create(name, bytes)?, name))
    }

    fn create_growing(&self, name: &str) -> io::Result<Box<dyn GrowingFile>> {
        self.inner.create_growing(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(self.with(self.inner.open(name)?, name))
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

impl File for Counted<dyn File> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.note(&self.asked.reads, offset..offset + into.len() as u64);
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
        self.note(&self.asked.views, range.clone());
        Arc::clone(&self.inner).view(range)
    }
}

/// What a disk is asked from now on, and options for a log on it.
fn counted(disk: &MemoryDisk) -> (Arc<Asked>, Options) {
    let asked = Arc::default();
    let (inner, name) = (Arc::new(disk.clone()), String::new());
    let counted = Counted { inner, name, asked: Arc::clone(&asked) };
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).without_threads();
    (asked, options.disk(Arc::new(counted)))
}

/// A log in so many segments, all but the last one sealed, with entries of so many bytes; how many there are.
fn fill(disk: &MemoryDisk, entry_bytes: usize) -> (Wal, u64) {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).disk(Arc::new(disk.clone()));
    let wal = options.without_threads().open("log").unwrap();
    for number in 0.. {
        let log = wal.log(LogId(number % LOGS + 1)).unwrap();
        match log.push(vec![7; entry_bytes]) {
            Ok(_) if wal.statistics().segments >= SEGMENTS => break,
            Ok(_) | Err(AppendError::Full { .. }) => drop(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
    }
    while wal.work(Duration::ZERO) {}
    assert_eq!(wal.statistics().sealed_segments, SEGMENTS - 1);
    let entries = (1..=LOGS).map(|log| wal.log(LogId(log)).unwrap().last()).sum();
    (wal, entries)
}

/// The header page, the trailer page and the index's table of logs: what an opening needs of a sealed segment.
fn of_a_sealed_segment(index_at: u64) -> Vec<Range<u64>> {
    let table = index_at..index_at + LOG_BYTES * u64::from(LOGS);
    vec![0..PAGE_BYTES, SEGMENT_BYTES - PAGE_BYTES..SEGMENT_BYTES, table]
}

/// Where the index of each sealed segment begins.
fn indexes(disk: &MemoryDisk) -> Vec<(String, u64)> {
    let scan = Scan::open_on(disk, "log").unwrap();
    let sealed = scan.segments().into_iter().take(usize::try_from(SEGMENTS - 1).unwrap());
    let index_at = |bytes: u64| SEGMENT_BYTES - PAGE_BYTES - bytes;
    sealed.map(|segment| (segment.file, index_at(segment.index_bytes))).collect()
}

/// However many entries there are, and however the log stopped.
#[test]
fn an_opening_reads_three_pieces_of_each_sealed_segment_and_scans_the_last_one_only() {
    let mut counts = Vec::new();
    for entry_bytes in [4000, 8] {
        for closes in [true, false] {
            let disk = MemoryDisk::new();
            let (wal, entries) = fill(&disk, entry_bytes);
            if closes {
                wal.close().unwrap();
            }
            let disk = disk.reopen();
            drop(wal);
            let sealed = indexes(&disk);
            let (asked, options) = counted(&disk);
            let wal = options.open("log").unwrap();
            let mut reads = mem::take(&mut *asked.reads.lock().unwrap());
            let what = format!("{entries} entries of {entry_bytes} bytes, closed: {closes}");
            for (name, index_at) in &sealed {
                let read = reads.remove(name).unwrap();
                assert_eq!(read, of_a_sealed_segment(*index_at), "{name} of {what}");
            }
            let scanned = reads.into_values().flatten().map(|range| range.end - range.start);
            assert!(scanned.sum::<u64>() >= SEGMENT_BYTES, "the last one is scanned: {what}");
            assert!(asked.views.lock().unwrap().is_empty(), "nothing is mapped: {what}");
            let found: u64 = (1..=LOGS).map(|log| wal.log(LogId(log)).unwrap().last()).sum();
            assert_eq!(found, entries);
            counts.push(entries);
        }
    }
    assert!(counts[2] > 20 * counts[0], "{counts:?}");
}

fn options(disk: &MemoryDisk) -> Options {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).disk(Arc::new(disk.clone()));
    options.without_threads()
}

fn last(wal: &Wal) -> u64 {
    wal.log(LogId(1)).unwrap().last()
}

/// What becomes of openings of this disk in which, before one read after the other, all leaves the cache that is not on the disk
/// and counts as clean: how often each last entry is shown, and is on the disk, and how often somebody is asked to open it again. So
/// many entries are `safe`.
fn evicted_before_each_read(disk: &MemoryDisk, safe: u64) -> (BTreeMap<u64, u64>, u64) {
    let (mut shown, mut refused) = (BTreeMap::new(), 0);
    for nth in 1.. {
        let disk = disk.reopen();
        disk.evict_before_read(nth);
        let opened = options(&disk).open("log");
        if disk.evicts_before() > 0 {
            break;
        }
        let again = match &opened {
            Ok(wal) => {
                let found = last(wal);
                *shown.entry(found).or_default() += 1;
                let after = disk.image(|_| false);
                assert_eq!(last(&options(&after).open("log").unwrap()), found, "read {nth}");
                continue;
            }
            Err(error) => {
                assert!(error.to_string().contains("open the log again"), "{error}");
                refused += 1;
                disk.reopen()
            }
        };
        drop(opened);
        assert!(last(&options(&again).open("log").unwrap()) >= safe);
    }
    (shown, refused)
}

/// WAL-CASE 19, WAL-CASE 21: what a failed sync has left in the cache leaves it in the middle of an opening.
#[test]
fn what_is_shown_is_on_the_disk_though_it_leaves_the_cache_during_the_opening() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    log.push("safe").unwrap().1.wait().unwrap();
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    log.push(vec![7; 3000]).unwrap().1.wait().unwrap_err();
    let disk = disk.reopen();
    drop((log, wal));
    let (shown, refused) = evicted_before_each_read(&disk, 1);
    assert!(shown.keys().eq(&[1, 2]) && refused > 0, "{shown:?}, {refused} refused");
}

/// WAL-CASE 19: found by a reader. How the second segment begins was read twice, and what the first read said was the reason to
/// take it for *Corruption* that the second one said something else.
#[test]
fn a_segment_whose_first_group_failed_is_no_damage_though_it_leaves_the_cache_during_the_opening() {
    // All but the last entry are safe, which takes the second segment.
    let fill = |disk: &MemoryDisk, entries: u64| {
        let wal = options(disk).open("log").unwrap();
        let log = wal.log(LogId(1)).unwrap();
        for _ in 0..entries {
            log.push(vec![7; 3000]).unwrap().1.wait().unwrap();
            while wal.work(Duration::ZERO) {}
        }
        (wal.statistics().segments, wal, log)
    };
    let entries = (1..).find(|&entries| fill(&MemoryDisk::new(), entries).0 == 2).unwrap();
    let mut counts = BTreeMap::new();
    for nth in 1.. {
        let disk = MemoryDisk::new();
        let (_, wal, log) = fill(&disk, entries - 1);
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        let pushed = log.push(vec![7; 3000]);
        while wal.work(Duration::ZERO) {}
        if pushed.is_ok_and(|(_, written)| written.wait().is_ok()) {
            break;
        }
        let disk = disk.reopen();
        drop((log, wal));
        let (shown, refused) = evicted_before_each_read(&disk, entries - 1);
        assert!(shown.keys().all(|&last| last + 1 >= entries), "{shown:?} of {entries}");
        counts.insert(nth, (shown, refused));
    }
    assert!(counts.values().any(|(shown, refused)| shown.len() == 2 && *refused > 0), "{counts:?}");
}

/// The read mode for those who cannot accept SIGBUS on a medium error, and a log that is opened for reading only.
#[test]
fn reading_by_copy_asks_for_no_view() {
    let disk = MemoryDisk::new();
    let (wal, _) = fill(&disk, 200);
    wal.close().unwrap();
    drop(wal);
    let views = |open: &dyn Fn(Options) -> Wal| {
        let (asked, options) = counted(&disk);
        let wal = open(options);
        for log in 1..=LOGS {
            let log = wal.log(LogId(log)).unwrap();
            for index in [1, 2, log.last() / 2, log.last()] {
                let read: Vec<_> = log.read(index..log.last() + 1, 10_000).collect();
                assert!(!read.is_empty() && read.iter().all(Result::is_ok), "{index}");
            }
        }
        drop(wal);
        let views = mem::take(&mut *asked.views.lock().unwrap());
        views.into_values().map(|views| views.len()).sum::<usize>()
    };
    assert_eq!(views(&|options| options.copied_reads().open("log").unwrap()), 0);
    assert_eq!(views(&|options| options.open_read_only("log").unwrap()), 0);
    assert!(views(&|options| options.open("log").unwrap()) > 12, "other reads map");
}
