//! Power cuts that a workload hits only by luck, each set up by hand.

use std::{collections::HashMap, path::Path};

use kontiki_disk::{
    Access, Disk,
    memory::{Cut, Kind, Unsynced},
};
use kontiki_sim::{matrix::Choice, session::PowerCut, workload};
use kontiki_wal::inspect::{Scan, Verdict};

use super::*;

/// WAL-CASE 13, WAL-CASE 61: before the first write to a segment the one before is synced, marks
/// included.
#[test]
fn nothing_is_written_to_a_segment_before_the_one_before_it_is_synced() {
    for seed in 1..=20 {
        let record = workload::run(seed, 120);
        let mut unsynced: HashMap<String, bool> = HashMap::new();
        let mut segments = 0;
        for cut in record.lives.iter().flat_map(|life| &life.cuts) {
            let operation = &cut.cut.operation;
            let name = operation.name.clone();
            match operation.kind {
                // A preparation fills its file under another name.
                Kind::Write if name.ends_with(".wal") => {
                    let before = unsynced.get(&predecessor(&name)).copied().unwrap_or_default();
                    assert!(!before, "seed {seed}: {operation}");
                    segments += usize::from(unsynced.insert(name, true).is_none());
                }
                Kind::Sync => drop(unsynced.insert(name, false)),
                _ => {}
            }
        }
        assert!(segments >= 3, "seed {seed}: {segments} segments");
    }
}

fn predecessor(name: &str) -> String {
    let sequence = u64::from_str_radix(name.trim_end_matches(".wal"), 16).unwrap();
    format!("{:016x}.wal", sequence - 1)
}

/// WAL-CASE 61
#[test]
fn a_mark_that_was_never_synced_is_no_hole_under_the_next_segment() {
    for extra in 0..60 {
        let mut session = start();
        take(&mut session, OTHER, append(1, 1, &[&"x".repeat(extra * 8)]));
        fill_up_to(&mut session, L, 1);
        let filler = "filler ".repeat(50);
        for index in 1.. {
            take(&mut session, L, append(index, 1, &[&filler]));
            // Groups only: before it seals a segment the log syncs it once more.
            (0..6).for_each(|_| session.work_on_sync());
            assert_eq!(session.acknowledged(), session.appended());
            if session.wal.statistics().segments > 1 {
                break;
            }
            session.settle();
            damage::go_idle(&mut session);
        }
        let (life, disk) = session.kill();
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "{extra}");
    }
}

/// WAL-CASE 12
#[test]
fn frames_of_the_next_segment_are_cut_with_the_tail_before_them() {
    let mut session = start();
    fill_up_to(&mut session, L, 2);
    let mut index = session.life.world().log(L).last() + 1;
    // The tail of one segment and the head of the next, nothing synced.
    while session.wal.statistics().segments == 2 {
        take(&mut session, L, append(index, 1, &[&"tail ".repeat(100)]));
        index += 1;
    }
    take(&mut session, L, append(index, 1, &["head"]));
    let first = session.life.cuts.len();
    session.settle();
    let (life, _) = session.kill();
    assert!(life.cuts.len() > first, "the tail and the head reached the disk");
    for cut in &life.cuts {
        let items = cut.cut.before.unsynced().len();
        for lost in 0..items {
            let digest = world(&cut.cut.before.image(|item| item != lost)).digest();
            let found = life.find(digest, cut.acknowledged, cut.appended);
            assert!(found.is_some(), "lost {lost} before {}", cut.cut.operation);
        }
    }
}

/// WAL-CASE 11
#[test]
fn what_was_cut_never_comes_back_under_a_frame_of_the_same_length() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["A"]));
    let before = session.disk.operations();
    take(&mut session, L, append(2, 1, &[&"B".repeat(1000)]));
    take(&mut session, L, append(3, 1, &[&"C".repeat(1000)]));
    session.work_on_sync();
    session.work_on_sync();
    assert_eq!(session.disk.operations(), before + 2);
    let (life, _) = session.kill();
    let torn = &life.cuts.last().expect("the write was seen").cut.before;
    let items = torn.unsynced().len();
    assert!(items >= 4, "several sectors");
    // Written again with the same bytes, and with others.
    for (lost, again) in (0..items).flat_map(|lost| [(lost, "B"), (lost, "b")]) {
        let disk = torn.image(|item| item != lost);
        let mut session = start_on(&disk);
        let held = session.life.world().log(L).last();
        let next = append(held + 1, 1, &[&again.repeat(1000)]);
        acknowledge(&mut session, L, next);
        let (life, disk) = session.kill();
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "lost {lost}, {again}");
    }
}

/// The sectors that a power cut may keep or lose, in their order.
fn sectors(disk: &MemoryDisk) -> Vec<u64> {
    let items = disk.unsynced().into_iter();
    items
        .map(|item| match item {
            Unsynced::Sector { sector, .. } => sector,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// WAL-CASE 11, WAL-CASE 63: the repair leaves no header behind the end that is whole by itself.
#[test]
fn what_was_cut_is_zeroed() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["A"]));
    // The last one begins behind the page that the repair zeroes at least.
    for (index, text, length) in [(2, "B", 1960), (3, "C", 1960), (4, "D", 100)] {
        take(&mut session, L, append(index, 1, &[&text.repeat(length)]));
    }
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let torn = &life.cuts.last().expect("the write was seen").cut.before;
    let disk = torn.image(|item| item != 0);
    assert_torn(&disk, true);
    let (found, disk) = start_on(&disk).kill();
    let (name, text) = find(&disk, "A");
    let bytes = disk.contents(Path::new(DIRECTORY).join(name)).unwrap();
    assert_eq!(entries(found.world(), L), ["A"]);
    assert!(bytes[usize::try_from(text).unwrap() + 8..].iter().all(|&byte| byte == 0));
    assert_torn(&disk, false);
}

/// WAL-CASE 3, WAL-CASE 46b. Found by the crash matrix: of the torn frame nothing but zeros was lost, where something else lay, so that
/// the zeros of the repair make it whole if they do not take its beginning first.
#[test]
fn a_frame_that_zeros_complete_stays_cut_wherever_the_repair_is_cut() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["A"]));
    take(&mut session, L, append(2, 1, &[&("BEGIN".to_owned() + &"\0".repeat(1500))]));
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let disk = life.cuts.last().expect("the write was seen").cut.before.image(|_| true);
    let (name, text) = find(&disk, "BEGIN");
    disk.corrupt(Path::new(DIRECTORY).join(name), text + 1400, 0x40);
    assert_torn(&disk, true);
    let mut images = 0;
    for cut in Session::open(&disk.reopen()).unwrap().1 {
        for choice in Choice::all(cut.before.unsynced().len()) {
            let session = start_on(&choice.image(&cut.before));
            let found = entries(session.life.world(), L).len();
            assert_eq!(found, 1, "before {}, {choice}", cut.operation);
            images += 1;
        }
    }
    assert!(images > 20, "{images} images");
}

/// WAL-CASE 46b: a recovery that removes more than one segment is killed anywhere, and the power goes anywhere in the next one: what an
/// earlier process has removed is gone for good before the next goes.
#[test]
fn segments_go_one_by_one_also_behind_a_recovery_that_was_killed() {
    let mut recoveries = 0;
    for seed in 1..=6 {
        let record = workload::run(seed, 240);
        for cut in record.lives.iter().flat_map(|life| &life.cuts) {
            let disk = cut.cut.before.image(NOTHING);
            let first = Session::open(&disk).unwrap().1;
            let is_of_segments = |cut: &&Cut| {
                cut.operation.kind == Kind::Remove && cut.operation.name.ends_with(".wal")
            };
            if first.iter().filter(is_of_segments).count() < 2 {
                continue;
            }
            recoveries += 1;
            for killed in first {
                let (session, second) = Session::open(&killed.before.reopen()).unwrap();
                for cut in second {
                    for choice in Choice::all(cut.before.unsynced().len()) {
                        let found = open(&choice.image(&cut.before)).map(|wal| World::of(&wal));
                        let place =
                            format!("{}, then {}, {choice}", killed.operation, cut.operation);
                        let found = found.unwrap_or_else(|error| panic!("{place}: {error}"));
                        assert_eq!(&found, session.life.world(), "{place}");
                    }
                }
            }
        }
    }
    assert!(recoveries > 0, "{recoveries}");
}

fn assert_torn(disk: &MemoryDisk, torn: bool) {
    let scan = Scan::open_on(disk, DIRECTORY).unwrap();
    let verdict = scan.verdict();
    assert_eq!(matches!(verdict, Verdict::TornTail { .. }), torn, "{verdict:?}");
}

/// The same behind a clean close, where there would be nothing to repair.
#[test]
fn what_was_cut_behind_the_mark_of_a_close_is_zeroed() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["A"]));
    let mut session = start_on(&session.close().1);
    take(&mut session, L, append(2, 1, &[&"B".repeat(2000)]));
    take(&mut session, L, append(3, 1, &["C"]));
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let torn = &life.cuts.last().expect("the write was seen").cut.before;
    let disk = torn.image(|item| item != 0);
    assert_torn(&disk, true);
    let (found, disk) = start_on(&disk).kill();
    assert_eq!(entries(found.world(), L), ["A"]);
    assert_torn(&disk, false);
}

/// WAL-CASE 63: what is left of a header behind the end goes, wherever in a page that is.
#[test]
fn half_a_header_behind_the_end_is_zeroed_at_every_place_of_a_page() {
    for length in (0..4096 - 52).step_by(8) {
        let mut session = start();
        acknowledge(&mut session, L, append(1, 1, &[&"x".repeat(length)]));
        let disk = session.kill().1;
        let end = Scan::open_on(&disk, DIRECTORY).unwrap().segments()[0].used_bytes + 4096;
        let name = segments(&disk).remove(0);
        let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
        directory.open(&name).unwrap().write_at(end, &[&[0xaa; 48]]).unwrap();
        drop(directory);
        let (found, disk) = start_on(&disk).kill();
        assert_eq!(found.world().log(L).last(), 1, "{end}");
        let end = usize::try_from(end).unwrap();
        let bytes = disk.contents(Path::new(DIRECTORY).join(name)).unwrap();
        assert!(bytes[end..end + 48].iter().all(|&byte| byte == 0), "{end}");
    }
}

/// The seal of a segment says that the next one has its name, and not that there is anything in it: there the log goes on,
/// also if the mark of a close is the last frame of the sealed one.
#[test]
fn a_log_goes_on_behind_a_sealed_segment_though_the_next_one_was_lost() {
    for closes in [false, true] {
        let mut session = start();
        for next in 1..=9 {
            acknowledge(&mut session, L, append(next, 1, &[&"filler ".repeat(100)]));
        }
        assert_eq!(
            segments(&session.disk).len(),
            2,
            "the next one is there, and this one nearly full"
        );
        if closes {
            session = start_on(&session.close().1);
        }
        let kept = session.life.world().clone();
        let next = kept.log(L).last() + 1;
        take(&mut session, L, append(next, 1, &[&"long ".repeat(400)]));
        assert_eq!(session.wal.statistics().segments, 2);
        if closes {
            // The first group writes the mark again.
            (0..3).for_each(|_| session.work_on_sync());
        }
        (0..3).for_each(|_| session.work_on_segment());
        assert_eq!(session.wal.statistics().sealed_segments, 1);
        let disk = session.kill().1.image(NOTHING);
        assert_torn(&disk, false);

        let mut session = start_on(&disk);
        assert_eq!(session.life.world(), &kept, "closed: {closes}");
        acknowledge(&mut session, L, append(next, 1, &["next"]));
        let found = world(&session.disk.image(NOTHING));
        assert_eq!(&found, session.life.world(), "closed: {closes}");
        fill_up_to(&mut session, L, 4);
        let (life, disk) = session.kill();
        assert_eq!(&world(&disk.image(NOTHING)), life.world(), "closed: {closes}");
    }
}

/// WAL-CASE 11, where the cut frame left half of its header only: with the other half of a new one
/// that is like it, and the rest of its old body, it would be whole.
#[test]
fn half_a_header_that_was_cut_never_joins_the_half_of_a_new_one() {
    let mut straddled = 0;
    for extra in (0..512).step_by(8) {
        let mut session = start();
        take(&mut session, OTHER, append(1, 1, &[&"filler".repeat(60)]));
        acknowledge(&mut session, L, append(1, 1, &["A"]));
        // Each of the two goes on in the same place.
        let mut session = start_on(&session.kill().1);
        // The first goes beyond the page that the repair zeroes at least.
        let first = "first ".repeat(597) + &"x".repeat(extra);
        let (same, old, new) = ("same".repeat(130), "old!".repeat(70), "new!".repeat(70));
        let second = |tail: &str| append(3, 1, &[&(same.clone() + tail)]);
        take(&mut session, L, append(2, 1, &[&first]));
        take(&mut session, L, second(&old));
        (0..3).for_each(|_| session.work_on_sync());
        let name = segments(&session.disk).remove(0);
        let bytes = session.disk.contents(Path::new(DIRECTORY).join(&name)).unwrap();
        let body = same.as_bytes();
        let at = bytes.windows(body.len()).position(|window| window == body).unwrap() as u64;
        let (header, border) = (header_of(at), (header_of(at) / 512 + 1) * 512);
        if border >= header + 48 {
            session.kill();
            continue;
        }
        straddled += 1;
        let (life, _) = session.kill();
        // The write, and then its sync: nothing of it is durable before.
        let torn = &life.cuts.last().unwrap().cut;
        assert_eq!(torn.operation.kind, Kind::Sync);
        let bytes_of_first = bytes.windows(6).position(|window| window == b"first ").unwrap();
        let lost = [header_of(bytes_of_first as u64) / 512, border / 512];
        let held = sectors(&torn.before);
        let left = torn.before.image(|item| !lost.contains(&held[item]));

        let mut session = start_on(&left);
        assert_eq!(entries(session.life.world(), L), ["A"]);
        take(&mut session, L, append(2, 1, &[&first]));
        take(&mut session, L, second(&new));
        (0..2).for_each(|_| session.work_on_sync());
        let (life, _) = session.kill();
        let torn = &life.cuts.last().unwrap().cut;
        assert_eq!(torn.operation.kind, Kind::Sync);
        let held = sectors(&torn.before);
        let kept = |item: usize| held[item] <= border / 512 && held[item] != border / 512 - 1;
        let found = world(&torn.before.image(kept));
        assert!(life.worlds.contains(&found), "{extra}: {:?}", entries(&found, L).last());
    }
    assert!(straddled >= 4, "{straddled}");
}

/// WAL-CASE 63
#[test]
fn a_header_that_was_cut_never_becomes_whole_again() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["A"]));
    let tail = "same in both ".repeat(60);
    take(&mut session, L, append(2, 1, &[&format!("first{tail}")]));
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let torn = &life.cuts.last().unwrap().cut.before;
    assert!(torn.unsynced().len() >= 2, "header and tail lie in different sectors");
    // The sector of the header survives, the others do not.
    let mut session = start_on(&torn.image(|item| item == 0));
    assert_eq!(entries(session.life.world(), L), ["A"]);
    take(&mut session, L, append(2, 1, &[&format!("other{tail}")]));
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let cut = &life.cuts.last().unwrap().cut;
    assert_eq!(cut.operation.kind, Kind::Sync);
    let items = cut.before.unsynced().len();
    // Now the sector of the header is lost, the others survive.
    for lost in 0..items {
        let found = world(&cut.before.image(|item| item != lost));
        assert!(life.worlds.contains(&found), "lost {lost}: {found:?}");
    }
}

/// WAL-CASE 31, WAL-CASE 32
#[test]
fn a_suffix_over_three_segments_is_the_old_or_the_new_one() {
    let changes = [append(2, 9, &["new 2", &"new 3".repeat(300)]), Operation::Truncate { last: 1 }];
    for change in changes {
        let mut session = start();
        fill_up_to(&mut session, L, 3);
        session.settle();
        let old = session.life.world().clone();
        let first = session.life.cuts.len();
        take(&mut session, L, change.clone());
        (0..3).for_each(|_| session.work_on_sync());
        assert_eq!(session.acknowledged(), session.appended());
        let (life, disk) = session.kill();
        let new = life.world();
        let cuts: Vec<&MemoryDisk> = life.cuts[first..].iter().map(|cut| &cut.cut.before).collect();
        assert_eq!(cuts.len(), 2, "a write and a sync");
        for before in cuts {
            let lost_alone = (0..before.unsynced().len()).map(Some);
            for lost in lost_alone.chain([None]) {
                let found = world(&before.image(|item| Some(item) != lost));
                assert!(found == old || &found == new, "{change:?}, {lost:?} lost");
            }
            assert_eq!(world(&before.image(NOTHING)), old, "{change:?}: not acknowledged");
        }
        let found = world(&disk.image(NOTHING));
        assert_eq!(&found, new, "{change:?}: acknowledged");
        let model = found.log(L);
        match change {
            Operation::Truncate { .. } => assert_eq!(model.last(), 1),
            _ => assert_eq!((model.term(1), model.term(2), model.last()), (1, 9, 3)),
        }
    }
}

/// WAL-CASE 35
#[test]
fn a_state_is_durable_although_the_entries_behind_it_are_torn() {
    let mut session = start();
    acknowledge(&mut session, L, state("old"));
    take(&mut session, L, state("vote"));
    take(&mut session, L, append(1, 1, &[&"torn".repeat(500)]));
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let torn = &life.cuts.last().unwrap().cut.before;
    assert!(torn.unsynced().len() > 4, "the entry lies in several sectors");
    let found = world(&torn.image(|item| item == 0));
    assert_eq!(found, life.worlds[2], "the state's frame comes before the entries'");
}

/// WAL-CASE 51
#[test]
fn a_segment_is_kept_until_what_killed_its_entries_is_durable() {
    let killers: [fn(u64) -> Operation; 5] = [
        |_| append(1, 9, &["replaces all"]),
        |last| Operation::Compact { first: last + 1 },
        |_| Operation::Truncate { last: 0 },
        |last| Operation::Reset { next_index: last + 10, term_before: 9 },
        |_| Operation::Forget,
    ];
    for killer in killers {
        let mut session = start();
        fill_up_to(&mut session, L, 2);
        let last = session.life.world().log(L).last();
        let acknowledged = session.life.world().clone();
        fill_up_to(&mut session, OTHER, 4);
        let before = session.life.world().clone();
        let killer = killer(last);
        take(&mut session, L, killer.clone());
        for _ in 0..6 {
            session.work_on_segment();
        }
        assert_eq!(segments(&session.disk).len(), 4, "{killer:?}");
        let (_, disk) = session.kill();
        let found = world(&disk.image(NOTHING));
        assert_eq!(found, before, "{killer:?}");
        assert_eq!(found.log(L), acknowledged.log(L));
    }
}

/// WAL-CASE 46c
#[test]
fn a_segment_is_kept_until_the_checkpoint_above_it_is_durable() {
    let mut session = start();
    acknowledge(&mut session, L, state("vote"));
    // Nothing in the first segment is live, and its successor is not synced yet.
    let filler = "filler ".repeat(100);
    for index in 1.. {
        take(&mut session, OTHER, append(index, 1, &[&filler]));
        take(&mut session, OTHER, Operation::Compact { first: index + 1 });
        if session.wal.statistics().segments > 1 {
            break;
        }
        session.settle();
    }
    (0..6).for_each(|_| session.work_on_segment());
    let (oldest, first) = (segments(&session.disk).remove(0), session.life.cuts.len());
    session.settle();
    assert!(freed(&session.disk) > 0, "now it is gone");
    let (life, _) = session.kill();
    let has_vote = |disk: &MemoryDisk, cut: &PowerCut| {
        let found = world(disk);
        let digest = found.digest();
        assert!(
            life.find(digest, cut.acknowledged, cut.appended).is_some(),
            "{}",
            cut.cut.operation
        );
        assert_eq!(found.log(L).state.as_deref(), Some(&b"vote"[..]), "{}", cut.cut.operation);
    };
    let (mut torn, mut goes) = (0, 0);
    for cut in &life.cuts[first..] {
        let before = &cut.cut.before;
        let items = before.unsynced().len();
        for item in 0..items {
            has_vote(&before.image(|kept| kept != item), cut);
            has_vote(&before.image(|kept| kept == item), cut);
        }
        has_vote(&before.image(NOTHING), cut);
        let checkpoint_is_durable = cut.acknowledged == cut.appended;
        if !checkpoint_is_durable {
            assert!(segments(&before.image(ALL)).contains(&oldest), "{}", cut.cut.operation);
            torn += items;
        }
        if cut.cut.operation.kind == Kind::Rename && cut.cut.operation.name == oldest {
            let gone = before.image(NOTHING);
            damage::remove(&gone, &oldest);
            has_vote(&gone, cut);
            goes += 1;
        }
    }
    assert!(torn >= 3 && goes == 1, "{torn} things to lose, {goes} renames");
}

/// WAL-CASE 52
#[test]
fn a_state_outlives_its_segment() {
    let mut session = start();
    acknowledge(&mut session, L, state("vote"));
    fill_up_to(&mut session, OTHER, 3);
    let last = session.life.world().log(OTHER).last();
    acknowledge(&mut session, OTHER, Operation::Compact { first: last + 1 });
    session.settle();
    assert!(freed(&session.disk) > 0, "the first segment is gone");
    let (life, disk) = session.kill();
    let found = world(&disk.image(NOTHING));
    assert_eq!(&found, life.world(), "a state went with its segment");
    assert_eq!(found.log(L).state.as_deref(), Some(&b"vote"[..]));
}

/// WAL-CASE 53
#[test]
fn a_truncated_suffix_stays_away_although_its_segment_is_there() {
    let mut session = start();
    let texts: Vec<String> = (1..=10).map(|index| format!("entry {index}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    acknowledge(&mut session, L, append(1, 1, &texts));
    fill_up_to(&mut session, OTHER, 2);
    acknowledge(&mut session, L, Operation::Truncate { last: 7 });
    fill_up_to(&mut session, OTHER, 4);
    let (life, disk) = session.close();
    let found = world(&disk);
    assert_eq!(&found, life.world());
    assert_eq!(found.log(L).last(), 7);
}

/// WAL-CASE 14
#[test]
fn no_frame_goes_to_a_segment_whose_name_is_not_durable() {
    for seed in 1..=10 {
        let record = workload::run(seed, 120);
        // A life's directory is durable up to here when the operation is about to happen.
        for life in &record.lives {
            for cut in &life.cuts {
                let operation = &cut.cut.operation;
                if operation.kind == Kind::Write && operation.name.ends_with(".wal") {
                    let durable = segments(&cut.cut.before.image(NOTHING));
                    assert!(durable.contains(&operation.name), "seed {seed}: {operation}");
                }
            }
        }
    }
}
