//! Five nodes, each in a network namespace of its own, while links are cut, processes are stopped and killed and a disk is
//! wiped: what clients see is what one register for each key could have done.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kontiki_sim::random::Random;
use redis::Connection;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    network::{Network, address, is_alone},
    recorded::{Client, Heard, History, check, connect, lines, read_all, read_late},
    support::{DEADLINE, Process, info, poll, query, seeded, skipped, succeeds_soon},
    turns::turn,
};

/// `RAFTD_STORM_SECONDS`: for how long.
#[test]
fn what_clients_see_in_a_storm_is_linearizable() {
    let _turn = turn();
    let seconds = env::var("RAFTD_STORM_SECONDS").map_or(60, |text| text.parse().unwrap());
    if !is_alone(Duration::from_secs(seconds) + 6 * DEADLINE) {
        return;
    }
    let mut storm = Storm::start(seeded());
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|number| {
            let (stop, history) = (Arc::clone(&stop), Arc::clone(&storm.history));
            let client = Client::new(number, NODES, storm.begun, storm.random.draw(), history);
            thread::spawn(move || client.run(&stop))
        })
        .collect();
    let end = storm.begun + Duration::from_secs(seconds);
    // Each kind once, in some order, then any.
    let mut kinds = KINDS.to_vec();
    while Instant::now() < end {
        let kind = match kinds.len() {
            0 => storm.any_kind(),
            left => kinds.swap_remove(usize::try_from(storm.random.below(left as u64)).unwrap()),
        };
        storm.strike(kind);
        if storm.wiped.is_none() && Instant::now() + Duration::from_secs(seconds / 2) > end {
            storm.wipe();
        }
    }
    let mut calm = storm.calm();
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_same_state(&mut calm);
    read_all(&storm.history, storm.begun, &mut calm[0]);
    storm.judge(&mut calm[0], seconds);
}

/// What goes wrong, and the nodes that it happens to.
struct Storm {
    network: Network,
    /// By number less one; `None` while a node is down.
    processes: Vec<Option<Process>>,
    data: TempDir,
    begun: Instant,
    history: History,
    random: Random,
    /// It has another disk than the one that the others know.
    wiped: Option<u64>,
    /// How often what happened.
    struck: BTreeMap<&'static str, u64>,
    /// Reads that a leader was asked for which had been replaced and did not know, and which it served: as a rule none, for what
    /// it hears on waking makes it step down first.
    served_late: usize,
}

impl Storm {
    fn start(random: Random) -> Self {
        let mut storm = Self {
            network: Network::new(NODES),
            processes: (0..NODES).map(|_| None).collect(),
            data: tempfile::tempdir().unwrap(),
            begun: Instant::now(),
            history: History::default(),
            random,
            wiped: None,
            struck: KINDS.map(|kind| (kind, 0)).into(),
            served_late: 0,
        };
        (1..=NODES).for_each(|node| storm.serve(node));
        for process in storm.processes.iter().flatten() {
            process.wait_for("ready ");
        }
        storm
    }

    fn serve(&mut self, node: u64) {
        let list = (1..=NODES).map(|node| format!("{node}={}:7101", address(node)));
        let (id, list) = (node.to_string(), list.collect::<Vec<_>>().join(","));
        let (data, client) =
            (self.data.path().join(node.to_string()), format!("{}:6379", address(node)));
        let data = data.to_str().unwrap();
        let arguments =
            ["serve", "--id", &id, "--data", data, "--peers", &list, "--client", &client];
        // Snapshots all the time, so that who comes back often gets one.
        let more = ["--snapshot-bytes", "20000", "--exit-with-parent"];
        let arguments = [&arguments[..], &more].concat();
        let prefix = self.network.prefix(node);
        *self.process(node) = Some(Process::start_by(&prefix, &format!("node {node}"), &arguments));
    }

    fn process(&mut self, node: u64) -> &mut Option<Process> {
        &mut self.processes[usize::try_from(node - 1).unwrap()]
    }

    fn any_kind(&mut self) -> &'static str {
        KINDS[usize::try_from(self.random.below(KINDS.len() as u64)).unwrap()]
    }

    /// One thing goes wrong for a while, half of the time for the leader.
    fn strike(&mut self, kind: &'static str) {
        let any = self.random.between(1, NODES);
        let leader = if self.random.chance(50) { self.leader() } else { None };
        let node = leader.unwrap_or(any);
        let time = Duration::from_millis(self.random.between(300, 3_000));
        let has_struck = match kind {
            "a link comes and goes" => self.flap(node, time),
            "packets are lost" => self.choke(node, time),
            "the leader is stopped" => self.stop_leader(),
            "one is killed" => self.kill(node, time / 3),
            _ => self.cut(kind, node, time),
        };
        *self.struck.get_mut(kind).unwrap() += u64::from(has_struck);
    }

    /// Some do not reach some others for a while.
    fn cut(&mut self, kind: &str, node: u64, time: Duration) -> bool {
        let all = || (1..=NODES).flat_map(|a| (1..=NODES).map(move |b| (a, b)));
        let all = all().filter(|(a, b)| a != b);
        let other = self.other(node);
        let half = |one: u64| one <= NODES / 2;
        let links: Vec<(u64, u64)> = match kind {
            "one is alone" => all.filter(|&(a, b)| a == node || b == node).collect(),
            "one is not heard" => all.filter(|&(a, _)| a == node).collect(),
            "one hears nobody" => all.filter(|&(_, b)| b == node).collect(),
            "one does not reach another" => vec![(node, other)],
            "halves" => all.filter(|&(a, b)| half(a) != half(b)).collect(),
            _ => panic!("{kind} is none of the kinds"),
        };
        links.into_iter().for_each(|(a, b)| self.network.block(a, b));
        // How long it lasts is what is drawn.
        thread::sleep(time);
        self.network.heal();
        true
    }

    fn flap(&mut self, node: u64, time: Duration) -> bool {
        let (end, other) = (Instant::now() + time, self.other(node));
        while Instant::now() < end {
            self.network.block(node, other);
            self.network.block(other, node);
            thread::sleep(Duration::from_millis(self.random.between(5, 100)));
            self.network.heal();
            thread::sleep(Duration::from_millis(self.random.between(5, 100)));
        }
        true
    }

    fn choke(&self, node: u64, time: Duration) -> bool {
        let is_choked = self.network.choke(node);
        if is_choked {
            thread::sleep(time);
            self.network.unchoke(node);
        } else {
            skipped("no packets are lost: this system has no queue for tc that loses them");
        }
        is_choked
    }

    fn other(&mut self, node: u64) -> u64 {
        1 + (node + self.random.below(NODES - 1)) % NODES
    }

    /// Until another one leads; what it is asked meanwhile, it answers when it runs again. False if it was not asked.
    fn stop_leader(&mut self) -> bool {
        let Some(old) = self.leader() else { return false };
        let Ok(mut late) = connect(old, DEADLINE, DEADLINE) else { return false };
        self.signal(old, Signal::STOP);
        let new = poll("another leader", || self.leader().filter(|&other| other != old));
        let through = connect(new, DEADLINE, DEADLINE);
        let was_asked = through.is_ok();
        if let Ok(mut through) = through {
            let (history, begun) = (Arc::clone(&self.history), self.begun);
            let (through, late) = ((new, &mut through), (old, &mut late));
            let wake = || self.signal(old, Signal::CONT);
            self.served_late += read_late(&history, begun, through, late, wake);
        } else {
            self.signal(old, Signal::CONT);
        }
        was_asked
    }

    fn kill(&mut self, node: u64, down: Duration) -> bool {
        let Some(mut process) = self.process(node).take() else { return false };
        process.kill();
        thread::sleep(down);
        self.serve(node);
        true
    }

    fn signal(&mut self, node: u64, signal: Signal) {
        self.process(node).iter().for_each(|process| process.signal(signal));
    }

    /// Who says that it leads, if anybody does and is heard. One that is being stopped can have greeted and not answer.
    fn leader(&self) -> Option<u64> {
        let leads = |node: &u64| {
            let connection = connect(*node, GREETING_MAX, GREETING_MAX);
            let told = connection.and_then(|mut client| query::<String>(&mut client, &["INFO"]));
            told.is_ok_and(|text| text.lines().any(|line| line == "raft_role:leader"))
        };
        (1..=NODES).find(leads)
    }

    /// A node comes back with an empty disk, and is not let in.
    fn wipe(&mut self) {
        let node = self.random.between(1, NODES);
        self.wiped = Some(node);
        self.process(node).take().unwrap().kill();
        fs::remove_dir_all(self.data.path().join(node.to_string())).unwrap();
        self.serve(node);
        self.process(node).as_ref().unwrap().wait_for("not-admitted ");
    }

    /// Nothing goes wrong any more, and all that are left serve; clients of each.
    fn calm(&mut self) -> Vec<Connection> {
        self.network.heal();
        let sound = (1..=NODES).filter(|&node| self.wiped != Some(node));
        let greet = |node| poll("a greeting", || connect(node, DEADLINE, DEADLINE).ok());
        let mut clients: Vec<Connection> = sound.map(greet).collect();
        for client in &mut clients {
            succeeds_soon(client, &["SET", "calm", "1"]);
        }
        clients
    }

    /// What clients saw is what registers do, and enough of it to show something.
    fn judge(&self, client: &mut Connection, seconds: u64) {
        let history = self.history.lock().unwrap();
        let count =
            |is_it: fn(Heard) -> bool| history.iter().filter(|one| is_it(one.heard)).count();
        let read = count(|heard| matches!(heard, Heard::Seen(_)));
        let wrote = count(|heard| matches!(heard, Heard::Done(_)));
        let [refused, unknown] = [Heard::Refused, Heard::Unknown]
            .map(|heard| history.iter().filter(|one| one.heard == heard).count());
        let number =
            |client: &mut Connection, field: &str| info(client, field).parse::<u64>().unwrap();
        let term = number(client, "raft_term");
        let begins = number(client, "raft_first_index");
        println!(
            "{read} read, {wrote} written, {refused} refused, {unknown} unknown; term {term}, the log begins at {begins}; {:?}, {} served late",
            self.struck, self.served_late
        );
        check(&history);
        assert!(read > 1_000 && wrote > 1_000 && unknown > 0, "the test proves little");
        assert!(begins > 1, "no snapshot has taken the place of a part of the log");
        if seconds >= 60 {
            // Not every kernel can make packets be lost.
            let came = |kind: &str| self.struck[kind] > 0 || kind == "packets are lost";
            assert!(term > 3 && KINDS.into_iter().all(came), "{:?}", self.struck);
        }
    }
}

impl Drop for Storm {
    /// Whoever looks for the cause of a failure wants to see what clients saw.
    fn drop(&mut self) {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("storm.jsonl");
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let written = fs::write(&file, lines(&history));
        println!("the history: {}: {written:?}", file.display());
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

const NODES: u64 = 5;
const CLIENTS: u64 = 8;
/// Who runs greets by then.
const GREETING_MAX: Duration = Duration::from_millis(200);

const KINDS: [&str; 9] = [
    "one is alone",
    "one is not heard",
    "one hears nobody",
    "one does not reach another",
    "halves",
    "a link comes and goes",
    "packets are lost",
    "the leader is stopped",
    "one is killed",
];
