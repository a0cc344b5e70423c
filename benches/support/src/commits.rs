//! The commit path: three durable nodes in this process, over TCP on loopback, with the options
//! that every user gets, and one client that keeps a number of commands in flight.

use std::{
    error::Error,
    io::{self, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki::{ApplyContext, Node, Proposal, Role, SnapshotWriter, StateMachine};

use crate::{
    frames::frame_bytes, latencies::Latencies, ports::free_addresses, rounds::Contender, window,
};

/// Commands in flight, of 128 B each: the three that the project's figures are about.
pub const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

/// Nodes that have a command on their disks, at least, when it is committed: they share one here.
pub const COPIES: usize = 2;

/// What `in_flight` commands take on one node's disk if they share a frame, kind bytes included.
pub const fn group_bytes(in_flight: usize) -> usize {
    frame_bytes(in_flight, in_flight * (1 + COMMAND_BYTES))
}

/// Three nodes that elected a leader.
pub struct Cluster {
    nodes: Vec<Node<Counter>>,
    command: Bytes,
}

impl Cluster {
    /// Starts three nodes below `directory` and waits until one leads.
    pub fn start(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let addresses = free_addresses(3);
        let members: Vec<_> = (1..).zip(addresses.iter().cloned()).collect();
        let nodes = members
            .iter()
            .map(|(id, address)| {
                Node::builder(*id, directory.join(id.to_string()))
                    .listen(address)
                    .initial_members(members.clone())
                    .start(Counter::default())
            })
            .collect::<Result<Vec<_>, _>>()?;
        let command = Bytes::from(vec![b'k'; COMMAND_BYTES]);
        let cluster = Self { nodes, command };
        for node in &cluster.nodes {
            node.ready().wait()?;
        }
        Ok(cluster)
    }

    /// Itself, under its name; a group is as many commands as are in flight.
    pub fn contender(&self, in_flight: usize) -> Contender<'_> {
        Contender::new("kontiki", move |groups, latencies| {
            self.run(groups * in_flight as u64, in_flight, latencies)
        })
    }

    /// Commits `count` commands, `in_flight` at a time; says how long it took. The clock runs from
    /// the first proposal to the last answer, so the window is empty at both ends.
    fn run(&self, count: u64, in_flight: usize, latencies: &mut Latencies) -> Duration {
        let leader = self.leader();
        let propose = || leader.propose(self.command.clone());
        let start = Instant::now();
        window::run(count, in_flight, latencies, propose, expect_applied);
        start.elapsed()
    }

    /// The node that leads; waits for it.
    fn leader(&self) -> &Node<Counter> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(node) = self.nodes.iter().find(|node| node.status().role == Role::Leader) {
                return node;
            }
            assert!(Instant::now() < deadline, "no leader after ten seconds");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.shutdown().wait();
        }
    }
}

/// A lost leadership would make the figure meaningless, so it ends the bench.
fn expect_applied(proposal: Proposal) {
    proposal.wait().expect("a leader that leads for the whole round");
}

/// As little state machine as there can be: the log is what is measured.
#[derive(Debug, Default)]
pub struct Counter {
    applied: u64,
}

impl StateMachine for Counter {
    fn apply(&mut self, _: &ApplyContext, _command: &[u8]) -> io::Result<Bytes> {
        self.applied += 1;
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Ok(Box::new(Image(self.applied)))
    }

    fn restore(&mut self, image: &mut dyn Read) -> io::Result<()> {
        let mut applied = [0; 8];
        image.read_exact(&mut applied)?;
        self.applied = u64::from_le_bytes(applied);
        Ok(())
    }
}

struct Image(u64);

impl SnapshotWriter for Image {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
}

const COMMAND_BYTES: usize = 128;
