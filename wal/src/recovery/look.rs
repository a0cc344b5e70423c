//! A look at everything in a directory: what is there, where it ends, and what of it is damaged.

use std::{cmp::Ordering, collections::BTreeMap, io, slice};

use kontiki_disk::Directory;

use crate::{
    Corruption, Lsn, OpenError,
    catalog::{Catalog, Missing},
    inspect::{Effort, Standing},
    recovery::{
        check::{Check, Checked, Ending},
        older::{Older, Parted, part},
        parallel::in_parallel,
        scan::{SegmentFile, io_error},
        walk::{End, Gathered, Opening, behind, read_opening},
    },
    segment::{FIRST_SEQUENCE, FRAMES_AT, file_name, sequence_of},
};

/// How much of the frames is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Those of the newest segments; the older ones are checked when they are read.
    Newest,
    /// All.
    All(Effort),
}

/// Everything that could be read, at one look.
#[derive(Debug)]
pub(crate) struct Look {
    /// Segments whose header page is whole, up to the first where it is not.
    pub(crate) files: Vec<SegmentFile>,
    /// Number and length of that one and of those behind it.
    pub(crate) unread: Vec<(u64, u64)>,
    pub(crate) older: Older,
    pub(crate) gathered: Gathered,
    /// Where whole frames end, as the number of one of `files` and an offset; `None` without a frame.
    pub(crate) end: Option<(usize, u64)>,
    pub(crate) end_lsn: Lsn,
    /// Everything below was synced, as frames and trailers tell.
    pub(crate) attested: Lsn,
    /// The last frame is the mark of a close, and nothing follows it.
    pub(crate) closed: bool,
    /// Something that was written lies behind the end.
    pub(crate) torn: bool,
    /// What is damaged although it was durable.
    pub(crate) damage: Vec<Corruption>,
    pub(super) index_bytes: u64,
    /// `header_crc` of the last whole frame.
    pub(crate) last_crc: u32,
    /// What the checks of the segments found that have a place in the stream.
    pub(crate) checked: BTreeMap<u64, (Lsn, Checked)>,
    /// Newer segments lie behind a damaged header page, or a writer used a file again during the look: which entries live,
    /// and which segments there should be, is not known then.
    is_partial: bool,
}

/// Looks until what it sees stands still: a writer at work is no damage.
pub(crate) fn settle(directory: &dyn Directory, depth: Depth) -> Result<Look, OpenError> {
    let mut before: Option<Look> = None;
    for _ in 0..LOOKS_MAX {
        let look = match look(directory, depth) {
            // A segment was freed between the listing and the opening.
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                continue;
            }
            look => look?,
        };
        let stands_still = before
            .as_ref()
            .is_some_and(|before| before.damage == look.damage && before.end_lsn == look.end_lsn);
        if look.damage.is_empty() || stands_still {
            return Ok(look);
        }
        before = Some(look);
    }
    let path = directory.path().display().to_string();
    Err(io_error(
        "read",
        &path,
        io::Error::other("it changes faster than it can be read; try again"),
    ))
}

fn look(directory: &dyn Directory, depth: Depth) -> Result<Look, OpenError> {
    let shown = directory.path().display().to_string();
    let listed = directory.list().map_err(|source| io_error("list", &shown, source))?;
    let listed: Vec<(u64, u64)> =
        listed.iter().filter_map(|(name, bytes)| Some((sequence_of(name)?, *bytes))).collect();
    let mut files: Vec<SegmentFile> = Vec::new();
    let mut damage = Vec::new();
    for &(sequence, _) in &listed {
        match SegmentFile::open(directory, sequence) {
            Ok(file) => {
                if let Some(first) = files.first()
                    && first.header.uuid != file.header.uuid
                {
                    return Err(OpenError::OtherLog { segment: file.name(), other: first.name() });
                }
                files.push(file);
            }
            Err(OpenError::Corruption(corruption)) => {
                damage.push(corruption);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let unread = listed[files.len()..].to_vec();
    Ok(Look { unread, ..Look::at(files, damage, depth)? })
}

impl Look {
    fn at(
        files: Vec<SegmentFile>,
        damage: Vec<Corruption>,
        depth: Depth,
    ) -> Result<Self, OpenError> {
        let mut look = Self {
            files,
            unread: Vec::new(),
            older: Older::default(),
            gathered: Gathered::new(Catalog::new(FIRST_SEQUENCE)),
            end: None,
            end_lsn: Lsn(0),
            attested: Lsn(0),
            closed: false,
            torn: false,
            is_partial: !damage.is_empty(),
            damage,
            index_bytes: 0,
            last_crc: 0,
            checked: BTreeMap::new(),
        };
        let files = look.files.clone();
        if files.is_empty() {
            return Ok(look);
        }
        match part(&files) {
            Ok(parted) => look.walk(&parted, depth)?,
            Err(OpenError::MissingSegment { missing, .. }) => {
                if !look.is_partial {
                    look.damage.push(missing_file(missing, None));
                }
                // As far as there is something to read.
                let (older, tail) = files.split_at(files.len() - 1);
                look.walk(&Parted { older, tail }, depth)?;
            }
            Err(error) => return Err(error),
        }
        look.damage.append(&mut look.gathered.damage);
        // In the order of the log, and each damaged place once: several checks can come upon it.
        look.damage.sort_by(|a, b| place(a).cmp(&place(b)));
        look.damage.dedup_by(|a, b| place(a) == place(b));
        Ok(look)
    }

    fn walk(&mut self, parted: &Parted<'_>, depth: Depth) -> Result<(), OpenError> {
        let tail = parted.tail;
        let opening = match read_opening(&tail[0], None)? {
            Ok(opening) => opening,
            Err(fault) => {
                // Nothing was ever in it, or all is lost.
                self.torn = fault.header.is_some();
                if !parted.is_first() || behind(tail, FRAMES_AT)?.watermark > Lsn(0) {
                    self.damage.push(parted.corruption(&fault));
                }
                return Ok(());
            }
        };
        let sequence = tail[0].header.sequence;
        let mut catalog = Catalog::restore(sequence, opening.checkpoint.clone());
        self.gather_older(parted, &mut catalog)?;
        let attested = attested(parted, opening.clone())?;
        self.attested = attested;
        self.gathered = Gathered::new(catalog);
        self.gathered.follow_until = attested;
        let end = self.gathered.walk(tail, opening)?;
        self.take_end(parted, end, attested)?;
        self.older.retain(self.gathered.catalog.segments.numbers());
        if let Depth::All(effort) = depth {
            self.check_all(effort)?;
        }
        self.find_missing();
        Ok(())
    }

    fn gather_older(
        &mut self,
        parted: &Parted<'_>,
        catalog: &mut Catalog,
    ) -> Result<(), OpenError> {
        let live = catalog.segments.numbers();
        for (file, next) in parted.older_and_next() {
            if !live.contains(file.header.sequence) {
                continue;
            }
            self.older.gather(file, next)?;
            self.is_partial |= !file.is_still_itself();
        }
        self.older.attach(catalog);
        Ok(())
    }

    /// Checks every segment that is not freed, and those that were walked, side by side.
    fn check_all(&mut self, effort: Effort) -> Result<(), OpenError> {
        let live = self.gathered.catalog.segments.numbers();
        let placed = self.older.segments.iter().chain(&self.gathered.segments);
        let bases: BTreeMap<u64, Lsn> =
            placed.map(|segment| (segment.sequence, segment.base)).collect();
        let checks = self.files.iter().filter_map(|file| {
            let (sequence, end) = (file.header.sequence, self.end_lsn);
            let base = bases.get(&sequence).copied().or(file.trailer.map(|trailer| trailer.base));
            let is_asked = bases.contains_key(&sequence) || live.contains(sequence);
            is_asked.then_some(Check { file, base, end, is_deep: effort.is_deep })
        });
        let checks: Vec<Check<'_>> = checks.collect();
        let mut before: Option<Ending> = None;
        for (Check { file, .. }, checked) in
            checks.iter().zip(in_parallel(effort.threads, &checks, Check::run))
        {
            let (sequence, checked) = (file.header.sequence, checked?);
            if live.contains(sequence) {
                // What a writer has used again meanwhile was freed.
                self.is_partial |= !checked.is_itself;
                self.damage.extend(checked.damage.iter().filter(|_| checked.is_itself).cloned());
            }
            if let (Some(ending), true) = (before, bases.contains_key(&sequence)) {
                self.damage.extend(ending.contradiction(file)?);
            }
            before = checked.ending.filter(|_| effort.is_deep && checked.is_itself);
            if let Some(&base) = bases.get(&sequence) {
                self.checked.insert(sequence, (base, checked));
            }
        }
        Ok(())
    }

    fn take_end(&mut self, parted: &Parted<'_>, end: End, attested: Lsn) -> Result<(), OpenError> {
        let tail = parted.tail;
        let (number, offset) = end.resume();
        let behind = behind(&tail[number..], offset)?;
        if end.lsn < attested {
            self.damage.push(tail[end.fault_number].corruption(&end.fault));
        }
        let later = tail.len() - number - 1;
        self.torn = behind.headers > 0 || end.fault.header.is_some();
        self.closed = end.last.as_ref().is_some_and(|last| last.header.closed)
            && !self.torn
            && !end.is_sealed
            && later <= 1;
        self.end = Some((parted.older.len() + number, offset));
        self.end_lsn = end.lsn;
        self.index_bytes = end.index_bytes;
        self.last_crc = end.last.map_or(0, |last| last.crc);
        Ok(())
    }

    /// What the segment of one of `files` is to the log; `read_end` is where its whole frames end, if it has a place in the
    /// stream.
    pub(crate) fn standing(
        &self,
        number: usize,
        read_end: Option<u64>,
    ) -> Result<Standing, OpenError> {
        let file = &self.files[number];
        let place = self.end.map_or(Ordering::Greater, |(end, _)| number.cmp(&end));
        let is_needed = self.gathered.catalog.segments.numbers().contains(file.header.sequence);
        // The end's segment is not opened yet if the one before it is sealed and it has no whole first frames.
        let is_freed = place == Ordering::Less && !is_needed;
        if is_freed || (place != Ordering::Greater && !file.is_still_itself()) {
            return Ok(Standing::Freed);
        }
        let Some(read_end) = read_end else { return self.standing_without_place(file, place) };
        Ok(match (file.trailer, place) {
            (Some(trailer), _) if read_end < trailer.frames_end => Standing::Damaged,
            (Some(_), _) => Standing::Sealed,
            (None, _) if self.is_damaged_at(file, |offset| offset == read_end) => Standing::Damaged,
            (None, Ordering::Less) => Standing::Full,
            (None, _) => Standing::Active,
        })
    }

    /// The same for a segment that was not walked, and is not freed.
    fn standing_without_place(
        &self,
        file: &SegmentFile,
        place: Ordering,
    ) -> Result<Standing, OpenError> {
        if place == Ordering::Less || self.is_damaged_at(file, |offset| offset >= FRAMES_AT) {
            return Ok(Standing::Damaged);
        }
        if self.damage.is_empty() {
            return Ok(Standing::Prepared);
        }
        // The walk did not come this far, and what it did not read may be needed.
        let has_frames =
            file.trailer.is_some() || behind(slice::from_ref(file), FRAMES_AT)?.headers > 0;
        Ok(if has_frames { Standing::Unknown } else { Standing::Prepared })
    }

    fn is_damaged_at(&self, file: &SegmentFile, is_there: impl Fn(u64) -> bool) -> bool {
        let name = file.name();
        self.damage.iter().any(|found| found.segment == name && is_there(found.offset))
    }

    /// Segments that are not there although nothing has freed them are damage, and so are live entries that none holds.
    fn find_missing(&mut self) {
        let catalog = &self.gathered.catalog;
        let live = catalog.segments.numbers();
        // What is there and damaged was told already.
        let damaged = self.damage.iter().filter_map(|found| sequence_of(&found.segment));
        let there = self.files.iter().map(|file| file.header.sequence).chain(damaged);
        let lost = live.without(there);
        let missing = catalog.missing(&self.older.spans);
        let term = missing.and_then(|missing| catalog.bounds(missing.log).term(missing.index));
        if let (Some(corruption), true) = (self.older.damage(live), self.damage.is_empty()) {
            self.damage.push(corruption.clone());
        }
        if self.is_partial {
            return;
        }
        let entry = missing.map(|missing| (missing, term));
        self.damage.extend(lost.runs().map(|run| missing_files(run, entry)));
        if let (Some(entry), true) = (entry, self.damage.is_empty()) {
            let newest = self.files.last().expect("there is one");
            let what = "live entries that no segment holds".to_owned();
            self.damage.push(Corruption { what, ..missing_file(newest.name(), Some(entry)) });
        }
    }
}

/// Names of segments are all of one length.
fn place(corruption: &Corruption) -> (&str, u64) {
    (&corruption.segment, corruption.offset)
}

/// The files of a run of segments: one damage, for a checkpoint can speak of a million of them.
fn missing_files((first, last): (u64, u64), entry: Option<(Missing, Option<u64>)>) -> Corruption {
    let missing = missing_file(file_name(first), entry);
    if first == last {
        return missing;
    }
    let what = format!("missing files of the segments from this one to {}", file_name(last));
    Corruption { what, ..missing }
}

fn missing_file(segment: String, entry: Option<(Missing, Option<u64>)>) -> Corruption {
    Corruption {
        segment,
        offset: 0,
        what: "missing file of a segment".to_owned(),
        log: entry.map(|(missing, _)| missing.log),
        indexes: entry.map(|(missing, _)| (missing.index, missing.index)),
        term: entry.and_then(|(_, term)| term),
        expected: 0,
        found: 0,
    }
}

/// The largest LSN below which everything was durable.
pub(crate) fn attested(parted: &Parted<'_>, opening: Opening) -> Result<Lsn, OpenError> {
    let sequence = parted.tail[0].header.sequence;
    let catalog = Catalog::restore(sequence, opening.checkpoint.clone());
    let end = Gathered::new(catalog).walk(parted.tail, opening)?;
    let (number, offset) = end.resume();
    let behind = behind(&parted.tail[number..], offset)?;
    Ok(end.watermark.max(behind.watermark).max(parted.sealed_end()))
}

/// How often a live directory is looked at before it is given up.
const LOOKS_MAX: usize = 16;
