//! What a node knows after its process has died.

use kontiki_core::{LogIndex, Position, Raft, Recovered, Role, Term};

use crate::cluster::{Cluster, ms};

/// RAFT-CASE 59
#[test]
fn after_a_restart_nothing_is_applied_until_a_leader_confirms_it() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose_all(1, &["a", "b"]).unwrap();
    cluster.settle();
    assert_eq!(cluster.committed(2), 3);
    cluster.restart(2);
    let status = cluster.status(2);
    assert_eq!((status.committed, status.applied), (LogIndex(0), LogIndex(0)));
    assert_eq!(cluster.commands(2), Vec::<String>::new());
    cluster.pass(ms(100));
    cluster.timeout(1);
    cluster.settle();
    assert_eq!(cluster.commands(2), ["a", "b"]);
}

#[test]
fn a_whole_cluster_comes_back_with_everything_it_acknowledged() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose_all(1, &["a", "b", "c"]).unwrap();
    cluster.settle();
    for number in 1..=3 {
        cluster.crash(number);
    }
    for number in 1..=3 {
        cluster.start(number);
    }
    cluster.run(ms(5000));
    for number in 1..=3 {
        assert_eq!(cluster.commands(number), ["a", "b", "c"]);
    }
}

#[test]
fn a_single_node_commits_restarts_and_goes_on() {
    let mut cluster = Cluster::new(1);
    cluster.run(ms(2000));
    cluster.propose(1, "a").unwrap();
    cluster.restart(1);
    cluster.run(ms(2000));
    cluster.propose(1, "b").unwrap();
    assert_eq!(cluster.commands(1), ["a", "b"]);
    assert_eq!((cluster.role(1), cluster.status(1).term), (Role::Leader, Term(2)));
}

#[test]
fn a_recovered_log_that_contradicts_itself_is_refused() {
    let mut cluster = Cluster::new(1);
    cluster.run(ms(2000));
    let (config, now) = (cluster.node(1).config.clone(), cluster.now);
    let held = cluster.node_mut(1).disk.recover();
    let refused = |change: &dyn Fn(&mut Recovered)| {
        let mut recovered = held.clone();
        change(&mut recovered);
        Raft::new(config.clone(), recovered, 1, now).is_err()
    };
    assert!(!refused(&|_| {}));
    assert!(refused(&|recovered| recovered.runs.clear()));
    assert!(refused(&|recovered| recovered.runs[0].0 = LogIndex(2)));
    assert!(refused(&|recovered| recovered.runs.push((LogIndex(1), Term(1)))));
    assert!(refused(&|recovered| recovered.last = LogIndex(0)));
    assert!(refused(&|recovered| recovered.compacted = Position::new(1, 4)));
    // A log that begins behind index 1 needs a snapshot of what was before.
    assert!(refused(&|recovered| {
        recovered.compacted = Position::new(1, 1);
        recovered.runs[0].0 = LogIndex(2);
    }));
    assert!(refused(&|recovered| recovered.state.hard.term = Term(0)));
    assert!(refused(&|recovered| recovered.state.configurations.clear()));
}
