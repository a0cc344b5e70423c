//! `repair` on entries behind a damaged header: each index is named, as kept, whole, lost, or not to be known.

use std::{path::Path, time::Duration};

use kontiki_wal::LogId;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    repair::damaged,
    support::{
        HEADER_BYTES, append, copy_of, entries_frames, files, flip_bit, options, wal_inspect,
    },
};

/// Three entries a frame of log 7, and one of log 8, by turns, four times; log 9 has had one. Closed.
fn by_turns() -> TempDir {
    let writing = TempDir::new().unwrap();
    let wal = options().open(writing.path()).unwrap();
    let [seven, eight, nine] = [7, 8, 9].map(|log| wal.log(LogId(log)).unwrap());
    append(&nine, 1, 1);
    nine.compact_before(2).unwrap().wait().unwrap();
    for term in [3, 3, 4, 4] {
        append(&seven, term, 3);
        append(&eight, 1, 1);
    }
    wal.close().unwrap();
    drop((seven, eight, nine, wal));
    copy_of(writing.path())
}

/// What a dry run says.
fn repair(directory: &Path, flags: &[&str]) -> String {
    let before = files(directory);
    let arguments = ["repair", directory.to_str().unwrap()];
    let run = wal_inspect(arguments.iter().chain(flags));
    assert_eq!((run.code, run.stderr.as_str()), (Some(2), ""), "{run:?}");
    assert_eq!(files(directory), before, "a dry run changes nothing");
    run.stdout
}

/// WAL-CASE 42, WAL-CASE 5
#[test]
fn each_index_behind_a_damaged_header_is_named() {
    let log = by_turns();
    let frames = entries_frames(log.path());
    let of_seven: Vec<_> = frames.iter().filter(|frame| frame.log == LogId(7)).collect();
    for ahead in [24, 33] {
        flip_bit(log.path(), of_seven[1], ahead);
    }
    flip_bit(log.path(), of_seven[2], HEADER_BYTES + 25);
    let text = repair(log.path(), &[]);
    let seven = "  log 7: keeps index 1..=3 term 3; LOSES index 7..=9 term 4; leaves out, though whole, \
                 index 10..=12 term 4; of index 4..=6 NOTHING IS KNOWN";
    assert_eq!(text.matches(seven).count(), 2, "of each way: {text}");
    let eight = "  log 8: keeps index 1 term 1; leaves out, though whole, index 2..=4 term 1";
    assert_eq!(text.matches(eight).count(), 2, "of each way: {text}");

    let json = repair(log.path(), &["--json"]);
    let rows = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows: Vec<Value> = rows.filter(|row| row["row"] == "log" && row["log"] == 7).collect();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["unknown"], json!([{"first_index": 4, "last_index": 6}]), "{row}");
        assert_eq!(row["lost"], json!([{"first_index": 7, "last_index": 9, "term": 4}]), "{row}");
        let whole = json!([{"first_index": 10, "last_index": 12, "term": 4}]);
        assert_eq!((&row["left_out"], &row["unharmed"]), (&whole, &json!(false)), "{row}");
    }
}

/// WAL-CASE 42: the segment behind says where the log stood.
#[test]
fn in_an_older_segment_what_is_whole_is_not_called_lost() {
    let writing = TempDir::new().unwrap();
    let wal = options().open(writing.path()).unwrap();
    let seven = wal.log(LogId(7)).unwrap();
    while wal.statistics().sealed_segments < 2 {
        append(&seven, 3, 10);
        wal.work(Duration::ZERO);
    }
    let last = seven.last();
    wal.close().unwrap();
    drop((seven, wal));
    let frames = entries_frames(writing.path());
    flip_bit(writing.path(), &frames[1], 24);
    flip_bit(writing.path(), &frames[1], 33);
    let text = repair(writing.path(), &[]);
    let seven = format!(
        "  log 7: keeps index 1..=10 term 3; LOSES index 11..=20 term 3; leaves out, though whole, \
         index 21..={last} term 3"
    );
    assert_eq!(text.matches(&seven).count(), 2, "of each way: {text}");
}

/// WAL-CASE 42: behind a header of which nothing is known another log can have lost something.
#[test]
fn where_more_may_be_lost_no_log_is_said_to_have_lost_nothing() {
    let log = by_turns();
    let last = entries_frames(log.path()).pop().unwrap();
    for ahead in [24, 33] {
        flip_bit(log.path(), &last, ahead);
    }
    let text = repair(log.path(), &[]);
    assert_eq!(text.matches("  log 9: nothing is known to be lost\n").count(), 2, "{text}");
    assert!(!text.contains("nothing is lost"), "{text}");
}

/// WAL-CASE 42: it has a state and no entry, and what is said of it is said as of any other.
#[test]
fn what_is_said_of_a_log_without_entries_begins_with_a_word() {
    let writing = TempDir::new().unwrap();
    let wal = options().open(writing.path()).unwrap();
    let [seven, eight] = [7, 8].map(|log| wal.log(LogId(log)).unwrap());
    eight.set_state("a vote").unwrap().wait().unwrap();
    append(&seven, 3, 3);
    append(&seven, 3, 3);
    wal.close().unwrap();
    drop((seven, eight, wal));
    let log = copy_of(writing.path());
    let first = entries_frames(log.path()).remove(0);
    for ahead in [24, 33] {
        flip_bit(log.path(), &first, ahead);
    }
    let text = repair(log.path(), &[]);
    let eight = "\n  log 8: its state may have been a newer one\n";
    assert_eq!(text.matches(eight).count(), 2, "of each way: {text}");
    assert!(!text.contains(":;"), "{text}");
}

/// What reads the one reads the other.
#[test]
fn json_names_places_as_verify_does() {
    let damaged = damaged();
    let directory = damaged.log();
    let of_verify = wal_inspect(["verify", directory.to_str().unwrap(), "--json"]).stdout;
    let of_repair = repair(&directory, &["--json"]);
    let rows = |printed: &str, row: &str| -> Vec<Value> {
        let rows = printed.lines().map(|line| serde_json::from_str(line).unwrap());
        rows.filter(|value: &Value| value["row"] == row).collect()
    };
    let (mut expected, damage) = (rows(&of_verify, "damage"), rows(&of_repair, "damage"));
    let cut = &rows(&of_repair, "way")[0]["cut"];
    for field in ["segment", "file", "offset", "lsn"] {
        assert_eq!(cut[field], expected[0][field], "{field} of {cut}");
    }
    for row in &mut expected {
        row.as_object_mut().unwrap().remove("lsn");
    }
    assert_eq!(damage, expected);
}
