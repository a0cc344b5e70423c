use std::{cell::Cell, io, time::Duration};

use kontiki_disk::memory::MemoryDisk;

use super::*;
use crate::{
    ApplyContext, Hello, Inbound, Options, SnapshotWriter, Transport,
    applier::ApplyQueue,
    bootstrap::{FirstStart, Identity},
    driver::Neighbours,
    entropy::Entropy,
    forward::Forwards,
    storage::Storage,
};

/// Takes everything and answers nothing.
struct Deaf;

impl StateMachine for Deaf {
    fn apply(&mut self, _: &ApplyContext, _: &[u8]) -> io::Result<Bytes> {
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Err(io::Error::other("not in these tests"))
    }

    fn restore(&mut self, _: &mut dyn io::Read) -> io::Result<()> {
        Err(io::Error::other("not in these tests"))
    }
}

/// A transport that reaches nobody; its end may be a panic.
#[derive(Debug)]
struct Nowhere {
    panics: bool,
}

impl Transport for Nowhere {
    fn start(&mut self, _: Hello, _: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        unreachable!("the driver is given a started one")
    }

    fn set_peers(&self, _: &[(u64, String)]) {}

    fn set_hello(&self, _: Hello) {}

    fn send(&self, _: u64, _: u32, _: Vec<Bytes>) -> bool {
        false
    }

    fn stop(&mut self) {
        assert!(!self.panics, "told to panic");
    }
}

fn workers(disk: &MemoryDisk, transport: Nowhere) -> (Arc<Shared>, Workers<Deaf>) {
    let (options, disk) = (Options::default(), Arc::new(disk.clone()));
    let mut storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
    let shared = Arc::new(Shared::new(1, &options, &storage));
    let keeper = Keeper::new(shared.clone(), storage.store.take().unwrap());
    let (queue, log) = (Arc::new(ApplyQueue::default()), storage.log.clone());
    let members = vec![(1, "n1:1".to_owned())];
    let neighbours = Neighbours {
        transport: Box::new(transport),
        applier: queue.clone(),
        fetcher: Arc::default(),
        keeper: Arc::default(),
        identity: Arc::new(Identity::new(1, members.clone(), &storage.state, true)),
    };
    let first_start = FirstStart::new(1, storage.state.incarnation, members);
    let forwards = Forwards::new(&Entropy::System).unwrap();
    let driver = Driver::new(shared.clone(), storage, Some(first_start), forwards, neighbours);
    let applier = Applier::new(
        shared.clone(),
        queue,
        log.clone(),
        Deaf,
        kontiki_core::Position::default(),
        None,
    );
    (shared, Workers { driver, applier, keeper, log })
}

thread_local! {
    /// How many threads this one may still start.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

fn spawn_while_left(name: String, run: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    if LEFT.get() == 0 {
        return Err(io::Error::other("no more threads"));
    }
    LEFT.set(LEFT.get() - 1);
    spawn(name, run)
}

#[test]
fn a_thread_that_cannot_be_started_leaves_nothing_running_and_nothing_locked() {
    let disk = MemoryDisk::new();
    for left in 0..3 {
        let (shared, workers) = workers(&disk, Nowhere { panics: false });
        LEFT.set(left);
        let error = Threads::start(&shared, workers, spawn_while_left).unwrap_err();
        assert!(error.to_string().contains("no more threads"), "{error}");
        // The next one opens the same directory.
    }
}

#[test]
fn a_transport_that_panics_at_its_end_does_not_keep_a_shutdown_waiting() {
    let disk = MemoryDisk::new();
    let (shared, workers) = workers(&disk, Nowhere { panics: true });
    Threads::start(&shared, workers, spawn).unwrap();
    let ended = shared.end.wait();
    shared.inbox.close(Closing::Stopped);
    assert!(ended.wait_timeout(Duration::from_secs(20)).is_ok(), "it never ends");
    Storage::open(Path::new("d"), 1, &Options::default(), Some(Arc::new(disk))).unwrap();
}
