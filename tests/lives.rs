//! Many lives of one directory, each behind the other: see `kontiki_sim::lives`.

use kontiki_sim::lives::{self, Tally};

/// Longer: `KONTIKI_LIVES`. Elsewhere: `KONTIKI_SEED`.
#[test]
fn what_was_shown_or_acknowledged_survives_every_row_of_stops() {
    let number = |name, otherwise| {
        std::env::var(name).map_or(otherwise, |text: String| text.parse().expect("a number"))
    };
    let (first, count) = (number("KONTIKI_SEED", 1), number("KONTIKI_LIVES", 2000));
    let mut tally = Tally::default();
    for seed in first..first + count {
        match lives::run(seed) {
            Ok(met) => tally = tally.and(met),
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    println!("{tally:?}");
}
