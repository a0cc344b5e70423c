//! One writer for each directory.

use std::{
    fs, io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

use super::{directory::PLAIN, limit::with_room};
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

    /// Whether a writer holds the lock. Shares it for a moment to find out; `take` knows that.
    pub(super) fn is_held(directory: &Path) -> io::Result<bool> {
        let mut options = fs::OpenOptions::new();
        options.read(true).custom_flags(PLAIN);
        let file = match options.open(directory.join(LOCK_NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        Self::is_held_exclusively(&file)
    }

    /// Whoever took it last.
    pub(super) fn holder(directory: &Path) -> Option<u32> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).custom_flags(PLAIN).open(directory.join(LOCK_NAME)).ok()?;
        Self::holder_in(&file)
    }

    fn holder_in(file: &fs::File) -> Option<u32> {
        let mut text = [0; 11];
        let length = file.read_at(&mut text, 0).ok()?;
        str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
    }

    fn is_held_exclusively(file: &fs::File) -> io::Result<bool> {
        match fs2::FileExt::try_lock_shared(file) {
            Ok(()) => fs2::FileExt::unlock(file).map(|()| false),
            Err(error) if is_contended(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of an existing directory, or answers `WouldBlock`.
    pub(super) fn take(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOCK_NAME);
        let mut options = fs::OpenOptions::new();
        // Not truncated: until the lock is ours the content is its holder's. Not through a link: it would be made, or emptied,
        // wherever whoever owns the directory wants.
        options.read(true).write(true).create(true).truncate(false).custom_flags(PLAIN);
        let file = with_room(|| options.open(&path))?;
        if !Self::try_exclusively(&file)? {
            let holder = Self::holder_in(&file).map_or_else(String::new, |id| id.to_string());
            let message = format!("{} is locked by process {holder}", directory.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        // For whoever wonders; the lock does not depend on it, so a full disk is no reason to fail.
        let _ = file.set_len(0);
        let _ = file.write_all_at(format!("{}\n", process::id()).as_bytes(), 0);
        Ok(Self { file })
    }

    /// False if another writer holds the lock. Who only looks whether one does shares it for a
    /// moment; that is waited out, because looking must not keep a writer from starting.
    fn try_exclusively(file: &fs::File) -> io::Result<bool> {
        let deadline = Instant::now() + LOOKING_MAX;
        loop {
            // Not `file.try_lock_exclusive()`: std has methods of such names by now.
            match fs2::FileExt::try_lock_exclusive(file) {
                Ok(()) => return Ok(true),
                Err(error) if !is_contended(&error) => return Err(error),
                Err(_) => {}
            }
            if Self::is_held_exclusively(file)? || Instant::now() > deadline {
                return Ok(false);
            }
            // No event tells of it: the system wakes only who blocks on a lock, and how long that
            // may take has no bound.
            thread::sleep(LOOKING_PAUSE);
        }
    }
}

fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

/// How long the lock may be shared before a writer gives up. Looking takes microseconds; this is
/// for a process that was put aside in the middle of it.
const LOOKING_MAX: Duration = Duration::from_secs(1);

const LOOKING_PAUSE: Duration = Duration::from_millis(1);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would leave it to a child process that was just forked and has not yet
        // closed what it inherited.
        let _ = fs2::FileExt::unlock(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    #[test]
    fn whoever_took_it_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(Lock::holder(path), None);
        let lock = Lock::take(path).unwrap();
        assert_eq!(Lock::holder(path), Some(process::id()));
        drop(lock);
        fs::write(path.join(LOCK_NAME), "nobody").unwrap();
        assert_eq!(Lock::holder(path), None);
    }

    /// Whoever owns the directory could have root empty a file elsewhere, or make one.
    #[test]
    fn a_lock_that_is_a_link_is_refused_and_what_it_leads_to_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("log"), directory.path().join("other"));
        fs::create_dir(&path).unwrap();
        std::os::unix::fs::symlink(&other, path.join(LOCK_NAME)).unwrap();
        assert!(Lock::take(&path).is_err() && !other.exists());
        fs::write(&other, "precious").unwrap();
        assert!(Lock::take(&path).is_err() && Lock::is_held(&path).is_err());
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
    }

    #[test]
    fn whoever_looks_keeps_no_writer_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        drop(Lock::take(path).unwrap());
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    Lock::is_held(path).unwrap();
                }
            });
            let refused = (0..2000).find_map(|_| Lock::take(path).err());
            is_over.store(true, Ordering::Relaxed);
            assert!(refused.is_none(), "{refused:?}");
        });
    }
}
