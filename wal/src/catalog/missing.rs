//! Live entries that no segment holds: an opening refuses, a look at what is left of a damaged log leaves them out.

use std::collections::BTreeMap;

use super::Catalog;
use crate::{LogId, index::Span};

/// A live entry that no segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) log: LogId,
    pub(crate) index: u64,
}

impl Catalog {
    /// The first live entry that no segment holds; `sealed` has what the logs have in the segments whose frames are not in
    /// memory.
    pub(crate) fn missing(&self, sealed: &BTreeMap<u64, Vec<Span>>) -> Option<Missing> {
        self.sorted().into_iter().find_map(|(log, entry)| {
            let (first, last) = (entry.bounds.first, entry.bounds.last);
            let mut next = first;
            for (number, extent) in entry.extents.iter().enumerate() {
                let end = entry.extents.get(number + 1).map_or(last + 1, |after| after.first);
                let span = self.span(log, extent.sequence, sealed);
                if extent.first > next || span.is_none_or(|span| span.first > next) {
                    return Some(Missing { log, index: next });
                }
                if let Some(span) = span.filter(|span| span.end < end) {
                    return Some(Missing { log, index: span.end.max(next) });
                }
                next = end;
            }
            (next <= last).then_some(Missing { log, index: next })
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
        while let Some(Missing { log, index }) = self.missing(sealed) {
            let entry = self.logs.get_mut(&log).expect("a log that misses an entry");
            let after =
                entry.extents.iter().map(|extent| extent.first).find(|&first| first > index);
            let next = after.unwrap_or(entry.bounds.last + 1);
            let term_before = entry.bounds.term(next - 1).expect("an entry of the log");
            entry.bounds.compact(next, term_before);
            let mut killed = Vec::new();
            entry.drop_dead_front(&mut killed);
            killed.into_iter().for_each(|extent| self.segments.release(extent.sequence));
        }
    }
}
