//! The blocks that a state machine's bytes lie in: each with its length and a checksum that goes on from the one before, so that
//! none can be missing, moved or of another image; the last one is empty and says how much there was.

use byteorder::{ByteOrder, LittleEndian};

use crate::fault::Fault;

/// Bytes of a full block.
pub(crate) const BLOCK_BYTES: usize = 64 << 10;
/// Of what stands before a block's bytes.
pub(crate) const PREFIX_BYTES: usize = 8;
/// Of a full block with its prefix.
pub(crate) const FULL_BYTES: u64 = (PREFIX_BYTES + BLOCK_BYTES) as u64;
/// Of the last block.
pub(crate) const END_BYTES: usize = PREFIX_BYTES + 8;

/// Where in the chain of checksums the next block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chain(u32);

impl Chain {
    /// Behind a header.
    pub(crate) fn behind(header: &[u8]) -> Self {
        Self(crc32fast::hash(header))
    }

    /// Behind a block with this checksum.
    pub(crate) fn at(crc: u32) -> Self {
        Self(crc)
    }

    fn next(self, length: u32, bytes: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&length.to_le_bytes());
        hasher.update(bytes);
        Self(hasher.finalize())
    }

    /// What stands before a block of these bytes; empty for the last one, behind which `total` bytes were written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> [u8; PREFIX_BYTES] {
        assert!(!bytes.is_empty() && bytes.len() <= BLOCK_BYTES, "a block is cut to its size");
        let length = u32::try_from(bytes.len()).expect("bounded above");
        *self = self.next(length, bytes);
        prefix(length, self.0)
    }

    /// The last block, behind `total` bytes.
    pub(crate) fn end(self, total: u64) -> [u8; END_BYTES] {
        let total = total.to_le_bytes();
        let mut bytes = [0; END_BYTES];
        bytes[..PREFIX_BYTES].copy_from_slice(&prefix(0, self.next(0, &total).0));
        bytes[PREFIX_BYTES..].copy_from_slice(&total);
        bytes
    }

    /// How many bytes follow the prefix at `offset`, those of a total if it is the last one's; and whether it is.
    pub(crate) fn length(prefix: &[u8; PREFIX_BYTES], offset: u64) -> Result<(usize, bool), Fault> {
        let length = LittleEndian::read_u32(prefix);
        match usize::try_from(length) {
            Ok(0) => Ok((END_BYTES - PREFIX_BYTES, true)),
            Ok(length) if length <= BLOCK_BYTES => Ok((length, false)),
            _ => Err(Fault::new(offset, "length of a block", BLOCK_BYTES as u64, length.into())),
        }
    }

    /// The checksum that a prefix says.
    pub(crate) fn crc(prefix: &[u8; PREFIX_BYTES]) -> u32 {
        LittleEndian::read_u32(&prefix[4..])
    }

    /// Goes on behind a block at `offset` whose bytes these are.
    pub(crate) fn check(
        &mut self,
        prefix: &[u8; PREFIX_BYTES],
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), Fault> {
        let (length, expected) = (LittleEndian::read_u32(prefix), Self::crc(prefix));
        let next = self.next(length, bytes);
        if next.0 != expected {
            return Err(Fault::new(offset, "checksum of a block", expected.into(), next.0.into()));
        }
        *self = next;
        Ok(())
    }
}

fn prefix(length: u32, crc: u32) -> [u8; PREFIX_BYTES] {
    let mut bytes = [0; PREFIX_BYTES];
    LittleEndian::write_u32(&mut bytes, length);
    LittleEndian::write_u32(&mut bytes[4..], crc);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What takes memory is bounded before it is taken, whoever says how much it is to be.
    #[test]
    fn a_block_is_no_longer_than_a_writer_makes_one() {
        let length = |length: u32| {
            let mut prefix = [0; PREFIX_BYTES];
            LittleEndian::write_u32(&mut prefix, length);
            Chain::length(&prefix, 7)
        };
        let longest = u32::try_from(BLOCK_BYTES).expect("64 KiB");
        assert_eq!(length(longest), Ok((BLOCK_BYTES, false)));
        for longer in [longest + 1, u32::MAX] {
            let fault = length(longer).expect_err("too long");
            let told = Fault::new(7, "length of a block", BLOCK_BYTES as u64, longer.into());
            assert_eq!(fault, told);
        }
        assert_eq!(length(0), Ok((END_BYTES - PREFIX_BYTES, true)), "the end");
    }
}
