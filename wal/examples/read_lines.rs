//! `read_lines DIR`: prints every line of the log that `append_lines` wrote in DIR as index, tab,
//! line. It opens the log read-only: nothing is changed, and a writer may be at work meanwhile.
//!
//! ```text
//! $ cargo run -q -p kontiki-wal --example read_lines -- /var/tmp/lines
//! 1       one
//! 2       two
//! ```

use std::{
    env,
    error::Error,
    ffi::{OsStr, OsString},
    io::{self, BufWriter, ErrorKind, Write},
    process::ExitCode,
};

use kontiki_wal::{LogId, Wal};

const USAGE: &str = "usage: read_lines DIR";

fn main() -> ExitCode {
    if env::args_os().nth(1).is_some_and(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let Some(directory) = only_argument() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match read_lines(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        // `read_lines DIR | head` is no error.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("read_lines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn read_lines(directory: &OsStr) -> Result<(), Box<dyn Error>> {
    let wal = Wal::open_read_only(directory)?;
    let log = wal.log(LogId(1))?;
    let mut output = BufWriter::new(io::stdout().lock());
    // Read as they are asked for: the log may be larger than memory.
    let mut entries = log.read(log.first()..log.last() + 1, usize::MAX);
    while let Some(entry) = entries.next_in_place() {
        let entry = entry?;
        write!(output, "{}\t", entry.index)?;
        output.write_all(entry.bytes)?;
        output.write_all(b"\n")?;
    }
    output.flush()?;
    // What a read-only open could not show is never passed over in silence.
    match wal.damage().into_iter().next() {
        Some(damage) => Err(damage.into()),
        None => Ok(()),
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
