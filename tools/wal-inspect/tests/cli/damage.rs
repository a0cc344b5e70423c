//! `verify` and `dump` on damaged logs: what is reported, where, and that nothing changes.

use std::{fs, path::Path};

use crate::support::{
    HEADER_BYTES, Run, closed_log, crashed_log, dump, entries_frames, files, flip_bit, verify,
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

#[test]
fn a_segment_of_garbage_is_corrupt() {
    let log = closed_log();
    let name = entries_frames(log.path()).remove(0).file;
    fs::write(log.path().join(&name), vec![0xa5; 16 << 10]).unwrap();
    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(format!("{}{}", run.stdout, run.stderr).contains(&name), "{run:?}");
}
