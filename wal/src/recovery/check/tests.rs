//! Logs whose checksums all hold and that no writer would have written: what a deep look says of them.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use byteorder::{ByteOrder, LittleEndian};
use kontiki_disk::MemoryDisk;

use crate::{
    AppendError, Corruption, LogId, Lsn, Wal,
    frame::{self, FrameKind, HEADER_BYTES, Header},
    header::SegmentHeader,
    inspect::{Effort, Frame, Scan, Verdict},
    segment::{FRAMES_AT, PAGE_BYTES, file_name},
    trailer::Trailer,
};

const SEGMENT_BYTES: u64 = 16 << 10;
const TRAILER_AT: u64 = SEGMENT_BYTES - PAGE_BYTES;

fn open(disk: &MemoryDisk) -> Wal {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).disk(Arc::new(disk.clone()));
    options.without_threads().open("log").unwrap()
}

/// Some ten entries go into a segment.
fn fill(wal: &Wal, entries: u64, term: u64) {
    let log = wal.log(LogId(1)).unwrap();
    let end = log.last() + entries;
    while log.last() < end {
        match log.append(log.last() + 1, term, &[vec![b'x'; 700].into()]) {
            Ok(pending) => pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
        while wal.work(Duration::ZERO) {}
    }
}

/// Segments 2 to 6, of which the last is not sealed; the first was freed. Two logs, of which one has a state; a close, and
/// a suffix that was replaced.
fn log() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    wal.log(LogId(2)).unwrap().set_state(vec![b's'; 16]).unwrap().wait().unwrap();
    fill(&wal, 25, 3);
    wal.close().unwrap();
    drop(wal);
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    log.truncate_after(log.last() - 1).unwrap().wait().unwrap();
    fill(&wal, 10, 4);
    log.compact_before(13).unwrap().wait().unwrap();
    fill(&wal, 20, 4);
    wal.close().unwrap();
    assert_eq!(sequences(&disk), [2, 3, 4, 5, 6]);
    disk
}

fn look(disk: &MemoryDisk, is_deep: bool, threads: usize) -> Scan {
    let threads = NonZeroUsize::new(threads).unwrap();
    Scan::open_on_with(disk, "log", Effort { is_deep, threads }).unwrap()
}

fn sequences(disk: &MemoryDisk) -> Vec<u64> {
    let segments = look(disk, false, 1).segments();
    let with_frames = segments.iter().filter(|segment| segment.base.is_some());
    with_frames.map(|segment| segment.sequence).collect()
}

fn contents(disk: &MemoryDisk, sequence: u64) -> Vec<u8> {
    disk.contents(Path::new("log").join(file_name(sequence))).unwrap()
}

/// Writes a segment's file anew, without a trace on the disk.
fn put(disk: &MemoryDisk, sequence: u64, bytes: &[u8]) {
    let before = contents(disk, sequence);
    for (offset, (old, new)) in before.iter().zip(bytes).enumerate().filter(|(_, (a, b))| a != b) {
        disk.corrupt(Path::new("log").join(file_name(sequence)), offset as u64, old ^ new);
    }
}

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// A frame that is about to be written.
struct Draft<'a> {
    segment: u64,
    offset: u64,
    header: &'a mut Header,
    body: &'a mut [u8],
}

/// Passes every frame of the log through `change`, and makes all checksums, links and trailers anew.
fn forge(disk: &MemoryDisk, mut change: impl FnMut(Draft<'_>)) {
    let mut link = None;
    for segment in sequences(disk) {
        let mut bytes = contents(disk, segment);
        let header = SegmentHeader::decode(&bytes[..4096], "", segment, SEGMENT_BYTES).unwrap();
        let salt = frame::salt(&header.uuid, segment);
        let mut offset = FRAMES_AT;
        while let Some(header) =
            Header::decode(bytes[at(offset)..].first_chunk().unwrap(), salt, offset)
        {
            let body_at = at(offset + HEADER_BYTES);
            let body = &mut bytes[body_at..body_at + usize::try_from(header.body_len).unwrap()];
            let mut header = Header { link: link.unwrap_or(header.link), ..header };
            change(Draft { segment, offset, header: &mut header, body });
            header.body_crc = crc32fast::hash(body);
            let encoded = header.encode(salt, offset);
            bytes[at(offset)..body_at].copy_from_slice(&encoded);
            link = Some(frame::header_crc(&encoded));
            offset += header.frame_bytes();
        }
        let page = &mut bytes[at(TRAILER_AT)..];
        if let Some(trailer) = Trailer::decode(page, salt, segment, SEGMENT_BYTES) {
            let last_crc = link.unwrap();
            page.copy_from_slice(&Trailer { last_crc, ..trailer }.encode(salt));
        }
        put(disk, segment, &bytes);
    }
}

/// Passes the trailer and the index of a sealed segment through `change`.
fn forge_seal(disk: &MemoryDisk, sequence: u64, change: impl FnOnce(&mut Trailer, &mut [u8])) {
    let mut bytes = contents(disk, sequence);
    let header = SegmentHeader::decode(&bytes[..4096], "", sequence, SEGMENT_BYTES).unwrap();
    let salt = frame::salt(&header.uuid, sequence);
    let trailer = Trailer::decode(&bytes[at(TRAILER_AT)..], salt, sequence, SEGMENT_BYTES);
    let mut trailer = trailer.unwrap();
    let (index_at, table) = (at(trailer.index_at(SEGMENT_BYTES)), at(trailer.table_bytes()));
    let (front, page) = bytes.split_at_mut(at(TRAILER_AT));
    let index = &mut front[index_at..];
    change(&mut trailer, index);
    trailer.table_crc = crc32fast::hash(&index[..table]);
    trailer.index_crc = crc32fast::hash(index);
    page.copy_from_slice(&trailer.encode(salt));
    put(disk, sequence, &bytes);
}

/// What a deep look finds, and no other: each as segment, offset and what. It is the same with any number of threads.
fn found(disk: &MemoryDisk) -> Vec<(String, u64, String)> {
    let plain = look(disk, false, 2);
    assert!(matches!(plain.verdict(), Verdict::Whole { .. }), "{:?}", plain.verdict());
    let verdict = look(disk, true, 1).verdict().clone();
    for threads in [2, 5, 64] {
        assert_eq!(*look(disk, true, threads).verdict(), verdict, "{threads} threads");
    }
    let place = |found: Corruption| (found.segment, found.offset, found.what);
    match verdict {
        Verdict::Corrupt(damage) => damage.into_iter().map(place).collect(),
        _ => Vec::new(),
    }
}

/// The `number`th frame of this kind in a segment.
fn frame(disk: &MemoryDisk, segment: u64, kind: FrameKind, number: usize) -> Frame {
    let scan = look(disk, false, 1);
    let frames = scan.segment_frames(segment).map(Result::unwrap);
    frames.filter(|frame| frame.kind == kind).nth(number).unwrap()
}

/// Changes one frame of an otherwise whole log; what is found says that place alone.
fn expect_at(segment: u64, kind: FrameKind, number: usize, what: &str, change: fn(Draft<'_>)) {
    let disk = log();
    let frame = frame(&disk, segment, kind, number);
    forge(&disk, |draft| {
        if (draft.segment, draft.offset) == (segment, frame.offset) {
            change(draft);
        }
    });
    assert_eq!(found(&disk), [(frame.file, frame.offset, what.to_owned())]);
}

#[test]
fn a_log_that_a_writer_wrote_is_whole_at_a_deep_look() {
    let disk = log();
    assert_eq!(found(&disk), []);
    forge(&disk, |_| {});
    assert_eq!(found(&disk), [], "the forger changes what it is asked to change");
}

#[test]
fn a_term_or_an_index_that_cannot_follow_is_found_in_a_sealed_segment() {
    let what = "order of a log's frames";
    expect_at(4, FrameKind::Entries, 3, what, |draft| draft.header.term = 2);
    expect_at(4, FrameKind::Entries, 3, what, |draft| draft.header.first_index += 1);
    expect_at(4, FrameKind::Compact, 0, what, |draft| draft.header.first_index += 1000);
    let term = "term before what a compaction keeps";
    expect_at(4, FrameKind::Compact, 0, term, |draft| draft.header.term += 1);
}

#[test]
fn a_watermark_that_descends_or_is_not_that_of_its_mark_is_found() {
    let lowered = "watermark below that of a frame before";
    expect_at(4, FrameKind::Entries, 3, lowered, |draft| draft.header.durable_lsn = Lsn(0));
    expect_at(6, FrameKind::Entries, 1, lowered, |draft| draft.header.durable_lsn = Lsn(0));
    expect_at(5, FrameKind::SegmentStart, 0, lowered, |draft| draft.header.durable_lsn = Lsn(0));
    let moved = "watermark of a mark";
    expect_at(3, FrameKind::Mark, 0, moved, |draft| draft.header.durable_lsn.0 -= 8);
    expect_at(6, FrameKind::Mark, 0, moved, |draft| draft.header.durable_lsn.0 -= 8);
}

#[test]
fn a_freed_segment_that_is_none_is_found() {
    let what = "numbers of freed segments";
    expect_at(4, FrameKind::Freed, 0, what, |draft| LittleEndian::write_u64(draft.body, 4));
}

#[test]
fn segments_that_do_not_follow_on_each_other_are_found() {
    let start = FrameKind::SegmentStart;
    expect_at(4, start, 0, "link to the frame before", |draft| draft.header.link ^= 1);
    expect_at(4, start, 0, "segment before a segment", |draft| draft.body[24] = 2);
}

/// Of all that follows none contradicts: so one place is told, where the two part.
#[test]
fn a_checkpoint_that_says_something_else_than_the_segment_before_is_found() {
    let disk = log();
    let checkpoint = frame(&disk, 4, FrameKind::Checkpoint, 0);
    forge(&disk, |draft| {
        if draft.segment >= 4 && draft.header.kind == FrameKind::Checkpoint {
            let state = draft.body.windows(16).position(|bytes| bytes == [b's'; 16]).unwrap();
            draft.body[state] = b't';
        }
    });
    let what = "checkpoint of the frames before it".to_owned();
    assert_eq!(found(&disk), [(checkpoint.file, checkpoint.offset, what)]);
}

#[test]
fn an_index_that_locates_other_frames_than_there_are_is_found() {
    let disk = log();
    forge_seal(&disk, 3, |_, index| *index.last_mut().unwrap() ^= 1);
    let [(segment, offset, what)] = &found(&disk)[..] else { panic!("{:?}", found(&disk)) };
    assert_eq!((&**segment, &**what), (&*file_name(3), "index of a segment's frames"));
    assert!((FRAMES_AT..TRAILER_AT).contains(offset));
}

#[test]
fn a_trailer_with_another_place_in_the_stream_is_found() {
    let disk = log();
    forge_seal(&disk, 3, |trailer, _| trailer.base.0 += 8);
    let place = |sequence, offset, what: &str| (file_name(sequence), offset, what.to_owned());
    let expected = [
        place(3, TRAILER_AT, "base LSN in a trailer"),
        place(4, FRAMES_AT, "base LSN of a segment"),
    ];
    assert_eq!(found(&disk), expected);
}

/// The next segment's link would tell, too, but only of a segment that is there.
#[test]
fn a_trailer_with_another_last_frame_is_found_and_one_behind_damage_is_not_told_again() {
    let damage = |disk: &MemoryDisk| match look(disk, false, 1).verdict() {
        Verdict::Corrupt(found) => found.clone(),
        other => panic!("{other:?}"),
    };
    let changes: [fn(&mut Trailer); 2] =
        [|trailer| trailer.last_crc ^= 1, |trailer| trailer.frames_end -= 8];
    for change in changes {
        let disk = log();
        let ends = look(&disk, false, 1).segments()[1].used_bytes + FRAMES_AT;
        forge_seal(&disk, 3, |trailer, _| change(trailer));
        let [found] = &damage(&disk)[..] else { panic!("{:?}", damage(&disk)) };
        assert_eq!((&found.segment, found.offset), (&file_name(3), ends));
        assert_eq!(found.what, "last frame of a sealed segment");
    }

    let disk = log();
    let rotten = frame(&disk, 3, FrameKind::Entries, 1);
    // Two bits, so that nobody knows what the header was.
    for ahead in [24, 33] {
        disk.corrupt(Path::new("log").join(&rotten.file), rotten.offset + ahead, 1);
    }
    let found = damage(&disk);
    assert_eq!((found.len(), &found[0].segment, found[0].offset), (1, &rotten.file, rotten.offset));
}

#[test]
fn several_findings_come_in_the_order_of_the_log() {
    let disk = log();
    let frames = [5, 3].map(|segment| frame(&disk, segment, FrameKind::Entries, 2));
    let places = frames.each_ref().map(|frame| (frame.segment, frame.offset));
    forge(&disk, |draft| {
        if places.contains(&(draft.segment, draft.offset)) {
            draft.header.durable_lsn = Lsn(0);
        }
    });
    // Damage that a plain look finds as well: in a segment between them, and one that ends the log, which is found first.
    let rotten = frame(&disk, 4, FrameKind::Entries, 1);
    let ended = frame(&disk, 6, FrameKind::Entries, 1);
    for (frame, ahead) in [(&rotten, HEADER_BYTES + 9), (&ended, 9)] {
        disk.corrupt(Path::new("log").join(&frame.file), frame.offset + ahead, 1);
    }
    let one = look(&disk, true, 1).verdict().clone();
    let Verdict::Corrupt(damage) = &one else { panic!("{one:?}") };
    let told: Vec<_> = damage.iter().map(|found| (&*found.segment, found.offset)).collect();
    let [last, first] = &frames;
    let expected = [first, &rotten, last, &ended].map(|frame| (&*frame.file, frame.offset));
    assert_eq!(told, expected);
    for threads in [2, 3, 8] {
        assert_eq!(*look(&disk, true, threads).verdict(), one, "{threads} threads");
    }
}
