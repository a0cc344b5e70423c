//! The node's log: where it lies, whose it is, and what it held at the start.

use std::{io::ErrorKind, path::Path, sync::Arc};

use bytes::Bytes;
use kontiki_core::{Entry, Incarnation, LogIndex, Position, Recovered, State, Term};
use kontiki_disk::{Access, Disk};
use kontiki_snapshot::{Store, StoreError};
use kontiki_wal::{Log, LogId, OpenError, ReadError, Wal, repair::Mark};

use crate::{
    Options, StartError,
    entropy::Entropy,
    snapshots::{
        IMAGES_DIRECTORY,
        start::{self, Base, Begun},
    },
};

/// The group of a node, which is also its log's id: one node is one group today.
pub(crate) const GROUP: u32 = 1;

/// Where the log lies, below the directory of its node.
pub(crate) const LOG_DIRECTORY: &str = "wal";

/// An open log.
#[derive(Debug)]
pub(crate) struct Storage {
    pub(crate) wal: Wal,
    pub(crate) log: Log,
    /// Its directory, as it is shown.
    pub(crate) place: String,
    /// As it was last written; `incarnation` is never 0.
    pub(crate) state: State,
    /// The images; until the keeper takes them.
    pub(crate) store: Option<Store>,
    /// The image that the state machine begins with, and what it says.
    pub(crate) base: Option<Base>,
    /// Where the state machine stands.
    pub(crate) begun: Begun,
}

impl Storage {
    /// As [`open_with`](Self::open_with), with the random numbers of the operating system.
    #[cfg(test)]
    pub(crate) fn open(
        directory: &Path,
        id: u64,
        options: &Options,
        disk: Option<Arc<dyn Disk>>,
    ) -> Result<Self, StartError> {
        Self::open_with(directory, id, options, disk, &Entropy::System)
    }

    /// Opens the log of node `id` below `directory`, and its images. Where random numbers are given, the log has no threads
    /// either.
    pub(crate) fn open_with(
        directory: &Path,
        id: u64,
        options: &Options,
        disk: Option<Arc<dyn Disk>>,
        entropy: &Entropy,
    ) -> Result<Self, StartError> {
        let real = kontiki_disk::real();
        let images_on = disk.as_deref().unwrap_or(&*real);
        // Before a log is made beside images that are of another one.
        if !has_log(directory, images_on) && has_images(directory, images_on) {
            start::open(images_on, directory, 0)?;
        }
        let storage = Self::open_log(directory, id, options, disk.clone(), entropy)?;
        storage.with_images(directory, images_on)
    }

    /// Opens the log alone. An empty one is given an incarnation, which is durable when this returns: a node that has spoken once is
    /// the same one ever after.
    pub(crate) fn open_log(
        directory: &Path,
        id: u64,
        options: &Options,
        disk: Option<Arc<dyn Disk>>,
        entropy: &Entropy,
    ) -> Result<Self, StartError> {
        let shown = directory.display().to_string();
        let mut wal = wal_options(id, options, entropy)?;
        if let Some(disk) = disk.clone() {
            wal = wal.disk(disk);
        }
        let wal = open_wal(wal, directory, id)?;
        let place = directory.join(LOG_DIRECTORY).display().to_string();
        // Under the lock of the log that is open: no repair can come in between.
        if let Some(mark) = repair_mark(directory, disk.as_deref())? {
            return Err(StartError::Repaired { directory: place, losses: mark.losses });
        }
        let log = wal.log(LogId(GROUP)).map_err(|error| state_error(&shown, &error))?;
        let state = match log.state() {
            Some(bytes) => {
                let state = State::decode(&bytes).map_err(|error| state_error(&shown, &error))?;
                state.ok_or_else(|| {
                    state_error(&shown, &"its state was not written by a node of Kontiki")
                })?
            }
            None if log.last() > 0 => {
                return Err(state_error(&shown, &"it has entries and no state"));
            }
            None => first_state(&log, entropy, &shown)?,
        };
        Ok(Self { wal, log, place, state, store: None, base: None, begun: Begun::default() })
    }

    /// Opens the images, and lets the log go on where the newest one ends that is whole.
    fn with_images(mut self, directory: &Path, disk: &dyn Disk) -> Result<Self, StartError> {
        let mut store = start::open(disk, directory, self.state.cluster.0)?;
        let place = directory.join(IMAGES_DIRECTORY).display().to_string();
        if let Some(base) = start::choose(&mut store, &self.log, &place)? {
            self.state =
                start::reconcile(&self.wal, &self.log, &base.snapshot, self.state, &self.place)?;
            self.base = Some(base);
        }
        self.store = Some(store);
        Ok(self)
    }

    /// What the protocol is to know of the disk.
    pub(crate) fn recovered(&self) -> Recovered {
        let compacted = self.log.first() - 1;
        let term = self.log.term(compacted).unwrap_or(0);
        let runs = self.log.runs().into_iter();
        Recovered {
            state: self.state.clone(),
            snapshot: self.base.as_ref().map(|base| base.snapshot.clone()),
            applied: self.begun.at.index,
            compacted: Position { term: Term(term), index: LogIndex(compacted) },
            runs: runs.map(|(first, term)| (LogIndex(first), Term(term))).collect(),
            last: LogIndex(self.log.last()),
        }
    }
}

/// Whether a node has been started below `directory`: there is a log, or images of one that is gone (RAFT-CASE 27). What cannot be
/// looked at counts as well: to open it says why.
pub(crate) fn is_in_use(directory: &Path, disk: Option<&dyn Disk>) -> bool {
    let real = kontiki_disk::real();
    let disk = disk.unwrap_or(&*real);
    has_log(directory, disk) || has_images(directory, disk)
}

fn has_log(directory: &Path, disk: &dyn Disk) -> bool {
    match disk.open_directory(&directory.join(LOG_DIRECTORY), Access::Read) {
        Err(error) => error.kind() != ErrorKind::NotFound,
        Ok(log) => log.list().map_or(true, |files| !files.is_empty()),
    }
}

/// What was not finished is no image.
fn has_images(directory: &Path, disk: &dyn Disk) -> bool {
    match Store::look(disk, directory.join(IMAGES_DIRECTORY)) {
        Err(StoreError::Io { source, .. }) => source.kind() != ErrorKind::NotFound,
        Err(_) => true,
        Ok(images) => !images.is_empty(),
    }
}

/// Makes the state of an empty log durable.
fn first_state(log: &Log, entropy: &Entropy, shown: &str) -> Result<State, StartError> {
    let state = State { incarnation: Incarnation(entropy.draw()?), ..State::default() };
    let failed = |error: &dyn std::fmt::Display| state_error(shown, error);
    let written = log.set_state(state.encode()).map_err(|error| failed(&error))?;
    written.wait().map_err(|error| failed(&error))?;
    Ok(state)
}

/// Reads entries of `[first, end)` that weigh at most `bytes_max` together, at least one if the log
/// has it. The log itself counts payload alone, of which very many small entries have little.
///
/// An error is about `first`: what can be read before the place of one is returned.
pub(crate) fn read(
    log: &Log,
    first: LogIndex,
    end: LogIndex,
    bytes_max: usize,
) -> Result<Vec<Entry>, ReadError> {
    let (mut entries, mut weight) = (Vec::new(), 0);
    for entry in log.read(first.0..end.0, bytes_max) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(_) if !entries.is_empty() => break,
            Err(error) => return Err(error),
        };
        let (index, term) = (LogIndex(entry.index), Term(entry.term));
        let entry = Entry { index, term, payload: entry.bytes };
        weight += entry.bytes();
        if weight > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn wal_options(
    id: u64,
    options: &Options,
    entropy: &Entropy,
) -> Result<kontiki_wal::Options, StartError> {
    let wal = Wal::options()
        .segment_bytes(options.segment_bytes)
        .unsynced_bytes_max(options.unsynced_bytes_max)
        .owner(owner(id));
    let Entropy::Given(_) = entropy else { return Ok(wal) };
    let uuid = u128::from(entropy.draw()?) << 64 | u128::from(entropy.draw()?);
    Ok(wal.without_threads().uuid(uuid.to_le_bytes()).nonce(entropy.draw()?))
}

fn open_wal(options: kontiki_wal::Options, directory: &Path, id: u64) -> Result<Wal, StartError> {
    options.open(directory.join(LOG_DIRECTORY)).map_err(|error| {
        let directory = directory.display().to_string();
        match error {
            OpenError::Locked { holder, .. } => StartError::Locked { directory, holder },
            OpenError::OtherOwner { found, .. } => {
                StartError::OtherNode { directory, found: node_of(found), expected: id }
            }
            error => StartError::Log(error),
        }
    })
}

/// What a repair has left beside the log: it can lack what others rely on.
fn repair_mark(directory: &Path, disk: Option<&dyn Disk>) -> Result<Option<Mark>, StartError> {
    let directory = directory.join(LOG_DIRECTORY);
    let mark = match disk {
        Some(disk) => Mark::of_on(disk, directory),
        None => Mark::of(directory),
    };
    mark.map_err(StartError::Log)
}

/// The owner bytes of a node's log: its id, then zeros.
fn owner(id: u64) -> [u8; 32] {
    let mut owner = [0; 32];
    owner[..8].copy_from_slice(&id.to_le_bytes());
    owner
}

fn node_of(owner: [u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = owner;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn state_error(directory: &str, reason: &dyn std::fmt::Display) -> StartError {
    StartError::State { directory: directory.to_owned(), reason: reason.to_string() }
}

/// The bytes of `entries` as the log takes them; shared, not copied.
pub(crate) fn payloads(entries: &[Entry], into: &mut Vec<Bytes>) {
    into.clear();
    into.extend(entries.iter().map(|entry| entry.payload.clone()));
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::mpsc::channel;

    use kontiki_disk::memory::MemoryDisk;
    use kontiki_wal::{AppendError, Pending};

    use super::*;

    #[test]
    fn what_is_read_is_bounded_by_what_entries_weigh_and_not_by_their_payload() {
        let disk = Arc::new(MemoryDisk::new());
        let options = Options::default();
        let Storage { log, .. } = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
        let payloads = vec![Entry::encode_command(b""); 100];
        log.append(1, 1, &payloads).unwrap().wait().unwrap();
        let read = |bytes_max| {
            let entries = read(&log, LogIndex(1), LogIndex(101), bytes_max).unwrap();
            (entries.len(), entries.iter().map(Entry::bytes).sum::<usize>())
        };
        let (count, weight) = read(1000);
        assert!(count > 1 && weight <= 1000, "{count} entries weigh {weight}");
        assert_eq!(read(0).0, 1);
        assert_eq!(read(1 << 20).0, 100);
    }

    #[test]
    fn what_is_before_damage_is_read_and_the_error_is_about_what_is_damaged() {
        let Storage { log, .. } = open_with_damage(&Options::default());
        let read = |first| read(&log, LogIndex(first), LogIndex(6), 1 << 20);
        let before: Vec<_> = read(1).unwrap().iter().map(|entry| entry.index.0).collect();
        assert_eq!(before, [1, 2]);
        match read(3) {
            Err(ReadError::Corruption(corruption)) => assert_eq!(corruption.indexes, Some((3, 3))),
            other => panic!("{other:?}"),
        }
        assert_eq!(read(4).unwrap().len(), 2);
    }

    /// A log of several segments whose entry at index 3 has rotted, opened anew: what was appended
    /// before an opening is looked at when it is read.
    pub(crate) fn open_with_damage(options: &Options) -> Storage {
        let options = Options { segment_bytes: 64 << 10, ..options.clone() };
        let disk = MemoryDisk::new();
        let open = || Storage::open(Path::new("d"), 1, &options, Some(Arc::new(disk.clone())));
        let Storage { wal, log, .. } = open().unwrap();
        for index in 1..=40 {
            let mut command = format!("command {index};").into_bytes();
            command.resize(4 << 10, b' ');
            append(&log, index, Entry::encode_command(&command)).wait().unwrap();
        }
        wal.close().unwrap();
        drop((wal, log));
        let (segment, rotten) = ("d/wal/0000000000000001.wal", b"command 3;");
        let contents = disk.contents(segment).unwrap();
        let offset = contents.windows(rotten.len()).position(|window| window == rotten).unwrap();
        disk.corrupt(segment, offset.try_into().unwrap(), 1);
        open().unwrap()
    }

    /// Appends one entry, as soon as there is a segment for it.
    fn append(log: &Log, index: u64, payload: Bytes) -> Pending {
        loop {
            match log.append(index, 1, std::slice::from_ref(&payload)) {
                Err(AppendError::Full { .. }) => {
                    let (room, is_there) = channel();
                    log.on_room(move || room.send(()).unwrap());
                    is_there.recv().unwrap();
                }
                result => return result.unwrap(),
            }
        }
    }
}
