//! An image on its way: written by a state machine, or received piece by piece. It has a temporary name until its store makes it
//! visible.

use std::{
    io::{self, Write},
    sync::Arc,
};

use kontiki_disk::{Directory, GrowingFile};

use crate::{
    block::{BLOCK_BYTES, Chain},
    fault::StoreError,
    header::Header,
    image::Image,
};

/// A file under a name that nobody looks for; removed when it is dropped, or at the next opening of the store.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) directory: Arc<dyn Directory>,
    name: String,
    is_kept: bool,
}

impl Temporary {
    fn create(
        directory: Arc<dyn Directory>,
        name: String,
    ) -> Result<(Self, Box<dyn GrowingFile>), StoreError> {
        let file = directory.create_growing(&name).map_err(StoreError::io("the making", &name))?;
        Ok((Self { directory, name, is_kept: false }, file))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It has another name by now.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_kept {
            // What stays is removed by the next opening.
            let _ = self.directory.remove(&self.name);
        }
    }
}

/// A whole image, durable under a temporary name.
#[derive(Debug)]
pub struct Finished {
    pub(crate) temporary: Temporary,
    pub(crate) header: Header,
}

impl Finished {
    /// What the image says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }
}

/// Takes a state machine's bytes.
#[derive(Debug)]
pub struct Writer {
    temporary: Temporary,
    file: Box<dyn GrowingFile>,
    header: Header,
    chain: Chain,
    /// Of the next block.
    block: Vec<u8>,
    /// Bytes of all blocks that were written.
    total: u64,
    failed: Option<StoreError>,
}

impl Writer {
    pub(crate) fn create(
        directory: Arc<dyn Directory>,
        name: String,
        header: Header,
    ) -> Result<Self, StoreError> {
        let bytes = header.encode();
        let (temporary, mut file) = Temporary::create(directory, name)?;
        file.append(&[&bytes]).map_err(StoreError::io("a write", temporary.name()))?;
        let (chain, block) = (Chain::behind(&bytes), Vec::with_capacity(BLOCK_BYTES));
        Ok(Self { temporary, file, header, chain, block, total: 0, failed: None })
    }

    /// Writes what there is of a block. What failed once fails again: the file is of no use any more.
    fn put_block(&mut self) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.block.is_empty() {
            return Ok(());
        }
        let prefix = self.chain.append(&self.block);
        let put = self.file.append(&[&prefix, &self.block]);
        if let Err(error) = put.map_err(StoreError::io("a write", self.temporary.name())) {
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.total += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Ends the image and makes it durable.
    ///
    /// # Errors
    /// `Io`, also of an earlier write; then nothing of it is left.
    pub fn finish(mut self) -> Result<Finished, StoreError> {
        self.put_block()?;
        let Self { temporary, mut file, header, chain, total, .. } = self;
        let put = file.append(&[&chain.end(total)]);
        put.map_err(StoreError::io("a write", temporary.name()))?;
        // The bytes before the name: what is visible is whole.
        file.sync().map_err(StoreError::io("a sync", temporary.name()))?;
        Ok(Finished { temporary, header })
    }
}

impl Write for Writer {
    /// A block that is full is written when more comes: what is taken is taken without an error.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK_BYTES || self.failed.is_some() {
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

/// Takes the bytes of another store's image, in pieces. What was received stays when a connection breaks; the next piece goes on
/// behind it.
#[derive(Debug)]
pub struct Receiver {
    temporary: Temporary,
    file: Box<dyn GrowingFile>,
    failed: Option<StoreError>,
}

impl Receiver {
    pub(crate) fn create(directory: Arc<dyn Directory>, name: String) -> Result<Self, StoreError> {
        let (temporary, file) = Temporary::create(directory, name)?;
        Ok(Self { temporary, file, failed: None })
    }

    /// Bytes that have come: where the next piece begins.
    pub fn received(&self) -> u64 {
        self.file.len()
    }

    /// Takes a piece that begins at `offset` of the image's file.
    ///
    /// # Errors
    /// `Offset` if that is not behind what has come, which then stays as it is; `Io`, and then each time.
    pub fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let expected = self.received();
        if offset != expected {
            return Err(StoreError::Offset { offset, expected });
        }
        let put = self.file.append(&[bytes]);
        let put = put.map_err(StoreError::io("a write", self.temporary.name()));
        self.failed = put.clone().err();
        put
    }

    /// All has come: reads it again, whole, and makes it durable.
    ///
    /// # Errors
    /// `Corruption` if it is no whole image, `Io`; then nothing of it is left.
    pub fn finish(self) -> Result<Finished, StoreError> {
        let Self { temporary, file, failed } = self;
        if let Some(error) = failed {
            return Err(error);
        }
        file.sync().map_err(StoreError::io("a sync", temporary.name()))?;
        let file = temporary.directory.open(temporary.name());
        let file = file.map_err(StoreError::io("the opening", temporary.name()))?;
        let image = Image::open(temporary.name(), file)?;
        image.verify()?;
        Ok(Finished { header: image.header().clone(), temporary })
    }
}
