//! A cluster that does what the lines of a scenario tell it, and the text of what comes of it. The language is described in
//! `scenarios`.

use std::{mem, time::Duration};

use kontiki_core::{Config, LogIndex, MEMBERS_MAX, NodeId, Output, Role};

use crate::{
    cluster::{Cluster, Envelope, Node, id, ms},
    text::{entries_text, follower_text, message_text, output_text, state_text, status_text},
};

/// One scenario as far as it was told.
#[derive(Default)]
pub(crate) struct Story {
    cluster: Option<Cluster>,
    told: Vec<String>,
}

impl Story {
    /// Does what one line says. What came of it, or why that is no command here.
    pub(crate) fn command(&mut self, line: &str) -> Result<Vec<String>, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let (is_quiet, words) = match words.as_slice() {
            ["quietly", words @ ..] => (true, words),
            words => (false, words),
        };
        match words {
            ["nodes", voters, options @ ..] if self.cluster.is_none() => {
                self.cluster = Some(cluster(voters, options)?);
            }
            ["nodes", ..] => return Err("no number, or there are nodes already".into()),
            _ => self.act(words)?,
        }
        self.hear(is_quiet);
        Ok(mem::take(&mut self.told))
    }

    /// The text of everything that was put out since; quietly of halts only.
    fn hear(&mut self, is_quiet: bool) {
        let seen = self.cluster.as_mut().and_then(|cluster| cluster.seen.as_mut());
        for (node, output) in seen.into_iter().flat_map(mem::take) {
            if !is_quiet || matches!(output, Output::Halt { .. }) {
                self.told.push(output_text(node, &output));
            }
        }
    }

    fn act(&mut self, words: &[&str]) -> Result<(), String> {
        let Some(cluster) = &mut self.cluster else { return Err("first comes `nodes`".into()) };
        match words {
            ["run", time] => cluster.run(duration(time)?),
            ["tick", node, time] => {
                let node = running(cluster, node)?;
                cluster.pass(duration(time)?);
                cluster.timeout(node);
            }
            ["elect", node] => {
                let node = running(cluster, node)?;
                cluster.elect(node);
            }
            ["elect", node, "by", voters @ ..] => {
                let node = running(cluster, node)?;
                let voters: Result<Vec<_>, _> =
                    voters.iter().map(|v| running(cluster, v)).collect();
                elect_by(cluster, node, &voters?)?;
            }
            ["propose", node, commands @ ..] if !commands.is_empty() => {
                let node = running(cluster, node)?;
                if let Err(refusal) = cluster.propose_all(node, commands) {
                    self.told.push(format!("{node} refuses: {refusal}"));
                }
            }
            ["read", node] => {
                let node = running(cluster, node)?;
                cluster.read(node);
            }
            ["status"] => {
                let nodes: Vec<_> = cluster.nodes.keys().map(|node| node.0).collect();
                for node in nodes {
                    self.tell_status(node);
                }
            }
            ["status", node] => {
                let node = known(cluster, node)?;
                self.tell_status(node);
            }
            ["log", node] => {
                let node = known(cluster, node)?;
                let log = &cluster.node(node).disk.cached;
                self.told.push(format!("{node} holds {}", entries_text(&log.entries)));
            }
            ["disk", node] => {
                let node = known(cluster, node)?;
                let disk = &cluster.node(node).disk.durable;
                let (state, entries) = (state_text(&disk.state), entries_text(&disk.entries));
                self.told.push(format!("{node} has on disk{state}: {entries}"));
            }
            _ => return act_on_network(cluster, words, &mut self.told),
        }
        Ok(())
    }

    fn tell_status(&mut self, number: u64) {
        let Some(cluster) = &self.cluster else { return };
        if cluster.node(number).raft.is_none() {
            return self.told.push(format!("{number} is down"));
        }
        let status = cluster.status(number);
        self.told.push(status_text(&status));
        self.told.extend(status.followers.iter().map(follower_text));
    }
}

fn act_on_network(
    cluster: &mut Cluster,
    words: &[&str],
    told: &mut Vec<String>,
) -> Result<(), String> {
    match words {
        ["settle"] => cluster.settle(),
        ["deliver", choice @ ..] => {
            for envelope in take(cluster, choice)? {
                cluster.deliver(envelope);
            }
        }
        ["repeat", choice @ ..] => {
            let kept = cluster.network.clone();
            let repeated = take(cluster, choice)?;
            cluster.network = kept;
            for envelope in repeated {
                cluster.deliver(envelope);
            }
        }
        ["drop", choice @ ..] => {
            let lost = take(cluster, choice)?.into_iter();
            told.extend(lost.map(|lost| {
                format!("lost: {} -> {} {}", lost.from, lost.to, message_text(&lost.message))
            }));
        }
        ["cut", way] => {
            cluster.cut.insert(direction(cluster, way)?);
        }
        ["isolate", nodes @ ..] if !nodes.is_empty() => {
            let nodes: Result<Vec<_>, _> = nodes.iter().map(|node| known(cluster, node)).collect();
            cluster.isolate(&nodes?);
        }
        ["heal"] => cluster.heal(),
        _ => return act_on_disk(cluster, words),
    }
    Ok(())
}

fn act_on_disk(cluster: &mut Cluster, words: &[&str]) -> Result<(), String> {
    match words {
        ["hold", what, node] => {
            let node = running(cluster, node)?;
            *holds(cluster.node_mut(node), what)? = true;
        }
        ["written", node] => {
            let node = running(cluster, node)?;
            if !cluster.sync_one(node) {
                return Err(format!("the disk of {node} has nothing to do"));
            }
        }
        ["free", "disk", node] => {
            let node = running(cluster, node)?;
            cluster.node_mut(node).holds_writes = false;
            cluster.sync_all(node);
        }
        ["snapshot", node] => {
            let node = running(cluster, node)?;
            cluster.take_snapshot(node);
        }
        ["fetched", node] => {
            let node = running(cluster, node)?;
            if cluster.node(node).fetches.is_empty() {
                return Err(format!("node {node} fetches nothing"));
            }
            cluster.answer_fetch(node);
        }
        ["applied", node] => {
            let node = running(cluster, node)?;
            let last = LogIndex(cluster.node(node).applied.len() as u64);
            cluster.input(node, |raft, now| raft.handle_applied(now, last));
        }
        ["bring", node] => {
            let node = wanting(cluster, node)?;
            cluster.bring_snapshot(node);
        }
        ["fail", node] => {
            let node = wanting(cluster, node)?;
            cluster.node_mut(node).wanted = None;
            cluster.input(node, |raft, _| raft.handle_snapshot_failed());
        }
        ["crash", node] => {
            let node = running(cluster, node)?;
            cluster.crash(node);
        }
        ["start", node] => {
            let node = known(cluster, node)?;
            if cluster.node(node).raft.is_some() {
                return Err(format!("node {node} runs already"));
            }
            for what in ["disk", "fetches", "applies", "snapshots"] {
                *holds(cluster.node_mut(node), what)? = false;
            }
            cluster.start(node);
        }
        _ => return Err("no such command, or not with these arguments".into()),
    }
    Ok(())
}

/// Elects a node by these votes: nobody else hears of it.
fn elect_by(cluster: &mut Cluster, number: u64, voters: &[u64]) -> Result<(), String> {
    cluster.pass(ms(2500));
    cluster.timeout(number);
    for voter in voters.iter().chain(voters) {
        if cluster.role(number) == Role::Leader {
            break;
        }
        for (from, to) in [(number, *voter), (*voter, number)] {
            for message in cluster.take(from, to) {
                cluster.deliver(Envelope { from: id(from), to: id(to), message });
            }
        }
    }
    let is_elected = cluster.role(number) == Role::Leader;
    if is_elected { Ok(()) } else { Err(format!("node {number} is not elected")) }
}

/// What a node can be told to leave to the scenario.
fn holds<'a>(node: &'a mut Node, what: &str) -> Result<&'a mut bool, String> {
    match what {
        "disk" => Ok(&mut node.holds_writes),
        "fetches" => Ok(&mut node.holds_fetches),
        "applies" => Ok(&mut node.holds_applies),
        "snapshots" => Ok(&mut node.holds_snapshots),
        _ => Err(format!("{what} can not be held")),
    }
}

fn cluster(voters: &str, options: &[&str]) -> Result<Cluster, String> {
    let voters = number(voters)?;
    let mut learners = 0;
    let mut chosen = Vec::new();
    for option in options {
        let (name, value) = option.split_once('=').ok_or(format!("{option} is not name=value"))?;
        match name {
            "learners" => learners = number(value)?,
            _ => chosen.push((name, number(value)?)),
        }
    }
    let nodes = voters.saturating_add(learners);
    if voters == 0 || nodes > MEMBERS_MAX as u64 {
        return Err(format!("a cluster has one voter at least and {MEMBERS_MAX} nodes at most"));
    }
    let mut tried = Config::new(id(1));
    chosen.iter().try_for_each(|(name, value)| set(&mut tried, name, *value))?;
    tried.validate().map_err(|error| error.to_string())?;
    let options = |config: &mut Config| {
        chosen.iter().for_each(|(name, value)| set(config, name, *value).expect("tried above"));
    };
    let mut cluster = Cluster::with(voters, learners, options);
    cluster.seen = Some(Vec::new());
    Ok(cluster)
}

fn set(config: &mut Config, name: &str, value: u64) -> Result<(), String> {
    let size = usize::try_from(value).map_err(|error| error.to_string())?;
    match name {
        "append_bytes_max" => config.append_bytes_max = size,
        "command_bytes_max" => config.command_bytes_max = size,
        "inflight_bytes_max" => config.inflight_bytes_max = size,
        "inflight_messages_max" => config.inflight_messages_max = size,
        "tail_bytes_max" => config.tail_bytes_max = size,
        "trailing_entries" => config.trailing_entries = value,
        "unapplied_bytes_max" => config.unapplied_bytes_max = size,
        _ => return Err(format!("no option {name}")),
    }
    Ok(())
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("{word} is not a number"))
}

fn duration(word: &str) -> Result<Duration, String> {
    let milliseconds = word.strip_suffix("ms").and_then(|number| number.parse().ok());
    milliseconds.map(ms).ok_or(format!("{word} is no time, such as 300ms"))
}

fn known(cluster: &Cluster, word: &str) -> Result<u64, String> {
    let node = number(word)?;
    if cluster.nodes.contains_key(&id(node)) { Ok(node) } else { Err(format!("no node {node}")) }
}

fn running(cluster: &Cluster, word: &str) -> Result<u64, String> {
    let node = known(cluster, word)?;
    if cluster.node(node).raft.is_some() { Ok(node) } else { Err(format!("node {node} is down")) }
}

fn wanting(cluster: &Cluster, word: &str) -> Result<u64, String> {
    let node = running(cluster, word)?;
    let wants = cluster.node(node).wanted.is_some();
    if wants { Ok(node) } else { Err(format!("node {node} waits for no snapshot")) }
}

fn direction(cluster: &Cluster, word: &str) -> Result<(NodeId, NodeId), String> {
    let (from, to) = word.split_once("->").ok_or(format!("{word} is no way, such as 1->2"))?;
    Ok((id(known(cluster, from)?), id(known(cluster, to)?)))
}

/// Takes messages off the network: all, those of one direction, or the oldest few of those.
fn take(cluster: &mut Cluster, choice: &[&str]) -> Result<Vec<Envelope>, String> {
    let (way, mut left) = match choice {
        [] => (None, u64::MAX),
        [way] => (Some(direction(cluster, way)?), u64::MAX),
        [way, count] => (Some(direction(cluster, way)?), number(count)?),
        _ => return Err("more than a direction and a number".into()),
    };
    let is_chosen = |envelope: &mut Envelope| {
        let is_chosen = left > 0 && way.is_none_or(|way| way == (envelope.from, envelope.to));
        left -= u64::from(is_chosen);
        is_chosen
    };
    let taken: Vec<_> = cluster.network.extract_if(.., is_chosen).collect();
    let is_short = taken.is_empty() || (left > 0 && choice.len() == 2);
    if is_short { Err("there are not so many messages on their way".into()) } else { Ok(taken) }
}
