//! Following a log while it is written, cut, compacted and recycled.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{
    collections::BTreeMap,
    env,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki_wal::{
    AppendError, Follow, FollowError, Followed, Log, LogId, Pending, ReadError, Wal,
};

use support::mode;

fn open(directory: &tempfile::TempDir) -> Wal {
    Wal::options()
        .segment_bytes(16 << 10)
        .write_mode(mode())
        .open(directory.path().join("log"))
        .unwrap()
}

fn append(log: &Log, first: u64, term: u64, texts: &[&str]) {
    let entries: Vec<Bytes> =
        texts.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    loop {
        match log.append(first, term, &entries) {
            Ok(pending) => return pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => wait_for_room(log),
            Err(error) => panic!("{error}"),
        }
    }
}

fn wait_for_room(log: &Log) {
    let (sender, receiver) = std::sync::mpsc::channel();
    log.on_room(move || sender.send(()).unwrap());
    receiver.recv().unwrap();
}

/// Everything that is durable by now, as text.
fn told(follow: &mut Follow) -> Vec<String> {
    std::iter::from_fn(|| follow.try_next().unwrap())
        .map(|followed| match followed {
            Followed::Entry(entry) => {
                let text = String::from_utf8(entry.bytes.to_vec()).unwrap();
                format!("{}/{} {text}", entry.term, entry.index)
            }
            Followed::Truncated { last } => format!("truncated after {last}"),
            Followed::Reset { next, term_before } => format!("reset to {next} after {term_before}"),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_follower_is_told_entries_and_cuts_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let (log, other) = (wal.log(LogId(1)).unwrap(), wal.log(LogId(2)).unwrap());
    append(&log, 1, 1, &["a", "b", "c"]);
    let mut all = log.follow(1).unwrap();
    let mut from_the_middle = log.follow(2).unwrap();
    let mut from_the_end = log.follow(4).unwrap();
    append(&other, 1, 9, &["not ours"]);
    append(&log, 3, 2, &["C", "D"]);
    log.truncate_after(3).unwrap().wait().unwrap();
    append(&log, 4, 2, &["d"]);
    log.reset(10, 5).unwrap().wait().unwrap();
    append(&log, 10, 6, &["j"]);
    log.forget().unwrap().wait().unwrap();
    append(&log, 1, 1, &["anew"]);
    let rest = [
        "truncated after 2",
        "2/3 C",
        "2/4 D",
        "truncated after 3",
        "2/4 d",
        "reset to 10 after 5",
        "6/10 j",
        "reset to 1 after 0",
        "1/1 anew",
    ];
    assert_eq!(told(&mut all), [&["1/1 a", "1/2 b", "1/3 c"], &rest[..]].concat());
    assert_eq!(told(&mut from_the_middle), [&["1/2 b", "1/3 c"], &rest[..]].concat());
    assert_eq!(told(&mut from_the_end), rest);
    assert!(told(&mut all).is_empty());
    assert!(matches!(log.follow(3), Err(FollowError::Compacted { index: 3, .. })));
}

#[test]
fn a_follower_begins_in_a_sealed_segment_and_goes_on_over_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    for index in 1..=100 {
        append(&log, index, 1, &[&format!("{index} {}", "x".repeat(500))]);
    }
    for from in [1, 2, 50, 99, 101] {
        let mut follow = log.follow(from).unwrap();
        let indexes: Vec<u64> = std::iter::from_fn(|| follow.try_next().unwrap())
            .map(|followed| match followed {
                Followed::Entry(entry) => entry.index,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(indexes, (from..=100).collect::<Vec<_>>());
    }
}

#[test]
fn a_follower_that_falls_behind_compaction_is_told_where_the_log_begins() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    append(&log, 1, 1, &["seen"]);
    let mut follow = log.follow(1).unwrap();
    assert_eq!(told(&mut follow), ["1/1 seen"]);
    for index in 2..=200 {
        append(&log, index, 1, &[&"x".repeat(500)]);
        log.compact_before(index).unwrap().wait().unwrap();
    }
    let error = loop {
        match follow.try_next() {
            Ok(Some(Followed::Entry(_))) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    let FollowError::Compacted { index, first: 200 } = error else { panic!("{error}") };
    assert!(index > 1 && index < 200, "{index}");
    assert_eq!(told(&mut follow), [format!("1/200 {}", "x".repeat(500))]);
}

/// What lies between the first entries and their replacement is gone with the segments of another log: what is left is told anew,
/// once, and then the stream is followed.
#[test]
fn a_follower_goes_on_behind_a_gap_with_a_cut_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let (log, other) = (wal.log(LogId(1)).unwrap(), wal.log(LogId(2)).unwrap());
    append(&log, 1, 1, &["a", "b", "c"]);
    for index in 1..=40 {
        append(&other, index, 9, &[&"x".repeat(1000)]);
    }
    append(&log, 2, 2, &["B", "C"]);
    append(&log, 3, 3, &["third"]);
    other.compact_before(41).unwrap().wait().unwrap();
    while wal.statistics().segments > 2 {
        thread::yield_now();
    }
    let mut follow = log.follow(1).unwrap();
    let mut before = Vec::new();
    let error = loop {
        match follow.try_next() {
            Ok(Some(Followed::Entry(entry))) => before.push(entry.bytes),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(before, ["a", "b", "c"]);
    assert!(matches!(error, FollowError::Compacted { index: 4, first: 1 }), "{error}");
    append(&log, 3, 4, &["anew"]);
    append(&log, 4, 4, &["next"]);
    assert_eq!(told(&mut follow), ["1/1 a", "2/2 B", "4/3 anew", "4/4 next"]);
    log.truncate_after(1).unwrap().wait().unwrap();
    assert_eq!(told(&mut follow), ["truncated after 1"]);
}

#[test]
fn a_follower_waits_for_what_becomes_durable_and_ends_with_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let log = wal.log(LogId(1)).unwrap();
    let mut follow = log.follow(1).unwrap();
    assert_eq!(follow.wait_next_timeout(Duration::from_millis(1)).unwrap(), None);
    let waiting = thread::spawn(move || {
        let first = follow.wait_next();
        (first, follow.wait_next())
    });
    append(&log, 1, 1, &["told"]);
    wal.close().unwrap();
    let (first, second) = waiting.join().unwrap();
    let Ok(Followed::Entry(entry)) = first else { panic!("{first:?}") };
    assert_eq!(entry.bytes, "told");
    assert!(matches!(second, Err(FollowError::Wal(_))), "{second:?}");
}

#[test]
fn a_follower_of_a_log_that_is_forgotten_and_begun_anew_is_told_so_or_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let (log, other) = (wal.log(LogId(1)).unwrap(), wal.log(LogId(2)).unwrap());
    append(&log, 1, 1, &["a", "b", "c", "d"]);
    let mut follow = log.follow(5).unwrap();
    log.forget().unwrap().wait().unwrap();
    append(&log, 1, 1, &["A", "B", "C", "D", "E"]);
    // The frames that told of it are gone.
    for index in 1..=200 {
        append(&other, index, 1, &[&"x".repeat(500)]);
        other.compact_before(index).unwrap().wait().unwrap();
        if index == 100 {
            append(&log, 1, 2, &["1", "2", "3", "4", "5", "6"]);
        }
    }
    match follow.try_next() {
        Err(FollowError::Compacted { index: 5, first: 1 }) => {}
        Ok(Some(Followed::Reset { next: 1, .. })) => return,
        other => panic!("{other:?}"),
    }
    assert_eq!(told(&mut follow), ["2/1 1", "2/2 2", "2/3 3", "2/4 4", "2/5 5", "2/6 6"]);
}

#[test]
fn a_log_that_was_opened_for_reading_is_followed_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    append(&wal.log(LogId(1)).unwrap(), 1, 1, &["a", "b"]);
    let reader = Wal::open_read_only(directory.path().join("log")).unwrap();
    let mut follow = reader.log(LogId(1)).unwrap().follow(1).unwrap();
    assert_eq!(told(&mut follow), ["1/1 a", "1/2 b"]);
    assert!(matches!(follow.wait_next(), Err(FollowError::Wal(_))));
}

/// Appenders of the test below, and readers.
const THREADS: u32 = 64;
/// The logs that they share; each has one who follows it.
const LOGS: u32 = 8;

/// WAL-CASE 39. `KONTIKI_LARGE=1`: for a minute.
#[test]
fn every_follower_sees_every_entry_once_and_in_order_while_segments_come_and_go() {
    let deadline = env::var_os("KONTIKI_LARGE").map(|_| Instant::now() + Duration::from_secs(60));
    let directory = tempfile::tempdir().unwrap();
    let wal = open(&directory);
    let is_over: Vec<AtomicBool> = (0..LOGS).map(|_| AtomicBool::new(false)).collect();
    let log = |number: u32| {
        (wal.log(LogId(1 + number % LOGS)).unwrap(), &is_over[(number % LOGS) as usize])
    };
    thread::scope(|scope| {
        let appenders: Vec<_> = (0..THREADS)
            .map(|number| {
                let (log, _) = log(number);
                scope.spawn(move || append_many(&log, number, deadline))
            })
            .collect();
        let followers: Vec<_> = (0..LOGS)
            .map(|number| {
                let (log, is_over) = log(number);
                let follow = log.follow(1).unwrap();
                scope.spawn(move || follow_to_the_end(&log, follow, is_over))
            })
            .collect();
        for number in 0..THREADS {
            let (log, is_over) = log(number);
            scope.spawn(move || read_until(&log, is_over));
        }
        let appended: Vec<u64> =
            appenders.into_iter().map(|thread| thread.join().unwrap()).collect();
        (0..LOGS).for_each(|number| push(&log(number).0, "end"));
        for (number, follower) in (0..LOGS).zip(followers) {
            let followed = follower.join().unwrap();
            let of_this = (number..THREADS).step_by(LOGS as usize);
            let expected =
                of_this.map(|appender| (appender, appended[appender as usize])).collect();
            assert_eq!(followed, expected, "log {number}");
        }
        println!("{} entries, {:?}", appended.iter().sum::<u64>(), wal.statistics());
    });
    let statistics = wal.statistics();
    // How many files are used again is chance: one that a reader still holds is not.
    let (sealed, left) = (statistics.sealed_segments, statistics.segments);
    assert!(sealed > 10 && left < sealed, "{statistics:?}");
}

/// Appends numbered entries; how many.
fn append_many(log: &Log, appender: u32, deadline: Option<Instant>) -> u64 {
    let is_enough = |number| match deadline {
        Some(deadline) => Instant::now() >= deadline,
        None => number == 20,
    };
    let (mut number, text) = (0, "x".repeat(300));
    while !is_enough(number) {
        number += 1;
        push(log, &format!("{appender} {number} {text}"));
    }
    number
}

/// Appends behind the last entry, whoever else does so; waits until it is durable.
fn push(log: &Log, text: &str) {
    durably(log, || log.push(text.to_owned()).map(|(_, pending)| pending));
}

/// Appends once there is room, and waits until it is durable.
fn durably(log: &Log, append: impl Fn() -> Result<Pending, AppendError>) {
    loop {
        match append() {
            Ok(pending) => return pending.wait().unwrap(),
            // Upkeep has room of its own in a segment, which others can fill up before the next one is there.
            Err(AppendError::Full { .. }) => wait_for_room(log),
            Err(error) => panic!("{error}"),
        }
    }
}

/// How many entries came of each appender, all in their order; drops behind itself what it has seen.
fn follow_to_the_end(log: &Log, mut follow: Follow, is_over: &AtomicBool) -> BTreeMap<u32, u64> {
    let _readers_end = SetOnDrop(is_over);
    let mut seen = BTreeMap::new();
    for index in 1.. {
        let followed = follow.wait_next().unwrap();
        let Followed::Entry(entry) = followed else { panic!("{index}: {followed:?}") };
        assert_eq!(entry.index, index, "once and in order");
        if entry.bytes == "end" {
            break;
        }
        let (appender, number) = numbers(&entry.bytes);
        let before = seen.insert(appender, number).unwrap_or_default();
        assert_eq!(number, before + 1, "of appender {appender}");
        drop(entry);
        if index % 50 == 0 {
            durably(log, || log.compact_before(index - 10));
        }
    }
    seen
}

/// Also when the follower panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads what is there, again and again.
fn read_until(log: &Log, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) {
        let (first, last) = (log.first(), log.last());
        for (index, entry) in (first..=last).zip(log.read(first..last + 1, 100 << 10)) {
            match entry {
                Ok(entry) if entry.bytes == "end" => {}
                Ok(entry) => assert!(entry.index == index && numbers(&entry.bytes).1 > 0),
                // Compacted meanwhile.
                Err(ReadError::Compacted { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        thread::yield_now();
    }
}

/// Who appended an entry, and which of its own it is.
fn numbers(bytes: &[u8]) -> (u32, u64) {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut words = text.split(' ');
    let (appender, number) = (words.next().unwrap(), words.next().unwrap());
    assert_eq!(words.next().map(str::len), Some(300));
    (appender.parse().unwrap(), number.parse().unwrap())
}
