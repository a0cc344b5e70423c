//! The same inputs and the same seed give the same outputs.

use kontiki_core::Role;

use crate::cluster::{Cluster, ms};

/// A trace of everything a run of a few elections and proposals did.
fn trace(seed: u64) -> String {
    let mut cluster = Cluster::new(3);
    cluster.seed = seed;
    for number in 1..=3 {
        cluster.restart(number);
    }
    let mut trace = String::new();
    for turn in 0..20 {
        cluster.run(ms(700));
        if let Some(leader) = cluster.leader() {
            let _ = cluster.propose(leader, &format!("command {turn}"));
            trace += &format!("{:?}\n", cluster.network);
            if turn % 5 == 4 {
                cluster.restart(leader);
            }
        }
        for number in 1..=3 {
            trace += &format!("{:?} {:?}\n", cluster.status(number), cluster.events(number));
        }
    }
    trace
}

/// RAFT-CASE 61
#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

/// RAFT-CASE 61: a clock that jumps ahead by an hour costs an election, nothing else.
#[test]
fn a_clock_that_jumps_costs_no_entry() {
    let mut cluster = Cluster::new(3);
    cluster.run(ms(3000));
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, "before").unwrap();
    cluster.settle();
    cluster.pass(ms(3_600_000));
    cluster.run(ms(5000));
    let leader = cluster.leader().unwrap();
    cluster.propose(leader, "after").unwrap();
    cluster.settle();
    for number in 1..=3 {
        assert_eq!(cluster.commands(number), ["before", "after"]);
        assert!(matches!(cluster.role(number), Role::Leader | Role::Follower));
    }
}
