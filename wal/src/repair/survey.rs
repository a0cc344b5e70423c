//! What is left of a log: each segment that it needs by itself, and where its logs stood at the end.
//!
//! The newest segment that begins whole says so: its checkpoint tells of all logs, whatever is lost before it. Of the entries
//! in older segments those count that lie within these bounds, have the term that these give them, and were not replaced by a
//! frame that can be read. Where frames are lost, one of them can have replaced some of those before it under their own term.
//! So what lies before a loss and what lies behind it are of two *eras*, and are not joined: within one, entries were in their
//! log together.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    slice,
};

use kontiki_disk::Directory;

use crate::{
    Bounds, Corruption, LogId, Lsn, OpenError,
    catalog::Catalog,
    frame::FrameKind,
    inspect::{Effort, Frame, Frames, live::Replaced},
    numbers::Numbers,
    recovery::{Depth, Look, newest_whole, scan::SegmentFile, settle, walk::behind},
    repair::{
        beyond::{Beyond, Found},
        island::{Island, islands},
    },
    segment::{FRAMES_AT, lsn_at},
};

/// Everything that can be told of a log that may be damaged.
#[derive(Debug)]
pub(super) struct Survey {
    /// As [`Verdict::Corrupt`](crate::inspect::Verdict::Corrupt) has it.
    pub(super) damage: Vec<Corruption>,
    /// Where an opening goes on, as the number of one of `files` and an offset; `None` with damage.
    pub(super) resume: Option<(usize, u64)>,
    /// Segments whose header page is whole, ascending.
    pub(super) files: Vec<SegmentFile>,
    /// Numbers of those whose header page is not.
    pub(super) unread: Vec<u64>,
    /// The newest of `files` that begins whole.
    pub(super) newest: Option<usize>,
    /// Where each of `files` lies in the stream; `None` if nothing needs it or it does not begin as it should.
    placed: Vec<Option<Placed>>,
    /// The logs at the end, and the segments that there should be.
    catalog: Catalog,
    /// Where whole headers end in the newest segment.
    end: Lsn,
    /// Everything below was durable.
    pub(super) attested: Lsn,
    replaced: Replaced,
    /// Logs that had a newer state than the one that can be read.
    pub(super) lost_states: BTreeSet<LogId>,
    /// Entries behind the end.
    pub(super) beyond: BTreeMap<LogId, Beyond>,
}

/// The place of a segment.
#[derive(Debug)]
struct Placed {
    /// Of its first frame.
    base: Lsn,
    /// How many losses lie before it.
    era: usize,
    /// Frames behind losses in it.
    islands: Vec<Island>,
}

/// What the place of the next segment depends on.
#[derive(Clone, Copy, Debug)]
struct Before {
    sequence: u64,
    /// How many losses lie before its last frames.
    era: usize,
    /// Where these end.
    end: Lsn,
    /// Where they should, if it is sealed.
    sealed_end: Option<Lsn>,
}

/// A frame with entries that are in their log at the end.
#[derive(Debug)]
pub(super) struct LiveFrame {
    /// Its body may be damaged.
    pub(super) frame: Frame,
    /// The indexes of these entries.
    pub(super) live: Range<u64>,
    /// How many losses lie before it.
    pub(super) era: usize,
}

/// Grows while the entries of one log follow each other, none is damaged, and all are of one era: what a log can be made of.
#[derive(Clone, Debug)]
pub(super) struct Prefix {
    first: u64,
    /// The index after the last one.
    pub(super) next: u64,
    /// That of its entries; `None` without one.
    pub(super) era: Option<usize>,
}

impl Prefix {
    /// Of a log whose first index this is.
    pub(super) fn new(first: u64) -> Self {
        Self { first, next: first, era: None }
    }

    /// Goes on with the entries of `found`, and tells their indexes; `None` if they cannot follow.
    pub(super) fn take(&mut self, found: &LiveFrame) -> Option<Range<u64>> {
        let follows = found.live.start == self.next && self.era.is_none_or(|era| era == found.era);
        if !follows || found.frame.body.is_err() {
            return None;
        }
        (self.next, self.era) = (found.live.end, Some(found.era));
        Some(found.live.clone())
    }

    /// All its indexes.
    pub(super) fn indexes(&self) -> Range<u64> {
        self.first..self.next
    }
}

impl Survey {
    /// Looks at the log in `directory`, which no writer may change meanwhile.
    pub(super) fn of(directory: &dyn Directory) -> Result<Self, OpenError> {
        let mut look = settle(directory, Depth::All(Effort::default()))?;
        let mut replaced = Replaced::default();
        let placed = place(&mut look, &mut replaced)?;
        let newest = newest_whole(&look.files)?.map(|(number, _)| number);
        let mut survey = Self {
            resume: look.end.filter(|_| look.damage.is_empty()),
            newest,
            placed,
            end: look.end_lsn,
            attested: look.attested,
            replaced,
            lost_states: BTreeSet::new(),
            beyond: BTreeMap::new(),
            unread: look.unread.iter().map(|unread| unread.0).collect(),
            catalog: look.gathered.catalog,
            files: look.files,
            damage: look.damage,
        };
        if !survey.is_end_known()
            && let Some((number, offset)) = look.end
        {
            let files = &survey.files[number..];
            let fault = look.fault.and_then(|(at, fault)| Some((at.checked_sub(number)?, fault)));
            let found = Found::behind(files, offset, fault.as_ref(), &survey.catalog)?;
            (survey.beyond, survey.lost_states) = (found.logs, found.states);
        }
        survey.find_lost_states()?;
        Ok(survey)
    }

    fn find_lost_states(&mut self) -> Result<(), OpenError> {
        let newest = self.newest.and_then(|newest| Some((newest, self.placed[newest].as_ref()?)));
        let Some((newest, &Placed { base, .. })) = newest else { return Ok(()) };
        let mut lost = BTreeSet::new();
        for frame in Frames::new(&self.files[newest], base) {
            let frame = frame?;
            match (frame.kind, frame.lsn < self.end, frame.body) {
                (FrameKind::State, true, Ok(_)) => lost.remove(&frame.log),
                (FrameKind::State, true, Err(_)) => lost.insert(frame.log),
                _ => continue,
            };
        }
        self.lost_states.append(&mut lost);
        Ok(())
    }

    /// Numbers of the segments that are not freed, as far as can be told.
    pub(super) fn live_numbers(&self) -> &Numbers {
        self.catalog.segments.numbers()
    }

    /// Where every log stood at the end, as far as can be told.
    pub(super) fn logs(&self) -> BTreeMap<LogId, Bounds> {
        let logs = self.catalog.logs();
        logs.map(|log| (log, self.catalog.bounds(log).into_owned())).collect()
    }

    /// Nothing that was durable lies behind the end, as far as anything attests it.
    pub(super) fn is_end_known(&self) -> bool {
        let is_end_whole = self.newest.is_some() && self.end >= self.attested;
        is_end_whole && !self.is_successor_lost() && !self.is_unread_behind()
    }

    /// Something was lost of which nothing can be told, behind what lies in this era.
    pub(super) fn is_loss_behind(&self, era: usize) -> bool {
        let last = self.placed.iter().rev().find_map(|placed| placed.as_ref());
        !self.is_end_known() || last.is_some_and(|placed| placed.era > era)
    }

    /// Another segment followed the newest that begins whole, or one behind it, and is not there, or its header page is damaged.
    /// The newest was sealed then, or later ones are there.
    pub(super) fn is_successor_lost(&self) -> bool {
        let Some(newest) = self.newest else { return false };
        let behind = &self.files[newest..];
        let follows = |pair: &[SegmentFile]| pair[0].header.sequence + 1 == pair[1].header.sequence;
        !behind.windows(2).all(follows) || behind.last().is_some_and(|last| last.was_sealed)
    }

    /// Segments whose header page is damaged lie behind the newest that begins whole.
    pub(super) fn is_unread_behind(&self) -> bool {
        let newest = self.newest.map_or(0, |newest| self.files[newest].header.sequence);
        self.unread.iter().any(|&number| number > newest)
    }

    /// Numbers of the segments of which nothing is told, ascending.
    pub(super) fn unknown(&self) -> Result<Vec<u64>, OpenError> {
        let mut unknown = self.unread.clone();
        for (number, file) in self.files.iter().enumerate() {
            let is_behind = self.newest.is_none_or(|newest| number > newest);
            let is_needed = self.live_numbers().contains(file.header.sequence) || is_behind;
            // One that was only prepared has no frames.
            let has_frames = || -> Result<bool, OpenError> {
                Ok(file.was_sealed || behind(slice::from_ref(file), FRAMES_AT)?.headers > 0)
            };
            if is_needed && self.placed[number].is_none() && has_frames()? {
                unknown.push(file.header.sequence);
            }
        }
        unknown.sort_unstable();
        Ok(unknown)
    }

    /// Shows each frame with live entries, in the order in which they were written.
    pub(super) fn visit<E: From<OpenError>>(
        &self,
        mut visit: impl FnMut(&LiveFrame) -> Result<(), E>,
    ) -> Result<(), E> {
        for (file, placed) in self.files.iter().zip(&self.placed) {
            let Some(Placed { base, era, islands, .. }) = placed else { continue };
            let starts = islands.iter().map(|island| island.start);
            for (losses, start) in std::iter::once(FRAMES_AT).chain(starts).enumerate() {
                for frame in Frames::at(file, *base, start) {
                    let frame = frame?;
                    let bounds = self.catalog.bounds(frame.log);
                    let live = self.replaced.live(&frame, &bounds, self.end);
                    if !live.is_empty() {
                        visit(&LiveFrame { frame, live, era: era + losses })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Where the segments that are needed lie in the stream, and what lies in them behind losses; which entries were replaced.
fn place(look: &mut Look, replaced: &mut Replaced) -> Result<Vec<Option<Placed>>, OpenError> {
    let live = look.gathered.catalog.segments.numbers();
    let mut placed: Vec<Option<Placed>> = Vec::new();
    let mut before: Option<Before> = None;
    let bases: BTreeMap<u64, Lsn> = look.checked.iter().map(|(&n, (base, _))| (n, *base)).collect();
    for file in &look.files {
        let sequence = file.header.sequence;
        let checked = look.checked.remove(&sequence).filter(|_| live.contains(sequence));
        let Some((base, checked)) = checked else {
            placed.push(None);
            continue;
        };
        let era = before.map_or(0, |before| {
            let is_lost = live.has_any(before.sequence + 1..sequence)
                || before.end != before.sealed_end.unwrap_or(base);
            before.era + usize::from(is_lost)
        });
        replaced.append(checked.replaced);
        let next = bases.get(&(sequence + 1)).copied();
        let sealed_end = file.trailer.map(|trailer| trailer.end());
        // What lies behind the end of the log is no part of it.
        let whole_end = sealed_end.or(next).unwrap_or(look.end_lsn).min(look.end_lsn);
        let used_end = lsn_at(base, checked.used_end);
        let islands = match used_end < whole_end {
            true => islands(file, base, checked.used_end, whole_end, replaced)?,
            false => Vec::new(),
        };
        let end = islands.last().map_or(used_end, |island| lsn_at(base, island.end));
        before = Some(Before { sequence, era: era + islands.len(), end, sealed_end });
        placed.push(Some(Placed { base, era, islands }));
    }
    Ok(placed)
}
