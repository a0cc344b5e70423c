//! What is done to the files of segments: filled, used again, sealed.

use std::{io, sync::Arc};

use kontiki_disk::{Directory, File};

use super::{unless_stopped, zero_parts};
use crate::{
    error::with_needed_room,
    header::SegmentHeader,
    index::{self, FrameIndex},
    segment::{PAGE_BYTES, Segment, file_name, spare_name, temporary_name},
    sync::AtomicBool,
    trailer::{SECTOR_LEN, Trailer},
};

/// Makes a segment of a file whose name as a spare is durable: so its old name cannot come back over the new bytes. What
/// lies in it has another salt, and is not written over.
pub(super) fn reuse(
    directory: &dyn Directory,
    header: &SegmentHeader,
    spare: u64,
    stopped: &AtomicBool,
) -> io::Result<Arc<dyn File>> {
    let spare = spare_name(spare);
    let file = directory.open(&spare)?;
    unless_stopped(stopped)?;
    file.write_at(0, &[&header.encode()])?;
    file.sync()?;
    unless_stopped(stopped)?;
    directory.rename(&spare, &file_name(header.sequence))?;
    Ok(file)
}

/// A trailer says that everything before it is durable, so it is written when that is true. Its end goes first, so that no
/// stop leaves its beginning without its end: one that does not hold has rotted.
pub(super) fn seal(
    segment: &Segment,
    frames: &FrameIndex,
    stopped: &AtomicBool,
) -> io::Result<Trailer> {
    let (trailer, index) = describe(segment, frames);
    let page = trailer.encode(segment.salt);
    let (file, at) = (&segment.file, segment.index_end());
    unless_stopped(stopped)?;
    if found_page(segment)?.1 == Some(trailer) {
        // What tells where the frames end stays: before a gap nothing else does, and zeros can get into the cache only.
        file.write_at(at - index.len() as u64, &[&index])?;
        file.sync()?;
        seal_again(segment, &trailer, stopped)?;
        return Ok(trailer);
    }
    // An old trailer of this segment, of which the beginning is on the disk and not in the cache, must not get its end back.
    file.write_at(at - index.len() as u64, &[&index, &[0; SECTOR_LEN]])?;
    file.sync()?;
    unless_stopped(stopped)?;
    file.write_at(at + SECTOR_LEN as u64, &[&page[SECTOR_LEN..]])?;
    file.sync()?;
    unless_stopped(stopped)?;
    file.write_at(at, &[&page])?;
    file.sync()?;
    Ok(trailer)
}

/// The trailer page, and the trailer in it if it is one of this segment.
fn found_page(segment: &Segment) -> io::Result<(Vec<u8>, Option<Trailer>)> {
    let mut page = vec![0; usize::try_from(PAGE_BYTES).expect("4096 fits")];
    segment.file.read_at(segment.index_end(), &mut page)?;
    let found = Trailer::decode(&page, segment.salt, segment.sequence, segment.bytes);
    Ok((page, found))
}

/// Writes a trailer that was found over itself: an earlier process that was killed in its last sync, or whose last sync failed,
/// has left it in the page cache only, on a page that may count as clean, and may have left the cache since. What lies before it
/// was synced before.
pub(super) fn seal_again(
    segment: &Segment,
    trailer: &Trailer,
    stopped: &AtomicBool,
) -> io::Result<()> {
    unless_stopped(stopped)?;
    let (mut page, found) = found_page(segment)?;
    // As it is, with what a later version may have put there, if it is still there.
    if found != Some(*trailer) {
        page.copy_from_slice(&trailer.encode(segment.salt));
    }
    segment.file.write_at(segment.index_end(), &[&page])?;
    segment.file.sync()
}

/// The trailer of a full segment, and its index: up to megabytes, so not made under the lock.
pub(crate) fn describe(segment: &Segment, frames: &FrameIndex) -> (Trailer, Vec<u8>) {
    let last = segment.last.expect("a full segment");
    let (index, logs, frames) = frames.encode();
    let table = usize::try_from(u64::from(logs) * index::LOG_BYTES).expect("64-bit only");
    let trailer = Trailer {
        sequence: segment.sequence,
        base: segment.base,
        frames_end: last.frames_end,
        last_crc: last.crc,
        logs,
        frames,
        table_crc: crc32fast::hash(&index[..table]),
        index_crc: crc32fast::hash(&index),
    };
    (trailer, index)
}

/// Makes a segment's file, filled with zeros so that no sync has to convert extents or to grow the file, and gives it its
/// name; the directory is not synced.
pub(crate) fn prepare(
    directory: &dyn Directory,
    header: &SegmentHeader,
    stopped: &AtomicBool,
) -> io::Result<Arc<dyn File>> {
    let temporary = temporary_name(header.sequence);
    unless_stopped(stopped)?;
    let attempt = || {
        let file = directory.create(&temporary, header.segment_bytes)?;
        let mut offset = PAGE_BYTES;
        while offset < header.segment_bytes {
            unless_stopped(stopped)?;
            let length = (header.segment_bytes - offset).min(FILL_STEP_BYTES);
            let parts: Vec<&[u8]> = zero_parts(usize::try_from(length).expect("bounded")).collect();
            file.write_at(offset, &parts)?;
            offset += length;
        }
        unless_stopped(stopped)?;
        file.write_at(0, &[&header.encode()])?;
        file.sync()?;
        unless_stopped(stopped)?;
        directory.rename(&temporary, &file_name(header.sequence))?;
        Ok(file)
    };
    attempt().map_err(|error| {
        // Best effort: what stays refuses the next attempt, which so removes it; or the next open does.
        let _ = directory.remove(&temporary);
        with_needed_room(error, header.segment_bytes)
    })
}

const FILL_STEP_BYTES: u64 = 1 << 20;
