//! Images of a state machine: whole or not at all.
//!
//! This crate begins as its types: what an image says about itself. The directory of images, the stream of
//! checksummed blocks and the transfer come with compaction; until then no node takes a snapshot, and its log is
//! replayed from the first entry.
//!
//! ```
//! use kontiki_snapshot::{Header, Place};
//!
//! let older = Place { index: 7, term: 2 };
//! let newer = Place { index: 9, term: 2 };
//! assert!(newer.is_newer_than(older));
//!
//! let header = Header { cluster: 1, log: 1, place: newer, membership: b"...".to_vec() };
//! assert_eq!(header.place.index, 9);
//! ```
#![forbid(unsafe_code)]

/// The version of an image's bytes that this crate will write; an image with a higher one is refused.
pub const FORMAT_VERSION: u16 = 1;

/// The last entry that an image contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Index of the entry, counted from 1.
    pub index: u64,
    /// Term of that entry: with it, log matching works at the image's edge (RAFT-CASE 46).
    pub term: u64,
}

impl Place {
    /// True if this image contains more of the log than `other`. Both are of one log, so the index decides.
    pub fn is_newer_than(self, other: Self) -> bool {
        self.index > other.index
    }
}

/// What an image says about itself, ahead of the state machine's own bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// The cluster the image belongs to; an image of another cluster is refused.
    pub cluster: u64,
    /// The log the image stands for.
    pub log: u32,
    /// The last entry it contains.
    pub place: Place,
    /// Membership and sessions as of `place` (RAFT-CASE 50), opaque here.
    pub membership: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_not_newer_than_itself() {
        let place = Place { index: 3, term: 1 };
        assert!(!place.is_newer_than(place));
        assert!(Place { index: 4, term: 1 }.is_newer_than(place));
    }
}
