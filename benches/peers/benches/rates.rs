//! Ours, the raw disk and the peers by criterion, with percentiles of the same run: see README.md two directories above.

#![forbid(unsafe_code)]

use criterion::{Criterion, SamplingMode, Throughput};
use kontiki_bench::{place, rates};
use kontiki_peers::{
    contest::{Contest, WORKS},
    replay::{self, Replay},
};
use tempfile::TempDir;

fn main() {
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let mut criterion = Criterion::default().configure_from_args();
    append(&mut criterion, &place);
    replay(&mut criterion, &place);
    criterion.final_summary();
}

fn append(criterion: &mut Criterion, place: &TempDir) {
    for work in WORKS {
        let row = place::row(place);
        let mut contest = Contest::create(row.path(), work).expect("fresh directories");
        let mut group = criterion.benchmark_group(format!("append {}", work.name));
        group.throughput(Throughput::Elements(work.group_entries() as u64));
        for contender in contest.contenders() {
            rates::bench(&mut group, contender);
        }
        group.finish();
    }
}

fn replay(criterion: &mut Criterion, place: &TempDir) {
    let row = place::row(place);
    let replay = Replay::write(row.path()).expect("fresh directories");
    let mut group = criterion.benchmark_group(replay::NAME);
    group.throughput(Throughput::Elements(replay::ENTRIES as u64));
    // Some take a second each.
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    for contender in replay.contenders() {
        rates::bench(&mut group, contender);
    }
    group.finish();
}
