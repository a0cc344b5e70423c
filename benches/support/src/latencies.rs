//! How long each operation took, as a distribution.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Durations to three significant digits, in an HDR histogram of nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three significant digits"))
    }
}

impl Latencies {
    /// Does `work` and keeps how long it took.
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.record(begun.elapsed());
        result
    }

    /// Keeps one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).expect("shorter than centuries");
        self.0.record(nanoseconds).expect("a histogram that grows");
    }

    /// Takes those of another thread in.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("histograms of one kind that grow");
    }

    /// Nothing was timed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many were timed.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The duration that `percent` of all do not exceed, in microseconds.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }

    /// The three that the figures are about: 50, 99 and 99.9 percent, in microseconds.
    pub fn text_us(&self) -> String {
        if self.is_empty() {
            return "-".to_owned();
        }
        let [half, most, nearly_all] =
            [50.0, 99.0, 99.9].map(|percent| self.percentile_us(percent));
        format!("{half:.0} / {most:.0} / {nearly_all:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_all_threads() {
        let (mut all, mut other) = (Latencies::default(), Latencies::default());
        (1..=98).for_each(|_| all.record(Duration::from_micros(100)));
        other.record(Duration::from_millis(2));
        other.record(Duration::from_secs(3));
        assert_eq!(Latencies::default().text_us(), "-");
        all.add(&other);
        for (percent, expected) in [(50.0, 100.0), (99.0, 2_000.0), (99.9, 3_000_000.0)] {
            let found = all.percentile_us(percent);
            assert!((found / expected - 1.0).abs() < 0.001, "{percent} percent: {found} us");
        }
    }
}
