//! What probes that were killed have left in a directory. A probe holds a lock on its own as long as it lives.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::probe::ProbeArguments;

/// A directory of a probe that is gone.
#[derive(Debug)]
struct Stale {
    path: PathBuf,
    bytes: u64,
}

/// Makes the directory of this probe below `directory`, and its lock, which lasts as long as the file is open.
pub(crate) fn make_own(directory: &Path) -> io::Result<(TempDir, File)> {
    let own = tempfile::Builder::new().prefix(PREFIX).tempdir_in(directory)?;
    let lock = File::open(own.path())?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok((own, lock))
}

/// Finds what killed probes have left, and removes it if it is told to; what is said of what stays.
pub(crate) fn clean(arguments: &ProbeArguments) -> io::Result<Vec<String>> {
    let mut stays = Vec::new();
    for Stale { path, bytes } in find(&arguments.directory)? {
        let what =
            format!("{}, {} MiB, was left by a probe that was killed", path.display(), bytes >> 20);
        if !arguments.clean {
            stays.push(format!("{what}: probe --clean removes it"));
            continue;
        }
        match fs::remove_dir_all(&path) {
            Ok(()) => {
                let _unheard = writeln!(io::stderr(), "wal-inspect: {what}, and is removed");
            }
            Err(error) => stays.push(format!("{what}, and cannot be removed: {error}")),
        }
    }
    Ok(stays)
}

/// Those below `directory`, by name; of one whose lock cannot be asked for nobody knows.
fn find(directory: &Path) -> io::Result<Vec<Stale>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_probes = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_probes || !entry.file_type()?.is_dir() {
            continue;
        }
        let path = entry.path();
        let is_free = File::open(&path)
            .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_free {
            found.push(Stale { bytes: bytes_below(&path), path });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// What cannot be looked at is not counted.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// What the names of such directories begin with.
const PREFIX: &str = "kontiki-probe-";
