//! Processes, clusters and clients for the tests.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kontiki_sim::random::Random;
use redis::{Connection, FromRedisValue, RedisResult, Value};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    ports::free_port,
    turns::{Turn, turn},
};

/// How long anything may take that must happen at all.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running raftd. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Kept open: the child ends when it closes.
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<Vec<String>>>,
    name: String,
}

/// What a process that ended has left.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stderr: Vec<String>,
}

impl Process {
    pub(crate) fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_in(name, arguments, &[])
    }

    /// Starts it with these variables in its environment, and no others of ours.
    pub(crate) fn start_in(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawn(name, Command::new(env!("CARGO_BIN_EXE_raftd")), arguments, variables)
    }

    /// Starts it by another program, which these words are for and which becomes raftd.
    pub(crate) fn start_by(prefix: &[String], name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(env!("CARGO_BIN_EXE_raftd"));
        Self::spawn(name, command, arguments, &[])
    }

    fn spawn(
        name: &str,
        mut command: Command,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        for (variable, _) in env::vars_os() {
            let ours = variable.to_str().is_some_and(|name| name.starts_with("RAFTD_"));
            if ours || variable == "RUST_LOG" {
                command.env_remove(variable);
            }
        }
        let mut child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, stdout) = channel();
        let output = child.stdout.take().unwrap();
        thread::spawn(move || each_line(output, |line| drop(sender.send(line))));
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let (errors, kept) = (child.stderr.take().unwrap(), Arc::clone(&stderr));
        thread::spawn(move || each_line(errors, |line| kept.lock().unwrap().push(line)));
        let stdin = child.stdin.take();
        Self { child, stdin, stdout, stderr, name: name.to_owned() }
    }

    /// Waits for a line on standard output that contains `text`.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("{}: no {text:?} in time", self.name),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{}: ended before it said {text:?}", self.name)
                }
            }
        }
    }

    /// What is left on standard output, to its end.
    pub(crate) fn rest_of_output(&self) -> Vec<String> {
        self.stdout.iter().collect()
    }

    /// Waits for a line on standard error that contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        poll(&format!("{text:?} in the log of {}", self.name), || {
            self.stderr.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// How many lines on standard error contain `text` so far.
    pub(crate) fn count_in_log(&self, text: &str) -> usize {
        self.stderr.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// As `kill -9` does; returns when the process is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What the process sees when whoever started it is gone.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the end of a process that was asked to, but not for ever: for when a test is over.
    pub(crate) fn end_or_kill(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.is_running() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
    }

    /// Waits until the process ends by itself.
    pub(crate) fn wait_end(&mut self) -> Ended {
        let status = poll(&format!("the end of {}", self.name), || self.child.try_wait().unwrap());
        // The thread that reads standard error ends with it.
        poll("the last lines", || (Arc::strong_count(&self.stderr) == 1).then_some(()));
        Ended { status, stderr: self.stderr.lock().unwrap().clone() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("--- standard error of {}:\n{}\n---", self.name, lines.join("\n"));
        }
    }
}

/// One `raftd serve`, which can be killed and started again.
pub(crate) struct Node {
    pub(crate) id: u64,
    pub(crate) client_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) data: PathBuf,
    peers: String,
    variables: Variables,
    pub(crate) process: Process,
}

/// Of the environment of a node.
pub(crate) type Variables = &'static [(&'static str, &'static str)];

impl Node {
    /// With these variables in its environment, also when it is started again.
    pub(crate) fn start(
        id: u64,
        data: &Path,
        ports: (u16, u16),
        peers: &str,
        variables: Variables,
    ) -> Self {
        let (client_port, peer_port) = ports;
        let data = data.to_owned();
        let process = serve(id, &data, client_port, peers, variables);
        Self { id, client_port, peer_port, data, peers: peers.to_owned(), variables, process }
    }

    pub(crate) fn restart(&mut self) {
        self.process = serve(self.id, &self.data, self.client_port, &self.peers, self.variables);
    }

    /// Waits until it says that it serves; returns who it says leads.
    pub(crate) fn wait_ready(&self) -> u64 {
        let line = self.process.wait_for("ready ");
        line.rsplit_once("leader=").unwrap().1.parse().unwrap()
    }

    pub(crate) fn connect(&self) -> Connection {
        connect(self.client_port).unwrap()
    }

    /// A field of `INFO`.
    pub(crate) fn info(&self, field: &str) -> String {
        info(&mut self.connect(), field)
    }
}

/// Nodes 1, 2, 3, ... on this machine, with their data in a directory of their own.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    pub(crate) directory: TempDir,
    /// The processes of one test have the machine to themselves.
    _turn: Turn,
}

impl Cluster {
    /// Starts that many nodes and waits until each serves.
    pub(crate) fn start(nodes: u64) -> Self {
        Self::start_in(nodes, &[])
    }

    /// As `start`, with these variables in the environment of each.
    pub(crate) fn start_in(nodes: u64, variables: Variables) -> Self {
        let turn = turn();
        let directory = tempfile::tempdir().unwrap();
        let count = usize::try_from(nodes).unwrap();
        let ports = free_ports(2 * count);
        let (clients, peers) = ports.split_at(count);
        let list = (1..=nodes).zip(peers).map(|(id, port)| format!("{id}=127.0.0.1:{port}"));
        let list = list.collect::<Vec<_>>().join(",");
        let nodes: Vec<_> = (1..=nodes)
            .zip(clients.iter().zip(peers))
            .map(|(id, (client, peer))| {
                let data = directory.path().join(id.to_string());
                Node::start(id, &data, (*client, *peer), &list, variables)
            })
            .collect();
        for node in &nodes {
            node.wait_ready();
        }
        Self { nodes, directory, _turn: turn }
    }

    /// Ends the processes and lets other tests run theirs; the data stays until the result is
    /// dropped.
    pub(crate) fn keep(self) -> TempDir {
        self.directory
    }

    /// The place in `nodes` of the one that leads, once one does.
    pub(crate) fn leader(&self) -> usize {
        poll("a leader", || {
            let leads = |node: &Node| node.info("raft_role") == "leader";
            self.nodes.iter().position(leads)
        })
    }

    /// Waits until every node has applied everything; panics unless all hold the same.
    pub(crate) fn assert_same_state(&self) {
        poll("equal applied indexes", || {
            let applied =
                |node: &Node| (node.info("raft_applied_index"), node.info("raft_last_index"));
            let all: Vec<_> = self.nodes.iter().map(applied).collect();
            all.iter().all(|one| one.0 == all[0].1 && one.0 == one.1).then_some(())
        });
        let digests: Vec<String> = self
            .nodes
            .iter()
            .map(|node| query(&mut node.connect(), &["DEBUG", "DIGEST"]).unwrap())
            .collect();
        assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    }
}

/// Ports that nothing listens on, each given to one test only.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| free_port(&[0])).collect()
}

/// The flags of a node for tests that start it by themselves.
pub(crate) fn serve_arguments<'a>(
    id: &'a str,
    data: &'a Path,
    peers: &'a str,
    client: &'a str,
) -> Vec<&'a str> {
    let data = data.to_str().unwrap();
    vec!["serve", "--id", id, "--data", data, "--peers", peers, "--client", client, "--log", "warn"]
}

/// One line on standard error, the exit code, and no panic. Returns the line.
pub(crate) fn assert_refused(ended: Ended, code: i32, expected: &str) -> String {
    let lines: Vec<_> = ended.stderr.iter().filter(|line| !line.contains(" WARN ")).collect();
    assert_eq!(ended.status.code(), Some(code), "{lines:?}");
    let [line] = lines[..] else { panic!("not one line: {lines:?}") };
    assert!(line.starts_with("raftd: ") && line.contains(expected), "{expected:?}: {line}");
    (*line).clone()
}

/// A client with timeouts.
pub(crate) fn connect(port: u16) -> RedisResult<Connection> {
    connect_within(port, DEADLINE)
}

/// A client that is greeted in that time.
pub(crate) fn connect_within(port: u16, timeout: Duration) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let connection = client.get_connection_with_timeout(timeout)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    Ok(connection)
}

/// Says that a test did not run, and why: past the capture of the test harness, so that a passing run shows it too.
pub(crate) fn skipped(why: &str) {
    io::stderr().write_all(format!("skipped: {why}\n").as_bytes()).unwrap();
}

/// Numbers from RAFTD_TEST_SEED, or from the clock; the seed is printed.
pub(crate) fn seeded() -> Random {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = env::var("RAFTD_TEST_SEED").map_or(now, |seed| seed.parse().unwrap());
    println!("RAFTD_TEST_SEED={seed}");
    Random::new(seed)
}

/// Sends one command.
pub(crate) fn query<T: FromRedisValue>(
    connection: &mut Connection,
    words: &[&str],
) -> RedisResult<T> {
    redis::cmd(words[0]).arg(&words[1..]).query(connection)
}

/// Sends one command until it succeeds. Until a leader is there, refusals are right; a broken
/// connection is not.
pub(crate) fn succeeds_soon(client: &mut Connection, words: &[&str]) {
    poll("a command that succeeds", || match query::<Value>(client, words) {
        Ok(_) => Some(()),
        Err(error) => {
            assert!(!error.is_io_error(), "{error}");
            None
        }
    });
}

/// A field of `INFO`.
pub(crate) fn info(connection: &mut Connection, field: &str) -> String {
    let text: String = query(connection, &["INFO"]).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(name, _)| *name == field).unwrap().1.to_owned()
}

/// A plain socket to a port, with timeouts.
pub(crate) fn socket(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Asks again and again where there is no event to wait for; panics at the deadline.
pub(crate) fn poll<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        thread::sleep(Duration::from_millis(10));
    }
}

fn serve(id: u64, data: &Path, client_port: u16, peers: &str, variables: Variables) -> Process {
    Process::start_in(
        &format!("node {id}"),
        &[
            "serve",
            "--id",
            &id.to_string(),
            "--data",
            data.to_str().unwrap(),
            "--peers",
            peers,
            "--client",
            &format!("127.0.0.1:{client_port}"),
            "--exit-with-parent",
        ],
        variables,
    )
}

fn each_line(stream: impl Read, mut take: impl FnMut(String)) {
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        take(line);
    }
}
