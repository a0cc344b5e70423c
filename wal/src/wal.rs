//! The log's handle: opening, closing, and what it says of itself.

use std::{path::Path, sync::Arc};

use crate::{
    Corruption, Log, LogId, Lsn, OpenError, Options, WalError,
    core::Core,
    mode::Mode,
    recovery,
    sync::{
        Mutex,
        thread::{self, JoinHandle},
    },
    threads,
};

/// A durable log: one directory, one stream, one sync for all its [`Log`]s. Cheap to clone; all clones are one log.
#[derive(Clone, Debug)]
pub struct Wal {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    damage: Vec<Corruption>,
}

/// What the log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Groups that were synced.
    pub syncs: u64,
    /// Bytes written to segments, padding included.
    pub bytes_written: u64,
    /// Entries taken by appends.
    pub entries_appended: u64,
    /// Entries that the syncs made durable.
    pub entries_synced: u64,
    /// Segments with frames.
    pub segments: u64,
    /// Segments that the log went on in, once they had something durable.
    pub rotations: u64,
    /// Rotations that had to wait because the next segment was not ready; each is counted once, however many appends were
    /// refused meanwhile.
    pub rotation_waits: u64,
    /// Segments whose index and trailer were written.
    pub sealed_segments: u64,
    /// Segments made of the file of a freed one.
    pub recycled_segments: u64,
    /// Freed segments that could not be used again because a view of them lived.
    pub pinned_segments: u64,
    /// Times that the next segment could not be made, mostly for want of space; each is counted once, however often it is
    /// tried again before that succeeds.
    pub preparation_failures: u64,
}

/// What one log keeps on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Laggard {
    /// The log.
    pub log: LogId,
    /// Sequence number of the oldest segment with one of its live entries.
    pub oldest_segment: u64,
    /// Length of all segments with a live entry of it.
    pub bytes: u64,
}

impl Wal {
    /// Options to open a log with.
    pub fn options() -> Options {
        Options::new()
    }

    /// Opens a log without its lock and without changing anything: copies and never maps, follows whole headers past
    /// damaged bodies, and lists the damage. Works on a live directory, as of the moment of the call.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_read_only(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Options::new().open_read_only(directory)
    }

    pub(crate) fn open_for_writing(options: Options, directory: &Path) -> Result<Self, OpenError> {
        options.check()?;
        let core = Arc::new(recovery::open(&options, directory)?);
        let threads = if options.threads {
            threads::start(&core).map_err(|source| OpenError::Io {
                operation: "start the threads of",
                path: directory.display().to_string(),
                source: Arc::new(source),
            })?
        } else {
            Vec::new()
        };
        Ok(Self {
            handle: Arc::new(Handle { core, threads: Mutex::new(threads), damage: Vec::new() }),
        })
    }

    pub(crate) fn open_for_reading(options: Options, directory: &Path) -> Result<Self, OpenError> {
        let (core, damage) = recovery::open_read_only(&options, directory)?;
        let threads = Mutex::new(Vec::new());
        Ok(Self { handle: Arc::new(Handle { core: Arc::new(core), threads, damage }) })
    }

    /// A handle to one of the logs; it need not exist yet.
    ///
    /// # Errors
    /// None today: a log comes into being with its first append. The place is kept for a limit on logs.
    pub fn log(&self, log: LogId) -> Result<Log, WalError> {
        Ok(Log::new(self.clone(), log))
    }

    /// Every log that has entries or state, ascending.
    pub fn logs(&self) -> Vec<LogId> {
        self.core().state.lock().catalog.logs().collect()
    }

    /// Everything below is durable.
    pub fn durable_lsn(&self) -> Lsn {
        self.core().durable()
    }

    /// What the log has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        let state = self.core().state.lock();
        Statistics { segments: state.stream.segments().len() as u64, ..state.statistics }
    }

    /// The logs by the oldest segment that each holds back, the oldest first: what to compact when the directory is large.
    pub fn laggards(&self) -> Vec<Laggard> {
        let state = self.core().state.lock();
        let bytes =
            |sequence| state.stream.segments().get(&sequence).map_or(0, |segment| segment.bytes);
        let laggard = |log| {
            let mut segments = state.catalog.segments_of(log).peekable();
            let oldest_segment = *segments.peek()?;
            Some(Laggard { log, oldest_segment, bytes: segments.map(bytes).sum() })
        };
        let mut laggards: Vec<Laggard> = state.catalog.logs().filter_map(laggard).collect();
        laggards.sort_by_key(|laggard| (laggard.oldest_segment, laggard.log));
        laggards
    }

    /// Syncs everything, then writes and syncs the mark of a clean close. Appends are refused from now on; reading goes
    /// on. The directory's lock is released with the last handle and the last view. Dropping the last handle does the
    /// same and logs the error.
    ///
    /// # Errors
    /// The log is or becomes poisoned: then nothing more is written. `Closed` if another thread is
    /// closing it, which alone learns the outcome, or if a job of
    /// [`steps`](crate::steps) is out, which cannot be waited for: then the log stops without the
    /// mark.
    pub fn close(&self) -> Result<(), WalError> {
        self.handle.close()
    }

    /// What a read-only open found damaged; empty for a log that is open for writing.
    pub fn damage(&self) -> Vec<Corruption> {
        self.handle.damage.clone()
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }
}

impl Handle {
    fn close(&self) -> Result<(), WalError> {
        let core = &self.core;
        let poisoned = {
            let mut state = core.state.lock();
            match &state.mode {
                Mode::Open => {
                    state.mode = Mode::Closing;
                    None
                }
                // Another thread closes, and only it will know whether that succeeded.
                Mode::Closing | Mode::GivenUp => return Err(WalError::Closed),
                Mode::Closed | Mode::ReadOnly => return Ok(()),
                Mode::Poisoned(error) => Some(error.clone()),
            }
        };
        core.sync_work.notify_all();
        core.segment_work.notify_all();
        self.join_threads();
        poisoned.map_or_else(|| core.finish_closing(), Err)
    }

    /// Waits for the threads, so that the directory is free when the last handle and view are gone.
    fn join_threads(&self) {
        // Not under the lock: a callback on a thread that is waited for can close, too.
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A callback can drop the last handle on one of the log's own threads.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // What poisoned the log was reported when it happened.
        let _ = self.close();
    }
}

impl Core {
    /// Everything synced, then the mark, then nothing more.
    fn finish_closing(&self) -> Result<(), WalError> {
        loop {
            let mut state = self.state.lock();
            if let Mode::Poisoned(error) = &state.mode {
                return Err(error.clone());
            }
            if state.job_is_out || state.preparing {
                let wakeups = self.give_up(&mut state);
                drop(state);
                wakeups.serve();
                return Err(WalError::Closed);
            }
            if state.syncing {
                // A thread in `Pending::wait` syncs; it wakes this one when it is done.
                let parker = crate::waiters::Parker::new();
                let waiter = crate::waiters::Waiter::Blocked(Arc::clone(&parker));
                let end = state.stream.end();
                let ticket = state.waiters.add(end, waiter);
                drop(state);
                parker.park(None);
                self.state.lock().waiters.remove(ticket);
                continue;
            }
            let job = match self.begin_sync(&mut state, None) {
                Some(job) => Some(job),
                None => self.begin_closing_mark(&mut state),
            };
            let Some(job) = job else {
                state.mode = Mode::Closed;
                // Whoever waits for room learns from its next append that there will be none.
                let wakeups = self.publish(&mut state);
                let left = self.ended(&mut state);
                drop(state);
                wakeups.serve();
                left.serve();
                return Ok(());
            };
            drop(state);
            threads::run_sync(self, job);
        }
    }

    fn begin_closing_mark(&self, state: &mut crate::core::State) -> Option<crate::steps::SyncJob> {
        if state.stream.is_closed() {
            return None;
        }
        // An idle mark that was written and not synced goes first.
        if let Some(job) = self.begin_closed_mark(state) {
            return Some(job);
        }
        state.stream.push_mark(true);
        self.begin_closed_mark(state)
    }
}
