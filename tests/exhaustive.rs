//! Every short sequence of steps on small segments, cut at every operation of the disk, with every subset of what a cut
//! may keep: what is found is a prefix of the operations that contains everything acknowledged.
//!
//! A failure names its place: `KONTIKI_REPLAY=SEQUENCE/LIFE/CUT/SUBSET cargo test --test exhaustive replay --
//! --nocapture` tries that one alone. `KONTIKI_EXHAUSTIVE=1` is the long form: sequences of three steps whole, and of
//! those of four a sample that `KONTIKI_SEED` draws.

use std::time::{Duration, Instant};

use kontiki_sim::{
    exhaustive::Exhaustive,
    random::Random,
    sequence::{Sequence, Start},
    subset::Depth,
};
use rustix::time::{ClockId, clock_gettime};

/// Seeded subsets at each cut where not every one is tried.
const SUBSETS: u64 = 16;

/// Sequences of four steps that the long form tries, in percent.
const SAMPLE_PERCENT: u64 = 25;

/// WAL-CASE 1, WAL-CASE 2, WAL-CASE 3, WAL-CASE 4, WAL-CASE 14, WAL-CASE 46b, WAL-CASE 46d.
#[test]
fn every_history_of_three_steps_from_an_empty_disk_survives_every_power_cut() {
    check(Start::Empty);
}

/// WAL-CASE 12, WAL-CASE 15, WAL-CASE 31, WAL-CASE 33, WAL-CASE 46e, WAL-CASE 51, WAL-CASE 54.
#[test]
fn every_history_of_three_steps_from_a_sealed_segment_on_survives_every_power_cut() {
    check(Start::Lived);
}

/// WAL-CASE 46e, WAL-CASE 47: two steps; three in the long form.
#[test]
fn every_history_of_two_steps_in_which_an_index_of_two_sectors_is_sealed_survives_every_power_cut()
{
    check(Start::Crowded);
}

fn check(start: Start) {
    let long = std::env::var_os("KONTIKI_EXHAUSTIVE").is_some();
    let (disk, mut exhaustive) = (start.disk(), Exhaustive::default());
    let (began, began_cpu) = (Instant::now(), processor_time());
    let mut try_each = |sequences: &mut dyn Iterator<Item = Sequence>, depth, what| {
        for sequence in sequences {
            if let Err(error) = exhaustive.check(&sequence, &disk, depth) {
                panic!("{error}");
            }
        }
        let (wall, busy) = (began.elapsed(), processor_time() - began_cpu);
        let rate = exhaustive.tally.states as f64 / busy.as_secs_f64() * 60.0;
        println!("{start:?}, {what}: {:?}", exhaustive.tally);
        println!("    {busy:.1?} of one core ({wall:.1?}): {rate:.0} states a minute");
        // The time of a processor, and for long enough that it can be told.
        let is_told = busy > Duration::from_secs(5);
        assert!(!is_told || rate > 100_000.0, "{rate:.0} states a minute of one core");
    };
    for length in 0..=2 {
        try_each(&mut Sequence::all(start, length), Depth::Whole, "up to two steps, whole");
    }
    if long {
        try_each(&mut Sequence::all(start, 3), Depth::Whole, "three steps, whole");
        let seed = std::env::var("KONTIKI_SEED").map_or(1, |seed| seed.parse().expect("a number"));
        let four = &mut sample(start, seed);
        try_each(four, Depth::Seeded(SUBSETS), "a sample of four steps");
    } else if start != Start::Crowded {
        try_each(&mut Sequence::all(start, 3), Depth::Seeded(SUBSETS), "three steps, seeded");
    }
    assert!(exhaustive.tally.states > 10_000, "too few: {:?}", exhaustive.tally);
}

/// Sequences of four steps.
fn sample(start: Start, seed: u64) -> impl Iterator<Item = Sequence> {
    println!("seed {seed}");
    let mut random = Random::new(seed);
    Sequence::all(start, 4).filter(move |_| random.chance(SAMPLE_PERCENT))
}

/// What this thread has had of a processor: other work on the machine does not count.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("a thread's time is not negative")
}

#[test]
fn replay() {
    let Ok(place) = std::env::var("KONTIKI_REPLAY") else { return };
    Exhaustive::replay(&place).expect("the log keeps its promise");
}
