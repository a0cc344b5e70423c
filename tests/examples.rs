//! The examples of the log as commands: what a shell expects of them.
#![forbid(unsafe_code)]

#[path = "power_cut/examples.rs"]
mod examples;

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::examples::Examples;

#[test]
fn help_is_no_error_and_anything_else_that_is_no_directory_is() {
    let examples = Examples::build();
    for example in [&examples.append_lines, &examples.read_lines] {
        let help = Command::new(example).arg("--help").output().unwrap();
        assert!(help.status.success() && help.stdout.starts_with(b"usage: "), "{help:?}");
        assert!(help.stderr.is_empty(), "{help:?}");
        for arguments in [&[][..], &["--frobnicate"], &["a", "b"]] {
            check_refused(example, arguments);
        }
    }
    for arguments in [&["--keep", "0", "a"][..], &["--keep", "a"], &["--segment-mib", "1025", "a"]]
    {
        check_refused(&examples.append_lines, arguments);
    }
}

fn check_refused(example: &Path, arguments: &[&str]) {
    let refused = Command::new(example).args(arguments).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stdout.is_empty(), "{refused:?}");
}

#[test]
fn the_newest_lines_are_kept_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let examples = Examples::build();
    let append = |lines: &[u8]| {
        let mut child = Command::new(&examples.append_lines)
            .args(["--keep", "2", "--segment-mib", "1"])
            .arg(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(lines).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    let read = || {
        let output = Command::new(&examples.read_lines).arg(directory.path()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(append(b"one\n"), "1\n");
    assert_eq!(read(), "1\tone\n");
    assert_eq!(append(b"two\nthree\nfour\n"), "2\n3\n4\n");
    assert_eq!(read(), "3\tthree\n4\tfour\n");
    assert_eq!(append(b""), "");
    assert_eq!(read(), "3\tthree\n4\tfour\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(Examples::build().append_lines)
        .arg(directory.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    input.write_all(b"one\n").unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    drop(output);
    // Its answer to this one finds nobody.
    input.write_all(b"two\n").unwrap();
    drop(input);
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success(), "{errors}");
    assert_eq!(errors, "");
}
