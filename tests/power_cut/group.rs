//! The newest group of frames of a log whose writer stands still: if it is not synced, any part of it
//! can be on the disk after a power cut.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kontiki_wal::inspect::Scan;

use crate::{
    files::{PAGE_BYTES, write_back},
    lines::Random,
};

pub(crate) struct Group {
    segment: PathBuf,
    /// Where it begins in the segment.
    offset: usize,
    bytes: Vec<u8>,
}

/// What the disk has of a group after a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// None of its pages.
    Lost,
    /// Some of them and others not, though nobody synced it.
    Torn,
    /// All: it was synced, or each page was written back.
    Whole,
}

impl Group {
    /// The last frames, which all say that the log is durable up to the first of them.
    pub(crate) fn newest(directory: &Path) -> Self {
        let scan = Scan::open(directory).expect("a readable log");
        let frames: Vec<_> = scan.frames().map(|frame| frame.expect("a whole segment")).collect();
        let last = frames.last().expect("a segment begins with frames");
        let mut group = frames.iter().skip_while(|frame| frame.lsn < last.durable_lsn);
        let first = group.next().expect("a group ends with its last frame");
        assert_eq!(first.segment, last.segment, "a group lies in one segment");
        let segment = directory.join(&last.file);
        let range = to_usize(first.offset)..to_usize(last.offset + last.frame_bytes);
        let bytes = fs::read(&segment).expect("it was scanned")[range].to_vec();
        Self { segment, offset: to_usize(first.offset), bytes }
    }

    /// Writes back each of its pages or leaves it, as the coin falls.
    pub(crate) fn write_back_some(&self, random: &mut Random) {
        let pages = self.offset / PAGE_BYTES..(self.offset + self.bytes.len()).div_ceil(PAGE_BYTES);
        for page in pages {
            if random.below(2) == 0 {
                write_back(&self.segment, page as u64, 1);
            }
        }
    }

    /// What is there of it now, after the cut.
    pub(crate) fn outcome(&self) -> Outcome {
        let found = fs::read(&self.segment).unwrap_or_default();
        let (mut rest, mut at) = (&self.bytes[..], self.offset);
        let (mut pages, mut there) = (0, 0);
        while !rest.is_empty() {
            let (part, behind) = rest.split_at(rest.len().min(PAGE_BYTES - at % PAGE_BYTES));
            pages += 1;
            there += usize::from(found.get(at..at + part.len()) == Some(part));
            (rest, at) = (behind, at + part.len());
        }
        match there {
            0 => Outcome::Lost,
            there if there < pages => Outcome::Torn,
            _ => Outcome::Whole,
        }
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("inside a segment")
}
