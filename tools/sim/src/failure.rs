//! A seeded workload in which one operation of the disk goes wrong: in an opening, at work or in a close.

use kontiki_disk::{
    MemoryDisk,
    memory::{Cut, Fault, Kind, Operation},
};
use kontiki_wal::{AppendError, WalError};

use crate::{
    model::World,
    random::Random,
    session::{Life, PowerCut, Session},
    workload::{Record, draw_any, work},
};

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// In which operation,
    pub kind: Kind,
    /// the how manieth of its kind, counted from 1 over all lives,
    pub nth: u64,
    /// and how.
    pub fault: Fault,
}

/// Where the failure struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// While the log was opened: created, repaired, or found clean.
    Opening,
    /// While it was written to, and segments prepared, sealed, freed and used again.
    Work,
    /// In the close.
    Closing,
}

/// A workload with its failure.
#[derive(Debug)]
pub struct Failed {
    /// Its lives. The last cut of the last one is the disk that is left.
    pub record: Record,
    /// What failed,
    pub operation: Operation,
    /// and when.
    pub place: Place,
    /// The log was poisoned, or did not open.
    pub stopped: bool,
}

/// Leads a log through three lives of about so many operations each: the first ends with a close, the second with a kill,
/// the third with a close. It ends where the log stops because of the `failure`, or goes on to its end where a log that is
/// not hurt does so. `None` if the workload has no such operation.
///
/// # Panics
/// If the log acknowledges something after it was poisoned, writes then, loses something between two lives, or refuses an
/// operation for another reason than the failure.
pub fn run(seed: u64, operations: usize, failure: Failure) -> Option<Failed> {
    let random = Random::new(seed);
    // What the first opening finds was left by nobody.
    let lives = vec![Life::new(World::default())];
    let mut runner = Runner { failure, random, lives, last: (0, 0), place: None };
    let mut disk = MemoryDisk::new();
    for closes in [true, false, true] {
        if runner.place.is_none() {
            let seen = runner.operations().count() as u64;
            disk.inject(failure.kind, failure.nth - seen, failure.fault);
        }
        let Some(session) = runner.open(&disk) else { return Some(runner.end(&disk, true)) };
        let (ended, stopped) = runner.live(session, operations, closes);
        disk = ended;
        if stopped {
            return Some(runner.end(&disk, true));
        }
    }
    runner.place.is_some().then(|| runner.end(&disk, false))
}

struct Runner {
    failure: Failure,
    random: Random,
    /// Those that have ended, each with the opening that followed.
    lives: Vec<Life>,
    /// What the last one had acknowledged and appended.
    last: (usize, usize),
    place: Option<Place>,
}

impl Runner {
    /// Operations of the kind that fails.
    fn operations(&self) -> impl Iterator<Item = &Operation> {
        let operations =
            self.lives.iter().flat_map(|life| &life.cuts).map(|cut| &cut.cut.operation);
        operations.filter(|operation| operation.kind == self.failure.kind)
    }

    /// `None` if the failure keeps the log from being opened.
    fn open(&mut self, disk: &MemoryDisk) -> Option<Session> {
        let opened = Session::open(disk);
        self.met(disk, Place::Opening);
        let (acknowledged, appended) = self.last;
        let life = self.lives.last_mut().expect("there is one before the first");
        let (session, opening) = match opened {
            Ok((session, opening)) => (Some(session), opening),
            Err(error) => {
                assert_eq!(self.place, Some(Place::Opening), "the disk is whole: {error}");
                (None, disk.take_cuts())
            }
        };
        let cuts = opening.into_iter().map(|cut| PowerCut { cut, acknowledged, appended });
        life.cuts.extend(cuts);
        if let Some(session) = &session {
            let found = life.find(session.life.world().digest(), acknowledged, appended);
            assert!(found.is_some(), "not what was acknowledged: {:#?}", session.life.world());
        }
        session
    }

    /// One life, and the disk that it leaves; true if the log was poisoned.
    fn live(
        &mut self,
        mut session: Session,
        operations: usize,
        closes: bool,
    ) -> (MemoryDisk, bool) {
        let disk = session.disk.clone();
        let mut stopped = false;
        while !stopped && session.appended() < operations {
            if self.random.chance(55) {
                stopped = self.try_to_operate(&mut session);
            } else {
                work(&mut session, &mut self.random);
            }
            stopped |= session.failed();
        }
        if stopped {
            nothing_follows(&mut session);
        } else if closes {
            session.settle();
            self.met(&disk, Place::Work);
            stopped = session.try_to_close().is_err();
            self.met(&disk, Place::Closing);
            if stopped {
                nothing_follows(&mut session);
            }
        }
        self.met(&disk, Place::Work);
        assert!(!stopped || self.place.is_some(), "nothing else fails");
        self.last = (session.acknowledged(), session.appended());
        let (life, disk) = session.kill();
        self.lives.push(life);
        (disk, stopped)
    }

    /// True if the log is poisoned.
    fn try_to_operate(&mut self, session: &mut Session) -> bool {
        let (log, operation) = draw_any(&mut self.random, session.life.world());
        match session.perform(log, &operation) {
            Ok(()) | Err(AppendError::NoSpace { .. }) => false,
            Err(AppendError::Wal(WalError::Poisoned { .. })) => true,
            Err(error) => panic!("{log:?} {operation:?}: {error}"),
        }
    }

    /// Notes where the failure was met, if it was and not before.
    fn met(&mut self, disk: &MemoryDisk, place: Place) {
        if self.place.is_none() && !disk.has_faults() {
            self.place = Some(place);
        }
    }

    /// The last life gets the disk that is left as its last cut.
    fn end(mut self, disk: &MemoryDisk, stopped: bool) -> Failed {
        let nth = usize::try_from(self.failure.nth - 1).expect("few operations");
        let operation = self.operations().nth(nth).expect("it has struck").clone();
        let (acknowledged, appended) = self.last;
        let cut = Cut { operation: operation.clone(), before: disk.reopen() };
        let life = self.lives.last_mut().expect("there is one before the first");
        life.cuts.push(PowerCut { cut, acknowledged, appended });
        let place = self.place.expect("it has struck");
        let record = Record { lives: self.lives, ..Record::default() };
        Failed { record, operation, place, stopped }
    }
}

/// Jobs of a poisoned log that were under way write nothing more, and others do not begin.
fn nothing_follows(session: &mut Session) {
    let (acknowledged, operations) = (session.acknowledged(), session.disk.operations());
    (0..12).for_each(|_| session.work_on_sync());
    (0..12).for_each(|_| session.work_on_segment());
    session.wal.close().expect_err("a poisoned log does not close well");
    assert_eq!(session.disk.operations(), operations, "a poisoned log writes nothing");
    assert_eq!(session.acknowledged(), acknowledged, "nor does it acknowledge");
}
