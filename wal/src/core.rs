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
    AppendError, Bounds, LogId, Lsn, Options, Statistics, WalError,
    catalog::{Catalog, Change},
    checkpoint,
    frame::{FrameKind, Header},
    index::{self, FrameIndex},
    reader::Access,
    segment::{Room, SEGMENTS_MAX, Segment, checkpoint_bytes_max},
    stream::Stream,
    trailer::Trailer,
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
    /// Reads copy through the file, never through a map.
    pub(crate) copies_reads: bool,
    pub(crate) unsynced_bytes_max: u64,
    pub(crate) log_bytes_max: u64,
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
    /// Segments that a frame has freed; their files go once that frame, which ends at the LSN, is durable.
    pub(crate) freed: Option<(Lsn, Vec<Segment>)>,
    /// Numbers of freed files that wait to be used again, the warmest last.
    pub(crate) spares: Vec<u64>,
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

/// What an append adds besides its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// The log, if the frames hold entries: these leave the last eighth of a segment without a successor alone. `None` is
    /// what a full disk must still take: state, truncate, compact, reset, forget, freed.
    pub(crate) log: Option<LogId>,
    /// Bytes by which the checkpoint can grow.
    pub(crate) growth: u64,
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
        options: &Options,
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
            freed: None,
            spares: Vec::new(),
            statistics: Statistics::default(),
        };
        Self {
            directory,
            state: Mutex::new(state),
            durable,
            stopped: Arc::default(),
            copies_reads: options.copied_reads,
            unsynced_bytes_max: options.unsynced_bytes_max,
            log_bytes_max: options.log_bytes_max,
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

    /// How entries are read.
    pub(crate) fn access(&self) -> Access {
        if self.copies_reads { Access::Copied } else { Access::Mapped }
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
        let need = Need { log: None, growth };
        self.check_room(&mut state, &[header.frame_bytes()], need)?;
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
        need: Need,
    ) -> Result<(), AppendError> {
        let (growth, opened) = (need.growth, state.stream.opened_bytes());
        let total: u64 = opened.iter().chain(frames).sum();
        let index = need.log.map_or((0, 0), |log| state.catalog.index_bytes(log));
        let fits = |room: &mut Room, first: u64| {
            opened.is_none_or(|bytes| room.take(bytes, 0))
                && frames.iter().enumerate().all(|(number, &bytes)| {
                    room.take(bytes, if number == 0 { first } else { index.1 })
                })
        };
        let unsynced = state.stream.unsynced_bytes();
        let full = AppendError::Full { unsynced, limit: self.unsynced_bytes_max };
        if state.stream.has_unsynced() && unsynced + total > self.unsynced_bytes_max {
            return Err(full);
        }
        let checkpoint = state.catalog.checkpoint_bytes() + growth;
        let limit = checkpoint_bytes_max(state.stream.segment_bytes);
        if growth > 0 && checkpoint > limit {
            return Err(AppendError::CheckpointTooLarge { bytes: checkpoint, limit });
        }
        let mut fresh = state.stream.opened_room(checkpoint);
        let fresh_bytes = fresh.segment_bytes - fresh.offset;
        let fresh_index = if need.log.is_some() { FRESH_INDEX_BYTES } else { 0 };
        if !fits(&mut fresh, fresh_index) {
            return Err(too_large(total, fresh_bytes));
        }
        if state.stream.successor.is_some() {
            return Ok(());
        }
        let mut room = state.stream.room;
        let reserved = need.log.is_some() && room.is_in_last_eighth(total);
        if !reserved && fits(&mut room, index.0) {
            return Ok(());
        }
        state.statistics.segment_waits += 1;
        state.successor_is_needed = true;
        self.segment_work.notify_one();
        let bytes = state.stream.segments_bytes();
        if !self.may_grow(state) {
            return Err(AppendError::LogFull { bytes, limit: self.log_bytes_max });
        }
        Err(match &state.no_space {
            Some(source) => AppendError::NoSpace { source: Arc::clone(source) },
            None => full,
        })
    }

    /// One more segment is within the bounds.
    pub(crate) fn may_grow(&self, state: &State) -> bool {
        let stream = &state.stream;
        let bytes = stream.segments_bytes() + stream.segment_bytes;
        bytes <= self.log_bytes_max && (stream.segments.len() as u64) < SEGMENTS_MAX
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
        let index_bytes = match change {
            Change::Entries { .. } => self.catalog.index_bytes(log).0,
            _ => 0,
        };
        let index_bytes = self.make_room(&header, index_bytes);
        let place = self.stream.push(header, parts, index_bytes);
        self.catalog.apply(log, change, place);
    }

    /// Goes on in the successor if the active segment has no room for a frame; what the frame adds to the index then.
    fn make_room(&mut self, header: &Header, index_bytes: u64) -> u64 {
        let mut room = self.stream.room;
        let opened = self.stream.opened_bytes().is_none_or(|bytes| room.take(bytes, 0));
        if opened && room.take(header.frame_bytes(), index_bytes) {
            self.stream.push_opened();
            return index_bytes;
        }
        let checkpoint = self.catalog.checkpoint();
        self.stream.rotate(&checkpoint);
        self.catalog.open_segment(self.stream.active);
        if index_bytes > 0 { FRESH_INDEX_BYTES } else { 0 }
    }

    /// Appends the frame that says which segments nothing needs any more, if there are such and the last ones are gone.
    ///
    /// Their files go only once it is durable. So after a power cut every segment that is missing was freed or is lost, and
    /// no other one is taken for what it held; and whatever killed its entries, and the checkpoint above it, lie before
    /// this frame and are durable, too.
    pub(crate) fn free_dead(&mut self) {
        if self.freed.is_some() || !matches!(self.mode, Mode::Open) {
            return;
        }
        let dead = self.dead_segments();
        if dead.is_empty() {
            return;
        }
        let body: Vec<u8> = dead.iter().flat_map(|sequence| sequence.to_le_bytes()).collect();
        let header = Header::new(FrameKind::Freed, LogId(0), &body);
        let mut room = self.stream.room;
        let opened = self.stream.opened_bytes().is_none_or(|bytes| room.take(bytes, 0));
        let fits = opened && room.take(header.frame_bytes(), 0);
        // A hole among the segments is a run more in each checkpoint.
        let grown =
            self.catalog.checkpoint_bytes() + dead.len() as u64 * checkpoint::SEGMENTS_BYTES;
        let limit = checkpoint_bytes_max(self.stream.segment_bytes);
        if !(fits || self.stream.successor.is_some()) || grown > limit {
            return;
        }
        self.make_room(&header, 0);
        self.stream.push(header, std::iter::once(&body[..]), 0);
        self.catalog.free(&dead);
        let segments = &mut self.stream.segments;
        let freed = dead.iter().filter_map(|sequence| segments.remove(sequence)).collect();
        self.freed = Some((self.stream.end(), freed));
    }

    /// The oldest segment that is full and durable and has no index in its file yet.
    pub(crate) fn sealable(&self) -> Option<(&Segment, &Arc<FrameIndex>)> {
        let (sequence, frames) = self.catalog.unsealed()?;
        let segment = self.stream.segments.get(&sequence)?;
        let next = self.stream.segments.range(sequence + 1..).next()?.1;
        (segment.last.is_some() && next.base <= self.stream.durable()).then_some((segment, frames))
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

    /// Segments without a live entry that may go. Those before them are sealed: behind a gap nothing but a trailer vouches
    /// for the last frame before it.
    fn dead_segments(&self) -> Vec<u64> {
        let durable = self.stream.durable();
        let unsealed = self.catalog.unsealed().map_or(u64::MAX, |(sequence, _)| sequence);
        let is_durable = |sequence: u64| {
            let next = self.stream.segments.range(sequence + 1..).next();
            next.is_some_and(|(_, next)| next.base <= durable)
        };
        let dead = self.catalog.dead();
        dead.take_while(|&sequence| sequence <= unsealed && is_durable(sequence)).collect()
    }

    /// The segment's file has its index and its trailer, both durable.
    pub(crate) fn seal(&mut self, sequence: u64, trailer: Trailer) {
        self.catalog.sealed(sequence);
        if let Some(segment) = self.stream.segments.get_mut(&sequence) {
            segment.trailer = Some(trailer);
            segment.file.publish(segment.bytes);
        }
        self.statistics.sealed_segments += 1;
    }

    /// Files wait to be removed, and may be.
    pub(crate) fn can_remove(&self) -> bool {
        let durable = self.stream.durable();
        !self.leftovers.is_empty() || self.freed.as_ref().is_some_and(|(end, _)| *end <= durable)
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

/// What the first frame of a log's entries adds to the index of a segment.
const FRESH_INDEX_BYTES: u64 = index::LOG_BYTES + index::FRAME_BYTES;
