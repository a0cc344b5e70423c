//! The append path: what is measured, and the log it is measured on.

use std::{error::Error, path::Path, slice, sync::mpsc, time::Duration};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Pending, Wal};

use crate::{frames::frame_bytes, latencies::Latencies, rounds::Contender, threads, window};

/// One kind of work: who appends how much before the next sync.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// As tables and criterion show it.
    pub name: &'static str,
    waits: Waits,
    /// Threads that append.
    threads: usize,
    /// Entries of one append call.
    entries_per_append: usize,
    entry_bytes: usize,
    segment_bytes: u64,
    /// The log is compacted behind the writer, so that freed files are used again.
    compacts: bool,
    /// Logs that the entries go to in turn.
    logs: u32,
}

/// How a thread waits for what it appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// Each append is waited for before the next.
    Blocking,
    /// So many futures of all threads together are not resolved at a time.
    Futures(usize),
}

impl Work {
    const fn new(name: &'static str, entries_per_append: usize, entry_bytes: usize) -> Self {
        Self {
            name,
            waits: Waits::Blocking,
            threads: 1,
            entries_per_append,
            entry_bytes,
            segment_bytes: 64 << 20,
            compacts: true,
            logs: 1,
        }
    }

    /// So many threads, each waiting for its entry of 128 B before the next.
    pub const fn waiting(name: &'static str, threads: usize) -> Self {
        Self { threads, ..Self::new(name, 1, 128) }
    }

    const fn in_flight(name: &'static str, logs: u32) -> Self {
        Self { threads: 4, waits: Waits::Futures(1024), logs, ..Self::new(name, 1, 128) }
    }

    /// Entries that one sync can make durable: no more are waited for at a time.
    pub const fn group_entries(&self) -> usize {
        match self.waits {
            Waits::Blocking => self.threads * self.entries_per_append,
            Waits::Futures(in_flight) => in_flight,
        }
    }

    /// What those entries' frames take on the disk.
    pub const fn group_bytes(&self) -> usize {
        let frame =
            frame_bytes(self.entries_per_append, self.entries_per_append * self.entry_bytes);
        self.group_entries() / self.entries_per_append * frame
    }

    /// Threads that append, each waiting for its entry before the next.
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// Entries of one append call.
    pub const fn entries_per_append(&self) -> usize {
        self.entries_per_append
    }

    /// Bytes of one entry.
    pub const fn entry_bytes(&self) -> usize {
        self.entry_bytes
    }

    /// Length of one file of the log.
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The log is compacted behind the writer.
    pub const fn compacts(&self) -> bool {
        self.compacts
    }

    /// One entry's bytes.
    pub fn entry(&self) -> Bytes {
        (0..=u8::MAX).cycle().take(self.entry_bytes).collect()
    }

    /// Where a log, one of `logs`, is to be compacted with the append that begins at `index`, if it is. As a user with
    /// snapshots does, so that the disk does not fill: about one segment of frames is kept in all logs together.
    pub fn compact_before(&self, index: u64, logs: u64) -> Option<u64> {
        let (entries, bytes) = (self.group_entries() as u64, self.group_bytes() as u64);
        let entries_kept = (self.segment_bytes / logs * entries / bytes).max(2);
        let is_due = index % entries_kept < self.entries_per_append as u64;
        (self.compacts && index > entries_kept && is_due).then(|| index - entries_kept / 2)
    }
}

/// One thread, which waits for each append; the log is compacted behind it.
pub const SEQUENTIAL: [Work; 7] = [
    Work::new("128 B x 1", 1, 128),
    Work { segment_bytes: 1 << 20, ..Work::new("128 B x 1, segments of 1 MiB", 1, 128) },
    Work::new("128 B x 16", 16, 128),
    Work::new("128 B x 256", 256, 128),
    Work::new("16 B x 1024", 1024, 16),
    Work::new("64 KiB x 1", 1, 64 << 10),
    Work::new("1 MiB x 1", 1, 1 << 20),
];

/// The same where each segment is a new file, filled with zeros behind the writer.
pub const UNCOMPACTED: [Work; 3] = [
    Work { compacts: false, ..Work::new("128 B x 256, never compacted", 256, 128) },
    Work { compacts: false, ..Work::new("16 B x 1024, never compacted", 1024, 16) },
    Work { compacts: false, ..Work::new("64 KiB x 1, never compacted", 1, 64 << 10) },
];

/// Threads that wait for one entry each; they share syncs.
pub const WAITING: [Work; 3] = [
    Work::waiting("128 B, 16 waiting", 16),
    Work::waiting("128 B, 64 waiting", 64),
    Work::waiting("128 B, 256 waiting", 256),
];

/// Four threads with 1024 futures in flight, over ever more logs.
pub const IN_FLIGHT: [Work; 3] = [
    Work::in_flight("128 B, 1024 in flight", 1),
    Work::in_flight("128 B, 1024 in flight, 100 logs", 100),
    Work::in_flight("128 B, 1024 in flight, 10,000 logs", 10_000),
];

/// The largest of [`WAITING`], over ever more logs.
pub const WAITING_LOGS: [Work; 3] = [
    Work::waiting("128 B, 256 waiting, 1 log", 256),
    Work { logs: 100, ..Work::waiting("128 B, 256 waiting, 100 logs", 256) },
    Work { logs: 10_000, ..Work::waiting("128 B, 256 waiting, 10,000 logs", 256) },
];

/// A log at work.
#[derive(Debug)]
pub struct Appends {
    work: Work,
    wal: Wal,
    logs: Vec<Log>,
    entries: Vec<Bytes>,
}

impl Appends {
    /// A new log in `directory`, with the options that every user gets but for the size of segments, warmed up: if it
    /// is to be compacted, two freed files wait to be used again.
    ///
    /// # Errors
    /// The log's.
    pub fn create(directory: &Path, work: Work) -> Result<Self, Box<dyn Error>> {
        let directory = directory.join(work.name.replace([' ', ','], "-"));
        let wal = Wal::options().segment_bytes(work.segment_bytes).open(directory)?;
        let logs = (1..=work.logs).map(|id| wal.log(LogId(id))).collect::<Result<Vec<_>, _>>()?;
        let entries = vec![work.entry(); work.entries_per_append];
        let appends = Self { work, wal, logs, entries };
        if work.compacts {
            appends.warm_up()?;
        }
        Ok(appends)
    }

    /// Fills segments with a few large entries, and frees them, until files were used again.
    fn warm_up(&self) -> Result<(), Box<dyn Error>> {
        let log = &self.logs[0];
        let entry = Bytes::from(vec![1; usize::try_from(self.work.segment_bytes / 16)?]);
        while self.wal.statistics().recycled_segments < 2 {
            let index = log.last() + 1;
            append(log, || log.append(index, 1, slice::from_ref(&entry))).wait()?;
            log.compact_before(index)?.wait()?;
        }
        Ok(log.compact_before(log.last() + 1)?.wait()?)
    }

    /// Itself, under its name.
    pub fn contender(&self) -> Contender<'_> {
        Contender::new("kontiki", |groups, latencies| self.run(groups, latencies))
    }

    /// Makes `groups` groups durable, and says how long it took.
    pub fn run(&self, groups: u64, latencies: &mut Latencies) -> Duration {
        threads::run(self.work.threads, latencies, |number, latencies| {
            self.run_thread(number, groups, latencies);
        })
    }

    /// One thread's part of `groups` groups.
    fn run_thread(&self, number: usize, groups: u64, latencies: &mut Latencies) {
        match self.work.waits {
            Waits::Blocking => {
                for (_, log) in (0..groups).zip(self.turns(number)) {
                    latencies.time(|| self.append(log).wait()).expect("a disk that works");
                }
            }
            Waits::Futures(in_flight) => {
                let window = in_flight / self.work.threads;
                let mut turns = self.turns(number);
                let begin = || self.append(turns.next().expect("turns without end"));
                let finish =
                    |pending: Pending| pollster::block_on(pending).expect("a disk that works");
                window::run(groups * window as u64, window, latencies, begin, finish);
            }
        }
    }

    /// The logs that a thread appends to, one after the other, without end.
    fn turns(&self, thread: usize) -> impl Iterator<Item = usize> {
        (0..self.logs.len()).cycle().skip(thread).step_by(self.work.threads)
    }

    /// Appends to one of the logs.
    fn append(&self, log: usize) -> Pending {
        let log = &self.logs[log];
        if self.work.threads > 1 {
            let (index, pending) = append(log, || log.push(self.entries[0].clone()));
            self.compact_now_and_then(log, index);
            return pending;
        }
        let first = log.last() + 1;
        let pending = append(log, || log.append(first, 1, &self.entries));
        self.compact_now_and_then(log, first);
        pending
    }

    /// Part of what is measured.
    fn compact_now_and_then(&self, log: &Log, index: u64) {
        if let Some(before) = self.work.compact_before(index, u64::from(self.work.logs)) {
            // The compaction is not waited for: it becomes durable with what is appended next.
            drop(log.compact_before(before));
        }
    }
}

/// Appends once there is room.
pub(crate) fn append<T>(log: &Log, mut append: impl FnMut() -> Result<T, AppendError>) -> T {
    loop {
        match append() {
            Ok(appended) => return appended,
            Err(AppendError::Full { .. }) => wait_for_room(log),
            Err(error) => panic!("append: {error}"),
        }
    }
}

fn wait_for_room(log: &Log) {
    let (sender, room) = mpsc::channel::<()>();
    log.on_room(move || drop(sender));
    let _disconnected_when_there_is_room = room.recv();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_work_that_compacts_keeps_about_a_segment_however_many_logs_share_it() {
        for (work, logs) in
            [(SEQUENTIAL[0], 1), (SEQUENTIAL[4], 1), (SEQUENTIAL[5], 1), (WAITING[2], 256)]
        {
            let (entries, bytes) = (work.group_entries() as u64, work.group_bytes() as u64);
            let in_a_segment = work.segment_bytes * entries / bytes / logs;
            let (mut compacted, mut kept_max) = (1, 0);
            for first in (1..4 * in_a_segment).step_by(work.entries_per_append) {
                compacted = work.compact_before(first, logs).unwrap_or(compacted);
                kept_max = kept_max.max(first - compacted);
            }
            let segments_kept = kept_max as f64 / in_a_segment as f64;
            assert!((1.0..2.0).contains(&segments_kept), "{}: {segments_kept}", work.name);
        }
        assert!((1..1 << 20).all(|first| UNCOMPACTED[0].compact_before(first, 1).is_none()));
    }
}
