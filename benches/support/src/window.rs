//! So much work in flight at a time.

use std::{collections::VecDeque, time::Instant};

use crate::latencies::Latencies;

/// Does `count` works, of which at most `window` have begun and are not finished; the oldest is finished first. A latency is
/// from before `begin` until `finish` returns, for which a work that is done waits until those before it are finished.
pub(crate) fn run<W>(
    count: u64,
    window: usize,
    latencies: &mut Latencies,
    mut begin: impl FnMut() -> W,
    finish: impl Fn(W),
) {
    let one_in = if window < WINDOW_SAMPLED { 1 } else { SAMPLED_ONE_IN };
    let mut finish = |(begun, work): (Option<Instant>, W)| {
        finish(work);
        if let Some(begun) = begun {
            latencies.record(begun.elapsed());
        }
    };
    let mut in_flight = VecDeque::with_capacity(window);
    for number in 0..count {
        if in_flight.len() == window {
            finish(in_flight.pop_front().expect("a window of one at least"));
        }
        let begun = number.is_multiple_of(one_in).then(Instant::now);
        in_flight.push_back((begun, begin()));
    }
    in_flight.into_iter().for_each(finish);
}

/// From here on a work takes about a microsecond of the processor: a clock read twice and an entry in the histogram, 67 ns on an
/// AMD EPYC, would be seen in the rate if each were timed.
const WINDOW_SAMPLED: usize = 256;

/// Prime to the windows, so that each place in one comes up.
const SAMPLED_ONE_IN: u64 = 17;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// What was in flight at most, the order in which works were finished, and how many were timed.
    fn observe(count: u64, window: usize) -> (u64, Vec<u64>, u64) {
        let (mut begun, mut in_flight_max) = (0, 0);
        let finished = RefCell::new(Vec::new());
        let mut latencies = Latencies::default();
        let begin = || {
            begun += 1;
            in_flight_max = in_flight_max.max(begun - finished.borrow().len() as u64);
            begun
        };
        run(count, window, &mut latencies, begin, |work| finished.borrow_mut().push(work));
        (in_flight_max, finished.into_inner(), latencies.count())
    }

    #[test]
    fn a_window_is_kept_full_and_emptied_in_order() {
        for (count, window, timed) in [(5, 1, 5), (100, 64, 100), (3, 64, 3), (1700, 256, 100)] {
            let in_flight = count.min(window as u64);
            let expected = (in_flight, (1..=count).collect(), timed);
            assert_eq!(observe(count, window), expected, "{count} in a window of {window}");
        }
    }
}
