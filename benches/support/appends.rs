//! The append path: what is measured, and the log it is measured on.

use std::{
    error::Error,
    path::Path,
    sync::{Barrier, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Pending, Wal};

use super::frames::frame_bytes;

/// One kind of work: who appends how much before the next sync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    /// As tables and criterion show it.
    pub(crate) name: &'static str,
    /// Threads that append; each waits until its entries are durable before it goes on.
    appenders: u64,
    /// Entries of one append call.
    entries_per_append: usize,
    entry_bytes: usize,
}

/// The five that the project's figures are about.
pub(crate) const WORKS: [Work; 5] = [
    Work { name: "128 B x 1", appenders: 1, entries_per_append: 1, entry_bytes: 128 },
    Work { name: "128 B x 16", appenders: 1, entries_per_append: 16, entry_bytes: 128 },
    Work { name: "128 B x 256", appenders: 1, entries_per_append: 256, entry_bytes: 128 },
    Work { name: "64 KiB x 1", appenders: 1, entries_per_append: 1, entry_bytes: 64 << 10 },
    Work { name: "128 B, 16 waiting", appenders: 16, entries_per_append: 1, entry_bytes: 128 },
];

impl Work {
    /// Entries that one sync can make durable.
    pub(crate) fn group_entries(&self) -> u64 {
        self.appenders * self.entries_per_append as u64
    }

    /// What those entries' frames take on the disk.
    pub(crate) fn group_bytes(&self) -> usize {
        let payload_bytes = self.entries_per_append * self.entry_bytes;
        let frame = frame_bytes(self.entries_per_append, payload_bytes);
        usize::try_from(self.appenders).expect("a few") * frame
    }
}

/// A log at work.
#[derive(Debug)]
pub(crate) struct Appends {
    work: Work,
    log: Log,
    entries: Vec<Bytes>,
}

impl Appends {
    /// A new log in `directory`, with the options that every user gets.
    pub(crate) fn create(directory: &Path, work: Work) -> Result<Self, Box<dyn Error>> {
        let directory = directory.join(work.name.replace([' ', ','], "-"));
        let log = Wal::options().open(directory)?.log(LogId(1))?;
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(work.entry_bytes).collect();
        let entries = vec![Bytes::from(bytes); work.entries_per_append];
        Ok(Self { work, log, entries })
    }

    /// Makes `groups` groups durable, and says how long it took.
    pub(crate) fn run(&self, groups: u64) -> Duration {
        if self.work.appenders == 1 {
            let start = Instant::now();
            for _ in 0..groups {
                self.append_and_wait();
            }
            return start.elapsed();
        }
        let started = Barrier::new(usize::try_from(self.work.appenders + 1).expect("a few"));
        thread::scope(|scope| {
            for _ in 0..self.work.appenders {
                scope.spawn(|| {
                    started.wait();
                    for _ in 0..groups {
                        self.append_and_wait();
                    }
                });
            }
            // Before the appenders go, or what they do first would be free of charge.
            let start = Instant::now();
            started.wait();
            start
        })
        .elapsed()
    }

    fn append_and_wait(&self) {
        let pending = loop {
            match self.append() {
                Ok(pending) => break pending,
                Err(AppendError::Full { .. }) => self.wait_for_room(),
                Err(error) => panic!("append: {error}"),
            }
        };
        pending.wait().expect("a disk that works");
    }

    fn append(&self) -> Result<Pending, AppendError> {
        if self.work.appenders > 1 {
            let (index, pending) = self.log.push(self.entries[0].clone())?;
            self.compact_now_and_then(index);
            return Ok(pending);
        }
        let first = self.log.last() + 1;
        let pending = self.log.append(first, 1, &self.entries)?;
        self.compact_now_and_then(first);
        Ok(pending)
    }

    /// As a user with snapshots does, so that the disk does not fill; part of what is measured.
    fn compact_now_and_then(&self, index: u64) {
        let entries_kept = (KEPT_BYTES / self.work.entry_bytes) as u64;
        let entries_per_append = self.work.entries_per_append as u64;
        if index > entries_kept && index % entries_kept < entries_per_append {
            // The compaction is not waited for: it becomes durable with what is appended next.
            drop(self.log.compact_before(index - entries_kept / 2));
        }
    }

    fn wait_for_room(&self) {
        let (sender, room) = mpsc::channel::<()>();
        self.log.on_room(move || drop(sender));
        let _disconnected_when_there_is_room = room.recv();
    }
}

/// The log is compacted each time that about so much was appended.
const KEPT_BYTES: usize = 64 << 20;
