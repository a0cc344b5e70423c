//! Random steps on three logs, with the log's work one step at a time, power cuts, kills, failures and closes in between,
//! against plain vectors: after every step the log shows what they hold.
//!
//! `PROPTEST_CASES` asks for more cases than 64. A case that fails is shrunk, and its seed kept in
//! `regressions.txt`, from where it is tried first from then on.

mod ways;

use std::time::Duration;

use bytes::Bytes;
use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_sim::{
    model::{LogModel, Operation, World},
    random::Random,
    session::{Life, Session},
};
use kontiki_wal::LogId;
use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};

const LOGS: [LogId; 3] = [LogId(0), LogId(1), LogId(70_000)];

/// One step. Its numbers are fitted to what the log holds by then, so that it makes sense whatever was left out before.
#[derive(Clone, Debug)]
enum Step {
    Do {
        log: LogId,
        action: Action,
    },
    /// Begins, runs or finishes a group, whichever is next.
    Sync,
    /// Likewise the work on a segment: preparing, sealing, freeing.
    Segment,
    Settle,
    /// Time passes; then a log that is idle gets its mark.
    Sleep,
    /// Keeps about so many of 100 unsynced things; perhaps the recovery meets another one.
    PowerCut {
        percent: u64,
        seed: u64,
    },
    Kill,
    /// A sync fails, and the next process opens the log while the page cache lives.
    Fail,
    Close,
}

/// An operation that any log accepts, once it is fitted.
#[derive(Clone, Debug)]
enum Action {
    /// Entries of these lengths instead of the last `back` ones.
    Append {
        lengths: Vec<usize>,
        back: u64,
        newer: u64,
    },
    SetState {
        length: usize,
    },
    Truncate {
        cut: u64,
    },
    Compact {
        keep: u64,
    },
    Reset {
        gap: u64,
        newer: u64,
    },
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let log = proptest::sample::select(&LOGS[..]);
    let percent = prop_oneof![Just(0), Just(100), 1..100_u64];
    let step = prop_oneof![
        24 => (log, action()).prop_map(|(log, action)| Step::Do { log, action }),
        12 => Just(Step::Sync),
        8 => Just(Step::Segment),
        2 => Just(Step::Settle),
        2 => Just(Step::Sleep),
        2 => (percent, any::<u64>()).prop_map(|(percent, seed)| Step::PowerCut { percent, seed }),
        1 => Just(Step::Kill),
        1 => Just(Step::Fail),
        1 => Just(Step::Close),
    ];
    vec(step, 1..150)
}

fn action() -> impl Strategy<Value = Action> {
    // All entries of an append go into one frame, so that it is taken or lost as a whole.
    let small = vec(prop_oneof![4 => 0..200_usize, 1 => 600..1200_usize], 1..4);
    let lengths = prop_oneof![3 => small, 1 => vec(2000..4000_usize, 1)];
    let back = prop_oneof![4 => Just(0), 1 => 1..5_u64];
    prop_oneof![
        12 => (lengths, back, 0..2_u64)
            .prop_map(|(lengths, back, newer)| Action::Append { lengths, back, newer }),
        3 => (0..400_usize).prop_map(|length| Action::SetState { length }),
        2 => (0..6_u64).prop_map(|cut| Action::Truncate { cut }),
        4 => (0..4_u64).prop_map(|keep| Action::Compact { keep }),
        1 => (0..9_u64, 0..2_u64).prop_map(|(gap, newer)| Action::Reset { gap, newer }),
        1 => Just(Action::Forget),
    ]
}

impl Action {
    fn on(&self, model: &LogModel, number: u64) -> Operation {
        let (first, next) = (model.first, model.last() + 1);
        let back = |count: u64| next.saturating_sub(count).max(first);
        match self {
            Self::Append { lengths, back: count, newer } => {
                let first_index = back(*count);
                let entries = lengths.iter().zip(0..).map(|(&l, nth)| filled(number << 8 | nth, l));
                let term = model.term(first_index - 1) + newer;
                Operation::Append { first_index, term, entries: entries.collect() }
            }
            Self::SetState { length } => {
                Operation::SetState { state: filled(number << 8, *length) }
            }
            Self::Truncate { cut } => Operation::Truncate { last: back(*cut) - 1 },
            Self::Compact { keep } => Operation::Compact { first: back(*keep) },
            Self::Reset { gap, newer } => {
                let term_before = model.last_term() + newer;
                Operation::Reset { next_index: next + gap, term_before }
            }
            Self::Forget => Operation::Forget,
        }
    }
}

fn filled(seed: u64, length: usize) -> Bytes {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.draw().to_le_bytes()[0]).collect()
}

/// What the cases met.
#[derive(Debug, Default)]
struct Tally {
    operations: usize,
    sealed: u64,
    recycled: u64,
    /// Power cuts that lost something which was not acknowledged, and those that kept something.
    lost: usize,
    kept: usize,
    recovery_cuts: usize,
}

/// Goes through the steps on a disk of their own.
///
/// # Panics
/// If the log does not show what it must.
fn run(steps: &[Step], tally: &mut Tally) {
    let mut session = Session::open(&MemoryDisk::new()).expect("an empty disk opens").0;
    for (step, number) in steps.iter().zip(0..) {
        session = take(session, step, number, tally);
        assert_eq!(&World::of(&session.wal), session.life.world(), "after step {number}, {step:?}");
        assert!(!session.failed(), "nothing fails here");
    }
    reopen(session, &Step::Close, tally);
}

fn take(mut session: Session, step: &Step, number: u64, tally: &mut Tally) -> Session {
    match step {
        Step::Do { log, action } => {
            let operation = action.on(&session.life.world().log(*log), number);
            let done = session.perform(*log, &operation);
            done.unwrap_or_else(|error| panic!("{log:?} {operation:?}: {error}"));
            tally.operations += 1;
        }
        Step::Sync => session.work_on_sync(),
        Step::Segment => session.work_on_segment(),
        Step::Settle => session.settle(),
        Step::Sleep => session.sleep(Duration::from_millis(60)),
        Step::Fail => {
            session.disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
            (0..6).for_each(|_| session.work_on_sync());
            return reopen(session, step, tally);
        }
        Step::PowerCut { .. } | Step::Kill | Step::Close => return reopen(session, step, tally),
    }
    session
}

/// Ends the process and opens the log again: an end of what was done that has everything acknowledged is found.
fn reopen(session: Session, step: &Step, tally: &mut Tally) -> Session {
    let statistics = session.wal.statistics();
    tally.sealed += statistics.sealed_segments;
    tally.recycled += statistics.recycled_segments;
    let (mut acknowledged, appended) = (session.acknowledged(), session.appended());
    let (life, disk) = match step {
        Step::Close => {
            acknowledged = appended;
            session.close()
        }
        _ => session.kill(),
    };
    let Step::PowerCut { percent, seed } = *step else {
        return open(&disk, &life, acknowledged, appended);
    };
    let mut random = Random::new(seed);
    let image = disk.image(|_| random.chance(percent));
    let mut session = open(&image, &life, acknowledged, appended);
    let found = life.find(session.life.world().digest(), acknowledged, appended);
    tally.lost += usize::from(found < Some(appended));
    tally.kept += usize::from(found > Some(acknowledged));
    if random.chance(50) {
        let image = cut_recovery(&image, &mut random);
        session = open(&image, &life, acknowledged, appended);
        let again = life.find(session.life.world().digest(), acknowledged, appended);
        assert_eq!(again, found, "a recovery that was cut changed what is found");
        tally.recovery_cuts += 1;
    }
    session
}

/// The disk after a power cut somewhere in a recovery, or after it.
fn cut_recovery(image: &MemoryDisk, random: &mut Random) -> MemoryDisk {
    let disk = image.reopen();
    let (session, cuts) = Session::open(&disk).expect("it has opened before");
    let (_, after) = session.kill();
    let place = usize::try_from(random.below(cuts.len() as u64 + 1)).expect("few operations");
    let disk = cuts.get(place).map_or(&after, |cut| &cut.before);
    let percent = random.below(101);
    disk.image(|_| random.chance(percent))
}

fn open(disk: &MemoryDisk, life: &Life, acknowledged: usize, appended: usize) -> Session {
    let opened = Session::open(disk);
    let (session, _) = opened.unwrap_or_else(|error| panic!("the log does not open: {error}"));
    let found = session.life.world();
    assert!(
        life.find(found.digest(), acknowledged, appended).is_some(),
        "no history of {acknowledged} (acknowledged) to {appended} operations ends in {found:#?}\n\
         acknowledged was {:#?}\nand then {:?}",
        life.worlds[acknowledged],
        &life.operations[acknowledged..appended],
    );
    session
}

fn config() -> Config {
    let cases =
        std::env::var("PROPTEST_CASES").map_or(64, |cases| cases.parse().expect("a number"));
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/model/regressions.txt");
    let failure_persistence = Some(Box::new(FileFailurePersistence::Direct(seeds)) as _);
    Config { cases, failure_persistence, max_shrink_iters: 20_000, ..Config::default() }
}

proptest! {
    #![proptest_config(config())]

    /// WAL-CASE 1, WAL-CASE 2, WAL-CASE 3, WAL-CASE 19, WAL-CASE 21, WAL-CASE 34, WAL-CASE 51, WAL-CASE 57.
    #[test]
    fn the_log_shows_what_plain_vectors_hold_and_keeps_what_it_acknowledged(steps in steps()) {
        run(&steps, &mut Tally::default());
    }

    /// WAL-CASE 44.
    #[test]
    fn the_simulated_disk_and_both_ways_of_writing_show_and_leave_the_same(steps in steps()) {
        ways::run(&steps, &mut Tally::default());
    }
}

/// The tests above are worth what their cases meet.
#[test]
fn the_cases_meet_what_they_are_made_for() {
    let (mut runner, mut tally, mut in_ways) =
        (TestRunner::deterministic(), Tally::default(), Tally::default());
    for _ in 0..32 {
        let case = steps().new_tree(&mut runner).expect("nothing is filtered");
        run(&case.current(), &mut tally);
        ways::run(&case.current(), &mut in_ways);
    }
    assert!(in_ways.sealed > 20 && in_ways.recycled > 5, "{in_ways:?}");
    println!("{tally:?}");
    assert!(tally.operations > 500 && tally.sealed > 20 && tally.recycled > 5, "{tally:?}");
    assert!(tally.lost > 5 && tally.kept > 5 && tally.recovery_cuts > 10, "{tally:?}");
}
