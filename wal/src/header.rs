//! The header page: the first 4 KiB of a segment. Bytes are specified in FORMAT.md, "Header page".
//!
//! ```text
//!    0 [u8; 8] magic        8 u32 format   12 u32 features needed   16 u32 features used
//!   20 u32 zero            24 [u8; 16] uuid                         40 u64 sequence
//!   48 u64 segment bytes   56 [u8; 32] owner                        88 zeros
//! 4092 u32 crc of bytes 0..4092
//! ```

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    Corruption, OpenError,
    options::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN},
    segment::{FIRST_SEQUENCE, PAGE_BYTES, SEQUENCE_END},
};

/// The format that this version writes, and the newest it reads.
pub(crate) const FORMAT: u32 = 1;
/// Features without which a segment cannot be read, that this version has.
const FEATURES: u32 = 0;
const MAGIC: [u8; 8] = *b"KONTIKI\x01";
const CRC_AT: usize = 4092;

/// What a segment's header page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) uuid: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) owner: [u8; 32],
}

impl SegmentHeader {
    /// The page's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_LEN];
        page[0..8].copy_from_slice(&MAGIC);
        LittleEndian::write_u32(&mut page[8..12], FORMAT);
        LittleEndian::write_u32(&mut page[12..16], FEATURES);
        page[24..40].copy_from_slice(&self.uuid);
        LittleEndian::write_u64(&mut page[40..48], self.sequence);
        LittleEndian::write_u64(&mut page[48..56], self.segment_bytes);
        page[56..88].copy_from_slice(&self.owner);
        seal(&mut page);
        page
    }

    /// Reads the page of the file `name`, which is `file_bytes` long and should have number `sequence`.
    pub(crate) fn decode(
        page: &[u8],
        name: &str,
        sequence: u64,
        file_bytes: u64,
    ) -> Result<Self, OpenError> {
        let damaged = |what: &str, expected: u64, found: u64| {
            OpenError::Corruption(Corruption {
                segment: name.to_owned(),
                offset: 0,
                what: what.to_owned(),
                log: None,
                indexes: None,
                term: None,
                expected,
                found,
            })
        };
        if file_bytes < PAGE_BYTES {
            let what = format!("length of a segment: {file_bytes} bytes, shorter than its header");
            return Err(damaged(&what, 0, 0));
        }
        let (expected, found) =
            (crc32fast::hash(&page[..CRC_AT]), LittleEndian::read_u32(&page[CRC_AT..]));
        if expected != found {
            return Err(damaged("checksum of a segment's header", expected.into(), found.into()));
        }
        if page[0..8] != MAGIC {
            let (expected, found) = (LittleEndian::read_u64(&MAGIC), LittleEndian::read_u64(page));
            return Err(damaged("magic of a segment's header", expected, found));
        }
        let segment = name.to_owned();
        let found = LittleEndian::read_u32(&page[8..12]);
        if found > FORMAT {
            return Err(OpenError::NewerFormat { segment, found, supported: FORMAT });
        }
        if found == 0 {
            return Err(damaged("format of a segment", FORMAT.into(), 0));
        }
        let found = LittleEndian::read_u32(&page[12..16]);
        if found & !FEATURES != 0 {
            return Err(OpenError::UnknownFeatures { segment, found, supported: FEATURES });
        }
        let header = Self {
            uuid: page[24..40].try_into().expect("16 bytes"),
            sequence: LittleEndian::read_u64(&page[40..48]),
            segment_bytes: LittleEndian::read_u64(&page[48..56]),
            owner: page[56..88].try_into().expect("32 bytes"),
        };
        if header.sequence != sequence {
            return Err(damaged(
                "sequence number of a segment's header",
                sequence,
                header.sequence,
            ));
        }
        if !(FIRST_SEQUENCE..SEQUENCE_END).contains(&sequence) {
            return Err(damaged("number of a segment", SEQUENCE_END, sequence));
        }
        let bytes = header.segment_bytes;
        if bytes != file_bytes || !is_segment_size(file_bytes) {
            let what = format!("length of a segment: {file_bytes} bytes, its header says {bytes}");
            return Err(damaged(&what, 0, 0));
        }
        Ok(header)
    }
}

/// True for a size that a segment can have.
pub(crate) fn is_segment_size(bytes: u64) -> bool {
    (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(PAGE_BYTES)
}

fn seal(page: &mut [u8]) {
    let crc = crc32fast::hash(&page[..CRC_AT]);
    LittleEndian::write_u32(&mut page[CRC_AT..], crc);
}

const PAGE_LEN: usize = CRC_AT + 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader { uuid: [7; 16], sequence: 3, segment_bytes: 16 << 10, owner: [9; 32] }
    }

    fn decode(page: &[u8]) -> Result<SegmentHeader, OpenError> {
        SegmentHeader::decode(page, "s", 3, 16 << 10)
    }

    #[test]
    fn a_page_reads_back_as_it_was_written() {
        assert_eq!(decode(&header().encode()).unwrap(), header());
    }

    #[test]
    fn any_flipped_bit_of_the_page_is_corruption() {
        for bit in 0..PAGE_LEN * 8 {
            let mut page = header().encode();
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decode(&page), Err(OpenError::Corruption(_))), "bit {bit}");
        }
    }

    /// WAL-CASE 43: the half that needs no golden file.
    #[test]
    fn a_newer_format_or_an_unknown_needed_feature_is_refused_and_an_unknown_used_one_is_not() {
        let with = |at: usize, value: u32| {
            let mut page = header().encode();
            LittleEndian::write_u32(&mut page[at..at + 4], value);
            seal(&mut page);
            page
        };
        assert!(matches!(decode(&with(8, 2)), Err(OpenError::NewerFormat { found: 2, .. })));
        assert!(matches!(decode(&with(8, 0)), Err(OpenError::Corruption(_))));
        assert!(matches!(decode(&with(12, 4)), Err(OpenError::UnknownFeatures { found: 4, .. })));
        assert_eq!(decode(&with(16, 4)).unwrap(), header());
        // It may use what is zero in this version.
        assert_eq!(decode(&with(20, 4)).unwrap(), header());
        assert_eq!(decode(&with(88, 4)).unwrap(), header());
    }

    #[test]
    fn a_file_of_another_number_or_length_is_corruption() {
        let page = header().encode();
        for (sequence, bytes) in [(4, 16 << 10), (3, 32 << 10), (3, 8 << 10)] {
            let decoded = SegmentHeader::decode(&page, "s", sequence, bytes);
            assert!(matches!(decoded, Err(OpenError::Corruption(_))), "{sequence} {bytes}");
        }
    }
}
