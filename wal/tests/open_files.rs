//! A log keeps a file open for each segment: what happens at the limit of open files. Each test runs in a process of its own,
//! which has a lower one.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{
    env,
    fs::{self, File},
    path::Path,
    process::Command,
    time::Duration,
};

use kontiki_wal::{AppendError, LogId, OpenError, Wal};

use support::mode;

const LOG: LogId = LogId(1);

/// True in the process that has the limits. Else runs the test of this name again, in such a process.
fn is_limited(name: &str, soft: u32, hard: u32) -> bool {
    const CHILD: &str = "KONTIKI_TEST_HAS_FEW_FILES";
    if env::var_os(CHILD).is_some() {
        return true;
    }
    let limits = format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"");
    let mut child = Command::new("sh");
    child.args(["-c", &limits]).arg(env::current_exe().unwrap());
    let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && text.contains("1 passed");
    assert!(passed, "{name} in a process with {soft} files: {output:?}");
    false
}

fn open(path: &Path) -> Result<Wal, OpenError> {
    Wal::options().segment_bytes(16 << 10).write_mode(mode()).without_threads().open(path)
}

/// Fills segments until there are so many, or until an append is refused for good.
fn fill(wal: &Wal, segments: u64) -> Result<(), AppendError> {
    while wal.statistics().segments < segments {
        match wal.log(LOG).unwrap().push(vec![7; 4000]) {
            Ok((_, pending)) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => {}
            Err(error) => return Err(error),
        }
        wal.work(Duration::ZERO);
    }
    Ok(())
}

#[test]
fn a_log_of_more_segments_than_the_soft_limit_grows_and_opens_again() {
    let name = "a_log_of_more_segments_than_the_soft_limit_grows_and_opens_again";
    if !is_limited(name, 64, 400) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let wal = open(directory.path()).unwrap();
    fill(&wal, 200).unwrap();
    let last = wal.log(LOG).unwrap().last();
    drop(wal);
    let wal = open(directory.path()).unwrap();
    assert!(wal.statistics().segments >= 200);
    let read = wal.log(LOG).unwrap().read(1..last + 1, usize::MAX);
    assert_eq!(read.map(Result::unwrap).count() as u64, last);
}

/// Sockets of others, between two segments.
#[test]
fn a_soft_limit_that_others_have_used_up_is_raised_when_the_log_meets_it() {
    let name = "a_soft_limit_that_others_have_used_up_is_raised_when_the_log_meets_it";
    if !is_limited(name, 64, 400) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let wal = open(directory.path()).unwrap();
    fill(&wal, 3).unwrap();
    let others = || std::iter::from_fn(|| File::open("/dev/null").ok()).collect::<Vec<_>>();
    let held = others();
    assert!(held.len() > 40, "as many as there may be");
    fill(&wal, 6).unwrap();
    drop(wal);
    let more = others();
    let wal = open(directory.path()).unwrap();
    assert!(wal.statistics().segments >= 6);
    drop((held, more));
}

#[test]
fn beyond_the_hard_limit_it_is_said_what_to_do_and_nothing_is_lost() {
    let name = "beyond_the_hard_limit_it_is_said_what_to_do_and_nothing_is_lost";
    if !is_limited(name, 64, 64) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let others = |count| (0..count).map(|_| File::open("/dev/null").unwrap()).collect::<Vec<_>>();

    let held = others(10);
    let wal = open(path).unwrap();
    let refused = fill(&wal, 200).unwrap_err();
    assert!(matches!(refused, AppendError::TooManyFiles { .. }), "{refused:?}");
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    let log = wal.log(LOG).unwrap();
    log.set_state("still taken").unwrap().wait().unwrap();
    let (segments, last) = (wal.statistics().segments, log.last());
    assert_eq!(log.read(1..last + 1, usize::MAX).map(Result::unwrap).count() as u64, last);
    drop(held);
    wal.work(Duration::ZERO);
    fill(&wal, segments + 2).unwrap();
    drop((log, wal));

    let files = |path| fs::read_dir(path).unwrap().count();
    let there = files(path);
    let held = others(20);
    let refused = open(path).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::TooManyFiles { .. }), "{refused:?}");
    assert!(refused.to_string().contains("ulimit -n"), "{refused}");
    drop(held);
    assert_eq!(files(path), there, "a log that cannot be opened is left alone");
    let wal = open(path).unwrap();
    assert!(wal.log(LOG).unwrap().last() > last);
}
