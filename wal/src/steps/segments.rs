//! Steps on segments: preparing the next one, sealing full ones, freeing dead ones.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use kontiki_disk::{Directory, File};

use super::{unless_stopped, zero_parts};
use crate::{
    LogId, Wal,
    core::{Core, State},
    error::with_needed_room,
    frame::{FrameKind, Header},
    header::SegmentHeader,
    index::{self, FrameIndex},
    mode::Mode,
    segment::{PAGE_BYTES, Segment, checkpoint_bytes_max, file_name, spare_name, temporary_name},
    stream::Successor,
    sync::AtomicBool,
    threads,
    trailer::{SECTOR_LEN, Trailer},
    waiters::{Deferred, Wakeups},
};

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
    /// Removes files by their names, and renames segments, by their numbers, so that their files can be used again.
    Free { removed: Vec<String>, kept: Vec<u64> },
    /// Writes the index and the trailer of a full segment.
    Seal { segment: Segment, frames: Arc<FrameIndex>, trailer: OnceLock<Trailer> },
}

impl SegmentJob {
    /// It makes the next segment.
    pub(crate) fn prepares(&self) -> bool {
        matches!(self.work, SegmentWork::Prepare { .. })
    }

    /// Prepares: creates under a temporary name, fills, syncs, renames, syncs the directory. Frees: removes or renames, syncs
    /// the directory. Seals: writes the index and the end of the trailer, syncs, writes the trailer, syncs.
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
                unless_stopped(&self.stopped)?;
                let removals = removed.iter().map(|name| self.directory.remove(name));
                let renames = kept
                    .iter()
                    .map(|&number| self.directory.rename(&file_name(number), &spare_name(number)));
                // What is gone already needs no removal; one that fails does not keep the others.
                let results: Vec<io::Result<()>> = removals.chain(renames).collect();
                let failed = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
                if let Some(error) = results.into_iter().filter_map(Result::err).find(failed) {
                    return Err(error);
                }
            }
            SegmentWork::Seal { segment, frames, trailer } => {
                let sealed = seal(segment, frames, &self.stopped)?;
                trailer.set(sealed).expect("a job runs once");
                return Ok(());
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

/// A trailer says that everything before it is durable, so it is written when that is true. Its end goes first, so that no
/// stop leaves its beginning without its end: one that does not hold has rotted.
fn seal(segment: &Segment, frames: &FrameIndex, stopped: &AtomicBool) -> io::Result<Trailer> {
    let (trailer, index) = describe(segment, frames);
    let page = trailer.encode(segment.salt);
    write_seal(&*segment.file, segment.bytes - PAGE_BYTES, &index, &page, || {
        unless_stopped(stopped)
    })?;
    Ok(trailer)
}

/// Writes an index and, at `at`, the trailer page behind it; `goes_on` is asked before each write.
pub(crate) fn write_seal(
    file: &dyn File,
    at: u64,
    index: &[u8],
    page: &[u8],
    goes_on: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    goes_on()?;
    file.write_at(at - index.len() as u64, &[index])?;
    goes_on()?;
    file.write_at(at + SECTOR_LEN as u64, &[&page[SECTOR_LEN..]])?;
    file.sync()?;
    goes_on()?;
    file.write_at(at, &[page])?;
    file.sync()
}

/// The trailer of a full segment, and its index: up to megabytes, so not made under the lock.
pub(crate) fn describe(segment: &Segment, frames: &FrameIndex) -> (Trailer, Vec<u8>) {
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
    (trailer, index)
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
    attempt().map_err(|error| {
        // Best effort: what stays refuses the next attempt, which so removes it; or the next open does.
        let _ = directory.remove(&temporary);
        with_needed_room(error, header.segment_bytes)
    })
}

/// One job, if any is due: begin, run, finish. `None` if none was, else whether it succeeded.
pub(super) fn work_once(core: &Core) -> Option<bool> {
    threads::poison_on_panic(core, || {
        let job = core.begin_segment(&mut core.state.lock())?;
        let result = job.run();
        let succeeded = result.is_ok();
        core.finish_segment(job, result);
        Some(succeeded)
    })
}

impl Wal {
    /// Work on segments, if some is due and none is out. Files that could not be removed are due again in the call after
    /// one that found nothing.
    pub fn begin_segment(&self) -> Option<SegmentJob> {
        let core = self.core();
        let mut state = core.state.lock();
        let job = core.begin_segment(&mut state);
        state.removal_failed &= job.is_some();
        job
    }

    /// Takes the outcome of work on segments in.
    pub fn finish_segment(&self, job: SegmentJob, result: io::Result<()>) {
        self.core().finish_segment(job, result);
    }
}

impl Core {
    pub(crate) fn begin_segment(&self, state: &mut State) -> Option<SegmentJob> {
        if state.preparing || !matches!(state.mode, Mode::Open) {
            return None;
        }
        self.free_dead(state);
        // Freeing comes first: it can make the space that preparing needs. Sealing can wait, unless nothing can be prepared
        // or too much waits already: only what is behind a sealed segment can be freed.
        let seals_first =
            state.preparation_error.is_some() || state.catalog.segments.unsealed_count() > 1;
        let work = if state.can_remove() {
            self.begin_free(state)
        } else if seals_first && let Some(seal) = begin_seal(state) {
            seal
        } else if state.wants_successor() && self.may_prepare(state) {
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

    /// Frees what is dead, and sees to it that the frame which says so becomes durable though nobody waits for it.
    pub(crate) fn free_dead(&self, state: &mut State) {
        if state.push_freed() {
            (state.idle_since, state.sync_thread_sleeps) = (None, false);
            self.sync_work.notify_one();
        }
    }

    fn begin_free(&self, state: &mut State) -> SegmentWork {
        let mut removed = std::mem::take(&mut state.leftovers);
        state.removal_failed = false;
        let mut kept = Vec::new();
        let places = SPARES_MAX - usize::from(state.stream.successor.is_some());
        let durable = state.stream.durable();
        let freed = state.freed.take_if(|(end, _)| *end <= durable).map_or(vec![], |freed| freed.1);
        // The newest first, and in the place of older ones: their pages are the likeliest to be in the cache still.
        for segment in freed.into_iter().rev() {
            let Segment { sequence, bytes, file, index, .. } = segment;
            // The log's own view, of the index.
            drop(index);
            // The only handle is this one: no view of the file lives, and none can come into being.
            let is_free = Arc::strong_count(&file) == 1;
            let is_of_use = bytes == state.stream.segment_bytes;
            if is_free && is_of_use && kept.len() < places {
                kept.push(sequence);
            } else {
                state.statistics.pinned_segments += u64::from(!is_free);
                removed.push(file_name(sequence));
            }
        }
        kept.reverse();
        let too_many = (state.spares.len() + kept.len()).saturating_sub(places);
        removed.extend(state.spares.drain(..too_many).map(spare_name));
        SegmentWork::Free { removed, kept }
    }

    pub(crate) fn finish_segment(&self, job: SegmentJob, result: io::Result<()>) {
        let directory = Arc::clone(&self.directory);
        let mut state = self.state.lock();
        assert!(std::mem::take(&mut state.preparing), "a job is finished once");
        let mut news = None;
        let mut wakeups = match (result, job.work) {
            _ if matches!(state.mode, Mode::Poisoned(_)) => Wakeups::default(),
            (Err(error), _) if job.named.get().is_some() => {
                let directory = self.directory.path().display().to_string();
                let failure = self.failure("sync of the directory", directory, error);
                self.poison(&mut state, failure)
            }
            (Err(error), SegmentWork::Prepare { header, spare, .. }) => {
                let error = Arc::new(error);
                state.leftovers.extend(spare.map(spare_name));
                if state.preparation_error.replace(Arc::clone(&error)).is_none() {
                    state.statistics.preparation_failures += 1;
                    let (segment, bytes) = (file_name(header.sequence), header.segment_bytes);
                    news = Some(Deferred::new(move || {
                        let directory = directory.path().display();
                        tracing::warn!(%directory, segment, bytes, %error, "cannot prepare a segment");
                    }));
                }
                // Each time: who was told `Full` may have begun to wait for room after the first failure, and has to hear of it.
                self.publish(&mut state)
            }
            (Err(error), SegmentWork::Free { removed, kept }) => {
                if !std::mem::replace(&mut state.removal_failure_is_told, true) {
                    let (removed, kept) = (removed.clone(), kept.clone());
                    news = Some(Deferred::new(move || {
                        let directory = directory.path().display();
                        tracing::warn!(%directory, ?removed, ?kept, %error, "cannot remove segments");
                    }));
                }
                // Tried again, by both names where it is not known which one a file has: what is gone does no harm.
                let names = kept.iter().flat_map(|&number| [file_name(number), spare_name(number)]);
                state.leftovers.extend(removed.into_iter().chain(names));
                state.removal_failed = true;
                self.publish(&mut state)
            }
            (Err(error), SegmentWork::Seal { segment, .. }) => {
                let failure = self.failure("a write or sync", segment.name(), error);
                self.poison(&mut state, failure)
            }
            (Ok(()), SegmentWork::Prepare { header, spare, file }) => {
                state.statistics.recycled_segments += u64::from(spare.is_some());
                let file = file.into_inner().expect("a job that succeeded was run");
                state.stream.successor = Some(Successor { header, file });
                if state.preparation_error.take().is_some() {
                    let segment = file_name(state.stream.active + 1);
                    news = Some(Deferred::new(move || {
                        let directory = directory.path().display();
                        tracing::info!(%directory, segment, "can prepare segments again");
                    }));
                }
                state.successor_is_needed = false;
                state.upkeep_needs_successor = false;
                self.publish(&mut state)
            }
            (Ok(()), SegmentWork::Free { kept, .. }) => {
                state.removal_failure_is_told = false;
                state.spares.extend(kept);
                self.publish(&mut state)
            }
            (Ok(()), SegmentWork::Seal { segment, trailer, .. }) => {
                let trailer = trailer.into_inner().expect("a job that succeeded was run");
                state.seal(segment.sequence, trailer);
                // It makes no room, but who asked during it was told to wait for it.
                self.publish(&mut state)
            }
        };
        let report = self.metrics.report(&state);
        drop(state);
        // A subscriber is foreign code, too: it may ask the log something.
        wakeups.news = wakeups.news.or(news);
        wakeups.serve();
        self.metrics.tell(report);
    }
}

impl State {
    /// Appends the frame that says which segments nothing needs any more, if there are such and the last ones are gone; true
    /// if it did.
    ///
    /// Their files go only once it is durable. So after a power cut every segment that is missing was freed or is lost, and
    /// no other one is taken for what it held; and whatever killed its entries, and the checkpoint above it, lie before
    /// this frame and are durable, too.
    fn push_freed(&mut self) -> bool {
        if self.freed.is_some() || !matches!(self.mode, Mode::Open) {
            return false;
        }
        let mut dead = self.dead_segments();
        // A hole among the segments is a run more in each checkpoint.
        let limit = checkpoint_bytes_max(self.stream.segment_bytes);
        let limit = limit.max(self.catalog.checkpoint_bytes());
        while !dead.is_empty() && self.catalog.checkpoint_bytes_without(&dead) > limit {
            dead.pop();
        }
        if dead.is_empty() {
            return false;
        }
        let body: Vec<u8> = dead.iter().flat_map(|sequence| sequence.to_le_bytes()).collect();
        let header = Header::new(FrameKind::Freed, LogId(0), &body);
        let mut room = self.stream.room;
        let opened = self.stream.opened_bytes().is_none_or(|bytes| room.take(bytes, 0));
        let fits = opened && room.take(header.frame_bytes(), 0);
        if !(fits || self.stream.successor.is_some()) {
            self.need_successor();
            self.upkeep_needs_successor = true;
            return false;
        }
        self.make_room(&header, 0);
        self.stream.push(&header, &body, &[], 0);
        self.catalog.segments.free(&dead);
        self.freed = Some((self.stream.end(), self.stream.free(&dead)));
        true
    }

    /// Something waits to be done to segments.
    pub(crate) fn has_segment_work(&self) -> bool {
        self.can_remove() || self.sealable().is_some() || self.upkeep_needs_successor
    }

    /// The oldest segment that is full and durable and has no index in its file yet.
    pub(crate) fn sealable(&self) -> Option<(&Segment, &Arc<FrameIndex>)> {
        let (sequence, frames) = self.catalog.segments.unsealed()?;
        let segment = self.stream.segments().get(&sequence)?;
        let next = self.stream.segments().range(sequence + 1..).next()?.1;
        (segment.last.is_some() && next.base <= self.stream.durable()).then_some((segment, frames))
    }

    /// Segments without a live entry that may go. Those before them are sealed: behind a gap nothing but a trailer vouches
    /// for the last frame before it.
    fn dead_segments(&self) -> Vec<u64> {
        let durable = self.stream.durable();
        let unsealed = self.catalog.segments.unsealed().map_or(u64::MAX, |(sequence, _)| sequence);
        let is_durable = |sequence: u64| {
            let next = self.stream.segments().range(sequence + 1..).next();
            next.is_some_and(|(_, next)| next.base <= durable)
        };
        let dead = self.catalog.segments.dead().take(FREED_MAX);
        dead.take_while(|&sequence| sequence <= unsealed && is_durable(sequence)).collect()
    }

    /// The segment's file has its index and its trailer, both durable.
    pub(crate) fn seal(&mut self, sequence: u64, trailer: Trailer) {
        self.catalog.segments.sealed(sequence);
        self.stream.seal(sequence, trailer);
        self.statistics.sealed_segments += 1;
    }

    /// Files wait to be removed, and may be; a failure is not tried again at once.
    pub(crate) fn can_remove(&self) -> bool {
        let durable = self.stream.durable();
        let leftovers = !self.leftovers.is_empty() && !self.removal_failed;
        leftovers || self.freed.as_ref().is_some_and(|(end, _)| *end <= durable)
    }
}

fn begin_seal(state: &State) -> Option<SegmentWork> {
    let (segment, frames) = state.sealable()?;
    let (segment, frames) = (segment.clone(), Arc::clone(frames));
    Some(SegmentWork::Seal { segment, frames, trailer: OnceLock::new() })
}

const FILL_STEP_BYTES: u64 = 1 << 20;

/// Segments that one frame frees: it has to fit into the smallest segment beside the largest checkpoint.
const FREED_MAX: usize = 128;

/// Segments prepared or kept to be used again at most.
const SPARES_MAX: usize = 2;
