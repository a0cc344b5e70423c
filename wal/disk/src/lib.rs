//! The only door to the disk that Kontiki has.
//!
//! [`Disk`], [`Directory`] and [`File`] say what a disk can do: files of a fixed length, positional
//! writes, syncs, and views that borrow a map; and files that grow once ([`GrowingFile`]). [`real()`] is the machine's disk; [`MemoryDisk`]
//! keeps what was synced apart from what was not, and can cut the power, fail and wait.
//! This crate knows nothing of logs; it is the only one with `unsafe`, in one module (`map`).
//!
//! ```
//! use std::path::Path;
//! use kontiki_disk::{Access, Disk, MemoryDisk};
//!
//! let disk = MemoryDisk::new();
//! let directory = disk.open_directory(Path::new("data"), Access::Write)?;
//! let file = directory.create("notes", 4096)?;
//! file.write_at(0, &[b"hello, ", b"disk"])?;
//! file.sync()?; // The bytes are durable ...
//! directory.sync()?; // ... and now the name is, too.
//! file.publish(11);
//! assert_eq!(file.clone().view(7..11)?, &b"disk"[..]);
//!
//! let after_the_power_cut = disk.image(|_| false);
//! let directory = after_the_power_cut.open_directory(Path::new("data"), Access::Read)?;
//! assert_eq!(directory.list()?, [("notes".to_string(), 4096)]);
//! # Ok::<(), std::io::Error>(())
//! ```
#![deny(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("Kontiki maps whole segments and counts in u64: it needs a 64-bit target");
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("Kontiki knows how to make data durable on Linux and macOS only");

mod map;
pub mod memory;
mod real;
mod seam;

use std::io;

use rustix::io::Errno;

pub use crate::{
    memory::MemoryDisk,
    real::{WriteMode, real, real_writing},
    seam::{Access, Directory, Disk, File, GrowingFile},
};

/// Whether an operation failed because the process, or the system, has too many files open. The real disk raises the
/// process's soft limit by itself, as far as its hard limit lets it.
pub fn is_too_many_files(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

/// The name of the lock file in every directory that was opened for writing. It is never removed:
/// a lock on a removed file would exclude nobody.
pub(crate) const LOCK_NAME: &str = "LOCK";

/// Refuses what is no plain file name, and the lock's.
pub(crate) fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty()
        || name == "."
        || name == ".."
        || name == LOCK_NAME
        || name.contains(['/', '\0'])
    {
        let message = format!("{name:?} is not a name for a file");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(())
}

/// A length or an offset as an index into memory.
pub(crate) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("the target is a 64-bit one")
}

/// What a change through [`Access::Read`] answers.
pub(crate) fn read_only(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{name} was opened for reading only"))
}
