//! The read path, by criterion, everything in the page cache: see README.md in this directory.

#![forbid(unsafe_code)]

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput};
use kontiki_bench::{
    frames, place,
    reads::{Stored, read_all, read_one},
};
use kontiki_wal::Log;
use tempfile::TempDir;

fn main() {
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let mut criterion = Criterion::default().configure_from_args().sample_size(10);
    replay(&mut criterion, &place);
    large(&mut criterion, &place);
    page(&mut criterion, &place);
    criterion.final_summary();
}

/// 2.1 million entries of 128 B.
fn replay(criterion: &mut Criterion, place: &TempDir) {
    let row = place::row(place);
    for (name, per_append) in [("256 in an append", 256), ("1 in an append", 1)] {
        let stored = Stored::write(row.path(), 2_100_000, per_append, 128).expect("room");
        let mut group = criterion.benchmark_group(format!("replay of 2.1 M x 128 B, {name}"));
        group.bench_function("kontiki", |bencher| {
            bencher.iter_custom(|times| repeat(times, || stored.open_and_replay()));
        });
        group.bench_function("map and checksum", |bencher| {
            bencher.iter_custom(|times| repeat(times, || stored.map_and_checksum()));
        });
        group.bench_function("map and checksum frame by frame", |bencher| {
            bencher.iter_custom(|times| repeat(times, || stored.map_and_checksum_frames()));
        });
        group.finish();
    }
}

/// 4 GiB of entries of 1 KiB, each a frame of its own.
fn large(criterion: &mut Criterion, place: &TempDir) {
    let row = place::row(place);
    let stored = Stored::write(row.path(), 4 << 20, 1, 1 << 10).expect("room for 4 GiB");
    {
        let log = stored.open();
        let mut group = criterion.benchmark_group("4 GiB of 1 KiB entries");
        group.throughput(Throughput::Bytes(stored.payload_bytes(&log)));
        group.bench_function("read in order", |bencher| bencher.iter(|| read_all(&log)));
        group.finish();
        single(criterion, "one entry of 1 KiB of 4 GiB", &log);
    }
    let mut group = criterion.benchmark_group("verify 4 GiB of 1 KiB entries");
    group.throughput(Throughput::Bytes(stored.file_bytes()));
    for (name, is_deep) in [("frame by frame", false), ("deep", true)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| repeat(times, || stored.verify(is_deep)));
        });
    }
    group.finish();
}

/// The largest frames that reading a single entry is held to: 4 KiB with all that a frame has.
fn page(criterion: &mut Criterion, place: &TempDir) {
    let row = place::row(place);
    let entry_bytes = (4 << 10) - frames::frame_bytes(1, 0);
    let stored = Stored::write(row.path(), 1 << 20, 1, entry_bytes).expect("room for 4 GiB");
    single(criterion, "one entry with a frame of 4 KiB of 4 GiB", &stored.open());
}

fn single(criterion: &mut Criterion, name: &str, log: &Log) {
    let mut group = criterion.benchmark_group(name);
    let mut random = Indexes::of(log.last());
    group.bench_function("at random", |bencher| {
        bencher.iter(|| read_one(log, random.next()));
    });
    let mut next = 1;
    group.bench_function("next to the last one", |bencher| {
        bencher.iter(|| {
            next = next % log.last() + 1;
            read_one(log, black_box(next));
        });
    });
    group.finish();
}

fn repeat(times: u64, mut work: impl FnMut() -> Duration) -> Duration {
    (0..times).map(|_| work()).sum()
}

/// Indexes in an order that no cache foresees: the high bits of a linear congruential generator (Knuth's MMIX).
struct Indexes {
    state: u64,
    last: u64,
}

impl Indexes {
    fn of(last: u64) -> Self {
        Self { state: 1, last }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.state >> 32) % self.last + 1
    }
}
