//! One writer for each directory.

use std::{fs, io, os::unix::fs::FileExt, path::Path, process};

use crate::LOCK_NAME;

/// An advisory lock on the directory's lock file. It belongs to this value, not to the process: a
/// second one in the same process is refused as well. The system releases it with the process.
#[derive(Debug)]
pub(super) struct Lock {
    file: fs::File,
}

impl Lock {
    /// Whether the directory has ever been locked.
    pub(super) fn is_there(directory: &Path) -> bool {
        directory.join(LOCK_NAME).exists()
    }

    /// Whether someone holds the lock.
    pub(super) fn is_held(directory: &Path) -> io::Result<bool> {
        let file = match fs::File::open(directory.join(LOCK_NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        match fs2::FileExt::try_lock_shared(&file) {
            Ok(()) => fs2::FileExt::unlock(&file).map(|()| false),
            Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of an existing directory, or answers `WouldBlock`.
    pub(super) fn take(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOCK_NAME);
        let mut options = fs::OpenOptions::new();
        // Not truncated: until the lock is ours the content is its holder's.
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        // Not `file.try_lock_exclusive()`: std has methods of such names by now.
        if let Err(error) = fs2::FileExt::try_lock_exclusive(&file) {
            if error.raw_os_error() != fs2::lock_contended_error().raw_os_error() {
                return Err(error);
            }
            let holder = fs::read_to_string(&path).unwrap_or_default();
            let message = format!("{} is locked by process {}", directory.display(), holder.trim());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        // For whoever wonders; the lock does not depend on it, so a full disk is no reason to fail.
        let _ = file.set_len(0);
        let _ = file.write_all_at(format!("{}\n", process::id()).as_bytes(), 0);
        Ok(Self { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process that was just forked and has not yet
        // closed what it inherited.
        let _ = fs2::FileExt::unlock(&self.file);
    }
}
