//! Nodes that reach each other over a network of their own, which can be cut: network namespaces, one for each, at a bridge
//! in that of the test. All of it is gone when the processes that hold it are.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::support::skipped;

/// Runs this test again in a network namespace of its own, for at most so long, and passes its verdict on; true in there. Where
/// that cannot be done it says so.
pub(crate) fn is_alone(time_max: Duration) -> bool {
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let can = |program: &str, arguments: &[&str]| {
        let run = Command::new(program).args(arguments).output();
        run.is_ok_and(|output| output.status.success())
    };
    let bridge = ["--net", "ip", "link", "add", "hub", "type", "bridge"];
    if !can("unshare", &bridge) || !can("nsenter", &["--version"]) {
        skipped("no network namespace can be made: that takes root, iproute2 and util-linux");
        return false;
    }
    let name = thread::current().name().unwrap().to_owned();
    let output = Command::new("timeout")
        .args([&time_max.as_secs().to_string(), "unshare", "--net"])
        .arg(env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let [said, errors] =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    println!("{said}");
    assert!(output.status.success() && said.contains("1 passed"), "{}: {errors}", output.status);
    false
}

/// The namespaces of nodes 1, 2, 3, ...
pub(crate) struct Network {
    /// Each lives in one and keeps it there; ends with its standard input.
    holders: Vec<Child>,
}

impl Network {
    /// Everybody reaches everybody.
    pub(crate) fn new(nodes: u64) -> Self {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "hub", "type", "bridge"]);
        run("ip", &["addr", "add", "10.0.0.254/24", "dev", "hub"]);
        run("ip", &["link", "set", "hub", "up"]);
        let network = Self { holders: (1..=nodes).map(|_| hold()).collect() };
        for node in 1..=nodes {
            let (link, id) = (format!("node{node}"), network.holder(node).to_string());
            run(
                "ip",
                &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &id],
            );
            run("ip", &["link", "set", &link, "master", "hub", "up"]);
            network.run_in(
                node,
                "ip",
                &["addr", "add", &format!("{}/24", address(node)), "dev", "eth0"],
            );
            network.run_in(node, "ip", &["link", "set", "eth0", "up"]);
            network.run_in(node, "ip", &["link", "set", "lo", "up"]);
        }
        network
    }

    /// What runs a program on a node: these words before its own.
    pub(crate) fn prefix(&self, node: u64) -> Vec<String> {
        ["nsenter", "--target", &self.holder(node).to_string(), "--net", "--"]
            .map(str::to_owned)
            .into()
    }

    /// From now on nothing of `from` reaches `to`: it goes to an address of the link that nobody has, and nobody is told.
    pub(crate) fn block(&self, from: u64, to: u64) {
        let nobody = ["lladdr", "02:00:00:00:00:00", "dev", "eth0", "nud", "permanent"];
        let to = address(to);
        self.run_in(from, "ip", &[&["neigh", "replace", &to], &nobody[..]].concat());
    }

    /// From now on what a node sends beyond a trickle is lost, packet by packet. False if the system cannot do that.
    pub(crate) fn choke(&self, node: u64) -> bool {
        let trickle = ["root", "tbf", "rate", "256kbit", "burst", "4kb", "limit", "8kb"];
        let prefix = self.prefix(node);
        let choked = Command::new(&prefix[0])
            .args(&prefix[1..])
            .args(["tc", "qdisc", "replace", "dev", "eth0"])
            .args(trickle)
            .output();
        choked.is_ok_and(|output| output.status.success())
    }

    /// A node sends as it likes again.
    pub(crate) fn unchoke(&self, node: u64) {
        self.run_in(node, "tc", &["qdisc", "del", "dev", "eth0", "root"]);
    }

    /// Everybody reaches everybody again.
    pub(crate) fn heal(&self) {
        for node in 1..=self.holders.len() as u64 {
            self.run_in(node, "ip", &["neigh", "flush", "dev", "eth0", "nud", "permanent"]);
        }
    }

    fn holder(&self, node: u64) -> u32 {
        self.holders[usize::try_from(node - 1).unwrap()].id()
    }

    fn run_in(&self, node: u64, program: &str, arguments: &[&str]) {
        let prefix = self.prefix(node);
        let words: Vec<&str> = prefix[1..].iter().map(String::as_str).chain([program]).collect();
        run(&prefix[0], &[&words[..], arguments].concat());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

/// Where a node is reached.
pub(crate) fn address(node: u64) -> String {
    format!("10.0.0.{node}")
}

/// A process in a namespace of its own that says when it is there.
fn hold() -> Child {
    let mut child = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo there; exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "there\n");
    child
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {error}", arguments.join(" "));
}

const ALONE: &str = "RAFTD_TEST_IS_ALONE";
