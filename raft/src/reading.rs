//! Reads: closures that wait for their index.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kontiki_core::{Instant, ReadId};

use crate::{
    ReadError, StateMachine,
    shared::Shared,
    slot::{Completer, future, slot},
};

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Read {
    /// Sees every command that was answered, anywhere in the cluster, before the read began. Costs
    /// one round of messages, shared by all reads that wait.
    Linearizable,
    /// Sees whatever this node has applied: on any node, also without a leader, perhaps old.
    Local,
}

future!(
    /// The value a read's closure returned.
    Reading<R> => Result<R, ReadError>
);

/// The closure of a read, ready to run on the state machine or to be told why it can not.
///
/// Ends exactly once: who drops it says `Stopped`.
pub(crate) struct ReadJob {
    run: Option<Run>,
    shared: Arc<Shared>,
}

type Run = Box<dyn FnOnce(Result<&dyn Any, ReadError>) + Send>;

impl ReadJob {
    /// The caller has been admitted by the inbox; the room is given back when the job has ended.
    pub(crate) fn new<S: StateMachine, R: Send + 'static>(
        shared: Arc<Shared>,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> (Self, Reading<R>) {
        let (completer, outcome) = slot();
        let run: Run = Box::new(move |machine| run(machine, read, completer));
        (Self { run: Some(run), shared }, Reading(outcome))
    }

    /// Runs the closure on the state machine.
    pub(crate) fn run(mut self, machine: &dyn Any) {
        if let Some(run) = self.run.take() {
            run(Ok(machine));
        }
    }

    pub(crate) fn fail(mut self, error: ReadError) {
        if let Some(run) = self.run.take() {
            run(Err(error));
        }
    }
}

impl Drop for ReadJob {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            run(Err(ReadError::Stopped));
        }
        self.shared.inbox.release_read();
    }
}

fn run<S: StateMachine, R>(
    machine: Result<&dyn Any, ReadError>,
    read: impl FnOnce(&S) -> R,
    completer: Completer<Result<R, ReadError>>,
) {
    let result = machine.and_then(|machine| {
        let machine = machine.downcast_ref::<S>().expect("a node has one state machine");
        // Nothing of ours is touched inside; what the closure did to the state machine's own
        // interior is the application's affair.
        catch_unwind(AssertUnwindSafe(|| read(machine))).map_err(|_| ReadError::Panicked)
    });
    completer.complete_and_wake(result);
}

/// Reads on their way to an index.
///
/// All reads that begin in one turn are one read for the protocol.
#[derive(Default)]
pub(crate) struct Reads {
    last_id: u64,
    /// To be asked, or asked again; ordered by deadline.
    waiting: VecDeque<(Instant, ReadJob)>,
    /// Asked, without an answer.
    asked: BTreeMap<ReadId, Vec<(Instant, ReadJob)>>,
}

impl Reads {
    /// Adds what arrived; it may be asked for until `deadline`.
    pub(crate) fn extend(&mut self, jobs: &mut Vec<ReadJob>, deadline: Instant) {
        self.waiting.extend(jobs.drain(..).map(|job| (deadline, job)));
    }

    /// Everything that waits to be asked becomes one read.
    pub(crate) fn ask(&mut self) -> Option<ReadId> {
        if self.waiting.is_empty() {
            return None;
        }
        self.last_id += 1;
        let id = ReadId(self.last_id);
        self.asked.insert(id, self.waiting.drain(..).collect());
        Some(id)
    }

    /// The protocol has an index for `id`: its jobs, without those that were given up.
    pub(crate) fn take(&mut self, id: ReadId) -> Vec<ReadJob> {
        let jobs = self.asked.remove(&id).unwrap_or_default();
        jobs.into_iter().map(|(_, job)| job).collect()
    }

    /// `id` was not served: its jobs wait to be asked again, before those that came later.
    pub(crate) fn ask_again(&mut self, id: ReadId) {
        for job in self.asked.remove(&id).unwrap_or_default().into_iter().rev() {
            let place = self.waiting.partition_point(|(deadline, _)| *deadline < job.0);
            self.waiting.insert(place, job);
        }
    }

    /// Takes every job whose deadline has passed, with whether it was asked.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<ReadJob> {
        let mut expired = Vec::new();
        while self.waiting.front().is_some_and(|(deadline, _)| *deadline <= now) {
            expired.extend(self.waiting.pop_front().map(|(_, job)| job));
        }
        for jobs in self.asked.values_mut() {
            expired
                .extend(jobs.extract_if(.., |(deadline, _)| *deadline <= now).map(|(_, job)| job));
        }
        self.asked.retain(|_, jobs| !jobs.is_empty());
        expired
    }

    /// The earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let asked = self.asked.values().flatten();
        self.waiting.front().into_iter().chain(asked).map(|(deadline, _)| *deadline).min()
    }

    /// Takes everything, at the end.
    pub(crate) fn take_all(&mut self) -> Vec<ReadJob> {
        let asked = std::mem::take(&mut self.asked).into_values().flatten();
        self.waiting.drain(..).chain(asked).map(|(_, job)| job).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kontiki_disk::memory::MemoryDisk;

    use super::*;
    use crate::{Options, storage::Storage};

    #[test]
    fn reads_that_are_asked_again_keep_the_order_of_their_deadlines() {
        let options = Options::default();
        let disk = Arc::new(MemoryDisk::new());
        let storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
        let shared = Arc::new(Shared::new(1, &options, &storage));
        let mut reads = Reads::default();
        let asked = [10, 20, 30].map(|deadline| {
            shared.inbox.admit_read().unwrap();
            let run: Run = Box::new(|_| {});
            let job = ReadJob { run: Some(run), shared: shared.clone() };
            reads.extend(&mut vec![job], Instant(deadline));
            reads.ask().expect("there is one")
        });
        // The protocol gives up what it was asked first before what it was asked last.
        for id in asked {
            reads.ask_again(id);
        }
        assert_eq!(reads.deadline(), Some(Instant(10)));
        assert_eq!(reads.take_expired(Instant(20)).len(), 2);
        assert_eq!(reads.deadline(), Some(Instant(30)));
    }
}
