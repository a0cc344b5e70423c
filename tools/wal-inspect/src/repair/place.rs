//! Where a repair writes, and that nothing is left there of one that failed.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf, absolute},
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

/// Removes a directory that is empty but for its lock; false if it stays.
pub(super) fn remove_emptied(directory: &Path) -> bool {
    // Nothing else of it is touched: it can be that of somebody else by now.
    let _gone = fs::remove_file(directory.join("LOCK"));
    match fs::remove_dir(directory) {
        Err(error) => error.kind() == ErrorKind::NotFound,
        Ok(()) => true,
    }
}

pub(super) fn disk_refuses(operation: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Repair(format!("{operation} {}: {error}", path.display()))
}
