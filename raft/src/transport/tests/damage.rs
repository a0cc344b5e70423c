//! Bytes of a greeted peer that are wrong.

use super::*;

/// What `one` says before it closes a raw connection.
fn goodbye(raw: TcpStream) -> String {
    let bytes = raw_rest(raw);
    let (header, reason) = bytes.split_first_chunk().expect("a goodbye");
    let header = wire::decode_frame_header(header).unwrap();
    assert_eq!(header.kind, FrameKind::Goodbye);
    header.check(reason).unwrap();
    String::from_utf8(reason.to_vec()).unwrap()
}

#[test]
fn any_flipped_bit_of_a_frame_closes_the_connection_with_a_reason() {
    let one = Peer::start(1);
    let frame = raw_frame(FrameKind::Message, b"payload!");
    for bit in 0..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let mut raw = raw_connection(&one, 2);
        raw.write_all(&damaged).unwrap();
        let reason = goodbye(raw);
        assert!(reason.contains("checksum"), "bit {bit}: {reason}");
    }
    assert!(one.recorder.messages().is_empty());
}

#[test]
fn a_damaged_frame_leaves_other_connections_alone() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    two.connect_to(&one);
    let mut raw = raw_connection(&one, 3);
    raw.write_all(&[0; 20]).unwrap();
    goodbye(raw);
    one.recorder.wait_refused("the checksum of a header of a frame does not hold");
    assert!(two.send(1, "still here"));
    one.recorder.wait_messages(1);
    assert_eq!(two.recorder.count(|event| matches!(event, Event::Disconnected(..))), 0);
}

#[test]
fn messages_before_the_damage_are_delivered_and_none_after() {
    let one = Peer::start(1);
    let mut raw = raw_connection(&one, 2);
    let mut bytes = raw_frame(FrameKind::Message, b"before");
    bytes.extend_from_slice(&[7; 20]);
    bytes.extend_from_slice(&raw_frame(FrameKind::Message, b"after"));
    raw.write_all(&bytes).unwrap();
    goodbye(raw);
    one.recorder.wait_count("the end", 1, |event| matches!(event, Event::AnswersLost(2, _)));
    assert_eq!(one.recorder.messages(), [(2, 0, Bytes::from_static(b"before"))]);
}

#[test]
fn a_message_that_the_node_does_not_know_closes_the_connection_with_its_reason() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    assert!(one.send(2, UNKNOWN));
    one.recorder.wait("the reason", |events| {
        let reason = "closed by the peer: a message of the unknown kind 99".to_owned();
        events.contains(&Event::Disconnected(2, reason)).then_some(())
    });
    two.recorder.wait_refused("a message of the unknown kind 99");
}

#[test]
fn a_hello_of_another_incarnation_is_not_believed() {
    let one = Peer::start(1);
    let mut raw = raw_connection(&one, 2);
    let body = wire::encode_hello(1, &Hello { incarnation: 5, ..hello(2) }, Lane::Messages);
    let body = Bytes::from(body);
    let header = wire::encode_frame_header(FrameKind::Hello, 0, std::slice::from_ref(&body));
    raw.write_all(&[&header[..], &body].concat()).unwrap();
    assert_eq!(goodbye(raw), "a hello of another node than greeted");
    assert_eq!(one.recorder.count(|event| matches!(event, Event::Hello(_))), 1);
}

#[test]
fn a_peer_that_talks_on_the_wrong_connection_loses_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start(1);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let mut raw = raw_accept(&listener, 2);
    one.recorder.wait_connected(2, 1);
    raw.write_all(&raw_frame(FrameKind::Message, b"x")).unwrap();
    one.recorder.wait("the end", |events| {
        let reason = "the peer sends on a connection that is for this node to send".to_owned();
        events.contains(&Event::Disconnected(2, reason)).then_some(())
    });
}

#[test]
fn a_reason_of_a_peer_is_fit_for_a_log_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start(1);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let mut raw = raw_accept(&listener, 2);
    one.recorder.wait_connected(2, 1);
    raw.write_all(&wire::encode_goodbye("fine\nroot: all is well")).unwrap();
    one.recorder.wait("the end", |events| {
        let reason = "closed by the peer: fine\u{fffd}root: all is well".to_owned();
        events.contains(&Event::Disconnected(2, reason)).then_some(())
    });
}
