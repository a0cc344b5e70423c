//! Linearizable reads. The checker asserts at each one that it sees all that was committed when it
//! was asked for.

use kontiki_core::{LogIndex, Message, Output, ReadId, ReadIndexResponse, Role, Term};

use crate::cluster::{Cluster, id, ms};

/// Reads that were answered, with their index, `None` for those that failed.
fn answers(cluster: &mut Cluster, number: u64) -> Vec<(ReadId, Option<u64>)> {
    let answers = cluster.events(number).into_iter().filter_map(|event| match event {
        Output::ReadReady { id, index } => Some((id, Some(index.0))),
        Output::ReadFailed { id } => Some((id, None)),
        _ => None,
    });
    answers.collect()
}

/// A leader of three that has committed its first entry, with a quiet network.
fn led() -> Cluster {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    cluster
}

/// RAFT-CASE 30
#[test]
fn a_new_leader_answers_no_read_before_it_committed_an_entry_of_its_term() {
    let mut cluster = led();
    cluster.node_mut(2).holds_writes = true;
    cluster.isolate(&[1]);
    cluster.node_mut(3).holds_writes = true;
    cluster.pass(ms(2500));
    cluster.timeout(2);
    cluster.settle();
    cluster.sync_one(2);
    cluster.settle();
    cluster.sync_one(3);
    cluster.settle();
    assert_eq!(cluster.role(2), Role::Leader);
    let read = cluster.read(2);
    cluster.pass(ms(100));
    cluster.timeout(2);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 2), [], "confirmed, but its own entry is not committed");
    cluster.sync_all(2);
    cluster.sync_all(3);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 2), [(read, Some(3))]);
}

/// RAFT-CASE 31
#[test]
fn answers_to_an_earlier_round_confirm_no_later_read() {
    let mut cluster = led();
    cluster.read(1);
    let earlier: Vec<_> = std::mem::take(&mut cluster.network);
    for envelope in earlier {
        cluster.deliver(envelope);
    }
    let late: Vec<_> = std::mem::take(&mut cluster.network);
    // The answers to the first round are on their way, and a second read arrives.
    let second = cluster.read(1);
    for envelope in late {
        cluster.deliver(envelope.clone());
        cluster.deliver(envelope);
    }
    let answered = answers(&mut cluster, 1);
    assert_eq!(answered.len(), 1, "only the first");
    assert_ne!(answered[0].0, second);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 1), [(second, Some(2))]);
}

/// RAFT-CASE 31
#[test]
fn one_follower_that_answers_twice_is_not_a_quorum() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    cluster.read(1);
    cluster.isolate(&[1, 2]);
    for envelope in std::mem::take(&mut cluster.network) {
        cluster.deliver(envelope);
    }
    for envelope in std::mem::take(&mut cluster.network) {
        cluster.deliver(envelope.clone());
        cluster.deliver(envelope);
    }
    assert_eq!(answers(&mut cluster, 1), []);
}

/// RAFT-CASE 32
#[test]
fn a_leader_that_was_replaced_without_knowing_it_answers_no_read() {
    let mut cluster = led();
    cluster.isolate(&[1]);
    cluster.pass(ms(2500));
    cluster.timeout(2);
    cluster.settle();
    cluster.propose(2, "newer").unwrap();
    cluster.settle();
    assert_eq!((cluster.role(1), cluster.role(2)), (Role::Leader, Role::Leader));
    let read = cluster.read(1);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 1), []);
    cluster.run(ms(700));
    assert_eq!(answers(&mut cluster, 1), [(read, None)]);
}

/// RAFT-CASE 32: the index is taken when the read arrives, and waits to be applied.
#[test]
fn a_read_sees_what_was_committed_when_it_arrived() {
    let mut cluster = led();
    cluster.node_mut(1).holds_applies = true;
    cluster.propose(1, "b").unwrap();
    cluster.settle();
    let read = cluster.read(1);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 1), [(read, Some(3))]);
    assert_eq!(cluster.status(1).applied, LogIndex(2), "the runtime still has to wait");
}

/// RAFT-CASE 33
#[test]
fn reads_fail_with_the_leadership_and_at_most_once() {
    let mut cluster = led();
    let (here, there) = (cluster.read(1), cluster.read(2));
    let requests = cluster.take(2, 1);
    cluster.handle(1, 2, requests[0].clone());
    cluster.isolate(&[1]);
    cluster.settle();
    cluster.run(ms(700));
    assert_ne!(cluster.role(1), Role::Leader);
    assert_eq!(answers(&mut cluster, 1), [(here, None)]);
    cluster.run(ms(2000));
    assert_eq!(answers(&mut cluster, 2), [(there, None)]);
}

/// RAFT-CASE 33
#[test]
fn a_question_whose_answer_is_lost_ends_after_an_election_timeout() {
    let mut cluster = led();
    let read = cluster.read(2);
    cluster.network.clear();
    cluster.run(ms(1100));
    assert_eq!(answers(&mut cluster, 2), []);
    cluster.run(ms(200));
    assert_eq!(answers(&mut cluster, 2), [(read, None)]);
}

#[test]
fn a_follower_reads_by_asking_its_leader() {
    let mut cluster = led();
    let read = cluster.read(3);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 3), [(read, Some(2))]);
}

#[test]
fn a_node_without_a_leader_fails_reads_at_once() {
    let mut cluster = Cluster::new(3);
    let first = cluster.read(1);
    assert_eq!(answers(&mut cluster, 1), [(first, None)]);
    cluster.pass(ms(1200));
    cluster.timeout(1);
    let second = cluster.read(1);
    assert_eq!(answers(&mut cluster, 1), [(second, None)]);
}

/// RAFT-CASE 60: a restarted process numbers its questions elsewhere.
#[test]
fn an_answer_to_an_earlier_process_answers_nothing() {
    let mut cluster = led();
    cluster.read(2);
    let question = cluster.take(2, 1);
    cluster.restart(2);
    cluster.run(ms(200));
    let read = cluster.read(2);
    let Message::ReadIndexRequest(request) = &question[0] else { panic!() };
    let stale = ReadIndexResponse { term: Term(1), id: request.id, index: Some(LogIndex(1)) };
    cluster.handle(2, 1, Message::ReadIndexResponse(stale));
    assert_eq!(answers(&mut cluster, 2), []);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 2), [(read, Some(2))]);
}

#[test]
fn reads_that_arrive_during_a_round_share_the_next_one() {
    let mut cluster = led();
    for _ in 0..50 {
        cluster.read(1);
    }
    let mut heartbeats = 0;
    while !cluster.network.is_empty() {
        let envelope = cluster.network.remove(0);
        heartbeats += usize::from(matches!(envelope.message, Message::AppendEntries(_)));
        cluster.deliver(envelope);
    }
    assert_eq!(answers(&mut cluster, 1).len(), 50);
    assert_eq!(heartbeats, 4, "one round for the first read, one for all the others");
}

#[test]
fn too_many_reads_fail_at_once_on_leader_and_follower() {
    let mut cluster = Cluster::with(3, 0, |config| config.reads_max = 2);
    cluster.elect(1);
    cluster.isolate(&[1]);
    for _ in 0..2 {
        cluster.read(1);
        cluster.read(2);
    }
    let (here, there) = (cluster.read(1), cluster.read(2));
    assert_eq!(answers(&mut cluster, 1), [(here, None)]);
    assert_eq!(answers(&mut cluster, 2), [(there, None)]);
}

#[test]
fn a_single_node_confirms_its_reads_at_once() {
    let mut cluster = Cluster::new(1);
    cluster.run(ms(2000));
    let read = cluster.read(1);
    assert_eq!(answers(&mut cluster, 1), [(read, Some(1))]);
}

#[test]
fn a_lost_round_is_made_good_by_the_next_heartbeat() {
    let mut cluster = led();
    let read = cluster.read(1);
    cluster.network.clear();
    cluster.run(ms(100));
    assert_eq!(answers(&mut cluster, 1), [(read, Some(2))]);
}

#[test]
fn a_question_to_a_node_that_does_not_lead_is_refused() {
    let mut cluster = led();
    cluster.cut.insert((id(1), id(2)));
    let read = cluster.read(2);
    let question = cluster.take(2, 1);
    cluster.handle(3, 2, question[0].clone());
    cluster.heal();
    // Only the leader's word counts, even for a refusal.
    cluster.settle();
    assert_eq!(answers(&mut cluster, 2), []);
    cluster.run(ms(1300));
    assert_eq!(answers(&mut cluster, 2), [(read, None)]);
}

/// RAFT-CASE 33: it may be another process by now, which knows nothing of the question.
#[test]
fn a_leader_in_doubt_is_asked_nothing_before_it_is_heard_again() {
    let mut cluster = led();
    let asked = cluster.read(2);
    let due = cluster.node(2).raft.as_ref().unwrap().clone();
    cluster.doubt(2, 3);
    assert_eq!(cluster.node(2).raft.as_ref(), Some(&due), "another peer than the leader");
    cluster.doubt(2, 1);
    assert_eq!(cluster.status(2).leader, None);
    cluster.take(2, 1);
    let refused = cluster.read(2);
    assert_eq!(cluster.take(2, 1), []);
    assert_eq!(answers(&mut cluster, 2), [(asked, None), (refused, None)]);

    cluster.pass(ms(100));
    cluster.timeout(1);
    cluster.settle();
    assert_eq!(cluster.status(2).leader, Some(id(1)));
    let read = cluster.read(2);
    cluster.settle();
    assert_eq!(answers(&mut cluster, 2), [(read, Some(2))]);
}
