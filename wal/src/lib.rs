//! A durable log: entries in order, on disk when you are told so.
//!
//! One [`Wal`] is one directory and one stream of bytes with one sync. It carries many [`Log`]s, so
//! that many writers share that sync: whoever appends while a sync runs comes into the next group.
//! An entry is an index, a term and bytes. Terms are opaque here, kept so that a consensus protocol
//! can ask for them without reading bytes; [`Log::push`] is for those who have none. Beside its
//! entries a log has one small *state* in the same stream, and so in one order with them.
//!
//! ```
//! use bytes::Bytes;
//! use kontiki_wal::{LogId, Wal};
//!
//! # let directory = tempfile::tempdir()?;
//! let wal = Wal::options().segment_bytes(1 << 20).open(directory.path().join("log"))?;
//! let log = wal.log(LogId(1))?;
//! let pending = log.append(1, 7, &[Bytes::from("one"), Bytes::from("two")])?;
//! assert_eq!(log.last(), 2); // Readable at once ...
//! pending.wait()?; // ... and durable from here on.
//! for entry in log.read(1..3, usize::MAX) {
//!     let entry = entry?;
//!     println!("{} of term {}: {:?}", entry.index, entry.term, entry.bytes);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What holds, whatever happens to the machine:
//!
//! - What a wait for durability returned `Ok` for is there after any stop, or opening, or the read
//!   of it in a sealed segment, says exactly what is damaged and changes nothing: a torn tail is told
//!   from damage by what later frames attest. What this takes from disks is in FORMAT.md, with what
//!   no log can tell of its last group.
//! - What opening shows is durable before it is shown.
//! - After the first failed write or sync nothing is acknowledged and nothing written any more; the
//!   log says so to every waiter and must be opened again.
//! - Bytes that a reader was given never change, though their segment be removed. A view pins its
//!   segment's space and the directory's lock, so copy what is kept for long.
//!
//! A medium error under a mapped read kills the process; opening a log and looking into one
//! ([`Wal::open_read_only`], [`inspect`], [`repair`]) therefore read through the file. The bytes are specified
//! in `FORMAT.md`. What can be done about damaged bytes is in [`repair`].
//!
//! # Events
//!
//! Through `tracing`, with targets that begin with `kontiki_wal`. Each is told once, not with every attempt, and `directory` is
//! the log's in each; but for the last two, which are told of every panic, and where they do not know whose it was.
//!
//! | level | message | further fields |
//! |---|---|---|
//! | info | opened | `lsn` up to which everything is durable, `segments`, `bytes` of all segments |
//! | warn | repairing after an unclean stop | `lsn` of the end, its `segment` and `offset`; `bytes_cut` behind it that frames which are cut claim, `headers_cut`, `segments_cut` |
//! | warn | cut or mended in place | by [`repair::truncate`]: `lsn` of the cut, if there is one, how many files were `changed` and `removed`, the `backup` of these |
//! | warn | salvaged | by [`repair::salvage`]: `into` which directory, of how many `logs`, how many of them are `harmed` |
//! | debug | rotated | `segment` that the log goes on in, its first `lsn`, its `bytes` |
//! | warn | cannot prepare a segment | `segment`, `bytes` that it takes, `error`; until one can be prepared, then `can prepare segments again` (info) |
//! | warn | cannot remove segments | `removed`, `kept` and renamed, `error`; until a removal succeeds |
//! | error | the log stops | `lsn` up to which everything is durable, `error` |
//! | error | a callback, waker or recorder panicked | none: it is the program's own code, and harms nobody else |
//! | error | a thread of the log panicked | none, when it is waited for at the end: `the log stops` told of it before |
//!
//! # Metrics
//!
//! With the feature `metrics` the log tells them to the recorder of the [`metrics`](https://docs.rs/metrics) facade that is
//! installed when it is opened for writing: once for each group and each job on segments, never for an entry. All have the
//! label `directory`; counters count since the log was opened. They are [`Statistics`] and more. Recorders and subscribers are
//! called outside the log's lock, when the work they hear of is done: they may use the log, and wait for it.
//!
//! | name | kind | unit | meaning |
//! |---|---|---|---|
//! | `kontiki_wal_appended_entries_total` | counter | count | entries taken by appends |
//! | `kontiki_wal_appended_bytes_total` | counter | bytes | bytes of frames taken, of entries and of the log's own |
//! | `kontiki_wal_written_bytes_total` | counter | bytes | bytes written to segments for groups, padding included |
//! | `kontiki_wal_syncs_total` | counter | count | groups that were synced |
//! | `kontiki_wal_rotations_total` | counter | count | segments that the log went on in |
//! | `kontiki_wal_rotation_waits_total` | counter | count | rotations that had to wait because the next segment was not ready |
//! | `kontiki_wal_sealed_segments_total` | counter | count | segments whose index and trailer were written |
//! | `kontiki_wal_recycled_segments_total` | counter | count | segments made of the file of a freed one |
//! | `kontiki_wal_pinned_segments_total` | counter | count | freed segments whose file could not be used again because a view of it lived |
//! | `kontiki_wal_preparation_failures_total` | counter | count | times that the next segment could not be made, mostly for want of space |
//! | `kontiki_wal_segments` | gauge | count | segments with frames |
//! | `kontiki_wal_segments_bytes` | gauge | bytes | length of all segments with frames |
//! | `kontiki_wal_unsynced_bytes` | gauge | bytes | bytes that were appended and not durable when the last group ended |
//! | `kontiki_wal_sync_seconds` | histogram | seconds | time that the write and the sync of a group took |
//! | `kontiki_wal_group_entries` | histogram | count | entries that one sync made durable |
//! | `kontiki_wal_group_bytes` | histogram | bytes | bytes written for one sync, padding included |
#![forbid(unsafe_code)]

mod bounds;
mod catalog;
mod checkpoint;
mod core;
mod error;
mod follow;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod header;
mod index;
pub mod inspect;
mod log;
mod metrics;
mod mode;
mod numbers;
mod options;
mod pending;
mod probe;
mod reader;
mod recovery;
pub mod repair;
mod sealed;
mod segment;
pub mod steps;
mod stream;
mod sync;
mod threads;
mod trailer;
mod waiters;
mod wal;

use crate::bounds::Bounds;
pub use kontiki_disk::WriteMode;

#[cfg(loom)]
#[doc(hidden)]
pub use crate::sync::pass_time;

pub use crate::{
    error::{AppendError, Corruption, OpenError, ReadError, WalError},
    follow::{Follow, FollowError, Followed},
    log::Log,
    options::Options,
    pending::Pending,
    probe::Probe,
    reader::{Entries, Entry, EntryView},
    wal::{Laggard, Statistics, Wal},
};

/// Names one of the logs of a [`Wal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u32);

/// A position in the stream that all logs share: bytes of frames since the beginning, dense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);
