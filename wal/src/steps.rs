//! The log's work, one step at a time: `begin() -> Job`, `Job::run()` (nothing but IO), `finish(job, result)`.
//! The log's threads loop over these; a simulator calls them from one thread, and delays, fails or drops any `finish`.

mod files;
mod segments;

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

pub(crate) use self::files::{describe, prepare};
pub use self::segments::SegmentJob;
use crate::{
    Wal,
    core::{Core, State},
    metrics::GroupReport,
    mode::Mode,
    segment::{Segment, file_name},
    stream::Group,
    sync::AtomicBool,
    threads,
    waiters::Wakeups,
};

/// One group: one write, one sync.
#[derive(Debug)]
pub struct SyncJob {
    stopped: Arc<AtomicBool>,
    group: Group,
    /// False for an idle mark: it is written and not synced.
    syncs: bool,
    /// Told once the job is finished: until then nothing that the recorder might wait for can become durable.
    report: GroupReport,
}

impl SyncJob {
    /// Writes the group and syncs it.
    ///
    /// # Errors
    /// What the disk says; it goes to `finish_sync`.
    pub fn run(&self) -> io::Result<()> {
        unless_stopped(&self.stopped)?;
        let Group { segment, offset, bytes, .. } = &self.group;
        let write = || segment.file.write_at(*offset, &[bytes]);
        if !self.syncs {
            return write();
        }
        self.report.time(|| {
            write()?;
            segment.file.sync()
        })
    }
}

/// After poison nothing more is written to any file, by jobs neither that are out already. A removal that undoes a
/// preparation is not a write.
fn unless_stopped(stopped: &AtomicBool) -> io::Result<()> {
    if stopped.load(Ordering::Relaxed) {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "the log was poisoned meanwhile"));
    }
    Ok(())
}

impl Wal {
    /// Does the log's work on the calling thread until none is due: groups and marks are written, segments prepared,
    /// sealed and freed. For who opened the log [without threads](crate::Options::without_threads) and needs no single
    /// steps. `now` is any clock that only grows. True if anything was done.
    ///
    /// Failures are told as always: to those who wait, and by the next append. A preparation that fails, as on a full
    /// disk, is tried once more after whatever can make room for it, and then left to the next call, as is a removal that
    /// fails. A job that is out elsewhere is not waited for.
    pub fn work(&self, now: Duration) -> bool {
        let core = self.core();
        core.state.lock().removal_failed = false;
        let (mut worked, mut failures) = (false, 0);
        while failures < 2 {
            // In this order: looking for work on segments can append the frame that frees some.
            let prepared = segments::work_once(core);
            let synced = threads::sync_once(core, Some(now));
            match prepared {
                Some(true) => failures = 0,
                Some(false) => failures += 1,
                None if !synced => break,
                None => {}
            }
            worked |= synced || prepared == Some(true);
        }
        worked
    }

    /// Takes what waits for the disk, or a mark if nothing has been appended for 50 ms; `None` if neither is due or
    /// another job is out. `now` is any clock that only grows.
    pub fn begin_sync(&self, now: Duration) -> Option<SyncJob> {
        let core = self.core();
        let mut state = core.state.lock();
        let job = core.begin_sync(&mut state, Some(now))?;
        state.job_is_out = true;
        Some(job)
    }

    /// Takes the outcome of a job in, and tells all that waited for it.
    pub fn finish_sync(&self, job: SyncJob, result: io::Result<()>) {
        self.core().finish_sync(job, result);
    }
}

impl Core {
    pub(crate) fn begin_sync(&self, state: &mut State, now: Option<Duration>) -> Option<SyncJob> {
        if state.syncing || !matches!(state.mode, Mode::Open | Mode::Closing) {
            return None;
        }
        let (group, syncs) = match state.stream.begin_group() {
            Some(group) => (group, true),
            None => (self.idle_mark(state, now?)?, false),
        };
        state.syncing = true;
        state.idle_since = None;
        Some(self.sync_job(group, syncs))
    }

    fn idle_mark(&self, state: &mut State, now: Duration) -> Option<Group> {
        if !state.stream.needs_mark() || !matches!(state.mode, Mode::Open) {
            return None;
        }
        let since = *state.idle_since.get_or_insert(now);
        if now.saturating_sub(since) < IDLE {
            return None;
        }
        state.stream.push_mark(false);
        Some(state.stream.idle_group())
    }

    /// The group that holds the mark of a close.
    pub(crate) fn begin_closed_mark(&self, state: &mut State) -> Option<SyncJob> {
        let group = state.stream.begin_marks()?;
        state.syncing = true;
        Some(self.sync_job(group, true))
    }

    fn sync_job(&self, group: Group, syncs: bool) -> SyncJob {
        let (stopped, report) = (Arc::clone(&self.stopped), GroupReport::of(&group));
        SyncJob { stopped, group, syncs, report }
    }

    pub(crate) fn finish_sync(&self, mut job: SyncJob, result: io::Result<()>) {
        let mut state = self.state.lock();
        assert!(std::mem::take(&mut state.syncing), "a job is finished once");
        state.job_is_out = false;
        let rotated = job.group.is_rotation().then(|| job.group.segment.clone());
        let group = result.is_ok().then(|| std::mem::take(&mut job.report));
        let wakeups = match result {
            _ if matches!(state.mode, Mode::Poisoned(_)) => Wakeups::default(),
            Err(error) => {
                let failure = self.failure("a write or sync", job.group.segment.name(), error);
                self.poison(&mut state, failure)
            }
            Ok(()) => self.synced(&mut state, job),
        };
        self.hand_over(&state);
        let has_work = state.has_segment_work();
        let report = self.metrics.report(&state);
        let rotated = rotated.filter(|_| state.mode.end().is_none());
        drop(state);
        if has_work {
            self.segment_work.notify_one();
        }
        wakeups.serve();
        group.iter().for_each(|group| self.metrics.tell_group(group));
        self.metrics.tell(report);
        if let Some(Segment { sequence, base, bytes, .. }) = rotated {
            let directory = self.directory.path().display();
            tracing::debug!(%directory, segment = file_name(sequence), lsn = base.0, bytes, "rotated");
        }
    }

    fn synced(&self, state: &mut State, job: SyncJob) -> Wakeups {
        let is_rotation = job.group.is_rotation();
        let Group { bytes, end, entries, .. } = job.group;
        state.statistics.bytes_written += bytes.len() as u64;
        // The stream uses their memory again.
        drop(bytes);
        if job.syncs {
            state.statistics.syncs += 1;
            state.statistics.entries_synced += entries;
            state.statistics.rotations += u64::from(is_rotation);
            state.stream.finish_group();
            assert!(state.stream.durable() == end, "groups follow each other");
        }
        // Before the waiters are taken out: a panic in it must find them in the queue.
        self.free_dead(state);
        let wakeups = self.publish(state);
        state.is_crowded = !wakeups.waiters.is_empty();
        wakeups
    }
}

/// Zeros in pieces, without a buffer of their length.
pub(crate) fn zero_parts(length: usize) -> impl Iterator<Item = &'static [u8]> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    (0..length.div_ceil(ZEROS.len())).map(move |number| {
        let left = length - number * ZEROS.len();
        &ZEROS[..left.min(ZEROS.len())]
    })
}

/// A log in which nothing was appended for this long gets its mark.
pub(crate) const IDLE: Duration = Duration::from_millis(50);
