//! WAL-CASE 42: what was lost behind the last segment that begins whole is never passed over in silence.

use std::sync::Arc;

use kontiki_disk::{
    Disk, MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_sim::{
    matrix::Choice,
    model::World,
    session::{PowerCut, options},
};
use kontiki_wal::{
    OpenError,
    inspect::{Scan, Verdict},
    repair::{self, Mark},
};

use super::{
    damage::{overwrite, remove},
    repair::{diagnose, four_segments, of_log, truncated},
    *,
};

/// Five segments with a state in the third and a newer one in the fourth, of which the third is not sealed yet.
fn five_segments() -> (World, MemoryDisk) {
    let mut session = start();
    acknowledge(&mut session, L, state("an older vote"));
    fill_up_to(&mut session, L, 4);
    acknowledge(&mut session, L, state("a newer vote"));
    fill_up_to(&mut session, L, 5);
    let (life, disk) = session.close();
    overwrite(&disk, &segments(&disk)[2], (16 << 10) - 4096, &[0; 4096]);
    assert!(world(&disk) == *life.world(), "it is scanned instead");
    (life.world().clone(), disk)
}

fn salvaged(disk: &MemoryDisk) -> Option<Mark> {
    let disk = disk.reopen();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    repair::salvage_on(&shared, DIRECTORY, "new").unwrap();
    Mark::of_on(&disk, "new").unwrap()
}

#[test]
fn a_gap_behind_the_last_segment_that_begins_whole_is_a_loss() {
    let (_, disk) = five_segments();
    let names = segments(&disk);
    remove(&disk, &names[3]);
    for prepared_only in [false, true] {
        let disk = disk.reopen();
        if prepared_only {
            overwrite(&disk, &names[4], 4096, &[0; 8192]);
        } else {
            flip(&disk, &names[4], 4096 + 24);
        }
        assert!(open(&disk.reopen()).is_err());
        let told = diagnose(&disk);
        assert!(!told.is_end_known, "{told:?}");
        let mark = salvaged(&disk).expect("what was in the fourth is lost");
        assert!(mark.losses.iter().any(|line| line.contains("its state can be")), "{mark:?}");
    }
}

#[test]
fn a_rotten_trailer_tells_of_the_segment_that_followed_too() {
    let (_, disk) = four_segments();
    let names = segments(&disk);
    remove(&disk, &names[3]);
    for at in [0, 8, 16, 24, 100, 4095] {
        let disk = disk.reopen();
        flip(&disk, &names[2], (16 << 10) - 4096 + at);
        let refused = open(&disk.reopen()).map(drop).unwrap_err();
        let OpenError::MissingSegment { missing, needed_by } = refused else { panic!("{refused}") };
        assert_eq!(missing, names[3]);
        assert!(needed_by.contains(&names[2]), "{needed_by}");
        assert!(!diagnose(&disk).is_end_known);
        let (cut, _) = truncated(&disk);
        assert!(Mark::of_on(&cut, DIRECTORY).unwrap().is_some(), "at {at}");
        assert!(salvaged(&disk).is_some(), "at {at}");
    }
}

#[test]
fn a_look_that_goes_on_behind_damage_is_told_so_by_a_rotten_trailer_as_well() {
    let (_, disk) = four_segments();
    let names = segments(&disk);
    remove(&disk, &names[3]);
    flip(&disk, &names[0], 100);
    for is_rotten in [false, true] {
        if is_rotten {
            flip(&disk, &names[2], (16 << 10) - 4096 + 24);
        }
        let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
        let Verdict::Corrupt(damage) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
        let told: Vec<&str> = damage.iter().map(|damage| &*damage.segment).collect();
        let expected = [Some(&*names[0]), is_rotten.then_some(&*names[2]), Some(&*names[3])];
        assert_eq!(told, expected.into_iter().flatten().collect::<Vec<_>>());
    }
}

/// A segment whose trailer has rotted at this place, and nothing in the next one: as if nothing of that had reached the disk when
/// the power went.
fn rotten_trailer_before_nothing(at: u64) -> MemoryDisk {
    let (_, disk) = four_segments();
    let names = segments(&disk);
    overwrite(&disk, &names[3], 4096, &[0; 8192]);
    flip(&disk, &names[2], (16 << 10) - 4096 + at);
    disk
}

/// The log goes on in that segment, for the next one holds nothing, and that one goes: nothing may tell of it any more.
#[test]
fn a_log_that_was_opened_in_front_of_a_rotten_trailer_opens_again() {
    for at in [0, 24, 600, 4095] {
        let disk = rotten_trailer_before_nothing(at);
        disk.start_cuts();
        let wal = open(&disk).unwrap();
        let shown = World::of(&wal);
        let mut cuts: Vec<MemoryDisk> =
            disk.take_cuts().into_iter().map(|cut| cut.before).collect();
        cuts.push(disk);
        for (number, cut) in cuts.iter().enumerate() {
            for choice in Choice::all(cut.unsynced().len()) {
                let place = format!("at {at}, cut {number}, {choice}");
                let again =
                    open(&choice.image(cut)).unwrap_or_else(|error| panic!("{place}: {error}"));
                assert_eq!(World::of(&again), shown, "{place}");
            }
        }
    }
}

/// The same where a sync of that opening fails, the next one finds its zeros in the cache, and then the power goes.
#[test]
fn a_rotten_trailer_that_is_gone_from_the_cache_only_goes_before_what_it_tells_of() {
    let mut failures = 0;
    for nth in 1.. {
        let disk = rotten_trailer_before_nothing(24);
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        let Err(failed) = open(&disk).map(drop) else { break };
        failures += 1;
        let disk = disk.reopen();
        let shown = World::of(&open(&disk).unwrap());
        let again = open(&disk.image(NOTHING)).unwrap_or_else(|error| panic!("{failed}: {error}"));
        assert_eq!(World::of(&again), shown, "{failed}");
    }
    assert!(failures >= 2, "{failures}");
}

/// A log that was closed and opened again, of which the newest segment was sealed right behind the mark of that close, for the
/// first entry had no room in it; nothing of the next one has reached the disk. Then a zero of its trailer page rots.
fn rotten_trailer_behind_a_close() -> MemoryDisk {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &[&"fills ".repeat(600)]));
    acknowledge(&mut session, L, append(2, 1, &[&"fills ".repeat(500)]));
    let mut session = start_on(&session.close().1);
    take(&mut session, L, append(3, 1, &[&"has no room ".repeat(125)]));
    // The first group is what was left in the one before; then that is sealed, and nothing else.
    (0..3).for_each(|_| session.work_on_sync());
    let is_sealed = |session: &Session| session.wal.statistics().sealed_segments == 1;
    let sealed = (0..20).any(|_| {
        is_sealed(&session) || {
            session.work_on_segment();
            false
        }
    });
    assert!(sealed);
    let disk = session.kill().1.image(NOTHING);
    let bytes_of = |name: &str| disk.contents(Path::new(DIRECTORY).join(name)).unwrap();
    let (name, next) = ("0000000000000001.wal", bytes_of("0000000000000002.wal"));
    assert!(bytes_of(name)[12 << 10..].starts_with(b"KTSEALED"), "it is sealed");
    assert!(next[4096..].iter().all(|&byte| byte == 0), "and nothing is behind it");
    flip(&disk, name, (12 << 10) + 600);
    disk
}

/// WAL-CASE 46e, WAL-CASE 21: a sync of the first opening fails, so that the trailer is gone from the cache only, and the log goes on
/// in front of it. Zeros over the rot make the trailer whole again, and it would end the segment where it ended then: its
/// beginning goes first.
#[test]
fn a_trailer_that_zeros_make_whole_takes_nothing_that_was_appended_in_front_of_it() {
    let mut failures = 0;
    for nth in 1.. {
        let disk = rotten_trailer_behind_a_close();
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        let Err(failed) = open(&disk).map(drop) else { break };
        failures += 1;
        let mut session = start_on(&disk.reopen());
        acknowledge(&mut session, L, append(3, 2, &["has room"]));
        let (life, killed) = session.kill();
        for keep in [ALL, NOTHING] {
            let (_, opening) = Session::open(&killed.image(keep)).unwrap();
            for cut in opening {
                for choice in Choice::all(cut.before.unsynced().len()) {
                    let found = world(&choice.image(&cut.before));
                    let place = format!("{failed}, cut before {}, {choice}", cut.operation);
                    assert_eq!(&found, life.world(), "{place}");
                }
            }
        }
    }
    assert!(failures >= 2, "{failures}");
}

/// WAL-CASE 46e: the same as the segment is sealed anew; also behind an opening of which a sync failed.
#[test]
fn a_trailer_that_has_rotted_does_not_come_back_as_its_segment_is_sealed_anew() {
    let disk = rotten_trailer_behind_a_close();
    seal_anew(&disk.reopen());
    for nth in 1.. {
        let disk = disk.reopen();
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        if open(&disk).is_ok() {
            assert!(nth > 2, "an opening in front of a rotten trailer repairs");
            break;
        }
        seal_anew(&disk.reopen());
    }
}

/// The log goes on in its last segment but one; every power cut until that is sealed.
fn seal_anew(disk: &MemoryDisk) {
    let mut session = start_on(disk);
    acknowledge(&mut session, L, append(3, 2, &["has room"]));
    fill_up_to(&mut session, L, 3);
    session.settle();
    let (life, _) = session.kill();
    for PowerCut { cut, acknowledged, appended } in &life.cuts {
        for choice in Choice::all(cut.before.unsynced().len()) {
            let place = format!("cut before {}, {choice}", cut.operation);
            let found = open(&choice.image(&cut.before)).unwrap_or_else(|e| panic!("{place}: {e}"));
            let digest = World::of(&found).digest();
            assert!(life.find(digest, *acknowledged, *appended).is_some(), "{place}");
        }
    }
}

/// The same where the next opening wants segments of another size, and removes the one that was prepared; also behind an opening
/// that was killed anywhere, or of which a sync failed.
#[test]
fn a_rotten_trailer_does_not_tell_of_a_segment_that_had_another_size() {
    let disk = rotten_trailer_behind_a_close();
    let (_, opening) = Session::open(&disk.reopen()).unwrap();
    let killed = opening.into_iter().map(|cut| cut.before.reopen());
    let failed = (1..).map_while(|nth| {
        let disk = disk.reopen();
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        open(&disk).is_err().then(|| disk.reopen())
    });
    for disk in killed.chain(failed).chain([disk.reopen()]) {
        let wal = options(&disk).segment_bytes(32 << 10).open(DIRECTORY).unwrap();
        let shown = World::of(&wal);
        wal.close().unwrap();
        drop(wal);
        assert_eq!(world(&disk.image(NOTHING)), shown);
    }
}

/// WAL-CASE 27: what is damaged is the frame, whatever was prepared behind its segment.
#[test]
fn a_flipped_header_at_the_end_of_a_sealed_segment_is_named_though_the_next_one_is_empty() {
    let (_, disk) = four_segments();
    let names = segments(&disk);
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    let frames: Vec<_> = scan.frames().map(Result::unwrap).collect();
    let last = frames.iter().rfind(|frame| frame.file == names[2]).unwrap();
    overwrite(&disk, &names[3], 4096, &[0; 8192]);
    flip(&disk, &names[2], last.offset + 24);
    let OpenError::Corruption(told) = refused(&disk) else { panic!("damage is told") };
    assert_eq!((&told.segment, told.offset), (&names[2], last.offset), "{told:?}");
    assert!(told.indexes.is_some(), "{told:?}");
}

#[test]
fn a_log_that_is_empty_and_falls_back_to_another_index_is_harmed() {
    let mut session = start();
    acknowledge(&mut session, OTHER, append(1, 1, &["victim"]));
    acknowledge(&mut session, L, Operation::Reset { next_index: 100, term_before: 5 });
    fill_up_to(&mut session, OTHER, 3);
    let (life, disk) = session.close();
    let (file, entry) = find(&disk, "victim");
    flip(&disk, &file, entry);
    let (cut, told) = truncated(&disk);
    assert!(world(&cut).log(L) != life.world().log(L));
    let outcome = of_log(&told.logs, L);
    assert!(outcome.is_moved && !outcome.is_unharmed(), "{outcome:?}");
    let mark = Mark::of_on(&cut, DIRECTORY).unwrap().unwrap();
    let line = format!("log {}: it goes on at another index or term", L.0);
    assert!(mark.losses.contains(&line), "{mark:?}");
    // Those that stay where they are are not.
    let (_, whole) = four_segments();
    assert!(diagnose(&whole).salvage.iter().all(|outcome| !outcome.is_moved));
}
