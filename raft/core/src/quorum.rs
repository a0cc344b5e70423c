//! Majorities, as pure functions.

/// How many of `count` voters are a majority.
pub(crate) fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// The largest value that a majority has reached, one value per voter; `None` without voters.
///
/// The same question for indexes (what is committed), rounds (who still follows) and instants
/// (when a quorum was last heard).
pub(crate) fn reached_by_majority<T: Ord + Copy>(values: &mut [T]) -> Option<T> {
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.get(majority(values.len()) - 1).copied()
}

/// How an election stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteResult {
    /// A majority granted.
    Won,
    /// So many refused that no majority can grant any more.
    Lost,
    /// Neither, yet.
    Pending,
}

/// How an election among `voters` stands after `granted` and `refused` of them answered.
pub(crate) fn vote_result(voters: usize, granted: usize, refused: usize) -> VoteResult {
    let needed = majority(voters);
    if granted >= needed {
        VoteResult::Won
    } else if voters < needed + refused {
        VoteResult::Lost
    } else {
        VoteResult::Pending
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_voters_nothing_is_reached_and_nobody_wins() {
        assert_eq!(reached_by_majority::<u64>(&mut []), None);
        assert_eq!(vote_result(0, 0, 0), VoteResult::Lost);
    }

    #[test]
    fn of_two_both_are_needed() {
        assert_eq!(reached_by_majority(&mut [9, 4]), Some(4));
        assert_eq!(vote_result(2, 1, 0), VoteResult::Pending);
        assert_eq!(vote_result(2, 1, 1), VoteResult::Lost);
    }

    proptest! {
        #[test]
        fn what_is_reached_is_the_largest_value_that_a_majority_has(
            values in prop::collection::vec(0u64..20, 1..12)
        ) {
            let has = |x: u64| values.iter().filter(|value| **value >= x).count() * 2 > values.len();
            let expected = (0..20).filter(|x| has(*x)).max();
            prop_assert_eq!(reached_by_majority(&mut values.clone()), expected);
        }

        #[test]
        fn two_sets_of_voters_never_both_win(votes in prop::collection::vec(0u8..3, 1..12)) {
            let count = |of: u8| votes.iter().filter(|vote| **vote == of).count();
            let (a, b) = (count(0), count(1));
            let wins: Vec<_> = [vote_result(votes.len(), a, b), vote_result(votes.len(), b, a)]
                .into_iter()
                .filter(|result| *result == VoteResult::Won)
                .collect();
            prop_assert!(wins.len() < 2);
        }

        #[test]
        fn an_election_is_lost_exactly_when_the_missing_answers_can_not_win_it(
            voters in 1usize..12, granted in 0usize..12, refused in 0usize..12
        ) {
            prop_assume!(granted + refused <= voters);
            let best = vote_result(voters, voters - refused, refused);
            let lost = vote_result(voters, granted, refused) == VoteResult::Lost;
            prop_assert_eq!(lost, best != VoteResult::Won);
        }
    }
}
