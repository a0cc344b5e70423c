//! The machine's disk.

mod directory;
mod file;
mod limit;
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
    real_writing(WriteMode::default())
}

/// As [`real`], with this way of writing.
pub fn real_writing(mode: WriteMode) -> Arc<dyn Disk> {
    Arc::new(RealDisk { mode })
}

/// How [`File::write_at`](crate::File::write_at) gets bytes into a file. What lies there afterwards is the same, and so is
/// what a sync makes durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// By a positional write (pwritev). Good at every size, and a medium error is an error.
    #[default]
    Positional,
    /// By a store into the file's map. On some systems quicker for small writes; on ext4 a store dirties a whole folio of the
    /// page cache. A medium error ends the process by a signal (SIGBUS), and so does a file system that copies on write
    /// (btrfs, zfs) when a store needs a block and there is none.
    Mapped,
}

#[derive(Debug)]
struct RealDisk {
    mode: WriteMode,
}

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
        Ok(Arc::new(RealDirectory::open(path, lock, self.mode)?))
    }
}
