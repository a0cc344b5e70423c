//! One log: where it stands, and where its entries lie.

use std::collections::VecDeque;

use crate::{Lsn, bounds::Bounds, index::Table};

/// One log.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogCatalog {
    pub(crate) bounds: Bounds,
    /// Where `first..=last` lie, ascending; each reaches to the next one's first index.
    pub(super) extents: VecDeque<Extent>,
    /// Its frames in the active segment.
    pub(super) frames: Table,
    /// Its place in the active segment's index is taken, though it may have lost all of its entries there again.
    pub(super) is_indexed: bool,
    /// The last extent is known to be that of the active segment: an append then leaves the extents alone, which lie elsewhere
    /// in memory. With many logs that is what it waits for.
    pub(super) is_held: bool,
    /// End of the last frame that removed entries other than from the front, so that a reader notices.
    pub(super) cut: Lsn,
}

/// A run of live entries in one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) first: u64,
    pub(super) sequence: u64,
}

impl LogCatalog {
    /// The extent that holds `index`, and one past the last index that it holds live.
    pub(super) fn extent(&self, index: u64) -> Option<(Extent, u64)> {
        if index < self.bounds.first || index > self.bounds.last {
            return None;
        }
        let after = self.extents.partition_point(|extent| extent.first <= index);
        let end = self.extents.get(after).map_or(self.bounds.last + 1, |next| next.first);
        Some((self.extents[after.checked_sub(1)?], end))
    }

    pub(super) fn cut_from(&mut self, first: u64, killed: &mut Vec<Extent>) {
        if first > self.bounds.last {
            return;
        }
        self.is_held = false;
        self.frames.cut_from(first);
        while self.extents.back().is_some_and(|extent| extent.first >= first) {
            killed.extend(self.extents.pop_back());
        }
        self.bounds.cut_from(first);
        self.drop_dead_front(killed);
    }

    pub(super) fn reset(&mut self, next: u64, term_before: u64, killed: &mut Vec<Extent>) {
        self.is_held = false;
        self.frames.cut_from(0);
        killed.extend(self.extents.drain(..));
        self.bounds.first = next;
        self.bounds.last = next - 1;
        self.bounds.term_before = term_before;
        self.bounds.runs.clear();
    }

    /// Extents all of whose live indexes lie below the first.
    pub(super) fn drop_dead_front(&mut self, killed: &mut Vec<Extent>) {
        while !self.extents.is_empty() {
            let end = self.extents.get(1).map_or(self.bounds.last + 1, |next| next.first);
            if end > self.bounds.first {
                return;
            }
            self.is_held = false;
            killed.extend(self.extents.pop_front());
        }
    }
}
