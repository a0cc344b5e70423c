use super::*;

/// The worked example of FORMAT.md, byte for byte.
#[rustfmt::skip]
const EXAMPLE: [u8; 64] = [
    0xa4, 0x49, 0x6e, 0xed, 0x01, 0x02, 0x03, 0x04, 0x61, 0xec, 0x84, 0x51, 0x0b, 0x00, 0x00, 0x00,
    0x03, 0x00, 0x02, 0x00, 0x01, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x07, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x61, 0x62, 0x63, 0x00, 0x00, 0x00, 0x00, 0x00,
];

const OFFSET: u64 = 4240;

fn example_salt() -> u32 {
    let uuid = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    salt(&uuid, 1)
}

fn example() -> (Header, Vec<u8>) {
    let mut body = Vec::new();
    for end in [1_u32, 3] {
        body.extend_from_slice(&end.to_le_bytes());
    }
    body.extend_from_slice(b"abc");
    let header = Header {
        link: 0x0403_0201,
        count: 2,
        first_index: 5,
        term: 7,
        durable_lsn: Lsn(128),
        ..Header::new(FrameKind::Entries, LogId(1), &body)
    };
    (header, body)
}

fn is_whole(bytes: &[u8]) -> bool {
    let header: &[u8; 48] = bytes[..48].try_into().unwrap();
    Header::decode(header, example_salt(), OFFSET).is_some_and(|header| {
        header.frame_bytes() == bytes.len() as u64 && header.body_fault(&bytes[48..]).is_none()
    })
}

/// A field that a kind does not use is zero, so that a later version can give it a meaning.
#[test]
fn a_frame_with_what_is_not_of_its_kind_is_not_whole() {
    let decodes = |header: Header| Header::decode(&header.encode(3, 4096), 3, 4096).is_some();
    let mark = Header::new(FrameKind::Mark, LogId(0), &[]);
    let state = Header::new(FrameKind::State, LogId(7), b"state");
    let truncate = Header { first_index: 4, ..Header::new(FrameKind::Truncate, LogId(7), &[]) };
    assert!(decodes(mark) && decodes(state) && decodes(truncate));
    assert!(!decodes(Header { log: LogId(7), ..mark }));
    assert!(!decodes(Header { count: 5, ..mark }));
    assert!(!decodes(Header { body_len: 8, ..mark }));
    assert!(!decodes(Header { first_index: 1, ..mark }));
    assert!(!decodes(Header { term: 1, ..state }));
    assert!(!decodes(Header { body_len: 4097, ..state }));
    assert!(!decodes(Header { body_len: 8, ..truncate }));
    assert!(!decodes(Header { count: 3, ..truncate }));
    assert!(!decodes(Header { kind: FrameKind::Entries, ..truncate }));
    assert!(!decodes(Header { first_index: 0, ..truncate }), "indexes count from 1");
}

#[test]
fn encodes_the_example_of_the_specification() {
    let (header, body) = example();
    let mut bytes = header.encode(example_salt(), OFFSET).to_vec();
    bytes.extend_from_slice(&body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    assert_eq!(bytes, EXAMPLE);
    assert!(is_whole(&EXAMPLE));
    assert_eq!(example_salt(), 0x42b8_bb84);
    let mut shown = include_str!("../../FORMAT.md").lines();
    for (number, line) in EXAMPLE.chunks(16).enumerate() {
        let hex: String = line.iter().map(|byte| format!(" {byte:02x}")).collect();
        let line = format!("{:02x} {hex}", number * 16);
        assert!(shown.any(|shown| shown.starts_with(&line)), "FORMAT.md does not show {line}");
    }
}

#[test]
fn a_header_reads_back_as_it_was_written() {
    let (header, body) = example();
    let salt = example_salt();
    assert_eq!(Header::decode(&header.encode(salt, OFFSET), salt, OFFSET), Some(header));
    assert_eq!([0, 1].map(|number| entry_range(&body, 2, number)), [8..9, 9..11]);
}

#[test]
fn any_flipped_bit_of_a_frame_is_seen() {
    for bit in 0..EXAMPLE.len() * 8 {
        let mut bytes = EXAMPLE;
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_whole(&bytes), "bit {bit}");
    }
}

/// WAL-CASE 10: a header of one frame and a body of another, at any sector boundary between them.
#[test]
fn no_mixture_of_two_frames_is_whole() {
    let frame = |fill: u8| {
        let mut body = 2000_u32.to_le_bytes().to_vec();
        body.resize(2004, fill);
        let header = Header::new(FrameKind::Entries, LogId(1), &body);
        let header = Header { first_index: 1, count: 1, ..header };
        let mut bytes = header.encode(example_salt(), OFFSET).to_vec();
        bytes.extend_from_slice(&body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let (old, new) = (frame(1), frame(2));
    assert!(is_whole(&old) && is_whole(&new));
    let first = usize::try_from(512 - OFFSET % 512).unwrap();
    for cut in (first..old.len()).step_by(512) {
        assert!(!is_whole(&[&new[..cut], &old[cut..]].concat()), "cut at {cut}");
        assert!(!is_whole(&[&old[..cut], &new[cut..]].concat()), "cut at {cut}");
    }
}

/// WAL-CASE 8: the constant part; a whole segment of an earlier life is in `tests/`.
#[test]
fn a_frame_of_another_life_of_the_file_or_of_another_offset_never_holds() {
    let (header, _) = example();
    let uuid = [3; 16];
    let bytes = header.encode(salt(&uuid, 1), OFFSET);
    for sequence in 2..2000 {
        assert_eq!(Header::decode(&bytes, salt(&uuid, sequence), OFFSET), None);
    }
    for offset in (0..64 << 10).step_by(8).filter(|&offset| offset != OFFSET) {
        assert_eq!(Header::decode(&bytes, salt(&uuid, 1), offset), None);
    }
}

#[test]
fn zeros_are_no_frame() {
    assert_eq!(Header::decode(&[0; 48], example_salt(), OFFSET), None);
}

#[test]
fn a_table_that_runs_backwards_or_past_the_body_is_a_fault() {
    for ends in [[2_u32, 1], [1, 4], [1, 2], [u32::MAX, u32::MAX]] {
        let mut body = Vec::new();
        ends.iter().for_each(|end| body.extend_from_slice(&end.to_le_bytes()));
        body.extend_from_slice(b"abc");
        let header = Header { count: 2, ..Header::new(FrameKind::Entries, LogId(1), &body) };
        body.resize(body.len().next_multiple_of(8), 0);
        assert!(header.body_fault(&body).is_some(), "{ends:?}");
    }
}

/// A flag says what a reader must know: one that it does not know, or that is not of the kind, makes the frame none.
#[test]
fn a_header_with_a_flag_that_its_kind_does_not_have_is_not_whole() {
    let with_flags = |header: Header, flags: u8| {
        let mut bytes = header.encode(3, 4096);
        bytes[17] = flags;
        let crc = checksum(&bytes, 3, 4096);
        LittleEndian::write_u32(&mut bytes[0..4], crc);
        bytes
    };
    let mark = Header::new(FrameKind::Mark, LogId(0), &[]);
    let state = Header::new(FrameKind::State, LogId(7), b"state");
    let decodes = |bytes: &[u8; 48]| Header::decode(bytes, 3, 4096).is_some();
    for (header, flags) in [(mark, 0), (mark, 1), (state, 0)] {
        assert!(decodes(&with_flags(header, flags)), "{flags}");
    }
    for (header, flags) in [(mark, 2), (mark, 3), (state, 1), (state, 2)] {
        let mut bytes = with_flags(header, flags);
        assert!(!decodes(&bytes), "{flags}");
        let what = |bytes: [u8; 48]| header_fault(&bytes, 3, 4096).what;
        assert_eq!(what(bytes), "kind, flags or lengths of a frame's header");
        bytes[40] ^= 1;
        assert_eq!(what(bytes), "checksum of a frame's header");
    }
}

#[test]
fn a_frame_holds_the_indexes_of_its_own_log_and_no_others() {
    let (entries, _) = example();
    let held = (0..9).filter(|&index| entries.holds(LogId(1), index)).collect::<Vec<_>>();
    assert_eq!(held, [5, 6]);
    assert!(!entries.holds(LogId(2), 5));
    let compact = Header { first_index: 5, ..Header::new(FrameKind::Compact, LogId(1), &[]) };
    assert!(!compact.holds(LogId(1), 5));
}
