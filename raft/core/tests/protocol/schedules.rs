//! Random schedules: messages lost, repeated and reordered, links cut, disks slow, snapshots taken and
//! sent, nodes crashed with their unsynced writes, at every turn what the checker asserts; then all is healed, and the
//! cluster must come together again.

use kontiki_core::{LogIndex, NodeId, Output};

use crate::{
    checker::{check_logs_match, last_of},
    cluster::{Cluster, ms},
};

/// A schedule that once failed goes in here, with what it found.
const KEPT_SEEDS: [u64; 0] = [];

const SCHEDULES: u64 = 1000;
const STEPS: u64 = 2500;

#[test]
fn whatever_happens_nothing_committed_is_lost_and_healing_brings_all_together() {
    // Long runs look elsewhere.
    let first = std::env::var("KONTIKI_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let (mut committed, mut installed) = (0, 0);
    for seed in (first..first + SCHEDULES).chain(KEPT_SEEDS) {
        let played = Schedule::new(seed).play();
        committed += played.checker.committed.len() as u64;
        installed += played.installed;
    }
    assert!(committed > SCHEDULES * 20, "only {committed} commits: the schedules are too harsh");
    assert!(installed > SCHEDULES / 4, "only {installed} snapshots were installed");
}

struct Schedule {
    cluster: Cluster,
    chance: Chance,
    voters: u64,
    proposed: u64,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let mut chance = Chance { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), seed };
        let voters = 3 + 2 * chance.below(2);
        let learners = chance.below(2);
        let mut cluster = Cluster::with(voters, learners, |config| {
            config.tail_bytes_max = 500;
            config.append_bytes_max = 350;
            config.inflight_messages_max = 4;
            config.trailing_entries = 3;
        });
        cluster.seed = seed;
        for node in cluster.nodes.values_mut() {
            node.holds_writes = true;
            node.holds_fetches = true;
            node.holds_applies = true;
            node.holds_snapshots = true;
        }
        Self { cluster, chance, voters, proposed: 0 }
    }

    fn play(mut self) -> Cluster {
        for step in 0..STEPS {
            self.step();
            self.check_events();
            if step % 100 == 0 {
                self.check_logs();
            }
        }
        self.heal();
        self.check_events();
        self.check_logs();
        self.cluster
    }

    fn step(&mut self) {
        let number = self.any_node();
        match self.chance.below(1000) {
            0..420 => self.deliver(),
            420..440 => self.lose(),
            440..640 => _ = self.cluster.sync_one(number),
            640..740 => self.pass(),
            740..820 => self.propose(number),
            820..840 => self.read(number),
            840..900 => self.answer_fetch(number),
            900..965 => self.apply(number),
            965..975 => self.cluster.take_snapshot(number),
            975..980 => self.bring_snapshot(number),
            980..984 => self.crash(number),
            984..992 => self.start(number),
            992..995 => self.cut(number),
            995..997 => self.doubt(number),
            _ => self.mend(),
        }
    }

    fn deliver(&mut self) {
        if self.cluster.network.is_empty() {
            return self.pass();
        }
        // Mostly in order, sometimes not, sometimes twice.
        let reach = if self.chance.below(4) == 0 { self.cluster.network.len() as u64 } else { 3 };
        let place = self.place(reach);
        let envelope = if self.chance.below(20) == 0 {
            self.cluster.network[place].clone()
        } else {
            self.cluster.network.remove(place)
        };
        self.cluster.deliver(envelope);
    }

    fn lose(&mut self) {
        if !self.cluster.network.is_empty() {
            let place = self.place(u64::MAX);
            self.cluster.network.remove(place);
        }
    }

    fn place(&mut self, reach: u64) -> usize {
        let length = self.cluster.network.len() as u64;
        usize::try_from(self.chance.below(length.min(reach))).unwrap()
    }

    fn pass(&mut self) {
        let milliseconds = self.chance.below(40);
        self.cluster.pass(ms(milliseconds));
        for number in self.running() {
            let raft = self.cluster.node(number).raft.as_ref().unwrap();
            if raft.poll_timeout().is_some_and(|at| at <= self.cluster.now) {
                self.cluster.timeout(number);
            }
        }
    }

    fn propose(&mut self, number: u64) {
        if self.is_running(number) {
            let commands: Vec<_> = (0..=self.chance.below(3))
                .map(|_| {
                    self.proposed += 1;
                    format!("command {}", self.proposed)
                })
                .collect();
            let commands: Vec<_> = commands.iter().map(String::as_str).collect();
            let _ = self.cluster.propose_all(number, &commands);
        }
    }

    fn read(&mut self, number: u64) {
        if self.is_running(number) {
            self.cluster.read(number);
        }
    }

    fn answer_fetch(&mut self, number: u64) {
        if self.chance.below(8) > 0 {
            return self.cluster.answer_fetch(number);
        }
        if let Some(fetch) = self.cluster.node_mut(number).fetches.pop_front() {
            self.cluster.input(number, |raft, now| raft.handle_fetched(now, fetch.id, Err(())));
        }
    }

    fn apply(&mut self, number: u64) {
        if self.is_running(number) {
            let handed = self.cluster.node(number).applied.len() as u64;
            let index = LogIndex(self.chance.below(handed + 1));
            self.cluster.input(number, |raft, now| raft.handle_applied(now, index));
        }
    }

    fn bring_snapshot(&mut self, number: u64) {
        if self.is_running(number) {
            self.cluster.bring_snapshot(number);
        }
    }

    /// Some of the pending writes reach the disk, untold.
    fn crash(&mut self, number: u64) {
        if self.is_running(number) {
            let pending = self.cluster.node(number).disk.pending() as u64;
            for _ in 0..self.chance.below(pending + 1) {
                self.cluster.node_mut(number).disk.sync_one();
            }
            self.cluster.crash(number);
        }
    }

    fn start(&mut self, number: u64) {
        if !self.is_running(number) {
            self.cluster.start(number);
        }
    }

    fn cut(&mut self, number: u64) {
        let other = self.any_node();
        self.cluster.cut.insert((NodeId(number), NodeId(other)));
        if self.chance.below(4) == 0 {
            self.cluster.isolate(&[number]);
        }
    }

    fn doubt(&mut self, number: u64) {
        let peer = self.any_node();
        if self.is_running(number) {
            self.cluster.doubt(number, peer);
        }
    }

    fn mend(&mut self) {
        self.cluster.heal();
    }

    fn heal(&mut self) {
        self.cluster.heal();
        let all: Vec<_> = self.cluster.nodes.keys().map(|id| id.0).collect();
        for &number in &all {
            self.start(number);
            let node = self.cluster.node_mut(number);
            (node.holds_writes, node.holds_fetches, node.holds_applies) = (false, false, false);
            node.holds_snapshots = false;
            self.cluster.sync_all(number);
            while !self.cluster.node(number).fetches.is_empty() {
                self.cluster.answer_fetch(number);
            }
            let handed = LogIndex(self.cluster.node(number).applied.len() as u64);
            self.cluster.input(number, |raft, now| raft.handle_applied(now, handed));
            self.cluster.bring_snapshot(number);
        }
        self.cluster.run(ms(10_000));
        let leader = self.cluster.leader().expect("a healed cluster has a leader");
        self.cluster.propose(leader, "the last word").unwrap();
        self.cluster.run(ms(1000));
        for &number in &all {
            let node = self.cluster.node(number);
            assert_eq!(node.applied, self.cluster.checker.committed, "node {number} lags");
            assert_eq!(last_of(&node.disk.durable), self.cluster.status(leader).last);
        }
        assert_eq!(self.cluster.checker.open_reads(), 0, "every read has ended");
        let last = self.cluster.node(leader).applied.last().map(|entry| entry.body());
        assert_eq!(last.unwrap(), "the last word");
    }

    /// Nobody halts, and nobody is said to have lost what its disk still has.
    fn check_events(&mut self) {
        for (id, node) in &mut self.cluster.nodes {
            for event in node.events.drain(..) {
                let broken = matches!(event, Output::Halt { .. } | Output::PeerRegressed { .. });
                assert!(!broken, "node {id}: {event:?}");
            }
        }
    }

    fn check_logs(&self) {
        let images: Vec<_> = self.cluster.nodes.values().map(|node| &node.disk.cached).collect();
        check_logs_match(&images);
    }

    fn any_node(&mut self) -> u64 {
        let all = self.cluster.nodes.len() as u64;
        assert!(all >= self.voters);
        1 + self.chance.below(all)
    }

    fn running(&self) -> Vec<u64> {
        let all = self.cluster.nodes.keys().map(|id| id.0);
        all.filter(|number| self.is_running(*number)).collect()
    }

    fn is_running(&self, number: u64) -> bool {
        self.cluster.node(number).raft.is_some()
    }
}

/// Says on failure which seed to play again.
struct Chance {
    state: u64,
    seed: u64,
}

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) % end
    }
}

impl Drop for Chance {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule of seed {} failed: add it to KEPT_SEEDS", self.seed);
        }
    }
}
