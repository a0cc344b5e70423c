//! Keeps a stranger, or a peer that tries again and again, from filling the log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets a report through once in each `REPEAT`, and `REPORTS_MAX` different ones in each `WINDOW`.
/// The rest is counted, and the count told with the next one.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest reports that were let through, oldest first; at most `RECENT_MAX`.
    recent: Vec<(Instant, String)>,
    held_back: u64,
}

impl Limiter {
    /// The report to make now, if any.
    pub(super) fn pass(&self, now: Instant, report: String) -> Option<String> {
        let mut state = self.state.lock();
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let repeats = |(at, text): &(Instant, String)| age(at) < REPEAT && *text == report;
        let in_window = state.recent.iter().filter(|(at, _)| age(at) < WINDOW).count();
        if in_window >= REPORTS_MAX || state.recent.iter().any(repeats) {
            state.held_back += 1;
            return None;
        }
        if state.recent.len() == RECENT_MAX {
            state.recent.remove(0);
        }
        state.recent.push((now, report.clone()));
        match std::mem::take(&mut state.held_back) {
            0 => Some(report),
            more => Some(format!("{report} (and {more} more since the last report)")),
        }
    }
}

const WINDOW: Duration = Duration::from_secs(1);
const REPEAT: Duration = Duration::from_secs(60);
const REPORTS_MAX: usize = 8;
const RECENT_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_not_repeated_within_a_minute() {
        let (limiter, start) = (Limiter::default(), Instant::now());
        let pass = |after| limiter.pass(start + after, "x".into());
        assert_eq!(pass(Duration::ZERO).unwrap(), "x");
        assert_eq!(pass(WINDOW), None);
        assert_eq!(pass(REPEAT - WINDOW), None);
        assert_eq!(pass(REPEAT).unwrap(), "x (and 2 more since the last report)");
        assert_eq!(pass(2 * REPEAT).unwrap(), "x");
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
