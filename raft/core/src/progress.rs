//! A follower as its leader sees it.
//!
//! ```text
//!            the probe's place is acknowledged, with progress
//!          +--------------------------------------------------+
//!          |                                                  v
//!        probe  (one message, again at each heartbeat)     replicate  (a window of messages)
//!          ^                                                  |
//!          +--------------------------------------------------+
//!          |  a reject, or heartbeats answered without progress
//!          |                                                  ^
//!          v   the log does not hold the next entry           |
//!       snapshot  (offered at each heartbeat)  ---------------+
//!                     any progress is acknowledged
//! ```

use alloc::collections::VecDeque;

use crate::{FetchId, Instant, LogIndex};

/// How far a follower is, and what is on its way to it.
///
/// `matched < next`. Within a leadership `matched` only rises; `next` falls only when a probe
/// begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    /// Everything up to here is durable on the follower and equal to the leader's log.
    pub(crate) matched: LogIndex,
    /// The next entry to send.
    pub(crate) next: LogIndex,
    /// The leader's round when `matched` last rose: what was sent in a later round was sent in
    /// the knowledge of it.
    matched_in_round: u64,
    mode: Mode,
    /// Messages with entries on their way: last index and weight.
    inflight: VecDeque<(LogIndex, usize)>,
    inflight_bytes: usize,
    /// The newest round the follower has answered.
    pub(crate) answered_round: u64,
    /// When it last answered.
    pub(crate) answered_at: Instant,
    /// The newest commit index it was told.
    pub(crate) commit_told: LogIndex,
    /// Entries for it are being read from the log.
    pub(crate) fetch: Option<FetchId>,
    /// It has lost what it had acknowledged, and counts for nothing any more.
    pub(crate) regressed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    /// Where the logs agree is not known, or messages were lost.
    Probe {
        /// Entries were sent since the last heartbeat.
        sent: bool,
    },
    /// Messages follow each other without waiting for answers.
    Replicate {
        /// Round and `matched` at an earlier heartbeat with messages on their way.
        mark: Option<(u64, LogIndex)>,
    },
    /// It needs entries that are in the snapshot only, and is offered that.
    Snapshot {
        /// Where that ends.
        at: LogIndex,
    },
}

/// What a reject means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    /// It answers something long overtaken.
    Stale,
    /// Go on from an earlier place.
    Probe,
    /// The follower does not have what it acknowledged.
    Regressed,
}

impl Progress {
    /// A follower of which nothing is known, but that it may have everything up to `last`.
    pub(crate) fn new(last: LogIndex, now: Instant) -> Self {
        Self {
            matched: LogIndex(0),
            next: last.next(),
            matched_in_round: 0,
            mode: Mode::Probe { sent: false },
            inflight: VecDeque::new(),
            inflight_bytes: 0,
            answered_round: 0,
            answered_at: now,
            commit_told: LogIndex(0),
            fetch: None,
            regressed: false,
        }
    }

    /// Whether another message with entries may leave now.
    pub(crate) fn has_room(&self, messages_max: usize, bytes_max: usize) -> bool {
        if self.regressed || self.fetch.is_some() {
            return false;
        }
        match self.mode {
            Mode::Probe { sent } => !sent,
            Mode::Snapshot { .. } => false,
            Mode::Replicate { .. } => {
                self.inflight.len() < messages_max && self.inflight_bytes < bytes_max
            }
        }
    }

    /// A message with entries up to `last` is on its way.
    pub(crate) fn sent(&mut self, last: LogIndex, bytes: usize) {
        assert!(last >= self.next);
        match &mut self.mode {
            Mode::Probe { sent } => *sent = true,
            Mode::Snapshot { .. } => unreachable!("nothing is sent beside a snapshot"),
            Mode::Replicate { .. } => {
                self.next = last.next();
                self.inflight.push_back((last, bytes));
                self.inflight_bytes += bytes;
            }
        }
    }

    /// The follower has everything up to `matched`, said in the leader's `round`. Ends a probe if
    /// that confirms the place it probed.
    pub(crate) fn acknowledge(&mut self, matched: LogIndex, round: u64) {
        if matched <= self.matched {
            return;
        }
        self.matched = matched;
        self.matched_in_round = round;
        while let Some((_, bytes)) = self.inflight.pop_front_if(|(last, _)| *last <= matched) {
            self.inflight_bytes -= bytes;
        }
        match self.mode {
            Mode::Probe { .. } if matched >= self.next.previous() => {
                self.mode = Mode::Replicate { mark: None };
            }
            // It has taken the snapshot in, or got the entries from somebody else.
            Mode::Snapshot { .. } => {
                self.mode = Mode::Replicate { mark: None };
                self.next = matched.next();
            }
            _ => {}
        }
        self.next = self.next.max(matched.next());
    }

    /// Whether an answer to a message of `round` that stands at `index` contradicts what the
    /// follower has acknowledged before that message was sent.
    /// An answer that stands at 0 matched nothing but the place before the first entry.
    pub(crate) fn contradicts(&self, index: LogIndex, round: u64) -> bool {
        index > LogIndex(0) && index < self.matched && round > self.matched_in_round
    }

    /// The follower does not hold `previous`, which it was asked about in `round`.
    pub(crate) fn reject(&mut self, previous: LogIndex, round: u64) -> Reject {
        if previous <= self.matched {
            let known_when_sent = round > self.matched_in_round;
            return if known_when_sent && previous > LogIndex(0) {
                Reject::Regressed
            } else {
                Reject::Stale
            };
        }
        match self.mode {
            Mode::Probe { .. } if previous != self.next.previous() => Reject::Stale,
            Mode::Snapshot { .. } => Reject::Stale,
            _ => Reject::Probe,
        }
    }

    /// The log does not hold the next entry any more, but a snapshot that ends at `at` does.
    pub(crate) fn offer(&mut self, at: LogIndex) {
        assert!(self.next <= at && self.fetch.is_none(), "a snapshot is of use");
        self.commit_told = LogIndex(0);
        self.mode = Mode::Snapshot { at };
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Where the snapshot ends that the follower is offered.
    pub(crate) fn offered(&self) -> Option<LogIndex> {
        match self.mode {
            Mode::Snapshot { at } => Some(at),
            _ => None,
        }
    }

    /// Forgets what is on its way and asks about the entry before `next`.
    pub(crate) fn probe_from(&mut self, next: LogIndex) {
        self.commit_told = LogIndex(0);
        self.mode = Mode::Probe { sent: false };
        self.inflight.clear();
        self.inflight_bytes = 0;
        self.fetch = None;
        self.next = next.max(self.matched.next());
    }

    /// A heartbeat of `round` leaves now. A probe may be repeated with it. Messages that were on
    /// their way a heartbeat ago, without any progress although the follower has answered since,
    /// are lost or stuck: back to a probe.
    pub(crate) fn heartbeat(&mut self, round: u64) {
        match &mut self.mode {
            Mode::Probe { sent } => *sent = false,
            Mode::Snapshot { .. } => {}
            Mode::Replicate { mark } if self.inflight.is_empty() => *mark = None,
            Mode::Replicate { mark } => match *mark {
                Some((marked, matched)) if matched == self.matched => {
                    if self.answered_round >= marked {
                        self.probe_from(self.matched.next());
                        // The heartbeat that leaves now is bare; the probe goes with it.
                    }
                }
                _ => *mark = Some((round, self.matched)),
            },
        }
    }

    pub(crate) fn is_probing(&self) -> bool {
        matches!(self.mode, Mode::Probe { .. })
    }

    pub(crate) fn inflight_messages(&self) -> usize {
        self.inflight.len()
    }

    pub(crate) fn inflight_bytes(&self) -> usize {
        self.inflight_bytes
    }

    pub(crate) fn check(&self, last: LogIndex) {
        assert!(self.matched < self.next && self.matched <= last);
        assert!(self.next <= last.next());
        assert!(self.inflight.iter().all(|(end, _)| *end > self.matched && *end < self.next));
        assert_eq!(
            self.inflight_bytes,
            self.inflight.iter().map(|(_, bytes)| bytes).sum::<usize>()
        );
        match self.mode {
            Mode::Probe { .. } => assert!(self.inflight.is_empty()),
            Mode::Snapshot { at } => assert!(self.inflight.is_empty() && at <= last),
            Mode::Replicate { .. } if self.inflight.is_empty() => {
                assert_eq!(self.next, self.matched.next(), "nothing is forgotten between the two");
            }
            Mode::Replicate { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: (usize, usize) = (2, 1000);

    fn has_room(progress: &Progress) -> bool {
        progress.has_room(ROOM.0, ROOM.1)
    }

    fn replicating() -> Progress {
        let mut progress = Progress::new(LogIndex(4), Instant(0));
        progress.sent(LogIndex(5), 10);
        progress.acknowledge(LogIndex(5), 1);
        assert!(!progress.is_probing());
        progress
    }

    #[test]
    fn a_probe_is_one_message_until_the_next_heartbeat() {
        let mut progress = Progress::new(LogIndex(4), Instant(0));
        assert!(has_room(&progress));
        progress.sent(LogIndex(5), 10);
        assert!(!has_room(&progress));
        progress.heartbeat(2);
        assert!(has_room(&progress));
        assert_eq!(progress.next, LogIndex(5));
    }

    #[test]
    fn the_window_is_bounded_in_messages_and_in_bytes() {
        let mut progress = replicating();
        progress.sent(LogIndex(6), 10);
        progress.sent(LogIndex(7), 10);
        assert!(!has_room(&progress));
        progress.acknowledge(LogIndex(6), 1);
        assert!(has_room(&progress));
        progress.sent(LogIndex(8), 1000);
        progress.acknowledge(LogIndex(7), 1);
        assert!(!has_room(&progress), "one message, but too many bytes");
    }

    /// RAFT-CASE 24
    #[test]
    fn heartbeats_answered_without_progress_lead_back_to_a_probe() {
        let mut progress = replicating();
        progress.sent(LogIndex(6), 10);
        progress.heartbeat(2);
        progress.heartbeat(3);
        assert!(!progress.is_probing(), "no answer yet: nothing is known");
        progress.answered_round = 2;
        progress.heartbeat(4);
        assert!(progress.is_probing());
        assert_eq!((progress.next, progress.inflight_messages()), (LogIndex(6), 0));
    }

    #[test]
    fn progress_between_heartbeats_keeps_the_pipeline() {
        let mut progress = replicating();
        progress.sent(LogIndex(6), 10);
        progress.sent(LogIndex(7), 10);
        progress.heartbeat(2);
        progress.acknowledge(LogIndex(6), 2);
        progress.answered_round = 2;
        progress.heartbeat(3);
        assert!(!progress.is_probing());
    }

    /// RAFT-CASE 19
    #[test]
    fn a_late_reject_is_stale_and_a_contradiction_is_a_regress() {
        let mut progress = replicating();
        assert_eq!(progress.reject(LogIndex(5), 1), Reject::Stale);
        assert_eq!(progress.reject(LogIndex(5), 2), Reject::Regressed);
        assert_eq!(progress.reject(LogIndex(7), 1), Reject::Probe);
        progress.probe_from(LogIndex(7));
        assert_eq!(progress.reject(LogIndex(8), 1), Reject::Stale, "not what the probe asks");
        assert_eq!(progress.reject(LogIndex(6), 1), Reject::Probe);
        assert!(progress.contradicts(LogIndex(4), 2) && !progress.contradicts(LogIndex(4), 1));
    }

    #[test]
    fn nothing_sends_matched_back() {
        let mut progress = replicating();
        progress.acknowledge(LogIndex(3), 9);
        progress.probe_from(LogIndex(2));
        assert_eq!((progress.matched, progress.next), (LogIndex(5), LogIndex(6)));
    }
}
