//! What `diff` tells of one log: as a line of text or as JSON.

use std::{
    cmp::Ordering,
    io::{self, Write},
};

use kontiki_wal::{Corruption, Entry, Log, ReadError};
use serde::Serialize;

use crate::{arguments::Format, outcome::corruption_line, place, terminal};

/// How the reading of both sides ended.
pub(crate) enum Ended {
    Same,
    Different(Difference),
    Unreadable { index: u64, side: usize, error: ReadError },
}

/// What is found of a log.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    log: u32,
    pub(crate) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compared: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomparable: Option<Incomparable>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<Damage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Same,
    Different,
    Damaged,
    Incomparable,
}

/// Some indexes, both included.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Span {
    pub(crate) first_index: u64,
    pub(crate) last_index: u64,
}

/// Entries that one side has and the other has no longer.
#[derive(Debug, Serialize)]
struct Incomparable {
    #[serde(flatten)]
    span: Span,
    missing_in: &'static str,
    cause: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct Difference {
    index: u64,
    what: &'static str,
    a: Found,
    b: Found,
}

/// What one side has at an index; of an entry before its first, the term.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Found {
    term: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc: Option<String>,
}

#[derive(Debug, Serialize)]
struct Damage {
    of: &'static str,
    why: String,
}

impl Compared {
    pub(crate) fn of(damage: &[Vec<Corruption>; 2], logs: &[Log; 2], ended: Ended) -> Self {
        let (start, last) = held_by_both(logs);
        let [a, b] = [0, 1].map(|side| Span::of(logs[side].first(), logs[side].last()));
        let cut_short = Damage::at_the_end(damage, logs);
        let (verdict, end, difference, found) = match ended {
            Ended::Same => {
                let verdict = match cut_short {
                    Some(_) => Verdict::Damaged,
                    None if start > last.saturating_add(1) => Verdict::Incomparable,
                    None => Verdict::Same,
                };
                (verdict, last.saturating_add(1), None, cut_short)
            }
            Ended::Different(found) => (Verdict::Different, found.index, Some(found), None),
            Ended::Unreadable { index, side, error } => {
                let why = match error {
                    ReadError::Corruption(corruption) => corruption_line(&corruption),
                    error => error.to_string(),
                };
                (Verdict::Damaged, index, None, Some(Damage { of: KEYS[side], why }))
            }
        };
        let compared = Span::of(start, end.saturating_sub(1));
        let incomparable = Incomparable::of(damage, logs);
        let (log, damage) = (logs[0].id().0, found);
        Self { log, verdict, compared, incomparable, difference, damage, a, b }
    }

    pub(crate) fn write(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Text => writeln!(out, "log {}: {}", self.log, self.text())?,
            Format::Jsonl => terminal::write_json_line(self, out)?,
        }
        out.flush()
    }

    fn text(&self) -> String {
        let same = self.compared.map(|span| format!("same in index {}", span.text()));
        let mut parts = Vec::new();
        match (&self.difference, &self.damage) {
            (Some(difference), _) => {
                parts.push(difference.text());
                parts.extend(same);
            }
            (None, Some(Damage { of, why })) => {
                parts.extend(same);
                parts.push(format!("{} is damaged: {why}", shown(of)));
            }
            _ if self.verdict == Verdict::Same => {
                parts.push(same.unwrap_or_else(|| "same, without an index in both".to_owned()));
            }
            _ => parts.push("not comparable, without an index in both".to_owned()),
        }
        if let Some(Incomparable { span, missing_in, cause }) = &self.incomparable {
            let side = shown(missing_in);
            parts.push(format!("{} not comparable, {cause} in {side}", span.text()));
        }
        parts.push(match [self.a, self.b].map(|span| span.map(|span| span.last_index)) {
            [Some(a), Some(b)] if a == b => format!("both end at {a}"),
            [Some(a), Some(b)] => format!("A ends at {a}, B at {b}"),
            [Some(a), None] => format!("A ends at {a}, B is empty"),
            [None, Some(b)] => format!("A is empty, B ends at {b}"),
            [None, None] => "both are empty".to_owned(),
        });
        parts.join("; ")
    }
}

impl Span {
    fn of(first_index: u64, last_index: u64) -> Option<Self> {
        (first_index <= last_index).then_some(Self { first_index, last_index })
    }

    fn text(self) -> String {
        place::range(self.first_index, self.last_index)
    }
}

impl Damage {
    /// What may have ended the log of one side before that of the other.
    fn at_the_end(damage: &[Vec<Corruption>; 2], logs: &[Log; 2]) -> Option<Self> {
        let short = match logs[0].last().cmp(&logs[1].last()) {
            Ordering::Less => 0,
            Ordering::Equal => return None,
            Ordering::Greater => 1,
        };
        // Behind a header that does not hold lie frames of every log, whichever log that one was of.
        let damage = &damage[short];
        let its_own = |found: &&Corruption| found.log == Some(logs[short].id());
        let found = damage.iter().find(its_own).or(damage.first())?;
        Some(Self { of: KEYS[short], why: corruption_line(found) })
    }
}

impl Incomparable {
    fn of(damage: &[Vec<Corruption>; 2], logs: &[Log; 2]) -> Option<Self> {
        let missing = usize::from(logs[0].first() < logs[1].first());
        let (holds, lacks) = (&logs[1 - missing], &logs[missing]);
        let span = Span::of(holds.first(), holds.last().min(lacks.first() - 1))?;
        let is_whole = damage[missing].is_empty();
        let cause = if is_whole { "compacted" } else { "compacted or lost" };
        Some(Self { span, missing_in: KEYS[missing], cause })
    }
}

impl Difference {
    /// Of the entry before `start`, of which one side knows the term alone.
    pub(crate) fn before(start: u64, logs: &[Log; 2]) -> Option<Self> {
        let index = start - 1;
        let [a, b] = [logs[0].term(index)?, logs[1].term(index)?];
        let found = |term| Found { term, bytes: None, crc: None };
        (a != b).then(|| Self { index, what: "term", a: found(a), b: found(b) })
    }

    pub(crate) fn between(a: &Entry, b: &Entry) -> Option<Self> {
        let what = match (a.term == b.term, a.bytes == b.bytes) {
            (true, true) => return None,
            (false, _) => "term",
            (true, false) => "payload",
        };
        Some(Self { index: a.index, what, a: Found::of(a), b: Found::of(b) })
    }

    fn text(&self) -> String {
        let Self { index, what, a, b } = self;
        if *what == "term" {
            return format!("different at index {index}: term {} in A, {} in B", a.term, b.term);
        }
        let (term, a, b) = (a.term, a.payload(), b.payload());
        format!("different at index {index} term {term}: payload of {a} in A, {b} in B")
    }
}

impl Found {
    fn of(entry: &Entry) -> Self {
        let crc = format!("{:#010x}", crc32fast::hash(&entry.bytes));
        Self { term: entry.term, bytes: Some(entry.bytes.len()), crc: Some(crc) }
    }

    fn payload(&self) -> String {
        let (bytes, crc) = (self.bytes.unwrap_or(0), self.crc.as_deref().unwrap_or("unknown"));
        format!("{bytes} bytes with crc {crc}")
    }
}

fn shown(key: &str) -> &'static str {
    if key == KEYS[0] { NAMES[0] } else { NAMES[1] }
}

/// The two sides as lines name them, and as JSON does.
pub(crate) const NAMES: [&str; 2] = ["A", "B"];
const KEYS: [&str; 2] = ["a", "b"];

/// First and last index that both hold; the last one lies before the first if there is none.
pub(crate) fn held_by_both(logs: &[Log; 2]) -> (u64, u64) {
    let [a, b] = logs;
    (a.first().max(b.first()), a.last().min(b.last()))
}
