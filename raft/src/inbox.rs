//! Everything that waits for the driver, behind one lock.
//!
//! The driver takes all of it at once: that is the batch, and there is no timer. A thread is woken
//! once per batch, by whoever finds the inbox empty.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use kontiki_core::{Entry, FetchId, LogIndex, Position as LogPosition, WriteSeq};
use kontiki_snapshot::{Image, StoreError};
use kontiki_wal::WalError;
use parking_lot::{Condvar, Mutex};

use crate::{
    Options, Proposal, ProposalBatch, ProposeError, ReadError, SnapshotWriter,
    envelope::Envelope,
    error::Closing,
    proposal::{Encoder, Group, PeerAnswer, Ready, Settled},
    reading::ReadJob,
    slot::{Completer, Outcome, slot},
    snapshots::{download::Piece, keeper::Done},
    transport::Hello,
};

/// The queue into the driver. Bounded by count and bytes of what has no outcome yet, not of what
/// waits here: so the bound covers a command's whole life.
pub(crate) struct Inbox {
    limits: Limits,
    state: Mutex<State>,
    arrived: Condvar,
}

struct Limits {
    command_bytes_max: usize,
    proposals_max: usize,
    proposal_bytes_max: usize,
    reads_max: usize,
    inbound_bytes_max: usize,
}

struct State {
    arrivals: Arrivals,
    encoder: Encoder,
    /// Commands without an outcome, and their bytes.
    proposals: usize,
    proposal_bytes: usize,
    reads: usize,
    /// What the messages in `arrivals` take in memory.
    inbound_bytes: usize,
    /// A leader is known.
    serving: bool,
    /// The protocol would refuse what it is given.
    overloaded: bool,
    ready: Vec<Completer<Result<(), ProposeError>>>,
    /// Why the cluster is asked for nothing, although the node runs.
    barred: Option<Closing>,
    closed: Option<Closing>,
}

/// What has arrived since the last turn.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// The commands of `groups`, one after the other.
    pub(crate) payloads: Vec<Bytes>,
    pub(crate) groups: Vec<Group>,
    pub(crate) reads: Vec<ReadJob>,
    pub(crate) mail: Vec<Mail>,
    /// Peers that live, each once.
    pub(crate) contacts: Vec<u64>,
    pub(crate) completions: Vec<Completion>,
    /// The newest index the applier has reported.
    pub(crate) applied: Option<LogIndex>,
    /// Why this turn is the last.
    pub(crate) closed: Option<Closing>,
}

/// What peers and the transport say.
#[derive(Debug)]
pub(crate) enum Mail {
    Hello(Hello),
    NotAdmitted {
        peer: u64,
        reason: String,
    },
    Connected {
        peer: u64,
    },
    Disconnected {
        peer: u64,
        reason: String,
    },
    AnswersLost {
        peer: u64,
    },
    /// `bytes` is its length as it came.
    Message {
        from: u64,
        envelope: Envelope,
        bytes: usize,
    },
}

/// What was asked of another thread and is done. As many as were asked for.
#[derive(Debug)]
pub(crate) enum Completion {
    /// A write of the protocol is durable, or never will be.
    Written(WriteSeq, Result<(), WalError>),
    /// The configuration of the first start is durable, or never will be.
    Formed(Result<(), WalError>),
    /// The log takes appends again.
    Room,
    Fetched(FetchId, Result<Vec<Entry>, ()>),
    /// The state machine may be ready for more: see the applied index.
    Applied,
    /// The state machine was captured, with everything up to there.
    Captured(LogPosition, Capture),
    /// For a peer.
    Piece(u64, Piece),
    /// An image that a peer was to get a piece of has rotted.
    ImageDamaged(Image, StoreError),
    /// The keeper of the images has done something.
    Snapshot(Done),
    /// Commands that peers passed on have outcomes.
    Answers(Vec<PeerAnswer>),
    /// A thread can not go on.
    Failed(Arc<str>),
}

/// What writes a captured state machine out.
pub(crate) struct Capture(pub(crate) Box<dyn SnapshotWriter + Send>);

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Capture")
    }
}

impl Inbox {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            limits: Limits {
                command_bytes_max: options.command_bytes_max,
                proposals_max: options.proposals_max,
                proposal_bytes_max: options.proposal_bytes_max,
                reads_max: options.reads_max,
                inbound_bytes_max: options.inbound_bytes_max,
            },
            state: Mutex::new(State {
                arrivals: Arrivals::default(),
                encoder: Encoder::new(),
                proposals: 0,
                proposal_bytes: 0,
                reads: 0,
                inbound_bytes: 0,
                serving: false,
                overloaded: false,
                ready: Vec::new(),
                barred: None,
                closed: None,
            }),
            arrived: Condvar::new(),
        }
    }

    /// Queues one command, or refuses it at once.
    pub(crate) fn propose(&self, command: &[u8]) -> Proposal {
        if let Err(error) = self.check_length(command.len()) {
            return Proposal::refused(error);
        }
        let (group, proposal) = Group::one(command.len());
        let is_large = command.len() >= LARGE_COMMAND_BYTES;
        let large = is_large.then(|| Entry::encode_command(command));
        let mut state = self.state.lock();
        if let Err(error) = self.admit(&mut state, 1, command.len()) {
            drop(state);
            refuse(group, error);
            return proposal;
        }
        let was_empty = state.arrivals.is_empty();
        let payload = large.unwrap_or_else(|| state.encoder.encode(command));
        state.arrivals.payloads.push(payload);
        state.arrivals.groups.push(group);
        drop(state);
        self.wake_if(was_empty);
        proposal
    }

    /// Queues commands as one, or refuses them all at once.
    pub(crate) fn propose_batch(&self, commands: &[Bytes]) -> ProposalBatch {
        if commands.is_empty() {
            return ProposalBatch(Outcome::ready(Vec::new()));
        }
        let (count, bytes) = (commands.len(), commands.iter().map(Bytes::len).sum());
        if let Err(error) = self.check_length(bytes) {
            return ProposalBatch::refused(&error, count);
        }
        let mut payloads = Encoder::encode_all(commands);
        let (group, proposal) = Group::many(count, bytes);
        let mut state = self.state.lock();
        if let Err(error) = self.admit(&mut state, count, bytes) {
            drop(state);
            refuse(group, error);
            return proposal;
        }
        let was_empty = state.arrivals.is_empty();
        state.arrivals.payloads.append(&mut payloads);
        state.arrivals.groups.push(group);
        drop(state);
        self.wake_if(was_empty);
        proposal
    }

    /// Takes room for commands that a peer passes on; the caller is the driver.
    pub(crate) fn admit_forwarded(&self, count: usize, bytes: usize) -> Result<(), ProposeError> {
        self.admit(&mut self.state.lock(), count, bytes)
    }

    /// Takes room for a read; the [`ReadJob`] gives it back.
    pub(crate) fn admit_read(&self) -> Result<(), ReadError> {
        let mut state = self.state.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.read());
        }
        if state.reads >= self.limits.reads_max {
            return Err(ReadError::Overloaded);
        }
        state.reads += 1;
        Ok(())
    }

    pub(crate) fn release_read(&self) {
        self.state.lock().reads -= 1;
    }

    /// Queues a read that [`admit_read`](Self::admit_read) let in.
    pub(crate) fn read(&self, job: ReadJob) {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            let error = refusal.read();
            drop(state);
            return job.fail(error);
        }
        let was_empty = state.arrivals.is_empty();
        state.arrivals.reads.push(job);
        drop(state);
        self.wake_if(was_empty);
    }

    /// Queues what a peer or the transport says. A message that finds too many before it is lost,
    /// as a network may lose it; the rest is news of connections, which are few.
    pub(crate) fn mail(&self, mail: Mail) {
        let bytes = match &mail {
            Mail::Message { bytes, envelope, .. } => {
                bytes + envelope.memory_bytes() + MESSAGE_OVERHEAD_BYTES
            }
            _ => 0,
        };
        let mut state = self.state.lock();
        // Alone it is taken whatever its length: it would be as long each time it is sent again.
        let full = bytes > 0
            && state.inbound_bytes > 0
            && state.inbound_bytes + bytes > self.limits.inbound_bytes_max;
        if full || state.is_known(&mail) || state.closed.is_some() {
            return;
        }
        let was_empty = state.arrivals.is_empty();
        state.inbound_bytes += bytes;
        state.arrivals.mail.push(mail);
        drop(state);
        self.wake_if(was_empty);
    }

    /// Notes that a peer lives.
    pub(crate) fn contact(&self, from: u64) {
        let mut state = self.state.lock();
        if state.closed.is_some() || state.arrivals.contacts.contains(&from) {
            return;
        }
        let was_empty = state.arrivals.is_empty();
        state.arrivals.contacts.push(from);
        drop(state);
        self.wake_if(was_empty);
    }

    /// Queues what another thread has done.
    pub(crate) fn complete(&self, completion: Completion) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        let was_empty = state.arrivals.is_empty();
        state.arrivals.completions.push(completion);
        drop(state);
        self.wake_if(was_empty);
    }

    /// Notes how far the state machine is, for the next turn: whenever that is, unless somebody may wait for the room that it makes.
    pub(crate) fn note_applied(&self, index: LogIndex) {
        let mut state = self.state.lock();
        state.arrivals.applied = Some(index);
        let has_called = state.call_for_room();
        drop(state);
        self.wake_if(has_called);
    }

    /// Gives room back, then tells everybody whose outcome is known. No lock may be held.
    pub(crate) fn settle(&self, settled: &mut Settled) {
        if settled.count > 0 {
            let mut state = self.state.lock();
            state.proposals -= settled.count;
            state.proposal_bytes -= settled.bytes;
            let ready = self.take_ready(&mut state);
            drop(state);
            wake_ready(ready, &Ok(()));
            (settled.count, settled.bytes) = (0, 0);
        }
        if !settled.answers.is_empty() {
            self.complete(Completion::Answers(std::mem::take(&mut settled.answers)));
        }
        settled.tell();
    }

    pub(crate) fn ready(&self) -> Ready {
        let mut state = self.state.lock();
        if let Some(refusal) = state.refusal() {
            return Ready(Outcome::ready(Err(refusal.untaken())));
        }
        if self.is_ready(&state) {
            return Ready(Outcome::ready(Ok(())));
        }
        let (completer, outcome) = slot();
        let mut given_up = Vec::new();
        if state.ready.len() == state.ready.capacity() {
            given_up.extend(state.ready.extract_if(.., |completer| completer.is_abandoned()));
        }
        state.ready.push(completer);
        drop(state);
        // With their wakers, which are the application's.
        drop(given_up);
        Ready(outcome)
    }

    /// Says whether a leader is known.
    pub(crate) fn set_serving(&self, serving: bool) {
        self.change(|state| state.serving = serving);
    }

    /// Says whether the protocol would refuse what it is given: what nobody waits for any more can still have to be applied.
    pub(crate) fn set_overloaded(&self, overloaded: bool) {
        self.change(|state| {
            state.overloaded = overloaded;
            // The state machine may have gone on during this turn.
            state.call_for_room();
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let ready = self.take_ready(&mut state);
        drop(state);
        wake_ready(ready, &Ok(()));
    }

    /// Refuses from now on what needs the cluster. The node goes on.
    pub(crate) fn bar(&self, why: Closing) {
        let mut state = self.state.lock();
        let error = why.untaken();
        state.barred = Some(why);
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        wake_ready(ready, &Err(error));
    }

    /// Takes nothing more; the driver's next turn is its last. The first reason counts.
    pub(crate) fn close(&self, closing: Closing) {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return;
        }
        let error = closing.untaken();
        state.arrivals.closed = Some(closing.clone());
        state.closed = Some(closing);
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        self.arrived.notify_one();
        wake_ready(ready, &Err(error));
    }

    /// Commands without an outcome, and their bytes.
    #[cfg(test)]
    pub(crate) fn open_proposals(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.proposals, state.proposal_bytes)
    }

    /// Why nothing more is taken, if so.
    pub(crate) fn closed(&self) -> Option<Closing> {
        self.state.lock().closed.clone()
    }

    /// Swaps everything that waits for `arrivals`, which must be empty.
    pub(crate) fn take(&self, arrivals: &mut Arrivals) {
        let mut state = self.state.lock();
        std::mem::swap(&mut state.arrivals, arrivals);
        state.inbound_bytes = 0;
    }

    /// Nothing waits for a turn.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().arrivals.is_empty()
    }

    /// Sleeps until something waits or the deadline has passed.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) {
        let mut state = self.state.lock();
        while state.arrivals.is_empty() {
            match deadline {
                None => self.arrived.wait(&mut state),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut state, deadline).timed_out() {
                        return;
                    }
                }
            }
        }
    }

    fn check_length(&self, bytes: usize) -> Result<(), ProposeError> {
        let limit = self.limits.command_bytes_max;
        if bytes > limit { Err(ProposeError::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    fn admit(&self, state: &mut State, count: usize, bytes: usize) -> Result<(), ProposeError> {
        if let Some(refusal) = state.refusal() {
            return Err(refusal.untaken());
        }
        if state.proposals + count > self.limits.proposals_max
            || state.proposal_bytes + bytes > self.limits.proposal_bytes_max
        {
            return Err(ProposeError::Overloaded);
        }
        state.proposals += count;
        state.proposal_bytes += bytes;
        Ok(())
    }

    fn is_ready(&self, state: &State) -> bool {
        state.serving && !state.overloaded && self.has_room(state)
    }

    /// Room for any command, and for more than a few: whoever waits for it is not refused again at
    /// once. When nothing waits there always is.
    fn has_room(&self, state: &State) -> bool {
        let share = self.limits.proposals_max.div_ceil(ROOM_SHARE);
        state.proposals + share <= self.limits.proposals_max
            && state.proposal_bytes + self.limits.command_bytes_max
                <= self.limits.proposal_bytes_max
    }

    fn take_ready(&self, state: &mut State) -> Vec<Completer<Result<(), ProposeError>>> {
        if !state.ready.is_empty() && self.is_ready(state) {
            return std::mem::take(&mut state.ready);
        }
        Vec::new()
    }

    /// Whoever finds the inbox empty wakes the driver; later ones find it awake, or woken.
    fn wake_if(&self, was_empty: bool) {
        if was_empty {
            self.arrived.notify_one();
        }
    }
}

impl State {
    /// Why proposals and linearizable reads are not taken, if so.
    fn refusal(&self) -> Option<&Closing> {
        self.closed.as_ref().or(self.barred.as_ref())
    }

    /// Makes what was applied worth a turn of its own while the protocol has no room: once, and not if there is one anyway.
    fn call_for_room(&mut self) -> bool {
        let calls = self.overloaded
            && self.arrivals.applied.is_some()
            && self.arrivals.is_empty()
            && self.closed.is_none();
        if calls {
            self.arrivals.completions.push(Completion::Applied);
        }
        calls
    }

    /// A hello that waits already, word for word. They come in the first start alone, where little
    /// else waits.
    fn is_known(&self, mail: &Mail) -> bool {
        let Mail::Hello(hello) = mail else { return false };
        self.arrivals.mail.iter().any(|other| matches!(other, Mail::Hello(known) if known == hello))
    }
}

impl Arrivals {
    fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.reads.is_empty()
            && self.mail.is_empty()
            && self.contacts.is_empty()
            && self.completions.is_empty()
            && self.closed.is_none()
    }
}

/// From this size on a command is copied before the lock is taken.
const LARGE_COMMAND_BYTES: usize = 4 << 10;

/// There is room for proposals when one in so many places is free.
const ROOM_SHARE: usize = 16;

/// About what a message costs in memory beside its bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 128;

/// Answers a group that was never admitted: it has no room to give back.
fn refuse(group: Group, error: ProposeError) {
    let mut settled = Settled::default();
    group.fail(|_| error.clone(), &mut settled);
}

fn wake_ready(ready: Vec<Completer<Result<(), ProposeError>>>, result: &Result<(), ProposeError>) {
    for completer in ready {
        completer.complete_and_wake(result.clone());
    }
}

#[cfg(test)]
mod tests;
