//! Opening a directory for reading: no lock, no change, and as much as can be shown.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use kontiki_disk::{Access, Directory};

use crate::{
    Corruption, Lsn, OpenError, Options,
    core::{Core, Mode},
    header::SegmentHeader,
    recovery::{
        scan::{Fault, SegmentFile, io_error},
        walk::{Gathered, behind},
    },
    segment::{FRAMES_AT, Room, Segment, file_name, sequence_of},
    stream::{self, Stream},
};

/// Everything that could be read, at one look.
#[derive(Debug)]
pub(crate) struct Look {
    /// Segments whose header page is whole, up to the first where it is not.
    pub(crate) files: Vec<SegmentFile>,
    pub(crate) gathered: Gathered,
    /// Where whole frames end, as the number of one of `files` and an offset; `None` without a frame.
    pub(crate) end: Option<(usize, u64)>,
    pub(crate) end_lsn: Lsn,
    /// The last frame is the mark of a close, and nothing follows it.
    pub(crate) closed: bool,
    /// Something that was written lies behind the end.
    pub(crate) torn: bool,
    /// What is damaged although it was durable.
    pub(crate) damage: Vec<Corruption>,
    frames: u64,
    last_crc: u32,
}

/// Opens what is in `path` for reading, and what is damaged in it.
pub(crate) fn open_read_only(
    options: &Options,
    path: &Path,
) -> Result<(Core, Vec<Corruption>), OpenError> {
    let shown = path.display().to_string();
    let directory = options.disk_or_real().open_directory(path, Access::Read);
    let directory = directory.map_err(|source| io_error("open", &shown, source))?;
    let mut look = settle(&*directory)?;
    let locations = std::mem::take(&mut look.gathered.locations);
    look.gathered.catalog.drop_missing(&locations);
    look.gathered.catalog.attach(locations);
    let header = match look.files.first() {
        Some(file) => file.header.clone(),
        None => return Err(no_log(&shown, &look.damage)),
    };
    let stream = stream(&header, &mut look);
    let core = Core::new(directory, 1, look.gathered.catalog, stream, Mode::ReadOnly);
    Ok((core, look.damage))
}

/// Looks until what it sees stands still: a writer at work is no damage.
pub(crate) fn settle(directory: &dyn Directory) -> Result<Look, OpenError> {
    let mut before: Option<Look> = None;
    for _ in 0..LOOKS_MAX {
        let look = match look(directory) {
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

fn look(directory: &dyn Directory) -> Result<Look, OpenError> {
    let shown = directory.path().display().to_string();
    let listed = directory.list().map_err(|source| io_error("list", &shown, source))?;
    let sequences = listed.iter().filter_map(|(name, _)| sequence_of(name));
    let mut files: Vec<SegmentFile> = Vec::new();
    let mut damage = Vec::new();
    for sequence in sequences {
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
    Look::at(files, damage)
}

impl Look {
    fn at(files: Vec<SegmentFile>, damage: Vec<Corruption>) -> Result<Self, OpenError> {
        let gathered = Gathered::new();
        let mut look = Self {
            files,
            gathered,
            end: None,
            end_lsn: Lsn(0),
            closed: false,
            torn: false,
            damage,
            frames: 0,
            last_crc: 0,
        };
        let files = look.files.clone();
        let mut runs: Vec<&[SegmentFile]> =
            files.chunk_by(|a, b| a.header.sequence + 1 == b.header.sequence).collect();
        let Some(tail) = runs.pop() else { return Ok(look) };
        // Nothing that lies before a gap is live; see `open`.
        look.walk_tail(tail, files.len() - tail.len())?;
        look.damage.append(&mut look.gathered.damage);
        look.find_missing(tail[0].header.sequence);
        Ok(look)
    }

    /// Live entries in a segment that is not there are damage, too.
    fn find_missing(&mut self, first: u64) {
        let Some(missing) = self.gathered.catalog.missing(&self.gathered.locations) else { return };
        let term = self.gathered.catalog.bounds(missing.log).term(missing.index);
        self.damage.push(Corruption {
            segment: file_name(missing.segment(first)),
            offset: 0,
            what: "the file of a segment".to_owned(),
            log: Some(missing.log),
            indexes: Some((missing.index, missing.index)),
            term,
            expected: 1,
            found: 0,
        });
    }

    fn walk_tail(&mut self, tail: &[SegmentFile], number: usize) -> Result<(), OpenError> {
        let attested = match attested(tail)? {
            Ok(attested) => attested,
            Err(fault) => {
                self.damage.push(tail[0].corruption(&fault));
                return Ok(());
            }
        };
        self.gathered.follow_until = attested;
        let end = self.gathered.walk(tail)?.expect("it was walked before");
        let behind = behind(&tail[end.number..], end.offset)?;
        if end.lsn < attested {
            self.damage.push(tail[end.fault_number].corruption(&end.fault));
        }
        let later = tail.len() - end.number - 1;
        self.torn = behind.headers > 0 || end.fault.header.is_some();
        self.closed =
            end.last.as_ref().is_some_and(|last| last.header.closed) && !self.torn && later <= 1;
        self.end = Some((number + end.number, end.offset));
        self.end_lsn = end.lsn;
        self.frames = end.frames;
        self.last_crc = end.last.map_or(0, |last| last.crc);
        Ok(())
    }
}

/// The largest LSN below which everything was durable, or why not even the first segment begins.
fn attested(tail: &[SegmentFile]) -> Result<Result<Lsn, Fault>, OpenError> {
    let end = match Gathered::new().walk(tail)? {
        Ok(end) => end,
        Err(fault) => return Ok(Err(fault)),
    };
    let behind = behind(&tail[end.number..], end.offset)?;
    Ok(Ok(end.watermark.max(behind.watermark)))
}

fn stream(header: &SegmentHeader, look: &mut Look) -> Stream {
    let mut segments: BTreeMap<u64, Segment> =
        look.gathered.segments.drain(..).map(|segment| (segment.sequence, segment)).collect();
    if segments.is_empty() {
        let file = &look.files[0];
        let segment = Segment::new(&file.header, Lsn(0), Arc::clone(&file.file));
        segments.insert(segment.sequence, segment);
    }
    let offset = look.end.map_or(FRAMES_AT, |(_, offset)| offset);
    let segment_bytes = segments.last_key_value().map_or(0, |(_, segment)| segment.bytes);
    let room = Room { segment_bytes, offset, frames: look.frames };
    let end = stream::End {
        nonce: 0,
        room,
        last_crc: look.last_crc,
        attested: look.end_lsn,
        changed: look.end_lsn,
        closed: false,
        mark: None,
    };
    Stream::new(header, header.segment_bytes, segments, end)
}

fn no_log(directory: &str, damage: &[Corruption]) -> OpenError {
    match damage.first() {
        Some(corruption) => OpenError::Corruption(corruption.clone()),
        None => {
            io_error("open", directory, io::Error::new(io::ErrorKind::NotFound, "no log is there"))
        }
    }
}

/// How often a live directory is looked at before it is given up.
const LOOKS_MAX: usize = 16;
