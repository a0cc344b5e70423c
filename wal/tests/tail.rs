//! Looking at what a writer appends, and at bytes as they lie.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_disk::{Access, Disk, File, MemoryDisk};
use kontiki_wal::{
    LogId, Lsn, Wal,
    inspect::{Frame, FrameKind, Scan, Tail, Tailed},
};

const DIRECTORY: &str = "log";

fn open(disk: &MemoryDisk) -> Wal {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    options.without_threads().open(Path::new(DIRECTORY)).unwrap()
}

fn scan(disk: &MemoryDisk) -> Scan {
    Scan::open_on(disk, DIRECTORY).unwrap()
}

/// A file of a log that nobody writes.
fn file(disk: &MemoryDisk, name: &str) -> Arc<dyn File> {
    disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap().open(name).unwrap()
}

/// Appends so many entries of 700 bytes, each a frame.
fn push(wal: &Wal, entries: u64) {
    let log = wal.log(LogId(1)).unwrap();
    for _ in 0..entries {
        wal.work(Duration::ZERO);
        log.push("x".repeat(700)).unwrap().1.wait().unwrap();
    }
}

/// The frames up to where nothing more is there.
fn drain(tail: &mut Tail) -> Vec<Frame> {
    let mut frames = Vec::new();
    loop {
        match tail.try_next().unwrap() {
            Tailed::Frame(frame) => frames.push(*frame),
            Tailed::Nothing => return frames,
            Tailed::Gone => panic!("gone at {:?}", tail.lsn()),
        }
    }
}

fn places(frames: &[Frame]) -> Vec<(u64, u64, Lsn, FrameKind)> {
    frames.iter().map(|frame| (frame.segment, frame.offset, frame.lsn, frame.kind)).collect()
}

#[test]
fn a_tail_tells_every_later_frame_once_and_in_order_through_segments_and_openings() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    push(&wal, 3);
    let mut tail = scan(&disk).tail().unwrap();
    let begins = tail.lsn();
    assert_eq!(drain(&mut tail).len(), 0, "all of it was there at the look");

    let mut told = Vec::new();
    for _ in 0..8 {
        push(&wal, 7);
        told.append(&mut drain(&mut tail));
    }
    wal.close().unwrap();
    drop(wal);
    push(&open(&disk), 5);
    told.append(&mut drain(&mut tail));

    let frames: Vec<Frame> = scan(&disk).frames().map(Result::unwrap).collect();
    let later: Vec<Frame> = frames.into_iter().filter(|frame| frame.lsn >= begins).collect();
    assert!(later.last().unwrap().segment > 3, "several segments were passed");
    assert!(later.iter().any(|frame| frame.kind == FrameKind::Opened));
    assert_eq!(places(&told), places(&later));
    assert!(told.iter().zip(&later).all(|(told, later)| told.body == later.body));
}

#[test]
fn a_frame_that_is_not_all_there_is_told_when_it_is() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    push(&wal, 1);
    let mut tail = scan(&disk).tail().unwrap();
    push(&wal, 1);
    drop(wal);
    let later: Vec<Frame> = scan(&disk).frames().map(Result::unwrap).collect();
    let later = &later[later.len() - 2..];
    assert_eq!((later[0].kind, later[1].kind), (FrameKind::Entries, FrameKind::Mark));
    let file = file(&disk, &later[0].file);
    for at in [later[0].offset, later[0].offset + 48 + 300] {
        let mut byte = [0];
        file.read_at(at, &mut byte).unwrap();
        file.write_at(at, &[&[byte[0] ^ 1]]).unwrap();
        assert!(matches!(tail.try_next().unwrap(), Tailed::Nothing), "{at}");
        file.write_at(at, &[&byte]).unwrap();
    }
    assert_eq!(places(&drain(&mut tail)), places(later));
}

#[test]
fn what_was_freed_before_it_was_read_is_gone_and_another_look_goes_on() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    push(&wal, 3);
    let mut tail = scan(&disk).tail().unwrap();
    push(&wal, 60);
    let log = wal.log(LogId(1)).unwrap();
    log.compact_before(log.last()).unwrap().wait().unwrap();
    push(&wal, 60);
    assert!(wal.statistics().recycled_segments > 0);

    let gone = (0..99).find(|_| matches!(tail.try_next().unwrap(), Tailed::Gone)).unwrap();
    assert!(gone < 60, "{gone} frames were told, of those that are left of the file");
    let again = scan(&disk);
    assert!(again.frames().next().unwrap().unwrap().lsn > tail.lsn());
    let mut tail = again.tail().unwrap();
    push(&wal, 2);
    assert_eq!(drain(&mut tail).iter().filter(|frame| frame.kind == FrameKind::Entries).count(), 2);
}

#[test]
fn a_segment_that_was_removed_and_never_used_again_is_gone_too() {
    for removed in [1, 2] {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        push(&wal, 3);
        let mut tail = scan(&disk).tail().unwrap();
        push(&wal, 60);
        drop(wal);
        let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
        assert!(directory.list().unwrap().len() > 4);
        let last_left = if removed == 1 { 9 } else { 2 };
        for sequence in removed..=last_left {
            let _unless_it_is_not_there = directory.remove(&format!("{sequence:016x}.wal"));
        }
        let told = (0..99).find(|_| !matches!(tail.try_next().unwrap(), Tailed::Frame(_))).unwrap();
        assert!(told > 3, "what is open is read to its end");
        assert!(matches!(tail.try_next().unwrap(), Tailed::Gone), "{removed}");
    }
}

/// Every byte of every frame is found by its LSN and by its place, and every checksum is what it should be.
#[test]
fn raw_frames_are_found_by_each_of_their_bytes() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    push(&wal, 30);
    let scan = scan(&disk);
    let frames: Vec<Frame> = scan.frames().map(Result::unwrap).collect();
    assert!(frames.last().unwrap().segment > 1);
    let mut crc = None;
    for frame in &frames {
        for ahead in [0, 1, 47, frame.frame_bytes - 1] {
            let raw = scan.raw_frame(Lsn(frame.lsn.0 + ahead)).unwrap().unwrap();
            let at = scan.raw_frame_at(frame.segment, frame.offset + ahead).unwrap().unwrap();
            assert_eq!(raw.bytes, at.bytes);
            assert_eq!((raw.segment, raw.offset), (frame.segment, frame.offset));
            assert_eq!((raw.lsn, at.lsn), (Some(frame.lsn), Some(frame.lsn)));
            assert_eq!(raw.bytes.len() as u64, frame.frame_bytes);
            assert_eq!((raw.fault, raw.header_before), (None, None));
        }
        let raw = scan.raw_frame(frame.lsn).unwrap().unwrap();
        let number = |at| u32::from_le_bytes(raw.bytes[at..at + 4].try_into().unwrap());
        assert_eq!((raw.header_crc, raw.body_crc), (number(0), Some(number(8))));
        let is_first = frame.offset == 4096;
        assert_eq!(raw.link, crc.filter(|_| !is_first));
        assert_eq!(number(4), crc.unwrap_or(0), "also across segments");
        crc = Some(raw.header_crc);
    }
}

/// The next frames are found behind a header that is damaged, by the length that it had or by their own place; also behind the first
/// one of a segment, of which nothing tells what it follows.
#[test]
fn raw_frames_are_found_behind_damage() {
    [0, 3].into_iter().for_each(expect_found_behind);
}

fn expect_found_behind(number: usize) {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    push(&wal, 3);
    wal.close().unwrap();
    let frames: Vec<Frame> = scan(&disk).frames().map(Result::unwrap).collect();
    let (damaged, next) = (&frames[number], &frames[number + 1]);
    assert_eq!(next.kind == FrameKind::Entries, number == 3);
    drop(wal);
    let file = file(&disk, &damaged.file);
    let mut header = [0; 48];
    file.read_at(damaged.offset, &mut header).unwrap();
    for bits in [1, 3] {
        file.write_at(damaged.offset + 24, &[&[header[24] ^ bits]]).unwrap();
        let scan = scan(&disk);
        let of = |frame: &Frame| match number {
            // Nothing tells where the segment begins in the stream.
            0 => scan.raw_frame_at(frame.segment, frame.offset).unwrap().unwrap(),
            _ => scan.raw_frame(frame.lsn).unwrap().unwrap(),
        };
        let raw = of(damaged);
        assert!(raw.fault.is_some());
        assert_eq!(raw.bytes[24], header[24] ^ bits);
        let (length, before) = match bits {
            1 => (damaged.frame_bytes, Some(header)),
            _ => (48, None),
        };
        assert_eq!((raw.bytes.len() as u64, raw.header_before), (length, before));
        assert_eq!(raw.body_crc.is_some(), before.is_some());

        let raw = of(next);
        assert_eq!((raw.offset, raw.fault, raw.link), (next.offset, None, None));
        assert_eq!(raw.bytes.len() as u64, next.frame_bytes);
    }
    assert!(scan(&disk).raw_frame(Lsn(1 << 40)).unwrap().is_none());
    assert!(scan(&disk).raw_frame_at(1, 100).unwrap().is_none(), "the header page is no frame");
    assert!(scan(&disk).raw_frame_at(9, 4096).is_err(), "there is no such segment");
}

/// Where damage hides how far a segment goes, the next one says where it begins itself.
#[test]
fn raw_frames_are_found_in_the_segment_behind_one_that_damage_cuts_short() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    push(&wal, 14);
    drop(wal);
    let frames: Vec<Frame> = scan(&disk).frames().map(Result::unwrap).collect();
    let file = file(&disk, &frames[4].file);
    file.write_at(frames[4].offset + 24, &[b"two bits and more"]).unwrap();
    // As if it had not been sealed yet.
    file.write_at((16 << 10) - 4096, &[&[0; 4096]]).unwrap();
    let scan = scan(&disk);
    let later: Vec<_> = frames.iter().filter(|frame| frame.segment == 2).collect();
    assert_eq!(
        scan.frames().count(),
        4 + later.len(),
        "what lies behind in that segment is not read"
    );
    assert!(later.len() > 3, "{later:?}");
    for frame in later {
        let raw = scan.raw_frame(frame.lsn).unwrap().unwrap();
        assert_eq!((raw.segment, raw.offset, raw.lsn), (2, frame.offset, Some(frame.lsn)));
        assert!(raw.fault.is_none(), "{raw:?}");
    }
}

#[test]
fn no_raw_frame_lies_in_what_was_freed_or_behind_the_frames_of_a_sealed_segment() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    // Holds the first segment.
    wal.log(LogId(2)).unwrap().push("x").unwrap().1.wait().unwrap();
    push(&wal, 60);
    let log = wal.log(LogId(1)).unwrap();
    log.compact_before(log.last()).unwrap().wait().unwrap();
    push(&wal, 20);
    let scan = scan(&disk);
    let segments = scan.segments();
    let (first, next) = (&segments[0], &segments[1]);
    assert_eq!((first.sequence, next.sequence > 2), (1, true), "{segments:?}");
    let end = first.base.unwrap().0 + first.used_bytes;
    for lsn in [end, end + 4096, next.base.unwrap().0 - 64] {
        assert!(scan.raw_frame(Lsn(lsn)).unwrap().is_none(), "{lsn} of {segments:?}");
    }
    let free = first.free();
    for offset in [free.start, free.end - 64, free.end] {
        assert!(scan.raw_frame_at(1, offset).unwrap().is_none(), "{offset} of {segments:?}");
    }
}

#[test]
fn a_header_page_is_shown_though_it_does_not_hold() {
    let disk = MemoryDisk::new();
    push(&open(&disk), 1);
    let page = scan(&disk).header_page(1).unwrap();
    assert!(page.fault.is_none());
    let stored = u32::from_le_bytes(page.bytes[4092..].try_into().unwrap());
    assert_eq!((page.bytes.len(), page.crc), (4096, Some(stored)));
    file(&disk, &page.file).write_at(100, &[b"!"]).unwrap();
    let page = scan(&disk).header_page(1).unwrap();
    assert!(page.fault.is_some() && page.crc != Some(stored));
    assert_eq!(page.bytes.slice(100..101), Bytes::from_static(b"!"));
    assert!(scan(&disk).raw_frame_at(1, 4096).is_err(), "the checksums depend on it");
}
