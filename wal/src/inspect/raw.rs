//! The bytes themselves, whole or not, and what they should be.

use std::io;

use bytes::Bytes;

use crate::{
    Corruption, Lsn, OpenError,
    frame::{self, HEADER_BYTES, Header},
    header::SegmentHeader,
    inspect::Scan,
    recovery::{
        scan::{SegmentFile, Window, io_error},
        walk::base,
    },
    segment::{FRAMES_AT, PAGE_BYTES, file_name, lsn_at},
};

/// A frame's bytes as they lie on disk, and the checksums that they should carry. `FORMAT.md`, "Frames", says what is where.
#[derive(Clone, Debug)]
pub struct RawFrame {
    /// Sequence number of its segment.
    pub segment: u64,
    /// File name of its segment.
    pub file: String,
    /// Where it begins in the file.
    pub offset: u64,
    /// Where it begins in the stream; `None` where that of its segment is not known.
    pub lsn: Option<Lsn>,
    /// Header, body and padding; the header alone if how long the rest is cannot be told.
    pub bytes: Bytes,
    /// What `header_crc` should be for the rest of the header, at this place.
    pub header_crc: u32,
    /// What `link` should be: the `header_crc` of the frame before. `None` for a segment's first frame and behind damage.
    pub link: Option<u32>,
    /// What `body_crc` should be for the body, if how long that is can be told.
    pub body_crc: Option<u32>,
    /// The header as it was, if it is damaged and one flipped bit explains it. Where nothing tells what it follows (`link`), and the
    /// segment was used before, that can be one of its earlier life.
    pub header_before: Option<[u8; 48]>,
    /// Why this is no whole frame; `None` if it is one.
    pub fault: Option<Corruption>,
}

/// A segment's header page as it lies on disk. `FORMAT.md`, "Header page", says what is where.
#[derive(Clone, Debug)]
pub struct HeaderPage {
    /// Sequence number of the segment, by its file's name.
    pub segment: u64,
    /// File name of the segment.
    pub file: String,
    /// The page; what there is of it, if the file is shorter.
    pub bytes: Bytes,
    /// What its checksum should be; `None` if it is not all there.
    pub crc: Option<u32>,
    /// Why the segment cannot be read by it; `None` if it can.
    pub fault: Option<OpenError>,
}

impl Scan {
    /// The bytes of the frame that `lsn` lies in. Where the chain of frames ends before, those at `lsn` itself, taken for a
    /// frame. `None` if no segment that is there can hold it.
    ///
    /// # Errors
    /// The disk's.
    pub fn raw_frame(&self, lsn: Lsn) -> Result<Option<RawFrame>, OpenError> {
        let mut before = None;
        for number in 0..self.files.len() {
            if let Some(base) = self.base(number)?.filter(|&base| base <= lsn) {
                before = before.max(Some((base, number)));
            }
        }
        let Some((base, number)) = before else { return Ok(None) };
        let file = &self.files[number];
        let Some(trailer) = file.trailer.filter(|trailer| trailer.end() <= lsn) else {
            return frame_holding(file, Some(base), FRAMES_AT.saturating_add(lsn.0 - base.0));
        };
        // Behind the last frame of a sealed segment lies the first one of the next, though that be damaged.
        let next = self.files.get(number + 1);
        let next = next.filter(|next| next.header.sequence == file.header.sequence + 1);
        let Some(next) = next else { return Ok(None) };
        let end = trailer.end();
        frame_holding(next, Some(end), FRAMES_AT.saturating_add(lsn.0 - end.0))
    }

    /// Where one of `files` begins in the stream: one that the look did not come to says so itself.
    fn base(&self, number: usize) -> Result<Option<Lsn>, OpenError> {
        match self.placed[number] {
            Some((base, _)) => Ok(Some(base)),
            None => {
                base(&self.files[number], number.checked_sub(1).map(|before| &self.files[before]))
            }
        }
    }

    /// The same by the segment's sequence number and an offset in its file.
    ///
    /// # Errors
    /// As for [`Scan::raw_frame`]; a header page that does not hold, too, for the checksums depend on it.
    pub fn raw_frame_at(&self, sequence: u64, offset: u64) -> Result<Option<RawFrame>, OpenError> {
        match self.files.iter().position(|file| file.header.sequence == sequence) {
            Some(number) => frame_holding(&self.files[number], self.base(number)?, offset),
            None => {
                let file = SegmentFile::open(&*self.directory, sequence)?;
                frame_holding(&file, base(&file, None)?, offset)
            }
        }
    }

    /// The header page of a segment.
    ///
    /// # Errors
    /// The disk's; that the page does not hold is none.
    pub fn header_page(&self, sequence: u64) -> Result<HeaderPage, OpenError> {
        let name = file_name(sequence);
        let failed = |source: io::Error| io_error("read", &name, source);
        let file = self.directory.open(&name).map_err(failed)?;
        let length = usize::try_from(file.len().min(PAGE_BYTES)).expect("at most 4096");
        let mut page = vec![0; length];
        file.read_at(0, &mut page).map_err(failed)?;
        let crc = page.split_last_chunk::<4>().filter(|_| file.len() >= PAGE_BYTES);
        let crc = crc.map(|(rest, _)| crc32fast::hash(rest));
        let fault = SegmentHeader::decode(&page, &name, sequence, file.len()).err();
        Ok(HeaderPage { segment: sequence, file: name, bytes: page.into(), crc, fault })
    }
}

/// The frame that the byte at `offset` lies in, by the chain of frames from the segment's first.
fn frame_holding(
    file: &SegmentFile,
    base: Option<Lsn>,
    offset: u64,
) -> Result<Option<RawFrame>, OpenError> {
    let mut window = Window::new(file);
    let (mut at, mut link) = (FRAMES_AT, None);
    while let Some((header, crc)) = window.header(at)? {
        let end = at + header.frame_bytes();
        if end > offset || link.is_some_and(|link| link != header.link) {
            break;
        }
        (at, link) = (end, Some(crc));
    }
    if offset < at {
        return Ok(None);
    }
    match raw_frame(file, base, at, link)? {
        Some(raw) if offset - at < raw.bytes.len() as u64 => Ok(Some(raw)),
        // The chain ends before.
        _ => raw_frame(file, base, offset - offset % frame::ALIGN_BYTES, None),
    }
}

/// What lies at `offset`, taken for a frame; `None` if no frame can lie there.
fn raw_frame(
    file: &SegmentFile,
    base: Option<Lsn>,
    offset: u64,
    link: Option<u32>,
) -> Result<Option<RawFrame>, OpenError> {
    let frames_end = file.trailer.map_or(u64::MAX, |trailer| trailer.frames_end);
    if offset.saturating_add(HEADER_BYTES) > file.frames_end().min(frames_end) {
        return Ok(None);
    }
    let lsn = base.map(|base| lsn_at(base, offset));
    let mut window = Window::new(file);
    let head = window.bytes(offset..offset + HEADER_BYTES)?;
    let head: [u8; 48] = *head.first_chunk().expect("as long as a header");
    let whole = window.header(offset)?.map(|(header, _)| header);
    let fault = match window.frame(offset, link, lsn)? {
        Ok(found) => found.fault,
        Err(fault) => Some(fault),
    };
    // Where the chain ends nothing tells whether it follows: whoever asks for this place is told what it can have been.
    let fits = |header: &Header| offset + header.frame_bytes() <= file.frames_end();
    let alone = || Header::before_a_flip(&head, file.salt, offset).filter(fits);
    let before = match link {
        _ if whole.is_some() => None,
        Some(_) => fault.as_ref().and_then(|fault| fault.header),
        None => alone(),
    };
    let header = whole.or(before);
    let length = header.map_or(HEADER_BYTES, |header| header.frame_bytes());
    let bytes = Bytes::copy_from_slice(window.bytes(offset..offset + length)?);
    let body_crc = header.map(|header| {
        let end = HEADER_BYTES + u64::from(header.body_len);
        let range = [HEADER_BYTES, end].map(|at| usize::try_from(at).expect("64-bit only"));
        crc32fast::hash(&bytes[range[0]..range[1]])
    });
    Ok(Some(RawFrame {
        segment: file.header.sequence,
        file: file.name(),
        offset,
        lsn,
        header_crc: frame::header_fault(&head, file.salt, offset).expected,
        link,
        body_crc,
        header_before: before.map(|header| header.encode(file.salt, offset)),
        fault: fault.map(|fault| file.corruption(&fault)),
        bytes,
    }))
}
