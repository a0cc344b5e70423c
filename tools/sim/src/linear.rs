//! Whether a history of one register is linearizable: whether its operations can be put in an order in which each takes effect
//! at one moment between its call and its return, and each sees what the ones before it left. What nobody saw the end of may
//! have taken effect at any moment after its call, or never.
//!
//! The search is that of Wing and Gong (1993), with the memory of what was tried before of Lowe (2017). Operations of
//! different registers need no order among each other (Herlihy and Wing, 1990), so each register is looked at by itself.

use std::collections::HashSet;

/// One operation on a register. 0 is the value of one that was never written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// When it was called.
    pub start: u64,
    /// When it returned; `None` if nobody saw that.
    pub end: Option<u64>,
    /// What it did.
    pub action: Action,
}

/// What an operation did, with what it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Wrote a value.
    Put(u64),
    /// Read a value.
    Get(u64),
    /// Wrote `new` if `expected` was there.
    Swap {
        /// What has to be there.
        expected: u64,
        /// What is there afterwards.
        new: u64,
        /// Whether it wrote; `None` if nobody saw that.
        done: Option<bool>,
    },
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none. The operations that no order could place, once as many as possible were.
    Violated(Vec<Operation>),
    /// The search was given up.
    Undecided,
}

impl Action {
    /// The value behind it, if it can take effect where `value` is.
    fn apply(self, value: u64) -> Option<u64> {
        match self {
            Self::Put(new) => Some(new),
            Self::Get(seen) => (seen == value).then_some(value),
            Self::Swap { expected, new, done } => match (expected == value, done) {
                (true, Some(true) | None) => Some(new),
                (false, Some(false) | None) => Some(value),
                _ => None,
            },
        }
    }

    /// The value that it writes, if it does.
    fn written(self) -> Option<u64> {
        match self {
            Self::Put(new) | Self::Swap { new, done: Some(true) | None, .. } => Some(new),
            _ => None,
        }
    }

    /// A value that must have been there.
    fn seen(self) -> Option<u64> {
        match self {
            Self::Get(seen) => Some(seen),
            Self::Swap { expected, done: Some(true), .. } => Some(expected),
            _ => None,
        }
    }
}

/// Looks for an order of the operations of one register, in at most `steps_max` steps. Each value is written once at most.
pub fn check(operations: &[Operation], steps_max: u64) -> Verdict {
    let operations = relevant(operations);
    let mut search = Search::new(&operations);
    let mut steps = 0;
    loop {
        if search.is_done() {
            return Verdict::Linearizable;
        }
        steps += 1;
        if steps > steps_max {
            return Verdict::Undecided;
        }
        if !search.go_on() && !search.go_back() {
            return Verdict::Violated(search.unplaced());
        }
    }
}

/// Without what can be left out: an operation that nobody saw the end of, and whose value nobody saw, need not have been, unless a
/// swap did not find what it expected, which any value may have been the cause of.
fn relevant(operations: &[Operation]) -> Vec<Operation> {
    let mut kept = operations.to_vec();
    let is_denial =
        |kept: &&Operation| matches!(kept.action, Action::Swap { done: Some(false), .. });
    let denied_until = operations.iter().filter(is_denial).filter_map(|kept| kept.end).max();
    let may_deny = |start| denied_until.is_some_and(|until| start < until);
    loop {
        let seen: HashSet<u64> = kept.iter().filter_map(|kept| kept.action.seen()).collect();
        // A swap whose outcome is unknown can have been what made another value to be seen.
        let expected = kept.iter().filter_map(|kept| match kept.action {
            Action::Swap { expected, new, done: None } if seen.contains(&new) => Some(expected),
            _ => None,
        });
        let seen: HashSet<u64> = seen.iter().copied().chain(expected).collect();
        let before = kept.len();
        kept.retain(|operation| {
            let written = operation.action.written();
            operation.end.is_some()
                || written.is_some_and(|written| seen.contains(&written))
                || written.is_some() && may_deny(operation.start)
        });
        if kept.len() == before {
            kept.sort_by_key(|operation| operation.start);
            return kept;
        }
    }
}

struct Search<'a> {
    operations: &'a [Operation],
    /// Whether each is placed.
    placed: Vec<bool>,
    value: u64,
    /// The operations placed so far, each with the value before it, and the next one to try in its place.
    order: Vec<(usize, u64)>,
    /// The first operation that may be tried now.
    next: usize,
    /// How many are placed that must be, and how many there are.
    required: (usize, usize),
    tried: HashSet<(Vec<u64>, u64)>,
    /// Those that were not placed when most were.
    best: (usize, Vec<bool>),
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let required = operations.iter().filter(|operation| operation.end.is_some()).count();
        Self {
            operations,
            placed: vec![false; operations.len()],
            value: 0,
            order: Vec::new(),
            next: 0,
            required: (0, required),
            tried: HashSet::new(),
            best: (0, vec![false; operations.len()]),
        }
    }

    fn is_done(&self) -> bool {
        self.required.0 == self.required.1
    }

    /// Places one more operation, if one can be.
    fn go_on(&mut self) -> bool {
        let limit = self.limit();
        for number in self.next..self.operations.len() {
            let operation = &self.operations[number];
            if operation.start > limit {
                break;
            }
            if self.placed[number] {
                continue;
            }
            let Some(value) = operation.action.apply(self.value) else { continue };
            self.placed[number] = true;
            if !self.tried.insert((self.bits(), value)) {
                self.placed[number] = false;
                continue;
            }
            self.order.push((number, self.value));
            self.value = value;
            self.next = 0;
            self.required.0 += usize::from(operation.end.is_some());
            if self.required.0 > self.best.0 {
                self.best = (self.required.0, self.placed.clone());
            }
            return true;
        }
        false
    }

    /// Takes the last one back, to try those behind it.
    fn go_back(&mut self) -> bool {
        let Some((number, value)) = self.order.pop() else { return false };
        self.placed[number] = false;
        self.required.0 -= usize::from(self.operations[number].end.is_some());
        (self.value, self.next) = (value, number + 1);
        true
    }

    /// What is placed next was called before all that are not placed have returned.
    fn limit(&self) -> u64 {
        let open = self.operations.iter().zip(&self.placed).filter(|(_, placed)| !**placed);
        open.filter_map(|(operation, _)| operation.end).min().unwrap_or(u64::MAX)
    }

    fn bits(&self) -> Vec<u64> {
        let chunk =
            |chunk: &[bool]| chunk.iter().rev().fold(0, |bits, &bit| bits << 1 | u64::from(bit));
        self.placed.chunks(64).map(chunk).collect()
    }

    fn unplaced(&self) -> Vec<Operation> {
        let best = self.operations.iter().zip(&self.best.1);
        best.filter(|(operation, placed)| operation.end.is_some() && !**placed)
            .map(|(operation, _)| *operation)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn operation(start: u64, end: u64, action: Action) -> Operation {
        Operation { start, end: Some(end), action }
    }

    fn unknown(start: u64, action: Action) -> Operation {
        Operation { start, end: None, action }
    }

    fn swap(expected: u64, new: u64, done: bool) -> Action {
        Action::Swap { expected, new, done: Some(done) }
    }

    fn is_linearizable(operations: &[Operation]) -> bool {
        match check(operations, 1 << 20) {
            Verdict::Linearizable => true,
            Verdict::Violated(_) => false,
            Verdict::Undecided => panic!("undecided"),
        }
    }

    use Action::{Get, Put};

    #[test]
    fn what_overlaps_may_take_effect_in_either_order() {
        assert!(is_linearizable(&[
            operation(0, 10, Put(1)),
            operation(5, 15, Put(2)),
            operation(20, 30, Get(1)),
            operation(25, 35, Get(1)),
        ]));
        assert!(is_linearizable(&[operation(0, 10, Put(1)), operation(5, 6, Get(0))]));
        assert!(is_linearizable(&[operation(0, 10, Put(1)), operation(5, 6, Get(1))]));
    }

    #[test]
    fn known_bad_histories_are_found() {
        let bad: [&[Operation]; 7] = [
            // A stale read.
            &[operation(0, 10, Put(1)), operation(20, 30, Get(0))],
            // A read of what is written later.
            &[operation(0, 10, Get(1)), operation(20, 30, Put(1))],
            // A value that goes back.
            &[
                operation(0, 10, Put(1)),
                operation(0, 100, Put(2)),
                operation(20, 30, Get(2)),
                operation(40, 50, Get(1)),
            ],
            // A lost write.
            &[operation(0, 10, Put(1)), operation(20, 30, Put(2)), operation(40, 50, Get(1))],
            // Two swaps of one value.
            &[
                operation(0, 10, Put(1)),
                operation(20, 30, swap(1, 2, true)),
                operation(20, 30, swap(1, 3, true)),
            ],
            // A swap that should have succeeded.
            &[operation(0, 10, Put(1)), operation(20, 30, swap(1, 2, false))],
            // Of a write that nobody saw the end of, seen and then not seen.
            &[unknown(0, Put(1)), operation(20, 30, Get(1)), operation(40, 50, Get(0))],
        ];
        for history in bad {
            assert!(!is_linearizable(history), "{history:?}");
        }
    }

    #[test]
    fn what_nobody_saw_the_end_of_may_take_effect_late_or_never() {
        let write = unknown(0, Put(1));
        assert!(is_linearizable(&[write, operation(20, 30, Get(0))]));
        assert!(is_linearizable(&[write, operation(20, 30, Get(0)), operation(40, 50, Get(1))]));
        let chain = unknown(0, Action::Swap { expected: 1, new: 2, done: None });
        assert!(is_linearizable(&[write, chain, operation(20, 30, Get(2))]));
        assert!(!is_linearizable(&[chain, operation(20, 30, Get(2))]), "nothing wrote 1");
    }

    #[test]
    fn what_could_not_be_placed_is_named() {
        let history = [operation(0, 10, Put(1)), operation(20, 30, Get(0))];
        assert_eq!(check(&history, 100), Verdict::Violated(vec![history[1]]));
        assert_eq!(check(&history, 1), Verdict::Undecided);
    }

    /// Histories of a register that is one, with clients that are late to call and to return; and the same with one value
    /// read wrongly, which is found by trying all orders as well.
    #[test]
    fn the_search_agrees_with_trying_all_orders() {
        let (mut good, mut bad) = (0, 0);
        for seed in 0..2000 {
            let mut random = Random::new(seed);
            let mut history = draw(&mut random);
            if random.chance(50) {
                let number = usize::try_from(random.below(history.len() as u64)).unwrap();
                if let Get(seen) = &mut history[number].action {
                    *seen = random.below(4);
                }
            }
            let expected = try_all(&history, &mut vec![false; history.len()], 0);
            assert_eq!(is_linearizable(&history), expected, "seed {seed}: {history:?}");
            if expected { good += 1 } else { bad += 1 }
        }
        assert!(good > 500 && bad > 100, "{good} good, {bad} bad");
    }

    fn draw(random: &mut Random) -> Vec<Operation> {
        let (mut value, mut history) = (0, Vec::new());
        for number in 0..random.between(2, 6) {
            let at = 10 * number + 30;
            let (start, end) = (at - random.below(30), at + random.below(30));
            let action = match random.below(3) {
                0 => Put(number + 1),
                1 => Get(value),
                _ => {
                    let expected = random.below(4);
                    swap(expected, number + 1, expected == value)
                }
            };
            value = action.apply(value).unwrap();
            let is_seen = matches!(action, Get(_)) || random.chance(70);
            let action = match action {
                Action::Swap { expected, new, .. } if !is_seen => {
                    Action::Swap { expected, new, done: None }
                }
                action => action,
            };
            history.push(Operation { start, end: is_seen.then_some(end), action });
        }
        history
    }

    fn try_all(history: &[Operation], placed: &mut Vec<bool>, value: u64) -> bool {
        let open = |placed: &[bool]| {
            let open = history.iter().zip(placed).filter(|(_, placed)| !**placed);
            open.filter_map(|(operation, _)| operation.end).min()
        };
        let Some(limit) = open(placed) else { return true };
        (0..history.len()).any(|number| {
            if placed[number] || history[number].start > limit {
                return false;
            }
            let Some(after) = history[number].action.apply(value) else { return false };
            placed[number] = true;
            let found = try_all(history, placed, after);
            placed[number] = false;
            found
        })
    }
}
