//! The examples as commands: what a shell, and who runs them, expects of them.
#![forbid(unsafe_code)]

#[path = "power_cut/examples.rs"]
mod examples;

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::examples::{Examples, build};

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
        let told = check_refused(&examples.append_lines, arguments);
        let what = format!("append_lines: {} takes a number from 1 to ", arguments[0]);
        let value = format!(", not \"{}\"\n", arguments[1]);
        assert!(told.starts_with(&what) && told.contains(&value), "{told}");
    }
}

/// What it says.
fn check_refused(example: &Path, arguments: &[&str]) -> String {
    let refused = Command::new(example).args(arguments).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stdout.is_empty(), "{refused:?}");
    String::from_utf8(refused.stderr).expect("a message is text")
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

#[test]
fn the_counter_goes_on_where_it_stopped_and_is_plain_about_it() {
    let directory = tempfile::tempdir().unwrap();
    let [counter] = build(["counter"]);
    let run = |argument: &Path| {
        let output = Command::new(&counter).arg(argument).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for stands_at in [3, 6] {
        let (code, said, errors) = run(directory.path());
        assert_eq!((code, errors.as_str()), (Some(0), ""));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        for (line, node) in lines.iter().zip(1..=3) {
            assert!(line.starts_with(&format!("node {node} adds one: entry ")), "{said}");
        }
        assert!(lines[3].starts_with(&format!("the counter stands at {stands_at}; ")), "{said}");
    }

    let usage = (Some(0), "usage: counter [DIRECTORY]\n".to_owned(), String::new());
    assert_eq!(run(Path::new("--help")), usage);

    // A file where a directory should be: told in words, not as the error looks inside.
    let file = directory.path().join("file");
    std::fs::write(&file, "no directory").unwrap();
    let (code, said, errors) = run(&file);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(errors.starts_with("counter: cannot open the log: open "), "{errors}");
    assert!(!errors.contains('{') && errors.lines().count() == 1, "{errors}");
}
