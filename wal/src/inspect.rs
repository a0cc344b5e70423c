//! Looking into a log's files frame by frame, without opening it: what `wal-inspect` stands on.
//! Takes no writer's lock and changes nothing; [`Scan::is_live`] shares the lock for a moment, which a starting writer waits for.

mod count;
pub(crate) mod live;
mod raw;
mod summary;
mod tail;

use std::{num::NonZeroUsize, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use kontiki_disk::{Access, Directory, Disk};

pub(crate) use self::live::Replaced;
use self::summary::{spares, without_page};
pub use self::{
    count::Counts,
    raw::{HeaderPage, RawFrame},
    summary::{SegmentSummary, Standing, Unread},
    tail::{Tail, Tailed},
};
use crate::{
    Corruption, LogId, Lsn, OpenError,
    catalog::Catalog,
    checkpoint::{self, Checkpoint},
    frame::{Header, entry_range},
    recovery::{
        Depth,
        scan::{Found, SegmentFile, Window, io_error},
        settle,
    },
    segment::{FRAMES_AT, lsn_at},
};
pub use crate::{
    bounds::Bounds,
    frame::{FrameKind, HEADER_BYTES},
};

/// One frame as it lies on disk.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Sequence number of its segment.
    pub segment: u64,
    /// File name of its segment.
    pub file: String,
    /// Where it begins in the file.
    pub offset: u64,
    /// Where it begins in the stream.
    pub lsn: Lsn,
    /// What it carries.
    pub kind: FrameKind,
    /// It is the mark of a clean close.
    pub closed: bool,
    /// The log it belongs to; 0 for the stream's own frames.
    pub log: LogId,
    /// What this means depends on the kind; see [`FrameKind`].
    pub first_index: u64,
    /// How many entries it holds.
    pub count: u16,
    /// Term of its entries, or of the entry before `first_index`.
    pub term: u64,
    /// Everything below was durable before this frame was written.
    pub durable_lsn: Lsn,
    /// Its length with header and padding.
    pub frame_bytes: u64,
    /// `Err` if the header is whole and the body is not.
    pub body: Result<Bytes, Corruption>,
}

impl Frame {
    /// The entries of a frame of entries, each with its index; none if its body is damaged.
    pub fn entries(&self) -> Vec<(u64, Bytes)> {
        let Ok(body) = &self.body else { return Vec::new() };
        if self.kind != FrameKind::Entries {
            return Vec::new();
        }
        let entry = |number| body.slice(entry_range(body, self.count, number));
        (0..self.count)
            .map(|number| (self.first_index.saturating_add(number.into()), entry(number)))
            .collect()
    }

    /// Bounds, terms and state of every log at this frame, if it is a checkpoint and not damaged.
    pub fn checkpoint(&self) -> impl Iterator<Item = (LogId, Bounds)> {
        let body = self.body.as_ref().ok().filter(|_| self.kind == FrameKind::Checkpoint);
        let decoded = body.and_then(checkpoint::decode);
        decoded.map(Checkpoint::into_logs).into_iter().flatten()
    }
}

/// How the log ends, and whether it is whole: the torn-or-corrupt rule, without the repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every frame up to `end` is whole and nothing of these segments' lives lies behind it.
    Whole {
        /// Where the next frame would lie.
        end: Lsn,
        /// The last frame is the mark of a clean close.
        closed: bool,
    },
    /// Bytes that nothing attests lie behind `end`: opening cuts them.
    TornTail {
        /// Where whole frames end.
        end: Lsn,
        /// File name of the segment.
        segment: String,
        /// The same place in the file.
        offset: u64,
    },
    /// Bytes that were durable are damaged: opening refuses, unless they lie in a sealed segment; what is damaged there is
    /// found by the read that needs it, or is made anew. In the order of the log.
    Corrupt(Vec<Corruption>),
}

/// What a look takes upon itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Every frame is read in any case, and judged by itself and by the one before it. A deep look also holds what the log
    /// says in several places against each other, which no rot explains but a fault of the writer, or bytes that were made:
    /// each segment's checkpoint against the frames of the segment before; the indexes, terms and freed segments in the
    /// frames against the checkpoint before them; indexes and trailers of sealed segments against their frames; where
    /// segments follow on each other; watermarks, which never descend, and which a mark has of its own place.
    pub is_deep: bool,
    /// How many segments are read at the same time. What is found does not depend on it.
    pub threads: NonZeroUsize,
}

impl Default for Effort {
    /// Not deep, in the caller's thread alone.
    fn default() -> Self {
        Self { is_deep: false, threads: NonZeroUsize::MIN }
    }
}

/// A look at all segments, in the order of their LSNs.
#[derive(Debug)]
pub struct Scan {
    directory: Arc<dyn Directory>,
    files: Vec<SegmentFile>,
    /// Base LSN and end of what is used, for the segments that begin as they should.
    placed: Vec<Option<(Lsn, u64)>>,
    standings: Vec<Standing>,
    /// Those without a header page that holds.
    without_page: Vec<SegmentSummary>,
    unread: Vec<Unread>,
    spares: Vec<SegmentSummary>,
    catalog: Catalog,
    replaced: Replaced,
    counts: Counts,
    attested: Lsn,
    end: Lsn,
    /// The same place as the number of one of `files` and an offset; `None` without a whole frame.
    end_place: Option<(usize, u64)>,
    /// `header_crc` of the last whole frame, which the next one links to.
    last_crc: u32,
    verdict: Verdict,
}

impl Scan {
    /// Looks at the log in `directory` of the real disk.
    ///
    /// # Errors
    /// The disk's, a newer format, or segments of two logs. Damage is no error here.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(directory, Effort::default())
    }

    /// The same with more effort, or more threads.
    ///
    /// # Errors
    /// As for [`Scan::open`].
    pub fn open_with(directory: impl AsRef<Path>, effort: Effort) -> Result<Self, OpenError> {
        Self::open_on_with(&*kontiki_disk::real(), directory, effort)
    }

    /// Looks at the log in `directory` of `disk`.
    ///
    /// # Errors
    /// As for [`Scan::open`].
    pub fn open_on(disk: &dyn Disk, directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_on_with(disk, directory, Effort::default())
    }

    /// The same with more effort, or more threads.
    ///
    /// # Errors
    /// As for [`Scan::open`].
    pub fn open_on_with(
        disk: &dyn Disk,
        directory: impl AsRef<Path>,
        effort: Effort,
    ) -> Result<Self, OpenError> {
        let path = directory.as_ref();
        let opened = disk.open_directory(path, Access::Read);
        let directory =
            opened.map_err(|source| io_error("open", &path.display().to_string(), source))?;
        let mut look = settle(&*directory, Depth::All(effort))?;
        let standings = look.standings()?;
        let unread = look.not_read(&standings)?;
        let (mut replaced, mut counts) = (Replaced::default(), Counts::default());
        let placed: Vec<Option<(Lsn, u64)>> = look
            .files
            .iter()
            .map(|file| {
                let (base, checked) = look.checked.remove(&file.header.sequence)?;
                replaced.append(checked.replaced);
                counts.add(checked.counts);
                Some((base, checked.used_end))
            })
            .collect();
        let is_read = |file: &&SegmentFile| !unread.iter().any(|unread| unread.is_all_of(file));
        counts.segments = look.files.iter().filter(is_read).count() as u64;
        let spares = spares(&*directory, &look.files)?;
        let verdict = if !look.damage.is_empty() {
            Verdict::Corrupt(look.damage)
        } else if let (true, Some((number, offset))) = (look.torn, look.end) {
            Verdict::TornTail { end: look.end_lsn, segment: look.files[number].name(), offset }
        } else {
            Verdict::Whole { end: look.end_lsn, closed: look.closed }
        };
        Ok(Self {
            directory,
            files: look.files,
            placed,
            standings,
            without_page: without_page(&look.unread).collect(),
            unread,
            spares,
            catalog: look.gathered.catalog,
            replaced,
            counts,
            attested: look.attested,
            end: look.end_lsn,
            end_place: look.end,
            last_crc: look.last_crc,
            verdict,
        })
    }

    /// Some process holds the writer's lock, this one included.
    pub fn is_live(&self) -> bool {
        self.directory.is_locked().unwrap_or(false)
    }

    /// Every segment, in the order of their numbers. Those whose header page is damaged are only named, and so are those behind
    /// the end of the log of which the frames are shown, and nothing tells what has become of their entries.
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let segments = self.files.iter().zip(&self.placed).zip(&self.standings);
        let summary = |((file, placed), &standing): ((&SegmentFile, &Option<(Lsn, u64)>), _)| {
            let placed =
                placed.filter(|(base, _)| *base < self.end || standing == Standing::Active);
            SegmentSummary {
                file: file.name(),
                sequence: file.header.sequence,
                base: placed.map(|(base, _)| base),
                used_bytes: placed.map_or(0, |(_, end)| end - FRAMES_AT),
                index_bytes: placed.and(file.trailer).map_or(0, |trailer| trailer.index_bytes()),
                segment_bytes: file.header.segment_bytes,
                standing,
            }
        };
        let mut all: Vec<SegmentSummary> =
            segments.map(summary).chain(self.without_page.iter().cloned()).collect();
        all.sort_by_key(|segment| segment.sequence);
        all
    }

    /// What damage keeps from being read, in the order of the segments: all else was. Nothing if the log is not corrupt.
    pub fn unread(&self) -> &[Unread] {
        &self.unread
    }

    /// Files that are no segments and wait to become one, in the order of the numbers in their names.
    pub fn spares(&self) -> &[SegmentSummary] {
        &self.spares
    }

    /// Every log that has entries, a state, or an index to go on with at the end of the log, with where it stands there.
    pub fn logs(&self) -> Vec<(LogId, Bounds)> {
        let logs = self.catalog.logs();
        logs.map(|log| (log, self.catalog.bounds(log).into_owned())).collect()
    }

    /// The indexes of those entries of a frame that its log still has from there at the end of the log: not truncated,
    /// replaced, reset, forgotten or compacted, and not behind the end. Empty for other kinds of frames.
    pub fn live(&self, frame: &Frame) -> Range<u64> {
        self.replaced.live(frame, &self.catalog.bounds(frame.log), self.end)
    }

    /// How much was read: as many frames as [`Scan::frames`] shows, but for what a writer has done meanwhile.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Everything below was synced, as later frames and the trailers of sealed segments tell. The last sync is attested by
    /// nothing until something is written after it.
    pub fn attested(&self) -> Lsn {
        self.attested
    }

    /// Frames in the order of their LSNs, in each segment up to where whole headers end; what lies behind that in it is
    /// [not read](Scan::unread). A frame whose header is whole is shown even behind the end of the log. Of a segment that cannot
    /// be read further the error is the last item.
    pub fn frames(&self) -> Box<dyn Iterator<Item = Result<Frame, OpenError>> + '_> {
        Box::new(self.files.iter().flat_map(|file| self.segment_frames(file.header.sequence)))
    }

    /// The frames of one segment, likewise; none if there is no such segment, or it does not begin as it should. Those of a
    /// live log can be more than the segment's `used_bytes` since it was looked at, and those of a file that was used again
    /// are less.
    pub fn segment_frames(
        &self,
        sequence: u64,
    ) -> impl Iterator<Item = Result<Frame, OpenError>> + '_ {
        let number = self.files.binary_search_by_key(&sequence, |file| file.header.sequence).ok();
        let placed = number.and_then(|number| Some((&self.files[number], self.placed[number]?.0)));
        placed.into_iter().flat_map(|(file, base)| Frames::new(file, base))
    }

    /// Goes on where the log ends at this look, as a writer appends; `None` if there is no whole frame yet, or none is left.
    pub fn tail(&self) -> Option<Tail> {
        let (number, offset) = self.end_place?;
        let (directory, file) = (Arc::clone(&self.directory), self.files[number].clone());
        Some(Tail::new(directory, file, offset, self.end, self.last_crc))
    }

    /// How the log ends.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }
}

/// The frames of one segment.
pub(crate) struct Frames<'a> {
    /// Reading failed.
    failed: bool,
    file: &'a SegmentFile,
    window: Window<'a>,
    base: Lsn,
    offset: u64,
    link: Option<u32>,
}

impl<'a> Frames<'a> {
    pub(crate) fn new(file: &'a SegmentFile, base: Lsn) -> Self {
        Self::at(file, base, FRAMES_AT)
    }

    /// From the frame at `offset` on.
    pub(crate) fn at(file: &'a SegmentFile, base: Lsn, offset: u64) -> Self {
        Self { failed: false, file, window: Window::new(file), base, offset, link: None }
    }

    /// The next frame; `None` where whole headers end.
    fn read(&mut self) -> Result<Option<Frame>, OpenError> {
        let lsn = lsn_at(self.base, self.offset);
        let Ok(found) = self.window.frame(self.offset, self.link, Some(lsn))? else {
            return Ok(None);
        };
        if found.fault.is_some() && !self.file.is_still_itself() {
            // A writer at work has used the file again: what was in it was freed.
            return Ok(None);
        }
        self.offset += found.header.frame_bytes();
        self.link = Some(found.crc);
        self.frame(&found, lsn).map(Some)
    }

    fn frame(&mut self, found: &Found, lsn: Lsn) -> Result<Frame, OpenError> {
        let body = match &found.fault {
            Some(fault) => Err(self.file.corruption(fault)),
            None => Ok(Bytes::copy_from_slice(self.window.body(found)?)),
        };
        let Header { kind, closed, log, first_index, count, term, durable_lsn, .. } = found.header;
        Ok(Frame {
            segment: self.file.header.sequence,
            file: self.file.name(),
            offset: found.offset,
            lsn,
            kind,
            closed,
            log,
            first_index,
            count,
            term,
            durable_lsn,
            frame_bytes: found.header.frame_bytes(),
            body,
        })
    }
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let frame = self.read();
        self.failed = frame.is_err();
        frame.transpose()
    }
}
