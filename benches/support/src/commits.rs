//! The commit path: three durable nodes in this process, over TCP on loopback, with the options
//! that every user gets, and one client that keeps a number of commands in flight.

use std::{
    collections::VecDeque,
    error::Error,
    io::{self, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki::{
    Applied, ApplyContext, Node, Proposal, ProposeError, Role, SnapshotWriter, StateMachine,
};

use crate::{frames::frame_bytes, ports::free_addresses};

/// Commands in flight, of 128 B each: the three that the project's figures are about.
pub const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

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

    /// Commits `count` commands, `in_flight` at a time; says how long it took. The clock runs from
    /// the first proposal to the last answer, so the window is empty at both ends.
    pub fn run(&self, count: u64, in_flight: usize) -> Duration {
        let leader = self.leader();
        let mut window = VecDeque::with_capacity(in_flight);
        let start = Instant::now();
        for _ in 0..count {
            if window.len() == in_flight {
                let oldest: Proposal = window.pop_front().expect("in flight");
                expect_applied(oldest.wait());
            }
            window.push_back(leader.propose(self.command.clone()));
        }
        for proposal in window {
            expect_applied(proposal.wait());
        }
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
fn expect_applied(outcome: Result<Applied, ProposeError>) {
    outcome.expect("a leader that leads for the whole round");
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
