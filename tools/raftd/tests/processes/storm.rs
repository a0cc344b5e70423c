//! Five nodes, each in a network namespace of its own, while links are cut, processes are stopped and killed and a disk is
//! wiped: what clients see is what one register for each key could have done.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kontiki_sim::random::Random;
use redis::{Connection, RedisResult};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    network::{Network, address, is_alone},
    recorded::{Client, Recorded, check, lines, read_all, read_late},
    support::{DEADLINE, Process, info, poll, query, seeded, succeeds_soon, turn},
};

/// `RAFTD_STORM_SECONDS`: for how long.
#[test]
fn what_clients_see_in_a_storm_is_linearizable() {
    let _turn = turn();
    if !is_alone("storm::what_clients_see_in_a_storm_is_linearizable") {
        return;
    }
    let seconds = env::var("RAFTD_STORM_SECONDS").map_or(60, |text| text.parse().unwrap());
    let mut storm = Storm::start(seeded());
    let (begun, stop) = (storm.begun, Arc::new(AtomicBool::new(false)));
    let clients = (1..=CLIENTS).map(|number| {
        let client = Client::new(number, NODES, begun, storm.random.draw());
        let stop = Arc::clone(&stop);
        thread::spawn(move || client.run(&stop))
    });
    let clients: Vec<_> = clients.collect();
    let end = begun + Duration::from_secs(seconds);
    while Instant::now() < end {
        storm.strike();
        if storm.wiped.is_none() && Instant::now() + Duration::from_secs(seconds / 2) > end {
            storm.wipe();
        }
    }
    let mut calm = storm.calm();
    stop.store(true, Ordering::Relaxed);
    let mut history: Vec<Recorded> =
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    history.append(&mut storm.late);
    assert_same_state(&mut calm);
    let last = read_all(&history, begun, &mut calm[0]);
    history.extend(last);
    let known = history.iter().filter(|recorded| recorded.is_known).count();
    let term = info(&mut calm[0], "raft_term");
    println!(
        "{} operations, {known} with a known outcome, term {term}; {:?}",
        history.len(),
        storm.struck
    );
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("storm.jsonl");
    fs::write(&file, lines(&history)).unwrap();
    println!("the history: {}", file.display());
    check(&history);
    assert!(known > 1_000, "the test proves little");
}

/// What goes wrong, and the nodes that it happens to.
struct Storm {
    network: Network,
    /// By number less one; `None` while a node is down.
    processes: Vec<Option<Process>>,
    data: TempDir,
    begun: Instant,
    /// What leaders answered who had just been replaced and did not know.
    late: Vec<Recorded>,
    random: Random,
    /// It has another disk than the one that the others know.
    wiped: Option<u64>,
    /// How often what happened.
    struck: BTreeMap<&'static str, u64>,
}

impl Storm {
    fn start(random: Random) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (network, struck) = (Network::new(NODES), BTreeMap::new());
        let processes = (0..NODES).map(|_| None).collect();
        let (begun, late, wiped) = (Instant::now(), Vec::new(), None);
        let mut storm = Self { network, processes, data, begun, late, random, wiped, struck };
        (1..=NODES).for_each(|node| storm.serve(node));
        for process in storm.processes.iter().flatten() {
            process.wait_for("ready ");
        }
        storm
    }

    fn serve(&mut self, node: u64) {
        let list = (1..=NODES).map(|node| format!("{node}={}:7101", address(node)));
        let list = list.collect::<Vec<_>>().join(",");
        let (id, data) = (node.to_string(), self.data.path().join(node.to_string()));
        let client = format!("{}:6379", address(node));
        let arguments = [
            "serve",
            "--id",
            &id,
            "--data",
            data.to_str().unwrap(),
            "--peers",
            &list,
            "--client",
            &client,
            "--exit-with-parent",
        ];
        let process =
            Process::start_by(&self.network.prefix(node), &format!("node {node}"), &arguments);
        *self.process(node) = Some(process);
    }

    fn process(&mut self, node: u64) -> &mut Option<Process> {
        &mut self.processes[usize::try_from(node - 1).unwrap()]
    }

    /// One thing goes wrong for a while.
    fn strike(&mut self) {
        let node = self.random.between(1, NODES);
        let leader = if self.random.chance(50) { self.leader() } else { None };
        let node = leader.unwrap_or(node);
        let others: Vec<u64> = (1..=NODES).filter(|&other| other != node).collect();
        let other = others[usize::try_from(self.random.below(NODES - 1)).unwrap()];
        let time = Duration::from_millis(self.random.between(300, 3_000));
        let kind = KINDS[usize::try_from(self.random.below(KINDS.len() as u64)).unwrap()];
        *self.struck.entry(kind).or_default() += 1;
        match kind {
            "one is alone" => others.iter().for_each(|&other| self.cut(node, other)),
            "one is not heard" => others.iter().for_each(|&other| self.network.block(node, other)),
            "one hears nobody" => others.iter().for_each(|&other| self.network.block(other, node)),
            "one does not reach another" => self.network.block(node, other),
            "halves" => {
                let half = |one: u64| one <= NODES / 2;
                let pairs = (1..=NODES).flat_map(|a| (1..=NODES).map(move |b| (a, b)));
                pairs.filter(|&(a, b)| half(a) && !half(b)).for_each(|(a, b)| self.cut(a, b));
            }
            "a link comes and goes" => {
                let end = Instant::now() + time;
                while Instant::now() < end {
                    self.cut(node, other);
                    thread::sleep(Duration::from_millis(self.random.between(5, 100)));
                    self.network.heal();
                    thread::sleep(Duration::from_millis(self.random.between(5, 100)));
                }
                return;
            }
            "the leader is stopped" => return self.stop_leader(),
            _ => {
                if let Some(mut process) = self.process(node).take() {
                    process.kill();
                    thread::sleep(time / 3);
                    self.serve(node);
                }
                return;
            }
        }
        // How long it lasts is what is drawn.
        thread::sleep(time);
        self.network.heal();
    }

    /// Until another one leads; what it is asked meanwhile, it answers when it runs again.
    fn stop_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        let Ok(mut client) = connect(leader, DEADLINE) else { return };
        self.signal(leader, Signal::STOP);
        poll("another leader", || self.leader().filter(|&other| other != leader));
        // The clients that waited for the one that is stopped go on with the others.
        thread::sleep(Duration::from_millis(200));
        let begun = self.begun;
        let late = read_late(begun, &mut client, || self.signal(leader, Signal::CONT));
        self.late.extend(late);
    }

    fn cut(&self, a: u64, b: u64) {
        self.network.block(a, b);
        self.network.block(b, a);
    }

    fn signal(&mut self, node: u64, signal: Signal) {
        self.process(node).iter().for_each(|process| process.signal(signal));
    }

    /// Who says that it leads, if anybody does and is heard.
    fn leader(&self) -> Option<u64> {
        (1..=NODES).find(|&node| {
            connect(node, GREETING_MAX)
                .is_ok_and(|mut connection| info(&mut connection, "raft_role") == "leader")
        })
    }

    /// A node comes back with an empty disk, and is not let in.
    fn wipe(&mut self) {
        let node = self.random.between(1, NODES);
        self.wiped = Some(node);
        *self.struck.entry("a disk is wiped").or_default() += 1;
        self.process(node).take().unwrap().kill();
        fs::remove_dir_all(self.data.path().join(node.to_string())).unwrap();
        self.serve(node);
        self.process(node).as_ref().unwrap().wait_for("not-admitted ");
    }

    /// Nothing goes wrong any more, and all that are left serve; clients of each.
    fn calm(&mut self) -> Vec<Connection> {
        self.network.heal();
        let sound: Vec<u64> = (1..=NODES).filter(|&node| self.wiped != Some(node)).collect();
        let mut clients: Vec<Connection> =
            sound.iter().map(|&node| poll("a greeting", || connect(node, DEADLINE).ok())).collect();
        for client in &mut clients {
            succeeds_soon(client, &["SET", "calm", "1"]);
        }
        clients
    }
}

/// Nobody writes any more: all come to hold the same.
fn assert_same_state(clients: &mut [Connection]) {
    poll("the same state everywhere", || {
        let digest = |client| query::<String>(client, &["DEBUG", "DIGEST"]).unwrap();
        let digests: Vec<String> = clients.iter_mut().map(digest).collect();
        digests.iter().all(|digest| *digest == digests[0]).then_some(())
    });
}

fn connect(node: u64, within: Duration) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://{}:6379", address(node)))?;
    let connection = client.get_connection_with_timeout(within)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    Ok(connection)
}

const NODES: u64 = 5;
const CLIENTS: u64 = 8;
/// Who runs greets by then.
const GREETING_MAX: Duration = Duration::from_millis(200);
const KINDS: [&str; 8] = [
    "one is alone",
    "one is not heard",
    "one hears nobody",
    "one does not reach another",
    "halves",
    "a link comes and goes",
    "the leader is stopped",
    "one is killed",
];
