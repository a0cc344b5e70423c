//! What is wrong with an address, a directory or a node, and what to do about it: one line each.

use std::{borrow::Cow, io, path::Path};

use kontiki::{OpenError, StartError};

use crate::{
    failure::{Failure, FailureKind, cannot_start},
    members::Members,
};

/// The line and the exit code for a node that does not start.
pub(crate) fn start_failed(error: &StartError, data: &Path, peers: &Members) -> Failure {
    match error {
        StartError::Address(_) | StartError::Options { .. } => {
            Failure::new(FailureKind::Usage, error.to_string())
        }
        StartError::Listen { address, source } => cannot_listen("peers", address, source),
        StartError::Io(source) => cannot_start(source),
        StartError::Log(cause) => Failure::new(FailureKind::Data, log_line(cause, data, peers)),
        StartError::Snapshot { .. } => {
            Failure::new(FailureKind::Data, format!("{error}. {}", damaged(data, peers)))
        }
        // They name the directory, and what to do.
        other => Failure::new(FailureKind::Data, other.to_string()),
    }
}

/// Why a log cannot be opened, and what to do about that.
fn log_line(cause: &OpenError, data: &Path, peers: &Members) -> String {
    let wal = data.join("wal");
    let wal = wal.display();
    match cause {
        OpenError::Io { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("cannot open the log in {wal}: {cause}; make room there, then start again")
            }
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem => {
                format!("cannot use the data directory: {cause}; check the path and its owner")
            }
            _ => format!("cannot open the log: {cause}; see to the disk, then start again"),
        },
        OpenError::NewerFormat { segment, found, supported } => format!(
            "{segment} in {wal} has format {found}, this version reads {supported}: use a newer \
             raftd"
        ),
        OpenError::UnknownFeatures { segment, found, supported } => format!(
            "{segment} in {wal} needs features {found:#x}, this version has {supported:#x}: use a \
             newer raftd"
        ),
        OpenError::MissingSegment { missing, needed_by } => {
            let repair = repair_command(data);
            format!(
                "segment {missing} is missing, {needed_by} needs it: put it back into {wal}; if it is \
                 nowhere, `{repair}` says what can be saved without it, and changes nothing"
            )
        }
        OpenError::Corruption(_) => {
            format!("cannot open the log: {cause}; {}", damaged(data, peers))
        }
        // They say what to do.
        other => format!("cannot open the log in {wal}: {other}"),
    }
}

/// The line and the exit code for a node that ran and failed. With a damaged log it would again:
/// `damage` says what to do about that.
pub(crate) fn node_failed(id: u64, cause: &str, damage: Option<String>) -> Failure {
    let (kind, advice) = match damage {
        Some(advice) => (FailureKind::Data, advice),
        None => (FailureKind::Run, "see to the cause, then start it again".to_owned()),
    };
    Failure::new(kind, format!("node {id} has failed: {cause}; {advice}"))
}

/// What to do about a log that is damaged.
pub(crate) fn damaged(data: &Path, peers: &Members) -> String {
    let keep = if peers.list().len() > 1 {
        "neither an empty one nor a copy of another node's can take its place, and what was \
         acknowledged was on a majority of the nodes"
    } else {
        "no other node has what was acknowledged"
    };
    let repair = repair_command(data);
    format!(
        "`{repair}` says what is lost and what can be saved, and changes nothing. Keep the directory: \
         {keep}"
    )
}

/// As a shell takes it, to be pasted.
fn repair_command(data: &Path) -> String {
    let wal = data.join("wal");
    let wal = wal.to_string_lossy();
    let wal = shlex::try_quote(&wal).unwrap_or(Cow::Borrowed(&wal));
    format!("wal-inspect repair {wal}")
}

/// The line and the exit code for an address that cannot be had.
pub(crate) fn cannot_listen(for_whom: &str, address: &str, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "stop what uses it, or choose another port",
        io::ErrorKind::AddrNotAvailable => "choose an address of this machine",
        io::ErrorKind::PermissionDenied => "choose a port from 1024",
        _ => "choose another address",
    };
    Failure::new(
        FailureKind::Address,
        format!("cannot listen for {for_whom} on {address}: {error}; {advice}"),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn whatever_is_wrong_with_a_log_the_line_says_what_to_do() {
        let io = |kind: io::ErrorKind| OpenError::Io {
            operation: "open",
            path: "d/wal".to_owned(),
            source: Arc::new(kind.into()),
        };
        let segment = || "1.wal".to_owned();
        for (cause, advice) in [
            (io(io::ErrorKind::PermissionDenied), "check the path and its owner"),
            (io(io::ErrorKind::NotADirectory), "check the path and its owner"),
            (io(io::ErrorKind::ReadOnlyFilesystem), "check the path and its owner"),
            (io(io::ErrorKind::StorageFull), "; make room there"),
            (io(io::ErrorKind::QuotaExceeded), "; make room there"),
            (io(io::ErrorKind::Other), "see to the disk"),
            (
                OpenError::NewerFormat { segment: segment(), found: 2, supported: 1 },
                "1.wal in d/wal has format 2, this version reads 1: use a newer raftd",
            ),
            (
                OpenError::UnknownFeatures { segment: segment(), found: 2, supported: 1 },
                "use a newer raftd",
            ),
            (
                OpenError::MissingSegment { missing: segment(), needed_by: "index 1".to_owned() },
                "segment 1.wal is missing, index 1 needs it: put it back into d/wal",
            ),
            (
                OpenError::OtherLog { segment: segment(), other: "2.wal".to_owned() },
                "remove the one that was copied here",
            ),
        ] {
            let failure = start_failed(&StartError::Log(cause), Path::new("d"), &peers("1=a:1"));
            assert!(failure.to_string().contains(advice), "{failure}");
        }
    }

    #[test]
    fn the_other_nodes_are_spoken_of_only_where_there_are_any() {
        let alone = damaged(Path::new("d"), &peers("1=a:1"));
        assert!(alone.ends_with("Keep the directory: no other node has what was acknowledged"));
        let one_of_two = damaged(Path::new("d"), &peers("1=a:1,2=b:1"));
        assert!(one_of_two.ends_with("what was acknowledged was on a majority of the nodes"));
    }

    fn peers(list: &str) -> Members {
        Members::parse(list).unwrap()
    }
}
