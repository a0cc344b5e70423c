//! The one state behind all handles of an open log, and how durability moves in it.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::{Directory, is_too_many_files};

use crate::{
    AppendError, Bounds, LogId, Lsn, Options, Statistics, WalError,
    catalog::{Catalog, Change},
    frame::{FrameKind, Header},
    index,
    metrics::Metrics,
    mode::Mode,
    reader::Access,
    sealed::SealedIndexes,
    segment::{SEGMENTS_MAX, Segment, UPKEEP_SEGMENTS_MAX, checkpoint_bytes_max},
    stream::Stream,
    sync::{AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard},
    waiters::{Deferred, Waiters, Wakeups, guard},
};

/// What all handles, threads and pending writes of one log share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) metrics: Metrics,
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) state: Mutex<State>,
    /// A copy of the state's durable LSN that is read without the lock.
    durable: AtomicU64,
    /// A copy of the catalog's count of removals, likewise: what a reader has looked up holds until it moves on.
    removals: AtomicU64,
    /// Set by poison: jobs that are out look at it before each write.
    pub(crate) stopped: Arc<AtomicBool>,
    /// How entries are read, and found in sealed segments.
    pub(crate) sealed: SealedIndexes,
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
    pub(crate) preparation_error: Option<Arc<io::Error>>,
    /// An append was refused because there is no successor.
    pub(crate) successor_is_needed: bool,
    /// The one that it waits for is not for entries: it may be beyond the bound of all segments.
    pub(crate) upkeep_needs_successor: bool,
    /// A `SyncJob` is out that only `Wal::finish_sync` will bring back.
    pub(crate) job_is_out: bool,
    /// The syncing thread sleeps without a deadline.
    pub(crate) sync_thread_sleeps: bool,
    /// When the steps first saw that a mark is due.
    pub(crate) idle_since: Option<Duration>,
    room_callbacks: Vec<Deferred>,
    /// Names of files that nothing needs and that are no segments any more: a power cut undid their removal, or it failed.
    pub(crate) leftovers: Vec<String>,
    /// The last removal failed: it is tried again, but other work comes first.
    pub(crate) removal_failed: bool,
    /// It was told, and none has succeeded since.
    pub(crate) removal_failure_is_told: bool,
    /// Segments that a frame has freed; their files go once that frame, which ends at the LSN, is durable.
    pub(crate) freed: Option<(Lsn, Vec<Segment>)>,
    /// Numbers of freed files that wait to be used again, the warmest last.
    pub(crate) spares: Vec<u64>,
    pub(crate) statistics: Statistics,
}

/// What an append adds besides its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// What the first frame adds to the active segment's index, if the frames hold entries: these leave the last eighth of a
    /// segment without a successor alone. `None` is what a full disk must still take: state, truncate, compact, reset, forget,
    /// freed.
    pub(crate) index_bytes: Option<u64>,
    /// Bytes by which the checkpoint can grow.
    pub(crate) growth: u64,
    /// Bytes that have to be left in a segment without a successor.
    pub(crate) kept_bytes: u64,
}

impl Core {
    pub(crate) fn new(
        directory: Arc<dyn Directory>,
        options: &Options,
        catalog: Catalog,
        stream: Stream,
        mode: Mode,
    ) -> Self {
        let copies = options.copied_reads || matches!(mode, Mode::ReadOnly);
        let access = if copies { Access::Copied } else { Access::Mapped };
        let durable = AtomicU64::new(stream.durable().0);
        let removals = AtomicU64::new(catalog.removals());
        let segment_bytes = stream.segment_bytes;
        let state = State {
            catalog,
            stream,
            waiters: Waiters::default(),
            mode,
            syncing: false,
            is_crowded: false,
            preparing: false,
            preparation_error: None,
            successor_is_needed: false,
            upkeep_needs_successor: false,
            job_is_out: false,
            sync_thread_sleeps: false,
            idle_since: None,
            room_callbacks: Vec::new(),
            leftovers: Vec::new(),
            removal_failed: false,
            removal_failure_is_told: false,
            freed: None,
            spares: Vec::new(),
            statistics: Statistics::default(),
        };
        Self {
            metrics: Metrics::none(),
            directory,
            state: Mutex::new(state),
            durable,
            removals,
            stopped: Arc::new(AtomicBool::new(false)),
            sealed: SealedIndexes::new(access),
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

    /// How often entries were removed from a log.
    pub(crate) fn removals(&self) -> u64 {
        // Acquire: pairs with the store in `appended`.
        self.removals.load(Ordering::Acquire)
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
        // States leave half of what entries leave: they would fill a segment up to where nothing could make room any more.
        let is_state = header.kind == FrameKind::State;
        let kept_bytes = if is_state { state.stream.room.segment_bytes / 16 } else { 0 };
        let need = Need { index_bytes: None, growth, kept_bytes };
        self.check_room(&mut state, [header.frame_bytes()].into_iter(), need)?;
        state.put(change, &header, body);
        let end = state.stream.end();
        self.appended(state);
        Ok(end)
    }

    /// `Ok` if frames of these sizes can all be placed now, in the active segment and its successor.
    pub(crate) fn check_room(
        &self,
        state: &mut State,
        frames: impl ExactSizeIterator<Item = u64>,
        need: Need,
    ) -> Result<(), AppendError> {
        let (growth, opened) = (need.growth, state.stream.opened_bytes());
        let (count, total) = (frames.len() as u64, opened.unwrap_or(0) + frames.sum::<u64>());
        let unsynced = state.stream.unsynced_bytes();
        let full = || AppendError::Full { unsynced, limit: self.unsynced_bytes_max };
        if unsynced + total > self.unsynced_bytes_max && state.stream.has_unsynced() {
            return Err(full());
        }
        let limit = checkpoint_bytes_max(state.stream.segment_bytes);
        if growth > 0 && state.catalog.checkpoint_bytes() + growth > limit {
            let bytes = state.catalog.checkpoint_bytes() + growth;
            return Err(AppendError::CheckpointTooLarge { bytes, limit });
        }
        let holds_entries = need.index_bytes.is_some();
        let is_beyond = holds_entries && self.is_beyond(state);
        let has_successor = state.stream.successor.is_some() && !is_beyond;
        let room = &state.stream.room;
        // What the frames add to the index, here and in a segment where the log has none yet.
        let index_with = |first: u64| {
            if holds_entries { first + (count - 1) * index::FRAME_BYTES } else { 0 }
        };
        let index_bytes = index_with(need.index_bytes.unwrap_or(0));
        let kept_bytes = if has_successor { 0 } else { need.kept_bytes };
        let reserves = holds_entries && !has_successor;
        if total + kept_bytes <= room.left(index_bytes)
            && !(reserves && room.is_in_last_eighth(total, index_bytes))
        {
            return Ok(());
        }
        let fresh = state.stream.opened_room(state.catalog.checkpoint_bytes() + growth);
        let limit = fresh.left(index_with(FRESH_INDEX_BYTES));
        if total > limit {
            return Err(too_large(total, limit));
        }
        if has_successor {
            return Ok(());
        }
        state.need_successor();
        state.upkeep_needs_successor |= !holds_entries;
        self.segment_work.notify_one();
        if holds_entries && !self.may_grow(state) {
            let (bytes, limit) = (state.stream.segments_bytes(), self.log_bytes_max);
            return Err(AppendError::LogFull { bytes, limit });
        }
        Err(match &state.preparation_error {
            Some(source) if is_too_many_files(source) => {
                AppendError::TooManyFiles { source: Arc::clone(source) }
            }
            Some(source) => AppendError::NoSpace { source: Arc::clone(source) },
            None => full(),
        })
    }

    /// One more segment is within the bounds.
    pub(crate) fn may_grow(&self, state: &State) -> bool {
        let stream = &state.stream;
        let bytes = stream.segments_bytes() + stream.segment_bytes;
        bytes <= self.log_bytes_max && (stream.segments().len() as u64) < SEGMENTS_MAX
    }

    /// The next segment may be prepared: within the bounds, or for upkeep.
    pub(crate) fn may_prepare(&self, state: &State) -> bool {
        let count = state.stream.segments().len() as u64;
        self.may_grow(state) || state.upkeep_needs_successor && count < UPKEEP_SEGMENTS_MAX
    }

    /// The successor that is there is beyond the bounds: only what makes room may use it.
    fn is_beyond(&self, state: &State) -> bool {
        state.stream.successor.is_some() && !self.may_grow(state)
    }

    /// After an append: wakes whom it concerns.
    pub(crate) fn appended(&self, mut state: MutexGuard<'_, State>) {
        state.idle_since = None;
        // Under the lock, so that it never goes back; before the append returns, so that a read after a cut sees none of it.
        self.removals.store(state.catalog.removals(), Ordering::Release);
        let wants_segment =
            state.wants_successor() && !state.preparing && state.preparation_error.is_none();
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
            room: std::mem::take(&mut state.room_callbacks),
            ..Wakeups::default()
        }
    }

    /// Those who wait for more than there will be.
    pub(crate) fn ended(&self, state: &mut State) -> Wakeups {
        let (waiters, outcome) = (state.waiters.take_all(), Some(WalError::Closed));
        Wakeups { waiters, outcome, ..Wakeups::default() }
    }

    /// Stops without the mark of a close: the job that is out may never come back.
    pub(crate) fn give_up(&self, state: &mut State) -> Wakeups {
        state.mode = Mode::GivenUp;
        self.stopped.store(true, Ordering::Relaxed);
        Wakeups {
            waiters: state.waiters.take_all(),
            outcome: Some(WalError::Closed),
            room: std::mem::take(&mut state.room_callbacks),
            news: None,
        }
    }

    /// Stops everything: nothing is acknowledged and nothing written any more.
    pub(crate) fn poison(&self, state: &mut State, error: WalError) -> Wakeups {
        if matches!(state.mode, Mode::Poisoned(_)) {
            return Wakeups::default();
        }
        let (directory, told) = (Arc::clone(&self.directory), error.clone());
        let lsn = state.stream.durable().0;
        let news = Deferred::new(move || {
            let directory = directory.path().display();
            tracing::error!(%directory, lsn, error = %told, "the log stops");
        });
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
            news: Some(news),
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
            state.room_callbacks.push(Deferred(callback));
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
    /// Appends a frame of entries, in the successor if the active segment has no room for it, and takes them in. It adds
    /// `index_bytes` to the active segment's index.
    pub(crate) fn put_entries(
        &mut self,
        header: &Header,
        head: &[u8],
        entries: &[Bytes],
        index_bytes: u64,
    ) {
        let index_bytes = self.make_room(header, index_bytes);
        let place = self.stream.push(header, head, entries, index_bytes);
        let Header { log, first_index, count, term, .. } = *header;
        self.catalog.append(log, first_index, count, term, place, self.stream.end());
    }

    /// The same of a frame that holds no entries, and of its change.
    fn put(&mut self, change: Change, header: &Header, body: &[u8]) {
        self.make_room(header, 0);
        let place = self.stream.push(header, body, &[], 0);
        self.catalog.apply(header.log, change, place, self.stream.end());
    }

    /// Goes on in the successor if the active segment has no room for a frame; what the frame adds to the index then.
    pub(crate) fn make_room(&mut self, header: &Header, index_bytes: u64) -> u64 {
        let opened = self.stream.opened_bytes().unwrap_or(0);
        if opened + header.frame_bytes() <= self.stream.room.left(index_bytes) {
            self.stream.push_opened();
            return index_bytes;
        }
        let checkpoint = self.catalog.checkpoint();
        self.stream.rotate(&checkpoint);
        self.successor_is_needed = false;
        self.catalog.open_segment(self.stream.active);
        if index_bytes > 0 { FRESH_INDEX_BYTES } else { 0 }
    }

    /// Something waits for the successor.
    pub(crate) fn need_successor(&mut self) {
        let is_news = !std::mem::replace(&mut self.successor_is_needed, true);
        self.statistics.rotation_waits += u64::from(is_news && self.stream.successor.is_none());
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
}

pub(crate) fn too_large(bytes: u64, limit: u64) -> AppendError {
    let size = |bytes: u64| usize::try_from(bytes).expect("64-bit only");
    AppendError::TooLarge { bytes: size(bytes), limit: size(limit) }
}

/// What the first frame of a log's entries adds to the index of a segment; each other one adds `index::FRAME_BYTES`.
const FRESH_INDEX_BYTES: u64 = index::LOG_BYTES + index::FRAME_BYTES;
