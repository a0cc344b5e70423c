//! A seeded workload: operations on several logs, taken while groups are being synced and segments
//! prepared, everything on one thread.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use kontiki_disk::{MemoryDisk, memory::Kind};
use kontiki_wal::LogId;

use crate::{
    model::{LogModel, Operation, World},
    random::Random,
    session::{Life, PowerCut, Session},
};

/// The logs that a workload writes to.
pub const LOGS: [LogId; 4] = [LogId(1), LogId(2), LogId(3), LogId(70_000)];

/// What a workload leaves behind for the checks.
#[derive(Debug, Default)]
pub struct Record {
    /// One for each opening of the log; each begins with what was found.
    pub lives: Vec<Life>,
    /// How many operations were done, all lives together.
    pub operations: usize,
    /// How many of them were taken between the begin and the finish of a sync.
    pub during_sync: usize,
}

/// Runs the workload of `seed` with at least `operations` operations: the log is closed and
/// opened again after a third of them, killed and opened again after two thirds.
///
/// # Panics
/// If the log refuses a valid operation, does not show what was appended, loses something or
/// reports an error.
pub fn run(seed: u64, operations: usize) -> Record {
    let disk = MemoryDisk::new();
    let (session, opening) = Session::open(&disk).expect("an empty disk opens");
    let mut runner = Runner { session, random: Random::new(seed), record: Record::default() };
    let cuts = opening.into_iter().map(|cut| PowerCut { cut, acknowledged: 0, appended: 0 });
    runner.session.life.cuts.extend(cuts);

    runner.run_until(operations / 3);
    runner = runner.end(Session::close);
    runner.run_until(operations * 2 / 3);
    runner = runner.end(Session::kill);
    runner.run_until(operations);
    let Runner { session, mut record, .. } = runner;
    record.lives.push(session.close().0);
    record
}

struct Runner {
    session: Session,
    random: Random,
    record: Record,
}

impl Record {
    /// How many operations of `kind` the disk saw.
    pub fn disk_operations(&self, kind: Kind) -> usize {
        let cuts = self.lives.iter().flat_map(|life| &life.cuts);
        cuts.filter(|cut| cut.cut.operation.kind == kind).count()
    }

    /// How many segments were written to, all lives together.
    pub fn segments(&self) -> usize {
        let cuts = self.lives.iter().flat_map(|life| &life.cuts);
        let writes = cuts.filter(|cut| cut.cut.operation.kind == Kind::Write);
        let names: BTreeSet<_> = writes.map(|cut| cut.cut.operation.name.as_str()).collect();
        names.iter().filter(|name| name.ends_with(".wal")).count()
    }
}

impl Runner {
    fn run_until(&mut self, operations: usize) {
        while self.record.operations < operations {
            if self.random.chance(55) {
                self.operate();
            } else {
                work(&mut self.session, &mut self.random);
            }
            assert!(!self.session.failed(), "nothing fails here");
        }
    }

    /// One operation of a seeded kind on a seeded log.
    fn operate(&mut self) {
        let (log, operation) = draw_any(&mut self.random, self.session.life.world());
        if let Err(error) = self.session.perform(log, &operation) {
            panic!("{log:?} {operation:?}: {error}");
        }
        let shown = World::of(&self.session.wal);
        assert_eq!(&shown, self.session.life.world(), "after {log:?} {operation:?}");
        self.record.operations += 1;
        self.record.during_sync += usize::from(self.session.is_syncing());
    }

    /// Ends this life in the given way and begins the next one on the same disk.
    fn end(self, end: impl FnOnce(Session) -> (Life, MemoryDisk)) -> Self {
        let Self { session, random, mut record } = self;
        let (acknowledged, appended) = (session.acknowledged(), session.appended());
        let (mut life, disk) = end(session);
        let (session, opening) = Session::open(&disk).expect("the disk is whole");
        let found = life.find(session.life.world().digest(), acknowledged, appended);
        assert!(found.is_some(), "not what was acknowledged: {:#?}", session.life.world());
        let cuts = opening.into_iter().map(|cut| PowerCut { cut, acknowledged, appended });
        life.cuts.extend(cuts);
        record.lives.push(life);
        Self { session, random, record }
    }
}

/// One step of one job, so that anything may happen between two of them.
pub(crate) fn work(session: &mut Session, random: &mut Random) {
    // Now and then long enough for what the log does when it is idle.
    let milliseconds = if random.chance(10) { 70 } else { 1 };
    session.sleep(Duration::from_millis(milliseconds));
    if random.chance(70) {
        session.work_on_sync();
    } else {
        session.work_on_segment();
    }
}

/// An operation that one of the logs of `world` accepts.
pub(crate) fn draw_any(random: &mut Random, world: &World) -> (LogId, Operation) {
    let log = LOGS[index(random.below(LOGS.len() as u64))];
    (log, draw(random, &world.log(log)))
}

/// An operation that a log which holds `model` accepts.
pub fn draw(random: &mut Random, model: &LogModel) -> Operation {
    let next = model.last() + 1;
    match random.below(100) {
        0..45 => append(random, model, next),
        45..55 => {
            let first_index = random.between(model.first, next);
            append(random, model, first_index)
        }
        55..65 => Operation::Push { bytes: bytes(random) },
        65..78 => {
            let length = random.between(1, 200);
            Operation::SetState { state: filled(random, length) }
        }
        78..83 => Operation::Truncate { last: random.between(model.first - 1, model.last()) },
        // Mostly near the end, so that segments die.
        83..91 => Operation::Compact { first: next - random.below(3).min(next - model.first) },
        91..95 => Operation::Compact { first: random.between(model.first, next) },
        95..98 => Operation::Reset {
            next_index: next + random.below(10),
            term_before: model.last_term() + random.below(2),
        },
        _ => Operation::Forget,
    }
}

fn append(random: &mut Random, model: &LogModel, first_index: u64) -> Operation {
    let term = model.term(first_index - 1) + u64::from(random.chance(20));
    let count = random.between(1, 4);
    let entries = (0..count).map(|_| bytes(random)).collect();
    Operation::Append { first_index, term, entries }
}

/// An entry: mostly small, sometimes of no byte, sometimes over several sectors. Four of them go
/// into one frame, so that each operation is taken or lost as a whole.
fn bytes(random: &mut Random) -> Bytes {
    let length = match random.below(10) {
        0 => 0,
        1..8 => random.between(1, 300),
        _ => random.between(300, 1000),
    };
    filled(random, length)
}

fn filled(random: &mut Random, length: u64) -> Bytes {
    (0..length).map(|_| random.draw().to_le_bytes()[0]).collect()
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("numbers here are small")
}
