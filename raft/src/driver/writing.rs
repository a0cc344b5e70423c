//! Writes and applies: the two orders that the driver keeps.

use kontiki_core::{Apply, Batch, State, WriteSeq};

use crate::{applier::Work, driver::Driver};

impl Driver {
    pub(super) fn write(&mut self, seq: WriteSeq, state: Option<State>, entries: Batch) {
        if let Err(cause) = self.writer.write(seq, state, entries) {
            return self.fail(cause);
        }
        self.watch_space();
    }

    /// There may be room in the log again.
    pub(super) fn resume_writes(&mut self) {
        match self.writer.resume() {
            Ok(released) => self.work.extend(released.into_iter().map(Work::Apply)),
            Err(cause) => return self.fail(cause),
        }
        self.watch_space();
    }

    /// Committed entries go to the applier. A range of the log is there only once the writes before
    /// it are, and nothing to apply overtakes another.
    pub(super) fn apply(&mut self, apply: Apply) {
        let is_range = matches!(apply, Apply::Range { .. });
        if (is_range && !self.writer.is_clear()) || self.writer.keeps_apply() {
            self.writer.keep(apply);
        } else {
            self.work.push(Work::Apply(apply));
        }
    }

    fn watch_space(&mut self) {
        if self.writer.waits_for_space() {
            let again = self.now + self.shared.options.heartbeat;
            self.space_at.get_or_insert(again);
        }
    }
}
