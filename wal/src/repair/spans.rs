//! Sets of indexes of one log, as runs.

use std::ops::Range;

use crate::{Bounds, repair::TermRun};

/// Indexes of one log: first and last of each run, ascending and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(u64, u64)>);

impl Spans {
    /// All that a log holds.
    pub(super) fn of(bounds: &Bounds) -> Self {
        let mut spans = Self::default();
        spans.push(bounds.first..bounds.last.saturating_add(1));
        spans
    }

    /// Adds indexes; those that do not lie behind all that is there are left out.
    pub(super) fn push(&mut self, range: Range<u64>) {
        let end = self.0.last().map_or(0, |run| run.1.saturating_add(1));
        let first = range.start.max(end);
        if first >= range.end {
            return;
        }
        match self.0.last_mut().filter(|run| run.1.checked_add(1) == Some(first)) {
            Some(run) => run.1 = range.end - 1,
            None => self.0.push((first, range.end - 1)),
        }
    }

    /// Those that `others` has not.
    pub(super) fn without(&self, others: &Self) -> Self {
        let mut left = Self::default();
        let mut others = others.0.iter().peekable();
        for &(first, last) in &self.0 {
            let mut next = first;
            while others.next_if(|other| other.1 < next).is_some() {}
            while let Some(other) = others.peek().filter(|other| other.0 <= last) {
                left.push(next..other.0.max(next));
                next = other.1.saturating_add(1);
                if other.1 >= last {
                    break;
                }
                others.next();
            }
            left.push(next..last.saturating_add(1));
        }
        left
    }

    /// The same, parted where the term changes.
    pub(super) fn runs(&self, bounds: &Bounds) -> Vec<TermRun> {
        let mut runs = Vec::new();
        for &(first, last) in &self.0 {
            let mut next = first;
            while next <= last {
                let after = bounds.runs.partition_point(|run| run.0 <= next);
                let end = bounds.runs.get(after).map_or(last, |run| last.min(run.0 - 1));
                let term = after.checked_sub(1).map_or(0, |run| bounds.runs[run].1);
                runs.push(TermRun { first: next, last: end, term });
                next = end + 1;
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ranges: &[Range<u64>]) -> Spans {
        let mut spans = Spans::default();
        ranges.iter().cloned().for_each(|range| spans.push(range));
        spans
    }

    #[test]
    fn runs_that_touch_are_one_and_what_comes_again_is_left_out() {
        assert_eq!(spans(&[1..3, 3..5, 7..8]).0, [(1, 4), (7, 7)]);
        assert_eq!(spans(&[1..5, 2..7, 3..4, 9..9]).0, [(1, 6)]);
    }

    #[test]
    fn what_is_left_is_every_index_that_the_others_have_not() {
        // Every pair of sets of the indexes 1 to 6, against the same as bits.
        let of_bits = |bits: u64| {
            let mut spans = Spans::default();
            (1..7).filter(|index| bits >> index & 1 == 1).for_each(|i| spans.push(i..i + 1));
            spans
        };
        for a in (0..128).step_by(2) {
            for b in (0..128).step_by(2) {
                assert_eq!(of_bits(a).without(&of_bits(b)), of_bits(a & !b), "{a:b} {b:b}");
            }
        }
    }

    #[test]
    fn runs_end_where_the_term_changes() {
        let runs = vec![(1, 3), (4, 5)];
        let bounds = Bounds { first: 1, last: 9, term_before: 0, runs: runs.into(), state: None };
        let run = |first, last, term| TermRun { first, last, term };
        assert_eq!(spans(&[2..6, 8..9]).runs(&bounds), [run(2, 3, 3), run(4, 5, 5), run(8, 8, 5)]);
        assert_eq!(Spans::of(&bounds).runs(&bounds), [run(1, 3, 3), run(4, 9, 5)]);
    }
}
