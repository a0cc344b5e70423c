//! Outcomes under losses: whatever happens, every outcome is true.

use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bytes::Bytes;
use kontiki::{Event, Node, ProposeResult};

use crate::harness::{Cluster, PATIENCE, Tally, await_event, outcome, ready};

type Handles = Mutex<BTreeMap<u64, Node<Tally>>>;

/// Counts what was acknowledged, so that losses come in the middle of work.
#[derive(Default)]
struct Acknowledged(Mutex<usize>, Condvar);

/// Ends the clients also when a round panics: the scope waits for them.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Acknowledged {
    fn add_one(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }

    fn await_more(&self, count: usize) {
        let counted = self.0.lock().unwrap();
        let wanted = *counted + count;
        let waited = self.1.wait_timeout_while(counted, PATIENCE, |counted| *counted < wanted);
        assert!(!waited.unwrap().1.timed_out(), "too few are acknowledged");
    }
}

/// RAFT-CASE 57, RAFT-CASE 65: acknowledged is there once, refused is never there, unknown is there
/// at most once.
#[test]
fn every_outcome_is_true_while_leaders_stop_and_links_break() {
    let mut cluster = Cluster::start(3);
    let handles = Mutex::new(cluster.nodes.clone());
    let (acknowledged, is_over) = (Acknowledged::default(), AtomicBool::new(false));
    let outcomes = thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|client| {
                let (handles, acknowledged, is_over) = (&handles, &acknowledged, &is_over);
                scope.spawn(move || propose_until(client, handles, acknowledged, is_over))
            })
            .collect();
        let over = SetOnDrop(&is_over);
        for round in 0..9 {
            acknowledged.await_more(12);
            match round % 3 {
                0 => replace_leader(&mut cluster, &handles),
                1 => isolate_leader(&cluster),
                _ => break_link(&cluster),
            }
        }
        drop(over);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    cluster.leader();
    cluster.nodes[&1].propose("end").wait().unwrap();

    let mut counts: BTreeMap<Bytes, usize> = BTreeMap::new();
    for (_, command) in cluster.agreed() {
        *counts.entry(command).or_default() += 1;
    }
    for (command, result) in outcomes {
        let count = counts.get(&command).copied().unwrap_or(0);
        match result {
            Ok(_) => assert_eq!(count, 1, "{command:?} was acknowledged"),
            Err(error) if error.is_certainly_not_applied() => {
                assert_eq!(count, 0, "{command:?} was not applied: {error}");
            }
            Err(error) => assert!(count <= 1, "{command:?} {count} times after {error}"),
        }
    }
}

fn propose_until(
    client: u64,
    handles: &Handles,
    acknowledged: &Acknowledged,
    is_over: &AtomicBool,
) -> Vec<(Bytes, ProposeResult)> {
    let mut results = Vec::new();
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        // Some at a time, so that losses find proposals in every stage.
        let node = handles.lock().unwrap()[&((client + number) % 3 + 1)].clone();
        let proposals: Vec<_> = (0..4)
            .map(|part| {
                let command = Bytes::from(format!("{client} {number} {part}"));
                (command.clone(), node.propose(command))
            })
            .collect();
        for (command, proposal) in proposals {
            let result = outcome(proposal);
            if result.is_ok() {
                acknowledged.add_one();
            }
            results.push((command, result));
        }
        number += 1;
    }
    results
}

fn replace_leader(cluster: &mut Cluster, handles: &Handles) {
    let leader = cluster.leader();
    cluster.stop_node(leader);
    cluster.leader();
    let node = cluster.start_node(leader).clone();
    ready(&node);
    handles.lock().unwrap().insert(leader, node);
}

fn isolate_leader(cluster: &Cluster) {
    let leader = cluster.leader();
    let other = cluster.nodes.iter().find(|(id, _)| **id != leader).unwrap().1;
    let mut events = other.events();
    cluster.hub.isolate(leader);
    // The leadership may have moved before it was listened for.
    if other.status().leader.is_none_or(|(known, _)| known == leader) {
        await_event(&mut events, |event| match event {
            Event::LeaderChanged { leader: Some(new), .. } => (*new != leader).then_some(()),
            _ => None,
        });
    }
    cluster.hub.heal();
}

fn break_link(cluster: &Cluster) {
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.hub.cut(leader, follower);
    cluster.hub.heal();
}
