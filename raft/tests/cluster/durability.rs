//! What was acknowledged is there afterwards.

use std::{fs, path::Path};

use bytes::Bytes;
use kontiki::{Node, OpenError, Read, Role, StartError};
use kontiki_wal::repair::{self, Mark};

use crate::{
    harness::{Cluster, Tally, await_role, quick, ready},
    ports::free_addresses,
    turns::turn,
};

fn numbered(range: std::ops::Range<u32>) -> Vec<Bytes> {
    range.map(|number| Bytes::from(format!("command {number}"))).collect()
}

#[test]
fn a_single_node_replays_its_log_after_a_restart() {
    let mut cluster = Cluster::start(1);
    for command in numbered(0..100) {
        cluster.nodes[&1].propose(command).wait().unwrap();
    }
    let before = cluster.agreed();
    cluster.stop_node(1);
    ready(cluster.start_node(1));
    assert_eq!(cluster.agreed(), before);
    assert_eq!(cluster.agreed().len(), 100);
}

#[test]
fn a_node_on_tcp_replays_its_log_after_a_restart() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    for round in 1..=3 {
        let node = Node::builder(1, directory.path())
            .listen("127.0.0.1:0")
            .initial_members([(1, "127.0.0.1:1")])
            .options(quick())
            .start(Tally::default())
            .unwrap();
        let reply = node.propose("x").wait().unwrap().reply;
        assert_eq!(reply, round.to_string());
        node.shutdown().wait();
    }
}

#[test]
fn three_nodes_apply_what_any_of_them_proposes_in_one_order() {
    let cluster = Cluster::start(3);
    let batches: Vec<_> = (0..30)
        .map(|round| cluster.nodes[&(round % 3 + 1)].propose_batch(numbered(0..20)))
        .collect();
    let mut positions = Vec::new();
    for batch in batches {
        let results = batch.wait();
        let of_batch = results.into_iter().map(|result| result.unwrap().position);
        let of_batch: Vec<_> = of_batch.collect();
        assert!(of_batch.windows(2).all(|pair| pair[1].index == pair[0].index + 1));
        positions.extend(of_batch);
    }
    positions.sort_unstable();
    let agreed = cluster.agreed();
    assert_eq!(agreed.iter().map(|(position, _)| *position).collect::<Vec<_>>(), positions);
}

#[test]
fn proposals_of_one_thread_are_applied_in_the_order_they_were_made() {
    let cluster = Cluster::start(3);
    let follower = &cluster.nodes[&cluster.follower()];
    let proposals: Vec<_> =
        numbered(0..500).into_iter().map(|command| follower.propose(command)).collect();
    for proposal in proposals {
        proposal.wait().unwrap();
    }
    let applied = follower.read(Read::Linearizable, Tally::commands).wait().unwrap();
    assert_eq!(applied, numbered(0..500));
}

#[test]
fn nothing_acknowledged_is_lost_when_the_leader_stops() {
    let mut cluster = Cluster::start(3);
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let leader = cluster.leader();
        for number in 0..50 {
            let command = Bytes::from(format!("{round} {number}"));
            if cluster.nodes[&leader].propose(command.clone()).wait().is_ok() {
                acknowledged.push(command);
            }
        }
        cluster.stop_node(leader);
        cluster.leader();
        let command = Bytes::from(format!("{round} without {leader}"));
        let survivor = cluster.nodes.values().next().unwrap();
        survivor.propose(command.clone()).wait().unwrap();
        acknowledged.push(command);
        ready(cluster.start_node(leader));
    }
    let applied: Vec<Bytes> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    let found: Vec<_> =
        applied.into_iter().filter(|command| acknowledged.contains(command)).collect();
    assert_eq!(found, acknowledged);
}

#[test]
fn a_whole_cluster_stops_and_goes_on() {
    let mut cluster = Cluster::start(3);
    for command in numbered(0..50) {
        cluster.nodes[&2].propose(command).wait().unwrap();
    }
    let before = cluster.agreed();
    for id in 1..=3 {
        cluster.stop_node(id);
    }
    for id in 1..=3 {
        cluster.start_node(id);
    }
    cluster.await_ready();
    assert_eq!(cluster.agreed(), before);
}

/// RAFT-CASE 59
#[test]
fn a_restarted_node_applies_nothing_before_a_leader_confirms_it() {
    let mut cluster = Cluster::start(3);
    for command in numbered(0..10) {
        cluster.nodes[&1].propose(command).wait().unwrap();
    }
    let before = cluster.agreed();
    for id in 1..=3 {
        cluster.stop_node(id);
    }
    let alone = cluster.start_node(1);
    await_role(alone, Role::Candidate);
    assert!(alone.status().last.index > 10);
    assert_eq!(alone.read(Read::Local, Tally::commands).wait(), Ok(Vec::new()));
    cluster.start_node(2);
    cluster.await_ready();
    assert_eq!(cluster.agreed(), before);
}

#[test]
fn three_nodes_on_tcp_apply_what_a_follower_proposes() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let addresses = free_addresses(3);
    let start = |id: u64| {
        Node::builder(id, directory.path().join(id.to_string()))
            .initial_members((1..=3).zip(addresses.clone()))
            .options(quick())
            .start(Tally::default())
            .unwrap()
    };
    let nodes: Vec<_> = (1..=3).map(start).collect();
    nodes.iter().for_each(ready);
    for (round, node) in (1..=30).zip(nodes.iter().cycle()) {
        let reply = node.propose("x").wait().unwrap().reply;
        assert_eq!(reply, round.to_string());
    }
    for node in &nodes {
        let count = node.read(Read::Linearizable, |tally: &Tally| tally.applied.len());
        assert_eq!(count.wait(), Ok(30));
    }
}

/// RAFT-CASE 1: a log that forgot what it had acknowledged opens like any other, and its node must not run on it.
#[test]
fn a_node_does_not_start_from_a_log_that_a_repair_took_something_from() {
    let mut cluster = Cluster::start(3);
    for command in numbered(0..10) {
        cluster.nodes[&1].propose(command).wait().unwrap();
    }
    cluster.stop_node(1);
    let data = cluster.data(1);
    let (wal, whole) = (data.join("wal"), data.join("before"));
    copy_files(&wal, &whole);
    flip_a_bit_of_the_last_command(&wal.join("0000000000000001.wal"));
    // Each way, as if it were the node's own log.
    let salvaged = data.join("salvaged");
    repair::salvage(&wal, &salvaged).unwrap();
    repair::truncate(&wal).unwrap().expect("it was damaged");
    for way in ["cut in place at segment", "salvaged from"] {
        let refused = cluster.builder(1).start(Tally::default());
        let Err(error @ StartError::Repaired { .. }) = refused else { panic!("{refused:?}") };
        let line = error.to_string();
        let says = [way, "log 1: index ", &format!("remove {}/REPAIR", wal.display())];
        assert!(says.iter().all(|part| line.contains(part)), "{line}");
        fs::remove_dir_all(&wal).unwrap();
        if salvaged.exists() {
            fs::rename(&salvaged, &wal).unwrap();
        }
    }
    // The others go on without it, and it with the log that it had.
    cluster.nodes[&2].propose("without it").wait().unwrap();
    fs::rename(&whole, &wal).unwrap();
    let mark = wal.join(Mark::FILE);
    fs::write(&mark, "Kontiki repair: done\n- something\n").unwrap();
    let refused = cluster.builder(1).start(Tally::default());
    assert!(matches!(refused, Err(StartError::Repaired { .. })), "{refused:?}");
    fs::write(&mark, "Kontiki repair: cutting\n").unwrap();
    let refused = cluster.builder(1).start(Tally::default());
    let is_unfinished =
        |error: &StartError| matches!(error, StartError::Log(OpenError::RepairUnfinished { .. }));
    assert!(refused.as_ref().is_err_and(is_unfinished), "{refused:?}");
    fs::remove_file(&mark).unwrap();
    ready(cluster.start_node(1));
    cluster.agreed();
}

fn copy_files(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// It was durable: the mark of the close lies behind it.
fn flip_a_bit_of_the_last_command(segment: &Path) {
    let mut bytes = fs::read(segment).unwrap();
    let last = numbered(9..10)[0].clone();
    let place = bytes.windows(last.len()).rposition(|window| window == last).unwrap();
    bytes[place] ^= 1;
    fs::write(segment, bytes).unwrap();
}
