//! The log's work, one step at a time: `begin() -> Job`, `Job::run()` (nothing but IO), `finish(job, result)`.
//! The log's threads loop over these; a simulator calls them from one thread, and delays, fails or drops any `finish`.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kontiki_disk::{Directory, File};

use crate::{
    Wal,
    core::{Core, Mode, State, Wakeups},
    header::SegmentHeader,
    index,
    segment::{PAGE_BYTES, Segment, file_name, spare_name, temporary_name},
    stream::{Group, Successor},
    trailer::Trailer,
};

/// One group: one write, one sync.
#[derive(Debug)]
pub struct SyncJob {
    stopped: Arc<AtomicBool>,
    group: Group,
    /// False for an idle mark: it is written and not synced.
    syncs: bool,
}

impl SyncJob {
    /// Writes the group and syncs it.
    ///
    /// # Errors
    /// What the disk says; it goes to `finish_sync`.
    pub fn run(&self) -> io::Result<()> {
        unless_stopped(&self.stopped)?;
        self.group.segment.file.write_at(self.group.offset, &[&self.group.bytes])?;
        if self.syncs { self.group.segment.file.sync() } else { Ok(()) }
    }
}

/// Prepares the next segment, or frees segments.
#[derive(Debug)]
pub struct SegmentJob {
    stopped: Arc<AtomicBool>,
    directory: Arc<dyn Directory>,
    work: SegmentWork,
    /// Set when the names were changed and only the directory's sync is missing.
    named: OnceLock<()>,
}

#[derive(Debug)]
enum SegmentWork {
    /// Makes the next segment, of a spare if there is one.
    Prepare { header: SegmentHeader, spare: Option<u64>, file: OnceLock<Arc<dyn File>> },
    /// Removes files by their numbers, and renames others so that they can be used again.
    Free { removed: Vec<u64>, kept: Vec<u64> },
    /// Writes the index and the trailer of a full segment.
    Seal { segment: Segment, trailer: Trailer, index: Vec<u8> },
}

impl SegmentJob {
    /// Prepares: creates under a temporary name, fills, syncs, renames, syncs the directory. Frees: removes or renames, syncs
    /// the directory. Seals: writes the index, syncs, writes the trailer, syncs.
    ///
    /// # Errors
    /// What the disk says; it goes to `finish_segment`.
    pub fn run(&self) -> io::Result<()> {
        match &self.work {
            SegmentWork::Prepare { header, spare, file } => {
                let directory = &*self.directory;
                let prepared = match spare {
                    Some(spare) => reuse(directory, header, *spare, &self.stopped)?,
                    None => prepare(directory, header, &self.stopped)?,
                };
                file.set(prepared).expect("a job runs once");
            }
            SegmentWork::Free { removed, kept } => {
                for &sequence in removed {
                    unless_stopped(&self.stopped)?;
                    self.directory.remove(&file_name(sequence))?;
                }
                for &sequence in kept {
                    unless_stopped(&self.stopped)?;
                    self.directory.rename(&file_name(sequence), &spare_name(sequence))?;
                }
            }
            SegmentWork::Seal { segment, trailer, index } => {
                return seal(segment, trailer, index, &self.stopped);
            }
        }
        self.named.set(()).expect("a job runs once");
        unless_stopped(&self.stopped)?;
        self.directory.sync()
    }
}

/// Makes a segment of a file whose name as a spare is durable: so its old name cannot come back over the new bytes. What
/// lies in it has another salt, and is not written over.
fn reuse(
    directory: &dyn Directory,
    header: &SegmentHeader,
    spare: u64,
    stopped: &AtomicBool,
) -> io::Result<Arc<dyn File>> {
    let spare = spare_name(spare);
    let file = directory.open(&spare)?;
    unless_stopped(stopped)?;
    file.write_at(0, &[&header.encode()])?;
    file.sync()?;
    unless_stopped(stopped)?;
    directory.rename(&spare, &file_name(header.sequence))?;
    Ok(file)
}

/// A trailer says that everything before it is durable, so it is written when that is true.
fn seal(
    segment: &Segment,
    trailer: &Trailer,
    index: &[u8],
    stopped: &AtomicBool,
) -> io::Result<()> {
    unless_stopped(stopped)?;
    segment.file.write_at(trailer.index_at(segment.bytes), &[index])?;
    segment.file.sync()?;
    unless_stopped(stopped)?;
    segment.file.write_at(segment.bytes - PAGE_BYTES, &[&trailer.encode(segment.salt)])?;
    segment.file.sync()
}

/// Makes a segment's file, filled with zeros so that no sync has to convert extents or to grow the file, and gives it its
/// name; the directory is not synced.
pub(crate) fn prepare(
    directory: &dyn Directory,
    header: &SegmentHeader,
    stopped: &AtomicBool,
) -> io::Result<Arc<dyn File>> {
    let temporary = temporary_name(header.sequence);
    unless_stopped(stopped)?;
    let attempt = || {
        let file = directory.create(&temporary, header.segment_bytes)?;
        let mut offset = PAGE_BYTES;
        while offset < header.segment_bytes {
            unless_stopped(stopped)?;
            let length = (header.segment_bytes - offset).min(FILL_STEP_BYTES);
            let parts: Vec<&[u8]> = zero_parts(usize::try_from(length).expect("bounded")).collect();
            file.write_at(offset, &parts)?;
            offset += length;
        }
        unless_stopped(stopped)?;
        file.write_at(0, &[&header.encode()])?;
        file.sync()?;
        unless_stopped(stopped)?;
        directory.rename(&temporary, &file_name(header.sequence))?;
        Ok(file)
    };
    attempt().inspect_err(|_| {
        // Best effort: what stays is removed by the next open.
        let _ = directory.remove(&temporary);
    })
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

    /// Work on segments, if some is due and none is out.
    pub fn begin_segment(&self) -> Option<SegmentJob> {
        let core = self.core();
        core.begin_segment(&mut core.state.lock())
    }

    /// Takes the outcome of work on segments in.
    pub fn finish_segment(&self, job: SegmentJob, result: io::Result<()>) {
        self.core().finish_segment(job, result);
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
        Some(SyncJob { stopped: Arc::clone(&self.stopped), group, syncs })
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
        Some(SyncJob { stopped: Arc::clone(&self.stopped), group, syncs: true })
    }

    pub(crate) fn finish_sync(&self, job: SyncJob, result: io::Result<()>) {
        let mut state = self.state.lock();
        assert!(std::mem::take(&mut state.syncing), "a job is finished once");
        state.job_is_out = false;
        let wakeups = match result {
            _ if matches!(state.mode, Mode::Poisoned(_)) => Wakeups::default(),
            Err(error) => {
                let failure = self.failure("a write or sync", job.group.segment.name(), error);
                self.poison(&mut state, failure)
            }
            Ok(()) => self.synced(&mut state, &job),
        };
        state.free_dead();
        self.hand_over(&state);
        let has_work = state.can_remove() || state.sealable().is_some();
        drop(state);
        if has_work {
            self.segment_work.notify_one();
        }
        wakeups.serve();
    }

    fn synced(&self, state: &mut State, job: &SyncJob) -> Wakeups {
        state.statistics.bytes_written += job.group.bytes.len() as u64;
        if job.syncs {
            state.statistics.syncs += 1;
            state.stream.finish_group();
            assert!(state.stream.durable() == job.group.end, "groups follow each other");
        }
        let wakeups = self.publish(state);
        state.is_crowded = !wakeups.waiters.is_empty();
        wakeups
    }

    pub(crate) fn begin_segment(&self, state: &mut State) -> Option<SegmentJob> {
        if state.preparing || !matches!(state.mode, Mode::Open) {
            return None;
        }
        state.free_dead();
        // Freeing comes first: it can make the space that preparing needs. Sealing can wait.
        let work = if state.can_remove() {
            self.begin_free(state)
        } else if state.wants_successor() && self.may_grow(state) {
            let stream = &state.stream;
            let header = SegmentHeader {
                uuid: stream.uuid,
                sequence: stream.active + 1,
                segment_bytes: stream.segment_bytes,
                owner: stream.owner,
            };
            SegmentWork::Prepare { header, spare: state.spares.pop(), file: OnceLock::new() }
        } else {
            begin_seal(state)?
        };
        state.preparing = true;
        let (stopped, directory) = (Arc::clone(&self.stopped), Arc::clone(&self.directory));
        Some(SegmentJob { stopped, directory, work, named: OnceLock::new() })
    }

    fn begin_free(&self, state: &mut State) -> SegmentWork {
        let mut removed = std::mem::take(&mut state.leftovers);
        let mut kept = Vec::new();
        let places = SPARES_MAX - usize::from(state.stream.successor.is_some());
        let durable = state.stream.durable();
        for segment in
            state.freed.take_if(|(end, _)| *end <= durable).map_or(vec![], |freed| freed.1)
        {
            // The only handle is this one: no view of the file lives, and none can come into being.
            let is_free = Arc::strong_count(&segment.file) == 1;
            let is_of_use = segment.bytes == state.stream.segment_bytes;
            if is_free && is_of_use && state.spares.len() + kept.len() < places {
                kept.push(segment.sequence);
            } else {
                state.statistics.pinned_segments += u64::from(!is_free);
                removed.push(segment.sequence);
            }
        }
        SegmentWork::Free { removed, kept }
    }

    pub(crate) fn finish_segment(&self, job: SegmentJob, result: io::Result<()>) {
        let mut state = self.state.lock();
        assert!(std::mem::take(&mut state.preparing), "a job is finished once");
        let wakeups = match (result, job.work) {
            _ if matches!(state.mode, Mode::Poisoned(_)) => Wakeups::default(),
            (Err(error), _) if job.named.get().is_some() => {
                let directory = self.directory.path().display().to_string();
                let failure = self.failure("sync of the directory", directory, error);
                self.poison(&mut state, failure)
            }
            (Err(error), SegmentWork::Prepare { header, .. }) => {
                let error = Arc::new(error);
                // Whoever waits for room hears of it once; the next news is success.
                if state.no_space.replace(Arc::clone(&error)).is_some() {
                    Wakeups::default()
                } else {
                    let segment = file_name(header.sequence);
                    tracing::warn!(%error, segment, "cannot prepare a segment");
                    self.publish(&mut state)
                }
            }
            (Err(error), SegmentWork::Free { removed, kept }) => {
                // The files stay until the next open finds them freed.
                tracing::warn!(%error, ?removed, ?kept, "cannot remove segments");
                Wakeups::default()
            }
            (Err(error), SegmentWork::Seal { segment, .. }) => {
                let failure = self.failure("a write or sync", segment.name(), error);
                self.poison(&mut state, failure)
            }
            (Ok(()), SegmentWork::Prepare { header, spare, file }) => {
                state.statistics.recycled_segments += u64::from(spare.is_some());
                let file = file.into_inner().expect("a job that succeeded was run");
                state.stream.successor = Some(Successor { header, file });
                state.no_space = None;
                state.successor_is_needed = false;
                self.publish(&mut state)
            }
            (Ok(()), SegmentWork::Free { kept, .. }) => {
                state.spares.extend(kept);
                self.publish(&mut state)
            }
            (Ok(()), SegmentWork::Seal { segment, trailer, .. }) => {
                state.seal(segment.sequence, trailer);
                Wakeups::default()
            }
        };
        drop(state);
        wakeups.serve();
    }
}

fn begin_seal(state: &State) -> Option<SegmentWork> {
    let (segment, frames) = state.sealable()?;
    let last = segment.last.expect("a full segment");
    let (index, logs, frames) = frames.encode();
    let table = usize::try_from(u64::from(logs) * index::LOG_BYTES).expect("64-bit only");
    let trailer = Trailer {
        sequence: segment.sequence,
        base: segment.base,
        frames_end: last.frames_end,
        last_crc: last.crc,
        logs,
        frames,
        table_crc: crc32fast::hash(&index[..table]),
        index_crc: crc32fast::hash(&index),
    };
    Some(SegmentWork::Seal { segment: segment.clone(), trailer, index })
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
const FILL_STEP_BYTES: u64 = 1 << 20;
/// Segments prepared or kept to be used again at most.
const SPARES_MAX: usize = 2;
