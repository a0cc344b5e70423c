//! The frame: how one record lies inside a segment. Bytes are specified in FORMAT.md, "Frames"; change both or neither.
//!
//! ```text
//!  0 u32 header_crc   of bytes 4..48, xor salt, xor mix32(offset)
//!  4 u32 link         header_crc of the frame before, across segments
//!  8 u32 body_crc     of the body, padding left out
//! 12 u32 body_len    16 u8 kind   17 u8 flags   18 u16 count   20 u32 log
//! 24 u64 first_index 32 u64 term  40 u64 durable_lsn
//! 48 body, zeros to a multiple of 8
//! ```

use std::ops::Range;

use byteorder::{ByteOrder, LittleEndian};

use crate::{LogId, Lsn, options::STATE_BYTES_MAX};

/// Length of a frame's header.
pub const HEADER_BYTES: u64 = 48;
/// Frames begin at multiples of this.
pub(crate) const ALIGN_BYTES: u64 = 8;
/// Entries in one frame at most: `count` is a u16.
pub(crate) const COUNT_MAX: usize = 0xffff;

const FLAG_CLOSED: u8 = 1;

/// What a frame carries. The numbers are the format's; 0 is never valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// First frame of a segment: uuid, base LSN, sequence number of the segment before. `first_index` is the nonce of
    /// the opening that wrote it.
    SegmentStart = 1,
    /// Second frame of a segment: bounds, terms and state of every log.
    Checkpoint = 2,
    /// A run of consecutive entries of one log and one term.
    Entries = 3,
    /// A log's state; replaces the one before.
    State = 4,
    /// Cuts a log's suffix, from `first_index` on.
    Truncate = 5,
    /// Drops a log's prefix, up to `first_index`, left out; `term` is that of the entry before.
    Compact = 6,
    /// Drops all entries of a log; `first_index` is the next one, `term` that of the entry before.
    Reset = 7,
    /// Drops a log with its state.
    Forget = 8,
    /// Carries nothing but its watermark.
    Mark = 9,
    /// The first frame of an opening that goes on in a segment; `first_index` is the opening's nonce.
    Opened = 10,
    /// Segments that nothing needs any more; their files may be gone once this frame is durable.
    Freed = 11,
}

impl FrameKind {
    /// The kind that has this byte in a header; `None` if this version knows none.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::SegmentStart,
            2 => Self::Checkpoint,
            3 => Self::Entries,
            4 => Self::State,
            5 => Self::Truncate,
            6 => Self::Compact,
            7 => Self::Reset,
            8 => Self::Forget,
            9 => Self::Mark,
            10 => Self::Opened,
            11 => Self::Freed,
            _ => return None,
        })
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// `header_crc` of the frame before; 0 for the very first.
    pub(crate) link: u32,
    pub(crate) body_crc: u32,
    pub(crate) body_len: u32,
    pub(crate) kind: FrameKind,
    /// A mark that was written by a clean close.
    pub(crate) closed: bool,
    /// Entries in the frame; 0 for every other kind.
    pub(crate) count: u16,
    /// 0 for frames that belong to no log.
    pub(crate) log: LogId,
    pub(crate) first_index: u64,
    pub(crate) term: u64,
    /// Everything below was durable before this frame was written. At most the frame's own LSN.
    pub(crate) durable_lsn: Lsn,
}

impl Header {
    /// A header for `kind` with `body`; link and watermark are the stream's to fill in.
    pub(crate) fn new(kind: FrameKind, log: LogId, body: &[u8]) -> Self {
        Self {
            link: 0,
            body_crc: crc32fast::hash(body),
            body_len: u32::try_from(body.len()).expect("bodies are bounded by the segment"),
            kind,
            closed: false,
            count: 0,
            log,
            first_index: 0,
            term: 0,
            durable_lsn: Lsn(0),
        }
    }

    /// The header's bytes at `offset` of the segment with `salt`. The first four are the `header_crc`.
    pub(crate) fn encode(&self, salt: u32, offset: u64) -> [u8; 48] {
        let mut bytes = [0; 48];
        LittleEndian::write_u32(&mut bytes[4..8], self.link);
        LittleEndian::write_u32(&mut bytes[8..12], self.body_crc);
        LittleEndian::write_u32(&mut bytes[12..16], self.body_len);
        bytes[16] = self.kind as u8;
        bytes[17] = if self.closed { FLAG_CLOSED } else { 0 };
        LittleEndian::write_u16(&mut bytes[18..20], self.count);
        LittleEndian::write_u32(&mut bytes[20..24], self.log.0);
        LittleEndian::write_u64(&mut bytes[24..32], self.first_index);
        LittleEndian::write_u64(&mut bytes[32..40], self.term);
        LittleEndian::write_u64(&mut bytes[40..48], self.durable_lsn.0);
        let crc = checksum(&bytes, salt, offset);
        LittleEndian::write_u32(&mut bytes[0..4], crc);
        bytes
    }

    /// The header in `bytes` if it is whole by itself: checksum, known kind and flags.
    pub(crate) fn decode(bytes: &[u8; 48], salt: u32, offset: u64) -> Option<Self> {
        let kind = FrameKind::from_byte(bytes[16])?;
        let flags = bytes[17];
        if flags & !FLAG_CLOSED != 0 || (flags != 0 && kind != FrameKind::Mark) {
            return None;
        }
        if header_crc(bytes) != checksum(bytes, salt, offset) {
            return None;
        }
        let header = Self { closed: flags & FLAG_CLOSED != 0, ..Self::peek(bytes) };
        header.is_of_its_kind().then_some(header)
    }

    /// The header that `bytes` were before one of their bits was flipped, if that is what happened to them. Only to tell what
    /// is lost: the checksum of 44 bytes tells any two headers apart that differ in two bits (Koopman, "32-Bit Cyclic
    /// Redundancy Codes for Internet Applications", 2002), so no other flip gives another header.
    pub(crate) fn before_a_flip(bytes: &[u8; 48], salt: u32, offset: u64) -> Option<Self> {
        let flipped_back = |bit: usize| {
            let mut bytes = *bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            Self::decode(&bytes, salt, offset)
        };
        (0..bytes.len() * 8).find_map(flipped_back)
    }

    /// The header in `bytes` that this process made itself.
    pub(crate) fn peek(bytes: &[u8; 48]) -> Self {
        Self {
            link: LittleEndian::read_u32(&bytes[4..8]),
            body_crc: LittleEndian::read_u32(&bytes[8..12]),
            body_len: LittleEndian::read_u32(&bytes[12..16]),
            kind: FrameKind::from_byte(bytes[16]).unwrap_or(FrameKind::Mark),
            closed: false,
            count: LittleEndian::read_u16(&bytes[18..20]),
            log: LogId(LittleEndian::read_u32(&bytes[20..24])),
            first_index: LittleEndian::read_u64(&bytes[24..32]),
            term: LittleEndian::read_u64(&bytes[32..40]),
            durable_lsn: Lsn(LittleEndian::read_u64(&bytes[40..48])),
        }
    }

    /// What a kind does not use is zero, and an index is not.
    fn is_of_its_kind(&self) -> bool {
        use FrameKind::{
            Compact, Entries, Forget, Mark, Opened, Reset, SegmentStart, State, Truncate,
        };
        let bare = matches!(self.kind, Truncate | Compact | Reset | Forget | Mark | Opened);
        let indexed =
            matches!(self.kind, SegmentStart | Entries | Truncate | Compact | Reset | Opened);
        let termed = matches!(self.kind, Entries | Compact | Reset);
        let counts_from_1 = matches!(self.kind, Entries | Truncate | Compact | Reset);
        (!bare || self.body_len == 0)
            && (self.count > 0) == (self.kind == Entries)
            && (self.belongs_to_a_log() || self.log == LogId(0))
            && (indexed || self.first_index == 0)
            && (!counts_from_1 || self.first_index > 0)
            && (termed || self.term == 0)
            && (self.kind != State || u64::from(self.body_len) <= STATE_BYTES_MAX)
    }

    /// Header, body and padding.
    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.body_len))
    }

    /// False for the frames of the stream itself.
    pub(crate) fn belongs_to_a_log(&self) -> bool {
        use FrameKind::{Checkpoint, Freed, Mark, Opened, SegmentStart};
        !matches!(self.kind, SegmentStart | Checkpoint | Mark | Opened | Freed)
    }

    /// First and last index, if this is a frame of entries.
    pub(crate) fn indexes(&self) -> Option<(u64, u64)> {
        let more = u64::from(self.count).checked_sub(1)?;
        (self.kind == FrameKind::Entries)
            .then(|| (self.first_index, self.first_index.saturating_add(more)))
    }

    /// One past the last index of a frame of entries.
    pub(crate) fn end(&self) -> u64 {
        self.first_index.saturating_add(self.count.into())
    }

    /// Whether this is a frame of entries with entry `index` of `log`.
    pub(crate) fn holds(&self, log: LogId, index: u64) -> bool {
        let is_of_log = self.kind == FrameKind::Entries && self.log == log;
        is_of_log && (self.first_index..self.end()).contains(&index)
    }

    /// `None` if `padded`, the body with its padding, is what the header speaks of; else what is wrong.
    pub(crate) fn body_fault(&self, padded: &[u8]) -> Option<FrameFault> {
        let length = usize::try_from(self.body_len).expect("a u32 fits");
        let (body, padding) = padded.split_at(length);
        let crc = crc32fast::hash(body);
        if crc != self.body_crc {
            let (expected, found) = (self.body_crc, crc);
            return Some(FrameFault { what: "checksum of a frame's body", expected, found });
        }
        if let Some(&byte) = padding.iter().find(|&&byte| byte != 0) {
            let (expected, found) = (0, byte.into());
            return Some(FrameFault { what: "padding of a frame", expected, found });
        }
        if self.kind == FrameKind::Entries && !table_is_sound(body, self.count) {
            return Some(FrameFault { what: "table of a frame's entries", expected: 0, found: 0 });
        }
        None
    }
}

/// What is wrong with the bytes of a header that is not whole.
pub(crate) fn header_fault(bytes: &[u8; 48], salt: u32, offset: u64) -> FrameFault {
    let (expected, found) = (checksum(bytes, salt, offset), header_crc(bytes));
    let what = match expected == found {
        true => "kind, flags or lengths of a frame's header",
        false => "checksum of a frame's header",
    };
    FrameFault { what, expected, found }
}

/// Why a frame is not whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameFault {
    pub(crate) what: &'static str,
    /// What the bytes should have given; equal to `found` where nothing was compared.
    pub(crate) expected: u32,
    pub(crate) found: u32,
}

/// The `header_crc` of an encoded header.
pub(crate) fn header_crc(bytes: &[u8; 48]) -> u32 {
    LittleEndian::read_u32(&bytes[0..4])
}

/// The room a body of `length` bytes takes with its header and padding.
pub(crate) const fn frame_bytes(length: u64) -> u64 {
    (HEADER_BYTES + length).next_multiple_of(ALIGN_BYTES)
}

/// Where entry `number` of a body with `count` entries lies in it. The table was checked before.
pub(crate) fn entry_range(body: &[u8], count: u16, number: u16) -> Range<usize> {
    assert!(number < count);
    let payload = usize::from(count) * 4;
    let start = if number == 0 { 0 } else { table_end(body, number - 1) };
    payload + start..payload + table_end(body, number)
}

fn table_end(body: &[u8], number: u16) -> usize {
    let at = usize::from(number) * 4;
    usize::try_from(LittleEndian::read_u32(&body[at..at + 4])).expect("a u32 fits")
}

fn table_is_sound(body: &[u8], count: u16) -> bool {
    let table = usize::from(count) * 4;
    if count == 0 || body.len() < table {
        return false;
    }
    let mut end = 0;
    (0..count).all(|number| {
        let start = std::mem::replace(&mut end, table_end(body, number));
        start <= end
    }) && end == body.len() - table
}

fn checksum(bytes: &[u8; 48], salt: u32, offset: u64) -> u32 {
    let offset = u32::try_from(offset).expect("segments are at most 1 GiB");
    crc32fast::hash(&bytes[4..]) ^ salt ^ mix32(offset)
}

/// Bijective in the sequence number, so that equal bytes at an equal offset of two segments of one log never both hold.
pub(crate) fn salt(uuid: &[u8; 16], sequence: u64) -> u32 {
    let low = u32::try_from(sequence & 0xffff_ffff).expect("masked");
    mix32(crc32fast::hash(uuid)).wrapping_add(low)
}

/// Spreads every bit over all 32; a bijection.
pub(crate) fn mix32(value: u32) -> u32 {
    let mut mixed = value ^ (value >> 16);
    mixed = mixed.wrapping_mul(0x85eb_ca6b);
    mixed ^= mixed >> 13;
    mixed = mixed.wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 16)
}

#[cfg(test)]
mod tests;
