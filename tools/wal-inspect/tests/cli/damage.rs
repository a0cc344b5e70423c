//! `verify` and `dump` on damaged logs: what is reported, where, and that nothing changes.

use std::{
    fs::{self, File},
    path::Path,
    time::Duration,
};

use kontiki_wal::LogId;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, Run, append, closed_log, copy_of, crashed_log, dump, entries_frames, files,
    flip_bit, options, verify,
};

/// Runs `verify` and sees that it changed nothing.
fn verify_unchanged(directory: &Path) -> Run {
    let before = files(directory);
    let run = verify(directory);
    assert_eq!(files(directory), before, "verify changed a file");
    run
}

/// WAL-CASE 6
#[test]
fn a_flipped_bit_in_an_attested_payload_is_corrupt_and_says_what_is_lost() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).remove(0);
    for ahead in [HEADER_BYTES, HEADER_BYTES + 45, frame.frame_bytes - 8] {
        flip_bit(log.path(), &frame, ahead);
        let run = verify_unchanged(log.path());
        assert_eq!(run.code, Some(2), "{run:?}");
        let place = format!("corrupt: segment {} offset {}", frame.file, frame.offset);
        assert!(run.stdout.starts_with(&place), "{run:?}");
        assert!(run.stdout.contains(" log 7 index 1..=10 term 3: "), "{run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        flip_bit(log.path(), &frame, ahead);
    }
    assert_eq!(verify(log.path()).code, Some(0), "flipped back, it is whole again");
}

/// WAL-CASE 5
#[test]
fn a_flipped_bit_in_an_attested_header_is_corrupt_and_says_what_is_lost() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).remove(0);
    for ahead in 0..HEADER_BYTES {
        flip_bit(log.path(), &frame, ahead);
        let run = verify_unchanged(log.path());
        assert_eq!(run.code, Some(2), "byte {ahead}: {run:?}");
        let place = format!("corrupt: segment {} offset {}", frame.file, frame.offset);
        assert!(run.stdout.starts_with(&place), "byte {ahead}: {run:?}");
        assert!(run.stdout.contains(" log 7 index 1..=10 term 3: "), "byte {ahead}: {run:?}");
        flip_bit(log.path(), &frame, ahead);
    }
}

/// WAL-CASE 7: nothing vouches for the last group of a log that was not closed.
#[test]
fn a_bad_body_in_the_last_unattested_frame_is_a_torn_tail() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).pop().unwrap();
    flip_bit(log.path(), &frame, HEADER_BYTES + 25);
    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(1), "{run:?}");
    let place = format!(
        "torn tail: segment {} offset {} lsn {} log 7 index 11..=15 term 4: ",
        frame.file, frame.offset, frame.lsn.0
    );
    assert!(run.stdout.starts_with(&place), "{run:?}");
    assert_eq!(run.stdout.lines().count(), 1, "{run:?}");

    let run = dump(log.path(), &[]);
    assert_eq!(run.code, Some(0), "a torn tail is the usual crash: {run:?}");
    assert!(run.stderr.contains("torn tail at segment"), "{run:?}");
    assert!(run.stdout.contains("line 10"), "{run:?}");
    assert!(!run.stdout.contains("line 11"), "{run:?}");
}

/// WAL-CASE 7: the mark of a clean close vouches for everything before it.
#[test]
fn the_same_bad_body_is_corrupt_after_a_clean_close() {
    let log = closed_log();
    let frame = entries_frames(log.path()).pop().unwrap();
    flip_bit(log.path(), &frame, HEADER_BYTES + 25);
    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains(" log 7 index 11..=15 term 4: "), "{run:?}");
}

/// WAL-CASE 6: a damaged body hides no other frame.
#[test]
fn dump_shows_the_frames_around_a_damaged_body() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).remove(0);
    flip_bit(log.path(), &frame, HEADER_BYTES + 45);
    let before = files(log.path());
    let run = dump(log.path(), &[]);
    assert_eq!(files(log.path()), before);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains("\n  damaged: segment "), "{run:?}");
    assert!(!run.stdout.contains("line 10"), "damaged bytes are not shown as good: {run:?}");
    assert!(run.stdout.contains("  index 15 bytes 7 \"line 15\"\n"), "{run:?}");
    assert!(run.stderr.contains("corrupt: segment"), "{run:?}");
}

/// A closed log in three segments: two with frames, and one that was prepared.
fn three_segments() -> TempDir {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(7)).unwrap();
    while files(directory.path()).keys().filter(|name| name.ends_with(".wal")).count() < 3 {
        append(&log, 3, 1);
        wal.work(Duration::ZERO);
    }
    wal.close().unwrap();
    directory
}

/// WAL-CASE 16: what is said leads to the file that was lost, also where the next one was not begun.
#[test]
fn a_missing_segment_is_named() {
    for (missing, line) in [
        (
            "0000000000000001.wal",
            "corrupt: segment 0000000000000001.wal offset 0 log 7 index 1 term 3: missing file of a segment\n",
        ),
        ("0000000000000002.wal", "; 0000000000000002.wal, before it, is not there"),
    ] {
        let log = three_segments();
        fs::remove_file(log.path().join(missing)).unwrap();
        let run = verify_unchanged(log.path());
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stdout.contains(line), "{run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        let error = options().open(log.path()).unwrap_err().to_string();
        assert!(error.contains(missing), "{error}");
    }
}

#[test]
fn a_segment_that_was_cut_short_is_told_with_its_length_and_is_not_missing() {
    for (length, says) in [
        (8192, "length of a segment: 8192 bytes, its header says 16384"),
        (0, "length of a segment: 0 bytes, shorter than its header"),
    ] {
        for number in 1..=3 {
            let log = three_segments();
            let name = format!("{number:016x}.wal");
            let file = File::options().write(true).open(log.path().join(&name)).unwrap();
            file.set_len(length).unwrap();
            let run = verify_unchanged(log.path());
            assert_eq!(run.code, Some(2), "{run:?}");
            assert_eq!(run.stdout, format!("corrupt: segment {name} offset 0: {says}\n"));
        }
    }
}

/// The golden log has freed two segments: what lies behind the damage says so, and cannot be read.
#[test]
fn a_rotten_header_page_makes_no_other_segment_missing() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1/closed");
    for name in files(&fixture).keys().filter(|name| name.ends_with(".wal")) {
        let log = copy_of(&fixture);
        let path = log.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
        let run = verify_unchanged(log.path());
        assert_eq!(run.code, Some(2), "{run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        assert!(run.stdout.contains(&format!("segment {name} offset 0: checksum of")), "{run:?}");
    }
}

#[test]
fn a_segment_of_garbage_is_corrupt() {
    let log = closed_log();
    let name = entries_frames(log.path()).remove(0).file;
    fs::write(log.path().join(&name), vec![0xa5; 16 << 10]).unwrap();
    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(format!("{}{}", run.stdout, run.stderr).contains(&name), "{run:?}");
}
