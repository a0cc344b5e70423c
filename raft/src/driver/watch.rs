//! A leader's look at its followers, once a heartbeat: how far each is, how quickly it gets on, and whether it does at all.

use std::time::Duration;

use kontiki_core::{FollowerMode as CoreMode, FollowerStatus as CoreStatus, Instant};

use crate::{
    Event, FollowerMode, FollowerStatus, Role, driver::Driver, snapshots::download::STALL_TIMES,
};

/// What a leader has seen of its followers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Those of this leadership.
    watched: Vec<Watched>,
    looked_at: Option<Instant>,
}

#[derive(Debug)]
struct Watched {
    id: u64,
    matched: u64,
    mode: CoreMode,
    /// The furthest piece of a snapshot that it has asked for: its index, and how many bytes lie before it.
    asked: (u64, u64),
    /// Of that snapshot.
    snapshot_bytes: u64,
    /// When it last got on, or lacked nothing.
    progress_at: Instant,
    is_stalled: bool,
    /// Where it was when its rate was last told, and when that was.
    mark: (u64, Instant),
    /// Entries a second.
    rate: u64,
}

impl Watched {
    fn new(id: u64, matched: u64, now: Instant) -> Self {
        Self {
            id,
            matched,
            mode: CoreMode::Probe,
            asked: (0, 0),
            snapshot_bytes: 0,
            progress_at: now,
            is_stalled: false,
            mark: (matched, now),
            rate: 0,
        }
    }

    /// Takes in where the follower is now. Whoever lacks nothing is not waited for.
    fn look(&mut self, seen: &CoreStatus, last: u64, now: Instant) {
        let (before, matched) = (self.matched, seen.matched.0);
        if matched > before || (matched == last && !seen.regressed) {
            self.progress_at = now;
        }
        self.matched = before.max(matched);
        // Where it stands was not known before, or a snapshot has brought it there: no rate.
        let mode_before = std::mem::replace(&mut self.mode, seen.mode);
        if before == 0 || mode_before == CoreMode::Snapshot {
            self.mark = (self.matched, now);
        }
        let passed = now.0.saturating_sub(self.mark.1.0);
        if passed >= RATE_WINDOW_NANOS {
            let entries = u128::from(self.matched - self.mark.0) * 1_000_000_000;
            self.rate = u64::try_from(entries / u128::from(passed)).unwrap_or(u64::MAX);
            self.mark = (self.matched, now);
        }
    }

    /// Whether that has changed by now.
    fn judge(&mut self, now: Instant, patience: Duration) -> bool {
        let is_stalled = now >= self.progress_at + patience;
        std::mem::replace(&mut self.is_stalled, is_stalled) != is_stalled
    }

    fn told(&self, seen: &CoreStatus, last: u64) -> FollowerStatus {
        // And not one that it has got.
        let gets_one = seen.mode == CoreMode::Snapshot && self.asked.0 > seen.matched.0;
        FollowerStatus {
            id: self.id,
            mode: match seen.mode {
                CoreMode::Probe => FollowerMode::Probe,
                CoreMode::Replicate => FollowerMode::Replicate,
                CoreMode::Snapshot => FollowerMode::Snapshot,
            },
            matched: seen.matched.0,
            lag: last - seen.matched.0,
            rate: self.rate,
            inflight_messages: seen.inflight_messages,
            inflight_bytes: seen.inflight_bytes,
            snapshot_bytes_asked: if gets_one { self.asked.1 } else { 0 },
            snapshot_bytes: if gets_one { self.snapshot_bytes } else { 0 },
            is_stalled: self.is_stalled,
            is_regressed: seen.regressed,
        }
    }
}

impl Watch {
    /// A follower asks for a piece of a snapshot, which ends at `index` and has so many bytes: that is progress if the piece lies
    /// behind all that it asked for before, or is one of a newer snapshot.
    pub(super) fn asked(&mut self, id: u64, index: u64, (offset, bytes): (u64, u64), now: Instant) {
        let Some(watched) = self.watched.iter_mut().find(|watched| watched.id == id) else {
            return;
        };
        if (index, offset) > watched.asked {
            watched.asked = (index, offset);
            watched.snapshot_bytes = bytes;
            watched.progress_at = now;
        }
    }

    /// A follower is there anew: another process, which begins a snapshot at its beginning.
    pub(super) fn reconnected(&mut self, id: u64) {
        if let Some(watched) = self.watched.iter_mut().find(|watched| watched.id == id) {
            (watched.asked, watched.snapshot_bytes) = ((0, 0), 0);
        }
    }
}

impl Driver {
    /// Looks at the followers if the last look is a heartbeat ago; a leader's turns are no further apart.
    pub(super) fn watch_followers(&mut self) {
        let heartbeat = self.shared.options.heartbeat;
        if self.standing.role != Role::Leader {
            self.images.served.clear();
        }
        let is_due = self.watch.looked_at.is_none_or(|at| self.now >= at + heartbeat);
        let Some(core) =
            self.core.as_ref().filter(|_| is_due && self.standing.role == Role::Leader)
        else {
            return;
        };
        let (followers, last) = (core.followers(), core.cursors().last.index.0);
        // Who is alive gives an image up, or asks for more of it, within this time. Who is not may never come back, and would hold
        // the space of a file that is removed.
        let patience = self.shared.options.election_timeout_max * STALL_TIMES;
        let is_served = |one: &CoreStatus, id| one.id.0 == id && one.mode == CoreMode::Snapshot;
        self.images.served.retain(|&id, served| {
            self.now < served.asked_at + patience && followers.iter().any(|one| is_served(one, id))
        });
        self.watch.looked_at = Some(self.now);
        let mut news = Vec::new();
        let watched = followers.iter().map(|seen| self.watch_follower(seen, last, &mut news));
        let told = watched.collect::<Vec<_>>();
        // First: who hears the event finds it in the status.
        self.shared.board.update(|status| status.followers = told);
        news.into_iter().for_each(|event| self.shared.events.tell(event));
    }

    fn watch_follower(
        &mut self,
        seen: &CoreStatus,
        last: u64,
        news: &mut Vec<Event>,
    ) -> FollowerStatus {
        let (id, matched, now) = (seen.id.0, seen.matched.0, self.now);
        let watched = &mut self.watch.watched;
        let place = watched.iter().position(|watched| watched.id == id).unwrap_or_else(|| {
            watched.push(Watched::new(id, matched, now));
            watched.len() - 1
        });
        let watched = &mut watched[place];
        watched.look(seen, last, now);
        if watched.judge(now, self.shared.options.follower_stall) {
            let (node, lag) = (self.shared.id, last - matched);
            if watched.is_stalled {
                tracing::warn!(node, follower = id, matched, lag, mode = ?seen.mode, "a follower makes no progress");
                news.push(Event::FollowerStalled { peer: id, matched, lag });
            } else {
                tracing::info!(node, follower = id, matched, lag, "a follower gets on again");
                news.push(Event::FollowerResumed { peer: id });
            }
        }
        watched.told(seen, last)
    }

    /// A leadership is over, or begins.
    pub(super) fn forget_followers(&mut self) {
        self.watch = Watch::default();
        self.shared.board.update(|status| status.followers.clear());
    }
}

/// Over how long a rate is taken, at least.
const RATE_WINDOW_NANOS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use kontiki_core::{LogIndex, NodeId};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Whether it is called stalled after each second in which it has come so far, of `last`.
    fn judged(watch: &mut Watch, last: u64, matched: &[u64]) -> Vec<bool> {
        let judge = |(second, matched): (u64, &u64)| {
            let now = Instant(second * SECOND);
            watch.watched[0].look(&seen(*matched), last, now);
            watch.watched[0].judge(now, PATIENCE);
            watch.watched[0].is_stalled
        };
        (1..).zip(matched).map(judge).collect()
    }

    fn seen(matched: u64) -> CoreStatus {
        CoreStatus {
            id: NodeId(2),
            matched: LogIndex(matched),
            next: LogIndex(matched + 1),
            mode: CoreMode::Replicate,
            inflight_messages: 0,
            inflight_bytes: 0,
            regressed: false,
        }
    }

    fn watch() -> Watch {
        Watch { watched: vec![Watched::new(2, 10, Instant(0))], looked_at: None }
    }

    #[test]
    fn who_lacks_entries_and_gets_none_for_a_while_is_stalled_until_it_gets_one() {
        let judged = judged(&mut watch(), 20, &[10, 10, 11, 11, 11, 11, 11, 11, 11, 12]);
        assert_eq!(judged.iter().position(|stalled| *stalled), Some(7), "5 s after second 3");
        assert_eq!(judged[8..], [true, false]);
    }

    #[test]
    fn who_lacks_nothing_is_never_stalled() {
        assert_eq!(judged(&mut watch(), 10, &[10; 20]), [false; 20]);
    }

    #[test]
    fn a_snapshot_that_comes_is_progress_and_the_same_piece_again_is_none() {
        let mut watch = watch();
        let behind = CoreStatus { mode: CoreMode::Snapshot, ..seen(10) };
        for second in 1..=30 {
            // An older one can be on its way still, whatever it gets from its leader.
            let seen = if second % 2 == 0 { &behind } else { &seen(10) };
            watch.asked(2, 15, (second.min(20), 90), Instant(second * SECOND));
            watch.watched[0].look(seen, 20, Instant(second * SECOND));
            watch.watched[0].judge(Instant(second * SECOND), PATIENCE);
            assert_eq!(watch.watched[0].is_stalled, second >= 25, "second {second}");
        }
        let told = watch.watched[0].told(&behind, 20);
        assert_eq!((told.snapshot_bytes_asked, told.snapshot_bytes), (20, 90));
        watch.asked(2, 18, (0, 95), Instant(31 * SECOND));
        watch.watched[0].judge(Instant(31 * SECOND), PATIENCE);
        assert!(!watch.watched[0].is_stalled, "a newer snapshot");
        // Started anew, and at the beginning of the same one.
        watch.reconnected(2);
        watch.asked(2, 18, (0, 95), Instant(40 * SECOND));
        assert_eq!(watch.watched[0].progress_at, Instant(40 * SECOND));
        let after = CoreStatus { mode: CoreMode::Snapshot, ..seen(18) };
        for (seen, bytes) in [(&behind, 95), (&seen(10), 0), (&after, 0)] {
            assert_eq!(watch.watched[0].told(seen, 20).snapshot_bytes, bytes);
        }
    }

    #[test]
    fn who_has_lost_what_it_had_is_stalled_also_while_nothing_is_appended() {
        let mut watch = watch();
        for second in 1..=5 {
            let lost = CoreStatus { regressed: true, ..seen(10) };
            watch.watched[0].look(&lost, 10, Instant(second * SECOND));
            watch.watched[0].judge(Instant(second * SECOND), PATIENCE);
        }
        assert!(watch.watched[0].is_stalled);
    }

    #[test]
    fn a_rate_is_that_of_the_last_second_or_more_and_not_of_what_came_at_once() {
        let mut watched = Watched::new(2, 0, Instant(0));
        let at = |tenths: u64| Instant(tenths * SECOND / 10);
        watched.look(&seen(5_000_000), 6_000_000, at(5));
        watched.look(&seen(5_000_000), 6_000_000, at(15));
        assert_eq!(watched.rate, 0, "it was there when the leadership began");
        watched.look(&seen(5_001_000), 6_000_000, at(25));
        assert_eq!(watched.rate, 1000);
        let snapshot = CoreStatus { mode: CoreMode::Snapshot, ..seen(5_001_000) };
        watched.look(&snapshot, 6_000_000, at(40));
        watched.look(&seen(6_000_000), 6_000_000, at(45));
        watched.look(&seen(6_000_000), 6_000_000, at(60));
        assert_eq!(watched.rate, 0, "a snapshot has brought it there");
    }
}
