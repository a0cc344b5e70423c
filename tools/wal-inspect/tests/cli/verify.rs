//! `verify` on logs that nobody damaged.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::FileExt,
    time::Duration,
};

use kontiki_wal::LogId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, append, closed_log, copy_of, crashed_log, dump, entries_frames, files, flip_bit,
    options, verify, wal_inspect,
};

#[test]
fn a_closed_log_is_whole() {
    let log = closed_log();
    let before = files(log.path());
    let run = verify(log.path());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.starts_with("whole: 1 segments, "), "{run:?}");
    assert!(run.stdout.contains(" 15 entries, "), "{run:?}");
    assert!(run.stdout.ends_with(", closed\n"), "{run:?}");
    assert_eq!(run.stderr, "");
    assert_eq!(files(log.path()), before);
}

#[test]
fn a_log_that_was_not_closed_is_whole_too() {
    let run = verify(crashed_log().path());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.ends_with(", not closed\n"), "{run:?}");
}

#[test]
fn a_log_of_many_segments_is_whole() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    for _ in 0..40 {
        append(&log, 1, 100);
        wal.work(Duration::ZERO);
    }
    assert!(wal.statistics().segments > 2);
    let run = verify(copy_of(directory.path()).path());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains(" 4000 entries, "), "{run:?}");
}

/// What no writer writes, under checksums that hold: repair would have nothing to do, and send back here.
#[test]
fn who_finds_something_by_a_deep_look_only_is_not_sent_to_repair() {
    let writing = TempDir::new().unwrap();
    let wal = options().open(writing.path()).unwrap();
    (0..3).for_each(|_| append(&wal.log(LogId(7)).unwrap(), 3, 10));
    let log = copy_of(writing.path());
    let last = entries_frames(log.path()).pop().unwrap();
    let file = File::options().read(true).write(true).open(log.path().join(&last.file)).unwrap();
    let mut header = [0; 48];
    file.read_exact_at(&mut header, last.offset).unwrap();
    // It says that nothing was durable yet. A change of the checksum does not depend on what else goes into it.
    let before = crc32fast::hash(&header[4..]);
    header[40..].fill(0);
    let change = before ^ crc32fast::hash(&header[4..]);
    let checksum = u32::from_le_bytes(*header.first_chunk().unwrap()) ^ change;
    header[..4].copy_from_slice(&checksum.to_le_bytes());
    file.write_all_at(&header, last.offset).unwrap();

    assert_eq!(verify(log.path()).code, Some(0));
    let run = wal_inspect([OsStr::new("verify"), log.path().as_os_str(), OsStr::new("--deep")]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains(": watermark below that of a frame before"), "{run:?}");
    assert!(run.stderr.starts_with("wal-inspect: only --deep finds this: "), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

#[test]
fn an_empty_directory_is_no_log() {
    let directory = TempDir::new().unwrap();
    let run = verify(directory.path());
    assert_eq!(run.code, Some(3), "{run:?}");
    assert!(run.stderr.contains("holds no log"), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

/// As the directory of a cluster on one machine.
#[test]
fn a_directory_whose_subdirectories_hold_logs_is_told_the_first_of_them() {
    let directory = TempDir::new().unwrap();
    let below = |name: &str| directory.path().join(name);
    for name in ["0", "2/wal", "3"] {
        fs::create_dir_all(below(name)).unwrap();
    }
    fs::write(below("0/notes.txt"), "mine").unwrap();
    let said = |ends: &str| {
        for run in [verify(directory.path()), dump(directory.path(), &[])] {
            assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
            assert!(run.stderr.ends_with(ends), "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        }
    };
    said("; is it the right directory?\n");
    for (log, name) in [("3", "3"), ("2/wal", "2")] {
        fs::rename(closed_log().path(), below(log)).unwrap();
        said(&format!("; {} has one\n", below(name).display()));
        assert_eq!(verify(&below(name)).code, Some(0));
    }
}

#[test]
fn the_data_directory_of_a_node_means_the_log_in_it() {
    let log = closed_log();
    let data = TempDir::new().unwrap();
    let below = data.path().join("wal");
    fs::rename(log.path(), &below).unwrap();
    for run in [verify(data.path()), dump(data.path(), &["--kind", "mark"])] {
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(run.stderr, format!("wal-inspect: looking into {}\n", below.display()));
    }
    // The log's own directory goes before what lies below it.
    fs::create_dir(below.join("wal")).unwrap();
    fs::write(below.join("wal/0000000000000001.wal"), "garbage").unwrap();
    let run = verify(&below);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
}

#[test]
fn what_is_no_directory_cannot_be_read() {
    let directory = TempDir::new().unwrap();
    let missing = directory.path().join("missing");
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    for path in [missing, file] {
        let run = verify(&path);
        assert_eq!(run.code, Some(3), "{run:?}");
        assert_eq!(run.stdout, "");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        assert!(run.stderr.contains(path.to_str().unwrap()), "{run:?}");
    }
}

#[test]
fn a_foreign_file_beside_the_segments_is_left_alone() {
    let log = closed_log();
    fs::write(log.path().join("notes.txt"), "mine").unwrap();
    let before = files(log.path());
    let run = verify(log.path());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(files(log.path()), before);
}

#[test]
fn a_directory_of_foreign_files_is_no_log() {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("notes.txt"), "mine").unwrap();
    let run = verify(directory.path());
    assert_eq!(run.code, Some(3), "{run:?}");
}

/// A log of some segments, in which every third frame of entries has lost a bit of its payload.
fn rotten_log() -> TempDir {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    for _ in 0..60 {
        append(&log, 1, 100);
        wal.work(Duration::ZERO);
    }
    wal.close().unwrap();
    for frame in entries_frames(directory.path()).iter().step_by(3) {
        flip_bit(directory.path(), frame, HEADER_BYTES + 401);
    }
    directory
}

#[test]
fn the_findings_are_the_same_and_in_the_order_of_the_log_with_any_number_of_threads() {
    let log = rotten_log();
    for flags in [&[][..], &["--deep"], &["--json"], &["--deep", "--json"]] {
        let verify = |threads: &str| {
            let directory = [OsStr::new("verify"), log.path().as_os_str()];
            let threads = ["-j", threads];
            let flags = flags.iter().chain(&threads).map(OsStr::new);
            wal_inspect(directory.into_iter().chain(flags))
        };
        let one = verify("1");
        assert_eq!(one.code, Some(2), "{flags:?}");
        assert_eq!(one.stderr.is_empty(), flags.contains(&"--json"), "{flags:?}: {}", one.stderr);
        for threads in ["2", "3", "16"] {
            assert_eq!(verify(threads).stdout, one.stdout, "{flags:?} in {threads} threads");
        }
        if !flags.contains(&"--json") {
            let expected = entries_frames(log.path());
            let expected = expected.iter().step_by(3).map(|frame| {
                format!("corrupt: segment {} offset {} log 1 ", frame.file, frame.offset)
            });
            let expected: Vec<String> = expected.collect();
            assert_eq!(one.stdout.lines().count(), expected.len());
            for (line, expected) in one.stdout.lines().zip(expected) {
                assert!(line.starts_with(&expected), "{line}: {expected}");
            }
        }
    }
}

#[test]
fn json_tells_the_verdict_first_and_then_each_place_with_what_is_lost_there() {
    let log = crashed_log();
    let rows = |code| {
        let run = wal_inspect([OsStr::new("verify"), log.path().as_os_str(), "--json".as_ref()]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(code), ""), "{run:?}");
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let whole = rows(0);
    assert_eq!((whole.len(), &whole[0]["verdict"]), (1, &Value::from("whole")), "{whole:?}");
    let frames = entries_frames(log.path());
    let (first, last) = (&frames[0], &frames[1]);

    flip_bit(log.path(), last, HEADER_BYTES + 25);
    let [verdict, torn] = &rows(1)[..] else { panic!("{:?}", rows(1)) };
    assert_eq!((&verdict["verdict"], &verdict["damages"]), (&json!("torn"), &json!(0)));
    let expected = json!({
        "row": "torn", "segment": 1, "file": last.file, "offset": last.offset, "lsn": last.lsn.0,
        "log": 7, "first_index": 11, "last_index": 15, "term": 4,
        "what": "not attested; opening the log will cut it off",
    });
    assert_eq!(*torn, expected);

    flip_bit(log.path(), first, HEADER_BYTES + 45);
    let [verdict, damage] = &rows(2)[..] else { panic!("{:?}", rows(2)) };
    assert_eq!((&verdict["verdict"], &verdict["damages"]), (&json!("corrupt"), &json!(1)));
    for (field, value) in [("row", json!("damage")), ("lsn", json!(first.lsn.0))] {
        assert_eq!(damage[field], value, "{damage}");
    }
    for (field, value) in [("log", 7), ("first_index", 1), ("last_index", 10), ("term", 3)] {
        assert_eq!(damage[field], value, "{damage}");
    }
    assert_ne!(damage["expected"], damage["found"], "{damage}");
}
