//! The block device under a directory: what it says of itself, and what it counts, which tells whether a sync reached it.
//! The benches use this file, too.

use std::{
    fs, io,
    ops::{Add, Sub},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The whole device that a directory lies on. Others may use it too: measure on a quiet machine.
#[derive(Debug)]
pub struct Device {
    /// Its directory in sysfs.
    place: PathBuf,
}

impl Device {
    /// The device of `directory`; an error where the kernel does not show one (other systems than
    /// Linux, network and overlay file systems).
    ///
    /// # Errors
    /// The kernel's, or what it does not count.
    pub fn of(directory: &Path) -> io::Result<Self> {
        Self::numbered(fs::metadata(directory)?.dev())
    }

    /// The device that a special file stands for. Some file systems (btrfs) have numbers of their own.
    ///
    /// # Errors
    /// As for [`Device::of`].
    pub fn behind(special: &Path) -> io::Result<Self> {
        Self::numbered(fs::metadata(special)?.rdev())
    }

    fn numbered(number: u64) -> io::Result<Self> {
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let mut place = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}"))?;
        // Flushes are counted for the whole device only, not for its partitions.
        if place.join("partition").exists() {
            place.pop();
        }
        let device = Self { place };
        device.counters()?;
        Ok(device)
    }

    /// The kernel's name for it.
    pub fn name(&self) -> String {
        self.place.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// What it says of itself under this name, if it does.
    pub fn property(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.place.join(name)).ok()?;
        Some(text.trim().to_owned())
    }

    /// What it has counted since the machine started.
    ///
    /// # Errors
    /// The kernel's, or what it does not count.
    pub fn counters(&self) -> io::Result<Counters> {
        let text = fs::read_to_string(self.place.join("stat"))?;
        let field =
            |number: usize| -> Option<u64> { text.split_whitespace().nth(number)?.parse().ok() };
        // Fields as the kernel's Documentation/block/stat.rst counts them, from 0.
        match (field(6), field(15)) {
            (Some(sectors), Some(flushes)) => Ok(Counters { kib_written: sectors / 2, flushes }),
            _ => Err(io::Error::other("this kernel counts no flushes")),
        }
    }
}

/// Counted by a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Written to it.
    pub kib_written: u64,
    /// Times that it emptied its cache.
    pub flushes: u64,
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            kib_written: self.kib_written - earlier.kib_written,
            flushes: self.flushes - earlier.flushes,
        }
    }
}

impl Add for Counters {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            kib_written: self.kib_written + more.kib_written,
            flushes: self.flushes + more.flushes,
        }
    }
}
