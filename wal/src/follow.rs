//! Following a log: every durable entry once and in order, and what took entries away again.
//!
//! The follower walks the frames of the stream itself, so it sees what happened in the order in which it happened.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    Entry, LogId, Lsn, ReadError, Wal, WalError,
    catalog::Location,
    core::State,
    frame::{FrameKind, Header, entry_range},
    index::Located,
    reader::{or_recycled, read_frame},
    recovery::scan::Fault,
    segment::{FRAMES_AT, Segment},
    sync::{Instant, MutexGuard},
    waiters::{Parker, Waiter},
};

/// What happened next in a log that is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Followed {
    /// An entry became durable.
    Entry(Entry),
    /// The entries after `last` were cut off or are about to be replaced.
    Truncated {
        /// The last index that is left.
        last: u64,
    },
    /// All entries were dropped. A log that is forgotten goes on at 1.
    Reset {
        /// The next index.
        next: u64,
        /// Term of the entry before it.
        term_before: u64,
    },
}

/// Why a log cannot be followed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// What comes next was compacted away, or what happened to it is not known any more. The follower goes on at `first`, with
    /// what the log holds by then.
    #[error("index {index} was compacted; the log begins at {first}")]
    Compacted {
        /// The index that would have come next.
        index: u64,
        /// The first index of the log.
        first: u64,
    },
    /// The entry cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing more becomes durable.
    #[error(transparent)]
    Wal(#[from] WalError),
}

/// Follows one log; made by [`Log::follow`](crate::Log::follow).
#[derive(Debug)]
pub struct Follow {
    wal: Wal,
    log: LogId,
    /// The index that comes next if nothing is cut.
    next: u64,
    /// The next frame.
    sequence: u64,
    offset: u64,
    /// Everything up to here was told.
    told: Lsn,
    frame: Option<Frame>,
    /// After `Compacted`: what the log held when the stream ended here is told by index, for frames on the way to its newest cut are
    /// gone. The stream is followed from here on.
    until: Option<Lsn>,
    /// The next frame is the first one: what lies below `next` in it is not asked for, and replaces nothing that was told.
    is_new: bool,
}

/// A frame whose entries are being told.
#[derive(Debug)]
struct Frame {
    header: Header,
    body: Bytes,
    /// One past the last index that is told of it.
    end: u64,
    /// One of its entries was told.
    is_begun: bool,
}

/// What a look at the place of the next frame finds.
enum Place {
    Frame(Segment),
    /// The frame that holds the next entry, and the term of that. The location ends where the term does.
    Entry(Segment, Location, u64),
    /// The stream tells the rest.
    CaughtUp,
    /// Nothing durable lies there yet.
    End(Lsn),
    /// The segment is freed.
    Gone,
}

impl Follow {
    pub(crate) fn new(wal: Wal, log: LogId, from: u64) -> Result<Self, FollowError> {
        let mut follow = Self {
            wal,
            log,
            next: from,
            sequence: 0,
            offset: 0,
            told: Lsn(0),
            frame: None,
            until: None,
            is_new: true,
        };
        let core = Arc::clone(follow.wal.core());
        follow.seek(core.state.lock(), from)?;
        Ok(follow)
    }

    /// What happened next, or `None` if nothing more is durable.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn try_next(&mut self) -> Result<Option<Followed>, FollowError> {
        loop {
            if let Some(followed) = self.next_of_frame() {
                return Ok(Some(followed));
            }
            let place = self.place(&self.wal.core().state.lock());
            match place {
                Place::End(_) => return Ok(None),
                Place::Gone => self.jump()?,
                Place::CaughtUp => self.until = None,
                Place::Entry(segment, location, term) => {
                    self.read_entry(&segment, &location, term)?;
                }
                Place::Frame(segment) => {
                    if let Some(followed) = self.read(&segment)? {
                        return Ok(Some(followed));
                    }
                }
            }
        }
    }

    /// Blocks until something happened.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn wait_next(&mut self) -> Result<Followed, FollowError> {
        match self.wait_until(None)? {
            Some(followed) => Ok(followed),
            None => unreachable!("a wait without a deadline has an outcome"),
        }
    }

    /// As [`Follow::wait_next`], at most for `timeout`: then `None`.
    ///
    /// # Errors
    /// See [`FollowError`].
    pub fn wait_next_timeout(
        &mut self,
        timeout: Duration,
    ) -> Result<Option<Followed>, FollowError> {
        self.wait_until(Instant::now().checked_add(timeout))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Option<Followed>, FollowError> {
        loop {
            if let Some(followed) = self.try_next()? {
                return Ok(Some(followed));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(None);
            }
            let core = self.wal.core();
            let mut state = core.state.lock();
            let Place::End(end) = self.place(&state) else { continue };
            if let Some(error) = state.mode.end() {
                return Err(error.into());
            }
            let parker = Parker::new();
            let more = Lsn(end.0 + 1);
            let ticket = state.waiters.add(more, Waiter::Follower(Arc::clone(&parker)));
            drop(state);
            parker.park(deadline);
            let waiter = core.state.lock().waiters.remove(ticket);
            drop(waiter);
        }
    }

    /// Finds the frame that holds the entry `from`, or the end of the stream if that is what comes next.
    fn seek(&mut self, state: MutexGuard<'_, State>, from: u64) -> Result<(), FollowError> {
        let bounds = state.catalog.bounds(self.log);
        let (first, end) = (bounds.first, bounds.last + 1);
        (self.next, self.is_new, self.frame) = (from, false, None);
        if from < first || from > end {
            return Err(FollowError::Compacted { index: from, first: first.min(end).max(1) });
        }
        let Some(location) = state.catalog.locate(self.log, from) else {
            (self.sequence, self.offset) = (state.stream.active, state.stream.room.offset);
            self.told = state.stream.end();
            return Ok(());
        };
        let segment = state.stream.segments()[&location.sequence].clone();
        drop(state);
        let frame = self.locate(&segment, &location)?;
        (self.sequence, self.offset, self.is_new) = (location.sequence, frame.offset, true);
        self.told = segment.lsn(frame.offset);
        Ok(())
    }

    /// The frame of the next entry.
    fn locate(&self, segment: &Segment, location: &Location) -> Result<Located, ReadError> {
        if let Some(frame) = location.frame {
            return Ok(frame);
        }
        let core = self.wal.core();
        let found = core.sealed.find(segment, self.log, self.next..self.next);
        found.map(|found| found.at).map_err(|error| or_recycled(error, core, segment))
    }

    fn place(&self, state: &State) -> Place {
        if let Some(until) = self.until {
            return self.place_of_entry(state, until);
        }
        let Some(segment) = state.stream.segments().get(&self.sequence) else {
            // Not there yet is the end, too: the next segment takes no frame before the one before is full.
            let is_ahead = self.sequence > state.stream.active;
            return if is_ahead { Place::End(state.stream.durable()) } else { Place::Gone };
        };
        let lsn = segment.lsn(self.offset);
        let is_full = segment.last.is_some_and(|last| self.offset >= last.frames_end);
        if lsn >= state.stream.durable() && !is_full {
            Place::End(lsn)
        } else {
            Place::Frame(segment.clone())
        }
    }

    fn place_of_entry(&self, state: &State, until: Lsn) -> Place {
        let bounds = state.catalog.bounds(self.log);
        if self.next < bounds.first {
            return Place::Gone;
        }
        let (location, term) = (state.catalog.locate(self.log, self.next), bounds.term(self.next));
        let (Some(mut location), Some(term)) = (location, term) else { return Place::CaughtUp };
        location.end = location.end.min(bounds.run_end(self.next));
        let segment = state.stream.segments()[&location.sequence].clone();
        match location.frame.map(|frame| segment.lsn(frame.offset)) {
            Some(lsn) if lsn >= until => Place::CaughtUp,
            Some(lsn) if lsn >= state.stream.durable() => Place::End(lsn),
            _ => Place::Entry(segment, location, term),
        }
    }

    /// The segment of the next frame is freed. Nothing of this log was in it that has not been told, if nothing was cut and
    /// nothing compacted; else that is for the caller to know. One lock: what is cut behind a first look would be found at the new
    /// place, and not be told.
    fn jump(&mut self) -> Result<(), FollowError> {
        let core = Arc::clone(self.wal.core());
        let state = core.state.lock();
        let (first, cut) = (state.catalog.bounds(self.log).first, state.catalog.cut(self.log));
        let index = self.next;
        if self.until.is_none() && cut <= self.told && first <= index {
            return self.seek(state, index);
        }
        (self.next, self.is_new, self.frame) = (first, false, None);
        (self.sequence, self.offset) = (state.stream.active, state.stream.room.offset);
        self.told = state.stream.end();
        self.until = Some(self.told);
        Err(FollowError::Compacted { index, first })
    }

    /// Reads the frame of the next entry, of which only what is live is told; unless it came behind what is told by index.
    fn read_entry(
        &mut self,
        segment: &Segment,
        location: &Location,
        term: u64,
    ) -> Result<(), FollowError> {
        let located = self.locate(segment, location)?;
        if self.until.is_some_and(|until| segment.lsn(located.offset) >= until) {
            self.until = None;
            return Ok(());
        }
        let (header, body) = self.read_frame(segment, located.offset)?;
        self.expect_next(segment, located.offset, &header, term)?;
        let end = located.end.min(location.end).min(header.end());
        self.frame = Some(Frame { header, body, end, is_begun: true });
        Ok(())
    }

    fn read_frame(&self, segment: &Segment, offset: u64) -> Result<(Header, Bytes), ReadError> {
        let core = self.wal.core();
        let read = read_frame(segment, core.sealed.access(), offset);
        read.map_err(|error| or_recycled(error, core, segment))
    }

    /// The frame at `offset` holds the next entry, as an index says.
    fn expect_next(
        &self,
        segment: &Segment,
        offset: u64,
        header: &Header,
        term: u64,
    ) -> Result<(), ReadError> {
        if header.holds(self.log, self.next) && header.term == term {
            return Ok(());
        }
        let (expected, found) = (self.next, header.first_index);
        let what = "the frame of an entry";
        let fault = Fault { offset, what, expected, found, header: Some(*header) };
        Err(fault.in_segment(segment.name()).into())
    }

    /// Reads the next frame; what it tells, unless it is entries.
    fn read(&mut self, segment: &Segment) -> Result<Option<Followed>, FollowError> {
        if segment.last.is_some_and(|last| self.offset >= last.frames_end) {
            (self.sequence, self.offset) = (self.sequence + 1, FRAMES_AT);
            return Ok(None);
        }
        let (header, body) = self.read_frame(segment, self.offset)?;
        if self.is_new {
            self.expect_next(segment, self.offset, &header, header.term)?;
        }
        self.offset += header.frame_bytes();
        self.told = segment.lsn(self.offset);
        if header.log != self.log || !header.belongs_to_a_log() {
            return Ok(None);
        }
        let first = header.first_index;
        Ok(match header.kind {
            FrameKind::Entries => {
                self.frame = Some(Frame { header, body, end: header.end(), is_begun: false });
                None
            }
            FrameKind::Truncate if first < self.next => self.cut(first),
            FrameKind::Reset => self.reset(first, header.term),
            FrameKind::Forget => self.reset(1, 0),
            _ => None,
        })
    }

    /// What was told from `first` on is gone.
    fn cut(&mut self, first: u64) -> Option<Followed> {
        self.next = first;
        Some(Followed::Truncated { last: first - 1 })
    }

    fn reset(&mut self, next: u64, term_before: u64) -> Option<Followed> {
        self.next = next;
        Some(Followed::Reset { next, term_before })
    }

    /// The next entry of the frame that was read, or that it replaces what was told before.
    fn next_of_frame(&mut self) -> Option<Followed> {
        let frame = self.frame.as_ref()?;
        let (first, count) = (frame.header.first_index, frame.header.count);
        let end = frame.end;
        if first < self.next && !self.is_new && !frame.is_begun {
            return self.cut(first);
        }
        if self.next < first || self.next >= end {
            self.frame = None;
            return None;
        }
        let number = u16::try_from(self.next - first).expect("a frame holds at most 65535");
        let bytes = frame.body.slice(entry_range(&frame.body, count, number));
        let entry = Entry { index: self.next, term: frame.header.term, bytes };
        self.frame.as_mut().expect("as above").is_begun = true;
        (self.next, self.is_new) = (self.next + 1, false);
        Some(Followed::Entry(entry))
    }
}
