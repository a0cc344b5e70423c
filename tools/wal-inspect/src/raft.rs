//! Raft's reading of a log: known by the magic in the log's state.

use std::collections::BTreeSet;

use bytes::Bytes;
use kontiki_core::{Configuration, Entry, EntryKind, LogIndex, State, Term};
use kontiki_wal::{
    LogId,
    inspect::{Frame, FrameKind},
};
use serde::Serialize;

/// The logs that are known to be Raft's, from the frames seen so far.
#[derive(Debug, Default)]
pub(crate) struct RaftLogs {
    logs: BTreeSet<LogId>,
}

impl RaftLogs {
    /// Learns from a frame; frames come in the log's order. Raft writes a state before its first
    /// entry, and every segment begins with the states of all logs, so this is in time.
    pub(crate) fn observe(&mut self, frame: &Frame) {
        if frame.kind == FrameKind::State
            && let Ok(body) = &frame.body
        {
            self.observe_state(frame.log, body);
        }
        for (log, bounds) in frame.checkpoint() {
            self.observe_state(log, &bounds.state.unwrap_or_default());
        }
    }

    fn observe_state(&mut self, log: LogId, state: &[u8]) {
        if RaftState::read(state).is_some() {
            self.logs.insert(log);
        } else {
            self.logs.remove(&log);
        }
    }

    pub(crate) fn contain(&self, log: LogId) -> bool {
        self.logs.contains(&log)
    }
}

/// An entry as Raft reads it.
#[derive(Debug, Serialize)]
#[serde(tag = "raft", rename_all = "lowercase")]
pub(crate) enum RaftEntry {
    Command,
    Empty,
    Configuration {
        members: Vec<Member>,
    },
    /// A kind that this version does not know, or a configuration that it cannot read.
    Unknown,
}

impl RaftEntry {
    /// Reads an entry of a Raft log; also returns the bytes that this does not explain, if any.
    pub(crate) fn read(index: u64, term: u64, payload: Bytes) -> (Self, Option<Bytes>) {
        let entry = Entry { index: LogIndex(index), term: Term(term), payload };
        match entry.kind() {
            Some(EntryKind::Command) => (Self::Command, Some(entry.body())),
            Some(EntryKind::Empty) => (Self::Empty, None),
            Some(EntryKind::Configuration) => match Configuration::decode(&entry.body()) {
                Ok(configuration) => {
                    (Self::Configuration { members: members(configuration) }, None)
                }
                Err(_) => (Self::Unknown, Some(entry.payload)),
            },
            None => (Self::Unknown, Some(entry.payload)),
        }
    }

    pub(crate) fn text(&self) -> String {
        match self {
            Self::Command => "command".to_owned(),
            Self::Empty => "empty".to_owned(),
            Self::Configuration { members } => format!("configuration{}", members_text(members)),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// Raft's state.
#[derive(Debug, Serialize)]
pub(crate) struct RaftState {
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    vote: Option<u64>,
    /// Hexadecimal: JSON's numbers have too few bits.
    cluster: String,
    incarnation: String,
    configurations: Vec<PlacedConfiguration>,
}

#[derive(Debug, Serialize)]
struct PlacedConfiguration {
    index: u64,
    term: u64,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Member {
    id: u64,
    address: String,
    incarnation: String,
    voter: bool,
}

impl RaftState {
    /// `None` if the state is not Raft's; otherwise what it says, or why it cannot be read.
    pub(crate) fn read(state: &[u8]) -> Option<Result<Self, String>> {
        match State::decode(state) {
            Ok(None) => None,
            Ok(Some(state)) => Some(Ok(Self::of(state))),
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// Term and vote, which a node must never forget.
    pub(crate) fn promise(&self) -> String {
        match self.vote {
            Some(vote) => format!("raft term {} vote {vote}", self.term),
            None => format!("raft term {} vote none", self.term),
        }
    }

    fn of(state: State) -> Self {
        Self {
            term: state.hard.term.0,
            vote: state.hard.vote.map(|vote| vote.0),
            cluster: hexadecimal(state.cluster.0),
            incarnation: hexadecimal(state.incarnation.0),
            configurations: state
                .configurations
                .into_iter()
                .map(|(position, configuration)| PlacedConfiguration {
                    index: position.index.0,
                    term: position.term.0,
                    members: members(configuration),
                })
                .collect(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = self.promise();
        text.push_str(&format!(" cluster {} incarnation {}", self.cluster, self.incarnation));
        for PlacedConfiguration { index, term, members } in &self.configurations {
            text.push_str(&format!(" configuration at index {index} term {term}:"));
            text.push_str(&members_text(members));
        }
        text
    }
}

fn members(configuration: Configuration) -> Vec<Member> {
    configuration
        .members
        .into_iter()
        .map(|member| Member {
            id: member.id.0,
            address: member.address,
            incarnation: hexadecimal(member.incarnation.0),
            voter: member.voter,
        })
        .collect()
}

/// Addresses come from the disk, so what is not printable in them is escaped.
fn members_text(members: &[Member]) -> String {
    members
        .iter()
        .map(|Member { id, address, voter, .. }| {
            let role = if *voter { "" } else { " (learner)" };
            format!(" {id}={}{role}", address.escape_default())
        })
        .collect()
}

fn hexadecimal(number: u64) -> String {
    format!("{number:#x}")
}
