//! Snapshots between the state machine, the keeper, the protocol and the peers.

use std::{collections::BTreeMap, sync::Arc};

use kontiki_core::{Instant, Position, Snapshot};
use kontiki_snapshot::{Finished, Image, StoreError};

use crate::{
    Event, SnapshotError, SnapshotWriter,
    applier::Work,
    driver::Driver,
    envelope,
    fetcher::Fetch,
    snapshots::{
        self,
        download::{Ask, Download, Expiry, Piece},
        keeper::{Done, Job, KeeperQueue},
    },
    storage::GROUP,
};

/// What the driver knows of images.
pub(super) struct Images {
    pub(super) keeper: Arc<KeeperQueue>,
    /// The newest one that is visible.
    pub(super) newest: Option<Image>,
    /// What each follower in mode Snapshot was given a piece of last: it can be read to its end also when it is removed meanwhile.
    pub(super) served: BTreeMap<u64, Served>,
    /// When another one may be taken in place of one that has rotted.
    replace_at: Option<Instant>,
    /// One has rotted, and none is there or under way in its place: it was too early.
    owes_another: bool,
    /// Written, and to be made visible once the own log is durable as far as it.
    written: Option<Box<Finished>>,
    download: Option<Download>,
    /// How often in a row a peer's image was of no use, and until when none is asked for.
    refusals: u32,
    refused_until: Option<Instant>,
}

/// An image that a follower is getting.
pub(super) struct Served {
    image: Image,
    /// When a piece of it was asked for last.
    pub(super) asked_at: Instant,
}

/// The wait between attempts doubles no more often.
const REFUSALS_MAX: u32 = 5;

impl Images {
    pub(super) fn new(keeper: Arc<KeeperQueue>, newest: Option<Image>) -> Self {
        Self {
            keeper,
            newest,
            served: BTreeMap::new(),
            replace_at: None,
            owes_another: false,
            written: None,
            download: None,
            refusals: 0,
            refused_until: None,
        }
    }
}

impl Driver {
    /// The state machine was captured behind `at`.
    pub(super) fn captured(&mut self, at: Position, writer: Box<dyn SnapshotWriter + Send>) {
        let Some(core) = &self.core else { return };
        let Some(configuration) = core.configuration_at(at.index).cloned() else {
            return self.lose_snapshot(at, "its configuration is not known any more".into());
        };
        let snapshot = Snapshot { at, configuration };
        let header = snapshots::header(self.storage.state.cluster.0, &snapshot);
        self.images.keeper.push(Job::Write { header, writer });
    }

    /// The keeper has done something.
    pub(super) fn snapshot_done(&mut self, done: Done) {
        match done {
            Done::Written(finished) => self.images.written = Some(finished),
            Done::Visible(snapshot, image) => self.snapshot_visible(*snapshot, image),
            Done::Failed(at, cause) => self.lose_snapshot(at, cause),
            Done::Stale(at) => {
                let Some(newest) = &self.images.newest else {
                    return self.lose_snapshot(at, "a newer one was there, and has rotted".into());
                };
                let (at, bytes) = (snapshots::position(newest.header().place), newest.bytes());
                self.work.push(Work::SnapshotVisible { at, bytes });
            }
            Done::Received(at, received) => {
                if let Some(download) = &mut self.images.download {
                    download.written(at, received);
                }
                self.ask_for_pieces();
            }
            Done::Refused(at, cause) => self.refuse_download(at, cause),
        }
    }

    /// Makes what is written visible as soon as the own log is durable as far as it (RAFT-CASE 62): a start that finds it must find
    /// all that this node has vouched for as well.
    pub(super) fn publish_written(&mut self) {
        let durable = self.core.as_ref().map(|core| core.cursors().durable.0);
        let is_durable =
            |written: &mut Box<Finished>| Some(written.header().place.index) <= durable;
        if let Some(written) = self.images.written.take_if(is_durable) {
            self.images.keeper.push(Job::Publish(written));
        }
    }

    fn snapshot_visible(&mut self, snapshot: Snapshot, image: Image) {
        let (at, bytes) = (snapshot.at, image.bytes());
        tracing::info!(node = self.shared.id, %at, bytes, "a snapshot is visible");
        self.shared.board.update(|status| status.snapshot = at.into());
        self.shared.events.tell(Event::SnapshotVisible { position: at.into(), bytes });
        self.work.push(Work::SnapshotVisible { at, bytes });
        self.images.newest = Some(image);
        self.images.owes_another = false;
        (self.images.refusals, self.images.refused_until) = (0, None);
        if self.images.download.as_ref().is_some_and(|download| download.ends_at(at)) {
            self.images.download = None;
        }
        self.feed(|core, now| core.handle_snapshot(now, snapshot));
    }

    fn lose_snapshot(&mut self, at: Position, cause: Arc<str>) {
        tracing::error!(node = self.shared.id, %cause, "a snapshot could not be taken");
        self.shared.events.tell(Event::SnapshotFailed { cause: cause.clone() });
        self.work.push(Work::SnapshotFailed { at, error: SnapshotError::Failed(cause) });
    }

    /// An image of this node has rotted, which a peer was to get. If it is the newest one nobody can get what the log does not
    /// hold any more, before there is another one.
    pub(super) fn image_damaged(&mut self, image: Image, error: StoreError) {
        self.images.served.retain(|_, served| !served.image.is_same(&image));
        if self.images.newest.take_if(|known| known.is_same(&image)).is_none() {
            return;
        }
        let (node, cause) = (self.shared.id, Arc::<str>::from(error.to_string()));
        tracing::error!(node, %cause, "the newest snapshot has rotted; another one is taken");
        let position = snapshots::position(image.header().place).into();
        self.shared.board.update(|status| status.snapshot = Position::default().into());
        self.shared.events.tell(Event::SnapshotDamaged { position, cause });
        // Before the one that is captured now is begun: it may end at the same place.
        self.images.keeper.push(Job::SetAside(image, error));
        self.work.push(Work::SnapshotDamaged);
        self.replace_newest();
    }

    /// Has an image taken in place of one that has rotted. If that rots as well, another one is not taken at once, but when it may
    /// be; if it fails, when a follower asks again.
    fn replace_newest(&mut self) {
        self.images.owes_another = self.images.replace_at.is_some_and(|at| self.now < at);
        if !self.images.owes_another {
            self.images.replace_at = Some(self.now + self.shared.options.election_timeout_max);
            self.work.push(Work::ReplaceSnapshot);
        }
    }

    /// When an image is taken that is owed.
    pub(super) fn replaces_at(&self) -> Option<Instant> {
        self.images.replace_at.filter(|_| self.images.owes_another)
    }

    /// Takes the image that is owed, if it is time.
    pub(super) fn watch_replacement(&mut self) {
        if self.replaces_at().is_some_and(|at| at <= self.now) {
            self.replace_newest();
        }
    }

    /// The protocol needs what a peer's newest image contains. One of the same peer that is on its way goes on: it is all the
    /// sooner here.
    pub(super) fn fetch_snapshot(&mut self, from: u64, at: Position) {
        let known = self.images.download.as_mut().filter(|download| download.from == from);
        if let Some(download) = known {
            download.resume(self.now);
            return self.ask_for_pieces();
        }
        if self.images.refused_until.is_some_and(|at| self.now < at) {
            return self.feed(|core, _| core.handle_snapshot_failed());
        }
        tracing::info!(node = self.shared.id, from, %at, "a snapshot is needed");
        self.shared.events.tell(Event::SnapshotNeeded { from, position: at.into() });
        self.images.download = Some(Download::new(from, self.shared.options.pace(), self.now));
        self.ask_for_pieces();
    }

    /// A peer asks for a piece of the image that ends at `at`; it gets the first one of the newest image if that is another one by
    /// now.
    pub(super) fn serve_piece(&mut self, to: u64, Ask { at, offset, bytes }: Ask) {
        let place = snapshots::place(at);
        let served = self.images.served.get(&to).map(|served| &served.image);
        let known = served.into_iter().chain(&self.images.newest);
        let wanted = known.into_iter().find(|image| image.header().place == place).cloned();
        let (image, offset) = match (wanted, &self.images.newest) {
            (Some(image), _) => (image, offset),
            (None, Some(newest)) => (newest.clone(), 0),
            (None, None) => {
                let status = self.core.as_ref().map(|core| core.status());
                if status.is_some_and(|status| status.snapshot != Position::default()) {
                    self.replace_newest();
                }
                self.transport.send_image(to, GROUP, envelope::encode_piece(None));
                return;
            }
        };
        self.images.served.insert(to, Served { image: image.clone(), asked_at: self.now });
        let offset = offset.min(image.bytes());
        self.watch.asked(to, image.header().place.index, (offset, image.bytes()), self.now);
        self.fetcher.push(Fetch::Piece { to, image, offset, bytes });
    }

    /// A peer has sent a piece, or has no image.
    pub(super) fn take_piece(&mut self, from: u64, piece: Option<Piece>) {
        let cluster = self.storage.state.cluster.0;
        let Some(download) = self.images.download.as_mut().filter(|known| known.from == from)
        else {
            return;
        };
        let Some(piece) = piece else {
            // It would be offered, and asked for, with each heartbeat.
            self.images.refused_until = Some(self.now + self.shared.options.election_timeout_max);
            return self.end_download();
        };
        for job in download.take(cluster, piece, self.now) {
            self.images.keeper.push(job);
        }
        self.ask_for_pieces();
    }

    fn ask_for_pieces(&mut self) {
        let Some(download) = &mut self.images.download else { return };
        for ask in download.asks(self.now) {
            self.transport.send(download.from, GROUP, envelope::encode_ask(ask));
        }
    }

    /// Whether something was lost on the way, or nothing comes any more.
    pub(super) fn watch_download(&mut self) {
        let patience = self.shared.options.election_timeout_max;
        let now = self.now;
        match self.images.download.as_mut().map(|download| download.expire(now, patience)) {
            // Or it is time for the next piece.
            Some(Expiry::Again | Expiry::GoesOn) => self.ask_for_pieces(),
            Some(Expiry::Over) => {
                let node = self.shared.id;
                tracing::warn!(
                    node,
                    "a snapshot does not come; it goes on when it is offered again"
                );
                self.feed(|core, _| core.handle_snapshot_failed());
            }
            None => {}
        }
    }

    pub(super) fn download_expires_at(&self) -> Option<Instant> {
        let patience = self.shared.options.election_timeout_max;
        self.images.download.as_ref().and_then(|download| download.expires_at(patience))
    }

    /// An image of a peer is of no use here: the next attempt is made after a while, and a longer one each time, for all of it would
    /// come again.
    fn refuse_download(&mut self, at: Position, cause: Arc<str>) {
        let known = self.images.download.as_ref().filter(|download| download.ends_at(at));
        let Some(Download { from, .. }) = known else { return };
        let from = *from;
        let wait = self.shared.options.election_timeout_max * (1 << self.images.refusals);
        self.images.refusals = (self.images.refusals + 1).min(REFUSALS_MAX);
        self.images.refused_until = Some(self.now + wait);
        let node = self.shared.id;
        tracing::warn!(node, %at, %cause, ?wait, "a peer's snapshot was refused; it is asked for again");
        self.shared.events.tell(Event::SnapshotRefused { from, position: at.into(), cause });
        self.end_download();
    }

    fn end_download(&mut self) {
        self.images.download = None;
        self.images.keeper.push(Job::Forget);
        self.feed(|core, _| core.handle_snapshot_failed());
    }
}
