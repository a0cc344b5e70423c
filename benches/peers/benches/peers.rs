//! Ours, the raw disk and the peers in turns, in one table: see README.md two directories above.

#![forbid(unsafe_code)]

use kontiki_bench::{
    arguments::Arguments,
    device::Device,
    place,
    rounds::{self, Contender, ROUNDS},
    table,
};
use kontiki_peers::{
    contest::{CONTENDERS, Contest, WORKS},
    replay::{self, Replay},
};

fn main() {
    let arguments = Arguments::parse_or_exit("peers --manifest-path benches/peers/Cargo.toml");
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let device = Device::of(place.path())
        .inspect_err(|error| eprintln!("the device's counters are left out: {error}"))
        .ok();
    println!("medians of {ROUNDS} rounds of {:?} each, range in brackets\n", arguments.round);
    table::print_contest_head();
    let measure =
        |name: &str, group_entries: usize, mut contenders: [Contender<'_>; CONTENDERS]| {
            let all = rounds::measure(&mut contenders, arguments.round, device.as_ref());
            table::print_contest(name, group_entries, &all);
            all
        };
    for work in WORKS.into_iter().filter(|work| arguments.wants(work.name)) {
        let row = place::row(&place);
        let mut contest = Contest::create(row.path(), work).expect("fresh directories");
        let all = measure(work.name, work.group_entries(), contest.contenders());
        rounds::check(&all, work.group_bytes(), 1);
    }
    if arguments.wants(replay::NAME) {
        let row = place::row(&place);
        let replay = Replay::write(row.path()).expect("fresh directories");
        measure(replay::NAME, replay::ENTRIES, replay.contenders());
    }
}
