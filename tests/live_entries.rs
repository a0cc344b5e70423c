//! What `inspect` calls live is what the log shows: no entry more, none less, on every disk that a power cut may leave.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use kontiki_disk::MemoryDisk;
use kontiki_sim::{session::DIRECTORY, workload};
use kontiki_wal::{
    LogId, Wal,
    inspect::{
        Scan,
        Standing::{self, Active, Freed, Full, Prepared, Preparing, Sealed, Spare},
    },
};

/// Entries by log and index.
type Entries = BTreeMap<(LogId, u64), Bytes>;

#[test]
fn live_entries_are_those_that_the_log_shows() {
    let (mut disks, mut live, mut dead) = (0, 0, 0);
    for seed in 0..6 {
        let record = workload::run(seed, 250);
        for cut in record.lives.iter().flat_map(|life| &life.cuts).step_by(7) {
            for parity in [0, 1] {
                let disk = cut.cut.before.image(|item| item % 2 == parity);
                let Some((shown, more)) = compare(&disk, &format!("seed {seed}")) else { continue };
                (disks, live, dead) = (disks + 1, live + shown, dead + more);
            }
        }
    }
    // Else it would show less than it seems to.
    assert!(
        disks > 500 && live > 10_000 && dead > 10_000,
        "{disks} disks, {live} live, {dead} dead"
    );
}

/// Numbers of live and of other entries in the frames; `None` if no log is there.
fn compare(disk: &MemoryDisk, what: &str) -> Option<(usize, usize)> {
    let scan = Scan::open_on(disk, DIRECTORY).ok()?;
    let wal = Wal::options().disk(Arc::new(disk.clone())).open_read_only(DIRECTORY).ok()?;
    assert_eq!(wal.damage(), [], "{what}");
    let (found, dead) = found(&scan);
    let count = found.len();
    assert_eq!(found, shown(&wal), "{what}");
    let bounds: Vec<_> = scan.logs().into_iter().map(|(log, b)| (log, b.first, b.last)).collect();
    let logs = wal.logs().into_iter().map(|id| (id, wal.log(id).unwrap()));
    let logs: Vec<_> = logs.map(|(id, log)| (id, log.first(), log.last())).collect();
    assert_eq!(bounds, logs, "{what}");
    Some((count, dead))
}

/// The live entries in the frames, and how many others there are.
fn found(scan: &Scan) -> (Entries, usize) {
    let (mut live, mut dead) = (Entries::new(), 0);
    for frame in scan.frames().map(Result::unwrap) {
        let indexes = scan.live(&frame);
        for (index, bytes) in frame.entries() {
            if !indexes.contains(&index) {
                dead += 1;
                continue;
            }
            let before = live.insert((frame.log, index), bytes);
            assert_eq!(before, None, "log {} has index {index} twice", frame.log.0);
        }
    }
    (live, dead)
}

fn shown(wal: &Wal) -> Entries {
    let read = |id| {
        let log = wal.log(id).unwrap();
        let entries = log.read(log.first()..log.last() + 1, usize::MAX).map(Result::unwrap);
        entries.map(move |entry| ((id, entry.index), entry.bytes)).collect::<Vec<_>>()
    };
    wal.logs().into_iter().flat_map(read).collect()
}

/// Full ones come first, then the one that takes frames, then what is made ahead; freed ones can be anywhere before that.
#[test]
fn a_segment_is_said_to_be_what_it_is() {
    let (mut seen, mut between) = (Vec::new(), 0);
    // Also without half of what was not synced.
    let halves: [fn(usize) -> bool; 3] = [|_| true, |item| item % 2 == 0, |item| item % 2 == 1];
    for seed in 0..12 {
        let record = workload::run(seed, 250);
        for cut in record.lives.iter().flat_map(|life| &life.cuts) {
            for half in halves {
                let disk = cut.cut.before.image(half);
                let Ok(scan) = Scan::open_on(&disk, DIRECTORY) else { continue };
                between += usize::from(check_standings(&scan, &mut seen));
            }
        }
    }
    assert!(between > 0, "no cut came between a seal and the frames behind it");
    for standing in [Sealed, Full, Active, Prepared, Freed, Spare, Preparing] {
        assert!(seen.contains(&standing), "{standing:?} was never met");
    }
}

/// What every undamaged log keeps to; what is met goes to `seen`. True if the power went between the seal of a segment and
/// the first frames of the next.
fn check_standings(scan: &Scan, seen: &mut Vec<Standing>) -> bool {
    let mut segments = scan.segments();
    segments.extend_from_slice(scan.spares());
    seen.extend(segments.iter().map(|segment| segment.standing));
    let newest = segments.iter().rfind(|segment| segment.file.ends_with(".wal"));
    assert_ne!(newest.map(|segment| segment.standing), Some(Freed), "{segments:?}");
    segments.retain(|segment| segment.standing != Freed);
    for segment in &segments {
        let has_frames = matches!(segment.standing, Sealed | Full | Active);
        assert_eq!(segment.base.is_some(), has_frames, "{segment:?}");
        assert_eq!(segment.used_bytes > 0, has_frames, "{segment:?}");
        assert!(segment.standing == Sealed || segment.index_bytes == 0, "{segment:?}");
    }
    let order = |standing| match standing {
        Sealed | Full => 1,
        Active => 2,
        Prepared => 3,
        Spare | Preparing => 4,
        other => panic!("{other:?} without damage"),
    };
    assert!(segments.is_sorted_by_key(|segment| order(segment.standing)), "{segments:?}");
    let active = segments.iter().filter(|segment| segment.standing == Active).count();
    let is_between =
        segments.windows(2).any(|pair| pair[0].standing == Sealed && pair[1].standing == Prepared);
    let has_frames = scan.frames().next().is_some();
    assert_eq!(active, usize::from(has_frames && !is_between), "{segments:?}");
    is_between
}
