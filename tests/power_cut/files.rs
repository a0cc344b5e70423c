//! The log's files as the file system has them, seen from beside the writer.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    num::NonZeroU64,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

use crate::lines::Random;

/// What pages, headers and trailers are measured in.
pub(crate) const PAGE_BYTES: usize = 4096;

/// The files of `directory` with this extension, in the order of their numbers; none if it is not there.
pub(crate) fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        paths.filter(|path| path.extension() == Some(OsStr::new(extension))).collect();
    files.sort_unstable();
    files
}

/// The sequence number in a file's name.
pub(crate) fn number(file: &Path) -> u64 {
    let stem = file.file_stem().and_then(OsStr::to_str).expect("a name of the log's");
    u64::from_str_radix(stem, 16).expect("a name of the log's")
}

/// The segment lies in the file of an earlier one: the trailer of that one's life is still there.
pub(crate) fn is_recycled(segment: &Path) -> bool {
    let bytes = fs::metadata(segment).expect("it was listed").len();
    let mut trailer = [0; 16];
    read(segment, bytes - PAGE_BYTES as u64, &mut trailer).expect("it was listed");
    let (magic, sequence) = trailer.split_at(8);
    magic == b"KTSEALED" && sequence != number(segment).to_le_bytes()
}

/// The spare has the header of the segment that it is going to be, and not that segment's name.
pub(crate) fn is_being_reused(spare: &Path) -> bool {
    let mut sequence = [0; 8];
    // The writer may be at work: a spare that is gone has been used.
    read(spare, SEQUENCE_AT, &mut sequence).is_ok() && sequence != number(spare).to_le_bytes()
}

fn read(file: &Path, offset: u64, into: &mut [u8]) -> io::Result<()> {
    File::open(file)?.read_exact_at(into, offset)
}

/// Sends what is dirty in some pages to the disk, as the kernel may at any moment.
///
/// `POSIX_FADV_DONTNEED` does that on Linux before it drops what is clean, as `sync_file_range` would.
/// Nothing is flushed, and nothing of the file system's own is written.
pub(crate) fn write_back(file: &Path, first_page: u64, pages: u64) {
    // Renamed or removed by a writer at work: then it is another range's turn.
    let Ok(file) = File::open(file) else { return };
    let bytes = NonZeroU64::new(pages * PAGE_BYTES as u64);
    fadvise(&file, first_page * PAGE_BYTES as u64, bytes, Advice::DontNeed).expect("an open file");
}

/// Writes random ranges of the log's files back, segments that are not in use yet included.
pub(crate) fn write_back_anywhere(directory: &Path, random: &mut Random) {
    let all: Vec<PathBuf> =
        ["wal", "new", "spare"].iter().flat_map(|kind| files(directory, kind)).collect();
    for file in all {
        let bytes = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        let pages = (bytes / PAGE_BYTES as u64).max(1);
        write_back(&file, random.below(pages), 1 + random.below(64));
    }
}

/// Has the page cache hold a file in single pages. The kernel writes what it holds in one piece back
/// as one, and a long write makes pieces of up to a megabyte: more than a group of frames.
pub(crate) fn hold_in_single_pages(file: &Path) {
    let file = File::open(file).expect("its writer stands still");
    fadvise(&file, 0, None, Advice::DontNeed).expect("an open file");
    // Without reading ahead, each read brings one page.
    fadvise(&file, 0, None, Advice::Random).expect("an open file");
    let mut page = [0; PAGE_BYTES];
    let bytes = file.metadata().expect("an open file").len();
    for offset in (0..bytes).step_by(PAGE_BYTES) {
        file.read_exact_at(&mut page, offset).expect("inside the file");
    }
}

/// Where a header page has its sequence number.
const SEQUENCE_AT: u64 = 40;
