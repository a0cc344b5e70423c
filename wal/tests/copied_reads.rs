//! What reading by copy keeps in memory: the indexes of a few segments, however many it has read, and no map.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{alloc::System, fs, path::Path, time::Duration};

use cap::Cap;
use kontiki_wal::{Followed, LogId, Wal};

use support::mode;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const LOG: LogId = LogId(1);
const SEGMENT_BYTES: usize = 256 << 10;
/// A frame of one entry takes 64 bytes, and 8 in the index.
const INDEX_BYTES: usize = SEGMENT_BYTES / 64 * 8;
const SEGMENTS: u64 = 40;

fn fill(path: &Path) {
    let wal = Wal::options()
        .segment_bytes(SEGMENT_BYTES as u64)
        .write_mode(mode())
        .without_threads()
        .open(path)
        .unwrap();
    let log = wal.log(LOG).unwrap();
    while wal.statistics().segments < SEGMENTS {
        while log.push(text(log.last() + 1)).is_ok() {}
        wal.work(Duration::ZERO);
    }
    wal.close().unwrap();
    assert!(wal.statistics().sealed_segments >= SEGMENTS - 2);
}

fn text(index: u64) -> String {
    format!("{index:08}")
}

/// How many maps this process has of files in a directory; `None` where the system does not tell.
fn maps(directory: &Path) -> Option<usize> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let directory = directory.canonicalize().unwrap();
    Some(maps.lines().filter(|line| line.contains(directory.to_str().unwrap())).count())
}

/// One test, so that nothing else uses the heap meanwhile.
#[test]
fn reading_by_copy_keeps_the_indexes_of_a_few_segments_and_maps_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path());
    for is_read_only in [true, false] {
        // Of the size that the log has: else the opening writes, and where it writes through maps it makes one.
        let options = Wal::options().segment_bytes(SEGMENT_BYTES as u64).write_mode(mode());
        let options = options.without_threads().copied_reads();
        let wal = if is_read_only {
            options.open_read_only(directory.path()).unwrap()
        } else {
            options.open(directory.path()).unwrap()
        };
        let log = wal.log(LOG).unwrap();
        let before = HEAP.allocated();
        // Twice, so that what was let go is read again; several in each segment.
        let step = usize::try_from(log.last() / SEGMENTS / 3).unwrap();
        for index in (1..=log.last()).step_by(step).chain((1..=log.last()).step_by(step)) {
            let entry = log.read(index..index + 1, usize::MAX).next().unwrap().unwrap();
            assert_eq!(entry.bytes, text(index));
        }
        let mut follow = log.follow(1).unwrap();
        for index in 1..=log.last() {
            let followed = follow.try_next().unwrap();
            let Some(Followed::Entry(entry)) = followed else { panic!("{followed:?}") };
            assert_eq!((entry.index, entry.bytes), (index, text(index).into()));
        }
        drop(follow);
        let kept = HEAP.allocated() - before;
        println!("{kept} bytes kept, {INDEX_BYTES} for each index");
        assert!(kept > INDEX_BYTES, "the last ones are kept");
        assert!(kept < 9 * INDEX_BYTES, "{kept} bytes of {} that were read", 40 * INDEX_BYTES);
        assert!(maps(directory.path()).is_none_or(|maps| maps == 0), "a map can be a signal");
    }
    let wal = Wal::options().write_mode(mode()).without_threads().open(directory.path()).unwrap();
    let entry = wal.log(LOG).unwrap().read(1..2, usize::MAX).next().unwrap().unwrap();
    assert!(maps(directory.path()).is_none_or(|maps| maps > 0), "other reads map");
    assert_eq!(entry.bytes, text(1));
}
