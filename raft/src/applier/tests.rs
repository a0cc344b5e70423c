use std::{path::Path, time::Duration};

use kontiki_core::Term;
use kontiki_disk::memory::MemoryDisk;

use super::*;
use crate::{
    Options, ProposeError, Reading, SnapshotWriter,
    inbox::Arrivals,
    storage::{Storage, tests::open_with_damage},
};

/// Counts; fails on an empty command.
#[derive(Default)]
struct Count {
    commands: usize,
    /// It can be.
    is_captured: bool,
}

impl StateMachine for Count {
    fn apply(&mut self, _: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        if command.is_empty() {
            return Err(io::Error::other("empty"));
        }
        self.commands += 1;
        Ok(Bytes::from(self.commands.to_string()))
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        if self.is_captured {
            Ok(Box::new(Empty))
        } else {
            Err(io::Error::other("not in these tests"))
        }
    }

    fn restore(&mut self, image: &mut dyn io::Read) -> io::Result<()> {
        image.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// Of whatever waits.
const DEADLINE: Instant = Instant(1000);

struct World {
    applier: Applier<Count>,
    shared: Arc<Shared>,
    log: Log,
}

fn options() -> Options {
    Options { fetch_bytes_max: 10, ..Options::default() }
}

fn world() -> World {
    let disk = Arc::new(MemoryDisk::new());
    world_on(&Storage::open(Path::new("d"), 1, &options(), Some(disk)).unwrap())
}

fn world_on(storage: &Storage) -> World {
    world_with(storage, &options(), LogPosition::default())
}

/// The state machine has taken in everything up to `applied`.
fn world_with(storage: &Storage, options: &Options, applied: LogPosition) -> World {
    let shared = Arc::new(Shared::new(1, options, storage));
    let (queue, log, machine) = (Arc::default(), storage.log.clone(), Count::default());
    let applier = Applier::new(shared.clone(), queue, log.clone(), machine, applied, None);
    World { applier, shared, log }
}

impl World {
    fn apply(&mut self, first: u64, commands: &[&str]) {
        let entries = (first..).zip(commands).map(|(index, command)| Entry {
            index: LogIndex(index),
            term: Term(1),
            payload: Entry::encode_command(command.as_bytes()),
        });
        let batch = Batch::from(entries.collect::<Vec<_>>());
        self.applier.step(Work::Apply(Apply::Entries(batch)));
    }

    /// Where the captures end that were begun since the last look.
    fn captured(&mut self) -> Vec<u64> {
        let mut arrivals = Arrivals::default();
        self.shared.inbox.take(&mut arrivals);
        let captured = |completion| match completion {
            Completion::Captured(at, _) => Some(at.index.0),
            _ => None,
        };
        arrivals.completions.into_iter().filter_map(captured).collect()
    }

    fn read_at(&mut self, index: u64) -> Reading<usize> {
        self.shared.inbox.admit_read().unwrap();
        let read = |count: &Count| count.commands;
        let (job, reading) = ReadJob::new(self.shared.clone(), read);
        self.applier.step(Work::Read { index: LogIndex(index), jobs: vec![(DEADLINE, job)] });
        reading
    }
}

/// RAFT-CASE 29
#[test]
fn a_gap_is_never_applied() {
    let mut world = world();
    world.apply(1, &["a"]);
    world.apply(3, &["c"]);
    assert_eq!(world.applier.applied.index, LogIndex(1));
    assert_eq!(world.applier.machine.commands, 1);
    assert!(matches!(world.applier.closed, Some(Closing::Fatal(_))));
}

/// RAFT-CASE 29
#[test]
fn nothing_is_applied_after_a_failure_and_the_index_stays_before_it() {
    let mut world = world();
    world.apply(1, &["a", "", "c"]);
    world.apply(4, &["d"]);
    assert_eq!(world.applier.applied.index, LogIndex(1));
    assert_eq!(world.applier.machine.commands, 1);
    let read = world.read_at(0).wait();
    assert!(matches!(read, Err(ReadError::Fatal(_))), "{read:?}");
}

#[test]
fn a_range_is_read_from_the_log_a_piece_at_a_time() {
    let mut world = world();
    let payloads: Vec<Bytes> = (0..20).map(|_| Entry::encode_command(b"command")).collect();
    world.log.append(1, 1, &payloads).unwrap().wait().unwrap();
    let range = Apply::Range { first: LogIndex(1), end: LogIndex(21) };
    world.applier.step(Work::Apply(range));
    assert_eq!(world.applier.applied.index, LogIndex(20));
    assert_eq!(world.applier.machine.commands, 20);
}

/// Found by readers: it was done before the node's threads were there, to the end of the log where no snapshot is ever due, and
/// all of it before whatever waited.
#[test]
fn what_was_applied_before_is_counted_where_steps_are_taken_and_only_if_a_snapshot_can_become_due()
{
    let disk = Arc::new(MemoryDisk::new());
    let storage = Storage::open(Path::new("d"), 1, &options(), Some(disk)).unwrap();
    let payloads = vec![Entry::encode_command(b"command"); 20];
    storage.log.append(1, 1, &payloads).unwrap().wait().unwrap();
    let any = Options { snapshot_log_bytes_min: 1, ..options() };
    for (snapshot_log_bytes_min, counts) in [(64 << 20, true), (u64::MAX, false)] {
        let options = Options { snapshot_log_bytes_min, ..options() };
        let mut world = world_with(&storage, &options, LogPosition::new(1, 20));
        assert!(!world.applier.captures.is_due(&any), "nothing is read by who starts the node");
        assert_eq!(world.applier.count_passed(), counts);
        assert_eq!(world.applier.captures.is_due(&any), counts);
        let pieces = std::iter::from_fn(|| world.applier.count_passed().then_some(()));
        assert_eq!(pieces.count(), if counts { 19 } else { 0 });
    }
    let mut world = world_with(&storage, &options(), LogPosition::new(1, 20));
    assert!(world.applier.count_passed());
    world.applier.capture();
    assert!(!world.applier.count_passed(), "a snapshot that contains it was begun");
}

#[test]
fn a_snapshot_that_is_due_by_what_was_applied_before_waits_for_nothing_more() {
    let options = Options { snapshot_ratio: 0, snapshot_log_bytes_min: 50, ..options() };
    let disk = Arc::new(MemoryDisk::new());
    let storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
    let payloads = vec![Entry::encode_command(b"command"); 20];
    storage.log.append(1, 1, &payloads).unwrap().wait().unwrap();
    let mut world = world_with(&storage, &options, LogPosition::new(1, 20));
    world.applier.machine.is_captured = true;
    while world.applier.count_passed() {}
    assert_eq!(world.captured(), [20]);
}

#[test]
fn a_committed_range_that_the_log_does_not_hold_is_fatal() {
    let mut world = world();
    let range = Apply::Range { first: LogIndex(1), end: LogIndex(2) };
    world.applier.step(Work::Apply(range));
    assert_eq!(world.applier.applied.index, LogIndex(0));
    assert!(matches!(world.applier.closed, Some(Closing::Fatal(_))));
}

#[test]
fn damage_in_a_committed_range_is_fatal_and_told_with_the_index_that_is_lost() {
    let mut world = world_on(&open_with_damage(&options()));
    let range = Apply::Range { first: LogIndex(1), end: LogIndex(6) };
    world.applier.step(Work::Apply(range));
    assert_eq!(world.applier.applied.index, LogIndex(2));
    let Some(Closing::Fatal(cause)) = &world.applier.closed else { panic!("not fatal") };
    assert!(cause.contains("cannot read index 3 ") && cause.contains("indexes 3 to 3"), "{cause}");
    let corruption = world.shared.board.status().corruption.expect("it is damage");
    assert!(cause.contains(&corruption.to_string()), "{cause}");
}

#[test]
fn a_snapshot_that_has_rotted_answers_nobody() {
    let mut world = world();
    world.apply(1, &["a"]);
    let at = LogPosition::new(1, 1);
    world.applier.step(Work::SnapshotVisible { at, bytes: 10 });
    let ask = |world: &mut World| {
        let (completer, outcome) = slot();
        world.applier.step(Work::Capture(completer));
        outcome.wait()
    };
    assert_eq!(ask(&mut world), Ok(at.into()));
    world.applier.step(Work::SnapshotDamaged);
    assert_eq!(ask(&mut world), Err(SnapshotError::Failed("not in these tests".into())));
}

/// A state machine that keeps itself can begin before the newest snapshot.
#[test]
fn a_snapshot_that_has_rotted_ahead_is_replaced_once_the_state_machine_is_there() {
    let mut world = world();
    world.apply(1, &["a"]);
    world.applier.step(Work::SnapshotVisible { at: LogPosition::new(1, 3), bytes: 10 });
    for work in [Work::SnapshotDamaged, Work::ReplaceSnapshot, Work::ReplaceSnapshot] {
        world.applier.step(work);
    }
    let mut events = world.shared.events.receiver();
    let (completer, outcome) = slot();
    world.applier.step(Work::Capture(completer));
    world.apply(2, &["b"]);
    assert_eq!(events.try_next(), None);
    let Err(outcome) = outcome.wait_timeout(Duration::ZERO) else { panic!("of which?") };
    world.apply(3, &["c"]);
    let cause = Arc::<str>::from("not in these tests");
    assert_eq!(events.try_next(), Some(Event::SnapshotFailed { cause: cause.clone() }));
    assert_eq!(outcome.wait(), Err(SnapshotError::Failed(cause)));
}

/// Writes nothing.
struct Empty;

impl SnapshotWriter for Empty {
    fn write_to(self: Box<Self>, _: &mut dyn io::Write) -> io::Result<()> {
        Ok(())
    }
}

/// Found by a cluster that was left with a hundred entries behind a snapshot that was slow to write, as nobody proposed any more.
#[test]
fn another_snapshot_is_due_as_soon_as_one_is_visible_that_was_slow() {
    let options = Options { snapshot_ratio: 0, snapshot_log_bytes_min: 4, ..options() };
    let disk = Arc::new(MemoryDisk::new());
    let storage = Storage::open(Path::new("d"), 1, &options, Some(disk)).unwrap();
    let mut world = world_with(&storage, &options, LogPosition::default());
    world.applier.machine.is_captured = true;
    let visible = |world: &mut World, index| {
        let at = LogPosition::new(1, index);
        world.applier.step(Work::SnapshotVisible { at, bytes: 10 });
    };
    world.apply(1, &["slow"]);
    assert_eq!(world.captured(), [1]);
    world.apply(2, &["much", "more"]);
    assert_eq!(world.captured(), [], "one at a time");
    visible(&mut world, 1);
    assert_eq!(world.captured(), [3]);
    visible(&mut world, 3);
    assert_eq!(world.captured(), [], "nothing was applied since");
    world.apply(4, &["four"]);
    assert_eq!(world.captured(), [4]);
    world.apply(5, &["five"]);
    visible(&mut world, 9);
    world.apply(6, &["sixth"]);
    assert_eq!(world.captured(), [], "a peer's, which contains more");
}

/// RAFT-CASE 32
#[test]
fn a_read_waits_until_its_index_is_applied() {
    let mut world = world();
    world.apply(1, &["a"]);
    let Err(reading) = world.read_at(3).wait_timeout(Duration::ZERO) else {
        panic!("read too early")
    };
    world.apply(2, &["b"]);
    let Err(reading) = reading.wait_timeout(Duration::ZERO) else { panic!("read too early") };
    world.apply(3, &["c"]);
    assert_eq!(reading.wait(), Ok(3));
    assert_eq!(world.read_at(2).wait(), Ok(3));
}

/// RAFT-CASE 33
#[test]
fn a_read_whose_index_is_not_applied_by_its_deadline_times_out() {
    let mut world = world();
    let late = world.read_at(2);
    assert_eq!(world.applier.poll_timeout(), Some(DEADLINE));
    world.apply(1, &["a"]);
    let served = world.read_at(1);
    world.applier.expire(DEADLINE);
    assert_eq!(late.wait(), Err(ReadError::TimedOut));
    assert_eq!(served.wait(), Ok(1));
    assert_eq!(world.applier.poll_timeout(), None);
}

#[test]
fn reads_that_wait_end_with_the_node() {
    let mut world = world();
    let reading = world.read_at(3);
    world.applier.step(Work::Close(Closing::Stopped));
    assert_eq!(reading.wait(), Err(ReadError::Stopped));
}

#[test]
fn what_a_thread_that_is_gone_has_left_is_answered() {
    let world = world();
    let (group, proposal) = Group::one(1);
    let first = LogPosition { term: Term(1), index: LogIndex(4) };
    let (queue, mut work) = (ApplyQueue::default(), Vec::new());
    work.push(Work::Register { first, deadline: DEADLINE, groups: vec![group] });
    world.shared.inbox.admit_read().unwrap();
    let (job, reading) = ReadJob::new(world.shared.clone(), |_: &Count| ());
    work.push(Work::Read { index: LogIndex(4), jobs: vec![(DEADLINE, job)] });
    work.push(Work::Close(Closing::Stopped));
    queue.extend(&mut work);
    queue.refuse_rest();
    let position = Some(first.into());
    assert_eq!(proposal.wait(), Err(ProposeError::Unknown { position }));
    assert_eq!(reading.wait(), Err(ReadError::Stopped));
}
