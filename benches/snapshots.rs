//! What snapshots cost and what they spare: three durable nodes with a key-value state, beside what is aimed at, in one table:
//! `cargo bench --bench snapshots`. What the rows mean: README.md in this directory.

#![forbid(unsafe_code)]

use std::{
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use kontiki::{Event, Events, Options};
use kontiki_bench::{
    arguments::Arguments,
    key_values::ENTRY_BYTES,
    latencies::Latencies,
    place, raw,
    replicas::{Replicas, Writes, light_load},
    rounds::Spread,
    table,
};
use tempfile::TempDir;

fn main() {
    let arguments = Arguments::parse_or_exit("snapshots");
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let sizes = if arguments.is_quick() { QUICK } else { WHOLE };
    let bench = Bench { sizes, place };
    let mib = bench.sizes.state_bytes() >> 20;
    println!("{mib} MiB of state; medians of {} rounds, range in brackets\n", bench.sizes.rounds);
    table::print_head(["figure", "reached", "goal"]);
    let row = |name, row: fn(&Bench)| {
        if arguments.wants(name) {
            row(&bench);
        }
    };
    row("throughput", Bench::throughput);
    row("catch-up", Bench::catch_up);
    row("restart", Bench::restart);
    row("capture", Bench::capture);
}

struct Bench {
    sizes: Sizes,
    place: TempDir,
}

/// How much of everything.
struct Sizes {
    rounds: usize,
    /// One contender's in each round.
    round: Duration,
    /// Of the large state.
    keys: u64,
    /// Bytes of log behind a snapshot that a restart replays.
    log_bytes: u64,
    /// Commands behind which a snapshot is due in the row of throughput.
    snapshot_log_bytes: u64,
}

const WHOLE: Sizes = Sizes {
    rounds: 3,
    round: Duration::from_secs(12),
    keys: (1 << 30) / ENTRY_BYTES,
    log_bytes: 256 << 20,
    snapshot_log_bytes: 64 << 20,
};

const QUICK: Sizes = Sizes {
    rounds: 1,
    round: Duration::from_millis(500),
    keys: (64 << 20) / ENTRY_BYTES,
    log_bytes: 16 << 20,
    snapshot_log_bytes: 4 << 20,
};

impl Sizes {
    fn state_bytes(&self) -> u64 {
        self.keys * ENTRY_BYTES
    }

    /// To keys of the large state, each as long as what it replaces.
    fn large_writes(&self) -> Writes {
        Writes { keys: self.keys, bytes: COMMAND_BYTES_LARGE }
    }

    fn small_writes(&self) -> Writes {
        Writes { keys: self.keys, bytes: COMMAND_BYTES }
    }
}

impl Bench {
    /// Two clusters that are the same but for one option, in turns.
    fn throughput(&self) {
        let (with, without) = (place::row(&self.place), place::row(&self.place));
        let options = by_log_bytes(self.sizes.snapshot_log_bytes);
        let mut with = Replicas::start(with.path(), &options).expect("three nodes");
        let mut without = Replicas::start(without.path(), &by_log_bytes(u64::MAX)).expect("three");
        let writes = Writes { keys: KEYS_SMALL, bytes: COMMAND_BYTES };
        let round = self.sizes.round;
        for replicas in [&mut with, &mut without] {
            // Every key is there, and files of the log are used again, before anything counts.
            replicas.run_while(IN_FLIGHT, writes, for_so_long(round / 4));
        }
        let mut events: Vec<_> = (1..=3).map(|id| with.node(id).events()).collect();
        let (mut rates, mut rates_without, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..self.sizes.rounds {
            for turn in 0..2 {
                if (number + turn) % 2 == 0 {
                    rates.push(with.run_while(IN_FLIGHT, writes, for_so_long(round)));
                    taken.push(events.iter_mut().map(snapshots_seen).sum::<usize>() as f64 / 3.0);
                } else {
                    let rate = without.run_while(IN_FLIGHT, writes, for_so_long(round));
                    rates_without.push(rate);
                }
            }
        }
        let shares = rates.iter().zip(&rates_without).map(|(with, without)| with / without);
        print("throughput with snapshots, of that without", shares.collect(), "x", ">= 0.8");
        print("- commands a second with", rates, "", "");
        print("- commands a second without", rates_without, "", "");
        print("- snapshots of each node in a round", taken, "", "");
    }

    /// A follower that has nothing of the state is given all of it.
    fn catch_up(&self) {
        let mut rounds = CatchUps::default();
        let (mut disk, mut memory) = (Vec::new(), Vec::new());
        for _ in 0..self.sizes.rounds {
            let row = place::row(&self.place);
            disk.push(self.disk_rate(&row) / 1e6);
            memory.push(self.memory_rate() / 1e6);
            let mut replicas =
                Replicas::start(row.path(), &by_log_bytes(u64::MAX)).expect("three nodes");
            let follower = self.leave_behind(&mut replicas);
            self.bring_back(&mut replicas, follower, &mut rounds);
        }
        let times =
            rounds.p99.iter().zip(&rounds.p99_before).map(|(during, before)| during / before);
        print("catch-up, from the start of the node on", rounds.rates, "MB/s", ">= 300");
        print("- from its start until it asks", rounds.asked, "s", "");
        print("- transfer, from there until the image is durable", rounds.transfer, "s", "");
        print("- then the state machine takes it in", rounds.restored, "s", "");
        print("- processor time of that", rounds.processor, "s", "");
        print("- the raw disk writes in order", disk, "MB/s", "");
        print("- memory that nobody had is filled", memory, "MB/s", "");
        print("commit p99 during a catch-up, of that before", times.collect(), "x", "<= 2");
        print("- p50 before", rounds.p50_before, "us", "");
        print("- p50 during", rounds.p50, "us", "");
        print("- p99 before", rounds.p99_before, "us", "");
        print("- p99 during", rounds.p99, "us", "");
    }

    /// Stops a follower, has the others take in the state and compact their logs; returns who lacks all of it.
    fn leave_behind(&self, replicas: &mut Replicas) -> u64 {
        let follower = replicas.follower();
        let last = replicas.node(follower).status().last.index;
        replicas.stop_node(follower);
        replicas.fill(self.sizes.keys);
        replicas.run(COMPACTED_COMMANDS, IN_FLIGHT, self.sizes.large_writes());
        replicas.snapshot_all();
        let deadline = Instant::now() + Duration::from_secs(10);
        while replicas.statuses().iter().any(|status| status.log_first <= last + 1) {
            assert!(Instant::now() < deadline, "a log that is not compacted after ten seconds");
            thread::sleep(Duration::from_millis(10));
        }
        follower
    }

    /// Starts it again while a client writes, which did so before, too.
    fn bring_back(&self, replicas: &mut Replicas, follower: u64, rounds: &mut CatchUps) {
        let leader = replicas.node(replicas.leader()).clone();
        let writes = self.sizes.small_writes();
        let (before, ()) = beside(
            |stop| light_load(&leader, writes, stop),
            || thread::sleep(self.sizes.round / 4),
        );
        let begun = Instant::now();
        let (during, (asked, durable, restored)) = beside(
            |stop| light_load(&leader, writes, stop),
            || {
                replicas.start_node(follower).expect("a node that starts");
                let mut events = replicas.node(follower).events();
                let asked =
                    wait_for(&mut events, |event| matches!(event, Event::SnapshotNeeded { .. }));
                let durable =
                    wait_for(&mut events, |event| matches!(event, Event::SnapshotVisible { .. }));
                let deadline = Instant::now() + PATIENCE;
                loop {
                    if let Some(restored) = replicas.probe(follower).last_restored() {
                        return (asked, durable, restored);
                    }
                    assert!(Instant::now() < deadline, "the image is not taken in");
                    thread::sleep(Duration::from_millis(1));
                }
            },
        );
        let took = (restored.ended - begun).as_secs_f64();
        rounds.rates.push(self.sizes.state_bytes() as f64 / took / 1e6);
        rounds.asked.push((asked - begun).as_secs_f64());
        rounds.transfer.push((durable - asked).as_secs_f64());
        rounds.restored.push((restored.ended - restored.begun).as_secs_f64());
        rounds.processor.push(restored.processor.as_secs_f64());
        rounds.note_latencies(&before, &during);
    }

    /// A node begins with its snapshot and replays the log behind it.
    fn restart(&self) {
        let row = place::row(&self.place);
        let (disk, memory) = (self.disk_rate(&row) / 1e6, self.memory_rate() / 1e6);
        let mut replicas =
            Replicas::start(row.path(), &by_log_bytes(u64::MAX)).expect("three nodes");
        replicas.fill(self.sizes.keys);
        replicas.snapshot_all();
        let count = self.sizes.log_bytes / COMMAND_BYTES_LARGE as u64;
        replicas.run(count, IN_FLIGHT, self.sizes.large_writes());
        let last = replicas.node(replicas.leader()).status().last.index;
        let follower = replicas.follower();
        await_applied(&replicas, follower, last);
        let (mut opened, mut replayed) = (Vec::new(), Vec::new());
        let (mut restored, mut processor) = (Vec::new(), Vec::new());
        for _ in 0..self.sizes.rounds {
            replicas.stop_node(follower);
            let begun = Instant::now();
            replicas.start_node(follower).expect("a node that starts");
            opened.push(begun.elapsed().as_secs_f64());
            let taken_in = replicas.probe(follower).last_restored().expect("an image");
            restored.push((taken_in.ended - taken_in.begun).as_secs_f64());
            processor.push(taken_in.processor.as_secs_f64());
            await_applied(&replicas, follower, last);
            replayed.push(begun.elapsed().as_secs_f64());
        }
        print("restart, until all is applied that was", replayed, "s", "< 5");
        print("- until `start` returns", opened, "s", "");
        print("- in which the state machine takes in the image", restored, "s", "");
        print("- processor time of that", processor, "s", "");
        print("- the raw disk writes in order", vec![disk], "MB/s", "");
        print("- memory that nobody had is filled", vec![memory], "MB/s", "");
    }

    /// Commands go on while the whole state is captured and written.
    fn capture(&self) {
        let row = place::row(&self.place);
        let mut replicas =
            Replicas::start(row.path(), &by_log_bytes(u64::MAX)).expect("three nodes");
        replicas.fill(self.sizes.keys);
        let leader = replicas.leader();
        let (node, probe) = (replicas.node(leader).clone(), replicas.probe(leader).clone());
        let writes = self.sizes.large_writes();
        let mut longest_gap_ms = |goes_on: &mut dyn FnMut() -> bool| {
            // The time since the last load is no gap of this one.
            replicas.run(1, 1, writes);
            probe.take();
            replicas.run_while(IN_FLIGHT_SOME, writes, goes_on);
            let seen = probe.take();
            (milliseconds(seen.gap), seen.captures.into_iter().map(milliseconds))
        };
        let (mut captures, mut gaps, mut gaps_without) = (Vec::new(), Vec::new(), Vec::new());
        let mut written = Vec::new();
        for _ in 0..self.sizes.rounds {
            let begun = Instant::now();
            let (mut taking, mut events) = (None, node.events());
            let (gap, took) = longest_gap_ms(&mut || {
                taking.get_or_insert_with(|| node.snapshot());
                assert!(begun.elapsed() < PATIENCE, "the snapshot is not written");
                snapshots_seen(&mut events) == 0
            });
            written.push(begun.elapsed().as_secs_f64());
            gaps.push(gap);
            captures.extend(took);
            let (gap, _) = longest_gap_ms(&mut for_so_long(begun.elapsed()));
            gaps_without.push(gap);
        }
        print("capture of the state", captures, "ms", "<= 5");
        print("- longest gap between two commands while it is written", gaps, "ms", "");
        print("- as long without", gaps_without, "ms", "");
        print("- written after", written, "s", "");
    }

    /// Bytes a second, of as many as the state has.
    fn disk_rate(&self, row: &TempDir) -> f64 {
        raw::sequential_rate(row.path(), self.sizes.state_bytes()).expect("a disk that works")
    }

    /// The same of memory that the system has to give first: a state that is taken in needs as much.
    fn memory_rate(&self) -> f64 {
        let bytes = usize::try_from(self.sizes.state_bytes()).expect("a state in memory");
        let begun = Instant::now();
        drop(black_box(vec![1_u8; bytes]));
        self.sizes.state_bytes() as f64 / begun.elapsed().as_secs_f64()
    }
}

/// One figure of each round.
#[derive(Default)]
struct CatchUps {
    rates: Vec<f64>,
    asked: Vec<f64>,
    transfer: Vec<f64>,
    restored: Vec<f64>,
    processor: Vec<f64>,
    p50_before: Vec<f64>,
    p50: Vec<f64>,
    p99_before: Vec<f64>,
    p99: Vec<f64>,
}

impl CatchUps {
    fn note_latencies(&mut self, before: &Latencies, during: &Latencies) {
        self.p50_before.push(before.percentile_us(50.0));
        self.p50.push(during.percentile_us(50.0));
        self.p99_before.push(before.percentile_us(99.0));
        self.p99.push(during.percentile_us(99.0));
    }
}

/// The options that every user gets, but for when a snapshot is due.
fn by_log_bytes(least: u64) -> Options {
    let mut options = Options::default();
    options.snapshot_log_bytes_min = least;
    options
}

/// Does `work` while a thread of its own does `load`, which ends after it.
fn beside<T>(
    load: impl FnOnce(&AtomicBool) -> Latencies + Send,
    work: impl FnOnce() -> T,
) -> (Latencies, T) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| load(&stop));
        // Also when `work` panics: the scope waits for the load.
        let stopper = Stopper(&stop);
        let result = work();
        drop(stopper);
        (load.join().expect("a load that goes on"), result)
    })
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn for_so_long(duration: Duration) -> impl FnMut() -> bool {
    let end = Instant::now() + duration;
    move || Instant::now() < end
}

/// How many became visible since the last time.
fn snapshots_seen(events: &mut Events) -> usize {
    let is_visible = |event: &Event| matches!(event, Event::SnapshotVisible { .. });
    std::iter::from_fn(|| events.next_timeout(Duration::ZERO)).filter(is_visible).count()
}

/// When it happened.
fn wait_for(events: &mut Events, is_it: impl Fn(&Event) -> bool) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match events.next_timeout(deadline.saturating_duration_since(Instant::now())) {
            Some(event) if is_it(&event) => return Instant::now(),
            Some(_) => {}
            None => panic!("it did not happen in {PATIENCE:?}"),
        }
    }
}

fn await_applied(replicas: &Replicas, id: u64, index: u64) {
    let deadline = Instant::now() + PATIENCE;
    while replicas.node(id).status().applied < index {
        assert!(Instant::now() < deadline, "index {index} is not applied on node {id}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn print(name: &str, figures: Vec<f64>, unit: &str, goal: &str) {
    let Spread { median, least, greatest } = Spread::of(figures);
    // Three digits that say something, whatever the unit.
    let digits = |figure: f64| match figure.abs() {
        100.0.. => format!("{figure:.0}"),
        1.0.. => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    };
    let [median, least, greatest] = [median, least, greatest].map(digits);
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    table::print_row([name, &format!("{median}{unit} ({least} .. {greatest})"), goal]);
}

/// Full load: the most that the project's figures have in flight.
const IN_FLIGHT: usize = 1024;
/// Enough that something is always applied.
const IN_FLIGHT_SOME: usize = 64;
const COMMAND_BYTES: usize = 128;
/// An entry of the large state, and the kind of the command.
const COMMAND_BYTES_LARGE: usize = 1 + 1024;
/// A state of 4 MiB, so that the least number of bytes says when a snapshot is due, and not the ratio.
const KEYS_SMALL: u64 = 32 << 10;
/// Several times what stays in the log behind a snapshot.
const COMPACTED_COMMANDS: u64 = 3 << 12;
/// Nothing that is measured takes nearly so long.
const PATIENCE: Duration = Duration::from_secs(60);

const _: () = assert!(COMMAND_BYTES_LARGE as u64 == 1 + ENTRY_BYTES);
