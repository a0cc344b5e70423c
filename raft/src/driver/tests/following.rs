//! A follower that gets images.

use kontiki_core::InstallSnapshot;

use super::*;
use crate::snapshots::{
    download::{Ask, Piece},
    keeper::Job,
};

const AT: Position = Position { term: Term(1), index: LogIndex(9) };

impl World {
    /// A leader offers its image.
    fn offer(&mut self, leader: u64, term: u64) {
        let offer = InstallSnapshot { term: Term(term), round: 1, at: AT };
        let envelope = Envelope::Protocol(Message::InstallSnapshot(offer));
        self.shared.inbox.mail(Mail::Message { from: leader, envelope, bytes: 0 });
        self.turn();
    }

    /// Four bytes of an image of eight.
    fn piece(&mut self, from: u64, offset: u64) {
        let bytes = Bytes::from(vec![u8::try_from(from).unwrap(); 4]);
        let piece = Piece { at: AT, total: 8, offset, bytes };
        let envelope = Envelope::Piece(Some(piece));
        self.shared.inbox.mail(Mail::Message { from, envelope, bytes: 0 });
        self.turn();
    }

    /// What the keeper is to do since the last look: of what is to be written the offset and the first byte.
    fn jobs(&self) -> Vec<Option<(u64, u8)>> {
        let jobs = std::iter::from_fn(|| self.driver.images.keeper.pop());
        let shown = jobs.map(|job| match job {
            Job::Receive(offer) => {
                assert_eq!((offer.place.index, offer.bytes), (9, 8));
                None
            }
            Job::Append { offset, bytes } => Some((offset, bytes[0])),
            _ => panic!("another job"),
        });
        shown.collect()
    }

    /// Whom it has asked for pieces, and from where on, since the last look.
    fn asks(&self) -> Vec<(u64, u64)> {
        let sent = std::mem::take(&mut *self.wire.sent.lock());
        let asks = sent.into_iter().filter_map(|(to, envelope)| match envelope {
            Envelope::Ask(Ask { offset, .. }) => Some((to, offset)),
            _ => None,
        });
        asks.collect()
    }
}

/// RAFT-CASE 53: both have an image of the same place and length. Its bytes can differ: a map has no order.
#[test]
fn the_image_of_a_newer_leader_takes_the_place_of_an_older_one_and_they_never_mix() {
    let options = Options { snapshot_piece_bytes: 4, ..Options::default() };
    let mut world = World::on(&MemoryDisk::new(), options);
    world.follow(2, 1);
    world.asks();
    world.offer(2, 1);
    assert_eq!(world.asks(), [(2, 0)]);
    world.piece(2, 0);
    assert_eq!(world.jobs(), [None, Some((0, 2))]);
    assert_eq!(world.asks(), [(2, 4)]);
    world.offer(3, 2);
    assert_eq!(world.asks(), [(3, 0)], "from its beginning");
    world.piece(2, 4);
    assert_eq!(world.jobs(), [], "nobody waits for that any more");
    world.piece(3, 0);
    assert_eq!(world.jobs(), [None, Some((0, 3))]);
    world.piece(2, 4);
    world.piece(3, 4);
    assert_eq!(world.jobs(), [Some((4, 3))]);
}

/// RAFT-CASE 52: nothing comes any more, and the offer is repeated.
#[test]
fn a_download_that_is_given_up_goes_on_behind_what_has_come() {
    let options = Options { snapshot_piece_bytes: 4, ..Options::default() };
    let patience = options.election_timeout_max;
    let mut world = World::on(&MemoryDisk::new(), options);
    world.follow(2, 1);
    world.offer(2, 1);
    world.piece(2, 0);
    world.asks();
    for _ in 0..9 {
        world.offer(2, 1);
        world.turn_after(patience);
        assert_eq!(world.asks(), [(2, 4)], "it can be lost");
    }
    world.turn_after(patience);
    assert_eq!(world.asks(), [], "it is given up");
    world.turn_after(patience);
    assert_eq!(world.asks(), []);
    world.offer(2, 1);
    assert_eq!(world.asks(), [(2, 4)]);
    world.jobs();
    world.piece(2, 4);
    assert_eq!(world.jobs(), [Some((4, 2))]);
}
