//! What the command line takes, and what it says otherwise.

use std::{ffi::OsString, fs, io::ErrorKind, process::Command};

use kontiki_wal::LogId;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, append, closed_log, crashed_log, entries_frames, fields, files, flip_bit,
    is_told, json, options, raft_log, run_in, wal_inspect,
};

#[test]
fn what_is_not_understood_ends_with_4_and_changes_nothing() {
    let log = closed_log();
    let before = files(log.path());
    for arguments in [
        &["verify"][..],
        &["frobnicate"],
        &["verify", ".", "--frobnicate"],
        &["dump", ".", "--index", "9..3"],
        &["dump", ".", "--lsn", "..0"],
        &["dump", ".", "--term", "x"],
        &["dump", ".", "--kind", "nonsense"],
        &["dump", ".", "--format", "xml"],
        &["dump", ".", "--log", "-1"],
        &["dump", ".", "--limit", "0"],
        &["repair", ".", "--truncate-tail"],
        &["repair", ".", "--yes"],
        &["repair", ".", "--yes", "--salvage", "new"],
        &["repair", ".", "--yes", "--truncate-tail", "--salvage", "new"],
        &["probe", ".", "--seconds", "0"],
        &["probe", ".", "--segment-bytes", "4194305"],
    ] {
        let run = run_in(log.path(), arguments);
        assert_eq!(run.code, Some(4), "{arguments:?}: {run:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{arguments:?}: {run:?}");
        assert!(run.stderr.starts_with("wal-inspect: "), "{arguments:?}: {run:?}");
        assert_eq!(files(log.path()), before, "{arguments:?}");
    }
    let run = wal_inspect(&[] as &[&str]);
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.stderr.contains("Usage:"), "{run:?}");
}

#[test]
fn what_is_missing_or_misspelt_is_told_with_what_to_say() {
    let directory = closed_log();
    let log = directory.path().to_str().unwrap();
    for (arguments, code, told) in [
        (&["frob"][..], 4, "'frob'; a similar subcommand exists: 'probe'; see wal-inspect --help"),
        (&["hexdump", log], 4, "<--lsn <LSN>|--segment <SEGMENT>>"),
        (&["hexdump", log, "--segment", "77"], 3, "no segment 77 (000000000000004d.wal) is in "),
    ] {
        let run = wal_inspect(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(told), "{arguments:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{arguments:?}: {run:?}");
    }
}

#[test]
fn a_number_out_of_its_range_is_told_with_the_range() {
    for (arguments, told) in [
        (["verify", "-j", "0"], "\"0\" is no number of threads; at least 1 reads"),
        (["verify", "-j", "-1"], "\"-1\" is no number of threads; at least 1 reads"),
        (["probe", "--seconds", "-1"], "\"-1\" is not 1 to 3600 seconds"),
        (["probe", "--seconds", "3601"], "\"3601\" is not 1 to 3600 seconds"),
        (["probe", "--segment-bytes", "-1"], "\"-1\" is not 4 MiB to 1 GiB in bytes"),
    ] {
        let run = wal_inspect(arguments.iter().chain(&["."]));
        assert_eq!((run.code, run.stdout.as_str()), (Some(4), ""), "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(told), "{arguments:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{arguments:?}: {run:?}");
    }
}

#[test]
fn a_mistake_refers_to_the_help_that_tells_of_it() {
    for (arguments, help) in [
        (&["dump", ".", "--index", "5..2"][..], "wal-inspect dump --help"),
        (&["dump", ".", "--limit", "0"], "wal-inspect dump --help"),
        (&["dump"], "wal-inspect dump --help"),
        (&["verify", ".", "--limit", "1"], "wal-inspect verify --help"),
        (&["frobnicate", "dump"], "wal-inspect --help"),
        (&["--frobnicate"], "wal-inspect --help"),
    ] {
        let run = wal_inspect(arguments);
        assert_eq!(run.code, Some(4), "{arguments:?}: {run:?}");
        assert!(run.stderr.ends_with(&format!("; see {help}\n")), "{arguments:?}: {run:?}");
    }
}

#[test]
fn help_tells_exit_codes_and_examples() {
    let run = wal_inspect(["--help"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for code in ["0  whole", "1  torn tail", "2  corrupt", "3  cannot read", "4  usage"] {
        assert!(run.stdout.contains(code), "{code}: {run:?}");
    }
    assert!(run.stdout.contains("\nExamples"), "{run:?}");
    for command in commands() {
        let run = wal_inspect([&command, "--help"]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert!(run.stdout.contains("\nExamples"), "{run:?}");
        assert!(run.stdout.contains("\nExit codes:"), "{run:?}");
    }
}

/// As the help lists them.
fn commands() -> Vec<String> {
    let help = wal_inspect(["--help"]).stdout;
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        // What goes on in a second line is no command.
        let line = line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?;
        line.split_whitespace().next().map(str::to_owned)
    });
    let names: Vec<String> = names.filter(|name| name != "help").collect();
    assert!(names.len() >= 7, "{names:?}");
    names
}

#[test]
fn every_command_that_looks_into_a_log_prints_json_and_tells_its_keys() {
    let log = closed_log();
    for command in commands().iter().filter(|command| *command != "completions") {
        let more: &[&str] = match command.as_str() {
            "diff" => &["."],
            "hexdump" => &["--lsn", "0"],
            "probe" => &["--seconds", "1", "--segment-bytes", "4194304"],
            _ => &[],
        };
        let run = run_in(log.path(), &[&[command, ".", "--json"], more].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{command}: {run:?}");
        assert!(!fields(&run.stdout).is_empty(), "{command}: {run:?}");
        let help = wal_inspect([command, "--help"]).stdout;
        let (options, told) = help.split_once("Print help").unwrap();
        assert!(options.contains("--json"), "{command}: {help}");
        assert!(told.contains("JSON, a line") || told.contains(" --json"), "{command}: {help}");
    }
}

/// A script that bash cannot read completes nothing, and says so at each start of a shell.
#[test]
fn bash_takes_the_completions() {
    let script = wal_inspect(["completions", "bash"]);
    assert_eq!((script.code, script.stderr.as_str()), (Some(0), ""), "{script:?}");
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("wal-inspect");
    fs::write(&file, &script.stdout).unwrap();
    // As bash itself does when the tabulator key is pressed behind the last word.
    let asked = "source \"$1\"; shift; COMP_WORDS=(wal-inspect \"$@\"); COMP_CWORD=$#; \
                 function=$(complete -p wal-inspect | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
                 \"$function\" wal-inspect \"${@: -1}\" \"${@: -2:1}\"; echo \"${COMPREPLY[*]}\"";
    let of_bash = |options: &[&str], words: &[&str], reply: &str| {
        let run = match Command::new("bash").args(options).arg(&file).args(words).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return eprintln!("skipped: bash is not here");
            }
            run => run.unwrap(),
        };
        assert!(run.status.success() && run.stderr.is_empty(), "{run:?}");
        assert_eq!(String::from_utf8(run.stdout).unwrap(), reply);
    };
    of_bash(&["-n"], &[], "");
    let complete = ["-c", asked, "bash"];
    of_bash(&complete, &["ver"], "verify\n");
    of_bash(&complete, &["repair", "--tr"], "--truncate-tail\n");
    of_bash(&complete, &["dump", "--kind", "ma"], "mark\n");
}

#[test]
fn completions_are_made_for_other_shells_too() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let run = wal_inspect(["completions", shell]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        for command in commands() {
            assert!(run.stdout.contains(&command), "{shell} does not know {command}");
        }
    }
}

#[test]
fn every_kind_of_row_is_told_of_in_the_help() {
    for command in ["segments", "stats", "verify"] {
        for row in json(command, closed_log().path()) {
            let kind = row["row"].as_str().unwrap_or("segment");
            assert!(is_told(command, kind), "{command} --help says nothing of {row}");
        }
    }
}

#[test]
fn every_field_of_json_is_told_of_in_the_help() {
    let (log, other, compacted) = (closed_log(), TempDir::new().unwrap(), TempDir::new().unwrap());
    for (directory, first) in [(&other, 1), (&compacted, 5)] {
        let wal = options().open(directory.path()).unwrap();
        let seven = wal.log(LogId(7)).unwrap();
        append(&seven, 3, 9);
        append(&seven, 5, 1);
        seven.compact_before(first).unwrap().wait().unwrap();
    }
    let frame = entries_frames(other.path()).remove(0);
    flip_bit(other.path(), &frame, 30);
    let at = |directory: &TempDir| directory.path().as_os_str().to_owned();
    let torn = crashed_log();
    flip_bit(torn.path(), &entries_frames(torn.path()).remove(1), HEADER_BYTES + 25);
    let marked = closed_log();
    fs::write(marked.path().join("REPAIR"), "Kontiki repair: cutting\n").unwrap();
    for (command, arguments) in [
        ("verify", vec![at(&log)]),
        ("verify", vec![at(&other)]),
        ("verify", vec![at(&marked)]),
        ("verify", vec![at(&torn)]),
        ("segments", vec![at(&log)]),
        ("stats", vec![at(&log)]),
        ("dump", vec![at(&log)]),
        ("dump", vec![at(&other)]),
        ("dump", vec![at(&raft_log())]),
        ("hexdump", vec![at(&other), "--header".into(), format!("--lsn={}", frame.lsn.0).into()]),
        ("diff", vec![at(&log), at(&compacted)]),
        ("diff", vec![at(&log), at(&other)]),
    ] {
        let all = [OsString::from(command), "--json".into()].into_iter().chain(arguments);
        let run = wal_inspect(all);
        let found = fields(&run.stdout);
        assert!(found.len() > 5, "{run:?}");
        for field in found {
            assert!(is_told(command, &field), "{command} --help says nothing of {field}");
        }
    }
}
