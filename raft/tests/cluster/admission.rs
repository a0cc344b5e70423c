//! First starts, and who is let in.

use bytes::Bytes;
use kontiki::{Event, Node, ProposeError, Role, StartError};

use crate::{
    harness::{Cluster, Tally, await_event, await_role, members, quick, ready},
    turns::turn,
};

#[test]
fn a_cluster_begins_when_its_last_member_is_started_and_not_before() {
    let mut cluster = Cluster::prepare(3);
    cluster.start_node(1);
    cluster.start_node(2);
    let proposal = cluster.nodes[&1].propose("early");
    assert_eq!(cluster.nodes[&1].status().role, Role::Starting);
    assert_eq!(cluster.nodes[&1].status().cluster, 0);
    cluster.start_node(3);
    proposal.wait().unwrap();
    let status = cluster.nodes[&1].status();
    assert_ne!(status.cluster, 0);
    assert_eq!(status.members, members(3));
    assert_eq!(cluster.agreed().len(), 1);
}

#[test]
fn a_member_that_has_not_heard_all_others_adopts_the_configuration() {
    let mut cluster = Cluster::prepare(3);
    cluster.hub.cut(1, 3);
    cluster.hub.cut(2, 3);
    let mut events = Vec::new();
    for id in 1..=3 {
        events.push(cluster.start_node(id).events());
    }
    // Now node 1 has heard everybody, but 2 and 3 hear of each other only by its configuration.
    cluster.hub.heal_link(1, 3);
    for events in &mut events {
        await_event(events, |event| matches!(event, Event::ClusterFormed { .. }).then_some(()));
    }
    cluster.hub.heal();
    cluster.await_ready();
    let clusters: Vec<u64> = cluster.nodes.values().map(|node| node.status().cluster).collect();
    assert_eq!(clusters, [clusters[0]; 3]);
}

/// RAFT-CASE 27, RAFT-CASE 45, RAFT-CASE 60
#[test]
fn a_wiped_node_is_reported_and_never_votes() {
    let mut cluster = Cluster::start(3);
    cluster.nodes[&1].propose("x").wait().unwrap();
    cluster.stop_node(3);
    std::fs::remove_dir_all(cluster.data(3)).unwrap();

    cluster.hub.cut(1, 3);
    cluster.hub.cut(2, 3);
    let mut events_of_1 = cluster.nodes[&1].events();
    let mut events_of_3 = cluster.start_node(3).events();
    cluster.hub.heal();
    await_event(&mut events_of_3, |event| matches!(event, Event::NotAdmitted { .. }).then_some(()));
    // Both refuse, and each is told of both.
    await_event(&mut events_of_1, |event| match event {
        Event::PeerRefused { reason } => reason.contains("node 3 has another disk").then_some(()),
        _ => None,
    });

    // Two of three are left, but one of them has forgotten its promises: nobody may lead.
    cluster.stop_node(2);
    await_role(&cluster.nodes[&1], Role::Candidate);
    let refused = cluster.nodes[&1].propose("y").wait().unwrap_err();
    assert!(matches!(refused, ProposeError::NotLeader { .. }), "{refused:?}");
    let status = cluster.nodes[&3].status();
    assert_eq!((status.role, status.term), (Role::NotAdmitted, 0));
}

#[test]
fn members_with_different_lists_refuse_each_other() {
    let mut cluster = Cluster::prepare(2);
    let mut events = cluster.start_node(1).events();
    let other = [(1, "elsewhere:1"), (2, "node2:1")];
    let node = cluster.builder(2).initial_members(other).start(Tally::default()).unwrap();
    let reason = await_event(&mut events, |event| match event {
        Event::PeerRefused { reason } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("1=elsewhere:1") && reason.contains("1=node1:1"), "{reason}");
    assert_eq!(node.status().role, Role::Starting);
}

#[test]
fn the_directory_of_another_node_is_refused() {
    let mut cluster = Cluster::start(1);
    cluster.stop_node(1);
    let taken = Node::builder(2, cluster.data(1))
        .initial_members(members(2))
        .options(quick())
        .transport(cluster.hub.transport(2))
        .start(Tally::default());
    let Err(StartError::OtherNode { found: 1, expected: 2, .. }) = taken else {
        panic!("{taken:?}")
    };
}

/// RAFT-CASE 45
#[test]
fn the_member_of_another_cluster_is_refused() {
    let mut one = Cluster::start(2);
    let mut other = Cluster::start(2);
    one.stop_node(2);
    other.stop_node(2);
    // Node 2 of the other cluster appears under the address of this one's.
    let mut events = one.nodes[&1].events();
    let stranger = Node::builder(2, other.data(2))
        .initial_members(members(2))
        .options(quick())
        .transport(one.hub.transport(2))
        .start(Tally::default())
        .unwrap();
    let reason = await_event(&mut events, |event| match event {
        Event::PeerRefused { reason } => Some(reason.clone()),
        _ => None,
    });
    assert!(reason.contains("belongs to cluster"), "{reason}");
    assert_eq!(stranger.status().foreign_members, [1]);
    assert_eq!(one.nodes[&1].status().foreign_members, [2]);
    stranger.shutdown().wait();
    one.start_node(2);
    one.await_ready();
    assert_eq!(one.nodes[&1].status().foreign_members, [0; 0]);
}

#[test]
fn a_directory_in_use_is_refused() {
    let cluster = Cluster::start(1);
    let second = cluster.builder(1).start(Tally::default());
    assert!(matches!(second, Err(StartError::Locked { .. })), "{second:?}");
    cluster.nodes[&1].propose("still there").wait().unwrap();
}

#[test]
fn later_lists_of_initial_members_are_ignored() {
    let mut cluster = Cluster::start(1);
    cluster.stop_node(1);
    let node =
        cluster.builder(1).initial_members([(9, "other:9")]).start(Tally::default()).unwrap();
    ready(&node);
    assert_eq!(node.status().members, members(1));
}

#[test]
fn what_cannot_be_started_says_why() {
    let cluster = Cluster::prepare(1);
    let start = |list: Vec<(u64, &str)>| {
        let error = cluster.builder(1).initial_members(list).start(Tally::default());
        error.map(drop).unwrap_err()
    };
    assert!(matches!(start(vec![]), StartError::Options { option: "initial_members", .. }));
    assert!(matches!(start(vec![(2, "b:1")]), StartError::Options { .. }));
    assert!(matches!(start(vec![(1, "a:1"), (1, "b:1")]), StartError::Options { .. }));
    assert!(matches!(start(vec![(1, "nowhere")]), StartError::Address(_)));
    let mut options = quick();
    options.command_bytes_max = 1 << 20;
    let error = cluster.builder(1).options(options).start(Tally::default()).map(drop).unwrap_err();
    assert!(matches!(error, StartError::Options { option: "command_bytes_max", .. }), "{error}");
    let none = Node::builder(0, cluster.data(1)).initial_members(members(1));
    assert!(matches!(none.start(Tally::default()), Err(StartError::Options { .. })));
}

/// Somebody who gave the wrong id starts again with the right one, in the same directory.
#[test]
fn a_first_start_that_is_refused_for_its_members_claims_no_directory() {
    let cluster = Cluster::prepare(1);
    let directory = cluster.data(1);
    for members in [vec![], members(1)] {
        let refused = Node::builder(4, &directory).initial_members(members).start(Tally::default());
        let Err(StartError::Options { option: "initial_members", .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(!directory.exists(), "something was made");
    }
    let node = cluster.builder(1).start(Tally::default()).unwrap();
    ready(&node);
    node.shutdown().wait();
    let again = cluster.builder(1).initial_members(Vec::<(u64, String)>::new());
    ready(&again.start(Tally::default()).unwrap());
}

#[test]
fn an_address_in_use_is_refused_and_leaves_the_directory_free() {
    let _turn = turn();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let builder = || Node::builder(1, directory.path()).initial_members([(1, address.clone())]);
    let refused = builder().start(Tally::default());
    assert!(matches!(refused, Err(StartError::Listen { .. })), "{refused:?}");
    let node = builder().listen("127.0.0.1:0").start(Tally::default()).unwrap();
    assert_eq!(node.propose(Bytes::from_static(b"x")).wait().unwrap().reply, "1");
}
