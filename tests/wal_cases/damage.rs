//! Bytes that are not what was written: what was attested is reported, the rest is cut.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    slice,
    time::Duration,
};

use kontiki_disk::{Access, Disk};
use kontiki_sim::{random::Random, session::options};
use kontiki_wal::{
    Entry, ReadError, Wal,
    inspect::{Scan, Verdict},
};

use super::*;

/// Three entries, each in a group of its own, and then the process is killed.
fn three_groups() -> MemoryDisk {
    let mut session = start();
    for (index, text) in [(1, "first"), (2, "second"), (3, "third")] {
        acknowledge(&mut session, L, append(index, 5, &[text]));
    }
    session.kill().1
}

/// WAL-CASE 5: whichever bit it is, what is lost is told.
#[test]
fn a_flipped_bit_in_an_attested_header_names_what_is_lost() {
    let disk = three_groups();
    let (file, entry) = find(&disk, "first");
    let lsn = Scan::open_on(&disk, DIRECTORY).unwrap().frames().nth(2).unwrap().unwrap().lsn;
    // Nobody needs them, and they are left alone, too.
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    for name in ["0000000000000002.new", "0000000000000003.spare"] {
        directory.create(name, 4096).unwrap();
    }
    drop(directory);
    for bit in 0..48 * 8 {
        let damaged = disk.reopen();
        let offset = header_of(entry) + bit / 8;
        damaged.corrupt(Path::new(DIRECTORY).join(&file), offset, 1 << (bit % 8));
        let bytes = files(&damaged);
        let found = corruption(&damaged);
        assert_eq!((&found.segment, found.offset), (&file, header_of(entry)), "bit {bit}");
        // The first segment's LSNs count from the end of its header page.
        assert_eq!(found.offset - 4096, lsn.0);
        assert_eq!((found.log, found.indexes, found.term), (Some(L), Some((1, 1)), Some(5)));
        let scan = Scan::open_on(&damaged, DIRECTORY).unwrap();
        assert_eq!(scan.verdict(), &Verdict::Corrupt(vec![found.clone()]), "bit {bit}");
        let wal = options(&damaged).open_read_only(DIRECTORY).unwrap();
        assert_eq!(wal.damage(), slice::from_ref(&found), "bit {bit}");
        assert_eq!(wal.log(L).unwrap().last(), 0, "nothing is shown behind a damaged header");
        assert_eq!(files(&damaged), bytes, "nothing was changed");
    }
}

/// Reads one entry of `L`.
fn read(wal: &Wal, index: u64) -> Result<Entry, ReadError> {
    wal.log(L).unwrap().read(index..index + 1, usize::MAX).next().expect("it is in the log")
}

/// WAL-CASE 5: where too much of a header is lost to tell what it was, its place is told, and by a read what it asked for.
#[test]
fn a_lost_header_is_corruption_at_its_place() {
    let disk = three_groups();
    let (file, entry) = find(&disk, "first");
    let wal = open(&disk).unwrap();
    for byte in [16, 20, 24] {
        flip(&disk, &file, header_of(entry) + byte);
    }
    let Err(ReadError::Corruption(found)) = read(&wal, 1) else { panic!("it is damaged") };
    assert_eq!((found.log, found.indexes, found.term), (Some(L), Some((1, 1)), Some(5)));
    drop(wal);
    let found = corruption(&disk);
    assert_eq!((&found.segment, found.offset), (&file, header_of(entry)));
    assert_eq!((found.log, found.indexes, found.term), (None, None, None));
}

/// WAL-CASE 6
#[test]
fn a_flipped_bit_in_an_attested_payload_names_what_is_lost() {
    let disk = three_groups();
    let (file, entry) = find(&disk, "first");
    flip(&disk, &file, entry + 2);
    let corruption = corruption(&disk);
    assert_eq!((corruption.segment, corruption.offset), (file, header_of(entry)));
    assert_eq!(corruption.log, Some(L));
    assert_eq!(corruption.indexes, Some((1, 1)));
    assert_eq!(corruption.term, Some(5));
}

/// WAL-CASE 55
#[test]
fn rot_in_the_last_but_one_group_is_corruption() {
    let disk = three_groups();
    let (file, entry) = find(&disk, "second");
    flip(&disk, &file, entry);
    assert_eq!(corruption(&disk).indexes, Some((2, 2)));
}

/// WAL-CASE 55, with groups that form while the one before is being synced: their frames carry an
/// older watermark than the moment of their own sync.
#[test]
fn rot_in_the_last_but_one_of_overlapping_groups_is_corruption() {
    let mut session = start();
    take(&mut session, L, append(1, 5, &["first"]));
    session.work_on_sync();
    take(&mut session, L, append(2, 5, &["second"]));
    session.work_on_sync();
    session.work_on_sync();
    session.work_on_sync();
    take(&mut session, L, append(3, 5, &["third"]));
    session.settle();
    let (_, disk) = session.kill();
    let (file, entry) = find(&disk, "second");
    flip(&disk, &file, entry);
    assert_eq!(corruption(&disk).indexes, Some((2, 2)));
}

/// WAL-CASE 55: by any frame of it, if that is the only one left.
#[test]
fn rot_in_the_last_but_one_group_is_corruption_though_the_next_frame_is_lost_too() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 5, &["first"]));
    take(&mut session, L, append(2, 5, &["second"]));
    acknowledge(&mut session, L, append(3, 5, &["third"]));
    let (_, disk) = session.kill();
    for (text, bytes) in [("first", &[0][..]), ("second", &[16, 20, 24])] {
        let (file, entry) = find(&disk, text);
        bytes.iter().for_each(|byte| flip(&disk, &file, header_of(entry) + byte));
    }
    assert_eq!(corruption(&disk).indexes, Some((1, 1)));
}

/// WAL-CASE 55: the header that attests what is lost is found wherever it lies behind zeros.
#[test]
fn a_lost_frame_of_any_length_is_corruption_if_the_next_one_attests_it() {
    // Zeros are passed by in steps of 4 KiB: around a step's end, up to the largest entry.
    for length in 4096 - 52 - 64..=4096 {
        let mut session = start();
        for (index, text) in [(1, "first"), (2, &*"x".repeat(length)), (3, "third")] {
            acknowledge(&mut session, L, append(index, 5, &[text]));
        }
        let (_, disk) = session.kill();
        let frames = Scan::open_on(&disk, DIRECTORY).unwrap();
        let lost = frames.frames().map(Result::unwrap).find(|frame| frame.first_index == 2);
        let lost = lost.expect("it is there");
        let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
        let zeros = vec![0; usize::try_from(lost.frame_bytes).unwrap()];
        directory.open(&lost.file).unwrap().write_at(lost.offset, &[&zeros]).unwrap();
        drop(directory);
        assert_eq!(corruption(&disk).offset, lost.offset, "{} bytes", lost.frame_bytes);
    }
}

/// WAL-CASE 64: of two damages the first is named, where the log ends.
#[test]
fn rot_in_a_segment_is_named_though_the_beginning_of_the_next_one_has_rotted_too() {
    let mut session = start();
    let mut next = 1;
    while session.wal.statistics().segments == 1 {
        take(&mut session, L, append(next, 1, &[&"filler ".repeat(100)]));
        (0..3).for_each(|_| session.work_on_sync());
        next += 1;
    }
    for index in next..next + 2 {
        take(&mut session, L, append(index, 1, &["attests"]));
        (0..3).for_each(|_| session.work_on_sync());
    }
    assert_eq!(session.wal.statistics().sealed_segments, 0);
    let (_, disk) = session.kill();
    let names = segments(&disk);
    let rotten = Scan::open_on(&disk, DIRECTORY).unwrap().frames().nth(4).unwrap().unwrap();
    flip(&disk, &names[0], rotten.offset + 60);
    for offset in [None, Some(4096 + 40)] {
        offset.into_iter().for_each(|offset| flip(&disk, &names[1], offset));
        let found = corruption(&disk);
        assert_eq!((&found.segment, found.offset), (&names[0], rotten.offset), "{offset:?}");
        let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
        let Verdict::Corrupt(damage) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
        assert!(damage.contains(&found), "{offset:?}: {damage:?}");
    }
}

/// WAL-CASE 7
#[test]
fn rot_in_the_last_group_is_a_cut_while_nothing_attests_it() {
    let disk = three_groups();
    let (file, entry) = find(&disk, "third");
    flip(&disk, &file, entry);
    assert_eq!(entries(&world(&disk), L), ["first", "second"]);
}

/// WAL-CASE 7: that something was written there is seen by the header, if one bit of it explains what it was, or by one behind.
#[test]
fn rot_in_a_header_of_the_last_group_is_told_as_a_torn_tail() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 5, &["first"]));
    take(&mut session, L, append(2, 5, &["second"]));
    acknowledge(&mut session, L, append(3, 5, &["third"]));
    let (_, disk) = session.kill();
    for (text, bytes) in [("third", &[16][..]), ("second", &[16, 20, 24])] {
        let damaged = disk.reopen();
        let (file, entry) = find(&damaged, text);
        bytes.iter().for_each(|byte| flip(&damaged, &file, header_of(entry) + byte));
        let scan = Scan::open_on(&damaged, DIRECTORY).unwrap();
        let Verdict::TornTail { offset, .. } = scan.verdict() else {
            panic!("{text}: {:?}", scan.verdict())
        };
        assert_eq!(*offset, header_of(entry), "{text}");
    }
}

/// WAL-CASE 7
#[test]
fn rot_in_the_last_group_is_corruption_after_a_close() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 5, &["only"]));
    let (_, disk) = session.close();
    let (file, entry) = find(&disk, "only");
    flip(&disk, &file, entry);
    assert_eq!(corruption(&disk).indexes, Some((1, 1)));
}

/// WAL-CASE 7
#[test]
fn rot_in_the_last_group_is_corruption_once_the_idle_mark_attests_it() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 5, &["only"]));
    go_idle(&mut session);
    let (_, disk) = session.kill();
    let (file, entry) = find(&disk, "only");
    flip(&disk, &file, entry);
    assert_eq!(corruption(&disk).indexes, Some((1, 1)));
}

/// Lets the log write its mark.
pub(super) fn go_idle(session: &mut Session) {
    let operations = session.disk.operations();
    for _ in 0..10 {
        session.sleep(Duration::from_millis(60));
        session.work_on_sync();
    }
    assert!(session.disk.operations() > operations, "an idle log writes a mark");
}

/// A log of several segments, of which the first two are gone.
fn without_elders() -> MemoryDisk {
    let mut session = start();
    acknowledge(&mut session, L, state("vote"));
    fill_up_to(&mut session, L, 3);
    let last = session.life.world().log(L).last();
    acknowledge(&mut session, L, Operation::Compact { first: last });
    session.settle();
    acknowledge(&mut session, L, append(last + 1, 5, &["newest"]));
    assert_eq!(segments(&session.disk).len(), 1, "the elders are freed");
    session.close().1
}

/// WAL-CASE 64
#[test]
fn rot_in_the_checkpoint_of_the_first_segment_left_is_corruption() {
    let disk = without_elders();
    let name = segments(&disk).remove(0);
    let (_, vote) = find(&disk, "vote");
    for offset in [4096, 4096 + 48, 4096 + 88, vote] {
        let damaged = disk.reopen();
        flip(&damaged, &name, offset);
        assert_eq!(corruption(&damaged).segment, name, "offset {offset}");
    }
}

/// WAL-CASE 64: also when nothing in the segment attests it.
#[test]
fn rot_in_an_unattested_checkpoint_is_corruption_where_the_elders_are_gone() {
    let disk = without_elders();
    let name = segments(&disk).remove(0);
    let file = Path::new(DIRECTORY).join(&name);
    let length = disk.contents(&file).unwrap().len() as u64;
    // Everything behind the header page: no frame is left that could attest anything.
    for offset in 4096..length {
        disk.corrupt(
            &file,
            offset,
            disk.contents(&file).unwrap()[usize::try_from(offset).unwrap()],
        );
    }
    assert_eq!(corruption(&disk).segment, name);
}

/// WAL-CASE 64, of a log's very first frames: opening and looking say the same.
#[test]
fn rot_in_the_first_frames_of_all_is_corruption_once_something_attests_them() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 5, &["only"]));
    let (_, alone) = session.kill();
    let attested = three_groups();
    for offset in [4096, 4096 + 50, 4176 + 50] {
        let damaged = alone.reopen();
        let name = segments(&damaged).remove(0);
        flip(&damaged, &name, offset);
        let scan = Scan::open_on(&damaged, DIRECTORY).unwrap();
        assert!(!matches!(scan.verdict(), Verdict::Corrupt(_)), "{offset}: {:?}", scan.verdict());
        assert_eq!(entries(&world(&damaged), L).len(), 0, "{offset}: begun anew");

        let damaged = attested.reopen();
        flip(&damaged, &name, offset);
        let found = corruption(&damaged);
        let scan = Scan::open_on(&damaged, DIRECTORY).unwrap();
        assert_eq!(scan.verdict(), &Verdict::Corrupt(vec![found]), "{offset}");
    }
}

/// WAL-CASE 16
#[test]
fn a_missing_segment_with_live_entries_is_an_error_that_names_it() {
    let mut session = start();
    fill_up_to(&mut session, L, 4);
    let (_, disk) = session.close();
    let names = segments(&disk);
    for missing in &names[..names.len() - 1] {
        let damaged = disk.reopen();
        remove(&damaged, missing);
        let text = refused(&damaged).to_string();
        assert!(text.contains(missing.as_str()), "{missing}: {text}");
        assert!(text.contains(&format!("of log {}", L.0)), "{missing}: {text}");
    }
    for (entries, needed) in [(1, "index 1 of log"), (2, "index 1..=2 of log")] {
        let mut session = start();
        acknowledge(&mut session, L, append(1, 1, &["entry"; 2][..entries]));
        fill_up_to(&mut session, OTHER, 3);
        let (_, disk) = session.close();
        remove(&disk, &segments(&disk)[0]);
        let text = refused(&disk).to_string();
        assert!(text.contains(needed), "{text}");
    }
    // Which of several held an entry is not known: it is not blamed on the first.
    names[..2].iter().for_each(|missing| remove(&disk, missing));
    let text = refused(&disk).to_string();
    assert!(text.contains(names[0].as_str()) && !text.contains("index"), "{text}");
}

/// WAL-CASE 64, where the elders are still there.
#[test]
fn rot_in_the_checkpoint_of_a_later_segment_is_named_with_its_place() {
    let mut session = start();
    fill_up_to(&mut session, L, 3);
    let next = session.life.world().log(L).last() + 1;
    acknowledge(&mut session, L, append(next, 1, &["attests"]));
    let (life, disk) = session.close();
    let name = segments(&disk).remove(1);
    for (offset, frame) in [(4096 + 40, 4096), (4096 + 60, 4096), (4176 + 50, 4176)] {
        let damaged = disk.reopen();
        flip(&damaged, &name, offset);
        // A sealed segment's checkpoint is never read again; who looks at everything finds it.
        assert_eq!(&world(&damaged), life.world(), "{offset}");
        let scan = Scan::open_on(&damaged, DIRECTORY).unwrap();
        let Verdict::Corrupt(found) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
        assert_eq!((&found[0].segment, found[0].offset), (&name, frame), "{offset}");
    }
}

/// WAL-CASE 16, where an older segment still holds what the missing one had replaced: the old bytes
/// must not come back under the new terms.
#[test]
fn a_missing_segment_is_an_error_though_an_older_one_holds_its_indexes() {
    let mut session = start();
    let long = "old ".repeat(250);
    acknowledge(&mut session, L, append(1, 1, &[&long, &long, &long]));
    fill_up_to(&mut session, OTHER, 2);
    acknowledge(&mut session, L, append(2, 9, &["replaced", "replaced"]));
    fill_up_to(&mut session, OTHER, 3);
    acknowledge(&mut session, L, append(4, 9, &["new"]));
    // Only the replaced entries need what lies in the middle.
    let last = session.life.world().log(OTHER).last();
    acknowledge(&mut session, OTHER, Operation::Compact { first: last + 1 });
    let (_, disk) = session.close();
    let names = segments(&disk);
    assert!(names.len() >= 3, "{names:?}");
    let (middle, _) = find(&disk, "replacedreplaced");
    remove(&disk, &middle);
    let text = refused(&disk).to_string();
    assert!(text.contains(middle.as_str()), "{middle}: {text}");
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    assert!(matches!(scan.verdict(), Verdict::Corrupt(_)), "{:?}", scan.verdict());
}

/// WAL-CASE 15: segments that nothing needs may be gone in any order.
#[test]
fn a_missing_segment_that_nothing_needs_is_none() {
    let mut session = start();
    fill_up_to(&mut session, L, 5);
    let last = session.life.world().log(L).last();
    let before = session.disk.reopen();
    acknowledge(&mut session, L, Operation::Compact { first: last });
    let compacted = session.life.world().clone();
    let (_, disk) = session.kill();
    // The same bytes, with every file that was freed there again.
    let both = with_files_of(&disk, &before);
    let names = segments(&both);
    assert!(names.len() >= 5, "{names:?}");
    for kept in 0..1 << (names.len() - 1) {
        let some = both.reopen();
        for (number, name) in names[..names.len() - 1].iter().enumerate() {
            if kept & (1 << number) == 0 {
                remove(&some, name);
            }
        }
        assert_eq!(world(&some), compacted, "{kept:b}");
    }
}

/// `disk`, with the files that only `other` has.
fn with_files_of(disk: &MemoryDisk, other: &MemoryDisk) -> MemoryDisk {
    let both = disk.reopen();
    let directory = both.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    for (name, bytes) in files(other) {
        if let Ok(file) = directory.create(&name, bytes.len() as u64) {
            file.write_at(0, &[&bytes]).unwrap();
            file.sync().unwrap();
        }
    }
    directory.sync().unwrap();
    drop(directory);
    both.reopen()
}

pub(super) fn remove(disk: &MemoryDisk, name: &str) {
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    directory.remove(name).unwrap();
    directory.sync().unwrap();
}

/// WAL-CASE 18: the segment of the same number, with the same frames in it.
#[test]
fn a_segment_of_another_log_is_refused() {
    let mut session = start();
    fill_up_to(&mut session, L, 3);
    let (_, disk) = session.close();
    let stranger = MemoryDisk::new();
    drop(options(&stranger).uuid(*b"another log's id").open(DIRECTORY).unwrap());
    let mut session = start_on(&stranger);
    fill_up_to(&mut session, L, 3);
    let (_, stranger) = session.close();
    assert!(segments(&disk).len() >= 3);
    for target in segments(&disk) {
        let mixed = disk.reopen();
        let bytes = stranger.contents(Path::new(DIRECTORY).join(&target)).unwrap();
        overwrite(&mixed, &target, 0, &bytes);
        let error = refused(&mixed);
        let OpenError::OtherLog { segment, other } = &error else { panic!("{target}: {error}") };
        assert!(*segment == target || *other == target, "{target}: {error}");
    }
}

/// WAL-CASE 11: the link is what is left when everything else of a stale frame is right.
#[test]
fn a_frame_that_followed_another_one_is_cut() {
    let lay = |second: &str| {
        let mut session = start();
        for (index, text) in [(1, "first"), (2, second), (3, "third")] {
            take(&mut session, L, append(index, 5, &[text]));
        }
        session.settle();
        session.kill().1
    };
    let (old, new) = (lay("old second"), lay("new second"));
    let (name, third) = find(&old, "third");
    let stale = &old.contents(Path::new(DIRECTORY).join(&name)).unwrap();
    overwrite(&new, &name, header_of(third), &stale[usize::try_from(header_of(third)).unwrap()..]);
    assert_eq!(entries(&world(&new), L), ["first", "new second"]);
}

/// WAL-CASE 11, from one segment to the next.
#[test]
fn a_segment_that_followed_another_history_is_cut() {
    let lay = |fill: &str| {
        let mut session = start();
        for index in 1.. {
            acknowledge(&mut session, L, append(index, 5, &[&fill.repeat(700)]));
            if session.wal.statistics().segments > 1 {
                return session.kill().1;
            }
        }
        unreachable!("a segment ends some day")
    };
    let (old, new) = (lay("o"), lay("n"));
    let held = entries(&world(&new), L).len();
    let name = segments(&new).remove(1);
    let stale = old.contents(Path::new(DIRECTORY).join(&name)).unwrap();
    overwrite(&new, &name, 0, &stale);
    let found = entries(&world(&new), L);
    assert_eq!(found, vec!["n".repeat(700); held - 1]);
}

pub(super) fn overwrite(disk: &MemoryDisk, name: &str, offset: u64, bytes: &[u8]) {
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    let file = directory.open(name).unwrap();
    file.write_at(offset, &[bytes]).unwrap();
    file.sync().unwrap();
}

/// WAL-CASE 59
#[test]
fn another_owners_directory_is_refused_by_name() {
    let disk = MemoryDisk::new();
    drop(options(&disk).owner([1; 32]).open(DIRECTORY).unwrap());
    let opened = options(&disk).owner([2; 32]).open(DIRECTORY).map(drop);
    let error = opened.expect_err("another owner is refused");
    assert!(
        matches!(&error, OpenError::OtherOwner { found, .. } if *found == [1; 32]),
        "{error:?}"
    );
    assert!(error.to_string().contains(DIRECTORY), "{error}");
    drop(options(&disk).owner([1; 32]).open(DIRECTORY).unwrap());
}

/// WAL-CASE 5, WAL-CASE 6, WAL-CASE 29: wherever one bit of a closed log is flipped, it is reported, by opening or
/// by reading, or it was in bytes that nothing depends on; nothing panics.
#[test]
fn no_flipped_bit_of_a_closed_log_changes_what_it_says() {
    let mut session = start();
    acknowledge(&mut session, OTHER, state("vote"));
    fill_up_to(&mut session, L, 3);
    acknowledge(&mut session, L, Operation::Truncate { last: 5 });
    let (life, disk) = session.close();
    let mut random = Random::new(29);
    let (mut reported, mut harmless) = (0, 0);
    for (name, bytes) in files(&disk) {
        for offset in 0..bytes.len() as u64 {
            if bytes[usize::try_from(offset).unwrap()] == 0 && random.chance(95) {
                continue;
            }
            let damaged = disk.reopen();
            let mask = 1 << random.below(8);
            damaged.corrupt(Path::new(DIRECTORY).join(&name), offset, mask);
            let found = catch_unwind(AssertUnwindSafe(|| read_all(&damaged)));
            match found.unwrap_or_else(|_| panic!("{name} {offset} {mask:#x}: a panic")) {
                None => reported += 1,
                Some(found) => {
                    assert_eq!(&found, life.world(), "{name} {offset} {mask:#x}");
                    harmless += 1;
                }
            }
        }
    }
    assert!(reported > 1000 && harmless > 100, "{reported} reported, {harmless} harmless");
}

/// Everything that a log holds, or `None` if it reports damage.
pub(super) fn read_all(disk: &MemoryDisk) -> Option<World> {
    let wal = open(disk).ok()?;
    for log in wal.logs() {
        let log = wal.log(log).unwrap();
        for entry in log.read(log.first()..log.last() + 1, usize::MAX) {
            entry.ok()?;
        }
    }
    Some(World::of(&wal))
}
