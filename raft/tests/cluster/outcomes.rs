//! Every proposal ends exactly once: applied, certainly not, or unknown.

use std::time::Duration;

use bytes::Bytes;
use kontiki::{ProposeError, Read, Role};

use crate::harness::{Cluster, PATIENCE, Tally, await_role, await_stopped, outcome, outcomes};

/// RAFT-CASE 57
#[test]
fn what_a_leader_could_not_commit_is_unknown_when_it_steps_down() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    cluster.hub.isolate(leader);
    let one = cluster.nodes[&leader].propose("cut off");
    let batch = cluster.nodes[&leader].propose_batch(vec!["cut".into(), "off".into()]);
    let error = outcome(one).unwrap_err();
    let ProposeError::Unknown { position: Some(position) } = error else { panic!("{error:?}") };
    for (number, result) in (1..).zip(outcomes(batch)) {
        let Err(ProposeError::Unknown { position: Some(other) }) = result else {
            panic!("{result:?}")
        };
        assert_eq!(other.index, position.index + number);
    }
    assert_ne!(cluster.nodes[&leader].status().role, Role::Leader);
    cluster.hub.heal();
    let applied = outcome(cluster.nodes[&leader].propose("together")).unwrap();
    assert!(applied.position > position);
    assert_eq!(cluster.agreed().last().unwrap().1, "together");
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
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&1];
    let gated = node.propose("gate");
    cluster.gate.await_reached(1);
    let behind = node.propose("behind");
    // The proposal has a place once it is durable; reads come by the same queue, behind it.
    let mut last = node.status().last;
    while last.index < 3 {
        std::thread::yield_now();
        last = node.status().last;
    }
    let shutdown = node.shutdown();
    assert_eq!(outcome(node.propose("late")), Err(ProposeError::Stopped));
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
