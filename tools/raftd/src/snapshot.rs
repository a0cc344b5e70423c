//! `raftd snapshot`: a node's snapshot copied to a file, and back.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use kontiki::{SnapshotCopy, SnapshotCopyError};

use crate::failure::{EXIT_CODES, Failure, FailureKind};

/// What `raftd snapshot` is told.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Copy the newest snapshot of a node, which may be running, to a file
    #[command(after_help = format!("{SAVE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Save(SaveOptions),
    /// Give a node that is not running the snapshot in a file; its next start goes on from it
    #[command(after_help = format!("{LOAD_EXAMPLES}\n\n{EXIT_CODES}"))]
    Load(LoadOptions),
}

#[derive(Args, Debug)]
pub(crate) struct SaveOptions {
    /// Directory of the node
    #[arg(long, env = "RAFTD_DATA", value_name = "DIR")]
    data: PathBuf,
    /// Where to copy it to; must not be there yet
    file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct LoadOptions {
    /// The node's id among the peers
    #[arg(long, env = "RAFTD_ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
    /// Directory of the node
    #[arg(long, env = "RAFTD_DATA", value_name = "DIR")]
    data: PathBuf,
    /// A snapshot of the same cluster, newer than what the node has
    file: PathBuf,
}

/// Copies, and says what in one line.
pub(crate) fn run(command: &SnapshotCommand) -> Result<(), Failure> {
    let (verb, copied) = match command {
        SnapshotCommand::Save(SaveOptions { data, file }) => {
            ("saved", kontiki::save_snapshot(data, file))
        }
        SnapshotCommand::Load(LoadOptions { id, data, file }) => {
            ("loaded", kontiki::load_snapshot(*id, data, file))
        }
    };
    let SnapshotCopy { cluster, position, bytes, .. } = copied.map_err(|error| failure(&error))?;
    let line = format!("{verb} position={position} bytes={bytes} cluster={cluster:016x}\n");
    // Whoever started this may not want to know.
    let _ = io::stdout().write_all(line.as_bytes());
    Ok(())
}

fn failure(error: &SnapshotCopyError) -> Failure {
    let advice = match error {
        SnapshotCopyError::NoSnapshot { .. } => " (redis-cli -p PORT save)",
        _ => "",
    };
    Failure::new(FailureKind::Data, format!("{error}{advice}"))
}

const SAVE_EXAMPLES: &str = "\
Examples:
  redis-cli -p 7001 save
  raftd snapshot save --data raftd-demo/1 monday.image

Prints one line: saved position=1/52 bytes=4096 cluster=...";

const LOAD_EXAMPLES: &str = "\
Examples:
  raftd snapshot load --id 3 --data raftd-demo/3 monday.image

Prints one line: loaded position=1/52 bytes=4096 cluster=...";
