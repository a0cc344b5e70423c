//! The lines that are written: each tells who wrote it, so that none can stand in for another.

/// The line at `index` if `round` wrote it: 20 bytes to 100, and one in eight up to 64 KiB, so
/// that groups and frames have all sizes and the rounds fill more than a segment.
pub(crate) fn line(round: u64, index: u64) -> String {
    let mut random = Random::new(round << 32 | index);
    let length = match random.below(8) {
        0 => random.below(64 << 10),
        _ => random.below(80),
    };
    let length = usize::try_from(length).expect("below 64 KiB");
    let letter = char::from(b'a' + u8::try_from(random.below(26)).expect("below 26"));
    let mut line = format!("round {round} line {index} ");
    line.extend(std::iter::repeat_n(letter, length));
    line
}

/// A small generator of numbers (splitmix64): the same seed, the same cuts.
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % end
    }
}
