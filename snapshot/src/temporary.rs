//! A file on its way: under a temporary name until its store makes it visible.

use std::sync::Arc;

use kontiki_disk::{Directory, GrowingFile};

use crate::{fault::StoreError, header::Header};

/// Bytes that are written between two syncs of a file. One sync at the end of a GiB would hold up those of the log on the same
/// disk for as long as it takes; and whoever writes feels a slow disk after as many bytes, and not at the end. With 8 MiB the p99 of
/// commits beside a transfer was 7.5 ms, with one 4.2, and the transfer no slower (benches/README.md).
pub(crate) const SYNC_BYTES: u64 = 1 << 20;

/// A file under a name that nobody looks for. It is removed when something fails, when it is dropped, or at the next opening of
/// the store.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) directory: Arc<dyn Directory>,
    name: String,
    /// Or why there is none any more: what failed once fails again.
    file: Result<Box<dyn GrowingFile>, StoreError>,
    /// Bytes of the file up to which a sync has come; `synced <= file.len()`.
    synced: u64,
    is_kept: bool,
}

impl Temporary {
    pub(crate) fn create(directory: Arc<dyn Directory>, name: String) -> Result<Self, StoreError> {
        let file = directory.create_growing(&name).map_err(StoreError::io("the making", &name))?;
        Ok(Self { directory, name, file: Ok(file), synced: 0, is_kept: false })
    }

    /// Writes `parts` at the end, and makes them durable once there is enough to sync.
    ///
    /// # Errors
    /// `Io`, final: nothing of the file is left.
    pub(crate) fn append(&mut self, parts: &[&[u8]]) -> Result<(), StoreError> {
        let file = self.file.as_mut().map_err(|error| error.clone())?;
        let put = file.append(parts).map_err(StoreError::io("a write", &self.name));
        let unsynced = file.len() - self.synced;
        match put {
            Err(error) => Err(self.fail(error)),
            Ok(()) if unsynced >= SYNC_BYTES => self.sync(),
            Ok(()) => Ok(()),
        }
    }

    /// Makes all that was written durable. A sync that fails may have lost what was written, and the next one would not tell.
    fn sync(&mut self) -> Result<(), StoreError> {
        let file = self.file.as_mut().map_err(|error| error.clone())?;
        let synced = file.sync().map_err(StoreError::io("a sync", &self.name));
        self.synced = file.len();
        synced.map_err(|error| self.fail(error))
    }

    /// All has been written: makes it durable.
    ///
    /// # Errors
    /// `Io`, also of an earlier write or sync; nothing of the file is left.
    pub(crate) fn finish(mut self, header: Header) -> Result<Finished, StoreError> {
        // The bytes before the name: what is visible is whole.
        self.sync()?;
        Ok(Finished { temporary: self, header })
    }

    /// Ends it for `error`, which is given again from now on. Its space is free before its owner drops it.
    pub(crate) fn fail(&mut self, error: StoreError) -> StoreError {
        if self.file.is_ok() {
            self.file = Err(error.clone());
            self.remove();
        }
        error
    }

    /// What it has failed with, if it has.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.file.as_ref().map(|_| ()).map_err(StoreError::clone)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// It has another name by now.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }

    fn remove(&self) {
        // What stays is removed by the next opening.
        let _ = self.directory.remove(&self.name);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_kept && self.file.is_ok() {
            self.remove();
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
