//! Logs that an opening refuses, or that verify finds damaged, and what a repair makes of them.

use std::{collections::BTreeMap, sync::Arc};

use kontiki_disk::memory::ENOSPC;
use kontiki_sim::session::options;
use kontiki_wal::{
    Lsn,
    inspect::{Scan, Verdict},
    repair::{self, Diagnosis, LogOutcome, RepairError, StateOutcome, TermRun, Truncation},
};

use super::{
    damage::{overwrite, remove},
    *,
};

const NEW: &str = "salvaged";

pub(super) fn diagnose(disk: &MemoryDisk) -> Diagnosis {
    Diagnosis::of_on(disk, DIRECTORY).unwrap()
}

pub(super) fn run(first: u64, last: u64, term: u64) -> TermRun {
    TermRun { first, last, term }
}

pub(super) fn of_log(outcomes: &[LogOutcome], log: LogId) -> &LogOutcome {
    outcomes.iter().find(|outcome| outcome.log == log).expect("the log is told of")
}

pub(super) fn is_corrupt(disk: &MemoryDisk, directory: &str) -> bool {
    let scan = Scan::open_on(disk, directory).unwrap();
    matches!(scan.verdict(), Verdict::Corrupt(_))
}

/// Cuts a copy of the disk, and sees that it was damaged, is whole now, and stays as it is. What was changed or removed is in
/// the backup.
pub(super) fn truncated(disk: &MemoryDisk) -> (MemoryDisk, Truncation) {
    let disk = disk.reopen();
    let before: BTreeMap<String, Vec<u8>> = files(&disk).into_iter().collect();
    let said = diagnose(&disk).truncation.unwrap();
    assert_eq!(before, files(&disk).into_iter().collect(), "a dry run changes nothing");
    let done = repair::truncate_on(&disk, DIRECTORY).unwrap().expect("it was damaged");
    assert_eq!(format!("{said:?}"), format!("{done:?}"), "a dry run says what is done");
    let after: BTreeMap<String, Vec<u8>> = files(&disk).into_iter().collect();
    for (name, bytes) in &before {
        let is_said = done.changed.contains(name) || done.removed.contains(name);
        assert!(after.get(name) == Some(bytes) || is_said, "{name} was changed");
        if is_said {
            let copy = disk.contents(done.backup.join(name)).unwrap();
            assert!(copy == *bytes, "{name} is in the backup");
        }
    }
    assert!(repair::truncate_on(&disk, DIRECTORY).unwrap().is_none(), "nothing is left to do");
    assert_eq!(after, files(&disk).into_iter().collect());
    assert!(!is_corrupt(&disk, DIRECTORY));
    (disk, done)
}

/// Salvages into a new directory; what is found there after a power cut.
pub(super) fn salvaged(disk: &MemoryDisk) -> (World, Vec<LogOutcome>) {
    let disk = disk.reopen();
    let before = files(&disk);
    let said = diagnose(&disk).salvage;
    let done = salvage(&disk).unwrap();
    assert_eq!(format!("{said:?}"), format!("{done:?}"), "a dry run says what is done");
    assert_eq!(files(&disk), before, "the damaged log is left alone");
    let after = disk.image(NOTHING);
    assert!(!is_corrupt(&after, NEW));
    (World::of(&options(&after).open(NEW).unwrap()), done)
}

fn salvage(disk: &MemoryDisk) -> Result<Vec<LogOutcome>, RepairError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair::salvage_on(&disk, DIRECTORY, NEW).map(|salvaged| salvaged.logs)
}

/// WAL-CASE 42
#[test]
fn damage_in_the_active_segment_is_cut_with_all_behind_it_and_salvaged_around() {
    let mut session = start();
    acknowledge(&mut session, L, state("vote"));
    for (index, text) in [(1, "first"), (2, "second"), (3, "third"), (4, "fourth")] {
        acknowledge(&mut session, L, append(index, 5, &[text]));
        acknowledge(&mut session, OTHER, append(index, 1, &[&format!("other {index}")]));
    }
    let (life, disk) = session.close();
    let (file, entry) = find(&disk, "third");
    flip(&disk, &file, entry);
    let lsn = Lsn(header_of(entry) - 4096);

    let (cut, told) = truncated(&disk);
    let place = told.cut.unwrap();
    assert_eq!((place.segment, place.offset, place.lsn), (file.clone(), header_of(entry), lsn));
    assert_eq!((told.changed, told.removed), (vec![file], vec![]));
    let log = of_log(&told.logs, L);
    assert_eq!((&log.kept[..], &log.lost[..]), (&[run(1, 2, 5)][..], &[run(3, 3, 5)][..]));
    assert_eq!((&log.left_out[..], log.state), (&[run(4, 4, 5)][..], StateOutcome::Kept));
    let other = of_log(&told.logs, OTHER);
    assert_eq!((&other.kept[..], &other.lost[..]), (&[run(1, 2, 1)][..], &[][..]));
    assert_eq!(other.left_out, [run(3, 4, 1)]);
    let found = world(&cut);
    assert_eq!(entries(&found, L), ["first", "second"]);
    assert_eq!(entries(&found, OTHER), ["other 1", "other 2"]);
    assert_eq!(found.log(L).state, life.world().log(L).state);

    let (found, told) = salvaged(&disk);
    assert_eq!(entries(&found, L), ["first", "second"]);
    assert_eq!(found.log(OTHER), life.world().log(OTHER), "nothing of it is damaged");
    assert!(of_log(&told, OTHER).is_unharmed() && !of_log(&told, L).is_unharmed());
}

/// Some segments of `L`, of which the first three are sealed, closed.
pub(super) fn four_segments() -> (World, MemoryDisk) {
    let mut session = start();
    acknowledge(&mut session, L, state("an older vote"));
    acknowledge(&mut session, L, append(1, 1, &["first", "second"]));
    fill_up_to(&mut session, L, 2);
    let next = session.life.world().log(L).last() + 1;
    acknowledge(&mut session, L, append(next, 2, &["in the second"]));
    acknowledge(&mut session, L, state("a newer vote"));
    fill_up_to(&mut session, L, 4);
    let next = session.life.world().log(L).last() + 1;
    acknowledge(&mut session, L, append(next, 3, &["the last"]));
    let (life, disk) = session.close();
    (life.world().clone(), disk)
}

/// WAL-CASE 42
#[test]
fn damage_in_a_sealed_segment_is_cut_with_the_segments_behind_it() {
    let (was, disk) = four_segments();
    let (file, entry) = find(&disk, "in the second");
    flip(&disk, &file, entry);
    let names = segments(&disk);
    assert_eq!(names[1], file);

    let (cut, told) = truncated(&disk);
    assert_eq!((told.changed, told.removed), (vec![file], names[2..].to_vec()));
    let (found, last) = (world(&cut), was.log(L).last());
    let kept = found.log(L).last();
    assert_eq!(found.log(L).entries[..], was.log(L).entries[..kept.try_into().unwrap()]);
    let log = of_log(&told.logs, L);
    assert_eq!(
        (&log.kept[..], &log.lost[..]),
        (&[run(1, kept, 1)][..], &[run(kept + 1, kept + 1, 2)][..])
    );
    assert_eq!(log.left_out, [run(kept + 2, last - 1, 2), run(last, last, 3)]);
    assert_eq!(
        (log.state, log.state_bytes.as_deref()),
        (StateOutcome::Older, Some(&b"an older vote"[..]))
    );

    let (found, told) = salvaged(&disk);
    assert_eq!(found.log(L).last(), kept);
    assert_eq!(found.log(L).state, was.log(L).state, "the newest state is whole");
    assert_eq!(of_log(&told, L).state, StateOutcome::Kept);
}

/// WAL-CASE 42, WAL-CASE 52: what was freed behind the damage is not there any more.
#[test]
fn a_log_that_has_freed_segments_behind_the_damage_is_not_cut_but_salvaged() {
    let mut session = start();
    acknowledge(&mut session, L, state("vote"));
    fill_up_to(&mut session, L, 2);
    let first = session.life.world().log(L).last();
    fill_up_to(&mut session, L, 5);
    acknowledge(&mut session, L, Operation::Compact { first });
    session.settle();
    let (life, disk) = session.close();
    let names = segments(&disk);
    let bytes = disk.contents(Path::new(DIRECTORY).join(&names[1])).unwrap();
    let filler = bytes.windows(7).position(|window| window == b"filler ").unwrap();
    flip(&disk, &names[1], filler.try_into().unwrap());
    assert!(is_corrupt(&disk, DIRECTORY));

    let reason = diagnose(&disk).truncation.unwrap_err();
    assert!(reason.contains("needs segment 0000000000000001.wal, which was freed"), "{reason}");
    let before = files(&disk);
    let refused = repair::truncate_on(&disk, DIRECTORY).unwrap_err();
    assert!(matches!(refused, RepairError::NoCut { .. }), "{refused}");
    assert_eq!(files(&disk), before, "nothing was changed");
    let (found, _) = salvaged(&disk);
    let (found, was) = (found.log(L), life.world().log(L));
    assert_eq!((found.first, found.term_before), (was.first, was.term_before));
    assert!(!found.entries.is_empty() && was.entries.starts_with(&found.entries));
    assert_eq!(found.state, was.state);
}

/// WAL-CASE 42, WAL-CASE 16
#[test]
fn before_a_missing_segment_the_log_is_cut_and_what_was_replaced_in_it_does_not_come_back() {
    let (was, disk) = four_segments();
    for (number, missing) in segments(&disk)[..4].iter().enumerate() {
        let damaged = disk.reopen();
        remove(&damaged, missing);
        let (found, _) = salvaged(&damaged);
        let kept = found.log(L);
        assert!(was.log(L).entries.starts_with(&kept.entries), "{missing}");
        assert_eq!(kept.entries.is_empty(), number == 0, "{missing}");
        let told = diagnose(&damaged);
        assert_eq!(told.is_end_known, number < 3, "{missing}");
        if number == 0 {
            let reason = told.truncation.unwrap_err();
            assert!(reason.contains("the oldest segment"), "{reason}");
            continue;
        }
        let (cut, _) = truncated(&damaged);
        assert_eq!(world(&cut).log(L).entries, kept.entries, "{missing}");
    }
    let mut session = start();
    let long = "old ".repeat(250);
    acknowledge(&mut session, L, append(1, 1, &[&long, &long, &long]));
    fill_up_to(&mut session, OTHER, 2);
    acknowledge(&mut session, L, append(2, 9, &["replaced", "replaced"]));
    fill_up_to(&mut session, OTHER, 3);
    acknowledge(&mut session, L, append(4, 9, &["new"]));
    let (_, disk) = session.close();
    let (middle, _) = find(&disk, "replacedreplaced");
    remove(&disk, &middle);
    let (found, told) = salvaged(&disk);
    assert_eq!(entries(&found, L), [&*long]);
    let log = of_log(&told, L);
    assert_eq!((&log.lost[..], &log.left_out[..]), (&[run(2, 3, 9)][..], &[run(4, 4, 9)][..]));
    // A cut brings the old ones back, and says so.
    let (cut, told) = truncated(&disk);
    assert_eq!(entries(&world(&cut), L), [&*long, &long, &long]);
    let log = of_log(&told.logs, L);
    assert_eq!((&log.returning[..], &log.left_out[..]), (&[run(2, 3, 1)][..], &[run(4, 4, 9)][..]));
}

/// WAL-CASE 42: with the terms alone nobody could tell what was replaced in the segment that is lost.
#[test]
fn what_lies_before_a_loss_is_not_joined_to_what_lies_behind_it() {
    let mut session = start();
    let old = ["old"; 8];
    acknowledge(&mut session, L, append(1, 1, &old));
    fill_up_to(&mut session, OTHER, 2);
    acknowledge(&mut session, L, append(6, 1, &["replaced", "replaced", "replaced"]));
    fill_up_to(&mut session, OTHER, 3);
    acknowledge(&mut session, L, append(9, 1, &["new"]));
    let (_, disk) = session.close();
    let (middle, _) = find(&disk, "replacedreplacedreplaced");
    remove(&disk, &middle);
    let (found, told) = salvaged(&disk);
    assert_eq!(entries(&found, L), old, "as it was before the loss");
    let log = of_log(&told, L);
    assert!(log.may_be_replaced && !log.is_unharmed());
    assert_eq!((&log.kept[..], &log.left_out[..]), (&[run(1, 8, 1)][..], &[run(9, 9, 1)][..]));
}

/// WAL-CASE 42, WAL-CASE 64: a header page, a start frame or a checkpoint that does not hold.
#[test]
fn a_segment_that_does_not_begin_whole_is_cut_off_and_what_lies_behind_it_salvaged() {
    let (was, disk) = four_segments();
    for (number, name) in segments(&disk)[..4].iter().enumerate().skip(1) {
        for offset in [100, 4096 + 20, 4096 + 80 + 50] {
            let damaged = disk.reopen();
            flip(&damaged, name, offset);
            let (cut, told) = truncated(&damaged);
            let place = told.cut.unwrap();
            assert_eq!(place.segment, segments(&disk)[number - 1], "{name} {offset}");
            assert!(told.removed.contains(name), "{name} {offset}");
            let kept = world(&cut).log(L);
            assert!(was.log(L).entries.starts_with(&kept.entries), "{name} {offset}");
            let (found, told) = salvaged(&damaged);
            let is_newest = number == 3;
            // Behind the checkpoint of a sealed one its frames follow on each other all the same.
            let is_whole = !is_newest && offset > 4096 + 80;
            let expected = if is_whole { was.log(L) } else { kept.clone() };
            assert_eq!(found.log(L).entries, expected.entries, "{name} {offset}");
            assert_eq!(diagnose(&damaged).is_end_known, !is_newest, "{name} {offset}");
            let state = if is_newest { StateOutcome::MayBeOlder } else { StateOutcome::Kept };
            assert_eq!(of_log(&told, L).state, state, "{name} {offset}");
            assert_eq!(found.log(L).state, was.log(L).state, "{name} {offset}");
        }
    }
}

/// WAL-CASE 42, WAL-CASE 47
#[test]
fn a_damaged_index_or_trailer_is_made_anew_and_nothing_is_cut() {
    let (was, disk) = four_segments();
    for name in &segments(&disk)[..3] {
        for at in [TRAILER_AT - 4, TRAILER_AT + 20, TRAILER_AT + 4092] {
            let damaged = disk.reopen();
            flip(&damaged, name, at);
            assert!(is_corrupt(&damaged, DIRECTORY), "{name} {at}");
            let (repaired, told) = truncated(&damaged);
            assert_eq!((told.cut, &told.changed[..]), (None, std::slice::from_ref(name)), "{at}");
            assert!(told.logs.iter().all(LogOutcome::is_unharmed), "{name} {at}");
            let mut session = start_on(&repaired);
            session.settle();
            let (life, disk) = session.close();
            assert_eq!(life.world(), &was, "{name} {at}");
            assert!(!is_corrupt(&disk, DIRECTORY), "{name} {at}");
            assert_eq!(salvaged(&damaged).0, was, "{name} {at}");
        }
    }
}

/// Where the trailer page of a segment begins.
const TRAILER_AT: u64 = (16 << 10) - 4096;

/// WAL-CASE 42, WAL-CASE 35
#[test]
fn a_log_that_falls_back_to_an_older_state_is_told_apart() {
    let mut session = start();
    acknowledge(&mut session, L, state("vote 1"));
    acknowledge(&mut session, OTHER, state("never again"));
    acknowledge(&mut session, L, state("vote 2"));
    acknowledge(&mut session, L, append(1, 1, &["entry"]));
    let (_, disk) = session.close();
    let (file, at) = find(&disk, "vote 2");
    flip(&disk, &file, at);
    let (found, told) = salvaged(&disk);
    let log = of_log(&told, L);
    assert_eq!(
        (log.state, log.state_bytes.as_deref()),
        (StateOutcome::Older, Some(&b"vote 1"[..]))
    );
    assert_eq!(found.log(L).state.as_deref(), Some(&b"vote 1"[..]));
    assert_eq!(entries(&found, L), ["entry"], "its entries are whole");
    let told = truncated(&disk).1;
    assert_eq!(of_log(&told.logs, L).state, StateOutcome::Older);
    assert_eq!(of_log(&told.logs, OTHER).state, StateOutcome::Kept);

    let (file, at) = find(&disk, "never again");
    flip(&disk, &file, at);
    let told = truncated(&disk).1;
    assert_eq!(of_log(&told.logs, OTHER).state, StateOutcome::Lost);
    // Where the header is damaged as well, frames that follow tell that there was one.
    flip(&disk, &file, at - 48 + 3);
    let told = diagnose(&disk);
    assert!(!told.is_end_known);
    assert_eq!(of_log(&told.salvage, L).state, StateOutcome::Older);
    let log = of_log(&told.salvage, L);
    assert_eq!((&log.lost[..], &log.left_out[..]), (&[][..], &[run(1, 1, 1)][..]));
}

/// WAL-CASE 42, WAL-CASE 18: a file of the one log is refused among those of the other.
#[test]
fn a_salvaged_log_is_the_same_owners_and_another_log() {
    let disk = MemoryDisk::new();
    let owner = [7; 32];
    drop(options(&disk).owner(owner).open(DIRECTORY).unwrap());
    let mut session = start_on(&disk);
    fill_up_to(&mut session, L, 3);
    let (life, disk) = session.close();
    let (found, _) = salvaged(&disk);
    assert_eq!(&found, life.world(), "all of a log that is whole");

    salvage(&disk).unwrap();
    let refused = options(&disk).owner([8; 32]).open(NEW).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::OtherOwner { found, .. } if found == owner), "{refused}");
    let name = &segments(&disk)[1];
    let bytes = disk.contents(Path::new(NEW).join(name)).unwrap();
    overwrite(&disk, name, 0, &bytes);
    let mixed = super::refused(&disk);
    assert!(matches!(mixed, OpenError::OtherLog { .. }), "{mixed}");
}

/// WAL-CASE 42, WAL-CASE 40
#[test]
fn nothing_is_repaired_while_a_writer_is_there_or_where_something_is_in_the_way() {
    let (_, disk) = four_segments();
    let writer = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    let locked = |result: Result<(), RepairError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, RepairError::Open(OpenError::Locked { .. })), "{error}");
    };
    locked(Diagnosis::of_on(&disk, DIRECTORY).map(drop).map_err(Into::into));
    locked(repair::truncate_on(&disk, DIRECTORY).map(drop));
    locked(salvage(&disk).map(drop));
    drop(writer);

    let there = disk.open_directory(Path::new(NEW), Access::Write).unwrap();
    there.create("mine", 1).unwrap();
    drop(there);
    let error = salvage(&disk).unwrap_err();
    assert!(matches!(error, RepairError::NotEmpty { .. }), "{error}");
    let error = repair::truncate_on(&disk, "nowhere").unwrap_err();
    assert!(matches!(error, RepairError::Open(OpenError::Io { .. })), "{error}");
    assert!(disk.open_directory(Path::new("nowhere"), Access::Read).is_err(), "none is made");
}

/// WAL-CASE 42: no room for the backup.
#[test]
fn a_log_of_which_no_backup_can_be_made_is_left_alone() {
    let (_, disk) = four_segments();
    let (file, entry) = find(&disk, "in the second");
    flip(&disk, &file, entry);
    let before = files(&disk);
    disk.set_capacity(Some(
        before.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>() + 20_000,
    ));
    let error = repair::truncate_on(&disk, DIRECTORY).unwrap_err();
    assert!(error.to_string().ends_with("; nothing is changed"), "{error}");
    let RepairError::NotBegun { backup, source } = &error else { panic!("{error}") };
    let OpenError::Io { source, .. } = &**source else { panic!("{error}") };
    assert_eq!(source.raw_os_error(), Some(ENOSPC), "{error}");
    assert_eq!(files(&disk), before);
    let left = disk.open_directory(backup, Access::Read).unwrap().list().unwrap();
    assert!(left.is_empty(), "{left:?}");
    disk.set_capacity(None);
    let told = truncated(&disk).1;
    assert_eq!(told.backup, *backup, "nothing is in it");
}

/// WAL-CASE 42: nothing tells where a log stood.
#[test]
fn a_log_of_which_no_segment_begins_whole_is_neither_cut_nor_salvaged() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["lost"]));
    let (_, disk) = session.close();
    for offset in [100, 4096 + 20] {
        let damaged = disk.reopen();
        flip(&damaged, &segments(&disk)[0], offset);
        let before = files(&damaged);
        let told = diagnose(&damaged);
        assert!(told.salvage.is_empty() && told.truncation.is_err() && !told.is_end_known);
        assert_eq!(told.unknown, segments(&disk)[..1], "{offset}");
        let error = salvage(&damaged).unwrap_err();
        assert!(matches!(error, RepairError::NothingLeft), "{error}");
        assert!(damaged.open_directory(Path::new(NEW), Access::Read).is_err(), "none is made");
        let error = repair::truncate_on(&damaged, DIRECTORY).unwrap_err();
        assert!(matches!(error, RepairError::NoCut { .. }), "{error}");
        assert_eq!(files(&damaged), before);
    }
}
