//! Trying a place out before a log is made in it: groups written as a log writes them, into a segment that belongs to none.

use std::{io, path::Path, sync::Arc};

use bytes::BytesMut;
use kontiki_disk::{Directory, File};

use crate::{
    OpenError, Options,
    header::SegmentHeader,
    recovery::{lock, scan::io_error},
    segment::{FIRST_SEQUENCE, FRAMES_AT, PAGE_BYTES},
    steps::prepare,
    stream::pad,
    sync::AtomicBool,
};

/// A segment to measure with.
#[derive(Debug)]
pub struct Probe {
    /// Holds the lock.
    _directory: Arc<dyn Directory>,
    file: Arc<dyn File>,
    /// Where the next group begins.
    offset: u64,
    buffer: BytesMut,
}

impl Probe {
    /// Makes a segment in `directory` as a log with these options makes its next one: filled with zeros, and synced. The
    /// directory should be a temporary one: it becomes one of a log without a frame, and nothing is removed from it.
    ///
    /// # Errors
    /// `Options` if they are out of their ranges; `Locked` if the directory is in use; `Io` and `TooManyFiles`.
    pub fn create(options: &Options, directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        options.check()?;
        let directory = lock(&*options.disk_or_real(), directory.as_ref())?;
        let header = SegmentHeader {
            uuid: options.uuid.unwrap_or_default(),
            sequence: FIRST_SEQUENCE,
            segment_bytes: options.segment_bytes,
            owner: options.owner.unwrap_or_default(),
        };
        let file = prepare(&*directory, &header, &AtomicBool::new(false))
            .and_then(|file| directory.sync().map(|()| file))
            .map_err(|source| {
                let path = directory.path().display().to_string();
                io_error("make a segment in", &path, source)
            })?;
        Ok(Self { _directory: directory, file, offset: FRAMES_AT, buffer: BytesMut::new() })
    }

    /// Writes `group` behind the one before, padded to a page as a log pads its groups, and syncs it: it is durable then. Behind
    /// the last one that fits the next one is the first again, as in a segment whose file is used again.
    ///
    /// # Errors
    /// What the disk says.
    ///
    /// # Panics
    /// If the group is longer than the frames of a segment.
    pub fn write(&mut self, group: &[u8]) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.extend_from_slice(group);
        pad(self.offset, &mut self.buffer);
        // The last page would be the trailer's.
        if self.offset + self.buffer.len() as u64 > self.file.len() - PAGE_BYTES {
            assert!(self.offset > FRAMES_AT, "a group fits into a segment");
            self.offset = FRAMES_AT;
            return self.write(group);
        }
        self.file.write_at(self.offset, &[&self.buffer])?;
        self.offset += group.len() as u64;
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use kontiki_disk::MemoryDisk;

    use super::*;
    use crate::Wal;

    #[test]
    fn groups_lie_behind_each_other_durable_and_padded_and_begin_again_at_the_end() {
        let disk = MemoryDisk::new();
        let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
        let mut probe = Probe::create(&options, "probe").unwrap();
        let name = "probe/0000000000000001.wal";
        for (number, length, offset) in
            [(1, 3000, 4096), (2, 3000, 7096), (3, 2000, 10_096), (4, 3000, 4096)]
        {
            probe.write(&vec![number; length]).unwrap();
            assert!(disk.unsynced().is_empty(), "a group is durable when it is written");
            let contents = disk.contents(name).unwrap();
            assert_eq!(contents.len(), 16 << 10);
            let end = offset + length;
            assert!(contents[offset..end].iter().all(|&byte| byte == number), "{number}");
            let padding = &contents[end..end.next_multiple_of(4096)];
            assert!(padding.iter().all(|&byte| byte == 0), "{number}");
        }
    }
}
