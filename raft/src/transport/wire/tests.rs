use proptest::prelude::*;

use super::*;
use crate::document::assert_in_protocol;

/// The worked examples of PROTOCOL.md, byte for byte.
const GREETING: &[u8] = b"\
    KTKP\x01\x00\x01\x00\x01\x00\x00\x00\x37\x00\x00\x00\
    \x0c\xe6\x2f\x15\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\
    \x00\x00\x00\x00\x88\x77\x66\x55\x44\x33\x22\x11\x00\x00\x00\x00\
    \x00\x00\x00\x00\x03\x01\x01\x00\x00\x00\x00\x00\x00\x00\x05a\
    :701\x03\x00\x00\x00cfg";
const REFUSAL: &[u8] = b"\
    KTKP\x01\x00\x01\x00\x02\x00\x00\x00\x02\x00\x00\x00\
    \xbf\xc8\x86\x8ano";
const FRAME: &[u8] = b"\
    \x57\xd0\x83\xb2\x01\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\
    \xc2\x41\x24\x35abc";

fn example() -> Greeting {
    let hello = Hello {
        node: 1,
        incarnation: 0x1122_3344_5566_7788,
        cluster: 0,
        members: vec![(1, "a:701".into())],
        configuration: Some(Bytes::from_static(b"cfg")),
        log_is_empty: true,
    };
    Greeting::Hello { to: 2, hello, lane: Lane::Messages }
}

/// A greeting as one side reads it: header, then the body that the header announces.
fn read(bytes: &[u8]) -> Result<(Versions, Greeting), WireError> {
    let needed = GREETING_HEADER_BYTES;
    let short = WireError::Short { what: "greeting", needed, found: bytes.len() };
    let (raw, body) = bytes.split_first_chunk().ok_or(short)?;
    let header = decode_greeting_header(raw)?;
    let body = &body[..body.len().min(header.body_bytes)];
    Ok((header.versions, decode_greeting(&header, raw, body)?))
}

#[test]
fn encodes_the_examples_of_the_protocol() {
    [GREETING, REFUSAL, FRAME].into_iter().for_each(assert_in_protocol);
    assert_eq!(encode_greeting(Versions::OURS, &example()), GREETING);
    assert_eq!(encode_greeting(Versions::OURS, &Greeting::Refusal("no".into())), REFUSAL);
    let payload = Bytes::from_static(b"abc");
    // However it is cut into chunks.
    for chunks in [vec![payload.clone()], vec![payload.slice(..1), payload.slice(1..)]] {
        let header = encode_frame_header(FrameKind::Message, 7, &chunks);
        assert_eq!(header, FRAME[..FRAME_HEADER_BYTES]);
    }
}

#[test]
fn decodes_the_examples_of_the_protocol() {
    assert_eq!(read(GREETING), Ok((Versions::OURS, example())));
    assert_eq!(read(REFUSAL), Ok((Versions::OURS, Greeting::Refusal("no".into()))));
    let (header, payload) = FRAME.split_first_chunk().unwrap();
    let header = decode_frame_header(header).unwrap();
    assert_eq!((header.kind, header.group, header.payload_bytes), (FrameKind::Message, 7, 3));
    header.check(payload).unwrap();
}

#[test]
fn any_flipped_bit_of_a_greeting_is_seen() {
    for bit in 0..GREETING.len() * 8 {
        let mut bytes = GREETING.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn any_cut_of_a_greeting_is_seen() {
    for end in 0..GREETING.len() {
        assert!(read(&GREETING[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn only_a_beginning_of_the_magic_begins_like_a_greeting() {
    for end in 0..GREETING.len() {
        assert!(begins_like_a_greeting(&GREETING[..end]));
    }
    for wrong in [&b"k"[..], b"KT ", b"KTKQ", b"\0", b"GET /"] {
        assert!(!begins_like_a_greeting(wrong));
    }
}

#[test]
fn a_frame_over_the_limit_of_its_kind_is_refused_with_a_good_checksum() {
    let limits = [
        (FrameKind::Message, MESSAGE_BYTES_MAX),
        (FrameKind::Hello, GREETING_BODY_BYTES_MAX),
        (FrameKind::Keepalive, 0),
        (FrameKind::Goodbye, REASON_BYTES_MAX),
    ];
    for (kind, limit) in limits {
        let at_the_limit = frame_header(kind.code(), 0, u32::try_from(limit).unwrap());
        assert_eq!(decode_frame_header(&at_the_limit).unwrap().payload_bytes, limit);
        let found = limit + 1;
        let over = frame_header(kind.code(), 0, u32::try_from(found).unwrap());
        let error = WireError::TooLong { what: "frame", found, limit };
        assert_eq!(decode_frame_header(&over), Err(error));
    }
}

#[test]
fn an_unknown_kind_or_a_reserved_byte_is_refused_with_a_good_checksum() {
    for kind in (0..=255).filter(|kind| !(1..=4).contains(kind)) {
        let error = WireError::UnknownKind { what: "frame", kind };
        assert_eq!(decode_frame_header(&frame_header(kind, 0, 0)), Err(error));
    }
    let reserved = WireError::Invalid { what: "frame", reason: "reserved bytes are not zero" };
    assert_eq!(decode_frame_header(&frame_header(3, 1, 0)), Err(reserved.clone()));
    for byte in 5..8 {
        let mut header = frame_header(1, 0, 0);
        header[byte] = 1;
        assert_eq!(decode_frame_header(&sealed(header)), Err(reserved.clone()));
    }
}

#[test]
fn a_hello_beyond_its_limits_is_refused() {
    let Greeting::Hello { hello, .. } = example() else { unreachable!() };
    let long = "x".repeat(Hello::ADDRESS_BYTES_MAX + 1);
    let large = Bytes::from(vec![0; Hello::CONFIGURATION_BYTES_MAX + 1]);
    let beyond = [
        Hello { members: vec![(1, "x:1".into()); Hello::MEMBERS_MAX + 1], ..hello.clone() },
        Hello { members: vec![(1, long)], ..hello.clone() },
        Hello { members: vec![(1, "x\n:1".into())], ..hello.clone() },
        Hello { configuration: Some(large), ..hello.clone() },
    ];
    for hello in beyond {
        assert!(check_hello(&hello).is_err());
    }
    assert_eq!(check_hello(&hello), Ok(()));
}

#[test]
fn a_hello_with_more_than_it_says_is_refused() {
    let body = &GREETING[GREETING_HEADER_BYTES..];
    for end in 0..body.len() {
        assert!(decode_hello(&body[..end]).is_err(), "cut at {end}");
    }
    let longer = [body, b"x"].concat();
    let error = WireError::Invalid { what: "hello", reason: "bytes follow its end" };
    assert_eq!(decode_hello(&longer), Err(error));

    let mut flagged = body.to_vec();
    flagged[32] |= 8;
    let error = WireError::Invalid { what: "hello", reason: "an unknown flag is set" };
    assert_eq!(decode_hello(&flagged), Err(error));
}

#[test]
fn a_long_reason_is_cut_between_characters() {
    let reason = "\u{fc}".repeat(REASON_BYTES_MAX);
    let frame = encode_goodbye(&reason[..]);
    let (header, text) = frame.split_first_chunk().unwrap();
    decode_frame_header(header).unwrap().check(text).unwrap();
    assert_eq!(readable(text), reason[..REASON_BYTES_MAX]);
}

#[test]
fn versions_agree_on_the_newest_that_both_speak() {
    let range = |min, max| Versions { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Ok(3));
    assert_eq!(range(2, 5).common(range(1, 3)), Ok(3));
    assert_eq!(range(1, 1).common(range(1, 9)), Ok(1));
    assert!(range(1, 1).common(range(2, 3)).is_err());
    assert!(range(2, 3).common(range(1, 1)).is_err());
    assert!(range(1, 9).common(range(3, 2)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_hello_comes_back_as_it_was(
        numbers in any::<[u64; 4]>(),
        members in prop::collection::vec((any::<u64>(), "[a-z0-9.:-]{0,90}"), 0..=16),
        configuration in prop::option::of(prop::collection::vec(any::<u8>(), 0..=4096)),
        log_is_empty in any::<bool>(),
        lane in prop::sample::select(&Lane::ALL[..]),
    ) {
        let [to, node, incarnation, cluster] = numbers;
        let configuration = configuration.map(Bytes::from);
        let hello = Hello { node, incarnation, cluster, members, configuration, log_is_empty };
        prop_assert_eq!(decode_hello(&encode_hello(to, &hello, lane)), Ok((to, hello, lane)));
    }

    /// Random bytes behind a good beginning reach further into the decoders than random bytes.
    #[test]
    fn no_bytes_make_a_decoder_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        kept in 0..GREETING.len(),
    ) {
        let grafted = [&GREETING[..kept], &bytes].concat();
        for bytes in [&bytes, &grafted] {
            let _ = read(bytes);
            let _ = decode_hello(bytes);
            let _ = decode_hello(&grafted[GREETING_HEADER_BYTES.min(grafted.len())..]);
            readable(bytes);
            if let Some((header, _)) = bytes.split_first_chunk() {
                let _ = decode_frame_header(header);
                let _ = decode_frame_header(&sealed(*header));
            }
        }
    }
}

fn frame_header(kind: u8, group: u32, payload_bytes: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[4] = kind;
    header[8..12].copy_from_slice(&group.to_le_bytes());
    header[12..16].copy_from_slice(&payload_bytes.to_le_bytes());
    sealed(header)
}

/// With a checksum that holds.
fn sealed(mut header: [u8; FRAME_HEADER_BYTES]) -> [u8; FRAME_HEADER_BYTES] {
    let check = crc32fast::hash(&header[4..]);
    header[..4].copy_from_slice(&check.to_le_bytes());
    header
}
