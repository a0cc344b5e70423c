//! A file seen as memory: the only module of the project that may use `unsafe`.
//!
//! A shared map handed out as `&[u8]` is sound if the memory stays mapped and readable, and if
//! nothing changes it, for as long as the slice lives. It does, because:
//!
//! 1. A file has its full length before it is mapped, [`Mapping`] looks at the length again when it
//!    maps, and nothing in this crate shortens a file; so no access runs past its end (SIGBUS).
//! 2. Bytes below `published` are never written again: [`Mapping::write`] and [`Mapping::store`] are the
//!    only ways to write a file of an open directory, and refuse to begin below `published`; they
//!    hold `fence` (the second one alone, since two stores to one place would race), and `publish`
//!    holds it alone, so nothing becomes published during a write of it.
//! 3. There is one `Mapping` for each file of a directory, however often it is opened: the
//!    directory keeps the handle of every file that is open or in view (`real`).
//! 4. Nobody else who uses this crate writes: a directory has one writer by its lock, and every
//!    view holds the lock; a reader's handles can neither write nor publish, so they have no views.
//! 5. The map is made readable and is unmapped only when the `Mapping` is dropped, which every
//!    slice borrows.
//!
//! What remains is an assumption, the one that every program with a file map makes: no foreign
//! program writes, shortens or links elsewhere the files of a directory that is in use, and the
//! medium can be read. A medium error under a view is SIGBUS: what has to be looked at with
//! suspicion is read through the file instead.
#![expect(unsafe_code, reason = "lends a file map as slices, and stores into it; argued above")]

use std::{
    fs, io,
    ops::Range,
    ptr, slice,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::RwLock;

use crate::size;

/// The map of one file, made when it is first needed, and the rule of who may write.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The file's length.
    bytes: u64,
    raw: OnceLock<MmapRaw>,
    /// The map is made for stores, too.
    is_stored_into: bool,
    /// End of the bytes that may be lent. Only grows; `published <= bytes`.
    published: AtomicU64,
    fence: RwLock<()>,
}

impl Mapping {
    pub(crate) fn new(bytes: u64, is_stored_into: bool) -> Self {
        let (raw, published, fence) = (OnceLock::new(), AtomicU64::new(0), RwLock::new(()));
        Self { bytes, raw, is_stored_into, published, fence }
    }

    /// Runs `write`, which writes `range` of the file and nothing else.
    ///
    /// # Panics
    /// If `range` begins below what is published, or ends past the file.
    pub(crate) fn write(
        &self,
        range: Range<u64>,
        write: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let _shared = self.fence.read();
        let published = self.published.load(Ordering::Acquire);
        assert!(published <= range.start, "published bytes never change");
        assert!(range.start <= range.end && range.end <= self.bytes, "a write stays in the file");
        write()
    }

    /// Copies `parts` to `range`, as long as they are together, of the map.
    ///
    /// # Panics
    /// If `range` begins below what is published or ends past the file, or the map is not one for stores.
    pub(crate) fn store(&self, range: Range<u64>, parts: &[&[u8]]) {
        let _alone = self.fence.write();
        let published = self.published.load(Ordering::Acquire);
        assert!(published <= range.start, "published bytes never change");
        assert!(range.start <= range.end && range.end <= self.bytes, "a write stays in the file");
        assert!(self.is_stored_into, "a map for stores");
        let mut at = size(range.start);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            assert!(part.len() <= size(range.end) - at, "the parts are as long as the range");
            let raw = self.raw.get().expect("prepared before");
            // SAFETY: `at + part.len() <= range.end <= bytes`, the length of the map: the pointer stays in it.
            let start = unsafe { raw.as_mut_ptr().add(at) };
            // SAFETY: the bytes lie inside the map (above), which was made writable and is as long as the file (1). They lie at
            // or above `published`, so no slice shows them (2), and nothing else stores or becomes published
            // meanwhile: `fence` is held alone. `part` is other memory: a slice of this map would lie below.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), start, part.len()) };
            at += part.len();
        }
    }

    /// Lets [`Self::get`] show everything below `end`, which nothing writes any more.
    ///
    /// # Panics
    /// If `end` lies past the file.
    pub(crate) fn publish(&self, end: u64) {
        assert!(end <= self.bytes, "only what is inside the file can be published");
        let _alone = self.fence.write();
        // Release: pairs with the load in `get`, so whoever sees `end` sees the bytes, too.
        self.published.fetch_max(end, Ordering::Release);
    }

    /// Makes the map of `file`, the one this was made for, if there is none yet.
    pub(crate) fn prepare(&self, file: &fs::File) -> io::Result<()> {
        if self.raw.get().is_none() && self.bytes > 0 {
            if file.metadata()?.len() < self.bytes {
                let message = format!("the file was shortened from {} bytes", self.bytes);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
            }
            let mut options = MmapOptions::new();
            options.len(size(self.bytes));
            let raw = if self.is_stored_into {
                options.map_raw(file)?
            } else {
                options.map_raw_read_only(file)?
            };
            // Of two that were made at the same time, one is dropped before anyone used it.
            let _ = self.raw.set(raw);
        }
        Ok(())
    }

    /// The bytes of `range`.
    ///
    /// # Panics
    /// If `range` is not published, or [`Self::prepare`] was not called.
    pub(crate) fn get(&self, range: Range<u64>) -> &[u8] {
        let published = self.published.load(Ordering::Acquire);
        assert!(range.start <= range.end && range.end <= published, "only what is published shows");
        if range.is_empty() {
            return &[]; // An empty file has no map.
        }
        let raw = self.raw.get().expect("prepared before");
        // SAFETY: `start <= published <= bytes`, the length of the map: the pointer stays in it.
        let start = unsafe { raw.as_ptr().add(size(range.start)) };
        // SAFETY: `range` lies inside the map (above), which is readable and as long as the file
        // (1); nothing writes below `published` any more (2, 3, 4); `self` is borrowed as long as
        // the slice and keeps the map (5). Bytes have no alignment and no invalid values.
        unsafe { slice::from_raw_parts(start, size(range.end - range.start)) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn file() -> (fs::File, Mapping) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        (file, Mapping::new(4096, true))
    }

    #[test]
    fn what_is_written_through_the_file_shows_in_the_map() {
        let (file, mapping) = file();
        mapping.prepare(&file).unwrap();
        mapping.write(0..6, || file.write_all_at(b"abcdef", 0)).unwrap();
        mapping.publish(3);
        assert_eq!(mapping.get(0..3), b"abc");
        mapping.write(3..4, || file.write_all_at(b"x", 3)).unwrap();
        mapping.publish(6);
        assert_eq!(mapping.get(2..6), b"cxef");
    }

    #[test]
    #[should_panic(expected = "only what is published shows")]
    fn nothing_shows_that_is_not_published() {
        let (file, mapping) = file();
        mapping.prepare(&file).unwrap();
        mapping.publish(3);
        mapping.get(0..4);
    }

    #[test]
    #[should_panic(expected = "published bytes never change")]
    fn nothing_published_is_written() {
        let (_file, mapping) = file();
        mapping.publish(3);
        let _ = mapping.write(2..4, || unreachable!("refused before it is tried"));
    }

    #[test]
    fn what_is_stored_into_the_map_is_in_the_file() {
        let (file, mapping) = file();
        mapping.prepare(&file).unwrap();
        mapping.publish(2);
        mapping.store(2..7, &[b"ab", b"", b"cde"]);
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0abcde\0");
    }

    #[test]
    #[should_panic(expected = "published bytes never change")]
    fn nothing_published_is_stored_over() {
        let (file, mapping) = file();
        mapping.prepare(&file).unwrap();
        mapping.publish(3);
        mapping.store(2..4, &[b"no"]);
    }

    #[test]
    #[should_panic(expected = "the parts are as long as the range")]
    fn no_store_goes_beyond_its_range() {
        let (file, mapping) = file();
        mapping.prepare(&file).unwrap();
        mapping.store(4090..4096, &[b"123456", b"7"]);
    }

    #[test]
    fn a_file_that_became_shorter_is_not_mapped() {
        let (file, mapping) = file();
        file.set_len(100).unwrap();
        let error = mapping.prepare(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
