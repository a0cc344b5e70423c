//! What ends a node, and what it says then.

use std::{cell::Cell, fs, sync::Arc, time::Duration};

use kontiki::{Event, Events, FollowerMode, FollowerStatus, ProposeError, Read, ReadError, Role};
use kontiki_disk::memory::{Fault, Kind, MemoryDisk};

use crate::harness::{
    Cluster, PATIENCE, Tally, await_event, await_fatal, await_status, await_stopped, members,
    outcome, quick, ready,
};

/// RAFT-CASE 29
#[test]
fn an_error_of_the_state_machine_stops_the_node_and_the_index_stays() {
    for command in ["fail", "panic"] {
        let mut cluster = Cluster::start(1);
        let mut events = cluster.nodes[&1].events();
        let before = cluster.nodes[&1].propose("good").wait().unwrap().position;
        let fatal = cluster.nodes[&1].propose(command);
        let behind = cluster.nodes[&1].propose("behind");
        assert!(matches!(fatal.wait(), Err(ProposeError::Fatal(_))));
        let behind = behind.wait().unwrap_err();
        assert!(matches!(behind, ProposeError::Fatal(_)), "{behind:?}");
        assert!(await_fatal(&mut events).contains("told to"));
        await_stopped(&mut events);
        let status = cluster.nodes[&1].status();
        assert_eq!(status.applied, before.index);
        assert_eq!(status.role, Role::Stopped);
        assert!(status.fatal.is_some());
        let read = cluster.nodes[&1].read(Read::Local, Tally::commands).wait();
        assert!(matches!(read, Err(ReadError::Fatal(_))), "{read:?}");

        // The command is committed: after a restart it is applied again, and fails again.
        cluster.stop_node(1);
        let mut events = cluster.start_node(1).events();
        let cause = cluster.nodes[&1].status().fatal;
        let cause = cause.unwrap_or_else(|| await_fatal(&mut events));
        assert!(cause.contains("told to") && cause.contains("each start"), "{cause}");
        assert_eq!(cluster.nodes[&1].status().applied, before.index);
    }
}

/// RAFT-CASE 28
#[test]
fn a_failed_sync_ends_the_node_and_what_was_open_is_not_certainly_lost() {
    let cluster = Cluster::prepare(1);
    let disk = MemoryDisk::new();
    let node = cluster.start_on(&disk, 1);
    ready(&node);
    node.propose("durable").wait().unwrap();
    let mut events = node.events();
    disk.inject(Kind::Sync, 1, Fault::Fail(5));
    let error = node.propose("lost or not").wait().unwrap_err();
    assert!(matches!(error, ProposeError::Fatal(_)), "{error:?}");
    assert!(!error.is_certainly_not_applied());
    await_fatal(&mut events);
    await_stopped(&mut events);
    assert!(matches!(node.propose("later").wait(), Err(ProposeError::Fatal(_))));
    assert!(matches!(node.ready().wait(), Err(ProposeError::Fatal(_))));
    drop(node);

    let node = cluster.start_on(&disk.reopen(), 1);
    ready(&node);
    let commands = node.read(Read::Linearizable, Tally::commands).wait().unwrap();
    assert_eq!(commands[0], "durable");
}

/// RAFT-CASE 13, RAFT-CASE 28
#[test]
fn a_leader_whose_disk_fails_is_replaced() {
    let mut cluster = Cluster::prepare(3);
    let disks: Vec<MemoryDisk> = (1..=3).map(|_| MemoryDisk::new()).collect();
    for (id, disk) in (1..).zip(&disks) {
        let node = cluster.start_on(disk, id);
        cluster.nodes.insert(id, node);
    }
    cluster.await_ready();
    cluster.nodes[&1].propose("before").wait().unwrap();
    let leader = cluster.leader();
    let failed = cluster.nodes.remove(&leader).unwrap();
    let mut events = failed.events();
    disks[usize::try_from(leader).unwrap() - 1].inject(Kind::Sync, 1, Fault::Fail(5));
    drop(failed.propose("during"));
    await_stopped(&mut events);
    assert_ne!(cluster.leader(), leader);
    let survivor = cluster.nodes.values().next().unwrap();
    survivor.propose("after").wait().unwrap();
    let commands: Vec<_> = cluster.agreed().into_iter().map(|(_, command)| command).collect();
    assert_eq!((&commands[0], commands.last()), (&"before".into(), Some(&"after".into())));
}

#[test]
fn a_full_disk_holds_writes_up_and_lets_them_go_on() {
    let mut cluster = Cluster::prepare(1);
    cluster.options = quick();
    cluster.options.segment_bytes = 64 << 10;
    cluster.options.command_bytes_max = 8 << 10;
    cluster.options.disk_stall = Duration::from_secs(60);
    let disk = MemoryDisk::new();
    let node = cluster.start_on(&disk, 1);
    ready(&node);
    let mut events = node.events();
    disk.set_capacity(Some(0));
    let proposals: Vec<_> = (0..64).map(|_| node.propose(vec![7; 4 << 10])).collect();
    let mut left = Vec::new();
    for proposal in proposals {
        match proposal.wait_timeout(Duration::from_millis(50)) {
            Ok(result) => drop(result.unwrap()),
            Err(proposal) => left.push(proposal),
        }
    }
    assert!(!left.is_empty(), "256 KiB do not fit into a segment");
    let cause = await_held(&mut events);
    let place = cluster.data(1).join("wal");
    assert!(cause.contains("the disk is full"), "{cause}");
    assert!(cause.contains(", the file takes 64 KiB; make room there"), "{cause}");
    assert!(cause.contains(place.to_str().unwrap()) && cause.contains("os error 28"), "{cause}");
    assert_eq!(node.status().writes_held, Some(cause));
    disk.set_capacity(None);
    for proposal in left {
        proposal.wait().unwrap();
    }
    // Said once each, whatever number of times the disk was asked.
    assert_eq!(await_resumed(&mut events), 0);
    assert_eq!(node.status().writes_held, None);
    assert_eq!(node.status().members, members(1));
}

/// Nothing is lost, and it goes on by itself; but nobody shall look for space.
#[test]
fn a_directory_that_is_gone_holds_writes_up_and_is_not_called_a_full_disk() {
    let mut cluster = Cluster::prepare(1);
    cluster.options.segment_bytes = 64 << 10;
    cluster.options.command_bytes_max = 8 << 10;
    cluster.options.disk_stall = Duration::from_secs(60);
    let node = cluster.start_node(1).clone();
    ready(&node);
    let mut events = node.events();
    let (place, aside) = (cluster.data(1).join("wal"), cluster.data(1).join("aside"));
    fs::rename(&place, &aside).unwrap();
    let proposals: Vec<_> = (0..64).map(|_| node.propose(vec![7; 4 << 10])).collect();
    let cause = await_held(&mut events);
    assert!(!cause.contains("full") && cause.contains("os error 2"), "{cause}");
    assert!(cause.contains(place.to_str().unwrap()), "{cause}");
    fs::rename(&aside, &place).unwrap();
    for proposal in proposals {
        outcome(proposal).unwrap();
    }
    assert_eq!(await_resumed(&mut events), 0);
}

fn await_held(events: &mut Events) -> Arc<str> {
    await_event(events, |event| match event {
        Event::WritesHeld { cause } => Some(cause.clone()),
        _ => None,
    })
}

/// How often it was said meanwhile that writes are held.
fn await_resumed(events: &mut Events) -> usize {
    let said = Cell::new(0);
    await_event(events, |event| match event {
        Event::WritesHeld { .. } => {
            said.set(said.get() + 1);
            None
        }
        Event::WritesResumed => Some(()),
        _ => None,
    });
    said.get()
}

#[test]
fn a_log_that_takes_no_more_gets_the_rest_later_and_in_order() {
    let mut cluster = Cluster::prepare(1);
    cluster.options.unsynced_bytes_max = 64 << 10;
    cluster.options.disk_stall = Duration::from_secs(60);
    let disk = MemoryDisk::new();
    let node = cluster.start_on(&disk, 1);
    ready(&node);
    let gate = disk.hold(Kind::Sync, 1);
    let mut proposals = vec![node.propose("0")];
    gate.wait_reached();
    // More than fits, in as many turns as the driver makes of it.
    for number in 1..100 {
        let mut command = number.to_string().into_bytes();
        command.resize(4 << 10, b' ');
        proposals.push(node.propose(command));
    }
    drop(gate);
    let mut last = 0;
    for proposal in proposals {
        let applied = proposal.wait_timeout(PATIENCE).expect("in time").unwrap();
        assert!(applied.position.index > last);
        last = applied.position.index;
    }
    let commands = node.read(Read::Linearizable, Tally::commands).wait().unwrap();
    let numbers: Vec<usize> = commands
        .iter()
        .map(|command| std::str::from_utf8(command).unwrap().trim().parse().unwrap())
        .collect();
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[test]
fn a_follower_that_gets_nothing_is_named_until_it_gets_on_again() {
    let mut cluster =
        Cluster::start_with(3, |options| options.follower_stall = Duration::from_millis(300));
    let (leader, away) = (cluster.leader(), cluster.follower());
    let mut events = cluster.nodes[&leader].events();
    cluster.stop_node(away);
    cluster.nodes[&leader].propose("missed").wait().unwrap();
    // It can have been stopped before it had, or vouched for, the leadership's first entry.
    let stood = await_event(&mut events, |event| match event {
        Event::FollowerStalled { peer, matched, lag } if *peer == away => Some((*matched, *lag)),
        _ => None,
    });
    let last = cluster.nodes[&leader].status().last.index;
    assert!(stood.0 < last && stood.0 + stood.1 == last, "{stood:?} of {last}");
    let seen = cluster.nodes[&leader].status().followers;
    let stalled = |seen: &[FollowerStatus]| {
        seen.iter().filter(|one| one.is_stalled).map(|one| one.id).collect::<Vec<_>>()
    };
    assert!(seen.len() == 2 && stalled(&seen).contains(&away), "{seen:?}");
    cluster.start_node(away);
    await_event(&mut events, |event| {
        (*event == Event::FollowerResumed { peer: away }).then_some(())
    });
    await_status(&cluster.nodes[&leader], |status| {
        let settled = |one: &FollowerStatus| one.mode == FollowerMode::Replicate && one.lag == 0;
        status.followers.iter().all(settled) && stalled(&status.followers).is_empty()
    });
    let follower = cluster.follower();
    assert_eq!(cluster.nodes[&follower].status().followers, []);
}
