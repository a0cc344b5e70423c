//! Nodes, their disks, the network between them and the clock.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use kontiki_core::{
    Apply, ClusterId, Config, Configuration, Entry, FetchId, HaltReason, Incarnation, Instant,
    LogIndex, Member, Message, NodeId, Output, Position, ProposeError, Raft, ReadId, Role,
    Snapshot, State, Status, Term,
};

use crate::{checker::Checker, disk::Disk};

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) message: Message,
}

pub(crate) struct Fetch {
    pub(crate) id: FetchId,
    pub(crate) first: LogIndex,
    pub(crate) end: LogIndex,
}

pub(crate) struct Node {
    pub(crate) raft: Option<Raft>,
    pub(crate) config: Config,
    pub(crate) disk: Disk,
    voter: bool,
    /// Writes, fetches, applies wait for the test.
    pub(crate) holds_writes: bool,
    pub(crate) holds_fetches: bool,
    pub(crate) holds_applies: bool,
    pub(crate) fetches: VecDeque<Fetch>,
    /// A snapshot that it wants, from whom.
    pub(crate) wanted: Option<NodeId>,
    pub(crate) holds_snapshots: bool,
    /// Handed to the state machine by this process.
    pub(crate) applied: Vec<Entry>,
    /// Outputs that only tests look at, since they last looked.
    pub(crate) events: Vec<Output>,
    starts: u64,
}

pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) now: Instant,
    pub(crate) network: Vec<Envelope>,
    /// Directions in which nothing arrives.
    pub(crate) cut: BTreeSet<(NodeId, NodeId)>,
    pub(crate) checker: Checker,
    pub(crate) seed: u64,
    /// Logs that began anew behind a snapshot.
    pub(crate) installed: u64,
    /// All outputs, in order, once somebody wants to see them.
    pub(crate) seen: Option<Vec<(NodeId, Output)>>,
    next_read: u64,
}

pub(crate) fn id(number: u64) -> NodeId {
    NodeId(number)
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(crate) fn entry(term: u64, index: u64, command: &str) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        payload: Entry::encode_command(command.as_bytes()),
    }
}

impl Cluster {
    /// Voters `1..=voters` with default options.
    pub(crate) fn new(voters: u64) -> Self {
        Self::with(voters, 0, |_| {})
    }

    /// Voters, then learners, with options of the test's choice.
    pub(crate) fn with(voters: u64, learners: u64, options: impl Fn(&mut Config)) -> Self {
        let member = |number| Member {
            id: id(number),
            incarnation: Incarnation(number),
            address: format!("node-{number}:7000"),
            voter: number <= voters,
        };
        let members: Vec<_> = (1..=voters + learners).map(member).collect();
        let configuration = Configuration { members: members.clone() };
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            now: Instant(0),
            network: Vec::new(),
            cut: BTreeSet::new(),
            checker: Checker::default(),
            seed: 1,
            installed: 0,
            seen: None,
            next_read: 0,
        };
        for member in members {
            let state = State {
                cluster: ClusterId(1),
                incarnation: member.incarnation,
                configurations: vec![(Position::default(), configuration.clone())],
                ..State::default()
            };
            let mut config = Config::new(member.id);
            options(&mut config);
            cluster.nodes.insert(member.id, Node::new(config, Disk::new(state), member.voter));
            cluster.start(member.id.0);
        }
        cluster
    }

    /// Starts a node from what its disk kept.
    pub(crate) fn start(&mut self, number: u64) {
        let (now, seed) = (self.now, self.seed);
        let node = self.node_mut(number);
        assert!(node.raft.is_none());
        node.starts += 1;
        let seed = seed.wrapping_mul(1_000_003) + number * 1000 + node.starts;
        let raft = Raft::new(node.config.clone(), node.disk.recover(), seed, now).unwrap();
        raft.check();
        node.applied = node.disk.snapshot.as_ref().map_or(Vec::new(), |(_, held)| held.clone());
        node.raft = Some(raft);
    }

    /// Stops a node at once; what is not durable is lost.
    pub(crate) fn crash(&mut self, number: u64) {
        let node = self.node_mut(number);
        node.raft = None;
        node.disk.crash();
        node.fetches.clear();
        node.wanted = None;
        node.applied.clear();
        node.events.clear();
        self.checker.forget_reads(id(number));
        // What it had sent may still arrive; what was sent to it finds nobody.
        self.network.retain(|envelope| envelope.to != id(number));
    }

    pub(crate) fn restart(&mut self, number: u64) {
        self.crash(number);
        self.start(number);
    }

    pub(crate) fn node(&self, number: u64) -> &Node {
        &self.nodes[&id(number)]
    }

    pub(crate) fn node_mut(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&id(number)).unwrap()
    }

    pub(crate) fn status(&self, number: u64) -> Status {
        self.node(number).raft.as_ref().expect("running").status()
    }

    pub(crate) fn role(&self, number: u64) -> Role {
        self.status(number).role
    }

    pub(crate) fn committed(&self, number: u64) -> u64 {
        self.status(number).committed.0
    }

    pub(crate) fn leader(&self) -> Option<u64> {
        let running = self.nodes.keys().filter(|id| self.nodes[id].raft.is_some());
        let leaders = running.map(|id| self.status(id.0)).filter(|s| s.role == Role::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id.0)
    }

    /// The one thing that happens to a node: an input, and everything it asks for in return.
    pub(crate) fn input<T>(
        &mut self,
        number: u64,
        input: impl FnOnce(&mut Raft, Instant) -> T,
    ) -> T {
        let now = self.now;
        let raft = self.node_mut(number).raft.as_mut().expect("running");
        let result = input(raft, now);
        self.perform(number);
        result
    }

    fn perform(&mut self, number: u64) {
        loop {
            let node = self.nodes.get_mut(&id(number)).unwrap();
            let raft = node.raft.as_mut().expect("running");
            if let Some(output) = raft.poll_output() {
                if let Some(seen) = &mut self.seen {
                    seen.push((id(number), output.clone()));
                }
                self.perform_one(number, output);
                continue;
            }
            raft.check();
            self.checker.saw_status(&raft.status(), &node.disk);
            if node.holds_writes {
                break;
            }
            let Some(seq) = node.disk.sync_one() else { break };
            raft.handle_written(self.now, seq);
        }
    }

    fn perform_one(&mut self, number: u64, output: Output) {
        let from = id(number);
        let node = self.nodes.get_mut(&from).unwrap();
        match output {
            Output::Write { seq, state, entries } => node.disk.write(seq, state, entries),
            Output::Reset { seq, at, state } => {
                self.installed += 1;
                node.disk.reset(seq, at, state);
            }
            Output::Compact { last } => node.disk.compact(last),
            Output::FetchSnapshot { from, .. } => {
                node.wanted = Some(from);
                if !node.holds_snapshots {
                    self.bring_snapshot(number);
                }
            }
            Output::Apply(Apply::Snapshot { at }) => {
                let (snapshot, held) = node.disk.snapshot.clone().unwrap();
                assert_eq!(snapshot.at, at);
                node.applied = held;
                if !node.holds_applies {
                    let (now, raft) = (self.now, node.raft.as_mut().expect("running"));
                    raft.handle_applied(now, at.index);
                }
            }
            Output::Send { to, message } => {
                self.checker.saw_message(from, to, &message, &node.disk);
                self.network.push(Envelope { from, to, message });
            }
            Output::Apply(Apply::Entries(batch)) => self.apply(number, batch.entries().to_vec()),
            Output::Apply(Apply::Range { first, end }) => {
                let entries = node.disk.durable.range(first, end);
                assert_eq!(entries.len() as u64, end.0 - first.0, "a range to apply is durable");
                self.apply(number, entries);
            }
            Output::Fetch { id, first, end, .. } => {
                node.fetches.push_back(Fetch { id, first, end });
                if !node.holds_fetches {
                    self.answer_fetch(number);
                }
            }
            Output::ReadReady { id, index } => {
                self.checker.read_ready(from, id, index);
                node.events.push(Output::ReadReady { id, index });
            }
            Output::ReadFailed { id } => {
                self.checker.read_failed(from, id);
                node.events.push(Output::ReadFailed { id });
            }
            other => node.events.push(other),
        }
    }

    fn apply(&mut self, number: u64, entries: Vec<Entry>) {
        let images: Vec<_> = self.nodes.values().map(|n| (n.voter, &n.disk.durable)).collect();
        for entry in &entries {
            self.checker.saw_applied(entry, &images);
        }
        let now = self.now;
        let node = self.node_mut(number);
        for entry in entries {
            assert_eq!(entry.index.0, node.applied.len() as u64 + 1, "applied in order");
            node.applied.push(entry);
        }
        if !node.holds_applies {
            let last = LogIndex(node.applied.len() as u64);
            node.raft.as_mut().expect("running").handle_applied(now, last);
        }
    }

    /// Answers the oldest fetch with what the log holds.
    pub(crate) fn answer_fetch(&mut self, number: u64) {
        let now = self.now;
        let node = self.node_mut(number);
        let Some(fetch) = node.fetches.pop_front() else { return };
        let entries = node.disk.cached.range(fetch.first, fetch.end);
        node.raft.as_mut().expect("running").handle_fetched(now, fetch.id, Ok(entries));
        self.perform(number);
    }

    /// A node takes a snapshot of what it has applied, if that is durable there.
    pub(crate) fn take_snapshot(&mut self, number: u64) {
        let node = self.node_mut(number);
        let (Some(raft), Some(last)) = (&node.raft, node.applied.last()) else { return };
        let at = last.position();
        let is_new = node.disk.snapshot.as_ref().is_none_or(|(old, _)| old.at.index < at.index);
        // RAFT-CASE 62
        if !is_new || raft.status().durable < at.index {
            return;
        }
        let configuration = raft.configuration_at(at.index).unwrap().clone();
        let snapshot = Snapshot { at, configuration };
        node.disk.snapshot = Some((snapshot.clone(), node.applied.clone()));
        self.input(number, |raft, now| raft.handle_snapshot(now, snapshot));
    }

    /// Brings the snapshot that a node wants, as its owner has it by now, if both are reached.
    pub(crate) fn bring_snapshot(&mut self, number: u64) {
        let Some(from) = self.node_mut(number).wanted.take() else { return };
        let owner = &self.nodes[&from];
        let is_cut = self.cut.contains(&(from, id(number)));
        let brought = owner.disk.snapshot.clone().filter(|_| owner.raft.is_some() && !is_cut);
        let Some((snapshot, held)) = brought else {
            return self.input(number, |raft, _| raft.handle_snapshot_failed());
        };
        let disk = &mut self.node_mut(number).disk;
        if disk.snapshot.as_ref().is_none_or(|(old, _)| old.at.index < snapshot.at.index) {
            disk.snapshot = Some((snapshot.clone(), held));
        }
        self.input(number, |raft, now| raft.handle_snapshot(now, snapshot));
    }

    /// Makes the oldest pending write of a node durable and tells it.
    pub(crate) fn sync_one(&mut self, number: u64) -> bool {
        let node = self.node_mut(number);
        let Some(seq) = node.disk.sync_one() else { return false };
        if node.raft.is_some() {
            self.input(number, |raft, now| raft.handle_written(now, seq));
        }
        true
    }

    pub(crate) fn sync_all(&mut self, number: u64) {
        while self.sync_one(number) {}
    }

    pub(crate) fn propose(&mut self, number: u64, command: &str) -> Result<Position, ProposeError> {
        self.propose_all(number, &[command])
    }

    pub(crate) fn propose_all(
        &mut self,
        number: u64,
        commands: &[&str],
    ) -> Result<Position, ProposeError> {
        let payloads: Vec<Bytes> =
            commands.iter().map(|command| Entry::encode_command(command.as_bytes())).collect();
        self.input(number, |raft, now| raft.propose(now, payloads))
    }

    /// Asks for a read; the answer is an event.
    pub(crate) fn read(&mut self, number: u64) -> ReadId {
        self.next_read += 1;
        let read = ReadId(self.next_read);
        self.checker.asks_read(id(number), read);
        self.input(number, |raft, now| raft.read(now, read));
        read
    }

    pub(crate) fn handle(&mut self, to: u64, from: u64, message: Message) {
        self.input(to, |raft, now| raft.handle_message(now, id(from), message));
    }

    /// A node loses its connection to another one.
    pub(crate) fn doubt(&mut self, number: u64, peer: u64) {
        self.input(number, |raft, now| raft.handle_doubt(now, id(peer)));
    }

    pub(crate) fn timeout(&mut self, number: u64) {
        self.input(number, |raft, now| raft.handle_timeout(now));
    }

    pub(crate) fn pass(&mut self, duration: Duration) {
        self.now = self.now + duration;
    }

    /// Takes the messages that `from` has sent to `to` off the network.
    pub(crate) fn take(&mut self, from: u64, to: u64) -> Vec<Message> {
        let between = |envelope: &mut Envelope| (envelope.from, envelope.to) == (id(from), id(to));
        self.network.extract_if(.., between).map(|envelope| envelope.message).collect()
    }

    /// Delivers one message, or loses it where the network is cut or nobody listens.
    pub(crate) fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope;
        let running = self.nodes.get(&to).is_some_and(|node| node.raft.is_some());
        if running && !self.cut.contains(&(from, to)) {
            self.handle(to.0, from.0, message);
        }
    }

    /// Delivers everything, and what follows from it, in the order it was sent.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            if self.network.is_empty() {
                return;
            }
            let envelope = self.network.remove(0);
            self.deliver(envelope);
        }
        panic!("the cluster talks without end");
    }

    /// Lets time pass: timers fire when they are due, messages and disks take no time.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut fired_now = 0;
        self.settle();
        loop {
            let due = self
                .nodes
                .iter()
                .filter_map(|(id, node)| Some((node.raft.as_ref()?.poll_timeout()?, id.0)));
            let Some((at, number)) = due.min().filter(|(at, _)| *at <= end) else { break };
            fired_now = if at > self.now { 0 } else { fired_now + 1 };
            assert!(fired_now < 1000, "node {number}: a timer fires again and again");
            self.now = self.now.max(at);
            self.timeout(number);
            self.settle();
        }
        self.now = end;
    }

    /// Makes `number` the leader: whoever else leads has not been answered for long, and nobody
    /// has heard a leader.
    pub(crate) fn elect(&mut self, number: u64) {
        self.pass(ms(2500));
        let leader = self.leader().filter(|leader| *leader != number);
        if let Some(leader) = leader {
            self.timeout(leader);
        }
        self.timeout(number);
        self.settle();
        assert_eq!(self.role(number), Role::Leader);
    }

    /// Cuts both directions between every node of `some` and every other one.
    pub(crate) fn isolate(&mut self, some: &[u64]) {
        let all: Vec<_> = self.nodes.keys().copied().collect();
        for a in &all {
            for b in &all {
                if some.contains(&a.0) != some.contains(&b.0) {
                    self.cut.insert((*a, *b));
                }
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// What a node has told its runtime since this was last asked.
    pub(crate) fn events(&mut self, number: u64) -> Vec<Output> {
        std::mem::take(&mut self.node_mut(number).events)
    }

    pub(crate) fn halted(&mut self, number: u64) -> Option<HaltReason> {
        self.events(number).into_iter().find_map(|event| match event {
            Output::Halt { reason } => Some(reason),
            _ => None,
        })
    }

    /// The commands a node has applied.
    pub(crate) fn commands(&self, number: u64) -> Vec<String> {
        let commands = self.node(number).applied.iter().map(Entry::body);
        let commands = commands.map(|body| String::from_utf8(body.to_vec()).unwrap());
        commands.filter(|command| !command.is_empty()).collect()
    }
}

impl Node {
    fn new(config: Config, disk: Disk, voter: bool) -> Self {
        Self {
            raft: None,
            config,
            disk,
            voter,
            holds_writes: false,
            holds_fetches: false,
            holds_applies: false,
            fetches: VecDeque::new(),
            wanted: None,
            holds_snapshots: false,
            applied: Vec::new(),
            events: Vec::new(),
            starts: 0,
        }
    }
}
