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

/// What a checkpoint says. Its logs stay as they are written until they are asked for: in memory each takes up to three times as
/// much, and who only looks at a segment needs none of them.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    /// First and last number of each run of older segments that are not freed, ascending.
    pub(crate) segments: Vec<(u64, u64)>,
    /// Every log, as it is written; sound.
    encoded_logs: Bytes,
}

impl Checkpoint {
    /// Every log, ascending.
    pub(crate) fn into_logs(self) -> impl Iterator<Item = (LogId, Bounds)> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let mut rest = Rest(self.encoded_logs.get(at..).filter(|rest| !rest.is_empty())?);
            let log = decode_log(&mut rest).expect("a checkpoint was decoded once");
            at = self.encoded_logs.len() - rest.0.len();
            Some(log)
        })
    }
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

/// What a checkpoint's body says, or `None` if it is not one. It holds on to the body, and copies of it one log at a time.
pub(crate) fn decode(body: &Bytes) -> Option<Checkpoint> {
    let mut rest = Rest(body);
    let (logs, runs) = (rest.u32()?, usize::try_from(rest.u32()?).ok()?);
    let segments = decode_runs(rest.take(runs.checked_mul(16)?)?)?;
    let encoded_logs = body.slice_ref(rest.0);
    let mut before = None;
    for _ in 0..logs {
        let (log, _) = decode_log(&mut rest)?;
        if before.replace(log) >= Some(log) {
            return None;
        }
    }
    rest.0.is_empty().then_some(Checkpoint { segments, encoded_logs })
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
    let mut decoded = Runs::new();
    decoded.reserve_exact(count);
    decoded.extend(
        runs.chunks_exact(16)
            .map(|run| (LittleEndian::read_u64(run), LittleEndian::read_u64(&run[8..]))),
    );
    let state = match length {
        NO_STATE => None,
        length if u64::from(length) > STATE_BYTES_MAX => return None,
        length => Some(Bytes::copy_from_slice(rest.take(usize::try_from(length).ok()?)?)),
    };
    let bounds = Bounds { first, last, term_before, runs: decoded, state };
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

    fn read(body: &[u8]) -> Option<Checkpoint> {
        decode(&Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_checkpoint_reads_back_as_it_was_written() {
        let body = encode(&logs());
        let decoded = read(&body).unwrap();
        assert_eq!(decoded.segments, SEGMENTS);
        assert_eq!(decoded.into_logs().collect::<Vec<_>>(), logs());
        let segments = EMPTY_BYTES + 2 * SEGMENTS_BYTES;
        assert_eq!(body.len() as u64, segments + 2 * LOG_BYTES + 2 * RUN_BYTES + 4);
    }

    #[test]
    fn no_cut_or_lengthened_checkpoint_reads() {
        let mut body = encode(&logs());
        for end in 0..body.len() {
            assert!(read(&body[..end]).is_none(), "cut at {end}");
        }
        body.push(0);
        assert!(read(&body).is_none());
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
            assert!(read(&encode(&logs)).is_none(), "change {number}");
        }
    }

    /// WAL-CASE 29: the checkpoint's lengths.
    #[test]
    fn lengths_that_were_never_written_allocate_nothing() {
        let mut body = encode(&logs());
        for at in [0, 4, 8, 44, 72, 80] {
            let mut damaged = body.clone();
            damaged[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            read(&damaged);
        }
        body.truncate(8);
        body.fill(0xff);
        assert!(read(&body).is_none());
    }

    #[test]
    fn as_many_segments_read_back_as_upkeep_may_make_and_no_more() {
        for (last, reads) in [((1 << 20) + 1023, true), ((1 << 20) + 1024, false)] {
            let mut body = Vec::new();
            encode_segments(0, &[(1, last)], &mut body);
            assert_eq!(read(&body).is_some(), reads, "{last}");
        }
    }

    #[test]
    fn runs_of_segments_that_overlap_or_descend_are_refused() {
        for runs in [[(3, 1), (5, 5)], [(1, 3), (3, 5)], [(1, 3), (4, 5)], [(7, 8), (1, 2)]] {
            let mut body = Vec::new();
            encode_segments(0, &runs, &mut body);
            assert!(read(&body).is_none(), "{runs:?}");
        }
    }
}
