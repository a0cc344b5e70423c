//! A look at everything in a directory: what is there, where it ends, and what of it is damaged.

use std::{collections::BTreeMap, io};

use kontiki_disk::Directory;

use crate::{
    Corruption, Lsn, OpenError,
    catalog::{Catalog, Missing},
    inspect::Effort,
    recovery::{
        check::Checked,
        older::{Beginning, Older, Parted, is_orphan, part},
        scan::{Fault, SegmentFile, io_error},
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
    /// Segments whose header page is whole; where only the newest frames are read, up to the first where it is not.
    pub(crate) files: Vec<SegmentFile>,
    /// Number and length of those where it is not.
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
    /// What was found at the end instead of a frame that was durable, and in which of `files`.
    pub(crate) fault: Option<(usize, Fault)>,
    pub(super) index_bytes: u64,
    /// `header_crc` of the last whole frame.
    pub(crate) last_crc: u32,
    /// What the checks of the segments found that have a place in the stream.
    pub(crate) checked: BTreeMap<u64, (Lsn, Checked)>,
    /// Damage keeps the walk from the end of the log.
    is_stopped: bool,
    /// The walk begins behind the damage.
    pub(super) is_around: bool,
    /// Newer frames lie behind damage, or a writer used a file again during the look: which entries live, and which segments
    /// there should be, is not known then.
    pub(super) is_partial: bool,
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
    let (files, unread, damage) = open_each(directory, depth)?;
    let mut look = Look::new(files, unread, damage);
    // Of what lies behind a damaged header page the ordinary walk would only say that something is missing before it.
    if look.damage.is_empty() || depth == Depth::Newest {
        look.walk_newest(depth)?;
    }
    if look.is_stopped && depth != Depth::Newest {
        look = look.around(depth)?;
    }
    look.damage.append(&mut look.gathered.damage);
    // In the order of the log, and each damaged place once: several checks can come upon it.
    look.damage.sort_by(|a, b| place(a).cmp(&place(b)));
    look.damage.dedup_by(|a, b| place(a) == place(b));
    Ok(look)
}

/// Segments whose header page is whole, number and length of the others, and what is wrong with these.
type Opened = (Vec<SegmentFile>, Vec<(u64, u64)>, Vec<Corruption>);

/// Opens every segment; where only the newest frames are read, up to the first whose header page is damaged.
fn open_each(directory: &dyn Directory, depth: Depth) -> Result<Opened, OpenError> {
    let shown = directory.path().display().to_string();
    let listed = directory.list().map_err(|source| io_error("list", &shown, source))?;
    let listed = listed.iter().filter_map(|(name, bytes)| Some((sequence_of(name)?, *bytes)));
    let (mut files, mut unread, mut damage) = (Vec::<SegmentFile>::new(), Vec::new(), Vec::new());
    for (sequence, bytes) in listed {
        match SegmentFile::open(directory, sequence) {
            Ok(file) => {
                file.expect_log_of(files.first())?;
                files.push(file);
            }
            Err(OpenError::Corruption(corruption)) => {
                unread.push((sequence, bytes));
                damage.push(corruption);
                if depth == Depth::Newest {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok((files, unread, damage))
}

/// The newest of `files` that begins whole, and how: its checkpoint tells of all logs, whatever is lost before it.
pub(crate) fn newest_whole(files: &[SegmentFile]) -> Result<Option<(usize, Opening)>, OpenError> {
    for (number, file) in files.iter().enumerate().rev() {
        if let Ok(opening) = read_opening(file, None)? {
            return Ok(Some((number, opening)));
        }
    }
    Ok(None)
}

impl Look {
    fn new(files: Vec<SegmentFile>, unread: Vec<(u64, u64)>, damage: Vec<Corruption>) -> Self {
        let is_damaged = !damage.is_empty();
        Self {
            files,
            unread,
            older: Older::default(),
            gathered: Gathered::new(Catalog::new(FIRST_SEQUENCE)),
            end: None,
            end_lsn: Lsn(0),
            attested: Lsn(0),
            closed: false,
            torn: false,
            damage,
            fault: None,
            index_bytes: 0,
            last_crc: 0,
            checked: BTreeMap::new(),
            is_stopped: is_damaged,
            is_around: false,
            is_partial: is_damaged,
        }
    }

    /// Walks the newest segments as an opening does.
    fn walk_newest(&mut self, depth: Depth) -> Result<(), OpenError> {
        let files = self.files.clone();
        if files.is_empty() {
            return Ok(());
        }
        match part(&files) {
            Ok((parted, beginning)) => self.walk(&parted, beginning, depth),
            Err(OpenError::MissingSegment { missing, .. }) => {
                self.is_stopped = true;
                if !self.is_partial {
                    self.damage.push(missing_file(missing, None));
                }
                // As far as there is something to read.
                let read = files.len() - usize::from(is_orphan(&files)?);
                let (parted, beginning) = Parted::read(&files[..read], read - 1)?;
                self.walk(&parted, beginning, depth)
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on behind what stopped the walk, which stays damage: from the newest segment on that begins whole.
    fn around(mut self, depth: Depth) -> Result<Self, OpenError> {
        let Some((newest, opening)) = newest_whole(&self.files)? else { return Ok(self) };
        self.damage.append(&mut self.gathered.damage);
        let files = self.files.clone();
        let (older, behind) = files.split_at(newest);
        let mut runs = behind.chunk_by(|a, b| a.header.sequence + 1 == b.header.sequence);
        let tail = runs.next().expect("it is one of them");
        let sequence = tail[0].header.sequence;
        let is_lost = tail[0].was_sealed && tail.len() == 1;
        // If it is there and its header page is damaged, that is at the same place, and was told before.
        if is_lost && !self.unread.is_empty() {
            self.damage.push(missing_file(file_name(sequence + 1), None));
        }
        let is_partial = is_lost || self.unread.iter().any(|unread| unread.0 > sequence);
        let mut look = Self::new(self.files, self.unread, self.damage);
        (look.is_around, look.is_partial) = (true, is_partial);
        look.walk_from(&Parted { older, tail }, opening, depth)?;
        Ok(look)
    }

    fn walk(
        &mut self,
        parted: &Parted<'_>,
        beginning: Beginning,
        depth: Depth,
    ) -> Result<(), OpenError> {
        let tail = parted.tail;
        let opening = match beginning {
            Ok(opening) => opening,
            Err(fault) => {
                // Nothing was ever in it, or all is lost.
                self.torn = fault.header.is_some();
                if !parted.is_first() || behind(tail, FRAMES_AT)?.watermark > Lsn(0) {
                    self.damage.push(parted.corruption(&fault));
                    self.is_stopped = true;
                }
                return Ok(());
            }
        };
        self.walk_from(parted, opening, depth)
    }

    fn walk_from(
        &mut self,
        parted: &Parted<'_>,
        opening: Opening,
        depth: Depth,
    ) -> Result<(), OpenError> {
        let tail = parted.tail;
        let sequence = tail[0].header.sequence;
        let mut catalog = Catalog::restore(sequence, opening.checkpoint.clone());
        self.gather_older(parted, &mut catalog)?;
        let attested = attested(parted, opening.clone())?;
        self.attested = attested;
        self.gathered = Gathered::new(catalog);
        self.gathered.follow_until = attested;
        let end = self.gathered.walk(tail, opening)?;
        // What a damaged body of the stream's own has freed only a later checkpoint tells.
        let is_freed_unknown = self.gathered.damage.iter().any(|damage| damage.log.is_none());
        self.is_stopped |= is_freed_unknown;
        self.is_partial |= is_freed_unknown;
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

    fn take_end(&mut self, parted: &Parted<'_>, end: End, attested: Lsn) -> Result<(), OpenError> {
        let tail = parted.tail;
        let (number, offset) = end.resume();
        let behind = behind(&tail[number..], offset)?;
        if end.lsn < attested {
            self.damage.push(tail[end.fault_number].corruption(&end.fault));
            self.fault = Some((parted.older.len() + end.fault_number, end.fault.clone()));
            self.is_stopped = true;
            self.is_partial = true;
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

    /// Segments that are not there although nothing has freed them are damage, and so are live entries that none holds.
    fn find_missing(&mut self) {
        let catalog = &self.gathered.catalog;
        let live = catalog.segments.numbers();
        // What is there and damaged was told already.
        let damaged = self.damage.iter().filter_map(|found| sequence_of(&found.segment));
        let there = self.files.iter().map(|file| file.header.sequence).chain(damaged);
        let lost = live.without(there);
        let missing = catalog.missing(&self.older.spans);
        // If they are all of one.
        let term = missing.and_then(|Missing { log, first, last }| {
            let bounds = catalog.bounds(log);
            bounds.term(first).filter(|&term| bounds.term(last) == Some(term))
        });
        if let Some(corruption) = self.older.damage(live) {
            // Where its frames end is not told by what follows it.
            self.is_stopped = true;
            self.damage.extend(self.damage.is_empty().then(|| corruption.clone()));
        }
        if self.is_partial {
            return;
        }
        let entries = missing.map(|missing| (missing, term));
        // What else is damaged can be where the entries were, and so can another run.
        let is_only = self.damage.is_empty() && lost.runs_count() == 1;
        let of_run = entries.filter(|_| is_only);
        self.damage.extend(lost.runs().map(|run| missing_files(run, of_run)));
        if let (Some(entries), true) = (entries, self.damage.is_empty()) {
            let newest = self.files.last().expect("there is one");
            let what = "live entries that no segment holds".to_owned();
            self.damage.push(Corruption { what, ..missing_file(newest.name(), Some(entries)) });
        }
    }
}

/// Names of segments are all of one length.
fn place(corruption: &Corruption) -> (&str, u64) {
    (&corruption.segment, corruption.offset)
}

/// The files of a run of segments: one damage, for a checkpoint can speak of a million of them.
fn missing_files((first, last): (u64, u64), entries: Option<(Missing, Option<u64>)>) -> Corruption {
    let missing = missing_file(file_name(first), entries);
    if first == last {
        return missing;
    }
    let what = format!("missing files of the segments from this one to {}", file_name(last));
    Corruption { what, ..missing }
}

/// The file of a segment; with the `entries` that are missing, and their term, where it is known that they were in it.
fn missing_file(segment: String, entries: Option<(Missing, Option<u64>)>) -> Corruption {
    Corruption {
        segment,
        offset: 0,
        what: "missing file of a segment".to_owned(),
        log: entries.map(|(missing, _)| missing.log),
        indexes: entries.map(|(missing, _)| (missing.first, missing.last)),
        term: entries.and_then(|(_, term)| term),
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
