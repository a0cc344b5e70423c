//! WAL-CASE 29: lengths that lie, under checksums that hold. A flipped bit never gets that far; this is what a fault of
//! another program, or a stranger, could write. Frames are made here from FORMAT.md alone.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{
    alloc::System,
    fs,
    path::Path,
    sync::{Mutex, OnceLock, PoisonError},
};

use byteorder::{ByteOrder, LittleEndian};
use cap::Cap;
use kontiki_wal::{
    LogId, OpenError, Wal,
    inspect::{Frame, FrameKind, Scan},
};

use support::mode;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

const SEGMENT: &str = "0000000000000001.wal";
const SEGMENT_BYTES: u64 = 64 << 10;
const UUID: [u8; 16] = [5; 16];
const TEXTS: [&str; 3] = ["the first entry", "the second entry", "the third entry"];
/// A frame of one entry: header, table of one end, entry.
const COUNT_AT: usize = 18;
const TABLE_AT: usize = 48;
const ENTRY_AT: usize = 52;

/// The heap is everybody's.
static ALONE: Mutex<()> = Mutex::new(());

/// What an honest log of this kind took at most, as soon as one was written and read.
static HONEST_HEAP_BYTES: OnceLock<usize> = OnceLock::new();

/// Lengths of a body that is `held` bytes long: none, ends in the table, unaligned, one too many, the rest of the
/// segment and a page of the trailer, past the file, and as many as the field can say.
fn lengths(held: u32, offset: u64) -> Vec<u32> {
    let behind = u32::try_from(SEGMENT_BYTES - offset).unwrap();
    let frames = behind - 4096 - 48;
    vec![0, 3, held - 1, held + 1, frames, frames + 1, behind, behind + 1, 1 << 31, u32::MAX]
}

#[test]
fn a_body_length_that_lies_in_the_last_frame_is_a_cut_and_takes_no_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for sealed in [false, true] {
        let (directory, frames) = three_groups();
        let (offset, held) = frames[2];
        for length in lengths(held, offset) {
            let bytes = with_length(directory.path(), frames[2], length, sealed);
            let opened = opened(&bytes);
            let wal = opened.unwrap_or_else(|error| panic!("{length}: {error}"));
            assert_eq!(texts(&wal), TEXTS[..2], "{length}");
        }
    }
}

#[test]
fn a_body_length_that_lies_in_an_attested_frame_is_corruption_at_its_place() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for sealed in [false, true] {
        let (directory, frames) = three_groups();
        let (offset, held) = frames[0];
        for length in lengths(held, offset) {
            let bytes = with_length(directory.path(), frames[0], length, sealed);
            let opened = opened(&bytes);
            let Err(OpenError::Corruption(corruption)) = opened else {
                panic!("{length}: opened");
            };
            assert_eq!((&*corruption.segment, corruption.offset), (SEGMENT, offset), "{length}");
        }
    }
}

#[test]
fn a_table_or_a_count_that_lies_is_seen_though_the_checksum_of_the_body_holds() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, frames) = three_groups();
    let (offset, held) = frames[0];
    let at = usize::try_from(offset).unwrap();
    let entry = held - 4;
    let table = |end: u32| (TABLE_AT, end.to_le_bytes().to_vec());
    let count = |count: u16| (COUNT_AT, count.to_le_bytes().to_vec());
    let changes =
        [table(0), table(entry - 1), table(entry + 1), table(u32::MAX), count(2), count(u16::MAX)];
    for (number, (field, value)) in changes.iter().enumerate() {
        let mut bytes = fs::read(directory.path().join(SEGMENT)).unwrap();
        bytes[at + field..][..value.len()].copy_from_slice(value);
        seal_body(&mut bytes, offset, held);
        seal_header(&mut bytes, offset);
        let opened = opened(&bytes);
        let Err(OpenError::Corruption(corruption)) = opened else { panic!("{number}: opened") };
        assert_eq!(corruption.offset, offset, "{number}");
        assert_eq!(corruption.what, "table of a frame's entries", "{number}");
    }
}

/// No writer puts a frame where two marks, the index and the trailer do not fit behind it; without room for them a close
/// would have no place for its mark.
#[test]
fn a_frame_that_leaves_no_room_behind_it_is_not_taken() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, frames) = three_groups();
    let (offset, _) = frames[2];
    let most = SEGMENT_BYTES - 4096 - offset - 48;
    for (length, last) in [(most, 2), (most - 96, 2), (most - 96 - 8 * 16, 3)] {
        let mut bytes = fs::read(directory.path().join(SEGMENT)).unwrap();
        let at = usize::try_from(offset).unwrap();
        let length = u32::try_from(length).unwrap();
        LittleEndian::write_u32(&mut bytes[at + 12..at + 16], length);
        LittleEndian::write_u32(&mut bytes[at + TABLE_AT..], length - 4);
        seal_body(&mut bytes, offset, length);
        seal_header(&mut bytes, offset);
        let wal = opened(&bytes).unwrap();
        assert_eq!(wal.log(LogId(1)).unwrap().last(), last, "{length}");
        wal.close().unwrap();
    }
}

/// The same where later frames attest it: what is told is where it would end.
#[test]
fn an_attested_frame_that_leaves_no_room_behind_it_is_corruption() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, frames) = three_groups();
    let (offset, _) = frames[0];
    let length = u32::try_from(SEGMENT_BYTES - 4096 - offset - 48).unwrap();
    let mut bytes = fs::read(directory.path().join(SEGMENT)).unwrap();
    let at = usize::try_from(offset).unwrap();
    LittleEndian::write_u32(&mut bytes[at + 12..at + 16], length);
    LittleEndian::write_u32(&mut bytes[at + TABLE_AT..], length - 4);
    seal_body(&mut bytes, offset, length);
    seal_header(&mut bytes, offset);
    let opened = opened(&bytes);
    let Err(OpenError::Corruption(corruption)) = opened else { panic!("{opened:?}") };
    assert_eq!(corruption.what, "room for a frame, two marks, the index and the trailer");
    let places = (corruption.offset, corruption.expected, corruption.found);
    assert_eq!(places, (offset, SEGMENT_BYTES, SEGMENT_BYTES - 4096));
}

/// The active segment, one that is not there, and half a number.
#[test]
fn a_frame_that_frees_what_cannot_be_freed_is_not_taken() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, frames) = three_groups();
    let (offset, _) = frames[2];
    let at = usize::try_from(offset).unwrap();
    for (number, length) in [(1_u64, 8_u32), (77, 8), (77, 4)] {
        let mut bytes = fs::read(directory.path().join(SEGMENT)).unwrap();
        bytes[at + 8..at + 40].fill(0);
        bytes[at + 48..at + 96].fill(0);
        LittleEndian::write_u32(&mut bytes[at + 12..at + 16], length);
        bytes[at + 16] = 11;
        LittleEndian::write_u64(&mut bytes[at + 48..at + 56], number);
        if length < 8 {
            bytes[at + 52..at + 56].fill(0);
        }
        seal_body(&mut bytes, offset, length);
        seal_header(&mut bytes, offset);
        let wal = opened(&bytes).unwrap();
        assert_eq!(texts(&wal), TEXTS[..2], "{number}");
        assert_eq!(wal.durable_lsn().0, offset - 4096, "{number}: the frame was cut");
        wal.log(LogId(1)).unwrap().push("goes on").unwrap().1.wait().unwrap();
    }
}

/// The forger above is able to forge: an honest change under new checksums is believed.
#[test]
fn a_whole_frame_made_by_hand_from_the_format_is_read() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (directory, frames) = three_groups();
    let (offset, held) = frames[2];
    let mut bytes = fs::read(directory.path().join(SEGMENT)).unwrap();
    bytes[usize::try_from(offset).unwrap() + ENTRY_AT] = b'T';
    seal_body(&mut bytes, offset, held);
    seal_header(&mut bytes, offset);
    let wal = opened(&bytes).unwrap();
    assert_eq!(texts(&wal)[2], "The third entry");
}

/// Three entries, each in a group of its own, as a kill leaves them; offset and length of body of their frames.
fn three_groups() -> (tempfile::TempDir, Vec<(u64, u32)>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("killed");
    let wal = open(&path).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    for text in TEXTS {
        log.push(text).unwrap().1.wait().unwrap();
    }
    fs::copy(path.join(SEGMENT), directory.path().join(SEGMENT)).unwrap();
    let scan = Scan::open(directory.path()).unwrap();
    let frames = scan.frames().map(Result::unwrap).filter(|frame| frame.kind == FrameKind::Entries);
    let length = |frame: &Frame| u32::try_from(frame.body.as_ref().unwrap().len()).unwrap();
    let frames = frames.map(|frame| (frame.offset, length(&frame))).collect();
    HONEST_HEAP_BYTES.get_or_init(|| HEAP.max_allocated());
    (directory, frames)
}

/// The segment with another body length in a frame, and with the checksum of so long a body if it is `sealed`.
fn with_length(directory: &Path, frame: (u64, u32), length: u32, sealed: bool) -> Vec<u8> {
    let mut bytes = fs::read(directory.join(SEGMENT)).unwrap();
    let at = usize::try_from(frame.0).unwrap();
    LittleEndian::write_u32(&mut bytes[at + 12..at + 16], length);
    if sealed {
        seal_body(&mut bytes, frame.0, length);
    }
    seal_header(&mut bytes, frame.0);
    bytes
}

fn seal_body(bytes: &mut [u8], offset: u64, length: u32) {
    let at = usize::try_from(offset).unwrap();
    let end = (at + 48).saturating_add(usize::try_from(length).unwrap()).min(bytes.len());
    let crc = crc32fast::hash(&bytes[at + 48..end]);
    LittleEndian::write_u32(&mut bytes[at + 8..at + 12], crc);
}

fn seal_header(bytes: &mut [u8], offset: u64) {
    let at = usize::try_from(offset).unwrap();
    let salt = mix32(crc32fast::hash(&UUID)).wrapping_add(1);
    let place = mix32(u32::try_from(offset).unwrap());
    let crc = crc32fast::hash(&bytes[at + 4..at + 48]) ^ salt ^ place;
    LittleEndian::write_u32(&mut bytes[at..at + 4], crc);
}

fn mix32(mut value: u32) -> u32 {
    value ^= value >> 16;
    value = value.wrapping_mul(0x85eb_ca6b);
    value ^= value >> 13;
    value = value.wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

/// Opens a directory with this one segment, after all that only look into it. The directory is gone afterwards, and the
/// file lives with the log.
fn opened(segment: &[u8]) -> Result<Wal, OpenError> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(SEGMENT), segment).unwrap();
    if let Ok(scan) = Scan::open(directory.path()) {
        scan.frames().for_each(drop);
    }
    drop(Wal::open_read_only(directory.path()));
    let opened = open(directory.path());
    // The file, and the copy of it that the test has made.
    let limit = HONEST_HEAP_BYTES.get().unwrap() + 2 * segment.len();
    assert!(HEAP.max_allocated() <= limit, "{} bytes of {limit}", HEAP.max_allocated());
    opened
}

fn open(path: &Path) -> Result<Wal, OpenError> {
    Wal::options()
        .segment_bytes(SEGMENT_BYTES)
        .uuid(UUID)
        .write_mode(mode())
        .without_threads()
        .open(path)
}

fn texts(wal: &Wal) -> Vec<String> {
    let entries = wal.log(LogId(1)).unwrap().read(1..9, usize::MAX);
    entries.map(|entry| String::from_utf8(entry.unwrap().bytes.to_vec()).unwrap()).collect()
}
