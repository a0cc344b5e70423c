//! The append path beside the raw disk, by criterion: see README.md in this directory.

#![forbid(unsafe_code)]

mod support {
    pub(crate) mod appends;
    pub(crate) mod frames;
    pub(crate) mod place;
    pub(crate) mod raw;
}

use criterion::{Criterion, Throughput};
use tempfile::TempDir;

use support::{
    appends::{Appends, WORKS},
    place,
    raw::RawDisk,
};

fn main() {
    let place = place::fresh_or_exit();
    let mut criterion = Criterion::default().configure_from_args();
    append(&mut criterion, &place);
    criterion.final_summary();
}

fn append(criterion: &mut Criterion, place: &TempDir) {
    for work in WORKS {
        let mut group = criterion.benchmark_group(format!("append {}", work.name));
        group.throughput(Throughput::Elements(work.group_entries()));

        let row = place::row(place);
        let appends = Appends::create(row.path(), work).expect("a fresh directory");
        group
            .bench_function("kontiki", |bencher| bencher.iter_custom(|groups| appends.run(groups)));

        let mut raw = RawDisk::create(row.path(), work.group_bytes()).expect("room for 64 MiB");
        group.bench_function("raw disk", |bencher| {
            bencher.iter_custom(|groups| raw.run(groups).expect("a disk that works"));
        });
        group.finish();
    }
}
