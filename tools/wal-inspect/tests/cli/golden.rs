//! What is printed of the golden logs of format 1, line by line.
//!
//! `KONTIKI_FIXTURES=write cargo test -p wal-inspect golden` makes files that are not there; to change one, remove it first.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{
    probe::probe,
    support::{
        assert_golden, assert_golden_but_for, command, copy_of, entries_frames, flip_bit,
        wal_inspect,
    },
};

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

/// A header of a frame in one segment, and the header page of another.
#[test]
fn segments_and_stats_print_a_damaged_log_as_they_always_did() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1");
    let log = copy_of(&fixtures.join("closed"));
    let frames = entries_frames(log.path());
    let frame = frames.iter().filter(|frame| frame.segment == 4).nth(5).unwrap();
    [24, 33].iter().for_each(|&ahead| flip_bit(log.path(), frame, ahead));
    let page = log.path().join("0000000000000005.wal");
    let mut bytes = fs::read(&page).unwrap();
    bytes[100] ^= 1;
    fs::write(page, bytes).unwrap();
    let mut printed = String::new();
    for flags in [
        &["segments", "."][..],
        &["segments", ".", "--json"],
        &["stats", "."],
        &["stats", ".", "--json"],
    ] {
        let output = command().args(flags).current_dir(log.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let shown = [output.stdout, output.stderr].map(|out| String::from_utf8(out).unwrap());
        printed.push_str(&format!("$ wal-inspect {}\n{}\n", flags.join(" "), shown.concat()));
    }
    assert_golden("reports-damaged.txt", &printed);
}

#[test]
fn diff_prints_the_golden_logs_as_it_always_did() {
    let commands: [&[&str]; 2] =
        [&["diff", "closed", "killed"], &["diff", "closed", "killed", "--json"]];
    check("diff.txt", 0, &commands);
}

#[test]
fn completions_of_bash_are_printed_as_they_always_were() {
    let run = wal_inspect(["completions", "bash"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert_golden("completions.bash", &run.stdout);
}

/// But for what is measured, what the place is like, and what follows from both: warnings and advice.
#[test]
fn probe_prints_as_it_always_did() {
    let directory = TempDir::new().unwrap();
    let print = |flags: &[&str], mask: fn(&str) -> String| -> String {
        let run = probe(directory.path(), flags);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        let warns =
            |line: &str| line.starts_with("WARNING: ") || line.contains(r#""row":"warning""#);
        run.stdout.lines().filter(|line| !warns(line)).map(|line| mask(line) + "\n").collect()
    };
    assert_golden_but_for("probe.txt", &print(&[], masked_line), &NOT_TOLD_EVERYWHERE);
    assert_golden_but_for("probe.jsonl", &print(&["--json"], masked_row), &NOT_TOLD_EVERYWHERE);
}

/// What a place need not have, or the system does not tell of it.
const NOT_TOLD_EVERYWHERE: [&str; 14] = [
    ", N files",
    ": a log of at most N GiB in segments of N MiB",
    r#","file_system":"..""#,
    r#","mount_point":"..""#,
    r#","mount_source":"..""#,
    r#","mount_options":"..""#,
    r#","device":"..""#,
    r#","write_cache":"..""#,
    r#","is_rotational":.."#,
    r#","free_files":.."#,
    r#","open_files":.."#,
    r#","open_files_max":.."#,
    r#","flushes_per_sync":.."#,
    r#","kib_per_sync":.."#,
];

fn masked_line(line: &str) -> String {
    for name in ["directory: ", "file system: ", "device: ", "fallocate: "] {
        if line.starts_with(name) {
            return format!("{name}..");
        }
    }
    if line.starts_with("free: ") || line.starts_with("open files: ") {
        return masked_digits(line).replace("no limit", "N");
    }
    // A row of the table begins with the size and the way.
    let is_row = line.trim_start().starts_with(|first: char| first.is_ascii_digit());
    let words = line.split_whitespace().enumerate();
    // What is not told of a place is a dash; all else that is measured is a number.
    let is_measured = |word: &str| word == "-" || word.parse::<f64>().is_ok_and(f64::is_finite);
    let mask = |(number, word)| if is_row && number > 1 && is_measured(word) { "N" } else { word };
    let words = words.map(mask);
    masked_reason(&words.collect::<Vec<_>>().join(" "))
}

fn masked_row(row: &str) -> String {
    let row = row.replace(r#""quicker_mode":"mapped","#, "");
    let is_kept = |key: &str| ["row", "way", "bytes", "write_mode", "reasons"].contains(&key);
    let mut masked = String::new();
    // What stands behind `,"` is a key; no text here has both in it.
    for (number, pair) in row.split(",\"").enumerate() {
        let comma = if number == 0 { "" } else { ",\"" };
        let value = match pair.split_once("\":") {
            Some((key, value)) if !is_kept(key.trim_start_matches("{\"")) => {
                let end = if value.ends_with('}') { "}" } else { "" };
                let value = if value.starts_with('"') { "\"..\"" } else { ".." };
                format!("{key}\":{value}{end}")
            }
            _ => pair.to_owned(),
        };
        masked += &format!("{comma}{value}");
    }
    masked_reason(&masked)
}

/// How much is gained is measured, and what to do about it said accordingly.
fn masked_reason(line: &str) -> String {
    let is_gain = |word: &str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    let mask = |word: &str| if is_gain(word) { masked_digits(word) } else { word.to_owned() };
    let masked = line.split(' ').map(mask).collect::<Vec<_>>().join(" ");
    let advice = ["quicker for small groups", "no reason to map"];
    match advice.iter().find_map(|advice| masked.find(advice)) {
        Some(start) => format!("{}..", &masked[..start]),
        None => masked,
    }
}

/// Runs of digits, points in them too, become `N`.
fn masked_digits(text: &str) -> String {
    let mut masked = String::new();
    for character in text.chars() {
        let is_number = character.is_ascii_digit() || character == '.' && masked.ends_with('N');
        match is_number {
            true if masked.ends_with('N') => {}
            true => masked.push('N'),
            false => masked.push(character),
        }
    }
    masked
}
