//! Proposals: from the caller's hand to the protocol.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use kontiki_core::{Entry, Instant};

use crate::{
    Position, ProposeError,
    slot::{Completer, Outcome, future, slot},
};

/// What became of one command.
pub type ProposeResult = Result<Applied, ProposeError>;

/// A command was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where it lies in the log.
    pub position: Position,
    /// What the state machine answered.
    pub reply: Bytes,
}

future!(
    /// The outcome of one proposal: resolves exactly once, on any executor or by blocking.
    ///
    /// Dropping it cancels nothing.
    Proposal => ProposeResult
);

future!(
    /// The outcomes of the commands of one `propose_batch`, in their order.
    ///
    /// Resolves when all are known. Dropping it cancels nothing.
    ProposalBatch => Vec<ProposeResult>
);

future!(
    /// Resolves when the node serves and has room for proposals.
    Ready => Result<(), ProposeError>
);

impl Proposal {
    pub(crate) fn refused(error: ProposeError) -> Self {
        Self(Outcome::ready(Err(error)))
    }
}

impl ProposalBatch {
    pub(crate) fn refused(error: &ProposeError, count: usize) -> Self {
        Self(Outcome::ready(vec![Err(error.clone()); count]))
    }
}

/// Commands that were proposed together and are answered together, without their bytes.
///
/// Answered exactly once: who drops it answers `Unknown`.
pub(crate) struct Group {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
    results: Vec<ProposeResult>,
    answer: Option<Answer>,
}

/// Who waits for a group.
enum Answer {
    One(Completer<ProposeResult>),
    Many(Completer<Vec<ProposeResult>>),
    Peer { peer: u64, id: u64 },
}

impl Group {
    /// One command of this process.
    pub(crate) fn one(bytes: usize) -> (Self, Proposal) {
        let (completer, outcome) = slot();
        (Self::new(1, bytes, Answer::One(completer)), Proposal(outcome))
    }

    /// Several commands of this process.
    pub(crate) fn many(count: usize, bytes: usize) -> (Self, ProposalBatch) {
        let (completer, outcome) = slot();
        (Self::new(count, bytes, Answer::Many(completer)), ProposalBatch(outcome))
    }

    /// Commands that a peer passed on; it knows them as `id`.
    pub(crate) fn of_peer(count: usize, bytes: usize, peer: u64, id: u64) -> Self {
        Self::new(count, bytes, Answer::Peer { peer, id })
    }

    fn new(count: usize, bytes: usize, answer: Answer) -> Self {
        Self { count, bytes, results: Vec::new(), answer: Some(answer) }
    }

    /// How many of its commands have an outcome.
    pub(crate) fn answered(&self) -> usize {
        self.results.len()
    }

    /// Notes the outcome of the next command; true when it was the last one.
    pub(crate) fn push(&mut self, result: ProposeResult, settled: &mut Settled) -> bool {
        if self.count == 1 && matches!(self.answer, Some(Answer::One(_))) {
            let Some(Answer::One(completer)) = self.answer.take() else {
                unreachable!("matched above")
            };
            settled.one.push((completer, result));
            settled.release(self);
            return true;
        }
        if self.results.capacity() == 0 {
            self.results.reserve_exact(self.count);
        }
        self.results.push(result);
        if self.results.len() < self.count {
            return false;
        }
        let results = std::mem::take(&mut self.results);
        match self.answer.take() {
            Some(Answer::Many(completer)) => settled.many.push((completer, results)),
            Some(Answer::Peer { peer, id }) => {
                settled.answers.push(PeerAnswer { peer, id, results });
            }
            Some(Answer::One(_)) | None => unreachable!("a group is answered once"),
        }
        settled.release(self);
        true
    }

    /// Ends every command that has no outcome yet; `error` gets its number within the group.
    pub(crate) fn fail(mut self, error: impl Fn(usize) -> ProposeError, settled: &mut Settled) {
        while !self.push(Err(error(self.answered())), settled) {}
    }
}

impl Drop for Group {
    /// Only a panic leads here: whoever waits must not wait for ever.
    fn drop(&mut self) {
        let unknown = || Err(ProposeError::Unknown { position: None });
        match self.answer.take() {
            Some(Answer::One(completer)) => completer.complete_and_wake(unknown()),
            Some(Answer::Many(completer)) => {
                let mut results = std::mem::take(&mut self.results);
                results.resize_with(self.count, unknown);
                completer.complete_and_wake(results);
            }
            Some(Answer::Peer { .. }) | None => {}
        }
    }
}

/// What is to be told to a peer about the commands it passed on.
#[derive(Debug)]
pub(crate) struct PeerAnswer {
    pub(crate) peer: u64,
    pub(crate) id: u64,
    pub(crate) results: Vec<ProposeResult>,
}

/// What outcomes leave to be done, outside all locks and once for many of them: first the room is
/// given back, then whoever waits is told. So whoever has an outcome finds the room that it took.
#[derive(Default)]
pub(crate) struct Settled {
    one: Vec<(Completer<ProposeResult>, ProposeResult)>,
    many: Vec<(Completer<Vec<ProposeResult>>, Vec<ProposeResult>)>,
    pub(crate) answers: Vec<PeerAnswer>,
    /// Room that becomes free.
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Settled {
    /// Tells everybody who waits in this process. No lock may be held.
    pub(crate) fn tell(&mut self) {
        for (completer, result) in self.one.drain(..) {
            completer.complete_and_wake(result);
        }
        for (completer, results) in self.many.drain(..) {
            completer.complete_and_wake(results);
        }
    }

    fn release(&mut self, group: &Group) {
        self.count += group.count;
        self.bytes += group.bytes;
    }
}

impl Drop for Settled {
    /// What a thread leaves behind is told all the same.
    fn drop(&mut self) {
        self.tell();
    }
}

/// Proposals that were given to nobody yet, in the order they were made.
#[derive(Default)]
pub(crate) struct Backlog {
    payloads: VecDeque<Bytes>,
    groups: VecDeque<(Instant, Group)>,
}

impl Backlog {
    /// Adds what arrived; it waits until `deadline` at the longest.
    pub(crate) fn extend(
        &mut self,
        payloads: &mut Vec<Bytes>,
        groups: &mut Vec<Group>,
        deadline: Instant,
    ) {
        self.payloads.extend(payloads.drain(..));
        self.groups.extend(groups.drain(..).map(|group| (deadline, group)));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Takes whole groups up to `bytes_max`, at least one.
    pub(crate) fn take(&mut self, bytes_max: usize) -> (Vec<Bytes>, Vec<(Instant, Group)>) {
        let (mut groups, mut count, mut bytes) = (0, 0, 0);
        for (_, group) in &self.groups {
            if groups > 0 && bytes + group.bytes > bytes_max {
                break;
            }
            groups += 1;
            count += group.count;
            bytes += group.bytes;
        }
        (self.payloads.drain(..count).collect(), self.groups.drain(..groups).collect())
    }

    /// Puts back what was taken last and could not be given to anybody.
    pub(crate) fn put_back(&mut self, payloads: Vec<Bytes>, groups: Vec<(Instant, Group)>) {
        for payload in payloads.into_iter().rev() {
            self.payloads.push_front(payload);
        }
        for group in groups.into_iter().rev() {
            self.groups.push_front(group);
        }
    }

    /// Takes the oldest group if its deadline has passed.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Option<Group> {
        let (deadline, _) = self.groups.front()?;
        if *deadline > now {
            return None;
        }
        let (_, group) = self.groups.pop_front()?;
        self.payloads.drain(..group.count);
        Some(group)
    }

    /// When the oldest group's deadline passes.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.groups.front().map(|(deadline, _)| *deadline)
    }
}

/// Encodes commands as entries carry them, many in one allocation.
#[derive(Debug)]
pub(crate) struct Encoder {
    kind: u8,
    buffer: BytesMut,
}

impl Encoder {
    pub(crate) fn new() -> Self {
        let kind = Entry::encode_command(b"")[0];
        Self { kind, buffer: BytesMut::new() }
    }

    /// The payload of `command`, in a buffer shared with others.
    pub(crate) fn encode(&mut self, command: &[u8]) -> Bytes {
        let bytes = command.len() + 1;
        if self.buffer.capacity() < bytes {
            // A new buffer each time: reserving in the old one would copy or wait for readers.
            self.buffer = BytesMut::with_capacity(bytes.max(SHARED_BUFFER_BYTES));
        }
        self.buffer.extend_from_slice(&[self.kind]);
        self.buffer.extend_from_slice(command);
        self.buffer.split().freeze()
    }

    /// The payloads of `commands` in one buffer of their own.
    pub(crate) fn encode_all(commands: &[Bytes]) -> Vec<Bytes> {
        let mut encoder = Self::new();
        let bytes = commands.iter().map(|command| command.len() + 1).sum();
        encoder.buffer = BytesMut::with_capacity(bytes);
        commands.iter().map(|command| encoder.encode(command)).collect()
    }
}

/// Small commands share buffers of this size; one that lives long keeps the others' bytes with it.
const SHARED_BUFFER_BYTES: usize = 32 << 10;
