//! Where one log stands: which indexes it holds, their terms, its state.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{AppendError, checkpoint};

/// Where one log stands: its indexes, terms and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First index in the log; `last + 1` when it is empty.
    pub first: u64,
    /// Last index in the log; `first - 1` when it is empty.
    pub last: u64,
    /// Term of the entry before `first`.
    pub term_before: u64,
    /// First index and term of each run.
    pub(crate) runs: Runs,
    /// The log's state, if it was ever set.
    pub state: Option<Bytes>,
}

/// As a rule there is one run, which then lies in place: an append looks at it.
pub(crate) type Runs = SmallVec<[(u64, u64); 1]>;

impl Default for Bounds {
    /// A log of which nothing is known.
    fn default() -> Self {
        Self { first: 1, last: 0, term_before: 0, runs: Runs::new(), state: None }
    }
}

impl Bounds {
    /// Term of `index`, or of the entry before the first.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index.checked_add(1) == Some(self.first) {
            return Some(self.term_before);
        }
        if index < self.first || index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|run| run.0 <= index);
        Some(self.runs[after - 1].1)
    }

    /// One past the last index that has the term of `index`, if another term follows.
    pub(crate) fn run_end(&self, index: u64) -> u64 {
        let next = self.runs.get(self.runs.partition_point(|run| run.0 <= index));
        next.map_or(u64::MAX, |run| run.0)
    }

    /// First index and term of each run of `first..=last`, both ascending.
    pub fn runs(&self) -> &[(u64, u64)] {
        &self.runs
    }

    /// Term of the last entry, or of the one before the first if there is none.
    pub(crate) fn newest_term(&self) -> u64 {
        self.runs.last().map_or(self.term_before, |run| run.1)
    }

    pub(crate) fn check_append(
        &self,
        index: u64,
        count: u64,
        term: u64,
    ) -> Result<(), AppendError> {
        if index < self.first {
            return Err(AppendError::Compacted { index, first: self.first });
        }
        if index > self.last + 1 {
            return Err(AppendError::Gap { index, next: self.last + 1 });
        }
        // The end of the log must be a number itself.
        if index.checked_add(count).is_none() {
            return Err(AppendError::Beyond { index, limit: u64::MAX - count });
        }
        let newest = if index > self.last {
            self.newest_term()
        } else {
            self.term(index - 1).expect("the entry before is in the log, or before its first")
        };
        if term < newest { Err(AppendError::TermDecreases { term, newest }) } else { Ok(()) }
    }

    pub(crate) fn append(&mut self, first: u64, count: u64, term: u64) {
        self.last = first + count - 1;
        if self.runs.last().is_none_or(|run| run.1 != term) {
            self.runs.push((first, term));
        }
    }

    /// By how much entries of `term` from `first` on can lengthen a checkpoint.
    pub(crate) fn append_growth(&self, first: u64, term: u64) -> u64 {
        let goes_on = self.runs.last().is_some_and(|run| run.1 == term && run.0 < first);
        if goes_on { 0 } else { checkpoint::RUN_BYTES }
    }

    pub(crate) fn cut_from(&mut self, first: u64) {
        self.last = self.last.min(first - 1);
        let keep = self.runs.partition_point(|run| run.0 < first);
        self.runs.truncate(keep);
    }

    pub(crate) fn compact(&mut self, first: u64, term_before: u64) {
        if first <= self.first {
            return;
        }
        let covering = self.runs.partition_point(|run| run.0 <= first);
        self.runs.drain(..covering.saturating_sub(1));
        self.first = first;
        self.term_before = term_before;
        if first > self.last {
            self.runs.clear();
        } else if let Some(run) = self.runs.first_mut() {
            run.0 = first;
        }
    }

    pub(crate) fn checkpoint_bytes(&self) -> u64 {
        let state = self.state.as_ref().map_or(0, Bytes::len) as u64;
        checkpoint::LOG_BYTES + self.runs.len() as u64 * checkpoint::RUN_BYTES + state
    }

    /// Whether they could have been written.
    pub(crate) fn are_sound(&self) -> bool {
        let Some(end) = self.last.checked_add(1) else { return false };
        if self.first == 0 || self.first > end {
            return false;
        }
        let starts_at_first = match self.runs.first() {
            Some(run) => run.0 == self.first && run.1 >= self.term_before,
            None => self.first == end,
        };
        let ascending =
            self.runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        starts_at_first && ascending && self.runs.last().is_none_or(|run| run.0 <= self.last)
    }
}
