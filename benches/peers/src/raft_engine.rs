//! raft-engine, TiKV's log, at work.

use std::{
    error::Error,
    hint::black_box,
    path::Path,
    slice,
    sync::Mutex,
    time::{Duration, Instant},
};

use kontiki_bench::{appends::Work, latencies::Latencies, rounds::Contender, threads};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};
use raft_proto::eraftpb::Entry;

/// An engine at work. Each appending thread has a Raft group of its own: a group wants its entries in order, and the engine
/// does not number them.
pub struct RaftEngine {
    work: Work,
    engine: Engine,
    groups: Vec<Mutex<Group>>,
}

/// What one thread appends to.
struct Group {
    id: u64,
    last: u64,
    entries: Vec<Entry>,
    batch: LogBatch,
}

impl RaftEngine {
    /// A new engine in `directory`, warmed up if it is compacted: each of its files was written before.
    ///
    /// # Errors
    /// The engine's.
    pub fn create(directory: &Path, work: Work) -> Result<Self, Box<dyn Error>> {
        let engine = Engine::open(config(directory, work)?)?;
        let group = |number| {
            let entry = Entry { term: 1, data: work.entry(), ..Entry::default() };
            let entries = vec![entry; work.entries_per_append()];
            Mutex::new(Group { id: number + 1, last: 0, entries, batch: LogBatch::default() })
        };
        let groups = (0..work.threads() as u64).map(group).collect();
        let created = Self { work, engine, groups };
        if work.compacts() {
            created.warm_up()?;
        }
        Ok(created)
    }

    /// Fills files with a few large entries, until each has been used again.
    fn warm_up(&self) -> Result<(), Box<dyn Error>> {
        let mut group = self.groups[0].lock().expect("no thread panics");
        let bytes = vec![1; usize::try_from(self.work.segment_bytes() / ENTRIES_PER_FILE)?];
        let mut entry = Entry { term: 1, data: bytes.into(), ..Entry::default() };
        for _ in 0..2 * FILES * ENTRIES_PER_FILE {
            group.last += 1;
            let (id, index) = (group.id, group.last);
            entry.index = index;
            group.batch.add_entries::<Entries>(id, slice::from_ref(&entry))?;
            group.batch.add_command(id, Command::Compact { index });
            self.engine.write(&mut group.batch, true)?;
            self.engine.purge_expired_files()?;
        }
        Ok(())
    }

    /// Itself, under its name.
    pub fn contender(&self) -> Contender<'_> {
        Contender::new("raft-engine", |groups, latencies| self.run(groups, latencies))
    }

    /// Makes `groups` groups durable, and says how long it took.
    ///
    /// # Panics
    /// Where the disk fails.
    pub fn run(&self, groups: u64, latencies: &mut Latencies) -> Duration {
        threads::run(self.work.threads(), latencies, |number, latencies| {
            let mut group = self.groups[number].lock().expect("no thread panics");
            for _ in 0..groups {
                latencies.time(|| self.append(&mut group)).expect("a disk that works");
            }
        })
    }

    fn append(&self, group: &mut Group) -> raft_engine::Result<()> {
        let first = group.last + 1;
        for (entry, index) in group.entries.iter_mut().zip(first..) {
            entry.index = index;
            group.last = index;
        }
        group.batch.add_entries::<Entries>(group.id, &group.entries)?;
        let compacted = self.work.compact_before(first, self.groups.len() as u64);
        if let Some(index) = compacted {
            group.batch.add_command(group.id, Command::Compact { index });
        }
        self.engine.write(&mut group.batch, true)?;
        if compacted.is_some() {
            self.engine.purge_expired_files()?;
        }
        Ok(())
    }
}

/// Opens what was written by the one thread of `work`, and reads every entry of it.
///
/// # Panics
/// If it is not whole.
pub fn open_and_replay(directory: &Path, work: Work, entries: u64) -> Duration {
    let begun = Instant::now();
    let engine = Engine::open(config(directory, work).expect("a name")).expect("a whole log");
    let mut read = Vec::with_capacity(work.entries_per_append());
    for first in (1..=entries).step_by(work.entries_per_append()) {
        let end = first + work.entries_per_append() as u64;
        read.clear();
        engine.fetch_entries_to::<Entries>(1, first, end, None, &mut read).expect("a whole log");
        assert!(read.len() == work.entries_per_append(), "all entries are read");
        for entry in &read {
            black_box(entry.data.first());
        }
    }
    let elapsed = begun.elapsed();
    assert!(engine.last_index(1) == Some(entries), "all entries are there");
    elapsed
}

/// Files as long as ours, used again, and filled before; no compression. Everything else is its default.
fn config(directory: &Path, work: Work) -> Result<Config, Box<dyn Error>> {
    Ok(Config {
        dir: directory.to_str().ok_or("a directory whose name is no text")?.to_owned(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(work.segment_bytes()),
        // It keeps half as many again for use: six files.
        purge_threshold: ReadableSize(FILES * work.segment_bytes()),
        enable_log_recycle: true,
        prefill_for_recycle: true,
        ..Config::default()
    })
}

/// Files' worth of entries that make it purge. The default is 10 GB, as much again would be filled first.
const FILES: u64 = 4;
/// Of the warm-up.
const ENTRIES_PER_FILE: u64 = 16;

/// Tells the engine what an entry is.
struct Entries;

impl MessageExt for Entries {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}
