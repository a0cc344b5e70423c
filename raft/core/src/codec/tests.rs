//! Messages come back as they were; anything else is refused without a panic.

use alloc::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

fn entry(term: u64, index: u64, payload: &[u8]) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), payload: Entry::encode_command(payload) }
}

fn append(entries: Vec<Entry>) -> Message {
    Message::AppendEntries(AppendEntries {
        term: Term(5),
        previous: Position::new(2, 7),
        commit: LogIndex(6),
        round: 11,
        entries: Batch::from(entries),
    })
}

fn install(at: Position) -> Message {
    Message::InstallSnapshot(InstallSnapshot { term: Term(5), round: 11, at })
}

fn encode(message: &Message) -> Bytes {
    let mut chunks = Vec::new();
    encode_message(message, &mut chunks);
    Bytes::from(chunks.concat())
}

fn one_of_each() -> Vec<Message> {
    vec![
        Message::VoteRequest(VoteRequest {
            kind: VoteKind::Real,
            term: Term(3),
            last: Position::new(2, 9),
        }),
        Message::VoteResponse(VoteResponse { kind: VoteKind::Pre, term: Term(4), granted: true }),
        append(vec![]),
        append(vec![entry(2, 8, b"a"), entry(2, 9, b""), entry(5, 10, &[7; 5000])]),
        Message::AppendResponse(AppendResponse {
            term: Term(5),
            round: 11,
            outcome: AppendOutcome::Matched(LogIndex(10)),
        }),
        Message::AppendResponse(AppendResponse {
            term: Term(5),
            round: 12,
            outcome: AppendOutcome::Rejected {
                previous: Position::new(2, 7),
                hint: Position::new(1, 3),
            },
        }),
        Message::AppendResponse(AppendResponse {
            term: Term(5),
            round: 13,
            outcome: AppendOutcome::Fetching { at: Position::new(5, 9) },
        }),
        install(Position::new(5, 9)),
        Message::ReadIndexRequest(ReadIndexRequest { term: Term(5), id: ReadId(77) }),
        Message::ReadIndexResponse(ReadIndexResponse {
            term: Term(5),
            id: ReadId(77),
            index: Some(LogIndex(10)),
        }),
        Message::ReadIndexResponse(ReadIndexResponse {
            term: Term(5),
            id: ReadId(78),
            index: None,
        }),
    ]
}

#[test]
fn every_message_comes_back_as_it_was() {
    for message in one_of_each() {
        assert_eq!(decode_message(encode(&message)), Ok(message));
    }
}

#[test]
fn every_cut_and_every_longer_message_is_refused() {
    for message in one_of_each() {
        let bytes = encode(&message);
        for end in 0..bytes.len() {
            assert!(decode_message(bytes.slice(..end)).is_err(), "{message:?} cut at {end}");
        }
        assert!(decode_message(Bytes::from([&bytes[..], b"\0"].concat())).is_err());
    }
}

#[test]
fn large_payloads_travel_by_reference_and_small_ones_together() {
    let large = entry(2, 9, &[1; CHUNK_BYTES]);
    let mut chunks = Vec::new();
    encode_message(
        &append(vec![entry(2, 8, b"a"), large.clone(), entry(2, 10, b"b")]),
        &mut chunks,
    );
    assert_eq!(chunks.len(), 3);
    assert_eq!(chunks[1].as_ptr(), large.payload.as_ptr());
}

/// As PROTOCOL.md shows it, but in term 5.
#[test]
fn the_bytes_of_a_message_stay_as_they_are() {
    const APPEND: &[u8] = b"\
        \x03\x05\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\
        \x00\x07\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\
        \x00\x0b\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\
        \x00\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\
        \x00\x03\x00\x00\x00\x01a\x01bc";
    assert_eq!(encode(&append(vec![entry(3, 8, b"a"), entry(3, 9, b"bc")])), APPEND);
}

#[test]
fn decoded_payloads_are_slices_of_the_message() {
    let bytes = encode(&append(vec![entry(2, 8, b"abc")]));
    let Message::AppendEntries(request) = decode_message(bytes.clone()).unwrap() else { panic!() };
    let payload = &request.entries.entries()[0].payload;
    assert!(bytes.as_ptr_range().contains(&payload.as_ptr()));
}

#[test]
fn a_count_far_beyond_the_bytes_is_refused_before_anything_is_allocated() {
    let mut bytes = encode(&append(vec![])).to_vec();
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
    let found = u64::from(u32::MAX);
    let error = decode_message(bytes.into()).unwrap_err();
    assert_eq!(error, DecodeError::TooLarge { what: "a count in a message", found, limit: 0 });
}

#[test]
fn terms_of_entries_that_fall_are_zero_or_exceed_the_leaders_are_refused() {
    for terms in [[1, 2], [3, 2], [0, 0], [5, 6]] {
        let entries = vec![entry(terms[0], 8, b"a"), entry(terms[1], 9, b"b")];
        assert!(decode_message(encode(&append(entries))).is_err(), "{terms:?}");
    }
}

#[test]
fn terms_and_indexes_near_overflow_are_refused() {
    let mut bytes = encode(&one_of_each()[0]).to_vec();
    bytes[2..10].copy_from_slice(&u64::MAX.to_le_bytes());
    let error = decode_message(bytes.into()).unwrap_err();
    assert!(matches!(error, DecodeError::TooLarge { what: "a term", .. }), "{error}");
}

#[test]
fn a_snapshot_of_nothing_or_of_a_later_term_is_refused() {
    for at in [Position::default(), Position::new(6, 9)] {
        assert!(decode_message(encode(&install(at))).is_err(), "{at}");
    }
}

#[test]
fn an_entry_without_payload_is_refused() {
    let mut bad = entry(2, 8, b"");
    bad.payload = Bytes::new();
    assert!(decode_message(encode(&append(vec![bad]))).is_err());
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_message(bytes.into());
    }

    #[test]
    fn a_changed_byte_decodes_or_fails_but_never_panics(
        which in 0usize..11, at in any::<prop::sample::Index>(), value in any::<u8>()
    ) {
        let mut bytes = encode(&one_of_each()[which]).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        // What decodes is a message like any other: it encodes to the same bytes again.
        if let Ok(message) = decode_message(bytes.clone().into()) {
            prop_assert_eq!(encode(&message), bytes);
        }
    }
}

#[test]
fn more_entries_than_a_message_may_have_are_refused_before_memory_is_taken_for_them() {
    let message =
        |count: usize| encode(&append((8..).take(count).map(|at| entry(3, at, b"x")).collect()));
    assert!(decode_message(message(ENTRIES_MAX)).is_ok());
    let refused = decode_message(message(ENTRIES_MAX + 1));
    let limit = ENTRIES_MAX as u64;
    assert!(matches!(refused, Err(DecodeError::TooLarge { limit: l, .. }) if l == limit));
}
