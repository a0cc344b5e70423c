//! Several kinds of work in turns, so that whatever else the machine does hits all of them.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    device::{Counters, Device},
    latencies::Latencies,
};

/// Does the work so many times, keeps how long each took where that is of interest, and says how long all of it took.
pub type Run<'a> = Box<dyn FnMut(u64, &mut Latencies) -> Duration + 'a>;

/// One of those that take turns.
pub struct Contender<'a> {
    /// As tables show it.
    pub name: &'static str,
    /// What it does.
    pub run: Run<'a>,
}

impl fmt::Debug for Contender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Contender<'a> {
    /// So named, doing this.
    pub fn new(name: &'static str, run: impl FnMut(u64, &mut Latencies) -> Duration + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }
}

/// Rounds measured; odd, so that the median is one of them.
pub const ROUNDS: usize = 5;

/// What the rounds gave for one contender.
#[derive(Debug)]
pub struct Measured {
    /// The contender's.
    pub name: &'static str,
    /// Groups a second, one figure a round.
    rates: Vec<f64>,
    /// Of all rounds.
    pub latencies: Latencies,
    /// What the device counted for one group, where it counts.
    pub device: Option<PerGroup>,
}

impl Measured {
    /// Groups a second.
    pub fn rate(&self) -> Spread {
        Spread::of(self.rates.clone())
    }

    /// The rate as a share of another's, round by round.
    pub fn share_of(&self, other: &Self) -> Spread {
        Spread::of(self.rates.iter().zip(&other.rates).map(|(ours, other)| ours / other).collect())
    }
}

/// Holds what the device counted against the work: each group of it is `bytes` long, of which all but the raw disk write
/// `copies`, and waits for a sync. So it does where it is in flight: nobody appends before all but a group's entries are durable,
/// so a flush makes no more than a group durable, however many syncs and copies it serves. Others that write to the device only
/// add to it; one that has no cache to empty counts nothing for the raw disk either.
///
/// # Panics
/// If somebody left out a sync or bytes: what was measured is not that work then.
pub fn check(all: &[Measured], bytes: usize, copies: usize) {
    let counted = || all.iter().filter_map(|measured| Some((measured.name, measured.device?)));
    let is_counted = counted().any(|(name, device)| name == RAW_DISK && device.flushes > 0.99);
    for (name, PerGroup { flushes, kib_written }) in counted().filter(|_| is_counted) {
        let copies = if name == RAW_DISK { 1 } else { copies };
        let kib = (copies * bytes) as f64 / 1024.0;
        assert!(flushes > 0.99, "{name}: {flushes:.2} flushes for each group");
        assert!(
            kib_written > 0.99 * kib,
            "{name}: {kib_written:.2} KiB for each group of {kib:.2}"
        );
    }
}

/// The same of bytes alone, for what may need no flush.
///
/// # Panics
/// If somebody left out bytes.
pub fn check_bytes(all: &[Measured], bytes: usize) {
    for (name, device) in all.iter().filter_map(|one| Some((one.name, one.device?))) {
        let (written, kib) = (device.kib_written, bytes as f64 / 1024.0);
        assert!(written > 0.99 * kib, "{name}: {written:.2} KiB for each group of {kib:.2}");
    }
}

/// The name of what everything is measured by.
pub const RAW_DISK: &str = "raw disk";

/// Runs each for about `round` in each round, in turns; who begins changes from round to round.
pub fn measure(
    contenders: &mut [Contender<'_>],
    round: Duration,
    device: Option<&Device>,
) -> Vec<Measured> {
    let groups: Vec<u64> =
        contenders.iter_mut().map(|contender| groups_in(&mut contender.run, round)).collect();
    let mut measured: Vec<Measured> = contenders
        .iter()
        .map(|contender| Measured {
            name: contender.name,
            rates: Vec::new(),
            latencies: Latencies::default(),
            device: None,
        })
        .collect();
    let mut counted = vec![Counters::default(); contenders.len()];
    for number in 0..ROUNDS {
        for turn in 0..contenders.len() {
            let which = (number + turn) % contenders.len();
            let before = device.and_then(|device| device.counters().ok());
            let elapsed = (contenders[which].run)(groups[which], &mut measured[which].latencies);
            measured[which].rates.push(groups[which] as f64 / elapsed.as_secs_f64());
            if let (Some(before), Some(device)) = (before, device)
                && let Ok(after) = device.counters()
            {
                counted[which] = counted[which] + (after - before);
            }
        }
    }
    if device.is_some() {
        for ((measured, counted), groups) in measured.iter_mut().zip(counted).zip(&groups) {
            measured.device = Some(PerGroup::of(counted, groups * ROUNDS as u64));
        }
    }
    measured
}

/// How many groups take about `round`; also warms everything up. The time is that of the whole call: what comes before and
/// after the groups, as the start of threads, belongs to a round, too.
fn groups_in(run: &mut Run<'_>, round: Duration) -> u64 {
    let mut groups = 1_u64;
    loop {
        let begun = Instant::now();
        run(groups, &mut Latencies::default());
        let elapsed = begun.elapsed();
        if elapsed * 4 >= round {
            let wanted = u128::from(groups) * round.as_nanos() / elapsed.as_nanos();
            return u64::try_from(wanted).expect("at most four times as many").max(1);
        }
        groups *= 2;
    }
}

/// Median and range of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub greatest: f64,
}

impl Spread {
    /// # Panics
    /// If there are none.
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let least = figures[0];
        let greatest = figures[figures.len() - 1];
        Self { median: figures[figures.len() / 2], least, greatest }
    }
}

/// What the device did for one group.
#[derive(Clone, Copy, Debug)]
pub struct PerGroup {
    /// Times that it emptied its cache.
    pub flushes: f64,
    /// Written to it.
    pub kib_written: f64,
}

impl PerGroup {
    fn of(counted: Counters, groups: u64) -> Self {
        let per_group = |count: u64| count as f64 / groups as f64;
        Self { flushes: per_group(counted.flushes), kib_written: per_group(counted.kib_written) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(name: &'static str, flushes: f64, kib_written: f64) -> Measured {
        let device = Some(PerGroup { flushes, kib_written });
        Measured { name, rates: Vec::new(), latencies: Latencies::default(), device }
    }

    #[test]
    fn what_the_device_counted_is_held_against_the_work() {
        check(&[measured("a log", 1.0, 6.0), measured(RAW_DISK, 1.0, 4.3)], 4096, 1);
        check(&[measured("two logs", 1.0, 8.0), measured(RAW_DISK, 1.0, 4.3)], 4096, 2);
        // Without a cache there is nothing to empty.
        check(&[measured("a log", 0.0, 6.0), measured(RAW_DISK, 0.0, 4.3)], 4096, 1);
    }

    #[test]
    #[should_panic(expected = "a log: 0.50 flushes")]
    fn a_sync_that_was_left_out_is_seen() {
        check(&[measured("a log", 0.5, 6.0), measured(RAW_DISK, 1.0, 4.3)], 4096, 1);
    }

    #[test]
    #[should_panic(expected = "a log: 2.00 KiB")]
    fn bytes_that_were_not_written_are_seen() {
        check(&[measured("a log", 1.0, 2.0), measured(RAW_DISK, 1.0, 4.3)], 4096, 1);
    }

    #[test]
    #[should_panic(expected = "two logs: 6.00 KiB")]
    fn a_copy_that_was_not_written_is_seen() {
        check(&[measured("two logs", 1.0, 6.0), measured(RAW_DISK, 1.0, 4.3)], 4096, 2);
    }
}
