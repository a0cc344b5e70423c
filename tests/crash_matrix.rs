//! Every power cut of a log's life, and everything that each may have kept: what is recovered is a
//! prefix of what was appended that contains everything acknowledged.
//!
//! A failure names its place: `KONTIKI_REPLAY=SEED/LIFE/CUT/CHOICE cargo test --test crash_matrix
//! replay -- --nocapture` tries that one alone (`kill` as the choice: a killed process instead).

use kontiki_disk::memory::Kind;
use kontiki_sim::{
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
    match std::env::var("KONTIKI_SEED") {
        Ok(seed) => check_power_cuts(seed.parse().expect("a number")),
        Err(_) => println!("skipped: no KONTIKI_SEED"),
    }
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

/// WAL-CASE 20, WAL-CASE 21, WAL-CASE 26, WAL-CASE 56: one operation of the disk fails, wherever it
/// may.
#[test]
fn a_failure_anywhere_loses_nothing_acknowledged_and_nothing_shown() {
    let kinds =
        [Kind::Write, Kind::Sync, Kind::Create, Kind::Rename, Kind::Remove, Kind::SyncDirectory];
    for kind in kinds {
        let mut met = 0;
        // Mostly what is freed is used again; it takes a while until something is removed.
        let operations = if kind == Kind::Remove { 400 } else { 120 };
        for nth in 1.. {
            let Some(record) = workload::run_with_failure(5, operations, kind, nth) else { break };
            met += 1;
            let cut = record.lives[0].cuts.len() - 1;
            let mut matrix = Matrix::new(record);
            let checked = matrix.check_cut(0, cut).and_then(|()| matrix.check_kill(0, cut));
            checked.unwrap_or_else(|error| panic!("{kind:?} {nth} fails: {error}"));
        }
        println!("{kind:?}: {met} places");
        assert!(met > 0, "no {kind:?} in the workload");
    }
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
