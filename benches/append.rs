//! The append path beside the raw disk, by criterion, with percentiles of the same run: see README.md in this directory.

#![forbid(unsafe_code)]

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use kontiki_bench::{
    appends::{Appends, IN_FLIGHT, SEQUENTIAL, UNCOMPACTED, WAITING},
    latencies::Latencies,
    place,
    raw::RawDisk,
    rounds::Run,
};

fn main() {
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let mut criterion = Criterion::default().configure_from_args();
    for work in SEQUENTIAL.into_iter().chain(UNCOMPACTED).chain(WAITING).chain(IN_FLIGHT) {
        let row = place::row(&place);
        let mut group = criterion.benchmark_group(format!("append {}", work.name));
        group.throughput(Throughput::Elements(work.group_entries() as u64));
        let appends = Appends::create(row.path(), work).expect("a fresh directory");
        bench(&mut group, "kontiki", Box::new(|groups, latencies| appends.run(groups, latencies)));
        let mut raw = RawDisk::create(row.path(), work.group_bytes()).expect("room for 64 MiB");
        let raw_run: Run<'_> =
            Box::new(|groups, latencies| raw.run(groups, latencies).expect("a disk that works"));
        bench(&mut group, "raw disk", raw_run);
        group.finish();
    }
    criterion.final_summary();
}

/// Criterion's rate, and the percentiles of everything that criterion ran for it.
fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut run: Run<'_>) {
    let mut latencies = Latencies::default();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|groups| run(groups, &mut latencies));
    });
    if !latencies.is_empty() {
        println!("{name}: p50 / p99 / p99.9 {} us\n", latencies.text_us());
    }
}
