//! Where a repair writes, and that nothing is left there of one that failed.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf, absolute},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags, flock, open},
    io::Errno,
};

use crate::outcome::Failure;

/// The directory that `new` leads to, for which no log's may be taken: not even through a symbolic link.
pub(super) fn beside(directory: &Path, new: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| disk_refuses("look for", new, &error);
    let place = absolute(new).and_then(|new| resolved(&new)).map_err(failed)?;
    if place.starts_with(fs::canonicalize(directory)?) {
        let (new, directory) = (new.display(), directory.display());
        let line = format!("{new} lies in {directory}, which is to be left alone");
        return Err(Failure::Repair(line));
    }
    Ok(place)
}

/// As [`fs::canonicalize`], of a path whose end need not be there.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        resolved => return resolved,
    }
    if fs::symlink_metadata(path).is_ok() {
        return Err(io::Error::other("it is a symbolic link to what is not there"));
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(resolved(parent)?.join(name)),
        _ => Err(ErrorKind::NotFound.into()),
    }
}

/// Removes a directory that is empty but for its lock, which nobody may hold; false if it stays.
pub(super) fn remove_emptied(directory: &Path) -> bool {
    let lock = directory.join("LOCK");
    // Held until the directory is gone: it can be that of somebody else by now.
    let _held =
        match open(&lock, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() => {
                Some(file)
            }
            Err(Errno::NOENT) => None,
            Ok(_) | Err(_) => return false,
        };
    if has_more_than_its_lock(directory) {
        return false;
    }
    let _gone = fs::remove_file(lock);
    match fs::remove_dir(directory) {
        Err(error) => error.kind() == ErrorKind::NotFound,
        Ok(()) => true,
    }
}

fn has_more_than_its_lock(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.into_iter().any(|entry| entry.map_or(true, |entry| entry.file_name() != "LOCK"))
}

pub(super) fn disk_refuses(operation: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Repair(format!("{operation} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_empty_and_in_nobodys_use_is_removed() {
        let room = tempfile::tempdir().unwrap();
        let directory = room.path().join("new");
        let lock_path = directory.join("LOCK");
        fs::create_dir(&directory).unwrap();
        let lock = fs::File::create(&lock_path).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(!remove_emptied(&directory), "somebody works there");
        assert!(lock_path.exists());
        drop(lock);
        fs::write(directory.join("1.wal"), "").unwrap();
        assert!(!remove_emptied(&directory), "something is in it");
        assert!(lock_path.exists());
        fs::remove_file(directory.join("1.wal")).unwrap();
        assert!(remove_emptied(&directory) && !directory.exists());
        assert!(remove_emptied(&directory), "it is gone");
        fs::create_dir(&directory).unwrap();
        assert!(remove_emptied(&directory) && !directory.exists(), "it was never locked");
    }
}
