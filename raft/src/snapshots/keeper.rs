//! The thread that owns the images: it writes and reads them, makes them visible, and takes in those of others.

use std::{
    collections::VecDeque,
    io::{self, Write as _},
    mem,
    sync::Arc,
};

use bytes::Bytes;
use kontiki_core::{Position, Snapshot};
use kontiki_snapshot::{Finished, Header, Image, Offer, Receiver, Store, StoreError};
use parking_lot::{Condvar, Mutex};

use crate::{
    SnapshotWriter,
    inbox::Completion,
    shared::Shared,
    snapshots::{self, IMAGES_KEPT},
};

/// What the driver asks of the keeper.
pub(crate) enum Job {
    /// Write a capture out.
    Write { header: Header, writer: Box<dyn SnapshotWriter + Send> },
    /// Make it visible: the log is durable as far as that.
    Publish(Box<Finished>),
    /// A peer's image is about to come.
    Receive(Offer),
    /// A piece of it.
    Append { offset: u64, bytes: Bytes },
    /// It does not come any more.
    Forget,
    /// An image of this node has rotted: it is none that a newer one has to be newer than.
    SetAside(Image, StoreError),
}

/// What the keeper has done.
#[derive(Debug)]
pub(crate) enum Done {
    /// A capture is on the disk, and not visible yet.
    Written(Box<Finished>),
    /// An image that was taken here, or came from a peer, is visible.
    Visible(Box<Snapshot>, Image),
    /// The one that was taken here and ends there cannot be had.
    Failed(Position, Arc<str>),
    /// The one that was taken here and ends there is no newer than the newest that is visible.
    Stale(Position),
    /// Of a peer's image that ends there so many bytes are written.
    Received(Position, u64),
    /// It is of no use.
    Refused(Position, Arc<str>),
}

/// The queue into the keeper. Bounded by what two captures, of which a peer's image has overtaken the first, and one download ask
/// for.
#[derive(Default)]
pub(crate) struct KeeperQueue {
    state: Mutex<(VecDeque<Job>, bool)>,
    arrived: Condvar,
}

impl KeeperQueue {
    pub(crate) fn push(&self, job: Job) {
        self.state.lock().0.push_back(job);
        self.arrived.notify_one();
    }

    /// The thread ends after what it does now.
    pub(crate) fn close(&self) {
        self.state.lock().1 = true;
        self.arrived.notify_one();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().0.is_empty()
    }

    /// The next one, if one waits.
    pub(crate) fn pop(&self) -> Option<Job> {
        self.state.lock().0.pop_front()
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        while state.0.is_empty() && !state.1 {
            self.arrived.wait(&mut state);
        }
        if state.1 { None } else { state.0.pop_front() }
    }
}

/// Owns the images of a node.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    store: Store,
    /// With what was said of it.
    receiving: Option<(Receiver, Offer)>,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, store: Store) -> Self {
        Self { shared, store, receiving: None }
    }

    /// The thread: does what is asked for, until it is closed.
    pub(crate) fn run(mut self, queue: &KeeperQueue) {
        while let Some(job) = queue.take() {
            self.step(job);
        }
    }

    /// One job.
    pub(crate) fn step(&mut self, job: Job) {
        let done = match job {
            Job::Write { header, writer } => {
                let at = snapshots::position(header.place);
                let written = self.write(header, writer);
                Some(taken(at, written.map(|finished| Done::Written(Box::new(finished)))))
            }
            Job::Publish(finished) => {
                let at = snapshots::position(finished.header().place);
                Some(taken(at, self.publish(*finished)))
            }
            Job::Receive(offer) => self.receive(offer),
            Job::Append { offset, bytes } => self.append(offset, &bytes),
            Job::Forget => {
                self.receiving = None;
                None
            }
            Job::SetAside(image, error) => {
                self.store.set_aside(&image, error);
                None
            }
        };
        if let Some(done) = done {
            self.shared.inbox.complete(Completion::Snapshot(done));
        }
        // As with the log: which names are durable is not known, and only a start can find out.
        if let Some(error) = self.store.failure() {
            let cause = format!("the snapshots failed: {error}");
            self.shared.inbox.complete(Completion::Failed(cause.into()));
        }
    }

    fn write(
        &mut self,
        header: Header,
        writer: Box<dyn SnapshotWriter + Send>,
    ) -> Result<Finished, StoreError> {
        let mut file = self.store.create(header)?;
        let name = snapshots::IMAGES_DIRECTORY;
        let failed = |source: io::Error| StoreError::Io {
            what: "the writing of an image",
            name: name.to_owned(),
            source: Arc::new(source),
        };
        writer.write_to(&mut file).and_then(|()| file.flush()).map_err(failed)?;
        file.finish()
    }

    fn publish(&mut self, finished: Finished) -> Result<Done, StoreError> {
        let snapshot = match snapshots::snapshot(finished.header()) {
            Ok(snapshot) => snapshot,
            // A peer's: only what a start takes in becomes visible.
            Err(reason) => {
                let at = snapshots::position(finished.header().place);
                return Ok(Done::Refused(at, reason.into()));
            }
        };
        let image = self.store.publish(finished)?;
        if let Err(error) = self.store.prune(IMAGES_KEPT) {
            tracing::warn!(node = self.shared.id, %error, "an older image stays for now");
        }
        Ok(Done::Visible(Box::new(snapshot), image))
    }

    fn receive(&mut self, offer: Offer) -> Option<Done> {
        // The file of an earlier one goes first: two never lie there half.
        self.receiving = None;
        match self.store.receive(offer, self.shared.options.snapshot_bytes_max) {
            Ok(receiver) => {
                self.receiving = Some((receiver, offer));
                None
            }
            Err(error) => {
                let at = snapshots::position(offer.place);
                Some(Done::Refused(at, error.to_string().into()))
            }
        }
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) -> Option<Done> {
        let (receiver, offer) = self.receiving.as_mut()?;
        let (at, total) = (snapshots::position(offer.place), offer.bytes);
        let result = receiver.append(offset, bytes);
        match result.map(|()| receiver.received()) {
            Ok(received) if received < total => Some(Done::Received(at, received)),
            Ok(_) => {
                let (receiver, _) = mem::take(&mut self.receiving).expect("it was there");
                let published = receiver.finish().and_then(|finished| self.publish(finished));
                let refused = |error: StoreError| Done::Refused(at, error.to_string().into());
                Some(published.unwrap_or_else(refused))
            }
            Err(error) => {
                self.receiving = None;
                Some(Done::Refused(at, error.to_string().into()))
            }
        }
    }
}

/// What became of an image of this node's own.
fn taken(at: Position, result: Result<Done, StoreError>) -> Done {
    match result {
        Ok(done) => done,
        Err(StoreError::Stale { .. }) => Done::Stale(at),
        Err(error) => Done::Failed(at, error.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, path::Path};

    use kontiki_core::{LogIndex, Term};
    use kontiki_disk::{Access, Disk as _, MemoryDisk};

    use super::*;
    use crate::{Options, inbox::Arrivals, snapshots::tests::alone, storage::Storage};

    const AT: Position = Position { term: Term(1), index: LogIndex(9) };

    fn keeper(disk: &MemoryDisk) -> Keeper {
        let options = Options::default();
        let storage = Storage::open(Path::new("d"), 1, &options, Some(Arc::new(disk.clone())));
        let mut storage = storage.unwrap();
        let shared = Arc::new(Shared::new(1, &options, &storage));
        Keeper::new(shared, storage.store.take().unwrap())
    }

    /// All bytes of the file of an image with this content, and what is said of it.
    fn image(content: &[u8]) -> (Bytes, Offer) {
        let mut keeper = keeper(&MemoryDisk::new());
        let header = snapshots::header(0, &Snapshot { at: AT, configuration: alone() });
        let mut writer = keeper.store.create(header).unwrap();
        writer.write_all(content).unwrap();
        let finished = writer.finish().unwrap();
        let image = keeper.store.publish(finished).unwrap();
        let mut bytes = vec![0; usize::try_from(image.bytes()).unwrap()];
        assert_eq!(image.read_piece(0, &mut bytes).unwrap(), bytes.len());
        (bytes.into(), image.offer())
    }

    fn done(keeper: &Keeper) -> Vec<Done> {
        let mut arrivals = Arrivals::default();
        keeper.shared.inbox.take(&mut arrivals);
        let done = arrivals.completions.into_iter().map(|completion| match completion {
            Completion::Snapshot(done) => done,
            other => panic!("{other:?}"),
        });
        done.collect()
    }

    /// RAFT-CASE 53: of two that end at the same place the later one begins in a file of its own.
    #[test]
    fn an_image_that_takes_the_place_of_half_of_another_one_has_none_of_its_bytes() {
        let disk = MemoryDisk::new();
        let mut keeper = keeper(&disk);
        let ((first, first_offer), (second, offer)) = (image(&[1; 5000]), image(&[2; 5000]));
        let append = |bytes: &Bytes, offset: usize, end: usize| Job::Append {
            offset: offset as u64,
            bytes: bytes.slice(offset..end),
        };
        keeper.step(Job::Receive(first_offer));
        keeper.step(append(&first, 0, 2000));
        keeper.step(Job::Receive(offer));
        let images =
            disk.open_directory(&Path::new("d").join(snapshots::IMAGES_DIRECTORY), Access::Read);
        let names = images.unwrap().list().unwrap();
        assert_eq!(names.iter().filter(|(name, _)| name.ends_with(".tmp")).count(), 1, "{names:?}");
        keeper.step(append(&second, 0, 3000));
        keeper.step(append(&second, 3000, second.len()));
        let mut done = done(&keeper);
        let Some(Done::Visible(snapshot, image)) = done.pop() else { panic!("{done:?}") };
        assert_eq!(snapshot.at, AT);
        let mut content = Vec::new();
        image.read().read_to_end(&mut content).unwrap();
        assert_eq!(content, [2; 5000]);
        assert_eq!(done.len(), 2, "{done:?}");
    }
}
