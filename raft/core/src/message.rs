//! What nodes say to each other: one struct per variant.

use crate::{Batch, LogIndex, Position, ReadId, Term};

/// A message between two members. May be lost, repeated or reordered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Message {
    /// A candidate asks for a vote, or whether it would get one.
    VoteRequest(VoteRequest),
    /// The answer to it.
    VoteResponse(VoteResponse),
    /// A leader replicates; without entries it is a heartbeat.
    AppendEntries(AppendEntries),
    /// The answer to it, and to [`InstallSnapshot`].
    AppendResponse(AppendResponse),
    /// A follower asks its leader at which index a read may run.
    ReadIndexRequest(ReadIndexRequest),
    /// The answer to it.
    ReadIndexResponse(ReadIndexResponse),
    /// A leader offers its snapshot to a follower that needs entries which its log does not hold any
    /// more. The image itself travels beside the protocol.
    InstallSnapshot(InstallSnapshot),
}

impl Message {
    /// The term the message speaks of: the sender's, or for a pre-vote the one it would stand in.
    #[must_use]
    pub fn term(&self) -> Term {
        match self {
            Self::VoteRequest(message) => message.term,
            Self::VoteResponse(message) => message.term,
            Self::AppendEntries(message) => message.term,
            Self::InstallSnapshot(message) => message.term,
            Self::AppendResponse(message) => message.term,
            Self::ReadIndexRequest(message) => message.term,
            Self::ReadIndexResponse(message) => message.term,
        }
    }
}

/// Whether a vote is asked for or only probed; answers of one kind never count for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VoteKind {
    /// "Would you vote for me?" Changes nothing durable on either side.
    Pre,
    /// "Vote for me."
    Real,
}

/// A candidate's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteRequest {
    /// Probe or vote.
    pub kind: VoteKind,
    /// The term to be elected for: of a real vote the sender's own term, of a pre-vote the next.
    pub term: Term,
    /// The last entry of the candidate's log.
    pub last: Position,
}

/// A voter's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VoteResponse {
    /// Which kind of request this answers.
    pub kind: VoteKind,
    /// The term of the request in a granted pre-vote; the voter's own term otherwise.
    pub term: Term,
    /// Whether the vote is given.
    pub granted: bool,
}

/// A leader's entries, or its heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppendEntries {
    /// The leader's term.
    pub term: Term,
    /// The entry right before `entries`; `(0, 0)` before the first.
    pub previous: Position,
    /// What the leader knows to be committed; a heartbeat says no more than `previous`.
    pub commit: LogIndex,
    /// Counts within the leadership, from 1; echoed, so that an answer proves when its sender still
    /// followed.
    pub round: u64,
    /// Entries from `previous.index + 1` on; empty in a heartbeat.
    pub entries: Batch,
}

/// A leader's offer; a heartbeat as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InstallSnapshot {
    /// The leader's term.
    pub term: Term,
    /// As in [`AppendEntries::round`].
    pub round: u64,
    /// The last entry that the snapshot contains. It is committed.
    pub at: Position,
}

/// A follower's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendResponse {
    /// The follower's term.
    pub term: Term,
    /// The round of the request; 0, which is none, if that was of an earlier term.
    pub round: u64,
    /// What the request met.
    pub outcome: AppendOutcome,
}

/// What an AppendEntries or an InstallSnapshot met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// Everything up to here matches the leader's log and is durable on the follower.
    Matched(LogIndex),
    /// The follower's log does not hold `previous` of the request.
    Rejected {
        /// `previous` of the request.
        previous: Position,
        /// The follower's last entry that can match: at or before `previous`, of its term or an
        /// earlier one.
        hint: Position,
    },
    /// The follower lacks the snapshot that it was offered, and is getting it.
    Fetching {
        /// `at` of the offer.
        at: Position,
    },
}

/// A follower's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexRequest {
    /// The follower's term.
    pub term: Term,
    /// Names the question; unlike a runtime's read it differs after a restart.
    pub id: ReadId,
}

/// The leader's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadIndexResponse {
    /// The answerer's term.
    pub term: Term,
    /// Echoed.
    pub id: ReadId,
    /// The read may run once this is applied. `None`: not leader, too many reads, or leadership
    /// was lost.
    pub index: Option<LogIndex>,
}
