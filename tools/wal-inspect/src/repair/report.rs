//! What `repair` tells, and the same for programs.

use std::path::Path;

use kontiki_wal::{
    Corruption,
    repair::{Diagnosis, Mark, Stage},
};
use serde::Serialize;

use crate::{
    marked::MarkRow,
    outcome::Failure,
    place::{self, Entries, Place},
    repair::rows::{LogRow, Way},
    terminal,
};

/// Everything that is told.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) damage: Vec<Corruption>,
    pub(super) unknown: Vec<String>,
    pub(super) ways: Vec<Way>,
    /// What earlier repairs have left.
    pub(super) mark: Option<Mark>,
    /// A cut that was begun before was ended, and nothing else was to be done.
    pub(super) is_ended: bool,
}

#[derive(Serialize)]
struct DamageRow<'a> {
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    of: Entries,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
}

#[derive(Serialize)]
struct UnknownRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<u64>,
    file: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Row<'a> {
    Healthy { ended: bool },
    Mark(MarkRow),
    Damage(DamageRow<'a>),
    Unknown(UnknownRow<'a>),
    Way(&'a Way),
    Log(&'a LogRow),
}

impl Report {
    /// Of a log in `directory`, which was looked at.
    pub(super) fn of_diagnosis(diagnosis: &Diagnosis, directory: &Path) -> Self {
        let mark = diagnosis.mark.clone();
        if diagnosis.damage.is_empty() {
            return Self { mark, ..Self::default() };
        }
        let (damage, unknown) = (diagnosis.damage.clone(), diagnosis.unknown.clone());
        Self { damage, unknown, ways: Way::both(diagnosis, directory), mark, is_ended: false }
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
    pub(super) fn is_healthy(&self) -> bool {
        self.ways.is_empty() && !self.is_begun()
    }

    /// A cut was begun and not ended.
    pub(super) fn is_begun(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.stage != Stage::Done)
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        let damage = self.damage.iter().map(|found| Row::Damage(DamageRow::of(found)));
        let unknown = self.unknown.iter().map(|file| Row::Unknown(UnknownRow::of(file)));
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
}

impl DamageRow<'_> {
    fn of(found: &Corruption) -> DamageRow<'_> {
        let is_compared = found.expected != found.found;
        DamageRow {
            place: Place::new(&found.segment, found.offset, None),
            of: Entries::of(found),
            what: &found.what,
            expected: is_compared.then_some(found.expected),
            found: is_compared.then_some(found.found),
        }
    }
}

impl UnknownRow<'_> {
    fn of(file: &str) -> UnknownRow<'_> {
        UnknownRow { segment: place::segment_number(file), file }
    }
}
