//! The thread between the protocol and the world: inputs in, outputs out, in turns.
//!
//! A turn takes everything that waits, gives it to the protocol one input at a time, and performs
//! what comes out. It decides nothing by itself: never by a term, never by an index. What must wait
//! for the disk is held back inside the protocol, so nothing here has to keep an order but that of
//! writes and that of applies.

use std::{mem, sync::Arc};

use kontiki_core::{Apply, Cursors, Instant, NodeId, Output, Raft, State};
use kontiki_snapshot::Image;
use kontiki_wal::Wal;

use crate::{
    Event, ProposeError, Role,
    applier::{ApplyQueue, Work},
    bootstrap::{FirstStart, Identity},
    driver::{snapshots::Images, watch::Watch},
    envelope::{self, Envelope},
    error::Closing,
    fetcher::{Fetch, FetchQueue},
    forward::Forwards,
    inbox::{Arrivals, Capture, Completion, Mail},
    proposal::{Backlog, Settled},
    reading::Reads,
    shared::Shared,
    snapshots::{keeper::KeeperQueue, place},
    storage::{GROUP, Storage},
    transport::Transport,
    writer::{Change, Writer},
};

mod lifecycle;
mod requests;
mod snapshots;
#[cfg(test)]
mod tests;
mod watch;
mod writing;

/// Drives one node.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    storage: Storage,
    transport: Box<dyn Transport>,
    applier: Arc<ApplyQueue>,
    fetcher: Arc<FetchQueue>,
    identity: Arc<Identity>,
    /// Before the cluster has a configuration.
    first_start: Option<FirstStart>,
    /// The state of the first start that is on its way to the disk.
    forming: Option<State>,
    /// From the first configuration on; gone when the node fails.
    core: Option<Raft>,
    standing: Standing,
    /// Where the log stood when that was last written down.
    published: Cursors,
    members: Vec<(u64, String)>,
    writer: Writer,
    backlog: Backlog,
    forwards: Forwards,
    images: Images,
    watch: Watch,
    reads: Reads,
    /// The moment of this turn.
    now: Instant,
    /// Until then no proposals are passed on: the transport took none.
    forward_at: Option<Instant>,
    /// Until then no reads are asked for: one was refused.
    ask_at: Option<Instant>,
    /// Until then the disk that holds writes up is not asked again. Of its own: no news of a peer
    /// changes that.
    held_until: Option<Instant>,
    /// This turn had more to propose than it may take.
    more: bool,
    /// The protocol would refuse what another turn proposes.
    overloaded: bool,
    /// What this turn has for the applier; handed over at its end.
    work: Vec<Work>,
    settled: Settled,
    /// Outcomes that could not be told to the peers that passed the proposals on, in this turn.
    lost_answers: usize,
    /// Empty between turns; kept for its capacity.
    arrivals: Arrivals,
    /// Why the cluster is asked for nothing: this node is not admitted.
    barred: Option<Closing>,
    /// Nothing more is taken in, handed out or said; what waits is answered at the end.
    has_failed: bool,
    closing: Option<Closing>,
}

/// What the protocol said last about who leads.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Standing {
    role: Role,
    term: u64,
    leader: Option<u64>,
}

/// The threads and queues of a node that the driver talks to.
pub(crate) struct Neighbours {
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) applier: Arc<ApplyQueue>,
    pub(crate) fetcher: Arc<FetchQueue>,
    pub(crate) keeper: Arc<KeeperQueue>,
    pub(crate) identity: Arc<Identity>,
}

impl Driver {
    /// A driver for a node that is in its first start (`Some`) or has a configuration.
    pub(crate) fn new(
        shared: Arc<Shared>,
        storage: Storage,
        first_start: Option<FirstStart>,
        forwards: Forwards,
        neighbours: Neighbours,
    ) -> Self {
        let Neighbours { transport, applier, fetcher, keeper, identity } = neighbours;
        let newest = storage.base.as_ref().map(|base| base.image.clone());
        let writer = Writer::new(shared.clone(), &storage);
        Self {
            shared,
            storage,
            transport,
            applier,
            fetcher,
            identity,
            first_start,
            forming: None,
            core: None,
            standing: Standing { role: Role::Starting, term: 0, leader: None },
            published: Cursors::default(),
            members: Vec::new(),
            writer,
            backlog: Backlog::default(),
            forwards,
            images: Images::new(keeper, newest),
            watch: Watch::default(),
            reads: Reads::default(),
            now: Instant::default(),
            forward_at: None,
            ask_at: None,
            held_until: None,
            more: false,
            overloaded: false,
            work: Vec::new(),
            settled: Settled::default(),
            lost_answers: 0,
            arrivals: Arrivals::default(),
            barred: None,
            has_failed: false,
            closing: None,
        }
    }

    /// The queue of the fetcher that serves this driver.
    pub(crate) fn fetches(&self) -> Arc<FetchQueue> {
        self.fetcher.clone()
    }

    /// The queue of the applier that serves this driver.
    pub(crate) fn applies(&self) -> Arc<ApplyQueue> {
        self.applier.clone()
    }

    /// The queue of the keeper that serves this driver.
    pub(crate) fn keeper(&self) -> Arc<KeeperQueue> {
        self.images.keeper.clone()
    }

    /// The log that this driver writes to.
    pub(crate) fn wal(&self) -> Wal {
        self.storage.wal.clone()
    }

    /// The protocol, once the node has a configuration and until it fails.
    pub(crate) fn core(&self) -> Option<&Raft> {
        self.core.as_ref()
    }

    /// The last turn is over.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The thread: a turn, a sleep, until the node is closed.
    pub(crate) fn run(&mut self) {
        self.begin(self.shared.clock.now());
        while self.closing.is_none() {
            let deadline = self.poll_timeout().map(|at| self.shared.clock.deadline(at));
            self.shared.inbox.wait_until(deadline.flatten());
            self.turn(self.shared.clock.now());
        }
    }

    /// What needs no input: the protocol of a node that has a configuration, or a first start that
    /// waits for nobody.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.now = now;
        match &self.first_start {
            None => self.start_core(),
            Some(first_start) => {
                if let Some(state) = first_start.complete() {
                    self.form(state);
                }
            }
        }
        self.finish_turn();
    }

    /// Takes everything that waits and does what follows from it.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.now = now;
        let mut arrivals = mem::take(&mut self.arrivals);
        self.shared.inbox.take(&mut arrivals);
        self.closing = arrivals.closed.take();
        self.complete_all(arrivals.completions.drain(..));
        if let Some(index) = arrivals.applied.take() {
            self.feed(|core, now| core.handle_applied(now, index));
        }
        for mail in arrivals.mail.drain(..) {
            self.deliver(mail);
        }
        for from in arrivals.contacts.drain(..) {
            self.feed(|core, now| core.handle_contact(now, NodeId(from)));
        }
        self.fire();
        let deadline = now + self.shared.options.proposal_timeout;
        self.reads.extend(&mut arrivals.reads, deadline);
        self.backlog.extend(&mut arrivals.payloads, &mut arrivals.groups, deadline);
        self.arrivals = arrivals;
        self.place_requests();
        self.finish_turn();
    }

    /// Gives what waits to whoever can serve it.
    fn place_requests(&mut self) {
        self.more = false;
        if self.has_failed {
            return;
        }
        if let Some(barred) = self.barred.clone() {
            return self.refuse_requests(&barred);
        }
        self.ask_reads();
        self.place_proposals();
    }

    /// When the next turn is due without any input.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.more {
            return Some(self.now);
        }
        let core = self.core.as_ref().and_then(Raft::poll_timeout);
        let waiting = [self.backlog.deadline(), self.forwards.deadline(), self.reads.deadline()];
        let own = [core, self.forward_at, self.ask_at, self.held_until];
        let of_images = [self.download_expires_at(), self.replaces_at()];
        waiting.into_iter().chain(own).chain(of_images).flatten().min()
    }

    /// Gives the protocol one input and performs everything that follows.
    fn feed(&mut self, input: impl FnOnce(&mut Raft, Instant)) {
        let Some(core) = &mut self.core else { return };
        input(core, self.now);
        while let Some(output) = self.core.as_mut().and_then(Raft::poll_output) {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Write { seq, state, entries } => self.write(seq, state, entries),
            Output::Send { to, message } => {
                self.transport.send(to.0, GROUP, envelope::encode_protocol(&message));
            }
            Output::Apply(Apply::Snapshot { at }) => {
                // In its place there can be one that was captured before it came.
                let is_it = |image: &Image| image.header().place == place(at);
                let Some(image) = self.images.newest.clone().filter(is_it) else {
                    return self.fail(format!("the snapshot at {at} has rotted since it came"));
                };
                self.work.push(Work::Install(image));
            }
            Output::Apply(apply) => self.work.push(Work::Apply(apply)),
            Output::Reset { seq, at, state } => {
                self.shared.board.update(|status| status.log_first = at.index.0 + 1);
                self.change_log(Change::Reset { at }, Some((seq, state)));
            }
            Output::Compact { last } => {
                self.shared.board.update(|status| status.log_first = last.0 + 1);
                self.change_log(Change::Compact { last }, None);
            }
            Output::FetchSnapshot { from, at } => self.fetch_snapshot(from.0, at),
            Output::Fetch { id, first, end, bytes_max } => {
                self.fetcher.push(Fetch::Entries { id, first, end, bytes_max });
            }
            Output::ReadReady { id, index } => {
                let jobs = self.reads.take(id);
                self.work.push(Work::Read { index, jobs });
            }
            Output::ReadFailed { id } => {
                self.reads.ask_again(id);
                self.ask_at = Some(self.later());
            }
            Output::RoleChanged { role, term, leader } => self.stand(role, term, leader),
            Output::PeerRegressed { peer, matched, reported } => {
                self.report_regress(peer.0, matched.0, reported.0);
            }
            Output::Halt { reason } => self.fail(format!("the protocol halts: {reason}")),
            other => self.fail(format!("an output that this version does not know: {other:?}")),
        }
    }

    /// Of writes that follow one another the newest vouches for all, wherever among them it stands:
    /// their callbacks run on several threads of the log.
    fn complete_all(&mut self, completions: impl Iterator<Item = Completion>) {
        let is_written = |next: &Completion| matches!(next, Completion::Written(_, Ok(())));
        let mut completions = completions.peekable();
        while let Some(mut completion) = completions.next() {
            while let Completion::Written(newest, Ok(())) = &mut completion
                && let Some(Completion::Written(seq, _)) = completions.next_if(is_written)
            {
                *newest = seq.max(*newest);
            }
            self.complete(completion);
        }
    }

    /// What another thread has done.
    fn complete(&mut self, completion: Completion) {
        if self.has_failed {
            return;
        }
        match completion {
            Completion::Written(seq, Ok(())) => {
                self.feed(|core, now| core.handle_written(now, seq));
            }
            Completion::Written(_, Err(error)) | Completion::Formed(Err(error)) => {
                self.fail(format!("the log failed: {error}"));
            }
            Completion::Formed(Ok(())) => self.formed(),
            Completion::Room => self.resume_writes(),
            Completion::Fetched(id, result) => {
                self.feed(|core, now| core.handle_fetched(now, id, result));
            }
            Completion::Captured(at, Capture(writer)) => self.captured(at, writer),
            Completion::Piece(to, piece) => {
                self.transport.send_image(to, GROUP, envelope::encode_piece(Some(&piece)));
            }
            Completion::ImageDamaged(image, error) => self.image_damaged(image, error),
            Completion::Snapshot(done) => self.snapshot_done(done),
            Completion::Applied => {} // The turn looks at the index anyway.
            Completion::Answers(answers) => {
                answers.into_iter().for_each(|answer| self.answer_peer(answer));
            }
            Completion::Failed(cause) => self.fail(cause),
        }
    }

    /// What a peer or the transport says.
    fn deliver(&mut self, mail: Mail) {
        if self.has_failed {
            return;
        }
        match mail {
            Mail::Hello(hello) => self.hear(&hello),
            Mail::NotAdmitted { peer, reason } => self.not_admitted(peer, &reason),
            Mail::Connected { peer } => {
                self.shared.events.tell(Event::PeerConnected { peer });
                self.watch.reconnected(peer);
                (self.forward_at, self.ask_at) = (None, None);
            }
            Mail::Disconnected { peer, reason } => {
                self.shared.events.tell(Event::PeerLost { peer, reason });
                self.lose_peer(peer);
            }
            Mail::AnswersLost { peer } => self.lose_peer(peer),
            Mail::Message { from, envelope: Envelope::Protocol(message), .. } => {
                self.feed(|core, now| core.handle_message(now, NodeId(from), message));
            }
            Mail::Message { from, envelope: Envelope::Propose { id, payloads }, .. } => {
                self.propose_for_peer(from, id, payloads);
            }
            Mail::Message { from, envelope: Envelope::Outcome { id, results }, .. } => {
                let not_leader = |result| matches!(result, &Err(ProposeError::NotLeader { .. }));
                let leads_not = results.iter().any(not_leader);
                self.forwards.answer(from, id, results, &mut self.settled);
                if leads_not {
                    self.feed(|core, now| core.handle_doubt(now, NodeId(from)));
                }
            }
            Mail::Message { from, envelope: Envelope::Ask(ask), .. } => self.serve_piece(from, ask),
            Mail::Message { from, envelope: Envelope::Piece(piece), .. } => {
                self.take_piece(from, piece);
            }
        }
    }

    /// A connection to `peer` is lost, one way or the other: no answer comes, and what is there next
    /// may be another process, which leads nobody.
    fn lose_peer(&mut self, peer: u64) {
        self.forwards.lose_peer(peer, &mut self.settled);
        self.feed(|core, now| core.handle_doubt(now, NodeId(peer)));
    }

    /// What is due.
    fn fire(&mut self) {
        if self.has_failed {
            return;
        }
        let now = self.now;
        if self.core.as_ref().and_then(Raft::poll_timeout).is_some_and(|at| at <= now) {
            self.feed(|core, now| core.handle_timeout(now));
        }
        self.forward_at = self.forward_at.filter(|at| *at > now);
        self.ask_at = self.ask_at.filter(|at| *at > now);
        if self.held_until.is_some_and(|at| at <= now) {
            self.held_until = None;
            self.resume_writes();
        }
        self.watch_download();
        self.watch_replacement();
        self.forwards.expire(now, &mut self.settled);
        self.expire_requests();
    }

    /// What was refused is not asked again before this moment, unless something changes.
    fn later(&self) -> Instant {
        self.now + self.shared.options.heartbeat
    }

    /// Hands over what the turn has gathered: one wake-up for each receiver.
    fn finish_turn(&mut self) {
        let count = mem::take(&mut self.lost_answers);
        if count > 0 {
            let node = self.shared.id;
            tracing::info!(node, count, "answers to passed on proposals were lost");
        }
        self.publish_written();
        self.publish_status();
        self.watch_followers();
        self.publish_room();
        self.applier.extend(&mut self.work);
        self.shared.inbox.settle(&mut self.settled);
    }
}
