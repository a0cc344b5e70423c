//! Going on in the next segment, and what goes into one.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_disk::{MemoryDisk, memory::Kind};
use kontiki_wal::{
    AppendError, Log, LogId, Wal,
    inspect::{Scan, Verdict},
};

fn open(disk: &MemoryDisk) -> Wal {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    options.without_threads().open("log").unwrap()
}

/// Appends until an append is refused; how many were taken.
fn fill(log: &Log) -> usize {
    let mut taken = 0;
    loop {
        match log.push(vec![7; 500]) {
            Ok(_) => taken += 1,
            Err(AppendError::Full { .. } | AppendError::LogFull { .. }) => return taken,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_rotation_that_had_to_wait_is_counted_once_and_one_that_had_not_is_not_counted() {
    let options = Wal::options().segment_bytes(64 << 10).without_threads();
    let wal = options.disk(Arc::new(MemoryDisk::new())).open("log").expect("a fresh log");
    let log = wal.log(LogId(1)).expect("an open log");
    assert!(fill(&log) > 10);
    assert_eq!(fill(&log) + fill(&log), 0, "the next segment is not ready");
    assert_eq!(wal.statistics().rotation_waits, 1);

    wal.work(Duration::ZERO);
    while wal.statistics().segments < 4 {
        drop(log.push(vec![7; 500]).unwrap());
        wal.work(Duration::ZERO);
    }
    assert_eq!(wal.statistics().rotation_waits, 1, "the successors were made ahead");

    fill(&log);
    assert_eq!(wal.statistics().rotation_waits, 2);
}

/// Its pages are the likeliest to be in the cache still. Three are freed at once, of which two are kept; or two and then a third,
/// in whose place the oldest goes.
#[test]
fn what_was_freed_last_is_kept_and_used_first() {
    for is_in_two_steps in [false, true] {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        let log = wal.log(LogId(1)).unwrap();
        let append = |segments: u64| {
            while wal.statistics().segments < segments {
                drop(log.push(vec![7; 500]).unwrap());
                while wal.work(Duration::ZERO) {}
            }
            log.last()
        };
        let compact = |first| {
            drop(log.compact_before(first).unwrap());
            while wal.work(Duration::ZERO) {}
        };
        let first_of_third = append(3);
        let last = append(4);
        if is_in_two_steps {
            compact(first_of_third);
        }
        compact(last + 1);
        disk.start_trace();
        append(4);
        let renames = disk.take_trace().into_iter().filter(|done| done.kind == Kind::Rename);
        let used: Vec<String> =
            renames.map(|done| done.name).filter(|name| name.ends_with(".spare")).collect();
        assert_eq!(used, ["0000000000000003.spare", "0000000000000002.spare"]);
    }
}

/// At the bound of all segments, where only upkeep goes on in one more.
#[test]
fn a_rotation_by_upkeep_ends_the_wait_of_entries_and_the_next_wait_is_counted() {
    let options = Wal::options().segment_bytes(16 << 10).log_bytes_max(64 << 10).without_threads();
    let wal = options.disk(Arc::new(MemoryDisk::new())).open("log").expect("a fresh log");
    let log = wal.log(LogId(1)).expect("an open log");
    while fill(&log) > 0 {
        wal.work(Duration::ZERO);
    }
    let segments = wal.statistics().segments;
    assert_eq!(segments, 4, "as many as the bound has room for");
    while log.set_state(vec![1; 2000]).is_ok() {}
    wal.work(Duration::ZERO);
    assert_eq!(fill(&log), 0, "the one more is not for entries, which wait");
    while wal.statistics().segments == segments {
        drop(log.set_state(vec![1; 2000]).expect("upkeep goes on in it"));
    }

    let waits = wal.statistics().rotation_waits;
    assert!(fill(&log) > 0, "in what upkeep left of it");
    assert_eq!(wal.statistics().rotation_waits, waits + 1);
}

/// Sets states of 8 bytes, in frames of 56, and where these leave room for compactions resets another log, in frames of 48, until
/// there is no room or there are `most` frames; how many were taken.
fn fill_with_frames(wal: &Wal, most: u64) -> u64 {
    let (log, other) = (wal.log(LogId(1)).unwrap(), wal.log(LogId(2)).unwrap());
    for number in 0..most {
        let taken = match log.set_state(number.to_le_bytes().to_vec()) {
            Err(AppendError::Full { .. }) => other.reset(number + 2, 1),
            taken => taken,
        };
        match taken {
            Ok(pending) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => return number,
            Err(error) => panic!("{error}"),
        }
    }
    most
}

/// A log that goes on in its second segment, behind so many bytes of state, and then with at most so many frames more.
fn in_a_second_segment(length: usize, frames: u64) -> (MemoryDisk, Wal, u64) {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < 2 {
        wal.work(Duration::ZERO);
        log.push(vec![7; 500]).unwrap().1.wait().unwrap();
    }
    log.set_state(vec![1; length]).unwrap().wait().unwrap();
    let taken = fill_with_frames(&wal, frames);
    (disk, wal, taken)
}

/// WAL-CASE 30, behind a rotation, where the segment has an index from its first frame on, and behind an opening, whose
/// first frame goes in front.
#[test]
fn frames_may_end_anywhere_around_the_end_of_a_later_segment_and_of_an_opened_one() {
    let state =
        |wal: &Wal| (wal.log(LogId(1)).unwrap().state(), wal.log(LogId(2)).unwrap().first());
    for length in (0..56).step_by(8) {
        let (_, _, most) = in_a_second_segment(length, u64::MAX);
        for frames in most - 2..=most {
            let (disk, wal, _) = in_a_second_segment(length, frames);
            let cut = disk.image(|_| false);
            let opened = open(&cut);
            assert_eq!(state(&opened), state(&wal), "{length}, {frames} frames");
            fill_with_frames(&opened, u64::MAX);
            let again = open(&cut.image(|_| false));
            assert_eq!(state(&again), state(&opened), "{length}, {frames} frames");
        }
    }
}

/// What is dead then is freed when there is a segment for the frame that says so.
#[test]
fn a_compaction_that_fills_a_segment_leaves_no_room_for_freeing_and_is_taken() {
    for length in (0..56).step_by(8) {
        let (_, _, most) = in_a_second_segment(length, u64::MAX);
        let (_, wal, _) = in_a_second_segment(length, most - 1);
        let log = wal.log(LogId(1)).unwrap();
        log.compact_before(log.last() + 1).expect("a frame of 48 bytes fits").wait().unwrap();
        assert_eq!(wal.statistics().segments, 2, "the frame of 56 bytes has no room");
        wal.work(Duration::ZERO);
        assert_eq!(wal.statistics().segments, 1, "a new one came, the others went");
    }
}

/// So many as the frame that says so has room for; the others where the log goes on.
#[test]
fn a_compaction_that_leaves_little_room_frees_some_segments_at_once() {
    let filled = |frames| {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        let log = wal.log(LogId(1)).unwrap();
        while wal.statistics().segments < 30 {
            wal.work(Duration::ZERO);
            log.push(vec![7; 4000]).unwrap().1.wait().unwrap();
        }
        let taken = fill_with_frames(&wal, frames);
        (disk, wal, taken)
    };
    let (_, _, most) = filled(u64::MAX);
    let (disk, wal, _) = filled(most - 4);
    let log = wal.log(LogId(1)).unwrap();
    log.compact_before(log.last() + 1).unwrap().wait().unwrap();
    let left = wal.statistics().segments;
    assert!((12..=18).contains(&left), "{left} segments of 30 are left");
    while wal.work(Duration::ZERO) {}
    assert_eq!(wal.statistics().segments, 1, "the others went");
    let again = open(&disk.image(|_| false)).log(LogId(1)).unwrap();
    assert_eq!((again.first(), again.last()), (log.first(), log.last()));
}

/// Two marks have their place behind the last frame whatever it is, also the one that ends where frames can end at all.
#[test]
fn the_marks_of_an_idle_log_and_of_its_close_have_room_in_a_full_segment() {
    let mut ends = BTreeSet::new();
    for length in (0..56).step_by(8) {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        let log = wal.log(LogId(1)).unwrap();
        log.set_state(vec![1; length]).unwrap().wait().unwrap();
        fill_with_frames(&wal, u64::MAX);
        for now in [0, 60] {
            wal.work(Duration::from_millis(now));
        }
        wal.close().unwrap();
        drop((log, wal));
        let scan = Scan::open_on(&disk, "log").unwrap();
        let verdict = scan.verdict();
        assert!(matches!(verdict, Verdict::Whole { closed: true, .. }), "{length}: {verdict:?}");
        ends.insert(4096 + scan.segments()[0].used_bytes);
        assert_opens_without_a_write(&disk);
    }
    assert_eq!(ends.last(), Some(&((16 << 10) - 4096)), "{ends:?}");
}

fn assert_opens_without_a_write(disk: &MemoryDisk) {
    disk.start_trace();
    drop(open(disk));
    let mut trace = disk.take_trace();
    trace.retain(|operation| operation.kind != Kind::SyncDirectory);
    assert_eq!(trace, []);
}

/// WAL-CASE 45: segments that are not sealed yet are walked by the next opening, and that is all.
#[test]
fn a_clean_close_before_segments_were_sealed_leaves_nothing_to_repair() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < 3 {
        match log.push(vec![7; 500]) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => {
                let job = wal.begin_segment().unwrap();
                let result = job.run();
                wal.finish_segment(job, result);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(wal.statistics().sealed_segments, 0);
    let last = log.last();
    wal.close().unwrap();
    drop((log, wal));
    let verdict = Scan::open_on(&disk, "log").unwrap().verdict().clone();
    assert!(matches!(verdict, Verdict::Whole { closed: true, .. }), "{verdict:?}");
    assert_opens_without_a_write(&disk);
    assert_eq!(open(&disk).log(LogId(1)).unwrap().last(), last);
}

/// The refusal says how much a whole call may take, to the byte: what a segment has left behind its checkpoint.
#[test]
fn a_call_fills_a_fresh_segment_to_its_end_and_not_beyond() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    for id in 2..5 {
        wal.log(LogId(id)).unwrap().set_state(vec![1; 200]).unwrap().wait().unwrap();
    }
    wal.log(LogId(2)).unwrap().push(vec![7; 4000]).unwrap().1.wait().unwrap();
    wal.work(Duration::ZERO);
    let log = wal.log(LogId(1)).unwrap();
    // Three frames, each of 52 bytes more than its entry.
    let call = |last| log.append(1, 1, &[2604, 2604, last].map(|length| vec![7; length].into()));
    let AppendError::TooLarge { bytes, limit } = call(3004).map(drop).unwrap_err() else {
        panic!("three quarters of a segment are too much")
    };
    // Four logs, three of them with a state and two with a run of terms, behind one run of segments.
    let checkpoint = 8 + 16 + 4 * 36 + 3 * 200 + 2 * 16;
    let kept = 2 * 4096 + (48 + 32) + (48 + checkpoint) + 2 * 48 + (32 + 3 * 8);
    assert_eq!(limit, (16 << 10) - kept, "pages, first frames, marks and index");
    let last = 3004 - (bytes - limit);
    let refused = call(last + 8).map(drop).unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { bytes, .. } if bytes == limit + 8));
    call(last).expect("exactly what the refusal says").wait().unwrap();
    assert_eq!(wal.statistics().segments, 2);
    let log = open(&disk.image(|_| false)).log(LogId(1)).unwrap();
    let read: Vec<Bytes> = log.read(1..9, usize::MAX).map(|entry| entry.unwrap().bytes).collect();
    assert_eq!(read.iter().map(Bytes::len).collect::<Vec<_>>(), [2604, 2604, last]);
}
