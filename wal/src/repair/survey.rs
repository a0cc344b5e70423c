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
    frame::{FrameKind, Header},
    inspect::{Effort, Frame, Frames, live::Replaced},
    numbers::Numbers,
    recovery::{
        Depth, attested,
        older::Parted,
        scan::{SegmentFile, Window, io_error},
        settle,
        walk::{End, Gathered, Opening, behind, read_opening},
    },
    repair::TermRun,
    segment::{FIRST_SEQUENCE, FRAMES_AT, Segment, sequence_of},
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
    /// Entries behind the end that were durable, as whole headers tell.
    pub(super) beyond: BTreeMap<LogId, Vec<TermRun>>,
}

/// Where the chain of whole headers ends in a segment, at the end of the log at the latest; what they replace goes to
/// `replaced`.
fn used(
    file: &SegmentFile,
    segment: &Segment,
    end: Lsn,
    replaced: &mut Replaced,
) -> Result<u64, OpenError> {
    let mut window = Window::new(file);
    let (mut offset, mut link) = (FRAMES_AT, None);
    while segment.lsn(offset) < end
        && let Ok(found) = window.frame(offset, link, Some(segment.lsn(offset)))?
    {
        replaced.take(segment.lsn(offset), &found.header);
        (offset, link) = (offset + found.header.frame_bytes(), Some(found.crc));
    }
    Ok(offset)
}

/// The place of a segment.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Of its first frame.
    base: Lsn,
    /// Where its whole headers end.
    end: Lsn,
    /// How many losses lie before it.
    era: usize,
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
        let look = settle(directory, Depth::All(Effort::default()))?;
        let (files, unread) = open_each(directory)?;
        let mut survey = Self {
            resume: look.end.filter(|_| look.damage.is_empty()),
            damage: look.damage,
            placed: vec![None; files.len()],
            files,
            unread,
            newest: None,
            catalog: Catalog::new(FIRST_SEQUENCE),
            end: Lsn(0),
            attested: Lsn(0),
            replaced: Replaced::default(),
            lost_states: BTreeSet::new(),
            beyond: BTreeMap::new(),
        };
        for number in (0..survey.files.len()).rev() {
            if let Ok(opening) = read_opening(&survey.files[number], None)? {
                survey.newest = Some(number);
                survey.walk_newest(number, opening)?;
                break;
            }
        }
        survey.place()?;
        survey.find_lost_states()?;
        Ok(survey)
    }

    fn walk_newest(&mut self, newest: usize, opening: Opening) -> Result<(), OpenError> {
        let files = self.files[newest..]
            .chunk_by(|a, b| a.header.sequence + 1 == b.header.sequence)
            .next()
            .expect("it is one of them")
            .to_vec();
        let tail = Parted { older: &[], tail: &files };
        self.attested = attested(&tail, opening.clone())?;
        let catalog = Catalog::restore(files[0].header.sequence, opening.checkpoint.clone());
        let mut gathered = Gathered::new(catalog);
        gathered.follow_until = self.attested;
        let end = gathered.walk(&files, opening)?;
        (self.catalog, self.end) = (gathered.catalog, end.lsn);
        if self.end < self.attested {
            self.look_beyond(&files, &end)?;
        }
        Ok(())
    }

    /// What whole headers tell behind the one that cannot be read, and what that one was if a single flipped bit explains it.
    fn look_beyond(&mut self, files: &[SegmentFile], end: &End) -> Result<(), OpenError> {
        let (number, offset) = end.resume();
        let mut headers: Vec<Header> = end.fault.header.into_iter().collect();
        for (ahead, file) in files[number..].iter().enumerate() {
            let start = if ahead == 0 { offset } else { FRAMES_AT };
            let is_there = end.fault.header.is_some() && number + ahead == end.fault_number;
            Window::new(file).whole_headers(start, |at, header| {
                if !is_there || at != end.fault.offset {
                    headers.push(*header);
                }
            })?;
        }
        for header in headers {
            if header.kind == FrameKind::State {
                self.lost_states.insert(header.log);
            }
            if let Some((first, last)) = header.indexes() {
                let run = TermRun { first, last, term: header.term };
                push_run(self.beyond.entry(header.log).or_default(), run);
            }
        }
        Ok(())
    }

    /// Finds where the segments that are needed lie in the stream, and which entries were replaced.
    fn place(&mut self) -> Result<(), OpenError> {
        let live = self.catalog.segments.numbers();
        let (mut before, mut era) = (None::<(usize, Placed)>, 0);
        for (number, file) in self.files.iter().enumerate() {
            if !live.contains(file.header.sequence) {
                continue;
            }
            let Ok(opening) = read_opening(file, None)? else { continue };
            let base = opening.base;
            if let Some((last, placed)) = before {
                // What claims to lie before an older segment is not believed.
                if base < placed.end {
                    continue;
                }
                let between = self.files[last].header.sequence + 1..file.header.sequence;
                let whole_end = self.files[last].trailer.map_or(base, |trailer| trailer.end());
                era += usize::from(live.has_any(between) || placed.end != whole_end);
            }
            let segment = Segment::new(&file.header, base, file.file.clone());
            let end = segment.lsn(used(file, &segment, self.end, &mut self.replaced)?);
            let placed = Placed { base, end, era };
            (before, self.placed[number]) = (Some((number, placed)), Some(placed));
        }
        Ok(())
    }

    fn find_lost_states(&mut self) -> Result<(), OpenError> {
        let newest = self.newest.and_then(|newest| Some((newest, self.placed[newest]?)));
        let Some((newest, placed)) = newest else { return Ok(()) };
        let mut lost = BTreeSet::new();
        for frame in Frames::new(&self.files[newest], placed.base) {
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

    /// The newest segment is sealed, and so another one followed; it is not there, or its header page is damaged.
    pub(super) fn is_successor_lost(&self) -> bool {
        self.newest.is_some_and(|newest| {
            let next = self.files[newest].header.sequence + 1;
            let follows =
                self.files.get(newest + 1).is_some_and(|file| file.header.sequence == next);
            self.files[newest].trailer.is_some() && !follows
        })
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
                Ok(file.trailer.is_some() || behind(slice::from_ref(file), FRAMES_AT)?.headers > 0)
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
            let Some(Placed { base, era, .. }) = *placed else { continue };
            for frame in Frames::new(file, base) {
                let frame = frame?;
                let live = self.live(&frame);
                if !live.is_empty() {
                    visit(&LiveFrame { frame, live, era })?;
                }
            }
        }
        Ok(())
    }

    /// The indexes of those entries of a frame that its log has from there at the end.
    fn live(&self, frame: &Frame) -> Range<u64> {
        let first = frame.first_index;
        if frame.kind != FrameKind::Entries || frame.lsn >= self.end {
            return first..first;
        }
        let bounds = self.catalog.bounds(frame.log);
        let indexes = first..first.saturating_add(frame.count.into());
        let live = self.replaced.live(frame.lsn, frame.log, &bounds, indexes);
        // What replaced it can be lost: then the term tells.
        let Ok(run) = bounds.runs.binary_search_by_key(&frame.term, |run| run.1) else {
            return first..first;
        };
        let end = bounds.runs.get(run + 1).map_or(u64::MAX, |next| next.0);
        live.start.max(bounds.runs[run].0)..live.end.min(end)
    }
}

/// Every segment whose header page is whole, and the numbers of the others.
fn open_each(directory: &dyn Directory) -> Result<(Vec<SegmentFile>, Vec<u64>), OpenError> {
    let path = directory.path().display().to_string();
    let listed = directory.list().map_err(|source| io_error("list", &path, source))?;
    let (mut files, mut unread) = (Vec::<SegmentFile>::new(), Vec::new());
    for sequence in listed.iter().filter_map(|(name, _)| sequence_of(name)) {
        match SegmentFile::open(directory, sequence) {
            Err(OpenError::Corruption(_)) => unread.push(sequence),
            Err(error) => return Err(error),
            Ok(file) => {
                if let Some(first) = files.first()
                    && first.header.uuid != file.header.uuid
                {
                    return Err(OpenError::OtherLog { segment: file.name(), other: first.name() });
                }
                files.push(file);
            }
        }
    }
    Ok((files, unread))
}

/// Appends a run, to the last one if it goes on there.
fn push_run(runs: &mut Vec<TermRun>, run: TermRun) {
    match runs.last_mut() {
        Some(last) if last.term == run.term && last.last.checked_add(1) == Some(run.first) => {
            last.last = run.last;
        }
        _ => runs.push(run),
    }
}
