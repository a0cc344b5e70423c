//! Whose the files are that a repair makes: of those who own the log, so that its writer can use them.
//!
//! Who owns the log's directory can put anything into it while root repairs. So a file is looked at and given away by its
//! handle, never by a path or through a link, and only if it has a name that a repair uses and was made by this user.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, fchown},
    },
    path::Path,
};

use kontiki_wal::repair::Mark;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, open, openat, statat},
    process::geteuid,
};

use crate::outcome::Failure;

/// User and group of a log's directory, and of each file in it.
#[derive(Debug)]
pub(super) struct Owners {
    /// The log's directory itself: another one can lie at its path later.
    log: File,
    directory: (u32, u32),
    files: BTreeMap<OsString, (u32, u32)>,
}

impl Owners {
    /// As they are now.
    pub(super) fn of(directory: &Path) -> Result<Self, Failure> {
        let log = File::open(directory)?;
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            files.insert(entry.file_name(), owner(&entry.metadata()?));
        }
        Ok(Self { directory: owner(&log.metadata()?), log, files })
    }

    /// Gives them what a repair has made in the log's own directory, which lies at `path`: what has a name that the log knew to
    /// its owner, and all else to the directory's. Says on standard error what may not be given away.
    pub(super) fn take_log(&self, path: &Path) {
        self.take_files(&self.log, path);
    }

    /// The same of a directory that was made of the log, and the directory.
    pub(super) fn take(&self, path: &Path) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(directory) => {
                let directory = File::from(directory);
                // First what lies in it: nobody can put anything there as long as it is this user's.
                self.take_files(&directory, path);
                tell(path, self.directory, give(&directory, self.directory));
            }
            // What is gone needs no owner.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => tell(path, self.directory, Err(not_ours())),
        }
    }

    fn take_files(&self, directory: &File, path: &Path) {
        for entry in Dir::read_from(directory).into_iter().flatten().flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_of_a_repair(name) {
                let wanted = *self.files.get(name).unwrap_or(&self.directory);
                tell(&path.join(name), wanted, give_file(directory, name, wanted));
            }
        }
    }
}

/// Whether a repair can have made a file of this name.
fn is_of_a_repair(name: &OsStr) -> bool {
    let is_segment = Path::new(name).extension().is_some_and(|extension| extension == "wal");
    is_segment || [Mark::FILE, "REPAIR.new", "LOCK", "BACKUP.txt"].iter().any(|&own| name == own)
}

fn give_file(directory: &File, name: &OsStr, wanted: (u32, u32)) -> io::Result<()> {
    let found = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    if !is_file || (found.st_uid, found.st_gid) == wanted {
        return Ok(());
    }
    // Another one can have taken its name by now, and may not keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = openat(directory, name, flags, Mode::empty());
    let file = File::from(opened.map_err(|_| not_ours())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(not_ours());
    }
    give(&file, wanted)
}

/// Gives away what this user made.
fn give(file: &File, (user, group): (u32, u32)) -> io::Result<()> {
    let metadata = file.metadata()?;
    if owner(&metadata) == (user, group) {
        return Ok(());
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(not_ours());
    }
    fchown(file, Some(user), Some(group))
        .map_err(|error| io::Error::other(format!("{error}; chown it")))
}

fn not_ours() -> io::Error {
    io::Error::other("this repair did not make it; look at what it is")
}

fn tell(path: &Path, (user, group): (u32, u32), given: io::Result<()>) {
    if let Err(error) = given {
        let path = path.display();
        let line = format!("{path} is not {user}:{group}'s, as the log is: {error}");
        let _unheard = writeln!(io::stderr(), "wal-inspect: {line}");
    }
}

fn owner(metadata: &Metadata) -> (u32, u32) {
    (metadata.uid(), metadata.gid())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;

    const LOG_OWNER: (u32, u32) = (54_321, 54_322);

    /// What the log's owner puts into its directory, and into that of a backup, while root repairs.
    #[test]
    fn nothing_is_given_away_that_the_repair_did_not_make() {
        if !geteuid().is_root() {
            println!("skipped: only root can give files away");
            return;
        }
        let room = tempfile::tempdir().unwrap();
        let (log, backup) = (room.path().join("log"), room.path().join("log.backup-1"));
        let secret = room.path().join("secret");
        fs::write(&secret, "root's").unwrap();
        fs::create_dir(&log).unwrap();
        chown(&log, Some(LOG_OWNER.0), Some(LOG_OWNER.1)).unwrap();
        let owners = Owners::of(&log).unwrap();
        fs::create_dir(&backup).unwrap();
        for directory in [&log, &backup] {
            for name in ["x", "LOCK", "REPAIR", "1.wal"] {
                symlink(&secret, directory.join(name)).unwrap();
                lchown(directory.join(name), Some(LOG_OWNER.0), Some(5678)).unwrap();
            }
            fs::hard_link(&secret, directory.join("2.wal")).unwrap();
            fs::write(directory.join("notes"), "root's, too").unwrap();
            fs::write(directory.join("3.wal"), "made by the repair").unwrap();
        }
        owners.take_log(&log);
        owners.take(&backup);
        let owner_of = |path: &Path| owner(&fs::symlink_metadata(path).unwrap());
        assert_eq!(owner_of(&secret), (0, 0), "root's file was given away");
        for directory in [&log, &backup] {
            assert_eq!(owner_of(&directory.join("notes")), (0, 0));
            assert_eq!(owner_of(&directory.join("x")), (LOG_OWNER.0, 5678));
            assert_eq!(owner_of(&directory.join("3.wal")), LOG_OWNER);
            assert_eq!(owner_of(directory), LOG_OWNER);
        }
    }

    /// Another directory can lie at the path of the log, or of what was made of it, when it is over.
    #[test]
    fn a_directory_that_was_exchanged_stays_as_it_is() {
        if !geteuid().is_root() {
            println!("skipped: only root can give files away");
            return;
        }
        let room = tempfile::tempdir().unwrap();
        let (log, private) = (room.path().join("log"), room.path().join("private"));
        fs::create_dir(&log).unwrap();
        chown(&log, Some(LOG_OWNER.0), Some(LOG_OWNER.1)).unwrap();
        let owners = Owners::of(&log).unwrap();
        fs::create_dir(&private).unwrap();
        fs::write(private.join("REPAIR"), "root's").unwrap();
        fs::rename(&log, room.path().join("aside")).unwrap();
        symlink(&private, &log).unwrap();
        owners.take_log(&log);
        owners.take(&log);
        for path in [private.join("REPAIR"), private] {
            assert_eq!(owner(&fs::metadata(path).unwrap()), (0, 0));
        }
    }
}
