//! The commit path beside the raw disk, by criterion, with percentiles of the same run: see README.md in this directory.

#![forbid(unsafe_code)]

use criterion::{Criterion, Throughput};
use kontiki_bench::{
    commits::{self, Cluster, IN_FLIGHT},
    place, rates,
    raw::RawDisk,
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
        group.throughput(Throughput::Elements(in_flight as u64));
        rates::bench(&mut group, cluster.contender(in_flight));
        let mut raw =
            RawDisk::create(row.path(), commits::group_bytes(in_flight)).expect("room for 64 MiB");
        rates::bench(&mut group, raw.contender());
        group.finish();
    }
}
