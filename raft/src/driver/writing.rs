//! Writes, in the order that the protocol made them.

use kontiki_core::{Batch, State, WriteSeq};

use crate::{driver::Driver, writer::Change};

impl Driver {
    pub(super) fn write(&mut self, seq: WriteSeq, state: Option<State>, entries: Batch) {
        if let Err(cause) = self.writer.write(seq, state, entries) {
            return self.fail(cause);
        }
        self.watch_held();
    }

    /// The whole log changes: entries go that an image contains.
    pub(super) fn change_log(&mut self, change: Change, with: Option<(WriteSeq, State)>) {
        if let Err(cause) = self.writer.change(change, with) {
            return self.fail(cause);
        }
        self.watch_held();
    }

    /// The log may take writes again.
    pub(super) fn resume_writes(&mut self) {
        if let Err(cause) = self.writer.resume() {
            return self.fail(cause);
        }
        self.watch_held();
    }

    fn watch_held(&mut self) {
        if self.writer.is_held() {
            let later = self.later();
            self.held_until.get_or_insert(later);
        }
    }
}
