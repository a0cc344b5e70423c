//! `diff`: where two logs part, and what is no difference.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki_wal::{
    Log, LogId, Wal,
    inspect::{Frame, FrameKind, Scan},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    live::write_some,
    support::{
        HEADER_BYTES, Run, append, closed_log, copy_of, crashed_log, entries_frames, files,
        flip_bit, options, wal_inspect,
    },
};

fn diff(a: &Path, b: &Path, arguments: &[&str]) -> Run {
    let before = [files(a), files(b)];
    let all = [OsStr::new("diff"), a.as_os_str(), b.as_os_str()];
    let run = wal_inspect(all.into_iter().chain(arguments.iter().map(OsStr::new)));
    assert!([files(a), files(b)] == before, "diff changed a file");
    run
}

/// A log 7 that `write` has written, after a clean close.
fn written(write: impl FnOnce(&Log)) -> TempDir {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    write(&wal.log(LogId(7)).unwrap());
    wal.close().unwrap();
    directory
}

/// Runs both ways: what is said of A and B must turn with them.
fn both_ways(a: &TempDir, b: &TempDir, code: i32, line: &str) {
    let run = diff(a.path(), b.path(), &[]);
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(code), line, ""));
    let turned = diff(b.path(), a.path(), &[]);
    assert_eq!(turned.code, Some(code), "{turned:?}");
    let of = |run: &Run| json_of(run)["verdict"].clone();
    let (run, turned) =
        (diff(a.path(), b.path(), &["--json"]), diff(b.path(), a.path(), &["--json"]));
    assert_eq!(of(&run), of(&turned));
    let (run, turned) = (json_of(&run), json_of(&turned));
    assert_eq!((&run["a"], &run["b"]), (&turned["b"], &turned["a"]));
    let (one, other) = (&run["difference"], &turned["difference"]);
    assert_eq!((&one["a"], &one["b"]), (&other["b"], &other["a"]));
    assert_eq!(one["index"], other["index"]);
    assert_eq!(run["compared"], turned["compared"]);
    let turn = |side: &Value| side.as_str().map(|side| if side == "a" { "b" } else { "a" });
    let (one, other) = (&run["incomparable"], &turned["incomparable"]);
    assert_eq!(one["missing_in"].as_str(), turn(&other["missing_in"]));
    assert_eq!(
        (&one["first_index"], &one["last_index"]),
        (&other["first_index"], &other["last_index"])
    );
}

fn json_of(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap()
}

#[test]
fn the_same_log_is_the_same() {
    both_ways(&closed_log(), &crashed_log(), 0, "log 7: same in index 1..=15; both end at 15\n");
}

#[test]
fn a_prefix_is_the_same_and_it_says_how_far_each_goes() {
    let short = written(|log| append(log, 3, 8));
    both_ways(&closed_log(), &short, 0, "log 7: same in index 1..=8; A ends at 15, B at 8\n");
    let empty = written(|log| drop(log.set_state("a state").unwrap()));
    let line = "log 7: same, without an index in both; A ends at 15, B is empty\n";
    both_ways(&closed_log(), &empty, 0, line);
}

#[test]
fn the_first_index_with_two_terms_is_told() {
    let other = written(|log| {
        append(log, 3, 10);
        append(log, 5, 3);
    });
    let line = "log 7: different at index 11: term 4 in A, 5 in B; same in index 1..=10; \
                A ends at 15, B at 13\n";
    both_ways(&closed_log(), &other, 1, line);
    let run = diff(closed_log().path(), other.path(), &["--json"]);
    let expected = json!({
        "log": 7,
        "verdict": "different",
        "compared": { "first_index": 1, "last_index": 10 },
        "difference": {
            "index": 11,
            "what": "term",
            "a": { "term": 4, "bytes": 7, "crc": "0x7bb52808" },
            "b": { "term": 5, "bytes": 7, "crc": "0x7bb52808" },
        },
        "a": { "first_index": 1, "last_index": 15 },
        "b": { "first_index": 1, "last_index": 13 },
    });
    assert_eq!(json_of(&run), expected);
}

#[test]
fn the_first_index_with_two_payloads_is_told_with_their_checksums() {
    let other = written(|log| {
        append(log, 3, 4);
        drop(log.append(5, 3, &[Bytes::from_static(b"lime 5")]).unwrap());
        append(log, 3, 5);
        append(log, 4, 5);
    });
    let line = "log 7: different at index 5 term 3: payload of 6 bytes with crc 0x0c0412c4 in A, \
                6 bytes with crc 0x1eb1bd2a in B; same in index 1..=4; both end at 15\n";
    both_ways(&closed_log(), &other, 1, line);
}

#[test]
fn what_one_side_has_compacted_is_named_and_the_rest_compared() {
    let compacted = written(|log| {
        append(log, 3, 10);
        append(log, 4, 5);
        drop(log.compact_before(8).unwrap());
    });
    let line =
        "log 7: same in index 8..=15; 1..=7 not comparable, compacted in B; both end at 15\n";
    both_ways(&closed_log(), &compacted, 0, line);
    let whole = written(|log| {
        append(log, 3, 10);
        append(log, 4, 5);
        drop(log.compact_before(16).unwrap());
    });
    let line = "log 7: same, without an index in both; 1..=15 not comparable, compacted in B; \
                A ends at 15, B is empty\n";
    both_ways(&closed_log(), &whole, 0, line);
}

/// The term of the entry before the first is all that is left of it, and enough.
#[test]
fn a_term_that_differs_right_before_the_compacted_end_is_told() {
    let other = written(|log| {
        append(log, 3, 9);
        append(log, 4, 6);
        drop(log.compact_before(11).unwrap());
    });
    let line = "log 7: different at index 10: term 3 in A, 4 in B; \
                1..=10 not comparable, compacted in B; both end at 15\n";
    both_ways(&closed_log(), &other, 1, line);
}

#[test]
fn logs_with_no_index_in_both_and_a_gap_between_are_not_comparable() {
    let ahead = written(|log| {
        append(log, 3, 1);
        drop(log.reset(31, 4).unwrap());
        append(log, 4, 2);
    });
    let line = "log 7: not comparable, without an index in both; \
                1..=15 not comparable, compacted in B; A ends at 15, B at 32\n";
    both_ways(&closed_log(), &ahead, 0, line);
    let none = written(|_| ());
    let line = "log 7: not comparable, without an index in both; A is empty, B ends at 32\n";
    both_ways(&none, &ahead, 0, line);
}

#[test]
fn every_log_has_its_line_and_those_asked_for_alone() {
    let [a, b] = [(1, [2, 5]), (2, [2, 9])].map(|(term, ids)| {
        let directory = TempDir::new().unwrap();
        let wal = options().open(directory.path()).unwrap();
        append(&wal.log(LogId(7)).unwrap(), term, 3);
        ids.iter().for_each(|&id| append(&wal.log(LogId(id)).unwrap(), 1, 3));
        wal.close().unwrap();
        directory
    });
    let run = diff(a.path(), b.path(), &[]);
    let lines = [
        "log 2: same in index 1..=3; both end at 3",
        "log 5: same, without an index in both; A ends at 3, B is empty",
        "log 7: different at index 1: term 1 in A, 2 in B; both end at 3",
        "log 9: same, without an index in both; A is empty, B ends at 3",
    ];
    assert_eq!((run.code, run.stdout.lines().collect::<Vec<_>>()), (Some(1), lines.to_vec()));
    let run = diff(a.path(), b.path(), &["--log", "9,2"]);
    assert_eq!(run.stdout.lines().collect::<Vec<_>>(), [lines[0], lines[3]]);
    assert_eq!(run.code, Some(0), "the one that differs was not asked for");
}

/// WAL-CASE 6
#[test]
fn damage_is_told_by_its_side_and_what_lies_before_it_is_compared() {
    let damaged = closed_log();
    let frame = entries_frames(damaged.path()).remove(1);
    flip_bit(damaged.path(), &frame, HEADER_BYTES + 25);
    for (a, b, side) in
        [(damaged.path(), closed_log().path(), "A"), (closed_log().path(), damaged.path(), "B")]
    {
        let run = diff(a, b, &[]);
        assert_eq!(run.code, Some(2), "{run:?}");
        let line = format!("log 7: same in index 1..=10; {side} is damaged: segment ");
        assert!(run.stdout.starts_with(&line), "{run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        assert!(run.stderr.starts_with(&format!("wal-inspect: corrupt: {side}: segment ")));
        let found = json_of(&diff(a, b, &["--json"]));
        assert_eq!(found["verdict"], "damaged", "{found}");
        assert_eq!(found["damage"]["of"], side.to_lowercase(), "{found}");
    }
}

/// WAL-CASE 5: a log that ends at damage is not a prefix of the other.
#[test]
fn a_log_that_damage_cut_short_is_not_called_the_same() {
    let damaged = closed_log();
    let frame = entries_frames(damaged.path()).remove(1);
    flip_bit(damaged.path(), &frame, 30);
    let run = diff(damaged.path(), closed_log().path(), &[]);
    assert_eq!(run.code, Some(2), "{run:?}");
    let line = "log 7: same in index 1..=10; A is damaged: segment ";
    assert!(run.stdout.starts_with(line), "{run:?}");
    assert!(run.stdout.ends_with("; A ends at 10, B at 15\n"), "{run:?}");
    let found = json_of(&diff(damaged.path(), closed_log().path(), &["--json"]));
    assert_eq!((&found["verdict"], &found["damage"]["of"]), (&"damaged".into(), &"a".into()));
}

/// WAL-CASE 5: behind a header that cannot be read lie frames of every log, and what is said of the damage names one.
#[test]
fn damage_in_a_frame_of_another_log_cuts_a_log_short_too() {
    let whole = TempDir::new().unwrap();
    let wal = options().open(whole.path()).unwrap();
    let [one, two] = [1, 2].map(|id| wal.log(LogId(id)).unwrap());
    append(&two, 3, 5);
    append(&one, 3, 5);
    append(&two, 3, 15);
    wal.close().unwrap();
    let damaged = copy_of(whole.path());
    let frame = entries_frames(damaged.path()).remove(1);
    assert_eq!(frame.log, LogId(1));
    flip_bit(damaged.path(), &frame, 30);
    for (a, b, side, ends) in [
        (&damaged, &whole, "A", "A ends at 5, B at 20"),
        (&whole, &damaged, "B", "A ends at 20, B at 5"),
    ] {
        let run = diff(a.path(), b.path(), &["--log", "2"]);
        assert_eq!(run.code, Some(2), "{run:?}");
        let line = format!("log 2: same in index 1..=5; {side} is damaged: segment ");
        assert!(run.stdout.starts_with(&line), "{run:?}");
        assert!(run.stdout.ends_with(&format!("; {ends}\n")), "{run:?}");
        let found = json_of(&diff(a.path(), b.path(), &["--log", "2", "--json"]));
        assert_eq!(found["verdict"], "damaged", "{found}");
        assert_eq!(found["damage"]["of"], side.to_lowercase(), "{found}");
    }
}

/// WAL-CASE 6: what no entry that is compared tells of is damage, too.
#[test]
fn damage_that_no_compared_entry_shows_is_told_by_its_side() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1/closed");
    let frames: Vec<Frame> = Scan::open(&fixture).unwrap().frames().map(Result::unwrap).collect();
    let checkpoint = frames.iter().find(|frame| frame.kind == FrameKind::Checkpoint).unwrap();
    let trailer_page = fs::metadata(fixture.join(&checkpoint.file)).unwrap().len() - 4096;
    for (ahead, what) in [
        (trailer_page - checkpoint.offset + 30, "trailer"),
        (HEADER_BYTES + 3, "checksum of a frame's body"),
    ] {
        let damaged = copy_of(&fixture);
        flip_bit(damaged.path(), checkpoint, ahead);
        for (a, b, side) in [(damaged.path(), &*fixture, "A"), (&*fixture, damaged.path(), "B")] {
            let run = diff(a, b, &["--log", "1"]);
            let line = "log 1: same in index 17..=40; both end at 40\n";
            assert_eq!((run.code, run.stdout.as_str()), (Some(2), line), "{run:?}");
            let place = format!("wal-inspect: corrupt: {side}: segment {} ", checkpoint.file);
            assert!(run.stderr.starts_with(&place) && run.stderr.contains(what), "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        }
    }
}

/// WAL-CASE 6: the comparison ends at the first difference, the look at what is damaged does not.
#[test]
fn damage_behind_a_difference_is_told() {
    let in_segments = |term| {
        let directory = TempDir::new().unwrap();
        let wal = options().open(directory.path()).unwrap();
        let log = wal.log(LogId(7)).unwrap();
        append(&log, 3, 5);
        while wal.statistics().sealed_segments < 3 {
            append(&log, term, 10);
            wal.work(Duration::ZERO);
        }
        wal.close().unwrap();
        directory
    };
    let (damaged, other) = (in_segments(4), in_segments(5));
    let frames = entries_frames(damaged.path());
    let frame = frames.into_iter().find(|frame| frame.segment == 2).unwrap();
    flip_bit(damaged.path(), &frame, HEADER_BYTES + 25);
    let run = diff(other.path(), damaged.path(), &[]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(
        run.stdout.starts_with("log 7: different at index 6: term 5 in A, 4 in B; "),
        "{run:?}"
    );
    assert!(run.stderr.starts_with("wal-inspect: corrupt: B: segment "), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

/// WAL-CASE 16: what a lost file took along was not compacted.
#[test]
fn entries_of_a_lost_segment_are_named_and_not_called_compacted() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1/closed");
    let lost = copy_of(&fixture);
    fs::remove_file(lost.path().join("0000000000000004.wal")).unwrap();
    let run = diff(&fixture, lost.path(), &["--log", "1"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    let line = "log 1: same in index 28..=40; 17..=27 not comparable, compacted or lost in B; \
                both end at 40\n";
    assert_eq!(run.stdout, line);
    assert!(run.stderr.starts_with("wal-inspect: corrupt: B: segment 0000000000000004.wal "));
}

#[test]
fn the_data_directories_of_nodes_mean_the_logs_in_them() {
    let (node, log) = (TempDir::new().unwrap(), closed_log());
    fs::create_dir(node.path().join("wal")).unwrap();
    for (name, bytes) in files(log.path()) {
        fs::write(node.path().join("wal").join(name), bytes).unwrap();
    }
    let all = [OsStr::new("diff"), node.path().as_os_str(), log.path().as_os_str()];
    let run = wal_inspect(all);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.starts_with("log 7: same in index 1..=15"), "{run:?}");
}

#[test]
fn what_cannot_be_read_ends_with_3_and_what_is_not_understood_with_4() {
    let (log, empty) = (closed_log(), TempDir::new().unwrap());
    for other in [empty.path(), &empty.path().join("nothing")] {
        let run = diff_unchecked(&[log.path().as_os_str(), other.as_os_str()]);
        assert_eq!((run.code, run.stderr.lines().count()), (Some(3), 1), "{run:?}");
    }
    let run = diff_unchecked(&[log.path().as_os_str(), empty.path().as_os_str()]);
    assert!(run.stderr.contains(" holds no log: "), "{run:?}");
    let run = diff_unchecked(&[log.path().as_os_str()]);
    assert_eq!((run.code, run.stderr.lines().count()), (Some(4), 1), "{run:?}");
}

fn diff_unchecked(directories: &[&OsStr]) -> Run {
    wal_inspect([&[OsStr::new("diff")], directories].concat())
}

/// WAL-CASE 41: what its writer takes away under it is no difference and no damage.
#[test]
fn a_busy_writer_makes_no_difference() {
    let directory = TempDir::new().unwrap();
    let wal = Wal::options().segment_bytes(16 << 10).open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    write_some(&log);
    let before = copy_of(directory.path());
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                write_some(&log);
                if log.last() - log.first() > 1000 {
                    log.compact_before(log.last() - 500).unwrap().wait().unwrap();
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        let (mut recycled, mut looks, mut failed) = (0, 0, None);
        while failed.is_none() && (looks < 20 || recycled < 20) && Instant::now() < deadline {
            for other in [directory.path(), before.path()] {
                let count = wal.statistics().recycled_segments;
                let run = diff_unchecked(&[directory.path().as_os_str(), other.as_os_str()]);
                recycled += wal.statistics().recycled_segments - count;
                if run.code != Some(0) || !run.stderr.is_empty() {
                    failed = Some(run);
                }
            }
            looks += 1;
        }
        enough.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "look {looks}: {failed:?}");
        assert!(recycled >= 20, "{looks} looks met {recycled}");
    });
}
