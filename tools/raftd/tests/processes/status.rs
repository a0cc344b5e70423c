//! `raftd status` and `raftd snapshot`, as a person calls them.

use redis::Value;

use crate::support::{Cluster, Process, assert_refused, free_ports, poll, query};

fn call(arguments: &[&str]) -> Vec<String> {
    let mut process = Process::start("raftd", arguments);
    let lines = process.rest_of_output();
    let ended = process.wait_end();
    assert!(ended.status.success(), "{arguments:?}: {:?}", ended.stderr);
    lines
}

#[test]
fn status_tells_of_every_node_and_of_who_does_not_answer() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let addresses: Vec<_> =
        cluster.nodes.iter().map(|node| format!("127.0.0.1:{}", node.client_port)).collect();
    query::<Value>(&mut cluster.nodes[leader].connect(), &["SET", "a", "1"]).unwrap();
    let mut arguments = vec!["status"];
    arguments.extend(addresses.iter().map(String::as_str));
    // What a leader knows of its followers is at most a heartbeat old: right after the election that is nothing.
    let lines = poll("followers that are known", || {
        let lines = call(&arguments);
        let known = lines.iter().filter(|line| line.contains("replicate")).count();
        (known == 2).then_some(lines)
    });
    let rows = |lines: &[String]| -> Vec<Vec<String>> {
        let words = |line: &String| line.split_whitespace().map(str::to_owned).collect();
        lines.iter().map(words).collect()
    };
    let words = rows(&lines);
    assert_eq!(words[0][..5], ["clients", "id", "role", "term", "leader"]);
    let id = cluster.nodes[leader].id.to_string();
    for (node, row) in cluster.nodes.iter().zip(&words[1..4]) {
        let role = if node.id.to_string() == id { "leader" } else { "follower" };
        assert_eq!(row[1..3], [node.id.to_string(), role.to_owned()], "{lines:?}");
        assert_eq!(row[4], id, "{lines:?}");
    }
    assert!(lines[5].starts_with(&format!("followers of node {id}, leader in term ")), "{lines:?}");
    let nobody = format!("127.0.0.1:{}", free_ports(1)[0]);
    arguments.push(&nobody);
    let mut process = Process::start("raftd", &arguments);
    let shown = rows(&process.rest_of_output());
    // But for indexes: a follower can have heard of a commit meanwhile.
    let nodes =
        |rows: &[Vec<String>]| rows[..4].iter().map(|row| row[..5].to_vec()).collect::<Vec<_>>();
    assert_eq!(nodes(&shown), nodes(&words), "the others are shown all the same");
    assert_refused(process.wait_end(), 1, &format!("1 of 4 did not answer: {nobody}"));
    // One that is gone is seen in what the leader knows, once it lacks something.
    let away = (leader + 1) % 3;
    cluster.nodes[away].process.kill();
    query::<Value>(&mut cluster.nodes[leader].connect(), &["SET", "a", "2"]).unwrap();
    let line = cluster.nodes[leader].process.wait_for_log("a follower makes no progress");
    assert!(line.contains(&format!("follower={}", cluster.nodes[away].id)), "{line}");
    let field = format!("raft_follower_{}", cluster.nodes[away].id);
    let told = cluster.nodes[leader].info(&field);
    assert!(told.contains("lag=1,") && told.ends_with("stalled=1,regressed=0"), "{told}");
    assert!(told.contains(",snapshot_bytes_asked=0,snapshot_bytes=0,"), "{told}");
}

#[test]
fn a_snapshot_is_saved_from_a_running_node_and_loaded_into_one_that_is_off() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    cluster.nodes[away].process.kill();
    let mut client = cluster.nodes[leader].connect();
    query::<Value>(&mut client, &["SET", "a", "1"]).unwrap();
    let data = |node: usize| cluster.nodes[node].data.to_str().unwrap().to_owned();
    let file = cluster.directory.path().join("monday.image");
    let file = file.to_str().unwrap();
    let save = ["snapshot", "save", "--data", &data(leader), file];
    assert_refused(Process::start("raftd", &save).wait_end(), 4, "redis-cli -p PORT save");
    query::<Value>(&mut client, &["SAVE"]).unwrap();
    let saved = call(&save).concat();
    assert!(saved.starts_with("saved position=") && saved.contains(" cluster="), "{saved}");
    assert_refused(Process::start("raftd", &save).wait_end(), 4, "it is there already");
    let id = cluster.nodes[away].id.to_string();
    let load = ["snapshot", "load", "--id", &id, "--data", &data(away), file];
    assert_eq!(call(&load).concat(), saved.replace("saved", "loaded"));
    let running = ["snapshot", "load", "--id", "1", "--data", &data(leader), file];
    assert_refused(Process::start("raftd", &running).wait_end(), 4, "is in use by");
    cluster.nodes[away].restart();
    cluster.nodes[away].wait_ready();
    let position = cluster.nodes[away].info("raft_snapshot_index");
    assert!(saved.contains(&format!("/{position} ")), "{saved} and {position}");
    cluster.assert_same_state();
}
