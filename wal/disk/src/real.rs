//! The machine's disk.

mod directory;
mod file;
mod lock;

use std::{
    io,
    path::{Path, absolute},
    sync::Arc,
};

use self::{
    directory::{RealDirectory, create_synced},
    lock::Lock,
};
use crate::seam::{Access, Directory, Disk};

/// The machine's disk: files as the operating system has them, views that lend a shared map.
///
/// Paths are made absolute when a directory is opened, so that it does not matter afterwards
/// whether the process changes its working directory.
pub fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

#[derive(Debug)]
struct RealDisk;

impl Disk for RealDisk {
    fn open_directory(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Directory>> {
        let path = absolute(path)?;
        let lock = match access {
            Access::Read => None,
            Access::Write => {
                // The lock file is made last, so its absence tells that an earlier process may
                // have stopped before the directory's own entry was durable.
                if !Lock::is_there(&path) {
                    create_synced(&path)?;
                }
                Some(Arc::new(Lock::take(&path)?))
            }
        };
        Ok(Arc::new(RealDirectory::open(path, lock)?))
    }
}
