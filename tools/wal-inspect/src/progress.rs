//! A sign of life on standard error while a long look goes on, where somebody watches.

use std::{
    fs,
    io::{self, IsTerminal, Write},
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

/// Does `work` on the log in `directory`; tells how long it has been at it if standard error is a
/// terminal. Silent for the first second.
pub(crate) fn watched<T>(directory: &Path, work: impl FnOnce() -> T) -> T {
    shown(|| format!("reading {} MiB", bytes_in(directory) >> 20), work)
}

/// As [`watched`], for work that `what` names.
pub(crate) fn shown<T>(what: impl FnOnce() -> String + Send, work: impl FnOnce() -> T) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let (working, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || tell(&what(), &ended));
        let result = work();
        drop(working);
        result
    })
}

fn tell(what: &str, ended: &Receiver<()>) {
    let start = Instant::now();
    let mut told = false;
    while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
        let seconds = start.elapsed().as_secs();
        write(&format!("\r{what} ... {seconds} s"));
        told = true;
    }
    if told {
        write("\r\x1b[K");
    }
}

/// What cannot be listed is reported by the work itself.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

fn write(text: &str) {
    let mut stderr = io::stderr();
    // Whoever closed the terminal needs no progress.
    let _unheard = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
