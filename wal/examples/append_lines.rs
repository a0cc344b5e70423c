//! `append_lines DIR`: appends every line of standard input to the log in DIR, and prints the
//! line's index once it is durable: a printed index survives a power cut. An existing log is
//! continued. `read_lines` shows what is there.
//!
//! ```text
//! $ seq 3 | cargo run -q -p kontiki-wal --example append_lines -- /var/tmp/lines
//! 1
//! 2
//! 3
//! ```

use std::{
    env,
    error::Error,
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader, ErrorKind, Write},
    process::ExitCode,
    sync::mpsc,
};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Pending, Wal};

const USAGE: &str = "usage: append_lines DIR < LINES";

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(directory) = only_argument() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match append_lines(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough, as in `| head`; what it saw is durable.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("append_lines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn append_lines(directory: &OsStr) -> Result<(), Box<dyn Error>> {
    let wal = Wal::options().open(directory)?;
    let log = wal.log(LogId(1))?;
    let mut input = BufReader::with_capacity(256 << 10, io::stdin().lock());
    let mut group = Group::default();
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b"\n") {
            line.pop();
        }
        group.add(&log, Bytes::from(std::mem::take(&mut line)))?;
        // Lines that already wait share one sync; when none waits, nobody is kept waiting for
        // the next one. This is all that group commit asks of a caller.
        if !input.buffer().contains(&b'\n') {
            group.acknowledge()?;
        }
    }
    group.acknowledge()?;
    wal.close()?;
    Ok(())
}

/// Lines that were appended and are not acknowledged yet.
#[derive(Default)]
struct Group {
    indexes: Vec<u64>,
    newest: Option<Pending>,
}

impl Group {
    /// Appends a line; waits for room if more is unsynced than the log's options allow.
    fn add(&mut self, log: &Log, line: Bytes) -> Result<(), AppendError> {
        loop {
            match log.push(line.clone()) {
                Ok((index, pending)) => {
                    self.indexes.push(index);
                    self.newest = Some(pending);
                    return Ok(());
                }
                Err(AppendError::Full { .. }) => {
                    let (sender, room) = mpsc::channel::<()>();
                    log.on_room(move || drop(sender));
                    let _disconnected_when_there_is_room = room.recv();
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the whole group is durable, then prints its indexes. What is durable is always
    /// a prefix of what was appended, so waiting for the newest line is waiting for all.
    fn acknowledge(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(newest) = self.newest.take() else { return Ok(()) };
        newest.wait()?;
        let text: String = self.indexes.drain(..).map(|index| format!("{index}\n")).collect();
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()?;
        Ok(())
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn only_argument() -> Option<OsString> {
    let mut arguments = env::args_os().skip(1);
    let first = arguments.next().filter(|first| !first.as_encoded_bytes().starts_with(b"-"))?;
    arguments.next().is_none().then_some(first)
}
