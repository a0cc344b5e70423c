//! `raftd demo`: three nodes that live and die with it.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _},
    net::TcpListener,
    ops::{Deref, DerefMut},
    os::unix::fs::FileExt as _,
    path::Path,
};

use redis::Value;
use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};

use crate::{
    data::{damage_first_segment, fill_first_segment},
    ports::free_port,
    support::{Process, connect, info, poll, query, socket, succeeds_soon},
    turns::turn,
};

#[test]
fn it_serves_on_three_ports_keeps_its_data_and_stops_when_asked() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    for (run, signal) in [Signal::TERM, Signal::INT, Signal::HUP].into_iter().enumerate() {
        let mut demo = start(port, directory.path());
        let first = demo.wait_for(" serves");
        let line = demo.wait_for("redis-cli");
        // Whom it names first serves already.
        let id: u16 = first[5..6].parse().unwrap();
        assert!(line.contains(&format!("redis-cli -p {} ", port + id - 1)), "{line}");
        let others = (port..port + 3).filter(|other| *other != port + id - 1);
        assert!(others.into_iter().all(|other| line.contains(&other.to_string())), "{line}");
        // One line for each node, the leader too.
        let lines = [first, demo.wait_for(" serves"), demo.wait_for(" serves")];
        let serving: BTreeSet<_> = lines.iter().map(|line| &line[..6]).collect();
        assert_eq!(serving, BTreeSet::from(["node 1", "node 2", "node 3"]), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with(", and leads")), "{lines:?}");
        let children: Vec<_> = (port..port + 3).map(process_of).collect();
        for line in &lines {
            let id: usize = line[5..6].parse().unwrap();
            let process = children[id - 1].as_raw_nonzero();
            assert!(line.contains(&format!(" serves in process {process}")), "{line}");
        }
        for client in port..port + 3 {
            let mut client = connect(client).unwrap();
            let visits: usize = query(&mut client, &["INCR", "visits"]).unwrap();
            assert!((3 * run + 1..=3 * run + 3).contains(&visits), "{visits} in run {run}");
        }
        demo.signal(signal);
        assert_eq!(demo.wait_end().status.code(), Some(0));
        assert!(children.into_iter().all(|child| !is_alive(child)));
    }
}

/// A target without a level, as any program takes it there.
#[test]
fn a_filter_in_rust_log_is_the_same_for_the_demo_and_its_nodes() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let (port, data) = (free_demo_port().to_string(), directory.path().to_str().unwrap());
    let arguments = ["demo", "--port", &port, "--data", data];
    let mut demo = Demo(Process::start_in("demo", &arguments, &[("RUST_LOG", "kontiki::driver")]));
    demo.wait_for("redis-cli");
    demo.wait_for_log("cluster formed");
    demo.signal(Signal::TERM);
    let ended = demo.wait_end();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
    assert!(!ended.stderr.iter().any(|line| line.contains("takes clients")), "of another target");
}

#[test]
fn a_node_that_is_killed_is_started_again() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    for client_port in port..port + 3 {
        process_of(client_port);
    }
    for id in 1..=3 {
        let client_port = port + id - 1;
        let mut client = connect(client_port).unwrap();
        query::<Value>(&mut client, &["SET", "key", &id.to_string()]).unwrap();
        kill_process(process_of(client_port), Signal::KILL).unwrap();
        demo.wait_for(&format!("node {id} was killed by signal 9; it is started again"));
        demo.wait_for(&format!("node {id} serves"));
        let mut client = connect(client_port).unwrap();
        assert_eq!(query::<u16>(&mut client, &["GET", "key"]).unwrap(), id);
    }
}

#[test]
fn the_nodes_end_when_the_demo_is_killed() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let mut demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    for client_port in port..port + 3 {
        process_of(client_port);
    }
    let mut sockets: Vec<_> = (port..port + 3).map(socket).collect();
    demo.kill();
    for socket in &mut sockets {
        // The end of the connection is the end of the node.
        match socket.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("the node is still there: {other:?}"),
        }
    }
    // Everything is given back: the same directory and ports serve again. A process that ends closes its sockets before its files,
    // or after them.
    poll("the ports and the directory", || {
        let are_ports_free = (port..port + 3)
            .flat_map(|port| [port, port + 100])
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        let are_logs_free = (1..=3).all(|node| {
            let lock = File::open(directory.path().join(format!("{node}/wal/LOCK"))).unwrap();
            flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        (are_ports_free && are_logs_free).then_some(())
    });
    start(port, directory.path()).wait_for("redis-cli");
}

#[test]
fn a_second_signal_stops_at_once_whatever_the_nodes_do() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let mut demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    // A process that is paused takes no part in a gentle stop.
    let paused = process_of(port);
    kill_process(paused, Signal::STOP).unwrap();
    demo.signal(Signal::TERM);
    demo.wait_for("stopping");
    // What comes with the first one is no second one, so it is asked until it listens.
    poll("the end of the demo", || {
        demo.signal(Signal::TERM);
        (!demo.is_running()).then_some(())
    });
    let ended = demo.wait_end();
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.last().unwrap().contains("at once"), "{:?}", ended.stderr);
    assert!(!is_alive(paused));
}

/// As `timeout` sends them, to the program and to its group.
#[test]
fn signals_within_an_instant_are_one() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let mut demo = start(free_demo_port(), directory.path());
    demo.wait_for("redis-cli");
    demo.signal(Signal::TERM);
    demo.signal(Signal::INT);
    let ended = demo.wait_end();
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
}

#[test]
fn a_node_that_cannot_start_ends_a_first_start_with_what_it_said() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("2"), "no directory").unwrap();
    let mut demo = start(free_demo_port(), directory.path());
    demo.wait_for("node 2 ended with exit code 4; it is not started again");
    assert_eq!(demo.count_in_log("[node 2] raftd: cannot use the data directory: "), 1);
    let ended = demo.wait_end();
    assert_eq!(ended.status.code(), Some(1));
    let line = ended.stderr.last().unwrap();
    assert!(line.contains("node 2 cannot start and is waited for"), "{line}");
    // Nothing goes on, and nothing is worth keeping.
    let said = demo.rest_of_output();
    assert!(!said.iter().any(|line| line.contains("go on") || line.contains("keep")), "{said:?}");
}

#[test]
fn the_others_go_on_without_a_node_whose_log_is_damaged_and_not_without_two() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let mut demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    query::<Value>(&mut connect(port + 1).unwrap(), &["SET", "key", "kept"]).unwrap();
    stop(&mut demo);
    let damage = |id: u64| {
        let segment = directory.path().join(format!("{id}/wal/0000000000000001.wal"));
        let file = OpenOptions::new().write(true).open(segment).unwrap();
        file.write_all_at(b"garbage", 100).unwrap();
    };

    damage(1);
    let mut demo = start(port, directory.path());
    demo.wait_for("node 1 ended with exit code 4; it is not started again");
    let line = demo.wait_for_log("[node 1] raftd: cannot open the log: ");
    assert!(line.contains("; `wal-inspect repair "), "{line}");
    demo.wait_for("the others can go on without node 1, they have all that was acknowledged");
    let line = demo.wait_for("redis-cli");
    assert!(!line.contains(&port.to_string()), "of a node that is gone: {line}");
    let kept: String = query(&mut connect(port + 1).unwrap(), &["GET", "key"]).unwrap();
    assert_eq!(kept, "kept");
    stop(&mut demo);

    damage(3);
    let ended = start(port, directory.path()).wait_end();
    assert_eq!(ended.status.code(), Some(1));
    let line = ended.stderr.last().unwrap();
    assert!(line.contains("nodes 1 and 3 are gone, so nothing can be served"), "{line}");
    assert!(line.contains(&format!("keep {}: ", directory.path().display())), "{line}");
    for id in [1, 3] {
        let said = format!("[node {id}] raftd: cannot open the log: ");
        assert_eq!(ended.stderr.iter().filter(|line| line.starts_with(&said)).count(), 1);
    }
}

#[test]
fn damage_that_a_running_node_meets_ends_it_for_good_and_the_others_serve() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let mut demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    fill_first_segment(&mut connect(port).unwrap());
    stop(&mut demo);
    damage_first_segment(&directory.path().join("2"));

    let mut demo = start(port, directory.path());
    demo.wait_for("node 2 ended with exit code 4; it is not started again");
    let line = demo.wait_for_log("[node 2] raftd: node 2 has failed: cannot ");
    assert!(line.contains("wal-inspect repair"), "{line}");
    demo.wait_for("the others can go on without node 2");
    demo.wait_for("nothing can take its place yet");
    succeeds_soon(&mut connect(port + 2).unwrap(), &["SET", "key", "kept"]);
    stop(&mut demo);
}

/// What a lost disk leaves, and a directory that was not mounted.
#[test]
fn a_node_whose_log_was_taken_away_is_named_with_its_directory_and_two_are_too_many() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let mut demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    stop(&mut demo);
    let place = |id: u64| directory.path().join(id.to_string());

    fs::remove_dir_all(place(1).join("wal")).unwrap();
    let mut demo = start(port, directory.path());
    let told = demo.wait_for("node 1 is not admitted: ");
    assert!(told.ends_with(&format!(" {} was emptied or exchanged", place(1).display())), "{told}");
    // Once the others serve, be that before or after.
    demo.wait_for("nothing can take its place yet: keep");
    assert_eq!(role(port), "not-admitted");
    stop(&mut demo);

    fs::remove_dir_all(place(2).join("wal")).unwrap();
    let ended = start(port, directory.path()).wait_end();
    assert_eq!(ended.status.code(), Some(1));
    let line = ended.stderr.last().unwrap();
    assert!(line.contains("nodes 1 and 2 are gone, so nothing can be served"), "{line}");
}

/// Of the same demo before it was begun anew: the addresses are the same.
#[test]
fn a_node_with_the_data_of_another_cluster_says_so_to_people_and_to_clients() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let (port, aside) = (free_demo_port(), directory.path().join("aside"));
    let place = |id: u64| directory.path().join(id.to_string());
    for _ in 0..2 {
        let mut demo = start(port, directory.path());
        demo.wait_for("redis-cli");
        stop(&mut demo);
        if !aside.exists() {
            fs::rename(place(1), &aside).unwrap();
            (2..=3).for_each(|id| fs::remove_dir_all(place(id)).unwrap());
        }
    }
    fs::remove_dir_all(place(1)).unwrap();
    fs::rename(&aside, place(1)).unwrap();

    let mut demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    let logged = demo.wait_for_log("belongs to cluster");
    assert!(logged.contains("check addresses and data directories"), "{logged}");
    let mut client = connect(port).unwrap();
    poll("both", || (info(&mut client, "raft_foreign_members") == "2,3").then_some(()));
    for request in [&["SET", "key", "lost"][..], &["GET", "key"]] {
        let error = query::<Value>(&mut client, request).unwrap_err().to_string();
        assert!(error.contains("node 2,3 are of different clusters"), "{error}");
    }
    demo.wait_for("node 1 is of another cluster than nodes 2,3: ");
    demo.wait_for("nothing can take its place yet");
    stop(&mut demo);
}

/// A disk that is full does the same, of which nobody can make one without being root.
#[test]
fn a_node_that_cannot_write_says_so_and_when_it_can_again() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let demo = start(port, directory.path());
    demo.wait_for("redis-cli");
    let is_follower = |id: &u16| role(port + id - 1) == "follower";
    let follower = poll("a follower", || (1..=3).find(is_follower));
    let other = (1..=3).find(|id| *id != follower).unwrap();
    let place = directory.path().join(format!("{follower}/wal"));
    let aside = place.with_file_name("aside");
    fs::rename(&place, &aside).unwrap();
    // More than the first segment holds, which is 4 MiB; the next is made when that is half full.
    let (value, mut client) = ("v".repeat(6 << 20), connect(port + other - 1).unwrap());
    succeeds_soon(&mut client, &["SET", "key", &value]);
    let held = demo.wait_for_log("writes wait until the disk takes them again");
    let said = format!("cannot make the next segment in {}: No such file", place.display());
    assert!(held.starts_with(&format!("[node {follower}]")) && held.contains(&said), "{held}");
    assert!(!held.contains("full"), "{held}");
    let told = info(&mut connect(port + follower - 1).unwrap(), "writes_held");
    assert!(told.starts_with(&said), "{told}");
    fs::rename(&aside, &place).unwrap();
    demo.wait_for_log("the disk takes writes again");
    poll("an empty field", || {
        info(&mut connect(port + follower - 1).ok()?, "writes_held").is_empty().then_some(())
    });
}

fn role(port: u16) -> String {
    info(&mut connect(port).unwrap(), "raft_role")
}

fn stop(demo: &mut Process) {
    demo.signal(Signal::TERM);
    assert_eq!(demo.wait_end().status.code(), Some(0));
}

#[test]
fn what_is_in_use_is_said_before_anything_is_started() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let port = free_demo_port();
    let demo = start(port, directory.path());
    demo.wait_for("redis-cli");

    let same_data = start(free_demo_port(), directory.path()).wait_end();
    assert_eq!(same_data.status.code(), Some(4));
    assert_one_line(&same_data.stderr, "another demo uses");

    let other = tempfile::tempdir().unwrap();
    let other = other.path().join("data");
    let same_port = start(port, &other).wait_end();
    assert_eq!(same_port.status.code(), Some(3));
    assert_one_line(&same_port.stderr, &format!("cannot listen on 127.0.0.1:{port}"));
    assert!(!other.exists(), "something was made");
    // What failed claims no port.
    let mut moved = start(free_demo_port(), &other);
    moved.wait_for("redis-cli");
    let of_a_node = start(free_demo_port(), &other.join("1")).wait_end();
    assert_eq!(of_a_node.status.code(), Some(4));
    assert_one_line(&of_a_node.stderr, "is the data of one node");
    // Nobody is told that it is kept.
    let elsewhere = other.with_file_name("elsewhere");
    fs::rename(&other, &elsewhere).unwrap();
    moved.signal(Signal::TERM);
    moved.wait_for("the data is gone");
    assert_eq!(moved.wait_end().status.code(), Some(0));
    fs::rename(&elsewhere, &other).unwrap();
    let file = start(free_demo_port(), &other.join("demo.lock")).wait_end();
    assert_eq!(file.status.code(), Some(4));
    assert_one_line(&file.stderr, "it is no directory; choose another");

    drop(demo);
    let other_port = start(free_demo_port(), directory.path()).wait_end();
    assert_eq!(other_port.status.code(), Some(4));
    assert_one_line(&other_port.stderr, &format!("was made with --port {port}"));
}

/// A demo that takes its nodes with it when dropped: killed, it would leave them writing for a
/// moment while their directory is removed.
struct Demo(Process);

impl Drop for Demo {
    fn drop(&mut self) {
        if self.0.is_running() {
            self.0.signal(Signal::TERM);
            self.0.end_or_kill();
        }
    }
}

impl Deref for Demo {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Demo {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

fn start(port: u16, data: &Path) -> Demo {
    let (port, data) = (port.to_string(), data.to_str().unwrap());
    Demo(Process::start("demo", &["demo", "--port", &port, "--data", data]))
}

/// The process behind a port, once it serves.
fn process_of(port: u16) -> Pid {
    poll("a node that serves", || {
        let mut client = connect(port).ok()?;
        query::<usize>(&mut client, &["DBSIZE"]).ok()?;
        Pid::from_raw(info(&mut client, "process_id").parse().unwrap())
    })
}

/// Whether a process runs; one that ended and was not collected does not.
fn is_alive(process: Pid) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

fn assert_one_line(lines: &[String], text: &str) {
    assert!(matches!(lines, [line] if line.contains(text)), "{text}: {lines:?}");
}

fn free_demo_port() -> u16 {
    free_port(&[0, 1, 2, 100, 101, 102])
}
