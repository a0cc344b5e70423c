//! The raw disk: what any log has to pay, and nothing else. Positional writes and fdatasync, one
//! after the other, on a file that was filled with zeros and synced before, so that no write has
//! to grow it or to convert an extent.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    latencies::Latencies,
    rounds::{Contender, RAW_DISK},
};

/// A file to write frames' worth of bytes to.
#[derive(Debug)]
pub struct RawDisk {
    file: File,
    offset: u64,
    bytes: Vec<u8>,
}

impl RawDisk {
    /// Makes a file in `directory` whose groups are `group_bytes` long.
    ///
    /// # Errors
    /// The disk's.
    pub fn create(directory: &Path, group_bytes: usize) -> io::Result<Self> {
        let path = directory.join(format!("raw-{group_bytes}"));
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        let zeros = vec![0; FILL_BYTES];
        for offset in (0..FILE_BYTES).step_by(FILL_BYTES) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        // Anything but zeros, so that no layer below can save itself the work.
        let bytes = (0..=u8::MAX).map(|byte| byte | 1).cycle().take(group_bytes).collect();
        Ok(Self { file, offset: 0, bytes })
    }

    /// Itself, under its name.
    ///
    /// # Panics
    /// Where the disk fails.
    pub fn contender(&mut self) -> Contender<'_> {
        Contender::new(RAW_DISK, |groups, latencies| {
            self.run(groups, latencies).expect("a disk that works")
        })
    }

    /// Writes and syncs `groups` groups, each where the last one ended; begins again at the
    /// file's start when its end is reached. How long it took.
    ///
    /// # Errors
    /// The disk's.
    pub fn run(&mut self, groups: u64, latencies: &mut Latencies) -> io::Result<Duration> {
        let length = self.bytes.len() as u64;
        let start = Instant::now();
        for _ in 0..groups {
            if self.offset + length > FILE_BYTES {
                self.offset = 0;
            }
            latencies.time(|| {
                self.file.write_all_at(&self.bytes, self.offset)?;
                self.file.sync_data()
            })?;
            self.offset += length;
        }
        Ok(start.elapsed())
    }
}

/// Bytes a second that the disk takes of a new file of `bytes` in `directory`, written in order and synced at its end, as an
/// image is. The file is removed.
///
/// # Errors
/// The disk's.
pub fn sequential_rate(directory: &Path, bytes: u64) -> io::Result<f64> {
    let path = directory.join("raw-sequential");
    let file = File::options().write(true).create_new(true).open(&path)?;
    let block: Vec<u8> = (0..=u8::MAX).map(|byte| byte | 1).cycle().take(FILL_BYTES).collect();
    let begun = Instant::now();
    for offset in (0..bytes).step_by(FILL_BYTES) {
        file.write_all_at(&block, offset)?;
    }
    file.sync_data()?;
    let took = begun.elapsed();
    fs::remove_file(path)?;
    Ok(bytes as f64 / took.as_secs_f64())
}

/// The size of the log's segments, so that both have the same pages in the cache.
pub const FILE_BYTES: u64 = 64 << 20;
const FILL_BYTES: usize = 1 << 20;
