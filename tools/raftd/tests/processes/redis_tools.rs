//! The tools that every Redis user has, where they are installed.

use std::process::{Command, Output};

use crate::support::{Cluster, skipped};

#[test]
fn redis_cli_works_on_every_node() {
    if !installed("redis-cli") {
        return;
    }
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        let port = node.client_port.to_string();
        for (words, expected) in [
            (&["ping"][..], "PONG\n"),
            (&["set", "greeting", "hello"], "OK\n"),
            (&["get", "greeting"], "hello\n"),
            (&["flushall"], "OK\n"),
            (&["incr", "visits"], "1\n"),
        ] {
            let output = run("redis-cli", &[&["-p", &port], words].concat());
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{words:?}");
        }
        let info = run("redis-cli", &["-p", &port, "info", "raft"]);
        assert!(String::from_utf8_lossy(&info.stdout).contains("raft_leader:"));
    }
}

#[test]
fn redis_benchmark_runs_on_every_node() {
    if !installed("redis-benchmark") {
        return;
    }
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        let port = node.client_port.to_string();
        let output = run(
            "redis-benchmark",
            &["-p", &port, "-t", "ping,set,get,incr,mset", "-P", "16", "-q", "-n", "10000"],
        );
        let text = String::from_utf8_lossy(&output.stdout).replace('\r', "\n");
        for test in ["PING_INLINE:", "PING_MBULK:", "SET:", "GET:", "INCR:", "MSET (10 keys):"] {
            let line = text
                .lines()
                .find(|line| line.starts_with(test) && line.contains("requests per second"));
            println!("node {}: {}", node.id, line.unwrap_or_else(|| panic!("{text}")));
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("rror") && !errors.contains("rror"), "{text}{errors}");
    }
    cluster.assert_same_state();
}

fn installed(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok();
    if !found {
        skipped(&format!("{tool} is not installed on this machine"));
    }
    found
}

fn run(tool: &str, arguments: &[&str]) -> Output {
    let output = Command::new(tool).args(arguments).output().unwrap();
    assert!(output.status.success(), "{tool} {arguments:?}: {output:?}");
    output
}
