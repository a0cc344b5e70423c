//! How much a look has read.

use crate::frame::{FrameKind, Header};

/// How much a look has read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Segments of which all frames were read, or those up to damage; also those that were only prepared, and have none, and freed
    /// ones that are still there.
    pub segments: u64,
    /// Frames with a whole header that follow on each other.
    pub frames: u64,
    /// Entries in them, live or not.
    pub entries: u64,
}

impl Counts {
    pub(crate) fn take(&mut self, header: &Header) {
        self.frames += 1;
        if header.kind == FrameKind::Entries {
            self.entries += u64::from(header.count);
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.frames += other.frames;
        self.entries += other.entries;
    }
}
