//! A node's snapshot copied to a file, and one in a file given to a node that is not running.

use std::{
    ffi::OsString,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use kontiki_snapshot::{Image, Store, StoreError};

use crate::{
    Options, Position, SnapshotCopyError, StartError,
    entropy::Entropy,
    snapshots::{self, IMAGES_DIRECTORY, IMAGES_KEPT},
    storage::{LOG_DIRECTORY, Storage},
};

/// A snapshot that was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotCopy {
    /// The cluster that it is of.
    pub cluster: u64,
    /// The last entry that it contains.
    pub position: Position,
    /// Of its file.
    pub bytes: u64,
}

impl SnapshotCopy {
    fn of(image: &Image) -> Self {
        let position = snapshots::position(image.header().place).into();
        Self { cluster: image.header().cluster, position, bytes: image.bytes() }
    }
}

/// Copies the newest whole snapshot of the node whose directory this is to `file`, which must not be there yet: durable, read back
/// and checked before it has that name. The node may be running.
///
/// # Errors
/// [`NoSnapshot`](SnapshotCopyError::NoSnapshot) if it has taken none; [`File`](SnapshotCopyError::File) if the file is there
/// or cannot be written; [`Refused`](SnapshotCopyError::Refused) if no snapshot of the node is whole. Nothing is left of the
/// file then.
pub fn save_snapshot(
    directory: impl AsRef<Path>,
    file: impl AsRef<Path>,
) -> Result<SnapshotCopy, SnapshotCopyError> {
    let (directory, file) = (directory.as_ref().join(IMAGES_DIRECTORY), file.as_ref());
    let shown = directory.display().to_string();
    if file.exists() {
        return Err(unusable(file, &"it is there already"));
    }
    let images = match Store::look(&*kontiki_disk::real(), &directory) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        Err(error) => return Err(refused(&shown, &error)),
        Ok(images) => images,
    };
    let mut damage = None;
    for image in images {
        match copy(&image, file) {
            Ok(()) => return Ok(SnapshotCopy::of(&image)),
            Err(CopyError::Damaged(error)) => damage = damage.or(Some(error)),
            Err(CopyError::Io(error)) => return Err(unusable(file, &error)),
        }
    }
    Err(match damage {
        Some(error) => refused(&shown, &error),
        None => SnapshotCopyError::NoSnapshot { directory: shown },
    })
}

enum CopyError {
    Damaged(StoreError),
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes the image under another name first: whoever finds `file` finds all of it.
fn copy(image: &Image, file: &Path) -> Result<(), CopyError> {
    let temporary = Temporary::beside(file);
    let mut out = fs::File::create(&temporary.0)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < image.bytes() {
        let count = image.read_piece(offset, &mut piece).map_err(CopyError::Damaged)?;
        out.write_all(&piece[..count])?;
        offset += count as u64;
    }
    out.sync_all()?;
    let written = Image::open_copy(&*kontiki_disk::real(), &temporary.0);
    written.and_then(|copy| copy.verify()).map_err(CopyError::Damaged)?;
    fs::rename(&temporary.0, file)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// A file that goes again, unless it has another name by then.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(file: &Path) -> Self {
        let mut name = OsString::from(file);
        name.push(".tmp");
        Self(name.into())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Gives node `id`, whose directory this is and which is not running, the snapshot in `file`: its next start goes on from it. So
/// what a network is too slow for can come on a disk. The snapshot is one of the node's own cluster, newer than those that it
/// has; all of it is read and checked before anything is changed.
///
/// # Errors
/// [`File`](SnapshotCopyError::File) if the file is not a whole snapshot; [`Refused`](SnapshotCopyError::Refused) if it is not one
/// for this node; [`Start`](SnapshotCopyError::Start) if the directory cannot be opened: the node is running, say. The node
/// has what it had then.
pub fn load_snapshot(
    id: u64,
    directory: impl AsRef<Path>,
    file: impl AsRef<Path>,
) -> Result<SnapshotCopy, SnapshotCopyError> {
    let (directory, file) = (directory.as_ref(), file.as_ref());
    let shown = directory.display().to_string();
    let image = Image::open_copy(&*kontiki_disk::real(), file).map_err(|e| unusable(file, &e))?;
    image.verify().map_err(|error| unusable(file, &error))?;
    snapshots::snapshot(image.header()).map_err(|reason| unusable(file, &reason))?;
    if !directory.join(LOG_DIRECTORY).is_dir() {
        return Err(refused(&shown, &"no node has ever been started there"));
    }
    let options = Options::default();
    let mut storage = Storage::open_with(directory, id, &options, None, &Entropy::System)?;
    if storage.state.cluster.0 == 0 {
        return Err(refused(&shown, &"its node has not met its cluster yet"));
    }
    let mut store = storage.store.take().expect("an open node has its images");
    take_in(&mut store, &image, options.snapshot_bytes_max)
        .map_err(|error| refused(&shown, &error))?;
    drop((store, storage.base, storage.log));
    storage.wal.close().map_err(|error| {
        StartError::Io(std::sync::Arc::new(io::Error::other(error.to_string())))
    })?;
    Ok(SnapshotCopy::of(&image))
}

/// As if it came from a peer.
fn take_in(store: &mut Store, image: &Image, bytes_max: u64) -> Result<(), StoreError> {
    let mut receiver = store.receive(image.offer(), bytes_max)?;
    let mut piece = vec![0; PIECE_BYTES];
    while receiver.received() < image.bytes() {
        let count = image.read_piece(receiver.received(), &mut piece)?;
        receiver.append(receiver.received(), &piece[..count])?;
    }
    let finished = receiver.finish()?;
    store.publish(finished)?;
    store.prune(IMAGES_KEPT)?;
    Ok(())
}

fn unusable(file: &Path, reason: &dyn std::fmt::Display) -> SnapshotCopyError {
    SnapshotCopyError::File { file: file.display().to_string(), reason: reason.to_string() }
}

fn refused(directory: &str, reason: &dyn std::fmt::Display) -> SnapshotCopyError {
    SnapshotCopyError::Refused { directory: directory.to_owned(), reason: reason.to_string() }
}

const PIECE_BYTES: usize = 256 << 10;
