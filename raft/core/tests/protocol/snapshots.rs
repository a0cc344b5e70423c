//! Snapshots: what leaves the log on the strength of one, how a follower that is behind gets one, and what it makes of it.

use kontiki_core::{
    AppendEntries, AppendOutcome, Batch, Configuration, FollowerMode, HaltReason, InstallSnapshot,
    LogIndex, Message, NodeId, Output, Position, Role, Snapshot, Term,
};

use crate::cluster::{Cluster, entry, id, ms};

/// Three voters, the first of which leads; so many entries stay behind a snapshot.
fn led(trailing: u64) -> Cluster {
    let mut cluster = Cluster::with(3, 0, |config| config.trailing_entries = trailing);
    cluster.elect(1);
    cluster
}

fn propose(cluster: &mut Cluster, commands: std::ops::Range<u64>) {
    for number in commands {
        cluster.propose(1, &format!("command {number}")).unwrap();
        cluster.settle();
    }
}

/// Node 3 hears nothing while the leader applies eight commands and takes a snapshot, which ends at 9.
fn behind() -> Cluster {
    let mut cluster = led(0);
    cluster.isolate(&[3]);
    propose(&mut cluster, 0..8);
    cluster.take_snapshot(1);
    assert_eq!(cluster.status(1).compacted, Position::new(1, 9));
    cluster
}

/// Then it is getting that snapshot, while the leader takes another one, which ends at 14.
fn getting() -> Cluster {
    let mut cluster = behind();
    cluster.node_mut(3).holds_snapshots = true;
    cluster.heal();
    cluster.run(ms(300));
    assert_eq!(
        (mode(&cluster, 3), wants_snapshot(&cluster, 3)),
        (FollowerMode::Snapshot, Some(id(1)))
    );
    propose(&mut cluster, 8..13);
    cluster.take_snapshot(1);
    cluster
}

fn mode(cluster: &Cluster, number: u64) -> FollowerMode {
    let followers = cluster.status(1).followers;
    followers.into_iter().find(|follower| follower.id == id(number)).unwrap().mode
}

fn append(
    term: u64,
    previous: Position,
    commit: u64,
    entries: Vec<kontiki_core::Entry>,
) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(term),
        previous,
        commit: LogIndex(commit),
        round: 1,
        entries: Batch::from(entries),
    })
}

fn offer(term: u64, at: Position) -> Message {
    Message::InstallSnapshot(InstallSnapshot { term: Term(term), round: 1, at })
}

fn snapshot(cluster: &Cluster, at: Position) -> Snapshot {
    let configuration = cluster.status(2).configuration;
    Snapshot { at, configuration: (Position::default(), configuration) }
}

/// What node 2 has answered to node 1.
fn answered(cluster: &mut Cluster) -> Vec<AppendOutcome> {
    let answers = cluster.take(2, 1).into_iter();
    answers
        .filter_map(|message| match message {
            Message::AppendResponse(response) => Some(response.outcome),
            _ => None,
        })
        .collect()
}

fn wants_snapshot(cluster: &Cluster, number: u64) -> Option<NodeId> {
    cluster.node(number).wanted
}

/// RAFT-CASE 49
#[test]
fn entries_leave_the_log_once_a_snapshot_contains_them_and_some_stay() {
    let mut cluster = led(3);
    propose(&mut cluster, 0..9);
    assert_eq!(cluster.status(1).compacted, Position::default());
    cluster.take_snapshot(1);
    let status = cluster.status(1);
    assert_eq!((status.snapshot, status.compacted), (Position::new(1, 10), Position::new(1, 7)));
    assert_eq!(cluster.node(1).disk.durable.base, Position::new(1, 7));
    // The others keep what they have.
    assert_eq!(cluster.status(2).compacted, Position::default());
}

#[test]
fn what_is_not_applied_yet_stays_in_the_log() {
    let mut cluster = Cluster::with(3, 0, |config| config.trailing_entries = 0);
    let entries = (1..=6).map(|index| entry(1, index, "a")).collect();
    cluster.node_mut(2).holds_applies = true;
    cluster.checker.forged = true;
    cluster.handle(2, 1, append(1, Position::default(), 6, entries));
    let at = Position::new(1, 5);
    cluster.node_mut(2).disk.snapshot = Some((snapshot(&cluster, at), Vec::new()));
    let known = snapshot(&cluster, at);
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    assert_eq!(cluster.status(2).compacted, Position::default());
    cluster.input(2, |raft, now| raft.handle_applied(now, LogIndex(3)));
    assert_eq!(cluster.status(2).compacted, Position::new(1, 3));
    cluster.input(2, |raft, now| raft.handle_applied(now, LogIndex(6)));
    assert_eq!(cluster.status(2).compacted, at, "what is behind the snapshot stays as well");
}

/// RAFT-CASE 46: behind the snapshot entries follow, and nobody is offered it again.
#[test]
fn a_follower_that_needs_what_is_gone_gets_the_snapshot_and_then_entries() {
    let mut cluster = behind();
    cluster.heal();
    cluster.run(ms(300));
    assert_eq!(cluster.installed, 1);
    assert_eq!(cluster.commands(3), cluster.commands(1));
    assert_eq!(mode(&cluster, 3), FollowerMode::Replicate);
    propose(&mut cluster, 8..10);
    cluster.run(ms(1000));
    assert_eq!(cluster.installed, 1);
    assert_eq!(cluster.commands(3).len(), 10);
    let status = cluster.status(3);
    assert_eq!((status.compacted, status.last), (Position::new(1, 9), Position::new(1, 11)));
    // It goes on from there after a restart, and applies nothing twice.
    cluster.restart(3);
    assert_eq!(cluster.status(3).applied, LogIndex(9));
    cluster.run(ms(1000));
    assert_eq!(cluster.commands(3), cluster.commands(1));
}

/// RAFT-CASE 52
#[test]
fn entries_behind_a_snapshot_that_is_being_sent_stay_until_the_one_after_the_next() {
    let mut cluster = getting();
    let status = cluster.status(1);
    assert_eq!((status.snapshot.index.0, status.compacted.index.0), (14, 9), "kept for it");
    propose(&mut cluster, 13..14);
    cluster.take_snapshot(1);
    let status = cluster.status(1);
    assert_eq!((status.snapshot.index.0, status.compacted.index.0), (15, 14), "no longer");
    // Whatever it gets, it is served again.
    cluster.bring_snapshot(3);
    cluster.run(ms(300));
    assert_eq!(cluster.commands(3), cluster.commands(1));
    assert_eq!(mode(&cluster, 3), FollowerMode::Replicate);
}

/// However many entries may trail: they are counted, and a disk is filled by bytes.
#[test]
fn no_entry_stays_that_the_snapshot_before_contains() {
    let mut cluster = Cluster::with(1, 0, |config| config.trailing_entries = 1000);
    cluster.elect(1);
    for (round, compacted) in [(0, 0), (1, 5), (2, 9), (3, 13)] {
        propose(&mut cluster, round * 4..round * 4 + 4);
        cluster.take_snapshot(1);
        assert_eq!(cluster.status(1).compacted.index.0, compacted);
    }
}

/// RAFT-CASE 52: what is kept is kept for a transfer, and who is not heard of has none.
#[test]
fn a_follower_that_is_silent_keeps_no_entries() {
    let mut cluster = getting();
    cluster.isolate(&[3]);
    cluster.run(ms(1000));
    assert_eq!(cluster.status(1).compacted.index.0, 9, "it may still follow this leader");
    cluster.run(ms(300));
    assert_eq!(cluster.status(1).compacted.index.0, 14);
    cluster.heal();
    cluster.bring_snapshot(3);
    cluster.run(ms(300));
    assert_eq!(cluster.commands(3), cluster.commands(1));
}

/// RAFT-CASE 52: while it is sent, nobody waits for anything else of that follower, and it counts as reached.
#[test]
fn a_leader_with_a_follower_that_gets_a_snapshot_goes_on() {
    let mut cluster = behind();
    cluster.node_mut(3).holds_snapshots = true;
    cluster.heal();
    cluster.isolate(&[2]);
    cluster.run(ms(5000));
    assert_eq!(cluster.role(1), Role::Leader, "node 3 answers its offers");
    cluster.heal();
    cluster.run(ms(300));
    propose(&mut cluster, 8..9);
    assert_eq!(cluster.committed(1), 10);
}

/// RAFT-CASE 24: an attempt that failed is followed by another one.
#[test]
fn a_snapshot_that_could_not_be_had_is_asked_for_again_with_the_next_offer() {
    let mut cluster = behind();
    cluster.node_mut(3).holds_snapshots = true;
    cluster.heal();
    cluster.run(ms(300));
    cluster.cut.insert((id(1), id(3)));
    cluster.bring_snapshot(3);
    assert_eq!(wants_snapshot(&cluster, 3), None);
    cluster.heal();
    cluster.run(ms(300));
    assert_eq!(wants_snapshot(&cluster, 3), Some(id(1)));
    cluster.bring_snapshot(3);
    cluster.run(ms(300));
    assert_eq!(cluster.commands(3), cluster.commands(1));
}

/// RAFT-CASE 53: the offer of a newer leader takes the place of an older one's; the same one is asked for once.
#[test]
fn one_snapshot_is_asked_for_at_a_time() {
    let mut cluster = Cluster::new(3);
    cluster.node_mut(2).holds_snapshots = true;
    for _ in 0..3 {
        cluster.handle(2, 1, offer(1, Position::new(1, 5)));
        assert_eq!(answered(&mut cluster), [AppendOutcome::Fetching { at: Position::new(1, 5) }]);
    }
    assert_eq!(cluster.node_mut(2).wanted.take(), Some(id(1)));
    cluster.handle(2, 1, offer(1, Position::new(1, 5)));
    assert_eq!(wants_snapshot(&cluster, 2), None, "it is on its way");
    cluster.handle(2, 3, offer(2, Position::new(1, 5)));
    assert_eq!(wants_snapshot(&cluster, 2), Some(id(3)));
    cluster.handle(2, 1, offer(1, Position::new(1, 7)));
    assert_eq!(wants_snapshot(&cluster, 2), Some(id(3)), "an older leader's counts for nothing");
}

/// RAFT-CASE 48
#[test]
fn a_snapshot_of_what_is_committed_here_is_no_news() {
    let mut cluster = led(0);
    propose(&mut cluster, 0..5);
    cluster.run(ms(100));
    let before = cluster.status(2);
    cluster.take(2, 1);
    cluster.handle(2, 1, offer(1, Position::new(1, 4)));
    assert_eq!(answered(&mut cluster), [AppendOutcome::Matched(LogIndex(4))]);
    assert_eq!(wants_snapshot(&cluster, 2), None);
    let stale = snapshot(&cluster, Position::new(1, 4));
    cluster.node_mut(2).disk.snapshot = Some((stale.clone(), Vec::new()));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, stale));
    let after = cluster.status(2);
    assert_eq!(
        (after.term, after.committed, after.applied, after.last),
        (before.term, before.committed, before.applied, before.last)
    );
    assert_eq!((after.compacted, cluster.installed), (Position::new(1, 4), 0));
    // An older one than that, later.
    let older = snapshot(&cluster, Position::new(1, 2));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, older));
    assert_eq!(cluster.status(2).snapshot, Position::new(1, 4));
}

/// RAFT-CASE 47: the same last entry.
#[test]
fn a_log_that_holds_the_last_entry_of_a_snapshot_keeps_what_is_behind_it() {
    let mut cluster = Cluster::with(3, 0, |config| config.trailing_entries = 0);
    cluster.checker.forged = true;
    let entries: Vec<_> = (1..=6).map(|index| entry(1, index, "a")).collect();
    cluster.handle(2, 1, append(1, Position::default(), 0, entries));
    cluster.take(2, 1);
    cluster.handle(2, 1, offer(1, Position::new(1, 4)));
    assert_eq!(answered(&mut cluster), [AppendOutcome::Matched(LogIndex(4))]);
    assert_eq!((wants_snapshot(&cluster, 2), cluster.committed(2)), (None, 4));
    assert_eq!(cluster.status(2).last, Position::new(1, 6));
    // One that came nevertheless, and ends further on.
    let known = snapshot(&cluster, Position::new(1, 5));
    cluster.node_mut(2).disk.snapshot = Some((known.clone(), Vec::new()));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    let status = cluster.status(2);
    assert_eq!((status.last, status.compacted), (Position::new(1, 6), Position::new(1, 4)));
    assert_eq!(cluster.installed, 0);
}

/// RAFT-CASE 47: an entry of another term there.
#[test]
fn a_log_that_conflicts_with_a_snapshot_goes_whole_also_behind_it() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    let entries: Vec<_> = (1..=9).map(|index| entry(1, index, "lost")).collect();
    cluster.handle(2, 1, append(1, Position::default(), 2, entries));
    cluster.node_mut(2).holds_writes = true;
    cluster.handle(2, 1, append(1, Position::new(1, 9), 2, vec![entry(1, 10, "lost as well")]));
    cluster.node_mut(2).holds_snapshots = true;
    cluster.handle(2, 3, offer(2, Position::new(2, 5)));
    assert_eq!(wants_snapshot(&cluster, 2), Some(id(3)));
    let at = Position::new(2, 5);
    let held = (1..=5).map(|index| entry(if index > 2 { 2 } else { 1 }, index, "b")).collect();
    let known = snapshot(&cluster, at);
    cluster.node_mut(2).disk.snapshot = Some((known.clone(), held));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    let status = cluster.status(2);
    assert_eq!((status.last, status.compacted, status.committed.0), (at, at, 5));
    assert_eq!(cluster.commands(2), ["b"; 5]);
    // The write of what is gone vouches for nothing, and the next entry follows on the snapshot.
    cluster.sync_all(2);
    assert_eq!(cluster.status(2).durable, LogIndex(5));
    cluster.handle(2, 3, append(2, at, 5, vec![entry(2, 6, "c")]));
    cluster.sync_all(2);
    assert_eq!(cluster.node(2).disk.durable.last(), Position::new(2, 6));
    cluster.restart(2);
    let status = cluster.status(2);
    assert_eq!(
        (status.last, status.applied, status.committed),
        (Position::new(2, 6), LogIndex(5), LogIndex(5))
    );
}

/// A stop between the two: the snapshot is visible, and the log is not reset. RAFT-CASES 49, 62: applied > last.
#[test]
fn a_start_that_finds_a_snapshot_ahead_of_its_log_goes_on_behind_it() {
    let mut cluster = behind();
    cluster.heal();
    cluster.node_mut(3).holds_writes = true;
    cluster.run(ms(300));
    assert!(cluster.node(3).disk.pending() > 0 && cluster.installed == 1);
    assert_eq!(cluster.node(3).disk.durable.base, Position::default());
    cluster.crash(3);
    cluster.node_mut(3).holds_writes = false;
    cluster.start(3);
    let status = cluster.status(3);
    assert_eq!((status.last, status.applied.0), (Position::new(1, 9), 9));
    cluster.run(ms(300));
    assert_eq!(cluster.commands(3), cluster.commands(1));
}

/// RAFT-CASES 44, 50
#[test]
fn the_configuration_of_an_installed_snapshot_takes_the_place_of_the_others() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    let all = cluster.status(2).configuration;
    let two = Configuration { members: all.members[..2].to_vec() };
    let place = Position::new(2, 4);
    let known = Snapshot { at: Position::new(2, 5), configuration: (place, two.clone()) };
    cluster.node_mut(2).disk.snapshot = Some((known.clone(), Vec::new()));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    assert_eq!(cluster.status(2).configuration, two);
    assert_eq!(cluster.node(2).disk.durable.state.configurations, [(place, two.clone())]);
    assert_eq!(cluster.status(2).term, Term(2), "a term that it has seen now");
    let raft = cluster.node(2).raft.as_ref().unwrap();
    assert_eq!(raft.configuration_at(LogIndex(5)), Some(&(place, two.clone())));
    assert_eq!(raft.configuration_at(LogIndex(3)), None);
    cluster.restart(2);
    assert_eq!(cluster.status(2).configuration, two);
}

/// Starts node 2 on a state that names a configuration of an entry that its log does not hold. Returns the one in force.
fn name_one_that_was_cut_off(cluster: &mut Cluster) -> Configuration {
    let all = cluster.status(2).configuration;
    let two = Configuration { members: all.members[..2].to_vec() };
    cluster.crash(2);
    let configurations = &mut cluster.node_mut(2).disk.durable.state.configurations;
    configurations.push((Position::new(1, 7), two));
    cluster.start(2);
    all
}

/// RAFT-CASES 44, 50: a state is not written anew where a suffix is cut off, so it still names what was in that.
#[test]
fn a_configuration_that_was_cut_off_is_in_no_snapshot() {
    let mut cluster = Cluster::new(3);
    let all = name_one_that_was_cut_off(&mut cluster);
    assert_eq!(cluster.status(2).configuration, all);
    let raft = cluster.node(2).raft.as_ref().unwrap();
    assert_eq!(raft.configuration_at(LogIndex(9)), Some(&(Position::default(), all)));
}

/// RAFT-CASES 44, 50. Found by a reader: the log had held nothing else at that index, and then it held nothing there at all.
#[test]
fn a_configuration_that_was_cut_off_is_none_either_once_its_place_left_the_log() {
    let mut cluster = Cluster::with(3, 0, |config| config.trailing_entries = 0);
    cluster.checker.forged = true;
    let all = name_one_that_was_cut_off(&mut cluster);
    let entries = (1..=9).map(|index| entry(2, index, "a")).collect();
    cluster.handle(2, 1, append(2, Position::default(), 9, entries));
    cluster.take_snapshot(2);
    assert_eq!(cluster.status(2).compacted, Position::new(2, 9));
    let known = (Position::default(), all.clone());
    let (snapshot, _) = cluster.node(2).disk.snapshot.clone().unwrap();
    assert_eq!(snapshot.configuration, known);
    for _ in 0..2 {
        assert_eq!(cluster.status(2).configuration, all);
        let raft = cluster.node(2).raft.as_ref().unwrap();
        assert_eq!(raft.configuration_at(LogIndex(9)), Some(&known));
        cluster.restart(2);
    }
}

/// A leader of a term that is over can still be getting one of a later term.
#[test]
fn who_leads_without_what_a_snapshot_contains_leads_no_more() {
    let mut cluster = led(0);
    cluster.isolate(&[1]);
    cluster.propose(1, "in vain").unwrap();
    for at in [Position::new(1, 3), Position::new(4, 6)] {
        let known = snapshot(&cluster, at);
        cluster.node_mut(1).disk.snapshot = Some((known.clone(), Vec::new()));
        cluster.input(1, |raft, now| raft.handle_snapshot(now, known));
        assert_eq!((cluster.role(1), cluster.status(1).last), (Role::Follower, at));
    }
    assert_eq!(cluster.status(1).term, Term(4));
}

#[test]
fn a_snapshot_that_contradicts_what_is_committed_stops_the_node() {
    let mut cluster = led(0);
    propose(&mut cluster, 0..3);
    cluster.run(ms(100));
    let at = Position::new(2, 3);
    let wrong = snapshot(&cluster, at);
    cluster.input(2, |raft, now| raft.handle_snapshot(now, wrong));
    let (index, ours, theirs) = (at.index, Term(1), at.term);
    assert_eq!(cluster.halted(2), Some(HaltReason::SnapshotContradicts { index, ours, theirs }));
    cluster.handle(3, 1, offer(1, Position { term: Term(0), ..at }));
    let contradicted = cluster.halted(3);
    assert!(
        matches!(contradicted, Some(HaltReason::CommittedOverwritten { .. })),
        "{contradicted:?}"
    );
}

#[test]
fn a_broken_snapshot_is_not_valid() {
    let cluster = Cluster::new(3);
    let good = snapshot(&cluster, Position::new(2, 5));
    assert_eq!(good.validate(), Ok(()));
    let broken = |change: &dyn Fn(&mut Snapshot)| {
        let mut snapshot = good.clone();
        change(&mut snapshot);
        snapshot.validate().unwrap_err().0
    };
    assert!(broken(&|snapshot| snapshot.at = Position::default()).contains("no entry"));
    assert!(broken(&|snapshot| snapshot.configuration.0.index.0 = 6).contains("lies behind"));
    assert!(broken(&|snapshot| snapshot.configuration.0.term.0 = 3).contains("lies behind"));
    assert!(broken(&|snapshot| snapshot.configuration.1.members.swap(0, 1)).contains("not valid"));
}

/// What was handed to the state machine before comes first.
#[test]
fn a_snapshot_is_taken_in_behind_the_entries_before_it() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    let entries: Vec<_> = (1..=3).map(|index| entry(1, index, "a")).collect();
    cluster.node_mut(2).holds_applies = true;
    cluster.handle(2, 1, append(1, Position::default(), 3, entries));
    let at = Position::new(1, 7);
    let known = snapshot(&cluster, at);
    cluster.node_mut(2).disk.snapshot = Some((known.clone(), vec![entry(1, 7, "all")]));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    assert_eq!(
        cluster.status(2).applied,
        LogIndex(0),
        "nothing is said to be applied before it is"
    );
    for applied in [2, 3, 7] {
        cluster.input(2, |raft, now| raft.handle_applied(now, LogIndex(applied)));
        assert_eq!(cluster.status(2).applied, LogIndex(applied));
    }
    let resets = cluster.events(2).into_iter().filter(|event| matches!(event, Output::Halt { .. }));
    assert_eq!(resets.count(), 0);
}

/// Found by a simulated world: the entry before the first that was fetched had gone.
#[test]
fn entries_that_were_fetched_while_they_left_the_log_are_not_sent() {
    let mut cluster = Cluster::with(3, 0, |config| {
        config.trailing_entries = 0;
        config.tail_bytes_max = 1;
    });
    cluster.elect(1);
    cluster.isolate(&[3]);
    cluster.node_mut(1).holds_fetches = true;
    propose(&mut cluster, 0..1);
    cluster.heal();
    cluster.run(ms(300));
    assert_eq!(cluster.node(1).fetches.front().map(|fetch| fetch.first), Some(LogIndex(2)));
    let fetch = cluster.node_mut(1).fetches.pop_front().unwrap();
    let entries = cluster.node(1).disk.cached.range(fetch.first, fetch.end);
    cluster.take_snapshot(1);
    assert_eq!(cluster.status(1).compacted.index, fetch.first);
    cluster.input(1, |raft, now| raft.handle_fetched(now, fetch.id, Ok(entries)));
    cluster.run(ms(300));
    assert_eq!((cluster.commands(3), cluster.installed), (cluster.commands(1), 1));
}

/// What the state machine reads itself must not go while it does.
#[test]
fn a_log_that_is_read_begins_anew_only_when_it_is_read_no_more() {
    let mut cluster = Cluster::with(3, 0, |config| config.tail_bytes_max = 1);
    cluster.checker.forged = true;
    let entries: Vec<_> = (1..=6).map(|index| entry(1, index, "a")).collect();
    cluster.handle(2, 1, append(1, Position::default(), 0, entries));
    cluster.restart(2);
    cluster.node_mut(2).holds_applies = true;
    cluster.node_mut(2).holds_snapshots = true;
    cluster.handle(2, 1, append(1, Position::new(1, 6), 4, vec![]));
    assert_eq!((cluster.committed(2), cluster.status(2).applied.0), (4, 0));
    cluster.handle(2, 1, offer(1, Position::new(1, 9)));
    let held = (1..=9).map(|index| entry(1, index, "a")).collect();
    let known = snapshot(&cluster, Position::new(1, 9));
    cluster.node_mut(2).disk.snapshot = Some((known.clone(), held));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    assert_eq!((cluster.installed, cluster.status(2).last.index.0), (0, 6));
    cluster.input(2, |raft, now| raft.handle_applied(now, LogIndex(3)));
    assert_eq!(cluster.installed, 0);
    cluster.input(2, |raft, now| raft.handle_applied(now, LogIndex(4)));
    assert_eq!((cluster.installed, cluster.status(2).last.index.0), (1, 9));
    assert_eq!(cluster.commands(2).len(), 9);
}

/// One that ends before the offer, and came to be of no use: the next offer is asked for again.
#[test]
fn an_older_snapshot_than_the_one_that_is_offered_leaves_the_offer_open() {
    let mut cluster = Cluster::new(3);
    cluster.checker.forged = true;
    cluster.node_mut(2).holds_snapshots = true;
    cluster.handle(2, 1, offer(1, Position::new(1, 9)));
    assert_eq!(cluster.node_mut(2).wanted.take(), Some(id(1)));
    let entries: Vec<_> = (1..=6).map(|index| entry(1, index, "a")).collect();
    cluster.handle(2, 1, append(1, Position::default(), 0, entries));
    let known = snapshot(&cluster, Position::new(1, 5));
    cluster.node_mut(2).disk.snapshot = Some((known.clone(), Vec::new()));
    cluster.input(2, |raft, now| raft.handle_snapshot(now, known));
    cluster.handle(2, 1, offer(1, Position::new(1, 9)));
    assert_eq!(wants_snapshot(&cluster, 2), Some(id(1)));
}
