//! Writes, in the order that the protocol made them.

use kontiki_core::{Batch, State, WriteSeq};

use crate::driver::Driver;

impl Driver {
    pub(super) fn write(&mut self, seq: WriteSeq, state: Option<State>, entries: Batch) {
        if let Err(cause) = self.writer.write(seq, state, entries) {
            return self.fail(cause);
        }
        self.watch_space();
    }

    /// There may be room in the log again.
    pub(super) fn resume_writes(&mut self) {
        if let Err(cause) = self.writer.resume() {
            return self.fail(cause);
        }
        self.watch_space();
    }

    fn watch_space(&mut self) {
        if self.writer.is_held() {
            let later = self.later();
            self.space_at.get_or_insert(later);
        }
    }
}
