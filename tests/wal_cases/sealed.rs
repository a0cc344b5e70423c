//! Sealed and recycled segments: what a trailer promises, what an index only locates, and what a file's earlier life leaves.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kontiki_disk::{
    Access, Disk,
    memory::{Kind, Operation as DiskOperation},
};
use kontiki_sim::workload;
use kontiki_wal::{
    ReadError,
    inspect::{Scan, Verdict},
};

use super::*;

/// Four segments, all but the last one sealed, closed.
fn four_segments() -> (Session, MemoryDisk) {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["first", "second"]));
    fill_up_to(&mut session, L, 4);
    let sealed = session.wal.statistics().sealed_segments;
    assert_eq!(sealed, 3, "all but the active one");
    let disk = session.disk.clone();
    (session, disk)
}

/// Lives that end by a kill at any operation, or by any sync that fails, each behind the other in the page cache: what the next life
/// finds there and relies on is on the disk before it does.
#[test]
fn a_trailer_that_is_in_the_cache_only_is_made_durable_before_a_segment_behind_it_goes() {
    let live = |disk: &MemoryDisk| -> Result<(), Box<dyn std::error::Error>> {
        let wal = kontiki_sim::session::options(disk).open(DIRECTORY)?;
        let (kept, passing) = (wal.log(LogId(1))?, wal.log(LogId(2))?);
        if kept.last() == 0 {
            kept.append(1, 1, &["kept".into()])?.wait()?;
        }
        for _ in 0..60 {
            let (index, pending) = loop {
                match passing.push(vec![7; 900]) {
                    // The next segment is made first; a disk that does not do that ends the life.
                    Err(AppendError::Full { .. }) if wal.work(Duration::ZERO) => {}
                    pushed => break pushed?,
                }
            };
            pending.wait()?;
            passing.compact_before(index)?.wait()?;
            wal.work(Duration::ZERO);
        }
        Ok(())
    };
    let check = |disk: &MemoryDisk, how: &str| {
        let killed = disk.reopen();
        live(&killed).unwrap_or_else(|error| panic!("{how}: {error}"));
        let after = killed.image(|_| false);
        let wal = kontiki_sim::session::options(&after).open(DIRECTORY);
        let wal = wal.unwrap_or_else(|error| panic!("{how}, and a power cut: {error}"));
        let entry = wal.log(LogId(1)).unwrap().read(1..2, 100).next().unwrap().unwrap();
        assert_eq!(entry.bytes, "kept", "{how}");
    };
    let whole = MemoryDisk::new();
    live(&whole).unwrap();
    assert!(segments(&whole).len() < 5, "segments have gone");
    for operations in 1..whole.operations() {
        let disk = MemoryDisk::new();
        disk.cut_power_after(operations);
        drop(live(&disk));
        check(&disk, &format!("killed behind {operations} operations"));
    }
    for nth in 1.. {
        let disk = MemoryDisk::new();
        disk.inject(Kind::Sync, nth, kontiki_disk::memory::Fault::Fail(kontiki_disk::memory::EIO));
        if live(&disk).is_ok() && disk.has_faults() {
            assert!(nth > 50, "{nth} syncs");
            break;
        }
        check(&disk, &format!("sync {nth} failed"));
    }
}

/// Where the trailer page of a segment begins.
const TRAILER_AT: u64 = (16 << 10) - 4096;

/// WAL-CASE 47
#[test]
fn a_lost_trailer_or_table_of_logs_costs_a_scan_and_nothing_else() {
    let (session, _) = four_segments();
    let (life, disk) = session.close();
    let names = segments(&disk);
    for name in &names[..3] {
        let bytes = disk.contents(Path::new(DIRECTORY).join(name)).unwrap();
        let number = |at: u64| {
            let at = usize::try_from(TRAILER_AT + at).unwrap();
            u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
        };
        let table_at = TRAILER_AT - 32 * number(36) - 8 * number(40);
        for offset in [TRAILER_AT, TRAILER_AT + 40, TRAILER_AT + 4092, table_at + 9] {
            let damaged = disk.reopen();
            flip(&damaged, name, offset);
            let wal = kontiki_sim::session::options(&damaged).open_read_only(DIRECTORY).unwrap();
            assert_eq!((&World::of(&wal), wal.damage()), (life.world(), vec![]), "{name} {offset}");
            assert_eq!(&world(&damaged), life.world(), "{name} {offset}");
            // It is sealed again, and then nothing is scanned.
            let mut session = start_on(&damaged);
            session.settle();
            assert!(session.wal.statistics().sealed_segments > 0, "{name} {offset}");
            let (again, disk) = session.close();
            assert_eq!(again.world(), life.world());
            let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
            assert!(matches!(scan.verdict(), Verdict::Whole { .. }), "{:?}", scan.verdict());
        }
    }
}

/// Whether its last frame is there nobody could say: what it had replaced could come back.
#[test]
fn a_segment_before_a_gap_without_its_trailer_is_corruption() {
    let session = before_a_gap();
    let disk = session.close().1;
    assert!(segments(&disk).len() <= 3, "{:?}", segments(&disk));
    let name = segments(&disk).remove(0);
    flip(&disk, &name, TRAILER_AT + 4092);
    let found = corruption(&disk);
    assert_eq!((found.segment, found.offset), (name, TRAILER_AT));
}

/// What is named is damaged: of the first one the trailer, if the second does not tell either where it ends.
#[test]
fn of_two_segments_without_trailers_the_second_names_its_own_damage() {
    let (session, _) = four_segments();
    let disk = session.close().1;
    let names = segments(&disk);
    names[..2].iter().for_each(|name| flip(&disk, name, TRAILER_AT));
    for (offset, named) in [(4096, (&names[0], TRAILER_AT)), (4176, (&names[1], 4176))] {
        let damaged = disk.reopen();
        flip(&damaged, &names[1], offset + 24);
        let found = corruption(&damaged);
        assert_eq!((&found.segment, found.offset), named, "{offset}");
    }
}

/// WAL-CASE 6, in a sealed segment.
#[test]
fn rot_in_a_sealed_segment_is_found_by_the_read() {
    let (session, _) = four_segments();
    let disk = session.close().1;
    let (name, entry) = find(&disk, "firstsecond");
    for offset in [entry, header_of(entry) - 4 + 24] {
        let damaged = disk.reopen();
        flip(&damaged, &name, offset);
        let wal = open(&damaged.reopen()).unwrap();
        let log = wal.log(L).unwrap();
        let error = log.read(1..3, 99).next().unwrap().unwrap_err();
        let ReadError::Corruption(corruption) = error else { panic!("{error}") };
        assert_eq!((&*corruption.segment, corruption.offset), (&*name, header_of(entry) - 4));
        assert_eq!(log.read(3..9, usize::MAX).filter_map(Result::ok).count(), 6, "the others");
        drop((wal, log));
        let scan = Scan::open_on(&damaged, DIRECTORY).unwrap();
        let Verdict::Corrupt(found) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
        assert_eq!((&*found[0].segment, found[0].offset), (&*name, header_of(entry) - 4));
    }
}

/// WAL-CASE 6: in the header page, a frame, the index or the trailer page, its zeros included. What lies between the frames
/// and the index is nothing.
#[test]
fn a_flipped_bit_anywhere_in_a_sealed_segment_is_found_by_who_looks_at_everything() {
    let (session, _) = four_segments();
    let disk = session.kill().1;
    for name in &segments(&disk)[..3] {
        let path = Path::new(DIRECTORY).join(name);
        let bytes = disk.contents(&path).unwrap();
        let number = |at: u64| {
            let at = usize::try_from(TRAILER_AT + at).unwrap();
            u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
        };
        let index_at = TRAILER_AT - 32 * number(36) - 8 * number(40);
        let verdict = || Scan::open_on(&disk, DIRECTORY).unwrap().verdict().clone();
        assert!(matches!(verdict(), Verdict::Whole { .. }), "{:?}", verdict());
        for offset in (0..number(24)).chain(index_at..TRAILER_AT + 4096) {
            let bit = 1 << (offset % 8);
            disk.corrupt(&path, offset, bit);
            let found = match verdict() {
                Verdict::Corrupt(found) => found,
                other => panic!("{name} {offset}: {other:?}"),
            };
            assert_eq!(&found[0].segment, name, "{offset}");
            disk.corrupt(&path, offset, bit);
        }
    }
}

#[test]
fn rot_in_an_index_is_found_by_the_read_that_needs_it() {
    let (session, _) = four_segments();
    let disk = session.close().1;
    let name = segments(&disk).remove(0);
    // The last byte of the index: the offset of the last frame.
    flip(&disk, &name, TRAILER_AT - 4);
    let wal = open(&disk.reopen()).unwrap();
    let read = wal.log(L).unwrap().read(1..2, 9).next().unwrap();
    let Err(ReadError::Corruption(corruption)) = read else { panic!("{read:?}") };
    assert_eq!((&*corruption.segment, &*corruption.what), (&*name, "checksum of an index"));
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    assert!(matches!(scan.verdict(), Verdict::Corrupt(_)));
}

/// WAL-CASE 17
#[test]
fn a_sealed_segment_without_a_successor_is_an_error_that_names_it() {
    let (session, _) = four_segments();
    let disk = session.close().1;
    let names = segments(&disk);
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    for name in &names[3..] {
        directory.remove(name).unwrap();
    }
    drop(directory);
    let text = refused(&disk).to_string();
    assert!(text.contains(&names[3]) && text.contains(&names[2]), "{text}");
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    assert!(matches!(scan.verdict(), Verdict::Corrupt(_)));
}

/// WAL-CASE 16: a sealed segment that is whole but of another history of the same log, as from a backup.
#[test]
fn entries_that_no_segment_holds_are_corruption_that_names_their_log() {
    let (session, _) = four_segments();
    let disk = session.close().1;
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    let frames = scan.segment_frames(1).map(Result::unwrap).filter(|frame| frame.log == L);
    let lost = Some((1, frames.flat_map(|frame| frame.entries()).last().unwrap().0));
    let mut other = start();
    fill_up_to(&mut other, OTHER, 4);
    let other = other.close().1;
    let name = segments(&other).remove(0);
    let bytes = other.contents(Path::new(DIRECTORY).join(&name)).unwrap();
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    directory.open(&name).unwrap().write_at(0, &[&bytes]).unwrap();
    drop(directory);

    let found = corruption(&disk);
    let newest = segments(&disk).pop().unwrap();
    assert_eq!((&found.segment, found.offset), (&newest, TRAILER_AT));
    assert_eq!(found.what, "the entries of a log in the indexes of its segments");
    assert_eq!((found.log, found.expected, found.indexes), (Some(L), 1, lost));
    let wal = kontiki_sim::session::options(&disk).open_read_only(DIRECTORY).unwrap();
    let [found] = &wal.damage()[..] else { panic!("{:?}", wal.damage()) };
    assert_eq!((&found.segment, &*found.what), (&newest, "live entries that no segment holds"));
    assert_eq!((found.log, found.indexes, found.term), (Some(L), lost, Some(1)));
}

/// WAL-CASE 53: what a sealed index holds is no bound.
#[test]
fn a_sealed_index_never_brings_back_what_was_truncated_or_compacted() {
    let mut session = start();
    let texts: Vec<String> = (1..=10).map(|number| format!("entry {number}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    acknowledge(&mut session, L, append(1, 1, &texts));
    fill_up_to(&mut session, OTHER, 2);
    acknowledge(&mut session, L, Operation::Truncate { last: 7 });
    acknowledge(&mut session, L, Operation::Compact { first: 3 });
    fill_up_to(&mut session, OTHER, 4);
    assert_eq!(session.wal.statistics().sealed_segments, 3);
    let (life, disk) = session.kill();
    let found = world(&disk.image(NOTHING));
    assert_eq!(&found, life.world(), "an index brings back what its log has cut");
    assert_eq!((found.log(L).first, found.log(L).last()), (3, 7));
    let wal = open(&disk.image(NOTHING)).unwrap();
    assert_eq!(wal.log(L).unwrap().read(3..99, usize::MAX).count(), 5);
}

fn path_of(operation: &DiskOperation) -> PathBuf {
    Path::new(DIRECTORY).join(&operation.name)
}

/// WAL-CASE 46e: trailers are written last, and their ends before their first sectors, so that one that begins and does
/// not hold is rot. No disk of the matrix shows one over frames that are not durable; here the
/// order of the operations themselves.
#[test]
fn a_trailer_is_written_after_everything_before_it_was_synced() {
    let (mut trailers, mut again) = (0, 0);
    for seed in 1..=8 {
        let record = workload::run(seed, 150);
        for life in &record.lives {
            let operations: Vec<&DiskOperation> =
                life.cuts.iter().map(|cut| &cut.cut.operation).collect();
            for (number, operation) in operations.iter().enumerate() {
                let is_trailer =
                    operation.kind == Kind::Write && operation.range.start == TRAILER_AT;
                if !is_trailer || !operation.name.ends_with(".wal") {
                    continue;
                }
                // A repair writes zeros there.
                let after = life.cuts.get(number + 1).map(|after| &after.cut.before);
                let written = after.and_then(|disk| disk.contents(path_of(operation)));
                if written.is_some_and(|bytes| bytes[12 << 10..].starts_with(&[0; 8])) {
                    continue;
                }
                trailers += 1;
                let cut = &life.cuts[number].cut.before;
                let bytes = cut.contents(path_of(operation)).unwrap();
                // One that was found is written over itself.
                if bytes[12 << 10..].starts_with(b"KTSEALED") {
                    again += 1;
                    continue;
                }
                let before = operations[..number].iter().rev();
                let last = before.clone().find(|other| other.name == operation.name).unwrap();
                assert_eq!(last.kind, Kind::Sync, "seed {seed}: {}", operation);
                let next = successor(&operation.name);
                let lost = cut.image(NOTHING);
                assert!(segments(&lost).contains(&next), "seed {seed}: {next} has no name yet");
                if let Some(after) = life.cuts.get(number + 1) {
                    let end = |disk: &MemoryDisk| {
                        disk.contents(path_of(operation)).unwrap().split_off((12 << 10) + 512)
                    };
                    let is_durable = end(&lost) == end(&after.cut.before);
                    assert!(is_durable, "seed {seed}: {operation} before its end");
                }
            }
        }
    }
    println!("{trailers} trailers, {again} written again");
    assert!(trailers >= 20, "{trailers}");
}

fn successor(name: &str) -> String {
    let sequence = u64::from_str_radix(name.trim_end_matches(".wal"), 16).unwrap();
    format!("{:016x}.wal", sequence + 1)
}

/// WAL-CASE 54, WAL-CASE 9: a freed file is overwritten only when its new name is durable, and has a segment's name only when
/// its new header is.
#[test]
fn a_freed_file_is_renamed_for_good_before_it_is_overwritten_and_again_before_it_is_used() {
    let mut recycled = 0;
    for seed in 1..=6 {
        let record = workload::run(seed, 600);
        for cut in record.lives.iter().flat_map(|life| &life.cuts) {
            let operation = &cut.cut.operation;
            if operation.kind == Kind::Write && operation.name.ends_with(".spare") {
                recycled += 1;
                let old = operation.name.replace(".spare", ".wal");
                for keep in [ALL, NOTHING] {
                    let left = cut.cut.before.image(keep);
                    assert!(!segments(&left).contains(&old), "seed {seed}: {old} can come back");
                }
            }
            if operation.kind == Kind::Rename && operation.name.ends_with(".spare") {
                let left = cut.cut.before.image(NOTHING);
                let path = Path::new(DIRECTORY).join(&operation.name);
                let page = left.contents(path).expect("the spare is there");
                let sequence = u64::from_le_bytes(page[40..48].try_into().unwrap());
                assert_eq!(format!("{sequence:016x}.wal"), operation.to, "seed {seed}");
            }
        }
    }
    assert!(recycled >= 10, "{recycled}");
}

/// WAL-CASE 8: with real recycling.
#[test]
fn a_recycled_segment_shows_nothing_of_its_earlier_life() {
    let (mut session, mut recycled) = (start(), 0);
    for round in 0..80 {
        let next = session.life.world().log(L).last() + 1;
        acknowledge(&mut session, L, append(next, 1, &[&"filler ".repeat(round * 14 % 500)]));
        let keep = next.saturating_sub(2).max(1);
        acknowledge(&mut session, L, Operation::Compact { first: keep });
        session.settle();
        if round % 13 == 0 {
            recycled += session.wal.statistics().recycled_segments;
            let (life, disk) = session.kill();
            for keep in [ALL, NOTHING] {
                assert_eq!(&world(&disk.image(keep)), life.world(), "round {round}");
            }
            session = start_on(&disk);
        }
    }
    assert!(recycled >= 3, "{recycled}");
}

/// A log that holds back old segments is named with what it costs, and the bound on all of them is kept.
#[test]
fn a_log_that_lags_is_named_and_the_bound_of_the_directory_holds() {
    let disk = MemoryDisk::new();
    let wal =
        kontiki_sim::session::options(&disk).log_bytes_max(6 * (16 << 10)).open(DIRECTORY).unwrap();
    let (slow, fast) = (wal.log(L).unwrap(), wal.log(OTHER).unwrap());
    slow.push("lags").unwrap().1.wait().unwrap();
    let error = loop {
        match fast.push("x".repeat(1000)) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => {}
            Err(error) => break error,
        }
        wal.work(Duration::ZERO);
    };
    let AppendError::LogFull { bytes, limit } = error else { panic!("{error}") };
    assert!(bytes <= limit && limit == 6 << 14, "{bytes} of {limit}");
    assert!(segments(&disk).len() <= 6, "{:?}", segments(&disk));
    let laggards = wal.laggards();
    assert_eq!(laggards.iter().map(|laggard| laggard.log).collect::<Vec<_>>(), [L, OTHER]);
    assert_eq!(laggards[0].bytes, 16 << 10);
    assert_eq!(laggards[0].oldest_segment, 1);

    // State is still taken, as often as one likes, and compaction makes room again.
    for _ in 0..100 {
        match slow.set_state("state ".repeat(100)) {
            Ok(pending) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
    }
    fast.compact_before(fast.last()).unwrap().wait().unwrap();
    wal.work(Duration::ZERO);
    fast.push("room").unwrap().1.wait().unwrap();
}
