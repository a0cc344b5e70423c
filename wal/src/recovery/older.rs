//! The segments before those that are walked: their trailers tell that they are durable, their indexes what they hold.

use std::{collections::BTreeMap, slice, sync::Arc};

use crate::{
    Corruption, Lsn, OpenError,
    catalog::Catalog,
    frame::HEADER_BYTES,
    index::{self, FrameIndex, Span},
    numbers::Numbers,
    recovery::{
        scan::{Fault, SegmentFile, Window, io_error},
        walk::{Expected, Gathered, Opening, base, behind, read_opening},
    },
    segment::{FIRST_SEQUENCE, FRAMES_AT, Last, PAGE_BYTES, Segment, file_name},
    trailer::Trailer,
};

/// The files of a log, parted by what opening does with them.
#[derive(Clone, Debug)]
pub(crate) struct Parted<'a> {
    /// Those that are not walked.
    pub(crate) older: &'a [SegmentFile],
    /// Those that are: their numbers follow each other up to the newest.
    pub(crate) tail: &'a [SegmentFile],
}

/// The two frames with which the tail begins, or what is wrong with them.
pub(crate) type Beginning = Result<Opening, Fault>;

/// What the older segments hold.
#[derive(Debug, Default)]
pub(crate) struct Older {
    pub(crate) segments: Vec<Segment>,
    /// What the logs have in each.
    pub(crate) spans: BTreeMap<u64, Vec<Span>>,
    /// Frames of those that have no index in their file.
    frames: BTreeMap<u64, FrameIndex>,
    /// Those that were durable and are damaged; a later frame may still say that they are freed.
    damaged: BTreeMap<u64, Corruption>,
}

/// Parts the files at the newest sealed segment: everything up to its end is durable. If what follows it does not begin as
/// it should, the sealed one is walked, too.
///
/// How the tail begins is judged by one read: what a failed sync has left in the page cache can leave it, and then the next read
/// says something else.
pub(crate) fn part(files: &[SegmentFile]) -> Result<(Parted<'_>, Beginning), OpenError> {
    if let Some(last) = files.last().filter(|last| last.was_sealed && last.trailer.is_none()) {
        let needed_by = format!("the trailer of {}, which is damaged,", last.name());
        return Err(OpenError::MissingSegment { missing: last.next_name(), needed_by });
    }
    if let Some(last) = files.last()
        && is_orphan(files)?
    {
        let needed_by = format!("{}, prepared to follow on it,", last.name());
        let missing = file_name(last.header.sequence - 1);
        return Err(OpenError::MissingSegment { missing, needed_by });
    }
    let last_run = files.chunk_by(|a, b| a.header.sequence + 1 == b.header.sequence).next_back();
    let first = files.len() - last_run.map_or(0, <[SegmentFile]>::len);
    let sealed = files[first..].iter().rposition(|file| file.trailer.is_some());
    let Some(sealed) = sealed.map(|number| first + number) else {
        return Parted::read(files, first);
    };
    let trailer = files[sealed].trailer.as_ref().expect("a sealed segment");
    let expected =
        Expected { base: trailer.end(), previous: trailer.sequence, link: trailer.last_crc };
    let Some(next) = files.get(sealed + 1) else {
        // A trailer is written when the next segment has its name, for good.
        return Err(OpenError::MissingSegment {
            missing: files[sealed].next_name(),
            needed_by: format!("the trailer of {}", files[sealed].name()),
        });
    };
    let Ok(opening) = read_opening(next, Some(expected))? else {
        return Parted::read(files, sealed);
    };
    let (older, tail) = files.split_at(sealed + 1);
    Ok((Parted { older, tail }, Ok(opening)))
}

/// Nothing was ever written into the newest of `files`, and of those before it the one next to it alone is not there: it took
/// frames, and only one behind it could have freed it. Where older ones are gone, too, they can have been freed by frames that
/// rotted here; and old bytes of a file that is used again are not told from rot.
pub(crate) fn is_orphan(files: &[SegmentFile]) -> Result<bool, OpenError> {
    let [.., older, last] = files else { return Ok(false) };
    if older.header.sequence + 2 != last.header.sequence || last.was_sealed {
        return Ok(false);
    }
    let begin = FRAMES_AT..FRAMES_AT + HEADER_BYTES;
    let is_zero = Window::in_steps(last, PAGE_BYTES).bytes(begin)?.iter().all(|&byte| byte == 0);
    Ok(is_zero && behind(slice::from_ref(last), FRAMES_AT)?.headers == 0)
}

impl<'a> Parted<'a> {
    /// The first `older` of the files are not walked.
    pub(crate) fn read(
        files: &'a [SegmentFile],
        older: usize,
    ) -> Result<(Self, Beginning), OpenError> {
        let (older, tail) = files.split_at(older);
        Ok((Self { older, tail }, read_opening(&tail[0], None)?))
    }

    /// The segments that are not walked, each with the next one.
    pub(crate) fn older_and_next(&self) -> impl Iterator<Item = (&SegmentFile, &SegmentFile)> {
        self.older.iter().zip(self.older.iter().chain(self.tail).skip(1))
    }

    /// Everything below was durable, as a trailer says.
    pub(crate) fn sealed_end(&self) -> Lsn {
        let trailers = self.older.iter().chain(self.tail).filter_map(|file| file.trailer.as_ref());
        trailers.map(Trailer::end).max().unwrap_or(Lsn(0))
    }

    /// The newest segment is the first of the log, or can be: without its first frames it is begun anew.
    pub(crate) fn is_first(&self) -> bool {
        self.older.is_empty() && self.tail[0].header.sequence == FIRST_SEQUENCE
    }

    /// What is wrong with the beginning of the tail. If the segment before it is not there, either of the two can be what
    /// somebody has to look for: rot here, or a file that was lost.
    pub(crate) fn corruption(&self, fault: &Fault) -> Corruption {
        let mut corruption = self.tail[0].corruption(fault);
        let before = self.tail[0].header.sequence - 1;
        let is_there = self.older.last().is_some_and(|file| file.header.sequence == before);
        if before >= FIRST_SEQUENCE && !is_there {
            corruption.what.push_str(&format!("; {}, before it, is not there", file_name(before)));
        }
        corruption
    }
}

impl Older {
    /// Takes in one of the segments that a checkpoint speaks of.
    pub(crate) fn gather(
        &mut self,
        file: &SegmentFile,
        next: &SegmentFile,
    ) -> Result<(), OpenError> {
        let sequence = file.header.sequence;
        if let Some(trailer) = file.trailer
            && let Some(spans) = read_table(file, &trailer)?
        {
            let mut segment = Segment::new(&file.header, trailer.base, Arc::clone(&file.file));
            segment.last = Some(Last { frames_end: trailer.frames_end, crc: trailer.last_crc });
            segment.trailer = Some(trailer);
            self.segments.push(segment);
            self.spans.insert(sequence, spans);
            return Ok(());
        }
        // Not sealed in time, or the index is damaged: the frames tell the same.
        let (segment, frames) = match scan(file, next)? {
            Ok(scanned) => scanned,
            Err(fault) => {
                self.damaged.insert(sequence, file.corruption(&fault));
                return Ok(());
            }
        };
        self.segments.push(segment);
        self.spans.insert(sequence, frames.spans().collect());
        self.frames.insert(sequence, frames);
        Ok(())
    }

    /// Tells the catalog.
    pub(crate) fn attach(&mut self, catalog: &mut Catalog) {
        for (&sequence, spans) in &self.spans {
            catalog.attach(sequence, spans, self.frames.remove(&sequence));
        }
    }

    /// Damage in one of those that are not freed.
    pub(crate) fn damage(&self, live: &Numbers) -> Option<&Corruption> {
        self.damaged.iter().find(|(sequence, _)| live.contains(**sequence)).map(|(_, found)| found)
    }

    /// Keeps those that no later frame has freed.
    pub(crate) fn retain(&mut self, live: &Numbers) {
        self.segments.retain(|segment| live.contains(segment.sequence));
    }
}

/// The table of logs of a sealed segment's index, if it is whole.
fn read_table(file: &SegmentFile, trailer: &Trailer) -> Result<Option<Vec<Span>>, OpenError> {
    let length = usize::try_from(trailer.table_bytes()).expect("bounded by the segment");
    let mut table = vec![0; length];
    let read = file.file.read_at(trailer.index_at(file.header.segment_bytes), &mut table);
    read.map_err(|source| io_error("read", &file.name(), source))?;
    let whole = crc32fast::hash(&table) == trailer.table_crc;
    Ok(whole.then(|| index::spans(&table)).flatten())
}

/// Walks a segment that others follow, up to where the next one begins.
fn scan(
    file: &SegmentFile,
    next: &SegmentFile,
) -> Result<Result<(Segment, FrameIndex), Fault>, OpenError> {
    let page = file.header.segment_bytes - PAGE_BYTES;
    let no_trailer = Fault { offset: page, what: "a trailer", expected: 0, found: 0, header: None };
    let follows = next.header.sequence == file.header.sequence + 1;
    let end = match file.trailer {
        Some(trailer) => Some(trailer.end()),
        None if follows => base(next, None)?,
        None => None,
    };
    // Whether its last frames are all there nobody can say.
    let Some(end) = end else { return Ok(Err(no_trailer)) };
    let opening = match read_opening(file, None)? {
        Ok(opening) => opening,
        Err(fault) => return Ok(Err(fault)),
    };
    let catalog = Catalog::restore(file.header.sequence, opening.checkpoint.clone());
    let mut gathered = Gathered::new(catalog);
    let walked = gathered.walk(slice::from_ref(file), opening)?;
    if walked.lsn != end {
        return Ok(Err(walked.fault));
    }
    let mut segment = gathered.segments.remove(0);
    let crc = walked.last.expect("a segment that was walked has frames").crc;
    segment.last = Some(Last { frames_end: walked.offset, crc });
    Ok(Ok((segment, gathered.catalog.into_frames())))
}
