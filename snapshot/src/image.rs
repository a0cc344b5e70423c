//! An image that is there, and the state machine's bytes in it.

use std::{ffi::OsStr, io, path::Path, sync::Arc};

use kontiki_disk::{Access, Disk, File};

use crate::{
    block::{Chain, END_BYTES, FULL_BYTES, PREFIX_BYTES},
    decoder::{Decoder, Unit},
    fault::StoreError,
    header::Header,
    receiver::Offer,
};

/// A whole image, by what its header says. It can be read as long as it is held, also when its store has removed it; and as long
/// as it is held, the store's directory is locked, as that of a log is by its views: nobody else opens it meanwhile.
#[derive(Clone, Debug)]
pub struct Image {
    file: Arc<dyn File>,
    header: Header,
    /// Behind the header.
    blocks: Decoder,
}

impl Image {
    /// An image under whatever name, that a store may not have made: one that was copied, say. No lock is taken.
    ///
    /// # Errors
    /// `Io`, `Corruption` and `Version`, of its header; the rest is looked at as it is read.
    pub fn open_copy(disk: &dyn Disk, path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let shown = path.display().to_string();
        let opened = || {
            let name = path.file_name().and_then(OsStr::to_str);
            let name = name.ok_or_else(|| io::Error::other("it has no name that can be read"))?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let directory = directory.unwrap_or(Path::new("."));
            disk.open_directory(directory, Access::Read)?.open(name)
        };
        Self::open(&shown, opened().map_err(StoreError::io("the opening", &shown))?)
    }

    /// Reads the header.
    pub(crate) fn open(name: &str, file: Arc<dyn File>) -> Result<Self, StoreError> {
        let mut decoder = Decoder::new(name, file.len());
        loop {
            if let Some(Unit::Header(header)) = read_on(&mut decoder, &*file)? {
                decoder.pass();
                return Ok(Self { file, header, blocks: decoder });
            }
        }
    }

    /// What it says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Name of its file.
    pub fn name(&self) -> &str {
        self.blocks.image()
    }

    /// Whether both are one file, and not one of two with the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.file, &other.file)
    }

    /// Bytes of its file, header and checksums included: what a transfer takes.
    pub fn bytes(&self) -> u64 {
        self.file.len()
    }

    /// What is said of it to whoever is to receive it.
    pub fn offer(&self) -> Offer {
        Offer { owner: self.header.owner(), place: self.header.place, bytes: self.bytes() }
    }

    /// The state machine's bytes, from the first one on.
    pub fn read(&self) -> Reader {
        let (file, decoder) = (Arc::clone(&self.file), self.blocks.clone());
        Reader { file, decoder, at: 0, failed: None }
    }

    /// Reads all of it, and says how many bytes the state machine has in it.
    ///
    /// # Errors
    /// `Corruption` where it is not what was written, `Io`.
    pub fn verify(&self) -> Result<u64, StoreError> {
        self.verify_telling(|_| {})
    }

    /// The same, and tells after each block how many bytes of the file have been read.
    ///
    /// # Errors
    /// As for [`verify`](Self::verify).
    pub fn verify_telling(&self, mut progress: impl FnMut(u64)) -> Result<u64, StoreError> {
        let mut reader = self.read();
        while reader.next_block()? {
            progress(reader.decoder.taken());
        }
        Ok(reader.decoder.total())
    }

    /// Fills `into` from `offset` of the file on, for a transfer; how many bytes, 0 at the end. All blocks that they are of are
    /// read and checked, so that who has an image that has rotted notices it, and not only who receives it.
    ///
    /// # Errors
    /// `Offset` behind the end, `Corruption`, `Io`.
    pub fn read_piece(&self, offset: u64, into: &mut [u8]) -> Result<usize, StoreError> {
        let expected = self.file.len();
        let Some(left) = expected.checked_sub(offset) else {
            return Err(StoreError::Offset { offset, expected });
        };
        let count = usize::try_from(left).map_or(into.len(), |left| left.min(into.len()));
        let mut filled = 0;
        if count == 0 {
            return Ok(0);
        }
        let mut decoder = self.decoder_at(offset)?;
        while filled < count {
            if read_on(&mut decoder, &*self.file)?.is_none() {
                continue;
            }
            let unit = decoder.unit();
            let begun = decoder.taken() - unit.len() as u64;
            let skipped = (offset + filled as u64 - begun).min(unit.len() as u64);
            let bytes = &unit[usize::try_from(skipped).expect("of a unit in memory")..];
            let taken = bytes.len().min(count - filled);
            into[filled..filled + taken].copy_from_slice(&bytes[..taken]);
            filled += taken;
            decoder.pass();
        }
        Ok(count)
    }

    /// A decoder that stands at the unit in which `offset` lies, or before it: all blocks but the last are full. The checksum that
    /// its first block goes on from is believed, and proven with that block.
    fn decoder_at(&self, offset: u64) -> Result<Decoder, StoreError> {
        let header_bytes = self.blocks.taken();
        let Some(behind) = offset.checked_sub(header_bytes) else {
            return Ok(Decoder::new(self.name(), self.file.len()));
        };
        // Bytes of the end can lie as far behind the last block's beginning as another full block would.
        let full = self.file.len().saturating_sub(header_bytes + END_BYTES as u64) / FULL_BYTES;
        let blocks = full.min(behind / FULL_BYTES);
        if blocks == 0 {
            return Ok(self.blocks.clone());
        }
        let mut prefix = [0; PREFIX_BYTES];
        let read = self.file.read_at(header_bytes + (blocks - 1) * FULL_BYTES, &mut prefix);
        read.map_err(StoreError::io("a read", self.name()))?;
        Ok(self.blocks.behind(blocks, Chain::crc(&prefix)))
    }
}

/// The state machine's bytes in an image, each checked before it is given out. Its errors are of kind `InvalidData` where the
/// image is not what was written.
#[derive(Debug)]
pub struct Reader {
    file: Arc<dyn File>,
    /// What it has is given out, and then passed.
    decoder: Decoder,
    /// What of the block was given out.
    at: usize,
    /// What went wrong: nothing is given out behind it.
    failed: Option<StoreError>,
}

impl Reader {
    /// Goes on to the next block; false behind the last one. What failed once fails again.
    fn next_block(&mut self) -> Result<bool, StoreError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.decoder.pass();
        self.at = 0;
        while !self.decoder.is_over() {
            match read_on(&mut self.decoder, &*self.file) {
                Ok(Some(Unit::Block)) => return Ok(true),
                Ok(_) => {}
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        self.decoder.pass();
        Ok(false)
    }
}

impl io::Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let is_used_up = self.failed.is_some() || self.at == self.decoder.block().len();
        if is_used_up && !self.next_block().map_err(StoreError::into_io)? {
            return Ok(0);
        }
        let rest = &self.decoder.block()[self.at..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Reads as much of the file as its decoder can say something of.
fn read_on(decoder: &mut Decoder, file: &dyn File) -> Result<Option<Unit>, StoreError> {
    let (count, offset) = (decoder.missing()?, decoder.taken());
    let failed = StoreError::io("a read", decoder.image());
    decoder.take(count, |into| file.read_at(offset, into).map_err(failed))
}
