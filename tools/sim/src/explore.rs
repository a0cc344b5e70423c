//! All that can happen to a small cluster of cores: a search breadth first through every order in which messages arrive, are lost
//! or come twice, disks complete, time runs out and a process dies. States that are the same are looked at once.
//!
//! Beside the worlds of [`crate::world`], which go far in few ways, this goes a short way in all of them.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use kontiki_core::{
    AppendOutcome, Apply, Batch, ClusterId, Config, Configuration, Entry, EntryKind, Incarnation,
    Instant, LogIndex, Member, Message, NodeId, Output, Position, Raft, Recovered, Role, State,
    Term, VoteKind, WriteSeq,
};

use crate::{random::Random, world::parameters::pick};

/// How far the search goes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Different states, about.
    pub states: usize,
    /// Commands that are proposed.
    pub commands: u8,
    /// Processes that die.
    pub crashes: u8,
    /// Messages that come twice.
    pub repeats: u8,
    /// Times that time runs out for a node.
    pub timeouts: u8,
}

impl Limits {
    /// What can happen in a short time.
    pub const USUAL: Self =
        Self { states: 100_000, commands: 2, crashes: 1, repeats: 1, timeouts: 3 };
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps up to which all states were seen: from nodes that know of no leader, from two that ask the third one for its vote,
    /// from a cluster that has a leader, and from one that has just got its second.
    pub depths: [usize; BEGINNINGS],
    /// Steps that led to a state that was known.
    pub known: usize,
    /// States in which a leader had been elected since.
    pub elected: usize,
    /// States in which a command was committed.
    pub committed: usize,
    /// States in which a durable entry had been cut off again.
    pub truncated: usize,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Timeout(usize),
    Deliver(Packet),
    Repeat(Packet),
    Written(usize),
    Propose(usize),
    Crash(usize),
}

/// A message on its way: from whom, to whom, and its hash.
type Packet = (usize, usize, u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    core: Raft,
    now: Instant,
    /// What is appended, durable or not.
    log: Vec<Entry>,
    disk: Disk,
    pending: VecDeque<(WriteSeq, Option<State>, Batch)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Disk {
    state: State,
    log: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Cluster {
    nodes: Vec<Arc<Node>>,
    network: BTreeMap<Packet, Message>,
    left: [u8; 4],
    /// Who led in which term.
    leaders: BTreeMap<u64, usize>,
    /// Whom each node has told that it votes for in which term.
    votes: BTreeMap<(usize, u64), usize>,
    committed: Vec<Entry>,
    truncated: bool,
}

/// By then an election is over, mostly.
const STEPS_MAX: usize = 1000;
/// Ways to a second leader that are tried.
const WALKS: u64 = 100;
const BEGINNINGS: usize = 4;
const NODES: usize = 3;
const MAJORITY: usize = 2;
/// Places in `left`.
const COMMANDS: usize = 0;
const CRASHES: usize = 1;
const REPEATS: usize = 2;
const TIMEOUTS: usize = 3;

/// Looks at every state up to some depth, as many from each beginning, and checks each.
///
/// # Errors
/// What does not hold, with the steps that lead there.
pub fn explore(limits: Limits) -> Result<Explored, String> {
    let led = Cluster::with_leader(limits)?;
    let second = led.with_second_leader(limits)?;
    let beginnings = [Cluster::new(limits), Cluster::with_two_candidates(limits)?, led, second];
    let mut explored = Explored::default();
    for (depth, first) in beginnings.into_iter().enumerate() {
        explored.depths[depth] = search(first, limits.states / BEGINNINGS, &mut explored)?;
    }
    Ok(explored)
}

/// Goes on from `first` until so many states were seen; the depth up to which that is all of them.
fn search(first: Cluster, states_max: usize, explored: &mut Explored) -> Result<usize, String> {
    let mut seen = HashSet::from([first.hash()]);
    let led = first.leaders.len();
    let mut frontier: Vec<(Cluster, Vec<Step>)> = vec![(first, Vec::new())];
    let mut depth = 0;
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (cluster, steps) in frontier {
            for step in cluster.steps() {
                let mut after = cluster.clone();
                let path: Vec<Step> = steps.iter().copied().chain([step]).collect();
                after.take(step).map_err(|what| format!("{what}, after {path:?}"))?;
                if !seen.insert(after.hash()) {
                    explored.known += 1;
                    continue;
                }
                explored.count(&after, led);
                next.push((after, path));
            }
            if seen.len() >= states_max {
                return Ok(depth);
            }
        }
        depth += 1;
        frontier = next;
    }
    Ok(depth)
}

impl Explored {
    fn count(&mut self, cluster: &Cluster, led: usize) {
        self.states += 1;
        self.elected += usize::from(cluster.leaders.len() > led);
        let is_command = |entry: &Entry| entry.kind() == Some(EntryKind::Command);
        self.committed += usize::from(cluster.committed.iter().any(is_command));
        self.truncated += usize::from(cluster.truncated);
    }
}

impl Cluster {
    fn new(limits: Limits) -> Self {
        let Limits { commands, crashes, repeats, timeouts, .. } = limits;
        let nodes = (0..NODES).map(|number| Arc::new(Node::start(number, Disk::empty(number))));
        Self {
            nodes: nodes.collect(),
            network: BTreeMap::new(),
            left: [commands, crashes, repeats, timeouts],
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            committed: Vec::new(),
            truncated: false,
        }
    }

    /// Two nodes have asked for votes in the same term, and the third one has heard of neither.
    fn with_two_candidates(limits: Limits) -> Result<Self, String> {
        let mut cluster = Self::new(Limits { timeouts: u8::MAX, ..limits });
        for candidate in [0, 1] {
            cluster.take(Step::Timeout(candidate))?;
            // Whether it would get that vote, and then that it has its own.
            cluster.deliver_all(candidate, 2)?;
            cluster.deliver_all(2, candidate)?;
            cluster.take(Step::Written(candidate))?;
        }
        cluster.network.retain(|&(_, to, _), message| {
            to == 2 && matches!(message, Message::VoteRequest(request) if request.kind == VoteKind::Real)
        });
        assert!(cluster.network.len() == 2, "both ask: {:?}", cluster.network);
        cluster.left[TIMEOUTS] = limits.timeouts;
        Ok(cluster)
    }

    /// Hands over what is under way from one to another.
    fn deliver_all(&mut self, from: usize, to: usize) -> Result<(), String> {
        let packets: Vec<Packet> = self.network.keys().copied().collect();
        let packets = packets.into_iter().filter(|packet| (packet.0, packet.1) == (from, to));
        packets.map(Step::Deliver).try_for_each(|step| self.take(step))
    }

    /// The first node leads, and everybody knows what it has committed.
    fn with_leader(limits: Limits) -> Result<Self, String> {
        let mut cluster = Self::new(Limits { timeouts: u8::MAX, ..limits });
        cluster.take(Step::Timeout(0))?;
        for _ in 0..STEPS_MAX {
            let quiet = |step: &&Step| matches!(step, Step::Deliver(_) | Step::Written(_));
            let Some(&step) = cluster.steps().iter().find(quiet) else { break };
            cluster.take(step)?;
        }
        assert!(cluster.leaders.len() == 1 && cluster.committed.len() == 1, "the first node leads");
        cluster.left[TIMEOUTS] = limits.timeouts;
        Ok(cluster)
    }

    /// Another node has been elected while the first one did not know it: of some ways to that, which are walked at random, the
    /// one that leaves the fewest messages under way.
    fn with_second_leader(&self, limits: Limits) -> Result<Self, String> {
        let mut least: Option<Self> = None;
        for seed in 0..WALKS {
            let (mut cluster, mut random) = (self.clone(), Random::new(seed));
            cluster.left = [1, 0, 0, u8::MAX];
            for _ in 0..STEPS_MAX {
                let steps = cluster.steps();
                let Some(&step) = steps.get(pick(&mut random, steps.len())) else { break };
                cluster.take(step).map_err(|what| format!("{what}, in walk {seed}"))?;
                let (under_way, known) = (cluster.network.len(), least.as_ref());
                if cluster.leaders.len() > 1 {
                    if known.is_none_or(|known| under_way < known.network.len()) {
                        least = Some(cluster);
                    }
                    break;
                }
            }
        }
        let mut cluster = least.ok_or("no walk has led to a second leader")?;
        cluster.left = [limits.commands, limits.crashes, limits.repeats, limits.timeouts];
        cluster.truncated = false;
        Ok(cluster)
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    /// Everything that can happen next.
    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if !node.pending.is_empty() {
                steps.push(Step::Written(number));
            }
            let leads = node.core.status().role == Role::Leader;
            if leads && self.left[COMMANDS] > 0 {
                steps.push(Step::Propose(number));
            }
            if self.left[TIMEOUTS] > 0 && node.core.poll_timeout().is_some() {
                steps.push(Step::Timeout(number));
            }
            if self.left[CRASHES] > 0 {
                steps.push(Step::Crash(number));
            }
        }
        for &packet in self.network.keys() {
            steps.push(Step::Deliver(packet));
            if self.left[REPEATS] > 0 {
                steps.push(Step::Repeat(packet));
            }
        }
        steps
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        let mut sent = Vec::new();
        let number = match step {
            Step::Timeout(number) | Step::Written(number) => number,
            Step::Propose(number) | Step::Crash(number) => number,
            Step::Deliver((_, to, _)) | Step::Repeat((_, to, _)) => to,
        };
        let spent = match step {
            Step::Timeout(_) => Some(TIMEOUTS),
            Step::Propose(_) => Some(COMMANDS),
            Step::Crash(_) => Some(CRASHES),
            Step::Repeat(_) => Some(REPEATS),
            Step::Deliver(_) | Step::Written(_) => None,
        };
        if let Some(spent) = spent {
            self.left[spent] -= 1;
        }
        let node = Arc::make_mut(&mut self.nodes[number]);
        let now = node.now;
        match step {
            Step::Timeout(_) => {
                let due = node.core.poll_timeout().expect("looked at before");
                node.now = due.max(now);
                node.core.handle_timeout(node.now);
            }
            Step::Written(_) => {
                let (seq, state, entries) = node.pending.pop_front().expect("looked at before");
                self.truncated |= node.disk.write(state, entries.entries());
                node.core.handle_written(now, seq);
            }
            Step::Propose(_) => {
                let payload = Entry::encode_command(&[self.left[COMMANDS]]);
                node.core.propose(now, vec![payload]).map_err(|error| error.to_string())?;
            }
            Step::Crash(_) => *node = Node::start(number, node.disk.clone()),
            Step::Deliver(packet) => {
                let message = self.network.remove(&packet).expect("looked at before");
                node.core.handle_message(now, id(packet.0), message);
            }
            Step::Repeat(packet) => {
                node.core.handle_message(now, id(packet.0), self.network[&packet].clone());
            }
        }
        node.perform(&mut sent)?;
        for (to, message) in sent {
            self.hear(number, to, &message)?;
            let mut hasher = DefaultHasher::new();
            message.hash(&mut hasher);
            self.network.insert((number, to, hasher.finish()), message);
        }
        self.check(number)
    }

    fn check(&mut self, number: usize) -> Result<(), String> {
        let node = &self.nodes[number];
        node.core.check();
        let (status, committed) = (node.core.status(), node.core.cursors().committed);
        if status.role == Role::Leader {
            let term = status.term.0;
            let known = *self.leaders.entry(term).or_insert(number);
            if known != number {
                return Err(format!("nodes {known} and {number} lead in term {term}"));
            }
        }
        let count = usize::try_from(committed.0).expect("a short log");
        let known = self.committed.len();
        for place in 0..count {
            let own = node.log.get(place).ok_or("committed, and not in the log")?;
            match self.committed.get(place) {
                Some(known) if known != own => {
                    return Err(format!("node {number} commits {own:?}, another one {known:?}"));
                }
                Some(_) => {}
                None => {
                    let holds = |node: &&Arc<Node>| node.disk.log.get(place) == Some(own);
                    let holders = self.nodes.iter().filter(holds).count();
                    if holders < MAJORITY {
                        return Err(format!(
                            "{own:?} is committed, and durable on {holders} nodes"
                        ));
                    }
                    self.committed.push(own.clone());
                }
            }
        }
        // Raft, 5.4.2: what is older is committed with an entry of the leader's own term, never by counting.
        let newest = self.committed.last().filter(|_| self.committed.len() > known);
        if let Some(newest) = newest
            && status.role == Role::Leader
            && newest.term != status.term
        {
            return Err(format!(
                "node {number} leads in term {}, and commits {newest:?}",
                status.term
            ));
        }
        Ok(())
    }

    /// What a node says is on its disk: its term, its votes, of which it has one in each term, and the entries that it acknowledges.
    fn hear(&mut self, number: usize, to: usize, message: &Message) -> Result<(), String> {
        let disk = &self.nodes[number].disk;
        let (hard, term) = (disk.state.hard, message.term());
        let candidate = match message {
            Message::VoteRequest(request) if request.kind == VoteKind::Real => Some(number),
            Message::VoteResponse(answer) if answer.kind == VoteKind::Real && answer.granted => {
                Some(to)
            }
            Message::AppendResponse(answer) => {
                if let AppendOutcome::Matched(index) = answer.outcome
                    && index.0 > disk.log.len() as u64
                {
                    return Err(format!("node {number} acknowledges {index}, which it has not"));
                }
                None
            }
            _ => return Ok(()),
        };
        if term > hard.term {
            return Err(format!(
                "node {number} speaks in term {term}, and remembers {}",
                hard.term
            ));
        }
        let Some(candidate) = candidate else { return Ok(()) };
        let known = *self.votes.entry((number, term.0)).or_insert(candidate);
        if known != candidate || term == hard.term && hard.vote != Some(id(candidate)) {
            return Err(format!(
                "node {number} votes for {candidate} in term {term}, voted for {known}, and remembers {hard:?}"
            ));
        }
        Ok(())
    }
}

impl Node {
    fn start(number: usize, disk: Disk) -> Self {
        let mut config = Config::new(id(number));
        // What is drawn between the two would make states differ that are the same.
        config.election_timeout_max = config.election_timeout_min + Duration::from_nanos(1);
        let mut runs: Vec<(LogIndex, Term)> = Vec::new();
        for entry in &disk.log {
            if runs.last().is_none_or(|run| run.1 != entry.term) {
                runs.push((entry.index, entry.term));
            }
        }
        let last = disk.log.last().map_or(LogIndex(0), |entry| entry.index);
        let state = disk.state.clone();
        let recovered = Recovered {
            state,
            snapshot: None,
            applied: LogIndex(0),
            compacted: Position::default(),
            runs,
            last,
        };
        let core = Raft::new(config, recovered, 1, Instant(0)).expect("a sound disk");
        Self { core, now: Instant(0), log: disk.log.clone(), disk, pending: VecDeque::new() }
    }

    /// Performs what the core asks for; messages go to `sent`.
    fn perform(&mut self, sent: &mut Vec<(usize, Message)>) -> Result<(), String> {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Write { seq, state, entries } => {
                    put(&mut self.log, entries.entries());
                    self.pending.push_back((seq, state, entries));
                }
                Output::Send { to, message } => {
                    sent.push((usize::try_from(to.0 - 1).expect("a few nodes"), message));
                }
                Output::Apply(apply) => {
                    let last = match apply {
                        Apply::Entries(batch) => batch.entries().last().map(|entry| entry.index),
                        Apply::Range { end, .. } => Some(LogIndex(end.0 - 1)),
                        Apply::Snapshot { .. } => return Err("nobody takes snapshots".into()),
                    };
                    let last = last.ok_or("nothing is applied")?;
                    self.core.handle_applied(self.now, last);
                }
                Output::Fetch { id, first, end, .. } => {
                    let place =
                        |index: LogIndex| usize::try_from(index.0 - 1).expect("a short log");
                    let entries = self.log.get(place(first)..place(end).min(self.log.len()));
                    let result = entries.map(<[Entry]>::to_vec).ok_or(());
                    self.core.handle_fetched(self.now, id, result);
                }
                Output::Halt { reason } => return Err(format!("a node halts: {reason}")),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Disk {
    fn empty(number: usize) -> Self {
        let member = |number: usize| Member {
            id: id(number),
            incarnation: Incarnation(id(number).0),
            address: format!("node:{number}"),
            voter: true,
        };
        let configuration = Configuration { members: (0..NODES).map(member).collect() };
        let state = State {
            cluster: ClusterId(1),
            incarnation: Incarnation(id(number).0),
            configurations: vec![(Position::default(), configuration)],
            ..State::default()
        };
        Self { state, log: Vec::new() }
    }

    /// True if an entry is gone that was there.
    fn write(&mut self, state: Option<State>, entries: &[Entry]) -> bool {
        if let Some(state) = state {
            self.state = state;
        }
        put(&mut self.log, entries)
    }
}

/// Appends entries, over those that are there from the first of them on; true if one of these was another one.
fn put(log: &mut Vec<Entry>, entries: &[Entry]) -> bool {
    let Some(first) = entries.first() else { return false };
    let place = usize::try_from(first.index.0 - 1).expect("a short log");
    let replaced = log.split_off(place.min(log.len()));
    log.extend_from_slice(entries);
    replaced.iter().zip(entries).any(|(old, new)| old != new) || replaced.len() > entries.len()
}

fn id(number: usize) -> NodeId {
    NodeId(number as u64 + 1)
}
