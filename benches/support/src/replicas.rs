//! Three durable nodes in this process, over TCP on loopback, with a key-value state; each can be stopped and started again.

use std::{
    collections::VecDeque,
    error::Error,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki::{Node, Options, Position, Role, Status};

use crate::{
    key_values::{self, ENTRY_BYTES, KeyValues, Probe},
    latencies::Latencies,
    ports::free_addresses,
};

/// The nodes, of which some may be stopped.
#[derive(Debug)]
pub struct Replicas {
    directory: PathBuf,
    options: Options,
    members: Vec<(u64, String)>,
    replicas: Vec<Replica>,
    /// Where the keys of the load come from: the same in each run.
    random: Random,
}

#[derive(Debug, Default)]
struct Replica {
    node: Option<Node<KeyValues>>,
    probe: Probe,
}

/// What a client writes: random ones of these keys, in commands that are so long.
#[derive(Clone, Copy, Debug)]
pub struct Writes {
    /// From 0 on.
    pub keys: u64,
    /// Of a command.
    pub bytes: usize,
}

impl Replicas {
    /// Starts three nodes below `directory` and waits until one leads.
    ///
    /// # Errors
    /// The nodes'.
    pub fn start(directory: &Path, options: &Options) -> Result<Self, Box<dyn Error>> {
        let members: Vec<_> = (1..).zip(free_addresses(3)).collect();
        let mut replicas = Self {
            directory: directory.to_owned(),
            options: options.clone(),
            replicas: members.iter().map(|_| Replica::default()).collect(),
            members,
            random: Random(0x9e37_79b9_7f4a_7c15),
        };
        for id in 1..=3 {
            replicas.start_node(id)?;
        }
        for id in 1..=3 {
            replicas.node(id).ready().wait()?;
        }
        Ok(replicas)
    }

    /// Starts node `id` anew, with an empty state machine; returns when its threads run.
    ///
    /// # Errors
    /// The node's.
    pub fn start_node(&mut self, id: u64) -> Result<(), Box<dyn Error>> {
        let place = index(id);
        let probe = Probe::default();
        let node = Node::builder(id, self.directory.join(id.to_string()))
            .listen(&self.members[place].1)
            .initial_members(self.members.clone())
            .options(self.options.clone())
            .start(KeyValues::new(probe.clone()))?;
        self.replicas[place] = Replica { node: Some(node), probe };
        Ok(())
    }

    /// Stops node `id`; its directory is free when this returns.
    pub fn stop_node(&mut self, id: u64) {
        if let Some(node) = self.replicas[index(id)].node.take() {
            node.shutdown().wait();
        }
    }

    /// Node `id`, which runs.
    ///
    /// # Panics
    /// If it was stopped.
    pub fn node(&self, id: u64) -> &Node<KeyValues> {
        self.replicas[index(id)].node.as_ref().expect("a node that runs")
    }

    /// What the state machine of node `id` sees.
    pub fn probe(&self, id: u64) -> &Probe {
        &self.replicas[index(id)].probe
    }

    /// Who leads; waits for it.
    ///
    /// # Panics
    /// If nobody does after ten seconds.
    pub fn leader(&self) -> u64 {
        let leads = |id: &u64| {
            let node = self.replicas[index(*id)].node.as_ref();
            node.is_some_and(|node| node.status().role == Role::Leader)
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(id) = (1..=3).find(leads) {
                return id;
            }
            assert!(Instant::now() < deadline, "no leader after ten seconds");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// One that follows.
    pub fn follower(&self) -> u64 {
        let leader = self.leader();
        (1..=3).find(|id| *id != leader).expect("three nodes")
    }

    /// Gives each node that runs a state of so many keys of `ENTRY_BYTES` each.
    ///
    /// The state is in the log as a few short commands, so that it is there soon.
    pub fn fill(&mut self, keys: u64) {
        let leader = self.node(self.leader());
        for first in (0..keys).step_by(FILL_KEYS) {
            let command = key_values::fill(first, (keys - first).min(FILL_KEYS as u64));
            leader.propose(command).wait().expect("a leader that leads");
        }
    }

    /// Commits `count` commands, `in_flight` at a time; how long that took.
    pub fn run(&mut self, count: u64, in_flight: usize, writes: Writes) -> Duration {
        let begun = Instant::now();
        let mut left = count;
        self.run_while(in_flight, writes, || {
            left = left.saturating_sub(1);
            left > 0
        });
        begun.elapsed()
    }

    /// Commits commands, `in_flight` at a time, for as long as `goes_on`; commands a second. The clock runs from the first
    /// proposal to the last answer.
    pub fn run_while(
        &mut self,
        in_flight: usize,
        writes: Writes,
        mut goes_on: impl FnMut() -> bool,
    ) -> f64 {
        let leader = self.node(self.leader()).clone();
        let mut window = VecDeque::with_capacity(in_flight);
        let (begun, mut count) = (Instant::now(), 0_u64);
        loop {
            window.push_back(leader.propose(self.random.command(writes)));
            count += 1;
            if !goes_on() {
                break;
            }
            if window.len() == in_flight {
                let oldest = window.pop_front().expect("in flight");
                oldest.wait().expect("a leader that leads for the whole round");
            }
        }
        for proposal in window {
            proposal.wait().expect("a leader that leads for the whole round");
        }
        count as f64 / begun.elapsed().as_secs_f64()
    }

    /// How all nodes that run stand.
    pub fn statuses(&self) -> Vec<Status> {
        let nodes = self.replicas.iter().filter_map(|replica| replica.node.as_ref());
        nodes.map(Node::status).collect()
    }

    /// Takes a snapshot on each of the nodes that run, and waits for all.
    ///
    /// # Panics
    /// If one cannot be had.
    pub fn snapshot_all(&self) -> Vec<Position> {
        let nodes = self.replicas.iter().filter_map(|replica| replica.node.as_ref());
        let taken: Vec<_> = nodes.map(Node::snapshot).collect();
        taken.into_iter().map(|taking| taking.wait().expect("room for it")).collect()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        (1..=3).for_each(|id| self.stop_node(id));
    }
}

/// How long each of the commands of a client takes that has one in flight, a thousand a second at most, until `stop`.
///
/// # Panics
/// If one fails.
pub fn light_load(node: &Node<KeyValues>, writes: Writes, stop: &AtomicBool) -> Latencies {
    let mut latencies = Latencies::default();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    while !stop.load(Ordering::Relaxed) {
        let command = random.command(writes);
        latencies.time(|| node.propose(command).wait()).expect("a leader that leads");
        thread::sleep(LIGHT_LOAD_PAUSE);
    }
    latencies
}

/// Xorshift: keys need be spread, and not more.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn command(&mut self, writes: Writes) -> Bytes {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        key_values::set(self.0 % writes.keys, writes.bytes)
    }
}

fn index(id: u64) -> usize {
    usize::try_from(id - 1).expect("three nodes")
}

/// So many keys are applied in a few tens of milliseconds: no heartbeat waits for it.
const FILL_KEYS: usize = 16 << 10;

/// Far longer than a commit takes, so that the load weighs little.
const LIGHT_LOAD_PAUSE: Duration = Duration::from_millis(1);

const _: () = assert!(FILL_KEYS as u64 * ENTRY_BYTES == 16 << 20);
