//! What a start makes of the images and the log that it finds: which image the state machine begins with, and that the log goes
//! on where it ends.

use std::{
    io::{self, Read},
    path::Path,
    sync::{Arc, mpsc::channel},
    time::{Duration, Instant},
};

use kontiki_core::{HardState, Position, Snapshot, State};
use kontiki_disk::Disk;
use kontiki_snapshot::{Image, Reader, Store, StoreError};
use kontiki_wal::{AppendError, Log, Pending, Wal};

use crate::{
    StartError, StateMachine,
    snapshots::{self, IMAGES_DIRECTORY},
    storage::Storage,
};

/// The image that a start goes on from, whole.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) image: Image,
    pub(crate) snapshot: Snapshot,
}

/// Opens the images of a node below its `directory`, which are of `cluster`; 0 if it is of none yet.
pub(crate) fn open(disk: &dyn Disk, directory: &Path, cluster: u64) -> Result<Store, StartError> {
    let place = directory.join(IMAGES_DIRECTORY);
    let owner = snapshots::owner(cluster);
    let store = Store::open(disk, &place, (cluster != 0).then_some(owner));
    let store = store.map_err(|error| unusable(&place.display().to_string(), error))?;
    // RAFT-CASE 27: the log that knew of votes and terms is gone, so this is another node than the one that left them.
    if cluster == 0 && !(store.images().is_empty() && store.damaged().is_empty()) {
        let reason = "they are of a node whose log is not there any more";
        return Err(refused(&place.display().to_string(), &reason));
    }
    Ok(store)
}

/// The newest image that is whole. Reads all of it: what rots is found before the state machine has taken in a half.
///
/// RAFT-CASE 51: an older one serves only if the log goes on where it ends.
pub(crate) fn choose(
    store: &mut Store,
    log: &Log,
    place: &str,
) -> Result<Option<Base>, StartError> {
    let first = log.first();
    let mut told = store.damaged().first().map(|damaged| damaged.error.to_string());
    while let Some(image) = store.images().first().cloned() {
        match verify(&image) {
            Ok(()) => {
                let snapshot = snapshots::snapshot(image.header())
                    .map_err(|reason| refused(place, &format!("{}: {reason}", image.name())))?;
                if snapshot.at.index.0 + 1 < first {
                    told.get_or_insert_with(|| "a newer image is missing".to_owned());
                    break;
                }
                return Ok(Some(Base { image, snapshot }));
            }
            // A sector that cannot be read is no reason not to use another image.
            Err(error) => {
                tracing::error!(%error, "an image is damaged; an older one is looked for");
                told.get_or_insert_with(|| error.to_string());
                store.set_aside(&image, error);
            }
        }
    }
    if first == 1 && told.is_none() {
        return Ok(None);
    }
    if first == 1 {
        tracing::warn!(cause = told, "no image can be used; the whole log is replayed");
        return Ok(None);
    }
    let cause = told.unwrap_or_else(|| "there is none".to_owned());
    let reason =
        format!("the log begins at index {first}, and no whole image reaches that far: {cause}");
    Err(refused(place, &reason))
}

fn verify(image: &Image) -> Result<(), StoreError> {
    let mut progress = Progress::new(image.bytes());
    let verified = image.verify_telling(|read| {
        if let Some((read, total)) = progress.due(read) {
            tracing::info!(read, total, "verifies the newest snapshot, in bytes");
        }
    });
    verified.map(drop)
}

/// Lets the log go on where the image ends, if it does not: an image that came from a peer was made visible, and then the
/// process ended. Returns the state as it is then; what the log held is not committed, or in the image.
pub(crate) fn reconcile(
    wal: &Wal,
    log: &Log,
    snapshot: &Snapshot,
    state: State,
    place: &str,
) -> Result<State, StartError> {
    let at = snapshot.at;
    let state = with_configuration(state, snapshot);
    if log.term(at.index.0) == Some(at.term.0) {
        return Ok(state);
    }
    tracing::warn!(%at, last = log.last(), "the log goes on behind an image that it does not reach");
    let failed = |error: &dyn std::fmt::Display| {
        let text = format!("cannot let the log in {place} go on behind its snapshot: {error}");
        StartError::Io(Arc::new(io::Error::other(text)))
    };
    let durable = |append: &dyn Fn() -> Result<Pending, AppendError>| {
        let pending = when_ready(wal, log, append).map_err(|error| failed(&error))?;
        pending.wait().map_err(|error| failed(&error))
    };
    durable(&|| log.reset(at.index.0 + 1, at.term.0))?;
    durable(&|| log.set_state(state.encode()))?;
    Ok(state)
}

/// Appends as soon as there is room: right after an opening the next segment can still be in the making.
fn when_ready(
    wal: &Wal,
    log: &Log,
    append: &dyn Fn() -> Result<Pending, AppendError>,
) -> Result<Pending, AppendError> {
    loop {
        match append() {
            Err(AppendError::Full { .. }) => {}
            result => return result,
        }
        // Made here, unless a thread of the log is at it; then that says when. If it cannot be made, the next attempt says why.
        if !wal.work(Duration::ZERO) {
            let (room, is_there) = channel();
            log.on_room(move || {
                let _ = room.send(());
            });
            let _ = is_there.recv_timeout(ROOM_MAX);
        }
    }
}

/// Longer than the making of a segment takes.
const ROOM_MAX: Duration = Duration::from_secs(1);

/// RAFT-CASES 44, 50: the image's configuration takes the place of those at or before its end; and its term was seen.
fn with_configuration(mut state: State, snapshot: &Snapshot) -> State {
    let Position { term, index } = snapshot.at;
    state.configurations.retain(|(position, _)| position.index > index);
    state.configurations.insert(0, snapshot.configuration.clone());
    if state.hard.term < term {
        state.hard = HardState { term, vote: None };
    }
    state
}

/// Where a state machine begins.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    /// It holds everything up to here.
    pub(crate) at: Position,
    /// It keeps a disk of its own.
    pub(crate) keeps_itself: bool,
}

/// The state machine begins where its own disk stands, if the log goes on behind that; else where the image ends.
pub(crate) fn begin<S: StateMachine>(
    machine: &mut S,
    storage: &Storage,
) -> Result<Begun, StartError> {
    let own = machine.durable_position();
    let (keeps_itself, own) = (own.is_some(), own.unwrap_or_default());
    let (log, last) = (&storage.log, storage.log.last());
    if own.index > 0 && own.index + 1 >= log.first() {
        // It was given only what the log had on its disk.
        if log.term(own.index) != Some(own.term) {
            return Err(StartError::Gap { directory: storage.place.clone(), applied: own, last });
        }
        tracing::info!(%own, last, "the state machine goes on from its own disk");
        return Ok(Begun { at: Position::new(own.term, own.index), keeps_itself });
    }
    let Some(base) = &storage.base else { return Ok(Begun { keeps_itself, ..Begun::default() }) };
    restore(machine, base)?;
    Ok(Begun { at: base.snapshot.at, keeps_itself })
}

/// Gives the image to the state machine.
fn restore<S: StateMachine>(machine: &mut S, base: &Base) -> Result<(), StartError> {
    let begun = Instant::now();
    let progress = Progress::new(base.image.bytes());
    let mut image = Told { image: base.image.read(), read: 0, progress };
    let restored = machine.restore(&mut image);
    restored.map_err(|error| refused(base.image.name(), &error))?;
    let (at, took) = (base.snapshot.at, begun.elapsed());
    tracing::info!(%at, bytes = base.image.bytes(), ?took, "the state machine was restored");
    Ok(())
}

/// An image that is given to the state machine, which can take long.
struct Told {
    image: Reader,
    read: u64,
    progress: Progress,
}

impl Read for Told {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.image.read(into)?;
        self.read += count as u64;
        if let Some((read, total)) = self.progress.due(self.read) {
            tracing::info!(read, total, "restores the state machine, in bytes");
        }
        Ok(count)
    }
}

/// How far something is that can take long, told once a second.
struct Progress {
    total: u64,
    told_at: Instant,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self { total, told_at: Instant::now() }
    }

    /// What is to be told now, if anything: that, and of how many.
    fn due(&mut self, done: u64) -> Option<(u64, u64)> {
        if self.told_at.elapsed() < Duration::from_secs(1) {
            return None;
        }
        self.told_at = Instant::now();
        Some((done, self.total))
    }
}

/// What the disk does not give now it may give later; the rest stays as it is.
fn unusable(place: &str, error: StoreError) -> StartError {
    match &error {
        StoreError::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock => {
            StartError::Locked { directory: place.to_owned(), holder: None }
        }
        StoreError::Io { source, .. } => {
            StartError::Io(Arc::new(io::Error::new(source.kind(), error.to_string())))
        }
        _ => refused(place, &error),
    }
}

fn refused(place: &str, reason: &dyn std::fmt::Display) -> StartError {
    StartError::Snapshot { place: place.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests;
