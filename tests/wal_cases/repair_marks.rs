//! What a repair leaves in the directory for whoever opens the log next, and in which order it works.

use std::{path::Path, sync::Arc, thread, time::Duration};

use kontiki_disk::memory::{Cut, EIO, Fault, Kind};
use kontiki_sim::{matrix::Choice, session::options};
use kontiki_wal::repair::{self, Diagnosis, Mark, RepairError, Stage};

use super::{
    damage::{overwrite, remove},
    repair::{four_segments, truncated},
    repair_cuts::{cuts_of_a_cut, damaged_logs, segment_files},
    *,
};

const NEW: &str = "salvaged";

fn mark_in(disk: &MemoryDisk, directory: &str) -> Option<Mark> {
    Mark::of_on(disk, directory).unwrap()
}

fn salvage(disk: &MemoryDisk, from: &str, into: &str) -> Result<(), RepairError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair::salvage_on(&disk, from, into).map(drop)
}

/// A log of some segments, closed, one of which lost an entry.
fn lossy() -> MemoryDisk {
    let (_, disk) = four_segments();
    let (file, entry) = find(&disk, "in the second");
    flip(&disk, &file, entry);
    disk
}

/// A log whose only damage is in the trailer of a sealed segment.
fn harmless() -> MemoryDisk {
    let (_, disk) = four_segments();
    flip(&disk, &segments(&disk)[1], (16 << 10) - 4);
    disk
}

/// WAL-CASE 42: whoever relies on what a log acknowledged can ask whether it has lost some of that.
#[test]
fn a_repair_that_took_something_leaves_a_mark_that_says_what() {
    let disk = lossy();
    let told = Diagnosis::of_on(&disk, DIRECTORY).unwrap();
    assert!(told.is_cut_marked && told.is_salvage_marked);
    let (cut, _) = truncated(&disk);
    let mark = mark_in(&cut.image(NOTHING), DIRECTORY).expect("a mark");
    assert_eq!(mark.stage, Stage::Done);
    assert!(mark.losses[0].starts_with("cut in place at segment 0000000000000002.wal"), "{mark:?}");
    let of_log = &mark.losses[1];
    assert!(of_log.starts_with("log 7: index ") && of_log.contains(" term 2 lost;"), "{of_log}");
    assert!(of_log.ends_with("its state is an older one"), "{of_log}");
    drop(open(&cut).unwrap());
    assert_eq!(mark_in(&cut, DIRECTORY), Some(mark), "it stays, and keeps nobody from opening");

    salvage(&disk, DIRECTORY, NEW).unwrap();
    let mark = mark_in(&disk.image(NOTHING), NEW).expect("a mark");
    assert_eq!(mark.stage, Stage::Done);
    assert_eq!(mark.losses[0], "salvaged from log");
    assert!(mark.losses[1].contains(" term 2 lost;"), "{mark:?}");
    assert_eq!(mark_in(&disk, DIRECTORY), None, "the damaged log is left alone");
    drop(options(&disk).open(NEW).unwrap());
}

/// WAL-CASE 42
#[test]
fn a_repair_that_took_nothing_leaves_no_mark() {
    let disk = harmless();
    let told = Diagnosis::of_on(&disk, DIRECTORY).unwrap();
    assert!(!told.is_cut_marked && !told.is_salvage_marked);
    let (mended, _) = truncated(&disk);
    assert_eq!(mark_in(&mended.image(NOTHING), DIRECTORY), None);
    salvage(&disk, DIRECTORY, NEW).unwrap();
    assert_eq!(mark_in(&disk.image(NOTHING), NEW), None);
    let names = |directory| disk.open_directory(Path::new(directory), Access::Read).unwrap().list();
    assert!(names(NEW).unwrap().iter().all(|(name, _)| name.ends_with(".wal")));
}

/// WAL-CASE 42: nobody can tell what was in it.
#[test]
fn a_segment_of_which_nothing_can_be_told_is_a_loss() {
    let (_, disk) = four_segments();
    let name = segments(&disk)[3].clone();
    flip(&disk, &name, 100);
    salvage(&disk, DIRECTORY, NEW).unwrap();
    let losses = mark_in(&disk, NEW).expect("a mark").losses;
    assert!(losses.contains(&format!("what else was in {name}")), "{losses:?}");
    assert!(losses.iter().any(|line| line.contains("the log went on")), "{losses:?}");
}

/// WAL-CASE 42: a log that has lost something is not made good by a repair that takes nothing more.
#[test]
fn what_was_lost_once_stays_marked() {
    let (cut, _) = truncated(&lossy());
    let before = mark_in(&cut, DIRECTORY).unwrap();
    salvage(&cut, DIRECTORY, NEW).unwrap();
    assert_eq!(mark_in(&cut, NEW).unwrap(), before, "a log without damage");
    salvage(&cut, NEW, "again").unwrap();
    assert_eq!(mark_in(&cut, "again").unwrap(), before);

    let first = segments(&cut)[0].clone();
    flip(&cut, &first, (16 << 10) - 4);
    let told = Diagnosis::of_on(&cut, DIRECTORY).unwrap();
    assert!(told.is_cut_marked && told.is_salvage_marked);
    let (mended, _) = truncated(&cut);
    assert_eq!(mark_in(&mended, DIRECTORY).unwrap(), before);
}

/// WAL-CASE 42: wherever the power is cut, a log that has lost a byte by a repair has its mark, and one that was cut half way
/// is not opened. Made again, the cut ends with the mark that it would have had.
#[test]
fn a_mark_is_durable_before_the_first_byte_goes() {
    let mut half_cut = 0;
    for (what, damaged) in damaged_logs() {
        let (cut, _) = truncated(&damaged);
        let (in_the_end, expected) = (segment_files(&cut), mark_in(&cut, DIRECTORY));
        let before = segment_files(&damaged);
        for Cut { operation, before: disk } in cuts_of_a_cut(&damaged) {
            for choice in Choice::all(disk.unsynced().len()) {
                let image = choice.image(&disk);
                let place = format!("{what}, before {operation}, {choice}");
                let (now, mark) = (segment_files(&image), mark_in(&image, DIRECTORY));
                let stage = mark.as_ref().map(|mark| mark.stage);
                if now != before && (now != in_the_end || mark != expected) {
                    assert_eq!(stage, Some(Stage::Cutting), "{place}");
                    half_cut += 1;
                }
                if stage == Some(Stage::Cutting) {
                    let refused = super::refused(&image);
                    assert!(matches!(refused, OpenError::RepairUnfinished { .. }), "{refused}");
                    assert!(refused.to_string().contains("do it again"), "{refused}");
                }
                repair::truncate_on(&image, DIRECTORY).unwrap_or_else(|e| panic!("{place}: {e}"));
                let mark = mark_in(&image, DIRECTORY);
                assert_eq!(mark.is_some(), expected.is_some(), "{place}");
                let Some(mark) = mark else { continue };
                assert_eq!(mark.stage, Stage::Done, "{place}");
                let losses = &expected.as_ref().expect("as this one").losses;
                assert!(losses.iter().all(|line| mark.losses.contains(line)), "{place}: {mark:?}");
            }
        }
    }
    println!("{half_cut} disks were half cut");
    assert!(half_cut > 500, "{half_cut}");
}

/// WAL-CASE 42: nothing is removed on the strength of zeros that are in the cache only, and the newest segment goes first.
#[test]
fn a_later_segment_is_removed_only_after_all_that_was_done_before_is_durable() {
    let mut removals = 0;
    for (what, damaged) in damaged_logs() {
        let (cut, told) = truncated(&damaged);
        let in_the_end = segment_files(&cut);
        let mut removed = told.removed.clone();
        for Cut { operation, before: disk } in cuts_of_a_cut(&damaged) {
            if operation.kind != Kind::Remove || !operation.name.ends_with(".wal") {
                continue;
            }
            let place = format!("{what}, before {operation}");
            let durable = segment_files(&disk.image(NOTHING));
            for name in &told.changed {
                assert!(durable[name] == in_the_end[name], "{place}: {name} is not cut for good");
            }
            assert_eq!(Some(&operation.name), removed.last(), "{place}");
            assert!(durable.keys().eq(segment_files(&disk).keys()), "{place}: of one before");
            removed.pop();
            removals += 1;
        }
        assert!(removed.is_empty(), "{what}: {removed:?}");
    }
    assert!(removals > 5, "{removals}");
}

/// WAL-CASE 42: what is there of a salvage that was stopped looks like a log with less in it.
#[test]
fn a_salvage_that_was_not_ended_is_neither_opened_nor_repaired() {
    for damaged in [lossy(), harmless()] {
        damaged.start_cuts();
        salvage(&damaged, DIRECTORY, NEW).unwrap();
        let mut with_segments = 0;
        for Cut { operation, before: disk } in damaged.take_cuts() {
            for choice in Choice::all(disk.unsynced().len()) {
                let (image, place) = (choice.image(&disk), format!("before {operation}, {choice}"));
                let Ok(there) = image.open_directory(Path::new(NEW), Access::Read) else {
                    continue;
                };
                let names = there.list().unwrap();
                let stage = mark_in(&image, NEW).map(|mark| mark.stage);
                let is_ended = operation.directory == Path::new(NEW)
                    && (operation.kind == Kind::SyncDirectory && stage != Some(Stage::Salvaging));
                if !names.iter().any(|(name, _)| name.ends_with(".wal")) || is_ended {
                    continue;
                }
                with_segments += 1;
                let opened = options(&image).open(NEW).map(drop);
                let unfinished = |error: &OpenError| match error {
                    OpenError::RepairUnfinished { stage, .. } => *stage == Stage::Salvaging,
                    _ => false,
                };
                assert!(opened.as_ref().is_err_and(unfinished), "{place}: {opened:?}");
                let told = Diagnosis::of_on(&image, NEW).map(drop);
                assert!(told.as_ref().is_err_and(unfinished), "{place}: {told:?}");
                for done in [
                    repair::truncate_on(&image, NEW).map(drop),
                    salvage(&image, NEW, "from what is half"),
                ] {
                    let Err(RepairError::Open(error)) = done else { panic!("{place}: {done:?}") };
                    assert!(unfinished(&error), "{place}: {error}");
                }
            }
        }
        assert!(with_segments > 20, "{with_segments}");
    }
}

/// WAL-CASE 42: rot, or whatever else is in the file.
#[test]
fn a_mark_that_cannot_be_read_keeps_the_log_from_being_opened_until_it_was_repaired() {
    let (cut, _) = truncated(&lossy());
    overwrite(&cut, Mark::FILE, 0, b"?");
    let refused = super::refused(&cut);
    assert!(matches!(refused, OpenError::RepairUnfinished { .. }), "{refused}");
    assert!(repair::truncate_on(&cut, DIRECTORY).unwrap().is_none());
    let mark = mark_in(&cut, DIRECTORY).unwrap();
    assert_eq!(mark.stage, Stage::Done);
    assert!(mark.losses.iter().any(|line| line.contains("cannot be read")), "{mark:?}");
    drop(open(&cut).unwrap());
    // Removed by hand.
    remove(&cut, Mark::FILE);
    assert_eq!(mark_in(&cut, DIRECTORY), None);
    assert_eq!(mark_in(&cut, "nowhere"), None);
}

/// Kinds of operations that can fail.
const KINDS: [Kind; 6] =
    [Kind::Write, Kind::Sync, Kind::Create, Kind::Rename, Kind::Remove, Kind::SyncDirectory];

fn is_empty(disk: &MemoryDisk, directory: &Path) -> bool {
    let there = disk.open_directory(directory, Access::Read);
    there.map_or(true, |there| there.list().unwrap().is_empty())
}

/// WAL-CASE 42: a backup or a mark that cannot be made leaves all as it was.
#[test]
fn a_cut_that_could_not_be_begun_leaves_nothing() {
    let mut tried = 0;
    for damaged in [lossy(), harmless()] {
        for (kind, nth) in KINDS.into_iter().flat_map(|kind| (1..9).map(move |nth| (kind, nth))) {
            let disk = damaged.reopen();
            disk.inject(kind, nth, Fault::Fail(EIO));
            let done = repair::truncate_on(&disk, DIRECTORY);
            let Err(RepairError::NotBegun { backup, source }) = &done else { continue };
            let place = format!("{kind:?} {nth}: {source}");
            assert!(done.as_ref().unwrap_err().to_string().ends_with("; nothing is changed"));
            assert_eq!(files(&disk), files(&damaged), "{place}");
            assert!(is_empty(&disk, backup), "{place}");
            tried += 1;
        }
    }
    assert!(tried > 20, "{tried}");
}

/// WAL-CASE 42: whoever is told of an error is told whether the log can be opened, and what to do.
#[test]
fn a_cut_that_failed_says_whether_it_has_to_be_made_again() {
    let mut unfinished = 0;
    for damaged in [lossy(), harmless()] {
        for (kind, nth) in KINDS.into_iter().flat_map(|kind| (1..12).map(move |nth| (kind, nth))) {
            let disk = damaged.reopen();
            disk.inject(kind, nth, Fault::Fail(EIO));
            let Err(error) = repair::truncate_on(&disk, DIRECTORY) else { continue };
            let is_said = error.to_string().ends_with("not opened before it is: do it again");
            let opened = open(&disk.reopen()).map(drop);
            let is_refused = matches!(opened, Err(OpenError::RepairUnfinished { .. }));
            assert_eq!(is_said, is_refused, "{kind:?} {nth}: {error}, {opened:?}");
            unfinished += usize::from(is_said);
        }
    }
    assert!(unfinished > 10, "{unfinished}");
}

/// WAL-CASE 42: what cannot be removed is not opened.
#[test]
fn a_salvage_that_fails_leaves_nothing_that_could_be_taken_for_a_log() {
    let damaged = lossy();
    let mut failed = 0;
    for (kind, nth) in KINDS.into_iter().flat_map(|kind| (1..40).map(move |nth| (kind, nth))) {
        let disk = damaged.reopen();
        disk.inject(kind, nth, Fault::Fail(EIO));
        let Err(error) = salvage(&disk, DIRECTORY, NEW) else { continue };
        let place = format!("{kind:?} {nth}: {error}");
        assert_eq!(files(&disk), files(&damaged), "{place}");
        assert!(is_empty(&disk, Path::new(NEW)), "{place}");
        assert_eq!(mark_in(&disk, NEW), None, "{place}");
        failed += 1;
    }
    assert!(failed > 20, "{failed}");

    // A segment cannot be removed.
    let disk = damaged.reopen();
    disk.inject(Kind::Sync, 4, Fault::Fail(EIO));
    disk.inject(Kind::Remove, 1, Fault::Fail(EIO));
    salvage(&disk, DIRECTORY, NEW).unwrap_err();
    assert_eq!(mark_in(&disk, NEW).map(|mark| mark.stage), Some(Stage::Salvaging));
    let opened = options(&disk.reopen()).open(NEW).map(drop);
    assert!(matches!(opened, Err(OpenError::RepairUnfinished { .. })), "{opened:?}");
}

/// WAL-CASE 42: what is told was read before the new log is written; a writer that comes and goes in between is not seen by its
/// lock.
#[test]
fn a_log_that_is_changed_while_it_is_salvaged_is_not() {
    let disk = lossy();
    let gate = disk.hold(Kind::Create, 1);
    let salvaging = {
        let disk = disk.clone();
        thread::spawn(move || salvage(&disk, DIRECTORY, NEW))
    };
    gate.wait_reached();
    let wal = open(&disk).unwrap();
    let log = wal.log(L).unwrap();
    while wal.statistics().recycled_segments < 3 {
        while wal.work(Duration::ZERO) {}
        log.push("y".repeat(900)).unwrap().1.wait().unwrap();
        // One segment after the other: of several that are freed at once the newest are used again.
        log.compact_before(log.first() + 2).unwrap().wait().unwrap();
    }
    wal.close().unwrap();
    drop((wal, log));
    gate.release();
    let error = salvaging.join().unwrap().unwrap_err();
    assert!(matches!(error, RepairError::Changed { .. }), "{error}");
    let left = disk.open_directory(Path::new(NEW), Access::Read).unwrap().list().unwrap();
    assert_eq!(left, []);
}

/// The header of a frame is damaged in many bits, so that nothing tells what it was: what it can have been is told.
#[test]
fn entries_of_which_nothing_is_known_are_named_in_the_mark() {
    let mut session = start();
    for (index, text) in [(1, "stays"), (2, "nobody knows"), (3, "behind it")] {
        acknowledge(&mut session, L, append(index, 1, &[text]));
    }
    let (_, disk) = session.close();
    let (file, entry) = find(&disk, "nobody knows");
    overwrite(&disk, &file, header_of(entry), &[0xff; 48]);
    let (cut, _) = truncated(&disk);
    let mark = Mark::of_on(&cut, DIRECTORY).unwrap().unwrap();
    let named = "index 3..=3 term 1 left out; of index 2..=2 nothing is known;";
    assert!(mark.losses.iter().any(|line| line.contains(named)), "{:?}", mark.losses);
}
