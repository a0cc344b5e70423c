//! What criterion measures, with percentiles of the same run.

use criterion::{BenchmarkGroup, measurement::WallTime};

use crate::{latencies::Latencies, rounds::Contender};

/// Criterion's rate, and the percentiles of everything that criterion ran for it.
pub fn bench(group: &mut BenchmarkGroup<'_, WallTime>, mut contender: Contender<'_>) {
    let mut latencies = Latencies::default();
    group.bench_function(contender.name, |bencher| {
        bencher.iter_custom(|groups| (contender.run)(groups, &mut latencies));
    });
    if !latencies.is_empty() {
        println!("{}: p50 / p99 / p99.9 {} us\n", contender.name, latencies.text_us());
    }
}
