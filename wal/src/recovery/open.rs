//! Opening a directory for writing.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use kontiki_disk::{Access, Directory};

use crate::{
    Lsn, OpenError, Options,
    core::{Core, Mode},
    frame::HEADER_BYTES,
    header::SegmentHeader,
    recovery::{
        repair::Repair,
        scan::{SegmentFile, io_error},
        walk::{Behind, End, Gathered, behind},
    },
    segment::{
        FIRST_SEQUENCE, Room, Segment, checkpoint_bytes_max, file_name, is_temporary, sequence_of,
    },
    steps::prepare,
    stream::{self, Stream, Successor},
};

/// Opens or creates the log in `directory`.
pub(crate) fn open(options: &Options, path: &Path) -> Result<Core, OpenError> {
    let shown = path.display().to_string();
    let directory = options.disk_or_real().open_directory(path, Access::Write);
    let directory = directory.map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { directory: shown.clone() },
        _ => io_error("open", &shown, source),
    })?;
    let listed = directory.list().map_err(|source| io_error("list", &shown, source))?;
    let sequences: Vec<u64> = listed.iter().filter_map(|(name, _)| sequence_of(name)).collect();
    let files = open_files(&*directory, &sequences)?;
    if let (Some(file), Some(owner)) = (files.first(), options.owner)
        && file.header.owner != owner
    {
        return Err(OpenError::OtherOwner { directory: shown, found: file.header.owner });
    }
    let opened = if files.is_empty() { None } else { Some(examine(options, &files)?) };
    // Nothing was changed up to here.
    for (name, _) in listed.iter().filter(|(name, _)| is_temporary(name)) {
        directory.remove(name).map_err(|source| io_error("remove", name, source))?;
    }
    let leftovers = opened.as_ref().map_or(Vec::new(), |opened| opened.leftovers.clone());
    let (gathered, stream) = match opened {
        Some(examined) => examined.repair(options, &*directory)?,
        None => create(options, &*directory)?,
    };
    tracing::info!(directory = %shown, durable = stream.durable().0, "opened");
    let max = options.unsynced_bytes_max;
    let mut core = Core::new(directory, max, gathered.catalog, stream, Mode::Open);
    core.state.get_mut().leftovers = leftovers;
    Ok(core)
}

/// What the files hold, before anything was changed.
struct Examined {
    /// Numbers of the segments before a gap.
    leftovers: Vec<u64>,
    tail: Vec<SegmentFile>,
    gathered: Gathered,
    end: End,
    behind: Behind,
}

/// The headers of all segments, which must be of one log.
fn open_files(directory: &dyn Directory, sequences: &[u64]) -> Result<Vec<SegmentFile>, OpenError> {
    let mut files: Vec<SegmentFile> = Vec::with_capacity(sequences.len());
    for &sequence in sequences {
        let file = SegmentFile::open(directory, sequence)?;
        if let Some(first) = files.first()
            && first.header.uuid != file.header.uuid
        {
            return Err(OpenError::OtherLog { segment: file.name(), other: first.name() });
        }
        files.push(file);
    }
    Ok(files)
}

/// Reads everything and decides: torn or corrupt.
fn examine(options: &Options, files: &[SegmentFile]) -> Result<Examined, OpenError> {
    let mut runs: Vec<&[SegmentFile]> =
        files.chunk_by(|a, b| a.header.sequence + 1 == b.header.sequence).collect();
    let tail = runs.pop().expect("there is a segment");
    // Segments are freed from the oldest on, so those before a gap are what is left of removals that a power cut undid.
    // Nothing in them is live. Should it be (the gap was made by hand), then its index is found missing below: what they
    // say of an index can be older than what the missing segment said.
    let leftovers = runs.into_iter().flatten().map(|file| file.header.sequence).collect();
    let mut gathered = Gathered::new();
    let end = gathered.walk(tail)?.map_err(|fault| tail[0].corruption(&fault))?;
    let behind = behind(&tail[end.number..], end.offset)?;
    if end.lsn < end.watermark.max(behind.watermark) {
        return Err(tail[end.fault_number].corruption(&end.fault).into());
    }
    let locations = std::mem::take(&mut gathered.locations);
    if let Some(missing) = gathered.catalog.missing(&locations) {
        return Err(OpenError::MissingSegment {
            missing: file_name(missing.segment(tail[0].header.sequence)),
            needed_by: format!("index {} of log {}", missing.index, missing.log.0),
        });
    }
    gathered.catalog.attach(locations);
    if gathered.catalog.checkpoint_bytes() > checkpoint_bytes_max(options.segment_bytes) {
        let reason = "too small for the checkpoint of the logs in the directory";
        return Err(OpenError::Options { option: "segment_bytes", reason });
    }
    Ok(Examined { leftovers, tail: tail.to_vec(), gathered, end, behind })
}

impl Examined {
    /// Repairs what an unclean stop left, and goes on at the end.
    fn repair(
        self,
        options: &Options,
        directory: &dyn Directory,
    ) -> Result<(Gathered, Stream), OpenError> {
        let later = self.tail.len() - self.end.number - 1;
        let closed = self.end.last.as_ref().filter(|last| last.header.closed).cloned();
        let clean = closed.filter(|_| self.behind.headers == 0 && later <= 1);
        if clean.is_none() {
            self.run_repair(directory)?;
        }
        let successor = match self.tail.get(self.end.number + 1).filter(|_| clean.is_some()) {
            Some(file) => take_over(options, directory, file)?,
            None => None,
        };
        let mark = clean.map(|mark| {
            let salt = self.gathered.segments[self.end.number].salt;
            mark.header.encode(salt, mark.offset)
        });
        let (gathered, mut stream) = self.go_on(options, mark)?;
        stream.successor = successor;
        Ok((gathered, stream))
    }

    /// The stream from the end on; with the `mark` of a clean close as its first bytes.
    fn go_on(
        mut self,
        options: &Options,
        mark: Option<[u8; 48]>,
    ) -> Result<(Gathered, Stream), OpenError> {
        let active = &self.tail[self.end.number];
        let header = active.header.clone();
        let Some(last) = &self.end.last else {
            let file = Arc::clone(&active.file);
            return begin(options, header, file);
        };
        let room = Room {
            segment_bytes: header.segment_bytes,
            offset: self.end.offset,
            frames: self.end.frames,
        };
        let (attested, changed) = (self.end.watermark, self.end.changed);
        let (last_crc, closed) = (last.crc, last.header.closed);
        let nonce = draw_nonce(options)?;
        let end = stream::End { nonce, room, last_crc, attested, changed, closed, mark };
        self.publish(end.mark.is_some());
        let segments = self.gathered.segments.drain(..);
        let segments: BTreeMap<u64, Segment> =
            segments.map(|segment| (segment.sequence, segment)).collect();
        let stream = Stream::new(&header, options.segment_bytes, segments, end);
        Ok((self.gathered, stream))
    }

    fn run_repair(&self, directory: &dyn Directory) -> Result<(), OpenError> {
        let (end, tail) = (&self.end, &self.tail);
        tracing::warn!(
            segment = tail[end.number].name(),
            offset = end.offset,
            headers_cut = self.behind.headers,
            segments_cut = tail.len() - end.number - 1,
            "repairing after an unclean stop"
        );
        let attested = end.watermark.max(self.behind.watermark);
        let (segments, behind) = (&self.gathered.segments[..], &self.behind);
        Repair { directory, tail, segments, end, behind, attested }.run()
    }

    /// Everything that was walked may be read, but for the mark of a close, which is written again.
    fn publish(&self, with_mark: bool) {
        for (number, segment) in self.gathered.segments.iter().enumerate() {
            let last = number + 1 == self.gathered.segments.len();
            let end =
                if last && with_mark { self.end.offset - HEADER_BYTES } else { self.end.offset };
            let end = if last { end } else { segment.bytes };
            segment.file.publish(end);
        }
    }
}

/// The prepared segment of the process before, if it has the size that this one promises room for.
fn take_over(
    options: &Options,
    directory: &dyn Directory,
    file: &SegmentFile,
) -> Result<Option<Successor>, OpenError> {
    let fits = file.header.segment_bytes == options.segment_bytes;
    if !fits {
        let name = file.name();
        directory.remove(&name).map_err(|source| io_error("remove", &name, source))?;
    }
    // Its name, or that it is gone, can be in the cache only.
    sync(directory)?;
    Ok(fits.then(|| Successor { header: file.header.clone(), file: Arc::clone(&file.file) }))
}

/// Makes the first segment of a log: a small one, so that a new log takes milliseconds and little space though it is
/// filled with zeros like any other.
fn create(options: &Options, directory: &dyn Directory) -> Result<(Gathered, Stream), OpenError> {
    let uuid = match options.uuid {
        Some(uuid) => uuid,
        None => draw_uuid()?,
    };
    let header = SegmentHeader {
        uuid,
        sequence: FIRST_SEQUENCE,
        segment_bytes: options.segment_bytes.min(FIRST_SEGMENT_BYTES_MAX),
        owner: options.owner.unwrap_or_default(),
    };
    let name = file_name(FIRST_SEQUENCE);
    let file = prepare(directory, &header, &AtomicBool::new(false))
        .map_err(|source| io_error("create", &name, source))?;
    sync(directory)?;
    begin(options, header, file)
}

fn sync(directory: &dyn Directory) -> Result<(), OpenError> {
    let path = directory.path().display().to_string();
    directory.sync().map_err(|source| io_error("sync", &path, source))
}

/// A log without a frame: the first two wait for the first group.
fn begin(
    options: &Options,
    header: SegmentHeader,
    file: Arc<dyn kontiki_disk::File>,
) -> Result<(Gathered, Stream), OpenError> {
    let segment = Segment::new(&header, Lsn(0), file);
    let segments = BTreeMap::from([(segment.sequence, segment)]);
    let room = Room::empty(header.segment_bytes);
    let (attested, changed) = (Lsn(0), Lsn(0));
    let nonce = draw_nonce(options)?;
    let end =
        stream::End { nonce, room, last_crc: 0, attested, changed, closed: false, mark: None };
    let gathered = Gathered::new();
    let mut stream = Stream::new(&header, options.segment_bytes, segments, end);
    stream.push_opening(0, &gathered.catalog.checkpoint());
    Ok((gathered, stream))
}

fn draw_uuid() -> Result<[u8; 16], OpenError> {
    let mut uuid = [0; 16];
    draw(&mut uuid)?;
    Ok(uuid)
}

fn draw_nonce(options: &Options) -> Result<u64, OpenError> {
    let mut nonce = [0; 8];
    match options.nonce {
        Some(nonce) => return Ok(nonce),
        None => draw(&mut nonce)?,
    }
    Ok(u64::from_le_bytes(nonce))
}

fn draw(bytes: &mut [u8]) -> Result<(), OpenError> {
    getrandom::fill(bytes).map_err(|error| {
        io_error("draw random bytes for", "a log", io::Error::other(error.to_string()))
    })
}

const FIRST_SEGMENT_BYTES_MAX: u64 = 4 << 20;
