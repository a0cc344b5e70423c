//! The commit path beside the raw disk, by criterion: see README.md in this directory.

#![forbid(unsafe_code)]

use criterion::{Criterion, Throughput};
use kontiki_bench::{
    commits::{self, Cluster, IN_FLIGHT},
    latencies::Latencies,
    place,
    raw::RawDisk,
    rounds::RAW_DISK,
};
use tempfile::TempDir;

fn main() {
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let mut criterion = Criterion::default().configure_from_args();
    commit(&mut criterion, &place);
    criterion.final_summary();
}

fn commit(criterion: &mut Criterion, place: &TempDir) {
    for in_flight in IN_FLIGHT {
        // A log that the last row made long would weigh on this one.
        let row = place::row(place);
        let cluster = Cluster::start(row.path()).expect("three nodes");
        let mut group = criterion.benchmark_group(format!("commit, {in_flight} in flight"));
        // One iteration is as many commands as are in flight: what one sync could carry.
        let commands = in_flight as u64;
        group.throughput(Throughput::Elements(commands));
        group.bench_function("kontiki", |bencher| {
            bencher.iter_custom(|groups| cluster.run(groups * commands, in_flight));
        });

        let mut raw =
            RawDisk::create(row.path(), commits::group_bytes(in_flight)).expect("room for 64 MiB");
        group.bench_function(RAW_DISK, |bencher| {
            bencher.iter_custom(|groups| {
                raw.run(groups, &mut Latencies::default()).expect("a disk that works")
            });
        });
        group.finish();
    }
}
