//! What an image says about itself, and how that lies at the start of its file.

use std::fmt;

use byteorder::{ByteOrder, LittleEndian};

use crate::{FORMAT_VERSION, fault::Fault};

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

/// Whose images lie in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The cluster that the node belongs to.
    pub cluster: u64,
    /// The log that the images stand for.
    pub log: u32,
}

impl fmt::Display for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "log {} of cluster {:#x}", self.log, self.cluster)
    }
}

/// What an image says about itself, ahead of the state machine's own bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Header {
    /// The cluster the image belongs to.
    pub cluster: u64,
    /// The log the image stands for.
    pub log: u32,
    /// The last entry it contains.
    pub place: Place,
    /// The members as of `place` (RAFT-CASE 50), opaque here; at most [`MEMBERSHIP_BYTES_MAX`]. What else belongs to the log's
    /// beginning, the sessions of clients above all, whoever uses the store writes ahead of the state machine's bytes.
    pub membership: Vec<u8>,
}

/// Bytes that [`Header::membership`] may take.
pub const MEMBERSHIP_BYTES_MAX: usize = 1 << 20;

/// Of the part of a header that is always there.
pub(crate) const FIXED_BYTES: usize = 48;

const MAGIC: u32 = u32::from_le_bytes(*b"kISn");

impl Header {
    /// As it lies at the start of a file.
    ///
    /// # Panics
    /// If the membership is longer than [`MEMBERSHIP_BYTES_MAX`].
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self { cluster, log, place, membership } = self;
        assert!(membership.len() <= MEMBERSHIP_BYTES_MAX, "a membership is bounded by its caller");
        let mut bytes = vec![0; FIXED_BYTES];
        LittleEndian::write_u32(&mut bytes[0..], MAGIC);
        LittleEndian::write_u16(&mut bytes[4..], FORMAT_VERSION);
        LittleEndian::write_u32(&mut bytes[12..], *log);
        LittleEndian::write_u64(&mut bytes[16..], *cluster);
        LittleEndian::write_u64(&mut bytes[24..], place.index);
        LittleEndian::write_u64(&mut bytes[32..], place.term);
        let length = u32::try_from(membership.len()).expect("bounded above");
        LittleEndian::write_u32(&mut bytes[40..], length);
        bytes.extend_from_slice(membership);
        let crc = crc32fast::hash(&bytes[CRC_END..]);
        LittleEndian::write_u32(&mut bytes[8..], crc);
        bytes
    }

    /// Whose image it is.
    pub fn owner(&self) -> Owner {
        Owner { cluster: self.cluster, log: self.log }
    }

    /// That the image is one of `owner`.
    pub(crate) fn check_owner(&self, owner: Owner) -> Result<(), Fault> {
        check(16, "cluster of an image", owner.cluster, self.cluster)?;
        check(12, "log of an image", owner.log.into(), self.log.into())
    }

    /// That the image ends at `place`.
    pub(crate) fn check_place(&self, place: Place) -> Result<(), Fault> {
        check(24, "index of an image", place.index, self.place.index)?;
        check(32, "term of an image", place.term, self.place.term)
    }

    /// The version of the bytes, by the fixed part, which begins as it does in every version.
    pub(crate) fn version(fixed: &[u8; FIXED_BYTES]) -> Result<u16, Fault> {
        let magic = LittleEndian::read_u32(fixed);
        if magic != MAGIC {
            return Err(Fault::new(0, "mark of an image", MAGIC.into(), magic.into()));
        }
        Ok(LittleEndian::read_u16(&fixed[4..]))
    }

    /// How much of the file is the header, by its fixed part.
    pub(crate) fn length(fixed: &[u8; FIXED_BYTES]) -> Result<usize, Fault> {
        let length = LittleEndian::read_u32(&fixed[40..]);
        match usize::try_from(length) {
            Ok(length) if length <= MEMBERSHIP_BYTES_MAX => Ok(FIXED_BYTES + length),
            _ => {
                let most = MEMBERSHIP_BYTES_MAX as u64;
                Err(Fault::new(40, "length of a membership", most, length.into()))
            }
        }
    }

    /// The whole header; `bytes` are as many as [`length`](Self::length) says.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let (expected, found) =
            (LittleEndian::read_u32(&bytes[8..]), crc32fast::hash(&bytes[CRC_END..]));
        check(8, "checksum of an image's header", expected.into(), found.into())?;
        check(6, "what is 0 in a header", 0, LittleEndian::read_u16(&bytes[6..]).into())?;
        check(44, "what is 0 in a header", 0, LittleEndian::read_u32(&bytes[44..]).into())?;
        let place = Place {
            index: LittleEndian::read_u64(&bytes[24..]),
            term: LittleEndian::read_u64(&bytes[32..]),
        };
        Ok(Self {
            cluster: LittleEndian::read_u64(&bytes[16..]),
            log: LittleEndian::read_u32(&bytes[12..]),
            place,
            membership: bytes[FIXED_BYTES..].to_vec(),
        })
    }
}

fn check(offset: u64, what: &'static str, expected: u64, found: u64) -> Result<(), Fault> {
    if expected == found { Ok(()) } else { Err(Fault::new(offset, what, expected, found)) }
}

/// The checksum is of all behind it.
const CRC_END: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let place = Place { index: 0x0102_0304, term: 7 };
        Header { cluster: 0xaabb, log: 1, place, membership: b"members".to_vec() }
    }

    fn decode(bytes: &[u8]) -> Result<Header, Fault> {
        let fixed = bytes.first_chunk().unwrap();
        let version = Header::version(fixed)?;
        if version != FORMAT_VERSION {
            return Err(Fault::new(4, "version", FORMAT_VERSION.into(), version.into()));
        }
        let length = Header::length(fixed)?;
        Header::decode(&bytes[..length])
    }

    #[test]
    fn an_image_is_not_newer_than_itself() {
        let place = Place { index: 3, term: 1 };
        assert!(!place.is_newer_than(place));
        assert!(Place { index: 4, term: 1 }.is_newer_than(place));
    }

    #[test]
    fn a_header_reads_back_and_no_flipped_bit_goes_unnoticed() {
        let bytes = header().encode();
        assert_eq!(decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            damaged.resize(FIXED_BYTES + MEMBERSHIP_BYTES_MAX, 0);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_is_bounded_before_it_is_believed() {
        let mut bytes = header().encode();
        LittleEndian::write_u32(&mut bytes[40..], u32::MAX);
        let fault = decode(&bytes).unwrap_err();
        assert_eq!((fault.offset, fault.found), (40, u32::MAX.into()));
    }
}
