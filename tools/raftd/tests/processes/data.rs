//! Data directories that are not what they should be: refused or kept out, nothing lost.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use bytes::Bytes;
use kontiki::{ApplyContext, SnapshotWriter, StateMachine};
use redis::{Connection, Value};

use crate::{
    ports::free_addresses,
    support::{Cluster, Node, Process, assert_refused, poll, query, serve_arguments},
    turns::turn,
};

#[test]
fn a_directory_in_use_or_of_another_node_is_exit_code_4() {
    let mut cluster = Cluster::start(1);
    let data = cluster.nodes[0].data.clone();
    query::<Value>(&mut cluster.nodes[0].connect(), &["SET", "key", "kept"]).unwrap();
    let holder = format!("in use by process {}; stop it first", cluster.nodes[0].process.id());
    let line = start_refused("1", &data, &holder);
    assert_eq!(line.matches(data.to_str().unwrap()).count(), 1, "{line}");
    cluster.nodes[0].process.kill();
    start_refused("2", &data, "belongs to node 1, not to 2");

    let file = cluster.directory.path().join("file");
    fs::write(&file, "no directory").unwrap();
    let line = start_refused("1", &file, "; check the path and its owner");
    assert_eq!(line.matches(file.to_str().unwrap()).count(), 1, "{line}");
    assert_still_kept(&mut cluster);
}

#[test]
fn a_newer_format_or_a_damaged_log_is_exit_code_4_and_changes_no_file() {
    let mut cluster = Cluster::start(1);
    let data = cluster.nodes[0].data.clone();
    query::<Value>(&mut cluster.nodes[0].connect(), &["SET", "key", "kept"]).unwrap();
    cluster.nodes[0].process.kill();
    let segment = data.join("wal/0000000000000001.wal");
    let whole = fs::read(&segment).unwrap();
    let file = OpenOptions::new().write(true).open(&segment).unwrap();

    // The header page: the format at 8, the checksum at its end; see wal/FORMAT.md.
    let mut newer = whole[..4096].to_vec();
    newer[8..12].copy_from_slice(&2_u32.to_le_bytes());
    let checksum = crc32fast::hash(&newer[..4092]);
    newer[4092..].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&newer, 0).unwrap();
    start_refused("1", &data, "has format 2, this version reads 1: use a newer raftd");
    assert_eq!(fs::read(&segment).unwrap()[..4096], newer);

    let mut damaged = whole[..4096].to_vec();
    damaged[100] ^= 1;
    file.write_all_at(&damaged, 0).unwrap();
    let line = start_refused("1", &data, "0000000000000001.wal");
    let command = format!("`wal-inspect repair {}`", data.join("wal").display());
    assert!(line.contains(&command) && line.contains("no other node has"), "{line}");
    assert_eq!(fs::read(&segment).unwrap()[..4096], damaged);

    file.write_all_at(&whole, 0).unwrap();
    assert_still_kept(&mut cluster);
}

/// Nothing in the frames of such a log tells that it once had more.
#[test]
fn a_log_that_a_repair_took_something_from_is_exit_code_4_until_its_mark_is_removed() {
    let mut cluster = Cluster::start(1);
    let data = cluster.nodes[0].data.clone();
    query::<Value>(&mut cluster.nodes[0].connect(), &["SET", "key", "kept"]).unwrap();
    cluster.nodes[0].process.kill();
    // As wal/FORMAT.md has it.
    let mark = data.join("wal/REPAIR");
    fs::write(&mark, "Kontiki repair: done\n- log 1: index 3..=9 term 1 lost\n").unwrap();
    let line = start_refused("1", &data, "had acknowledged (log 1: index 3..=9 term 1 lost): ");
    assert!(line.contains(&format!("remove {} at your own risk", mark.display())), "{line}");
    fs::write(&mark, "Kontiki repair: cutting\n").unwrap();
    let line = start_refused("1", &data, "was begun and not finished: do it again with ");
    assert!(line.contains("--truncate-tail --yes"), "{line}");
    fs::remove_file(&mark).unwrap();
    assert_still_kept(&mut cluster);
}

/// Opening reads what a power cut can have torn, and the rest is read to be applied.
#[test]
fn damage_that_is_met_while_the_log_is_applied_is_exit_code_4_too() {
    let mut cluster = Cluster::start(1);
    fill_first_segment(&mut cluster.nodes[0].connect());
    cluster.nodes[0].process.kill();
    let data = cluster.nodes[0].data.clone();
    damage_first_segment(&data);
    cluster.nodes[0].restart();
    let ended = cluster.nodes[0].process.wait_end();
    assert_eq!(ended.status.code(), Some(4));
    let line = ended.stderr.last().unwrap();
    let command = format!("`wal-inspect repair {}`", data.join("wal").display());
    assert!(line.contains(&command) && line.contains("Keep the directory"), "{line}");
    let index = line.split_once("cannot read index ").unwrap().1.split(' ').next().unwrap();
    assert!(line.contains(&format!("indexes {index} to {index}")), "{line}");
}

#[test]
fn a_missing_segment_is_exit_code_4_and_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = kontiki::Options::default();
    (options.segment_bytes, options.command_bytes_max) = (64 << 10, 8 << 10);
    let node = kontiki::Node::builder(1, directory.path())
        .initial_members([(1, free_addresses(1)[0].as_str())])
        .options(options)
        .start(Newer)
        .unwrap();
    while node.status().log_segments < 3 {
        node.propose(vec![0; 8 << 10]).wait().unwrap();
    }
    node.shutdown().wait();
    fs::remove_file(directory.path().join("wal/0000000000000001.wal")).unwrap();
    let line = start_refused("1", directory.path(), "0000000000000001.wal is missing");
    let place = directory.path().join("wal");
    assert!(line.contains(&format!("put it back into {}", place.display())), "{line}");
}

/// Skipping what others apply would be worse than stopping.
#[test]
fn a_command_of_a_newer_raftd_ends_the_node_with_exit_code_1() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let free = free_addresses(2);
    let newer = kontiki::Node::builder(1, directory.path())
        .initial_members([(1, free[0].as_str())])
        .start(Newer)
        .unwrap();
    newer.ready().wait().unwrap();
    newer.propose(&b"\x02 as a later version writes it"[..]).wait().unwrap();
    newer.shutdown().wait();

    let peers = format!("1={}", free[0]);
    let arguments = serve_arguments("1", directory.path(), &peers, &free[1]);
    let ended = Process::start("raftd", &arguments).wait_end();
    assert_eq!(ended.status.code(), Some(1));
    let line = ended.stderr.last().unwrap();
    assert!(line.contains("command format 2") && line.contains("upgrade raftd"), "{line}");
}

#[test]
fn a_directory_of_another_cluster_is_exit_code_4_and_serves_nobody() {
    let stranger = {
        let mut other = Cluster::start(1);
        query::<Value>(&mut other.nodes[0].connect(), &["SET", "key", "other"]).unwrap();
        other.nodes[0].process.kill();
        other
    };
    let (data, kept) = (stranger.nodes[0].data.clone(), stranger.keep());
    let mut cluster = Cluster::start(3);
    query::<Value>(&mut cluster.nodes[1].connect(), &["SET", "key", "kept"]).unwrap();
    let own = std::mem::replace(&mut cluster.nodes[0].data, data);
    cluster.nodes[0].process.kill();
    cluster.nodes[0].restart();
    let ended = cluster.nodes[0].process.wait_end();
    assert_eq!(ended.status.code(), Some(4));
    let line = ended.stderr.last().unwrap();
    assert!(line.contains("belongs to the cluster 1=") && line.contains("check --data"), "{line}");
    let value: String = query(&mut cluster.nodes[1].connect(), &["GET", "key"]).unwrap();
    assert_eq!(value, "kept");
    cluster.nodes[0].data = own;
    cluster.nodes[0].restart();
    cluster.nodes[0].wait_ready();
    cluster.assert_same_state();
    drop(kept);
}

#[test]
fn a_node_that_lost_its_disk_does_not_vote_and_says_what_to_do() {
    let mut cluster = Cluster::start(3);
    query::<Value>(&mut cluster.nodes[1].connect(), &["SET", "key", "kept"]).unwrap();
    let node = &mut cluster.nodes[0];
    node.process.kill();
    let aside = node.data.with_extension("aside");
    fs::rename(&node.data, &aside).unwrap();
    node.restart();
    node.process.wait_for_log("not admitted");
    // The log comes first.
    poll("the role", || (node.info("raft_role") == "not-admitted").then_some(()));
    let address = format!("127.0.0.1:{}", node.client_port);
    let status = Process::start("raftd", &["status", &address]).wait_end();
    assert_refused(status, 1, &format!("{address} is not admitted"));
    for request in [&["SET", "key", "lost"][..], &["GET", "key"]] {
        let error = query::<Value>(&mut node.connect(), request).unwrap_err().to_string();
        assert!(
            error.contains("this node is not admitted") && error.contains("not applied"),
            "{error}"
        );
    }
    assert_eq!(node.process.count_in_log("not ready yet"), 0, "nobody asks again and again");
    let value: String = query(&mut cluster.nodes[1].connect(), &["GET", "key"]).unwrap();
    assert_eq!(value, "kept");

    let node = &mut cluster.nodes[0];
    node.process.kill();
    fs::remove_dir_all(&node.data).unwrap();
    fs::rename(&aside, &node.data).unwrap();
    node.restart();
    node.wait_ready();
    cluster.assert_same_state();
}

/// Starts a node on free ports; it must end with exit code 4 and one line that says `expected`.
fn start_refused(id: &str, data: &Path, expected: &str) -> String {
    let free = free_addresses(2);
    let peers = format!("{id}={}", free[0]);
    let arguments = serve_arguments(id, data, &peers, &free[1]);
    assert_refused(Process::start("raftd", &arguments).wait_end(), 4, expected)
}

fn assert_still_kept(cluster: &mut Cluster) {
    let node: &mut Node = &mut cluster.nodes[0];
    node.restart();
    node.wait_ready();
    let kept: String = query(&mut node.connect(), &["GET", "key"]).unwrap();
    assert_eq!(kept, "kept");
}

/// Stands for a later version: it takes whatever comes.
struct Newer;

impl StateMachine for Newer {
    fn apply(&mut self, _context: &ApplyContext, _command: &[u8]) -> io::Result<Bytes> {
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn restore(&mut self, _image: &mut dyn Read) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Writes more than the first segment of a log takes, which are 4 MiB.
pub(crate) fn fill_first_segment(client: &mut Connection) {
    let value = [LOST, &"v".repeat(1 << 20)].concat();
    for key in 0..6 {
        query::<Value>(client, &["SET", &key.to_string(), &value]).unwrap();
    }
}

/// Flips a bit of the second value in the first segment of a node's log, which is closed.
pub(crate) fn damage_first_segment(data: &Path) {
    let segment = data.join("wal/0000000000000001.wal");
    let mut bytes = fs::read(&segment).unwrap();
    let is_lost = |at: &usize| bytes[*at..].starts_with(LOST.as_bytes());
    let offset = (0..bytes.len()).filter(is_lost).nth(1).unwrap();
    bytes[offset] ^= 1;
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&bytes[offset..=offset], offset.try_into().unwrap()).unwrap();
}

/// What the values begin with that are written to be lost.
const LOST: &str = "the beginning of a value";
