//! The one state behind all handles of an open log, and how durability moves in it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use kontiki_disk::Directory;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::{
    AppendError, LogId, Lsn, Statistics, WalError,
    catalog::{Catalog, Change},
    checkpoint::Bounds,
    frame::Header,
    segment::checkpoint_bytes_max,
    stream::Stream,
    waiters::{Waiter, Waiters, guard},
};

/// What all handles, threads and pending writes of one log share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) state: Mutex<State>,
    /// A copy of the state's durable LSN that is read without the lock.
    durable: AtomicU64,
    /// Set by poison: jobs that are out look at it before each write.
    pub(crate) stopped: Arc<AtomicBool>,
    pub(crate) unsynced_bytes_max: u64,
    /// Size of new segments: the limits of entries and states follow from it.
    pub(crate) segment_bytes: u64,
    /// Wakes the syncing thread.
    pub(crate) sync_work: Condvar,
    /// Wakes the thread that prepares and frees segments.
    pub(crate) segment_work: Condvar,
}

/// What the lock guards.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) catalog: Catalog,
    pub(crate) stream: Stream,
    pub(crate) waiters: Waiters,
    pub(crate) mode: Mode,
    /// A `SyncJob` is out.
    pub(crate) syncing: bool,
    /// The last group served others than the thread that synced it.
    pub(crate) is_crowded: bool,
    /// A `SegmentJob` is out.
    pub(crate) preparing: bool,
    /// Why the last preparation failed, if no other has succeeded since.
    pub(crate) no_space: Option<Arc<io::Error>>,
    /// An append was refused because there is no successor.
    pub(crate) successor_is_needed: bool,
    /// A `SyncJob` is out that only `Wal::finish_sync` will bring back.
    pub(crate) job_is_out: bool,
    /// The syncing thread sleeps without a deadline.
    pub(crate) sync_thread_sleeps: bool,
    /// When the steps first saw that a mark is due.
    pub(crate) idle_since: Option<Duration>,
    room_callbacks: Vec<RoomCallback>,
    /// Numbers of files that nothing needs, and that are no segments any more: a power cut undid their removal.
    pub(crate) leftovers: Vec<u64>,
    pub(crate) statistics: Statistics,
}

struct RoomCallback(Box<dyn FnOnce() + Send>);

impl std::fmt::Debug for RoomCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RoomCallback")
    }
}

/// What a log still does.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    Open,
    /// Appends are refused; what was appended is being synced.
    Closing,
    Closed,
    /// Closed while a job was out, without the mark of a close.
    GivenUp,
    /// Nothing is written any more.
    Poisoned(WalError),
    ReadOnly,
}

/// What an append may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Leaves the last eighth of a segment without a successor alone.
    Entries,
    /// What a full disk must still take: state, truncate, compact, reset, forget.
    Upkeep,
}

/// Whom to tell once the lock is released.
#[must_use]
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    pub(crate) waiters: Vec<Waiter>,
    outcome: Option<WalError>,
    room: Vec<RoomCallback>,
}

impl Core {
    pub(crate) fn new(
        directory: Arc<dyn Directory>,
        unsynced_bytes_max: u64,
        catalog: Catalog,
        stream: Stream,
        mode: Mode,
    ) -> Self {
        let durable = AtomicU64::new(stream.durable().0);
        let segment_bytes = stream.segment_bytes;
        let state = State {
            catalog,
            stream,
            waiters: Waiters::default(),
            mode,
            syncing: false,
            is_crowded: false,
            preparing: false,
            no_space: None,
            successor_is_needed: false,
            job_is_out: false,
            sync_thread_sleeps: false,
            idle_since: None,
            room_callbacks: Vec::new(),
            leftovers: Vec::new(),
            statistics: Statistics::default(),
        };
        Self {
            directory,
            state: Mutex::new(state),
            durable,
            stopped: Arc::default(),
            unsynced_bytes_max,
            segment_bytes,
            sync_work: Condvar::new(),
            segment_work: Condvar::new(),
        }
    }

    /// Everything below is durable.
    pub(crate) fn durable(&self) -> Lsn {
        // Acquire: pairs with the store in `publish`.
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// The state, if the log still takes appends.
    pub(crate) fn lock_open(&self) -> Result<MutexGuard<'_, State>, WalError> {
        let state = self.state.lock();
        state.mode.refusal().map_or(Ok(state), Err)
    }

    /// Appends the change that `plan` makes of a log's bounds, as one frame of its own. Without a
    /// change the answer is the end of what was appended before.
    pub(crate) fn append_upkeep(
        &self,
        log: LogId,
        plan: impl FnOnce(&Bounds) -> Result<Option<(Change, Header)>, AppendError>,
        body: &[u8],
    ) -> Result<Lsn, AppendError> {
        let mut state = self.lock_open()?;
        let Some((change, header)) = plan(&state.catalog.bounds(log))? else {
            return Ok(state.stream.changed);
        };
        state.catalog.check(log, &change)?;
        let growth = state.catalog.growth(log, &change);
        self.check_room(&mut state, &[header.frame_bytes()], growth, Need::Upkeep)?;
        state.put(log, change, header, std::iter::once(body));
        let end = state.stream.end();
        self.appended(state);
        Ok(end)
    }

    /// `Ok` if frames of these sizes can all be placed now, in the active segment and its successor.
    pub(crate) fn check_room(
        &self,
        state: &mut State,
        frames: &[u64],
        growth: u64,
        need: Need,
    ) -> Result<(), AppendError> {
        let opened = state.stream.opened_bytes();
        let frames = || opened.iter().chain(frames);
        let total: u64 = frames().sum();
        let unsynced = state.stream.unsynced_bytes();
        let full = AppendError::Full { unsynced, limit: self.unsynced_bytes_max };
        if state.stream.has_unsynced() && unsynced + total > self.unsynced_bytes_max {
            return Err(full);
        }
        let checkpoint = state.catalog.checkpoint_bytes() + growth;
        let limit = checkpoint_bytes_max(state.stream.segment_bytes);
        if growth > 0 && checkpoint > limit {
            return Err(too_large(checkpoint, limit));
        }
        let mut fresh = state.stream.opened_room(checkpoint);
        let fresh_bytes = fresh.segment_bytes - fresh.offset;
        if !frames().all(|&bytes| fresh.take(bytes)) {
            return Err(too_large(total, fresh_bytes));
        }
        if state.stream.successor.is_some() {
            return Ok(());
        }
        let mut room = state.stream.room;
        let reserved = need == Need::Entries && room.is_in_last_eighth(total);
        if !reserved && frames().all(|&bytes| room.take(bytes)) {
            return Ok(());
        }
        state.statistics.segment_waits += 1;
        state.successor_is_needed = true;
        self.segment_work.notify_one();
        Err(match &state.no_space {
            Some(source) => AppendError::NoSpace { source: Arc::clone(source) },
            None => full,
        })
    }

    /// After an append: wakes whom it concerns.
    pub(crate) fn appended(&self, mut state: MutexGuard<'_, State>) {
        state.idle_since = None;
        let wants_segment = state.wants_successor() && !state.preparing && state.no_space.is_none();
        let wakes_syncer = std::mem::take(&mut state.sync_thread_sleeps);
        drop(state);
        if wants_segment {
            self.segment_work.notify_one();
        }
        if wakes_syncer {
            self.sync_work.notify_one();
        }
    }

    /// Makes the state's durable LSN public and takes out whom it serves.
    pub(crate) fn publish(&self, state: &mut State) -> Wakeups {
        let durable = state.stream.durable();
        // Release: whoever reads it may read the bytes below.
        self.durable.store(durable.0, Ordering::Release);
        Wakeups {
            waiters: state.waiters.take_until(durable),
            outcome: None,
            room: std::mem::take(&mut state.room_callbacks),
        }
    }

    /// Stops without the mark of a close: the job that is out may never come back.
    pub(crate) fn give_up(&self, state: &mut State) -> Wakeups {
        state.mode = Mode::GivenUp;
        self.stopped.store(true, Ordering::Relaxed);
        Wakeups {
            waiters: state.waiters.take_all(),
            outcome: Some(WalError::Closed),
            room: std::mem::take(&mut state.room_callbacks),
        }
    }

    /// Stops everything: nothing is acknowledged and nothing written any more.
    pub(crate) fn poison(&self, state: &mut State, error: WalError) -> Wakeups {
        if matches!(state.mode, Mode::Poisoned(_)) {
            return Wakeups::default();
        }
        tracing::error!(%error, "the log stops");
        state.mode = Mode::Poisoned(error.clone());
        state.stream.abandon();
        self.stopped.store(true, Ordering::Relaxed);
        // The threads end: they hold the directory, which is to be opened again.
        self.sync_work.notify_all();
        self.segment_work.notify_all();
        Wakeups {
            waiters: state.waiters.take_all(),
            outcome: Some(error),
            room: std::mem::take(&mut state.room_callbacks),
        }
    }

    /// Somebody waits still and nobody syncs: passes the work on.
    pub(crate) fn hand_over(&self, state: &State) {
        if state.syncing {
            return;
        }
        if let Some(parker) = state.waiters.next_syncer() {
            parker.wake();
        } else if state.waiters.has_passive() {
            self.sync_work.notify_one();
        }
    }

    /// Calls `callback` when an append may succeed again.
    pub(crate) fn on_room(&self, callback: Box<dyn FnOnce() + Send>) {
        let mut state = self.state.lock();
        let open = matches!(state.mode, Mode::Open);
        let waits = state.syncing
            || state.stream.has_unsynced()
            || state.preparing
            || state.wants_successor();
        if open && waits {
            state.room_callbacks.push(RoomCallback(callback));
            // Nobody may be waiting for what is in the way.
            self.sync_work.notify_one();
            self.segment_work.notify_one();
            return;
        }
        drop(state);
        guard(callback);
    }

    /// The error that a failed operation leaves behind.
    pub(crate) fn failure(
        &self,
        operation: &'static str,
        segment: String,
        source: io::Error,
    ) -> WalError {
        WalError::Poisoned { operation, segment, source: Arc::new(source) }
    }
}

impl State {
    /// Appends a frame, in the successor if the active segment has no room for it, and takes its change in.
    pub(crate) fn put<'a>(
        &mut self,
        log: LogId,
        change: Change,
        header: Header,
        parts: impl Iterator<Item = &'a [u8]>,
    ) {
        let mut room = self.stream.room;
        let opened = self.stream.opened_bytes();
        if opened.into_iter().chain([header.frame_bytes()]).all(|bytes| room.take(bytes)) {
            self.stream.push_opened();
        } else {
            let checkpoint = self.catalog.checkpoint();
            self.stream.rotate(&checkpoint);
        }
        let (place, bytes) = self.stream.push(header, parts);
        let end = self.stream.end();
        self.catalog.apply(log, change, place, bytes, end);
    }

    /// The active segment is half full, or too full for an append, and its successor is not there.
    pub(crate) fn wants_successor(&self) -> bool {
        let room = &self.stream.room;
        let due = self.successor_is_needed || room.offset > room.segment_bytes / 2;
        due && self.stream.successor.is_none()
    }

    /// Someone waits for room.
    pub(crate) fn has_room_waiters(&self) -> bool {
        !self.room_callbacks.is_empty()
    }

    /// Sequence numbers of the segments that nothing needs any more: a prefix, so that every live entry lies in segments
    /// that follow each other up to the newest, where links and watermarks tell rot from a torn tail. Behind a gap
    /// nothing would vouch for the last frame before it.
    pub(crate) fn dead_segments(&self) -> Vec<u64> {
        let durable = self.stream.durable();
        let segments = &self.stream.segments;
        let pairs = segments.keys().zip(segments.values().skip(1));
        let dead = pairs.take_while(|(sequence, above)| {
            above.checkpoint_end <= durable && self.catalog.is_dead(**sequence, durable)
        });
        self.leftovers.iter().copied().chain(dead.map(|(sequence, _)| *sequence)).collect()
    }
}

impl Mode {
    /// Why an append is refused, if it is.
    pub(crate) fn refusal(&self) -> Option<WalError> {
        match self {
            Self::Open => None,
            Self::Closing | Self::Closed | Self::GivenUp => Some(WalError::Closed),
            Self::Poisoned(error) => Some(error.clone()),
            Self::ReadOnly => Some(WalError::ReadOnly),
        }
    }

    /// Why nothing more becomes durable, if so.
    pub(crate) fn end(&self) -> Option<WalError> {
        match self {
            Self::Open | Self::Closing => None,
            _ => self.refusal(),
        }
    }
}

impl Wakeups {
    /// Serves all; the lock must not be held.
    pub(crate) fn serve(self) {
        let outcome = self.outcome.map_or(Ok(()), Err);
        self.waiters.into_iter().for_each(|waiter| waiter.serve(&outcome));
        self.room.into_iter().for_each(|callback| guard(callback.0));
    }
}

pub(crate) fn too_large(bytes: u64, limit: u64) -> AppendError {
    let size = |bytes: u64| usize::try_from(bytes).expect("64-bit only");
    AppendError::TooLarge { bytes: size(bytes), limit: size(limit) }
}
