//! What ever more appenders that wait get, measured and drawn: see README.md two directories above.

#![forbid(unsafe_code)]

use std::path::Path;

use kontiki_bench::{
    appends::Work,
    arguments::Arguments,
    device::Device,
    place,
    rounds::{self, Measured, ROUNDS},
    table,
};
use kontiki_peers::{
    contest::Contest,
    plot::{self, Line, Point},
};

fn main() {
    let arguments = Arguments::parse_or_exit("waiting --manifest-path benches/peers/Cargo.toml");
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let device = Device::of(place.path()).ok();
    println!("medians of {ROUNDS} rounds of {:?} each, range in brackets\n", arguments.round);
    table::print_contest_head();
    let mut lines = Vec::new();
    for work in WORKS.into_iter().filter(|work| arguments.wants(work.name)) {
        let row = place::row(&place);
        let mut contest = Contest::create(row.path(), work).expect("fresh directories");
        let mut contenders = contest.contenders();
        let all = rounds::measure(&mut contenders, arguments.round, device.as_ref());
        table::print_contest(work.name, work.group_entries(), &all);
        rounds::check(&all, work.group_bytes(), 1);
        add(&mut lines, work, &all);
    }
    let directory =
        if arguments.is_whole() { env!("CARGO_MANIFEST_DIR") } else { env!("CARGO_TARGET_TMPDIR") };
    let picture = Path::new(directory).join("waiting.svg");
    plot::draw(&picture, &lines).expect("a disk that works");
    println!("\ndrawn: {}", picture.display());
}

/// A point more for each line.
fn add(lines: &mut Vec<Line>, work: Work, all: &[Measured]) {
    if lines.is_empty() {
        lines.extend(all.iter().map(|measured| Line { name: measured.name, points: Vec::new() }));
    }
    for (line, measured) in lines.iter_mut().zip(all) {
        line.points.push(Point {
            appenders: work.threads(),
            rate: measured.rate().median * work.group_entries() as f64,
            half_us: measured.latencies.percentile_us(50.0),
            most_us: measured.latencies.percentile_us(99.0),
        });
    }
}

const WORKS: [Work; 9] = [
    Work::waiting("128 B, 1 waiting", 1),
    Work::waiting("128 B, 2 waiting", 2),
    Work::waiting("128 B, 4 waiting", 4),
    Work::waiting("128 B, 8 waiting", 8),
    Work::waiting("128 B, 16 waiting", 16),
    Work::waiting("128 B, 32 waiting", 32),
    Work::waiting("128 B, 64 waiting", 64),
    Work::waiting("128 B, 128 waiting", 128),
    Work::waiting("128 B, 256 waiting", 256),
];
