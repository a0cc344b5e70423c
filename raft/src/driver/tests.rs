//! Turns by hand: no thread, a transport that only takes notes.

use std::{net::SocketAddr, path::Path, time::Duration};

use bytes::Bytes;
use kontiki_core::{
    AppendEntries, Batch, Entry, LogIndex, Message, Position, ReadId, ReadIndexResponse, Term,
    WriteSeq,
};
use kontiki_disk::memory::{Kind, MemoryDisk};
use parking_lot::Mutex;

use super::*;
use crate::{
    Applied, Options, Proposal, ProposeError, ReadError, Reading, StartError,
    entropy::Entropy,
    proposal::ProposeResult,
    reading::ReadJob,
    transport::{Hello, Inbound},
};

mod following;
mod leading;

/// What was sent, and whether anything more is taken.
#[derive(Debug, Default)]
struct Wire {
    is_full: Mutex<bool>,
    sent: Mutex<Vec<(u64, Envelope)>>,
}

#[derive(Debug)]
struct Notes(Arc<Wire>);

impl Transport for Notes {
    fn start(&mut self, _: Hello, _: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        unreachable!("the driver is given a started one")
    }

    fn set_peers(&self, _: &[(u64, String)]) {}

    fn set_hello(&self, _: Hello) {}

    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        assert_eq!(group, GROUP);
        let is_taken = !*self.0.is_full.lock();
        if is_taken {
            let envelope = envelope::decode(message.concat().into()).unwrap();
            self.0.sent.lock().push((to, envelope));
        }
        is_taken
    }

    fn stop(&mut self) {}
}

fn members() -> Vec<(u64, String)> {
    (1..=3).map(|id| (id, format!("n{id}:1"))).collect()
}

/// What the other members say in their first start.
fn others() -> impl Iterator<Item = Hello> {
    (2..=3).map(|id| Identity::new(id, members(), &State::default(), true).hello())
}

/// Node 1 of three, driven by hand.
struct World {
    driver: Driver,
    shared: Arc<Shared>,
    wire: Arc<Wire>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        Self::on(&MemoryDisk::new(), Options::default())
    }

    /// In its first start: it has heard of nobody.
    fn starting(disk: &MemoryDisk) -> Self {
        Self::in_phase(disk, Options::default(), |_, _| {})
    }

    fn on(disk: &MemoryDisk, options: Options) -> Self {
        Self::in_phase(disk, options, |storage, start| {
            for hello in others() {
                if let Some(state) = start.hear(&hello) {
                    storage.state = state;
                }
            }
        })
    }

    fn in_phase(
        disk: &MemoryDisk,
        options: Options,
        prepare: impl FnOnce(&mut Storage, &mut FirstStart),
    ) -> Self {
        let members = members();
        let disk = Arc::new(disk.clone());
        let mut storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
        let shared = Arc::new(Shared::new(1, &options, &storage));
        let mut start = FirstStart::new(1, storage.state.incarnation, members.clone());
        prepare(&mut storage, &mut start);
        let start = storage.state.configurations.is_empty().then_some(start);
        let wire = Arc::new(Wire::default());
        let neighbours = Neighbours {
            transport: Box::new(Notes(wire.clone())),
            applier: Arc::default(),
            fetcher: Arc::default(),
            keeper: Arc::default(),
            identity: Arc::new(Identity::new(1, members, &storage.state, true)),
        };
        let driver = Driver::new(
            shared.clone(),
            storage,
            start,
            Forwards::new(&Entropy::System).unwrap(),
            neighbours,
        );
        let mut world = Self { driver, shared, wire, now: Instant::default() };
        world.driver.begin(world.now);
        world
    }

    fn turn_after(&mut self, pause: Duration) {
        self.now = self.now + pause;
        self.driver.turn(self.now);
    }

    fn turn(&mut self) {
        self.turn_after(Duration::from_millis(1));
    }

    /// Turns as long as the threads of the log need.
    fn turn_until(&mut self, mut is_done: impl FnMut(&mut Self) -> bool) {
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        while !is_done(self) {
            let now = std::time::Instant::now();
            assert!(now < patience, "it comes in time");
            self.shared.inbox.wait_until(Some(now + Duration::from_millis(1)));
            self.turn_after(Duration::ZERO);
        }
    }

    /// `leader` leads in `term`.
    fn follow(&mut self, leader: u64, term: u64) {
        self.hear_append(leader, term, Position::default(), Batch::default());
        assert_eq!(self.driver.standing.leader, Some(leader));
    }

    /// Node 2, which leads in term 1, appends a command at `index`.
    fn append(&mut self, index: u64, command: &[u8]) {
        let before = LogIndex(index - 1);
        let term = Term(u64::from(index > 1));
        let payload = Entry::encode_command(command);
        let entry = Entry { index: LogIndex(index), term: Term(1), payload };
        self.hear_append(2, 1, Position { term, index: before }, Batch::from(vec![entry]));
        assert_eq!(self.core().status().last.index, LogIndex(index));
    }

    fn hear_append(&mut self, leader: u64, term: u64, previous: Position, entries: Batch) {
        let term = Term(term);
        let append = AppendEntries { term, previous, commit: LogIndex(0), round: 1, entries };
        let envelope = Envelope::Protocol(Message::AppendEntries(append));
        self.shared.inbox.mail(Mail::Message { from: leader, envelope, bytes: 0 });
        self.turn();
    }

    fn core(&self) -> &Raft {
        self.driver.core.as_ref().expect("the node has not failed")
    }

    /// The numbers of the questions that a leader was asked for reads.
    fn asked(&self) -> Vec<ReadId> {
        let sent = self.wire.sent.lock();
        let ids = sent.iter().filter_map(|(_, envelope)| match envelope {
            Envelope::Protocol(Message::ReadIndexRequest(request)) => Some(request.id),
            _ => None,
        });
        ids.collect()
    }

    fn read(&mut self) -> Reading<()> {
        self.shared.inbox.admit_read().unwrap();
        let (job, reading) = ReadJob::new(self.shared.clone(), |(): &()| ());
        self.shared.inbox.read(job);
        self.turn();
        reading
    }

    fn propose(&mut self, command: &[u8]) -> Proposal {
        let proposal = self.shared.inbox.propose(command);
        self.turn();
        proposal
    }

    /// The id of the message that carried proposals last.
    fn forwarded_id(&self) -> u64 {
        let sent = self.wire.sent.lock();
        let mut ids = sent.iter().rev().filter_map(|(_, envelope)| match envelope {
            Envelope::Propose { id, .. } => Some(*id),
            _ => None,
        });
        ids.next().expect("something was passed on")
    }

    /// The commands that were passed on, by the message that carried them.
    fn forwarded(&self) -> Vec<(u64, Vec<Bytes>)> {
        let sent = self.wire.sent.lock();
        let payloads = sent.iter().filter_map(|(to, envelope)| match envelope {
            Envelope::Propose { payloads, .. } => {
                Some((*to, payloads.iter().map(|payload| payload.slice(1..)).collect()))
            }
            _ => None,
        });
        payloads.collect()
    }
}

fn outcome(proposal: Proposal) -> ProposeResult {
    proposal.wait_timeout(Duration::ZERO).expect("it has an outcome")
}

const UNKNOWN: ProposeResult = Err(ProposeError::Unknown { position: None });

/// RAFT-CASE 57, RAFT-CASE 65
#[test]
fn what_was_handed_to_the_transport_is_never_sent_again() {
    for lost in
        [Mail::Disconnected { peer: 2, reason: "test".to_owned() }, Mail::AnswersLost { peer: 2 }]
    {
        let mut world = World::new();
        world.follow(2, 1);
        let proposal = world.propose(b"x");
        assert_eq!(world.forwarded(), [(2, vec!["x".into()])]);
        world.shared.inbox.mail(lost);
        world.turn();
        assert_eq!(outcome(proposal), UNKNOWN);
        world.shared.inbox.mail(Mail::Connected { peer: 2 });
        world.turn();
        world.turn_after(Duration::from_millis(200));
        assert_eq!(world.forwarded().len(), 1);
    }
}

/// By now it may be another process, which does not lead.
#[test]
fn a_leader_whose_connection_was_lost_is_asked_nothing_before_it_is_heard_again() {
    for lost in
        [Mail::Disconnected { peer: 2, reason: "test".to_owned() }, Mail::AnswersLost { peer: 2 }]
    {
        let mut world = World::new();
        world.follow(2, 1);
        world.turn_until(|world| !world.wire.sent.lock().is_empty());
        let other = Mail::Disconnected { peer: 3, reason: "test".to_owned() };
        world.shared.inbox.mail(other);
        world.turn();
        assert_eq!(world.driver.standing.leader, Some(2));

        world.shared.inbox.mail(lost);
        world.shared.inbox.mail(Mail::Connected { peer: 2 });
        world.turn();
        let _waits = (world.propose(b"x"), world.read());
        let ready = world.shared.inbox.ready();
        world.turn_after(Duration::from_millis(200));
        assert_eq!((world.forwarded().len(), world.asked().len()), (0, 0));
        let Err(ready) = ready.wait_timeout(Duration::ZERO) else { panic!("ready for what?") };

        world.follow(2, 1);
        assert_eq!(world.forwarded(), [(2, vec!["x".into()])]);
        assert_eq!(world.asked().len(), 1);
        assert_eq!(ready.wait_timeout(Duration::ZERO).expect("a leader is known"), Ok(()));
    }
}

/// RAFT-CASE 65: what was refused ends, what is under way keeps its answer, the rest waits.
#[test]
fn a_leader_that_says_it_leads_no_more_is_passed_nothing_before_it_is_heard_again() {
    let mut world = World::new();
    world.follow(2, 1);
    let refused = world.propose(b"refused");
    let id = world.forwarded_id();
    let taken = world.propose(b"taken");
    let answer = |world: &mut World, id, result| {
        let envelope = Envelope::Outcome { id, results: vec![result] };
        world.shared.inbox.mail(Mail::Message { from: 2, envelope, bytes: 1 });
        world.turn();
    };
    let error = ProposeError::NotLeader { hint: None };
    answer(&mut world, id, Err(error.clone()));
    assert_eq!(outcome(refused), Err(error));
    let _waits = world.propose(b"waits");
    world.turn_after(Duration::from_millis(200));
    assert_eq!(world.forwarded().len(), 2);

    let position = crate::Position { term: 1, index: 1 };
    let applied = Ok(Applied { position, reply: Bytes::new() });
    answer(&mut world, id + 1, applied.clone());
    assert_eq!(outcome(taken), applied);
    world.follow(3, 2);
    assert_eq!(world.forwarded().last(), Some(&(3, vec!["waits".into()])));
}

/// RAFT-CASE 65: nothing was written, so it may be tried again; order is kept meanwhile.
#[test]
fn what_the_transport_refused_is_sent_later_and_in_order() {
    let mut world = World::new();
    world.follow(2, 1);
    *world.wire.is_full.lock() = true;
    let _first = world.propose(b"first");
    *world.wire.is_full.lock() = false;
    let _second = world.propose(b"second");
    assert_eq!(world.forwarded(), [], "the retry has its time");
    world.turn_after(Duration::from_millis(100));
    assert_eq!(world.forwarded(), [(2, vec!["first".into(), "second".into()])]);
}

#[test]
fn what_was_never_handed_over_is_certainly_not_applied() {
    let mut world = World::new();
    world.follow(2, 1);
    *world.wire.is_full.lock() = true;
    let proposal = world.propose(b"x");
    world.turn_after(Duration::from_secs(5));
    let error = outcome(proposal).unwrap_err();
    assert!(matches!(error, ProposeError::NotLeader { .. }), "{error:?}");
}

/// RAFT-CASE 57
#[test]
fn a_shutdown_promises_that_nothing_was_applied_only_of_what_was_never_handed_over() {
    let mut world = World::new();
    world.follow(2, 1);
    let handed_over = world.propose(b"x");
    *world.wire.is_full.lock() = true;
    let kept = world.propose(b"y");
    let arrived = world.shared.inbox.propose(b"z");
    world.shared.inbox.close(Closing::Stopped);
    let late = world.shared.inbox.propose(b"late");
    drop(world.driver.stop());
    assert_eq!(outcome(handed_over), UNKNOWN);
    for untaken in [kept, arrived, late] {
        assert_eq!(outcome(untaken), Err(ProposeError::Stopped));
    }
}

/// RAFT-CASE 57
#[test]
fn a_change_of_the_leader_makes_what_is_under_way_unknown() {
    let mut world = World::new();
    world.follow(2, 1);
    let proposal = world.propose(b"x");
    world.follow(3, 2);
    assert_eq!(outcome(proposal), UNKNOWN);
    assert_eq!(world.forwarded().len(), 1, "the new leader is not asked");
}

/// RAFT-CASE 57
#[test]
fn an_answer_that_never_comes_ends_as_unknown() {
    let mut world = World::new();
    world.follow(2, 1);
    let proposal = world.propose(b"x");
    let deadline = world.driver.forwards.deadline().unwrap();
    world.now = deadline;
    world.turn_after(Duration::ZERO);
    assert_eq!(outcome(proposal), UNKNOWN);
}

/// RAFT-CASE 60, RAFT-CASE 65: a leader may answer long after the one who asked was started anew.
#[test]
fn an_answer_to_an_earlier_process_of_this_node_answers_nothing() {
    let (mut earlier, mut later) = (World::new(), World::new());
    for world in [&mut earlier, &mut later] {
        world.follow(2, 1);
    }
    let _lost = earlier.propose(b"lost");
    let proposal = later.propose(b"x");
    let results = vec![Err(ProposeError::Overloaded)];
    let envelope = Envelope::Outcome { id: earlier.forwarded_id(), results: results.clone() };
    later.shared.inbox.mail(Mail::Message { from: 2, envelope, bytes: 1 });
    later.turn();
    let Err(proposal) = proposal.wait_timeout(Duration::ZERO) else { panic!("answered") };
    let envelope = Envelope::Outcome { id: later.forwarded_id(), results };
    later.shared.inbox.mail(Mail::Message { from: 2, envelope, bytes: 1 });
    later.turn();
    assert_eq!(outcome(proposal), Err(ProposeError::Overloaded));
}

#[test]
fn a_follower_passes_on_no_proposal_of_another() {
    let mut world = World::new();
    world.follow(2, 1);
    let payloads = vec![kontiki_core::Entry::encode_command(b"x")];
    let envelope = Envelope::Propose { id: 7, payloads };
    world.shared.inbox.mail(Mail::Message { from: 3, envelope, bytes: 1 });
    world.turn();
    assert_eq!(world.forwarded(), []);
    let hint = Some((2, "n2:1".to_owned()));
    let results = vec![Err(ProposeError::NotLeader { hint })];
    assert_eq!(world.wire.sent.lock().last(), Some(&(3, Envelope::Outcome { id: 7, results })));
}

#[test]
fn a_refused_read_holds_up_no_proposal_and_a_full_link_no_read() {
    let mut world = World::new();
    world.follow(2, 1);
    world.turn_until(|world| !world.wire.sent.lock().is_empty());
    let _first = world.read();
    let response = ReadIndexResponse { term: Term(1), id: world.asked()[0], index: None };
    let envelope = Envelope::Protocol(Message::ReadIndexResponse(response));
    world.shared.inbox.mail(Mail::Message { from: 2, envelope, bytes: 1 });
    let _proposal = world.propose(b"x");
    assert_eq!(world.forwarded().len(), 1);
    assert_eq!(world.asked().len(), 1, "the read has its time");
    world.turn_after(Duration::from_millis(100));
    assert_eq!(world.asked().len(), 2);

    *world.wire.is_full.lock() = true;
    let _refused = world.propose(b"y");
    *world.wire.is_full.lock() = false;
    let _second = world.read();
    assert_eq!(world.asked().len(), 3);
    assert_eq!(world.forwarded().len(), 1, "the proposal has its time");
}

/// Takes down what is logged, as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Lines {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            line += &format!("{field}={value:?} ");
        });
        self.0.lock().push(line);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// At a failover there are as many as are under way.
#[test]
fn answers_that_are_lost_are_one_line_a_turn() {
    let mut world = World::new();
    world.follow(2, 1);
    let answers = |count| {
        let results = vec![UNKNOWN; count];
        Completion::Answers(vec![crate::proposal::PeerAnswer { peer: 3, id: 7, results }])
    };
    *world.wire.is_full.lock() = true;
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        world.shared.inbox.complete(answers(1));
        world.shared.inbox.complete(answers(2));
        world.turn();
        world.turn();
    });
    let lines = lines.0.lock();
    let lost: Vec<_> = lines.iter().filter(|line| line.contains("lost")).collect();
    assert!(matches!(&lost[..], [line] if line.contains("count=3")), "{lost:?}");
}

/// RAFT-CASE 27, RAFT-CASE 45
#[test]
fn a_node_that_is_not_admitted_hears_nothing_of_the_protocol() {
    let mut world = World::starting(&MemoryDisk::new());
    world.driver.not_admitted(2, "another disk");
    let envelope = Envelope::Protocol(Message::VoteRequest(kontiki_core::VoteRequest {
        kind: kontiki_core::VoteKind::Real,
        term: Term(9),
        last: Position::default(),
    }));
    world.shared.inbox.mail(Mail::Message { from: 2, envelope, bytes: 1 });
    world.turn_after(Duration::from_secs(2));
    assert!(world.wire.sent.lock().is_empty());
    assert_eq!(world.driver.standing.role, Role::NotAdmitted);
}

/// RAFT-CASE 45: a restart would find the configuration on the disk and take part.
#[test]
fn a_node_whose_configuration_is_on_its_way_to_the_disk_is_not_stopped_by_a_refusal() {
    let disk = MemoryDisk::new();
    let mut world = World::starting(&disk);
    for hello in others() {
        world.shared.inbox.mail(Mail::Hello(hello));
    }
    let reason = "another disk".to_owned();
    world.shared.inbox.mail(Mail::NotAdmitted { peer: 2, reason });
    world.turn();
    world.turn_until(|world| world.driver.forming.is_none());
    assert_eq!(world.driver.standing.role, Role::Follower);
    assert_eq!(world.core().status().configuration.members.len(), 3);
}

/// RAFT-CASE 45
#[test]
fn a_node_that_is_not_admitted_says_so_to_whoever_waits_and_asks() {
    let disk = MemoryDisk::new();
    let mut world = World::starting(&disk);
    let waits = (world.propose(b"x"), world.read(), world.shared.inbox.ready());
    let comes = world.shared.inbox.propose(b"y");
    let reason = "another disk".to_owned();
    world.shared.inbox.mail(Mail::NotAdmitted { peer: 2, reason });
    world.turn();
    let refused = ProposeError::NotAdmitted("another disk".into());
    for proposal in [waits.0, comes, world.shared.inbox.propose(b"z")] {
        assert_eq!(outcome(proposal), Err(refused.clone()));
    }
    for reading in [waits.1, world.read()] {
        let result = reading.wait_timeout(Duration::ZERO).expect("it has an outcome");
        assert_eq!(result, Err(ReadError::NotAdmitted("another disk".into())));
    }
    for ready in [waits.2, world.shared.inbox.ready()] {
        let result = ready.wait_timeout(Duration::ZERO).expect("it has an outcome");
        assert_eq!(result, Err(refused.clone()));
    }
}

#[test]
fn a_turn_in_which_the_node_fails_hands_out_nothing() {
    for role in [Role::Leader, Role::Follower] {
        let mut world = World::new();
        world.follow(2, 1);
        // The answer waits for the disk; afterwards nothing is under way.
        world.turn_until(|world| !world.wire.sent.lock().is_empty());
        let sent = world.wire.sent.lock().len();
        let failed = Completion::Failed("told to".into());
        world.shared.inbox.complete(failed);
        let proposal = world.shared.inbox.propose(b"x");
        let payloads = vec![Entry::encode_command(b"y")];
        let envelope = Envelope::Propose { id: 7, payloads };
        world.shared.inbox.mail(Mail::Message { from: 3, envelope, bytes: 1 });
        world.driver.standing.role = role;
        world.turn();
        assert_eq!(world.wire.sent.lock().len(), sent, "as {role:?}");
        let _wal = world.driver.stop();
        assert_eq!(outcome(proposal), Err(ProposeError::Fatal("told to".into())), "as {role:?}");
        assert_eq!(world.shared.inbox.open_proposals(), (0, 0));
    }
}

#[test]
fn a_write_that_is_reported_before_an_earlier_one_counts() {
    let disk = MemoryDisk::new();
    let mut world = World::on(&disk, Options::default());
    // Of the log's threads two sync. Both wait, so that this test alone reports writes.
    let _gates = [1, 2].map(|nth| disk.hold(Kind::Sync, nth));
    world.follow(2, 1);
    world.append(1, b"x");
    for seq in [WriteSeq(2), WriteSeq(1)] {
        world.shared.inbox.complete(Completion::Written(seq, Ok(())));
    }
    world.turn();
    assert_eq!(world.core().status().durable, LogIndex(1));
}

#[test]
fn a_full_disk_is_asked_again_whatever_the_peers_do() {
    let disk = MemoryDisk::new();
    let mut options = Options { segment_bytes: 64 << 10, ..Options::default() };
    options.command_bytes_max = 8 << 10;
    let mut world = World::on(&disk, options);
    world.follow(2, 1);
    disk.set_capacity(Some(0));
    let mut last = 0;
    world.turn_until(|world| {
        last += 1;
        world.append(last, &[7; 4 << 10]);
        world.driver.writer.is_held()
    });
    world.shared.inbox.mail(Mail::Connected { peer: 3 });
    world.turn();
    disk.set_capacity(None);
    world.turn_until(|world| {
        world.follow(2, 1);
        world.now = world.now + Duration::from_millis(100);
        world.driver.writer.is_clear()
    });
    world.turn_until(|world| world.core().status().durable == LogIndex(last));
}

#[test]
fn a_hello_is_kept_only_during_the_first_start() {
    let world = World::new();
    let configured = world.driver.identity.clone();
    let fresh = State { incarnation: kontiki_core::Incarnation(9), ..State::default() };
    let starting = Arc::new(Identity::new(1, members(), &fresh, true));
    let state = &world.driver.storage.state;
    let hello = Identity::new(2, members(), &fresh, true).hello();
    for (identity, count) in [(configured, 0), (starting, 1)] {
        // The incarnation that the configuration names, so that it is accepted.
        let known = state.configurations[0].1.members[1].incarnation.0;
        let port = crate::port::Port::new(world.shared.clone(), identity);
        port.hello(Hello { incarnation: known, ..hello.clone() }).unwrap();
        let mut arrivals = Arrivals::default();
        world.shared.inbox.take(&mut arrivals);
        assert_eq!(arrivals.mail.len(), count);
    }
}
