//! Many lives of one directory, each behind the other: see `kontiki_sim::lives`.

use kontiki_sim::lives::{self, Tally};

/// What fails without a rule of the log: `trailer-found-is-believed`, `trailer-zeroed-as-its-segment-is-sealed-again` and
/// `beginning-read-again`.
const KEPT: [u64; 3] = [177, 1508, 44_193];

/// WAL-CASE 11, WAL-CASE 19, WAL-CASE 21, WAL-CASE 45, WAL-CASE 62. So many: `KONTIKI_LIVES`; from another seed on: `KONTIKI_SEED`,
/// which with one of them replays what failed.
#[test]
fn what_was_shown_or_acknowledged_survives_every_row_of_stops() {
    let number = |name, otherwise| {
        std::env::var(name).map_or(otherwise, |text: String| text.parse().expect("a number"))
    };
    let (first, count) = (number("KONTIKI_SEED", 1), number("KONTIKI_LIVES", 2000));
    let mut tally = Tally::default();
    for seed in KEPT.into_iter().chain(first..first + count) {
        match lives::run(seed) {
            Ok(met) => tally = tally.and(met),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    println!("from seed {first}: {tally:?}");
    if count >= 1000 {
        let Tally {
            openings_failed, idle_lives, closes, kills, power_cuts, poisoned, rots, ..
        } = tally;
        let without_cache = tally.openings_without_cache;
        let met =
            [openings_failed, idle_lives, closes, kills, power_cuts, poisoned, rots, without_cache];
        assert!(met.iter().all(|&number| number > count / 50), "too little was met: {tally:?}");
    }
}
