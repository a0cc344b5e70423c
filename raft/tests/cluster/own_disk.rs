//! A state machine that keeps a disk of its own: a start goes on behind what is there, and refuses what cannot be.

use std::{
    fs,
    io::{self, Read, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use kontiki::{ApplyContext, Node, Position, SnapshotWriter, StartError, StateMachine};

use crate::harness::Cluster;

/// The sum of what was proposed, and the place of the last command that is in it.
type Sum = (u64, Position);

/// Adds, and keeps the sum on its disk when it is told to.
struct Adder {
    sum: Sum,
    disk: Arc<Mutex<Sum>>,
    /// Commands that this process has applied.
    applied: Arc<Mutex<u64>>,
}

impl StateMachine for Adder {
    fn apply(&mut self, context: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        *self.applied.lock().unwrap() += 1;
        self.sum = (self.sum.0 + u64::from(command[0]), context.position);
        if command[0] == KEEP {
            *self.disk.lock().unwrap() = self.sum;
        }
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Ok(Box::new(Image(self.sum)))
    }

    fn restore(&mut self, image: &mut dyn Read) -> io::Result<()> {
        let mut bytes = [0; 24];
        image.read_exact(&mut bytes)?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        self.sum = (number(0), Position { term: number(8), index: number(16) });
        *self.disk.lock().unwrap() = self.sum;
        Ok(())
    }

    fn durable_position(&self) -> Option<Position> {
        Some(self.disk.lock().unwrap().1)
    }
}

/// The command that makes the sum durable.
const KEEP: u8 = 100;

struct Image(Sum);

impl SnapshotWriter for Image {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        let (sum, Position { term, index }) = self.0;
        [sum, term, index].iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
    }
}

/// A node on the cluster's directory 1, and how many commands it applies.
fn start(
    cluster: &Cluster,
    disk: &Arc<Mutex<Sum>>,
) -> Result<(Node<Adder>, Arc<Mutex<u64>>), StartError> {
    let (disk, applied) = (Arc::clone(disk), Arc::default());
    let sum = *disk.lock().unwrap();
    let node = cluster.builder(1).start(Adder { sum, disk, applied: Arc::clone(&applied) })?;
    node.ready().wait().unwrap();
    Ok((node, applied))
}

fn sum(node: &Node<Adder>) -> u64 {
    node.read(kontiki::Read::Linearizable, |adder: &Adder| adder.sum.0).wait().unwrap()
}

fn propose(node: &Node<Adder>, commands: &[u8]) {
    for command in commands {
        node.propose(vec![*command]).wait().unwrap();
    }
}

#[test]
fn a_start_goes_on_behind_what_is_kept_and_applies_nothing_twice() {
    let cluster = Cluster::prepare(1);
    let disk = Arc::default();
    let (node, _) = start(&cluster, &disk).unwrap();
    propose(&node, &[1, 2, KEEP, 3, 4]);
    node.shutdown().wait();
    let (node, applied) = start(&cluster, &disk).unwrap();
    assert_eq!(sum(&node), 110);
    assert_eq!(*applied.lock().unwrap(), 2, "the two behind the last that is kept");
    // Kept long before the newest snapshot, which the log still reaches back behind: that is not restored.
    propose(&node, &[5]);
    node.snapshot().wait().unwrap();
    node.shutdown().wait();
    let (node, applied) = start(&cluster, &disk).unwrap();
    assert_eq!((sum(&node), *applied.lock().unwrap()), (115, 3));
    node.shutdown().wait();
}

/// Else a node that is started anew more often than it applies so much would keep all of its log.
#[test]
fn what_earlier_processes_have_applied_counts_for_the_next_snapshot() {
    let mut cluster = Cluster::prepare(1);
    cluster.options.trailing_entries = 0;
    cluster.options.snapshot_log_bytes_min = 400;
    let disk = Arc::default();
    for round in 0..20 {
        let (node, _) = start(&cluster, &disk).unwrap();
        propose(&node, &[1, KEEP]);
        let has_one = node.status().snapshot.index > 0;
        node.shutdown().wait();
        if has_one {
            assert!(round > 1, "not before there are so many bytes");
            return;
        }
    }
    panic!("no snapshot was taken");
}

/// RAFT-CASE 54
#[test]
fn what_is_older_than_the_log_begins_with_the_snapshot_and_not_without() {
    let mut cluster = Cluster::prepare(1);
    cluster.options.trailing_entries = 0;
    let disk = Arc::default();
    let (node, _) = start(&cluster, &disk).unwrap();
    propose(&node, &[KEEP, 1, 2, 3]);
    let old = *disk.lock().unwrap();
    let position = node.snapshot().wait().unwrap();
    propose(&node, &[4]);
    while node.status().log_first <= position.index {
        node.propose(vec![0]).wait().unwrap();
    }
    node.shutdown().wait();
    assert_eq!(*disk.lock().unwrap(), old);
    let (node, _) = start(&cluster, &disk).unwrap();
    assert_eq!(sum(&node), 110);
    assert_eq!(disk.lock().unwrap().0, 106, "as it was restored");
    node.shutdown().wait();
    *disk.lock().unwrap() = old;
    fs::remove_dir_all(cluster.data(1).join("snapshots")).unwrap();
    let refused = start(&cluster, &disk).map(drop).unwrap_err();
    assert!(refused.to_string().contains("the log begins at index"), "{refused}");
}

/// RAFT-CASE 62
#[test]
fn a_state_machine_that_is_ahead_of_its_log_or_of_another_one_is_refused() {
    let cluster = Cluster::prepare(1);
    let disk = Arc::default();
    let (node, _) = start(&cluster, &disk).unwrap();
    propose(&node, &[KEEP]);
    node.shutdown().wait();
    let kept = disk.lock().unwrap().1;
    for wrong in [
        Position { index: kept.index + 1000, ..kept },
        // That of another log.
        Position { term: kept.term + 1, ..kept },
    ] {
        disk.lock().unwrap().1 = wrong;
        let refused = start(&cluster, &disk).map(drop).unwrap_err();
        let StartError::Gap { applied, last, .. } = &refused else { panic!("{refused}") };
        assert!(*applied == wrong && *last < 10, "{refused}");
    }
}
