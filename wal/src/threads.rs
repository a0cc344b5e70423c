//! The log's threads: shells that loop over the steps.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
    time::Duration,
};

use crate::{
    WalError,
    core::{Core, State},
    mode::Mode,
    steps::{IDLE, SyncJob},
    sync::{
        Instant,
        thread::{self, JoinHandle},
    },
};

/// Starts both threads.
pub(crate) fn start(core: &Arc<Core>) -> io::Result<Vec<JoinHandle<()>>> {
    let (syncer, preparer) = (Arc::clone(core), Arc::clone(core));
    let builder = |name: &str| thread::Builder::new().name(name.to_owned());
    let syncing = builder("wal-sync").spawn(move || run_syncer(&syncer))?;
    match builder("wal-segment").spawn(move || run_preparer(&preparer)) {
        Ok(preparing) => Ok(vec![syncing, preparing]),
        Err(error) => {
            // Nobody will close a log that did not open: the first thread must not keep its directory.
            core.state.lock().mode = Mode::GivenUp;
            core.sync_work.notify_all();
            if syncing.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
            Err(error)
        }
    }
}

/// One group, if any is due: begin, run, finish. False if none was.
pub(crate) fn sync_once(core: &Core, now: Option<Duration>) -> bool {
    poison_on_panic(core, || {
        let job = core.begin_sync(&mut core.state.lock(), now);
        job.map(|job| run_sync(core, job)).is_some()
    })
}

/// Runs and finishes a job.
pub(crate) fn run_sync(core: &Core, job: SyncJob) {
    poison_on_panic(core, || {
        let result = job.run();
        core.finish_sync(job, result);
    });
}

/// Syncs what others cannot sync themselves, what nobody waits for within 50 ms, and marks an idle log.
fn run_syncer(core: &Core) {
    let start = Instant::now();
    let mut state = core.state.lock();
    while matches!(state.mode, Mode::Open) {
        let passive = state.waiters.has_passive() || state.has_room_waiters();
        if state.syncing {
            // Whoever syncs wakes this thread only for those who cannot sync themselves; what came meanwhile, and a
            // mark, are its own to look after.
            core.sync_work.wait_for(&mut state, IDLE);
        } else if !(state.stream.has_unsynced() || state.stream.needs_mark()) {
            state.sync_thread_sleeps = true;
            core.sync_work.wait(&mut state);
        } else if passive && state.stream.has_unsynced() {
            drop(state);
            sync_once(core, Some(start.elapsed()));
            state = core.state.lock();
        } else {
            if state.stream.needs_mark() {
                // The mark is due so long after this, not after the wait below has shown that nothing came.
                state.idle_since.get_or_insert(start.elapsed());
            }
            let durable = state.stream.durable();
            let timed_out = core.sync_work.wait_for(&mut state, IDLE).timed_out();
            if timed_out && state.stream.durable() == durable {
                drop(state);
                sync_once(core, Some(start.elapsed()));
                state = core.state.lock();
            }
        }
    }
}

/// Prepares and frees segments.
fn run_preparer(core: &Core) {
    poison_on_panic(core, || prepare_and_free(core));
}

/// After a second preparation in a row that failed it waits before it tries again, unless there is something to free; what
/// could not be removed waits likewise, and holds nothing else up.
fn prepare_and_free(core: &Core) {
    let mut state = core.state.lock();
    let mut removes_at = Instant::now();
    while matches!(state.mode, Mode::Open) {
        state.removal_failed &= Instant::now() < removes_at;
        let failed = state.preparation_error.is_some();
        // Decided and slept on under one lock: a notification in between would be lost.
        let Some(job) = core.begin_segment(&mut state) else {
            if state.removal_failed {
                core.segment_work.wait_until(&mut state, removes_at);
            } else {
                core.segment_work.wait(&mut state);
            }
            continue;
        };
        drop(state);
        let (prepares, result) = (job.prepares(), job.run());
        let retry_at = Instant::now() + RETRY;
        if !prepares && result.is_err() {
            removes_at = retry_at;
        }
        core.finish_segment(job, result);
        state = core.state.lock();
        let waits = |state: &State| {
            prepares
                && failed
                && state.preparation_error.is_some()
                && matches!(state.mode, Mode::Open)
                && !state.can_remove()
        };
        while waits(&state) && !core.segment_work.wait_until(&mut state, retry_at).timed_out() {}
    }
}

/// How long after a failed preparation or removal the next one is tried.
const RETRY: Duration = Duration::from_millis(250);

/// A panic in `work` poisons the log and wakes everybody, so that nobody waits for a dead thread; then it goes on.
pub(crate) fn poison_on_panic<T>(core: &Core, work: impl FnOnce() -> T) -> T {
    // Whoever meets the log next meets it poisoned: nothing relies on what the panic left half done.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let wakeups = core.poison(&mut core.state.lock(), WalError::SyncerPanicked);
        wakeups.serve();
        resume_unwind(panic)
    })
}
