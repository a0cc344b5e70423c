//! Simulated clusters: a few worlds, those that failed once, and all that can happen to three cores in a few steps. More of
//! both: `cargo run --release -p kontiki-sim -- --help`.

use std::{collections::BTreeSet, env, fs, path::Path};

use kontiki_sim::{
    explore::{Limits, explore},
    world,
};

fn run(seed: u64) -> world::Report {
    world::run(seed, &BTreeSet::new(), None).unwrap_or_else(|failure| {
        panic!("seed {seed} at {} ns: {}; sim --seed {seed}", failure.at, failure.what)
    })
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in [1, 8] {
        let (one, other) = (run(seed), run(seed));
        assert_eq!(one.fingerprint, other.fingerprint, "seed {seed}");
        assert_eq!(one.history, other.history, "seed {seed}");
        let installed = one.coverage.of("a snapshot takes the place of a state") > 0;
        assert_eq!(installed, seed == 8, "seed {seed}");
    }
}

/// What failed once is never lost sight of.
#[test]
fn every_seed_that_ever_failed_holds() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seeds.txt");
    let seeds = fs::read_to_string(file).expect("the list of seeds");
    for line in seeds.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let seed = line.split_whitespace().next().and_then(|seed| seed.parse().ok());
        run(seed.expect("a seed comes first in each line"));
    }
}

/// So deep all states are seen from each beginning, in so many: here, and by night. A core that can do more takes more states.
const DEPTHS: [(usize, [usize; 4]); 2] = [(100_000, [6, 5, 5, 4]), (1_000_000, [8, 7, 6, 5])];

/// `EXPLORE_STATES`: how many, for more than a few seconds.
#[test]
fn in_every_order_of_a_few_steps_three_cores_keep_what_they_promise() {
    let states =
        env::var("EXPLORE_STATES").map_or(DEPTHS[0].0, |states| states.parse().expect("a number"));
    let limits = Limits { states, ..Limits::USUAL };
    let explored = explore(limits).unwrap_or_else(|what| panic!("{what}"));
    println!("{explored:?}");
    let met = [explored.known, explored.elected, explored.committed, explored.truncated];
    assert!(explored.states >= limits.states - 4 && !met.contains(&0), "{explored:?}");
    let claimed = DEPTHS.iter().rev().find(|(states, _)| limits.states >= *states);
    for (depth, claimed) in explored.depths.iter().zip(claimed.map_or([0; 4], |claimed| claimed.1))
    {
        assert!(*depth >= claimed, "{explored:?}");
    }
}
