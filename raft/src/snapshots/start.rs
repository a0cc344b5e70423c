//! What a start makes of the images and the log that it finds: which image the state machine begins with, and that the log goes
//! on where it ends.

use std::{io, path::Path, sync::Arc, time::Instant};

use kontiki_core::{HardState, Position, Snapshot, State};
use kontiki_disk::Disk;
use kontiki_snapshot::{Image, Store, StoreError};
use kontiki_wal::{AppendError, Log, Pending};

use crate::{
    StartError, StateMachine,
    snapshots::{self, IMAGES_DIRECTORY},
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
        match image.verify() {
            Ok(_) => {
                let snapshot = snapshots::snapshot(image.header())
                    .map_err(|reason| refused(place, &format!("{}: {reason}", image.name())))?;
                if snapshot.at.index.0 + 1 < first {
                    told.get_or_insert_with(|| "a newer image is missing".to_owned());
                    break;
                }
                return Ok(Some(Base { image, snapshot }));
            }
            Err(error @ StoreError::Corruption(_)) => {
                tracing::error!(%error, "an image is damaged; an older one is looked for");
                told.get_or_insert_with(|| error.to_string());
                store.set_aside(&image, error);
            }
            Err(error) => return Err(unusable(place, error)),
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

/// Lets the log go on where the image ends, if it does not: an image that came from a peer was made visible, and then the
/// process ended. Returns the state as it is then; what the log held is not committed, or in the image.
pub(crate) fn reconcile(
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
    let wait = |pending: Result<Pending, AppendError>| {
        let pending = pending.map_err(|error| failed(&error))?;
        pending.wait().map_err(|error| failed(&error))
    };
    wait(log.reset(at.index.0 + 1, at.term.0))?;
    wait(log.set_state(state.encode()))?;
    Ok(state)
}

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

/// Gives the image to the state machine.
pub(crate) fn restore<S: StateMachine>(machine: &mut S, base: &Base) -> Result<(), StartError> {
    let begun = Instant::now();
    let restored = machine.restore(&mut base.image.read());
    restored.map_err(|error| refused(base.image.name(), &error))?;
    let (at, took) = (base.snapshot.at, begun.elapsed());
    tracing::info!(%at, bytes = base.image.bytes(), ?took, "the state machine was restored");
    Ok(())
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
