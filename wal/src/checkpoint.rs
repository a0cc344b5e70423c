//! The checkpoint: which segments there are, and bounds, terms and state of every log, at the start of every segment.
//! Bytes are specified in FORMAT.md, "Checkpoint".
//!
//! ```text
//! u32 logs   u32 runs of segments   runs x (u64 first, u64 last)   then per log, ascending:
//!   u32 log   u32 runs   u64 first   u64 last   u64 term before first   u32 state length, all ones if none
//!   runs x (u64 first index, u64 term)   state
//! ```

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;

use crate::{
    Bounds, LogId,
    bounds::Runs,
    options::STATE_BYTES_MAX,
    segment::{SEQUENCE_END, UPKEEP_SEGMENTS_MAX},
};

/// Length of the body of a checkpoint without logs and older segments.
pub(crate) const EMPTY_BYTES: u64 = 8;
/// What a run of segments whose numbers follow each other adds.
pub(crate) const SEGMENTS_BYTES: u64 = 16;
/// What a log adds, without runs and state.
pub(crate) const LOG_BYTES: u64 = 36;
/// What a run of terms adds.
pub(crate) const RUN_BYTES: u64 = 16;

const NO_STATE: u32 = u32::MAX;

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

/// What a checkpoint says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// First and last number of each run of older segments that are not freed, ascending.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Every log, ascending.
    pub(crate) logs: Vec<(LogId, Bounds)>,
}

/// Appends the numbers of the older segments to the body of a checkpoint of so many logs.
pub(crate) fn encode_segments(logs: u32, segments: &[(u64, u64)], body: &mut Vec<u8>) {
    let runs = u32::try_from(segments.len()).expect("a checkpoint is bounded by its segment");
    body.extend_from_slice(&logs.to_le_bytes());
    body.extend_from_slice(&runs.to_le_bytes());
    for (first, last) in segments {
        body.extend_from_slice(&first.to_le_bytes());
        body.extend_from_slice(&last.to_le_bytes());
    }
}

/// What a checkpoint's body says, or `None` if it is not one.
pub(crate) fn decode(body: &[u8]) -> Option<Checkpoint> {
    let mut rest = Rest(body);
    let (logs, runs) = (rest.u32()?, usize::try_from(rest.u32()?).ok()?);
    let segments = decode_runs(rest.take(runs.checked_mul(16)?)?)?;
    // As many as are said, and no more than there are bytes for.
    let room = u64::from(logs).min(rest.0.len() as u64 / LOG_BYTES);
    let mut decoded: Vec<(LogId, Bounds)> = Vec::with_capacity(usize::try_from(room).ok()?);
    for _ in 0..logs {
        let (log, bounds) = decode_log(&mut rest)?;
        if decoded.last().is_some_and(|(before, _)| *before >= log) {
            return None;
        }
        decoded.push((log, bounds));
    }
    rest.0.is_empty().then_some(Checkpoint { segments, logs: decoded })
}

/// Runs of numbers: ascending, apart from each other.
fn decode_runs(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let run = |bytes: &[u8]| (LittleEndian::read_u64(bytes), LittleEndian::read_u64(&bytes[8..]));
    let runs: Vec<(u64, u64)> = bytes.chunks_exact(16).map(run).collect();
    let sound = runs.iter().all(|run| run.0 <= run.1 && run.1 < SEQUENCE_END);
    let apart = runs.windows(2).all(|pair| pair[0].1.saturating_add(1) < pair[1].0);
    let few = || runs.iter().map(|run| run.1 - run.0 + 1).sum::<u64>() <= UPKEEP_SEGMENTS_MAX;
    (sound && apart && few()).then_some(runs)
}

fn decode_log(rest: &mut Rest<'_>) -> Option<(LogId, Bounds)> {
    let log = LogId(rest.u32()?);
    let count = usize::try_from(rest.u32()?).ok()?;
    let (first, last, term_before) = (rest.u64()?, rest.u64()?, rest.u64()?);
    let length = rest.u32()?;
    // The count is unproven, so the bytes are taken before anything is allocated for it.
    let runs = rest.take(count.checked_mul(16)?)?;
    let runs: Runs = runs
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

    const SEGMENTS: [(u64, u64); 2] = [(1, 3), (5, 5)];

    fn logs() -> Vec<(LogId, Bounds)> {
        let empty = Bounds { first: 1, last: 0, term_before: 0, runs: Runs::new(), state: None };
        let full = Bounds {
            first: 5,
            last: 9,
            term_before: 2,
            runs: [(5, 2), (8, 4)].into_iter().collect(),
            state: Some(Bytes::from_static(b"vote")),
        };
        vec![(LogId(0), empty), (LogId(7), full)]
    }

    fn encode(logs: &[(LogId, Bounds)]) -> Vec<u8> {
        let mut body = Vec::new();
        encode_segments(u32::try_from(logs.len()).unwrap(), &SEGMENTS, &mut body);
        logs.iter().for_each(|(log, bounds)| encode_log(*log, bounds, &mut body));
        body
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let body = encode(&logs());
        let expected = Checkpoint { segments: SEGMENTS.to_vec(), logs: logs() };
        assert_eq!(decode(&body), Some(expected));
        let segments = EMPTY_BYTES + 2 * SEGMENTS_BYTES;
        assert_eq!(body.len() as u64, segments + 2 * LOG_BYTES + 2 * RUN_BYTES + 4);
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
        for at in [0, 4, 8, 44, 72, 80] {
            let mut damaged = body.clone();
            damaged[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            decode(&damaged);
        }
        body.truncate(8);
        body.fill(0xff);
        assert_eq!(decode(&body), None);
    }

    #[test]
    fn as_many_segments_read_back_as_upkeep_may_make_and_no_more() {
        for (last, reads) in [((1 << 20) + 1023, true), ((1 << 20) + 1024, false)] {
            let mut body = Vec::new();
            encode_segments(0, &[(1, last)], &mut body);
            assert_eq!(decode(&body).is_some(), reads, "{last}");
        }
    }

    #[test]
    fn runs_of_segments_that_overlap_or_descend_are_refused() {
        for runs in [[(3, 1), (5, 5)], [(1, 3), (3, 5)], [(1, 3), (4, 5)], [(7, 8), (1, 2)]] {
            let mut body = Vec::new();
            encode_segments(0, &runs, &mut body);
            assert_eq!(decode(&body), None, "{runs:?}");
        }
    }
}
