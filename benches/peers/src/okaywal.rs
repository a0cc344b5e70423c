//! okaywal at work.

use std::{
    hint::black_box,
    io::{self, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kontiki_bench::{appends::Work, latencies::Latencies, rounds::Contender, threads};
use okaywal::{
    Configuration, Entry, EntryId, LogManager, ReadChunkResult, SegmentReader, WriteAheadLog,
};

/// A log at work. One append is one of its entries, and each entry of ours is a chunk of it: what belongs together becomes
/// durable together.
#[derive(Debug)]
pub struct Okaywal {
    work: Work,
    log: WriteAheadLog,
    entry: Vec<u8>,
}

impl Okaywal {
    /// A new log in `directory`, warmed up if it is compacted: files were used again.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(directory: &Path, work: Work) -> io::Result<Self> {
        let counter = Counter::default();
        let log = configuration(directory, work).open(counter.clone())?;
        let created = Self { work, log, entry: work.entry().to_vec() };
        if work.compacts() {
            created.warm_up(&counter)?;
        }
        Ok(created)
    }

    /// Fills files with a few large entries.
    fn warm_up(&self, counter: &Counter) -> io::Result<()> {
        let length = self.work.segment_bytes() / ENTRIES_PER_FILE;
        let chunk = vec![1; usize::try_from(length).map_err(io::Error::other)?];
        while counter.checkpoints.load(Ordering::Relaxed) < CHECKPOINTS_BEFORE {
            let mut entry = self.log.begin_entry()?;
            entry.write_chunk(&chunk)?;
            entry.commit()?;
        }
        Ok(())
    }

    /// Itself, under its name.
    pub fn contender(&self) -> Contender<'_> {
        Contender::new("okaywal", |groups, latencies| self.run(groups, latencies))
    }

    /// Makes `groups` groups durable, and says how long it took.
    ///
    /// # Panics
    /// Where the disk fails.
    pub fn run(&self, groups: u64, latencies: &mut Latencies) -> Duration {
        threads::run(self.work.threads(), latencies, |_, latencies| {
            for _ in 0..groups {
                latencies.time(|| self.append()).expect("a disk that works");
            }
        })
    }

    fn append(&self) -> io::Result<()> {
        let mut entry = self.log.begin_entry()?;
        for _ in 0..self.work.entries_per_append() {
            entry.write_chunk(&self.entry)?;
        }
        entry.commit()?;
        Ok(())
    }
}

/// Opens what was written, and reads every chunk of it.
///
/// # Panics
/// If it is not whole.
pub fn open_and_replay(directory: &Path, work: Work, entries: u64) -> Duration {
    let counter = Counter::default();
    let begun = Instant::now();
    let log = configuration(directory, work).open(counter.clone()).expect("a whole log");
    let elapsed = begun.elapsed();
    assert!(counter.chunks.load(Ordering::Relaxed) == entries, "all entries are read");
    log.shutdown().expect("a thread that ends");
    elapsed
}

/// Files as long as ours, and ended before they have to grow, with the share of their length that is its default.
/// Everything else is its default, too.
fn configuration(directory: &Path, work: Work) -> Configuration {
    let length = u32::try_from(work.segment_bytes()).expect("less than 4 GiB");
    // A file that has ended is checkpointed, and its entries are gone: all is one file where they are to stay.
    let end = if work.compacts() { u64::from(length) / 4 * 3 } else { u64::MAX };
    Configuration::default_for(directory).preallocate_bytes(length).checkpoint_after_bytes(end)
}

/// Of the warm-up.
const ENTRIES_PER_FILE: u64 = 16;
/// More than there are files at work: one that is written, one that is checkpointed, one that waits.
const CHECKPOINTS_BEFORE: u64 = 6;

/// Does nothing but count: what is in the files is not needed any more.
#[derive(Clone, Debug, Default)]
struct Counter {
    checkpoints: Arc<AtomicU64>,
    chunks: Arc<AtomicU64>,
    bytes: Vec<u8>,
}

impl LogManager for Counter {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            self.bytes.resize(chunk.bytes_remaining() as usize, 0);
            chunk.read_exact(&mut self.bytes)?;
            if !chunk.check_crc()? {
                return Err(io::Error::other("a chunk that is damaged"));
            }
            black_box(self.bytes.first());
            self.chunks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
