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
    snapshots::{self, IMAGES_KEPT, download::PIECE_BYTES},
};

/// What the driver asks of the keeper.
pub(crate) enum Job {
    /// Write a capture out.
    Write { header: Header, writer: Box<dyn SnapshotWriter + Send> },
    /// Make it visible: the log is durable as far as that.
    Publish(Box<Finished>),
    /// A peer wants a piece of the image that ends at `at`, from `offset` on.
    Read { to: u64, at: Position, offset: u64 },
    /// A peer's image is about to come.
    Receive(Offer),
    /// A piece of it.
    Append { offset: u64, bytes: Bytes },
    /// It does not come any more.
    Forget,
}

/// What the keeper has done.
#[derive(Debug)]
pub(crate) enum Done {
    /// A capture is on the disk, and not visible yet.
    Written(Box<Finished>),
    /// An image that was taken here, or came from a peer, is visible.
    Visible(Box<Snapshot>, Image),
    /// One that was taken here cannot be had.
    Failed(Arc<str>),
    /// For a peer; nothing if there is no image here.
    Piece { to: u64, piece: Option<Piece> },
    /// All of a peer's image up to there is written.
    Received(u64),
    /// It is of no use.
    Refused(Arc<str>),
}

/// Some bytes of an image's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where the image ends.
    pub(crate) at: Position,
    /// Bytes of all of it.
    pub(crate) total: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// The queue into the keeper. Bounded by what one capture and one download ask for, and [`READS_MAX`].
#[derive(Default)]
pub(crate) struct KeeperQueue {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    reads: usize,
    is_closed: bool,
}

/// Pieces that peers want and that are not read yet; whoever wants more asks again.
pub(crate) const READS_MAX: usize = 64;

impl KeeperQueue {
    pub(crate) fn push(&self, job: Job) {
        let mut state = self.state.lock();
        if let Job::Read { .. } = &job {
            if state.reads == READS_MAX {
                return;
            }
            state.reads += 1;
        }
        state.jobs.push_back(job);
        drop(state);
        self.arrived.notify_one();
    }

    /// The thread ends after what it does now.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_one();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().jobs.is_empty()
    }

    /// The next one, if one waits.
    pub(crate) fn pop(&self) -> Option<Job> {
        self.state.lock().pop()
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() && !state.is_closed {
            self.arrived.wait(&mut state);
        }
        if state.is_closed { None } else { state.pop() }
    }
}

impl State {
    fn pop(&mut self) -> Option<Job> {
        let job = self.jobs.pop_front();
        self.reads -= usize::from(matches!(job, Some(Job::Read { .. })));
        job
    }
}

/// Owns the images of a node.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    store: Store,
    /// What peers were given pieces of last; it can be read to its end also when it is removed meanwhile.
    served: Option<Image>,
    /// With the length that it has in the end.
    receiving: Option<(Receiver, u64)>,
}

impl Keeper {
    pub(crate) fn new(shared: Arc<Shared>, store: Store) -> Self {
        Self { shared, store, served: None, receiving: None }
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
            Job::Write { header, writer } => Some(match self.write(header, writer) {
                Ok(finished) => Done::Written(Box::new(finished)),
                Err(error) => Done::Failed(error.to_string().into()),
            }),
            Job::Publish(finished) => Some(match self.publish(*finished) {
                Ok(done) => done,
                Err(cause) => Done::Failed(cause.into()),
            }),
            Job::Read { to, at, offset } => match self.read(at, offset) {
                Ok(piece) => Some(Done::Piece { to, piece }),
                Err(error) => {
                    tracing::error!(node = self.shared.id, %error, "cannot read an image for a peer");
                    None
                }
            },
            Job::Receive(offer) => self.receive(offer),
            Job::Append { offset, bytes } => self.append(offset, &bytes),
            Job::Forget => {
                self.receiving = None;
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

    fn publish(&mut self, finished: Finished) -> Result<Done, String> {
        let snapshot = snapshots::snapshot(finished.header())?;
        let image = self.store.publish(finished).map_err(|error| error.to_string())?;
        if let Err(error) = self.store.prune(IMAGES_KEPT) {
            tracing::warn!(node = self.shared.id, %error, "an older image stays for now");
        }
        Ok(Done::Visible(Box::new(snapshot), image))
    }

    /// A piece of the image that ends at `at`; the first one of the newest image if that is another one by now.
    fn read(&mut self, at: Position, offset: u64) -> Result<Option<Piece>, StoreError> {
        let wanted = |image: &&Image| image.header().place == snapshots::place(at);
        let known = self.served.iter().find(wanted);
        let (image, offset) = match known.or_else(|| self.store.images().iter().find(wanted)) {
            Some(image) => (image.clone(), offset.min(image.bytes())),
            None => match self.store.images().first() {
                Some(newest) => (newest.clone(), 0),
                None => return Ok(None),
            },
        };
        let mut bytes = vec![0; PIECE_BYTES];
        let count = image.read_piece(offset, &mut bytes)?;
        bytes.truncate(count);
        let at = snapshots::position(image.header().place);
        let piece = Piece { at, total: image.bytes(), offset, bytes: bytes.into() };
        self.served = Some(image);
        Ok(Some(piece))
    }

    fn receive(&mut self, offer: Offer) -> Option<Done> {
        // The file of an earlier one goes first: two never lie there half.
        self.receiving = None;
        match self.store.receive(offer, self.shared.options.snapshot_bytes_max) {
            Ok(receiver) => {
                self.receiving = Some((receiver, offer.bytes));
                None
            }
            Err(error) => Some(Done::Refused(error.to_string().into())),
        }
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) -> Option<Done> {
        let (receiver, total) = self.receiving.as_mut()?;
        let (result, total) = (receiver.append(offset, bytes), *total);
        match result.map(|()| receiver.received()) {
            Ok(received) if received < total => Some(Done::Received(received)),
            Ok(_) => {
                let (receiver, _) = mem::take(&mut self.receiving).expect("it was there");
                let finished = receiver.finish().map_err(|error| error.to_string());
                let published = finished.and_then(|finished| self.publish(finished));
                Some(published.unwrap_or_else(|cause| Done::Refused(cause.into())))
            }
            Err(error) => {
                self.receiving = None;
                Some(Done::Refused(error.to_string().into()))
            }
        }
    }
}
