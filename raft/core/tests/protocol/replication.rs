//! Entries on their way to followers, and what is committed.

use kontiki_core::{
    AppendEntries, AppendOutcome, AppendResponse, Batch, Entry, FollowerMode, FollowerStatus,
    HaltReason, LogIndex, Message, Output, Position, ProposeError, Role, Term, VoteKind,
    VoteRequest, VoteResponse,
};

use crate::{
    cluster::{Cluster, Fetch, entry, id, ms},
    disk::Disk,
};

fn append(term: u64, previous: Position, commit: u64, entries: Vec<Entry>) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        previous,
        commit: LogIndex(commit),
        round: 1,
        entries: Batch::from(entries),
    })
}

fn matched(term: u64, round: u64, index: u64) -> Message {
    let outcome = AppendOutcome::Matched(LogIndex(index));
    Message::AppendResponse(AppendResponse { term: Term(term), round, outcome })
}

fn rejected(term: u64, round: u64, previous: Position, hint: Position) -> Message {
    let outcome = AppendOutcome::Rejected { previous, hint };
    Message::AppendResponse(AppendResponse { term: Term(term), round, outcome })
}

fn appends(messages: &[Message]) -> Vec<&AppendEntries> {
    let appends = messages.iter().filter_map(|message| match message {
        Message::AppendEntries(request) => Some(request),
        _ => None,
    });
    appends.collect()
}

fn with_entries(messages: &[Message]) -> usize {
    appends(messages).iter().filter(|request| !request.entries.is_empty()).count()
}

fn is_reject(message: &Message) -> bool {
    let Message::AppendResponse(response) = message else { return false };
    matches!(response.outcome, AppendOutcome::Rejected { .. })
}

fn follower(cluster: &Cluster, number: u64) -> FollowerStatus {
    let followers = cluster.status(1).followers;
    followers.into_iter().find(|follower| follower.id == id(number)).unwrap()
}

fn led(voters: u64) -> Cluster {
    let mut cluster = Cluster::new(voters);
    cluster.elect(1);
    cluster
}

/// RAFT-CASE 14 (figure 8 of the paper)
#[test]
fn entries_of_earlier_terms_are_committed_only_along_with_one_of_this_term() {
    let mut cluster = Cluster::new(5);
    cluster.checker.forged = true;
    let entries = vec![entry(1, 1, "a"), entry(2, 2, "b")];
    cluster.handle(1, 5, append(2, Position::default(), 0, entries));
    cluster.pass(ms(2500));
    cluster.timeout(1);
    for kind in [VoteKind::Pre, VoteKind::Real] {
        for voter in [2, 3] {
            let response = VoteResponse { kind, term: Term(3), granted: true };
            cluster.handle(1, voter, Message::VoteResponse(response));
        }
    }
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.handle(1, 2, matched(3, 1, 2));
    cluster.handle(1, 3, matched(3, 1, 2));
    assert_eq!(cluster.committed(1), 0, "on a quorum, but of term 2");
    cluster.handle(1, 2, matched(3, 1, 3));
    cluster.handle(1, 3, matched(3, 1, 3));
    assert_eq!(cluster.committed(1), 3);
}

/// RAFT-CASE 16
#[test]
fn a_follower_removes_only_what_conflicts() {
    let mut cluster = Cluster::new(3);
    let all = vec![entry(1, 1, "a"), entry(1, 2, "b"), entry(1, 3, "c")];
    cluster.handle(2, 1, append(1, Position::default(), 0, all.clone()));
    // Late, repeated, and a part only.
    cluster.handle(2, 1, append(1, Position::default(), 0, all[..1].to_vec()));
    cluster.handle(2, 1, append(1, Position::new(1, 1), 0, vec![]));
    assert_eq!(cluster.node(2).disk.cached.entries, all);
    // A real conflict at 3.
    let new = vec![entry(1, 2, "b"), entry(2, 3, "d"), entry(2, 4, "e")];
    cluster.handle(2, 3, append(2, Position::new(1, 1), 0, new));
    let kept = &cluster.node(2).disk.cached.entries;
    assert_eq!(kept[..2], all[..2]);
    assert_eq!(cluster.status(2).last, Position::new(2, 4));
}

/// RAFT-CASE 17
#[test]
fn a_follower_asked_to_overwrite_a_committed_entry_halts() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    let entries = vec![entry(1, 1, "a"), entry(1, 2, "b")];
    cluster.handle(2, 1, append(1, Position::default(), 2, entries));
    let before = cluster.node(2).disk.cached.entries.clone();
    cluster.handle(2, 3, append(2, Position::new(1, 1), 2, vec![entry(2, 2, "x")]));
    let reason = cluster.halted(2).unwrap();
    let expected = HaltReason::CommittedOverwritten {
        index: LogIndex(2),
        ours: Term(1),
        theirs: Term(2),
        leader: id(3),
    };
    assert_eq!(reason, expected);
    assert_eq!(cluster.node(2).disk.cached.entries, before);
    // Nothing moves it any more.
    cluster.network.clear();
    cluster.handle(2, 1, append(3, Position::default(), 0, vec![]));
    cluster.pass(ms(9000));
    cluster.timeout(2);
    assert_eq!(cluster.network, []);
    assert_eq!(cluster.node(2).raft.as_ref().unwrap().poll_timeout(), None);
}

/// RAFT-CASE 17: a previous entry that contradicts a committed one is the same lie.
#[test]
fn a_leader_whose_log_lacks_a_committed_entry_is_not_followed() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    let entries = vec![entry(1, 1, "a"), entry(1, 2, "b")];
    cluster.handle(2, 1, append(1, Position::default(), 2, entries));
    cluster.handle(2, 3, append(3, Position::new(2, 2), 2, vec![]));
    assert!(cluster.halted(2).is_some());
}

#[test]
fn two_leaders_of_one_term_halt_whoever_hears_both() {
    let mut cluster = Cluster::new(3);
    cluster.handle(2, 1, append(1, Position::default(), 0, vec![]));
    // In doubt it is still the one that this term has.
    cluster.doubt(2, 1);
    cluster.handle(2, 3, append(1, Position::default(), 0, vec![]));
    let expected = HaltReason::TwoLeaders { term: Term(1), first: id(1), second: id(3) };
    assert_eq!(cluster.halted(2), Some(expected));
}

/// RAFT-CASE 18
#[test]
fn a_follower_commits_no_further_than_this_message_verified() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    let stale = (1..=5).map(|index| entry(1, index, "stale")).collect();
    cluster.handle(2, 1, append(1, Position::default(), 0, stale));
    cluster.handle(2, 3, append(2, Position::new(1, 1), 9, vec![]));
    assert_eq!(cluster.committed(2), 1);
    cluster.handle(2, 3, append(2, Position::new(1, 1), 9, vec![entry(1, 2, "stale")]));
    assert_eq!(cluster.committed(2), 2);
    assert_eq!(cluster.status(2).last, Position::new(1, 5), "the rest is not known to conflict");
}

/// RAFT-CASE 19
#[test]
fn late_answers_never_move_a_follower_back() {
    let mut cluster = led(3);
    cluster.propose_all(1, &["a", "b", "c"]).unwrap();
    cluster.settle();
    let before = follower(&cluster, 2);
    assert_eq!(before.matched, LogIndex(4));
    cluster.handle(1, 2, rejected(1, 1, Position::new(1, 2), Position::new(1, 1)));
    cluster.handle(1, 2, matched(1, 1, 2));
    cluster.handle(1, 2, matched(1, 1, 99));
    assert_eq!(follower(&cluster, 2), before);
}

/// RAFT-CASE 20
#[test]
fn answers_of_another_leadership_or_of_no_round_are_ignored() {
    let mut cluster = led(3);
    cluster.checker.forged = true;
    cluster.isolate(&[1]);
    cluster.propose(1, "a").unwrap();
    cluster.handle(1, 2, matched(0, 1, 2));
    cluster.handle(1, 2, matched(1, 77, 2));
    assert_eq!(follower(&cluster, 2).matched, LogIndex(1));
    cluster.handle(1, 2, matched(1, 1, 2));
    assert_eq!(follower(&cluster, 2).matched, LogIndex(2));
}

/// RAFT-CASE 23
#[test]
fn a_heartbeat_tells_no_commit_beyond_what_matches() {
    let mut cluster = led(3);
    cluster.isolate(&[3]);
    cluster.propose_all(1, &["a", "b"]).unwrap();
    cluster.settle();
    assert_eq!(cluster.committed(1), 3);
    cluster.pass(ms(100));
    cluster.timeout(1);
    let messages = cluster.take(1, 3);
    let empty: Vec<_> =
        appends(&messages).into_iter().filter(|request| request.entries.is_empty()).collect();
    assert!(!empty.is_empty());
    for request in empty {
        assert_eq!(request.previous, Position::new(1, 1), "checked like any other");
        assert_eq!(request.commit, LogIndex(1));
    }
}

/// RAFT-CASE 24
#[test]
fn entries_lost_on_the_way_are_found_missing_and_sent_again() {
    let mut cluster = led(3);
    for command in ["a", "b", "c"] {
        cluster.propose(1, command).unwrap();
    }
    cluster.take(1, 3);
    cluster.settle();
    assert!(cluster.commands(3).is_empty());
    cluster.run(ms(300));
    assert_eq!(cluster.commands(3), ["a", "b", "c"]);
    assert_eq!(follower(&cluster, 3).mode, FollowerMode::Replicate);
}

/// RAFT-CASE 24
#[test]
fn lost_answers_are_found_missing() {
    let mut cluster = led(3);
    cluster.propose(1, "a").unwrap();
    cluster.cut.insert((id(3), id(1)));
    cluster.settle();
    cluster.heal();
    assert_eq!(follower(&cluster, 3).matched, LogIndex(1));
    cluster.run(ms(300));
    assert_eq!(follower(&cluster, 3).matched, LogIndex(2));
}

/// RAFT-CASE 24
#[test]
fn a_gap_in_the_pipeline_is_drained_and_probed_without_waiting_for_a_timer() {
    let mut cluster = led(3);
    cluster.propose(1, "lost").unwrap();
    cluster.take(1, 3);
    for command in ["b", "c", "d"] {
        cluster.propose(1, command).unwrap();
    }
    cluster.settle();
    assert_eq!(cluster.commands(3), ["lost", "b", "c", "d"]);
    let follower = follower(&cluster, 3);
    assert_eq!((follower.mode, follower.inflight_messages), (FollowerMode::Replicate, 0));
}

/// RAFT-CASE 24: heartbeats succeed throughout, everything else is lost at random.
#[test]
fn a_link_that_loses_entries_and_answers_never_wedges_a_follower() {
    let mut cluster = Cluster::with(3, 0, |config| config.inflight_messages_max = 3);
    cluster.elect(1);
    let mut dice = 1u64;
    for turn in 0..300 {
        if turn < 280 {
            cluster.propose(1, &format!("command {turn}")).unwrap();
        }
        while !cluster.network.is_empty() {
            let envelope = cluster.network.remove(0);
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let is_heartbeat = matches!(&envelope.message,
                Message::AppendEntries(request) if request.entries.is_empty());
            let to_or_from = envelope.from == id(3) || envelope.to == id(3);
            let lost = turn < 290 && to_or_from && !is_heartbeat && dice >> 62 != 0;
            if !lost {
                cluster.deliver(envelope);
            }
        }
        cluster.pass(ms(50));
        cluster.timeout(1);
    }
    assert_eq!((cluster.role(1), cluster.status(1).term), (Role::Leader, Term(1)));
    assert_eq!(cluster.commands(3).len(), 280);
    assert_eq!(follower(&cluster, 3).mode, FollowerMode::Replicate);
}

/// RAFT-CASE 24: a follower whose disk hangs is asked once a heartbeat, not flooded.
#[test]
fn a_follower_with_a_hung_disk_gets_at_most_one_message_with_entries_a_heartbeat() {
    let mut cluster = led(3);
    cluster.node_mut(3).holds_writes = true;
    for number in 0..40 {
        cluster.propose(1, &format!("command {number}")).unwrap();
    }
    cluster.run(ms(500));
    for _ in 0..50 {
        cluster.propose(1, "more").unwrap();
        cluster.pass(ms(100));
        cluster.timeout(1);
        let sent = cluster.network.iter().filter(|e| e.to == id(3)).map(|e| e.message.clone());
        assert!(with_entries(&sent.collect::<Vec<_>>()) <= 1);
        cluster.settle();
    }
    assert_eq!(cluster.role(1), Role::Leader);
    cluster.node_mut(3).holds_writes = false;
    cluster.sync_all(3);
    cluster.run(ms(500));
    assert_eq!(cluster.commands(3), cluster.commands(1));
}

/// RAFT-CASE 25
#[test]
fn a_failed_or_wrong_read_of_the_log_sends_nothing() {
    let mut cluster = behind_the_tail();
    let fetch = cluster.node_mut(1).fetches.pop_front().unwrap();
    cluster.network.clear();
    cluster.input(1, |raft, now| raft.handle_fetched(now, fetch.id, Err(())));
    assert_eq!(cluster.network, []);

    let good = cluster.node(1).disk.cached.range(fetch.first, fetch.end);
    let mut gap = good.clone();
    gap.remove(1);
    let mut other_term = good.clone();
    other_term[0].term = Term(9);
    let late_start = good[1..].to_vec();
    for wrong in [gap, other_term, late_start, vec![]] {
        cluster.pass(ms(100));
        cluster.timeout(1);
        let fetch = cluster.node_mut(1).fetches.pop_front().expect("asked again");
        cluster.network.clear();
        cluster.input(1, |raft, now| raft.handle_fetched(now, fetch.id, Ok(wrong)));
        let sent = cluster.take(1, 3);
        assert_eq!(with_entries(&sent), 0);
    }
    cluster.node_mut(1).holds_fetches = false;
    while !cluster.node(1).fetches.is_empty() {
        cluster.answer_fetch(1);
    }
    cluster.run(ms(1000));
    assert_eq!(cluster.commands(3), cluster.commands(1));
}

/// RAFT-CASE 64
#[test]
fn entries_fetched_late_do_not_leave_under_another_leadership() {
    let mut cluster = behind_the_tail();
    let fetch = cluster.node_mut(1).fetches.pop_front().unwrap();
    let entries = cluster.node(1).disk.cached.range(fetch.first, fetch.end);
    cluster.elect(2);
    cluster.elect(1);
    cluster.network.clear();
    cluster.input(1, |raft, now| raft.handle_fetched(now, fetch.id, Ok(entries)));
    assert_eq!(cluster.network, []);
}

/// RAFT-CASE 64: what was read has been truncated and replaced meanwhile, and the node leads again.
#[test]
fn entries_that_were_replaced_since_they_were_read_never_leave() {
    let mut cluster = Cluster::with(3, 0, |config| config.tail_bytes_max = 300);
    cluster.elect(1);
    cluster.node_mut(1).holds_fetches = true;
    // Durable here, committed nowhere.
    cluster.isolate(&[1]);
    for number in 0..20 {
        cluster.propose(1, &format!("old {number}")).unwrap();
    }
    cluster.settle();
    // Follower 3 lacks them all; they are read for it.
    cluster.cut.retain(|(from, to)| *from != id(3) && *to != id(3));
    heartbeats_of_1(&mut cluster);
    let old = cluster.node_mut(1).fetches.pop_front().unwrap();
    let log = cluster.node(1).disk.cached.clone();

    cluster.isolate(&[1]);
    cluster.elect(2);
    cluster.crash(3);
    cluster.heal();
    for number in 0..20 {
        cluster.propose(2, &format!("new {number}")).unwrap();
        cluster.settle();
    }
    cluster.run(ms(500));
    cluster.elect(1);
    let replaced = cluster.node(1).disk.cached.range(old.first, old.end);
    assert!(replaced.iter().all(|entry| entry.term > Term(1)), "replaced: {replaced:?}");
    cluster.start(3);
    heartbeats_of_1(&mut cluster);
    let new = cluster.node_mut(1).fetches.pop_front().unwrap();
    // The answer to the old question; and a log that was read too early for the new one.
    for Fetch { id, first, end } in [old, new] {
        let entries = log.range(first, end);
        assert!(!entries.is_empty() && entries.iter().all(|entry| entry.term == Term(1)));
        cluster.input(1, |raft, now| raft.handle_fetched(now, id, Ok(entries)));
        assert_eq!(with_entries(&cluster.take(1, 3)), 0);
    }
    cluster.node_mut(1).holds_fetches = false;
    cluster.run(ms(1000));
    assert_eq!(cluster.commands(3), cluster.commands(1));
    assert!(cluster.commands(3).iter().all(|command| command.starts_with("new")));
}

/// As many as a leader needs to see that what it sent was lost.
fn heartbeats_of_1(cluster: &mut Cluster) {
    for _ in 0..3 {
        cluster.pass(ms(100));
        cluster.timeout(1);
        cluster.settle();
    }
}

/// A leader whose follower 3 needs entries that are only in the log, and that waits for them.
fn behind_the_tail() -> Cluster {
    let mut cluster = Cluster::with(3, 0, |config| config.tail_bytes_max = 300);
    cluster.elect(1);
    cluster.crash(3);
    for number in 0..20 {
        cluster.propose(1, &format!("command {number}")).unwrap();
        cluster.settle();
    }
    cluster.node_mut(1).holds_fetches = true;
    cluster.start(3);
    heartbeats_of_1(&mut cluster);
    assert_eq!(cluster.node(1).fetches.len(), 1, "one at a time");
    cluster
}

#[test]
fn a_follower_far_behind_catches_up_from_the_log() {
    let mut cluster = behind_the_tail();
    cluster.node_mut(1).holds_fetches = false;
    cluster.answer_fetch(1);
    cluster.run(ms(500));
    assert_eq!(cluster.commands(3).len(), 20);
}

/// RAFT-CASE 26
#[test]
fn what_is_in_flight_is_bounded_and_heartbeats_still_flow() {
    let mut cluster = Cluster::with(3, 0, |config| config.inflight_messages_max = 4);
    cluster.elect(1);
    cluster.isolate(&[3]);
    cluster.network.clear();
    for _ in 0..10 {
        cluster.propose(1, "a").unwrap();
    }
    assert_eq!(follower(&cluster, 3).inflight_messages, 4);
    let sent = cluster.take(1, 3);
    assert_eq!(with_entries(&sent), 4);
    cluster.settle();
    cluster.pass(ms(100));
    cluster.timeout(1);
    assert_eq!(appends(&cluster.take(1, 3)).len(), 1, "a heartbeat");
}

/// RAFT-CASE 26
#[test]
fn too_much_that_is_not_applied_is_overload_until_it_is() {
    let options = |config: &mut kontiki_core::Config| {
        config.command_bytes_max = 1000;
        config.unapplied_bytes_max = 2000;
    };
    let mut cluster = Cluster::with(3, 0, options);
    cluster.elect(1);
    cluster.isolate(&[1]);
    let long = "x".repeat(900);
    cluster.propose(1, &long).unwrap();
    cluster.propose(1, &long).unwrap();
    let error = cluster.propose(1, &long).unwrap_err();
    assert!(matches!(error, ProposeError::Overloaded { limit: 2000, .. }), "{error}");
    assert_eq!(cluster.status(1).last.index, LogIndex(3), "all or none");
    cluster.heal();
    cluster.run(ms(400));
    cluster.propose(1, &long).unwrap();
    let error = cluster.propose_all(1, &["a", &"x".repeat(1001)]).unwrap_err();
    assert_eq!(error, ProposeError::TooLarge { bytes: 1001, limit: 1000 });
}

/// RAFT-CASE 26: else the log of a leader that applies more slowly than it is written would have no bound.
#[test]
fn what_the_leader_has_not_applied_weighs_until_it_has() {
    let mut cluster = Cluster::with(3, 0, |config| {
        config.command_bytes_max = 1000;
        config.unapplied_bytes_max = 2000;
    });
    cluster.elect(1);
    cluster.node_mut(1).holds_applies = true;
    let long = "x".repeat(900);
    cluster.propose(1, &long).unwrap();
    cluster.propose(1, &long).unwrap();
    cluster.run(ms(400));
    assert_eq!(cluster.committed(1), 3);
    let has_room = |cluster: &Cluster, number| {
        let raft = cluster.node(number).raft.as_ref().unwrap();
        raft.has_room(entry(1, 1, &long).bytes())
    };
    assert!(!has_room(&cluster, 1) && has_room(&cluster, 2), "who leads has to apply it");
    let error = cluster.propose(1, &long).unwrap_err();
    assert!(matches!(error, ProposeError::Overloaded { limit: 2000, .. }), "{error}");
    cluster.input(1, |raft, now| raft.handle_applied(now, LogIndex(2)));
    assert!(has_room(&cluster, 1));
    cluster.propose(1, &long).unwrap();
}

/// RAFT-CASE 27
#[test]
fn a_follower_that_lost_its_disk_is_reported_and_counts_for_nothing() {
    let mut cluster = led(3);
    cluster.propose_all(1, &["a", "b"]).unwrap();
    cluster.settle();
    cluster.events(1);
    wipe(&mut cluster, 3);
    cluster.run(ms(300));
    let expected =
        Output::PeerRegressed { peer: id(3), matched: LogIndex(3), reported: LogIndex(0) };
    let told = cluster.events(1).into_iter().filter(|event| *event == expected).count();
    assert_eq!((told, cluster.role(1)), (1, Role::Leader));
    // With the other one it goes on; without it nothing is committed.
    cluster.propose(1, "c").unwrap();
    cluster.settle();
    assert_eq!(cluster.committed(1), 4);
    cluster.isolate(&[2]);
    cluster.propose(1, "d").unwrap();
    cluster.settle();
    cluster.run(ms(300));
    assert_eq!(cluster.committed(1), 4);
    assert_eq!(cluster.node(3).applied, [], "and it is sent nothing");
}

/// RAFT-CASE 27
#[test]
fn what_a_lost_disk_had_acknowledged_commits_nothing_afterwards() {
    let mut cluster = led(5);
    let heartbeats = |cluster: &mut Cluster, count| {
        for _ in 0..count {
            cluster.pass(ms(100));
            cluster.timeout(1);
            cluster.settle();
        }
    };
    cluster.isolate(&[1, 3]);
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    wipe(&mut cluster, 3);
    heartbeats(&mut cluster, 1);
    assert!(follower(&cluster, 3).regressed);
    cluster.heal();
    cluster.isolate(&[1, 2, 3]);
    heartbeats(&mut cluster, 2);
    assert_eq!(follower(&cluster, 2).matched, LogIndex(2));
    assert_eq!(cluster.committed(1), 1, "on two disks of five");
    cluster.heal();
    heartbeats(&mut cluster, 3);
    assert_eq!(cluster.committed(1), 2);
}

/// Restarts a node with an empty log; its term it keeps.
fn wipe(cluster: &mut Cluster, number: u64) {
    let state = cluster.node(number).disk.durable.state.clone();
    cluster.crash(number);
    cluster.node_mut(number).disk = Disk::new(state);
    cluster.start(number);
}

#[test]
fn a_batch_is_one_write_and_one_message_per_follower() {
    let mut cluster = led(3);
    cluster.node_mut(1).holds_writes = true;
    let position = cluster.propose_all(1, &["a", "b", "c"]).unwrap();
    assert_eq!(position, Position::new(1, 2));
    assert_eq!(cluster.node(1).disk.pending(), 1);
    for number in [2, 3] {
        let sent = cluster.take(1, number);
        assert_eq!((sent.len(), appends(&sent)[0].entries.len()), (1, 3));
    }
}

#[test]
fn small_batches_for_a_follower_that_lags_travel_in_one_message() {
    let mut cluster = Cluster::with(3, 0, |config| config.inflight_messages_max = 1);
    cluster.elect(1);
    for _ in 0..10 {
        cluster.propose(1, "a").unwrap();
    }
    let first = cluster.take(1, 2);
    assert_eq!((with_entries(&first), appends(&first)[0].entries.len()), (1, 1));
    cluster.handle(2, 1, first[0].clone());
    let answer = cluster.take(2, 1);
    cluster.handle(1, 2, answer[0].clone());
    assert_eq!(appends(&cluster.take(1, 2))[0].entries.len(), 9);
}

#[test]
fn a_reject_skips_whole_terms() {
    let mut cluster = led(3);
    cluster.propose_all(1, &["a"; 50]).unwrap();
    cluster.settle();
    // Node 1 alone has many more entries of term 1, node 3 alone many of two later terms.
    cluster.isolate(&[1]);
    cluster.isolate(&[3]);
    cluster.propose_all(1, &["b"; 150]).unwrap();
    cluster.pass(ms(3000));
    cluster.timeout(1);
    for term in [2, 3] {
        let last = cluster.status(3).last;
        let entries = (1..=100).map(|i| entry(term, last.index.0 + i, "lost")).collect();
        cluster.handle(3, 2, append(term, last, 0, entries));
    }
    for number in [1, 2] {
        let request =
            VoteRequest { kind: VoteKind::Real, term: Term(3), last: Position::default() };
        cluster.handle(number, 3, Message::VoteRequest(request));
    }
    cluster.heal();
    cluster.isolate(&[3]);
    cluster.elect(1);
    cluster.heal();
    let mut rejects = 0;
    for _ in 0..10 {
        cluster.pass(ms(100));
        cluster.timeout(1);
        while !cluster.network.is_empty() {
            let envelope = cluster.network.remove(0);
            rejects += usize::from(is_reject(&envelope.message));
            cluster.deliver(envelope);
        }
    }
    assert_eq!(cluster.commands(3), cluster.commands(1));
    assert!(rejects <= 3, "{rejects} rejects for 200 foreign entries");
}

#[test]
fn followers_learn_of_a_commit_without_waiting_for_a_heartbeat() {
    let mut cluster = led(3);
    cluster.propose(1, "a").unwrap();
    cluster.settle();
    for number in 1..=3 {
        assert_eq!(cluster.commands(number), ["a"]);
    }
}

#[test]
fn what_the_state_machine_is_handed_is_bounded_and_goes_on_as_it_applies() {
    let mut cluster = Cluster::with(1, 0, |config| config.tail_bytes_max = 500);
    cluster.run(ms(2000));
    cluster.node_mut(1).holds_applies = true;
    for number in 0..50 {
        cluster.propose(1, &format!("command {number}")).unwrap();
    }
    let handed = cluster.node(1).applied.len();
    assert!(handed < 15, "{handed} of 51 are handed out at once");
    cluster.node_mut(1).holds_applies = false;
    let last = LogIndex(handed as u64);
    cluster.input(1, |raft, now| raft.handle_applied(now, last));
    assert_eq!(cluster.commands(1).len(), 50);
}

/// A leader of two terms hears of the first one in the second: rounds are counted anew in each.
#[test]
fn an_answer_to_an_earlier_leadership_of_a_node_is_none_to_this_one() {
    let mut cluster = led(3);
    let kontiki_core::Status { term: old, last: previous, .. } = cluster.status(1);
    let late = AppendEntries {
        term: old,
        previous,
        commit: LogIndex(1),
        round: 5,
        entries: Batch::default(),
    };
    cluster.elect(2);
    cluster.elect(1);
    cluster.propose(1, "a").unwrap();
    cluster.run(ms(1000));
    cluster.handle(2, 1, Message::AppendEntries(late));
    let answers = cluster.take(2, 1);
    assert!(
        matches!(answers[..], [Message::AppendResponse(AppendResponse { round: 0, .. })]),
        "{answers:?}"
    );
    answers.into_iter().for_each(|answer| cluster.handle(1, 2, answer));
    cluster.isolate(&[3]);
    cluster.propose(1, "b").unwrap();
    cluster.settle();
    assert_eq!(cluster.commands(2), ["a", "b"], "it counts, and is sent entries");
}
