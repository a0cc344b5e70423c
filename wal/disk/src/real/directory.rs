//! A directory of the machine's disk.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use rustix::{fs::OFlags, io::Errno};

use super::{
    WriteMode,
    file::{RealFile, RealGrowingFile, allocate},
    limit::{make_room, with_room},
    lock::Lock,
};
use crate::{
    LOCK_NAME, check_name, read_only,
    seam::{Directory, File, GrowingFile},
};

/// An open directory.
#[derive(Debug)]
pub(super) struct RealDirectory {
    path: PathBuf,
    /// The directory itself, for its syncs.
    handle: fs::File,
    /// `None`: opened for reading.
    lock: Option<Arc<Lock>>,
    mode: WriteMode,
    /// Every file that is open or in view, by device and inode: so a file has one handle, and one
    /// end of what is published, however often it is opened and whatever its name is by now.
    files: Mutex<HashMap<(u64, u64), Weak<RealFile>>>,
}

impl RealDirectory {
    pub(super) fn open(
        path: PathBuf,
        lock: Option<Arc<Lock>>,
        mode: WriteMode,
    ) -> io::Result<Self> {
        let handle = with_room(|| fs::File::open(&path))?;
        if !handle.metadata()?.is_dir() {
            let message = format!("{} is no directory", path.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
        }
        Ok(Self { path, handle, lock, mode, files: Mutex::default() })
    }

    /// The one handle of a file that was just opened.
    fn share(&self, file: fs::File, name: &str) -> io::Result<Arc<RealFile>> {
        make_room(&file);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(not_plain(name));
        }
        // While a handle lives its inode is not given to another file.
        let inode = (metadata.dev(), metadata.ino());
        let mut files = self.files.lock();
        if let Some(shared) = files.get(&inode).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        // Before the table grows: so each file is looked at a few times, however many are open.
        if files.len() == files.capacity() {
            files.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared =
            Arc::new(RealFile::new(file, name, self.lock.clone(), self.mode, metadata.len()));
        files.insert(inode, Arc::downgrade(&shared));
        Ok(shared)
    }

    /// Where `name` lies, if it is one.
    fn locate(&self, name: &str) -> io::Result<PathBuf> {
        check_name(name)?;
        Ok(self.path.join(name))
    }

    /// As [`Self::locate`], for a change. The sync of the directory goes to the one that was opened, and so must every name:
    /// if that was moved away, nothing is made in another one that lies in its place.
    fn locate_writable(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.locate(name)?;
        if self.lock.is_none() {
            return Err(read_only(&self.path.display().to_string()));
        }
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        if identity(fs::metadata(&self.path)?) != identity(self.handle.metadata()?) {
            let message = format!("another directory lies at {}", self.path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        Ok(path)
    }
}

impl Directory for RealDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Names that are no text are not ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name == LOCK_NAME || !entry.file_type()?.is_file() {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) => files.push((name, metadata.len())),
                // Removed by the writer meanwhile: a reader takes no lock.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        let path = self.locate_writable(name)?;
        let file = create_new(&path)?;
        if let Err(error) = allocate(&file, bytes) {
            // The cause is what the caller has to know; a file that stays is found by `list`.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(self.share(file, name)?)
    }

    fn create_growing(&self, name: &str) -> io::Result<Box<dyn GrowingFile>> {
        let file = create_new(&self.locate_writable(name)?)?;
        Ok(Box::new(RealGrowingFile::new(file, self.lock.clone())))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let path = self.locate(name)?;
        let mut options = fs::OpenOptions::new();
        options.read(true).write(self.lock.is_some()).custom_flags(PLAIN);
        let file =
            with_room(|| options.open(&path)).map_err(|error| match error.raw_os_error() {
                Some(raw) if raw == Errno::LOOP.raw_os_error() => not_plain(name),
                _ => error,
            })?;
        Ok(self.share(file, name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.locate_writable(from)?, self.locate_writable(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.locate_writable(name)?)
    }

    fn is_locked(&self) -> io::Result<bool> {
        Lock::is_held(&self.path)
    }

    fn lock_holder(&self) -> Option<u32> {
        Lock::holder(&self.path)
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

fn create_new(path: &Path) -> io::Result<fs::File> {
    let options = fs::OpenOptions::new().read(true).write(true).create_new(true).clone();
    with_room(|| options.open(path))
}

fn not_plain(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no plain file"))
}

/// As for [`Directory::list`], a link is no plain file: one that leads nowhere would look like a name that is free. And a pipe
/// is none: to open one would wait until somebody else does.
pub(super) const PLAIN: i32 = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed();

/// Makes a directory and the parents it lacks; each is durable before the next one is made in it.
///
/// The lowest one that is there already may have been left behind by a process that was stopped
/// before it synced the parent, so that entry is made durable here, too.
pub(super) fn create_synced(path: &Path) -> io::Result<()> {
    let parent = path.parent();
    if path.is_dir() {
        return match parent.map(sync_directory) {
            // Whoever may not even look into the parent has not made the directory there.
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Some(result) => result,
            None => Ok(()),
        };
    }
    if let Some(parent) = parent {
        create_synced(parent)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // What was asked for can lie far below it.
            let parent = parent.unwrap_or(path).display();
            let message = format!("{error}: nothing may be made in {parent}");
            return Err(io::Error::new(error.kind(), message));
        }
        made => made?,
    }
    parent.map_or(Ok(()), sync_directory)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
