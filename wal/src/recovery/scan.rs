//! Reading a segment's file frame by frame, trusting nothing.

use std::{io, ops::Range, sync::Arc};

use kontiki_disk::{Directory, File, is_too_many_files};

use crate::{
    Corruption, Lsn, OpenError,
    frame::{self, FrameFault, HEADER_BYTES, Header},
    header::SegmentHeader,
    segment::{FRAMES_AT, PAGE_BYTES, file_name},
    trailer::Trailer,
};

/// A segment's file whose header page is whole.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
    /// Its trailer page, if that is one of this segment.
    pub(crate) trailer: Option<Trailer>,
    /// It has a trailer, or one that has rotted: another segment followed.
    pub(crate) was_sealed: bool,
    pub(crate) salt: u32,
}

/// A frame whose header is whole and that follows the one before.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) offset: u64,
    pub(crate) header: Header,
    /// `header_crc`, which the next frame links to.
    pub(crate) crc: u32,
    /// What is wrong with the body, if it is damaged.
    pub(crate) fault: Option<Fault>,
}

/// Why no whole frame lies at an offset.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
    pub(crate) expected: u64,
    pub(crate) found: u64,
    /// The frame's header, if it is whole by itself, or was before one bit of it was flipped.
    pub(crate) header: Option<Header>,
}

impl SegmentFile {
    /// Opens segment `sequence` and reads its header page.
    pub(crate) fn open(directory: &dyn Directory, sequence: u64) -> Result<Self, OpenError> {
        let name = file_name(sequence);
        let failed = |source| io_error("open", &name, source);
        let file = directory.open(&name).map_err(failed)?;
        let mut page = vec![0; usize::try_from(PAGE_BYTES).expect("4096 fits")];
        match file.read_at(0, &mut page) {
            // Too short for a header page: a header that does not hold.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            result => result.map_err(failed)?,
        }
        let header = SegmentHeader::decode(&page, &name, sequence, file.len())?;
        let salt = frame::salt(&header.uuid, sequence);
        file.read_at(file.len() - PAGE_BYTES, &mut page).map_err(failed)?;
        let trailer = Trailer::decode(&page, salt, sequence, header.segment_bytes);
        let is_rotten = Trailer::is_rotten(&page, salt, sequence, header.segment_bytes);
        Ok(Self { header, file, trailer, was_sealed: trailer.is_some() || is_rotten, salt })
    }

    /// Refuses a file of another log than that of the `first` one in its directory.
    pub(crate) fn expect_log_of(&self, first: Option<&Self>) -> Result<(), OpenError> {
        match first.filter(|first| first.header.uuid != self.header.uuid) {
            Some(first) => Err(OpenError::OtherLog { segment: self.name(), other: first.name() }),
            None => Ok(()),
        }
    }

    /// False if a writer has used the file again for another segment.
    pub(crate) fn is_still_itself(&self) -> bool {
        is_still(&*self.file, self.header.sequence)
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.header.sequence)
    }

    /// Name of the segment that follows.
    pub(crate) fn next_name(&self) -> String {
        file_name(self.header.sequence + 1)
    }

    /// End of the space that frames can take.
    pub(crate) fn frames_end(&self) -> u64 {
        self.header.segment_bytes - PAGE_BYTES
    }

    /// The fault as an error that names this segment.
    pub(crate) fn corruption(&self, fault: &Fault) -> Corruption {
        fault.in_segment(self.name())
    }
}

/// Whether the file's header page still speaks of this segment: what is read of a live log can be used again meanwhile.
pub(crate) fn is_still(file: &dyn File, sequence: u64) -> bool {
    let mut page = vec![0; size(PAGE_BYTES)];
    let read = file.read_at(0, &mut page);
    let header = SegmentHeader::decode(&page, "", sequence, file.len());
    read.is_ok() && header.is_ok()
}

impl Fault {
    /// As an error that names its segment's file.
    pub(crate) fn in_segment(&self, segment: String) -> Corruption {
        let header = self.header.as_ref();
        let entries = header.and_then(Header::indexes);
        Corruption {
            segment,
            offset: self.offset,
            what: self.what.to_owned(),
            log: header.filter(|header| header.belongs_to_a_log()).map(|header| header.log),
            indexes: entries,
            term: entries.and(header).map(|header| header.term),
            expected: self.expected,
            found: self.found,
        }
    }
}

/// A segment's bytes, read through the file in large pieces.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    segment: &'a SegmentFile,
    /// Where the bytes that are held lie in the file.
    held: Range<u64>,
    /// Those bytes; the rest is what is left of longer ones, so that room is made once.
    bytes: Vec<u8>,
    /// How much is read at least at a time.
    step_bytes: u64,
}

impl<'a> Window<'a> {
    /// A window that moves on through the segment.
    pub(crate) fn new(segment: &'a SegmentFile) -> Self {
        Self::in_steps(segment, WINDOW_BYTES)
    }

    /// A window for what takes `step_bytes`: nothing behind it is read.
    pub(crate) fn in_steps(segment: &'a SegmentFile, step_bytes: u64) -> Self {
        Self { segment, held: 0..0, bytes: Vec::new(), step_bytes }
    }

    /// The bytes of `range`, which lies inside the file.
    pub(crate) fn bytes(&mut self, range: Range<u64>) -> Result<&[u8], OpenError> {
        if range.start < self.held.start || range.end > self.held.end {
            self.read(range.clone())?;
        }
        let start = size(range.start - self.held.start);
        Ok(&self.bytes[start..start + size(range.end - range.start)])
    }

    fn read(&mut self, range: Range<u64>) -> Result<(), OpenError> {
        let step_end = (range.start + self.step_bytes).min(self.segment.header.segment_bytes);
        let held = range.start..range.end.max(step_end);
        let length = size(held.end - held.start);
        if self.bytes.len() < length {
            // Zeroed by the allocator: `resize` fills byte by byte where nothing is optimised.
            self.bytes = vec![0; length];
        }
        // Of what a read that failed has left nothing is believed.
        self.held = 0..0;
        let read = self.segment.file.read_at(held.start, &mut self.bytes[..length]);
        read.map_err(|source| io_error("read", &self.segment.name(), source))?;
        self.held = held;
        Ok(())
    }

    /// The header at `offset` if it is whole by itself: checksum, kind, flags, body inside the segment.
    pub(crate) fn header(&mut self, offset: u64) -> Result<Option<(Header, u32)>, OpenError> {
        let end = self.segment.frames_end();
        if offset + HEADER_BYTES > end {
            return Ok(None);
        }
        let salt = self.segment.salt;
        let bytes = self.bytes(offset..offset + HEADER_BYTES)?;
        let bytes: &[u8; 48] = bytes.try_into().expect("48 bytes");
        let header = Header::decode(bytes, salt, offset);
        let whole = header.filter(|header| offset + header.frame_bytes() <= end);
        Ok(whole.map(|header| (header, frame::header_crc(bytes))))
    }

    /// The frame at `offset`, which should follow one with `link` and lie at `lsn`. A damaged body is no error here.
    pub(crate) fn frame(
        &mut self,
        offset: u64,
        link: Option<u32>,
        lsn: Option<Lsn>,
    ) -> Result<Result<Found, Fault>, OpenError> {
        let fault = |what, expected: u64, found: u64, header| Fault {
            offset,
            what,
            expected,
            found,
            header,
        };
        let Some((header, crc)) = self.header(offset)? else {
            let (found, was) = self.header_fault(offset, link)?;
            return Ok(Err(fault(found.what, found.expected.into(), found.found.into(), was)));
        };
        if let Some(link) = link.filter(|&link| link != header.link) {
            let (expected, found) = (link.into(), header.link.into());
            return Ok(Err(fault("link to the frame before", expected, found, Some(header))));
        }
        if let Some(lsn) = lsn.filter(|&lsn| lsn < header.durable_lsn) {
            let (expected, found) = (lsn.0, header.durable_lsn.0);
            return Ok(Err(fault("watermark of a frame", expected, found, None)));
        }
        let body = offset + HEADER_BYTES..offset + header.frame_bytes();
        let body_fault = header
            .body_fault(self.bytes(body)?)
            .map(|body| fault(body.what, body.expected.into(), body.found.into(), Some(header)));
        Ok(Ok(Found { offset, header, crc, fault: body_fault }))
    }

    /// What is wrong with the bytes at `offset`, which are no whole header, and the header that they were, if one flipped
    /// bit explains it. Only one that follows the frame before: those of a file's earlier life differ from this one's by one bit
    /// of the checksum wherever the two salts do.
    fn header_fault(
        &mut self,
        offset: u64,
        link: Option<u32>,
    ) -> Result<(FrameFault, Option<Header>), OpenError> {
        let (salt, end) = (self.segment.salt, self.segment.frames_end());
        if offset + HEADER_BYTES > end {
            let nothing = FrameFault { what: "room for a frame's header", expected: 0, found: 0 };
            return Ok((nothing, None));
        }
        let bytes = self.bytes(offset..offset + HEADER_BYTES)?;
        let bytes: &[u8; 48] = bytes.try_into().expect("48 bytes");
        let was = Header::before_a_flip(bytes, salt, offset)
            .filter(|header| offset + header.frame_bytes() <= end && link == Some(header.link));
        Ok((frame::header_fault(bytes, salt, offset), was))
    }

    /// The body of a frame, without its padding.
    pub(crate) fn body(&mut self, found: &Found) -> Result<&[u8], OpenError> {
        let start = found.offset + HEADER_BYTES;
        self.bytes(start..start + u64::from(found.header.body_len))
    }

    /// Every header at or behind `offset` that is whole by itself, chained or not.
    pub(crate) fn whole_headers(
        &mut self,
        offset: u64,
        mut visit: impl FnMut(u64, &Header) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let mut offset = offset.max(FRAMES_AT);
        let end = self.segment.frames_end();
        while offset + HEADER_BYTES <= end {
            // Zeros are what is found here nearly always, so they are passed by in large steps.
            let step = end.min(offset + SKIP_BYTES);
            if *self.bytes(offset..step)? == ZEROS[..size(step - offset)] {
                // A header can begin in the last zeros.
                offset = step - HEADER_BYTES + 8;
                continue;
            }
            for at in (offset..step).step_by(8) {
                if let Some((header, _)) = self.header(at)? {
                    visit(at, &header)?;
                }
            }
            offset = step;
        }
        Ok(())
    }
}

pub(crate) fn io_error(operation: &'static str, path: &str, source: io::Error) -> OpenError {
    let (path, source) = (path.to_owned(), Arc::new(source));
    if is_too_many_files(&source) {
        return OpenError::TooManyFiles { path, source };
    }
    OpenError::Io { operation, path, source }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("64-bit only")
}

const WINDOW_BYTES: u64 = 1 << 20;
const SKIP_BYTES: u64 = 4 << 10;
/// Compared as a whole, which is many times as fast as byte by byte.
static ZEROS: [u8; 4 << 10] = [0; 4 << 10];
