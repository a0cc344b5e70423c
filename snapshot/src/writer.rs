//! An image that a state machine writes.

use std::{
    io::{self, Write},
    sync::Arc,
};

use kontiki_disk::Directory;

use crate::{
    block::{BLOCK_BYTES, Chain},
    fault::StoreError,
    header::Header,
    temporary::{Finished, Temporary},
};

/// Takes a state machine's bytes. What failed once fails again, and nothing is left of it.
#[derive(Debug)]
pub struct Writer {
    temporary: Temporary,
    header: Header,
    chain: Chain,
    /// Of the next block.
    block: Vec<u8>,
    /// Bytes of all blocks that were written.
    total: u64,
}

impl Writer {
    pub(crate) fn create(
        directory: Arc<dyn Directory>,
        name: String,
        header: Header,
    ) -> Result<Self, StoreError> {
        let bytes = header.encode();
        let mut temporary = Temporary::create(directory, name)?;
        temporary.append(&[&bytes])?;
        let (chain, block) = (Chain::behind(&bytes), Vec::with_capacity(BLOCK_BYTES));
        Ok(Self { temporary, header, chain, block, total: 0 })
    }

    /// Writes what there is of a block.
    fn put_block(&mut self) -> Result<(), StoreError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let prefix = self.chain.append(&self.block);
        self.temporary.append(&[&prefix, &self.block])?;
        self.total += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Ends the image and makes it durable.
    ///
    /// # Errors
    /// `Io`, also of an earlier write or sync; then nothing of it is left.
    pub fn finish(mut self) -> Result<Finished, StoreError> {
        self.put_block()?;
        let Self { mut temporary, header, chain, total, .. } = self;
        temporary.append(&[&chain.end(total)])?;
        temporary.finish(header)
    }
}

impl Write for Writer {
    /// A block that is full is written when more comes: what is taken is taken without an error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.temporary.check().map_err(StoreError::into_io)?;
        if self.block.len() == BLOCK_BYTES {
            self.put_block().map_err(StoreError::into_io)?;
        }
        let count = bytes.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Nothing is durable before the image is finished.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
