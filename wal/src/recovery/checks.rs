//! Which segments a look checks, and what it makes of what their checks find.

use std::{collections::BTreeMap, slice};

use crate::{
    Lsn, OpenError,
    inspect::{Effort, Replaced},
    recovery::{
        check::{Check, Ending},
        look::Look,
        parallel::in_parallel,
        scan::SegmentFile,
        walk::{base, behind, is_begin_attested, read_opening},
    },
    segment::{FRAMES_AT, lsn_at},
};

impl Look {
    /// Checks every segment that is not freed, and those that were walked, side by side.
    pub(super) fn check_all(&mut self, effort: Effort) -> Result<(), OpenError> {
        let (files, walked) = (self.files.clone(), self.walked_bases());
        let checks = self.checks(&files, &walked, effort)?;
        let live = self.gathered.catalog.segments.numbers();
        let (mut before, mut placed_end) = (None::<Ending>, Lsn(0));
        for (Check { file, base, end, .. }, checked) in
            checks.iter().zip(in_parallel(effort.threads, &checks, Check::run))
        {
            let (sequence, mut checked) = (file.header.sequence, checked?);
            let is_behind = *end != self.end_lsn;
            if is_behind {
                // It replaces nothing before the end.
                checked.replaced = Replaced::default();
            }
            if live.contains(sequence) || is_behind {
                // What a writer has used again meanwhile was freed.
                self.is_partial |= !checked.is_itself;
                self.damage.extend(checked.damage.iter().filter(|_| checked.is_itself).cloned());
            }
            // What is needed and cannot be placed was durable, or nothing newer would be there.
            if base.is_none()
                && (!is_behind || is_begin_attested(file)?)
                && let Err(fault) = read_opening(file, None)?
            {
                self.damage.push(file.corruption(&fault));
            }
            if let (Some(ending), true) = (before, walked.contains_key(&sequence)) {
                self.damage.extend(ending.contradiction(file)?);
            }
            before = checked.ending.filter(|_| effort.is_deep && checked.is_itself);
            // What claims to lie before an older one is not believed.
            if let Some(base) = base.filter(|&base| base >= placed_end) {
                placed_end = lsn_at(base, checked.used_end);
                self.checked.insert(sequence, (base, checked));
            }
        }
        Ok(())
    }

    /// Where those segments begin in the stream whose place the walk has found.
    fn walked_bases(&self) -> BTreeMap<u64, Lsn> {
        let placed = self.older.segments.iter().chain(&self.gathered.segments);
        placed.map(|segment| (segment.sequence, segment.base)).collect()
    }

    /// What is to be checked of `files`: those that are needed, and where damage was gone around, all behind the end.
    fn checks<'a>(
        &self,
        files: &'a [SegmentFile],
        walked: &BTreeMap<u64, Lsn>,
        effort: Effort,
    ) -> Result<Vec<Check<'a>>, OpenError> {
        let live = self.gathered.catalog.segments.numbers();
        let end_number = self.end.map_or(0, |(number, _)| number);
        let mut checks: Vec<Check<'a>> = Vec::new();
        for (number, file) in files.iter().enumerate() {
            let sequence = file.header.sequence;
            let is_placed = walked.contains_key(&sequence);
            let is_behind = self.is_around && !is_placed && number >= end_number;
            if !is_placed && !live.contains(sequence) && !is_behind {
                continue;
            }
            let base = match walked.get(&sequence) {
                Some(&base) => Some(base),
                None => base(file, number.checked_sub(1).map(|before| &files[before]))?,
            };
            let end = if is_behind { Lsn(u64::MAX) } else { self.end_lsn };
            if let Some(before) = checks.last_mut().filter(|_| number <= end_number) {
                let next = base.filter(|_| before.file.header.sequence + 1 == sequence);
                before.reaches = self.reaches(before, next)?;
            }
            let reaches = match is_behind {
                true => Some(behind(slice::from_ref(file), FRAMES_AT)?.watermark),
                false => None,
            };
            checks.push(Check { file, base, end, reaches, is_deep: effort.is_deep });
        }
        Ok(checks)
    }

    /// How far the frames of an older segment went, if it is not sealed: up to where the `next` one begins, or at least to the
    /// last whole header in it.
    fn reaches(&self, older: &Check<'_>, next: Option<Lsn>) -> Result<Option<Lsn>, OpenError> {
        let Some(base) = older.base.filter(|_| older.file.trailer.is_none()) else {
            return Ok(None);
        };
        if next.is_some() || !self.is_around {
            return Ok(next);
        }
        let last = behind(slice::from_ref(older.file), FRAMES_AT)?.frames_end;
        Ok(Some(lsn_at(base, last.max(FRAMES_AT))))
    }
}
