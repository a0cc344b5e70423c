//! The commit path beside the raw disk, by criterion: see README.md in this directory.

#![forbid(unsafe_code)]

mod support {
    pub(crate) mod commits;
    pub(crate) mod frames;
    pub(crate) mod place;
    pub(crate) mod raw;
}

use std::path::Path;

use criterion::{Criterion, Throughput};

use support::{
    commits::{self, Cluster, IN_FLIGHT},
    place,
    raw::RawDisk,
};

fn main() {
    let place = place::fresh_or_exit();
    let mut criterion = Criterion::default().configure_from_args();
    commit(&mut criterion, place.path());
    criterion.final_summary();
}

fn commit(criterion: &mut Criterion, directory: &Path) {
    let cluster = Cluster::start(directory).expect("three nodes");
    for in_flight in IN_FLIGHT {
        let mut group = criterion.benchmark_group(format!("commit, {in_flight} in flight"));
        // One iteration is as many commands as are in flight: what one sync could carry.
        let commands = in_flight as u64;
        group.throughput(Throughput::Elements(commands));
        group.bench_function("kontiki", |bencher| {
            bencher.iter_custom(|groups| cluster.run(groups * commands, in_flight));
        });

        let mut raw =
            RawDisk::create(directory, commits::group_bytes(in_flight)).expect("room for 64 MiB");
        group.bench_function("raw disk", |bencher| {
            bencher.iter_custom(|groups| raw.run(groups).expect("a disk that works"));
        });
        group.finish();
    }
}
