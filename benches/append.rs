//! The append path beside the raw disk, by criterion, with percentiles of the same run: see README.md in this directory.

#![forbid(unsafe_code)]

use std::path::Path;

use criterion::{Criterion, Throughput};
use kontiki_bench::{
    appends::{Appends, IN_FLIGHT, SEQUENTIAL, UNCOMPACTED, WAITING},
    bursts::Bursts,
    place, rates,
    raw::RawDisk,
};

fn main() {
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let mut criterion = Criterion::default().configure_from_args();
    for work in SEQUENTIAL.into_iter().chain(UNCOMPACTED).chain(WAITING).chain(IN_FLIGHT) {
        let row = place::row(&place);
        let mut group = criterion.benchmark_group(format!("append {}", work.name));
        group.throughput(Throughput::Elements(work.group_entries() as u64));
        let appends = Appends::create(row.path(), work).expect("a fresh directory");
        rates::bench(&mut group, appends.contender());
        let mut raw = RawDisk::create(row.path(), work.group_bytes()).expect("room for 64 MiB");
        rates::bench(&mut group, raw.contender());
        group.finish();
    }
    for (name, appends) in [("bursts of 5,000", 5_000), ("bursts of 100,000", 100_000)] {
        not_waiting(&mut criterion, place::row(&place).path(), name, appends);
    }
    criterion.final_summary();
}

/// Appends of 128 B, one at a time; CPU time, not seconds. A burst of 5,000 frames stays in the processor's cache until it is
/// written, one of 100,000, 18 MB, does not.
fn not_waiting(criterion: &mut Criterion, place: &Path, name: &str, appends: u64) {
    let bursts = Bursts::create(place, appends).expect("a fresh directory");
    let mut group = criterion.benchmark_group("append 128 B without waiting, CPU time");
    group.bench_function(name, |bencher| bencher.iter_custom(|count| bursts.run(count)));
    group.finish();
}
