//! Opening a directory for writing.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use kontiki_disk::{Access, Directory, Disk};

use crate::{
    Corruption, Lsn, OpenError, Options,
    catalog::{Catalog, Missing},
    core::Core,
    frame::HEADER_BYTES,
    header::SegmentHeader,
    metrics::Metrics,
    mode::Mode,
    numbers::Numbers,
    recovery::{
        older::{Older, Parted, part},
        repair::{Repair, remove_one_by_one, sync, zero_trailer},
        scan::{Fault, SegmentFile, io_error},
        walk::{Behind, End, Gathered, behind},
    },
    repair::Mark,
    segment::{
        FIRST_SEQUENCE, PAGE_BYTES, Room, Segment, checkpoint_bytes_max, file_name, is_spare,
        is_temporary, sequence_of,
    },
    steps::prepare,
    stream::{self, Stream, Successor},
    sync::AtomicBool,
};

/// Opens or creates the log in `directory`.
pub(crate) fn open(options: &Options, path: &Path) -> Result<Core, OpenError> {
    let shown = path.display().to_string();
    let directory = lock(&*options.disk_or_real(), path)?;
    if !options.ignores_mark {
        Mark::check_finished(&*directory)?;
    }
    let listed = directory.list().map_err(|source| io_error("list", &shown, source))?;
    let names = || listed.iter().map(|(name, _)| name.as_str());
    let sequences: Vec<u64> = names().filter_map(sequence_of).collect();
    let files = open_files(&*directory, &sequences)?;
    if let (Some(file), Some(owner)) = (files.first(), options.owner)
        && file.header.owner != owner
    {
        return Err(OpenError::OtherOwner { directory: shown, found: file.header.owner });
    }
    let examined = if files.is_empty() { None } else { Some(examine(options, &files)?) };
    // Nothing was changed up to here. What waited to be used again is not trusted to be what it was.
    for name in names().filter(|name| is_temporary(name) || is_spare(name)) {
        directory.remove(name).map_err(|source| io_error("remove", name, source))?;
    }
    let (leftovers, catalog, stream) = match examined {
        Some(mut examined) => {
            let leftovers = std::mem::take(&mut examined.leftovers);
            let (catalog, stream) = examined.repair(options, &*directory)?;
            (leftovers, catalog, stream)
        }
        None => {
            let (catalog, stream) = create(options, &*directory)?;
            (Vec::new(), catalog, stream)
        }
    };
    let (segments, bytes) = (stream.segments().len(), stream.segments_bytes());
    let opened = directory.path().display();
    tracing::info!(directory = %opened, lsn = stream.durable().0, segments, bytes, "opened");
    let mut core = Core::new(directory, options, catalog, stream, Mode::Open);
    let state = core.state.get_mut();
    state.leftovers = leftovers.into_iter().map(file_name).collect();
    core.metrics = Metrics::new(core.directory.path(), state);
    Ok(core)
}

/// Opens a directory for changes, with the lock of its one writer.
pub(crate) fn lock(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn Directory>, OpenError> {
    let directory = path.display().to_string();
    disk.open_directory(path, Access::Write).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => {
            let holder = disk.open_directory(path, Access::Read).ok();
            let holder = holder.and_then(|directory| directory.lock_holder());
            OpenError::Locked { directory, holder }
        }
        _ => io_error("open", &directory, source),
    })
}

/// What an opening would make of these files, the segments of one log, after its repair; nothing is changed.
pub(crate) fn judge(files: &[SegmentFile]) -> Result<Catalog, OpenError> {
    let segment_bytes = files.iter().map(|file| file.header.segment_bytes).max().unwrap_or(0);
    let options = Options::new().segment_bytes(segment_bytes);
    examine(&options, files).map(|examined| examined.gathered.catalog)
}

/// What the files hold, before anything was changed.
struct Examined {
    /// Numbers of the segments that were freed: a power cut undid their removal.
    leftovers: Vec<u64>,
    older: Older,
    /// The files that were walked, and those behind them.
    tail: Vec<SegmentFile>,
    gathered: Gathered,
    end: End,
    behind: Behind,
    /// Everything below is durable for certain.
    attested: Lsn,
}

/// The headers of all segments, which must be of one log.
fn open_files(directory: &dyn Directory, sequences: &[u64]) -> Result<Vec<SegmentFile>, OpenError> {
    let mut files: Vec<SegmentFile> = Vec::with_capacity(sequences.len());
    for &sequence in sequences {
        let file = SegmentFile::open(directory, sequence)?;
        file.expect_log_of(files.first())?;
        files.push(file);
    }
    Ok(files)
}

/// Reads what has to be read and decides: torn or corrupt.
fn examine(options: &Options, files: &[SegmentFile]) -> Result<Examined, OpenError> {
    let (parted, beginning) = part(files)?;
    let tail = parted.tail;
    let sequence = tail[0].header.sequence;
    let (gathered, older, end) = match beginning {
        Ok(opening) => {
            let mut catalog = Catalog::restore(sequence, opening.checkpoint.clone());
            let older = gather_older(&parted, &mut catalog)?;
            let mut gathered = Gathered::new(catalog);
            let end = gathered.walk(tail, opening)?;
            (gathered, older, end)
        }
        Err(fault) if parted.is_first() => {
            (Gathered::new(Catalog::new(sequence)), Older::default(), End::nothing(fault))
        }
        Err(fault) => return Err(parted.corruption(&fault).into()),
    };
    let (number, offset) = end.resume();
    let behind = behind(&tail[number..], offset)?;
    let attested = end.watermark.max(behind.watermark).max(parted.sealed_end());
    if end.lsn < attested {
        return Err(tail[end.fault_number].corruption(&end.fault).into());
    }
    let live = gathered.catalog.segments.numbers();
    if let Some(corruption) = older.damage(live).or(gathered.damage.first()) {
        return Err(corruption.clone().into());
    }
    expect_all(live, files, &gathered.catalog, &older)?;
    if gathered.catalog.checkpoint_bytes() > checkpoint_bytes_max(options.segment_bytes) {
        let reason = "too small for the checkpoint of the logs in the directory";
        return Err(OpenError::Options { option: "segment_bytes", reason });
    }
    let numbers = files[..parted.older.len() + end.number].iter().map(|file| file.header.sequence);
    let leftovers = numbers.filter(|&number| !live.contains(number)).collect();
    Ok(Examined { leftovers, older, tail: tail.to_vec(), gathered, end, behind, attested })
}

/// What the segments before the tail hold, of those that its checkpoint speaks of.
fn gather_older(parted: &Parted<'_>, catalog: &mut Catalog) -> Result<Older, OpenError> {
    let live = catalog.segments.numbers();
    let mut older = Older::default();
    for (file, next) in parted.older_and_next() {
        if live.contains(file.header.sequence) {
            older.gather(file, next)?;
        }
    }
    older.attach(catalog);
    Ok(older)
}

/// Every segment that is not freed must be there, and hold what the logs say.
fn expect_all(
    live: &Numbers,
    files: &[SegmentFile],
    catalog: &Catalog,
    older: &Older,
) -> Result<(), OpenError> {
    let lost = live.without(files.iter().map(|file| file.header.sequence));
    let missing = catalog.missing(&older.spans);
    if let Some((first, last)) = lost.runs().next() {
        // Which of several files held an entry is known to nobody.
        let is_only = first == last && lost.runs_count() == 1;
        let needed_by = match missing.filter(|_| is_only) {
            Some(Missing { log, first, last }) if first == last => {
                format!("index {first} of log {}", log.0)
            }
            Some(Missing { log, first, last }) => {
                format!("index {first}..={last} of log {}", log.0)
            }
            None => "the log, which has not freed it,".to_owned(),
        };
        return Err(OpenError::MissingSegment { missing: file_name(first), needed_by });
    }
    let Some(missing) = missing else { return Ok(()) };
    let newest = files.last().expect("a log has a segment");
    let fault = Fault {
        offset: newest.header.segment_bytes - PAGE_BYTES,
        what: "the entries of a log in the indexes of its segments",
        expected: missing.first,
        found: 0,
        header: None,
    };
    let corruption = newest.corruption(&fault);
    let indexes = Some((missing.first, missing.last));
    Err(Corruption { log: Some(missing.log), indexes, ..corruption }.into())
}

impl Examined {
    /// Repairs what an unclean stop left, and goes on at the end.
    fn repair(
        self,
        options: &Options,
        directory: &dyn Directory,
    ) -> Result<(Catalog, Stream), OpenError> {
        let later = self.tail.len() - self.end.number - 1;
        let closed = self.end.last.as_ref().filter(|last| last.header.closed).cloned();
        // A trailer in front of which the log goes on has rotted, and may not be there when it does.
        let was_sealed = self.end.is_sealed || self.tail[self.end.number].was_sealed;
        let nothing_behind = self.behind.headers == 0 && later <= 1 && !was_sealed;
        let clean = closed.filter(|_| nothing_behind);
        let next = self.tail.get(self.end.number + 1).filter(|_| clean.is_some());
        let fits = |file: &&SegmentFile| file.header.segment_bytes == options.segment_bytes;
        let successor = next
            .filter(fits)
            .map(|file| Successor { header: file.header.clone(), file: Arc::clone(&file.file) });
        match next.filter(|file| !fits(file)) {
            _ if clean.is_none() => self.run_repair(directory)?,
            // The names can be in the cache only, and so can be that one is gone.
            None => sync(directory)?,
            Some(other) => {
                // A trailer that an opening before this one has zeroed, and did not get synced, would tell of the one that goes.
                zero_trailer(&self.tail[self.end.number])?;
                remove_one_by_one(directory, [other.name()].into_iter())?;
            }
        }
        let mark =
            clean.map(|mark| mark.header.encode(self.tail[self.end.number].salt, mark.offset));
        let (catalog, mut stream) = self.go_on(options, mark)?;
        if successor.is_some() {
            stream.successor = successor;
        }
        Ok((catalog, stream))
    }

    /// The stream from the end on; with the `mark` of a clean close as its first bytes.
    fn go_on(
        mut self,
        options: &Options,
        mark: Option<[u8; 48]>,
    ) -> Result<(Catalog, Stream), OpenError> {
        let active = &self.tail[self.end.number];
        let header = active.header.clone();
        let Some(last) = &self.end.last else {
            let file = Arc::clone(&active.file);
            return begin(options, header, file);
        };
        let room = Room {
            segment_bytes: header.segment_bytes,
            offset: self.end.offset,
            index_bytes: self.end.index_bytes,
        };
        let (attested, changed) = (self.end.watermark, self.end.changed);
        let (last_crc, closed) = (last.crc, last.header.closed);
        let nonce = draw_nonce(options)?;
        let end = stream::End { nonce, room, last_crc, attested, changed, closed, mark };
        self.publish(end.mark.is_some());
        let segments = self.older.segments.drain(..).chain(self.gathered.segments.drain(..));
        // Any of them can be freed by a frame behind it.
        let live = self.gathered.catalog.segments.numbers();
        let segments = segments.filter(|segment| live.contains(segment.sequence));
        let segments: BTreeMap<u64, Segment> =
            segments.map(|segment| (segment.sequence, segment)).collect();
        let mut stream = Stream::new(&header, options.segment_bytes, segments, end);
        let mut catalog = self.gathered.catalog;
        catalog.opened_at(self.end.lsn);
        if self.end.is_sealed {
            // The next segment has its name, as the trailer promises; it is begun anew.
            let next = &self.tail[self.end.number + 1];
            let (header, file) = (next.header.clone(), Arc::clone(&next.file));
            stream.successor = Some(Successor { header, file });
            stream.rotate(&catalog.checkpoint());
            catalog.open_segment(stream.active);
        }
        Ok((catalog, stream))
    }

    fn run_repair(&self, directory: &dyn Directory) -> Result<(), OpenError> {
        let (end, tail) = (&self.end, &self.tail);
        let (number, offset) = end.resume();
        tracing::warn!(
            directory = %directory.path().display(),
            lsn = end.lsn.0,
            segment = tail[number].name(),
            offset,
            bytes_cut = self.behind.frames_end.saturating_sub(offset),
            headers_cut = self.behind.headers,
            segments_cut = tail.len() - number - 1,
            "repairing after an unclean stop"
        );
        let (segments, behind) = (&self.gathered.segments[..], &self.behind);
        Repair { directory, tail, segments, end, behind, attested: self.attested }.run()
    }

    /// Everything that was walked may be read, but for the mark of a close, which is written again; of sealed segments
    /// their indexes, too.
    fn publish(&self, with_mark: bool) {
        for segment in &self.older.segments {
            let frames_end = segment.last.map_or(0, |last| last.frames_end);
            segment.file.publish(segment.trailer.map_or(frames_end, |_| segment.index_end()));
        }
        for segment in &self.gathered.segments {
            let mark = if with_mark { HEADER_BYTES } else { 0 };
            let end = segment.last.map_or(self.end.offset - mark, |last| last.frames_end);
            segment.file.publish(end);
        }
    }
}

/// Makes the first segment of a log: a small one, so that a new log takes milliseconds and little space though it is
/// filled with zeros like any other.
fn create(options: &Options, directory: &dyn Directory) -> Result<(Catalog, Stream), OpenError> {
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

/// A log without a frame: the first two wait for the first group.
fn begin(
    options: &Options,
    header: SegmentHeader,
    file: Arc<dyn kontiki_disk::File>,
) -> Result<(Catalog, Stream), OpenError> {
    let segment = Segment::new(&header, Lsn(0), file);
    let segments = BTreeMap::from([(segment.sequence, segment)]);
    let room = Room::empty(header.segment_bytes);
    let (attested, changed) = (Lsn(0), Lsn(0));
    let nonce = draw_nonce(options)?;
    let end =
        stream::End { nonce, room, last_crc: 0, attested, changed, closed: false, mark: None };
    let mut catalog = Catalog::empty();
    let mut stream = Stream::new(&header, options.segment_bytes, segments, end);
    stream.push_opening(0, &catalog.checkpoint());
    catalog.open_segment(header.sequence);
    Ok((catalog, stream))
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
