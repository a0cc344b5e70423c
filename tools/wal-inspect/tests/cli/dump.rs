//! `dump`: what is shown, and by which filters.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use kontiki_core::Entry;
use kontiki_wal::LogId;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, append, closed_log, command, copy_of, crashed_log, dump, entries_frames,
    flip_bit, options, raft_log, raft_state,
};

#[test]
fn every_entry_is_shown_with_its_place() {
    let run = dump(closed_log().path(), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(run.stderr, "");
    assert!(
        run.stdout.starts_with("segment 0000000000000001.wal offset 4096 lsn 0 segment-start "),
        "{run:?}"
    );
    assert!(run.stdout.contains(" entries log 7 index 1..=10 term 3 frame_bytes "), "{run:?}");
    for index in 1..=15 {
        let bytes = format!("line {index}");
        let line = format!("\n  index {index} bytes {} \"{bytes}\"\n", bytes.len());
        assert!(run.stdout.contains(&line), "{line}: {run:?}");
    }
    assert!(run.stdout.contains(" mark closed frame_bytes "), "{run:?}");
}

#[test]
fn json_lines_hold_the_same_facts() {
    let run = dump(closed_log().path(), &["--format", "jsonl"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let frames: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let entries: Vec<&Value> = frames.iter().filter(|frame| frame["kind"] == "entries").collect();
    assert_eq!(entries.len(), 2, "{run:?}");
    assert_eq!(entries[1]["log"], 7);
    assert_eq!(entries[1]["first_index"], 11);
    assert_eq!(entries[1]["last_index"], 15);
    assert_eq!(entries[1]["term"], 4);
    assert_eq!(entries[1]["entries"][0]["payload"], "line 11");
    assert_eq!(entries[1]["entries"][0]["bytes"], 7);
    let last = frames.last().unwrap();
    assert_eq!((&last["kind"], &last["closed"]), (&Value::from("mark"), &Value::from(true)));
    // Frames lie one behind the other.
    for pair in frames.windows(2) {
        let end = pair[0]["lsn"].as_u64().unwrap() + pair[0]["frame_bytes"].as_u64().unwrap();
        assert_eq!(pair[1]["lsn"].as_u64().unwrap(), end, "{run:?}");
    }
}

#[test]
fn filters_choose_by_log_index_and_kind() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    for log in [1, 2] {
        let log = wal.log(LogId(log)).unwrap();
        append(&log, 1, 10);
        log.set_state(Bytes::from_static(b"opaque")).unwrap().wait().unwrap();
    }
    let copy = copy_of(directory.path());
    let frames = |arguments: &[&str]| {
        let run = dump(copy.path(), arguments);
        assert_eq!(run.code, Some(0), "{run:?}");
        let all = run.stdout.lines();
        all.filter(|line| !line.starts_with(' ')).map(str::to_owned).collect::<Vec<_>>()
    };

    let of_log_2 = frames(&["--log", "2"]);
    assert_eq!(of_log_2.len(), 2, "{of_log_2:?}");
    assert!(of_log_2.iter().all(|line| line.contains(" log 2 ")), "{of_log_2:?}");
    assert_eq!(frames(&["--log", "1,2"]).len(), 4);
    assert_eq!(frames(&["--log", "3"]).len(), 0);
    assert_eq!(frames(&["--kind", "state"]).len(), 2);
    assert_eq!(frames(&["--kind", "state,entries", "--log", "1"]).len(), 2);
    assert_eq!(frames(&["--kind", "entries", "--limit", "1"]).len(), 1);
    assert_eq!(frames(&["--index", "10..20"]).len(), 2);
    assert_eq!(frames(&["--index", "11..20"]).len(), 0);

    let run = dump(copy.path(), &["--log", "1", "--index", "3..5"]);
    let entries: Vec<_> = run.stdout.lines().filter(|line| line.starts_with("  index")).collect();
    assert_eq!(entries, ["  index 3 bytes 6 \"line 3\"", "  index 4 bytes 6 \"line 4\""]);
    assert!(dump(copy.path(), &["--kind", "state"]).stdout.contains("  state bytes 6 \"opaque\""));
}

#[test]
fn filters_choose_by_lsn_and_term() {
    let log = closed_log();
    let lines = |arguments: &[&str]| {
        let run = dump(log.path(), arguments);
        assert_eq!(run.code, Some(0), "{run:?}");
        let all = run.stdout.lines();
        all.filter(|line| !line.starts_with(' ')).map(str::to_owned).collect::<Vec<_>>()
    };
    let all = lines(&[]);
    let lsn = |line: &str| line.split(' ').nth(5).unwrap().parse::<u64>().unwrap();
    let (second, last) = (lsn(&all[1]), lsn(all.last().unwrap()));
    assert!(all.len() > 4 && second > 0);

    assert_eq!(lines(&["--lsn", &format!("{second}..")]), all[1..]);
    assert_eq!(lines(&["--lsn", &format!("..{last}")]), all[..all.len() - 1]);
    assert_eq!(lines(&["--lsn", &format!("..={last}")]), all);
    assert_eq!(lines(&["--lsn", &second.to_string()]), all[1..2]);
    assert_eq!(lines(&["--lsn", &(second + 1).to_string()]), [""; 0], "no frame begins there");

    let of = |term: &str| all.iter().filter(|line| line.contains(term)).cloned().collect();
    let (three, four): (Vec<String>, Vec<String>) = (of(" term 3 "), of(" term 4 "));
    assert_eq!((three.len(), four.len()), (1, 1));
    assert_eq!(lines(&["--term", "3"]), three);
    assert_eq!(lines(&["--term", "4.."]), four);
    assert_eq!(lines(&["--term", "3..5"]), [three, four].concat());
    assert_eq!(lines(&["--term", "0..3"]), [""; 0], "frames without a term have none, not 0");
}

#[test]
fn payloads_are_shown_in_hexadecimal_where_asked() {
    let log = crashed_log();
    let run = dump(log.path(), &["--index", "10", "--hex"]);
    assert!(run.stdout.contains("\n  index 10 bytes 7 hex 6c696e65203130\n"), "{run:?}");
    let run = dump(log.path(), &["--index", "10", "--hex", "--preview", "2"]);
    assert!(run.stdout.contains("\n  index 10 bytes 7 hex 6c69...\n"), "{run:?}");
    let run = dump(log.path(), &["--index", "10", "--hex", "--json"]);
    let frame: Value = serde_json::from_str(&run.stdout).unwrap();
    let entry = &frame["entries"][0];
    assert_eq!(
        (&entry["payload_hex"], &entry["payload"]),
        (&"6c696e65203130".into(), &Value::Null)
    );
}

#[test]
fn json_is_short_for_json_lines() {
    let log = closed_log();
    let long = dump(log.path(), &["--format", "jsonl"]);
    assert_eq!(dump(log.path(), &["--json"]).stdout, long.stdout);
    assert_eq!(dump(log.path(), &["--json", "--format", "text"]).code, Some(4));
}

#[test]
fn filters_that_match_nothing_are_said_on_standard_error() {
    let log = crashed_log();
    let run = dump(log.path(), &["--log", "99"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

#[test]
fn previews_are_cut_where_asked() {
    let log = crashed_log();
    let run = dump(log.path(), &["--index", "10", "--preview", "4"]);
    assert!(run.stdout.contains("\n  index 10 bytes 7 \"line\"...\n"), "{run:?}");
    let run = dump(log.path(), &["--index", "10", "--preview", "0"]);
    assert!(run.stdout.contains("\n  index 10 bytes 7\n"), "{run:?}");
}

#[test]
fn raft_is_shown_as_raft() {
    let log = raft_log();
    let run = dump(log.path(), &["--log", "1"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(
        run.stdout.contains("\n  state raft term 6 vote 2 cluster 0xc1 incarnation 0x1a "),
        "{run:?}"
    );
    assert!(
        run.stdout.contains(" configuration at index 4 term 5: 1=one:7 2=two:7 (learner) "),
        "{run:?}"
    );
    for line in [
        r#"  index 1 command bytes 10 "SET key \xff""#,
        "  index 2 empty bytes 1",
        "  index 3 configuration 1=one:7 2=two:7 (learner) bytes 48",
        r#"  index 4 unknown bytes 2 "\xc8?""#,
    ] {
        assert!(run.stdout.lines().any(|shown| shown == line), "{line}: {run:?}");
    }

    let run = dump(log.path(), &["--log", "1", "--format", "jsonl"]);
    let frames: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let raft = &frames[0]["state"]["raft"];
    assert_eq!((&raft["term"], &raft["vote"]), (&Value::from(6), &Value::from(2)), "{run:?}");
    assert_eq!(raft["configurations"][0]["members"][1]["address"], "two:7", "{run:?}");
    assert_eq!(frames[1]["entries"][0]["raft"], "command", "{run:?}");
    assert_eq!(frames[1]["entries"][2]["members"][0]["id"], 1, "{run:?}");
}

#[test]
fn raft_is_known_by_the_checkpoint_when_its_first_state_is_gone() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    log.set_state(raft_state().encode()).unwrap().wait().unwrap();
    let entries = vec![Entry::encode_command(&[b'x'; 100]); 50];
    for round in 0..10 {
        log.append(round * 50 + 1, 6, &entries).unwrap().wait().unwrap();
        log.compact_before(round * 50 + 1).unwrap().wait().unwrap();
        wal.work(Duration::ZERO);
    }
    let copy = copy_of(directory.path());
    assert!(!copy.path().join("0000000000000001.wal").exists(), "the first segment is gone");

    let run = dump(copy.path(), &["--kind", "state,entries", "--preview", "1"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.stdout.contains(" state "), "{run:?}");
    assert!(run.stdout.contains("  index 500 command bytes 101 \"x\"...\n"), "{run:?}");
    let run = dump(copy.path(), &["--kind", "checkpoint"]);
    assert!(run.stdout.contains(" term_before 6 from "), "{run:?}");
    assert!(run.stdout.contains(" state raft term 6 vote 2 "), "{run:?}");
}

#[test]
fn a_state_of_raft_that_cannot_be_read_says_why() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let state = raft_state().encode();
    let cut = state.slice(..state.len() - 1);
    log.set_state(cut).unwrap().wait().unwrap();
    let copy = copy_of(directory.path());
    let run = dump(copy.path(), &["--kind", "state"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("\n  raft state, unreadable: "), "{run:?}");
    let run = dump(copy.path(), &["--kind", "state", "--format", "jsonl"]);
    let frame: Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(frame["state"]["raft_unreadable"].is_string(), "{run:?}");
}

#[test]
fn other_logs_are_not_taken_for_raft() {
    let run = dump(crashed_log().path(), &[]);
    assert!(!run.stdout.contains("command"), "{run:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let directory = TempDir::new().unwrap();
    let wal = options().segment_bytes(1 << 20).open(directory.path()).unwrap();
    append(&wal.log(LogId(1)).unwrap(), 1, 1);
    append(&wal.log(LogId(1)).unwrap(), 1, 10_000);
    wal.close().unwrap();
    assert_eq!(dump_to_a_reader_of_one_line(directory.path(), &[]), (Some(0), String::new()));

    // It has not seen the damage, which is told all the same.
    flip_bit(directory.path(), &entries_frames(directory.path())[0], HEADER_BYTES);
    let limited = dump(directory.path(), &["--limit", "1"]);
    assert!(limited.stderr.starts_with("wal-inspect: corrupt: segment "), "{limited:?}");
    for flags in [&[][..], &["--follow"]] {
        let (code, errors) = dump_to_a_reader_of_one_line(directory.path(), flags);
        assert_eq!((code, &errors), (Some(2), &limited.stderr), "{flags:?}");
    }
}

/// Exit code and standard error of a dump whose reader is gone after the first line.
fn dump_to_a_reader_of_one_line(directory: &Path, flags: &[&str]) -> (Option<i32>, String) {
    let mut child = command()
        .arg("dump")
        .arg(directory)
        .args(flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    (child.wait().unwrap().code(), errors)
}

/// Nothing was taken away meanwhile where nothing can be read.
#[test]
fn of_a_log_that_cannot_be_read_at_all_the_damage_alone_is_told() {
    for bytes in [vec![], vec![0xa5; 16 << 10]] {
        let log = TempDir::new().unwrap();
        fs::write(log.path().join("0000000000000001.wal"), bytes).unwrap();
        let run = dump(log.path(), &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stderr.starts_with("wal-inspect: corrupt: segment "), "{run:?}");
        assert!(!run.stderr.contains("meanwhile"), "{run:?}");
    }
}
