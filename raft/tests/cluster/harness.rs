//! A cluster in one process, and a state machine that remembers everything it was given.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};
use kontiki::{
    ApplyContext, Builder, Event, Events, Loopback, Node, Options, Position, Proposal,
    ProposalBatch, ProposeResult, Read, Role, SnapshotWriter, StateMachine, Status,
};
use kontiki_disk::{Disk, memory::MemoryDisk};
use tempfile::TempDir;

use crate::{
    muffle::Muffle,
    turns::{Turn, turn},
};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A state machine that remembers. A command `fail` is an error, `panic` a panic, and `gate` waits
/// until the gate is opened.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) applied: Vec<(Position, Bytes)>,
    gate: Gate,
}

/// Holds up every state machine that was made with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    reached: usize,
    open: bool,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    /// Waits until `count` state machines stand before it.
    pub(crate) fn await_reached(&self, count: usize) {
        let state = self.0.0.lock().unwrap();
        let is_missing = |state: &mut GateState| state.reached < count;
        let waited = self.0.1.wait_timeout_while(state, PATIENCE, is_missing);
        assert!(!waited.unwrap().1.timed_out(), "the gate was not reached");
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.reached += 1;
        self.0.1.notify_all();
        drop(self.0.1.wait_while(state, |state| !state.open).unwrap());
    }
}

impl Tally {
    pub(crate) fn behind(gate: &Gate) -> Self {
        Self { applied: Vec::new(), gate: gate.clone() }
    }

    pub(crate) fn commands(&self) -> Vec<Bytes> {
        self.applied.iter().map(|(_, command)| command.clone()).collect()
    }
}

impl StateMachine for Tally {
    fn apply(&mut self, context: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        match command {
            b"fail" => return Err(io::Error::other("told to fail")),
            b"panic" => panic!("told to panic"),
            b"gate" => self.gate.pass(),
            _ => {}
        }
        self.applied.push((context.position, Bytes::copy_from_slice(command)));
        Ok(Bytes::from(self.applied.len().to_string()))
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        if self.applied.iter().any(|(_, command)| command == "keep no snapshot") {
            return Err(io::Error::other("told to keep none"));
        }
        let holds_up = self.applied.iter().any(|(_, command)| command == "hold up images");
        let gate = holds_up.then(|| self.gate.clone());
        Ok(Box::new(Remembered { applied: self.applied.clone(), gate }))
    }

    fn restore(&mut self, image: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes)?;
        let mut bytes = Bytes::from(bytes);
        self.applied.clear();
        while !bytes.is_empty() {
            let position = Position { term: bytes.get_u64_le(), index: bytes.get_u64_le() };
            let length = bytes.get_u32_le();
            let command = bytes.split_to(usize::try_from(length).unwrap());
            self.applied.push((position, command));
        }
        Ok(())
    }
}

/// What a state machine remembered at one moment.
struct Remembered {
    applied: Vec<(Position, Bytes)>,
    /// Before anything is written.
    gate: Option<Gate>,
}

impl SnapshotWriter for Remembered {
    fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        for (position, command) in self.applied {
            out.write_all(&position.term.to_le_bytes())?;
            out.write_all(&position.index.to_le_bytes())?;
            out.write_all(&u32::try_from(command.len()).unwrap().to_le_bytes())?;
            out.write_all(&command)?;
        }
        Ok(())
    }
}

/// Nodes 1 to `size` on a loopback, each with a directory on the real disk.
pub(crate) struct Cluster {
    pub(crate) hub: Loopback,
    pub(crate) nodes: BTreeMap<u64, Node<Tally>>,
    pub(crate) options: Options,
    /// Of every state machine.
    pub(crate) gate: Gate,
    /// Of every node's transport.
    pub(crate) muffle: Muffle,
    pub(crate) size: u64,
    directory: TempDir,
    _turn: Turn,
}

impl Cluster {
    /// Started and led by somebody.
    pub(crate) fn start(size: u64) -> Self {
        Self::start_with(size, |_| {})
    }

    /// As `start`, with other options.
    pub(crate) fn start_with(size: u64, change: impl FnOnce(&mut Options)) -> Self {
        let mut cluster = Self::prepare(size);
        change(&mut cluster.options);
        for id in 1..=size {
            cluster.start_node(id);
        }
        cluster.await_ready();
        cluster
    }

    /// Nothing runs yet.
    pub(crate) fn prepare(size: u64) -> Self {
        Self {
            hub: Loopback::new(),
            nodes: BTreeMap::new(),
            options: quick(),
            gate: Gate::default(),
            muffle: Muffle::default(),
            size,
            directory: tempfile::tempdir().unwrap(),
            _turn: turn(),
        }
    }

    pub(crate) fn builder(&self, id: u64) -> Builder {
        Node::builder(id, self.data(id))
            .initial_members(members(self.size))
            .options(self.options.clone())
            .transport(self.muffle.over(id, self.hub.transport(id)))
    }

    /// A node that is not among `nodes`, on a disk in memory.
    pub(crate) fn start_on(&self, disk: &MemoryDisk, id: u64) -> Node<Tally> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        self.builder(id).disk(disk).start(Tally::behind(&self.gate)).unwrap()
    }

    pub(crate) fn start_node(&mut self, id: u64) -> &Node<Tally> {
        let node = self.builder(id).start(Tally::behind(&self.gate)).unwrap();
        self.nodes.insert(id, node);
        &self.nodes[&id]
    }

    /// Stops a node; its directory is free afterwards.
    pub(crate) fn stop_node(&mut self, id: u64) {
        self.nodes.remove(&id).unwrap().shutdown().wait();
    }

    pub(crate) fn data(&self, id: u64) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    pub(crate) fn await_ready(&self) {
        for node in self.nodes.values() {
            ready(node);
        }
    }

    /// Who leads, once everybody who runs says the same.
    pub(crate) fn leader(&self) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Subscribed before looking: no change is missed.
            let mut events: Vec<Events> = self.nodes.values().map(Node::events).collect();
            let leaders: Vec<Option<u64>> =
                self.nodes.values().map(|node| node.status().leader.map(|(id, _)| id)).collect();
            if let Some(leader) = leaders[0]
                && leaders.iter().all(|other| *other == Some(leader))
                && self.nodes.contains_key(&leader)
            {
                return leader;
            }
            assert!(Instant::now() < deadline, "no leader: {leaders:?}");
            let disagreeing = leaders
                .iter()
                .position(|other| other.is_none() || !self.nodes.contains_key(&other.unwrap()));
            events[disagreeing.unwrap_or(0)].next_timeout(Duration::from_millis(100));
        }
    }

    /// Somebody who does not lead.
    pub(crate) fn follower(&self) -> u64 {
        let leader = self.leader();
        *self.nodes.keys().find(|id| **id != leader).unwrap()
    }

    /// What every node has applied, once all have the same.
    pub(crate) fn agreed(&self) -> Vec<(Position, Bytes)> {
        let last = self.nodes.values().map(|node| node.status().committed).max().unwrap();
        let mut all = self.nodes.values().map(|node| {
            let freshness = Read::Linearizable;
            let read = node.read(freshness, |tally: &Tally| tally.applied.clone());
            let applied = read.wait().unwrap();
            assert!(node.status().applied >= last);
            applied
        });
        let first = all.next().unwrap();
        assert!(all.all(|other| other == first), "the state machines differ");
        first
    }
}

impl Drop for Cluster {
    /// Before the directory goes: a node that still writes would put files into it.
    fn drop(&mut self) {
        self.gate.open();
        let ends: Vec<_> = self.nodes.values().map(Node::shutdown).collect();
        // A panic may have left a link to the test's own threads behind; then nobody waits.
        if !thread::panicking() {
            ends.into_iter().for_each(|end| end.wait());
        }
    }
}

/// Small files, so that tests are quick. The times are the defaults: where no election is what is
/// tested, a machine that stalls for half a second must not cause one.
pub(crate) fn quick() -> Options {
    let mut options = Options::default();
    options.segment_bytes = 1 << 20;
    options.command_bytes_max = 128 << 10;
    options
}

/// The outcome of a proposal that must have one.
pub(crate) fn outcome(proposal: Proposal) -> ProposeResult {
    proposal.wait_timeout(PATIENCE).expect("an outcome in time")
}

/// The outcomes of a batch that must have them.
pub(crate) fn outcomes(batch: ProposalBatch) -> Vec<ProposeResult> {
    batch.wait_timeout(PATIENCE).expect("outcomes in time")
}

pub(crate) fn members(size: u64) -> Vec<(u64, String)> {
    (1..=size).map(|id| (id, format!("node{id}:1"))).collect()
}

pub(crate) fn ready(node: &Node<Tally>) {
    match node.ready().wait_timeout(PATIENCE) {
        Ok(result) => result.unwrap(),
        Err(_) => panic!("not ready: {:?}", node.status()),
    }
}

/// Waits for an event that `pick` picks.
pub(crate) fn await_event<T>(events: &mut Events, pick: impl Fn(&Event) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = events.next_timeout(left).expect("the event comes in time");
        if let Some(picked) = pick(&event) {
            return picked;
        }
    }
}

pub(crate) fn await_role(node: &Node<Tally>, role: Role) {
    let mut events = node.events();
    if node.status().role != role {
        await_event(&mut events, |event| match event {
            Event::RoleChanged { to, .. } if *to == role => Some(()),
            _ => None,
        });
    }
}

pub(crate) fn await_other_role(node: &Node<Tally>, role: Role) {
    let mut events = node.events();
    if node.status().role == role {
        await_event(&mut events, |event| match event {
            Event::RoleChanged { from, .. } if *from == role => Some(()),
            _ => None,
        });
    }
}

/// Waits for what no event tells: how far the log is.
pub(crate) fn await_status(node: &Node<Tally>, is_reached: impl Fn(&Status) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_reached(&node.status()) {
        assert!(Instant::now() < deadline, "not reached: {:?}", node.status());
        std::thread::yield_now();
    }
}

pub(crate) fn await_stopped(events: &mut Events) {
    await_event(events, |event| (*event == Event::Stopped).then_some(()));
}

pub(crate) fn await_fatal(events: &mut Events) -> Arc<str> {
    await_event(events, |event| match event {
        Event::Fatal { cause } => Some(cause.clone()),
        _ => None,
    })
}
