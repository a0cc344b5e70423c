//! Frames of a file's earlier life, laid by hand where they do the most harm.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{path::Path, sync::Arc, time::Duration};

use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_wal::{LogId, Wal, inspect::Scan};

const DIRECTORY: &str = "log";
const SEGMENT: &str = "0000000000000001.wal";
const NEXT: &str = "0000000000000002.wal";

fn open(disk: &MemoryDisk) -> Wal {
    let options = Wal::options().segment_bytes(16 << 10).uuid([5; 16]);
    let options = options.disk(Arc::new(disk.clone())).without_threads();
    options.open(Path::new(DIRECTORY)).unwrap()
}

/// A log that fills all segments but the last one, which has one entry.
fn segments(segments: u64) -> MemoryDisk {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < segments {
        // The first one is full to its end, the next ones are not: three of these do not fit.
        let bytes = if wal.statistics().segments == 1 { 100 } else { 4000 };
        log.push("x".repeat(bytes)).unwrap().1.wait().unwrap();
        wal.work(Duration::ZERO);
    }
    // No mark of a close: what follows the end is looked at.
    disk.image(|_| false)
}

/// WAL-CASE 8
#[test]
fn a_segment_full_of_frames_of_an_earlier_life_yields_none_of_them_for_every_cut() {
    let disk = segments(2);
    let old = disk.contents(Path::new(DIRECTORY).join(SEGMENT)).unwrap();
    let wal = open(&disk.reopen());
    let last = wal.log(LogId(1)).unwrap().last();
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    let segment = scan.segments()[1].clone();
    let (end, bytes) = (4096 + segment.used_bytes, segment.segment_bytes);
    assert!(end % 8 == 0 && end < bytes - 4096);

    // The rest of segment 2 as it would look if its file had been segment 1 before.
    for cut in (end..bytes - 4096).step_by(8) {
        let disk = disk.reopen();
        let stale = &old[usize::try_from(cut).unwrap()..usize::try_from(bytes - 4096).unwrap()];
        let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
        let file = directory.open(NEXT).unwrap();
        file.write_at(cut, &[stale]).unwrap();
        file.sync().unwrap();
        drop((file, directory));
        let log = open(&disk).log(LogId(1)).unwrap();
        assert_eq!(log.last(), last, "cut at {cut}");
    }
}

/// WAL-CASE 8, in the middle: frames of an earlier life behind a segment's end do not end the log there, and vouch for
/// nothing.
#[test]
fn a_segment_with_frames_of_an_earlier_life_behind_its_end_is_walked_past() {
    let disk = segments(3);
    let old = disk.contents(Path::new(DIRECTORY).join(SEGMENT)).unwrap();
    let last = open(&disk.reopen()).log(LogId(1)).unwrap().last();
    let segment = Scan::open_on(&disk, DIRECTORY).unwrap().segments()[1].clone();
    let used = 4096 + segment.used_bytes;
    let stale = &old[usize::try_from(used).unwrap()..usize::try_from(4096 + 11_000).unwrap()];
    assert!(stale.len() > 2000, "segment 2 ends well before segment 1");
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    let file = directory.open(NEXT).unwrap();
    // At the offset where it lay, so that only the salt tells.
    file.write_at(used, &[stale]).unwrap();
    file.sync().unwrap();
    drop((file, directory));
    assert_eq!(open(&disk).log(LogId(1)).unwrap().last(), last, "frames of an earlier life count");
}

/// WAL-CASE 11: every frame is whole by itself, but the second was written behind another first one: what a cut
/// tail would look like that came back.
#[test]
fn a_frame_that_does_not_link_to_the_one_before_is_cut() {
    let written = |texts: &[&str]| {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        let log = wal.log(LogId(1)).unwrap();
        for text in texts {
            log.push(text.to_string()).unwrap().1.wait().unwrap();
        }
        disk.image(|_| false)
    };
    let (old, disk) = (written(&["old first", "second"]), written(&["new first"]));
    let scan = Scan::open_on(&old, DIRECTORY).unwrap();
    let second = scan.frames().last().unwrap().unwrap();
    assert_eq!(second.first_index, 2);
    let bytes = old.contents(Path::new(DIRECTORY).join(SEGMENT)).unwrap();
    let start = usize::try_from(second.offset).unwrap();
    let end = start + usize::try_from(second.frame_bytes).unwrap();
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    let file = directory.open(SEGMENT).unwrap();
    file.write_at(second.offset, &[&bytes[start..end]]).unwrap();
    drop((file, directory));

    let log = open(&disk).log(LogId(1)).unwrap();
    let texts: Vec<_> = log.read(1..9, usize::MAX).map(|entry| entry.unwrap().bytes).collect();
    assert_eq!(texts, ["new first"], "a frame follows on another one than it was written behind");
}
