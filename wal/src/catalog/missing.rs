//! Live entries that no segment holds: an opening refuses, a look at what is left of a damaged log leaves them out.

use std::collections::BTreeMap;

use super::Catalog;
use crate::{LogId, index::Span};

/// Live entries of one log, one after the other, that no segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) log: LogId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Catalog {
    /// The first live entries that no segment holds, up to the next one that is held; `sealed` has what the logs have in the
    /// segments whose frames are not in memory.
    pub(crate) fn missing(&self, sealed: &BTreeMap<u64, Vec<Span>>) -> Option<Missing> {
        self.sorted().into_iter().find_map(|(log, entry)| {
            let (first, last) = (entry.bounds.first, entry.bounds.last);
            let missing = |first, end: u64| Some(Missing { log, first, last: end - 1 });
            let mut next = first;
            for (number, extent) in entry.extents.iter().enumerate() {
                let end = entry.extents.get(number + 1).map_or(last + 1, |after| after.first);
                let Some(span) = self.span(log, extent.sequence, sealed) else {
                    return missing(next, end);
                };
                let held = extent.first.max(span.first);
                if held > next {
                    return missing(next, held.min(end));
                }
                if span.end < end {
                    return missing(span.end.max(next), end);
                }
                next = end;
            }
            (next <= last).then_some(Missing { log, first: next, last })
        })
    }

    fn span(&self, log: LogId, sequence: u64, sealed: &BTreeMap<u64, Vec<Span>>) -> Option<Span> {
        if let Some(table) = self.table(log, sequence)? {
            return table.span(log);
        }
        let spans = sealed.get(&sequence)?;
        let number = spans.binary_search_by_key(&log, |span| span.log).ok()?;
        Some(spans[number])
    }

    /// Drops from each log what lies below its last entry that no segment holds: then nothing is missing. For reading
    /// what is left of a damaged log.
    pub(crate) fn drop_missing(&mut self, sealed: &BTreeMap<u64, Vec<Span>>) {
        while let Some(Missing { log, first: lost, .. }) = self.missing(sealed) {
            let entry = self.logs.get_mut(&log).expect("a log that misses an entry");
            let after = entry.extents.iter().map(|extent| extent.first).find(|&first| first > lost);
            let next = after.unwrap_or(entry.bounds.last + 1);
            let term_before = entry.bounds.term(next - 1).expect("an entry of the log");
            entry.bounds.compact(next, term_before);
            let mut killed = Vec::new();
            entry.drop_dead_front(&mut killed);
            killed.into_iter().for_each(|extent| self.segments.release(extent.sequence));
        }
    }
}
