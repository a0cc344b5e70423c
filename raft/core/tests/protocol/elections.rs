//! Terms, votes and elections.

use kontiki_core::{
    AppendEntries, AppendOutcome, AppendResponse, Batch, LogIndex, Message, Output, Position,
    ProposeError, Role, Term, VoteKind, VoteRequest, VoteResponse,
};

use crate::cluster::{Cluster, entry, id, ms};

fn vote_request(kind: VoteKind, term: u64, last: Position) -> Message {
    Message::VoteRequest(VoteRequest { kind, term: Term(term), last })
}

fn real(term: u64, last: Position) -> Message {
    vote_request(VoteKind::Real, term, last)
}

fn vote(kind: VoteKind, term: u64, granted: bool) -> Message {
    Message::VoteResponse(VoteResponse { kind, term: Term(term), granted })
}

fn heartbeat(term: u64, round: u64) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        previous: Position::default(),
        commit: LogIndex(0),
        round,
        entries: Batch::default(),
    })
}

fn granted(messages: &[Message]) -> bool {
    messages.iter().any(|m| matches!(m, Message::VoteResponse(r) if r.granted))
}

/// Puts entries of `terms` into a node's log, as a leader of the last of these terms would.
fn fill(cluster: &mut Cluster, number: u64, from: u64, terms: &[u64]) {
    let entries = terms.iter().zip(1..).map(|(term, index)| entry(*term, index, "filled"));
    let request = AppendEntries {
        term: Term(*terms.last().unwrap()),
        previous: Position::default(),
        commit: LogIndex(0),
        round: 1,
        entries: Batch::from(entries.collect::<Vec<_>>()),
    };
    cluster.handle(number, from, Message::AppendEntries(request));
    cluster.pass(ms(5000));
    cluster.network.clear();
}

/// RAFT-CASE 1
#[test]
fn a_vote_survives_a_crash() {
    let mut cluster = Cluster::new(3);
    cluster.handle(1, 2, real(1, Position::default()));
    assert!(granted(&cluster.take(1, 2)));
    cluster.restart(1);
    cluster.handle(1, 3, real(1, Position::default()));
    assert!(!granted(&cluster.take(1, 3)));
    cluster.handle(1, 2, real(1, Position::default()));
    assert!(granted(&cluster.take(1, 2)), "the same vote may be repeated");
}

/// RAFT-CASE 2
#[test]
fn term_and_vote_are_written_as_one() {
    let mut cluster = Cluster::new(3);
    cluster.handle(1, 2, real(1, Position::default()));
    cluster.node_mut(1).holds_writes = true;
    cluster.handle(1, 3, real(2, Position::default()));
    assert_eq!(cluster.node(1).disk.pending(), 1, "one write, whole or not at all");
    cluster.sync_one(1);
    let hard = cluster.node(1).disk.durable.state.hard;
    assert_eq!((hard.term, hard.vote), (Term(2), Some(id(3))));
}

/// RAFT-CASE 3
#[test]
fn neither_a_vote_nor_a_request_for_one_leaves_before_it_is_durable() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).holds_writes = true;
    cluster.handle(1, 2, real(1, Position::default()));
    assert_eq!(cluster.take(1, 2), []);
    cluster.sync_all(1);
    assert!(granted(&cluster.take(1, 2)));

    cluster.pass(ms(1200));
    cluster.timeout(1);
    cluster.network.clear();
    cluster.handle(1, 2, vote(VoteKind::Pre, 2, true));
    assert_eq!(cluster.role(1), Role::Candidate);
    assert_eq!(cluster.network, []);
    cluster.sync_all(1);
    assert_eq!(cluster.take(1, 2), [real(2, Position::default())]);
}

/// RAFT-CASE 3: the own vote is a vote like any other.
#[test]
fn a_candidate_counts_its_own_vote_only_once_it_is_durable() {
    let mut cluster = Cluster::new(1);
    cluster.node_mut(1).holds_writes = true;
    cluster.pass(ms(1200));
    cluster.timeout(1);
    assert_eq!(cluster.role(1), Role::Candidate);
    cluster.sync_one(1);
    assert_eq!(cluster.role(1), Role::Leader);
}

/// RAFT-CASE 4
#[test]
fn a_vote_is_kept_through_all_that_happens_in_its_term() {
    let mut cluster = Cluster::new(3);
    cluster.handle(1, 2, real(1, Position::default()));
    // A leader appears, is lost again, and a pre-vote comes to nothing.
    cluster.handle(1, 3, heartbeat(1, 1));
    cluster.pass(ms(1200));
    cluster.timeout(1);
    assert_eq!(cluster.role(1), Role::PreCandidate);
    cluster.handle(1, 3, heartbeat(1, 2));
    cluster.pass(ms(1200));
    cluster.network.clear();
    cluster.handle(1, 3, real(1, Position::default()));
    assert!(!granted(&cluster.take(1, 3)));
    assert_eq!(cluster.node(1).disk.durable.state.hard.vote, Some(id(2)));
}

/// RAFT-CASE 4: a leader that steps down keeps the vote it gave itself.
#[test]
fn a_leader_that_steps_down_votes_for_nobody_else_in_its_term() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(&[1]);
    cluster.run(ms(800));
    assert_ne!(cluster.role(1), Role::Leader);
    cluster.network.clear();
    cluster.handle(1, 2, real(1, Position::new(1, 9)));
    assert!(!granted(&cluster.take(1, 2)));
}

/// RAFT-CASE 5
#[test]
fn votes_compare_the_last_term_before_the_last_index() {
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 1, 2, &[1, 1, 3]);
    for (term, last, expected) in [
        (4, Position::new(2, 9), false),
        (5, Position::new(3, 2), false),
        (6, Position::new(3, 3), true),
    ] {
        for kind in [VoteKind::Pre, VoteKind::Real] {
            cluster.handle(1, 3, vote_request(kind, term, last));
            assert_eq!(granted(&cluster.take(1, 3)), expected, "{kind:?} {last}");
        }
    }
    let mut cluster = Cluster::new(3);
    fill(&mut cluster, 1, 2, &[1, 1, 3]);
    cluster.handle(1, 3, real(5, Position::new(4, 1)));
    assert!(granted(&cluster.take(1, 3)), "shorter but newer");
}

/// RAFT-CASE 6: the disk of the test world asserts it at every write.
#[test]
fn a_term_is_written_no_later_than_its_first_entry() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(1).holds_writes = true;
    let request = AppendEntries {
        term: Term(7),
        previous: Position::default(),
        commit: LogIndex(0),
        round: 1,
        entries: Batch::from(vec![entry(7, 1, "a")]),
    };
    cluster.handle(1, 2, Message::AppendEntries(request));
    assert_eq!(cluster.node(1).disk.pending(), 1, "in one write, the state first");
    cluster.sync_one(1);
    assert_eq!(cluster.node(1).disk.durable.state.hard.term, Term(7));
}

/// RAFT-CASE 7
#[test]
fn only_votes_of_distinct_voters_of_this_term_and_kind_count() {
    let mut cluster = Cluster::with(5, 1, |_| {});
    cluster.pass(ms(1200));
    cluster.timeout(1);
    cluster.handle(1, 6, vote(VoteKind::Pre, 1, true));
    cluster.handle(1, 9, vote(VoteKind::Pre, 1, true));
    cluster.handle(1, 2, vote(VoteKind::Pre, 1, true));
    cluster.handle(1, 2, vote(VoteKind::Pre, 1, true));
    assert_eq!(cluster.role(1), Role::PreCandidate, "a learner, a stranger, and one voter twice");
    cluster.handle(1, 3, vote(VoteKind::Pre, 1, true));
    assert_eq!(cluster.role(1), Role::Candidate);
    cluster.handle(1, 4, vote(VoteKind::Pre, 1, true));
    cluster.handle(1, 5, vote(VoteKind::Pre, 2, true));
    cluster.handle(1, 2, vote(VoteKind::Real, 0, true));
    cluster.handle(1, 2, vote(VoteKind::Real, 1, true));
    cluster.handle(1, 2, vote(VoteKind::Real, 1, true));
    assert_eq!(cluster.role(1), Role::Candidate, "the other kind, an older term, one twice");
    cluster.handle(1, 3, vote(VoteKind::Real, 1, true));
    assert_eq!(cluster.role(1), Role::Leader);
}

/// RAFT-CASE 7: who has refused does not grant afterwards.
#[test]
fn the_first_answer_of_a_voter_stands() {
    let mut cluster = Cluster::new(5);
    cluster.pass(ms(1200));
    cluster.timeout(1);
    cluster.handle(1, 2, vote(VoteKind::Pre, 0, false));
    cluster.handle(1, 2, vote(VoteKind::Pre, 1, true));
    cluster.handle(1, 3, vote(VoteKind::Pre, 1, true));
    assert_eq!(cluster.role(1), Role::PreCandidate);
}

/// RAFT-CASE 8
#[test]
fn a_pre_vote_changes_nothing_durable_and_no_timer() {
    let mut cluster = Cluster::new(3);
    let before = cluster.node(1).raft.clone();
    cluster.handle(1, 2, vote_request(VoteKind::Pre, 1, Position::default()));
    assert!(granted(&cluster.take(1, 2)));
    assert_eq!(cluster.node(1).raft, before);
    assert_eq!(cluster.node(1).disk.cached.state.hard.term, Term(0));
}

/// RAFT-CASE 8: two of three are left, and the one with the longer log has the older term.
#[test]
fn two_survivors_elect_the_longer_log_although_its_term_is_older() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.cut.insert((id(1), id(2)));
    cluster.propose(1, "only on 1 and 3").unwrap();
    cluster.settle();
    cluster.crash(3);
    // Node 2 has come to a later term.
    cluster.heal();
    cluster.pass(ms(3000));
    cluster.handle(2, 3, real(9, Position::new(1, 1)));
    cluster.network.clear();
    cluster.run(ms(10_000));
    assert_eq!(cluster.leader(), Some(1));
    assert!(cluster.status(1).term >= Term(9));
}

/// RAFT-CASE 9: both stand as early as they can after a heartbeat, and have forgotten who sent it.
#[test]
fn those_who_stand_support_each_other_from_the_first_moment() {
    for seed in 1..30 {
        let mut cluster = Cluster::new(3);
        cluster.seed = seed;
        (1..=3).for_each(|number| cluster.restart(number));
        cluster.elect(1);
        cluster.pass(ms(100));
        cluster.timeout(1);
        cluster.settle();
        cluster.crash(1);
        let due = |cluster: &Cluster, number| {
            cluster.node(number).raft.as_ref().unwrap().poll_timeout().unwrap()
        };
        let mut survivors = [2, 3];
        survivors.sort_by_key(|number| due(&cluster, *number));
        for number in survivors {
            cluster.now = due(&cluster, number);
            cluster.timeout(number);
            assert_eq!(cluster.role(number), Role::PreCandidate);
            assert_eq!(cluster.status(number).leader, None);
        }
        let questions = [(2, 3), (3, 2)].map(|(from, to)| (from, to, cluster.take(from, to)));
        for (from, to, mut asked) in questions {
            cluster.handle(to, from, asked.pop().unwrap());
        }
        for (from, to) in [(2, 3), (3, 2)] {
            assert!(granted(&cluster.take(from, to)), "{from} vetoes {to} with seed {seed}");
        }
    }
}

/// RAFT-CASE 9
#[test]
fn two_survivors_that_stand_together_elect_one_of_them() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.crash(1);
    cluster.pass(ms(1200));
    cluster.timeout(2);
    cluster.timeout(3);
    cluster.run(ms(5000));
    assert!(cluster.leader().is_some(), "they do not veto each other for ever");
}

/// RAFT-CASE 9: stickiness.
#[test]
fn a_voter_that_hears_its_leader_supports_nobody_else() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.handle(2, 3, vote_request(VoteKind::Pre, 2, Position::new(1, 9)));
    assert!(!granted(&cluster.take(2, 3)));
    cluster.handle(2, 3, real(2, Position::new(1, 9)));
    assert_eq!(cluster.take(2, 3), [], "not even the term is taken over");
    assert_eq!(cluster.status(2).term, Term(1));
    cluster.handle(1, 3, real(2, Position::new(1, 9)));
    assert_eq!(cluster.role(1), Role::Leader, "nor does the leader itself");
    cluster.pass(ms(600));
    cluster.handle(2, 3, real(2, Position::new(1, 9)));
    assert!(granted(&cluster.take(2, 3)), "after the shortest timeout");
}

/// RAFT-CASE 10
#[test]
fn a_leader_that_no_quorum_answers_falls_silent() {
    let mut cluster = Cluster::new(5);
    cluster.elect(1);
    // It can still reach node 2, and only that.
    cluster.isolate(&[1, 2]);
    cluster.run(ms(700));
    assert_ne!(cluster.role(1), Role::Leader);
    for _ in 0..5 {
        cluster.pass(ms(100));
        cluster.timeout(1);
        let sent = cluster.take(1, 2);
        assert!(!sent.iter().any(|message| matches!(message, Message::AppendEntries(_))));
    }
    assert_eq!(cluster.propose(1, "x"), Err(ProposeError::NotLeader { leader: None }));
}

/// RAFT-CASE 10
#[test]
fn a_follower_bridged_to_a_lost_leader_can_vote_for_another() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    // 1 still reaches 2 and hears nobody; 3 hears nothing of it and must come to be elected with 2.
    cluster.cut.insert((id(2), id(1)));
    cluster.cut.insert((id(3), id(1)));
    cluster.cut.insert((id(1), id(3)));
    cluster.run(ms(4000));
    assert!(matches!(cluster.leader(), Some(2 | 3)), "{:?}", cluster.leader());
}

/// RAFT-CASE 11
#[test]
fn five_nodes_in_a_chain_of_reach_settle_on_one_leader() {
    let mut cluster = Cluster::new(5);
    let links = [(1, 2), (1, 3), (2, 3), (2, 4), (3, 5)];
    for a in 1..=5 {
        for b in 1..=5 {
            if !links.contains(&(a, b)) && !links.contains(&(b, a)) {
                cluster.cut.insert((id(a), id(b)));
            }
        }
    }
    cluster.run(ms(20_000));
    let (leader, term) = (cluster.leader().unwrap(), cluster.status(1).term);
    assert!([1, 2, 3].contains(&leader), "who reaches a quorum leads");
    cluster.run(ms(20_000));
    assert_eq!((cluster.leader(), cluster.status(1).term), (Some(leader), term), "stable");
}

/// RAFT-CASE 12
#[test]
fn learners_receive_entries_but_neither_stand_nor_vote() {
    let mut cluster = Cluster::with(1, 1, |_| {});
    cluster.run(ms(3000));
    assert_eq!((cluster.leader(), cluster.role(2)), (Some(1), Role::Learner));
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    assert_eq!(cluster.commands(2), ["a"]);
    cluster.crash(1);
    cluster.run(ms(5000));
    assert_eq!((cluster.role(2), cluster.status(2).term), (Role::Learner, Term(1)));
    cluster.handle(2, 1, real(2, Position::new(1, 9)));
    assert!(!granted(&cluster.take(2, 1)));
}

/// RAFT-CASE 12
#[test]
fn a_node_that_is_not_in_its_own_configuration_never_stands() {
    let mut cluster = Cluster::new(3);
    cluster.crash(3);
    let disk = &mut cluster.node_mut(3).disk;
    disk.durable.state.configurations[0].1.members.retain(|member| member.id != id(3));
    disk.crash();
    cluster.start(3);
    cluster.crash(1);
    cluster.crash(2);
    assert_eq!(cluster.node(3).raft.as_ref().unwrap().poll_timeout(), None);
    for _ in 0..10 {
        cluster.pass(ms(1200));
        cluster.timeout(3);
    }
    assert_eq!((cluster.role(3), cluster.status(3).term), (Role::Learner, Term(0)));
    assert_eq!(cluster.network, []);
    // Nor does it vote.
    cluster.handle(3, 1, real(1, Position::new(1, 9)));
    assert!(!granted(&cluster.take(3, 1)));
}

/// RAFT-CASE 12
#[test]
fn a_voter_answers_a_candidate_it_does_not_know_and_ignores_a_stranger_otherwise() {
    let mut cluster = Cluster::new(3);
    cluster.handle(1, 77, heartbeat(4, 1));
    assert_eq!(cluster.status(1).term, Term(0));
    cluster.handle(1, 77, real(1, Position::default()));
    assert!(granted(&cluster.take(1, 77)));
}

/// RAFT-CASE 22
#[test]
fn no_entry_is_made_in_a_term_that_was_not_led() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    let response =
        AppendResponse { term: Term(5), round: 1, outcome: AppendOutcome::Matched(LogIndex(1)) };
    cluster.handle(1, 2, Message::AppendResponse(response));
    assert_eq!(cluster.role(1), Role::Follower);
    let error = cluster.propose(1, "too late").unwrap_err();
    assert_eq!(error, ProposeError::NotLeader { leader: None });
    assert_eq!(cluster.status(1).last, Position::new(1, 1));
}

#[test]
fn a_cluster_elects_a_leader_by_itself_and_tells_the_runtime() {
    let mut cluster = Cluster::new(3);
    cluster.run(ms(3000));
    let leader = cluster.leader().unwrap();
    for number in 1..=3 {
        let told = cluster.events(number).into_iter().rev().find_map(|event| match event {
            Output::RoleChanged { role, term, leader } => Some((role, term, leader)),
            _ => None,
        });
        let role = if number == leader { Role::Leader } else { Role::Follower };
        assert_eq!(told, Some((role, cluster.status(number).term, Some(id(leader)))));
    }
}

#[test]
fn bytes_that_arrive_from_the_leader_count_as_contact() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    for _ in 0..20 {
        cluster.pass(ms(500));
        cluster.input(2, |raft, now| raft.handle_contact(now, id(1)));
        cluster.input(2, |raft, now| raft.handle_contact(now, id(3)));
        cluster.timeout(2);
    }
    assert_eq!(cluster.role(2), Role::Follower);
    cluster.pass(ms(1200));
    cluster.input(2, |raft, now| raft.handle_contact(now, id(3)));
    cluster.timeout(2);
    assert_eq!(cluster.role(2), Role::PreCandidate, "bytes of others do not");
}

#[test]
fn an_old_leader_learns_that_its_time_is_over() {
    let mut cluster = Cluster::new(3);
    cluster.elect(1);
    cluster.isolate(&[1]);
    cluster.pass(ms(2500));
    cluster.timeout(2);
    cluster.settle();
    assert_eq!((cluster.role(1), cluster.role(2)), (Role::Leader, Role::Leader));
    cluster.heal();
    // The old leader speaks first; the answer tells it.
    cluster.handle(2, 1, heartbeat(1, 9));
    cluster.settle();
    assert_eq!(cluster.role(1), Role::Follower);
    assert_eq!(cluster.status(1).term, cluster.status(2).term);
}

/// Whoever adopted a term near the end of numbers could never be followed by another one.
#[test]
fn a_term_that_no_elections_can_have_reached_is_not_adopted() {
    let jump = 1 << 32;
    let mut cluster = Cluster::new(3);
    let before = cluster.status(1).term;
    let last = Position::default();
    for message in [real(before.0 + jump + 1, last), heartbeat(u64::MAX >> 2, 1)] {
        cluster.handle(1, 2, message);
        assert_eq!(cluster.status(1).term, before);
    }
    cluster.handle(1, 2, real(before.0 + jump, last));
    assert_eq!(cluster.status(1).term, Term(before.0 + jump));
}
