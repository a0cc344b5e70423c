use kontiki_core::{AppendEntries, Position as LogPosition};

use super::*;
use crate::document::assert_in_protocol;

/// The worked examples of PROTOCOL.md, byte for byte.
const APPEND: &[u8] = b"\
    \x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\
    \x00\x00\x07\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\
    \x00\x00\x0b\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\
    \x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02\x00\
    \x00\x00\x03\x00\x00\x00\x01a\x01bc";
const ANSWER: &[u8] = b"\
    \x02\x05\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x03\x00\
    \x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00\x02\x00\
    \x00\x00ok\x02";

fn whole(chunks: &[Bytes]) -> Bytes {
    chunks.concat().into()
}

fn results() -> Vec<ProposeResult> {
    let position = Position { term: 3, index: 9 };
    vec![
        Ok(Applied { position, reply: Bytes::from_static(b"reply") }),
        Err(ProposeError::NotLeader { hint: None }),
        Err(ProposeError::NotLeader { hint: Some((2, "b:7001".to_owned())) }),
        Err(ProposeError::Overloaded),
        Err(ProposeError::TooLarge { bytes: 10, limit: 9 }),
        Err(ProposeError::Superseded { position }),
        Err(ProposeError::Unknown { position: Some(position) }),
        Err(ProposeError::Unknown { position: None }),
    ]
}

#[test]
fn commands_come_back_small_and_large() {
    let payloads = [b"a".as_slice(), &[7; 10_000], b""].map(Entry::encode_command).to_vec();
    let decoded = decode(whole(&encode_propose(5, &payloads)));
    assert_eq!(decoded, Ok(Envelope::Propose { id: 5, payloads }));
}

#[test]
fn results_come_back() {
    let decoded = decode(whole(&encode_outcome(5, &results())));
    assert_eq!(decoded, Ok(Envelope::Outcome { id: 5, results: results() }));
}

#[test]
fn the_failure_of_a_leader_is_an_unknown_outcome_elsewhere() {
    let failed = [Err(ProposeError::Fatal("cause".into()))];
    let unknown = vec![Err(ProposeError::Unknown { position: None })];
    let decoded = decode(whole(&encode_outcome(5, &failed)));
    assert_eq!(decoded, Ok(Envelope::Outcome { id: 5, results: unknown }));

    // Certain here is certain there.
    let refused = [Err(ProposeError::NotAdmitted("reason".into())), Err(ProposeError::Stopped)];
    let results = vec![Err(ProposeError::NotLeader { hint: None }); 2];
    let decoded = decode(whole(&encode_outcome(5, &refused)));
    assert_eq!(decoded, Ok(Envelope::Outcome { id: 5, results }));
}

#[test]
fn any_cut_is_refused() {
    for bytes in [
        whole(&encode_outcome(5, &results())),
        whole(&encode_propose(5, &[Entry::encode_command(b"abc")])),
    ] {
        for end in 0..bytes.len() {
            assert!(decode(bytes.slice(..end)).is_err(), "cut at {end}");
        }
    }
}

#[test]
fn what_is_no_command_cannot_be_proposed_by_a_peer() {
    let mut payload = Entry::encode_command(b"x").to_vec();
    payload[0] = 200;
    assert!(decode(whole(&encode_propose(5, &[payload.into()]))).is_err());
}

/// A frame of 32 MiB may not become gigabytes: a result takes one byte there and many here.
#[test]
fn more_parts_than_a_message_may_have_are_refused_before_memory_is_taken_for_them() {
    let message = |kind: u8, count: usize, part: &[u8]| {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&7u64.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(count).unwrap().to_le_bytes());
        bytes.extend(part.repeat(count));
        Bytes::from(bytes)
    };
    for (kind, part) in [(PROPOSE, &b"\x01\0\0\0\x01"[..]), (OUTCOME, b"\x02")] {
        let most = decode(message(kind, PARTS_MAX, part)).unwrap();
        assert!(most.memory_bytes() >= PARTS_MAX * size_of::<Bytes>());
        let error = decode(message(kind, PARTS_MAX + 1, part)).unwrap_err();
        assert!(error.contains("262145 parts"), "{error}");
    }
}

#[test]
fn a_message_of_the_protocol_is_that_of_the_document() {
    let entry = |index: u64, command: &[u8]| Entry {
        index: LogIndex(index),
        term: Term(3),
        payload: Entry::encode_command(command),
    };
    let message = Message::AppendEntries(AppendEntries {
        term: Term(3),
        previous: LogPosition::new(2, 7),
        commit: LogIndex(6),
        round: 11,
        entries: vec![entry(8, b"a"), entry(9, b"bc")].into(),
    });
    assert_eq!(whole(&encode_protocol(&message)), APPEND);
    assert_eq!(decode(APPEND.into()), Ok(Envelope::Protocol(message)));
    assert_in_protocol(APPEND);
}

#[test]
fn an_outcome_is_that_of_the_document() {
    let position = Position { term: 3, index: 9 };
    let applied = Applied { position, reply: Bytes::from_static(b"ok") };
    let results = vec![Ok(applied), Err(ProposeError::Overloaded)];
    assert_eq!(whole(&encode_outcome(5, &results)), ANSWER);
    assert_eq!(decode(ANSWER.into()), Ok(Envelope::Outcome { id: 5, results }));
    assert_in_protocol(ANSWER);
}

#[test]
fn asks_and_pieces_of_images_come_back_and_what_contradicts_itself_is_refused() {
    let at = LogPosition::new(3, 9);
    for ask in [
        Ask { at: LogPosition::default(), offset: 0, bytes: 7 },
        Ask { at, offset: 1 << 40, bytes: 1 << 18 },
    ] {
        assert_eq!(decode(whole(&encode_ask(ask))), Ok(Envelope::Ask(ask)));
    }
    let piece = Piece { at, total: 100, offset: 90, bytes: Bytes::from_static(b"0123456789") };
    let bytes = whole(&encode_piece(Some(&piece)));
    assert_eq!(decode(bytes.clone()), Ok(Envelope::Piece(Some(piece.clone()))));
    assert_eq!(decode(whole(&encode_piece(None))), Ok(Envelope::Piece(None)));
    for end in 1..34 {
        assert!(decode(bytes.slice(..end)).is_err(), "cut at {end}");
    }
    for wrong in [
        Piece { offset: 91, ..piece.clone() },
        Piece { offset: u64::MAX, ..piece.clone() },
        Piece { at: LogPosition::default(), ..piece.clone() },
        Piece { at: LogPosition::new(0, 3), ..piece.clone() },
        Piece { at: LogPosition::new(1, u64::MAX), ..piece },
    ] {
        assert!(decode(whole(&encode_piece(Some(&wrong)))).is_err(), "{wrong:?}");
    }
}
