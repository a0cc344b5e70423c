//! Opening without a lock, and looking frame by frame.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use byteorder::{ByteOrder, LittleEndian};
use bytes::Bytes;
use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_wal::{
    FollowError, LogId, OpenError, ReadError, Wal, WalError,
    inspect::{FrameKind, Scan, Standing, Verdict},
};

use support::mode;

const DIRECTORY: &str = "log";
const SEGMENT: &str = "log/0000000000000001.wal";
const SECOND: &str = "log/0000000000000002.wal";

fn open(disk: &MemoryDisk) -> Result<Wal, OpenError> {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    options.without_threads().open(Path::new(DIRECTORY))
}

fn open_read_only(disk: &MemoryDisk) -> Wal {
    Wal::options().disk(Arc::new(disk.clone())).open_read_only(DIRECTORY).unwrap()
}

/// Three frames of two entries each, and a state.
fn written(disk: &MemoryDisk) -> Wal {
    let wal = open(disk).unwrap();
    let log = wal.log(LogId(3)).unwrap();
    log.set_state("state").unwrap().wait().unwrap();
    for first in [1, 3, 5] {
        let entries = [first, first + 1].map(|index| Bytes::from(format!("entry {index}")));
        log.append(first, first, &entries).unwrap().wait().unwrap();
    }
    wal
}

fn frames(disk: &MemoryDisk) -> Vec<kontiki_wal::inspect::Frame> {
    Scan::open_on(disk, DIRECTORY).unwrap().frames().collect::<Result<_, _>>().unwrap()
}

/// WAL-CASE 41: what is read of a live log and used again meanwhile is no damage.
#[test]
fn a_segment_that_was_used_again_since_it_was_opened_for_reading_is_no_corruption() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let wal = Wal::options()
        .segment_bytes(16 << 10)
        .write_mode(mode())
        .without_threads()
        .open(&path)
        .unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let work = |compacts: bool| {
        for _ in 0..60 {
            if let Ok((_, pending)) = log.push("x".repeat(700)) {
                pending.wait().unwrap();
            }
            if compacts {
                log.compact_before(log.last()).unwrap().wait().unwrap();
            }
            wal.work(Duration::ZERO);
        }
    };
    work(false);
    let reader = Wal::open_read_only(&path).unwrap();
    let scan = Scan::open(&path).unwrap();
    let mut follow = reader.log(LogId(1)).unwrap().follow(1).unwrap();
    work(true);
    assert!(wal.statistics().recycled_segments > 0);
    let read: Vec<_> = reader.log(LogId(1)).unwrap().read(1..99, usize::MAX).collect();
    for entry in &read {
        match entry {
            Ok(entry) => assert!(entry.bytes.iter().all(|&byte| byte == b'x')),
            Err(ReadError::Recycled { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(read.iter().any(Result::is_err), "the files were used again");
    let followed = (0..99).find_map(|_| follow.try_next().err()).unwrap();
    assert!(
        matches!(followed, FollowError::Read(ReadError::Recycled { .. })),
        "a follower is told the same: {followed}"
    );
    for frame in scan.frames() {
        assert!(frame.unwrap().body.is_ok());
    }
}

#[test]
fn a_reader_sees_what_a_writer_at_work_has_written() {
    let disk = MemoryDisk::new();
    let wal = written(&disk);
    let reader = open_read_only(&disk);
    let log = reader.log(LogId(3)).unwrap();
    let entries: Vec<_> = log.read(1..9, usize::MAX).map(|entry| entry.unwrap()).collect();
    assert_eq!(entries.len(), 6);
    assert_eq!((entries[5].index, entries[5].term, &entries[5].bytes[..]), (6, 5, &b"entry 6"[..]));
    assert_eq!((log.state().unwrap(), reader.logs()), (Bytes::from("state"), vec![LogId(3)]));
    assert_eq!(reader.damage(), []);
    let refused = log.set_state("other").unwrap_err();
    assert!(matches!(refused, kontiki_wal::AppendError::Wal(WalError::ReadOnly)), "{refused}");
    assert!(Scan::open_on(&disk, DIRECTORY).unwrap().is_live());
    drop(wal);
    assert!(!Scan::open_on(&disk, DIRECTORY).unwrap().is_live());
}

/// WAL-CASE 6
#[test]
fn a_reader_gets_around_a_damaged_body_and_lists_it() {
    let disk = MemoryDisk::new();
    drop(written(&disk));
    let damaged = frames(&disk).into_iter().find(|frame| frame.first_index == 3).unwrap();
    disk.corrupt(SEGMENT, damaged.offset + 60, 1);
    let before = disk.fingerprint();

    assert!(matches!(open(&disk), Err(OpenError::Corruption(_))));
    let reader = open_read_only(&disk);
    let [corruption] = &reader.damage()[..] else { panic!("{:?}", reader.damage()) };
    assert_eq!(corruption.offset, damaged.offset);
    assert_eq!(corruption.log, Some(LogId(3)));
    assert_eq!((corruption.indexes, corruption.term), (Some((3, 4)), Some(3)));
    let log = reader.log(LogId(3)).unwrap();
    let read = |first| log.read(first..first + 2, usize::MAX).collect::<Vec<_>>();
    let others = read(1).into_iter().chain(read(5)).filter(Result::is_ok);
    assert_eq!(others.count(), 4, "the other frames");
    assert!(matches!(&read(3)[..], [Err(ReadError::Corruption(found))] if found == corruption));
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn a_reader_shows_nothing_behind_a_damaged_header() {
    let disk = MemoryDisk::new();
    drop(written(&disk));
    let damaged = frames(&disk).into_iter().find(|frame| frame.first_index == 3).unwrap();
    disk.corrupt(SEGMENT, damaged.offset + 20, 1);
    let reader = open_read_only(&disk);
    assert_eq!(reader.log(LogId(3)).unwrap().last(), 2);
    assert_eq!(reader.damage().len(), 1);
    assert_eq!(reader.damage()[0].offset, damaged.offset);
}

#[test]
fn a_scan_shows_every_frame_and_how_the_log_ends() {
    let disk = MemoryDisk::new();
    let wal = written(&disk);
    let kinds: Vec<FrameKind> = frames(&disk).iter().map(|frame| frame.kind).collect();
    use FrameKind::{Checkpoint, Entries, Mark, SegmentStart, State};
    assert_eq!(kinds, [SegmentStart, Checkpoint, State, Entries, Entries, Entries]);
    assert_eq!(frames(&disk)[4].entries()[1], (4, Bytes::from("entry 4")));
    let end = wal.durable_lsn();
    let verdict = |disk: &MemoryDisk| Scan::open_on(disk, DIRECTORY).unwrap().verdict().clone();
    assert_eq!(verdict(&disk), Verdict::Whole { end, closed: false });

    // The last group, which nothing attests, is damaged.
    let torn = disk.reopen();
    let last = frames(&disk).pop().unwrap();
    torn.corrupt(SEGMENT, last.offset + 60, 1);
    let segment = "0000000000000001.wal".to_owned();
    let expected = Verdict::TornTail { end: last.lsn, segment, offset: last.offset };
    assert_eq!(verdict(&torn), expected);

    wal.close().unwrap();
    let last = frames(&disk).pop().unwrap();
    assert_eq!((last.kind, last.closed, last.durable_lsn), (Mark, true, last.lsn));
    let Verdict::Whole { closed: true, .. } = verdict(&disk) else {
        panic!("{:?}", verdict(&disk))
    };
    disk.corrupt(SEGMENT, frames(&disk)[5].offset + 60, 1);
    assert!(matches!(&verdict(&disk), Verdict::Corrupt(damage) if damage.len() == 1));
}

/// A checkpoint of a few bytes can speak of a million of them.
#[test]
fn a_run_of_segments_that_are_not_there_is_one_damage() {
    let disk = MemoryDisk::new();
    let wal = open(&disk).unwrap();
    while wal.statistics().segments < 6 {
        if let Ok((_, pending)) = wal.log(LogId(3)).unwrap().push("x".repeat(700)) {
            pending.wait().unwrap();
        }
        wal.work(Duration::ZERO);
    }
    drop(wal);
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    for number in [1, 3, 4] {
        directory.remove(&format!("{number:016x}.wal")).unwrap();
    }
    drop(directory);
    let damage = open_read_only(&disk).damage();
    let found: Vec<(&str, &str)> =
        damage.iter().map(|damage| (&*damage.segment, &*damage.what)).collect();
    let run = "missing files of the segments from this one to 0000000000000004.wal";
    let one = "missing file of a segment";
    assert_eq!(found, [("0000000000000001.wal", one), ("0000000000000003.wal", run)]);
    assert!(damage.iter().all(|damage| damage.indexes.is_none()), "which held what is not known");
}

#[test]
fn a_file_that_ends_within_its_header_page_is_corruption() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("0000000000000001.wal"), "cut").unwrap();
    let error = Wal::open_read_only(directory.path()).unwrap_err();
    assert!(matches!(error, OpenError::Corruption(_)), "{error}");
}

/// Their files are removed or used again only later.
#[test]
fn segments_that_were_freed_are_none_of_the_logs_though_their_files_are_there() {
    let disk = MemoryDisk::new();
    let wal = open(&disk).unwrap();
    let log = wal.log(LogId(3)).unwrap();
    while wal.statistics().segments < 4 {
        wal.work(Duration::ZERO);
        log.push("x".repeat(700)).unwrap().1.wait().unwrap();
    }
    wal.work(Duration::ZERO);
    log.compact_before(log.last()).unwrap().wait().unwrap();
    log.set_state("behind the frame that frees them").unwrap().wait().unwrap();
    let segments = wal.statistics().segments;
    assert_eq!(segments, 1);

    assert_eq!(open_read_only(&disk).statistics().segments, segments);
    let scan = Scan::open_on(&disk, DIRECTORY).unwrap();
    let freed = |number: usize| scan.segments()[number].standing == Standing::Freed;
    assert_eq!([0, 1, 2, 3].map(freed), [true, true, true, false]);
    assert!(scan.frames().all(|frame| frame.unwrap().segment == 4));
}

/// WAL-CASE 29: where a segment says it lies in the stream can lie, too, under checksums that hold. Its index is damaged, so
/// that its frames are kept in memory.
#[test]
fn a_segment_that_says_it_lies_above_the_logs_end_is_read_without_a_panic() {
    let (disk, other) = (MemoryDisk::new(), MemoryDisk::new());
    write_sealed(&disk, 16 << 10, 1000, 3);
    // Of a log with the same name and larger segments: the second one begins above the first log's end.
    write_sealed(&other, 64 << 10, 8000, 2);
    let mut above = other.contents(SECOND).unwrap();
    let trailer = above.len() - 4096;
    let frames = LittleEndian::read_u32(&above[trailer + 40..]) as usize;
    above[trailer - 8 * frames - 1] ^= 1;
    replace(&disk, SECOND, &above);

    let reader = open_read_only(&disk);
    assert_eq!(reader.damage().len(), 1, "the log does not come as far as that trailer says");
    assert!(reader.durable_lsn().0 < 32 << 10, "the end lies below the second segment");
    let log = reader.log(LogId(3)).unwrap();
    let read: Vec<_> = (1..=log.last())
        .filter_map(|index| log.read(index..index + 1, usize::MAX).next())
        .collect();
    assert!(read.iter().any(|entry| entry.as_ref().is_ok_and(|entry| entry.bytes.len() == 8000)));
}

/// Entries of `entry_bytes`, until so many segments are sealed.
fn write_sealed(disk: &MemoryDisk, segment_bytes: u64, entry_bytes: usize, sealed: u64) {
    let options = Wal::options().segment_bytes(segment_bytes).uuid([5; 16]).without_threads();
    let wal = options.disk(Arc::new(disk.clone())).open(DIRECTORY).unwrap();
    let log = wal.log(LogId(3)).unwrap();
    while wal.statistics().sealed_segments < sealed {
        log.push(vec![7; entry_bytes]).unwrap().1.wait().unwrap();
        wal.work(Duration::ZERO);
    }
}

fn replace(disk: &MemoryDisk, file: &str, bytes: &[u8]) {
    let name = file.strip_prefix("log/").unwrap();
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    directory.remove(name).unwrap();
    let file = directory.create(name, bytes.len() as u64).unwrap();
    file.write_at(0, &[bytes]).unwrap();
}
