//! Keeps a stranger, or a peer that tries again and again, from filling the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets a report through at once, after `REPEAT`, and then after twice the time each time it goes on,
/// up to `REPEAT_MAX`; and `REPORTS_MAX` different ones in each `WINDOW`. The rest is counted, and the
/// count told with the next one.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest reports that were let through, oldest first; at most `RECENT_MAX`.
    recent: Vec<Told>,
    held_back: u64,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    report: String,
    /// It is not told again before this has passed.
    pause: Duration,
}

impl Limiter {
    /// The report to make now, if any.
    pub(crate) fn pass(&self, now: Instant, report: String) -> Option<String> {
        let mut state = self.state.lock();
        let age = |told: &Told| now.saturating_duration_since(told.at);
        let in_window = state.recent.iter().filter(|told| age(told) < WINDOW).count();
        let known = state.recent.iter().position(|told| told.report == report);
        let repeats =
            known.is_some_and(|known| age(&state.recent[known]) < state.recent[known].pause);
        if in_window >= REPORTS_MAX || repeats {
            state.held_back += 1;
            return None;
        }
        let mut pause = REPEAT;
        if let Some(before) = known.map(|known| state.recent.remove(known))
            // What had stopped for so long has begun anew.
            && age(&before) < 2 * before.pause
        {
            pause = (2 * before.pause).min(REPEAT_MAX);
        }
        if state.recent.len() == RECENT_MAX {
            state.recent.remove(0);
        }
        state.recent.push(Told { at: now, report: report.clone(), pause });
        match std::mem::take(&mut state.held_back) {
            0 => Some(report),
            more => Some(format!("{report} (and {more} more since the last report)")),
        }
    }
}

const WINDOW: Duration = Duration::from_secs(1);
const REPEAT: Duration = Duration::from_secs(60);
const REPEAT_MAX: Duration = Duration::from_secs(3600);
const REPORTS_MAX: usize = 8;
const RECENT_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_repeated_after_a_minute_and_then_less_and_less() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let pass = |after| limiter.pass(start + after, "x".into());
        assert_eq!(pass(Duration::ZERO).unwrap(), "x");
        assert_eq!(pass(WINDOW), None);
        assert_eq!(pass(REPEAT - WINDOW), None);
        assert_eq!(pass(REPEAT).unwrap(), "x (and 2 more since the last report)");
        assert_eq!(pass(3 * REPEAT - WINDOW), None, "twice as long");
        assert_eq!(pass(3 * REPEAT).unwrap(), "x (and 1 more since the last report)");
        assert_eq!(pass(7 * REPEAT - WINDOW), None, "and again");
        let late = 7 * REPEAT + REPEAT_MAX;
        assert!(pass(late).is_some());
        assert!(pass(late + REPEAT).is_some(), "it had stopped for long: it begins anew");
    }

    #[test]
    fn what_goes_on_for_days_is_told_once_an_hour() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let minutes = |minutes: u32| start + minutes * REPEAT;
        let day =
            (0..24 * 60).filter(|minute| limiter.pass(minutes(*minute), "x".into()).is_some());
        assert_eq!(day.count(), 29);
        let next = (24 * 60..25 * 60).filter(|at| limiter.pass(minutes(*at), "x".into()).is_some());
        assert_eq!(next.count(), 1);
    }

    #[test]
    fn a_flood_of_different_reports_is_counted() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let flood = (0..100).filter_map(|number| limiter.pass(start, number.to_string()));
        assert_eq!(flood.count(), 8);

        let late = limiter.pass(start + WINDOW, "y".into()).unwrap();
        assert_eq!(late, "y (and 92 more since the last report)");
        assert_eq!(limiter.pass(start + WINDOW, "z".into()).unwrap(), "z");
        assert!(limiter.state.lock().recent.len() <= RECENT_MAX);
    }
}
