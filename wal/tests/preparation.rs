//! Segments made ahead: what is written to them, and who uses them.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use kontiki_disk::{MemoryDisk, memory::Kind};
use kontiki_wal::{LogId, Options, Wal};

fn options(disk: &MemoryDisk) -> Options {
    Wal::options().disk(Arc::new(disk.clone())).without_threads()
}

/// No sync of a group has to convert extents, and nothing of an earlier use of the disk's blocks is read.
#[test]
fn a_new_segment_is_written_from_its_first_byte_to_its_last() {
    // The last step of the filling is a whole one, and not.
    for segment_bytes in [64 << 10, 1 << 20, 3 << 20, (3 << 20) + 4096] {
        let disk = MemoryDisk::new();
        disk.start_trace();
        let wal = options(&disk).segment_bytes(segment_bytes).open("log").unwrap();
        let mut writes = disk.take_trace();
        writes.retain(|operation| operation.kind == Kind::Write);
        writes.sort_by_key(|write| write.range.start);
        let mut written = 0;
        for write in writes {
            assert_eq!(write.range.start, written, "nothing is left out, nothing written twice");
            written = write.range.end;
        }
        assert_eq!(written, segment_bytes);
        wal.close().unwrap();
    }
}

#[test]
fn the_next_opening_uses_what_was_made_ahead() {
    let disk = MemoryDisk::new();
    let wal = options(&disk).segment_bytes(16 << 10).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while disk.contents(segment(2)).is_none() {
        log.push(vec![1; 500]).unwrap().1.wait().unwrap();
        wal.work(Duration::ZERO);
    }
    assert_eq!(wal.statistics().segments, 1);
    wal.close().unwrap();
    drop((log, wal));

    let wal = options(&disk).segment_bytes(16 << 10).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < 2 {
        log.push(vec![1; 500]).expect("room, though nobody has made any").1.wait().unwrap();
    }
}

/// By their names files of different logs are never taken for each other's.
#[test]
fn every_new_log_draws_a_name() {
    let names = (0..8).map(|_| {
        let disk = MemoryDisk::new();
        options(&disk).segment_bytes(16 << 10).open("log").unwrap().close().unwrap();
        disk.contents(segment(1)).unwrap()[24..40].to_vec()
    });
    assert_eq!(names.collect::<BTreeSet<_>>().len(), 8);
}

fn segment(number: u64) -> impl AsRef<Path> {
    Path::new("log").join(format!("{number:016}.wal"))
}
