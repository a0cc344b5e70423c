//! The seam: what the rooms above may ask of a disk, and nothing else.
//!
//! IO is done as jobs. A component's `begin()` makes a value that says what is to be done, the
//! job's `run` calls nothing but this seam (no lock held, nothing decided), and
//! `finish(job, result)` takes the outcome in. So a simulator can run, delay, fail or drop any of
//! them, in any order that the component allows.
//!
//! What makes what durable: [`File::sync`] the bytes and the length of one file,
//! [`Directory::sync`] the names. Neither does the other's work.

use std::{fmt::Debug, io, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;

/// How a directory is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To change it. Creates the directory where it is missing, its parents too, each made durable
    /// by a sync of the one above it; then takes its lock: one writer at a time.
    Write,
    /// To look only: takes no lock, creates nothing, changes nothing. Files opened through it
    /// refuse [`File::write_at`] with `PermissionDenied` and panic at [`File::publish`].
    Read,
}

/// A disk: gives out directories.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Opens a directory.
    ///
    /// The lock of [`Access::Write`] lives in the handle, in every file opened through it and in
    /// every view of such a file; it is released with the last of them, or with the process.
    ///
    /// # Errors
    /// `WouldBlock` if someone holds the lock, this process included; `NotFound` for
    /// [`Access::Read`] if there is no such directory; otherwise what the system says.
    fn open_directory(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Directory>>;
}

/// One directory and the files in it. Names are plain file names; none is `LOCK`, which is the
/// directory's own.
///
/// Nothing done here is durable before [`sync`](Directory::sync), and until then each create,
/// rename and remove survives a power cut or not, by itself.
pub trait Directory: Debug + Send + Sync + 'static {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;

    /// Names and lengths in bytes of its files, sorted by name, without the lock file and without
    /// anything that is no plain file.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Makes a file of `bytes` zeros whose space is allocated: by the file system, or as written
    /// zeros where it cannot do that. The length is durable after the file's first sync.
    ///
    /// # Errors
    /// `AlreadyExists` if the name is taken; `StorageFull` or `QuotaExceeded` if there is no
    /// space: then no file remains; `PermissionDenied` through [`Access::Read`]; `InvalidInput`
    /// if the name is no plain one; otherwise what the system says.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>>;

    /// Makes an empty file that grows as it is written, for what is written once, from its beginning to its end, and only read
    /// from then on.
    ///
    /// # Errors
    /// As for [`create`](Directory::create).
    fn create_growing(&self, name: &str) -> io::Result<Box<dyn GrowingFile>>;

    /// Opens an existing file. While a handle or a view of a file lives, opening it again gives
    /// the same handle, so that what was published stays published.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidInput` if the name is no plain one, or what has it no plain
    /// file, but a link, say; otherwise what the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Renames a file, in one step, over whatever has the new name.
    ///
    /// # Errors
    /// `NotFound` if there is no `from`; `PermissionDenied` through [`Access::Read`];
    /// `InvalidInput` if a name is no plain one; otherwise what the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Handles and views of the file stay valid.
    ///
    /// # Errors
    /// `NotFound` if there is none; `PermissionDenied` through [`Access::Read`]; `InvalidInput` if
    /// the name is no plain one; otherwise what the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// True while someone holds the lock of [`Access::Write`], this process included. Takes it for
    /// a moment to find out, shared, so a writer that starts in that moment can be refused.
    ///
    /// # Errors
    /// What the system says.
    fn is_locked(&self) -> io::Result<bool>;

    /// The process that has written its number down as the lock's holder: the one that holds it while
    /// [`is_locked`](Self::is_locked) says that somebody does, and else the last one, if that is known.
    fn lock_holder(&self) -> Option<u32> {
        None
    }

    /// Makes every create, rename and remove so far durable.
    ///
    /// # Errors
    /// What the system says; then it is unknown which of them are durable.
    fn sync(&self) -> io::Result<()>;
}

/// A new file that is written from its beginning to its end. Who reads it opens it by its name, and finds a [`File`] of the length
/// that it has by then.
pub trait GrowingFile: Debug + Send {
    /// Length in bytes: of all that was appended.
    fn len(&self) -> u64;

    /// True if nothing was appended.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes `parts` one behind the other at the end. Nothing of it is durable before [`sync`](GrowingFile::sync), and until
    /// then each sector of it survives a power cut or not, by itself, and the length as well.
    ///
    /// # Errors
    /// `StorageFull` if there is no space; otherwise what the system says. Then any part may have been written, and the file
    /// is of no use any more.
    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()>;

    /// Makes all that was appended durable, and the length with it.
    ///
    /// # Errors
    /// As for [`File::sync`].
    fn sync(&self) -> io::Result<()>;
}

/// One file of a fixed length.
pub trait File: Debug + Send + Sync + 'static {
    /// Length in bytes; does not change.
    fn len(&self) -> u64;

    /// True if the length is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `into` from `offset`, through the file and never through a map: a medium error is
    /// an error here, not a signal.
    ///
    /// # Errors
    /// `UnexpectedEof` if the range ends past the file; otherwise what the system says.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes `parts` one behind the other from `offset` on. What is written can be read at once;
    /// nothing of it is durable before [`sync`](File::sync), and until then each sector of it
    /// survives a power cut or not, by itself.
    ///
    /// # Errors
    /// `PermissionDenied` through [`Access::Read`]; otherwise what the system says: then any part
    /// may have been written.
    ///
    /// # Panics
    /// If it begins below what was published, since a view must never change, or ends past the
    /// file.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()>;

    /// Makes every write that returned before this call durable (fdatasync).
    ///
    /// # Errors
    /// What the system says. Then what was not durable before may be lost, although it can still
    /// be read, and although a later sync succeeds: only writing it again makes it durable.
    fn sync(&self) -> io::Result<()>;

    /// Promises that nothing below `end` is written again while this handle or a view of the file
    /// lives; lets [`view`](File::view) show it. A smaller `end` than before changes nothing.
    ///
    /// # Panics
    /// If `end` lies past the file, or the directory was opened with [`Access::Read`].
    fn publish(&self, end: u64);

    /// The bytes of `range`: without a copy where the disk can lend its map. They stay valid and
    /// unchanged after the handle is dropped and the file removed.
    ///
    /// # Errors
    /// What the system says, where it refuses a map.
    ///
    /// # Panics
    /// If `range` ends past what was published, or starts behind its end.
    fn view(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes>;
}
