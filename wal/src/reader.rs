//! Reading entries in order.

use std::{io, ops::Range, sync::Arc};

use bytes::Bytes;
use kontiki_disk::File;

use crate::{
    LogId, OpenError, ReadError, Wal,
    catalog::Location,
    core::{Mode, State},
    frame::{HEADER_BYTES, entry_range},
    recovery::scan::{Found, SegmentFile, Window},
    segment::file_name,
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
    /// The log's count of cuts when the reading began.
    cuts: Option<u64>,
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

/// Where a frame's bytes are.
enum Source {
    /// In memory, until they are durable.
    Staged(Bytes),
    /// In the file's map.
    Mapped(Arc<dyn File>),
    /// In the file of a log that was opened for reading only.
    Copied(SegmentFile),
}

impl Entries {
    pub(crate) fn new(wal: Wal, log: LogId, range: Range<u64>, bytes_max: usize) -> Self {
        let (next, end) = (range.start, range.end);
        Self { wal, log, next, end, bytes_left: bytes_max.max(1), cuts: None, frame: None }
    }

    fn load(&mut self) -> Result<Option<Frame>, ReadError> {
        let state = self.wal.core().state.lock();
        let Some(log) = state.catalog.log(self.log) else { return Ok(None) };
        if *self.cuts.get_or_insert(log.cuts) != log.cuts {
            return Ok(None);
        }
        if self.next < log.bounds.first {
            return Err(ReadError::Compacted { index: self.next, first: log.bounds.first });
        }
        let Some((location, end)) = log.locate(self.next) else { return Ok(None) };
        let term = log.bounds.term(self.next).expect("an index in the log has a term");
        let Some(source) = source(&state, &location) else { return Ok(None) };
        drop(state);
        let body = read_body(source, &location)?;
        Ok(Some(Frame { body, first: location.first, count: location.count, term, end }))
    }
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

fn source(state: &State, location: &Location) -> Option<Source> {
    let segment = state.stream.segments.get(&location.place.sequence())?;
    if matches!(state.mode, Mode::ReadOnly) {
        return Some(Source::Copied(SegmentFile::of(&state.stream, segment)));
    }
    if segment.lsn(location.place.offset()) < state.stream.durable() {
        return Some(Source::Mapped(Arc::clone(&segment.file)));
    }
    // What a poisoned log had not synced is gone: reading ends at the durable LSN.
    if matches!(state.mode, Mode::Poisoned(_)) {
        return None;
    }
    let length = usize::try_from(location.frame_bytes).expect("a u32 fits");
    state.stream.staged(location.place, length).map(Source::Staged)
}

fn read_body(source: Source, location: &Location) -> Result<Bytes, ReadError> {
    let start = location.place.offset();
    let frame = match source {
        Source::Staged(frame) => frame,
        Source::Mapped(file) => {
            let view = file.view(start..start + u64::from(location.frame_bytes));
            view.map_err(|source| ReadError::Io {
                segment: file_name(location.place.sequence()),
                source: Arc::new(source),
            })?
        }
        Source::Copied(file) => return copy_body(&file, location),
    };
    let header = usize::try_from(HEADER_BYTES).expect("48 fits");
    Ok(frame.slice(header..))
}

/// Reads through the file and trusts nothing: the salt in the header's checksum also tells a file
/// that has become another segment meanwhile.
fn copy_body(file: &SegmentFile, location: &Location) -> Result<Bytes, ReadError> {
    let read_error = |error| match error {
        OpenError::Io { path, source, .. } => ReadError::Io { segment: path, source },
        error => ReadError::Io {
            segment: file.name(),
            source: Arc::new(io::Error::other(error.to_string())),
        },
    };
    let mut window = Window::in_steps(file, location.frame_bytes.into());
    match window.frame(location.place.offset(), None, None).map_err(read_error)? {
        Err(fault) | Ok(Found { fault: Some(fault), .. }) => Err(file.corruption(&fault).into()),
        Ok(found) => Ok(Bytes::copy_from_slice(window.body(&found).map_err(read_error)?)),
    }
}
