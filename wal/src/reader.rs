//! Reading entries in order.

mod frames;

use std::{ops::Range, vec};

use bytes::Bytes;

pub(crate) use self::frames::{Access, read_bytes, read_frame};
use self::frames::{check_body, header_at, misplaced};
use crate::{
    Corruption, LogId, Lsn, ReadError, Wal,
    core::{Core, State},
    frame::{HEADER_BYTES, Header, entry_range},
    index::Located,
    mode::Mode,
    recovery::scan::{Fault, is_still},
    segment::{Place, Segment},
};

/// One entry of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index, from 1.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its bytes. They may borrow the log's file: a view keeps the segment's space and the directory's lock until it is
    /// dropped, so copy what is kept for long.
    pub bytes: Bytes,
}

/// The same where it lies: see [`Entries::next_in_place`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// Its index, from 1.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Entries of one log in order; made by [`Log::read`](crate::Log::read).
#[derive(Debug)]
pub struct Entries {
    wal: Wal,
    log: LogId,
    next: u64,
    end: u64,
    bytes_left: usize,
    /// The last cut of the log when the reading began.
    cut: Option<Lsn>,
    run: Option<Run>,
    frame: Option<Frame>,
}

/// Frames of one segment that were looked up together.
#[derive(Debug)]
struct Run {
    /// Until this moves on they are what the log holds.
    removals: u64,
    /// Where their bytes are; `None` for the one that `bytes` hold.
    segment: Option<Segment>,
    /// Their bytes, and what lies between them, from offset `start` of the segment on; nothing where frames are read one by one.
    bytes: Bytes,
    start: u64,
    /// Those that were not read yet.
    frames: vec::IntoIter<Located>,
    term: u64,
    /// One past the last index that is live in the segment and has this term.
    end: u64,
}

/// The frame that the next entry lies in.
#[derive(Debug)]
struct Frame {
    bytes: Bytes,
    first: u64,
    count: u16,
    term: u64,
    /// One past the last index that is live in it.
    end: u64,
}

/// A live entry, and where its bytes are.
struct Wanted {
    log: LogId,
    index: u64,
    term: u64,
    /// One past the last index that is live in the segment and has this term.
    end: u64,
    source: Source,
    removals: u64,
}

enum Source {
    /// In memory, until they are durable.
    Staged(Bytes, Located),
    /// In the file; `None` if the index in the file says where.
    File(Segment, Option<Found>),
}

/// Where the frames of entries lie that are read one after the other.
pub(crate) struct Found {
    pub(crate) at: Located,
    pub(crate) following: Vec<Located>,
    /// All frames of the segment that can be read end there at the latest.
    pub(crate) bytes_end: u64,
}

impl Found {
    /// Their bytes, and what lies between them.
    fn range(&self) -> Range<u64> {
        let last = self.following.last().unwrap_or(&self.at);
        let end = last.next.map_or(self.bytes_end, |next| next.min(self.bytes_end));
        self.at.offset..end.max(self.at.offset)
    }
}

impl Entries {
    pub(crate) fn new(wal: Wal, log: LogId, range: Range<u64>, bytes_max: usize) -> Self {
        let (next, end) = (range.start, range.end);
        let bytes_left = bytes_max.max(1);
        Self { wal, log, next, end, bytes_left, cut: None, run: None, frame: None }
    }

    /// The next entry, borrowed until the one after it: a replay that keeps none of them need not count who holds the bytes of
    /// each, which takes as long as to check them.
    ///
    /// # Errors
    /// As for the items of the iterator.
    pub fn next_in_place(&mut self) -> Option<Result<EntryView<'_>, ReadError>> {
        match self.is_ready() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error)),
        }
        let (index, range) = self.step();
        let frame = self.frame.as_ref()?;
        Some(Ok(EntryView { index, term: frame.term, bytes: &frame.bytes[range] }))
    }

    /// There is a next entry, and the frame that it lies in is there.
    #[inline]
    fn is_ready(&mut self) -> Result<bool, ReadError> {
        if self.next >= self.end || self.bytes_left == 0 {
            return Ok(false);
        }
        if self.frame.as_ref().is_some_and(|frame| self.next < frame.end) {
            return Ok(true);
        }
        let loaded = self.load();
        if !matches!(loaded, Ok(Some(_))) {
            self.end = self.next;
        }
        self.frame = loaded?;
        Ok(self.frame.is_some())
    }

    /// Goes on behind the next entry; its index, and where it lies in its frame.
    #[inline]
    fn step(&mut self) -> (u64, Range<usize>) {
        let frame = self.frame.as_ref().expect("it was loaded");
        let number = u16::try_from(self.next - frame.first).expect("a frame holds at most 65535");
        let range = entry_range(&frame.bytes, frame.count, number);
        let index = self.next;
        self.next += 1;
        self.bytes_left = self.bytes_left.saturating_sub(range.len());
        (index, range)
    }

    /// The frame of the next entry; `None` at the log's end, and where it was cut meanwhile.
    fn load(&mut self) -> Result<Option<Frame>, ReadError> {
        let core = self.wal.core();
        let fresh = self.run.as_mut().filter(|run| run.removals == core.removals());
        let at = match fresh.and_then(|run| run.frames.next()) {
            Some(at) => at,
            None => {
                let Some(wanted) = self.want()? else { return Ok(None) };
                let (run, at) = wanted.look_up(&self.wal, self.end)?;
                self.run = Some(run);
                at
            }
        };
        let run = self.run.as_ref().expect("set above, if it was not there");
        run.read(&self.wal, self.log, self.next, at).map(Some)
    }

    /// Where the next entry is.
    fn want(&mut self) -> Result<Option<Wanted>, ReadError> {
        let state = self.wal.core().state.lock();
        let Some(log) = state.catalog.log(self.log) else { return Ok(None) };
        let cut = state.catalog.cut(self.log);
        if *self.cut.get_or_insert(cut) != cut {
            return Ok(None);
        }
        if self.next < log.bounds.first {
            return Err(ReadError::Compacted { index: self.next, first: log.bounds.first });
        }
        Ok(wanted(&state, self.log, self.next..self.end))
    }
}

/// What went wrong in reading `segment`: of a log that was opened for reading only, the writer may have used its file again,
/// and then what was read is no damage.
pub(crate) fn or_recycled(error: ReadError, core: &Core, segment: &Segment) -> ReadError {
    let is_damage = matches!(error, ReadError::Corruption(_));
    let may_be_recycled = is_damage && matches!(core.state.lock().mode, Mode::ReadOnly);
    if may_be_recycled && !is_still(&*segment.file, segment.sequence) {
        return ReadError::Recycled { segment: segment.name() };
    }
    error
}

impl Iterator for Entries {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.is_ready() {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => return Some(Err(error)),
        }
        let (index, range) = self.step();
        let frame = self.frame.as_ref()?;
        Some(Ok(Entry { index, term: frame.term, bytes: frame.bytes.slice(range) }))
    }
}

fn wanted(state: &State, log: LogId, range: Range<u64>) -> Option<Wanted> {
    let location = state.catalog.locate(log, range.start)?;
    let bounds = state.catalog.bounds(log);
    let term = bounds.term(range.start).expect("an index in the log has a term");
    // A frame has one term, whatever an index says of where it ends.
    let end = location.end.min(bounds.run_end(range.start));
    let segment = state.stream.segments().get(&location.sequence)?;
    let durable = state.stream.durable();
    let is_durable = |at: &Located| segment.lsn(at.offset) < durable;
    let is_read_only = matches!(state.mode, Mode::ReadOnly);
    let source = match location.frame {
        // What a poisoned log had not synced is gone: reading ends at the durable LSN.
        Some(at) if !is_read_only && !is_durable(&at) => {
            Source::Staged(state.stream.staged(Place::new(location.sequence, at.offset))?, at)
        }
        Some(at) => {
            let range = at.end..end.min(range.end);
            let mut following = state.catalog.following(log, location.sequence, range);
            following.retain(is_durable);
            let frames_end = segment.last.map_or(u64::MAX, |last| last.frames_end);
            // Opened for reading only, a damaged log's end can lie below its segment.
            let bytes_end = segment.offset(durable.max(segment.base)).min(frames_end);
            Source::File(segment.clone(), Some(Found { at, following, bytes_end }))
        }
        None => Source::File(segment.clone(), None),
    };
    let removals = state.catalog.removals();
    Some(Wanted { log, index: range.start, term, end, source, removals })
}

impl Wanted {
    /// The frames from the wanted one on, and that one.
    fn look_up(self, wal: &Wal, end: u64) -> Result<(Run, Located), ReadError> {
        let (term, removals) = (self.term, self.removals);
        let (log, index) = (self.log, self.index);
        let (segment, found) = match self.source {
            Source::Staged(bytes, at) => {
                let (start, frames) = (at.offset, Vec::new().into_iter());
                let (segment, end) = (None, self.end);
                return Ok((Run { removals, segment, bytes, start, frames, term, end }, at));
            }
            Source::File(segment, found) => (segment, found),
        };
        let sealed = &wal.core().sealed;
        let look_up = || {
            let found = match found {
                Some(found) => found,
                None => sealed.find(&segment, log, index..end.min(self.end))?,
            };
            let bytes = match sealed.access() {
                Access::Mapped => read_bytes(&segment, found.range(), Access::Mapped)?,
                Access::Copied => Bytes::new(),
            };
            Ok((found, bytes))
        };
        let (found, bytes) =
            look_up().map_err(|error| told(error, wal, &segment, log, index, term))?;
        let (start, frames) = (found.at.offset, found.following.into_iter());
        let (segment, end) = (Some(segment), self.end);
        Ok((Run { removals, segment, bytes, start, frames, term, end }, found.at))
    }
}

impl Run {
    /// The frame at `at`, which has entry `index`.
    fn read(&self, wal: &Wal, log: LogId, index: u64, at: Located) -> Result<Frame, ReadError> {
        let frame = |header: &Header, bytes: Bytes| Frame {
            bytes,
            first: header.first_index,
            count: header.count,
            term: header.term,
            end: at.end.min(self.end).min(header.end()),
        };
        let Some(segment) = &self.segment else {
            let header = Header::peek(self.bytes.first_chunk().expect("a frame has a header"));
            return Ok(frame(&header, self.bytes.slice(HEADER_LEN..)));
        };
        let read = || {
            let (header, body) = match self.bytes.is_empty() {
                true => read_frame(segment, Access::Copied, at.offset)?,
                false => self.frame(segment, at.offset)?,
            };
            if !header.holds(log, index) || header.term != self.term {
                let (expected, found) = (index, header.first_index);
                let (what, header) = ("the frame of an entry", Some(header));
                let fault = Fault { offset: at.offset, what, expected, found, header };
                return Err(fault.in_segment(segment.name()).into());
            }
            Ok(frame(&header, body))
        };
        read().map_err(|error| told(error, wal, segment, log, index, self.term))
    }

    /// The frame at `offset` of the segment, from the bytes that are there.
    fn frame(&self, segment: &Segment, offset: u64) -> Result<(Header, Bytes), ReadError> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + HEADER_BYTES > end {
            return Err(misplaced(segment, self.start, offset));
        }
        let at = usize::try_from(offset - self.start).expect("64-bit only");
        let header = header_at(segment, offset, &self.bytes[at..at + HEADER_LEN], end)?;
        let body_end = at + usize::try_from(header.frame_bytes()).expect("64-bit only");
        let body = self.bytes.slice(at + HEADER_LEN..body_end);
        check_body(segment, offset, header, &body)?;
        Ok((header, body))
    }
}

/// An error of reading entry `index`, as it is told.
fn told(
    error: ReadError,
    wal: &Wal,
    segment: &Segment,
    log: LogId,
    index: u64,
    term: u64,
) -> ReadError {
    let error = match error {
        // Where the damage itself does not tell what is lost, this entry is.
        ReadError::Corruption(found) if found.log.is_none() => {
            let (log, indexes, term) = (Some(log), Some((index, index)), Some(term));
            Corruption { log, indexes, term, ..found }.into()
        }
        error => error,
    };
    or_recycled(error, wal.core(), segment)
}

const HEADER_LEN: usize = 48;
