//! What `repair` says: text for people, rows of JSON for programs.

use std::path::{Path, PathBuf};

use kontiki_wal::{
    Corruption,
    repair::{CutPlace, Diagnosis, LogOutcome, Mark, Stage, StateOutcome, TermRun, Truncation},
};
use serde::Serialize;

use crate::{
    compared::Span,
    marked::{MarkRow, losses_text},
    outcome::{Failure, corruption_line},
    place::{self, Entries},
    raft::RaftState,
    repair::hints::hint,
    terminal,
};

/// Everything that is told.
#[derive(Debug, Default)]
pub(super) struct Report {
    damage: Vec<Corruption>,
    unknown: Vec<String>,
    ways: Vec<Way>,
    /// What earlier repairs have left.
    mark: Option<Mark>,
    /// A cut that was begun before was ended, and nothing else was to be done.
    is_ended: bool,
}

/// Whether a way was gone or only looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    No,
}

/// One of the two ways.
#[derive(Debug, Serialize)]
pub(super) struct Way {
    way: &'static str,
    done: bool,
    possible: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<CutRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_known: Option<bool>,
    #[serde(skip)]
    logs: Vec<LogRow>,
}

#[derive(Debug, Serialize)]
struct CutRow {
    segment: String,
    offset: u64,
    lsn: u64,
}

/// What becomes of one log.
#[derive(Debug, Serialize)]
struct LogRow {
    way: &'static str,
    log: u32,
    unharmed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<RunRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<RunRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<Span>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<RunRow>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    returning: Vec<RunRow>,
    may_be_replaced: bool,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    promise: Option<String>,
    dangerous: bool,
}

#[derive(Debug, Serialize)]
struct RunRow {
    first_index: u64,
    last_index: u64,
    term: u64,
}

#[derive(Serialize)]
struct DamageRow<'a> {
    segment: &'a str,
    offset: u64,
    #[serde(flatten)]
    of: Entries,
    what: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Row<'a> {
    Healthy { ended: bool },
    Mark(MarkRow),
    Damage(DamageRow<'a>),
    Unknown { segment: &'a str },
    Way(&'a Way),
    Log(&'a LogRow),
}

impl Report {
    pub(super) fn of_diagnosis(diagnosis: &Diagnosis) -> Self {
        let mark = diagnosis.mark.clone();
        if diagnosis.damage.is_empty() {
            return Self { mark, ..Self::default() };
        }
        let truncation = match &diagnosis.truncation {
            Ok(truncation) => Way::of_truncation(truncation, Done::No),
            Err(reason) => Way { reason: Some(reason.clone()), ..Way::new(TRUNCATE, Done::No) },
        };
        let salvage = match &diagnosis.salvage[..] {
            [] => Way { reason: Some(NOTHING_LEFT.to_owned()), ..Way::new(SALVAGE, Done::No) },
            outcomes => Way::of_salvage(outcomes, diagnosis.is_end_known, None),
        };
        let mut ways = vec![truncation, salvage];
        // Also of one that is not possible.
        ways.iter_mut().for_each(|way| way.end_known = Some(diagnosis.is_end_known));
        let (damage, unknown) = (diagnosis.damage.clone(), diagnosis.unknown.clone());
        Self { damage, unknown, ways, mark, is_ended: false }
    }

    /// Of a cut for which there was nothing to do, or only to end what was begun `before`.
    pub(super) fn of_nothing_cut(before: Option<Mark>, mark: Option<Mark>) -> Self {
        let is_ended = before.is_some_and(|mark| mark.stage == Stage::Cutting);
        Self { mark, is_ended, ..Self::default() }
    }

    pub(super) fn of_done(way: Way) -> Self {
        Self { ways: vec![way], ..Self::default() }
    }

    /// There is nothing to repair.
    fn is_healthy(&self) -> bool {
        self.ways.is_empty() && !self.is_begun()
    }

    /// A cut was begun and not ended.
    fn is_begun(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.stage != Stage::Done)
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        let damage = self.damage.iter().map(|found| Row::Damage(DamageRow::of(found)));
        let unknown = self.unknown.iter().map(|segment| Row::Unknown { segment });
        let ways = self
            .ways
            .iter()
            .flat_map(|way| std::iter::once(Row::Way(way)).chain(way.logs.iter().map(Row::Log)));
        let mark = self.mark.iter().map(|mark| Row::Mark(MarkRow::of(mark)));
        let healthy = self.is_healthy().then_some(Row::Healthy { ended: self.is_ended });
        terminal::json_lines(
            healthy.into_iter().chain(mark).chain(damage).chain(unknown).chain(ways),
        )
    }

    pub(super) fn text(&self) -> String {
        let mut text = if self.is_begun() { UNFINISHED.to_owned() } else { String::new() };
        text.extend(self.mark.as_ref().map(losses_text));
        if self.is_ended {
            text.push_str("the cut that was begun before is ended: the log can be opened\n");
        }
        if self.is_healthy() {
            return text + NOTHING_TO_REPAIR;
        }
        for found in &self.damage {
            text.push_str(&format!("corrupt: {}\n", corruption_line(found)));
            text.push_str(&hint(found).map_or_else(String::new, |hint| format!("  {hint}\n")));
        }
        for segment in &self.unknown {
            text.push_str(&format!("unknown: segment {segment}: nothing in it can be told\n"));
        }
        if self.ways.iter().any(|way| way.end_known == Some(false)) {
            text.push_str("unknown: the log went on behind what can be told: more may be lost\n");
        }
        let is_first = text.is_empty();
        for (number, way) in self.ways.iter().enumerate() {
            text.push_str(if is_first && number == 0 { "" } else { "\n" });
            way.push_text(&mut text);
        }
        let logs = self.ways.iter().flat_map(|way| &way.logs);
        if logs.into_iter().any(|row| row.dangerous) {
            text.push_str(DANGER);
        }
        text
    }
}

impl DamageRow<'_> {
    fn of(found: &Corruption) -> DamageRow<'_> {
        DamageRow {
            segment: &found.segment,
            offset: found.offset,
            of: Entries::of(found),
            what: &found.what,
        }
    }
}

impl Way {
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
        let cut = truncation.cut.as_ref().map(|CutPlace { segment, offset, lsn, .. }| CutRow {
            segment: segment.clone(),
            offset: *offset,
            lsn: lsn.0,
        });
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

    /// `mark` is where it was left, if it was.
    pub(super) fn with_mark(self, mark: Option<PathBuf>) -> Self {
        Self { mark: mark.map(|mark| mark.display().to_string()), ..self }
    }

    fn push_text(&self, text: &mut String) {
        if let Some(reason) = &self.reason {
            text.push_str(&format!("--{} is not possible: {reason}\n", self.way));
            return;
        }
        text.push_str(&match (&self.cut, &self.directory) {
            _ if self.way == SALVAGE && self.done => {
                let directory = self.directory.as_deref().unwrap_or_default();
                format!("salvaged into {directory}:\n")
            }
            _ if self.way == SALVAGE => {
                "--salvage NEW_DIR would write a new log and leave this one alone:\n".to_owned()
            }
            (Some(CutRow { segment, offset, lsn }), _) => {
                let cut = if self.done { "cut" } else { "--truncate-tail --yes would cut" };
                format!("{cut} in place at segment {segment} offset {offset} lsn {lsn}:\n")
            }
            (None, _) if self.done => "mended in place, no frame was cut:\n".to_owned(),
            (None, _) => "--truncate-tail --yes would mend in place and cut no frame:\n".to_owned(),
        });
        for (what, names) in [("changed", &self.changed), ("removed", &self.removed)] {
            if !names.is_empty() {
                text.push_str(&format!("  {what}: {}\n", names.join(", ")));
            }
        }
        if let Some(backup) = &self.backup {
            text.push_str(&format!("  backup of these: {backup}\n"));
        }
        if let Some(mark) = &self.mark {
            text.push_str(&format!("  marked: {mark} says what is lost; no node starts from it\n"));
        }
        let unharmed = match self.end_known {
            Some(false) => " nothing is known to be lost",
            _ => " nothing is lost",
        };
        self.logs.iter().for_each(|row| row.push_text(unharmed, text));
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

    /// `unharmed` is what is said of one that is.
    fn push_text(&self, unharmed: &str, text: &mut String) {
        text.push_str(&format!("  log {}:", self.log));
        text.push_str(if self.unharmed { unharmed } else { "" });
        for (what, runs) in [
            ("keeps", &self.kept),
            ("LOSES", &self.lost),
            ("leaves out, though whole,", &self.left_out),
            ("has again what was cut, replaced or compacted later,", &self.returning),
        ] {
            if !runs.is_empty() {
                let separator = if text.ends_with(':') { " " } else { "; " };
                text.push_str(&format!("{separator}{what} {}", runs_text(runs)));
            }
        }
        if !self.unknown.is_empty() {
            let spans =
                self.unknown.iter().map(|span| place::range(span.first_index, span.last_index));
            let separator = if text.ends_with(':') { " " } else { "; " };
            let spans = spans.collect::<Vec<_>>().join(", ");
            text.push_str(&format!("{separator}of index {spans} NOTHING IS KNOWN"));
        }
        if self.may_be_replaced {
            text.push_str(
                "; some of what it keeps may be out of date: what is lost may have replaced it",
            );
        }
        text.push_str(match self.state {
            "older" => "; ITS STATE FALLS BACK TO AN OLDER ONE",
            "lost" => "; ITS STATE IS LOST",
            "may_be_older" => "; its state may have been a newer one",
            _ => "",
        });
        if let Some(promise) = &self.promise {
            text.push_str(&format!("; {promise}"));
        }
        text.push('\n');
    }
}

impl RunRow {
    fn of(run: &TermRun) -> Self {
        Self { first_index: run.first, last_index: run.last, term: run.term }
    }
}

/// Indexes that follow each other as one range, with the terms that they have.
fn runs_text(runs: &[RunRow]) -> String {
    let follows = |a: &RunRow, b: &RunRow| {
        a.last_index.checked_add(1) == Some(b.first_index) && a.term <= b.term
    };
    let ranges = runs.chunk_by(follows).map(|runs| {
        let (first, last) = (&runs[0], &runs[runs.len() - 1]);
        let indexes = place::range(first.first_index, last.last_index);
        format!("index {indexes} term {}", place::range(first.term, last.term))
    });
    ranges.collect::<Vec<_>>().join(", ")
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
const SALVAGE: &str = "salvage";
const NOTHING_LEFT: &str = "nothing is left of any log";

const UNFINISHED: &str = "\
unfinished: a cut in place was begun and not ended, and the log is not opened before it is:
--truncate-tail --yes again
";

const NOTHING_TO_REPAIR: &str = "\
nothing to repair: nothing that the log says was durable is damaged, as far as verify tells; what
contradicts itself is not looked for, and not mended: verify --deep finds it
";

const DANGER: &str = "
DANGER: a log above is, or can be, that of a replicated node, which may have lost a vote, a term or
entries that it has acknowledged. Started again it can break what its cluster has promised. While a
majority of its peers is healthy they have all that was committed: leave this node off, keep its
directory, and replace it by a new member with an empty directory (this version cannot change
members yet; until then the others go on without it). If no majority is left, this may be the
newest copy there is: salvage it, and look into it with dump and diff. What is cut or salvaged has a
file REPAIR, from which no node starts; who removes it answers for that.
";
