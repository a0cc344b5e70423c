//! What `repair` says to people.

use kontiki_wal::repair::Stage;

use crate::{
    marked::losses_text,
    outcome::corruption_line,
    place::{self, Place},
    repair::{
        hints::hint,
        report::Report,
        rows::{LogRow, RunRow, SALVAGE, Way},
    },
};

impl Report {
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.is_begun() {
            let can_be_ended = self.ways.iter().all(|way| way.way == SALVAGE || way.possible);
            let again = if can_be_ended { "--truncate-tail --yes again" } else { "salvage it" };
            text.push_str(&format!("{UNFINISHED}{again}\n"));
        }
        text.extend(self.mark.as_ref().map(losses_text));
        if self.mark.as_ref().is_some_and(|mark| mark.stage == Stage::Done) {
            text.push_str(MARKED);
        }
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
            text.push_str(&format!(
                "unknown: segment {segment}: what was in it is not told by itself\n"
            ));
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

impl Way {
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
            (Some(Place { file, offset, lsn, .. }), _) => {
                let cut = if self.done { "cut" } else { "--truncate-tail --yes would cut" };
                let mut line = format!("{cut} in place at segment {file} offset {offset}");
                place::push(&mut line, "lsn", *lsn);
                line + ":\n"
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
            let (marked, says) =
                if self.done { ("marked", "says") } else { ("would be marked", "would say") };
            let line = format!("{marked}: {mark} {says} what is lost; no node starts from it");
            text.push_str(&format!("  {line}\n"));
        }
        let unharmed = match self.end_known {
            Some(false) => "nothing is known to be lost",
            _ => "nothing is lost",
        };
        self.logs.iter().for_each(|row| row.push_text(unharmed, text));
    }
}

impl LogRow {
    /// `unharmed` is what is said of one that is.
    fn push_text(&self, unharmed: &str, text: &mut String) {
        let mut clauses: Vec<String> = Vec::new();
        clauses.extend(self.unharmed.then(|| unharmed.to_owned()));
        for (what, runs) in [
            ("keeps", &self.kept),
            ("LOSES", &self.lost),
            ("leaves out, though whole,", &self.left_out),
            ("has again what was cut, replaced or compacted later,", &self.returning),
        ] {
            clauses.extend((!runs.is_empty()).then(|| format!("{what} {}", runs_text(runs))));
        }
        if !self.unknown.is_empty() {
            let spans =
                self.unknown.iter().map(|span| place::range(span.first_index, span.last_index));
            let spans = spans.collect::<Vec<_>>().join(", ");
            clauses.push(format!("of index {spans} NOTHING IS KNOWN"));
        }
        clauses.extend(self.may_be_replaced.then(|| MAY_BE_REPLACED.to_owned()));
        let state = match self.state {
            "older" => Some("ITS STATE FALLS BACK TO AN OLDER ONE"),
            "lost" => Some("ITS STATE IS LOST"),
            "may_be_older" => Some("its state may have been a newer one"),
            _ => None,
        };
        clauses.extend(state.map(str::to_owned));
        clauses.extend(self.promise.clone());
        text.push_str(&format!("  log {}: {}\n", self.log, clauses.join("; ")));
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

const MAY_BE_REPLACED: &str =
    "some of what it keeps may be out of date: what is lost may have replaced it";

const UNFINISHED: &str = "\
unfinished: a cut in place was begun and not ended, and the log is not opened before it is:
";

const MARKED: &str = "\
marked: its file REPAIR says so; a node is not started from it, but replaced by a new member with an
empty directory (--help says when the file may be removed)
";

const NOTHING_TO_REPAIR: &str = "\
nothing to repair: nothing that the log says was durable is damaged, as far as verify tells; what
contradicts itself is not looked for, and not mended: verify --deep finds it, and says what to do
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
