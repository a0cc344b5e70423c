//! A leader and its images, and who gets them.

use std::io::Write as _;

use kontiki_core::{
    AppendOutcome, AppendResponse, FollowerMode, Snapshot, VoteKind, VoteRequest, VoteResponse,
};
use kontiki_snapshot::Image;

use super::*;
use crate::snapshots::{self, download::Ask, keeper::Done};

/// Node 1 leads in term 1, with node 2; node 3 is silent. Nothing stays in a log behind a snapshot.
fn led() -> World {
    let mut world =
        World::on(&MemoryDisk::new(), Options { trailing_entries: 0, ..Options::default() });
    world.turn_after(Duration::from_secs(2));
    world.turn_until(|world| {
        let asked = world.wire.sent.lock().iter().rev().find_map(|(to, envelope)| match envelope {
            Envelope::Protocol(Message::VoteRequest(request)) if *to == 2 => Some(*request),
            _ => None,
        });
        let VoteRequest { kind, term, .. } = asked.expect("it stands for election");
        let term = if kind == VoteKind::Pre { Term(1) } else { term };
        world.hear(2, Message::VoteResponse(VoteResponse { kind, term, granted: true }));
        world.driver.standing.role == Role::Leader
    });
    world.turn_until(|world| world.core().status().durable == LogIndex(1));
    world.agree();
    assert_eq!(world.core().status().committed, LogIndex(1));
    world
}

impl World {
    fn hear(&mut self, from: u64, message: Message) {
        let envelope = Envelope::Protocol(message);
        self.shared.inbox.mail(Mail::Message { from, envelope, bytes: 0 });
        self.turn();
    }

    /// Node 2 has all that it was sent, and the state machine takes in what follows from that.
    fn agree(&mut self) {
        let round = self.wire.sent.lock().iter().rev().find_map(|(to, envelope)| match envelope {
            Envelope::Protocol(Message::AppendEntries(request)) if *to == 2 => Some(request.round),
            _ => None,
        });
        let (term, last) = (Term(1), self.core().status().last.index);
        let outcome = AppendOutcome::Matched(last);
        let round = round.expect("it hears of its leader");
        self.hear(2, Message::AppendResponse(AppendResponse { term, round, outcome }));
        let committed = self.core().status().committed;
        self.shared.inbox.note_applied(committed);
        self.turn();
    }

    /// So much time, in which node 2 goes on answering.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.turn_after(Duration::from_millis(99));
            self.agree();
        }
    }

    /// An image of all that is applied is visible.
    fn publish(&mut self) -> Image {
        let at = self.core().status();
        let at = Position { term: at.term, index: at.applied };
        let configuration = self.core().configuration_at(at.index).unwrap().clone();
        let snapshot = Snapshot { at, configuration };
        let store = self.driver.storage.store.as_mut().unwrap();
        let header = snapshots::header(self.driver.storage.state.cluster.0, &snapshot);
        let mut writer = store.create(header).unwrap();
        writer.write_all(b"all").unwrap();
        let finished = writer.finish().unwrap();
        let image = store.publish(finished).unwrap();
        let done = Done::Visible(Box::new(snapshot), image.clone());
        self.shared.inbox.complete(Completion::Snapshot(done));
        self.turn();
        image
    }

    /// Node 3 asks for a piece of the newest image.
    fn ask(&mut self) {
        let ask = Ask { at: Position::default(), offset: 0, bytes: 10 };
        self.shared.inbox.mail(Mail::Message { from: 3, envelope: Envelope::Ask(ask), bytes: 0 });
        self.turn();
    }
}

/// Found by a reader: it was kept as long as this node led, though its file had been removed long ago.
#[test]
fn an_image_is_not_kept_for_a_follower_that_asks_for_no_more_of_it() {
    let mut world = led();
    world.publish();
    world.pass(Duration::from_millis(200));
    let mode = |world: &World| world.core().followers()[1].mode;
    assert_eq!(mode(&world), FollowerMode::Snapshot);
    for _ in 0..20 {
        world.ask();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.driver.images.served.len(), 1, "however long it takes");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.driver.images.served.len(), 1, "it may go on");
    world.pass(Duration::from_secs(2));
    assert_eq!(mode(&world), FollowerMode::Snapshot);
    assert_eq!(world.driver.images.served.len(), 0);
}
