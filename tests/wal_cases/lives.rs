//! Many lives of one directory, and the limits of what one log takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kontiki_disk::memory::Kind;
use kontiki_sim::{
    random::Random,
    session::{Life, SEGMENT_BYTES},
};
use kontiki_wal::{
    AppendError,
    inspect::{FrameKind, Scan, Verdict},
};

use super::*;

/// Logs that were closed: new, half full, with a successor, and with files that wait to be used again.
fn closed() -> [(&'static str, Life, MemoryDisk); 4] {
    let with = |name, work: fn(&mut Session)| {
        let mut session = start();
        work(&mut session);
        let (life, disk) = session.close();
        (name, life, disk)
    };
    [
        with("new", |_| {}),
        with("half full", |session| {
            acknowledge(session, L, state("vote"));
            fill_up_to(session, L, 2);
        }),
        with("with a successor", |session| {
            fill_up_to(session, L, 2);
            while segments(&session.disk).len() < 3 {
                let next = session.life.world().log(L).last() + 1;
                acknowledge(session, L, append(next, 1, &[&"filler ".repeat(100)]));
            }
        }),
        with("with spares", |session| {
            fill_up_to(session, L, 4);
            let last = session.life.world().log(L).last();
            acknowledge(session, L, Operation::Compact { first: last });
            session.settle();
            assert!(files(&session.disk).iter().any(|(name, _)| name.ends_with(".spare")));
        }),
    ]
}

/// WAL-CASE 45
#[test]
fn a_clean_close_leaves_nothing_to_do_at_the_next_opening() {
    for (shape, life, mut disk) in closed() {
        let mut before = files(&disk);
        // The first opening does not trust what waits to be used again.
        before.retain(|(name, _)| name.ends_with(".wal"));
        for round in 0..1000 {
            disk.start_trace();
            let session = start_on(&disk);
            let mut changes = disk.take_trace();
            let is_spare = |name: &str| round == 0 && name.ends_with(".spare");
            changes.retain(|change| {
                let harmless = change.kind == Kind::Remove && is_spare(&change.name);
                !(harmless || change.kind == Kind::SyncDirectory)
            });
            assert_eq!(changes, [], "{shape}, round {round}: opening writes nothing");
            assert_eq!(session.life.world(), life.world());
            disk = session.close().1;
            assert_eq!(files(&disk), before, "{shape}, round {round}: nor does closing");
        }
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "{shape}");
    }
}

/// WAL-CASE 46
#[test]
fn a_thousand_crashes_leave_no_extra_space() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    let mut disk = session.kill().1;
    let mut sizes = Vec::new();
    for round in 0..1000 {
        let mut session = start_on(&disk);
        assert_eq!(session.life.world().log(L).last(), 1, "round {round}");
        take(&mut session, L, append(2, 1, &["never durable"]));
        session.work_on_segment();
        session.work_on_sync();
        let (life, killed) = session.kill();
        assert_eq!(life.operations.len(), 1);
        disk = killed.image(|item| item % 2 == round % 2);
        sizes.push(files(&disk).iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    }
    assert!(sizes.iter().all(|&bytes| bytes <= sizes[0]), "{sizes:?}");
}

/// WAL-CASE 46: wherever the power goes, in an opening too, and whatever it leaves.
#[test]
fn a_thousand_power_cuts_anywhere_leave_no_extra_space() {
    let (mut random, mut disk) = (Random::new(46), start().kill().1);
    let (mut in_openings, mut most) = (0, 0);
    for round in 0..1000 {
        let (mut session, opening) = Session::open(&disk).unwrap();
        let log = session.life.world().log(L);
        let next = log.last() + 1;
        take(&mut session, L, append(next, 1, &[&"x".repeat(900)]));
        if next > log.first + 3 {
            take(&mut session, L, Operation::Compact { first: next - 2 });
        }
        for _ in 0..random.below(20) {
            session.work_on_sync();
            session.work_on_segment();
        }
        let (life, killed) = session.kill();
        let lived = life.cuts.iter().map(|cut| &cut.cut);
        let cuts: Vec<&MemoryDisk> = opening.iter().chain(lived).map(|cut| &cut.before).collect();
        // Half of the times nothing goes on: else the log would stay where it is.
        let place = usize::try_from(random.below(2 * cuts.len() as u64)).unwrap();
        in_openings += usize::from(place < opening.len());
        let percent = [0, 50, 100][usize::try_from(random.below(3)).unwrap()];
        disk = cuts.get(place).copied().unwrap_or(&killed).image(|_| random.chance(percent));

        let mut session = start_on(&disk.reopen());
        session.settle();
        let live = live_segments(&session);
        let there = files(&session.disk).len();
        assert!(there <= live + 2, "round {round}: {there} files, {live} of live segments");
        most = most.max(there);
        session.kill();
    }
    assert!(most <= 5, "{most} files for four live entries");
    let (name, _) = files(&disk).pop().unwrap();
    assert!(name > format!("{:016x}", 9), "the log has gone on to {name}");
    assert!(in_openings > 20, "{in_openings}");
}

/// How many segments hold a live entry or are the one that is written: by what lies in them, whatever the log thinks.
fn live_segments(session: &Session) -> usize {
    let scan = Scan::open_on(&session.disk, DIRECTORY).unwrap();
    let mut holders = BTreeMap::new();
    let mut live = BTreeSet::new();
    for frame in scan.frames().map(Result::unwrap) {
        live = BTreeSet::from([frame.segment]);
        for (index, _) in frame.entries() {
            holders.insert((frame.log, index), frame.segment);
        }
    }
    let world = session.life.world();
    let is_live = |log, index| (world.log(log).first..=world.log(log).last()).contains(&index);
    live.extend(
        holders
            .iter()
            .filter(|((log, index), _)| is_live(*log, *index))
            .map(|(_, segment)| *segment),
    );
    live.len()
}

/// WAL-CASE 46, with time for a mark: room is left for two, and one is enough.
#[test]
fn a_log_that_is_killed_idle_again_and_again_has_one_mark() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    let mut disk = session.kill().1;
    for round in 0..20 {
        let mut session = start_on(&disk);
        for _ in 0..9 {
            session.sleep(Duration::from_millis(30));
            session.work_on_sync();
        }
        disk = session.kill().1;
        let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
        let marks =
            scan.frames().map(Result::unwrap).filter(|frame| frame.kind == FrameKind::Mark).count();
        assert_eq!(marks, 1, "round {round}");
    }
}

/// WAL-CASE 60: of all files, whatever they are called, and after each compaction.
#[test]
fn after_every_compaction_there_are_the_live_segments_and_two_other_files() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["lags behind"]));
    let (mut spares, mut freed) = (0, 0);
    for round in 1..=60 {
        let next = session.life.world().log(OTHER).last() + 1;
        // Up to four segments full.
        let end = next + round * 7 % 50;
        for index in next..end {
            acknowledge(&mut session, OTHER, append(index, 1, &[&"filler ".repeat(100)]));
        }
        freed = freed.max(files(&session.disk).len());
        acknowledge(&mut session, OTHER, Operation::Compact { first: end - round % 2 });
        session.settle();
        let (live, names) = (live_segments(&session), files(&session.disk));
        assert!(names.len() <= live + 2, "round {round}, {live} live: {:?}", file_names(&names));
        spares += names.iter().filter(|(name, _)| name.ends_with(".spare")).count();
        if round % 20 == 0 {
            session = start_on(&session.kill().1);
            session.settle();
            let (live, names) = (live_segments(&session), files(&session.disk));
            assert!(names.len() <= live + 2, "opened, {live} live: {:?}", file_names(&names));
        }
    }
    assert!(freed >= 6 && spares >= 20, "{freed} files at most, {spares} spares");
}

fn file_names(files: &[(String, Vec<u8>)]) -> Vec<&str> {
    files.iter().map(|(name, _)| name.as_str()).collect()
}

/// WAL-CASE 60: a log that lags holds its own segments and no others, and what the others leave is used again.
#[test]
fn after_compaction_there_are_the_live_segments_and_two_spares() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["lags behind"]));
    fill_up_to(&mut session, OTHER, 6);
    let last = session.life.world().log(OTHER).last();
    acknowledge(&mut session, OTHER, Operation::Compact { first: last + 1 });
    session.settle();
    let names: Vec<String> = files(&session.disk).into_iter().map(|(name, _)| name).collect();
    let live = names.iter().filter(|name| name.ends_with(".wal")).count();
    let spares = names.iter().filter(|name| name.ends_with(".spare")).count();
    // The first and the active one, and perhaps a successor.
    assert!((2..=3).contains(&live) && live + spares <= 4, "{names:?}");
    assert_eq!(entries(session.life.world(), L), ["lags behind"]);
    let (life, disk) = session.close();
    assert_eq!(&world(&disk), life.world());

    // Behind the gap nothing but the trailer vouches for the last frame before it.
    let (name, entry) = find(&disk, "lags behind");
    disk.corrupt(std::path::Path::new(DIRECTORY).join(&name), entry, 1);
    let wal = open(&disk.reopen()).unwrap();
    let read = wal.log(L).unwrap().read(1..2, 9).next().unwrap().unwrap_err();
    assert!(matches!(read, kontiki_wal::ReadError::Corruption(_)), "{read}");
}

/// WAL-CASE 28
#[test]
fn an_entry_may_have_no_byte_and_at_most_a_quarter_of_a_segment() {
    let mut session = start();
    let most = "m".repeat(4096);
    acknowledge(&mut session, L, append(1, 1, &[""]));
    acknowledge(&mut session, L, append(2, 1, &["1"]));
    acknowledge(&mut session, L, append(3, 1, &[&most]));
    let operations = session.disk.operations();
    let refused = session.perform(L, &append(4, 1, &[&format!("{most}+")]));
    let refused = refused.expect_err("an entry of more than a quarter of a segment is refused");
    assert!(matches!(refused, AppendError::TooLarge { bytes: 4097, limit: 4096 }), "{refused:?}");
    let refused = session.perform(L, &append(4, 1, &["small", &format!("{most}+")])).unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused:?}");
    session.settle();
    assert_eq!(session.disk.operations(), operations, "nothing was written");
    let (life, disk) = session.close();
    assert_eq!(&world(&disk), life.world());
}

/// WAL-CASE 30
#[test]
fn frames_may_end_anywhere_around_a_segments_end() {
    let mut left = BTreeSet::new();
    // Every length by which the last frame of a segment may miss or meet its end.
    for length in (0..1400).step_by(8) {
        let mut session = start();
        let mut next = 1;
        while session.wal.statistics().segments == 1 {
            let text = if next == 8 { "y".repeat(length) } else { "x".repeat(800) };
            take(&mut session, L, append(next, 1, &[&text]));
            session.work_on_segment();
            session.work_on_segment();
            session.work_on_segment();
            next += 1;
        }
        session.settle();
        left.insert(room_left(&session.disk));
        let (life, disk) = session.kill();
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "length {length}");
    }
    // From the frame behind which nothing more fits to the one that is too long by the least there is.
    let all: BTreeSet<u64> = (0..856 + 8).step_by(8).collect();
    assert_eq!(left, all);
}

/// Bytes between the last frame of the first segment and where one has to end at the latest.
fn room_left(disk: &MemoryDisk) -> u64 {
    let scan = Scan::open_on(disk, DIRECTORY).unwrap();
    let frames = scan.frames().map(Result::unwrap).filter(|frame| frame.segment == 1);
    let entries = frames.filter(|frame| frame.kind == FrameKind::Entries).count() as u64;
    // Behind it two marks, the index of one log with its frames, and the trailer page.
    let limit = SEGMENT_BYTES - 4096 - (32 + 8 * entries) - 2 * 48;
    limit - (4096 + scan.segments()[0].used_bytes)
}

/// WAL-CASE 33
#[test]
fn a_reset_goes_on_behind_a_gap_and_the_old_entries_never_return() {
    let mut session = start();
    fill_up_to(&mut session, L, 3);
    acknowledge(&mut session, L, state("kept"));
    acknowledge(&mut session, L, Operation::Reset { next_index: 1000, term_before: 8 });
    let (_, disk) = session.kill();
    let mut session = start_on(&disk.image(NOTHING));
    let model = session.life.world().log(L);
    assert_eq!((model.first, model.last(), model.term_before), (1000, 999, 8));
    acknowledge(&mut session, L, append(1000, 8, &["after the snapshot"]));
    let (life, disk) = session.kill();
    assert_eq!(&world(&disk.image(NOTHING)), life.world());
    assert_eq!(entries(life.world(), L), ["after the snapshot"]);
}

/// WAL-CASE 34
#[test]
fn an_append_replaces_from_its_first_index_and_leaves_no_gap() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["1", "2", "3"]));
    let refused = session.perform(L, &append(5, 1, &["5"])).expect_err("a gap is refused");
    assert!(matches!(refused, AppendError::Gap { index: 5, next: 4 }), "{refused:?}");
    acknowledge(&mut session, L, append(2, 2, &["two"]));
    assert_eq!(entries(&World::of(&session.wal), L), ["1", "two"]);
    acknowledge(&mut session, L, append(3, 2, &["three"]));
    acknowledge(&mut session, L, Operation::Compact { first: 2 });
    let refused = session.perform(L, &append(1, 2, &["one"])).unwrap_err();
    assert!(matches!(refused, AppendError::Compacted { index: 1, first: 2 }), "{refused:?}");
    let refused = session.perform(L, &append(4, 1, &["older"])).unwrap_err();
    assert!(matches!(refused, AppendError::TermDecreases { term: 1, newest: 2 }), "{refused:?}");
    let refused = session.perform(L, &Operation::Compact { first: 5 }).unwrap_err();
    assert!(matches!(refused, AppendError::Beyond { index: 5, limit: 4 }), "{refused:?}");
    let (life, disk) = session.close();
    assert_eq!(&world(&disk), life.world());
}

/// WAL-CASE 57
#[test]
fn a_reset_keeps_the_state_and_a_compaction_the_term_before_the_first() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 3, &["1", "2"]));
    acknowledge(&mut session, L, append(3, 4, &["3"]));
    acknowledge(&mut session, L, Operation::Compact { first: 3 });
    acknowledge(&mut session, OTHER, state("kept"));
    acknowledge(&mut session, OTHER, Operation::Reset { next_index: 50, term_before: 9 });
    let (_, disk) = session.kill();
    for disk in [disk.image(NOTHING), start_on(&disk).close().1] {
        let wal = open(&disk.reopen()).unwrap();
        let log = wal.log(L).unwrap();
        assert_eq!((log.first(), log.term(2), log.term(1)), (3, Some(3), None));
        let other = wal.log(OTHER).unwrap();
        assert_eq!(other.state().as_deref(), Some(&b"kept"[..]));
        assert_eq!((other.first(), other.last(), other.term(49)), (50, 49, Some(9)));
    }
}

/// WAL-CASE 8: salts of two segments of a log often differ in one bit. A frame of a prepared segment's earlier life then looks as
/// one of its next life does of which a bit has flipped, and is none.
#[test]
fn a_closed_log_is_closed_whatever_its_next_segment_has_held() {
    // How many segments are live says how far apart the two are.
    for (kept, rotations) in
        [0, 10, 20].into_iter().flat_map(|kept| (8..16).map(move |n| (kept, n)))
    {
        let (mut session, mut since) = (start(), 0);
        // Half full, so that the next one is there.
        while session.wal.statistics().rotations < rotations || since < 6 {
            since += u64::from(session.wal.statistics().rotations == rotations);
            let next = session.life.world().log(L).last() + 1;
            acknowledge(&mut session, L, append(next, 1, &[&"filler ".repeat(100)]));
            let first = next.saturating_sub(kept).max(1);
            acknowledge(&mut session, L, Operation::Compact { first });
        }
        let recycled = session.wal.statistics().recycled_segments;
        assert!(recycled > 0, "{kept} kept, {rotations} rotations");
        let (_, disk) = session.close();
        let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
        println!(
            "{kept} {rotations} {recycled} {:?}",
            files(&disk)
                .iter()
                .map(|(n, b)| (n.clone(), b[4096..].iter().filter(|b| **b != 0).count()))
                .collect::<Vec<_>>()
        );
        let verdict = scan.verdict();
        let is_closed = matches!(verdict, Verdict::Whole { closed: true, .. });
        assert!(is_closed, "{kept} kept, {rotations} rotations: {verdict:?}");
    }
}
