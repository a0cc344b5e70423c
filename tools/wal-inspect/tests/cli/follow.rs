//! `dump --follow`: what comes while somebody writes, and how it ends.

use std::{
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, ChildStdout, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use kontiki_wal::{AppendError, LogId, Wal};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, append, closed_log, command, crashed_log, entries_frames, files, flip_bit,
    options,
};

/// A dump of frames of entries that goes on. One that does not end in time is killed, so that its test fails.
struct Following {
    child: Child,
    lines: Option<BufReader<ChildStdout>>,
    _in_time: Sender<()>,
}

impl Following {
    fn begin(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = command()
            .args([OsStr::new("dump"), OsStr::new("--follow"), directory.as_os_str()])
            .args(["--kind", "entries", "--json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (in_time, ended) = mpsc::channel::<()>();
        let pid = pid(&child);
        thread::spawn(move || {
            if ended.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                kill_process(pid, Signal::KILL).unwrap();
            }
        });
        let lines = child.stdout.take().map(BufReader::new);
        Self { child, lines, _in_time: in_time }
    }

    /// First and last index of the next frame. Waits for it.
    fn next(&mut self) -> (u64, u64) {
        let mut line = String::new();
        self.lines.as_mut().unwrap().read_line(&mut line).unwrap();
        let frame: Value = serde_json::from_str(&line).unwrap();
        (frame["first_index"].as_u64().unwrap(), frame["last_index"].as_u64().unwrap())
    }

    /// What is left to read, the exit code, and what was said on standard error.
    fn end(mut self) -> (String, Option<i32>, String) {
        let (mut rest, mut remarks) = (String::new(), String::new());
        if let Some(mut lines) = self.lines {
            lines.read_to_string(&mut rest).unwrap();
        }
        self.child.stderr.take().unwrap().read_to_string(&mut remarks).unwrap();
        (rest, self.child.wait().unwrap().code(), remarks)
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

/// Appends an entry of 3000 bytes, and does what the log's threads would do.
fn push(wal: &Wal) {
    loop {
        match wal.log(LogId(7)).unwrap().push(vec![b'x'; 3000]) {
            Ok((_, pending)) => return pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn every_frame_comes_once_through_segments_and_openings_until_a_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let directory = TempDir::new().unwrap();
        let mut wal = options().open(directory.path()).unwrap();
        push(&wal);
        let mut following = Following::begin(directory.path(), &[]);
        assert_eq!(following.next(), (1, 1), "what was there");
        for index in 2..=20 {
            push(&wal);
            assert_eq!(following.next(), (index, index), "{signal:?}");
            if index % 8 == 0 {
                drop(wal);
                wal = options().open(directory.path()).unwrap();
            }
        }
        let segments = files(directory.path());
        assert!(segments.keys().filter(|name| name.ends_with(".wal")).count() > 5, "{signal:?}");
        kill_process(pid(&following.child), signal).unwrap();
        assert_eq!(following.end(), (String::new(), Some(0), String::new()), "{signal:?}");
    }
}

#[test]
fn it_ends_when_its_reader_has_gone_though_nothing_is_appended() {
    let log = crashed_log();
    let mut following = Following::begin(log.path(), &[]);
    assert_eq!(following.next(), (1, 10));
    following.lines = None;
    let (_, code, remarks) = following.end();
    assert_eq!((code, remarks.as_str()), (Some(0), ""));
}

#[test]
fn it_ends_when_all_that_was_asked_for_is_shown() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(7)).unwrap();
    append(&log, 1, 2);
    let mut by_number = Following::begin(directory.path(), &["--limit", "2"]);
    assert_eq!(by_number.next(), (1, 2));
    append(&log, 1, 1);
    assert_eq!(by_number.next(), (3, 3));
    assert_eq!(by_number.end(), (String::new(), Some(0), String::new()));

    let last = entries_frames(directory.path()).pop().unwrap();
    let before = format!("..{}", last.lsn.0);
    let mut by_lsn = Following::begin(directory.path(), &["--lsn", &before]);
    assert_eq!(by_lsn.next(), (1, 2));
    assert_eq!(by_lsn.end(), (String::new(), Some(0), String::new()));
}

/// The reader at the end of the pipe pauses until what comes next is there no more.
#[test]
fn what_was_freed_before_it_was_shown_is_named_and_the_rest_comes() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    push(&wal);
    // Holds the first segment, with frames that were shown already.
    append(&wal.log(LogId(8)).unwrap(), 1, 1);
    let arguments = ["--log", "7", "--hex", "--preview", "3000"];
    let mut following = Following::begin(directory.path(), &arguments);
    assert_eq!(following.next(), (1, 1));
    // More than what the pipe and the buffers on both sides take.
    for _ in 0..60 {
        push(&wal);
    }
    let log = wal.log(LogId(7)).unwrap();
    while wal.statistics().recycled_segments < 30 {
        log.compact_before(log.last()).unwrap().wait().unwrap();
        push(&wal);
    }
    let mut next = 2;
    let gap = loop {
        let (first, last) = following.next();
        assert_eq!(first, last);
        if first != next {
            break next..first;
        }
        next = last + 1;
    };
    assert!(gap.start < gap.end, "nothing comes twice: {gap:?}");
    for index in gap.end + 1..=log.last() {
        assert_eq!(following.next(), (index, index));
    }
    push(&wal);
    assert_eq!(following.next(), (log.last(), log.last()));
    kill_process(pid(&following.child), Signal::INT).unwrap();
    let (_, code, remarks) = following.end();
    assert_eq!(code, Some(0));
    assert_eq!(remarks.lines().count(), 1, "{remarks}");
    assert!(remarks.ends_with(" was freed before it could be shown\n"), "{remarks}");
}

#[test]
fn a_corrupt_log_that_nobody_writes_is_shown_as_far_as_it_goes_and_not_followed() {
    let log = closed_log();
    let frames = entries_frames(log.path());
    flip_bit(log.path(), &frames[1], HEADER_BYTES + 25);
    let (shown, code, remarks) = Following::begin(log.path(), &[]).end();
    assert_eq!((shown.lines().count(), code), (2, Some(2)), "{shown}{remarks}");
    assert!(shown.lines().nth(1).unwrap().contains("\"damage\":"), "{shown}");
    assert!(remarks.starts_with("wal-inspect: corrupt: segment "), "{remarks}");
}

/// Overwrites bytes of a file as rot does.
fn rot(directory: &Path, name: &str, offset: u64) {
    let file = File::options().write(true).open(directory.join(name)).unwrap();
    file.write_all_at(b"two bits and more", offset).unwrap();
}

/// The writer does not read what it has written, and goes on or waits.
#[test]
fn a_live_log_that_ends_in_damage_is_not_waited_for() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    (0..3).for_each(|_| append(&wal.log(LogId(7)).unwrap(), 3, 1));
    let frames = entries_frames(directory.path());
    rot(directory.path(), &frames[1].file, frames[1].offset + 24);
    let (shown, code, remarks) = Following::begin(directory.path(), &[]).end();
    assert_eq!((shown.lines().count(), code), (1, Some(2)), "{shown}{remarks}");
    assert!(remarks.starts_with("wal-inspect: corrupt: segment "), "{remarks}");
    drop(wal);
}

#[test]
fn what_is_damaged_in_an_older_segment_is_not_called_freed_and_a_live_log_is_followed() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    (0..6).for_each(|_| push(&wal));
    while wal.work(Duration::ZERO) {}
    let frames = entries_frames(directory.path());
    assert!(frames[0].segment < frames[5].segment);
    rot(directory.path(), &frames[1].file, frames[1].offset + 24);
    let next = frames.iter().find(|frame| frame.segment > frames[1].segment).unwrap().first_index;
    let mut following = Following::begin(directory.path(), &[]);
    assert_eq!(following.next(), (1, 1));
    for index in next..=6 {
        assert_eq!(following.next(), (index, index));
    }
    push(&wal);
    assert_eq!(following.next(), (7, 7), "it waits for more");
    kill_process(pid(&following.child), Signal::INT).unwrap();
    let (_, code, remarks) = following.end();
    assert_eq!(code, Some(2), "{remarks}");
    assert!(remarks.ends_with(" cannot be shown\n"), "{remarks}");
    assert!(!remarks.contains("freed"), "{remarks}");
}

#[test]
fn damage_to_what_was_shown_is_not_called_a_cut() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let prepared = "0000000000000002.wal";
    while !files(directory.path()).contains_key(prepared) {
        append(&wal.log(LogId(7)).unwrap(), 3, 1);
        wal.work(Duration::ZERO);
    }
    append(&wal.log(LogId(7)).unwrap(), 3, 1);
    let frames = entries_frames(directory.path());
    let mut following = Following::begin(directory.path(), &[]);
    for frame in &frames {
        assert_eq!(following.next(), (frame.first_index, frame.first_index));
    }
    rot(directory.path(), &frames[0].file, frames[0].offset + 24);
    // Makes it look again.
    rot(directory.path(), prepared, 100);
    let (_, code, remarks) = following.end();
    assert_eq!(code, Some(2), "{remarks}");
    assert!(remarks.lines().count() > 0, "{remarks}");
    let is_of_damage = |line: &str| {
        ["corrupt: ", "not read: ", "`wal-inspect repair "]
            .iter()
            .any(|what| line.starts_with(&format!("wal-inspect: {what}")))
    };
    assert!(remarks.lines().all(is_of_damage), "{remarks}");
    assert_eq!(remarks.matches("`wal-inspect repair ").count(), 1, "{remarks}");
    drop(wal);
}
