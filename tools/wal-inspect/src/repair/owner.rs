//! Whose the files are that a repair makes: of those who own the log, so that its writer can use them.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, Metadata},
    io::{self, Write},
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use crate::outcome::Failure;

/// User and group of a log's directory, and of each file in it.
#[derive(Debug)]
pub(super) struct Owners {
    directory: (u32, u32),
    files: BTreeMap<OsString, (u32, u32)>,
}

impl Owners {
    /// As they are now.
    pub(super) fn of(directory: &Path) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            files.insert(entry.file_name(), owner(&entry.metadata()?));
        }
        Ok(Self { directory: owner(&fs::metadata(directory)?), files })
    }

    /// Gives them the files of `directory`, which is the log's own or one that was made of it: what has a name that the log
    /// knew to its owner, and all else to the directory's. Says on standard error what may not be given away.
    pub(super) fn take(&self, directory: &Path) {
        self.take_one(directory, self.directory);
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let wanted = self.files.get(&entry.file_name()).unwrap_or(&self.directory);
            self.take_one(&entry.path(), *wanted);
        }
    }

    fn take_one(&self, path: &Path, (user, group): (u32, u32)) {
        // What is gone needs no owner.
        let Ok(metadata) = fs::symlink_metadata(path) else { return };
        if owner(&metadata) == (user, group) {
            return;
        }
        if let Err(error) = chown(path, Some(user), Some(group)) {
            let path = path.display();
            let line = format!("{path} is not {user}:{group}'s, as the log is: {error}; chown it");
            let _unheard = writeln!(io::stderr(), "wal-inspect: {line}");
        }
    }
}

fn owner(metadata: &Metadata) -> (u32, u32) {
    (metadata.uid(), metadata.gid())
}
