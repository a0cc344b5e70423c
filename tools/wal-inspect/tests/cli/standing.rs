//! What `segments` and `stats` call the segments of a damaged log: nothing that may be needed is said to be free or freed.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use kontiki_wal::{
    AppendError, Log, LogId, Wal,
    inspect::{Frame, Scan},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{copy_of, flip_bit, number, options, wal_inspect};

/// What is damaged, and what each segment is then.
struct Case {
    what: &'static str,
    log: fn() -> TempDir,
    damage: fn(&Path),
    standings: &'static [(u64, &'static str)],
}

const CASES: [Case; 11] = [
    Case {
        what: "nothing",
        log: four_sealed,
        damage: |_| (),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, SEALED),
            (4, SEALED),
            (5, ACTIVE),
            (6, PREPARED),
        ],
    },
    Case {
        what: "the header page of a sealed one",
        log: four_sealed,
        damage: |log| flip_byte(log, 3, 100),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, DAMAGED),
            (4, SEALED),
            (5, ACTIVE),
            (6, PREPARED),
        ],
    },
    Case {
        what: "the header page of the active one",
        log: four_sealed,
        damage: |log| flip_byte(log, 5, 100),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, SEALED),
            (4, SEALED),
            (5, DAMAGED),
            (6, PREPARED),
        ],
    },
    Case {
        what: "the header page of a sealed one, and the checkpoint's body of the active one",
        log: four_sealed,
        damage: |log| {
            // The body of the checkpoint, behind 80 bytes of the segment's start and the header of its own.
            flip_byte(log, 5, 4096 + 80 + 50);
            flip_byte(log, 4, 100);
        },
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, SEALED),
            (4, DAMAGED),
            (5, DAMAGED),
            (6, PREPARED),
        ],
    },
    Case {
        what: "the header of a frame in the middle of a sealed one",
        log: four_sealed,
        damage: |log| flip_header(log, 3, 4),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, DAMAGED),
            (4, SEALED),
            (5, ACTIVE),
            (6, PREPARED),
        ],
    },
    Case {
        what: "the first frame of a sealed one",
        log: four_sealed,
        damage: |log| flip_header(log, 3, 0),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, DAMAGED),
            (4, SEALED),
            (5, ACTIVE),
            (6, PREPARED),
        ],
    },
    Case {
        what: "the checkpoint of the one behind the newest sealed one",
        log: four_sealed,
        damage: |log| flip_header(log, 5, 1),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, SEALED),
            (4, SEALED),
            (5, DAMAGED),
            (6, PREPARED),
        ],
    },
    Case {
        what: "nothing, but the power went before the first frames behind a seal",
        log: four_sealed,
        damage: |log| clear_frames(log, 5),
        standings: &[
            (1, SEALED),
            (2, SEALED),
            (3, SEALED),
            (4, SEALED),
            (5, PREPARED),
            (6, PREPARED),
        ],
    },
    Case { what: "nothing", log: two_full, damage: |_| (), standings: &[(1, "full"), (2, ACTIVE)] },
    Case {
        what: "the header of a frame in the middle of a full one",
        log: two_full,
        damage: |log| flip_header(log, 1, 4),
        standings: &[(1, DAMAGED), (2, ACTIVE)],
    },
    Case {
        what: "the checkpoint of the one behind freed ones",
        log: middle_freed,
        damage: |log| flip_header(log, newest(log), 1),
        standings: &[(1, SEALED), (6, DAMAGED), (7, PREPARED)],
    },
];

const SEALED: &str = "sealed";
const DAMAGED: &str = "damaged";
const UNKNOWN: &str = "unknown";
const ACTIVE: &str = "active";
const PREPARED: &str = "prepared";

#[test]
fn a_segment_of_a_damaged_log_is_said_to_be_what_it_is() {
    for case in CASES {
        let log = (case.log)();
        (case.damage)(log.path());
        let rows = rows("segments", log.path());
        let segments: Vec<&Value> =
            rows.iter().filter(|row| row["file"].as_str().unwrap().ends_with(".wal")).collect();
        let standings =
            segments.iter().map(|row| (number(row, "segment"), row["standing"].as_str().unwrap()));
        assert_eq!(standings.collect::<Vec<_>>(), case.standings, "{}", case.what);
        for row in segments {
            let is_unread = [DAMAGED, UNKNOWN].contains(&row["standing"].as_str().unwrap());
            assert_eq!(number(row, "unread_bytes") > 0, is_unread, "{}: {row}", case.what);
            assert_eq!(number(row, "free_bytes") == 0, is_unread, "{}: {row}", case.what);
            let parts = ["live_bytes", "dead_bytes", "own_bytes", "unread_bytes", "free_bytes"];
            let sum: u64 = parts.iter().map(|part| number(row, part)).sum();
            assert_eq!(sum, number(row, "bytes"), "{}: {row}", case.what);
        }
    }
}

/// Entries of another log can lie behind the damage.
#[test]
fn no_log_alone_keeps_a_segment_that_was_not_read_to_its_end() {
    let alone = |log: &TempDir| {
        let rows = rows("stats", log.path());
        let logs = rows.into_iter().filter(|row| row["row"] == "log");
        logs.map(|row| (number(&row, "pinned_segments"), number(&row, "alone_segments")))
            .collect::<Vec<_>>()
    };
    let log = four_sealed();
    assert_eq!(alone(&log), [(5, 0), (5, 0)]);
    // Start, checkpoint, a frame of log 1: then one of log 2.
    let frame = frames(log.path(), 3).remove(3);
    assert_eq!(frame.log, LogId(2));
    flip_bit(log.path(), &frame, 20);
    assert_eq!(alone(&log), [(5, 0), (4, 0)]);
}

/// Logs 1 and 2 side by side in five segments.
fn four_sealed() -> TempDir {
    written(|wal, one, two| {
        while wal.statistics().sealed_segments < 4 {
            append(wal, one);
            append(wal, two);
        }
        // So that the first frames of the newest one are attested.
        append(wal, one);
        append(wal, two);
    })
}

/// Two segments, of which neither is sealed.
fn two_full() -> TempDir {
    written(|wal, one, two| {
        while push(one) && push(two) {}
        // The next one is prepared; only then is there one to seal.
        while wal.work(Duration::ZERO) {}
        while push(one) && push(two) {}
    })
}

/// Log 2 keeps the first of six segments; those between it and the newest are gone.
fn middle_freed() -> TempDir {
    written(|wal, one, two| {
        append(wal, two);
        while wal.statistics().sealed_segments < 5 {
            append(wal, one);
        }
        one.compact_before(one.last()).unwrap().wait().unwrap();
        for _ in 0..3 {
            append(wal, one);
        }
    })
}

/// As a crash leaves it, without any thread's doing.
fn written(write: impl Fn(&Wal, &Log, &Log)) -> TempDir {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let [one, two] = [1, 2].map(|log| wal.log(LogId(log)).unwrap());
    write(&wal, &one, &two);
    copy_of(directory.path())
}

/// Appends an entry once the next segment is prepared and the last one sealed.
fn append(wal: &Wal, log: &Log) {
    while wal.work(Duration::ZERO) {}
    assert!(push(log));
    while wal.work(Duration::ZERO) {}
}

/// Appends an entry; false if no prepared segment has room for it.
fn push(log: &Log) -> bool {
    match log.push(Bytes::from(vec![b'x'; 1000])) {
        Ok((_, pending)) => pending.wait().is_ok(),
        Err(AppendError::Full { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

/// The lines of `wal-inspect COMMAND DIRECTORY --json`, however the log is.
fn rows(command: &str, directory: &Path) -> Vec<Value> {
    let run = wal_inspect([command, directory.to_str().unwrap(), "--json"]);
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn frames(directory: &Path, segment: u64) -> Vec<Frame> {
    Scan::open(directory).unwrap().segment_frames(segment).map(Result::unwrap).collect()
}

/// Flips a bit in the header of frame `number` of a segment.
fn flip_header(directory: &Path, segment: u64, number: usize) {
    flip_bit(directory, &frames(directory, segment)[number], 20);
}

fn flip_byte(directory: &Path, segment: u64, offset: usize) {
    change(directory, segment, |bytes| bytes[offset] ^= 1);
}

/// As the segment was when it was prepared.
fn clear_frames(directory: &Path, segment: u64) {
    change(directory, segment, |bytes| bytes[4096..].fill(0));
}

fn change(directory: &Path, segment: u64, change: impl Fn(&mut [u8])) {
    let path = directory.join(format!("{segment:016x}.wal"));
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The newest segment with frames.
fn newest(directory: &Path) -> u64 {
    Scan::open(directory)
        .unwrap()
        .frames()
        .map(Result::unwrap)
        .map(|frame| frame.segment)
        .max()
        .unwrap()
}
