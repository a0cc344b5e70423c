//! The read path: a log that was written and closed, and the ways to read it.

use std::{
    error::Error,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki_disk::{Access, Directory};
use kontiki_wal::{
    Log, LogId, Wal,
    inspect::{Effort, Scan, Verdict},
};

use crate::{
    appends::append,
    frames::{HEADER_BYTES, frame_bytes},
};

/// A closed log of entries of one length, in segments of the usual size.
#[derive(Debug)]
pub struct Stored {
    directory: PathBuf,
    entry_bytes: u64,
    /// Of almost every frame.
    frame_bytes: usize,
}

impl Stored {
    /// Writes about `entries` entries, so many in one append.
    ///
    /// # Errors
    /// The log's.
    pub fn write(
        place: &Path,
        entries: u64,
        per_append: usize,
        entry_bytes: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let directory = place.join(format!("stored-{per_append}-{entry_bytes}"));
        let wal = Wal::options().open(&directory)?;
        let log = wal.log(LogId(1))?;
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(entry_bytes).collect();
        let batch = vec![Bytes::from(bytes); per_append];
        for first in (1..=entries).step_by(per_append) {
            drop(append(&log, || log.append(first, 1, &batch)));
        }
        wal.close()?;
        let frame_bytes = frame_bytes(per_append, per_append * entry_bytes);
        Ok(Self { directory, entry_bytes: entry_bytes as u64, frame_bytes })
    }

    /// Opens the log.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub fn open(&self) -> Log {
        let wal = Wal::options().open(&self.directory).expect("a log that was closed");
        wal.log(LogId(1)).expect("an open log")
    }

    /// Opens the log and reads every entry of it.
    pub fn open_and_replay(&self) -> Duration {
        let begun = Instant::now();
        let log = self.open();
        read_all_in_place(&log);
        let elapsed = begun.elapsed();
        drop(log);
        elapsed
    }

    /// What opening and replaying cannot do without: maps all files and checksums them.
    pub fn map_and_checksum(&self) -> Duration {
        self.map(|bytes| _ = black_box(crc32fast::hash(bytes)))
    }

    /// The same in as many pieces as the frames have, a header and a body each: what checking every frame alone takes. Where
    /// they lie is not looked for.
    pub fn map_and_checksum_frames(&self) -> Duration {
        self.map(|bytes| {
            for frame in bytes.chunks_exact(self.frame_bytes) {
                let (header, body) = frame.split_at(HEADER_BYTES);
                // A header's checksum leaves itself out.
                black_box(crc32fast::hash(&header[4..]));
                black_box(crc32fast::hash(body));
            }
        })
    }

    fn map(&self, work: impl Fn(&[u8])) -> Duration {
        let begun = Instant::now();
        // Only who may write can view a file.
        let directory = self.directory(Access::Write);
        for (name, length) in directory.list().expect("a directory") {
            let file = directory.open(&name).expect("a file");
            file.publish(length);
            work(&file.view(0..length).expect("a map"));
        }
        begun.elapsed()
    }

    /// Reads and checks every frame, as `wal-inspect verify` does, in a thread for each core; as `verify --deep` if `is_deep`.
    pub fn verify(&self, is_deep: bool) -> Duration {
        let begun = Instant::now();
        let threads = thread::available_parallelism().expect("a count of cores");
        let effort = Effort { threads, is_deep };
        let scan = Scan::open_with(&self.directory, effort).expect("a log that was closed");
        let elapsed = begun.elapsed();
        assert!(matches!(scan.verdict(), Verdict::Whole { .. }), "{:?}", scan.verdict());
        elapsed
    }

    /// Bytes of all entries.
    pub fn payload_bytes(&self, log: &Log) -> u64 {
        (log.last() + 1 - log.first()) * self.entry_bytes
    }

    /// Length of all segments.
    pub fn file_bytes(&self) -> u64 {
        let files = self.directory(Access::Read).list().expect("a directory");
        files.iter().map(|(_, length)| length).sum()
    }

    fn directory(&self, access: Access) -> Arc<dyn Directory> {
        kontiki_disk::real().open_directory(&self.directory, access).expect("a directory")
    }
}

/// Reads every entry, each with its first byte.
pub fn read_all(log: &Log) {
    let (first, end) = (log.first(), log.last() + 1);
    let mut next = first;
    for entry in log.read(first..end, usize::MAX) {
        let entry = entry.expect("a whole log");
        black_box(entry.bytes.first());
        next += 1;
    }
    assert!(next == end, "all entries were read");
}

/// The same, where they lie.
pub fn read_all_in_place(log: &Log) {
    let (first, end) = (log.first(), log.last() + 1);
    let (mut entries, mut next) = (log.read(first..end, usize::MAX), first);
    while let Some(entry) = entries.next_in_place() {
        black_box(entry.expect("a whole log").bytes.first());
        next += 1;
    }
    assert!(next == end, "all entries were read");
}

/// Reads one entry.
pub fn read_one(log: &Log, index: u64) {
    let entry = log.read(index..index + 1, 1).next().expect("an entry of the log");
    black_box(entry.expect("a whole log").bytes.first());
}
