//! The disk fails: after the first failed write or sync nothing is acknowledged and nothing more
//! is written.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use kontiki_disk::{
    Disk,
    memory::{EDQUOT, EIO, ENOSPC, Fault, Kind},
};
use kontiki_sim::session::{PowerCut, SEGMENT_BYTES};
use kontiki_wal::{AppendError, Wal, WalError, inspect::Scan};

use super::*;

/// A log with an acknowledged entry and one whose sync fails with `error`.
fn poisoned(kind: Kind, error: i32) -> Session {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    // Longer than a sector, so that no write beside it can save it by chance.
    take(&mut session, L, append(2, 1, &[&"lost".repeat(500)]));
    session.disk.inject(kind, 1, Fault::Fail(error));
    session.settle();
    assert!(session.failed(), "whoever waited was told");
    session
}

/// WAL-CASE 20, WAL-CASE 26
#[test]
fn after_a_failed_sync_or_write_everything_fails_and_nothing_is_acknowledged() {
    let failures =
        [(Kind::Sync, EIO), (Kind::Sync, ENOSPC), (Kind::Sync, EDQUOT), (Kind::Write, EIO)];
    for (kind, error) in failures {
        let mut session = poisoned(kind, error);
        assert_eq!(session.acknowledged(), 1);
        let refused = session.perform(L, &append(3, 1, &["late"])).unwrap_err();
        let AppendError::Wal(WalError::Poisoned { source, .. }) = &refused else {
            panic!("{refused:?}");
        };
        assert_eq!(source.raw_os_error(), Some(error));
        assert!(session.perform(OTHER, &state("late")).is_err());
        session.work_on_sync();
        session.work_on_segment();
        assert_eq!(session.acknowledged(), 1);
        assert!(session.wal.close().is_err());
    }
}

/// WAL-CASE 20: not either by the sync of a group that was out when something else failed.
#[test]
fn a_sync_that_succeeds_after_poison_acknowledges_nothing() {
    let disk = MemoryDisk::new();
    let wal = open(&disk).unwrap();
    let log = wal.log(L).unwrap();
    let segment = loop {
        log.push("filler ".repeat(100)).unwrap().1.wait().unwrap();
        if let Some(job) = wal.begin_segment() {
            break job;
        }
    };
    let (_, pending) = log.push("entry").unwrap();
    let sync = wal.begin_sync(Duration::ZERO).unwrap();
    let synced = sync.run();
    assert!(synced.is_ok());
    disk.inject(Kind::SyncDirectory, 1, Fault::Fail(EIO));
    let failed = segment.run();
    wal.finish_segment(segment, failed);
    let durable = wal.durable_lsn();
    wal.finish_sync(sync, synced);
    assert_eq!(wal.durable_lsn(), durable);
    assert!(matches!(pending.wait(), Err(WalError::Poisoned { .. })));
}

/// WAL-CASE 56
#[test]
fn after_poison_no_byte_is_written() {
    for kind in [Kind::Write, Kind::Sync] {
        let mut session = poisoned(kind, EIO);
        let (operations, before) = (session.disk.operations(), files(&session.disk));
        for _ in 0..10 {
            session.work_on_sync();
            session.work_on_segment();
        }
        let _ = session.perform(L, &append(3, 1, &["late"]));
        let _ = session.wal.close();
        let disk = session.disk.clone();
        drop(session);
        assert_eq!(disk.operations(), operations, "after a failed {kind:?}");
        assert_eq!(files(&disk), before);
    }
}

/// WAL-CASE 56: nor by a job that was out already when another one failed.
#[test]
fn a_job_that_is_out_when_the_log_stops_writes_nothing() {
    for group_fails in [false, true] {
        let disk = MemoryDisk::new();
        let wal = open(&disk).unwrap();
        let log = wal.log(L).unwrap();
        let segment = (0..1000).find_map(|_| {
            log.push("filler ".repeat(100)).unwrap().1.wait().unwrap();
            wal.begin_segment()
        });
        let segment = segment.expect("a segment is prepared before the first one is full");
        log.push("entry").map(drop).unwrap();
        let sync = wal.begin_sync(Duration::ZERO).unwrap();
        let stopped = |disk: &MemoryDisk| (disk.operations(), files(disk));
        let (before, result) = if group_fails {
            disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
            let failed = sync.run();
            wal.finish_sync(sync, failed);
            (stopped(&disk), segment.run())
        } else {
            disk.inject(Kind::SyncDirectory, 1, Fault::Fail(EIO));
            let failed = segment.run();
            wal.finish_segment(segment, failed);
            (stopped(&disk), sync.run())
        };
        let refused = result.expect_err("a job of a log that has stopped does nothing");
        assert_eq!(refused.kind(), ErrorKind::Interrupted);
        assert_eq!(stopped(&disk), before, "the group failed: {group_fails}");
    }
}

/// WAL-CASE 56: a preparation that was under way may end, but nothing new begins.
#[test]
fn a_directory_sync_that_fails_poisons() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    session.disk.inject(Kind::SyncDirectory, 1, Fault::Fail(EIO));
    let filler = "filler ".repeat(100);
    for index in 2..100 {
        if session.perform(L, &append(index, 1, &[&filler])).is_err() || session.failed() {
            break;
        }
        session.settle();
    }
    let refused = session.perform(L, &append(2, 1, &["late"])).unwrap_err();
    assert!(matches!(refused, AppendError::Wal(WalError::Poisoned { .. })), "{refused:?}");
    let operations = session.disk.operations();
    session.work_on_sync();
    session.work_on_segment();
    assert_eq!(session.disk.operations(), operations);
}

/// I6: reads end at the durable LSN.
#[test]
fn after_poison_reads_end_where_durability_ends() {
    let session = poisoned(Kind::Sync, EIO);
    let log = session.wal.log(L).unwrap();
    let read: Vec<_> = log.read(1..10, usize::MAX).map_while(Result::ok).collect();
    assert_eq!(read.len(), 1, "{read:?}");
}

/// WAL-CASE 21
#[test]
fn what_is_shown_after_a_failed_sync_survives_the_power_cut_that_follows() {
    for kind in [Kind::Write, Kind::Sync] {
        let (_, disk) = poisoned(kind, EIO).kill();
        let session = start_on(&disk);
        let shown = session.life.world().clone();
        assert_eq!(entries(&shown, L)[0], "safe");
        let (_, disk) = session.kill();
        for keep in [ALL, NOTHING] {
            assert_eq!(world(&disk.image(keep)), shown, "after a failed {kind:?}");
        }
    }
}

/// WAL-CASE 62
#[test]
fn what_is_shown_after_a_close_that_failed_survives_the_power_cut_that_follows() {
    // The syncs of a close: of what is unsynced, and of the mark.
    for (nth, length) in (1..=2).flat_map(|nth| (0..64).map(move |words| (nth, 2000 + words * 8))) {
        let mut session = start();
        acknowledge(&mut session, L, append(1, 1, &["safe"]));
        take(&mut session, L, append(2, 1, &[&"u".repeat(length)]));
        session.disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        session.wal.close().unwrap_err();
        let (_, disk) = session.kill();
        let mut session = start_on(&disk);
        let shown = session.life.world().clone();
        assert_eq!(world(&session.disk.image(NOTHING)), shown, "sync {nth} failed");
        // Behind the mark, if that was written: wherever in a sector it ends.
        acknowledge(&mut session, L, append(shown.log(L).last() + 1, 1, &["next"]));
        let (life, disk) = session.kill();
        let found = open(&disk.image(NOTHING)).map(|wal| World::of(&wal));
        let found = found.unwrap_or_else(|e| panic!("behind the mark, sync {nth} failed: {e}"));
        assert_eq!(&found, life.world(), "sync {nth} failed");
    }
}

/// A group of which the first frame was torn in a power cut, and the others are whole.
fn torn_in_the_middle() -> MemoryDisk {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    take(&mut session, L, append(2, 1, &["the first that is torn"]));
    for index in 3..7 {
        take(&mut session, L, append(index, 1, &[&"torn ".repeat(250)]));
    }
    session.work_on_sync();
    session.work_on_sync();
    let (life, _) = session.kill();
    let disk = life.cuts.last().expect("the write was seen").cut.before.image(ALL);
    let (name, entry) = find(&disk, "the first that is torn");
    flip(&disk, &name, entry);
    disk
}

/// WAL-CASE 21, WAL-CASE 27: a sync of a repair fails, and the zeros of it are in the cache only, on pages that count as clean:
/// the frames that were cut lie behind the end again after the next power cut. They hide no segment that was begun since.
#[test]
fn frames_that_a_failed_repair_has_left_on_the_disk_hide_nothing_that_follows() {
    let (mut failures, mut returned) = (0, 0);
    for nth in 1.. {
        let disk = torn_in_the_middle();
        disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        let Err(error) = open(&disk).map(drop) else { break };
        failures += 1;
        let mut session = start_on(&disk.reopen());
        // The second one has no room behind the first.
        acknowledge(&mut session, L, append(2, 2, &[&"long ".repeat(750)]));
        for index in 3..5 {
            acknowledge(&mut session, L, append(index, 2, &[&"long ".repeat(800)]));
        }
        let (life, _) = session.kill();
        for PowerCut { cut, acknowledged, appended } in &life.cuts {
            let image = cut.before.image(NOTHING);
            let place = format!("{error}, then a power cut before {}", cut.operation);
            let found = open(&image).unwrap_or_else(|error| panic!("{place}: {error}"));
            let found = World::of(&found).digest();
            assert!(life.find(found, *acknowledged, *appended).is_some(), "{place}");
            returned += usize::from(files(&image) != files(&cut.before));
        }
    }
    assert!(failures >= 2 && returned > 0, "{failures} repairs failed, {returned} disks differ");
}

/// Appends to `log` until the disk has no room for any more, long or short; how many long entries were taken.
fn fill_the_disk(session: &mut Session, log: LogId) -> u64 {
    let mut fill = |text: &str| {
        let model = session.life.world().log(log);
        let (first, term) = (model.last() + 1, model.last_term().max(1));
        for index in first.. {
            match session.perform(log, &append(index, term, &[text])) {
                Ok(()) => session.settle(),
                Err(AppendError::NoSpace { .. }) => return index - first,
                Err(error) => panic!("{error:?}"),
            }
        }
        unreachable!("a full disk refuses some day")
    };
    let taken = fill(&"filler ".repeat(100));
    fill("");
    taken
}

/// WAL-CASE 24
#[test]
fn a_full_disk_refuses_before_anything_is_taken_and_clears_by_itself() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    session.disk.set_capacity(Some(0));
    fill_the_disk(&mut session, L);
    // Up to the last eighth, which is not for entries. The smallest one takes 56 bytes, and 8 more in the index.
    let used = Scan::open_on(&session.disk, DIRECTORY).unwrap().segments()[0].used_bytes;
    let entries = session.life.world().log(L).last();
    let left = SEGMENT_BYTES - 2 * 4096 - SEGMENT_BYTES / 8 - (32 + 8 * entries) - used;
    assert!(left < 56 + 8, "the active segment still fills, {left} bytes are left");
    assert_eq!(&World::of(&session.wal), session.life.world(), "nothing was taken");
    acknowledge(&mut session, L, state("still taken"));

    session.disk.set_capacity(None);
    session.settle();
    let next = session.life.world().log(L).last() + 1;
    acknowledge(&mut session, L, append(next, 1, &["room"]));
    let (life, disk) = session.close();
    assert_eq!(&world(&disk), life.world());
}

/// WAL-CASE 24: the disk stays full, and the room that a compaction makes is the log's own.
#[test]
fn a_compaction_makes_room_on_a_disk_that_stays_full() {
    let mut session = start();
    fill_up_to(&mut session, L, 3);
    session.disk.set_capacity(Some(0));
    fill_the_disk(&mut session, L);
    for round in 0..4 {
        let last = session.life.world().log(L).last();
        acknowledge(&mut session, L, Operation::Compact { first: last });
        session.settle();
        let taken = fill_the_disk(&mut session, L);
        // One file is the active segment's, the others come free and are used again.
        assert!(taken >= 16, "round {round}: {taken} entries of 700 bytes are not two segments");
    }
    let (life, disk) = session.close();
    assert_eq!(&world(&disk), life.world());
}

/// WAL-CASE 24, for who has no threads: the call comes back though there is always something to try.
#[test]
fn all_work_is_done_on_a_full_disk_and_goes_on_when_a_compaction_has_made_room() {
    let disk = MemoryDisk::new();
    let wal = open(&disk).unwrap();
    let log = wal.log(L).unwrap();
    let push = || loop {
        match log.push("filler ".repeat(100)) {
            Ok((_, pending)) => return pending.wait().map_err(AppendError::from),
            Err(AppendError::Full { .. }) => drop(wal.work(Duration::ZERO)),
            Err(error) => return Err(error),
        }
    };
    while wal.statistics().segments < 3 {
        push().unwrap();
    }
    disk.set_capacity(Some(0));
    while push().is_ok() {}
    let refused = push().map(drop).unwrap_err();
    let AppendError::NoSpace { source } = &refused else { panic!("{refused:?}") };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
    assert!(refused.to_string().contains(", the file takes 16 KiB"), "{refused}");
    assert!(!wal.work(Duration::ZERO), "what fails is no work that was done");

    log.compact_before(log.last()).unwrap().wait().unwrap();
    assert!(wal.work(Duration::ZERO));
    assert!(!wal.work(Duration::ZERO), "everything was done");
    push().unwrap();
    log.push("nobody waits for it").map(drop).unwrap();
    assert!(wal.work(Duration::ZERO));
    assert_eq!(World::of(&open(&disk.image(NOTHING)).unwrap()), World::of(&wal));
}

/// WAL-CASE 24: also if states have taken what entries must leave alone.
#[test]
fn states_leave_room_for_the_compaction_that_makes_room() {
    let mut session = start();
    fill_up_to(&mut session, L, 3);
    session.disk.set_capacity(Some(0));
    fill_the_disk(&mut session, L);
    let mut states = 0;
    let refused = loop {
        match session.perform(L, &state("vote")) {
            Ok(()) => session.settle(),
            Err(error) => break error,
        }
        states += 1;
    };
    assert!(states > 5 && matches!(refused, AppendError::NoSpace { .. }), "{states}: {refused:?}");
    // The first frame of an opening takes room, too.
    let mut session = start_on(&session.kill().1);
    session.disk.set_capacity(Some(0));
    let last = session.life.world().log(L).last();
    acknowledge(&mut session, L, Operation::Compact { first: last });
    session.settle();
    assert!(fill_the_disk(&mut session, L) >= 8, "a segment came free");
}

/// WAL-CASE 25: also when the segment holds no more than what is kept free for this.
#[test]
fn a_log_opens_and_takes_a_state_on_a_full_disk() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["safe"]));
    session.disk.set_capacity(Some(0));
    assert!(fill_the_disk(&mut session, L) > 2);
    let (life, disk) = session.kill();
    let mut session = start_on(&disk);
    assert_eq!(session.life.world(), life.world());
    let next = session.life.world().log(L).last() + 1;
    let refused = session.perform(L, &append(next, 1, &[""]));
    assert!(refused.is_err(), "there is no room for entries");
    acknowledge(&mut session, L, state("vote"));
    let (life, disk) = session.kill();
    assert_eq!(&world(&disk.image(NOTHING)), life.world());
}

/// A log is made whole or not at all, and made once there is room.
#[test]
fn a_new_log_on_a_full_disk_is_none_until_there_is_room() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(0));
    let error = open(&disk).map(drop).unwrap_err();
    let OpenError::Io { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
    assert_eq!(files(&disk), []);
    // The first segment is a small one, whatever the others are.
    for (segment_bytes, needed) in [(64 << 20, "4 MiB"), (1 << 20, "1 MiB")] {
        let options = Wal::options().segment_bytes(segment_bytes).disk(Arc::new(disk.clone()));
        let error = options.open(DIRECTORY).unwrap_err().to_string();
        assert!(error.ends_with(&format!(", the file takes {needed}")), "{error}");
    }
    disk.set_capacity(None);
    let mut session = start_on(&disk);
    acknowledge(&mut session, L, append(1, 1, &["room"]));
}

/// WAL-CASE 40
#[test]
fn a_second_open_says_locked_until_the_last_view_is_gone() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["held"]));
    let disk = session.disk.clone();
    let locked = |disk: &MemoryDisk| matches!(open(disk), Err(OpenError::Locked { .. }));
    assert!(locked(&disk));
    let entry = session.wal.log(L).unwrap().read(1..2, 100).next().unwrap().unwrap();
    session.wal.close().unwrap();
    assert!(locked(&disk));
    drop(session);
    assert!(locked(&disk), "a view holds the lock (WAL-CASE 38)");
    assert_eq!(entry.bytes, "held");
    drop(entry);
    let wal = open(&disk).unwrap();
    assert!(disk.open_directory(Path::new(DIRECTORY), kontiki_disk::Access::Write).is_err());
    drop(wal);
}
