//! How a run ends: exit codes, and what kept it from its work.

use std::{io, path::PathBuf, process::ExitCode};

use kontiki_wal::{Corruption, OpenError, inspect::Unread};

use crate::{
    look::NODE_LOG,
    place::{self, Entries},
};

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing is missing.
    Whole,
    /// Bytes that nobody vouches for lie behind the last whole frame: the usual crash.
    TornTail,
    /// Two logs are not the same.
    Different,
    /// Bytes that were durable are damaged.
    Corrupt,
    /// Could not look.
    CannotRead,
    /// Was asked something it does not understand.
    Usage,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Whole => 0,
            Outcome::TornTail | Outcome::Different => 1,
            Outcome::Corrupt => 2,
            Outcome::CannotRead => 3,
            Outcome::Usage => 4,
        })
    }
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The log cannot be opened.
    Open(OpenError),
    /// There are no segments; `below` is a directory in it that has some.
    NoLog { directory: PathBuf, below: Option<PathBuf> },
    /// Entries cannot be read, though they are not damaged.
    Read(String),
    /// A log cannot be repaired.
    Repair(String),
    /// What was asked for is not there.
    NoFrame(String),
    /// It cannot be measured there.
    Place { directory: PathBuf, error: io::Error },
    /// The result cannot be written.
    Write(io::Error),
}

impl Failure {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Open(
                OpenError::Corruption(_)
                | OpenError::MissingSegment { .. }
                | OpenError::RepairUnfinished { .. },
            ) => Outcome::Corrupt,
            Self::Open(_)
            | Self::NoLog { .. }
            | Self::Read(_)
            | Self::Repair(_)
            | Self::NoFrame(_)
            | Self::Place { .. }
            | Self::Write(_) => Outcome::CannotRead,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(OpenError::Corruption(corruption)) => {
                write!(f, "corrupt: {}", corruption_line(corruption))
            }
            Self::Open(error) => write!(f, "{error}"),
            Self::NoLog { directory, below } => {
                let directory = directory.display();
                write!(
                    f,
                    "{directory} holds no log: no segment file is in it or in {NODE_LOG} below it; "
                )?;
                match below {
                    Some(below) => write!(f, "{} has one", below.display()),
                    None => write!(f, "is it the right directory?"),
                }
            }
            Self::Read(line) | Self::Repair(line) | Self::NoFrame(line) => f.write_str(line),
            Self::Place { directory, error } => {
                write!(f, "cannot measure in {}: {error}", directory.display())
            }
            Self::Write(error) => write!(f, "cannot write the result: {error}"),
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// Place, loss and cause of one damage, in one line.
pub(crate) fn corruption_line(corruption: &Corruption) -> String {
    let Corruption { segment, offset, what, expected, found, .. } = corruption;
    let mut line = format!("segment {segment} offset {offset}");
    Entries::of(corruption).push_text(&mut line);
    line.push_str(&format!(": {what}"));
    if expected != found {
        line.push_str(&format!(" (expected {expected:#x}, found {found:#x})"));
    }
    line
}

/// What was not read, from where to where, and why, in one line.
pub(crate) fn unread_line(unread: &Unread) -> String {
    let Unread { file, bytes, lsn, why, .. } = unread;
    let mut line = format!("segment {file} offset {}..{}", bytes.start, bytes.end);
    place::push(&mut line, "lsn", lsn.map(|lsn| lsn.0));
    line.push_str(&format!(": {why}"));
    line
}
