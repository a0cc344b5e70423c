//! Every power cut of a log's life, and everything that each may have kept: what is recovered is a
//! prefix of what was appended that contains everything acknowledged.
//!
//! A failure names its place: `KONTIKI_REPLAY=SEED/LIFE/CUT/CHOICE cargo test --test crash_matrix
//! replay -- --nocapture` tries that one alone (`kill` as the choice: a killed process instead).

use std::collections::BTreeSet;

use kontiki_disk::memory::{EDQUOT, EIO, ENOSPC, Fault, Kind};
use kontiki_sim::{
    failure::{
        self, Failed, Failure,
        Place::{self, Closing, Opening, Work},
    },
    matrix::Matrix,
    workload::{self, Record},
};

/// Operations of each workload.
const OPERATIONS: usize = 240;

fn record(seed: u64) -> Record {
    workload::run(seed, OPERATIONS)
}

/// WAL-CASE 1, WAL-CASE 2, WAL-CASE 3, WAL-CASE 4, WAL-CASE 46b, WAL-CASE 46d.
fn check_power_cuts(seed: u64) {
    let mut matrix = Matrix::new(record(seed));
    let result = matrix.check_all();
    println!("seed {seed}: {:?}", matrix.tally);
    if let Err(error) = result {
        panic!("{seed}/{error}");
    }
    assert!(matrix.tally.recovered > 1000, "too few disks: {:?}", matrix.tally);
}

#[test]
fn a_power_cut_anywhere_leaves_what_was_acknowledged_seed_1() {
    check_power_cuts(1);
}

#[test]
fn a_power_cut_anywhere_leaves_what_was_acknowledged_seed_2() {
    check_power_cuts(2);
}

#[test]
fn a_power_cut_anywhere_leaves_what_was_acknowledged_seed_3() {
    check_power_cuts(3);
}

/// Long runs look elsewhere: `KONTIKI_SEED`.
#[test]
fn a_power_cut_anywhere_leaves_what_was_acknowledged_another_seed() {
    let seed = std::env::var("KONTIKI_SEED");
    check_power_cuts(seed.map_or(5, |seed| seed.parse().expect("a number")));
}

/// WAL-CASE 19, WAL-CASE 62.
#[test]
fn what_is_shown_after_a_kill_is_not_lost_in_a_power_cut() {
    let mut matrix = Matrix::new(record(4));
    for life in 0..matrix.record().lives.len() {
        for cut in 0..matrix.record().lives[life].cuts.len() {
            if let Err(error) = matrix.check_kill(life, cut) {
                panic!("4/{error}");
            }
        }
    }
    println!("{:?}", matrix.tally);
}

/// WAL-CASE 20, WAL-CASE 21, WAL-CASE 24, WAL-CASE 26, WAL-CASE 56, WAL-CASE 62: every single operation of a kind fails
/// once, in openings, at work and in closes. The answer tells what was met: when, what the file was, and whether the log
/// stopped.
fn check_failures(kind: Kind, error: i32) -> BTreeSet<(Place, String, bool)> {
    // Names change seldom, so it takes more lives to meet all.
    let seeds = if matches!(kind, Kind::Write | Kind::Sync) { 9..10 } else { 13..18 };
    let failures = |seed| {
        let failure = |nth| Failure { kind, nth, fault: Fault::Fail(error) };
        (1..).map_while(move |nth| failure::run(seed, LIFE_OPERATIONS, failure(nth)))
    };
    let mut met = BTreeSet::new();
    for failed in seeds.flat_map(failures) {
        let Failed { record, operation, place, stopped } = failed;
        let suffix = operation.name.rsplit('.').next().expect("there is one part at least");
        met.insert((place, suffix.to_owned(), stopped));
        let life = record.lives.len() - 1;
        let cut = record.lives[life].cuts.len() - 1;
        let mut matrix = Matrix::new(record);
        let checked = matrix.check_cut(life, cut).and_then(|()| matrix.check_kill(life, cut));
        checked.unwrap_or_else(|error| panic!("{operation}, {place:?}: {error}"));
    }
    println!("{kind:?}: {met:?}");
    met
}

/// Operations of each of three lives.
const LIFE_OPERATIONS: usize = 60;

/// The failures have met all that they are made for, and the log stopped where it must and nowhere else. It goes on also
/// where the process is killed before it hears of the failure.
fn expect_failures(
    met: &BTreeSet<(Place, String, bool)>,
    expected: &[(Place, &'static str, bool)],
) {
    let expected = expected.iter().map(|&(place, suffix, stops)| (place, suffix.to_owned(), stops));
    assert_eq!(met, &expected.collect());
}

const STOPS: bool = true;
const GOES_ON: bool = false;

/// Groups, marks, seals and repairs; segments filled, and segments used again.
const OF_A_FILE: [(Place, &str, bool); 7] = [
    (Opening, "new", STOPS),
    (Opening, "wal", STOPS),
    (Work, "new", GOES_ON),
    (Work, "spare", GOES_ON),
    (Work, "wal", GOES_ON),
    (Work, "wal", STOPS),
    (Closing, "wal", STOPS),
];

#[test]
fn a_write_that_fails_anywhere_loses_nothing_acknowledged_and_nothing_shown() {
    for error in [EIO, ENOSPC] {
        expect_failures(&check_failures(Kind::Write, error), &OF_A_FILE);
    }
}

#[test]
fn a_sync_that_fails_anywhere_loses_nothing_acknowledged_and_nothing_shown() {
    for error in [EIO, EDQUOT] {
        expect_failures(&check_failures(Kind::Sync, error), &OF_A_FILE);
    }
}

#[test]
fn a_sync_of_the_directory_that_fails_anywhere_loses_nothing_acknowledged_and_nothing_shown() {
    let expected = [(Opening, "", STOPS), (Work, "", GOES_ON), (Work, "", STOPS)];
    expect_failures(&check_failures(Kind::SyncDirectory, EIO), &expected);
}

#[test]
fn a_file_that_cannot_be_made_renamed_or_removed_loses_nothing() {
    // Making one allocates its space.
    let made = [(Opening, "new", STOPS), (Work, "new", GOES_ON)];
    expect_failures(&check_failures(Kind::Create, EIO), &made);
    expect_failures(&check_failures(Kind::Create, ENOSPC), &made);
    // Given its name, freed, and used again.
    let renamed = [(Work, "wal", GOES_ON), (Work, "spare", GOES_ON)];
    expect_failures(&check_failures(Kind::Rename, EIO), &[&made[..], &renamed].concat());
    // A spare goes when a newer one takes its place.
    let removed = [
        (Opening, "spare", STOPS),
        (Opening, "wal", STOPS),
        (Work, "spare", GOES_ON),
        (Work, "wal", GOES_ON),
    ];
    expect_failures(&check_failures(Kind::Remove, EIO), &removed);
}

/// The matrix is worth what its workload meets.
#[test]
fn the_workloads_meet_what_they_are_made_for() {
    for seed in 1..=4 {
        let record = record(seed);
        assert!(record.operations >= 200, "{seed}: {} operations", record.operations);
        assert!(record.during_sync >= 20, "{seed}: {} during a sync", record.during_sync);
        assert!(record.segments() >= 6, "{seed}: {} segments", record.segments());
        let freed = record.disk_operations(Kind::Remove);
        assert!(freed >= 4, "{seed}: {freed} files removed");
        assert_eq!(record.lives.len(), 3);
    }
}

#[test]
fn replay() {
    let Ok(place) = std::env::var("KONTIKI_REPLAY") else { return };
    let parts: Vec<&str> = place.split('/').collect();
    let [seed, life, cut, choice] = parts[..] else { panic!("{place}: SEED/LIFE/CUT/CHOICE") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let index = |text: &str| usize::try_from(number(text)).expect("a small number");
    let mut matrix = Matrix::new(record(number(seed)));
    let result = match choice {
        "kill" => matrix.check_kill(index(life), index(cut)),
        choice => matrix.check(index(life), index(cut), choice.parse().expect("a choice")),
    };
    println!("{place}: {result:#?}");
    result.expect("the log keeps its promise");
}
