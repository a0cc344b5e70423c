//! Nodes are killed while clients write: nothing acknowledged is lost, and all end alike.
//!
//! `kill -9` leaves the page cache in place: this shows restart and failover, not durability.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kontiki_sim::random::Random;
use redis::Connection;

use crate::support::{Cluster, Node, connect_within, poll, query, seeded};

/// One after the other, ten times the leader and ten times a follower, in random order.
#[test]
fn twenty_kills_lose_nothing_and_writes_resume_within_three_seconds() {
    let mut random = seeded();
    let mut cluster = Cluster::start(3);
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.client_port).collect();
    let writers = [0, 1, 2].map(|writer| Writer::start(writer, &ports));

    let mut longest = Duration::ZERO;
    for (round, leader_dies) in shuffled(&mut random, KILLS).into_iter().enumerate() {
        let leader = cluster.leader();
        let other = (leader + if random.chance(50) { 1 } else { 2 }) % 3;
        let victim = if leader_dies { leader } else { other };
        // A moment in the middle of the work, not always right after the restart.
        thread::sleep(Duration::from_millis(random.below(200)));

        let killed = Instant::now();
        cluster.nodes[victim].process.kill();
        writers.iter().for_each(Writer::mark);
        for writer in &writers {
            let resumed = poll("a write after the kill", || writer.first_after_mark());
            let gap = resumed.duration_since(killed);
            longest = longest.max(gap);
            assert!(gap < RESUME_MAX, "round {round}: writes resumed after {gap:?}");
        }
        cluster.nodes[victim].restart();
        cluster.nodes[victim].wait_ready();
    }

    let written = writers.map(Writer::stop);
    cluster.assert_same_state();
    for node in &cluster.nodes {
        let mut client = node.connect();
        written.iter().for_each(|written| written.check(&mut client));
    }
    let acknowledged: usize = written.iter().map(|written| written.acknowledged.len()).sum();
    println!("{acknowledged} writes acknowledged; the longest gap was {longest:?}");
    assert!(acknowledged > KILLS * 100, "only {acknowledged} writes: the test proves little");
}

/// The power of the whole cluster, as far as `kill -9` can show it.
#[test]
fn killing_all_three_at_once_loses_nothing() {
    let mut cluster = Cluster::start(3);
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.client_port).collect();
    let writers = [0, 1, 2].map(|writer| Writer::start(writer, &ports));
    for _ in 0..5 {
        writers.iter().for_each(Writer::mark);
        for writer in &writers {
            poll("some writes", || writer.first_after_mark());
        }
        cluster.nodes.iter_mut().for_each(|node| node.process.kill());
        cluster.nodes.iter_mut().for_each(Node::restart);
        for node in &cluster.nodes {
            node.wait_ready();
        }
    }
    let written = writers.map(Writer::stop);
    cluster.assert_same_state();
    for node in &cluster.nodes {
        let mut client = node.connect();
        written.iter().for_each(|written| written.check(&mut client));
    }
}

/// Writes keys of its own, each once, and counts with INCR; on another node after each error.
struct Writer {
    stop: Arc<AtomicBool>,
    mark: Arc<Mutex<Mark>>,
    thread: JoinHandle<Written>,
}

/// From when on a writer's next success is of interest.
#[derive(Default)]
struct Mark {
    since: Option<Instant>,
    /// When the first write that was begun later was acknowledged. Kept, because whoever asks may
    /// come late.
    first: Option<Instant>,
}

/// What one writer knows at the end.
#[derive(Default)]
struct Written {
    writer: u64,
    acknowledged: BTreeMap<String, String>,
    increments_acknowledged: i64,
    increments_sent: i64,
}

impl Writer {
    fn start(writer: u64, ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mark = Arc::new(Mutex::new(Mark::default()));
        let (stopped, marked, ports) = (Arc::clone(&stop), Arc::clone(&mark), ports.to_vec());
        let thread = thread::spawn(move || {
            let mut written = Written { writer, ..Written::default() };
            let mut ports = ports.iter().cycle().skip(usize::try_from(writer).unwrap());
            while !stopped.load(Ordering::Relaxed) {
                let port = *ports.next().unwrap();
                let Ok(mut client) = connect_within(port, GREETING_MAX) else { continue };
                client.set_read_timeout(Some(ANSWER_MAX)).unwrap();
                // Any error: the connection is given up, so that no late answer is taken for
                // that of a later write.
                while !stopped.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    if written.write_some(&mut client).is_err() {
                        break;
                    }
                    marked.lock().unwrap().acknowledge(begun);
                }
            }
            written
        });
        Self { stop, mark, thread }
    }

    /// Forgets what was, and asks for the next.
    fn mark(&self) {
        *self.mark.lock().unwrap() = Mark { since: Some(Instant::now()), first: None };
    }

    /// When the first write that was begun after the mark was acknowledged.
    fn first_after_mark(&self) -> Option<Instant> {
        self.mark.lock().unwrap().first
    }

    fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

impl Mark {
    fn acknowledge(&mut self, begun: Instant) {
        if self.since.is_some_and(|since| begun > since) {
            self.first.get_or_insert_with(Instant::now);
        }
    }
}

impl Written {
    /// A pipeline of one increment and some keys; acknowledged as a whole or not at all.
    fn write_some(&mut self, client: &mut Connection) -> redis::RedisResult<()> {
        let round = self.increments_sent;
        self.increments_sent += 1;
        let mut pipeline = redis::pipe();
        pipeline.cmd("INCR").arg(self.counter());
        let pairs: Vec<_> = (0..KEYS_PER_PIPELINE)
            .map(|place| (format!("w{}:{round}:{place}", self.writer), format!("value {round}")))
            .collect();
        for (key, value) in &pairs {
            pipeline.cmd("SET").arg(key).arg(value).ignore();
        }
        let _: (i64,) = pipeline.query(client)?;
        self.increments_acknowledged += 1;
        self.acknowledged.extend(pairs);
        Ok(())
    }

    fn counter(&self) -> String {
        format!("counter:{}", self.writer)
    }

    /// Everything acknowledged is there, and no increment was applied twice.
    fn check(&self, client: &mut Connection) {
        let pairs: Vec<_> = self.acknowledged.iter().collect();
        for pairs in pairs.chunks(1000) {
            let keys: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
            let values: Vec<Option<String>> = redis::cmd("MGET").arg(&keys).query(client).unwrap();
            for ((key, expected), found) in pairs.iter().zip(values) {
                assert_eq!(found.as_ref(), Some(*expected), "{key} was acknowledged");
            }
        }
        let counted: i64 = query(client, &["GET", &self.counter()]).unwrap();
        let possible = self.increments_acknowledged..=self.increments_sent;
        assert!(possible.contains(&counted), "{counted} increments, {possible:?} are possible");
    }
}

/// As many true as false, in random order.
fn shuffled(random: &mut Random, count: usize) -> Vec<bool> {
    let mut list: Vec<_> = (0..count).map(|place| place % 2 == 0).collect();
    for place in (1..count).rev() {
        list.swap(place, usize::try_from(random.below(place as u64 + 1)).unwrap());
    }
    list
}

const KILLS: usize = 20;
const KEYS_PER_PIPELINE: usize = 8;
const RESUME_MAX: Duration = Duration::from_secs(3);
const GREETING_MAX: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(2);
