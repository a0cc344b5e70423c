//! Snapshots: taken as the log grows or when somebody asks, and sent to who needs what the log has lost; a start goes on from
//! the newest.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use bytes::Bytes;
use kontiki::{Event, Node, Options, Position, Role, SnapshotError, StartError, save_snapshot};

use crate::harness::{Cluster, Tally, await_event, await_status, outcomes, ready};

/// A snapshot for every few commands, and hardly anything left in the log behind it.
pub(crate) fn often(options: &mut Options) {
    options.snapshot_log_bytes_min = 2 << 10;
    options.snapshot_ratio = 0;
    options.trailing_entries = 2;
}

pub(crate) fn propose(cluster: &Cluster, range: std::ops::Range<u32>) {
    for number in range {
        let command = Bytes::from(vec![u8::try_from(number % 251).unwrap(); 200]);
        cluster.nodes[&cluster.leader()].propose(command).wait().unwrap();
    }
}

pub(crate) fn snapshot(cluster: &Cluster, id: u64) -> Position {
    cluster.nodes[&id].snapshot().wait().unwrap()
}

/// The file of an image of a node.
pub(crate) fn image(cluster: &Cluster, id: u64, at: Position) -> PathBuf {
    let name = format!("{:016x}-{:016x}.image", at.index, at.term);
    cluster.data(id).join("snapshots").join(name)
}

pub(crate) fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, &bytes).unwrap();
}

#[test]
fn snapshots_are_taken_as_the_log_grows_and_a_start_goes_on_from_the_newest() {
    let mut cluster = Cluster::start_with(1, often);
    let mut events = cluster.nodes[&1].events();
    propose(&cluster, 0..100);
    let told = await_event(&mut events, |event| match event {
        Event::SnapshotVisible { position, bytes } => Some((*position, *bytes)),
        _ => None,
    });
    assert!(told.0.index > 5 && told.1 > 1000, "{told:?}");
    await_status(&cluster.nodes[&1], |status| status.snapshot.index > 60);
    await_status(&cluster.nodes[&1], |status| status.log_first > 50);
    let before = cluster.agreed();
    cluster.stop_node(1);
    let node = cluster.start_node(1);
    ready(node);
    // The log alone would not do.
    let status = node.status();
    assert!(status.log_first > 50 && status.snapshot.index + 1 >= status.log_first, "{status:?}");
    assert_eq!(cluster.agreed(), before);
    propose(&cluster, 100..110);
    assert_eq!(cluster.agreed().len(), 110);
}

/// The worker that writes keeps nobody waiting, however long it takes.
#[test]
fn commands_are_applied_and_the_leader_stays_while_a_snapshot_is_written() {
    let cluster = Cluster::start_with(3, |options| options.snapshot_log_bytes_min = u64::MAX);
    let leader = cluster.leader();
    cluster.nodes[&leader].propose("hold up images").wait().unwrap();
    let asked = cluster.nodes[&leader].snapshot();
    cluster.gate.await_reached(1);
    let term = cluster.nodes[&leader].status().term;
    let until = Instant::now() + 2 * cluster.options.election_timeout_max;
    while Instant::now() < until {
        propose(&cluster, 0..5);
    }
    let status = cluster.nodes[&leader].status();
    assert_eq!((status.role, status.term, status.snapshot.index), (Role::Leader, term, 0));
    cluster.gate.open();
    assert!(asked.wait().unwrap().index < status.applied);
}

#[test]
fn a_snapshot_is_taken_when_somebody_asks() {
    let mut cluster = Cluster::start(1);
    propose(&cluster, 0..10);
    let position = snapshot(&cluster, 1);
    assert_eq!(position.index, cluster.nodes[&1].status().applied);
    assert_eq!(snapshot(&cluster, 1), position, "it has that already");
    let images = fs::read_dir(cluster.data(1).join("snapshots")).unwrap();
    let names = images.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.ends_with(".image")).count(), 1);
    cluster.stop_node(1);
    let node = cluster.start_node(1);
    // There is nothing to apply before the leader's next entry.
    assert_eq!(node.status().applied, position.index);
    ready(node);
    assert_eq!(cluster.nodes[&1].status().snapshot, position);
    assert_eq!(cluster.agreed().len(), 10);
}

/// RAFT-CASE 27: what is left of a node that has lost its log is not a node.
#[test]
fn images_without_the_log_that_they_belong_to_are_refused() {
    let mut cluster = Cluster::start(1);
    propose(&cluster, 0..5);
    snapshot(&cluster, 1);
    cluster.stop_node(1);
    let (log, images) = (cluster.data(1).join("wal"), cluster.data(1).join("snapshots"));
    fs::remove_dir_all(&log).unwrap();
    // Also who is started as a node that has a configuration.
    let of_nobody = || Node::builder(1, cluster.data(1)).listen("127.0.0.1:0");
    for builder in [of_nobody(), cluster.builder(1)] {
        let refused = builder.start(Tally::default()).unwrap_err();
        assert!(refused.to_string().contains("whose log is not there"), "{refused}");
        assert!(!log.exists(), "nothing is begun beside them");
    }
    // What was never finished is no image.
    for image in fs::read_dir(&images).unwrap() {
        fs::remove_file(image.unwrap().path()).unwrap();
    }
    fs::write(images.join("0000000000000001.tmp"), "half").unwrap();
    let refused = of_nobody().start(Tally::default()).unwrap_err();
    assert!(refused.to_string().contains("the data directory is empty"), "{refused}");
}

#[test]
fn a_state_machine_that_gives_no_snapshot_costs_nothing_but_the_log() {
    let cluster = Cluster::start(1);
    let mut events = cluster.nodes[&1].events();
    cluster.nodes[&1].propose("keep no snapshot").wait().unwrap();
    let refused = cluster.nodes[&1].snapshot().wait().unwrap_err();
    assert_eq!(refused, SnapshotError::Failed("told to keep none".into()));
    await_event(&mut events, |event| matches!(event, Event::SnapshotFailed { .. }).then_some(()));
    propose(&cluster, 0..5);
    assert_eq!(cluster.agreed().len(), 6);
}

#[test]
fn a_follower_that_was_away_while_the_others_compacted_catches_up() {
    let mut cluster = Cluster::start_with(3, often);
    let away = cluster.follower();
    cluster.stop_node(away);
    propose(&cluster, 0..100);
    let leader = cluster.leader();
    await_status(&cluster.nodes[&leader], |status| status.log_first > 50);
    let node = cluster.start_node(away);
    let mut events = node.events();
    let visible = await_event(&mut events, |event| match event {
        Event::SnapshotVisible { position, .. } => Some(position.index),
        _ => None,
    });
    assert!(visible > 50, "{visible}");
    ready(&cluster.nodes[&away]);
    propose(&cluster, 100..120);
    assert_eq!(cluster.agreed().len(), 120);
    let status = cluster.nodes[&away].status();
    assert!(status.log_first > 50, "{status:?}");
    // And once more, from what it has on its own disk by now.
    cluster.stop_node(away);
    ready(cluster.start_node(away));
    assert_eq!(cluster.agreed().len(), 120);
}

/// An image of many pieces, under load.
#[test]
fn a_large_image_comes_while_the_others_go_on() {
    let mut cluster = Cluster::start_with(3, |options| {
        options.trailing_entries = 0;
        options.snapshot_piece_bytes = 100_000;
    });
    let away = cluster.follower();
    cluster.stop_node(away);
    let leader = cluster.leader();
    let command = |number: u32| Bytes::from(vec![u8::try_from(number % 251).unwrap(); 100 << 10]);
    for _ in 0..12 {
        let batch = cluster.nodes[&leader].propose_batch((0..1).map(command).collect());
        outcomes(batch).into_iter().for_each(|result| drop(result.unwrap()));
    }
    let proposals: Vec<_> =
        (0..100).map(|number| cluster.nodes[&leader].propose(command(number))).collect();
    proposals.into_iter().for_each(|proposal| drop(proposal.wait().unwrap()));
    snapshot(&cluster, leader);
    await_status(&cluster.nodes[&leader], |status| status.log_first > 100);
    cluster.start_node(away);
    for number in 0..50 {
        cluster.nodes[&leader].propose(command(number)).wait().unwrap();
    }
    ready(&cluster.nodes[&away]);
    assert_eq!(cluster.agreed().len(), 162);
}

#[test]
fn a_leader_whose_image_has_rotted_notices_it_and_takes_another_one() {
    let mut cluster = Cluster::start_with(3, |options| options.trailing_entries = 0);
    let (leader, away) = (cluster.leader(), cluster.follower());
    cluster.stop_node(away);
    propose(&cluster, 0..20);
    let rotten = snapshot(&cluster, leader);
    await_status(&cluster.nodes[&leader], |status| status.log_first == rotten.index + 1);
    flip_a_bit(&image(&cluster, leader, rotten));
    let mut events = cluster.nodes[&leader].events();
    let mut follower = cluster.start_node(away).events();
    let (position, cause) = await_event(&mut events, |event| match event {
        Event::SnapshotDamaged { position, cause } => Some((*position, cause.clone())),
        _ => None,
    });
    assert!(position == rotten && cause.contains("checksum"), "{position:?} {cause}");
    ready(&cluster.nodes[&away]);
    assert_eq!(cluster.agreed().len(), 20);
    cluster.stop_node(away);
    assert!(follower.all(|event| !matches!(event, Event::SnapshotRefused { .. })));
    // The one that took its place is whole.
    cluster.stop_node(leader);
    save_snapshot(cluster.data(leader), cluster.data(0).with_file_name("copy")).unwrap();
}

#[test]
fn a_follower_refuses_an_image_that_it_has_no_use_for_and_asks_again() {
    let mut cluster = Cluster::start_with(3, |options| options.trailing_entries = 0);
    let (leader, away) = (cluster.leader(), cluster.follower());
    cluster.stop_node(away);
    propose(&cluster, 0..20);
    let taken = snapshot(&cluster, leader);
    await_status(&cluster.nodes[&leader], |status| status.log_first == taken.index + 1);
    cluster.options.snapshot_bytes_max = 1000;
    let mut events = cluster.start_node(away).events();
    for _ in 0..2 {
        let cause = await_event(&mut events, |event| match event {
            Event::SnapshotRefused { from, position, cause } => {
                assert_eq!((*from, *position), (leader, taken));
                Some(cause.clone())
            }
            _ => None,
        });
        assert!(cause.contains("1000"), "{cause}");
    }
    cluster.stop_node(away);
    cluster.options.snapshot_bytes_max = u64::MAX;
    ready(cluster.start_node(away));
    assert_eq!(cluster.agreed().len(), 20);
}

/// RAFT-CASE 51
#[test]
fn a_damaged_image_gives_way_to_an_older_one_only_if_the_log_covers_the_gap() {
    let mut cluster = Cluster::start_with(1, |options| options.trailing_entries = 8);
    propose(&cluster, 0..10);
    snapshot(&cluster, 1);
    propose(&cluster, 10..15);
    let newest = snapshot(&cluster, 1);
    await_status(&cluster.nodes[&1], |status| status.log_first > 5);
    let before = cluster.agreed();
    cluster.stop_node(1);
    flip_a_bit(&image(&cluster, 1, newest));
    ready(cluster.start_node(1));
    assert_eq!(cluster.agreed(), before);
    assert!(cluster.nodes[&1].status().snapshot.index < newest.index);
    // The next one takes its place; then the log does not reach back to the older one.
    propose(&cluster, 15..40);
    let newest = snapshot(&cluster, 1);
    await_status(&cluster.nodes[&1], |status| status.log_first > 30);
    cluster.stop_node(1);
    fs::remove_file(image(&cluster, 1, newest)).unwrap();
    let refused = cluster.builder(1).start(Tally::default()).unwrap_err();
    let StartError::Snapshot { reason, .. } = &refused else { panic!("{refused:?}") };
    assert!(reason.contains("the log begins at index") && reason.contains("missing"), "{reason}");
}

#[test]
fn an_image_of_another_cluster_is_refused_by_name() {
    let mut cluster = Cluster::start(1);
    propose(&cluster, 0..3);
    snapshot(&cluster, 1);
    cluster.stop_node(1);
    let from = cluster.data(1).join("snapshots");
    let mut other = Cluster::start(1);
    propose(&other, 0..3);
    other.stop_node(1);
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), other.data(1).join("snapshots").join(entry.file_name())).unwrap();
    }
    let refused = other.builder(1).start(Tally::default()).unwrap_err();
    assert!(refused.to_string().contains("cluster"), "{refused}");
}
