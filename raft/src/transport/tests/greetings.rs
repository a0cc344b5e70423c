//! Who speaks to whom.

use super::*;

#[test]
fn both_sides_hear_the_hello_of_the_other() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    for (peer, other) in [(&one, &two), (&two, &one)] {
        let heard = peer.recorder.wait("a hello", |events| match events.first() {
            Some(Event::Hello(hello)) => Some(hello.clone()),
            _ => None,
        });
        assert_eq!(heard, hello(other.id));
    }
}

/// RAFT-CASE 45: the reason is told on both sides.
#[test]
fn a_node_of_another_cluster_is_refused_by_the_one_it_connects_to() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    *two.recorder.refused_cluster.lock() = Some(7);
    one.transport.set_peers(&[(2, two.address.to_string())]);

    let told = one.recorder.wait_refused("cluster 7 is another");
    assert_eq!(told, format!("node 2 at {}: refuses this node: cluster 7 is another", two.address));
    assert!(two.recorder.wait_refused("cluster 7 is another").starts_with("node 1 at 127.0.0.1: "));
    assert!(!one.send(2, "nothing is taken"));
    assert_eq!(one.recorder.count(|event| *event == Event::Connected(2)), 0);
}

/// RAFT-CASE 45, from the other side.
#[test]
fn a_node_of_another_cluster_is_refused_by_the_one_that_connects() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    *one.recorder.refused_cluster.lock() = Some(7);
    one.transport.set_peers(&[(2, two.address.to_string())]);

    one.recorder.wait_refused("cluster 7 is another");
    assert!(two.recorder.wait_refused("cluster 7 is another").contains("closes"));
    assert_eq!(one.recorder.count(|event| *event == Event::Connected(2)), 0);
}

/// RAFT-CASE 60: the same address, another node.
#[test]
fn a_wrong_node_at_the_address_is_refused_on_both_sides() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.transport.set_peers(&[(3, two.address.to_string())]);
    one.recorder.wait_refused("refuses this node: this is node 2, not node 3");
    two.recorder.wait_refused("this is node 2, not node 3");
    assert_eq!(two.recorder.count(|event| matches!(event, Event::Hello(_))), 0);
}

/// RAFT-CASE 60: an accepter that does not check whom it is taken for.
#[test]
fn an_answer_of_a_wrong_node_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start(1);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let (mut stream, _) = listener.accept().unwrap();
    raw_answer(&mut stream);
    let answer = Greeting::Hello { to: 1, hello: hello(3), lane: Lane::Messages };
    stream.write_all(&wire::encode_greeting(Versions::OURS, &answer)).unwrap();

    one.recorder.wait_refused("this is node 3, not node 2");
    let mut goodbye = Vec::new();
    stream.read_to_end(&mut goodbye).unwrap();
    assert_eq!(goodbye, wire::encode_goodbye("this is node 3, not node 2"));
}

#[test]
fn a_node_does_not_connect_to_itself() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    let own = one.address.to_string();
    one.transport.set_peers(&[(1, own), (2, two.address.to_string())]);
    one.recorder.wait_connected(2, 1);
    assert!(!one.send(1, "to itself"));

    // Somebody else with the same id.
    let mut raw = TcpStream::connect(one.address).unwrap();
    let greeting = Greeting::Hello { to: 1, hello: hello(1), lane: Lane::Messages };
    raw.write_all(&wire::encode_greeting(Versions::OURS, &greeting)).unwrap();
    assert_eq!(raw_answer(&mut raw), Greeting::Refusal("this is node 1 already".into()));
}

#[test]
fn a_newer_version_only_is_refused_with_both_ranges() {
    let one = Peer::start(1);
    let mut raw = TcpStream::connect(one.address).unwrap();
    let greeting = Greeting::Hello { to: 1, hello: hello(2), lane: Lane::Messages };
    let versions = Versions { min: 2, max: 3 };
    raw.write_all(&wire::encode_greeting(versions, &greeting)).unwrap();
    let reason = "speaks protocol versions 2 to 3, this node 1 to 1";
    assert_eq!(raw_answer(&mut raw), Greeting::Refusal(reason.into()));
    one.recorder.wait_refused(reason);
}

/// Only the header of a greeting never changes.
#[test]
fn a_newer_version_is_refused_whatever_its_greeting_says() {
    for kind in [1, 2, 9] {
        let one = Peer::start(1);
        let mut raw = TcpStream::connect(one.address).unwrap();
        let foreign = Greeting::Refusal("laid out in another way".into());
        let mut bytes = wire::encode_greeting(Versions { min: 2, max: 3 }, &foreign);
        bytes[8] = kind;
        let check = crc32fast::hash(&[&bytes[..16], &bytes[GREETING_HEADER_BYTES..]].concat());
        bytes[16..GREETING_HEADER_BYTES].copy_from_slice(&check.to_le_bytes());
        raw.write_all(&bytes).unwrap();
        let reason = "speaks protocol versions 2 to 3, this node 1 to 1";
        assert_eq!(raw_answer(&mut raw), Greeting::Refusal(reason.into()));
        one.recorder.wait_refused(reason);
    }
}

#[test]
fn a_range_of_versions_agrees_on_the_newest_common_one() {
    let one = Peer::start(1);
    let mut raw = TcpStream::connect(one.address).unwrap();
    let greeting = Greeting::Hello { to: 1, hello: hello(2), lane: Lane::Messages };
    raw.write_all(&wire::encode_greeting(Versions { min: 1, max: 9 }, &greeting)).unwrap();
    let mut header = [0; GREETING_HEADER_BYTES];
    raw.read_exact(&mut header).unwrap();
    let header = wire::decode_greeting_header(&header).unwrap();
    assert_eq!(header.versions, Versions { min: 1, max: 1 });
}

#[test]
fn a_changed_hello_is_heard_before_any_later_message() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    let changed = Hello {
        cluster: 99,
        configuration: Some(Bytes::from_static(b"a configuration")),
        log_is_empty: false,
        ..hello(1)
    };
    one.transport.set_hello(changed.clone());
    assert!(one.send(2, "later"));

    two.recorder.wait_messages(1);
    let events = two.recorder.events.lock();
    let told: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, Event::Hello(_) | Event::Message(..)))
        .collect();
    let later = Event::Message(1, 0, Bytes::from_static(b"later"));
    assert_eq!(told, [&Event::Hello(hello(1)), &Event::Hello(changed), &later]);
}

#[test]
fn a_hello_changed_before_the_connection_is_what_the_greeting_says() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    let changed = Hello { cluster: 99, ..hello(1) };
    one.transport.set_hello(changed.clone());
    one.connect_to(&two);
    two.recorder.wait("the new hello", |events| {
        (events.first() == Some(&Event::Hello(changed.clone()))).then_some(())
    });
}

#[test]
fn a_hello_changed_during_the_greeting_follows_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start(1);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let (mut stream, _) = listener.accept().unwrap();
    let expected = Greeting::Hello { to: 2, hello: hello(1), lane: Lane::Messages };
    assert_eq!(raw_answer(&mut stream), expected);
    let changed = Hello { cluster: 99, ..hello(1) };
    one.transport.set_hello(changed.clone());
    let answer = Greeting::Hello { to: 1, hello: hello(2), lane: Lane::Messages };
    stream.write_all(&wire::encode_greeting(Versions::OURS, &answer)).unwrap();

    let mut header = [0; wire::FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = wire::decode_frame_header(&header).unwrap();
    assert_eq!(header.kind, FrameKind::Hello);
    let mut body = vec![0; header.payload_bytes];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(wire::decode_hello(&body), Ok((2, changed, Lane::Messages)));
}

#[test]
fn a_changed_hello_that_is_refused_ends_the_connection_with_the_reason() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    *two.recorder.refused_cluster.lock() = Some(99);
    one.transport.set_hello(Hello { cluster: 99, ..hello(1) });
    one.recorder.wait("the reason", |events| {
        let reason = "closed by the peer: cluster 99 is another".to_owned();
        events.contains(&Event::Disconnected(2, reason)).then_some(())
    });
    two.recorder.wait_refused("cluster 99 is another");
}
