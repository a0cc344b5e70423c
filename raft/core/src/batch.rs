//! Consecutive entries, shared: one allocation used by the write, every send and apply.

use alloc::{sync::Arc, vec::Vec};
use core::{
    hash::{Hash, Hasher},
    ops::Range,
};

use crate::{Entry, LogIndex};

/// A run of entries with consecutive indexes; may be empty. Cloning and slicing share the entries.
///
/// Two batches are equal if they hold equal entries, wherever those are kept.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    entries: Arc<[Entry]>,
    start: usize,
    end: usize,
    /// Sum of [`Entry::bytes`] over `start..end`.
    bytes: usize,
}

impl Batch {
    /// A batch of all of `entries`.
    ///
    /// # Panics
    /// If their indexes are not consecutive.
    #[must_use]
    pub fn new(entries: Arc<[Entry]>) -> Self {
        let consecutive = entries.windows(2).all(|pair| pair[1].index == pair[0].index.next());
        assert!(consecutive, "the entries of a batch are consecutive");
        let (end, bytes) = (entries.len(), entries.iter().map(Entry::bytes).sum());
        Self { entries, start: 0, end, bytes }
    }

    /// The entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries[self.start..self.end]
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// What the entries weigh against bounds in bytes: the sum of [`Entry::bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Index of the first entry, if there is one.
    #[must_use]
    pub fn first(&self) -> Option<LogIndex> {
        self.entries().first().map(|entry| entry.index)
    }

    /// Index of the last entry, if there is one.
    #[must_use]
    pub fn last(&self) -> Option<LogIndex> {
        self.entries().last().map(|entry| entry.index)
    }

    /// The entries at `range` (places within this batch), by reference.
    pub(crate) fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len());
        let (start, end) = (self.start + range.start, self.start + range.end);
        let bytes = if range.len() == self.len() {
            self.bytes
        } else {
            self.entries[start..end].iter().map(Entry::bytes).sum()
        };
        Self { entries: Arc::clone(&self.entries), start, end, bytes }
    }

    /// As many entries from the front as weigh at most `bytes_max`, but at least one.
    pub(crate) fn take(&self, bytes_max: usize) -> Self {
        if self.bytes <= bytes_max {
            return self.clone();
        }
        let mut bytes = 0;
        let fitting = self.entries().iter().take_while(|entry| {
            bytes += entry.bytes();
            bytes <= bytes_max
        });
        let count = fitting.count().max(1);
        self.slice(0..count)
    }
}

impl From<Vec<Entry>> for Batch {
    /// See [`Batch::new`], which also says when this panics.
    fn from(entries: Vec<Entry>) -> Self {
        Self::new(entries.into())
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl Eq for Batch {}

impl Hash for Batch {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::Term;

    fn batch(first: u64, count: u64) -> Batch {
        let entry = |index| Entry {
            index: LogIndex(index),
            term: Term(1),
            payload: Entry::encode_command(b"0123456789"),
        };
        Batch::from((first..first + count).map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn slices_weigh_what_their_entries_weigh_and_compare_by_them() {
        let whole = batch(5, 4);
        let middle = whole.slice(1..3);
        assert_eq!(middle, batch(6, 2));
        assert_eq!(middle.bytes(), batch(6, 2).bytes());
        assert_eq!((middle.first(), middle.last()), (Some(LogIndex(6)), Some(LogIndex(7))));
    }

    #[test]
    fn take_gives_what_fits_but_never_nothing() {
        let whole = batch(1, 4);
        let one = whole.entries()[0].bytes();
        assert_eq!(whole.take(2 * one).len(), 2);
        assert_eq!(whole.take(2 * one - 1).len(), 1);
        assert_eq!(whole.take(0).len(), 1);
        assert_eq!(whole.take(usize::MAX), whole);
    }

    #[test]
    #[should_panic(expected = "consecutive")]
    fn a_batch_with_a_gap_can_not_be_made() {
        let (a, b) = (batch(1, 1), batch(3, 1));
        let _ = Batch::from(alloc::vec![a.entries()[0].clone(), b.entries()[0].clone()]);
    }
}
