//! Snapshots between real processes: who was away while the others compacted is brought up to date, whoever is killed meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use redis::{Connection, Value};

use crate::support::{Cluster, Process, Variables, assert_refused, connect, poll, query, skipped};

/// Snapshots of a state that changes much are taken often.
const OFTEN: Variables = &[("RAFTD_SNAPSHOT_BYTES", "1000000")];
/// Writes that go into one request.
const BATCH: u64 = 500;

/// Writes numbered keys with values of that length, `BATCH` at a time.
fn write(client: &mut Connection, range: std::ops::Range<u64>, bytes: usize) {
    let value = "v".repeat(bytes);
    for first in range.clone().step_by(usize::try_from(BATCH).unwrap()) {
        let mut requests = redis::pipe();
        for number in first..range.end.min(first + BATCH) {
            requests.cmd("SET").arg(format!("key:{}", number % KEYS)).arg(&value).ignore();
        }
        requests.query::<Value>(client).unwrap();
    }
}

/// Keys that are written over and over.
const KEYS: u64 = 2_000;

fn number(cluster: &Cluster, node: usize, field: &str) -> u64 {
    cluster.nodes[node].info(field).parse().unwrap()
}

/// Writes to a node until told to stop.
fn load(port: u16) -> (Arc<AtomicBool>, JoinHandle<u64>) {
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let writing = thread::spawn(move || {
        let (mut client, mut written) = (connect(port).unwrap(), 0);
        while !told.load(Ordering::Relaxed) {
            write(&mut client, written..written + BATCH, 300);
            written += BATCH;
        }
        written
    });
    (stop, writing)
}

#[test]
fn a_follower_that_was_down_while_the_others_compacted_is_caught_up_under_load() {
    let mut cluster = Cluster::start_in(3, OFTEN);
    // Nobody else is asked once one is away.
    let leader = cluster.leader();
    let away = (leader + 1) % cluster.nodes.len();
    cluster.nodes[away].process.kill();
    write(&mut cluster.nodes[leader].connect(), 0..20_000, 300);
    // What it would need is gone.
    poll("a log that has lost its beginning", || {
        (number(&cluster, leader, "raft_first_index") > 5_000).then_some(())
    });
    let (stop, writing) = load(cluster.nodes[leader].client_port);
    cluster.nodes[away].restart();
    cluster.nodes[away].process.wait_for_log("a snapshot is needed");
    cluster.nodes[away].wait_ready();
    stop.store(true, Ordering::Relaxed);
    assert!(writing.join().unwrap() > 0);
    assert!(number(&cluster, away, "raft_snapshot_index") > 5_000);
    cluster.assert_same_state();
    // And from its own disk.
    cluster.nodes[away].process.kill();
    cluster.nodes[away].restart();
    cluster.nodes[away].wait_ready();
    cluster.assert_same_state();
}

#[test]
fn killing_who_receives_and_who_sends_a_snapshot_costs_a_repetition() {
    let mut cluster = Cluster::start_in(3, OFTEN);
    // Nobody else is asked once one is away.
    let leader = cluster.leader();
    let away = (leader + 1) % cluster.nodes.len();
    cluster.nodes[away].process.kill();
    // A state that takes a while to be sent: 2,000 keys of 30 KiB.
    for round in 0..4 {
        write(&mut cluster.nodes[leader].connect(), round * KEYS..(round + 1) * KEYS, 30_000);
    }
    poll("a log that has lost its beginning", || {
        (number(&cluster, leader, "raft_first_index") > 1).then_some(())
    });
    cluster.nodes[away].restart();
    cluster.nodes[away].process.wait_for_log("a snapshot is needed");
    cluster.nodes[away].process.kill();
    let images = fs::read_dir(cluster.nodes[away].data.join("snapshots")).unwrap();
    let whole = images
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".image"));
    // As a rule none: a machine with much else to do can be late.
    let whole = whole.count();
    println!("it was killed when {whole} were whole");
    cluster.nodes[away].restart();
    if whole == 0 {
        cluster.nodes[away].process.wait_for_log("a snapshot is needed");
    }
    cluster.nodes[leader].process.kill();
    cluster.nodes[away].wait_ready();
    cluster.nodes[leader].restart();
    cluster.nodes[leader].wait_ready();
    cluster.assert_same_state();
    assert_eq!(query::<u64>(&mut cluster.nodes[away].connect(), &["DBSIZE"]).unwrap(), KEYS);
}

/// The files of a node's directory, in bytes.
fn bytes_of(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).unwrap().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_of(&entry.path()),
            Ok(found) => found.len(),
            // Removed meanwhile.
            Err(_) => 0,
        })
        .sum()
}

/// `RAFTD_LOAD_SECONDS`: for how long.
#[test]
fn an_endless_load_fills_a_bounded_directory() {
    let seconds = std::env::var("RAFTD_LOAD_SECONDS").map_or(8, |text| text.parse().unwrap());
    let cluster = Cluster::start_in(3, &[("RAFTD_SNAPSHOT_BYTES", "16000000")]);
    let leader = cluster.leader();
    let (stop, writing) = load(cluster.nodes[leader].client_port);
    let mut most = 0;
    for _ in 0..seconds * 2 {
        thread::sleep(Duration::from_millis(500));
        most = most.max(bytes_of(&cluster.nodes[leader].data));
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.join().unwrap();
    let first = number(&cluster, leader, "raft_first_index");
    println!(
        "{written} writes of 300 bytes in {seconds} s; at most {most} bytes; the log begins at {first}"
    );
    assert!(first > 16_000_000 / 400, "{first}");
    // The segments that the log behind two snapshots takes, the ones made ahead and kept, and two images.
    assert!(most < 6 * (64 << 20), "{most} bytes");
    cluster.assert_same_state();
}

/// A file system of so many KiB at a directory; gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount anything.
    fn mount(at: &Path, kibibytes: u32) -> Option<Self> {
        let size = format!("size={kibibytes}k");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = Command::new("mount").args(arguments).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }

    fn grow(&self, kibibytes: u32) {
        let size = format!("remount,size={kibibytes}k");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while somebody has a file open there: a test that fails leaves nothing behind.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_node_whose_disk_is_too_full_for_a_snapshot_goes_on_and_takes_one_when_there_is_room() {
    let mut cluster = Cluster::start_in(3, OFTEN);
    let leader = cluster.leader();
    let full = (leader + 1) % cluster.nodes.len();
    cluster.nodes[full].process.kill();
    let Some(disk) = SmallDisk::mount(&cluster.nodes[full].data.join("snapshots"), 128) else {
        return skipped("a snapshot on a full disk: nothing may be mounted here");
    };
    cluster.nodes[full].restart();
    cluster.nodes[full].wait_ready();
    let mut client = cluster.nodes[leader].connect();
    write(&mut client, 0..10_000, 300);
    let line = cluster.nodes[full].process.wait_for_log("a snapshot could not be taken");
    assert!(line.contains("No space left"), "{line}");
    let refused = query::<Value>(&mut cluster.nodes[full].connect(), &["SAVE"]).unwrap_err();
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert_eq!(number(&cluster, full, "raft_snapshot_index"), 0);
    // It is as good as the others, but for that.
    cluster.assert_same_state();
    assert_no_room_for_a_copy(&mut cluster, leader, full);
    disk.grow(64 << 10);
    query::<Value>(&mut cluster.nodes[full].connect(), &["SAVE"]).unwrap();
    assert!(number(&cluster, full, "raft_snapshot_index") > 0);
    write(&mut client, 10_000..20_000, 300);
    cluster.assert_same_state();
    cluster.nodes[full].process.kill();
}

/// A snapshot that is loaded by hand finds no room either: that is told, and nothing is changed.
fn assert_no_room_for_a_copy(cluster: &mut Cluster, of: usize, full: usize) {
    let file = cluster.directory.path().join("copy");
    let save = ["snapshot", "save", "--data", text(&cluster.nodes[of].data), text(&file)];
    assert!(Process::start("raftd", &save).wait_end().status.success());
    cluster.nodes[full].process.kill();
    let (id, data) = (cluster.nodes[full].id.to_string(), &cluster.nodes[full].data);
    let load = ["snapshot", "load", "--id", &id, "--data", text(data), text(&file)];
    assert_refused(Process::start("raftd", &load).wait_end(), 4, "No space left");
    let left = fs::read_dir(data.join("snapshots")).unwrap().map(|entry| entry.unwrap().path());
    let left = left.filter(|path| path.extension().is_some()).collect::<Vec<_>>();
    assert!(left.is_empty(), "{left:?}");
    cluster.nodes[full].restart();
    cluster.nodes[full].wait_ready();
    cluster.assert_same_state();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
