//! Reads: closures that wait for their index.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use kontiki_core::{Instant, LogIndex, ReadId};

use crate::{
    ReadError,
    shared::Shared,
    slot::{future, slot},
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
pub(crate) struct ReadJob(Option<Run>);

type Run = Box<dyn FnOnce(Result<&dyn Any, ReadError>) + Send>;

impl ReadJob {
    /// The caller has been admitted by the inbox; the room is given back when the job has ended,
    /// before anybody hears of it: whoever has the value finds the room.
    pub(crate) fn new<S: 'static, R: Send + 'static>(
        shared: Arc<Shared>,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> (Self, Reading<R>) {
        let (completer, outcome) = slot();
        let run: Run = Box::new(move |machine| {
            let value = value(machine, read);
            shared.inbox.release_read();
            completer.complete_and_wake(value);
        });
        (Self(Some(run)), Reading(outcome))
    }

    /// Runs the closure on the state machine.
    pub(crate) fn run(mut self, machine: &dyn Any) {
        if let Some(run) = self.0.take() {
            run(Ok(machine));
        }
    }

    pub(crate) fn fail(mut self, error: ReadError) {
        if let Some(run) = self.0.take() {
            run(Err(error));
        }
    }
}

impl Drop for ReadJob {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run(Err(ReadError::Stopped));
        }
    }
}

fn value<S: 'static, R>(
    machine: Result<&dyn Any, ReadError>,
    read: impl FnOnce(&S) -> R,
) -> Result<R, ReadError> {
    let machine = machine?.downcast_ref::<S>().expect("a node has one state machine");
    // Nothing of ours is touched inside; what the closure did to the state machine's own interior
    // is the application's affair.
    catch_unwind(AssertUnwindSafe(|| read(machine))).map_err(|_| ReadError::Panicked)
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

    /// The protocol has an index for `id`: its jobs, without those that were given up. They keep
    /// their deadlines: the index may never be applied here.
    pub(crate) fn take(&mut self, id: ReadId) -> Vec<(Instant, ReadJob)> {
        self.asked.remove(&id).unwrap_or_default()
    }

    /// `id` was not served: its jobs wait to be asked again, before those that came later.
    pub(crate) fn ask_again(&mut self, id: ReadId) {
        for job in self.asked.remove(&id).unwrap_or_default().into_iter().rev() {
            let place = self.waiting.partition_point(|(deadline, _)| *deadline < job.0);
            self.waiting.insert(place, job);
        }
    }

    /// Takes every job whose deadline has passed.
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

/// Reads that have an index and wait until it is applied.
#[derive(Default)]
pub(crate) struct Confirmed {
    jobs: BTreeMap<LogIndex, Vec<(Instant, ReadJob)>>,
    /// No job's deadline is earlier.
    deadline: Option<Instant>,
}

impl Confirmed {
    pub(crate) fn extend(&mut self, index: LogIndex, jobs: Vec<(Instant, ReadJob)>) {
        let earliest = jobs.iter().map(|(deadline, _)| *deadline).min();
        self.deadline = self.deadline.into_iter().chain(earliest).min();
        self.jobs.entry(index).or_default().extend(jobs);
    }

    /// Takes the jobs of the lowest index, if that is applied.
    pub(crate) fn take_applied(&mut self, applied: LogIndex) -> Option<Vec<(Instant, ReadJob)>> {
        let first = self.jobs.first_entry().filter(|first| *first.key() <= applied)?;
        let jobs = first.remove();
        if self.jobs.is_empty() {
            self.deadline = None;
        }
        Some(jobs)
    }

    /// Takes every job whose deadline has passed.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<ReadJob> {
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return Vec::new();
        }
        let mut expired = Vec::new();
        for jobs in self.jobs.values_mut() {
            let late = jobs.extract_if(.., |(deadline, _)| *deadline <= now);
            expired.extend(late.map(|(_, job)| job));
        }
        self.jobs.retain(|_, jobs| !jobs.is_empty());
        self.deadline = self.jobs.values().flatten().map(|(deadline, _)| *deadline).min();
        expired
    }

    /// When something may have waited too long.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes everything, at the end.
    pub(crate) fn take_all(&mut self) -> Vec<ReadJob> {
        let jobs = std::mem::take(self).jobs;
        jobs.into_values().flatten().map(|(_, job)| job).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_that_are_asked_again_keep_the_order_of_their_deadlines() {
        let mut reads = Reads::default();
        let asked = [10, 20, 30].map(|deadline| {
            let job = ReadJob(Some(Box::new(|_| {})));
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

    #[test]
    fn a_confirmed_read_expires_at_its_own_deadline_unless_its_index_comes() {
        let mut confirmed = Confirmed::default();
        for (index, deadline) in [(5, 30), (7, 10), (7, 20)] {
            let job = ReadJob(Some(Box::new(|_| {})));
            confirmed.extend(LogIndex(index), vec![(Instant(deadline), job)]);
        }
        assert_eq!(confirmed.deadline(), Some(Instant(10)));
        assert_eq!(confirmed.take_expired(Instant(9)).len(), 0);
        assert_eq!(confirmed.take_expired(Instant(10)).len(), 1);
        assert_eq!(confirmed.deadline(), Some(Instant(20)));
        assert_eq!(confirmed.take_applied(LogIndex(6)).map(|jobs| jobs.len()), Some(1));
        assert!(confirmed.take_applied(LogIndex(6)).is_none());
        assert_eq!(confirmed.take_expired(Instant(30)).len(), 1);
        assert_eq!(confirmed.deadline(), None);
    }
}
