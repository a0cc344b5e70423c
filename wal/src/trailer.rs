//! The trailer page of a sealed segment: a valid one says that everything before it is durable. Bytes are specified in
//! FORMAT.md, "Sealed segments"; change both or neither.

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    Lsn,
    frame::ALIGN_BYTES,
    index::{FRAME_BYTES, LOG_BYTES},
    segment::{FRAMES_AT, PAGE_BYTES, lsn_at},
};

/// What a trailer says of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) sequence: u64,
    /// LSN of the segment's first frame.
    pub(crate) base: Lsn,
    /// Where its frames end in the file.
    pub(crate) frames_end: u64,
    /// `header_crc` of its last frame, to which the next segment links.
    pub(crate) last_crc: u32,
    /// Logs in the index.
    pub(crate) logs: u32,
    /// Frames in the index.
    pub(crate) frames: u32,
    /// Checksum of the index's table of logs, and of all of the index.
    pub(crate) table_crc: u32,
    pub(crate) index_crc: u32,
}

impl Trailer {
    /// LSN behind the segment's last frame.
    pub(crate) fn end(&self) -> Lsn {
        lsn_at(self.base, self.frames_end)
    }

    /// Where the index begins in a segment of this length.
    pub(crate) fn index_at(&self, segment_bytes: u64) -> u64 {
        segment_bytes - PAGE_BYTES - self.index_bytes()
    }

    /// Length of the index.
    pub(crate) fn index_bytes(&self) -> u64 {
        self.table_bytes() + u64::from(self.frames) * FRAME_BYTES
    }

    /// Length of the index's table of logs.
    pub(crate) fn table_bytes(&self) -> u64 {
        u64::from(self.logs) * LOG_BYTES
    }

    /// The page's bytes, for the segment with this salt.
    pub(crate) fn encode(&self, salt: u32) -> Vec<u8> {
        let mut page = vec![0; PAGE_LEN];
        page[0..8].copy_from_slice(&MAGIC);
        for (at, value) in [(8, self.sequence), (16, self.base.0), (24, self.frames_end)] {
            LittleEndian::write_u64(&mut page[at..at + 8], value);
        }
        let numbers = [self.last_crc, self.logs, self.frames, self.table_crc, self.index_crc];
        for (number, value) in numbers.into_iter().enumerate() {
            LittleEndian::write_u32(&mut page[32 + number * 4..36 + number * 4], value);
        }
        let crc = crc32fast::hash(&page[..CRC_AT]) ^ salt;
        LittleEndian::write_u32(&mut page[CRC_AT..], crc);
        page
    }

    /// The trailer in `page`, if it is one of segment `sequence` with this salt and length; one that the file's earlier
    /// life left is not.
    pub(crate) fn decode(
        page: &[u8],
        salt: u32,
        sequence: u64,
        segment_bytes: u64,
    ) -> Option<Self> {
        let crc = crc32fast::hash(&page[..CRC_AT]) ^ salt;
        if page[0..8] != MAGIC || LittleEndian::read_u32(&page[CRC_AT..]) != crc {
            return None;
        }
        let long = |at: usize| LittleEndian::read_u64(&page[at..at + 8]);
        let short = |at: usize| LittleEndian::read_u32(&page[at..at + 4]);
        let trailer = Self {
            sequence: long(8),
            base: Lsn(long(16)),
            frames_end: long(24),
            last_crc: short(32),
            logs: short(36),
            frames: short(40),
            table_crc: short(44),
            index_crc: short(48),
        };
        let room = segment_bytes - PAGE_BYTES;
        let fits = trailer.index_bytes() <= room
            && (FRAMES_AT..=room - trailer.index_bytes()).contains(&trailer.frames_end)
            && trailer.frames_end.is_multiple_of(ALIGN_BYTES)
            && trailer.base.0.checked_add(1 << 40).is_some();
        (trailer.sequence == sequence && fits).then_some(trailer)
    }

    /// Whether `page` was the trailer of segment `sequence` and has rotted. A stop leaves nothing of
    /// the kind: the end of a trailer is durable before its first sector is written, so what begins as the segment's own
    /// trailer holds.
    pub(crate) fn is_rotten(page: &[u8], salt: u32, sequence: u64, segment_bytes: u64) -> bool {
        let holds = |page: &[u8]| Self::decode(page, salt, sequence, segment_bytes).is_some();
        let mut mended = page.to_vec();
        mended[0..8].copy_from_slice(&MAGIC);
        LittleEndian::write_u64(&mut mended[8..16], sequence);
        // Either it begins so, or it does not because of what has rotted.
        !holds(page) && (mended == page || holds(&mended))
    }
}

const MAGIC: [u8; 8] = *b"KTSEALED";
const CRC_AT: usize = 4092;
const PAGE_LEN: usize = CRC_AT + 4;
/// All that a trailer says but its checksum lies in its first sector, which the disk writes whole or not at all.
pub(crate) const SECTOR_LEN: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT_BYTES: u64 = 16 << 10;

    fn trailer() -> Trailer {
        Trailer {
            sequence: 3,
            base: Lsn(70_000),
            frames_end: 9000,
            last_crc: 5,
            logs: 2,
            frames: 9,
            table_crc: 6,
            index_crc: 7,
        }
    }

    #[test]
    fn a_trailer_reads_back_as_it_was_written() {
        let page = trailer().encode(11);
        assert_eq!(Trailer::decode(&page, 11, 3, SEGMENT_BYTES), Some(trailer()));
        assert_eq!(trailer().end(), Lsn(70_000 + 9000 - 4096));
        assert_eq!(trailer().index_at(SEGMENT_BYTES), (12 << 10) - 2 * 32 - 9 * 8);
    }

    fn is_rotten(page: &[u8]) -> bool {
        Trailer::is_rotten(page, 11, 3, SEGMENT_BYTES)
    }

    #[test]
    fn any_flipped_bit_is_seen_and_is_rot() {
        for bit in 0..PAGE_LEN * 8 {
            let mut page = trailer().encode(11);
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&page, 11, 3, SEGMENT_BYTES), None, "bit {bit}");
            assert!(is_rotten(&page), "bit {bit}");
        }
    }

    /// Zeros, or the trailer of the file's earlier life, with or without the end of the new one.
    #[test]
    fn neither_a_trailer_that_holds_nor_what_is_there_before_it_is_complete_is_rot() {
        assert!(!is_rotten(&trailer().encode(11)));
        let earlier = Trailer { sequence: 1, base: Lsn(9000), last_crc: 8, ..trailer() };
        for before in [vec![0; PAGE_LEN], earlier.encode(9)] {
            assert!(!is_rotten(&before));
            let mut page = trailer().encode(11);
            page[..SECTOR_LEN].copy_from_slice(&before[..SECTOR_LEN]);
            assert!(!is_rotten(&page));
        }
    }

    #[test]
    fn zeros_that_a_later_version_uses_are_ignored_under_a_checksum_that_holds() {
        let mut page = trailer().encode(11);
        page[52..CRC_AT].fill(7);
        let crc = crc32fast::hash(&page[..CRC_AT]) ^ 11;
        LittleEndian::write_u32(&mut page[CRC_AT..], crc);
        assert_eq!(Trailer::decode(&page, 11, 3, SEGMENT_BYTES), Some(trailer()));
    }

    /// WAL-CASE 47: the half that is the page's.
    #[test]
    fn a_trailer_of_an_earlier_life_or_another_segment_is_none() {
        let page = trailer().encode(11);
        assert_eq!(Trailer::decode(&page, 12, 3, SEGMENT_BYTES), None);
        assert_eq!(Trailer::decode(&page, 11, 4, SEGMENT_BYTES), None);
    }

    /// WAL-CASE 29: lengths that lie under a checksum that holds.
    #[test]
    fn lengths_that_do_not_fit_the_segment_are_none() {
        let broken: [fn(&mut Trailer); 5] = [
            |trailer| trailer.logs = u32::MAX,
            |trailer| trailer.frames = u32::MAX,
            |trailer| trailer.frames_end = SEGMENT_BYTES,
            |trailer| trailer.frames_end = 4000,
            |trailer| trailer.base = Lsn(u64::MAX),
        ];
        for (number, change) in broken.iter().enumerate() {
            let mut trailer = trailer();
            change(&mut trailer);
            let page = trailer.encode(11);
            assert_eq!(Trailer::decode(&page, 11, 3, SEGMENT_BYTES), None, "change {number}");
        }
    }
}
