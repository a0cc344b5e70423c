//! A sign of life on standard error while a long look goes on, where somebody watches: a bar of what is done, and of how long.

use std::{
    fs,
    io::{self, IsTerminal},
    path::Path,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Does `work`, which reads the log in `directory` once; shows how much of it is read if standard error is a terminal. Silent
/// for the first second.
pub(crate) fn watched<T>(directory: &Path, work: impl FnOnce() -> T) -> T {
    watched_all(1, &[directory], work)
}

/// As [`watched`], for work that reads the log so many times, about.
pub(crate) fn watched_times<T>(times: u64, directory: &Path, work: impl FnOnce() -> T) -> T {
    watched_all(times, &[directory], work)
}

/// The same for work that reads the logs in all these directories.
pub(crate) fn watched_all<T>(times: u64, directories: &[&Path], work: impl FnOnce() -> T) -> T {
    let begun = bytes_read();
    let what = || What::reading(times, directories, begun.is_some());
    shown(what, |_| bytes_read().unwrap_or(0).saturating_sub(begun.unwrap_or(0)), work)
}

/// As [`watched`], for work that takes a time that is known.
pub(crate) fn timed<T>(name: &str, time: Duration, work: impl FnOnce() -> T) -> T {
    let in_milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let what = || What { name: name.to_owned(), length: Some(in_milliseconds(time)) };
    shown(what, in_milliseconds, work)
}

/// What is shown.
struct What {
    name: String,
    /// How much there is to do; `None` if that is not known.
    length: Option<u64>,
}

impl What {
    /// How far it is only shows where the system counts what is read.
    fn reading(times: u64, directories: &[&Path], is_counted: bool) -> Self {
        let bytes: u64 = directories.iter().map(|directory| bytes_in(directory)).sum();
        let length = is_counted.then_some(times * bytes.max(1));
        Self { name: format!("reading {} MiB", bytes >> 20), length }
    }
}

/// `done` tells how much is done after a time.
fn shown<T>(
    what: impl FnOnce() -> What + Send,
    done: impl Fn(Duration) -> u64 + Send,
    work: impl FnOnce() -> T,
) -> T {
    if !io::stderr().is_terminal() {
        return work();
    }
    let (working, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || draw(what, done, &ended));
        let result = work();
        drop(working);
        result
    })
}

fn draw(what: impl FnOnce() -> What, done: impl Fn(Duration) -> u64, ended: &Receiver<()>) {
    let start = Instant::now();
    let is_over = |pause| ended.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
    if is_over(SILENT) {
        return;
    }
    let What { name, length } = what();
    // Drawn when all of it is known.
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::hidden());
    let template = if length.is_some() { BAR } else { NO_BAR };
    let style = ProgressStyle::with_template(template).expect("a template that it reads");
    bar.set_style(style.progress_chars("=> "));
    bar.set_message(name);
    // More is read than was thought: then it is not known how much is left, but not that all is done.
    let last = length.unwrap_or(u64::MAX).saturating_sub(1);
    let update = || {
        bar.set_position(done(start.elapsed()).min(last));
        bar.set_elapsed(start.elapsed());
    };
    update();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar.tick();
    while !is_over(PAUSE) {
        update();
        bar.tick();
    }
    bar.finish_and_clear();
}

/// Bytes that this process has read from files, where the system counts them.
fn bytes_read() -> Option<u64> {
    let counters = fs::read_to_string("/proc/self/io").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("rchar: "))?.parse().ok()
}

/// What cannot be listed is reported by the work itself.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

const BAR: &str = "{msg} [{wide_bar}] {percent:>3} % {elapsed}";
const NO_BAR: &str = "{msg} ... {elapsed}";
const SILENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_all_that_is_read() {
        let [a, b] = [1, 3].map(|mib| {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("1.wal"), vec![0; mib << 20]).unwrap();
            directory
        });
        let what = What::reading(2, &[a.path(), b.path()], true);
        assert_eq!((&*what.name, what.length), ("reading 4 MiB", Some(8 << 20)));
        assert_eq!(What::reading(1, &[a.path()], false).length, None);
    }
}
