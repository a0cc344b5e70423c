//! What a damaged log has, and what of it each way keeps.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use bytes::Bytes;

use crate::{
    Bounds, LogId, Lsn, OpenError,
    repair::{
        CutPlace, LogOutcome, StateOutcome, Truncation,
        cut::Plan,
        spans::Spans,
        survey::{LiveFrame, Prefix, Survey},
    },
};

/// The entries of a log that is damaged.
pub(super) struct Contents<'a> {
    survey: &'a Survey,
    logs: BTreeMap<LogId, Bounds>,
    /// Live entries that can be read.
    whole: BTreeMap<LogId, Spans>,
    /// Those of them that lie before the cut.
    before: BTreeMap<LogId, Spans>,
    /// Those that a new log can be made of.
    prefixes: BTreeMap<LogId, Prefix>,
}

impl<'a> Contents<'a> {
    /// Reads all entries; of those that can be read, `plan` would cut some off.
    pub(super) fn of(survey: &'a Survey, plan: Option<&Plan>) -> Result<Self, OpenError> {
        let cut = plan.and_then(|plan| plan.cut).map_or(Lsn(u64::MAX), |place| place.lsn);
        let logs = survey.logs();
        let prefixes = logs.iter().map(|(&log, bounds)| (log, Prefix::new(bounds.first))).collect();
        let (whole, before) = (BTreeMap::new(), BTreeMap::new());
        let mut contents = Self { survey, logs, whole, before, prefixes };
        survey.visit(|found| {
            contents.take(found, cut);
            Ok::<(), OpenError>(())
        })?;
        Ok(contents)
    }

    fn take(&mut self, found: &LiveFrame, cut: Lsn) {
        let LiveFrame { frame, live, .. } = found;
        if frame.body.is_err() {
            return;
        }
        self.whole.entry(frame.log).or_default().push(live.clone());
        if frame.lsn < cut {
            self.before.entry(frame.log).or_default().push(live.clone());
        }
        if let Some(prefix) = self.prefixes.get_mut(&frame.log) {
            prefix.take(found);
        }
    }

    /// What a cut does, after which the logs stand at `after`.
    pub(super) fn truncation(
        &self,
        plan: &Plan,
        after: &BTreeMap<LogId, Bounds>,
        backup: PathBuf,
    ) -> Truncation {
        let none = Bounds::default();
        let outcome = |log| {
            let after = after.get(&log).unwrap_or(&none);
            let before = self.before.get(&log).cloned().unwrap_or_default();
            // One that was gone at the cut came back in what is lost.
            let kept = before.without(&before.without(&Spans::of(after)));
            self.outcome(log, &kept, after)
        };
        let logs: BTreeSet<LogId> = self.known().chain(after.keys().copied()).collect();
        Truncation {
            cut: plan.cut.map(|place| CutPlace {
                segment: self.survey.files[place.number].name(),
                offset: place.offset,
                lsn: place.lsn,
            }),
            changed: plan.changed(self.survey),
            removed: plan.removed(),
            backup,
            logs: logs.into_iter().map(outcome).collect(),
            is_end_known: self.survey.is_end_known(),
        }
    }

    /// What a new log would hold.
    pub(super) fn salvage(&self) -> Vec<LogOutcome> {
        let none = Bounds::default();
        let outcome = |log| {
            let bounds = self.logs.get(&log).unwrap_or(&none);
            let mut kept = Spans::default();
            let prefix = self.prefixes.get(&log);
            kept.push(prefix.map_or(0..0, Prefix::indexes));
            let outcome = self.outcome(log, &kept, bounds);
            let era = prefix.and_then(|prefix| prefix.era);
            let may_be_replaced = era.is_some_and(|era| self.survey.is_loss_behind(era));
            // Nothing was cut, so nothing returns.
            LogOutcome { returning: Vec::new(), may_be_replaced, ..outcome }
        };
        self.known().collect::<BTreeSet<LogId>>().into_iter().map(outcome).collect()
    }

    fn known(&self) -> impl Iterator<Item = LogId> + '_ {
        let Survey { beyond, lost_states, .. } = self.survey;
        self.logs.keys().chain(beyond.keys()).chain(lost_states).copied()
    }

    /// Compares a log as it was with what it will be: entries that stay, and where it stands.
    fn outcome(&self, log: LogId, kept: &Spans, after: &Bounds) -> LogOutcome {
        let none = (Bounds::default(), Spans::default());
        let was = self.logs.get(&log).unwrap_or(&none.0);
        let whole = self.whole.get(&log).unwrap_or(&none.1);
        let mut lost = Spans::of(was).without(whole).runs(was);
        let mut left_out = whole.without(kept).runs(was);
        let mut unknown = Vec::new();
        if let Some(beyond) = self.survey.beyond.get(&log) {
            lost.extend_from_slice(&beyond.lost);
            left_out.extend_from_slice(&beyond.whole);
            unknown.extend_from_slice(&beyond.unknown);
        }
        let is_empty = |bounds: &Bounds| bounds.first > bounds.last;
        let goes_on = |bounds: &Bounds| (bounds.first, bounds.term_before);
        LogOutcome {
            log,
            kept: kept.runs(was),
            lost,
            unknown,
            left_out,
            returning: Spans::of(after).without(kept).runs(after),
            // A cut lies before all losses.
            may_be_replaced: *kept != none.1 && self.survey.is_loss_behind(0),
            is_moved: is_empty(was) && is_empty(after) && goes_on(was) != goes_on(after),
            state: self.state(log, was.state.as_ref(), after.state.as_ref()),
            state_bytes: after.state.clone(),
            newest_state: was.state.clone(),
            has_owner: self.survey.files.first().is_some_and(|file| file.header.owner != [0; 32]),
        }
    }

    fn state(&self, log: LogId, was: Option<&Bytes>, after: Option<&Bytes>) -> StateOutcome {
        let is_older = self.survey.lost_states.contains(&log) || after != was;
        match (was, after) {
            (_, Some(_)) if is_older => StateOutcome::Older,
            (Some(_), None) => StateOutcome::Lost,
            (None, None) if is_older => StateOutcome::Lost,
            (_, Some(_)) if !self.survey.is_end_known() => StateOutcome::MayBeOlder,
            (_, Some(_)) => StateOutcome::Kept,
            (None, None) => StateOutcome::None,
        }
    }
}
