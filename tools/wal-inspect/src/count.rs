//! What is in a segment, counted frame by frame.

use std::{collections::BTreeMap, ops::Range};

use kontiki_wal::{
    LogId,
    inspect::{Frame, FrameKind, HEADER_BYTES, Scan, SegmentSummary, Standing},
};
use serde::Serialize;

use crate::outcome::Failure;

/// What bytes of a segment are to the logs. All others are the log's own: header page, index, trailer page, and frames that
/// hold no entries. These keep no segment from being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// An entry that is in its log, with what its frame needs.
    Live,
    /// An entry that was replaced, truncated, reset, forgotten or compacted, or its whole frame, if none in it is live.
    Dead,
    /// Damage hides what it is: see [`unread`].
    Unread,
    /// No frame lies there.
    Free,
}

impl Class {
    /// How many there are.
    pub(crate) const COUNT: usize = 4;
}

/// What is in one segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentCount {
    pub(crate) frames: u64,
    /// Where damage hides what there is: see [`unread`].
    pub(crate) unread_bytes: u64,
    /// The logs that have entries in it, live or not.
    pub(crate) logs: BTreeMap<LogId, LogCount>,
}

/// The entries of one log. Their bytes are those of their frames, so that they add up to what is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct LogCount {
    pub(crate) live_entries: u64,
    pub(crate) live_bytes: u64,
    pub(crate) dead_entries: u64,
    pub(crate) dead_bytes: u64,
}

impl SegmentCount {
    /// Takes in a frame with those of its indexes that are live.
    pub(crate) fn take(&mut self, frame: &Frame, live: &Range<u64>) {
        self.frames += 1;
        if frame.kind != FrameKind::Entries {
            return;
        }
        let log = self.logs.entry(frame.log).or_default();
        log.live_entries += live.end - live.start;
        log.dead_entries += u64::from(frame.count) - (live.end - live.start);
        for (range, class) in pieces(frame, live) {
            let bytes = range.end - range.start;
            match class {
                Class::Live => log.live_bytes += bytes,
                Class::Dead => log.dead_bytes += bytes,
                Class::Unread | Class::Free => {}
            }
        }
    }

    /// What of the segment is neither an entry with its frame nor unread nor free.
    pub(crate) fn own_bytes(&self, segment: &SegmentSummary) -> u64 {
        let (total, free) = (self.total(), segment.free());
        let others = total.live_bytes + total.dead_bytes + self.unread_bytes;
        segment.segment_bytes - others - (free.end - free.start)
    }

    /// All logs together.
    pub(crate) fn total(&self) -> LogCount {
        let mut total = LogCount::default();
        self.logs.values().for_each(|count| total.add(count));
        total
    }

    /// The logs that keep the segment from being freed.
    pub(crate) fn live_logs(&self) -> impl Iterator<Item = LogId> + '_ {
        self.logs.iter().filter(|(_, count)| count.live_entries > 0).map(|(&log, _)| log)
    }
}

impl LogCount {
    /// Adds what there is elsewhere.
    pub(crate) fn add(&mut self, other: &Self) {
        self.live_entries += other.live_entries;
        self.live_bytes += other.live_bytes;
        self.dead_entries += other.dead_entries;
        self.dead_bytes += other.dead_bytes;
    }
}

/// Shows every frame that a segment had when it was looked at to `visit`, with those of its indexes that are live. False if a
/// writer has used the file again meanwhile: it was freed, and what was seen of it counts for nothing. None of one that has
/// no place in the stream, or lies behind the end of the log: what has become of its entries nobody knows.
pub(crate) fn visit_frames(
    scan: &Scan,
    segment: &SegmentSummary,
    mut visit: impl FnMut(&Frame, &Range<u64>),
) -> Result<bool, Failure> {
    if segment.base.is_none() {
        return Ok(true);
    }
    let mut read_bytes = 0;
    for frame in scan.segment_frames(segment.sequence) {
        let frame = frame?;
        read_bytes += frame.frame_bytes;
        visit(&frame, &scan.live(&frame));
        if read_bytes >= segment.used_bytes {
            break;
        }
    }
    Ok(read_bytes == segment.used_bytes)
}

/// Where in a segment's file frames can lie that nobody has read, or of which nobody knows what has become: behind those that
/// were counted, as far as there is room. How far frames went at least, the scan tells.
pub(crate) fn unread(scan: &Scan, segment: &SegmentSummary) -> Range<u64> {
    if !matches!(segment.standing, Standing::Damaged | Standing::Unknown) {
        return 0..0;
    }
    let found = scan.unread().iter().find(|unread| unread.file == segment.file);
    match found {
        // Nothing of a file whose header page does not hold is read, its trailer page neither.
        Some(unread) if unread.bytes.start == 0 => unread.bytes.clone(),
        // As much as would be free if nothing were damaged.
        _ => SegmentSummary { standing: Standing::Full, ..segment.clone() }.free(),
    }
}

/// Where in the file the bytes of a frame of entries lie, by what they are. A live entry keeps the frame's header, table and
/// padding, but no other entry. Where entries lie in a damaged body is not known: if one is live, all of its frame is.
pub(crate) fn pieces(frame: &Frame, live: &Range<u64>) -> Vec<(Range<u64>, Class)> {
    let whole = frame.offset..frame.offset + frame.frame_bytes;
    if frame.kind != FrameKind::Entries {
        return Vec::new();
    }
    if live.is_empty() {
        return vec![(whole, Class::Dead)];
    }
    if frame.body.is_err() {
        // Its count is as unproven as its table, which may not even fit into it.
        return vec![(whole, Class::Live)];
    }
    // Before the live ones, they themselves, and behind them.
    let mut bytes = [0; 3];
    for (index, entry) in frame.entries() {
        let part = usize::from(index >= live.start) + usize::from(index >= live.end);
        bytes[part] += entry.len() as u64;
    }
    let entries = whole.start + HEADER_BYTES + TABLE_ENTRY_BYTES * u64::from(frame.count);
    let (start, end) = (entries + bytes[0], entries + bytes[0] + bytes[1]);
    vec![
        (whole.start..entries, Class::Live),
        (entries..start, Class::Dead),
        (start..end, Class::Live),
        (end..end + bytes[2], Class::Dead),
        (end + bytes[2]..whole.end, Class::Live),
    ]
}

/// What each entry takes in its frame's table.
const TABLE_ENTRY_BYTES: u64 = 4;

#[cfg(test)]
mod tests {
    use std::fs;

    use bytes::Bytes;
    use kontiki_wal::Wal;

    use super::*;

    #[test]
    fn pieces_are_where_their_entries_lie_in_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let wal = Wal::options().without_threads().open(directory.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        let entries = ["first", "second", "third", "fourth", "fifth"].map(Bytes::from);
        log.append(1, 1, &entries).unwrap().wait().unwrap();
        log.compact_before(3).unwrap().wait().unwrap();
        log.truncate_after(4).unwrap().wait().unwrap();
        let scan = Scan::open(directory.path()).unwrap();
        let mut frames = scan.frames().map(Result::unwrap);
        let frame = frames.find(|frame| frame.kind == FrameKind::Entries).unwrap();
        let file = fs::read(directory.path().join(&frame.file)).unwrap();
        let pieces = pieces(&frame, &scan.live(&frame));
        let bytes = |(range, _): &(Range<u64>, Class)| {
            let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
            file[start..end].to_vec()
        };
        let classes: Vec<Class> = pieces.iter().map(|piece| piece.1).collect();
        assert_eq!(classes, [Class::Live, Class::Dead, Class::Live, Class::Dead, Class::Live]);
        assert_eq!(bytes(&pieces[1]), b"firstsecond");
        assert_eq!(bytes(&pieces[2]), b"thirdfourth");
        assert_eq!(bytes(&pieces[3]), b"fifth");
        let total: usize = pieces.iter().map(|piece| bytes(piece).len()).sum();
        assert_eq!(total as u64, frame.frame_bytes);
    }

    /// Its header can be whole and say what no writer said.
    #[test]
    fn a_damaged_frame_is_one_piece_however_many_entries_it_claims() {
        let directory = tempfile::tempdir().unwrap();
        let wal = Wal::options().without_threads().open(directory.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        for entry in ["rotten", "whole"] {
            log.push(entry).unwrap().1.wait().unwrap();
        }
        let is_entries = |frame: &Frame| frame.kind == FrameKind::Entries;
        let scan = Scan::open(directory.path()).unwrap();
        let whole = scan.frames().map(Result::unwrap).find(is_entries).unwrap();
        let path = directory.path().join(&whole.file);
        let mut file = fs::read(&path).unwrap();
        file[usize::try_from(whole.offset + HEADER_BYTES).unwrap()] ^= 1;
        fs::write(&path, file).unwrap();
        let scan = Scan::open(directory.path()).unwrap();
        let mut frame = scan.frames().map(Result::unwrap).find(is_entries).unwrap();
        assert!(frame.body.is_err(), "{frame:?}");
        frame.count = u16::MAX;
        let (live, bytes) = (1..1 + u64::from(u16::MAX), frame.offset..frame.offset + 64);
        assert_eq!(pieces(&frame, &live), [(bytes, Class::Live)]);
        let mut count = SegmentCount::default();
        count.take(&frame, &live);
        let LogCount { live_entries, live_bytes, .. } = count.total();
        assert_eq!((live_entries, live_bytes), (u64::from(u16::MAX), frame.frame_bytes));
    }
}
