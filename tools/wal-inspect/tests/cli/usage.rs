//! What the command line takes, and what it says otherwise.

use crate::support::wal_inspect;

#[test]
fn what_is_not_understood_ends_with_4_and_changes_nothing() {
    for arguments in [
        &["verify"][..],
        &["frobnicate"],
        &["verify", ".", "--frobnicate"],
        &["dump", ".", "--index", "9..3"],
        &["dump", ".", "--kind", "nonsense"],
        &["dump", ".", "--format", "xml"],
        &["dump", ".", "--log", "-1"],
        &["dump", ".", "--limit", "0"],
    ] {
        let run = wal_inspect(arguments);
        assert_eq!(run.code, Some(4), "{arguments:?}: {run:?}");
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{arguments:?}: {run:?}");
        assert!(run.stderr.starts_with("wal-inspect: "), "{arguments:?}: {run:?}");
    }
    let run = wal_inspect(&[] as &[&str]);
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.stderr.contains("Usage:"), "{run:?}");
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
    let run = wal_inspect(["dump", "--help"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("\nExamples"), "{run:?}");
}
