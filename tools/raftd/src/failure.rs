//! Why the program ends, and with which exit code. The codes are told in `--help`.

use std::{fmt, process::ExitCode};

/// The one line for standard error, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: FailureKind,
    line: String,
}

/// What kind of wrong; each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The node failed while it ran, or a second signal cut the stop short.
    Run,
    /// Flags or addresses that cannot be right.
    Usage,
    /// An address that cannot be listened on.
    Address,
    /// A data directory that cannot be used.
    Data,
}

impl Failure {
    /// `line` says what is wrong and what to do; ends of lines in it become spaces.
    pub(crate) fn new(kind: FailureKind, line: impl Into<String>) -> Self {
        Self { kind, line: line.into().replace(['\r', '\n'], " ") }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            FailureKind::Run => 1,
            FailureKind::Usage => 2,
            FailureKind::Address => 3,
            FailureKind::Data => 4,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// The table of exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  stopped as asked
  1  failed while running
  2  flags or addresses that cannot be right
  3  an address that cannot be listened on
  4  a data directory that cannot be used";
