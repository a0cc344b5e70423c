//! What grows with a log and what does not: the heap does not, nor does the time to open it, beyond the number of segments.
//! `KONTIKI_LARGE=1` uses the sizes of the promise (1 and 4 GiB of heap, 10 GiB to open), and takes minutes.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{
    alloc::System,
    env,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cap::Cap;
use kontiki_wal::{Log, LogId, Wal};

use support::mode;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Sizes of two logs whose heap is compared, of a log to be opened, and of a segment.
struct Sizes {
    small: u64,
    large: u64,
    opened: u64,
    segment: u64,
    /// Each entry has a frame of its own: 8 bytes kept for each would make more than a difference of 1 MiB.
    entry: usize,
}

fn sizes() -> Sizes {
    match env::var_os("KONTIKI_LARGE") {
        Some(_) => Sizes {
            small: 1 << 30,
            large: 4 << 30,
            opened: 10 << 30,
            segment: 64 << 20,
            entry: 960,
        },
        None => Sizes {
            small: 16 << 20,
            large: 64 << 20,
            opened: 64 << 20,
            segment: 1 << 20,
            entry: 40,
        },
    }
}

fn fill(wal: &Wal, log: &Log, sizes: &Sizes, bytes: u64) {
    let entries = [Bytes::from(vec![7; sizes.entry])];
    let target = bytes / sizes.segment;
    // Ends at the same place of a segment whatever the size.
    while wal.statistics().segments < target {
        while let Ok(pending) = log.append(log.last() + 1, 1, &entries) {
            if wal.statistics().segments >= target {
                return pending.wait().unwrap();
            }
            if log.last().is_multiple_of(64 * 256) {
                pending.wait().unwrap();
            }
        }
        wal.work(Duration::ZERO);
    }
}

fn open(path: &Path, segment_bytes: u64) -> Wal {
    Wal::options()
        .segment_bytes(segment_bytes)
        .write_mode(mode())
        .without_threads()
        .open(path)
        .unwrap()
}

/// One test, so that nothing else uses the heap meanwhile.
#[test]
fn neither_heap_nor_opening_grows_with_entries() {
    let sizes = sizes();
    let Sizes { small, large, opened, segment, .. } = sizes;
    let directory = tempfile::tempdir().unwrap();
    let mut heaps = Vec::new();
    for bytes in [small, large] {
        let path = directory.path().join(bytes.to_string());
        let before = HEAP.allocated();
        let wal = open(&path, segment);
        let log = wal.log(LogId(1)).unwrap();
        fill(&wal, &log, &sizes, bytes);
        heaps.push(HEAP.allocated() - before);
        assert!(wal.statistics().sealed_segments >= bytes / segment - 2);
        drop((wal, log));
        let before = HEAP.allocated();
        let wal = open(&path, segment);
        heaps.push(HEAP.allocated() - before);
        let entries = wal.log(LogId(1)).unwrap().last();
        println!("{bytes} bytes, {entries} entries: {heaps:?} bytes of heap");
        drop(wal);
        std::fs::remove_dir_all(&path).unwrap();
    }
    let [small_live, small_opened, large_live, large_opened] = heaps[..] else { unreachable!() };
    for (large, small) in [(large_live, small_live), (large_opened, small_opened)] {
        assert!(large.abs_diff(small) < 1 << 20, "{large} against {small}");
    }

    let path = directory.path().join("opened");
    let wal = open(&path, segment);
    fill(&wal, &wal.log(LogId(1)).unwrap(), &sizes, opened);
    wal.close().unwrap();
    drop(wal);
    let start = Instant::now();
    let wal = open(&path, segment);
    let took = start.elapsed();
    println!("{opened} bytes open in {took:?}, {:?}", wal.statistics());
    assert!(took < Duration::from_millis(500), "{took:?} for {opened} bytes");
}
