//! An image on its way from a peer: what is asked for next, and when nothing more is expected. It does no IO itself.

use std::time::Duration;

use bytes::Bytes;
use kontiki_core::{Instant, Position};
use kontiki_snapshot::Offer;

use crate::snapshots::{self, keeper::Job};

/// Most bytes of a piece.
pub(crate) const PIECE_BYTES_MAX: usize = 256 << 10;

/// How many are asked for ahead of what is written: the delay of a network times its speed.
pub(crate) const WINDOW_PIECES: usize = 8;

/// Some bytes of an image's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where the image ends.
    pub(crate) at: Position,
    /// Bytes of all of it.
    pub(crate) total: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// What is asked of a peer: a piece of its image that ends at `at`, or the beginning of its newest one if that is 0/0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) at: Position,
    pub(crate) offset: u64,
    /// Bytes of it, unless the image ends before.
    pub(crate) bytes: usize,
}

/// How quickly an image may come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes of a piece that is asked for.
    pub(crate) piece_bytes: usize,
    /// Bytes a second, at most.
    pub(crate) rate_max: u64,
}

impl Pace {
    /// What one piece takes of the time there is.
    pub(crate) fn a_piece(self) -> Duration {
        let nanos = self.piece_bytes as u128 * 1_000_000_000 / u128::from(self.rate_max.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What a download is asked for by the driver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    GoesOn,
    /// Nothing has come for a while: what is asked for is asked again.
    Again,
    /// Nothing has come for long.
    Over,
}

/// An image on its way. Pieces are taken in order; one that is lost is asked for again with all behind it.
#[derive(Debug)]
pub(crate) struct Download {
    pub(crate) from: u64,
    pace: Pace,
    /// Where the image ends and how long it is, once the first piece has said that.
    image: Option<(Position, u64)>,
    /// Everything before was handed to the keeper,
    arrived: u64,
    /// written by it,
    written: u64,
    /// and asked for.
    asked: u64,
    /// The next piece may be asked for then.
    ask_at: Instant,
    /// When something came last, or was asked for again.
    stirred_at: Instant,
    /// When something came last.
    progress_at: Instant,
    /// Nothing has come for long: nothing is asked for until somebody offers it again.
    is_paused: bool,
}

impl Download {
    pub(crate) fn new(from: u64, pace: Pace, now: Instant) -> Self {
        Self {
            from,
            pace,
            image: None,
            arrived: 0,
            written: 0,
            asked: 0,
            ask_at: now,
            stirred_at: now,
            progress_at: now,
            is_paused: false,
        }
    }

    /// The peer offers its image again: goes on behind what has come.
    pub(crate) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_paused) {
            self.asked = self.arrived;
            (self.stirred_at, self.progress_at) = (now, now);
        }
    }

    /// What to ask for now: as much as the window and the pace allow.
    pub(crate) fn asks(&mut self, now: Instant) -> Vec<Ask> {
        if self.is_paused {
            return Vec::new();
        }
        let bytes = self.pace.piece_bytes;
        let Some((at, _)) = self.image else {
            let is_first = self.asked == 0;
            self.asked = 1;
            let first = Ask { at: Position::default(), offset: 0, bytes };
            return is_first.then_some(first).into_iter().collect();
        };
        let mut asks = Vec::new();
        while self.wants_more() && self.ask_at <= now {
            asks.push(Ask { at, offset: self.asked, bytes });
            self.asked += bytes as u64;
            self.ask_at = self.ask_at.max(now) + self.pace.a_piece();
        }
        asks
    }

    /// Whether the window has room for another piece.
    fn wants_more(&self) -> bool {
        let window = (WINDOW_PIECES * self.pace.piece_bytes) as u64;
        self.image.is_some_and(|(_, total)| self.asked < total.min(self.written + window))
    }

    /// A piece has come; what the keeper is to do with it.
    pub(crate) fn take(&mut self, cluster: u64, piece: Piece, now: Instant) -> Vec<Job> {
        let Piece { at, total, offset, bytes } = piece;
        let mut jobs = Vec::new();
        if self.image != Some((at, total)) {
            // The peer has another image by now, or said so first: that one begins.
            if offset != 0 {
                return jobs;
            }
            *self =
                Self { image: Some((at, total)), asked: 1, ..Self::new(self.from, self.pace, now) };
            let offer = Offer {
                owner: snapshots::owner(cluster),
                place: snapshots::place(at),
                bytes: total,
            };
            jobs.push(Job::Receive(offer));
        }
        // No more than was asked for: what the keeper is given is bounded.
        if offset == self.arrived && offset < self.asked && !bytes.is_empty() {
            self.arrived += bytes.len() as u64;
            self.asked = self.asked.max(self.arrived);
            (self.stirred_at, self.progress_at) = (now, now);
            jobs.push(Job::Append { offset, bytes });
        }
        jobs
    }

    /// Whether it is of the image that ends there.
    pub(crate) fn ends_at(&self, at: Position) -> bool {
        self.image.is_some_and(|(known, _)| known == at)
    }

    /// The keeper has written so much of the image that ends at `at`.
    pub(crate) fn written(&mut self, at: Position, received: u64) {
        if self.ends_at(at) {
            self.written = self.written.max(received.min(self.arrived));
        }
    }

    /// Looks how long nothing has come: after a while all that is under way counts as lost, and it is over after so long a time
    /// without progress, however long it takes in all (RAFT-CASE 52).
    pub(crate) fn expire(&mut self, now: Instant, patience: Duration) -> Expiry {
        if self.is_paused {
            return Expiry::GoesOn;
        }
        if now >= self.progress_at + patience * STALL_TIMES {
            self.is_paused = true;
            return Expiry::Over;
        }
        if now < self.stirred_at + patience {
            return Expiry::GoesOn;
        }
        self.stirred_at = now;
        self.asked = self.arrived;
        Expiry::Again
    }

    /// When `expire` is due, or another piece may be asked for.
    pub(crate) fn expires_at(&self, patience: Duration) -> Option<Instant> {
        let at = (self.stirred_at + patience).min(self.progress_at + patience * STALL_TIMES);
        let at = if self.wants_more() { at.min(self.ask_at) } else { at };
        (!self.is_paused).then_some(at)
    }
}

/// A download is over when nothing has come for so many times as long as a repetition waits.
pub(crate) const STALL_TIMES: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = PIECE_BYTES_MAX as u64;
    const PACE: Pace = Pace { piece_bytes: PIECE_BYTES_MAX, rate_max: u64::MAX };
    /// Pieces are asked for at any moment where no rate is set.
    const LATER: Instant = Instant(1_000);
    const AT: Position = Position { term: kontiki_core::Term(2), index: kontiki_core::LogIndex(9) };

    fn piece(total: u64, offset: u64, bytes: u64) -> Piece {
        let bytes = Bytes::from(vec![7; usize::try_from(bytes).unwrap()]);
        Piece { at: AT, total, offset, bytes }
    }

    fn offsets(jobs: &[Job]) -> Vec<u64> {
        let offset = |job: &Job| match job {
            Job::Append { offset, .. } => Some(*offset),
            _ => None,
        };
        jobs.iter().filter_map(offset).collect()
    }

    #[test]
    fn a_window_is_asked_for_ahead_of_what_is_written() {
        let total = 20 * PIECE;
        let mut download = Download::new(3, PACE, Instant(0));
        let bytes = PIECE_BYTES_MAX;
        assert_eq!(download.asks(LATER), [Ask { at: Position::default(), offset: 0, bytes }]);
        assert_eq!(download.asks(LATER), []);
        let jobs = download.take(5, piece(total, 0, PIECE), Instant(1));
        let [Job::Receive(offer), Job::Append { offset: 0, .. }] = &jobs[..] else { panic!() };
        assert_eq!((offer.bytes, offer.owner.cluster, offer.place.index), (total, 5, 9));
        let asked: Vec<u64> = download.asks(LATER).iter().map(|ask| ask.offset / PIECE).collect();
        assert_eq!(asked, [1, 2, 3, 4, 5, 6, 7]);
        download.written(Position::new(1, 2), 9 * PIECE);
        download.written(AT, PIECE);
        assert_eq!(
            download.asks(LATER).len(),
            1,
            "what was written of another one counts for nothing"
        );
        download.written(AT, 9 * PIECE);
        assert_eq!(download.asks(LATER), [], "nor what has not come");
        download.take(5, piece(total, PIECE, PIECE), Instant(2));
        download.written(AT, 2 * PIECE);
        let asked: Vec<u64> = download.asks(LATER).iter().map(|ask| ask.offset / PIECE).collect();
        assert_eq!(asked, [9]);
    }

    #[test]
    fn what_is_lost_is_asked_for_again_with_all_behind_it_and_what_comes_twice_is_left() {
        let mut download = Download::new(3, PACE, Instant(0));
        download.asks(LATER);
        download.take(5, piece(3 * PIECE, 0, PIECE), Instant(1));
        download.asks(LATER);
        assert_eq!(offsets(&download.take(5, piece(3 * PIECE, 2 * PIECE, PIECE), Instant(2))), []);
        assert_eq!(offsets(&download.take(5, piece(3 * PIECE, 0, PIECE), Instant(3))), []);
        let patience = Duration::from_nanos(10);
        assert_eq!(download.expire(Instant(10), patience), Expiry::GoesOn);
        assert_eq!(download.expires_at(patience), Some(Instant(11)));
        assert_eq!(download.expire(Instant(11), patience), Expiry::Again);
        let asked: Vec<u64> = download.asks(LATER).iter().map(|ask| ask.offset / PIECE).collect();
        assert_eq!(asked, [1, 2]);
        assert_eq!(
            offsets(&download.take(5, piece(3 * PIECE, PIECE, PIECE), Instant(12))),
            [PIECE]
        );
        assert_eq!(download.expire(Instant(111), patience), Expiry::Again);
        assert_eq!(download.expire(Instant(112), patience), Expiry::Over);
        // RAFT-CASE 52: it goes on where it was, when it is offered again.
        assert_eq!((download.expires_at(patience), download.asks(LATER)), (None, Vec::new()));
        download.resume(Instant(500));
        assert_eq!(download.asks(LATER)[0].offset, 2 * PIECE);
        assert_eq!(download.expires_at(patience), Some(Instant(510)));
    }

    /// RAFT-CASE 53
    #[test]
    fn another_image_of_the_peer_begins_anew_and_its_middle_counts_for_nothing() {
        let mut download = Download::new(3, PACE, Instant(0));
        download.asks(LATER);
        download.take(5, piece(3 * PIECE, 0, PIECE), Instant(1));
        let other = |offset| Piece { at: Position::new(2, 20), ..piece(2 * PIECE, offset, PIECE) };
        assert!(download.take(5, other(PIECE), Instant(2)).is_empty());
        let jobs = download.take(5, other(0), Instant(3));
        assert!(matches!(&jobs[..], [Job::Receive(_), Job::Append { offset: 0, .. }]));
        assert!(download.take(5, piece(3 * PIECE, PIECE, PIECE), Instant(4)).is_empty());
        let asks = download.asks(LATER);
        assert_eq!((asks.len(), asks[0].at, asks[0].offset), (1, Position::new(2, 20), PIECE));
        assert!(download.take(5, other(PIECE), Instant(5)).len() == 1);
        assert!(download.take(5, other(2 * PIECE), Instant(5)).is_empty(), "nobody asked for it");
    }

    #[test]
    fn pieces_are_asked_for_no_quicker_than_the_rate_allows() {
        let pace = Pace { piece_bytes: PIECE_BYTES_MAX, rate_max: 4 * PIECE };
        let mut download = Download::new(3, pace, Instant(0));
        download.asks(Instant(0));
        download.take(5, piece(20 * PIECE, 0, PIECE), Instant(1));
        let ms = |ms: u64| Instant(ms * 1_000_000);
        assert_eq!(download.asks(ms(1)).len(), 1);
        assert_eq!(download.asks(ms(250)), []);
        assert_eq!(download.expires_at(Duration::from_secs(9)), Some(ms(251)));
        assert_eq!(download.asks(ms(251)).len(), 1);
        // What was not used is not made up for.
        assert_eq!(download.asks(ms(5000)).len(), 1);
        // A full window waits for what is written, and for no moment.
        (0..4).for_each(|second| assert_eq!(download.asks(ms(6000 + second * 1000)).len(), 1));
        assert_eq!(download.asks(ms(20_000)), []);
        assert_eq!(download.expires_at(Duration::from_secs(9)), Some(Instant(9_000_000_001)));
    }
}
