//! Reading entries in order.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    Corruption, LogId, Lsn, ReadError, Wal,
    core::{Core, State},
    frame::{self, HEADER_BYTES, Header, entry_range},
    index::Located,
    mode::Mode,
    recovery::scan::{Fault, is_still},
    sealed::SealedIndexes,
    segment::{FRAMES_AT, PAGE_BYTES, Place, Segment},
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
    frame: Option<Frame>,
}

/// The frame that the next entry lies in.
#[derive(Debug)]
struct Frame {
    body: Bytes,
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
}

enum Source {
    /// In memory, until they are durable.
    Staged(Bytes, Located),
    /// In the file.
    File(Segment, Option<Located>),
}

/// How a segment's bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// As a view of the file's map.
    Mapped,
    /// Through the file, by copy.
    Copied,
}

impl Entries {
    pub(crate) fn new(wal: Wal, log: LogId, range: Range<u64>, bytes_max: usize) -> Self {
        let (next, end) = (range.start, range.end);
        Self { wal, log, next, end, bytes_left: bytes_max.max(1), cut: None, frame: None }
    }

    /// The frame of the next entry; `None` at the log's end, and where it was cut meanwhile.
    fn load(&mut self) -> Result<Option<Frame>, ReadError> {
        let (wanted, segment) = {
            let state = self.wal.core().state.lock();
            let Some(log) = state.catalog.log(self.log) else { return Ok(None) };
            let cut = state.catalog.cut(self.log);
            if *self.cut.get_or_insert(cut) != cut {
                return Ok(None);
            }
            if self.next < log.bounds.first {
                return Err(ReadError::Compacted { index: self.next, first: log.bounds.first });
            }
            match wanted(&state, self.log, self.next) {
                Some(wanted) => {
                    let segment = match &wanted.source {
                        Source::File(segment, ..) => Some(segment.clone()),
                        Source::Staged(..) => None,
                    };
                    (wanted, segment)
                }
                None => return Ok(None),
            }
        };
        let core = self.wal.core();
        match (wanted.read(&core.sealed), segment) {
            (Err(error), Some(segment)) => Err(or_recycled(error, core, &segment)),
            (read, _) => read.map(Some),
        }
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
        if self.next >= self.end || self.bytes_left == 0 {
            return None;
        }
        if self.frame.as_ref().is_none_or(|frame| frame.end <= self.next) {
            match self.load() {
                Ok(Some(frame)) => self.frame = Some(frame),
                Ok(None) => {
                    self.end = self.next;
                    return None;
                }
                Err(error) => {
                    self.end = self.next;
                    return Some(Err(error));
                }
            }
        }
        let frame = self.frame.as_ref()?;
        let number = u16::try_from(self.next - frame.first).expect("a frame holds at most 65535");
        let bytes = frame.body.slice(entry_range(&frame.body, frame.count, number));
        let entry = Entry { index: self.next, term: frame.term, bytes };
        self.next += 1;
        self.bytes_left = self.bytes_left.saturating_sub(entry.bytes.len());
        Some(Ok(entry))
    }
}

fn wanted(state: &State, log: LogId, index: u64) -> Option<Wanted> {
    let location = state.catalog.locate(log, index)?;
    let bounds = state.catalog.bounds(log);
    let term = bounds.term(index).expect("an index in the log has a term");
    // A frame has one term, whatever an index says of where it ends.
    let next_run = bounds.runs.get(bounds.runs.partition_point(|run| run.0 <= index));
    let end = location.end.min(next_run.map_or(u64::MAX, |run| run.0));
    let segment = state.stream.segments().get(&location.sequence)?;
    let is_durable = |at: &Located| segment.lsn(at.offset) < state.stream.durable();
    let is_read_only = matches!(state.mode, Mode::ReadOnly);
    let source = match location.frame {
        // What a poisoned log had not synced is gone: reading ends at the durable LSN.
        Some(at) if !is_read_only && !is_durable(&at) => {
            Source::Staged(state.stream.staged(Place::new(location.sequence, at.offset))?, at)
        }
        at => Source::File(segment.clone(), at),
    };
    Some(Wanted { log, index, term, end, source })
}

impl Wanted {
    fn read(self, indexes: &SealedIndexes) -> Result<Frame, ReadError> {
        let (log, index, term) = (self.log, self.index, self.term);
        self.read_frame(indexes).map_err(|error| match error {
            // Where the damage itself does not tell what is lost, this entry is.
            ReadError::Corruption(found) if found.log.is_none() => {
                let (log, indexes, term) = (Some(log), Some((index, index)), Some(term));
                Corruption { log, indexes, term, ..found }.into()
            }
            error => error,
        })
    }

    fn read_frame(self, indexes: &SealedIndexes) -> Result<Frame, ReadError> {
        let (log, index, term) = (self.log, self.index, self.term);
        let frame = |header: &Header, body: Bytes, at: Located| Frame {
            body,
            first: header.first_index,
            count: header.count,
            term: header.term,
            end: at.end.min(self.end).min(header.end()),
        };
        match self.source {
            Source::Staged(bytes, at) => {
                let header = bytes.first_chunk().expect("a frame has a header");
                let header = Header::peek(header);
                Ok(frame(&header, bytes.slice(HEADER_LEN..), at))
            }
            Source::File(segment, at) => {
                let at = match at {
                    Some(at) => at,
                    None => indexes.locate(&segment, log, index)?,
                };
                let (header, body) = read_frame(&segment, indexes.access(), at.offset)?;
                if !header.holds(log, index) || header.term != term {
                    let (expected, found) = (index, header.first_index);
                    let what = "the frame of an entry";
                    let header = Some(header);
                    let fault = Fault { offset: at.offset, what, expected, found, header };
                    return Err(fault.in_segment(segment.name()).into());
                }
                Ok(frame(&header, body, at))
            }
        }
    }
}

/// The frame at `offset`: its header, always checked, and its body, checked unless this process has done that.
pub(crate) fn read_frame(
    segment: &Segment,
    access: Access,
    offset: u64,
) -> Result<(Header, Bytes), ReadError> {
    let fault = |what, expected: u64, found: u64, header| {
        let fault = Fault { offset, what, expected, found, header };
        ReadError::from(fault.in_segment(segment.name()))
    };
    let frames_end = segment.bytes - PAGE_BYTES;
    if offset < FRAMES_AT || offset + HEADER_BYTES > frames_end {
        return Err(fault("place of a frame", FRAMES_AT, offset, None));
    }
    let head = read_bytes(segment, offset..offset + HEADER_BYTES, access)?;
    let head = head.first_chunk().expect("as long as a header");
    let header = Header::decode(head, segment.salt, offset)
        .filter(|header| offset + header.frame_bytes() <= frames_end)
        .ok_or_else(|| {
            let found = frame::header_fault(head, segment.salt, offset);
            let was = Header::before_a_flip(head, segment.salt, offset);
            fault(found.what, found.expected.into(), found.found.into(), was)
        })?;
    let body = offset + HEADER_BYTES..offset + header.frame_bytes();
    let body = read_bytes(segment, body, access)?;
    // The salt in the header's checksum also tells a file that has become another segment meanwhile.
    if (access == Access::Copied || !segment.is_checked)
        && let Some(body) = header.body_fault(&body)
    {
        return Err(fault(body.what, body.expected.into(), body.found.into(), Some(header)));
    }
    Ok((header, body))
}

/// Bytes of a segment's file.
pub(crate) fn read_bytes(
    segment: &Segment,
    range: Range<u64>,
    access: Access,
) -> Result<Bytes, ReadError> {
    let read = match access {
        Access::Mapped => Arc::clone(&segment.file).view(range),
        Access::Copied => {
            let length = usize::try_from(range.end - range.start).expect("64-bit only");
            let mut copy = vec![0; length];
            segment.file.read_at(range.start, &mut copy).map(|()| Bytes::from(copy))
        }
    };
    read.map_err(|source| ReadError::Io { segment: segment.name(), source: Arc::new(source) })
}

const HEADER_LEN: usize = 48;
