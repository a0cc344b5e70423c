//! What is printed of the golden logs of format 1, line by line.
//!
//! `KONTIKI_FIXTURES=write cargo test -p wal-inspect golden` makes files that are not there; to change one, remove it first.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::support::{assert_golden, command, copy_of, entries_frames, flip_bit, wal_inspect};

fn check(name: &str, code: i32, commands: &[&[&str]]) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1");
    let mut printed = String::new();
    for command in commands {
        let arguments = command.iter().map(|&argument| match argument {
            "closed" | "killed" => fixtures.join(argument).into_os_string(),
            other => other.into(),
        });
        let run = wal_inspect(arguments);
        assert_eq!((run.code, run.stderr.as_str()), (Some(code), ""), "{command:?}");
        printed.push_str(&format!("$ wal-inspect {}\n{}\n", command.join(" "), run.stdout));
    }
    assert_golden(name, &printed);
}

#[test]
fn dump_prints_the_golden_log_as_it_always_did() {
    let commands: [&[&str]; 4] = [
        &["dump", "closed", "--preview", "16"],
        &["dump", "closed", "--lsn", "17000..19000", "--hex", "--preview", "8"],
        &["dump", "closed", "--term", "3..", "--json", "--preview", "8"],
        &["dump", "killed", "--lsn", "39000..", "--preview", "8"],
    ];
    check("dump.txt", 0, &commands);
}

#[test]
fn hexdump_prints_a_frame_of_each_kind_as_it_always_did() {
    let lsns =
        ["12832", "36016", "38864", "30720", "17376", "38656", "38704", "38752", "38800", "40288"];
    let commands: Vec<Vec<&str>> =
        lsns.iter().map(|lsn| vec!["hexdump", "closed", "--lsn", lsn]).collect();
    let mut commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
    commands.push(&["hexdump", "closed", "--segment", "3"]);
    commands.push(&["hexdump", "closed", "--lsn", "17376", "--header", "--json"]);
    check("hexdump.txt", 0, &commands);
}

#[test]
fn verify_prints_the_golden_logs_as_it_always_did() {
    let commands: [&[&str]; 5] = [
        &["verify", "closed"],
        &["verify", "closed", "--deep", "-j", "3"],
        &["verify", "closed", "--deep", "--json"],
        &["verify", "killed"],
        &["verify", "killed", "--json"],
    ];
    check("verify.txt", 0, &commands);
}

/// A body and a header of frames, and a cut that was begun; and the log torn at its end.
#[test]
fn verify_prints_damaged_logs_as_it_always_did() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1");
    let mut printed = String::new();
    let mut print = |what: &str, code, log: &TempDir| {
        for flags in [&["verify", "."][..], &["verify", ".", "--json"]] {
            let output = command().args(flags).current_dir(log.path()).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{output:?}");
            let shown = [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap());
            let line = flags.join(" ");
            printed.push_str(&format!("$ wal-inspect {line}  # {what}\n{}\n", shown.concat()));
        }
    };
    let (log, torn) = (copy_of(&fixtures.join("closed")), copy_of(&fixtures.join("killed")));
    let frames = entries_frames(log.path());
    flip_bit(log.path(), &frames[1], 50);
    print("a body", 2, &log);
    let in_a_header = [24, 33];
    in_a_header.iter().for_each(|&ahead| flip_bit(log.path(), &frames[frames.len() - 2], ahead));
    print("a header too", 2, &log);
    fs::write(log.path().join("REPAIR"), "Kontiki repair: cutting\n- log 7: a loss\n").unwrap();
    print("and a cut was begun", 2, &log);
    flip_bit(torn.path(), entries_frames(torn.path()).last().unwrap(), 50);
    print("torn", 1, &torn);
    assert_golden("verify-damaged.txt", &printed);
}

#[test]
fn diff_prints_the_golden_logs_as_it_always_did() {
    let commands: [&[&str]; 2] =
        [&["diff", "closed", "killed"], &["diff", "closed", "killed", "--json"]];
    check("diff.txt", 0, &commands);
}
