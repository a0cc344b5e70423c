//! The repair after an unclean stop. Nothing was exposed yet, and nothing is before this has succeeded.

use std::{collections::BTreeSet, io, ops::Range};

use kontiki_disk::Directory;

use crate::{
    Lsn, OpenError,
    frame::HEADER_BYTES,
    recovery::{
        scan::{SegmentFile, Window, io_error},
        walk::{Behind, End},
    },
    segment::{FRAMES_AT, PAGE_BYTES, Segment},
    steps::zero_parts,
    trailer::SECTOR_LEN,
};

const SECTOR_BYTES: u64 = SECTOR_LEN as u64;

fn trailer_page(file: &SegmentFile) -> Range<u64> {
    file.frames_end()..file.header.segment_bytes
}

/// What the repair works on.
pub(crate) struct Repair<'a> {
    pub(crate) directory: &'a dyn Directory,
    /// The segments that follow each other up to the newest.
    pub(crate) tail: &'a [SegmentFile],
    /// Those of them that were walked.
    pub(crate) segments: &'a [Segment],
    pub(crate) end: &'a End,
    pub(crate) behind: &'a Behind,
    /// Everything below is durable for certain.
    pub(crate) attested: Lsn,
}

impl Repair<'_> {
    /// Makes what is whole durable, and takes away for good what is not.
    pub(crate) fn run(&self) -> Result<(), OpenError> {
        let mut touched = self.rewrite()?;
        self.expect_what_was_walked()?;
        self.cut_beginning()?;
        touched.insert(self.end.resume().0);
        touched.into_iter().try_for_each(|number| self.sync(number))?;
        self.cut()?;
        self.sync(self.end.resume().0)?;
        self.remove_later()
    }

    /// Writes the bytes from the attested LSN to the end back over themselves: after a failed sync they can be in the
    /// cache only, on pages that count as clean, and then a sync alone would do nothing.
    fn rewrite(&self) -> Result<BTreeSet<usize>, OpenError> {
        let mut touched = BTreeSet::new();
        for (number, segment) in self.segments.iter().enumerate() {
            let until = self.until(number);
            if until <= self.attested {
                continue;
            }
            let start = segment.offset(self.attested.max(segment.base));
            rewrite(&self.tail[number], start..segment.offset(until))?;
            touched.insert(number);
        }
        Ok(touched)
    }

    /// What a failed sync has left in the cache can leave it at any time, also between the walk and the writing: then other bytes were
    /// written than those that were found. Now their pages are dirty, and stay. One chain of checksums leads to the last frame, so
    /// that it is the same means that all of them are.
    fn expect_what_was_walked(&self) -> Result<(), OpenError> {
        let mut before = None;
        for (number, segment) in self.segments.iter().enumerate() {
            let until = self.until(number);
            if until <= self.attested {
                continue;
            }
            let file = &self.tail[number];
            let (mut window, mut offset) = (Window::new(file), FRAMES_AT);
            while offset < segment.offset(until) {
                match window.frame(offset, before, None)? {
                    Ok(found) if found.fault.is_none() => {
                        (offset, before) = (offset + found.header.frame_bytes(), Some(found.crc));
                    }
                    _ => return Err(self.changed(file)),
                }
            }
        }
        let last = self.end.last.as_ref().map(|last| last.crc);
        if before.is_some() && before != last {
            return Err(self.changed(&self.tail[self.segments.len() - 1]));
        }
        Ok(())
    }

    fn changed(&self, file: &SegmentFile) -> OpenError {
        let what = "it reads otherwise than before, as after a failed sync: open the log again";
        io_error("read", &file.name(), io::Error::other(what))
    }

    /// Where what was walked of a segment ends.
    fn until(&self, number: usize) -> Lsn {
        self.segments.get(number + 1).map_or(self.end.lsn, |next| next.base)
    }

    /// Zeros over the first sector of what is cut, which the disk writes whole or not at all, and for good before the rest. Zeros
    /// can make a frame whole, if what was lost of it was nothing else: a stop in the middle must not leave its beginning beside
    /// them, or the next recovery finds what this one has cut (WAL-CASE 3, WAL-CASE 46b). Likewise of a trailer that has rotted: it
    /// would take away what was appended in front of it since.
    fn cut_beginning(&self) -> Result<(), OpenError> {
        let (file, frames) = self.cut_frames();
        zero(file, beginning(&frames))?;
        zero(file, beginning(&trailer_page(file)))
    }

    /// Zeros behind the end, so that nothing that was cut comes back behind a new frame of the same length; and over a trailer
    /// that has rotted, for the log goes on in front of it: it would tell of a successor, which goes after this is durable. Also
    /// where there is none: one can be gone from the cache only, if the sync of such a cut failed before.
    fn cut(&self) -> Result<(), OpenError> {
        let (file, frames) = self.cut_frames();
        zero(file, frames)?;
        zero(file, trailer_page(file))
    }

    /// Where frames can lie behind the end, in the segment in which the log goes on; also if none is found: a repair before this one
    /// can have left zeros over them that are in the cache only. What an opening writes carries its nonce, and nothing of an earlier
    /// one follows on it; but marks do not. There are at most two in a row, of idling and of a close, and the header behind them is
    /// gone, too.
    fn cut_frames(&self) -> (&SegmentFile, Range<u64>) {
        let (number, start) = self.end.resume();
        let file = &self.tail[number];
        let end = self.behind.frames_end.max(start + 3 * HEADER_BYTES).next_multiple_of(PAGE_BYTES);
        (file, start..end.min(file.frames_end()))
    }

    fn sync(&self, number: usize) -> Result<(), OpenError> {
        sync_file(&self.tail[number])
    }

    /// The newest first, each for good before the next: what is left always follows on.
    fn remove_later(&self) -> Result<(), OpenError> {
        let later = self.tail[self.end.resume().0 + 1..].iter().rev();
        remove_one_by_one(self.directory, later.map(SegmentFile::name))
    }
}

/// Writes the bytes of `range` over themselves, a step at a time, so that their pages are dirty; the caller syncs.
pub(crate) fn rewrite(file: &SegmentFile, range: Range<u64>) -> Result<(), OpenError> {
    let mut window = Window::new(file);
    let mut offset = range.start;
    while offset < range.end {
        let step = range.end.min(offset + STEP_BYTES);
        let written = file.file.write_at(offset, &[window.bytes(offset..step)?]);
        written.map_err(|source| io_error("write", &file.name(), source))?;
        offset = step;
    }
    Ok(())
}

/// The first sector of `range`, or what of it lies in that.
pub(crate) fn beginning(range: &Range<u64>) -> Range<u64> {
    range.start..(range.start + 1).next_multiple_of(SECTOR_BYTES).min(range.end)
}

/// Writes zeros over `range`, a step at a time; the caller syncs.
pub(crate) fn zero(file: &SegmentFile, range: Range<u64>) -> Result<(), OpenError> {
    let mut offset = range.start;
    while offset < range.end {
        let step = range.end.min(offset + STEP_BYTES);
        let length = usize::try_from(step - offset).expect("64-bit only");
        let parts: Vec<&[u8]> = zero_parts(length).collect();
        let written = file.file.write_at(offset, &parts);
        written.map_err(|source| io_error("write", &file.name(), source))?;
        offset = step;
    }
    Ok(())
}

/// Zeros over a trailer page, for good, and over its beginning before the rest.
pub(crate) fn zero_trailer(file: &SegmentFile) -> Result<(), OpenError> {
    zero(file, beginning(&trailer_page(file)))?;
    sync_file(file)?;
    zero(file, trailer_page(file))?;
    sync_file(file)
}

fn sync_file(file: &SegmentFile) -> Result<(), OpenError> {
    file.file.sync().map_err(|source| io_error("sync", &file.name(), source))
}

/// Removes files, each for good before the next. An earlier process can have removed some, and not lived to sync that: it comes
/// first.
pub(crate) fn remove_one_by_one(
    directory: &dyn Directory,
    names: impl Iterator<Item = String>,
) -> Result<(), OpenError> {
    sync(directory)?;
    for name in names {
        directory.remove(&name).map_err(|source| io_error("remove", &name, source))?;
        sync(directory)?;
    }
    Ok(())
}

/// Makes the names of a directory durable.
pub(crate) fn sync(directory: &dyn Directory) -> Result<(), OpenError> {
    let path = directory.path().display().to_string();
    directory.sync().map_err(|source| io_error("sync", &path, source))
}

const STEP_BYTES: u64 = 1 << 20;
