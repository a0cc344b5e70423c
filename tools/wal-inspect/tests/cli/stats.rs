//! `stats`: its numbers against those that the test has counted itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Pending, Wal};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{check_golden, copy_of, entries_frames, json, number, options, wal_inspect};

#[test]
fn the_golden_logs_are_counted_as_ever() {
    check_golden("stats", "closed");
    check_golden("stats", "killed");
}

/// What was done to a log, and how long the entries are that it must have now.
#[derive(Default)]
struct Counted {
    /// Length of each entry by log and index.
    live: BTreeMap<u32, BTreeMap<u64, u64>>,
    appended: u64,
    appended_bytes: u64,
}

const LOGS: [u32; 4] = [1, 2, 3, 40_000];

/// Every way to add and remove entries, over and over; the fourth log is forgotten at last.
fn write(wal: &Wal, rounds: u64) -> Counted {
    let mut counted = Counted::default();
    for round in 0..rounds {
        for number in LOGS {
            let log = wal.log(LogId(number)).unwrap();
            let entries = counted.live.entry(number).or_default();
            let count = 1 + round % 5;
            let first = log.last() + 1
                - if round % 4 == 3 { (round % 3).min(log.last() + 1 - log.first()) } else { 0 };
            let bodies: Vec<Bytes> = (0..count)
                .map(|ahead| {
                    Bytes::from(vec![b'x'; usize::try_from(round * 37 % 300 + ahead).unwrap()])
                })
                .collect();
            settle(wal, || log.append(first, round + 1, &bodies));
            entries.retain(|&index, _| index < first);
            for (index, body) in (first..).zip(&bodies) {
                entries.insert(index, body.len() as u64);
                counted.appended += 1;
                counted.appended_bytes += body.len() as u64;
            }
            remove(wal, &log, entries, round + u64::from(number));
        }
    }
    let forgotten = wal.log(LogId(LOGS[3])).unwrap();
    settle(wal, || forgotten.forget());
    counted.live.remove(&LOGS[3]);
    counted
}

/// Takes some entries away in one way or another, or none.
fn remove(wal: &Wal, log: &Log, entries: &mut BTreeMap<u64, u64>, choice: u64) {
    let (first, last) = (log.first(), log.last());
    match choice % 9 {
        2 if last > first => {
            settle(wal, || log.truncate_after(last - 1));
            entries.retain(|&index, _| index < last);
        }
        5 => {
            let kept = first + (last + 1 - first) / 2;
            settle(wal, || log.compact_before(kept));
            entries.retain(|&index, _| index >= kept);
        }
        7 if choice.is_multiple_of(4) => {
            let term = log.term(last).unwrap();
            settle(wal, || log.reset(last + 10, term));
            entries.clear();
        }
        _ => {}
    }
}

/// Does what is asked, with the work on segments that must come first, and waits for it.
fn settle(wal: &Wal, mut ask: impl FnMut() -> Result<Pending, AppendError>) {
    loop {
        match ask() {
            Ok(pending) => return pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The row of a log.
fn log_row(rows: &[Value], log: u32) -> &Value {
    rows.iter().find(|row| row["row"] == "log" && row["log"] == log).unwrap()
}

fn row<'a>(rows: &'a [Value], name: &str) -> &'a Value {
    rows.iter().find(|row| row["row"] == name).unwrap()
}

fn check_live(rows: &[Value], counted: &Counted) {
    for (&log, entries) in &counted.live {
        let row = log_row(rows, log);
        assert_eq!(number(row, "live_entries"), entries.len() as u64, "{row}");
        assert_eq!(row["first_index"].as_u64(), entries.first_key_value().map(|entry| *entry.0));
        assert_eq!(row["last_index"].as_u64(), entries.last_key_value().map(|entry| *entry.0));
    }
    let forgotten = log_row(rows, LOGS[3]);
    assert_eq!((number(forgotten, "live_entries"), &forgotten["last_index"]), (0, &Value::Null));
}

/// Nothing is freed: all that was ever appended is there.
#[test]
fn entries_and_syncs_are_counted_right() {
    let directory = TempDir::new().unwrap();
    let wal = options().segment_bytes(4 << 20).open(directory.path()).unwrap();
    let counted = write(&wal, 60);
    let syncs = wal.statistics().syncs;
    assert_eq!(wal.statistics().segments, 1);
    let rows = json("stats", copy_of(directory.path()).path());

    check_live(&rows, &counted);
    let logs = || rows.iter().filter(|row| row["row"] == "log");
    let sum = |field: &str| logs().map(|row| number(row, field)).sum::<u64>();
    assert_eq!(sum("live_entries") + sum("dead_entries"), counted.appended);
    let entries = row(&rows, "entry_bytes");
    assert_eq!(number(entries, "count"), counted.appended);
    assert_eq!(number(entries, "sum"), counted.appended_bytes);
    let frames = entries_frames(directory.path());
    let frame_bytes = row(&rows, "frame_bytes");
    assert_eq!(number(frame_bytes, "count"), frames.len() as u64);
    assert_eq!(
        number(frame_bytes, "sum"),
        frames.iter().map(|frame| frame.frame_bytes).sum::<u64>()
    );
    assert_eq!(sum("live_bytes") + sum("dead_bytes"), number(frame_bytes, "sum"));
    let all = row(&rows, "segments");
    assert_eq!(number(all, "live_bytes"), sum("live_bytes"));
    assert_eq!(number(all, "dead_bytes"), sum("dead_bytes"));
    for group in ["group_frames", "group_bytes"] {
        assert_eq!(number(row(&rows, group), "count"), syncs, "{group}");
    }
}

/// Many segments, some of them freed: who keeps which is what the log itself says, and what really happens.
#[test]
fn who_pins_what_is_what_the_log_says() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    // The log that nobody compacts, in a few segments only.
    for _ in 0..12 {
        settle(&wal, || {
            wal.log(LogId(7)).unwrap().push(vec![b'p'; 1500]).map(|(_, pending)| pending)
        });
    }
    let mut counted = write(&wal, 120);
    wal.work(Duration::ZERO);
    counted.live.insert(7, (1..=12).map(|index| (index, 1500)).collect());
    let (rows, segments) = (json("stats", directory.path()), json("segments", directory.path()));
    check_live(&rows, &counted);
    let laggards = wal.laggards();
    assert!(laggards.len() == 4 && laggards[0].log == LogId(7), "{laggards:?}");
    for laggard in &laggards {
        let row = log_row(&rows, laggard.log.0);
        assert_eq!(number(row, "oldest_segment"), laggard.oldest_segment, "{row}");
        assert_eq!(number(row, "pinned_bytes"), laggard.bytes, "{row}");
        let log = Value::from(laggard.log.0);
        let pinned =
            segments.iter().filter(|row| row["pinned_by"].as_array().unwrap().contains(&log));
        assert_eq!(pinned.map(|row| number(row, "bytes")).sum::<u64>(), laggard.bytes, "{row}");
    }

    // Only this log's segments go when it is compacted to its end, and as many as was said.
    let alone = number(log_row(&rows, 7), "alone_segments");
    assert!(
        alone >= 1 && number(log_row(&rows, 7), "alone_bytes") == alone * (16 << 10),
        "{rows:?}"
    );
    let files = |rows: &[Value]| {
        let is_full = |row: &&Value| row["standing"] == "sealed" || row["standing"] == "full";
        rows.iter().filter(is_full).map(|row| row["file"].to_string()).collect::<BTreeSet<_>>()
    };
    settle(&wal, || wal.log(LogId(7)).unwrap().compact_before(13));
    wal.work(Duration::ZERO);
    let left = files(&json("segments", directory.path()));
    let gone = files(&segments).difference(&left).count() as u64;
    assert_eq!(gone, alone, "{segments:?}");
}

#[test]
fn groups_of_several_appends_are_told_from_single_ones() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let push = || log.push("x").unwrap().1;
    push().wait().unwrap();
    for together in [1, 5, 5] {
        let pending: Vec<Pending> = (0..together).map(|_| push()).collect();
        pending.into_iter().for_each(|pending| pending.wait().unwrap());
    }
    // An idle mark is part of no group until one begins with it.
    wal.work(Duration::ZERO);
    assert!(wal.work(Duration::from_secs(1)));
    let groups = |directory: &TempDir| {
        let rows = json("stats", copy_of(directory.path()).path());
        let group = row(&rows, "group_frames");
        (number(group, "count"), number(group, "sum"), number(group, "max"))
    };
    // The first group begins with the segment's two frames.
    assert_eq!(groups(&directory), (4, 3 + 1 + 5 + 5, 5));
    push().wait().unwrap();
    assert_eq!(groups(&directory), (5, 3 + 1 + 5 + 5 + 2, 5));
}

#[test]
fn a_log_without_entries_has_no_sizes() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    wal.log(LogId(1)).unwrap().set_state(Bytes::from_static(b"state")).unwrap().wait().unwrap();
    let run = wal_inspect(["stats", directory.path().to_str().unwrap()]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.stdout.contains("\nbytes of an entry: none\n"), "{run:?}");
    let rows = json("stats", directory.path());
    assert_eq!(row(&rows, "entry_bytes")["max"], Value::Null);
}
