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
    /// The node failed while it ran, a second signal cut the stop short, or a node that was asked did
    /// not answer or takes no part.
    Run,
    /// Flags or addresses that cannot be right.
    Usage,
    /// An address that cannot be listened on.
    Address,
    /// A data directory or a snapshot that cannot be used, found before or after the start.
    Data,
}

impl FailureKind {
    /// Whether a process that ended with this code would end so again: flags and data do not
    /// change by themselves.
    pub(crate) fn is_final(code: Option<i32>) -> bool {
        [Self::Usage, Self::Data].iter().any(|kind| code == Some(i32::from(kind.code())))
    }

    fn code(self) -> u8 {
        match self {
            Self::Run => 1,
            Self::Usage => 2,
            Self::Address => 3,
            Self::Data => 4,
        }
    }
}

impl Failure {
    /// `line` says what is wrong and what to do; ends of lines in it become spaces.
    pub(crate) fn new(kind: FailureKind, line: impl Into<String>) -> Self {
        Self { kind, line: line.into().replace(['\r', '\n'], " ") }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// For what the system refuses and no flag can help.
pub(crate) fn cannot_start(error: impl fmt::Display) -> Failure {
    Failure::new(FailureKind::Run, format!("cannot start: {error}"))
}

/// The table of exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  stopped as asked, or done
  1  failed while running, or a node did not answer, is not admitted or has failed
  2  flags or addresses that cannot be right
  3  an address that cannot be listened on
  4  a data directory or snapshot that cannot be used, or whose log is damaged";
