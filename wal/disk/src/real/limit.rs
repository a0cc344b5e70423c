//! How many files the process may have open: a log keeps one open for each segment.

use std::{fs, os::fd::AsRawFd};

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Doubles the process's soft limit of open files, up to the hard one, when the number of `file`, which was just opened,
/// shows that half of it is used: the system gives out the smallest number that is free.
///
/// So a small log leaves the limit alone, and a large one leaves room for the files and sockets of others.
pub(super) fn make_room(file: &fs::File) {
    // Of two that double at the same time, one would undo what the other did.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let limit = getrlimit(Resource::Nofile);
    let (Some(soft), Ok(number)) = (limit.current, u64::try_from(file.as_raw_fd())) else { return };
    let raised = soft.saturating_mul(2).min(limit.maximum.unwrap_or(u64::MAX));
    if number >= soft / 2 && raised > soft {
        // Best effort: where the system refuses, the opening that finds no room says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit });
    }
}
