//! A file of the machine's disk.

use std::{fs, io, io::IoSlice, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use rustix::io::Errno;

use super::{WriteMode, lock::Lock};
use crate::{
    map::Mapping,
    read_only,
    seam::{File, GrowingFile},
};

/// An open file.
#[derive(Debug)]
pub(super) struct RealFile {
    file: fs::File,
    /// The name it was opened under, for messages.
    name: String,
    bytes: u64,
    mapping: Mapping,
    mode: WriteMode,
    /// `None`: opened for reading.
    lock: Option<Arc<Lock>>,
}

impl RealFile {
    pub(super) fn new(
        file: fs::File,
        name: &str,
        lock: Option<Arc<Lock>>,
        mode: WriteMode,
        bytes: u64,
    ) -> Self {
        // What is opened for reading cannot be mapped for writing.
        let is_stored_into = mode == WriteMode::Mapped && lock.is_some();
        let mapping = Mapping::new(bytes, is_stored_into);
        Self { file, name: name.to_owned(), bytes, mapping, mode, lock }
    }
}

impl File for RealFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        if self.lock.is_none() {
            return Err(read_only(&self.name));
        }
        let count: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let end = offset.checked_add(count).expect("a write ends inside the file");
        match self.mode {
            WriteMode::Positional => {
                self.mapping.write(offset..end, || write_all(&self.file, offset, parts))
            }
            WriteMode::Mapped => {
                self.mapping.prepare(&self.file)?;
                self.mapping.store(offset..end, parts);
                Ok(())
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn publish(&self, end: u64) {
        assert!(self.lock.is_some(), "{} was opened for reading only", self.name);
        self.mapping.publish(end);
    }

    fn view(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        self.mapping.prepare(&self.file)?;
        Ok(Bytes::from_owner(View { file: self, range }))
    }
}

/// A new file that is appended to.
#[derive(Debug)]
pub(super) struct RealGrowingFile {
    file: fs::File,
    bytes: u64,
    /// Held as long as somebody writes.
    _lock: Option<Arc<Lock>>,
}

impl RealGrowingFile {
    pub(super) fn new(file: fs::File, lock: Option<Arc<Lock>>) -> Self {
        Self { file, bytes: 0, _lock: lock }
    }
}

impl GrowingFile for RealGrowingFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        write_all(&self.file, self.bytes, parts)?;
        self.bytes += parts.iter().map(|part| part.len() as u64).sum::<u64>();
        Ok(())
    }

    /// The length is among what fdatasync makes durable: without it the bytes could not be read.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// What a view keeps alive: the map, and with the file the directory's lock.
struct View {
    file: Arc<RealFile>,
    range: Range<u64>,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        self.file.mapping.get(self.range.clone())
    }
}

/// Writes all of `parts`, with one system call as a rule.
fn write_all(file: &fs::File, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> =
        parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
    let mut rest = slices.as_mut_slice();
    let mut at = offset;
    while !rest.is_empty() {
        match rustix::io::pwritev(file, &rest[..rest.len().min(SLICES_MAX)], at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut rest, written);
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// What Linux and macOS take in one call (IOV_MAX).
const SLICES_MAX: usize = 1024;

/// Gives a new file its length and its space.
pub(super) fn allocate(file: &fs::File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match reserve(file, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Asks the file system for the space. Not fs2's `allocate`, which misreports a full disk.
#[cfg(target_os = "linux")]
fn reserve(file: &fs::File, bytes: u64) -> rustix::io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};

    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn reserve(_file: &fs::File, _bytes: u64) -> rustix::io::Result<()> {
    Err(Errno::OPNOTSUPP)
}

fn write_zeros(file: &fs::File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS_BYTES];
    let mut at = 0;
    while at < bytes {
        let count = crate::size(bytes - at).min(ZEROS_BYTES);
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

/// Written at once where the file system cannot reserve.
const ZEROS_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_parts_than_one_call_takes_are_all_written() {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
        let mut parts: Vec<&[u8]> = bytes.chunks(2).collect();
        parts.insert(7, &[]);
        write_all(&file, 3, &parts).unwrap();

        let mut found = vec![0; 5003];
        file.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found[3..], bytes);
    }

    #[test]
    fn written_zeros_give_the_length_where_the_file_system_cannot_reserve() {
        let file = tempfile::tempfile().unwrap();
        write_zeros(&file, (1 << 20) + 5).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (1 << 20) + 5);
    }
}
