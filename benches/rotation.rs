//! What the append pays that goes on in the next segment, by criterion: see README.md in this directory.

#![forbid(unsafe_code)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::Criterion;
use kontiki_disk::MemoryDisk;
use kontiki_wal::{AppendError, Log, LogId, Wal};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("rotation");
    for logs in [1, 100, 10_000] {
        let rotations = Rotations::create(logs);
        group.bench_function(format!("{logs} logs"), |bencher| {
            bencher.iter_custom(|count| rotations.run(count));
        });
    }
    group.finish();
    criterion.final_summary();
}

/// A log without threads on a disk in memory: the append that rotates does no IO, and all that does is not measured.
struct Rotations {
    wal: Wal,
    /// The one that fills the segments.
    hot: Log,
    entry: Bytes,
}

impl Rotations {
    /// So many logs, each with two terms and a state of 32 bytes, as a Raft node's has.
    fn create(logs: u32) -> Self {
        let options = Wal::options().segment_bytes(16 << 20).without_threads();
        let wal = options.disk(Arc::new(MemoryDisk::new())).open("log").expect("a disk in memory");
        for id in 1..=logs {
            let log = wal.log(LogId(id)).expect("an open log");
            for term in 1..=2 {
                drop(log.append(term, term, &[Bytes::from_static(&[1; 16])]).expect("room"));
            }
            drop(log.set_state(Bytes::from_static(&[2; 32])).expect("room"));
            if id % 1000 == 0 {
                wal.work(Duration::ZERO);
            }
        }
        wal.work(Duration::ZERO);
        let hot = wal.log(LogId(1)).expect("an open log");
        Self { wal, hot, entry: Bytes::from(vec![3; 60 << 10]) }
    }

    /// The time of `count` appends that rotate.
    fn run(&self, count: u64) -> Duration {
        let mut elapsed = Duration::ZERO;
        for _ in 0..count {
            elapsed += self.rotate();
            drop(self.hot.compact_before(self.hot.last()).expect("room"));
            self.wal.work(Duration::ZERO);
        }
        elapsed
    }

    /// Fills the active segment; the time of the append that went on in the next one.
    fn rotate(&self) -> Duration {
        loop {
            let segments = self.wal.statistics().segments;
            let begun = Instant::now();
            let pushed = self.hot.push(self.entry.clone());
            let elapsed = begun.elapsed();
            match pushed {
                Ok(_) if self.wal.statistics().segments > segments => return elapsed,
                Ok(_) => {}
                Err(AppendError::Full { .. }) => drop(self.wal.work(Duration::ZERO)),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
