//! When the state machine is captured, and who waits for the snapshot.

use kontiki_core::Position;

use crate::{SnapshotError, slot::Completer};

/// What became of a snapshot.
pub(crate) type SnapshotResult = Result<crate::Position, SnapshotError>;

/// Counts what a new snapshot would spare, as LogCabin does: one is due when the log behind the newest has grown to some times
/// its size, so that the work of writing snapshots is a share of that of writing the log, whatever the state grows to.
#[derive(Default)]
pub(crate) struct Captures {
    /// Applied since the newest snapshot.
    log_bytes: u64,
    /// The newest snapshot, and its bytes.
    newest: Option<(Position, u64)>,
    /// Where the one ends that is on its way to the disk.
    running: Option<Position>,
    waiting: Vec<Completer<SnapshotResult>>,
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

    /// So much was applied. Says whether a snapshot is due.
    pub(crate) fn count(&mut self, bytes: usize, ratio: u64, least: u64) -> bool {
        self.log_bytes = self.log_bytes.saturating_add(bytes as u64);
        let image_bytes = self.newest.map_or(0, |(_, bytes)| bytes);
        self.running.is_none() && self.log_bytes >= least.max(image_bytes.saturating_mul(ratio))
    }

    /// Somebody wants one. Says whether it has to be begun.
    pub(crate) fn wait(&mut self, completer: Completer<SnapshotResult>) -> bool {
        self.waiting.push(completer);
        self.running.is_none()
    }

    /// One that ends at `at` is on its way. Until that has an end none is due.
    pub(crate) fn begin(&mut self, at: Position) {
        self.running = Some(at);
        self.log_bytes = 0;
    }

    /// A snapshot is visible: the one that was begun, or a newer one of a peer.
    pub(crate) fn visible(&mut self, at: Position, bytes: u64) {
        self.newest = Some((at, bytes));
        if self.running.is_some_and(|running| running.index <= at.index) {
            self.end(&Ok(at.into()));
        }
    }

    /// The one that was begun at `at` could not be had. The next is due when as much was applied again.
    pub(crate) fn fail(&mut self, at: Position, error: SnapshotError) {
        if self.running == Some(at) {
            self.end(&Err(error));
        }
    }

    /// There will be none any more.
    pub(crate) fn close(&mut self, error: SnapshotError) {
        self.end(&Err(error));
    }

    fn end(&mut self, result: &SnapshotResult) {
        self.running = None;
        for completer in self.waiting.drain(..) {
            completer.complete_and_wake(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slot::slot;

    #[test]
    fn a_snapshot_is_due_when_the_log_is_some_times_as_large_as_the_last_one() {
        let mut captures = Captures::new(None);
        assert!(!captures.count(99, 4, 100) && captures.count(1, 4, 100));
        captures.begin(Position::new(1, 5));
        assert!(!captures.count(1000, 4, 100), "one at a time");
        captures.visible(Position::new(1, 5), 500);
        assert!(!captures.count(999, 4, 100) && captures.count(1, 4, 100));
    }

    #[test]
    fn who_waits_hears_of_the_one_that_was_begun_or_a_newer_one() {
        let mut captures = Captures::new(None);
        let (completer, outcome) = slot();
        assert!(captures.wait(completer));
        captures.begin(Position::new(1, 5));
        let (completer, second) = slot();
        assert!(!captures.wait(completer), "it joins the one that is running");
        captures.visible(Position::new(1, 3), 10);
        captures.visible(Position::new(1, 6), 10);
        for outcome in [outcome, second] {
            assert_eq!(outcome.wait().unwrap().index, 6);
        }
        let (completer, outcome) = slot();
        assert!(captures.wait(completer));
        captures.begin(Position::new(1, 9));
        captures.fail(Position::new(1, 5), SnapshotError::Stopped);
        captures.fail(Position::new(1, 9), SnapshotError::Failed("no space".into()));
        assert_eq!(outcome.wait(), Err(SnapshotError::Failed("no space".into())));
    }
}
