//! What must wait for the disk, and what a disk that hangs must not hold up.

use kontiki_core::{
    AppendEntries, AppendOutcome, Batch, Entry, LogIndex, Message, Position, Role, Term, VoteKind,
    VoteRequest,
};

use crate::cluster::{Cluster, entry, ms};

fn append(term: u64, previous: Position, round: u64, entries: Vec<Entry>) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        previous,
        commit: LogIndex(0),
        round,
        entries: Batch::from(entries),
    })
}

/// The matched index and round of each answer.
fn matched(messages: &[Message]) -> Vec<(u64, u64)> {
    let matched = messages.iter().filter_map(|message| match message {
        Message::AppendResponse(response) => match response.outcome {
            AppendOutcome::Matched(index) => Some((index.0, response.round)),
            AppendOutcome::Rejected { .. } | AppendOutcome::Fetching { .. } => None,
        },
        _ => None,
    });
    matched.collect()
}

/// RAFT-CASE 13
#[test]
fn a_leader_whose_disk_hangs_steps_down_and_does_not_stand_again() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.node_mut(1).holds_writes = true;
    cluster.propose(1, "stuck").unwrap();
    cluster.run(ms(1900));
    assert_eq!(cluster.role(1), Role::Leader, "not before its time");
    cluster.run(ms(200));
    assert_eq!(cluster.role(1), Role::Follower);
    for _ in 0..20 {
        cluster.run(ms(500));
        assert!(matches!(cluster.role(1), Role::Follower), "{:?}", cluster.role(1));
    }
    let leader = cluster.leader().unwrap();
    assert_ne!(leader, 1);
    cluster.propose(leader, "goes on").unwrap();
    cluster.settle();
    assert_eq!(cluster.commands(leader), ["stuck", "goes on"]);

    // The disk comes back, and the node with it.
    cluster.node_mut(1).holds_writes = false;
    cluster.sync_all(1);
    cluster.run(ms(500));
    assert_eq!(cluster.commands(1), ["stuck", "goes on"]);
}

/// RAFT-CASE 13: even alone, and even where nothing else would end the leadership.
#[test]
fn a_stalled_disk_is_noticed_by_the_timer_itself() {
    let mut cluster = Cluster::new(1);
    cluster.run(ms(2000));
    cluster.node_mut(1).holds_writes = true;
    cluster.propose(1, "stuck").unwrap();
    cluster.run(ms(10_000));
    assert_eq!((cluster.role(1), cluster.status(1).term), (Role::Follower, Term(1)));
    cluster.sync_all(1);
    cluster.node_mut(1).holds_writes = false;
    cluster.run(ms(2000));
    assert_eq!(cluster.role(1), Role::Leader);
}

/// RAFT-CASE 15
#[test]
fn a_leader_counts_itself_only_up_to_its_own_disk() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.node_mut(1).holds_writes = true;
    cluster.isolate(&[3]);
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    assert_eq!(cluster.committed(1), 1, "one disk of three has it");
    cluster.sync_all(1);
    assert_eq!(cluster.committed(1), 2);
}

/// RAFT-CASE 15
#[test]
fn entries_commit_without_the_leaders_disk_if_a_quorum_of_others_has_them() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.node_mut(1).holds_writes = true;
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    let status = cluster.status(1);
    assert_eq!((status.committed, status.durable), (LogIndex(2), LogIndex(1)));
    assert_eq!(cluster.commands(1), ["a"]);
}

/// RAFT-CASE 15
#[test]
fn a_follower_acknowledges_only_what_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![]));
    cluster.network.clear();
    cluster.node_mut(2).holds_writes = true;
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![entry(1, 1, "a")]));
    cluster.handle(2, 1, append(1, Position::new(1, 1), 1, vec![entry(1, 2, "b")]));
    assert_eq!(cluster.take(2, 1), []);
    cluster.sync_one(2);
    assert_eq!(matched(&cluster.take(2, 1)), [(1, 1)]);
    cluster.sync_one(2);
    assert_eq!(matched(&cluster.take(2, 1)), [(2, 1)]);
    // What is durable already is answered at once.
    cluster.handle(2, 1, append(1, Position::default(), 2, vec![entry(1, 1, "a")]));
    assert_eq!(matched(&cluster.take(2, 1)), [(1, 2)]);
}

/// RAFT-CASE 15, 23: a heartbeat is not held up by a write, and claims nothing beyond it.
#[test]
fn a_heartbeat_is_answered_at_once_with_what_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![entry(1, 1, "a")]));
    cluster.network.clear();
    cluster.node_mut(2).holds_writes = true;
    cluster.handle(2, 1, append(1, Position::new(1, 1), 1, vec![entry(1, 2, "b")]));
    cluster.handle(2, 1, append(1, Position::new(1, 2), 2, vec![]));
    assert_eq!(matched(&cluster.take(2, 1)), [(1, 2)]);
    cluster.sync_all(2);
    assert_eq!(matched(&cluster.take(2, 1)), [(2, 1)]);
}

#[test]
fn nothing_is_answered_in_a_term_that_is_not_durable() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(2).holds_writes = true;
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![]));
    assert_eq!(cluster.take(2, 1), []);
    cluster.sync_all(2);
    assert_eq!(matched(&cluster.take(2, 1)), [(0, 1)]);
}

/// RAFT-CASE 21
#[test]
fn a_late_completion_does_not_vouch_for_the_same_entry_written_again() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(2).holds_writes = true;
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![entry(1, 1, "a")]));
    cluster.handle(2, 3, append(2, Position::default(), 1, vec![entry(2, 1, "b")]));
    cluster.handle(2, 1, append(3, Position::default(), 1, vec![entry(1, 1, "a")]));
    for _ in 0..2 {
        cluster.sync_one(2);
        assert_eq!(cluster.status(2).durable, LogIndex(0));
        assert_eq!(matched(&cluster.take(2, 1)), []);
    }
    cluster.sync_one(2);
    assert_eq!(cluster.status(2).durable, LogIndex(1));
    assert_eq!(matched(&cluster.take(2, 1)), [(1, 1)]);
}

/// RAFT-CASE 63
#[test]
fn an_answer_held_back_is_dropped_with_its_term() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(2).holds_writes = true;
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![entry(1, 1, "a")]));
    cluster.handle(2, 3, append(2, Position::default(), 1, vec![]));
    cluster.sync_all(2);
    assert_eq!(cluster.take(2, 1), [], "the leader of the earlier term gets none");
    assert_eq!(matched(&cluster.take(2, 3)), [(0, 1)]);
}

/// RAFT-CASE 63
#[test]
fn a_vote_held_back_is_dropped_with_its_term() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(2).holds_writes = true;
    let request = |term| VoteRequest { kind: VoteKind::Real, term, last: Position::default() };
    cluster.handle(2, 1, Message::VoteRequest(request(Term(1))));
    cluster.handle(2, 3, Message::VoteRequest(request(Term(2))));
    cluster.sync_all(2);
    assert_eq!(cluster.take(2, 1), []);
    assert_eq!(cluster.take(2, 3).len(), 1);
}

/// RAFT-CASE 28, the core's part: what is never reported durable is never asked for again, and
/// nothing that needs it is ever said.
#[test]
fn a_write_that_never_completes_is_never_trusted() {
    let mut cluster = Cluster::new(3);
    cluster.handle(2, 1, append(1, Position::default(), 1, vec![entry(1, 1, "a")]));
    cluster.network.clear();
    cluster.node_mut(2).holds_writes = true;
    for round in 1..50 {
        cluster.handle(2, 1, append(1, Position::new(1, 1), round, vec![entry(1, 2, "b")]));
        cluster.handle(2, 1, append(1, Position::new(1, 2), round, vec![]));
    }
    assert_eq!(cluster.node(2).disk.pending(), 1);
    assert!(matched(&cluster.take(2, 1)).iter().all(|(index, _)| *index == 1));
}
