//! Every proposal ends exactly once: applied, certainly not, or unknown.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki::{Event, Position, ProposeError, Read, Role};
use kontiki_disk::{
    Disk,
    memory::{Gate, Kind, MemoryDisk},
};

use crate::harness::{
    Cluster, PATIENCE, Tally, await_event, await_other_role, await_role, await_status,
    await_stopped, outcome, outcomes,
};

/// RAFT-CASE 57: a step-down and a truncation leave it open, the entry in its place does not.
#[test]
fn what_another_leader_has_replaced_is_superseded_and_certainly_not_applied() {
    let cluster = Cluster::start_with(3, |options| {
        options.proposal_timeout = PATIENCE;
        // Long enough that the leader still leads when the proposals come.
        options.election_timeout_min = Duration::from_secs(2);
        options.election_timeout_max = Duration::from_secs(3);
    });
    let leader = cluster.leader();
    let node = &cluster.nodes[&leader];
    let last = outcome(node.propose("before")).unwrap().position;
    cluster.hub.isolate(leader);
    let one = node.propose("cut off");
    let batch = node.propose_batch(vec!["cut".into(), "off".into()]);
    await_other_role(node, Role::Leader);
    // Healed before, it might lead again, with the longest log.
    await_status(node, |_| {
        let mut others = cluster.nodes.iter().filter(|(id, _)| **id != leader);
        others.any(|(_, other)| other.status().role == Role::Leader)
    });
    let Err(one) = one.wait_timeout(Duration::ZERO) else { panic!("a step-down decides nothing") };
    cluster.hub.heal();
    for number in 1..=3 {
        outcome(cluster.nodes[&leader].propose(format!("after {number}"))).unwrap();
    }
    let ends = std::iter::once(outcome(one)).chain(outcomes(batch));
    for (index, result) in (last.index + 1..).zip(ends) {
        let error = result.unwrap_err();
        assert!(error.is_certainly_not_applied());
        let ProposeError::Superseded { position } = error else { panic!("{error:?}") };
        assert_eq!(position.index, index);
        assert!(position.term > last.term);
    }
    let commands: Vec<_> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    assert_eq!(commands, ["before", "after 1", "after 2", "after 3"]);
}

/// RAFT-CASE 57: both followers answer heartbeats, and neither has the entry on its disk.
#[test]
fn what_is_not_applied_in_time_is_unknown_and_may_be_applied_later() {
    let mut cluster = Cluster::prepare(3);
    cluster.options.proposal_timeout = Duration::from_secs(1);
    let disks = start_in_memory(&mut cluster);
    let leader = cluster.leader();
    let gates = hold_followers(&disks, leader);
    let node = &cluster.nodes[&leader];
    let (one, batch) = (node.propose("x"), node.propose_batch(vec!["y".into(), "z".into()]));
    let error = outcome(one).unwrap_err();
    let ProposeError::Unknown { position: Some(position) } = error else { panic!("{error:?}") };
    for (index, result) in (position.index + 1..).zip(outcomes(batch)) {
        let term = position.term;
        let position = Some(Position { term, index });
        assert_eq!(result, Err(ProposeError::Unknown { position }));
    }
    drop(gates);
    cluster.leader();
    outcome(cluster.nodes[&leader].propose("after")).unwrap();
    let commands: Vec<_> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    assert_eq!(commands, ["settled", "x", "y", "z", "after"]);
}

/// RAFT-CASE 57: the outcome is known although the leadership that appended it has ended.
#[test]
fn what_a_later_leader_commits_is_applied() {
    let mut cluster = Cluster::prepare(3);
    cluster.options.proposal_timeout = PATIENCE;
    let disks = start_in_memory(&mut cluster);
    let leader = cluster.leader();
    let gates = hold_followers(&disks, leader);
    let node = &cluster.nodes[&leader];
    let last = node.status().last;
    let proposal = node.propose("x");
    for other in cluster.nodes.values() {
        await_status(other, |status| status.last != last);
    }
    cluster.hub.isolate(leader);
    await_other_role(node, Role::Leader);
    drop(gates);
    let Err(proposal) = proposal.wait_timeout(Duration::ZERO) else { panic!("nobody commits it") };
    cluster.hub.heal();
    let applied = outcome(proposal).unwrap();
    assert_eq!(applied.position, Position { term: last.term, index: last.index + 1 });
    let commands: Vec<_> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    assert_eq!(commands, ["settled", "x"]);
}

/// Every node on a disk of its own, which can be told to hang.
fn start_in_memory(cluster: &mut Cluster) -> Vec<MemoryDisk> {
    let disks: Vec<MemoryDisk> = (0..cluster.size).map(|_| MemoryDisk::new()).collect();
    for (id, disk) in (1..).zip(&disks) {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let node = cluster.builder(id).disk(disk).start(Tally::behind(&cluster.gate)).unwrap();
        cluster.nodes.insert(id, node);
    }
    cluster.await_ready();
    // Nothing is under way any more when the syncs of the followers are counted.
    outcome(cluster.nodes[&1].propose("settled")).unwrap();
    cluster.agreed();
    disks
}

/// No sync of a node other than `leader` (0: of any) ends before the gates are dropped. Of a log's threads two
/// sync.
fn hold_followers(disks: &[MemoryDisk], leader: u64) -> Vec<Gate> {
    let others = (1..).zip(disks).filter(|(id, _)| *id != leader);
    others.flat_map(|(_, disk)| [1, 2].map(|nth| disk.hold(Kind::Sync, nth))).collect()
}

/// Until the next election the others have no reason to believe in another leader, and this one is
/// back at once, but leads no more.
#[test]
fn a_leader_that_is_started_anew_at_once_costs_nobody_a_refusal() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.proposal_timeout = PATIENCE;
        // Long enough that nobody is elected before the proposals come.
        options.election_timeout_min = Duration::from_secs(2);
        options.election_timeout_max = Duration::from_secs(3);
    });
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.stop_node(leader);
    let mut events = cluster.nodes[&follower].events();
    cluster.start_node(leader);
    await_event(&mut events, |event| {
        (*event == Event::PeerConnected { peer: leader }).then_some(())
    });
    let node = &cluster.nodes[&follower];
    let proposals = ["x", "y", "z"].map(|command| node.propose(command));
    for proposal in proposals {
        outcome(proposal).unwrap();
    }
    let commands: Vec<_> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    assert_eq!(commands, ["x", "y", "z"]);
}

/// RAFT-CASE 57, RAFT-CASE 65: what was passed on is never sent again.
#[test]
fn a_forwarded_proposal_whose_answer_is_lost_is_unknown_and_applied_once() {
    let cluster = Cluster::start(3);
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let proposal = cluster.nodes[&follower].propose("gate");
    cluster.gate.await_reached(1);
    // The command is committed, its answer under way at the earliest when the gate opens.
    cluster.hub.cut(leader, follower);
    assert_eq!(outcome(proposal), Err(ProposeError::Unknown { position: None }));
    cluster.gate.open();
    cluster.hub.heal();
    cluster.leader();
    outcome(cluster.nodes[&follower].propose("end")).unwrap();
    let commands: Vec<_> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    assert_eq!(commands, ["gate", "end"]);
}

#[test]
fn without_a_leader_a_proposal_waits_and_then_is_certainly_not_applied() {
    let mut cluster = Cluster::prepare(3);
    cluster.options.proposal_timeout = Duration::from_millis(200);
    let node = cluster.start_node(1);
    let (one, batch) = (node.propose("x"), node.propose_batch(vec!["y".into(), "z".into()]));
    let refused = Err(ProposeError::NotLeader { hint: None });
    assert_eq!(outcome(one), refused);
    assert_eq!(outcomes(batch), [refused.clone(), refused]);
}

#[test]
fn a_full_queue_refuses_at_once_and_ready_says_when_there_is_room() {
    let cluster = Cluster::start_with(1, |options| options.proposals_max = 10);
    let node = &cluster.nodes[&1];
    let mut proposals = vec![node.propose("gate")];
    cluster.gate.await_reached(1);
    proposals.extend((0..9).map(|_| node.propose("x")));
    assert_eq!(outcome(node.propose("x")), Err(ProposeError::Overloaded));
    let batch = node.propose_batch(vec!["x".into(); 2]).wait();
    assert_eq!(batch, vec![Err(ProposeError::Overloaded); 2]);
    let Err(waiting) = node.ready().wait_timeout(Duration::from_millis(10)) else {
        panic!("ready without room")
    };
    cluster.gate.open();
    waiting.wait().unwrap();
    for proposal in proposals {
        outcome(proposal).unwrap();
    }
    assert_eq!(cluster.agreed().len(), 10);
}

#[test]
fn a_leader_that_is_full_refuses_its_followers_proposals() {
    let cluster = Cluster::start_with(2, |options| options.proposals_max = 3);
    // Three commands find room in the follower, which has none yet, but not in its leader.
    let (leader, follower) = (cluster.leader(), cluster.follower());
    let gated = cluster.nodes[&leader].propose("gate");
    cluster.gate.await_reached(1);
    let batch = cluster.nodes[&follower].propose_batch(vec!["x".into(); 3]);
    assert_eq!(outcomes(batch), vec![Err(ProposeError::Overloaded); 3]);
    cluster.gate.open();
    outcome(gated).unwrap();
    let batch = cluster.nodes[&follower].propose_batch(vec!["x".into(); 3]);
    assert!(outcomes(batch).iter().all(Result::is_ok));
}

#[test]
fn what_is_too_long_is_refused_at_once() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&1];
    let limit = cluster.options.command_bytes_max;
    let too_large = Err(ProposeError::TooLarge { bytes: limit + 1, limit });
    assert_eq!(node.propose(vec![1; limit + 1]).wait(), too_large);
    let halves = vec![Bytes::from(vec![1; limit]), Bytes::from_static(b"1")];
    assert_eq!(node.propose_batch(halves).wait(), vec![too_large.clone(), too_large]);
    node.propose(vec![1; limit]).wait().unwrap();
    assert_eq!(node.propose_batch(Vec::new()).wait(), Vec::new());
}

/// RAFT-CASE 57
#[test]
fn a_shutdown_leaves_what_was_taken_unknown_and_stops_the_rest() {
    let mut cluster = Cluster::prepare(1);
    let disks = start_in_memory(&mut cluster);
    let node = &cluster.nodes[&1];
    let last = node.status().last.index;
    let gated = node.propose("gate");
    cluster.gate.await_reached(1);
    // It has a place in the log and is not durable before the shutdown.
    let gates = hold_followers(&disks, 0);
    let behind = node.propose("behind");
    await_status(node, |status| status.last.index == last + 2);
    let shutdown = node.shutdown();
    assert_eq!(outcome(node.propose("late")), Err(ProposeError::Stopped));
    drop(gates);
    cluster.gate.open();
    shutdown.wait();
    outcome(gated).unwrap();
    let error = outcome(behind).unwrap_err();
    assert!(matches!(error, ProposeError::Unknown { position: Some(_) }), "{error:?}");
    assert_eq!(node.status().role, Role::Stopped);
}

#[test]
fn the_last_handle_stops_the_node() {
    let mut cluster = Cluster::start(1);
    let node = cluster.nodes.remove(&1).unwrap();
    let mut events = node.events();
    let second = node.clone();
    drop(node);
    outcome(second.propose("x")).unwrap();
    drop(second);
    await_stopped(&mut events);
    cluster.start_node(1);
    cluster.await_ready();
    let commands = cluster.nodes[&1].read(Read::Linearizable, Tally::commands);
    assert_eq!(commands.wait().unwrap(), ["x"]);
}

/// Whoever drops it may be on any thread, also one that everything else waits for.
#[test]
fn dropping_the_last_handle_does_not_wait_for_the_state_machine() {
    let mut cluster = Cluster::start(1);
    let node = cluster.nodes.remove(&1).unwrap();
    let mut events = node.events();
    let gated = node.propose("gate");
    cluster.gate.await_reached(1);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(node);
        tell.send(()).unwrap();
    });
    told.recv_timeout(PATIENCE).expect("it returns while the state machine stands still");
    cluster.gate.open();
    outcome(gated).unwrap();
    await_stopped(&mut events);
}

#[test]
fn a_future_works_on_any_executor_and_dropping_it_cancels_nothing() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&1];
    drop(node.propose("dropped"));
    let applied = pollster::block_on(node.propose("awaited")).unwrap();
    assert_eq!(applied.reply, "2");
    let waited = node.propose("x").wait_timeout(PATIENCE).expect("in time").unwrap();
    assert_eq!(waited.position.index, applied.position.index + 1);
    await_role(node, Role::Leader);
}
