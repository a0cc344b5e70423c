//! What can go wrong, one enum per operation.

use std::{
    io::{self, ErrorKind},
    sync::Arc,
};

use crate::{LogId, repair::Stage};

/// Damaged bytes, with their place and, where the frame's header is whole or was before one bit of it was flipped, what is
/// lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corruption in {segment} at offset {offset}: {what}{}", details(self))]
#[non_exhaustive]
pub struct Corruption {
    /// File name of the segment.
    pub segment: String,
    /// Byte offset of the frame in that file; 0 for the segment's header page.
    pub offset: u64,
    /// What failed: a noun phrase such as "checksum of a frame's body".
    pub what: String,
    /// The log the frame belongs to, where its header tells it; else, of a read, the log that was read.
    pub log: Option<LogId>,
    /// First and last index of its entries, where its header tells them and it holds entries; of a missing file, the first
    /// entries that no segment holds, up to the next one that is held; else, of a read, the one index that was asked for, which
    /// may not be all that is lost.
    pub indexes: Option<(u64, u64)>,
    /// Term of its entries, likewise.
    pub term: Option<u64>,
    /// What the bytes should have given: a checksum, a link, a position. Equal to `found` where nothing was compared.
    pub expected: u64,
    /// What they gave.
    pub found: u64,
}

/// In brackets: the numbers that were compared, and what is lost.
fn details(corruption: &Corruption) -> String {
    let Corruption { expected, found, .. } = corruption;
    let numbers = (expected != found).then(|| format!("expected {expected:#x}, found {found:#x}"));
    let log = corruption.log.map(|log| {
        let indexes =
            corruption.indexes.map(|(first, last)| format!(", indexes {first} to {last}"));
        let term = corruption.term.map(|term| format!(", term {term}"));
        format!("log {}{}{}", log.0, indexes.unwrap_or_default(), term.unwrap_or_default())
    });
    let parts: Vec<String> = numbers.into_iter().chain(log).collect();
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join("; ")) }
}

/// Why a directory cannot be opened. Nothing in it was changed unless the variant is `Io` or `TooManyFiles`.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another `Wal`, here or in another process, or a view of one, holds the directory.
    #[error("{directory} is in use by {}", user_text(*holder))]
    Locked {
        /// The directory.
        directory: String,
        /// The process, if it has written its number down.
        holder: Option<u32>,
    },
    /// A repair of the log was begun and has not ended: see [`Mark`](crate::repair::Mark).
    #[error("a repair of {directory} was begun and not finished: {}", way_out(*stage, directory))]
    RepairUnfinished {
        /// The directory.
        directory: String,
        /// How far it came.
        stage: Stage,
    },
    /// Bytes that were durable are damaged; no file was changed.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// The directory was created with other owner bytes than [`Options::owner`](crate::Options::owner) gave.
    #[error("{directory} belongs to another owner")]
    OtherOwner {
        /// The directory.
        directory: String,
        /// The owner bytes in it.
        found: [u8; 32],
    },
    /// A later version wrote the segment in a format that this one cannot read.
    #[error("{segment} has format {found}; this version reads {supported}; use a newer Kontiki")]
    NewerFormat {
        /// File name of the segment.
        segment: String,
        /// Its format.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// The segment uses features without which it cannot be read, and this version lacks them.
    #[error(
        "{segment} needs features {found:#x}; this version has {supported:#x}; use a newer Kontiki"
    )]
    UnknownFeatures {
        /// File name of the segment.
        segment: String,
        /// The feature bits it needs.
        found: u32,
        /// Those this version has.
        supported: u32,
    },
    /// The segment carries another log's uuid: it was copied here from elsewhere.
    #[error("{segment} belongs to another log than {other}; remove the one that was copied here")]
    OtherLog {
        /// File name of the segment.
        segment: String,
        /// A segment with another uuid.
        other: String,
    },
    /// A segment that live entries lie in is not there.
    #[error(
        "segment {missing} is missing, {needed_by} needs it: put it back if it is anywhere; \
         `wal-inspect repair` says what is left without it"
    )]
    MissingSegment {
        /// File name of the segment that should be there.
        missing: String,
        /// What lies in it.
        needed_by: String,
    },
    /// The disk refused.
    #[error("{operation} {path}: {source}")]
    Io {
        /// A verb: what was tried.
        operation: &'static str,
        /// On which file or directory.
        path: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The process, or the system, has too many files open; a log keeps one open for each segment. See
    /// [`Options::open`](crate::Options::open).
    #[error("open {path}: {source}; {RAISE_THE_LIMIT}")]
    TooManyFiles {
        /// The file or directory that could not be opened.
        path: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// An option is out of its range.
    #[error("option {option}: {reason}")]
    Options {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with its value.
        reason: &'static str,
    },
}

fn user_text(holder: Option<u32>) -> String {
    match holder {
        Some(process) if process == std::process::id() => {
            format!("this process, {process}: close the log, and drop what it lent out")
        }
        Some(process) => format!("process {process}; stop it first"),
        None => "another process or by this one; stop it first".to_owned(),
    }
}

fn way_out(stage: Stage, directory: &str) -> String {
    match stage {
        Stage::Salvaging => "remove that directory, and salvage again".to_owned(),
        Stage::Cutting | Stage::Done => {
            format!("do it again with `wal-inspect repair {directory} --truncate-tail --yes`")
        }
    }
}

const RAISE_THE_LIMIT: &str = "a log keeps a file open for each segment: raise the limit of open files \
     (ulimit -n; of the system fs.file-max)";

/// A disk that has no room for a segment's file: too few bytes, or no file more.
#[derive(Debug, thiserror::Error)]
#[error("{source}, the file takes {}", size(*bytes))]
struct NoRoom {
    /// Length of the file; all of it is taken when it is made.
    bytes: u64,
    /// The system's answer.
    source: io::Error,
}

/// Says of a disk that is full, or a quota that is used up, how much a new segment of `bytes` takes; keeps the kind of the
/// error. Others are as they were.
pub(crate) fn with_needed_room(error: io::Error, bytes: u64) -> io::Error {
    match error.kind() {
        kind @ (ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            io::Error::new(kind, NoRoom { bytes, source: error })
        }
        _ => error,
    }
}

/// For people; the size of a segment is a multiple of 4 KiB.
fn size(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    }
}

/// Why nothing more becomes durable.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// A write or a sync failed. Nothing is retried, because a second sync can succeed over lost data.
    #[error("poisoned: {operation} of {segment} failed: {source}; reopen the log")]
    Poisoned {
        /// What failed.
        operation: &'static str,
        /// On which segment or directory.
        segment: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// [`Wal::close`](crate::Wal::close) was called.
    #[error("the log is closed")]
    Closed,
    /// The log was opened by [`Wal::open_read_only`](crate::Wal::open_read_only).
    #[error("opened read-only")]
    ReadOnly,
    /// The thread that was syncing panicked; as after a failed sync, nothing more is written.
    #[error("the syncer panicked; reopen the log")]
    SyncerPanicked,
}

/// Why an operation was refused. Nothing of it was taken.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is poisoned, closed or read-only.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Too much waits for the disk, or the next segment is not ready yet. See [`Log::on_room`](crate::Log::on_room).
    #[error(
        "{unsynced} bytes wait to be synced, the bound is {limit}, or the next segment is not ready; nothing was taken"
    )]
    Full {
        /// Bytes that were appended and are not durable.
        unsynced: u64,
        /// The bound, from [`Options::unsynced_bytes_max`](crate::Options::unsynced_bytes_max).
        limit: u64,
    },
    /// The next segment could not be made: mostly for want of space, else the source says why. Clears by itself once one
    /// can be made.
    #[error("cannot make another segment ({source}); nothing was taken")]
    NoSpace {
        /// What the disk says, and where it has no room for a new file, how much that takes.
        source: Arc<io::Error>,
    },
    /// The next segment could not be opened: the process, or the system, has too many files open. Clears by itself when
    /// others are closed. See [`Options::open`](crate::Options::open).
    #[error("no file for another segment ({source}): {RAISE_THE_LIMIT}; nothing was taken")]
    TooManyFiles {
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The segments take what they may take together. Compact the logs that [`Wal::laggards`](crate::Wal::laggards) names.
    #[error(
        "the segments take {bytes} bytes, the bound is {limit}: compact a log; nothing was taken"
    )]
    LogFull {
        /// Bytes of all segments.
        bytes: u64,
        /// The bound, from [`Options::log_bytes_max`](crate::Options::log_bytes_max).
        limit: u64,
    },
    /// What the logs need at the start of every segment would be beyond a quarter of it: too many logs, runs of terms or
    /// states for segments of this size.
    #[error(
        "{bytes} bytes of logs, runs of terms and states; the limit for this segment size is {limit}; nothing was taken"
    )]
    CheckpointTooLarge {
        /// Length of a checkpoint with this.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An entry, a state or a whole call is beyond its limit.
    #[error("{bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The first index is beyond the last one plus one.
    #[error("index {index} leaves a gap, the next is {next}")]
    Gap {
        /// The index given.
        index: u64,
        /// The next index of the log.
        next: u64,
    },
    /// The index was compacted away.
    #[error("index {index} is below the first, {first}")]
    Compacted {
        /// The index given.
        index: u64,
        /// The first index of the log.
        first: u64,
    },
    /// The index is beyond what the log holds.
    #[error("index {index} is beyond last + 1 = {limit}")]
    Beyond {
        /// The index given.
        index: u64,
        /// The largest that would do.
        limit: u64,
    },
    /// An append without entries.
    #[error("no entries")]
    Empty,
    /// Terms never decrease along a log.
    #[error("term {term} is below {newest}, the term of the entry before")]
    TermDecreases {
        /// The term given.
        term: u64,
        /// The term of the entry before.
        newest: u64,
    },
}

/// Why an entry cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The entry was compacted away.
    #[error("index {index} was compacted, the first is {first}")]
    Compacted {
        /// The index asked for.
        index: u64,
        /// The first index of the log.
        first: u64,
    },
    /// The entry's bytes are damaged.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// The log was opened for reading only, and its writer has freed the segment and used its file again.
    #[error("segment {segment} was freed meanwhile and its file used again; open the log again")]
    Recycled {
        /// File name of the segment.
        segment: String,
    },
    /// The disk refused.
    #[error("read {segment}: {source}")]
    Io {
        /// File name of the segment.
        segment: String,
        /// The system's answer.
        source: Arc<io::Error>,
    },
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn a_full_disk_is_told_with_the_room_that_a_segment_takes() {
        for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let disk = io::Error::from(kind).to_string();
            for (bytes, needs) in
                [(64 << 20, "64 MiB"), (4 << 20, "4 MiB"), (1100 << 10, "1100 KiB")]
            {
                let error = with_needed_room(kind.into(), bytes);
                assert_eq!(error.to_string(), format!("{disk}, the file takes {needs}"));
                assert_eq!(error.kind(), kind);
            }
        }
        let error = with_needed_room(io::Error::from_raw_os_error(28), 4096);
        assert!(error.source().is_some(), "the system's own error is behind it");
    }

    #[test]
    fn who_uses_a_directory_is_named_as_far_as_that_is_known() {
        let own = std::process::id();
        for (holder, told) in [
            (None, "d is in use by another process or by this one; stop it first".to_owned()),
            (Some(own + 1), format!("d is in use by process {}; stop it first", own + 1)),
            (Some(own), format!("d is in use by this process, {own}: close the log")),
        ] {
            let error = OpenError::Locked { directory: "d".to_owned(), holder };
            assert!(error.to_string().starts_with(&told), "{error}");
        }
    }

    #[test]
    fn what_needs_no_room_is_told_as_it_is() {
        let error = with_needed_room(io::Error::from_raw_os_error(5), 64 << 20);
        assert_eq!(error.raw_os_error(), Some(5));
    }
}
