//! What can be chosen when a log is opened.

use std::{path::Path, sync::Arc};

use kontiki_disk::{Disk, WriteMode};

use crate::{OpenError, Wal, header::is_segment_size};

/// Smallest size of a segment.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Largest size of a segment.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Largest entry, whatever the segment.
pub(crate) const ENTRY_BYTES_MAX: u64 = 16 << 20;
/// Largest state of a log, whatever the segment.
pub(crate) const STATE_BYTES_MAX: u64 = 4 << 10;

/// Options of a log; made by [`Wal::options`].
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) segment_bytes: u64,
    pub(crate) unsynced_bytes_max: u64,
    pub(crate) log_bytes_max: u64,
    pub(crate) owner: Option<[u8; 32]>,
    pub(crate) uuid: Option<[u8; 16]>,
    pub(crate) nonce: Option<u64>,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) write_mode: WriteMode,
    pub(crate) threads: bool,
    pub(crate) copied_reads: bool,
    /// Of a repair, which has marked the directory itself.
    pub(crate) ignores_mark: bool,
}

impl Options {
    pub(crate) fn new() -> Self {
        Self {
            segment_bytes: 64 << 20,
            unsynced_bytes_max: 32 << 20,
            log_bytes_max: u64::MAX,
            owner: None,
            uuid: None,
            nonce: None,
            disk: None,
            write_mode: WriteMode::default(),
            threads: true,
            copied_reads: false,
            ignores_mark: false,
        }
    }

    /// Size of new segments: 16 KiB to 1 GiB, a multiple of 4 KiB; 64 MiB by default. An entry is at most a quarter of
    /// it (and 16 MiB), a state an eighth (and 4 KiB). Existing segments keep their size, and the first
    /// segment of a log is at most 4 MiB: an entry that is too large for it is `Full` until the second one is there.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Bytes that may wait for the disk before appends are refused as `Full`; 32 MiB by default. It bounds the memory
    /// of the staging buffer. One call is always taken when nothing waits.
    pub fn unsynced_bytes_max(mut self, bytes: u64) -> Self {
        self.unsynced_bytes_max = bytes;
        self
    }

    /// Bytes that all segments may take together before entries are refused as `LogFull`; unlimited by default. States,
    /// truncations and compactions are still taken, if need be with one segment more, and a compaction makes room. Two spares
    /// and what is about to be removed come on top. At least four segments.
    pub fn log_bytes_max(mut self, bytes: u64) -> Self {
        self.log_bytes_max = bytes;
        self
    }

    /// Opaque bytes that say whose log this is: written at creation, checked at every open for writing that gives them.
    pub fn owner(mut self, owner: [u8; 32]) -> Self {
        self.owner = Some(owner);
        self
    }

    /// The uuid of a log that is created; drawn at random by default. Has no effect on an existing log.
    pub fn uuid(mut self, uuid: [u8; 16]) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// A number that no other opening of this directory has; drawn at random by default. It goes into the chain of frames,
    /// so that nothing an earlier opening left behind the end can follow on what this one writes. For simulations.
    pub fn nonce(mut self, nonce: u64) -> Self {
        self.nonce = Some(nonce);
        self
    }

    /// The disk to use; the real one by default.
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Reads entries by copying them through the file: a medium error is an error then, where a mapped read would end the
    /// process by a signal (SIGBUS). A view pins nothing. The indexes of the eight
    /// sealed segments that were read last are kept in memory then: 8 bytes for each frame.
    pub fn copied_reads(mut self) -> Self {
        self.copied_reads = true;
        self
    }

    /// How bytes get into the segments of the real disk; positional by default. The bytes are the same.
    pub fn write_mode(mut self, mode: WriteMode) -> Self {
        self.write_mode = mode;
        self
    }

    /// No threads of its own: the caller calls [`Wal::work`], or runs the steps of [`steps`](crate::steps). A blocking wait
    /// still syncs by itself.
    pub fn without_threads(mut self) -> Self {
        self.threads = false;
        self
    }

    /// Opens the log in `directory` for writing, or creates it. What an unclean stop left is repaired first.
    ///
    /// # Open files
    /// An open log keeps a file open for each of its segments: 16,384 for each TiB in segments of 64 MiB, 1,024 in the
    /// largest ones. When half of what the process may have open is used, the real disk doubles the soft limit, up to the hard
    /// one (`ulimit -Hn`), which has to be large enough; beyond it opening and appending say `TooManyFiles`. A segment that was
    /// read is mapped, too: beyond 65,530 maps a Linux system needs a larger `vm.max_map_count`, or
    /// [`copied_reads`](Self::copied_reads), which map nothing.
    ///
    /// # Errors
    /// See [`OpenError`]; after any but `Io` and `TooManyFiles` no file was changed.
    pub fn open(self, directory: impl AsRef<Path>) -> Result<Wal, OpenError> {
        Wal::open_for_writing(self, directory.as_ref())
    }

    /// Opens the log in `directory` as [`Wal::open_read_only`] does, on this disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_read_only(self, directory: impl AsRef<Path>) -> Result<Wal, OpenError> {
        Wal::open_for_reading(self, directory.as_ref())
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        if !is_segment_size(self.segment_bytes) {
            let reason = "must be 16 KiB to 1 GiB and a multiple of 4 KiB";
            return Err(OpenError::Options { option: "segment_bytes", reason });
        }
        if self.log_bytes_max < 4 * self.segment_bytes {
            let reason = "must be at least four segments";
            return Err(OpenError::Options { option: "log_bytes_max", reason });
        }
        if self.unsynced_bytes_max == 0 {
            let reason = "must not be 0";
            return Err(OpenError::Options { option: "unsynced_bytes_max", reason });
        }
        Ok(())
    }

    pub(crate) fn disk_or_real(&self) -> Arc<dyn Disk> {
        self.disk.clone().unwrap_or_else(|| kontiki_disk::real_writing(self.write_mode))
    }
}
