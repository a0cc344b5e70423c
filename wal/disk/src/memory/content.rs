//! The bytes of one file, in blocks that copies share until one of them is written.

use std::{
    fmt,
    hash::{DefaultHasher, Hasher},
    sync::{Arc, LazyLock, OnceLock},
};

use crate::size;

/// What reaches the disk whole or not at all.
pub(super) const SECTOR_BYTES: u64 = 512;

/// One sector's bytes.
pub(super) type Sector = [u8; 512];

/// A file's bytes; a clone costs a pointer per block.
#[derive(Clone)]
pub(super) struct Content {
    bytes: u64,
    blocks: Vec<Arc<Block>>,
}

impl Content {
    pub(super) fn zeros(bytes: u64) -> Self {
        let blocks = size(bytes).div_ceil(BLOCK_BYTES);
        Self { bytes, blocks: vec![Arc::clone(&ZEROS); blocks] }
    }

    pub(super) fn len(&self) -> u64 {
        self.bytes
    }

    /// Makes it longer, with zeros, or shorter.
    pub(super) fn resize(&mut self, bytes: u64) {
        self.blocks.resize(size(bytes).div_ceil(BLOCK_BYTES), Arc::clone(&ZEROS));
        let is_cut = bytes < self.bytes;
        self.bytes = bytes;
        if is_cut {
            self.clear_tail();
        }
    }

    /// What lies behind the end is zeros, also when the file grows over it again.
    pub(super) fn clear_tail(&mut self) {
        let rest = size(self.bytes) % BLOCK_BYTES;
        if rest > 0 {
            let block = Arc::make_mut(self.blocks.last_mut().expect("the rest lies in a block"));
            block.bytes[rest..].fill(0);
            block.hash = OnceLock::new();
        }
    }

    /// Fills `into` from `offset`; the caller has checked that the file is long enough.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        assert!(offset + into.len() as u64 <= self.bytes);
        let mut at = size(offset);
        let mut rest = into;
        while !rest.is_empty() {
            let from = &self.blocks[at / BLOCK_BYTES].bytes[at % BLOCK_BYTES..];
            let count = from.len().min(rest.len());
            let (head, tail) = rest.split_at_mut(count);
            head.copy_from_slice(&from[..count]);
            rest = tail;
            at += count;
        }
    }

    /// Writes `bytes` at `offset`; the caller has checked that the file is long enough.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        assert!(offset + bytes.len() as u64 <= self.bytes);
        let mut at = size(offset);
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = (BLOCK_BYTES - at % BLOCK_BYTES).min(rest.len());
            let (head, tail) = rest.split_at(count);
            let block = Arc::make_mut(&mut self.blocks[at / BLOCK_BYTES]);
            block.bytes[at % BLOCK_BYTES..][..count].copy_from_slice(head);
            block.hash = OnceLock::new();
            rest = tail;
            at += count;
        }
    }

    /// The bytes of one sector; zeros where the last one is cut short by the file's end.
    pub(super) fn sector(&self, number: u64) -> Sector {
        let start = size(number * SECTOR_BYTES);
        let block = &self.blocks[start / BLOCK_BYTES].bytes;
        *block[start % BLOCK_BYTES..].first_chunk().expect("blocks hold whole sectors")
    }

    pub(super) fn set_sector(&mut self, number: u64, bytes: &Sector) {
        let start = size(number * SECTOR_BYTES);
        let block = Arc::make_mut(&mut self.blocks[start / BLOCK_BYTES]);
        block.bytes[start % BLOCK_BYTES..][..bytes.len()].copy_from_slice(bytes);
        block.hash = OnceLock::new();
    }

    /// Feeds length and bytes to `hasher`; a block that was hashed before is not read again.
    pub(super) fn hash(&self, hasher: &mut DefaultHasher) {
        hasher.write_u64(self.bytes);
        for block in &self.blocks {
            hasher.write_u64(*block.hash.get_or_init(|| hash(&block.bytes)));
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes", self.bytes)
    }
}

#[derive(Clone)]
struct Block {
    bytes: [u8; BLOCK_BYTES],
    /// Of `bytes`, once someone asked for it.
    hash: OnceLock<u64>,
}

const BLOCK_BYTES: usize = 4096;

static ZEROS: LazyLock<Arc<Block>> =
    LazyLock::new(|| Arc::new(Block { bytes: [0; BLOCK_BYTES], hash: OnceLock::new() }));

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(content: &Content) -> u64 {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn a_write_across_blocks_reads_back_and_leaves_its_clone_alone() {
        let before = Content::zeros(10_000);
        let mut after = before.clone();
        after.write(4090, b"across the border");

        let mut bytes = [0; 19];
        after.read(4089, &mut bytes);
        assert_eq!(&bytes, b"\0across the border\0");
        before.read(4089, &mut bytes);
        assert_eq!(bytes, [0; 19]);
    }

    #[test]
    fn what_was_cut_off_is_zeros_when_it_grows_again() {
        let mut content = Content::zeros(0);
        content.resize(5000);
        content.write(4000, &[1; 1000]);
        content.resize(4100);
        content.resize(9000);
        let mut bytes = [9; 5000];
        content.read(4000, &mut bytes);
        assert!(bytes[..100].iter().all(|&byte| byte == 1));
        assert!(bytes[100..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn the_hash_follows_every_change() {
        let mut content = Content::zeros(8192);
        let empty = fingerprint(&content);
        content.write(5000, b"x");
        assert_ne!(fingerprint(&content), empty);
        content.set_sector(5000 / 512, &[0; 512]);
        assert_eq!(fingerprint(&content), empty);
    }
}
