//! What a life leaves in the page cache only, and the next ones find there: `lives.rs` of the root looks for such rows of stops,
//! these are the ones that were found.

use std::time::Duration;

use kontiki_disk::memory::{EIO, Fault, Kind, Unsynced};

use kontiki_wal::inspect::Scan;

use super::*;

/// WAL-CASE 21, WAL-CASE 45: a log that was closed before its full segment was sealed; one that opens it, appends nothing, and
/// is killed, or whose sync fails, while it seals; and one that opens it cleanly behind that, and frees the next segment, perhaps
/// when the trailer has left the cache again.
#[test]
fn a_trailer_that_a_clean_opening_finds_is_made_durable_before_a_segment_behind_it_goes() {
    let mut found = 0;
    for stop in 1..12 {
        for (fails, leaves) in [(true, false), (true, true), (false, false)] {
            let disk = closed_before_it_was_sealed();
            let mut session = start_on(&disk);
            if fails {
                disk.inject(Kind::Sync, stop, Fault::Fail(EIO));
            } else {
                disk.cut_power_after(stop);
            }
            (0..12).for_each(|_| session.work_on_segment());
            let disk = session.kill().1;
            let is_sealed = files(&disk)[0].1[12 << 10..].starts_with(b"KTSEALED");
            let is_durable = files(&disk.image(NOTHING))[0].1[12 << 10..].starts_with(b"KTSEALED");
            found += usize::from(is_sealed && !is_durable);

            let mut session = start_on(&disk);
            fill_up_to(&mut session, OTHER, 4);
            if leaves {
                disk.evict();
            }
            let last = session.life.world().log(OTHER).last();
            acknowledge(&mut session, OTHER, Operation::Compact { first: last });
            session.settle();
            let (life, disk) = session.kill();
            assert!(!segments(&disk).contains(&format!("{:016x}.wal", 2)), "the second is freed");
            let place = format!("stopped at {stop}, failed sync: {fails}, leaves: {leaves}");
            let wal = open(&disk.image(NOTHING)).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(&World::of(&wal), life.world(), "{place}");
        }
    }
    assert_eq!(found, 3, "a trailer was in the cache only");
}

/// Its first segment is full and holds an entry of `L` that stays, and nobody has sealed it.
fn closed_before_it_was_sealed() -> MemoryDisk {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["kept"]));
    for index in 1.. {
        take(&mut session, OTHER, append(index, 1, &[&"filler ".repeat(100)]));
        while session.acknowledged() < session.appended() {
            session.work_on_sync();
        }
        if session.wal.statistics().segments == 2 {
            break;
        }
    }
    session.wal.close().unwrap();
    assert_eq!(session.wal.statistics().sealed_segments, 0);
    session.kill().1
}

/// WAL-CASE 21, WAL-CASE 47: the table of logs has rotted, so the segment is scanned and sealed again. It stands before a gap: all
/// that tells where its frames end stays on the disk meanwhile.
#[test]
fn a_segment_before_a_gap_keeps_its_trailer_while_it_is_sealed_again() {
    let session = before_a_gap();
    let (life, disk) = session.close();
    let first = segments(&disk).remove(0);
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    let index_bytes = scan.segments()[0].index_bytes;
    flip(&disk, &first, (12 << 10) - index_bytes + 9);
    let check = |disk: &MemoryDisk, place: &str| {
        for disk in [disk.reopen(), disk.image(NOTHING), disk.image(ALL)] {
            let wal = open(&disk).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(&World::of(&wal), life.world(), "{place}");
        }
    };
    for stop in 1..12 {
        for fails in [true, false] {
            let disk = disk.reopen();
            let mut session = start_on(&disk);
            if fails {
                disk.inject(Kind::Sync, stop, Fault::Fail(EIO));
            } else {
                disk.cut_power_after(stop);
            }
            (0..12).for_each(|_| session.work_on_segment());
            let (life, disk) = session.kill();
            check(&disk, &format!("stopped at {stop}, failed sync: {fails}"));
            for cut in life.cuts {
                check(&cut.cut.before, &format!("cut before {}", cut.cut.operation));
            }
        }
    }
}

/// WAL-CASE 47: a power cut has brought back the segment behind it, which was freed, and its trailer has rotted: that segment is
/// all that tells where it ends until it is sealed again.
#[test]
fn a_segment_that_came_back_goes_after_what_it_tells_of_is_sealed() {
    let session = before_a_gap();
    let second = format!("{:016x}.wal", 2);
    let (life, _) = session.kill();
    let mut came_back = 0;
    for cut in &life.cuts {
        if cut.cut.operation.kind != Kind::SyncDirectory
            || segments(&cut.cut.before).contains(&second)
        {
            continue;
        }
        let disk = cut.cut.before.image(NOTHING);
        if !segments(&disk).contains(&second) {
            continue;
        }
        came_back += 1;
        flip(&disk, &segments(&disk)[0], (16 << 10) - 4);
        let mut session = start_on(&disk);
        session.settle();
        let (life, disk) = session.kill();
        assert!(!segments(&disk).contains(&second), "it goes again");
        for cut in &life.cuts {
            let place = format!("cut before {}", cut.cut.operation);
            let wal = open(&cut.cut.before.image(NOTHING));
            let wal = wal.unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(&World::of(&wal), life.world(), "{place}");
        }
    }
    assert!(came_back > 0);
}

/// WAL-CASE 21, WAL-CASE 45: a segment was sealed before the first group of the next one was written, and is sealed again by the
/// next opening, of which a sync fails there; the one behind that is clean, and goes on in the segment.
#[test]
fn what_is_acknowledged_behind_a_seal_that_failed_is_not_cut_off_by_the_one_before_it() {
    let mut goes_on = 0;
    for nth in 1..8 {
        let disk = sealed_before_the_next_was_begun();
        let mut session = start_on(&disk);
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        (0..12).for_each(|_| session.work_on_segment());
        let disk = session.kill().1;
        let mut session = start_on(&disk);
        let next = session.life.world().log(L).last() + 1;
        acknowledge(&mut session, L, append(next, 1, &["small"]));
        goes_on += usize::from(segments(&session.disk).len() == 2);
        let (life, disk) = session.kill();
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "sync {nth} failed");
    }
    assert!(goes_on > 0);
}

/// A closed log went on with an entry that needs the next segment, and was killed before that was written.
fn sealed_before_the_next_was_begun() -> MemoryDisk {
    let mut session = start();
    for index in 1..9 {
        acknowledge(&mut session, L, append(index, 1, &[&"filler ".repeat(100)]));
    }
    session.work_on_segment();
    let disk = session.close().1;
    assert_eq!(segments(&disk).len(), 2, "the next one is prepared");
    let mut session = start_on(&disk);
    take(&mut session, L, append(9, 1, &[&"long ".repeat(600)]));
    assert_eq!(session.wal.statistics().segments, 2);
    // The rest of the first segment is synced; of the second nothing is written.
    (0..3).for_each(|_| session.work_on_sync());
    (0..3).for_each(|_| session.work_on_segment());
    assert_eq!(session.wal.statistics().sealed_segments, 1);
    let disk = session.kill().1.image(NOTHING);
    assert_eq!(world(&disk).log(L).last(), 8);
    disk
}

/// WAL-CASE 11, WAL-CASE 21, WAL-CASE 46b: the mark of idling at the end is byte for byte that of the opening before, and what
/// had followed it was cut by a repair of which a sync failed. If it ends with a page, the next page is not written.
#[test]
fn what_a_failed_repair_has_cut_does_not_follow_on_the_mark_of_the_next_opening() {
    let mut failures = 0;
    for nth in 1.. {
        let disk = torn_behind_a_mark_that_ends_a_page();
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        let Err(error) = open(&disk).map(drop) else { break };
        failures += 1;
        let mut session = start_on(&disk.reopen());
        idle(&mut session);
        let (life, disk) = session.kill();
        // The mark, and not the zeros of the repair that failed.
        assert!(matches!(disk.unsynced()[0], Unsynced::Sector { sector: 15, .. }));
        let mark: fn(usize) -> bool = |item| item == 0;
        for keep in [ALL, NOTHING, mark] {
            assert_eq!(&world(&disk.image(keep)), life.world(), "{error}, then a power cut");
        }
    }
    assert!(failures >= 2, "{failures} repairs failed");
}

/// Until the mark of that is written.
fn idle(session: &mut Session) {
    let before = session.disk.operations();
    session.work_on_sync();
    session.sleep(Duration::from_millis(70));
    (0..3).for_each(|_| session.work_on_sync());
    assert_eq!(session.disk.operations(), before + 1, "the mark was written");
}

/// A mark of idling was lost in a power cut, and the frame behind it was not: that begins a page.
fn torn_behind_a_mark_that_ends_a_page() -> MemoryDisk {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    let used = Scan::open_on(&session.disk, DIRECTORY).unwrap();
    let left = 4096 - usize::try_from(used.segments()[0].used_bytes).unwrap();
    // The header of its frame, its length and the mark.
    let length = left - 48 - 4 - 48;
    acknowledge(&mut session, L, append(2, 1, &[&"x".repeat(length)]));
    idle(&mut session);
    take(&mut session, L, append(3, 1, &["cut"]));
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let cut = life.cuts.last().expect("the sync was seen").cut.clone();
    assert_eq!(cut.operation.kind, Kind::Sync);
    let items = cut.before.unsynced();
    let disk = cut.before.image(|item| match &items[item] {
        Unsynced::Sector { sector, .. } => *sector >= 2 * 4096 / 512,
        _ => true,
    });
    assert_eq!(entries(&world(&disk), L).len(), 2);
    disk
}
