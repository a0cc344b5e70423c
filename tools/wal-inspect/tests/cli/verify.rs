//! `verify` on logs that nobody damaged.

use std::{fs, time::Duration};

use kontiki_wal::LogId;
use tempfile::TempDir;

use crate::support::{append, closed_log, copy_of, crashed_log, dump, files, options, verify};

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
