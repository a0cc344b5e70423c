//! The thread that owns the state machine: it applies what is committed and answers who waits.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kontiki_core::{Apply, Batch, Entry, EntryKind, Instant, LogIndex, Position as LogPosition};
use kontiki_snapshot::Image;
use kontiki_wal::Log;
use parking_lot::{Condvar, Mutex};

use crate::{
    ApplyContext, Event, ReadError, SnapshotError, StateMachine,
    applier::captures::{Captures, SnapshotResult},
    error::Closing,
    inbox::{Capture, Completion},
    proposal::{Group, Settled},
    reading::{Confirmed, ReadJob},
    shared::Shared,
    slot::{Completer, slot},
    snapshots::{self, start::Base},
    storage,
    waiting::Waiting,
};

pub(crate) mod captures;

/// What the driver asks of the applier. One queue, so that everything keeps its order.
pub(crate) enum Work {
    /// Proposals that have got their places in the log, and how long they wait to be applied.
    Register { first: LogPosition, deadline: Instant, groups: Vec<Group> },
    /// Committed entries.
    Apply(Apply),
    /// All of an image, in place of what the state machine holds.
    Install(Image),
    /// A snapshot is wanted now.
    Capture(Completer<SnapshotResult>),
    /// A snapshot is visible that ends there.
    SnapshotVisible { at: LogPosition, bytes: u64 },
    /// The one that was captured could not be had.
    SnapshotFailed { at: LogPosition, error: SnapshotError },
    /// The newest one is of no use any more.
    SnapshotDamaged,
    /// And another one is to be taken in its place.
    ReplaceSnapshot,
    /// Reads that may run once `index` is applied, each with its deadline.
    Read { index: LogIndex, jobs: Vec<(Instant, ReadJob)> },
    /// A read of whatever is applied.
    ReadLocal(ReadJob),
    /// Nothing comes after it.
    Close(Closing),
}

/// The queue into the applier. Bounded by what may be proposed and read at all; and the protocol
/// hands out no more entries than `tail_bytes_max` before it hears that they are applied.
#[derive(Default)]
pub(crate) struct ApplyQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
}

#[derive(Default)]
struct QueueState {
    work: VecDeque<Work>,
    closed: Option<Closing>,
}

impl ApplyQueue {
    /// Adds work in order and leaves `work` empty. What comes after `Close` is answered at once.
    pub(crate) fn extend(&self, work: &mut Vec<Work>) {
        if work.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if let Some(closed) = state.closed.clone() {
            drop(state);
            return refuse(work.drain(..), &closed);
        }
        let was_empty = state.work.is_empty();
        for work in work.drain(..) {
            if let Work::Close(closing) = &work {
                state.closed = Some(closing.clone());
            }
            state.work.push_back(work);
        }
        drop(state);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// Answers what a thread that is gone has left; the queue is closed.
    pub(crate) fn refuse_rest(&self) {
        let mut state = self.state.lock();
        let (work, closed) = (std::mem::take(&mut state.work), state.closed.clone());
        drop(state);
        refuse(work, &closed.expect("a queue is closed before its thread is gone"));
    }

    /// The next piece, if one waits.
    pub(crate) fn pop(&self) -> Option<Work> {
        self.state.lock().work.pop_front()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().work.is_empty()
    }

    /// Swaps what waits for `work`, which must be empty; sleeps while nothing does, until the
    /// deadline.
    fn take(&self, work: &mut VecDeque<Work>, deadline: Option<std::time::Instant>) {
        let mut state = self.state.lock();
        while state.work.is_empty() {
            match deadline {
                None => self.arrived.wait(&mut state),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut state, deadline).timed_out() {
                        return;
                    }
                }
            }
        }
        std::mem::swap(&mut state.work, work);
    }
}

/// Runs the state machine.
pub(crate) struct Applier<S> {
    shared: Arc<Shared>,
    queue: Arc<ApplyQueue>,
    log: Log,
    machine: S,
    /// The newest entry the state machine has taken in.
    applied: LogPosition,
    captures: Captures,
    /// Applied by earlier processes behind the newest snapshot, and not counted yet.
    uncounted: Range<LogIndex>,
    waiting: Waiting,
    /// Reads that wait for an index above `applied`.
    reads: Confirmed,
    settled: Settled,
    /// Bytes applied since the driver was woken to hear of it.
    unreported_bytes: usize,
    closed: Option<Closing>,
}

impl<S: StateMachine> Applier<S> {
    /// The state machine has taken in everything up to `applied`; `base` is the newest image.
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<ApplyQueue>,
        log: Log,
        machine: S,
        applied: LogPosition,
        base: Option<&Base>,
    ) -> Self {
        let newest = base.map(|base| (base.snapshot.at, base.image.bytes()));
        let captures = Captures::new(newest);
        let behind = captures.newest().map_or(LogIndex(0), |newest| newest.index);
        let uncounted = behind.max(log_start(&log)).next()..applied.index.next();
        Self {
            shared,
            queue,
            log,
            machine,
            applied,
            captures,
            uncounted,
            waiting: Waiting::default(),
            reads: Confirmed::default(),
            settled: Settled::default(),
            unreported_bytes: 0,
            closed: None,
        }
    }

    /// Counts a piece of what lies between the newest snapshot and where the state machine begins, which is behind it if that keeps
    /// itself: earlier processes applied it, and where each ends before it has applied enough by itself, no snapshot would ever be
    /// due. Says whether there is more of it.
    ///
    /// Between the steps, on their thread: all of it can be as long as a log grows before a snapshot is taken, and nobody is to wait
    /// for that.
    pub(crate) fn count_passed(&mut self) -> bool {
        let options = &self.shared.options;
        let Range { start, end } = self.uncounted;
        let is_never_due = options.snapshot_log_bytes_min == u64::MAX;
        if start >= end || is_never_due || self.closed.is_some() {
            return false;
        }
        // What cannot be read is told when it is needed.
        let passed = storage::read(&self.log, start, end, options.fetch_bytes_max);
        let passed = passed.unwrap_or_default();
        let Some(last) = passed.last() else { return false };
        self.captures.count(last.index, passed.iter().map(Entry::bytes).sum());
        self.uncounted.start = last.index.next();
        self.capture_if_due();
        true
    }

    /// The thread: takes what waits, until it is closed.
    pub(crate) fn run(mut self) {
        let mut work = VecDeque::new();
        let mut has_passed = true;
        loop {
            has_passed = has_passed && self.count_passed();
            let due = if has_passed { Some(self.shared.clock.now()) } else { self.poll_timeout() };
            let deadline = due.map(|at| self.shared.clock.deadline(at));
            self.queue.take(&mut work, deadline.flatten());
            for work in work.drain(..) {
                if matches!(work, Work::Close(_)) {
                    return self.close(work);
                }
                self.step(work);
            }
            self.expire(self.shared.clock.now());
        }
    }

    /// When somebody may have waited too long.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.deadline().into_iter().chain(self.reads.deadline()).min()
    }

    /// Ends what has waited too long. What can be answered was answered before.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.waiting.expire(now, &mut self.settled);
        self.shared.inbox.settle(&mut self.settled);
        for job in self.reads.take_expired(now) {
            job.fail(ReadError::TimedOut);
        }
    }

    /// One piece of work. After a failure nothing more is applied, only answered.
    pub(crate) fn step(&mut self, work: Work) {
        if let Some(closed) = &self.closed {
            return refuse([work], closed);
        }
        match work {
            Work::Register { first, deadline, groups } => {
                self.waiting.extend(first, deadline, groups);
            }
            Work::Apply(Apply::Entries(batch)) => self.apply_batch(&batch),
            Work::Apply(Apply::Range { first, end }) => self.apply_range(first, end),
            Work::Apply(Apply::Snapshot { .. }) => unreachable!("the driver adds the image"),
            Work::Install(image) => self.install(&image),
            Work::Capture(completer) => self.take_snapshot(completer),
            Work::SnapshotVisible { at, bytes } => {
                self.captures.visible(at, bytes, self.applied.index);
                // As much can have been applied while it was written, and it may be all that ever is.
                self.capture_if_due();
            }
            Work::SnapshotFailed { at, error } => self.captures.fail(at, error),
            Work::SnapshotDamaged => self.forget_snapshot(),
            Work::ReplaceSnapshot => self.replace_snapshot(),
            Work::Read { index, jobs } => {
                self.reads.extend(index, jobs);
                self.run_reads();
            }
            Work::ReadLocal(job) => job.run(&self.machine),
            Work::Close(_) => self.close(work),
        }
    }

    fn apply_batch(&mut self, batch: &Batch) {
        let result = self.apply(batch.entries());
        self.unreported_bytes += batch.bytes();
        self.finish(result);
        self.count(batch.bytes());
    }

    /// Applies entries that are not in memory, a piece at a time.
    fn apply_range(&mut self, first: LogIndex, end: LogIndex) {
        assert_eq!(first, self.applied.index.next(), "ranges are applied without a gap");
        let bytes_max = self.shared.options.fetch_bytes_max;
        let mut told_at = self.shared.clock.now();
        while self.applied.index.next() < end && self.closed.is_none() {
            let next = self.applied.index.next();
            let mut bytes = 0;
            let result = match storage::read(&self.log, next, end, bytes_max) {
                Ok(entries) if entries.is_empty() => Err(format!(
                    "the log ends before index {next}, which is committed; restart the node"
                )),
                Ok(entries) => {
                    bytes = entries.iter().map(Entry::bytes).sum();
                    self.apply(&entries)
                }
                Err(error) => Err(self.shared.cannot_read(next, &error)),
            };
            self.finish(result);
            self.count(bytes);
            // A long replay holds up neither those who have waited long enough nor a shutdown; and it is told of.
            let now = self.shared.clock.now();
            self.expire(now);
            if now >= told_at + Duration::from_secs(1) {
                told_at = now;
                let (node, applied) = (self.shared.id, self.applied.index.0);
                tracing::info!(node, applied, last = end.0 - 1, "applies what its log holds");
            }
            if let Some(closing) = self.shared.inbox.closed() {
                self.end(closing);
            }
        }
    }

    /// Applies entries in order; `applied` stands at the last one that the state machine took in.
    fn apply(&mut self, entries: &[Entry]) -> Result<(), String> {
        let applied = AssertUnwindSafe(|| {
            for entry in entries {
                assert_eq!(
                    entry.index,
                    self.applied.index.next(),
                    "entries are applied without a gap"
                );
                self.apply_entry(entry)?;
            }
            Ok(())
        });
        // A panic of the state machine leaves it in an unknown state: it is not called again.
        catch_unwind(applied).unwrap_or_else(|panic| {
            Err(format!(
                "panic while applying index {}: {}; {APPLIED_AGAIN}",
                self.applied.index.next(),
                panic_text(panic.as_ref())
            ))
        })
    }

    fn apply_entry(&mut self, entry: &Entry) -> Result<(), String> {
        let position = LogPosition { term: entry.term, index: entry.index };
        let reply = match entry.kind() {
            Some(EntryKind::Command) => {
                let context = ApplyContext { position: position.into() };
                self.machine
                    .apply(&context, &entry.payload[1..])
                    .map_err(|error| refused_text(position, &error))?
            }
            Some(EntryKind::Empty | EntryKind::Configuration) => Bytes::new(),
            None => {
                return Err(format!(
                    "the entry at index {} is of a kind that this version does not know",
                    entry.index
                ));
            }
        };
        self.applied = position;
        self.waiting.answer(position, &reply, &mut self.settled);
        Ok(())
    }

    /// Reports what was applied and answers everybody who waited for it, at once.
    fn finish(&mut self, result: Result<(), String>) {
        self.shared.board.set_applied(self.applied.index.0);
        self.shared.inbox.note_applied(self.applied.index);
        // The protocol waits only once `tail_bytes_max` are handed out and not reported, so it need
        // not be woken for less than a part of that.
        if self.unreported_bytes >= self.shared.options.tail_bytes_max / 4 {
            self.unreported_bytes = 0;
            self.shared.inbox.complete(Completion::Applied);
        }
        self.shared.inbox.settle(&mut self.settled);
        self.run_reads();
        if let Err(cause) = result {
            let cause: Arc<str> = cause.into();
            self.shared.inbox.complete(Completion::Failed(cause.clone()));
            self.end(Closing::Fatal(cause));
        }
    }

    /// So many bytes were applied: a snapshot may be due.
    fn count(&mut self, bytes: usize) {
        self.captures.count(self.applied.index, bytes);
        self.capture_if_due();
    }

    fn capture_if_due(&mut self) {
        if self.captures.is_due(&self.shared.options) && self.closed.is_none() {
            self.capture();
        }
    }

    /// One is due, or on its way.
    pub(crate) fn owes_snapshot(&self) -> bool {
        self.captures.is_due(&self.shared.options) || self.captures.is_running()
    }

    fn take_snapshot(&mut self, completer: Completer<SnapshotResult>) {
        if self.applied.index == LogIndex(0) {
            let cause = "nothing is applied yet".into();
            return completer.complete_and_wake(Err(SnapshotError::Failed(cause)));
        }
        if let Some(known) = self.captures.newest().filter(|known| *known >= self.applied) {
            return completer.complete_and_wake(Ok(known.into()));
        }
        if self.captures.wait(self.applied.index, completer) {
            self.capture();
        }
    }

    /// The newest snapshot counts for nothing any more.
    fn forget_snapshot(&mut self) {
        self.captures.forget_newest(self.applied.index);
    }

    /// Takes a snapshot in place of the newest one, as soon as that can be.
    fn replace_snapshot(&mut self) {
        self.forget_snapshot();
        if !self.captures.is_put_off() {
            let (completer, _nobody) = slot();
            self.take_snapshot(completer);
        }
    }

    /// Captures the state machine; the rest is written elsewhere.
    fn capture(&mut self) {
        self.captures.begin(self.applied);
        self.uncounted = LogIndex(0)..LogIndex(0);
        let capture = AssertUnwindSafe(|| self.machine.snapshot());
        match catch_unwind(capture) {
            Ok(Ok(writer)) => {
                self.shared.inbox.complete(Completion::Captured(self.applied, Capture(writer)));
            }
            Ok(Err(error)) => self.lose_capture(&error),
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                self.finish(Err(format!("panic while the state was captured: {text}")));
            }
        }
    }

    fn lose_capture(&mut self, error: &io::Error) {
        let (node, cause) = (self.shared.id, Arc::<str>::from(error.to_string()));
        tracing::error!(node, %cause, "the state machine could not be captured");
        self.shared.events.tell(Event::SnapshotFailed { cause: cause.clone() });
        self.captures.fail(self.applied, SnapshotError::Failed(cause));
    }

    /// Takes in all of an image: whoever waits for an entry that it contains never learns what became of it.
    fn install(&mut self, image: &Image) {
        let at = snapshots::position(image.header().place);
        assert!(at.index > self.applied.index, "an image takes the state machine forward");
        let restore = AssertUnwindSafe(|| self.machine.restore(&mut image.read()));
        let result = match catch_unwind(restore) {
            Ok(Ok(())) => {
                self.applied = at;
                self.waiting.pass(at.index, &mut self.settled);
                Ok(())
            }
            Ok(Err(error)) => Err(format!("the snapshot at {at} was not taken in: {error}")),
            Err(panic) => {
                let text = panic_text(panic.as_ref());
                Err(format!("panic while the snapshot at {at} was taken in: {text}"))
            }
        };
        self.finish(result);
        // However little it weighed: the protocol waits for it.
        self.shared.inbox.complete(Completion::Applied);
    }

    fn run_reads(&mut self) {
        while let Some(jobs) = self.reads.take_applied(self.applied.index) {
            for (_, job) in jobs {
                job.run(&self.machine);
            }
        }
    }

    pub(crate) fn machine(&self) -> &S {
        &self.machine
    }

    fn close(&mut self, work: Work) {
        if let Work::Close(closing) = work {
            self.end(closing);
        }
    }

    /// Answers everybody; from now on nothing is applied.
    fn end(&mut self, closing: Closing) {
        let open = |position| closing.open(position);
        self.waiting.end(open, &mut self.settled);
        self.shared.inbox.settle(&mut self.settled);
        for job in self.reads.take_all() {
            job.fail(closing.read());
        }
        self.captures.close(closing.snapshot());
        self.closed.get_or_insert(closing);
    }
}

/// Answers work that came too late to be done.
fn refuse(work: impl IntoIterator<Item = Work>, closed: &Closing) {
    for work in work {
        match work {
            Work::Register { first, deadline, groups } => {
                let mut waiting = Waiting::default();
                let mut settled = Settled::default();
                waiting.extend(first, deadline, groups);
                waiting.end(|position| closed.open(position), &mut settled);
            }
            Work::Read { jobs, .. } => {
                jobs.into_iter().for_each(|(_, job)| job.fail(closed.read()));
            }
            Work::ReadLocal(job) => job.fail(closed.read()),
            Work::Capture(completer) => completer.complete_and_wake(Err(closed.snapshot())),
            Work::Apply(_) | Work::Close(_) | Work::Install(_) => {}
            Work::SnapshotVisible { .. } | Work::SnapshotFailed { .. } => {}
            Work::SnapshotDamaged | Work::ReplaceSnapshot => {}
        }
    }
}

/// What lies before the log.
fn log_start(log: &Log) -> LogIndex {
    LogIndex(log.first() - 1)
}

fn refused_text(position: LogPosition, error: &io::Error) -> String {
    format!(
        "the state machine failed at index {} of term {}: {error}; {APPLIED_AGAIN}",
        position.index, position.term
    )
}

/// A restart alone does not help.
const APPLIED_AGAIN: &str =
    "the command stays in the log, and each start applies it again until the program takes it";

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "without a text"
    }
}

#[cfg(test)]
mod tests;
