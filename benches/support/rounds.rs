//! Two kinds of work in turns, so that whatever else the machine does hits both.

use std::time::Duration;

use super::device::{Counters, Device};

/// Something that can be done `groups` times and says how long that took.
pub(crate) type Run<'a> = &'a mut dyn FnMut(u64) -> Duration;

/// Rounds measured; odd, so that the median is one of them.
pub(crate) const ROUNDS: usize = 5;

/// What the rounds gave.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Groups a second, one figure a round.
    pub(crate) ours: Spread,
    pub(crate) raw: Spread,
    /// Ours as a share of the raw disk's, round by round.
    pub(crate) share: Spread,
    /// What the device counted for one group, where it counts.
    pub(crate) ours_device: Option<PerGroup>,
    pub(crate) raw_device: Option<PerGroup>,
}

/// Runs both for about `round` in each round, in turns; who begins changes from round to round.
pub(crate) fn measure(
    ours: Run<'_>,
    raw: Run<'_>,
    round: Duration,
    device: Option<&Device>,
) -> Measured {
    let groups = [groups_in(ours, round), groups_in(raw, round)];
    let mut rates = [Vec::new(), Vec::new()];
    let mut counted = [Counters::default(); 2];
    for number in 0..ROUNDS {
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let run: &mut dyn FnMut(u64) -> Duration = if which == 0 { ours } else { raw };
            let before = device.and_then(|device| device.counters().ok());
            let elapsed = run(groups[which]);
            rates[which].push(groups[which] as f64 / elapsed.as_secs_f64());
            if let (Some(before), Some(device)) = (before, device)
                && let Ok(after) = device.counters()
            {
                let more = after - before;
                counted[which].kib_written += more.kib_written;
                counted[which].flushes += more.flushes;
            }
        }
    }
    let [ours_rates, raw_rates] = rates;
    let shares = ours_rates.iter().zip(&raw_rates).map(|(ours, raw)| ours / raw).collect();
    let per_group =
        |which: usize| device.map(|_| PerGroup::of(counted[which], groups[which] * ROUNDS as u64));
    Measured {
        ours_device: per_group(0),
        raw_device: per_group(1),
        ours: Spread::of(ours_rates),
        raw: Spread::of(raw_rates),
        share: Spread::of(shares),
    }
}

/// How many groups take about `round`; also warms everything up.
fn groups_in(run: Run<'_>, round: Duration) -> u64 {
    let mut groups = 1_u64;
    loop {
        let elapsed = run(groups);
        if elapsed * 4 >= round {
            let wanted = u128::from(groups) * round.as_nanos() / elapsed.as_nanos();
            return u64::try_from(wanted).expect("at most four times as many").max(1);
        }
        groups *= 2;
    }
}

/// Median and range of some figures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) greatest: f64,
}

impl Spread {
    /// # Panics
    /// If there are none.
    pub(crate) fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let least = figures[0];
        let greatest = figures[figures.len() - 1];
        Self { median: figures[figures.len() / 2], least, greatest }
    }
}

/// What the device did for one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerGroup {
    pub(crate) flushes: f64,
    pub(crate) kib_written: f64,
}

impl PerGroup {
    fn of(counted: Counters, groups: u64) -> Self {
        let per_group = |count: u64| count as f64 / groups as f64;
        Self { flushes: per_group(counted.flushes), kib_written: per_group(counted.kib_written) }
    }
}
