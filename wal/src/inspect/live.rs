//! Which entries of a frame are still in their log: those within the log's bounds that no later frame has replaced. A later
//! truncation, reset or compaction shows in the bounds, or in what was appended behind it.

use std::{collections::BTreeMap, ops::Range};

use crate::{
    Bounds, LogId, Lsn,
    frame::{FrameKind, Header},
    inspect::Frame,
};

/// Where each log's entries were replaced, gathered in the order of the frames' LSNs.
#[derive(Debug, Default)]
pub(crate) struct Replaced {
    logs: BTreeMap<LogId, LogReplaced>,
}

/// A few bytes for each frame that replaces entries, and none for those that only append.
#[derive(Debug, Default)]
struct LogReplaced {
    /// Where its first frame lies, and the first index in it.
    begin: (Lsn, u64),
    /// One past the last index of the newest frame.
    end: u64,
    /// Where a frame lies, and the first index that it replaced. Both ascend: what begins lower makes those before it
    /// needless.
    from: Vec<(Lsn, u64)>,
}

impl Replaced {
    /// Takes in the frame at `lsn`.
    pub(crate) fn take(&mut self, lsn: Lsn, header: &Header) {
        if header.kind != FrameKind::Entries {
            return;
        }
        let first = header.first_index;
        let begun = LogReplaced { begin: (lsn, first), ..LogReplaced::default() };
        let log = self.logs.entry(header.log).or_insert(begun);
        if first < log.end {
            log.replace(lsn, first);
        }
        log.end = header.end();
    }

    /// Takes in what was gathered behind all that was taken in here.
    pub(crate) fn append(&mut self, behind: Self) {
        for (id, later) in behind.logs {
            let Some(log) = self.logs.get_mut(&id) else {
                self.logs.insert(id, later);
                continue;
            };
            let (lsn, first) = later.begin;
            if first < log.end {
                log.replace(lsn, first);
            }
            later.from.into_iter().for_each(|(lsn, first)| log.replace(lsn, first));
            log.end = later.end;
        }
    }

    /// The indexes of those entries of a frame that its log, with these bounds at LSN `end`, still has from there.
    pub(crate) fn live(&self, frame: &Frame, bounds: &Bounds, end: Lsn) -> Range<u64> {
        let first = frame.first_index;
        // What replaced it can be lost: then the term tells.
        let run = bounds.runs.binary_search_by_key(&frame.term, |run| run.1);
        let (FrameKind::Entries, true, Ok(run)) = (frame.kind, frame.lsn < end, run) else {
            return first..first;
        };
        let from = self.logs.get(&frame.log).map_or(&[][..], |log| &log.from);
        let later = from.partition_point(|replaced| replaced.0 <= frame.lsn);
        let replaced = from.get(later).map_or(u64::MAX, |replaced| replaced.1);
        let run_end = bounds.runs.get(run + 1).map_or(u64::MAX, |next| next.0);
        let ends = [bounds.last.saturating_add(1), replaced, run_end];
        let end = first.saturating_add(frame.count.into());
        let end = ends.into_iter().fold(end, u64::min);
        let first = first.max(bounds.first).max(bounds.runs[run].0);
        first..end.max(first)
    }
}

impl LogReplaced {
    /// The frame at `lsn`, behind all others, replaces what there is from index `first` on.
    fn replace(&mut self, lsn: Lsn, first: u64) {
        while self.from.pop_if(|before| before.1 >= first).is_some() {}
        self.from.push((lsn, first));
    }
}
