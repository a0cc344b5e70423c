//! Copies of the files that a cut changes or removes, in a new directory beside the log's.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use kontiki_disk::{Access, Directory, Disk};

use crate::{
    OpenError,
    recovery::{lock, repair::sync, scan::io_error},
    repair::Mark,
};

/// The file that is made last: a backup without it was not finished, and nothing was changed then.
const LIST_NAME: &str = "BACKUP.txt";
/// What is in it, at its beginning.
const LIST_START: &str = "Segments of ";

/// The directory that a backup would be made in: beside the log's, the first of its names in which nothing is.
pub(super) fn place(disk: &dyn Disk, original: &dyn Directory) -> Result<PathBuf, OpenError> {
    let original = original.path();
    let refused = |kind, reason| {
        let path = original.display().to_string();
        io_error("make a backup of", &path, io::Error::new(kind, reason))
    };
    let mut paths = paths(original).peekable();
    if paths.peek().is_none() {
        let reason = "its path does not end in a name that is text";
        return Err(refused(io::ErrorKind::InvalidInput, reason));
    }
    let is_free = |path: &PathBuf| match disk.open_directory(path, Access::Read) {
        // What is left of one that failed is taken again.
        Ok(there) => there.list().is_ok_and(|files| files.is_empty()),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    };
    let reason = "too many backups of it are there";
    paths.find(is_free).ok_or_else(|| refused(io::ErrorKind::AlreadyExists, reason))
}

/// Says which backups beside `path` are older and were finished: a cut that goes on with one that was stopped copies files
/// that are half cut.
fn older(disk: &dyn Disk, original: &Path, path: &Path) -> String {
    let is_finished = |path: &PathBuf| {
        let mut start = [0; LIST_START.len()];
        let list = disk.open_directory(path, Access::Read).and_then(|found| found.open(LIST_NAME));
        list.and_then(|list| list.read_at(0, &mut start)).is_ok() && start == *LIST_START.as_bytes()
    };
    let before = paths(original).take_while(|other| other != path).filter(is_finished);
    let names: Vec<String> = before.map(|path| path.display().to_string()).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "Older backups are there: {}.\n\
         If this cut went on with one that failed or was stopped, files here are half cut already:\n\
         then copy those of its older backups over them, the one with the lowest number last.\n",
        names.join(", ")
    )
}

/// The directories that backups are made in, in their order; none if the path does not end in a name that is text.
fn paths(original: &Path) -> impl Iterator<Item = PathBuf> {
    let name = original.file_name().and_then(OsStr::to_str);
    name.into_iter().flat_map(move |name| {
        (1..=BACKUPS_MAX)
            .map(move |number| original.with_file_name(format!("{name}.backup-{number}")))
    })
}

/// Copies the files `names` of `original` to `path`, durably, and at last the list of them; the directory of the copies.
/// Nothing is left in it after an error, as far as the disk takes that.
pub(super) fn make(
    disk: &dyn Disk,
    original: &dyn Directory,
    path: &Path,
    names: &[String],
) -> Result<Arc<dyn Directory>, OpenError> {
    let backup = lock(disk, path)?;
    let made = copy_all(original, &*backup, names, &older(disk, original.path(), path));
    made.inspect_err(|_| remove(&*backup))?;
    Ok(backup)
}

/// Takes a backup away of which nothing is needed; what cannot be removed stays.
pub(super) fn remove(backup: &dyn Directory) {
    let names = backup.list().unwrap_or_default();
    // First what says that it is whole.
    let list_first = names.iter().map(|(name, _)| name).filter(|name| *name == LIST_NAME);
    for name in list_first.chain(names.iter().map(|(name, _)| name)) {
        let _gone = backup.remove(name);
    }
    let _synced = backup.sync();
}

fn copy_all(
    original: &dyn Directory,
    backup: &dyn Directory,
    names: &[String],
    older: &str,
) -> Result<(), OpenError> {
    let undo_mark = match Mark::read(original)? {
        None => "remove REPAIR there",
        Some(_) => "leave REPAIR there as it is: it tells of an earlier repair, too",
    };
    let mut list = format!(
        "{LIST_START}{} before it was cut. To undo the cut while nothing was appended since, copy\n\
         them (*.wal, nothing else) back over the files of the same names, and {undo_mark}.\n{older}\
         What `cksum *.wal` prints here:\n",
        original.path().display(),
    );
    let mut names: Vec<&String> = names.iter().collect();
    names.sort_unstable();
    for name in names {
        let (bytes, checksum) = copy(original, backup, name)?;
        list.push_str(&format!("{checksum} {bytes} {name}\n"));
    }
    // Names are kept or lost one by one: the list's must not be kept without those in it.
    sync(backup)?;
    let write = || {
        let file = backup.create(LIST_NAME, list.len() as u64)?;
        file.write_at(0, &[list.as_bytes()])?;
        file.sync()
    };
    write().map_err(|source| io_error("write", &in_directory(backup.path(), LIST_NAME), source))?;
    sync(backup)
}

/// Copies one file; its length, and the checksum of what was copied, as cksum prints them.
fn copy(from: &dyn Directory, to: &dyn Directory, name: &str) -> Result<(u64, u32), OpenError> {
    let read_failed = |source| io_error("read", name, source);
    let write_failed = |source| io_error("write", &in_directory(to.path(), name), source);
    let source = from.open(name).map_err(read_failed)?;
    let copy = to.create(name, source.len()).map_err(write_failed)?;
    let mut checksum = Checksum::new();
    let mut offset = 0;
    while offset < source.len() {
        let step = (source.len() - offset).min(STEP_BYTES);
        let mut bytes = vec![0; usize::try_from(step).expect("64-bit only")];
        source.read_at(offset, &mut bytes).map_err(read_failed)?;
        copy.write_at(offset, &[&bytes]).map_err(write_failed)?;
        checksum.update(&mut bytes);
        offset += step;
    }
    copy.sync().map_err(write_failed)?;
    Ok((source.len(), checksum.finish(source.len())))
}

/// The checksum of the command cksum, as POSIX has it: CRC-32 from the highest bit on, of the bytes and then of their number.
/// That is the CRC of the crate, from the lowest bit on, with the bits of each byte and of the sum the other way round.
struct Checksum(crc32fast::Hasher);

impl Checksum {
    fn new() -> Self {
        // Begins with zeros, where the crate's begins with ones.
        Self(crc32fast::Hasher::new_with_initial(u32::MAX))
    }

    /// Leaves the bits of `bytes` turned round.
    fn update(&mut self, bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        self.0.update(bytes);
    }

    fn finish(mut self, length: u64) -> u32 {
        let mut number = length.to_le_bytes();
        let used = number.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        self.update(&mut number[..used]);
        self.0.finalize().reverse_bits()
    }
}

fn in_directory(directory: &Path, name: &str) -> String {
    directory.join(name).display().to_string()
}

const STEP_BYTES: u64 = 1 << 20;
const BACKUPS_MAX: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What cksum prints of the same bytes.
    #[test]
    fn the_checksum_is_that_of_cksum() {
        for (bytes, expected) in [
            (&b""[..], 4_294_967_295),
            (b"123456789", 930_766_865),
            (&[b'a'; 70_000], 3_508_083_167),
        ] {
            let mut checksum = Checksum::new();
            let mut bytes = bytes.to_vec();
            let third = bytes.len() / 3;
            let (first, second) = bytes.split_at_mut(third);
            checksum.update(first);
            checksum.update(second);
            assert_eq!(checksum.finish((first.len() + second.len()) as u64), expected);
        }
    }
}
