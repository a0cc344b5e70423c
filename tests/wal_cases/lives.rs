//! Many lives of one directory, and the limits of what one log takes.

use std::time::Duration;

use kontiki_disk::memory::Kind;
use kontiki_wal::{
    AppendError,
    inspect::{FrameKind, Scan},
};

use super::*;

/// WAL-CASE 45
#[test]
fn a_clean_close_leaves_nothing_to_do_at_the_next_opening() {
    let mut session = start();
    fill_up_to(&mut session, L, 2);
    acknowledge(&mut session, L, state("vote"));
    let (life, mut disk) = session.close();
    let before = files(&disk);
    for round in 0..1000 {
        disk.start_trace();
        let session = start_on(&disk);
        let mut changes = disk.take_trace();
        changes.retain(|operation| operation.kind != Kind::SyncDirectory);
        assert_eq!(changes, [], "round {round}: opening writes nothing");
        assert_eq!(session.life.world(), life.world());
        let closed = session.close();
        disk = closed.1;
        assert_eq!(files(&disk), before, "round {round}: nor does closing");
    }
    assert_eq!(&world(&disk.image(NOTHING)), life.world());
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

/// WAL-CASE 46, with frames that reach the disk in part.
#[test]
fn crashes_in_the_middle_of_segments_leave_no_extra_space() {
    let mut disk = start().kill().1;
    let mut most = 0;
    for round in 0..200 {
        let mut session = start_on(&disk);
        let model = session.life.world().log(L);
        let next = model.last() + 1;
        take(&mut session, L, append(next, 1, &[&"x".repeat(900)]));
        if next > 3 {
            take(&mut session, L, Operation::Compact { first: next - 2 });
        }
        session.work_on_sync();
        session.work_on_sync();
        session.work_on_segment();
        session.work_on_segment();
        disk = session.kill().1.image(|item| item % 3 != round % 3);
        most = most.max(files(&disk).len());
    }
    assert!(most <= 4, "{most} files for three live entries");
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
    let refused = session.perform(L, &append(4, 1, &[&format!("{most}+")])).unwrap_err();
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
        let (life, disk) = session.kill();
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "length {length}");
    }
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
    let refused = session.perform(L, &append(5, 1, &["5"])).unwrap_err();
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
