//! The handle of a node, and its threads.

use std::{
    any::Any,
    io,
    marker::PhantomData,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::{self, JoinHandle},
};

use bytes::Bytes;
use kontiki_wal::{Log, Wal};

use crate::{
    Builder, Event, Events, Position, Proposal, ProposalBatch, Read, Reading, Ready, Role,
    SnapshotError, StartError, StateMachine, Status,
    applier::{Applier, ApplyQueue, Work, panic_text},
    driver::Driver,
    error::Closing,
    fetcher,
    inbox::{Arrivals, Completion},
    reading::ReadJob,
    shared::Shared,
    slot::{Outcome, future, slot},
    snapshots::keeper::Keeper,
};

/// A member of a cluster: proposes commands to the replicated log and reads the state machine.
///
/// Cheap to clone. The node stops when the last handle is dropped, without anybody waiting for it;
/// [`shutdown`](Self::shutdown) stops it and tells when it is done.
pub struct Node<S> {
    handle: Arc<Handle>,
    machine: PhantomData<fn(S)>,
}

future!(
    /// Resolves when the snapshot is whole and durable: with the last entry that it contains.
    TakingSnapshot => Result<Position, SnapshotError>
);

future!(
    /// Resolves when every thread of the node has ended and its data directory is free.
    Shutdown => ()
);

struct Handle {
    shared: Arc<Shared>,
    applier: Arc<ApplyQueue>,
    address: SocketAddr,
}

/// Whatever its state machine: [`Builder::start`] decides that.
impl Node<()> {
    /// Sets up node `id` (any number but 0, the same for ever) with its data below `directory`.
    pub fn builder(id: u64, directory: impl AsRef<Path>) -> Builder {
        Builder::new(id, directory.as_ref())
    }
}

impl<S: StateMachine> Node<S> {
    pub(crate) fn new(shared: Arc<Shared>, applier: Arc<ApplyQueue>, address: SocketAddr) -> Self {
        Self { handle: Arc::new(Handle { shared, applier, address }), machine: PhantomData }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Proposes a command, on any member: a follower passes it on to its leader.
    ///
    /// It is queued, or refused, when this returns; the future only waits for the outcome. The
    /// proposals of one thread are appended in the order of its calls, or fail.
    pub fn propose(&self, command: impl Into<Bytes>) -> Proposal {
        self.handle.shared.inbox.propose(&command.into())
    }

    /// Proposes commands that follow one another in the log: one place in the queue, one wake-up.
    ///
    /// The outcomes come together, in the order of `commands`. All commands together are bounded
    /// like one, by [`command_bytes_max`](crate::Options::command_bytes_max); a batch of more than
    /// [`proposals_max`](crate::Options::proposals_max) commands is always `Overloaded`.
    pub fn propose_batch(&self, commands: Vec<Bytes>) -> ProposalBatch {
        self.handle.shared.inbox.propose_batch(&commands)
    }

    /// Runs `read` on the state machine of this node and returns its value.
    ///
    /// It runs on the thread that applies: while it runs nothing is applied, so a long scan should
    /// copy what it needs.
    pub fn read<R: Send + 'static>(
        &self,
        freshness: Read,
        read: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Reading<R> {
        let Handle { shared, applier, .. } = &*self.handle;
        if let Err(error) = shared.inbox.admit_read() {
            return Reading(Outcome::ready(Err(error)));
        }
        let (job, reading) = ReadJob::new(shared.clone(), read);
        match freshness {
            Read::Linearizable => shared.inbox.read(job),
            Read::Local => {
                applier.extend(&mut vec![Work::ReadLocal(job)]);
            }
        }
        reading
    }

    /// Takes a snapshot of what is applied now, on this node alone. It does so by itself as its log grows
    /// ([`snapshot_ratio`](crate::Options::snapshot_ratio)). One that is being written counts as this one.
    ///
    /// Right behind another one it leaves nothing in the log but what was written between the two, however many
    /// [entries trail](crate::Options::trailing_entries): a follower that is further behind gets an image.
    pub fn snapshot(&self) -> TakingSnapshot {
        let (completer, outcome) = slot();
        self.handle.applier.extend(&mut vec![Work::Capture(completer)]);
        TakingSnapshot(outcome)
    }

    /// How the node stands.
    pub fn status(&self) -> Status {
        self.handle.shared.board.status()
    }

    /// What happens to the node from now on.
    pub fn events(&self) -> Events {
        self.handle.shared.events.receiver()
    }

    /// Resolves when the node serves (its first start is complete and a leader is known) and has
    /// room for proposals: for one of [`command_bytes_max`](crate::Options::command_bytes_max), and
    /// a sixteenth of [`proposals_max`](crate::Options::proposals_max) is free, and a leader is not
    /// too far behind with applying to take more. Somebody else may take it first; and a follower,
    /// which passes proposals on, knows of its own room alone.
    ///
    /// Fails when the node never will: it was stopped, it failed, or it is not admitted because the
    /// cluster knows it with another disk.
    pub fn ready(&self) -> Ready {
        self.handle.shared.inbox.ready()
    }

    /// Stops the node. Proposals without an outcome end as
    /// [`Unknown`](crate::ProposeError::Unknown) or, if nobody took them yet, as
    /// [`Stopped`](crate::ProposeError::Stopped).
    pub fn shutdown(&self) -> Shutdown {
        self.handle.shared.inbox.close(Closing::Stopped);
        Shutdown(self.handle.shared.end.wait())
    }

    /// Where this node listens.
    pub fn address(&self) -> SocketAddr {
        self.handle.address
    }
}

impl<S> Clone for Node<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), machine: PhantomData }
    }
}

impl<S> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.handle.shared.id).finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.inbox.close(Closing::Stopped);
    }
}

/// The threads of a node beside the driver's, which outlives them and cleans up.
pub(crate) struct Threads(Vec<JoinHandle<()>>);

/// What runs on the threads of a node.
pub(crate) struct Workers<S> {
    pub(crate) driver: Driver,
    pub(crate) applier: Applier<S>,
    pub(crate) keeper: Keeper,
    pub(crate) log: Log,
}

/// How a thread is started, by its name; a seam for tests.
pub(crate) type Spawn = fn(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>;

impl Threads {
    /// Starts all threads, or none: after an error nothing runs and nothing is locked.
    pub(crate) fn start<S: StateMachine>(
        shared: &Arc<Shared>,
        workers: Workers<S>,
        spawn: Spawn,
    ) -> Result<(), StartError> {
        let Workers { driver, applier, keeper, log } = workers;
        let (queue, jobs) = (driver.fetches(), driver.keeper());
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            spawn(format!("kontiki-{}-{name}", shared.id), run)
        };
        let (of_applier, of_fetcher, of_keeper) = (shared.clone(), shared.clone(), shared.clone());
        let applier: Box<dyn FnOnce() + Send> = Box::new(move || {
            let run = catch_unwind(AssertUnwindSafe(|| applier.run()));
            report_panic(&of_applier, "applier", run);
        });
        let fetcher: Box<dyn FnOnce() + Send> = Box::new(move || {
            let run = catch_unwind(AssertUnwindSafe(|| fetcher::run(&of_fetcher, &queue, &log)));
            report_panic(&of_fetcher, "fetcher", run);
        });
        let keeper: Box<dyn FnOnce() + Send> = Box::new(move || {
            let run = catch_unwind(AssertUnwindSafe(|| keeper.run(&jobs)));
            report_panic(&of_keeper, "keeper", run);
        });
        // The driver's thread is there before anything is handed to it: what a thread that cannot
        // be started takes along is lost.
        let (hand_over, take_over) = sync_channel(1);
        let of_driver = shared.clone();
        let mut threads = Self(Vec::new());
        let start_all = || {
            spawn("driver", Box::new(move || drive(&of_driver, &take_over)))?;
            for (name, run) in [("applier", applier), ("fetcher", fetcher), ("keeper", keeper)] {
                threads.0.push(spawn(name, run)?);
            }
            Ok(())
        };
        let started: io::Result<()> = start_all();
        if let Err(error) = started {
            threads.stop(shared, driver);
            return Err(StartError::Io(Arc::new(error)));
        }
        hand_over.send((driver, threads)).expect("the thread waits for it");
        Ok(())
    }

    /// Ends everything; the data directory is free afterwards.
    fn stop(self, shared: &Shared, driver: Driver) {
        let applies = driver.applies();
        let wal = driver.stop();
        for thread in self.0 {
            if thread.join().is_err() {
                tracing::error!(node = shared.id, "a thread of the node panicked at its end");
            }
        }
        // An applier that panicked has left what came after it.
        applies.refuse_rest();
        finish(shared, wal);
    }
}

/// The last of a node, once nothing of it runs: the data directory is free, and whoever waits for that is told.
pub(crate) fn finish(shared: &Shared, wal: Wal) {
    // What the keeper has done since holds the lock of the images.
    shared.inbox.take(&mut Arrivals::default());
    shared.board.release_wal();
    if let Err(error) = wal.close() {
        tracing::warn!(node = shared.id, %error, "the log was not closed cleanly");
    }
    drop(wal);
    shared.board.update(|status| (status.role, status.leader) = (Role::Stopped, None));
    shared.events.tell(Event::Stopped);
    shared.end.come();
}

fn report_panic(shared: &Shared, name: &str, result: Result<(), Box<dyn Any + Send>>) {
    if let Err(panic) = result {
        let cause = format!("panic in the {name}: {}", panic_text(panic.as_ref()));
        shared.inbox.complete(Completion::Failed(cause.into()));
    }
}

/// The driver's thread, once there is something to drive.
fn drive(shared: &Shared, take_over: &Receiver<(Driver, Threads)>) {
    let Ok((mut driver, threads)) = take_over.recv() else { return };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| driver.run())) {
        shared.fail(format!("panic in the driver: {}", panic_text(panic.as_ref())).into());
    }
    threads.stop(shared, driver);
}

/// A thread of the system.
pub(crate) fn spawn(name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(run)
}

#[cfg(test)]
mod tests;
