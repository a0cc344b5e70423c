//! `wal-inspect`: looks into the log of a Kontiki node, or of any program that uses kontiki-wal.
//!
//! It reads the files themselves, frame by frame, and changes nothing (`probe` writes beside them); so it works on damaged logs
//! and while a writer is at work. Of the lock it asks only whether a writer holds it, which keeps no writer from starting.
//! Only `repair` changes a log, if told to, and as its one writer. Logs whose state carries Raft's magic are shown as Raft's:
//! terms, votes, configurations and commands instead of bytes.
//!
//! `wal-inspect --help` explains commands and exit codes.

#![forbid(unsafe_code)]

mod arguments;
mod compared;
mod completions;
mod count;
#[expect(unreachable_pub, reason = "the benches share this file")]
mod device;
mod diff;
mod dump;
mod fields;
mod follow;
mod hexdump;
mod histogram;
mod layout;
mod look;
mod marked;
mod measure;
mod outcome;
mod picture;
mod place;
mod probe;
mod progress;
mod raft;
mod repair;
mod rows;
mod segments;
mod stale;
mod stats;
mod stop;
mod surroundings;
mod terminal;
mod verify;

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, error::ErrorKind};

use crate::{
    arguments::{Arguments, Command},
    outcome::Outcome,
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error).into(),
    };
    let outcome = match arguments.command {
        Command::Completions(arguments) => completions::completions(&arguments),
        Command::Diff(arguments) => diff::diff(&arguments),
        Command::Dump(arguments) => dump::dump(&arguments),
        Command::Hexdump(arguments) => hexdump::hexdump(&arguments),
        Command::Probe(arguments) => probe::probe(&arguments),
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Repair(arguments) => repair::repair(&arguments),
        Command::Segments(arguments) => segments::segments(&arguments),
        Command::Stats(arguments) => stats::stats(&arguments),
    };
    outcome
        .unwrap_or_else(|failure| {
            // Without a standard error the exit code still says it.
            let _unheard = writeln!(io::stderr(), "wal-inspect: {failure}");
            failure.outcome()
        })
        .into()
}

/// Help and version are shown as they are; a mistake becomes one line. Clap's own exit code, 2,
/// means corrupt here.
fn usage(error: &clap::Error) -> Outcome {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _unheard = error.print();
        return if error.use_stderr() { Outcome::Usage } else { Outcome::Whole };
    }
    let text = error.render().to_string();
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect::<Vec<_>>()
        .join(" ")
        .replace(" tip: ", "; ");
    let line = told.strip_prefix("error: ").unwrap_or(&told);
    let _unheard = writeln!(io::stderr(), "wal-inspect: {line}; see {} --help", asked_command());
    Outcome::Usage
}

/// The command whose help tells how to ask: that of the first argument, if it is one.
fn asked_command() -> String {
    let first = env::args_os().nth(1).unwrap_or_default();
    match Arguments::command().find_subcommand(first) {
        Some(command) => format!("wal-inspect {}", command.get_name()),
        None => "wal-inspect".to_owned(),
    }
}
