//! An image that is there, and the state machine's bytes in it.

use std::{io, sync::Arc};

use kontiki_disk::File;

use crate::{
    FORMAT_VERSION,
    block::{BLOCK_BYTES, Chain, END_BYTES, PREFIX_BYTES},
    fault::{Fault, StoreError},
    header::{FIXED_BYTES, Header},
};

/// A whole image, by what its header says. It can be read as long as it is held, also when its store has removed it.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    file: Arc<dyn File>,
    header: Header,
    header_bytes: u64,
    /// Where the checksums of the blocks begin.
    chain: Chain,
}

impl Image {
    /// Reads the header.
    pub(crate) fn open(name: &str, file: Arc<dyn File>) -> Result<Self, StoreError> {
        let mut fixed = [0; FIXED_BYTES];
        read_at(&*file, name, 0, &mut fixed)?;
        let found = Header::version(&fixed).map_err(|fault| fault.of(name))?;
        if found != FORMAT_VERSION {
            return Err(StoreError::Version { image: name.to_owned(), found });
        }
        let length = Header::length(&fixed).map_err(|fault| fault.of(name))?;
        if length as u64 > file.len() {
            return Err(Fault::new(0, "end of an image", length as u64, file.len())
                .of(name)
                .into());
        }
        let mut bytes = vec![0; length];
        read_at(&*file, name, 0, &mut bytes)?;
        let header = Header::decode(&bytes).map_err(|fault| fault.of(name))?;
        let (name, chain) = (name.to_owned(), Chain::behind(&bytes));
        Ok(Self { name, file, header, header_bytes: length as u64, chain })
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Name of its file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of its file, header and checksums included: what a transfer takes.
    pub fn bytes(&self) -> u64 {
        self.file.len()
    }

    /// The state machine's bytes, from the first one on.
    pub fn read(&self) -> Reader {
        let (offset, chain) = (self.header_bytes, self.chain);
        Reader {
            image: self.clone(),
            offset,
            chain,
            block: Vec::new(),
            at: 0,
            total: 0,
            is_over: false,
            failed: None,
        }
    }

    /// Reads all of it, and says how many bytes the state machine has in it.
    ///
    /// # Errors
    /// `Corruption` where it is not what was written, `Io`.
    pub fn verify(&self) -> Result<u64, StoreError> {
        let mut reader = self.read();
        while reader.next_block()? {}
        Ok(reader.total)
    }

    /// Fills `into` from `offset` of the file on, for a transfer; how many bytes, 0 at the end. They are checked by whoever
    /// receives all of them.
    ///
    /// # Errors
    /// `Offset` behind the end, `Io`.
    pub fn read_piece(&self, offset: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        let expected = self.file.len();
        let Some(left) = expected.checked_sub(offset) else {
            return Err(StoreError::Offset { offset, expected });
        };
        let count = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        read_at(&*self.file, &self.name, offset, &mut into[..count])?;
        Ok(count)
    }
}

/// The state machine's bytes in an image, each checked before it is given out. Its errors are of kind `InvalidData` where the
/// image is not what was written.
#[derive(Debug)]
pub struct Reader {
    image: Image,
    /// Where the next block begins.
    offset: u64,
    chain: Chain,
    block: Vec<u8>,
    /// What of the block was given out.
    at: usize,
    /// Bytes of all blocks so far.
    total: u64,
    is_over: bool,
    /// What went wrong: nothing is given out behind it.
    failed: Option<StoreError>,
}

impl Reader {
    /// Goes on to the next block; false behind the last one. What failed once fails again.
    fn next_block(&mut self) -> Result<bool, StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.is_over {
            return Ok(false);
        }
        let read = self.read_block();
        if let Err(error) = &read {
            self.block.clear();
            self.at = 0;
            self.failed = Some(error.clone());
        }
        read
    }

    fn read_block(&mut self) -> Result<bool, StoreError> {
        let Self {
            image: Image { name, file, .. }, offset, chain, block, at, total, is_over, ..
        } = self;
        let mut prefix = [0; PREFIX_BYTES];
        read_at(&**file, name, *offset, &mut prefix)?;
        let (length, is_last) = Chain::length(&prefix, *offset).map_err(|fault| fault.of(name))?;
        let full = BLOCK_BYTES as u64;
        if !is_last && *total % full != 0 {
            let what = "length of a block that is not the last";
            return Err(Fault::new(*offset, what, full, *total % full).of(name).into());
        }
        block.resize(length, 0);
        *at = 0;
        read_at(&**file, name, *offset + PREFIX_BYTES as u64, block)?;
        chain.check(&prefix, block, *offset).map_err(|fault| fault.of(name))?;
        *offset += (PREFIX_BYTES + length) as u64;
        if !is_last {
            *total += length as u64;
            return Ok(true);
        }
        let said =
            u64::from_le_bytes(*block.first_chunk().expect("the end of an image has this length"));
        block.clear();
        *is_over = true;
        let begin = *offset - END_BYTES as u64;
        for (what, expected, found) in
            [("bytes before the end", said, *total), ("length of an image", *offset, file.len())]
        {
            if expected != found {
                return Err(Fault::new(begin, what, expected, found).of(name).into());
            }
        }
        Ok(false)
    }
}

impl io::Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let is_used_up = self.at == self.block.len();
        if is_used_up && !self.next_block().map_err(StoreError::into_io)? {
            return Ok(0);
        }
        let rest = &self.block[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Fills `into`; a file that ends before is no image.
fn read_at(file: &dyn File, name: &str, offset: u64, into: &mut [u8]) -> Result<(), StoreError> {
    let end = offset + into.len() as u64;
    if end > file.len() {
        return Err(Fault::new(offset, "end of an image", end, file.len()).of(name).into());
    }
    file.read_at(offset, into).map_err(StoreError::io("a read", name))
}

const _: () = assert!(BLOCK_BYTES >= END_BYTES, "what is read of a block is bounded by its size");
