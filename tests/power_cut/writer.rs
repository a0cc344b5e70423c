//! `append_lines` at work: one thread feeds it lines, another listens for the indexes it prints.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::{
    lines::line,
    log::{Log, is_mapped},
};

pub(crate) struct Writer {
    child: Child,
    /// Each index as it is printed; disconnected when the output ends.
    indexes: Receiver<u64>,
    printed: Printed,
}

/// What was printed in one round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printed {
    /// The last index; that of the round before if nothing was printed in this one.
    pub(crate) last: u64,
    pub(crate) count: u64,
}

impl Writer {
    /// Starts it on a log, and lets lines flow.
    pub(crate) fn start(example: &Path, log: &Log, round: u64) -> Self {
        let last = log.last();
        let mut child = Command::new(example)
            .args(log.arguments())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("append_lines");
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        let (sender, indexes) = mpsc::channel();
        thread::spawn(move || feed(input, round, last + 1));
        thread::spawn(move || listen(output, &sender));
        Self { child, indexes, printed: Printed { last, count: 0 } }
    }

    /// Waits until this round has printed `count` indexes.
    pub(crate) fn wait_until_printed(&mut self, count: u64) {
        while self.printed.count < count {
            if !self.hear() {
                let errors = self.errors();
                panic!("append_lines ended before the cut: {errors}");
            }
        }
    }

    /// Stops it where it stands, between two of its system calls or stores: a sync that is under way
    /// ends first, but what was written and is not being synced yet waits in the page cache.
    pub(crate) fn freeze(&mut self) {
        kill_process(self.pid(), Signal::STOP).expect("our child");
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(self.pid()), options).expect("our child").expect("waited");
        if !status.stopped() {
            let errors = self.errors();
            panic!("append_lines ended before the cut: {errors}");
        }
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).expect("our child");
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits until it ended, as it has to when its disk is gone; all that it has printed.
    pub(crate) fn end(self) -> Printed {
        self.end_with(is_mapped()).0
    }

    /// Waits until it ended by itself, with one clear line: all that it has printed, and that line.
    pub(crate) fn end_with_error(self) -> (Printed, String) {
        self.end_with(false)
    }

    fn end_with(mut self, may_be_a_signal: bool) -> (Printed, String) {
        while self.hear() {}
        let errors = self.errors();
        let status = self.child.wait().expect("our child");
        assert!(!status.success(), "it went on without a disk");
        // A store into a map of a file whose disk is gone has no other answer.
        if may_be_a_signal && status.signal() == Some(Signal::BUS.as_raw()) {
            assert!(errors.is_empty(), "{errors}");
            return (self.printed, errors);
        }
        assert_eq!(status.code(), Some(1), "it did not end by itself: {status}: {errors}");
        assert_eq!(errors.lines().count(), 1, "not one clear line: {errors}");
        assert!(!errors.contains("corrupt"), "a failing disk is no corruption: {errors}");
        (self.printed, errors)
    }

    /// Takes one index in; false when there will be no more.
    fn hear(&mut self) -> bool {
        match self.indexes.recv_timeout(SILENCE_MAX) {
            Ok(index) => {
                self.count(index);
                true
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => false,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("append_lines hangs"),
        }
    }

    fn count(&mut self, index: u64) {
        assert_eq!(index, self.printed.last + 1, "indexes are printed in order");
        self.printed.last = index;
        self.printed.count += 1;
    }

    fn errors(&mut self) -> String {
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().expect("piped, and asked for once");
        stderr.read_to_string(&mut errors).expect("text");
        errors
    }
}

impl Drop for Writer {
    /// After a panic nothing may keep the volume busy.
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _reaped_already = self.child.wait();
    }
}

/// Writes lines until nobody reads them any more.
fn feed(mut input: ChildStdin, round: u64, first: u64) {
    for index in first.. {
        if writeln!(input, "{}", line(round, index)).is_err() {
            return;
        }
    }
}

fn listen(output: ChildStdout, sender: &Sender<u64>) {
    for line in BufReader::new(output).lines() {
        let index = line.expect("text").parse().expect("an index");
        if sender.send(index).is_err() {
            return;
        }
    }
}

/// A disk that fails answers at once; silence is a waiter that was forgotten.
const SILENCE_MAX: Duration = Duration::from_secs(20);
