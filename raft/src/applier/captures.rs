//! When the state machine is captured, and who waits for the snapshot.

use kontiki_core::{LogIndex, Position};

use crate::{Options, SnapshotError, slot::Completer};

/// What became of a snapshot.
pub(crate) type SnapshotResult = Result<crate::Position, SnapshotError>;

/// Counts what a new snapshot would spare, as LogCabin does: one is due when the log behind the newest has grown to some times
/// its size, so that the work of writing snapshots is a share of that of writing the log, whatever the state grows to.
#[derive(Default)]
pub(crate) struct Captures {
    /// Applied since one was begun, or failed; none of what a visible one contains, if that is all that is applied.
    log_bytes: u64,
    /// The newest snapshot, and its bytes.
    newest: Option<(Position, u64)>,
    /// Where the newest one ended, which is of no use any more, while the state machine has not come as far as that: one that keeps
    /// itself can begin before it. Until then it cannot be captured, and nothing counts.
    lost_ahead: Option<LogIndex>,
    /// Where the one ends that is on its way to the disk.
    running: Option<Position>,
    /// Who waits for a snapshot that contains at least what was applied then.
    waiting: Vec<(LogIndex, Completer<SnapshotResult>)>,
}

impl Captures {
    /// The state machine began with this image, or with nothing.
    pub(crate) fn new(newest: Option<(Position, u64)>) -> Self {
        Self { newest, ..Self::default() }
    }

    /// Where the newest snapshot ends.
    pub(crate) fn newest(&self) -> Option<Position> {
        self.newest.map(|(at, _)| at)
    }

    /// The newest snapshot is of no use any more; so much is applied.
    pub(crate) fn forget_newest(&mut self, applied: LogIndex) {
        if let Some((lost, _)) = self.newest.take() {
            self.lost_ahead = Some(lost.index).filter(|lost| *lost > applied);
        }
    }

    /// So much was applied, up to `applied`.
    pub(crate) fn count(&mut self, applied: LogIndex, bytes: usize) {
        self.lost_ahead.take_if(|lost| *lost <= applied);
        // A state machine that keeps itself can begin before the newest one.
        if self.lost_ahead.is_none() && self.newest().is_none_or(|newest| applied > newest.index) {
            self.log_bytes = self.log_bytes.saturating_add(bytes as u64);
        }
    }

    /// Whether a snapshot is due: the log has grown, or one that is wanted was put off.
    pub(crate) fn is_due(&self, options: &Options) -> bool {
        let image_bytes = self.newest.map_or(0, |(_, bytes)| bytes);
        let many = image_bytes.saturating_mul(options.snapshot_ratio);
        let has_grown =
            self.log_bytes > 0 && self.log_bytes >= many.max(options.snapshot_log_bytes_min);
        self.can_begin() && (has_grown || !self.waiting.is_empty())
    }

    /// Somebody wants one of all that is applied. Says whether it has to be begun now, else it is [due](Self::is_due) later, or once
    /// the one is done that is on its way.
    pub(crate) fn wait(&mut self, applied: LogIndex, completer: Completer<SnapshotResult>) -> bool {
        self.waiting.push((applied, completer));
        self.can_begin()
    }

    /// Somebody wants one that cannot be begun yet.
    pub(crate) fn is_put_off(&self) -> bool {
        self.running.is_none() && !self.waiting.is_empty()
    }

    /// One is on its way.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    fn can_begin(&self) -> bool {
        self.running.is_none() && self.lost_ahead.is_none()
    }

    /// One that ends at `at` is on its way. Until that has an end, or a newer one of a peer is visible, none is due.
    pub(crate) fn begin(&mut self, at: Position) {
        self.running = Some(at);
        self.log_bytes = 0;
    }

    /// A snapshot is visible: the one that was begun, or a newer one of a peer. Another one can be due at once, as much was applied
    /// meanwhile or as somebody wants more than it contains.
    pub(crate) fn visible(&mut self, at: Position, bytes: u64, applied: LogIndex) {
        self.newest = Some((at, bytes));
        if applied <= at.index {
            // It contains whatever was counted.
            self.log_bytes = 0;
        }
        self.lost_ahead.take_if(|lost| *lost <= at.index);
        if self.running.is_some_and(|running| running.index > at.index) {
            return;
        }
        self.running = None;
        let served = self.waiting.extract_if(.., |(wanted, _)| *wanted <= at.index);
        for (_, completer) in served.collect::<Vec<_>>() {
            completer.complete_and_wake(Ok(at.into()));
        }
    }

    /// The one that was begun at `at` could not be had. The next is due when as much was applied again.
    pub(crate) fn fail(&mut self, at: Position, error: SnapshotError) {
        if self.running == Some(at) {
            self.log_bytes = 0;
            self.close(error);
        }
    }

    /// There will be none any more, or none for now.
    pub(crate) fn close(&mut self, error: SnapshotError) {
        self.running = None;
        for (_, completer) in self.waiting.drain(..) {
            completer.complete_and_wake(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::slot;

    #[test]
    fn a_snapshot_is_due_when_the_log_is_some_times_as_large_as_the_last_one() {
        let mut options = Options::default();
        (options.snapshot_ratio, options.snapshot_log_bytes_min) = (4, 100);
        let mut captures = Captures::new(None);
        let count = |captures: &mut Captures, index, bytes| {
            captures.count(LogIndex(index), bytes);
            captures.is_due(&options)
        };
        assert!(!count(&mut captures, 4, 99) && count(&mut captures, 5, 1));
        captures.begin(Position::new(1, 5));
        assert!(!count(&mut captures, 6, 1000), "one at a time");
        captures.visible(Position::new(1, 5), 500, LogIndex(6));
        assert!(!count(&mut captures, 7, 999) && count(&mut captures, 8, 1));
        let mut captures = Captures::new(Some((Position::new(1, 9), 10)));
        assert!(!count(&mut captures, 9, 1000), "the newest contains that");
        assert!(count(&mut captures, 10, 100));
        captures.visible(Position::new(1, 12), 10, LogIndex(10));
        assert!(!count(&mut captures, 13, 99), "a peer's contains what was counted");
        assert!(count(&mut captures, 14, 1));
        captures.begin(Position::new(1, 14));
        assert!(!count(&mut captures, 15, 100));
        captures.fail(Position::new(1, 14), SnapshotError::Stopped);
        assert!(!count(&mut captures, 16, 99), "not at once, for there may be no room");
        assert!(count(&mut captures, 17, 1));
    }

    /// Found by a reader: that one has rotted was passed over there, and counted for ever as one that is.
    #[test]
    fn one_in_place_of_one_that_was_lost_ahead_is_put_off_until_the_state_machine_is_there() {
        let options = Options::default();
        let any = Options { snapshot_ratio: 0, snapshot_log_bytes_min: 1, ..Options::default() };
        for from_a_peer in [false, true] {
            let mut captures = Captures::new(Some((Position::new(1, 9), 10)));
            captures.forget_newest(LogIndex(5));
            assert_eq!(captures.newest(), None);
            let (completer, outcome) = slot();
            assert!(!captures.wait(LogIndex(5), completer), "it would end before what is lost");
            assert!(captures.is_put_off());
            captures.count(LogIndex(8), 1 << 30);
            assert!(!captures.is_due(&options));
            let at = Position::new(1, if from_a_peer { 12 } else { 9 });
            if !from_a_peer {
                captures.count(at.index, 1);
                assert!(captures.is_due(&options));
                captures.begin(at);
            }
            captures.visible(at, 10, LogIndex(9));
            assert!(!captures.is_put_off() && !captures.is_due(&any));
            assert_eq!(outcome.wait().unwrap().index, at.index.0);
            captures.count(LogIndex(20), 1);
            assert!(!captures.is_due(&options), "what it contains does not count");
        }
    }

    #[test]
    fn who_waits_hears_of_the_first_that_contains_what_was_applied_then() {
        let (mut captures, options) = (Captures::new(None), Options::default());
        let (completer, outcome) = slot();
        assert!(captures.wait(LogIndex(5), completer));
        captures.begin(Position::new(1, 5));
        let (completer, second) = slot();
        assert!(!captures.wait(LogIndex(6), completer), "it joins the one that is running");
        let (completer, later) = slot();
        assert!(!captures.wait(LogIndex(7), completer));
        captures.visible(Position::new(1, 3), 10, LogIndex(7));
        assert!(!captures.is_due(&options));
        captures.visible(Position::new(1, 6), 10, LogIndex(7));
        assert!(captures.is_due(&options), "somebody wants more");
        for outcome in [outcome, second] {
            assert_eq!(outcome.wait().unwrap().index, 6);
        }
        captures.begin(Position::new(1, 8));
        captures.visible(Position::new(1, 8), 10, LogIndex(8));
        assert!(!captures.is_due(&options));
        assert_eq!(later.wait().unwrap().index, 8);
        let (completer, outcome) = slot();
        assert!(captures.wait(LogIndex(9), completer));
        captures.begin(Position::new(1, 9));
        captures.fail(Position::new(1, 5), SnapshotError::Stopped);
        captures.fail(Position::new(1, 9), SnapshotError::Failed("no space".into()));
        assert_eq!(outcome.wait(), Err(SnapshotError::Failed("no space".into())));
    }
}
