//! What lies behind the end of what can be read, as headers tell that are whole by themselves: entries that were in the log
//! and are in it no more.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    LogId, OpenError,
    catalog::Catalog,
    frame::{FrameKind, Header},
    recovery::scan::{Fault, SegmentFile, Window},
    repair::TermRun,
    segment::FRAMES_AT,
};

/// The entries of one log behind the end.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// Those that are whole.
    pub(super) whole: Vec<TermRun>,
    /// Those that are damaged.
    pub(super) lost: Vec<TermRun>,
    /// First and last index of each run before one of these of which nothing is left.
    pub(super) unknown: Vec<(u64, u64)>,
    /// The index that follows on what is known of the log; `None` if anything can.
    next: Option<u64>,
}

/// All that is found behind the end.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) logs: BTreeMap<LogId, Beyond>,
    /// Logs that had a newer state.
    pub(super) states: BTreeSet<LogId>,
}

impl Found {
    /// Looks behind `offset` of the first of `files`, where the logs are those of `catalog`. `fault` is what was found in one
    /// of the files instead of a frame; its header is believed if a single flipped bit explains it.
    pub(super) fn behind(
        files: &[SegmentFile],
        offset: u64,
        fault: Option<&(usize, Fault)>,
        catalog: &Catalog,
    ) -> Result<Self, OpenError> {
        let mut found = Self::default();
        for (number, file) in files.iter().enumerate() {
            let start = if number == 0 { offset } else { FRAMES_AT };
            let fault = fault.filter(|fault| fault.0 == number).map(|fault| &fault.1);
            let damaged = fault.and_then(|fault| Some((fault.offset, fault.header?)));
            let mut headers: Vec<(u64, Header)> = damaged.into_iter().collect();
            Window::new(file).whole_headers(start, |at, header| {
                if damaged.is_none_or(|damaged| damaged.0 != at) {
                    headers.push((at, *header));
                }
            })?;
            headers.sort_by_key(|header| header.0);
            let (mut window, mut end) = (Window::new(file), start);
            for (at, header) in headers {
                // What lies in the body of a frame is none.
                if at < end {
                    continue;
                }
                let is_whole = damaged.is_none_or(|damaged| damaged.0 != at)
                    && window.frame(at, None, None)?.is_ok_and(|found| found.fault.is_none());
                if is_whole {
                    end = at + header.frame_bytes();
                }
                found.take(&header, is_whole, catalog);
            }
        }
        Ok(found)
    }

    fn take(&mut self, header: &Header, is_whole: bool, catalog: &Catalog) {
        let log = header.log;
        let known =
            || Beyond { next: catalog.bounds(log).last.checked_add(1), ..Beyond::default() };
        match header.kind {
            FrameKind::State => {
                self.states.insert(log);
            }
            FrameKind::Reset => {
                self.logs.entry(log).or_insert_with(known).next = Some(header.first_index);
            }
            FrameKind::Forget => self.logs.entry(log).or_insert_with(known).next = None,
            _ => {
                let Some((first, last)) = header.indexes() else { return };
                let beyond = self.logs.entry(log).or_insert_with(known);
                if let Some(next) = beyond.next.filter(|&next| next < first) {
                    beyond.unknown.push((next, first - 1));
                }
                beyond.next = last.checked_add(1);
                let run = TermRun { first, last, term: header.term };
                push_run(if is_whole { &mut beyond.whole } else { &mut beyond.lost }, run);
            }
        }
    }
}

/// Appends a run, to the last one if it goes on there.
fn push_run(runs: &mut Vec<TermRun>, run: TermRun) {
    match runs.last_mut() {
        Some(last) if last.term == run.term && last.last.checked_add(1) == Some(run.first) => {
            last.last = run.last;
        }
        _ => runs.push(run),
    }
}
