//! raftd: the reference server of Kontiki, a replicated key-value store for any Redis client.
//!
//! ```text
//! main      flags, logging, exit code
//! serve     one node: start, clients, stop           demo, child, story, places   three of them on this machine
//! advice, failure   what is said at an end, and its exit code
//! status, snapshot   how nodes stand; a node's snapshot in a file
//! clients   connections in and out
//! connection  requests of one client -> batches -> replies
//! resp, request, command   bytes -> request -> what to do -> what is replicated
//! store     the state machine        reply, info, service   what goes back
//! ```
#![forbid(unsafe_code)]

mod advice;
mod child;
mod clients;
mod command;
mod connection;
mod demo;
mod failure;
mod info;
mod members;
mod places;
mod reply;
mod request;
mod resp;
mod serve;
mod service;
mod signals;
mod snapshot;
mod status;
mod store;
mod story;

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand, error::ErrorKind};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{
    demo::DemoOptions,
    failure::{EXIT_CODES, Failure, FailureKind},
    serve::ServeOptions,
    snapshot::SnapshotCommand,
    status::StatusOptions,
};

/// A replicated, durable key-value store that any Redis client can talk to
#[derive(Debug, Parser)]
#[command(name = "raftd", version, after_help = format!("{AFTER_HELP}\n\n{EXIT_CODES}"))]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug, or target=level,...
    /// [default: RUST_LOG if set, also for the demo; else info for serve, warn for status and snapshot, and for
    /// demo error,raftd=warn,kontiki::port=warn,kontiki::writer=warn]
    #[arg(long, env = "RAFTD_LOG", value_name = "FILTER", global = true)]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run one node of a cluster
    #[command(after_help = format!("{SERVE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Serve(ServeOptions),
    /// Run a cluster of three nodes on this machine, to try it out
    #[command(after_help = format!("{DEMO_EXAMPLES}\n\n{EXIT_CODES}"))]
    Demo(DemoOptions),
    /// Show how nodes stand: role, term, log, snapshot, and the leader's followers
    #[command(after_help = format!("{STATUS_EXAMPLES}\n\n{EXIT_CODES}"))]
    Status(StatusOptions),
    /// Copy a node's snapshot to a file, or give a node the one in a file
    #[command(subcommand, after_help = format!("{SNAPSHOT_EXAMPLES}\n\n{EXIT_CODES}"))]
    Snapshot(SnapshotCommand),
}

fn main() -> ExitCode {
    match parse_flags().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Standard error may be gone with whoever started us.
            let _ = writeln!(io::stderr(), "raftd: {failure}");
            failure.exit_code()
        }
    }
}

/// Help and version end the program here; a mistake becomes one line.
fn parse_flags() -> Result<Options, Failure> {
    Options::try_parse().map_err(|error| {
        if error.exit_code() == 0
            || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        {
            error.exit();
        }
        let text = error.render().to_string();
        let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
        // Nothing here takes values that begin with a dash.
        let is_useless = |line: &str| {
            line.is_empty()
                || line.starts_with("For more information")
                || line.starts_with("tip: to pass ")
        };
        let told: Vec<_> = told.filter(|line| !is_useless(line)).collect();
        let line = told.join(" ").replace(" tip: ", "; tip: ");
        let line = line.strip_prefix("error: ").unwrap_or(&line);
        Failure::new(FailureKind::Usage, format!("{line}; see raftd {}--help", subcommand()))
    })
}

/// The one that was asked for, with a space behind it.
fn subcommand() -> &'static str {
    let mut words = std::env::args_os().skip(1);
    words
        .find_map(|word| {
            ["serve ", "demo ", "status ", "snapshot "]
                .into_iter()
                .find(|name| word == name.trim_end())
        })
        .unwrap_or("")
}

fn run(options: Options) -> Result<(), Failure> {
    let default = match options.command {
        Command::Serve(_) => "info",
        Command::Demo(_) => DEMO_LOG,
        Command::Status(_) | Command::Snapshot(_) => "warn",
    };
    let log = log_filter(options.log, default)?;
    let filter = EnvFilter::try_new(&log).map_err(|error| {
        Failure::new(
            FailureKind::Usage,
            format!("{log:?} is not a filter for logs: {error}; use --log info, for example"),
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // A lost standard error must not become a panic.
        .log_internal_errors(false)
        .init();
    match options.command {
        Command::Serve(options) => serve::run(options),
        Command::Demo(options) => demo::run(&options, &log),
        Command::Status(options) => status::run(&options),
        Command::Snapshot(command) => snapshot::run(&command),
    }
}

/// What to log. A name without a level is a mistake in what is meant for raftd; `RUST_LOG` is meant
/// for any program, so there it is the target that it is to all of them.
fn log_filter(given: Option<String>, default: &str) -> Result<String, Failure> {
    if let Some(filter) = given.filter(|filter| !filter.is_empty()) {
        return match no_level(&filter) {
            None => Ok(filter),
            Some(word) => Err(Failure::new(
                FailureKind::Usage,
                format!("--log {word:?} is no level, and a target needs one: info, or raftd=info"),
            )),
        };
    }
    let shared = std::env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty());
    Ok(shared.unwrap_or_else(|| default.to_owned()))
}

/// A word that would only show what comes from a target of that name, and hide the rest; or a
/// target that is given no level.
fn no_level(filter: &str) -> Option<&str> {
    filter.split(',').map(str::trim).find(|word| {
        let is_name = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
        let lacks_level = word.len() > 1 && word.ends_with('=');
        !word.is_empty() && (lacks_level || (is_name && word.parse::<LevelFilter>().is_err()))
    })
}

const AFTER_HELP: &str = concat!(
    "\
Try it:
  raftd demo
  redis-cli -p 7001 set greeting hello

The commands, the errors and the limits are listed in tools/raftd/README.md of
",
    env!("CARGO_PKG_REPOSITORY")
);

const SERVE_EXAMPLES: &str = concat!(
    "\
Examples:
  PEERS=1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103
  raftd serve --id 1 --data data/1 --peers $PEERS --client 127.0.0.1:7001
  raftd serve --id 2 --data data/2 --peers $PEERS --client 127.0.0.1:7002
  raftd serve --id 3 --data data/3 --peers $PEERS --client 127.0.0.1:7003
  RAFTD_ID=1 RAFTD_DATA=data/1 RAFTD_PEERS=$PEERS raftd serve --log debug

Prints one line to standard output when it serves clients: ready id=1 client=... leader=2; or why it
does not: not-admitted id=1, foreign id=1 members=2,3, waiting missing=2, waiting leader. What these
mean, and the errors that clients may get, are told in tools/raftd/README.md of
",
    env!("CARGO_PKG_REPOSITORY")
);

/// Errors, what raftd warns of, who is refused, and when the disk takes writes again after the error
/// that it did not.
const DEMO_LOG: &str = "error,raftd=warn,kontiki::port=warn,kontiki::writer=warn";

const DEMO_EXAMPLES: &str = "\
Examples:
  raftd demo
  raftd demo --port 8001 --data /tmp/raftd-demo
  redis-cli -p 7001 incr visits";

const STATUS_EXAMPLES: &str = concat!(
    "\
Examples:
  raftd status
  raftd status 10.0.0.1:6379 10.0.0.2:6379 10.0.0.3:6379

Each node is asked for INFO raft, as redis-cli would. Fails with exit code 1 if one does not
answer, is not admitted or has failed. What the columns mean is told in tools/raftd/README.md of
",
    env!("CARGO_PKG_REPOSITORY")
);

const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  redis-cli -p 7001 save
  raftd snapshot save --data raftd-demo/1 monday.image
  raftd snapshot load --id 3 --data raftd-demo/3 monday.image

A file is a whole snapshot or not there: it is read back before it gets its name, and read to its
end before a node is given it. load is for a node of the same cluster that is not running and has
less.";
