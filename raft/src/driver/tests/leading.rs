//! A leader: who gets its images, and how much it takes.

use std::io::Write as _;

use kontiki_core::{
    AppendOutcome, AppendResponse, FollowerMode, Snapshot, VoteKind, VoteRequest, VoteResponse,
};
use kontiki_snapshot::{Finished, Image};

use super::*;
use crate::snapshots::{
    self,
    download::Ask,
    keeper::{Done, Job},
};

/// Node 1 leads in term 1, with node 2; node 3 is silent.
fn led(options: Options) -> World {
    led_on(&MemoryDisk::new(), options)
}

fn led_on(disk: &MemoryDisk, options: Options) -> World {
    let mut world = World::on(disk, options);
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
        self.acknowledge();
        let committed = self.core().status().committed;
        self.shared.inbox.note_applied(committed);
        self.turn();
    }

    /// Node 2 has all that it was sent.
    fn acknowledge(&mut self) {
        self.acknowledge_of(2, self.core().status().last.index);
    }

    /// A node has all that it was sent up to `matched`.
    fn acknowledge_of(&mut self, node: u64, matched: LogIndex) {
        let round = self.wire.sent.lock().iter().rev().find_map(|(to, envelope)| match envelope {
            Envelope::Protocol(Message::AppendEntries(request)) if *to == node => {
                Some(request.round)
            }
            _ => None,
        });
        let (term, outcome) = (Term(1), AppendOutcome::Matched(matched));
        let round = round.expect("it hears of its leader");
        self.hear(node, Message::AppendResponse(AppendResponse { term, round, outcome }));
    }

    /// So much time, in which node 2 goes on answering.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.turn_after(Duration::from_millis(99));
            self.agree();
        }
    }

    /// An image of all that is applied is on the disk.
    fn write(&mut self) -> (Snapshot, Finished) {
        let at = self.core().status();
        let at = Position { term: at.term, index: at.applied };
        let configuration = self.core().configuration_at(at.index).unwrap().clone();
        let snapshot = Snapshot { at, configuration };
        let store = self.driver.storage.store.as_mut().unwrap();
        let header = snapshots::header(self.driver.storage.state.cluster.0, &snapshot);
        let mut writer = store.create(header).unwrap();
        writer.write_all(b"all").unwrap();
        (snapshot, writer.finish().unwrap())
    }

    /// And is visible.
    fn publish(&mut self) -> Image {
        let (snapshot, finished) = self.write();
        let image = self.driver.storage.store.as_mut().unwrap().publish(finished).unwrap();
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

/// RAFT-CASE 62: a start that finds the image must find all that this node has vouched for as well.
#[test]
fn an_image_becomes_visible_once_the_own_log_is_durable_as_far_as_it() {
    let disk = MemoryDisk::new();
    let mut world = led_on(&disk, Options::default());
    let gate = disk.hold(Kind::Sync, 1);
    let proposal = world.propose(b"ahead of the own disk");
    gate.wait_reached();
    world.acknowledge();
    // What it was sent first.
    world.acknowledge_of(3, LogIndex(1));
    world.acknowledge_of(3, LogIndex(2));
    let status = world.core().status();
    assert_eq!((status.durable, status.committed), (LogIndex(1), LogIndex(2)));
    world.shared.inbox.note_applied(LogIndex(2));
    world.turn();
    let (snapshot, finished) = world.write();
    assert_eq!(snapshot.at.index, LogIndex(2));
    world.shared.inbox.complete(Completion::Snapshot(Done::Written(Box::new(finished))));
    world.turn();
    world.pass(Duration::from_secs(1));
    assert!(world.driver.images.keeper.is_empty(), "it is not durable here");
    gate.release();
    world.turn_until(|world| world.core().status().durable == LogIndex(2));
    let published = world.driver.images.keeper.pop();
    assert!(matches!(published, Some(Job::Publish(_))));
    drop(proposal);
}

/// Found by a reader: it was kept as long as this node led, though its file had been removed long ago.
#[test]
fn an_image_is_not_kept_for_a_follower_that_asks_for_no_more_of_it() {
    let mut world = led(Options { trailing_entries: 0, ..Options::default() });
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

/// Found by a reader: what nobody waits for any more takes no place in the queue, and whoever waited for that was refused at once,
/// again and again.
#[test]
fn a_leader_that_takes_no_proposal_is_not_ready() {
    let mut world = led(Options {
        command_bytes_max: 8 << 10,
        proposals_max: 16,
        proposal_bytes_max: 16 << 10,
        ..Options::default()
    });
    let refused = (0..100).find_map(|_| {
        let proposal = world.propose(&[7; 8 << 10]);
        world.acknowledge();
        while let Some(work) = world.driver.applier.pop() {
            // Nobody waits so long for the state machine.
            if let Work::Register { groups, .. } = work {
                let unknown = |_| ProposeError::Unknown { position: None };
                let settled = &mut world.driver.settled;
                groups.into_iter().for_each(|group| group.fail(unknown, settled));
            }
        }
        world.turn();
        Some(outcome(proposal)).filter(|outcome| *outcome != UNKNOWN)
    });
    assert_eq!(refused, Some(Err(ProposeError::Overloaded)));
    assert_eq!(world.shared.inbox.open_proposals(), (0, 0));
    let Err(ready) = world.shared.inbox.ready().wait_timeout(Duration::ZERO) else {
        panic!("ready for what?")
    };
    world.turn_until(|world| {
        let cursors = world.core().cursors();
        cursors.durable == cursors.last.index
    });
    world.acknowledge();
    // Found by a reader: nobody was woken, so that it came with the next heartbeat.
    world.shared.inbox.note_applied(world.core().status().committed);
    assert!(!world.shared.inbox.is_empty(), "what is applied makes room");
    world.turn();
    assert_eq!(ready.wait_timeout(Duration::ZERO).expect("there is room"), Ok(()));
    let Err(_waits) = world.propose(&[7; 8 << 10]).wait_timeout(Duration::ZERO) else {
        panic!("refused")
    };
}

/// Found by a reader: a turn that may take more than all that may be unapplied never has room beside anything.
#[test]
fn a_leader_is_ready_also_where_a_turn_may_take_more_than_may_wait() {
    let mut world = led(Options {
        command_bytes_max: 256 << 10,
        proposals_max: 1024,
        proposal_bytes_max: 1 << 20,
        ..Options::default()
    });
    for length in [1, 256 << 10, 256 << 10] {
        let Err(_waits) = world.propose(&vec![7; length]).wait_timeout(Duration::ZERO) else {
            panic!("refused")
        };
        let ready = world.shared.inbox.ready().wait_timeout(Duration::ZERO);
        assert_eq!(ready.expect("there is room"), Ok(()));
    }
}

/// Found by a reader: whoever asked for a snapshot was told that of the rotten one.
#[test]
fn that_an_image_has_rotted_is_told_also_where_no_other_is_taken_yet_and_that_is_when_it_may_be() {
    let mut world = led(Options::default());
    for replaced in [true, false] {
        let _proposal = world.propose(b"x");
        world.turn_until(|world| {
            let cursors = world.core().cursors();
            cursors.durable == cursors.last.index
        });
        world.agree();
        let image = world.publish();
        while world.driver.applier.pop().is_some() {}
        let (what, name) = ("the reading", "an image".to_owned());
        let source = Arc::new(std::io::Error::other("rotten"));
        let error = kontiki_snapshot::StoreError::Io { what, name, source };
        world.shared.inbox.complete(Completion::ImageDamaged(image, error));
        world.turn();
        let work: Vec<_> = std::iter::from_fn(|| world.driver.applier.pop()).collect();
        assert!(matches!(work[0], Work::SnapshotDamaged), "{replaced}");
        assert_eq!(matches!(work[1..], [Work::ReplaceSnapshot]), replaced);
    }
    // Found by a reader: it was never taken, unless a follower asked again.
    let at = world.driver.replaces_at().expect("another one is owed");
    let mut taken_at = Vec::new();
    while world.now <= at + Duration::from_secs(5) {
        world.pass(Duration::from_millis(100));
        while let Some(work) = world.driver.applier.pop() {
            if matches!(work, Work::ReplaceSnapshot) {
                taken_at.push(world.now);
            }
        }
    }
    let [taken_at] = taken_at[..] else { panic!("taken at {taken_at:?}") };
    assert!(at <= taken_at && taken_at <= at + Duration::from_millis(200), "{taken_at:?}");
    assert_eq!(world.driver.replaces_at(), None);
}

/// The one that came has rotted, and one that was being captured before it came has become visible since.
#[test]
fn a_node_whose_newest_image_is_not_the_one_to_take_in_fails_and_says_so() {
    let mut world = led(Options::default());
    world.publish();
    let at = Position::new(1, 9);
    world.driver.perform(Output::Apply(Apply::Snapshot { at }));
    let Some(Closing::Fatal(cause)) = world.shared.inbox.closed() else { panic!("it goes on") };
    assert!(cause.contains("the snapshot at 1/9 has rotted"), "{cause}");
}
