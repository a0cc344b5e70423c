//! `append_lines DIR`: appends every line of standard input to the log in DIR, and prints the
//! line's index once it is durable: a printed index survives a power cut. An existing log is
//! continued. With `--keep` it drops old lines behind itself. `read_lines` shows what is there.
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
    ffi::OsString,
    io::{self, BufRead, BufReader, ErrorKind, Write},
    ops::RangeInclusive,
    process::ExitCode,
    sync::mpsc,
};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Pending, Wal, WriteMode};

const USAGE: &str = "\
usage: append_lines [--keep LINES] [--segment-mib MIB] [--mapped] DIR < LINES

  --keep LINES       keep the newest LINES lines and drop those before them: when an index is
                     printed, they are gone for good. Their room is used again file by file, so
                     the directory holds what is kept and a few files more
  --segment-mib MIB  size of new files, 1 to 1024 MiB (64), but for the first of a log, which has
                     at most 4 MiB; a line is at most a quarter of that size, and 16 MiB
  --mapped           write by storing into the mapped files, not with pwrite: the same bytes, and
                     as durable, for one system call less";

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::parse() {
        Ok(arguments) => arguments,
        Err(what) => {
            eprintln!("append_lines: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match append_lines(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has seen enough, as in `| head`; what it saw is durable.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("append_lines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn append_lines(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let options =
        Wal::options().segment_bytes(arguments.segment_mib << 20).write_mode(arguments.write_mode);
    let wal = options.open(&arguments.directory)?;
    let log = wal.log(LogId(1))?;
    let mut input = BufReader::with_capacity(256 << 10, io::stdin().lock());
    let mut group = Group { log, keep: arguments.keep, indexes: Vec::new(), newest: None };
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        if line.ends_with(b"\n") {
            line.pop();
        }
        if let Err(error) = group.add(Bytes::from(std::mem::take(&mut line))) {
            // What was taken before may be durable: whoever goes on must know where.
            group.acknowledge()?;
            return Err(error.into());
        }
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
struct Group {
    log: Log,
    keep: Option<u64>,
    indexes: Vec<u64>,
    newest: Option<Pending>,
}

impl Group {
    fn add(&mut self, line: Bytes) -> Result<(), AppendError> {
        let (index, pending) = self.append(|log| log.push(line.clone()))?;
        self.indexes.push(index);
        self.newest = Some(pending);
        Ok(())
    }

    /// Waits until the whole group is durable, then prints its indexes. What is durable is always
    /// a prefix of what was appended, so waiting for the newest line is waiting for all.
    fn acknowledge(&mut self) -> Result<(), Box<dyn Error>> {
        let (Some(mut newest), Some(last)) = (self.newest.take(), self.indexes.last()) else {
            return Ok(());
        };
        if let Some(keep) = self.keep {
            // Behind the lines that take the place of what it drops, and in one sync with them.
            let first = (last + 1).saturating_sub(keep);
            newest = self.append(|log| log.compact_before(first))?;
        }
        newest.wait()?;
        let text: String = self.indexes.drain(..).map(|index| format!("{index}\n")).collect();
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()?;
        Ok(())
    }

    /// Appends; waits for room if more is unsynced than the log's options allow.
    fn append<T>(
        &self,
        attempt: impl Fn(&Log) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        loop {
            match attempt(&self.log) {
                Err(AppendError::Full { .. }) => {
                    let (sender, room) = mpsc::channel::<()>();
                    self.log.on_room(move || drop(sender));
                    let _disconnected_when_there_is_room = room.recv();
                }
                outcome => return outcome,
            }
        }
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

struct Arguments {
    directory: OsString,
    keep: Option<u64>,
    segment_mib: u64,
    write_mode: WriteMode,
}

impl Arguments {
    /// The error says which is not as the usage has it.
    fn parse() -> Result<Self, String> {
        let mut arguments = env::args_os().skip(1);
        let (mut directory, mut keep, mut segment_mib) = (None, None, 64);
        let mut write_mode = WriteMode::Positional;
        while let Some(argument) = arguments.next() {
            match argument.to_str() {
                Some("--keep") => keep = Some(number("--keep", arguments.next(), 1..=u64::MAX)?),
                Some("--segment-mib") => {
                    segment_mib = number("--segment-mib", arguments.next(), 1..=1024)?;
                }
                Some("--mapped") => write_mode = WriteMode::Mapped,
                _ if argument.as_encoded_bytes().starts_with(b"-") => {
                    return Err(format!("{} is no flag", argument.display()));
                }
                _ if directory.is_some() => {
                    return Err(format!("{} is a second DIR", argument.display()));
                }
                _ => directory = Some(argument),
            }
        }
        let directory = directory.ok_or("DIR is missing")?;
        Ok(Self { directory, keep, segment_mib, write_mode })
    }
}

fn number(
    flag: &str,
    argument: Option<OsString>,
    range: RangeInclusive<u64>,
) -> Result<u64, String> {
    let argument = argument.unwrap_or_default();
    let number = argument.to_str().and_then(|text| text.parse().ok());
    number.filter(|number| range.contains(number)).ok_or_else(|| {
        let (first, last) = (range.start(), range.end());
        format!("{flag} takes a number from {first} to {last}, not {:?}", argument.display())
    })
}
