//! `repair`: what it says of what earlier repairs have left, and of a log with which nothing is wrong.

use std::{fs, os::unix::fs::symlink, path::Path};

use kontiki_wal::{
    inspect::FrameKind,
    repair::{Mark, Stage},
};
use serde_json::{Value, json};

use crate::{
    repair::{CUT, Damaged, NONE, NOTHING_TO_REPAIR, damaged, fixture, repair, salvage},
    support::{
        Run, closed_log, crashed_log, entries_frames, flip_bit, options, verify, wal_inspect,
    },
};

fn rows(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// WAL-CASE 42
#[test]
fn a_log_that_a_repair_took_something_from_is_marked_and_says_so() {
    let log = damaged();
    let new = log.beside("new");
    let dry = repair(&log.log(), NONE).stdout;
    for place in [&log.log(), Path::new("NEW_DIR")].map(|place| place.join("REPAIR")) {
        let place = place.display();
        let line = format!("\n  would be marked: {place} would say what is lost; no node starts");
        assert!(dry.contains(&line), "{dry}");
    }
    let runs = [(salvage(&log.log(), &new), new), (repair(&log.log(), CUT), log.log())];
    for (run, made) in runs {
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        let place = made.join("REPAIR");
        let line = format!("\n  marked: {} says what is lost; no node starts", place.display());
        assert!(run.stdout.contains(&line), "{run:?}");
        let mark = Mark::of(&made).unwrap().unwrap();
        assert_eq!(mark.stage, Stage::Done);
        assert_eq!(mark.losses[1..], ["log 7: index 11..=15 term 4 lost"]);

        let run = repair(&made, NONE);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        let loss = "an earlier repair: log 7: index 11..=15 term 4 lost\n";
        assert!(run.stdout.contains(loss) && run.stdout.ends_with(NOTHING_TO_REPAIR), "{run:?}");
        let told = rows(&repair(&made, ["--json"]));
        assert_eq!(told[0], json!({"row": "healthy", "ended": false}));
        assert_eq!(told[1], json!({"row": "mark", "stage": "done", "losses": mark.losses}));
        assert_eq!(told.len(), 2);
        options().open(&made).unwrap().close().unwrap();
    }
}

#[test]
fn of_a_healthy_log_programs_are_told_that_it_is_one() {
    let log = Damaged::of(closed_log().path());
    for flags in [&["--json"][..], &["--truncate-tail", "--yes", "--json"]] {
        let run = repair(&log.log(), flags);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        assert_eq!(rows(&run), [json!({"row": "healthy", "ended": false})]);
    }
}

/// WAL-CASE 42: such a log looks whole, and is not opened.
#[test]
fn a_cut_that_was_stopped_is_told_of_until_it_is_ended() {
    let log = Damaged::of(closed_log().path());
    let mark = log.log().join("REPAIR");
    for losses in ["", "- log 7: its state is lost\n"] {
        fs::write(&mark, format!("Kontiki repair: cutting\n{losses}")).unwrap();
        let run = repair(&log.log(), NONE);
        assert_eq!((run.code, run.stderr.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stdout.starts_with("unfinished: a cut in place was begun"), "{run:?}");
        assert!(!run.stdout.contains("nothing to repair"), "{run:?}");
        let told = rows(&repair(&log.log(), ["--json"]));
        assert_eq!((told.len(), &told[0]["stage"]), (1, &json!("cutting")), "{told:?}");
        options().open(log.log()).map(drop).unwrap_err();

        let run = repair(&log.log(), CUT);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        assert!(run.stdout.contains("the cut that was begun before is ended"), "{run:?}");
        assert_eq!(mark.exists(), !losses.is_empty());
        options().open(log.log()).unwrap().close().unwrap();
        let again = repair(&log.log(), CUT).stdout;
        assert!(!again.contains("is ended") && again.contains("nothing to repair"), "{again}");
    }
}

/// WAL-CASE 42: it would be refused again. The mark may be any file of that name.
#[test]
fn a_cut_that_is_not_possible_is_not_to_be_done_again() {
    let log = Damaged::of(&fixture());
    log.flip(|frame| frame.lsn.0 == 20760);
    fs::write(log.log().join("REPAIR"), "somebody's\n").unwrap();
    let run = repair(&log.log(), NONE);
    assert_eq!((run.code, run.stderr.as_str()), (Some(2), ""), "{run:?}");
    assert!(run.stdout.contains("opened before it is:\nsalvage it\n"), "{run:?}");
    let run = repair(&log.log(), CUT);
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    let is_refused = run.stderr.contains("cannot be cut in place: ");
    assert!(is_refused && !run.stderr.contains("do it again"), "{run:?}");
    let new = log.beside("new");
    assert_eq!(salvage(&log.log(), &new).code, Some(0), "that is");
    assert_eq!(Mark::of(&new).unwrap().unwrap().stage, Stage::Done);
}

/// WAL-CASE 42: it is no log, and what `repair` says of it is what `verify` says.
#[test]
fn what_is_left_of_a_salvage_is_not_repaired() {
    let log = Damaged::of(closed_log().path());
    fs::write(log.log().join("REPAIR"), "Kontiki repair: salvaging\n").unwrap();
    for flags in [&NONE[..], &CUT] {
        let run = repair(&log.log(), flags);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stderr.contains("remove that directory, and salvage again"), "{run:?}");
    }
}

/// WAL-CASE 42: as above, for no repair makes a link, and who finds no mark takes the log for one that has lost nothing.
#[test]
fn a_mark_that_is_a_link_counts_and_is_replaced() {
    for log in [damaged(), Damaged::of(closed_log().path())] {
        let mark = log.log().join("REPAIR");
        symlink("nowhere", &mark).unwrap();
        symlink("nowhere", log.log().join("REPAIR.new")).unwrap();
        let run = repair(&log.log(), NONE);
        assert_eq!((run.code, run.stderr.as_str()), (Some(2), ""), "{run:?}");
        assert!(run.stdout.starts_with("unfinished: a cut in place was begun"), "{run:?}");
        options().open(log.log()).map(drop).unwrap_err();

        let run = repair(&log.log(), CUT);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        assert!(fs::symlink_metadata(&mark).unwrap().is_file());
        let found = Mark::of(log.log()).unwrap().unwrap();
        assert_eq!(found.stage, Stage::Done);
        assert_eq!(found.losses[0], "the mark of a repair cannot be read");
        options().open(log.log()).unwrap().close().unwrap();
    }
}

/// WAL-CASE 42: the oldest entry is lost, so nothing of the log can follow on anything.
#[test]
fn that_nothing_of_a_log_is_salvaged_is_a_warning_and_exit_code_2() {
    let log = Damaged::of(closed_log().path());
    let first = entries_frames(&log.log())[0].clone();
    assert_eq!(first.kind, FrameKind::Entries);
    flip_bit(&log.log(), &first, 100);
    let new = log.beside("new");
    let run = salvage(&log.log(), &new);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains("leaves out, though whole, index 11..=15 term 4"), "{run:?}");
    let dump = format!("`wal-inspect dump {} --log 7` shows what can be read", log.log().display());
    let starts = run.stderr.starts_with("wal-inspect: log 7: NO ENTRY IS SALVAGED");
    assert!(starts && run.stderr.contains(&dump), "{run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    assert!(new.join("0000000000000001.wal").exists(), "it is made all the same");
}

/// No disk does that, and whoever did it can undo it.
#[test]
fn what_was_done_to_files_by_hand_is_told_with_what_undoes_it() {
    let log = Damaged::of(&fixture());
    let (one, other) = ("0000000000000005.wal", "0000000000000006.wal");
    let (one_path, other_path) = (log.log().join(one), log.log().join(other));
    fs::rename(&one_path, log.beside("aside")).unwrap();
    fs::rename(&other_path, &one_path).unwrap();
    fs::rename(log.beside("aside"), &other_path).unwrap();
    let run = repair(&log.log(), NONE);
    let hint = format!("\n  {one} holds segment {other}: were files exchanged or renamed?");
    assert!(run.code == Some(2) && run.stdout.contains(&hint), "{run:?}");
}

/// The stages of a repair, with losses where it has some.
const MARKS: [(&str, &str, &str); 4] = [
    ("cutting", "", "unfinished: a cut in place was begun and not ended"),
    (
        "cutting",
        "- log 7: its state is lost\n",
        "unfinished: a cut in place was begun and not ended",
    ),
    ("salvaging", "- log 7: its state is lost\n", "unfinished: a salvage into "),
    ("done", "- log 7: its state is lost\n", "marked: "),
];

/// WAL-CASE 42: its frames are whole, and it is not opened, or no node starts from it.
#[test]
fn verify_tells_of_the_mark_of_a_repair() {
    for (stage, losses, says) in MARKS {
        let (whole, torn) = (Damaged::of(closed_log().path()), Damaged::of(crashed_log().path()));
        torn.flip(|frame| frame.kind == FrameKind::Entries);
        for (log, verdict, code) in
            [(&whole, "whole", 0), (&torn, "torn", 1), (&damaged(), "corrupt", 2)]
        {
            fs::write(log.log().join("REPAIR"), format!("Kontiki repair: {stage}\n{losses}"))
                .unwrap();
            let is_done = stage == "done";
            let verdict = if is_done || code == 2 { verdict } else { "unfinished" };
            let code = if is_done { code } else { 2 };
            let run = verify(&log.log());
            assert_eq!(run.code, Some(code), "{run:?}");
            // Of a repair that was begun the mark says what to do.
            let is_way_out_told = is_done && code == 2;
            assert_eq!(run.stderr.contains("`wal-inspect repair "), is_way_out_told, "{run:?}");
            let line = run.stdout.lines().find(|line| line.starts_with(says)).unwrap();
            assert!(line.contains(log.log().to_str().unwrap()), "{run:?}");
            let of_salvage = line.ends_with(": remove that directory, and salvage again");
            assert_eq!(of_salvage, stage == "salvaging", "{run:?}");
            let loss = "an earlier repair: log 7: its state is lost\n";
            assert_eq!(run.stdout.contains(loss), !losses.is_empty(), "{run:?}");
            assert_eq!(run.stdout.contains("whole"), verdict == "whole", "{run:?}");
            assert_eq!(
                run.stdout.contains("torn tail: "),
                code == 1 || log.log() == torn.log(),
                "{run:?}"
            );

            let run = wal_inspect(["verify", log.log().to_str().unwrap(), "--json"]);
            assert_eq!((run.code, run.stderr.as_str()), (Some(code), ""), "{run:?}");
            let row = &rows(&run)[0];
            assert_eq!(row["verdict"], verdict, "{run:?}");
            let lost =
                if losses.is_empty() { json!([]) } else { json!(["log 7: its state is lost"]) };
            assert_eq!(row["mark"], json!({"stage": stage, "losses": lost}), "{run:?}");
        }
    }
}

/// WAL-CASE 42: what they print is what the frames hold, so they say it beside that.
#[test]
fn what_shows_the_frames_says_on_standard_error_that_a_repair_left_a_mark() {
    for (stage, losses, says) in MARKS {
        let log = Damaged::of(closed_log().path());
        let directory = log.log();
        for flags in
            [&["dump"][..], &["dump", "--follow", "--limit", "1"], &["segments"], &["stats"]]
        {
            let run = || wal_inspect([flags, &[directory.to_str().unwrap(), "--json"]].concat());
            let before = run();
            assert_eq!((before.code, before.stderr.as_str()), (Some(0), ""), "{before:?}");
            fs::write(directory.join("REPAIR"), format!("Kontiki repair: {stage}\n{losses}"))
                .unwrap();
            let after = run();
            fs::remove_file(directory.join("REPAIR")).unwrap();
            assert_eq!((after.code, after.stdout), (Some(0), before.stdout));
            assert_eq!(after.stderr.lines().count(), 1, "{}", after.stderr);
            assert!(after.stderr.starts_with(&format!("wal-inspect: {says}")), "{}", after.stderr);
        }
    }
}
