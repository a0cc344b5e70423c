//! Repairs of a log that many operations made, with damage anywhere, and with the power cut anywhere.

use std::{collections::BTreeMap, fmt::Write, path::Path, sync::Arc};

use kontiki_disk::memory::Cut;
use kontiki_sim::{
    matrix::Choice,
    model::LogModel,
    random::Random,
    session::Life,
    workload::{LOGS, draw},
};
use kontiki_wal::repair::{self, LogOutcome, Mark, Stage, StateOutcome, Truncation};

use super::{
    damage::remove,
    repair::{diagnose, four_segments, is_corrupt, salvaged, truncated},
    *,
};

/// Operations of all kinds on four logs over some segments, closed.
fn long_life(seed: u64, operations: usize) -> (Life, MemoryDisk) {
    let mut session = start();
    let mut random = Random::new(seed);
    for _ in 0..operations {
        let log = LOGS[usize::try_from(random.below(4)).unwrap()];
        let operation = draw(&mut random, &session.life.world().log(log));
        acknowledge(&mut session, log, operation);
    }
    session.close()
}

/// WAL-CASE 42: whatever is damaged, a cut leaves the log as it once was, and a new log has of each log what it once held; what
/// is said of a log is true.
#[test]
fn wherever_the_damage_is_a_repair_leaves_what_was_once_there_and_tells_the_rest() {
    let mut tally = BTreeMap::<&str, usize>::new();
    for seed in 1..=3 {
        let (life, disk) = long_life(seed, 130);
        for (name, bytes) in files(&disk) {
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            for offset in (0..used).step_by(61) {
                let damaged = disk.reopen();
                flip(&damaged, &name, offset as u64);
                check(&life, &damaged, &mut tally, &format!("{seed} {name} {offset}"));
            }
            let missing = disk.reopen();
            remove(&missing, &name);
            check(&life, &missing, &mut tally, &format!("{seed} without {name}"));
        }
    }
    println!("{tally:?}");
    for kind in ["cut", "not cut", "unharmed", "salvaged", "shorter", "older state", "end unknown"]
    {
        assert!(tally.get(kind).is_some_and(|&count| count >= 20), "{kind}: {tally:?}");
    }
}

fn check(life: &Life, damaged: &MemoryDisk, tally: &mut BTreeMap<&str, usize>, place: &str) {
    let told = diagnose(damaged);
    if told.damage.is_empty() {
        return;
    }
    let mut count = |kind| *tally.entry(kind).or_default() += 1;
    match told.truncation {
        Ok(_) => {
            count("cut");
            let (cut, told) = truncated(damaged);
            let found = world(&cut);
            assert!(life.worlds.contains(&found), "{place}: {found:#?}");
            check_told(life, &found, &told.logs, place);
        }
        Err(_) => count("not cut"),
    }
    count(if told.is_end_known { "end known" } else { "end unknown" });
    if told.salvage.is_empty() {
        return;
    }
    let (found, outcomes) = salvaged(damaged);
    check_told(life, &found, &outcomes, place);
    for outcome in &outcomes {
        let (found, was) = (found.log(outcome.log), life.world().log(outcome.log));
        count("salvaged");
        count(if outcome.is_unharmed() { "unharmed" } else { "harmed" });
        count(if found.entries.len() < was.entries.len() { "shorter" } else { "not shorter" });
        let is_older = !matches!(outcome.state, StateOutcome::Kept | StateOutcome::None);
        count(if is_older { "older state" } else { "newest state" });
        let mut once = life.worlds.iter().map(|world| world.log(outcome.log));
        assert!(once.any(|once| holds(&once, &found)), "{place} {outcome:?}: {found:?}");
        let mut once = life.worlds.iter().map(|world| world.log(outcome.log));
        assert!(once.any(|once| once.state == found.state), "{place} {outcome:?}: {found:?}");
        count(if outcome.may_be_replaced { "may be replaced" } else { "of today" });
        let is_of_today = was.first == found.first && was.entries.starts_with(&found.entries);
        let is_true = outcome.may_be_replaced || is_of_today || found.entries.is_empty();
        assert!(is_true, "{place} {outcome:?}: {found:?}");
    }
}

/// Whether all entries of `found` follow each other in `once`.
fn holds(once: &LogModel, found: &LogModel) -> bool {
    let ahead = found.first.checked_sub(once.first).and_then(|ahead| usize::try_from(ahead).ok());
    let behind = ahead.and_then(|ahead| once.entries.get(ahead..));
    found.entries.is_empty() || behind.is_some_and(|behind| behind.starts_with(&found.entries))
}

/// What is said of each log is what is found.
fn check_told(life: &Life, found: &World, told: &[LogOutcome], place: &str) {
    for outcome in told {
        let (found, was) = (found.log(outcome.log), life.world().log(outcome.log));
        let runs = outcome.kept.iter().chain(&outcome.returning);
        let said: u64 = runs.map(|run| run.last - run.first + 1).sum();
        assert_eq!(said, found.entries.len() as u64, "{place} {outcome:?}");
        for run in outcome.kept.iter().chain(&outcome.returning) {
            for index in run.first..=run.last {
                assert_eq!(found.term(index), run.term, "{place} {outcome:?}");
            }
        }
        assert_eq!(outcome.state_bytes, found.state, "{place} {outcome:?}");
        assert!(!outcome.is_unharmed() || found == was, "{place} {outcome:?}: {found:?} {was:?}");
        if outcome.state == StateOutcome::Kept {
            assert_eq!(found.state, was.state, "{place} {outcome:?}");
        }
    }
}

/// Of a frame a zero has rotted: the zeros of a cut make it whole, if they do not take its beginning first.
fn whole_with_zeros() -> MemoryDisk {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    acknowledge(&mut session, L, append(2, 1, &[&("BEGIN".to_owned() + &"\0".repeat(1500))]));
    acknowledge(&mut session, L, append(3, 1, &["attests it"]));
    let (_, disk) = session.close();
    let (name, entry) = find(&disk, "BEGIN");
    flip(&disk, &name, entry + 1400);
    disk
}

/// Logs whose cut does all that a cut can do, and what is found after it.
pub(super) fn damaged_logs() -> Vec<(&'static str, MemoryDisk)> {
    let (_, whole) = four_segments();
    let names = segments(&whole);
    let flipped = |name: &str, offset| {
        let disk = whole.reopen();
        flip(&disk, name, offset);
        disk
    };
    let (_, entry) = find(&whole, "in the second");
    let (_, last) = find(&whole, "the last");
    let missing = whole.reopen();
    remove(&missing, &names[2]);
    let both = flipped(&names[0], (16 << 10) - 4);
    flip(&both, &names[2], 5000);
    vec![
        ("in a sealed segment", flipped(&names[1], entry)),
        ("in the active segment", flipped(&names[3], last)),
        ("a header page", flipped(&names[2], 100)),
        ("a checkpoint", flipped(&names[3], 4096 + 90)),
        ("a trailer", flipped(&names[1], (16 << 10) - 4)),
        ("a trailer and a frame", both),
        ("a missing segment", missing),
        ("a frame that zeros complete", whole_with_zeros()),
    ]
}

/// WAL-CASE 42: after a power cut anywhere in a cut nothing was changed, or the log is refused, or it is what it is in the end;
/// always the backup has all that was changed, and the cut can be made again.
#[test]
fn a_power_cut_anywhere_in_a_cut_leaves_the_damage_or_the_end_and_a_whole_backup() {
    for (what, damaged) in damaged_logs() {
        let (cut, told) = truncated(&damaged);
        let expected = world(&cut);
        let before = segment_files(&damaged);
        let mut images = 0;
        for Cut { operation, before: disk } in cuts_of_a_cut(&damaged) {
            for choice in Choice::all(disk.unsynced().len()) {
                let image = choice.image(&disk);
                let place = format!("{what}, before {operation}, {choice}");
                images += 1;
                let after = segment_files(&image);
                let changed = before.iter().filter(|(name, bytes)| after.get(*name) != Some(bytes));
                for (name, bytes) in changed {
                    let copy = image.contents(told.backup.join(name));
                    assert!(copy.as_ref() == Some(bytes), "{place}: {name} is not in the backup");
                    let list = image.contents(told.backup.join("BACKUP.txt")).expect("a list");
                    assert!(String::from_utf8(list).unwrap().contains(name), "{place}");
                }
                check_list(&image, &told, &before, &place);
                check_midway(&image, &before, &expected, &place);
                repair::truncate_on(&image, DIRECTORY).unwrap_or_else(|e| panic!("{place}: {e}"));
                assert_eq!(world(&image), expected, "{place}");
                assert!(diagnose(&image).damage.is_empty(), "{place}");
            }
        }
        println!("{what}: {images} disks");
        assert!(images > 50, "{what}: {images}");
    }
}

/// Names and bytes of files.
type Files = BTreeMap<String, Vec<u8>>;

/// Without the mark, which comes and goes by itself.
pub(super) fn segment_files(disk: &MemoryDisk) -> Files {
    files(disk).into_iter().filter(|(name, _)| name.ends_with(".wal")).collect()
}

/// With its list a backup is whole.
fn check_list(image: &MemoryDisk, told: &Truncation, before: &Files, place: &str) {
    let list = image.contents(told.backup.join("BACKUP.txt")).unwrap_or_default();
    if list.starts_with(b"Segments of ") {
        for name in told.changed.iter().chain(&told.removed) {
            let copy = image.contents(told.backup.join(name));
            assert!(copy.as_ref() == before.get(name), "{place}: {name} is listed");
        }
    }
}

/// The log is as it was, or is refused for what was begun, or is what it is in the end.
fn check_midway(image: &MemoryDisk, before: &Files, expected: &World, place: &str) {
    let is_changed = *before != segment_files(image);
    match open(&image.reopen()) {
        Ok(_) if !is_changed => {}
        Ok(wal) => assert_eq!(&World::of(&wal), expected, "{place}"),
        Err(OpenError::Corruption(_) | OpenError::MissingSegment { .. }) => {
            assert!(!is_changed && is_corrupt(image, DIRECTORY), "{place}");
        }
        Err(OpenError::RepairUnfinished { stage: Stage::Cutting, .. }) => {}
        Err(error) => panic!("{place}: {error}"),
    }
}

/// Every operation of the disk during a cut, each with the disk before it.
pub(super) fn cuts_of_a_cut(damaged: &MemoryDisk) -> Vec<Cut> {
    let disk = damaged.reopen();
    disk.start_cuts();
    repair::truncate_on(&disk, DIRECTORY).unwrap().expect("it was damaged");
    disk.take_cuts()
}

/// WAL-CASE 42, WAL-CASE 11: the same entries again, so that every frame has the length and the place of one that was cut.
#[test]
fn nothing_that_was_cut_comes_back_behind_what_is_appended() {
    for (what, damaged) in damaged_logs() {
        let (cut, _) = truncated(&damaged);
        let mut session = start_on(&cut);
        let next = session.life.world().log(L).last() + 1;
        for index in next..next + 30 {
            let other = "fillet ".repeat(100);
            acknowledge(&mut session, L, append(index, 3, &[&other]));
        }
        let (life, _) = session.kill();
        for (number, power_cut) in life.cuts.iter().enumerate() {
            for choice in Choice::all(power_cut.cut.before.unsynced().len()) {
                let image = choice.image(&power_cut.cut.before);
                let digest = world(&image).digest();
                let found = life.find(digest, power_cut.acknowledged, power_cut.appended);
                assert!(found.is_some(), "{what}, cut {number}, {choice}: {:#?}", world(&image));
            }
        }
    }
}

/// WAL-CASE 42: a disk that fails anywhere in a cut is reported, and the cut can be made again.
#[test]
fn a_cut_that_fails_anywhere_can_be_made_again() {
    use kontiki_disk::memory::{EIO, Fault, Kind};
    let kinds =
        [Kind::Write, Kind::Sync, Kind::Create, Kind::Rename, Kind::Remove, Kind::SyncDirectory];
    for (what, damaged) in damaged_logs() {
        let expected = world(&truncated(&damaged).0);
        for (kind, nth) in kinds.into_iter().flat_map(|kind| (1..9).map(move |nth| (kind, nth))) {
            let disk = damaged.reopen();
            disk.inject(kind, nth, Fault::Fail(EIO));
            let done = repair::truncate_on(&disk, DIRECTORY);
            let place = format!("{what}, {kind:?} {nth}");
            assert_eq!(done.is_ok(), disk.has_faults(), "{place}: {done:?}");
            assert!(nth > 1 || kind == Kind::Remove || done.is_err(), "{place} is met");
            let disk = disk.reopen();
            repair::truncate_on(&disk, DIRECTORY).unwrap_or_else(|e| panic!("{place}: {e}"));
            assert_eq!(world(&disk.image(NOTHING)), expected, "{place}");
        }
    }
}

/// WAL-CASE 42: after a sync of zeros that failed, and a kill before the bytes at the damage were put back, the log looks
/// whole. The cut that is made again is durable all the same.
#[test]
fn a_cut_that_is_in_the_cache_only_is_made_again_before_anything_is_appended() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["stays"]));
    // A frame longer than a page, so that the page at its header tells nothing of what follows.
    let long = " ".repeat(1500);
    acknowledge(&mut session, L, append(2, 1, &["damaged", &long, &long, &long]));
    for (index, text) in [(6, "behind"), (7, "behind that"), (8, "the last")] {
        acknowledge(&mut session, L, append(index, 1, &[text]));
    }
    let (_, damaged) = session.close();
    let (file, entry) = find(&damaged, "damaged");
    flip(&damaged, &file, header_of(entry));
    let (mut kills, mut looked_whole) = (0, 0);
    for sync in 1..11 {
        for Cut { operation, before: disk } in cuts_of_a_failing_cut(&damaged, sync) {
            let place = format!("sync {sync} failed, killed before {operation}");
            let opened = open(&disk.reopen()).map(drop);
            let is_changed = segment_files(&disk) != segment_files(&damaged);
            let mark = Mark::of_on(&disk, DIRECTORY).unwrap();
            let is_begun = mark.is_some_and(|mark| mark.stage == Stage::Cutting);
            let is_refused = matches!(opened, Err(OpenError::RepairUnfinished { .. }));
            assert_eq!(is_refused, is_begun, "{place}: {opened:?}");
            assert!(is_refused || !is_changed || opened.is_ok(), "{place}: {opened:?}");
            let again = repair::truncate_on(&disk, DIRECTORY).unwrap();
            let mut session = start_on(&disk);
            acknowledge(&mut session, L, append(2, 2, &["new"]));
            let after = open(&session.disk.image(NOTHING));
            let found = World::of(&after.unwrap_or_else(|error| panic!("{place}: {error}")));
            assert_eq!(entries(&found, L), ["stays", "new"], "{place}");
            kills += 1;
            looked_whole += usize::from(again.is_none());
        }
    }
    println!("{kills} kills, after {looked_whole} the log looked whole");
    assert!(kills > 50 && looked_whole > 2, "{looked_whole} of {kills}");
}

/// Every operation of the disk during a cut of which one sync fails, each with the disk before it.
fn cuts_of_a_failing_cut(damaged: &MemoryDisk, sync: u64) -> Vec<Cut> {
    use kontiki_disk::memory::{EIO, Fault, Kind};
    let disk = damaged.reopen();
    disk.inject(Kind::Sync, sync, Fault::Fail(EIO));
    disk.start_cuts();
    let done = repair::truncate_on(&disk, DIRECTORY);
    assert_eq!(done.is_ok(), disk.has_faults(), "sync {sync}");
    let is_put_back = is_put_back(&segment_files(&disk), &segment_files(damaged));
    let is_cut = segment_files(&disk) == segment_files(&truncated(damaged).0);
    assert!(is_put_back || is_cut, "sync {sync}: all is put back");
    let mark = Mark::of_on(&disk, DIRECTORY).unwrap();
    let is_done = mark.is_some_and(|mark| mark.stage == Stage::Done);
    assert_eq!(is_done, done.is_ok(), "sync {sync}");
    disk.take_cuts()
}

/// All is as it was before a cut, but for zeros in one sector of a file, the first that a cut takes.
fn is_put_back(found: &Files, before: &Files) -> bool {
    found.keys().eq(before.keys())
        && found.iter().zip(before.values()).all(|((_, found), before)| {
            let mut differ = (0..found.len()).filter(|&at| found[at] != before[at]);
            let sector = differ.clone().next().map(|first| first / 512);
            differ.all(|at| found[at] == 0 && Some(at / 512) == sector)
        })
}

/// WAL-CASE 42: a power cut anywhere in a salvage leaves the damaged log alone, and what is there of the new one is no more
/// than what it would have been.
#[test]
fn a_power_cut_anywhere_in_a_salvage_changes_nothing_of_the_log() {
    let (_, damaged) = damaged_logs().remove(0);
    let before = files(&damaged);
    let disk = damaged.reopen();
    disk.start_cuts();
    let any: Arc<dyn Disk> = Arc::new(disk.clone());
    repair::salvage_on(&any, DIRECTORY, "new").unwrap();
    let mut told = String::new();
    for Cut { operation, before: disk } in disk.take_cuts() {
        writeln!(told, "{operation}").unwrap();
        assert_eq!(operation.directory, Path::new("new"), "{operation}");
        for keep in [ALL, NOTHING] {
            assert_eq!(files(&disk.image(keep)), before, "before {operation}");
        }
    }
    assert!(told.lines().count() > 10, "{told}");
}
