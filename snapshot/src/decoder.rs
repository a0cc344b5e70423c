//! An image's file taken apart, unit by unit: the header, the blocks, the end. Who reads a file and who receives one feed it the
//! bytes, so that both believe the same ones.

use crate::{
    FORMAT_VERSION,
    block::{BLOCK_BYTES, Chain, END_BYTES, FULL_BYTES, PREFIX_BYTES},
    fault::{Fault, StoreError},
    header::{FIXED_BYTES, Header},
};

/// What was taken in, whole and checked.
#[derive(Debug)]
pub(crate) enum Unit {
    /// What stands before all blocks.
    Header(Header),
    /// A block of the state machine's bytes: [`Decoder::block`].
    Block,
    /// What stands behind all blocks, and nothing behind it.
    End,
}

/// Takes a file in from its beginning to its end. No byte of a unit counts before all of it is there and its checksum holds.
#[derive(Clone, Debug)]
pub(crate) struct Decoder {
    /// Name of the file, for errors.
    image: String,
    /// Length of the file: as it is, or as its sender says. No unit ends behind it, and the end ends there.
    file_bytes: u64,
    /// Where the unit begins.
    offset: u64,
    /// What has come of the unit.
    unit: Vec<u8>,
    stage: Stage,
    /// Bytes in the blocks so far.
    total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Blocks(Chain),
    Over,
}

impl Decoder {
    pub(crate) fn new(image: &str, file_bytes: u64) -> Self {
        let (image, stage) = (image.to_owned(), Stage::Header);
        Self { image, file_bytes, offset: 0, unit: Vec::new(), stage, total: 0 }
    }

    /// One that begins where this one does, behind a header, and then as many full blocks, of whose last `crc` is the checksum.
    pub(crate) fn behind(&self, blocks: u64, crc: u32) -> Self {
        assert!(matches!(self.stage, Stage::Blocks(_)) && self.total == 0 && self.unit.is_empty());
        Self {
            image: self.image.clone(),
            file_bytes: self.file_bytes,
            offset: self.offset + blocks * FULL_BYTES,
            unit: Vec::new(),
            stage: Stage::Blocks(Chain::at(crc)),
            total: blocks * BLOCK_BYTES as u64,
        }
    }

    /// How many bytes are missing before more can be said: at least one, at most what is left of a header or a block.
    pub(crate) fn missing(&self) -> Result<usize, StoreError> {
        Ok(self.wanted()? - self.unit.len())
    }

    /// Takes in `count` bytes, no more than are [missing](Self::missing), that `fill` puts in their place; gives a unit that is
    /// whole by now. Nothing is taken in behind an error, nor behind a unit before it was [passed](Self::pass).
    pub(crate) fn take(
        &mut self,
        count: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), StoreError>,
    ) -> Result<Option<Unit>, StoreError> {
        let (missing, begun) = (self.missing()?, self.unit.len());
        assert!(count <= missing, "no byte is taken in before it is asked for");
        if self.unit.capacity() < begun + count {
            // For a block at a time: the length of a header is not proven before the last of its bytes.
            self.unit.reserve_exact(missing.min(BLOCK_BYTES).max(count));
        }
        self.unit.resize(begun + count, 0);
        fill(&mut self.unit[begun..])?;
        if self.wanted()? > self.unit.len() {
            return Ok(None);
        }
        let unit = match self.stage {
            Stage::Header => self.decode_header(),
            Stage::Blocks(chain) => self.decode_block(chain),
            Stage::Over => Ok(Unit::End),
        };
        unit.map(Some).map_err(|fault| fault.of(&self.image).into())
    }

    /// Goes on behind the unit that is whole.
    pub(crate) fn pass(&mut self) {
        self.offset += self.unit.len() as u64;
        self.unit.clear();
        // A header can be longer than any block.
        self.unit.shrink_to(PREFIX_BYTES + BLOCK_BYTES);
    }

    /// Bytes that were taken in.
    pub(crate) fn taken(&self) -> u64 {
        self.offset + self.unit.len() as u64
    }

    /// Name of the file.
    pub(crate) fn image(&self) -> &str {
        &self.image
    }

    /// The unit that is whole, as it lies in the file.
    pub(crate) fn unit(&self) -> &[u8] {
        &self.unit
    }

    /// The bytes in the block that is whole.
    pub(crate) fn block(&self) -> &[u8] {
        self.unit.get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Bytes in the blocks so far.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// True behind the end.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Length of the unit, as far as its bytes tell it. A length is bounded before it is believed.
    fn wanted(&self) -> Result<usize, StoreError> {
        let wanted = match self.stage {
            Stage::Header => self.header_bytes()?,
            Stage::Blocks(_) => self.block_bytes().map_err(|fault| fault.of(&self.image))?,
            // Nothing lies behind the end.
            Stage::Over => self.unit.len() + 1,
        };
        let end = self.offset + wanted as u64;
        if end > self.file_bytes {
            let fault = Fault::new(self.taken(), "end of an image", end, self.file_bytes);
            return Err(fault.of(&self.image).into());
        }
        Ok(wanted)
    }

    fn header_bytes(&self) -> Result<usize, StoreError> {
        let Some(fixed) = self.unit.first_chunk() else { return Ok(FIXED_BYTES) };
        let found = Header::version(fixed).map_err(|fault| fault.of(&self.image))?;
        if found != FORMAT_VERSION {
            return Err(StoreError::Version { image: self.image.clone(), found });
        }
        Ok(Header::length(fixed).map_err(|fault| fault.of(&self.image))?)
    }

    fn block_bytes(&self) -> Result<usize, Fault> {
        let Some(prefix) = self.unit.first_chunk() else { return Ok(PREFIX_BYTES) };
        let (length, is_last) = Chain::length(prefix, self.offset)?;
        let (full, rest) = (BLOCK_BYTES as u64, self.total % BLOCK_BYTES as u64);
        if !is_last && rest != 0 {
            let what = "length of a block that is not the last";
            return Err(Fault::new(self.offset, what, full, rest));
        }
        Ok(PREFIX_BYTES + length)
    }

    fn decode_header(&mut self) -> Result<Unit, Fault> {
        let header = Header::decode(&self.unit)?;
        self.stage = Stage::Blocks(Chain::behind(&self.unit));
        Ok(Unit::Header(header))
    }

    fn decode_block(&mut self, mut chain: Chain) -> Result<Unit, Fault> {
        let (prefix, bytes) = self.unit.split_first_chunk().expect("a whole block has a prefix");
        let (_, is_last) = Chain::length(prefix, self.offset)?;
        chain.check(prefix, bytes, self.offset)?;
        if !is_last {
            self.total += bytes.len() as u64;
            self.stage = Stage::Blocks(chain);
            return Ok(Unit::Block);
        }
        let said = u64::from_le_bytes(*bytes.first_chunk().expect("an end has this length"));
        for (what, expected, found) in [
            ("bytes before the end", said, self.total),
            ("length of an image", self.taken(), self.file_bytes),
        ] {
            if expected != found {
                return Err(Fault::new(self.offset, what, expected, found));
            }
        }
        self.stage = Stage::Over;
        Ok(Unit::End)
    }
}

const _: () = assert!(BLOCK_BYTES >= END_BYTES, "what is read of a block is bounded by its size");
