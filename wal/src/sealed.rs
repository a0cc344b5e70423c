//! Finding entries in sealed segments, whose indexes lie in their files.

use std::{collections::VecDeque, ops::Range};

use crate::{
    LogId, ReadError,
    index::SealedIndex,
    reader::{Access, Found, read_bytes},
    recovery::scan::Fault,
    segment::{FRAMES_AT, Segment},
    sync::Mutex,
    trailer::Trailer,
};

/// The indexes of sealed segments that were read: a view of each that can be mapped, and copies of the few that were used last
/// where nothing is mapped.
#[derive(Debug)]
pub(crate) struct SealedIndexes {
    access: Access,
    /// By the number of the segment, the one used last at the back; at most [`COPIES_MAX`].
    copies: Mutex<VecDeque<(u64, SealedIndex)>>,
}

impl SealedIndexes {
    pub(crate) fn new(access: Access) -> Self {
        Self { access, copies: Mutex::new(VecDeque::new()) }
    }

    /// How segments are read.
    pub(crate) fn access(&self) -> Access {
        self.access
    }

    /// Where a sealed segment's index says that the frame with `range.start` lies, and those behind it up to `range.end`.
    pub(crate) fn find(
        &self,
        segment: &Segment,
        log: LogId,
        range: Range<u64>,
    ) -> Result<Found, ReadError> {
        let trailer = segment.trailer.expect("a segment without frames in memory is sealed");
        let find = |index: &SealedIndex| {
            let at = index.locate(log, range.start)?;
            let following = index.following(log, at.end..range.end);
            Some(Found { at, following, bytes_end: trailer.frames_end })
        };
        let found = match self.access {
            Access::Mapped => find(self.mapped(segment, &trailer)?),
            Access::Copied => find(&self.copied(segment, &trailer)?),
        };
        found
            .filter(|found| (FRAMES_AT..trailer.frames_end).contains(&found.at.offset))
            .ok_or_else(|| fault(segment, &trailer, "the frame of an entry in an index", 0, 0))
    }

    fn mapped<'a>(
        &self,
        segment: &'a Segment,
        trailer: &Trailer,
    ) -> Result<&'a SealedIndex, ReadError> {
        if segment.index.get().is_none() {
            // Of two that were read at the same time one is dropped.
            let _ = segment.index.set(read(segment, trailer, self.access)?);
        }
        Ok(segment.index.get().expect("set above"))
    }

    fn copied(&self, segment: &Segment, trailer: &Trailer) -> Result<SealedIndex, ReadError> {
        let sequence = segment.sequence;
        if let Some(index) = self.copy(sequence) {
            return Ok(index);
        }
        let index = read(segment, trailer, self.access)?;
        let mut copies = self.copies.lock();
        // Of two that were read at the same time one is dropped.
        if copies.iter().all(|(held, _)| *held != sequence) {
            copies.push_back((sequence, index.clone()));
        }
        if copies.len() > COPIES_MAX {
            copies.pop_front();
        }
        Ok(index)
    }

    /// The copy of a segment's index, if it is kept: the one used last from now on.
    fn copy(&self, sequence: u64) -> Option<SealedIndex> {
        let mut copies = self.copies.lock();
        let place = copies.iter().position(|(held, _)| *held == sequence)?;
        let copy = copies.remove(place)?;
        copies.push_back(copy.clone());
        Some(copy.1)
    }
}

/// The index in a sealed segment's file.
fn read(segment: &Segment, trailer: &Trailer, access: Access) -> Result<SealedIndex, ReadError> {
    let start = trailer.index_at(segment.bytes);
    let bytes = read_bytes(segment, start..start + trailer.index_bytes(), access)?;
    let crc = crc32fast::hash(&bytes);
    if crc != trailer.index_crc {
        let (expected, found) = (trailer.index_crc.into(), crc.into());
        return Err(fault(segment, trailer, "checksum of an index", expected, found));
    }
    SealedIndex::new(bytes, trailer.logs, trailer.frames)
        .ok_or_else(|| fault(segment, trailer, "numbers of an index", 0, 0))
}

fn fault(
    segment: &Segment,
    trailer: &Trailer,
    what: &'static str,
    expected: u64,
    found: u64,
) -> ReadError {
    let offset = trailer.index_at(segment.bytes);
    let fault = Fault { offset, what, expected, found, header: None };
    fault.in_segment(segment.name()).into()
}

/// Copies of indexes that are kept, 8 bytes for each frame of their segments. As many readers can be in old segments at
/// a time before they read indexes again for each frame.
const COPIES_MAX: usize = 8;
