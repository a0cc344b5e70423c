use redis_protocol::resp2::{
    encode::extend_encode,
    types::{BytesFrame, OwnedFrame},
};

use super::*;

#[test]
fn reads_what_an_independent_encoder_writes() {
    let frame = BytesFrame::Array(
        ["SET", "", "with\r\nend"].map(|text| BytesFrame::BulkString(text.into())).to_vec(),
    );
    let mut bytes = BytesMut::new();
    extend_encode(&mut bytes, &frame, false).unwrap();
    assert_eq!(all(&bytes), Ok(vec![arguments(&["SET", "", "with\r\nend"])]));
    // The same bytes are what its decoder takes, so both agree on where the frame ends.
    let (decoded, length) = redis_protocol::resp2::decode::decode(&bytes).unwrap().unwrap();
    assert!(matches!(decoded, OwnedFrame::Array(parts) if parts.len() == 3));
    assert_eq!(length, bytes.len());
}

#[test]
fn any_way_of_cutting_the_stream_gives_the_same_requests() {
    let stream = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*0\r\n\r\n*1\r\n$4\r\nPING\r\n";
    let whole = all(stream).unwrap();
    assert_eq!(whole, [arguments(&["GET", "a"]), arguments(&["PING"]), arguments(&["PING"])]);
    for first in 0..stream.len() {
        for second in first..stream.len() {
            let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
            assert_eq!(read(&pieces), Ok(whole.clone()), "cut at {first} and {second}");
        }
    }
}

#[test]
fn an_inline_command_is_split_at_blanks_outside_quotes() {
    for (line, expected) in [
        ("SET a b", &["SET", "a", "b"][..]),
        ("  SET\t a  ", &["SET", "a"]),
        (r#"SET "a b" 'c "d"'"#, &["SET", "a b", "c \"d\""]),
        (r#"SET "\x41\n\"" '\''"#, &["SET", "A\n\"", "'"]),
        (r#"SET "" x"#, &["SET", "", "x"]),
    ] {
        let stream = format!("{line}\r\n{line}\n");
        assert_eq!(all(stream.as_bytes()), Ok(vec![arguments(expected); 2]), "{line}");
    }
}

#[test]
fn what_is_not_resp_is_an_error_that_says_why() {
    for (stream, expected) in [
        ("*x\r\n", ProtocolError::ArrayLength),
        ("*131073\r\n", ProtocolError::ArrayLength),
        ("*9223372036854775807\r\n", ProtocolError::ArrayLength),
        ("*99999999999999999999\r\n", ProtocolError::ArrayLength),
        ("*+1\r\n", ProtocolError::ArrayLength),
        ("*1\r\n$-1\r\n", ProtocolError::BulkLength),
        ("*1\r\n$536870913\r\n", ProtocolError::BulkLength),
        ("*1\r\n$9223372036854775807\r\n", ProtocolError::BulkLength),
        ("*1\r\n$1x\r\n", ProtocolError::BulkLength),
        ("*1\r\n*1\r\n$1\r\na\r\n", ProtocolError::NotABulk { found: b'*' }),
        ("*1\r\n$1\r\nabc", ProtocolError::BulkEnd),
        ("SET \"a\r\n", ProtocolError::UnbalancedQuotes),
        ("SET \"a\"b\r\n", ProtocolError::UnbalancedQuotes),
    ] {
        assert_eq!(all(stream.as_bytes()), Err(expected), "{stream:?}");
    }
}

#[test]
fn a_line_without_an_end_is_refused_at_its_bound() {
    for (head, bytes_max, expected) in [
        ("*", NUMBER_BYTES_MAX, ProtocolError::ArrayLength),
        ("*1\r\n$", NUMBER_BYTES_MAX, ProtocolError::BulkLength),
        ("G", INLINE_BYTES_MAX, ProtocolError::InlineTooLong),
    ] {
        let short = format!("{head}{}", "1".repeat(bytes_max - 1));
        assert_eq!(all(short.as_bytes()), Ok(vec![]), "{head:?}");
        let long = format!("{head}{}", "1".repeat(bytes_max));
        assert_eq!(all(long.as_bytes()), Err(expected), "{head:?}");
    }
}

#[test]
fn a_request_at_the_limit_is_read_and_one_byte_more_is_thrown_away() {
    let framing = "*2\r\n$3\r\nGET\r\n$8388608\r\n\r\n".len() - 2;
    for over in [0, 1] {
        let value_bytes = REQUEST_BYTES_MAX - framing + over;
        let mut stream = format!("*2\r\n$3\r\nGET\r\n${value_bytes}\r\n").into_bytes();
        stream.resize(stream.len() + value_bytes, b'v');
        stream.extend_from_slice(b"\r\nPING\r\n");
        let requests = read(&stream.chunks(100_000).collect::<Vec<_>>()).unwrap();
        assert_eq!(requests.len(), 2);
        match &requests[0] {
            Request::Arguments(arguments) => assert!(over == 0 && arguments.len() == 2),
            Request::TooLarge { bytes } => assert!(over == 1 && *bytes == REQUEST_BYTES_MAX + 1),
        }
        assert_eq!(requests[1], arguments(&["PING"]));
    }
}

#[test]
fn a_too_large_request_is_not_kept_in_memory_while_it_arrives() {
    let mut reader = RequestReader::default();
    let mut buffer = BytesMut::from(&b"*2\r\n$3\r\nGET\r\n$536870912\r\n"[..]);
    for _ in 0..100 {
        buffer.extend_from_slice(&[b'v'; 1000]);
        assert_eq!(reader.next(&mut buffer), Ok(None));
        assert!(buffer.is_empty());
    }
}

#[test]
fn a_promised_array_takes_no_memory_before_it_arrives() {
    let mut reader = RequestReader::default();
    let mut buffer = BytesMut::from(&b"*131072\r\n"[..]);
    assert_eq!(reader.next(&mut buffer), Ok(None));
    assert!(reader.partial.unwrap().arguments.capacity() <= 16);
}

#[test]
fn numbers_are_as_strict_as_in_redis() {
    for (digits, expected) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("", None),
        ("-", None),
        ("-0", None),
        ("01", None),
        ("+1", None),
        (" 1", None),
        ("1 ", None),
        ("1.0", None),
    ] {
        assert_eq!(number(digits.as_bytes()), expected, "{digits:?}");
    }
}

fn all(stream: &[u8]) -> Result<Vec<Request>, ProtocolError> {
    read(&[stream])
}

/// What a reader finds that is asked after each piece.
fn read(pieces: &[&[u8]]) -> Result<Vec<Request>, ProtocolError> {
    let mut reader = RequestReader::default();
    let mut buffer = BytesMut::new();
    let mut requests = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(request) = reader.next(&mut buffer)? {
            requests.push(request);
        }
    }
    Ok(requests)
}

fn arguments(arguments: &[&str]) -> Request {
    Request::Arguments(arguments.iter().map(|a| Bytes::copy_from_slice(a.as_bytes())).collect())
}

/// Random streams over the alphabet of the protocol: no panic, and the same result for any pieces.
#[test]
fn noise_is_read_alike_in_one_piece_and_byte_by_byte() {
    const ALPHABET: &[u8] = b"**$$\r\n\r\n\r\n0123-ab\"'\\x ";
    let mut random: u64 = 1;
    let mut requests_seen = 0;
    let mut errors_seen = 0;
    for _ in 0..20_000 {
        let mut stream = Vec::new();
        for _ in 0..40 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = usize::try_from(random >> 33).unwrap() % ALPHABET.len();
            stream.push(ALPHABET[place]);
        }
        let whole = all(&stream);
        assert_eq!(
            read(&stream.chunks(1).collect::<Vec<_>>()),
            whole,
            "{:?}",
            stream.escape_ascii()
        );
        match whole {
            Ok(requests) => requests_seen += requests.len(),
            Err(_) => errors_seen += 1,
        }
    }
    assert!(requests_seen > 1000 && errors_seen > 1000, "{requests_seen} and {errors_seen}");
}
