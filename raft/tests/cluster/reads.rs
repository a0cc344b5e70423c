//! Reads see what they must.

use std::time::Duration;

use kontiki::{Read, ReadError, Role};

use crate::harness::{Cluster, PATIENCE, Tally, await_role};

/// RAFT-CASE 32
#[test]
fn a_read_on_any_node_sees_what_was_acknowledged_before_it() {
    let cluster = Cluster::start(3);
    let leader = &cluster.nodes[&cluster.leader()];
    for round in 1..=50 {
        leader.propose("x").wait().unwrap();
        for node in cluster.nodes.values() {
            let count = node.read(Read::Linearizable, |tally: &Tally| tally.applied.len());
            assert_eq!(count.wait(), Ok(round));
        }
    }
}

/// RAFT-CASE 33: a leader that may have been replaced answers nothing.
#[test]
fn a_leader_that_is_cut_off_serves_no_linearizable_read() {
    let cluster = Cluster::start_with(3, |options| {
        options.proposal_timeout = Duration::from_secs(1);
    });
    let leader = cluster.leader();
    cluster.hub.isolate(leader);
    let old = cluster.nodes[&leader].read(Read::Linearizable, Tally::commands);
    let error = old.wait().unwrap_err();
    assert!(matches!(error, ReadError::NotLeader { .. } | ReadError::TimedOut), "{error:?}");
    let local = cluster.nodes[&leader].read(Read::Local, Tally::commands);
    assert_eq!(local.wait(), Ok(Vec::new()));
}

/// RAFT-CASE 33: the leader has confirmed the read, and what it must see never arrives.
#[test]
fn a_confirmed_read_whose_entry_never_arrives_times_out_and_gives_its_room_back() {
    let cluster = Cluster::start_with(3, |options| {
        // The follower knows its leader long enough to ask it.
        options.election_timeout_min = Duration::from_secs(2);
        options.election_timeout_max = Duration::from_secs(3);
        options.proposal_timeout = Duration::from_secs(1);
        options.reads_max = 1;
    });
    let (leader, follower) = (cluster.leader(), cluster.follower());
    cluster.muffle.lose_appends(leader, follower);
    cluster.nodes[&leader].propose("x").wait().unwrap();
    let node = &cluster.nodes[&follower];
    let read = node.read(Read::Linearizable, Tally::commands);
    let ended = read.wait_timeout(PATIENCE).expect("it ends in time");
    assert_eq!(ended, Err(ReadError::TimedOut));
    assert_eq!(node.read(Read::Local, Tally::commands).wait(), Ok(Vec::new()));
}

/// RAFT-CASE 33: a read is asked again of the next leader, it never hangs.
#[test]
fn a_read_that_begins_without_a_leader_is_served_by_the_next_one() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[&1].propose("x").wait().unwrap();
    cluster.agreed();
    let leader = cluster.leader();
    cluster.stop_node(leader);
    let reads: Vec<_> =
        cluster.nodes.values().map(|node| node.read(Read::Linearizable, Tally::commands)).collect();
    for read in reads {
        assert_eq!(read.wait().unwrap(), ["x"]);
    }
}

#[test]
fn a_local_read_needs_no_leader() {
    let mut cluster = Cluster::prepare(3);
    let node = cluster.start_node(1);
    assert_eq!(node.read(Read::Local, Tally::commands).wait(), Ok(Vec::new()));
    assert_eq!(node.status().role, Role::Starting);
}

#[test]
fn a_closure_that_panics_harms_nobody_else() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[&1];
    let panicked = node.read(Read::Linearizable, |_: &Tally| panic!("in a read"));
    assert_eq!(panicked.wait(), Err::<(), _>(ReadError::Panicked));
    node.propose("x").wait().unwrap();
    await_role(node, Role::Leader);
}

#[test]
fn reads_that_wait_are_bounded() {
    let mut cluster = Cluster::prepare(3);
    cluster.options.reads_max = 2;
    // The two must still wait when the third comes.
    cluster.options.proposal_timeout = Duration::from_secs(3);
    let node = cluster.start_node(1);
    let waiting = [(); 2].map(|()| node.read(Read::Linearizable, Tally::commands));
    let refused = node.read(Read::Linearizable, Tally::commands).wait();
    assert_eq!(refused, Err(ReadError::Overloaded));
    for read in waiting {
        assert_eq!(read.wait(), Err(ReadError::NotLeader { hint: None }));
    }
    // Whoever has ended made room.
    assert_eq!(node.read(Read::Local, Tally::commands).wait(), Ok(Vec::new()));
}
