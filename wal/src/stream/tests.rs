use std::path::Path;

use kontiki_disk::{Access, Disk, MemoryDisk};

use super::*;
use crate::segment::FRAMES_AT;

/// A stream in one segment of 16 KiB on a disk in memory.
fn stream() -> Stream {
    stream_in(16 << 10)
}

fn stream_in(segment_bytes: u64) -> Stream {
    let directory = MemoryDisk::new().open_directory(Path::new("log"), Access::Write).unwrap();
    let header = SegmentHeader { uuid: [1; 16], sequence: 1, segment_bytes, owner: [0; 32] };
    let file = directory.create("1", header.segment_bytes).unwrap();
    let segments = BTreeMap::from([(1, Segment::new(&header, Lsn(0), file))]);
    let room = Room::empty(header.segment_bytes);
    let (attested, changed) = (Lsn(0), Lsn(0));
    let end = End { nonce: 7, room, last_crc: 0, attested, changed, closed: false, mark: None };
    Stream::new(&header, header.segment_bytes, segments, end)
}

fn push(stream: &mut Stream, text: &'static str) -> Place {
    let header = Header::new(FrameKind::State, LogId(1), text.as_bytes());
    stream.push(&header, text.as_bytes(), &[], 0)
}

fn watermark(bytes: &[u8], segment: &Segment, offset: u64) -> Lsn {
    let header = bytes.first_chunk().unwrap();
    Header::decode(header, segment.salt, offset).expect("a whole header").durable_lsn
}

#[test]
fn the_length_of_all_segments_follows_those_that_come_and_go() {
    let mut stream = stream();
    let summed = |stream: &Stream| stream.segments().values().map(|segment| segment.bytes).sum();
    for sequence in 2..=4 {
        let segment_bytes = sequence * (16 << 10);
        let header = SegmentHeader { uuid: [1; 16], sequence, segment_bytes, owner: [0; 32] };
        let directory = MemoryDisk::new().open_directory(Path::new("log"), Access::Write).unwrap();
        let file = directory.create("next", segment_bytes).unwrap();
        stream.successor = Some(Successor { header, file });
        stream.rotate(&[0; 8]);
        assert_eq!(stream.segments_bytes(), summed(&stream));
    }
    assert_eq!(stream.free(&[1, 3, 9]).len(), 2);
    assert_eq!(stream.segments_bytes(), (2 + 4) * (16 << 10));
    assert_eq!(stream.segments_bytes(), summed(&stream));
}

#[test]
fn a_frame_made_during_a_sync_vouches_for_the_bytes_that_are_being_synced() {
    let mut stream = stream();
    push(&mut stream, "first");
    let first = stream.begin_group().unwrap();
    push(&mut stream, "second");
    assert_eq!(stream.durable(), Lsn(0));
    stream.finish_group();
    let second = stream.begin_group().unwrap();
    assert_eq!(second.offset, FRAMES_AT + first.end.0);
    assert_eq!(watermark(&second.bytes, &second.segment, second.offset), first.end);
}

/// What follows the first frame of an opening is chained to its nonce: half of what another opening left there never joins.
#[test]
fn the_first_frame_of_an_opening_carries_its_nonce_wherever_it_lies() {
    let first_index = |stream: &mut Stream| {
        let group = stream.begin_group().unwrap();
        Header::decode(group.bytes.first_chunk().unwrap(), group.segment.salt, group.offset)
            .map(|header| (header.kind, header.first_index))
    };
    let mut inside = stream();
    inside.push_opened();
    push(&mut inside, "state");
    assert_eq!(first_index(&mut inside), Some((FrameKind::Opened, 7)));
    let mut begun = stream();
    begun.push_opening(0, &[]);
    push(&mut begun, "state");
    assert_eq!(first_index(&mut begun), Some((FrameKind::SegmentStart, 7)));
}

#[test]
fn a_group_ends_at_a_page_with_zeros() {
    let mut stream = stream();
    push(&mut stream, "state");
    let group = stream.begin_group().unwrap();
    assert_eq!((group.offset, group.bytes.len(), group.end), (4096, 4096, Lsn(56)));
    assert!(group.bytes[56..].iter().all(|&byte| byte == 0));
    stream.finish_group();
    assert!(stream.begin_group().is_none(), "nothing waits");
}

#[test]
fn what_is_staged_is_read_from_the_group_in_flight_and_from_what_forms_behind_it() {
    let mut stream = stream();
    let first = push(&mut stream, "first");
    assert_eq!(&stream.staged(first).unwrap()[48..53], b"first");
    stream.begin_group().unwrap();
    let second = push(&mut stream, "second");
    assert_eq!(&stream.staged(first).unwrap()[48..53], b"first");
    assert_eq!(&stream.staged(second).unwrap()[48..54], b"second");
}

#[test]
fn an_idle_mark_stays_in_front_of_the_next_group() {
    let mut stream = stream();
    push(&mut stream, "state");
    stream.begin_group().unwrap();
    assert!(!stream.needs_mark(), "the group is not durable yet");
    stream.finish_group();
    assert!(stream.needs_mark());
    stream.push_mark(false);
    let mark = stream.idle_group();
    assert_eq!(mark.end, Lsn(56), "nothing more is durable");
    assert_eq!(watermark(&mark.bytes, &mark.segment, mark.offset), Lsn(56));
    assert!(!stream.needs_mark() && !stream.has_unsynced() && stream.begin_group().is_none());
    push(&mut stream, "more");
    let group = stream.begin_group().unwrap();
    assert_eq!((group.offset, group.end), (mark.offset, Lsn(56 + 48 + 56)));
    assert_eq!(group.bytes[..48], mark.bytes[..48]);
}

#[test]
fn what_was_in_flight_when_the_log_stopped_never_counts_as_durable() {
    let mut stream = stream();
    push(&mut stream, "state");
    stream.begin_group().unwrap();
    push(&mut stream, "more");
    stream.abandon();
    assert_eq!(stream.durable(), Lsn(0));
}

/// Memory that groups needed is there for the next ones, and not for ever.
#[test]
fn the_memory_of_a_large_group_is_kept_until_small_ones_follow_or_the_log_is_idle() {
    let kept = |stream: &Stream| stream.spare.capacity() + stream.chunks[0].bytes.capacity();
    let group = |stream: &mut Stream, bytes: usize| {
        let body = vec![1; bytes];
        stream.push(&Header::new(FrameKind::State, LogId(1), &body), &body, &[], 0);
        drop(stream.begin_group().unwrap());
        stream.finish_group();
    };
    let large = 4 * SPARE_BYTES;
    let mut stream = stream_in(128 << 20);
    (0..2).for_each(|_| group(&mut stream, large));
    assert!(kept(&stream) >= 2 * large, "both are used in turns");
    (0..2).for_each(|_| group(&mut stream, large / 5));
    assert!(kept(&stream) < large, "{}", kept(&stream));

    (0..2).for_each(|_| group(&mut stream, large));
    assert!(kept(&stream) >= large);
    stream.push_mark(false);
    assert!(kept(&stream) < 4096, "{}", kept(&stream));
}
