//! Steps on segments: preparing the next one, sealing full ones, freeing dead ones.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use kontiki_disk::{Directory, File};

use super::{
    files::{prepare, reuse, seal, seal_again},
    unless_stopped,
};
use crate::{
    LogId, Wal,
    core::{Core, State},
    frame::{FrameKind, HEADER_BYTES, Header},
    header::SegmentHeader,
    index::FrameIndex,
    mode::Mode,
    segment::{Segment, checkpoint_bytes_max, file_name, spare_name},
    stream::Successor,
    sync::AtomicBool,
    threads,
    trailer::Trailer,
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
    Free { removed: Vec<String>, kept: Vec<u64>, files: Vec<Arc<dyn File>> },
    /// Writes the index and the trailer of a full segment.
    Seal { segment: Segment, frames: Arc<FrameIndex>, trailer: OnceLock<Trailer> },
    /// Writes a trailer that was found over itself.
    SealAgain { segment: Segment, trailer: Trailer },
}

impl SegmentJob {
    /// It makes the next segment.
    pub(crate) fn prepares(&self) -> bool {
        matches!(self.work, SegmentWork::Prepare { .. })
    }

    /// Prepares: creates under a temporary name, fills, syncs, renames, syncs the directory. Frees: removes or renames, syncs
    /// the directory. Seals: see `files::seal`.
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
            SegmentWork::Free { removed, kept, .. } => {
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
            SegmentWork::SealAgain { segment, trailer } => {
                return seal_again(segment, trailer, &self.stopped);
            }
        }
        self.named.set(()).expect("a job runs once");
        unless_stopped(&self.stopped)?;
        self.directory.sync()
    }
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
        let segments = &state.catalog.segments;
        let seals_first = state.preparation_error.is_some() || segments.unsealed_count() > 1;
        // What is left of earlier lives can be all that tells where a segment before it ends, until that is sealed.
        let has_leftovers = !state.leftovers.is_empty();
        let work = if has_leftovers && let Some(seal) = begin_seal(state) {
            seal
        } else if state.can_remove() {
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
        let (mut kept, mut files) = (Vec::new(), Vec::new());
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
            files.push(file);
        }
        kept.reverse();
        let too_many = (state.spares.len() + kept.len()).saturating_sub(places);
        removed.extend(state.spares.drain(..too_many).map(spare_name));
        SegmentWork::Free { removed, kept, files }
    }

    pub(crate) fn finish_segment(&self, mut job: SegmentJob, result: io::Result<()>) {
        if let SegmentWork::Free { files, .. } = &mut job.work {
            // Unmaps them, which takes long: not under the lock.
            files.clear();
        }
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
            (Err(error), SegmentWork::Free { removed, kept, .. }) => {
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
            (
                Err(error),
                SegmentWork::Seal { segment, .. } | SegmentWork::SealAgain { segment, .. },
            ) => {
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
            (Ok(()), SegmentWork::SealAgain { segment, .. }) => {
                state.catalog.segments.sealed(segment.sequence);
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
        self.keep_within_checkpoint(&mut dead);
        if dead.is_empty() {
            return false;
        }
        if self.stream.successor.is_none() {
            // On a full disk some of them make the room in which the others are freed.
            let taken = self.stream.opened_bytes().unwrap_or(0) + HEADER_BYTES;
            let numbers = self.stream.room.left(0).saturating_sub(taken) / NUMBER_BYTES;
            dead.truncate(usize::try_from(numbers).expect("64-bit only"));
            self.keep_within_checkpoint(&mut dead);
            if dead.is_empty() {
                self.need_successor();
                self.upkeep_needs_successor = true;
                return false;
            }
        }
        let body: Vec<u8> = dead.iter().flat_map(|sequence| sequence.to_le_bytes()).collect();
        let header = Header::new(FrameKind::Freed, LogId(0), &body);
        self.make_room(&header, 0);
        self.stream.push(&header, &body, &[], 0);
        self.catalog.segments.free(&dead);
        self.freed = Some((self.stream.end(), self.stream.free(&dead)));
        true
    }

    /// Leaves out of `dead` the last ones with which the next checkpoint would be too large: a hole among the segments is a run more
    /// in each.
    fn keep_within_checkpoint(&self, dead: &mut Vec<u64>) {
        let limit = checkpoint_bytes_max(self.stream.segment_bytes);
        let limit = limit.max(self.catalog.checkpoint_bytes());
        while !dead.is_empty() && self.catalog.checkpoint_bytes_without(dead) > limit {
            dead.pop();
        }
    }

    /// Something waits to be done to segments.
    pub(crate) fn has_segment_work(&self) -> bool {
        let seals = self.sealable().is_some() || self.to_seal_again().is_some();
        self.can_remove() || seals || self.upkeep_needs_successor
    }

    /// The oldest segment that is full and durable and has no index in its file yet.
    pub(crate) fn sealable(&self) -> Option<(&Segment, &Arc<FrameIndex>)> {
        let (sequence, frames) = self.catalog.segments.unsealed()?;
        let segment = self.stream.segments().get(&sequence)?;
        let next = self.stream.segments().range(sequence + 1..).next()?.1;
        (segment.last.is_some() && next.base <= self.stream.durable()).then_some((segment, frames))
    }

    /// Segments without a live entry that may go. Those before them are sealed, and the one next to them for certain: behind a
    /// gap nothing but a trailer vouches for the last frame before it.
    fn dead_segments(&self) -> Vec<u64> {
        let segments = &self.catalog.segments;
        self.full_dead_segments()
            .take_while(|&sequence| segments.found_before(sequence).is_none())
            .collect()
    }

    /// Segments without a live entry that are full and durable, with all those before them.
    fn full_dead_segments(&self) -> impl Iterator<Item = u64> + '_ {
        let durable = self.stream.durable();
        let unsealed = self.catalog.segments.unsealed().map_or(u64::MAX, |(sequence, _)| sequence);
        let is_durable = move |sequence: u64| {
            let next = self.stream.segments().range(sequence + 1..).next();
            next.is_some_and(|(_, next)| next.base <= durable)
        };
        let dead = self.catalog.segments.dead().take(FREED_MAX);
        dead.take_while(move |&sequence| sequence <= unsealed && is_durable(sequence))
    }

    /// The first segment that a dead one waits for, because only the trailer that was found in it tells where its frames end.
    fn to_seal_again(&self) -> Option<(&Segment, Trailer)> {
        let segments = &self.catalog.segments;
        let found = self.full_dead_segments().find_map(|dead| segments.found_before(dead))?;
        let segment = self.stream.segments().get(&found)?;
        Some((segment, segment.trailer.expect("it was found")))
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
    if let Some((segment, trailer)) = state.to_seal_again() {
        return Some(SegmentWork::SealAgain { segment: segment.clone(), trailer });
    }
    let (segment, frames) = state.sealable()?;
    let (segment, frames) = (segment.clone(), Arc::clone(frames));
    Some(SegmentWork::Seal { segment, frames, trailer: OnceLock::new() })
}

/// Segments that one frame frees: it has to fit into the smallest segment beside the largest checkpoint.
const FREED_MAX: usize = 128;

/// What each of them takes in it.
const NUMBER_BYTES: u64 = 8;

/// Segments prepared or kept to be used again at most.
const SPARES_MAX: usize = 2;
