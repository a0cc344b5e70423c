//! `verify` and `dump` on damaged logs: what is reported, where, and that nothing changes.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use kontiki_wal::{LogId, Wal, inspect::Frame};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, Run, append, closed_log, copy_of, crashed_log, dump, entries_frames, files,
    flip_bit, number, options, verify, wal_inspect,
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

/// WAL-CASE 16: with the entries that were in it, all of them.
#[test]
fn a_missing_segment_is_named_with_the_range_of_what_was_in_it() {
    let log = three_segments();
    let frames = entries_frames(log.path());
    let last = frames.iter().rfind(|frame| frame.segment == 1).unwrap().first_index;
    assert!(last > 1);
    fs::remove_file(log.path().join("0000000000000001.wal")).unwrap();
    let found = format!(
        "corrupt: segment 0000000000000001.wal offset 0 log 7 index 1..={last} term 3: missing file of a segment\n"
    );
    let run = verify_unchanged(log.path());
    assert_eq!((run.code, run.stdout), (Some(2), found.clone()), "{}", run.stderr);
    let run = dump(log.path(), &[]);
    assert!(run.stderr.starts_with(&format!("wal-inspect: {found}")), "{}", run.stderr);
    let arguments = [OsStr::new("verify"), log.path().as_os_str(), OsStr::new("--json")];
    let run = wal_inspect(arguments);
    let row: Value = serde_json::from_str(run.stdout.lines().nth(1).unwrap()).unwrap();
    assert_eq!((number(&row, "first_index"), number(&row, "last_index")), (1, last), "{row}");
    let error = options().open(log.path()).unwrap_err().to_string();
    let needed = format!("0000000000000001.wal is missing, index 1..={last} of log 7 needs it");
    assert!(error.contains(&needed), "{error}");
}

/// WAL-CASE 16: what is said leads to the file that was lost where the next one was not begun, too, and not to that one.
#[test]
fn a_missing_segment_is_named_though_only_a_prepared_one_is_behind_it() {
    let (lost, prepared) = ("0000000000000002.wal", "0000000000000003.wal");
    let log = three_segments();
    fs::remove_file(log.path().join(lost)).unwrap();
    let run = verify_unchanged(log.path());
    let found = format!("corrupt: segment {lost} offset 0: missing file of a segment\n");
    assert_eq!((run.code, run.stdout), (Some(2), found), "{}", run.stderr);
    let run = wal_inspect([OsStr::new("segments"), log.path().as_os_str()]);
    let row = run.stdout.lines().find(|line| line.contains(prepared)).unwrap();
    assert!(row.contains(" prepared ") && !run.stdout.contains(" damaged "), "{run:?}");
    let run = wal_inspect([OsStr::new("repair"), log.path().as_os_str()]);
    assert!(run.stdout.contains(&format!("is a copy of {lost} anywhere? ")), "{run:?}");
    let read = Wal::open_read_only(log.path()).unwrap();
    assert!(read.log(LogId(7)).unwrap().last() > 0, "what lies before it is read");
    let error = options().open(log.path()).unwrap_err().to_string();
    let needed = format!("{lost} is missing, {prepared}, prepared to follow on it, needs it");
    assert!(error.contains(&needed), "{error}");

    // Where something was written, it may as well have rotted.
    let file = File::options().write(true).open(log.path().join(prepared)).unwrap();
    file.write_all_at(b"!", 4096).unwrap();
    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains(&format!("; {lost}, before it, is not there")), "{run:?}");
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
            let mut lines = run.stdout.lines();
            let damage = format!("corrupt: segment {name} offset 0: {says}");
            assert_eq!(lines.next(), Some(&*damage));
            let unread = format!(
                "not read: segment {name} offset 0..{length}: its header page or its length does not hold"
            );
            assert_eq!(lines.next(), Some(&*unread));
            assert!(lines.next().unwrap().starts_with("read: 2 segments, "), "{run:?}");
            assert_eq!(lines.next(), None);
        }
    }
}

/// The golden log has freed two segments: if the newest one says so, and it cannot be read, they are not missing.
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
        let starts = [
            format!("corrupt: segment {name} offset 0: checksum of a segment's header "),
            format!("not read: segment {name} offset 0..16384: its header page"),
            "read: 4 segments, ".to_owned(),
        ];
        let lines: Vec<&str> = run.stdout.lines().collect();
        assert_eq!(lines.len(), starts.len(), "{run:?}");
        assert!(lines.iter().zip(&starts).all(|(line, start)| line.starts_with(start)), "{run:?}");
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

/// A closed log of logs 1 and 2 in five segments, with the frames of its entries.
fn five_segments() -> (TempDir, Vec<Frame>) {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let [one, two] = [1, 2].map(|log| wal.log(LogId(log)).unwrap());
    while wal.statistics().sealed_segments < 4 || one.last() % 30 != 0 {
        while wal.work(Duration::ZERO) {}
        append(&one, 3, 30);
        append(&two, 5, 10);
    }
    wal.close().unwrap();
    let frames = entries_frames(directory.path());
    (directory, frames)
}

fn rot_page(directory: &Path, number: u64) -> String {
    let name = format!("{number:016x}.wal");
    let path = directory.join(&name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(path, bytes).unwrap();
    name
}

/// WAL-CASE 5: two headers in one segment, a header page, and a payload behind them.
#[test]
fn all_that_is_damaged_is_told_at_once_and_what_is_not_read_is_named_and_not_counted() {
    let (log, frames) = five_segments();
    let of = |number: u64| frames.iter().filter(move |frame| frame.segment == number);
    let (header, behind) = (of(1).nth(2).unwrap(), of(1).nth(4).unwrap());
    let payload = of(4).nth(1).unwrap();
    for ahead in [24, 33] {
        flip_bit(log.path(), header, ahead);
        flip_bit(log.path(), behind, ahead);
    }
    flip_bit(log.path(), payload, HEADER_BYTES + 125);
    let page = rot_page(log.path(), 3);
    let last = of(1).last().unwrap();
    let unread = |lsn: &str| {
        let end = last.offset + last.frame_bytes;
        let why = "no frame there follows on the one before";
        format!("not read: segment {} offset {}..{end}{lsn}: {why}", header.file, header.offset)
    };

    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(2), "{run:?}");
    let starts = [
        format!("corrupt: segment {} offset {}: checksum of", header.file, header.offset),
        format!("corrupt: segment {page} offset 0: checksum of a segment's header "),
        format!("corrupt: segment {} offset {} log ", payload.file, payload.offset),
        unread(&format!(" lsn {}", header.lsn.0)),
        format!("not read: segment {page} offset 0..16384: "),
    ];
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{run:?}");
    assert!(lines.iter().zip(&starts).all(|(line, start)| line.starts_with(start)), "{run:?}");

    // What is counted as read is what dump shows.
    let shown = dump(log.path(), &["--json"]);
    assert_eq!(shown.code, Some(2), "{shown:?}");
    let shown_frames = shown.stdout.lines().count();
    assert!(lines[5].starts_with(&format!("read: 4 segments, {shown_frames} frames, ")), "{run:?}");
    for number in [1, 2, 4, 5] {
        let file = format!("\"segment\":{number},");
        assert!(shown.stdout.lines().any(|line| line.contains(&file)), "{number}: {shown:?}");
    }
    let remarks: Vec<&str> = shown.stderr.lines().collect();
    let way_out = format!(
        "wal-inspect: `wal-inspect repair {}` says what can be done about it, and changes nothing",
        log.path().display()
    );
    assert_eq!((remarks.len(), remarks[5]), (6, &*way_out), "{shown:?}");
    assert_eq!(run.stderr, format!("{way_out}\n"));
    assert!(
        remarks[..5]
            .iter()
            .zip(&lines)
            .all(|(remark, line)| *remark == format!("wal-inspect: {line}")),
        "{shown:?}"
    );
    for command in ["stats", "segments"] {
        let run = wal_inspect([OsStr::new(command), log.path().as_os_str()]);
        assert_eq!((run.code, run.stderr), (Some(2), shown.stderr.clone()), "{command}");
    }

    let run = wal_inspect([OsStr::new("verify"), log.path().as_os_str(), "--json".as_ref()]);
    assert_eq!(run.stderr, "", "what is meant for people");
    let rows: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts = ["segments", "damages", "unread"].map(|field| rows[0][field].as_u64().unwrap());
    assert_eq!(counts, [4, 3, 2], "{}", rows[0]);
    let expected = json!({
        "row": "unread", "segment": 1, "file": header.file, "offset": header.offset,
        "lsn": header.lsn.0, "end": last.offset + last.frame_bytes,
        "what": "no frame there follows on the one before",
    });
    assert_eq!(rows[4], expected);
    assert_eq!((&rows[5]["offset"], &rows[5]["end"]), (&json!(0), &json!(16384)));

    // Behind both the damages and the page the frames are found by their places all the same.
    let hexdump = |frame: &Frame, arguments: [&str; 2]| {
        let offset = frame.offset.to_string();
        let place = ["--segment", &frame.file, "--offset", &offset];
        let arguments = if arguments[0].is_empty() { &place[..] } else { &arguments[..] };
        let arguments = arguments.iter().map(OsStr::new);
        let command = [OsStr::new("hexdump"), log.path().as_os_str()];
        let run = wal_inspect(command.into_iter().chain(arguments));
        let head =
            format!("frame segment {} offset {} lsn {}\n", frame.file, frame.offset, frame.lsn.0);
        assert!(run.stdout.starts_with(&head), "{run:?}");
        run.code
    };
    let newest = frames.last().unwrap();
    for (frame, code) in [(behind, 2), (last, 0), (payload, 2), (newest, 0)] {
        let lsn = frame.lsn.0.to_string();
        assert_eq!(hexdump(frame, ["", ""]), Some(code), "{frame:?}");
        assert_eq!(hexdump(frame, ["--lsn", &lsn]), Some(code), "{frame:?}");
    }
}

/// The segment in which frames were appended last is lost: the log is shown as it was in the one before.
#[test]
fn behind_the_last_segment_that_can_be_read_nothing_is_said_to_be_known() {
    let (log, frames) = five_segments();
    let page = rot_page(log.path(), 5);
    let run = verify_unchanged(log.path());
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains(&format!("not read: segment {page} offset 0..16384: ")), "{run:?}");
    let lsn = frames.last().unwrap().lsn.0.to_string();
    let run = wal_inspect(["hexdump", log.path().to_str().unwrap(), "--lsn", &lsn]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    assert!(run.stderr.ends_with(&format!("; not all is read of {page}: see verify\n")), "{run:?}");
}

/// Nothing tells where the newest segment lies in the stream, so nothing that is written in it is taken for unused room.
#[test]
fn a_damaged_frame_in_a_segment_without_a_place_is_one() {
    let (log, frames) = five_segments();
    rot_page(log.path(), 4);
    let frame = frames.last().unwrap();
    let start = Frame { offset: 4096, ..frame.clone() };
    for ahead in [24, 33] {
        flip_bit(log.path(), &start, ahead);
    }
    flip_bit(log.path(), frame, HEADER_BYTES + 25);
    let offset = frame.offset.to_string();
    let place = ["--segment", &frame.file, "--offset", &offset].map(OsStr::new);
    let command = [OsStr::new("hexdump"), log.path().as_os_str()];
    let run = wal_inspect(command.into_iter().chain(place));
    assert_eq!(run.code, Some(2), "{run:?}");
    let head = format!("frame segment {} offset {offset}\n", frame.file);
    assert!(run.stdout.starts_with(&head), "the place in the stream is not known: {run:?}");
    let run = verify_unchanged(log.path());
    let why = "it does not begin as a segment should";
    assert!(run.stdout.contains(&format!("{why}\nread: ")), "{run:?}");
}
