//! Whole directories: what opening makes of them, and what is read afterwards.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_disk::MemoryDisk;
use kontiki_wal::{
    FollowError, LogId, OpenError, Options, Wal,
    inspect::{Effort, Scan, Verdict},
};

use super::{
    directory::{DIRECTORY, Directory, unpack},
    within,
};

/// Opens the directory for writing: a log that can be read and goes on, or an error that left everything as it was.
pub fn recovery(input: &[u8]) {
    let directory = unpack(input);
    let disk = directory.disk.clone();
    let before = (disk.operations(), disk.fingerprint());
    within(heap(&directory), || match open(&directory, &disk, 1) {
        Err(error) => {
            assert!(!matches!(error, OpenError::Io { .. }), "the disk did not fail: {error}");
            let after = (disk.operations(), disk.fingerprint());
            assert_eq!(before, after, "a refused log is left alone: {error}");
        }
        Ok(wal) => go_on(&directory, wal),
    });
}

/// What was shown is there after a power cut, and what is appended is there after a close.
fn go_on(directory: &Directory, wal: Wal) {
    let shown = shown(&wal);
    let cut = directory.disk.image(|_| false);
    let again = open(directory, &cut, 2).expect("what was opened opens again");
    assert_eq!(self::shown(&again), shown, "what opening shows is durable");
    drop(again);
    let log = wal.log(LogId(1)).expect("every log has a handle");
    // The first may need a segment, which the log then asks for.
    for _ in 0..3 {
        let _ = log.push(Bytes::from_static(b"one more"));
        let _ = log.set_state(Bytes::from_static(b"a state"));
        wal.work(Duration::ZERO);
    }
    let _ = log.compact_before(log.last() + 1);
    wal.work(Duration::ZERO);
    let left = self::shown(&wal);
    wal.close().expect("the disk does not fail");
    drop((log, wal));
    let again = open(directory, &directory.disk.reopen(), 3).expect("a closed log opens");
    assert_eq!(self::shown(&again), left, "what was appended is there after a close");
}

/// Opens the directory for reading and looks into its files; both change nothing.
pub fn look(input: &[u8]) {
    let directory = unpack(input);
    let before = directory.disk.operations();
    within(heap(&directory), || {
        scan(&directory);
        if let Ok(wal) = options(&directory, &directory.disk, 1).open_read_only(DIRECTORY) {
            shown(&wal);
        }
    });
    assert_eq!(directory.disk.operations(), before, "a look changes nothing");
}

fn scan(directory: &Directory) {
    let Ok(scan) = Scan::open_on(&directory.disk, DIRECTORY) else { return };
    let refused = matches!(scan.verdict(), Verdict::Corrupt(_));
    let effort = Effort { is_deep: true, ..Effort::default() };
    let deep = Scan::open_on_with(&directory.disk, DIRECTORY, effort).expect("as the plain one");
    let is_found = matches!(deep.verdict(), Verdict::Corrupt(_));
    assert!(is_found || !refused, "a deep look finds what a plain one does");
    let mut bytes = 0;
    for frame in scan.frames() {
        let Ok(frame) = frame else { continue };
        bytes += usize::try_from(frame.frame_bytes).expect("64-bit only");
        frame.entries();
        frame.checkpoint().for_each(drop);
    }
    assert!(bytes <= directory.bytes, "no byte is shown twice");
    if let (false, Err(error)) = (refused, open(directory, &directory.disk.reopen(), 1)) {
        let other = matches!(error, OpenError::Options { .. });
        assert!(other, "a look at the files finds what opening refuses: {error}");
    }
}

/// Bounds, runs of terms and state of every log.
pub(super) type Shown = Vec<(LogId, u64, u64, Vec<(u64, u64)>, Option<Bytes>)>;

/// What a log shows. Entries are read, too; those of sealed segments may turn out to be damaged.
pub(super) fn shown(wal: &Wal) -> Shown {
    let mut shown = Shown::new();
    for id in wal.logs() {
        let log = wal.log(id).expect("every log has a handle");
        let (first, last) = (log.first(), log.last());
        let mut next = first;
        for entry in log.read(first..last + 1, usize::MAX).map_while(Result::ok) {
            assert_eq!(entry.index, next, "entries come in order");
            assert_eq!(log.term(next), Some(entry.term), "runs and entries agree");
            next += 1;
        }
        assert!(next <= last + 1, "nothing behind the last entry is read");
        // One from the middle, where the first is damaged.
        let middle = first + (last + 1 - first) / 2;
        log.read(middle..last + 1, 1).map_while(Result::ok).for_each(drop);
        if let Ok(mut follow) = log.follow(first) {
            // An index that locates entries in frames that were replaced later tells of them for ever.
            let _ = (0..EVENTS_MAX).try_for_each(|_| match follow.try_next() {
                Ok(Some(_)) | Err(FollowError::Compacted { .. }) => Some(()),
                Ok(None) | Err(_) => None,
            });
        }
        shown.push((id, first, last, log.runs(), log.state()));
    }
    wal.laggards();
    shown
}

pub(super) fn open(directory: &Directory, disk: &MemoryDisk, nonce: u64) -> Result<Wal, OpenError> {
    options(directory, disk, nonce).open(DIRECTORY)
}

pub(super) fn options(directory: &Directory, disk: &MemoryDisk, nonce: u64) -> Options {
    Wal::options()
        .segment_bytes(directory.segment_bytes)
        .nonce(nonce)
        .disk(Arc::new(disk.clone()))
        .without_threads()
}

/// What may be held at a time: the files of several disks, and windows of them. A checkpoint that speaks of a million
/// segments is no excuse.
pub(super) fn heap(directory: &Directory) -> usize {
    (1 << 20) + 32 * directory.bytes
}

const EVENTS_MAX: usize = 5000;
