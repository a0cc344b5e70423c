//! A small seeded generator, for election timeouts and for numbers that must differ after a
//! restart. Not for secrets.

/// A sequence of numbers that is the same for the same seed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number: a counter with odd stride, mixed until its bits look independent.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`. The bias of the remainder is far below what elections can feel.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0);
        self.next() % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence_and_another_seed_another() {
        let sequence = |seed| {
            let mut random = Random::new(seed);
            core::array::from_fn::<_, 8, _>(|_| random.below(1000))
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }
}
