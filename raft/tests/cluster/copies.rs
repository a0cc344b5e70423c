//! Snapshots that are copied to a file and given to another node of the cluster from there.

use std::{fs, path::Path};

use kontiki::{Event, SnapshotCopyError, StartError, load_snapshot, save_snapshot};

use crate::{
    harness::{Cluster, Tally, await_status, ready},
    snapshots::{flip_a_bit, image, often, propose, snapshot},
};

/// What is there, by name and content.
fn contents(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = files.filter(|entry| entry.path().is_file());
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut files: Vec<_> =
        files.map(|entry| (name(&entry), fs::read(entry.path()).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn what_a_running_node_has_taken_is_copied_and_another_one_starts_from_it() {
    let mut cluster = Cluster::start_with(3, often);
    let away = cluster.follower();
    cluster.stop_node(away);
    propose(&cluster, 0..100);
    let leader = cluster.leader();
    snapshot(&cluster, leader);
    await_status(&cluster.nodes[&leader], |status| status.log_first > 50);
    let file = cluster.data(0).with_file_name("copy");
    let saved = save_snapshot(cluster.data(leader), &file).unwrap();
    assert_eq!(saved.cluster, cluster.nodes[&leader].status().cluster);
    assert!(saved.position.index > 50 && saved.bytes == fs::metadata(&file).unwrap().len());
    let loaded = load_snapshot(away, cluster.data(away), &file).unwrap();
    assert_eq!(loaded, saved);
    let node = cluster.start_node(away);
    let mut events = node.events();
    await_status(node, |status| status.snapshot >= saved.position);
    ready(&cluster.nodes[&away]);
    propose(&cluster, 100..102);
    assert_eq!(cluster.agreed().len(), 102);
    cluster.stop_node(away);
    assert!(events.all(|event| !matches!(event, Event::SnapshotNeeded { .. })));
}

#[test]
fn what_cannot_be_copied_or_taken_is_refused_and_changes_nothing() {
    let mut cluster = Cluster::start_with(1, |options| options.snapshot_log_bytes_min = u64::MAX);
    let (data, file) = (cluster.data(1), cluster.data(0).with_file_name("copy"));
    let none = save_snapshot(&data, &file).unwrap_err();
    assert!(matches!(none, SnapshotCopyError::NoSnapshot { .. }), "{none}");
    propose(&cluster, 0..10);
    snapshot(&cluster, 1);
    save_snapshot(&data, &file).unwrap();
    let twice = save_snapshot(&data, &file).unwrap_err();
    assert!(matches!(&twice, SnapshotCopyError::File { .. }), "{twice}");
    let running = load_snapshot(1, &data, &file).unwrap_err();
    assert!(matches!(running, SnapshotCopyError::Start(StartError::Locked { .. })), "{running}");
    cluster.stop_node(1);
    let before = contents(&data.join("snapshots"));
    let refused = |file: &Path, words: &str| {
        let error = load_snapshot(1, &data, file).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert_eq!(contents(&data.join("snapshots")), before, "{words}");
    };
    refused(&file, "already");
    let whole = fs::read(&file).unwrap();
    let broken = file.with_file_name("broken");
    fs::write(&broken, &whole[..whole.len() - 1]).unwrap();
    refused(&broken, "corruption");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    fs::write(&broken, &flipped).unwrap();
    refused(&broken, "corruption");
    // Of a format that this release does not know.
    let mut newer = whole.clone();
    newer[4] = 2;
    fs::write(&broken, &newer).unwrap();
    refused(&broken, "has version 2");
    refused(&file.with_file_name("missing"), "cannot be used");
    let other = Cluster::start(1);
    propose(&other, 0..30);
    snapshot(&other, 1);
    let foreign = file.with_file_name("foreign");
    save_snapshot(other.data(1), &foreign).unwrap();
    refused(&foreign, "cluster");
    let nobody = file.with_file_name("nobody");
    let error = load_snapshot(1, &nobody, &file).unwrap_err();
    assert!(error.to_string().contains("no node has ever been started"), "{error}");
    assert!(!nobody.exists());
    ready(cluster.start_node(1));
    assert_eq!(cluster.agreed().len(), 10);
}

#[test]
fn a_node_whose_only_snapshot_has_rotted_starts_again_from_a_copy() {
    let mut cluster = Cluster::start_with(1, |options| {
        options.snapshot_log_bytes_min = u64::MAX;
        options.trailing_entries = 0;
    });
    let (data, file) = (cluster.data(1), cluster.data(0).with_file_name("copy"));
    propose(&cluster, 0..5);
    let earlier = snapshot(&cluster, 1);
    let early = file.with_file_name("early");
    save_snapshot(&data, &early).unwrap();
    propose(&cluster, 5..10);
    let position = snapshot(&cluster, 1);
    await_status(&cluster.nodes[&1], |status| status.log_first == position.index + 1);
    propose(&cluster, 10..12);
    save_snapshot(&data, &file).unwrap();
    cluster.stop_node(1);
    flip_a_bit(&image(&cluster, 1, position));
    fs::remove_file(image(&cluster, 1, earlier)).unwrap();
    let refused = cluster.builder(1).start(Tally::default()).unwrap_err();
    assert!(matches!(refused, StartError::Snapshot { .. }), "{refused}");
    let rotten = save_snapshot(&data, file.with_file_name("rotten")).unwrap_err();
    assert!(matches!(rotten, SnapshotCopyError::Refused { .. }), "{rotten}");
    assert!(!file.with_file_name("rotten").exists());
    let older = load_snapshot(1, &data, &early).unwrap_err();
    assert!(older.to_string().contains("its log begins at index"), "{older}");
    load_snapshot(1, &data, &file).unwrap();
    ready(cluster.start_node(1));
    assert_eq!(cluster.agreed().len(), 12);
}
