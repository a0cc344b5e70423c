//! Images on their way: over a connection that breaks, and to a disk that is full.

use std::time::{Duration, Instant};

use kontiki::Event;
use kontiki_disk::MemoryDisk;

use crate::{
    harness::{Cluster, await_event, await_status, ready},
    snapshots::{often, propose, snapshot},
};

/// RAFT-CASE 52: what has come is not asked for again.
#[test]
fn a_transfer_goes_on_where_it_broke_off() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.trailing_entries = 0;
        options.snapshot_piece_bytes = 500;
    });
    let away = cluster.follower();
    cluster.stop_node(away);
    propose(&cluster, 0..60);
    let leader = cluster.leader();
    let taken = snapshot(&cluster, leader);
    await_status(&cluster.nodes[&leader], |status| status.log_first == taken.index + 1);
    cluster.muffle.lose_pieces_behind(9);
    cluster.muffle.take_asked();
    cluster.start_node(away);
    let deadline = Instant::now() + Duration::from_secs(30);
    // It asks again, more than once.
    while cluster.muffle.pieces() < 30 {
        assert!(Instant::now() < deadline, "{} pieces", cluster.muffle.pieces());
        std::thread::yield_now();
    }
    await_status(&cluster.nodes[&leader], |status| {
        let mut followers = status.followers.iter();
        let follower = followers.find(|one| one.id == away).expect("it is a member");
        follower.snapshot_bytes > 10_000 && follower.snapshot_bytes_asked >= 9 * 500
    });
    cluster.muffle.take_asked();
    cluster.muffle.lose_pieces_behind(usize::MAX);
    assert_eq!(cluster.agreed().len(), 60);
    let asked = cluster.muffle.take_asked();
    assert!(!asked.is_empty() && asked.iter().all(|offset| *offset >= 9 * 500), "{asked:?}");
}

/// It is told, asked for again, and comes once there is room.
#[test]
fn an_image_that_has_no_room_comes_when_there_is_some() {
    let mut cluster = Cluster::prepare(3);
    often(&mut cluster.options);
    let disk = MemoryDisk::new();
    for id in 1..3 {
        cluster.start_node(id);
    }
    let third = cluster.start_on(&disk, 3);
    cluster.nodes.insert(3, third);
    cluster.await_ready();
    let away = cluster.leader() != 3;
    if !away {
        // Somebody else leads.
        cluster.stop_node(3);
        cluster.leader();
        let third = cluster.start_on(&disk, 3);
        cluster.nodes.insert(3, third);
        ready(&cluster.nodes[&3]);
    }
    cluster.stop_node(3);
    propose(&cluster, 0..100);
    let leader = cluster.leader();
    await_status(&cluster.nodes[&leader], |status| status.log_first > 50);
    disk.set_capacity(Some(0));
    let third = cluster.start_on(&disk, 3);
    let mut events = third.events();
    cluster.nodes.insert(3, third);
    for _ in 0..2 {
        let cause = await_event(&mut events, |event| match event {
            Event::SnapshotRefused { cause, .. } => Some(cause.clone()),
            _ => None,
        });
        assert!(cause.contains("os error 28"), "{cause}");
    }
    disk.set_capacity(None);
    ready(&cluster.nodes[&3]);
    assert_eq!(cluster.agreed().len(), 100);
}
