//! The checkpoint: bounds, terms and state of every log, at the start of every segment. Bytes are specified in FORMAT.md,
//! "Checkpoint".
//!
//! ```text
//! u32 logs, then per log, ascending:
//!   u32 log   u32 runs   u64 first   u64 last   u64 term before first   u32 state length, all ones if none
//!   runs x (u64 first index, u64 term)   state
//! ```

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::{LogId, options::STATE_BYTES_MAX};

/// Length of the body of a checkpoint without logs.
pub(crate) const EMPTY_BYTES: u64 = 4;
/// What a log adds, without runs and state.
pub(crate) const LOG_BYTES: u64 = 36;
/// What a run of terms adds.
pub(crate) const RUN_BYTES: u64 = 16;

const NO_STATE: u32 = u32::MAX;

/// One log of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// First index in the log; `last + 1` when it is empty.
    pub first: u64,
    /// Last index in the log; `first - 1` when it is empty.
    pub last: u64,
    /// Term of the entry before `first`.
    pub term_before: u64,
    /// First index and term of each run of `first..=last`, both ascending.
    pub runs: Vec<(u64, u64)>,
    /// The log's state, if it was ever set.
    pub state: Option<Bytes>,
}

/// Appends one log to the body of a checkpoint.
pub(crate) fn encode_log(log: LogId, bounds: &Bounds, body: &mut Vec<u8>) {
    let runs = u32::try_from(bounds.runs.len()).expect("a checkpoint is bounded by its segment");
    body.extend_from_slice(&log.0.to_le_bytes());
    body.extend_from_slice(&runs.to_le_bytes());
    for value in [bounds.first, bounds.last, bounds.term_before] {
        body.extend_from_slice(&value.to_le_bytes());
    }
    let length = bounds
        .state
        .as_ref()
        .map_or(NO_STATE, |state| u32::try_from(state.len()).expect("a state is at most 4 KiB"));
    body.extend_from_slice(&length.to_le_bytes());
    for (first, term) in &bounds.runs {
        body.extend_from_slice(&first.to_le_bytes());
        body.extend_from_slice(&term.to_le_bytes());
    }
    body.extend_from_slice(bounds.state.as_deref().unwrap_or_default());
}

/// The logs of a checkpoint's body, or `None` if it is not one.
pub(crate) fn decode(body: &[u8]) -> Option<Vec<(LogId, Bounds)>> {
    let mut rest = Rest(body);
    let logs = rest.u32()?;
    let mut decoded: Vec<(LogId, Bounds)> = Vec::new();
    for _ in 0..logs {
        let (log, bounds) = decode_log(&mut rest)?;
        if decoded.last().is_some_and(|(before, _)| *before >= log) {
            return None;
        }
        decoded.push((log, bounds));
    }
    rest.0.is_empty().then_some(decoded)
}

fn decode_log(rest: &mut Rest<'_>) -> Option<(LogId, Bounds)> {
    let log = LogId(rest.u32()?);
    let count = usize::try_from(rest.u32()?).ok()?;
    let (first, last, term_before) = (rest.u64()?, rest.u64()?, rest.u64()?);
    let length = rest.u32()?;
    // The count is unproven, so the bytes are taken before anything is allocated for it.
    let runs = rest.take(count.checked_mul(16)?)?;
    let runs: Vec<(u64, u64)> = runs
        .chunks_exact(16)
        .map(|run| (LittleEndian::read_u64(run), LittleEndian::read_u64(&run[8..])))
        .collect();
    let state = match length {
        NO_STATE => None,
        length if u64::from(length) > STATE_BYTES_MAX => return None,
        length => Some(Bytes::copy_from_slice(rest.take(usize::try_from(length).ok()?)?)),
    };
    let bounds = Bounds { first, last, term_before, runs, state };
    bounds.are_sound().then_some((log, bounds))
}

impl Bounds {
    fn are_sound(&self) -> bool {
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

/// What is left of a body.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(LittleEndian::read_u32)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8).map(LittleEndian::read_u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs() -> Vec<(LogId, Bounds)> {
        let empty = Bounds { first: 1, last: 0, term_before: 0, runs: vec![], state: None };
        let full = Bounds {
            first: 5,
            last: 9,
            term_before: 2,
            runs: vec![(5, 2), (8, 4)],
            state: Some(Bytes::from_static(b"vote")),
        };
        vec![(LogId(0), empty), (LogId(7), full)]
    }

    fn encode(logs: &[(LogId, Bounds)]) -> Vec<u8> {
        let mut body = u32::try_from(logs.len()).unwrap().to_le_bytes().to_vec();
        logs.iter().for_each(|(log, bounds)| encode_log(*log, bounds, &mut body));
        body
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let body = encode(&logs());
        assert_eq!(decode(&body), Some(logs()));
        assert_eq!(body.len() as u64, EMPTY_BYTES + 2 * LOG_BYTES + 2 * RUN_BYTES + 4);
    }

    #[test]
    fn no_cut_or_lengthened_checkpoint_reads() {
        let mut body = encode(&logs());
        for end in 0..body.len() {
            assert_eq!(decode(&body[..end]), None, "cut at {end}");
        }
        body.push(0);
        assert_eq!(decode(&body), None);
    }

    #[test]
    fn bounds_that_contradict_themselves_are_refused() {
        let broken: [fn(&mut Bounds); 6] = [
            |bounds| bounds.first = 0,
            |bounds| bounds.last = 3,
            |bounds| bounds.last = u64::MAX,
            |bounds| bounds.runs.clear(),
            |bounds| bounds.runs[1].1 = 2,
            |bounds| bounds.runs[1].0 = 10,
        ];
        for (number, change) in broken.iter().enumerate() {
            let mut logs = logs();
            change(&mut logs[1].1);
            assert_eq!(decode(&encode(&logs)), None, "change {number}");
        }
    }

    /// WAL-CASE 29: the checkpoint's lengths.
    #[test]
    fn lengths_that_were_never_written_allocate_nothing() {
        let mut body = encode(&logs());
        for at in [0, 4, 8, 36, 44] {
            let mut damaged = body.clone();
            damaged[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            decode(&damaged);
        }
        body.truncate(4);
        body.copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&body), None);
    }
}
