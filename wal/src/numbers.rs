//! A set of segment numbers, kept as runs: a checkpoint of a few bytes can speak of a million of them.

use std::{collections::BTreeMap, ops::Range};

/// Numbers of segments. Costs follow the runs, not the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    /// The last number of each run by its first; runs neither overlap nor touch.
    runs: BTreeMap<u64, u64>,
}

impl Numbers {
    /// Of `runs`, first and last number of each, that neither overlap nor touch.
    pub(crate) fn of(runs: &[(u64, u64)]) -> Self {
        Self { runs: runs.iter().copied().collect() }
    }

    /// First and last number of each run, ascending.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(&first, &last)| (first, last))
    }

    /// How many runs there are.
    pub(crate) fn runs_count(&self) -> u64 {
        self.runs.len() as u64
    }

    /// How many runs there were without `removed`, which ascend and are all in the set.
    pub(crate) fn runs_count_without(&self, removed: &[u64]) -> u64 {
        let mut count = self.runs_count();
        let mut before = None;
        for &number in removed {
            let follows = number > 0 && before != Some(number - 1) && self.contains(number - 1);
            match (follows, self.contains(number + 1)) {
                (true, true) => count += 1,
                (false, false) => count -= 1,
                _ => {}
            }
            before = Some(number);
        }
        count
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        self.run(number).is_some()
    }

    /// Whether one of `range` is in the set.
    pub(crate) fn has_any(&self, range: Range<u64>) -> bool {
        let newest = self.runs.range(..range.end).next_back();
        !range.is_empty() && newest.is_some_and(|(_, &last)| last >= range.start)
    }

    /// Takes a number in; false if it is there already.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        if self.contains(number) {
            return false;
        }
        let last = self.runs.remove(&(number + 1)).unwrap_or(number);
        match self.runs.range_mut(..number).next_back() {
            Some((_, end)) if *end + 1 == number => *end = last,
            _ => {
                self.runs.insert(number, last);
            }
        }
        true
    }

    /// Takes a number out, if it is there.
    pub(crate) fn remove(&mut self, number: u64) {
        let Some((first, last)) = self.run(number) else { return };
        if first < number {
            self.runs.insert(first, number - 1);
        } else {
            self.runs.remove(&first);
        }
        if number < last {
            self.runs.insert(number + 1, last);
        }
    }

    /// Those that are not among `others`.
    pub(crate) fn without(&self, others: impl Iterator<Item = u64>) -> Self {
        let mut left = self.clone();
        others.for_each(|number| left.remove(number));
        left
    }

    /// The run that holds `number`.
    fn run(&self, number: u64) -> Option<(u64, u64)> {
        let (&first, &last) = self.runs.range(..=number).next_back()?;
        (number <= last).then_some((first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn runs(numbers: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &number in numbers {
            match runs.last_mut() {
                Some(run) if run.1 + 1 == number => run.1 = number,
                _ => runs.push((number, number)),
            }
        }
        runs
    }

    /// Against a plain set, in an order that splits, joins, begins and ends runs everywhere.
    #[test]
    fn numbers_that_come_and_go_are_those_of_a_plain_set() {
        let (mut numbers, mut plain) = (Numbers::default(), BTreeSet::new());
        for step in 0..4000_u64 {
            let number = step * step % 61 + step % 7;
            if step % 5 < 3 {
                assert_eq!(numbers.insert(number), plain.insert(number), "step {step}");
            } else {
                numbers.remove(number);
                plain.remove(&number);
            }
            assert!(numbers.runs().eq(runs(&plain)), "step {step}: {numbers:?}");
            assert_eq!(numbers, Numbers::of(&runs(&plain)));
            assert!((0..70).all(|number| numbers.contains(number) == plain.contains(&number)));

            let some = || plain.iter().copied().filter(|number| number % 3 != step % 3);
            let left: BTreeSet<u64> = plain.iter().copied().filter(|n| n % 3 == step % 3).collect();
            assert_eq!(numbers.without(some()), Numbers::of(&runs(&left)), "step {step}");
            let removed: Vec<u64> = some().collect();
            assert_eq!(numbers.runs_count_without(&removed), runs(&left).len() as u64);
        }
    }

    #[test]
    fn a_million_numbers_in_a_row_are_one_run() {
        let mut numbers = Numbers::of(&[(1, 1 << 20)]);
        numbers.insert((1 << 20) + 1);
        assert_eq!(numbers.runs_count(), 1);
        numbers.remove(77);
        assert!(numbers.runs().eq([(1, 76), (78, (1 << 20) + 1)]));
    }
}
