//! A node's snapshot copied to a file, and one in a file given to a node that is not running.

use std::{
    ffi::OsString,
    fs,
    io::{self, ErrorKind::NotFound, Write as _},
    path::{Path, PathBuf},
};

use kontiki_snapshot::{Image, Store, StoreError};

use crate::{
    Options, Position, SnapshotCopyError,
    entropy::Entropy,
    snapshots::{self, IMAGES_DIRECTORY, IMAGES_KEPT, start},
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
/// and checked before it has that name. The node may be running. Where a newer one cannot be used an older one is copied, and
/// that is logged.
///
/// # Errors
/// [`NoSnapshot`](SnapshotCopyError::NoSnapshot) if it has taken none; [`File`](SnapshotCopyError::File) if the file is there
/// or cannot be written; [`Refused`](SnapshotCopyError::Refused) if there is no such node, or no snapshot of it is whole.
/// Nothing is left of the file then.
pub fn save_snapshot(
    directory: impl AsRef<Path>,
    file: impl AsRef<Path>,
) -> Result<SnapshotCopy, SnapshotCopyError> {
    let (directory, file) = (directory.as_ref(), file.as_ref());
    check_node(directory)?;
    // Before all of an image is copied for nothing.
    if file.exists() {
        return Err(unusable(file, &"it is there already"));
    }
    let images = directory.join(IMAGES_DIRECTORY);
    let shown = images.display().to_string();
    let found = match Store::look(&*kontiki_disk::real(), &images) {
        Err(StoreError::Io { source, .. }) if source.kind() == NotFound => Vec::new(),
        found => found.map_err(|error| refused(&images, &error))?,
    };
    let mut damage = None;
    for image in found {
        let checked = image.map_err(|damaged| damaged.error).and_then(|image| {
            image.verify()?;
            Ok(image)
        });
        match checked {
            Ok(image) => {
                copy(&image, file).map_err(|error| unusable(file, &error))?;
                return Ok(SnapshotCopy::of(&image));
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot cannot be used; an older one is looked for");
                damage = damage.or(Some(error));
            }
        }
    }
    Err(damage.map_or(SnapshotCopyError::NoSnapshot { directory: shown }, |error| {
        refused(&images, &error)
    }))
}

/// Writes the image under another name first: whoever finds `file` finds all of it.
fn copy(image: &Image, file: &Path) -> io::Result<()> {
    let temporary = Temporary::beside(file)?;
    let mut out = &temporary.file;
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = 0;
    while offset < image.bytes() {
        let count = image.read_piece(offset, &mut piece).map_err(io::Error::other)?;
        out.write_all(&piece[..count])?;
        offset += count as u64;
    }
    out.sync_all()?;
    let written = Image::open_copy(&*kontiki_disk::real(), &temporary.path);
    let checked = written.and_then(|copy| copy.verify());
    checked.map_err(|error| io::Error::other(format!("it does not read back: {error}")))?;
    // Unlike a renaming this takes no file's place.
    fs::hard_link(&temporary.path, file)?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    let synced = fs::File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
    synced.inspect_err(|_| drop(fs::remove_file(file)))
}

/// A file that was made here, and goes again.
struct Temporary {
    file: fs::File,
    path: PathBuf,
}

impl Temporary {
    /// Nobody else's: it must not be there.
    fn beside(file: &Path) -> io::Result<Self> {
        let mut name = OsString::from(file);
        name.push(format!(".{}.tmp", std::process::id()));
        let path = PathBuf::from(name);
        let file = fs::File::create_new(&path)?;
        Ok(Self { file, path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
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
    let disk = kontiki_disk::real();
    let image = Image::open_copy(&*disk, file).map_err(|error| unusable(file, &error))?;
    image.verify().map_err(|error| unusable(file, &error))?;
    snapshots::snapshot(image.header()).map_err(|reason| unusable(file, &reason))?;
    check_node(directory)?;
    let options = Options::default();
    // Not what its images make of it: to put back one that is damaged is what this is for as well.
    let node = Storage::open_log(directory, id, &options, None, &Entropy::System)?;
    let cluster = node.state.cluster.0;
    if cluster == 0 {
        return Err(refused(
            directory,
            &"its node has met no cluster yet: start it with its peers",
        ));
    }
    let mut store = start::open(&*disk, directory, cluster)?;
    set_damaged_aside(&mut store);
    let (first, place) = (node.log.first(), image.header().place);
    let is_newest = |known: &Image| place.is_newer_than(known.header().place);
    if store.images().first().is_none_or(is_newest) && place.index + 1 < first {
        let reason = format!(
            "its log begins at index {first}, and the snapshot ends at {}: take a newer one",
            place.index
        );
        return Err(refused(directory, &reason));
    }
    let taken = take_in(&mut store, &image, options.snapshot_bytes_max);
    taken.map_err(|error| match error {
        StoreError::Stale { newest, .. } => {
            refused(directory, &format!("it has a snapshot up to index {newest} already"))
        }
        error => refused(directory, &error),
    })?;
    // What is left of older ones goes at the next start's first snapshot.
    let _ = store.prune(IMAGES_KEPT);
    drop((store, node.log));
    if let Err(error) = node.wal.close() {
        tracing::warn!(%error, "the snapshot is loaded; the log did not close");
    }
    Ok(SnapshotCopy::of(&image))
}

fn check_node(directory: &Path) -> Result<(), SnapshotCopyError> {
    if directory.join(LOG_DIRECTORY).is_dir() {
        return Ok(());
    }
    Err(refused(directory, &"no node has ever been started there: check the path"))
}

/// What cannot be read to its end is no reason to refuse another one.
fn set_damaged_aside(store: &mut Store) {
    for image in store.images().to_vec() {
        if let Err(error) = image.verify() {
            store.set_aside(&image, error);
        }
    }
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
    Ok(())
}

fn unusable(file: &Path, reason: &dyn std::fmt::Display) -> SnapshotCopyError {
    SnapshotCopyError::File { file: file.display().to_string(), reason: reason.to_string() }
}

fn refused(directory: &Path, reason: &dyn std::fmt::Display) -> SnapshotCopyError {
    let directory = directory.display().to_string();
    SnapshotCopyError::Refused { directory, reason: reason.to_string() }
}

const PIECE_BYTES: usize = 256 << 10;
