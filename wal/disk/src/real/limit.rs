//! How many files the process may have open: a log keeps one open for each segment.

use std::{fs, io, os::fd::AsRawFd};

use parking_lot::Mutex;
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Doubles the process's soft limit of open files, up to the hard one, when the number of `file`, which was just opened,
/// shows that half of it is used: the system gives out the smallest number that is free.
///
/// So a small log leaves the limit alone, and a large one leaves room for the files and sockets of others.
pub(super) fn make_room(file: &fs::File) {
    let number = u64::try_from(file.as_raw_fd()).unwrap_or(0);
    double_if(|soft| number >= soft / 2);
}

/// Opens a file; where others have used the soft limit up meanwhile, once more with a larger one.
pub(super) fn with_room(open: impl Fn() -> io::Result<fs::File>) -> io::Result<fs::File> {
    match open() {
        Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            if double_if(|_| true) { open() } else { Err(error) }
        }
        result => result,
    }
}

/// True if the limit is larger now. Where the system refuses, the opening that finds no room says so.
fn double_if(is_due: impl Fn(u64) -> bool) -> bool {
    // Of two that double at the same time, one would undo what the other did.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let limit = getrlimit(Resource::Nofile);
    let Some(soft) = limit.current else { return false };
    let raised = soft.saturating_mul(2).min(limit.maximum.unwrap_or(u64::MAX));
    raised > soft
        && is_due(soft)
        && setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }).is_ok()
}
