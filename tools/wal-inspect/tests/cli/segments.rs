//! `segments`: what each segment holds, and that it adds up.

use std::{fs, time::Duration};

use bytes::Bytes;
use kontiki_wal::{
    LogId,
    inspect::{FrameKind, Scan},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, append, check_golden, closed_log, copy_of, crashed_log, entries_frames, files,
    flip_bit, json, number, options, wal_inspect,
};

#[test]
fn the_golden_logs_are_shown_as_ever() {
    check_golden("segments", "closed");
    check_golden("segments", "killed");
}

/// Live and dead entries side by side in one frame.
#[test]
fn a_frame_of_which_a_part_lives_is_live_but_for_its_dead_entries() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let entries: Vec<Bytes> = (1..=9).map(|length| Bytes::from(vec![b'x'; length * 10])).collect();
    log.append(1, 1, &entries).unwrap().wait().unwrap();
    let live = |directory: &TempDir| {
        let rows = json("segments", copy_of(directory.path()).path());
        (number(&rows[0], "live_bytes"), number(&rows[0], "dead_bytes"))
    };
    let frame_bytes = (HEADER_BYTES + 9 * 4 + 450_u64).next_multiple_of(8);
    assert_eq!(live(&directory), (frame_bytes, 0));
    log.compact_before(4).unwrap().wait().unwrap();
    assert_eq!(live(&directory), (frame_bytes - 60, 60));
    log.truncate_after(7).unwrap().wait().unwrap();
    assert_eq!(live(&directory), (frame_bytes - 230, 230));
    // Replaced by a frame of its own.
    log.append(6, 2, &[Bytes::from_static(&[b'y'; 12])]).unwrap().wait().unwrap();
    let other_bytes = HEADER_BYTES + 4 + 12;
    assert_eq!(live(&directory), (frame_bytes - 360 + other_bytes, 360));
    log.compact_before(6).unwrap().wait().unwrap();
    assert_eq!(live(&directory), (other_bytes, frame_bytes));
}

/// What is neither live, dead nor free is counted here by other means.
#[test]
fn the_bytes_of_a_segment_add_up_to_its_length() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    for round in 0..30 {
        for log in [1, 2] {
            let log = wal.log(LogId(log)).unwrap();
            append(&log, 1, 30);
            if round % 7 == 6 {
                log.truncate_after(log.last() - 40).unwrap().wait().unwrap();
            }
            wal.work(Duration::ZERO);
        }
    }
    let copy = copy_of(directory.path());
    let rows = json("segments", copy.path());
    let scan = Scan::open(copy.path()).unwrap();
    for summary in scan.segments() {
        let row = rows.iter().find(|row| row["file"] == summary.file.as_str()).unwrap();
        let others = scan.segment_frames(summary.sequence).map(Result::unwrap);
        let others = others.filter(|frame| frame.kind != FrameKind::Entries);
        let others: u64 = others.map(|frame| frame.frame_bytes).sum();
        let pages = 2 * 4096 + summary.index_bytes;
        assert_eq!(number(row, "own_bytes"), pages + others, "{row}");
        let parts = ["live_bytes", "dead_bytes", "own_bytes", "free_bytes"];
        let sum: u64 = parts.iter().map(|part| number(row, part)).sum();
        assert_eq!(sum, number(row, "bytes"), "{row}");
        assert_eq!(
            number(row, "bytes"),
            fs::metadata(copy.path().join(&summary.file)).unwrap().len()
        );
    }
    let sealed = rows.iter().filter(|row| row["standing"] == "sealed").count();
    assert!(sealed >= 3, "{rows:?}");
}

/// Nobody knows whose they are: entries that keep the segment can be among them.
#[test]
fn bytes_behind_damage_are_of_nobody_and_add_up_with_the_others() {
    let log = closed_log();
    let frame = entries_frames(log.path()).remove(1);
    for ahead in [24, 33] {
        flip_bit(log.path(), &frame, ahead);
    }
    // The room for frames of a segment that is not full ends where its trailer page is to be.
    let unread_bytes = (12 << 10) - frame.offset;
    let rows = ["segments", "stats"].map(|command| {
        let run = wal_inspect([command, log.path().to_str().unwrap(), "--json"]);
        assert_eq!(run.code, Some(2), "{run:?}");
        let row: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
        assert_eq!(number(&row, "unread_bytes"), unread_bytes, "{row}");
        let parts = ["live_bytes", "dead_bytes", "own_bytes", "unread_bytes", "free_bytes"];
        assert_eq!(parts.iter().map(|part| number(&row, part)).sum::<u64>(), 16 << 10, "{row}");
        row
    });
    assert_eq!(number(&rows[0], "own_bytes"), number(&rows[1], "own_bytes"));
    let run = wal_inspect(["segments", log.path().to_str().unwrap()]);
    let picture = run.stdout.lines().find(|line| line.starts_with("1 ")).unwrap();
    let cells = picture.len() as u64 - 2;
    let seen = picture.chars().filter(|&c| c == '?').count() as u64;
    assert!(seen.abs_diff(unread_bytes * cells / (16 << 10)) <= 1, "{seen}: {picture}");

    // Of a file whose header page does not hold nothing is read at all.
    fs::write(log.path().join(&frame.file), [7; 5000]).unwrap();
    let run = wal_inspect(["segments", log.path().to_str().unwrap(), "--json"]);
    let row: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
    let bytes = ["bytes", "unread_bytes", "own_bytes"].map(|field| number(&row, field));
    assert_eq!(bytes, [5000, 5000, 0], "{row}");
}

/// The picture is of the same bytes as the row.
#[test]
fn the_picture_shows_shares_as_the_row_has_them() {
    let directory = TempDir::new().unwrap();
    let wal = options().segment_bytes(256 << 10).open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    for _ in 0..60 {
        log.push(vec![7; 2000]).unwrap().1.wait().unwrap();
    }
    log.compact_before(31).unwrap().wait().unwrap();
    let copy = copy_of(directory.path());
    let rows = json("segments", copy.path());
    let run = wal_inspect(["segments", copy.path().to_str().unwrap()]);
    let picture = run.stdout.lines().find(|line| line.starts_with("1 ")).unwrap();
    let cells = picture.len() as u64 - 2;
    for (field, characters) in [("live_bytes", "#+"), ("dead_bytes", "x"), ("free_bytes", ".")] {
        let seen = picture.chars().filter(|&c| characters.contains(c)).count() as u64;
        let expected = number(&rows[0], field) * cells / number(&rows[0], "bytes");
        assert!(seen.abs_diff(expected) <= 1, "{field}: {seen}, not {expected}: {picture}");
    }
}

#[test]
fn what_no_later_frame_attests_is_told() {
    let unattested = |directory: &TempDir| {
        let rows = json("segments", directory.path());
        number(&rows[0], "unattested_bytes")
    };
    // The last group of a crashed log: what is behind the frame before it.
    let crashed = crashed_log();
    let last = entries_frames(crashed.path()).pop().unwrap();
    assert_eq!(unattested(&crashed), last.frame_bytes);
    // The mark of a close attests everything but itself.
    assert_eq!(unattested(&closed_log()), HEADER_BYTES);
}

/// What opening cuts off is in no log, and its place is free.
#[test]
fn a_torn_tail_is_free_space() {
    let log = crashed_log();
    let before = json("segments", log.path());
    let last = entries_frames(log.path()).pop().unwrap();
    flip_bit(log.path(), &last, HEADER_BYTES + 25);
    let run = wal_inspect(["segments", "--json", log.path().to_str().unwrap()]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stderr.contains("torn tail at segment"), "{run:?}");
    let after: Value = serde_json::from_str(run.stdout.lines().next().unwrap()).unwrap();
    let grown = number(&after, "free_bytes") - number(&before[0], "free_bytes");
    assert_eq!(grown, last.frame_bytes, "{after}");
    assert_eq!((number(&after, "entries"), number(&after, "dead_bytes")), (10, 0), "{after}");
}

#[test]
fn a_corrupt_log_is_shown_and_ends_with_2() {
    let log = crashed_log();
    flip_bit(log.path(), &entries_frames(log.path())[0], HEADER_BYTES + 45);
    let before = files(log.path());
    for command in ["segments", "stats"] {
        let run = wal_inspect([command, log.path().to_str().unwrap()]);
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.starts_with("wal-inspect: corrupt: segment "), "{run:?}");
        assert!(!run.stdout.is_empty(), "{run:?}");
    }
    assert_eq!(files(log.path()), before);
}

#[test]
fn the_data_directory_of_a_node_is_taken_and_an_empty_one_is_no_log() {
    let data = TempDir::new().unwrap();
    for command in ["segments", "stats"] {
        let run = wal_inspect([command, data.path().to_str().unwrap()]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    }
    fs::rename(closed_log().path(), data.path().join("wal")).unwrap();
    for command in ["segments", "stats"] {
        let run = wal_inspect([command, data.path().to_str().unwrap()]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stderr.starts_with("wal-inspect: looking into "), "{run:?}");
    }
}

/// Files that are made ahead, or kept, beside the segments.
#[test]
fn every_file_has_a_row_that_says_what_it_is() {
    let log = closed_log();
    let segment = log.path().join("0000000000000001.wal");
    fs::copy(&segment, log.path().join("0000000000000009.spare")).unwrap();
    for (name, length) in [("000000000000000a.new", 0), ("000000000000000b.new", 20)] {
        fs::write(log.path().join(name), vec![0; length]).unwrap();
    }
    fs::write(log.path().join("notes.txt"), "mine").unwrap();
    let rows = json("segments", log.path());
    let standings: Vec<_> = rows.iter().map(|row| (&row["segment"], &row["standing"])).collect();
    let expected = [(1, "active"), (9, "spare"), (10, "preparing"), (11, "preparing")];
    let expected = expected.map(|(number, name)| (Value::from(number), Value::from(name)));
    assert!(standings.into_iter().eq(expected.iter().map(|(a, b)| (a, b))), "{rows:?}");
}
