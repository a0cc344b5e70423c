//! What `repair` says of each way and of each log, as rows of JSON.

use std::path::{Path, PathBuf};

use kontiki_wal::repair::{Diagnosis, LogOutcome, Mark, StateOutcome, TermRun, Truncation};
use serde::Serialize;

use crate::{compared::Span, place::Place, raft::RaftState};

/// Whether a way was gone or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    No,
}

/// One of the two ways.
#[derive(Debug, Serialize)]
pub(super) struct Way {
    pub(super) way: &'static str,
    pub(super) done: bool,
    pub(super) possible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cut: Option<Place>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) changed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_known: Option<bool>,
    #[serde(skip)]
    pub(super) logs: Vec<LogRow>,
}

/// What becomes of one log.
#[derive(Debug, Serialize)]
pub(super) struct LogRow {
    pub(super) way: &'static str,
    pub(super) log: u32,
    pub(super) unharmed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) kept: Vec<RunRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lost: Vec<RunRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unknown: Vec<Span>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) left_out: Vec<RunRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) returning: Vec<RunRow>,
    pub(super) may_be_replaced: bool,
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) promise: Option<String>,
    pub(super) dangerous: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct RunRow {
    pub(super) first_index: u64,
    pub(super) last_index: u64,
    pub(super) term: u64,
}

impl Way {
    /// Both ways for the log in `directory`, as they are looked at.
    pub(super) fn both(diagnosis: &Diagnosis, directory: &Path) -> Vec<Self> {
        let mark_in = |directory: &Path| directory.join(Mark::FILE);
        let truncation = match &diagnosis.truncation {
            Ok(truncation) => Self::of_truncation(truncation, Done::No)
                .with_mark(diagnosis.is_cut_marked.then(|| mark_in(directory))),
            Err(reason) => Self { reason: Some(reason.clone()), ..Self::new(TRUNCATE, Done::No) },
        };
        let salvage = match &diagnosis.salvage[..] {
            [] => Self { reason: Some(NOTHING_LEFT.to_owned()), ..Self::new(SALVAGE, Done::No) },
            outcomes => Self::of_salvage(outcomes, diagnosis.is_end_known, None)
                .with_mark(diagnosis.is_salvage_marked.then(|| mark_in(Path::new(NEW)))),
        };
        let mut ways = vec![truncation, salvage];
        // Also of one that is not possible.
        ways.iter_mut().for_each(|way| way.end_known = Some(diagnosis.is_end_known));
        ways
    }

    fn new(way: &'static str, done: Done) -> Self {
        Self {
            way,
            done: done == Done::Yes,
            possible: false,
            reason: None,
            cut: None,
            changed: Vec::new(),
            removed: Vec::new(),
            backup: None,
            mark: None,
            directory: None,
            end_known: None,
            logs: Vec::new(),
        }
    }

    pub(super) fn of_truncation(truncation: &Truncation, done: Done) -> Self {
        let cut = truncation.cut.as_ref();
        let cut = cut.map(|cut| Place::new(&cut.segment, cut.offset, Some(cut.lsn.0)));
        Self {
            possible: true,
            cut,
            changed: truncation.changed.clone(),
            removed: truncation.removed.clone(),
            backup: Some(truncation.backup.display().to_string()),
            end_known: Some(truncation.is_end_known),
            logs: truncation.logs.iter().map(|log| LogRow::of(TRUNCATE, log)).collect(),
            ..Self::new(TRUNCATE, done)
        }
    }

    /// `directory` is that of the new log, if it was written.
    pub(super) fn of_salvage(
        outcomes: &[LogOutcome],
        is_end_known: bool,
        directory: Option<&Path>,
    ) -> Self {
        Self {
            possible: true,
            directory: directory.map(|directory| directory.display().to_string()),
            end_known: Some(is_end_known),
            logs: outcomes.iter().map(|log| LogRow::of(SALVAGE, log)).collect(),
            ..Self::new(SALVAGE, if directory.is_some() { Done::Yes } else { Done::No })
        }
    }

    /// `mark` is where it is left, if it is.
    pub(super) fn with_mark(self, mark: Option<PathBuf>) -> Self {
        Self { mark: mark.map(|mark| mark.display().to_string()), ..self }
    }
}

impl LogRow {
    fn of(way: &'static str, outcome: &LogOutcome) -> Self {
        let mut outcome = outcome.clone();
        let raft = outcome.state_bytes.as_ref().and_then(|state| RaftState::read(state));
        let before = outcome.newest_state.as_ref().and_then(|state| RaftState::read(state));
        let is_raft = raft.is_some() || before.is_some();
        // Of Raft an index and a term are one entry.
        outcome.may_be_replaced &= !is_raft;
        let unharmed = outcome.is_unharmed();
        // A node's log has a state before its first entry: if none can be read, nothing shows that it is not Raft's.
        let can_be_raft = is_raft || (outcome.has_owner && outcome.newest_state.is_none());
        let rows = |runs: &[TermRun]| runs.iter().map(RunRow::of).collect();
        Self {
            way,
            log: outcome.log.0,
            unharmed,
            kept: rows(&outcome.kept),
            lost: rows(&outcome.lost),
            unknown: outcome
                .unknown
                .iter()
                .map(|&(first_index, last_index)| Span { first_index, last_index })
                .collect(),
            left_out: rows(&outcome.left_out),
            returning: rows(&outcome.returning),
            may_be_replaced: outcome.may_be_replaced,
            state: state_name(outcome.state),
            promise: raft.map(|raft| raft.map_or_else(|error| error, |state| state.promise())),
            dangerous: can_be_raft && !unharmed,
        }
    }
}

impl RunRow {
    fn of(run: &TermRun) -> Self {
        Self { first_index: run.first, last_index: run.last, term: run.term }
    }
}

fn state_name(state: StateOutcome) -> &'static str {
    match state {
        StateOutcome::None => "none",
        StateOutcome::Kept => "kept",
        StateOutcome::MayBeOlder => "may_be_older",
        StateOutcome::Older => "older",
        StateOutcome::Lost => "lost",
    }
}

const TRUNCATE: &str = "truncate-tail";
pub(super) const SALVAGE: &str = "salvage";
/// Stands for a directory that was not named yet.
const NEW: &str = "NEW_DIR";
const NOTHING_LEFT: &str = "nothing is left of any log";
