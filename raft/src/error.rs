//! What can go wrong, one enum per operation.

use std::{io, sync::Arc};

use crate::{OpenError, Position};

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProposeError {
    /// No leader took the command before `proposal_timeout` ended, or the one that was asked had
    /// lost its office. Certainly not applied.
    #[error("not proposed: {}", leader_text(.hint))]
    NotLeader {
        /// Who leads now as far as this node knows, with the address its peers reach it at.
        hint: Option<(u64, String)>,
    },
    /// A bound of [`Options`](crate::Options) is reached; wait for
    /// [`Node::ready`](crate::Node::ready). Certainly not applied.
    #[error("overloaded: too many proposals wait; try again when the node is ready")]
    Overloaded,
    /// The command, or all commands of a batch together, are too long. Certainly not applied.
    #[error("{bytes} bytes were proposed, the limit is {limit} (option command_bytes_max)")]
    TooLarge {
        /// How long it was.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Another leader's entry was committed where this one would have been. Certainly not applied.
    #[error("superseded by another leader's entry at {position}: certainly not applied")]
    Superseded {
        /// The place, with the term of the entry that was committed there.
        position: Position,
    },
    /// The command was handed over and its fate was lost sight of, or is still open when
    /// `proposal_timeout` has passed: it may still be applied, once.
    #[error("the outcome is unknown{}: it may have been applied or may still be", at_text(.position))]
    Unknown {
        /// Where it would be, if that is known.
        position: Option<Position>,
    },
    /// The node was shut down before the command was in its log or passed on. Certainly not applied.
    #[error("the node is stopped")]
    Stopped,
    /// The cluster knows this node with another disk and asks it for nothing; the reason says what to
    /// do. Certainly not applied.
    #[error("this node is not admitted: {0}")]
    NotAdmitted(Arc<str>),
    /// The node failed; the command may or may not have been applied. Started again the node goes on, unless the cause, which is
    /// told here, is its state machine or its log.
    #[error("the node failed: {0}")]
    Fatal(Arc<str>),
}

impl ProposeError {
    /// True if the command has not been applied and never will be: proposing it again is safe.
    pub fn is_certainly_not_applied(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::Overloaded
            | Self::TooLarge { .. }
            | Self::Superseded { .. }
            | Self::Stopped
            | Self::NotAdmitted(_) => true,
            Self::Unknown { .. } | Self::Fatal(_) => false,
        }
    }
}

/// Why there is no new snapshot. The node goes on without.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The state machine or the disk says no.
    #[error("the snapshot could not be taken: {0}")]
    Failed(Arc<str>),
    /// The node was shut down before it was taken.
    #[error("the node is stopped")]
    Stopped,
}

/// Why a snapshot was not copied to a file, or from one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotCopyError {
    /// The node has taken none.
    #[error("there is no snapshot in {directory} yet; ask the node for one")]
    NoSnapshot {
        /// Where they would be.
        directory: String,
    },
    /// The file cannot be used.
    #[error("{file} cannot be used: {reason}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong: it is there already, there is no room, it is damaged, another release has written it.
        reason: String,
    },
    /// The node does not give it, or take it.
    #[error("{directory}: {reason}")]
    Refused {
        /// The node's directory, or that of its snapshots.
        directory: String,
        /// What is wrong: another cluster, an older snapshot than it has, damage.
        reason: String,
    },
    /// The node's directory cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why a read was not served. Reading again is always safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No leader was known during the whole of `proposal_timeout`.
    #[error("cannot read: {}", leader_text(.hint))]
    NotLeader {
        /// Who leads now as far as this node knows, with the address its peers reach it at.
        hint: Option<(u64, String)>,
    },
    /// `reads_max` reads wait already.
    #[error("overloaded: too many reads wait")]
    Overloaded,
    /// Within `proposal_timeout` the leader that was known did not confirm its office, or did and
    /// this node did not get to apply what the read must see.
    #[error("the read was not served in time")]
    TimedOut,
    /// The closure panicked; the node goes on.
    #[error("the closure of the read panicked")]
    Panicked,
    /// The node was shut down.
    #[error("the node is stopped")]
    Stopped,
    /// The cluster knows this node with another disk; the reason says what to do.
    #[error("this node is not admitted: {0}")]
    NotAdmitted(Arc<str>),
    /// The node failed, of the cause that is told.
    #[error("the node failed: {0}")]
    Fatal(Arc<str>),
}

/// Why a node did not start. Nothing runs and nothing is locked afterwards.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address that cannot be one.
    #[error("{0:?} is not an address: host:port is needed, at most 90 bytes")]
    Address(String),
    /// The address is in use, not of this machine, or not permitted.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// What was asked for.
        address: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// Another node, in this process or another one, writes there.
    #[error("data directory {directory} is in use by {}; stop it first", user_text(*holder))]
    Locked {
        /// The directory.
        directory: String,
        /// The process, if it has written its number down; this one, if a node in it is there.
        holder: Option<u32>,
    },
    /// The directory was made by another node.
    #[error(
        "data directory {directory} belongs to node {found}, not to {expected}: check id and path"
    )]
    OtherNode {
        /// The directory.
        directory: String,
        /// Whose it is.
        found: u64,
        /// Who wanted to use it.
        expected: u64,
    },
    /// The directory holds a log that no node of this kind wrote, or that contradicts itself.
    #[error("the log in {directory} cannot be used: {reason}")]
    State {
        /// The directory.
        directory: String,
        /// What is wrong.
        reason: String,
    },
    /// The images of the state machine cannot be used, and the log is not enough without them; or one is of another cluster or of
    /// a newer release.
    #[error("the snapshots in {place} cannot be used: {reason}")]
    Snapshot {
        /// The directory, or the image.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// The state machine's own disk holds something else than the log, or more: one of the two is not of this node, or the log has
    /// lost what was durable. Starting would give the state machine other commands than those that it has.
    #[error(
        "the state machine holds everything up to {applied}, which is not in the log in {directory} (it \
         ends at index {last}): check that both are of this node, and put back what is missing"
    )]
    Gap {
        /// Directory of the log.
        directory: String,
        /// [`StateMachine::durable_position`](crate::StateMachine::durable_position).
        applied: Position,
        /// The log's newest entry.
        last: u64,
    },
    /// An option is out of its range or contradicts another.
    #[error("option {option}: {reason}")]
    Options {
        /// Its name.
        option: &'static str,
        /// What is wrong, with the limit.
        reason: String,
    },
    /// The log was repaired, and has lost, or can have lost, what this node promised its peers: a vote, a term, entries that it
    /// acknowledged. Started from it, the node could break what the cluster has promised: two leaders of one term, or a
    /// committed entry overruled.
    #[error(
        "the log in {directory} was repaired and lacks, or can lack, what this node had acknowledged \
         ({}): started again it could break what its cluster has promised; leave it off while its \
         peers have a majority (it can be replaced by a new member with an empty directory, once \
         members can be changed). If nothing acknowledged is lost, or no peer relies on it, remove \
         {directory}/{} at your own risk",
        losses_text(losses),
        kontiki_wal::repair::Mark::FILE
    )]
    Repaired {
        /// Directory of the log.
        directory: String,
        /// What is lost, a line each.
        losses: Vec<String>,
    },
    /// The log cannot be opened; the kind of the error says what can be done.
    #[error("cannot open the log: {0}")]
    Log(#[source] OpenError),
    /// Anything else the system refused.
    #[error("{0}")]
    Io(#[source] Arc<io::Error>),
}

fn user_text(holder: Option<u32>) -> String {
    holder.map_or("another process".to_owned(), |process| format!("process {process}"))
}

/// So many that they are one line; all are in the file.
fn losses_text(losses: &[String]) -> String {
    let told = losses[..losses.len().min(3)].join("; ");
    match losses.len() {
        0..=3 => told,
        more => format!("{told}; and {} more", more - 3),
    }
}

/// Why a node takes nothing, and what that means for those who still wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    Stopped,
    /// It goes on, and serves nobody.
    NotAdmitted(Arc<str>),
    Fatal(Arc<str>),
}

impl Closing {
    /// For a proposal that was given to nobody yet.
    pub(crate) fn untaken(&self) -> ProposeError {
        match self {
            Self::Stopped => ProposeError::Stopped,
            Self::NotAdmitted(reason) => ProposeError::NotAdmitted(reason.clone()),
            Self::Fatal(cause) => ProposeError::Fatal(cause.clone()),
        }
    }

    /// For a proposal that may be in somebody's log.
    pub(crate) fn open(&self, position: Option<Position>) -> ProposeError {
        match self {
            Self::Stopped | Self::NotAdmitted(_) => ProposeError::Unknown { position },
            Self::Fatal(cause) => ProposeError::Fatal(cause.clone()),
        }
    }

    pub(crate) fn snapshot(&self) -> SnapshotError {
        match self {
            Self::Stopped => SnapshotError::Stopped,
            Self::NotAdmitted(cause) | Self::Fatal(cause) => SnapshotError::Failed(cause.clone()),
        }
    }

    pub(crate) fn read(&self) -> ReadError {
        match self {
            Self::Stopped => ReadError::Stopped,
            Self::NotAdmitted(reason) => ReadError::NotAdmitted(reason.clone()),
            Self::Fatal(cause) => ReadError::Fatal(cause.clone()),
        }
    }
}

fn leader_text(hint: &Option<(u64, String)>) -> String {
    match hint {
        Some((id, address)) => format!("this node does not lead; node {id} at {address} may"),
        None => "no leader is known".to_owned(),
    }
}

fn at_text(position: &Option<Position>) -> String {
    position.map_or_else(String::new, |position| format!(" (at {position})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_never_be_applied_says_so() {
        let position = Position { term: 2, index: 7 };
        for error in [
            ProposeError::NotLeader { hint: None },
            ProposeError::Overloaded,
            ProposeError::TooLarge { bytes: 2, limit: 1 },
            ProposeError::Superseded { position },
            ProposeError::Stopped,
            ProposeError::NotAdmitted("reason".into()),
        ] {
            assert!(error.is_certainly_not_applied(), "{error}");
        }
        for error in [
            ProposeError::Unknown { position: Some(position) },
            ProposeError::Fatal("cause".into()),
        ] {
            assert!(!error.is_certainly_not_applied(), "{error}");
        }
    }

    /// No end promises anything about what was handed over (RAFT-CASE 57).
    #[test]
    fn an_open_proposal_never_ends_as_certainly_not_applied() {
        let reason = || "reason".into();
        for closing in [Closing::Stopped, Closing::NotAdmitted(reason()), Closing::Fatal(reason())]
        {
            assert!(!closing.open(None).is_certainly_not_applied());
        }
    }
}
