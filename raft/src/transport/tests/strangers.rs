//! Bytes of somebody who is no peer. Each test has a live connection beside, which must not notice.

use super::*;

/// Runs `disturb` against node 2 while node 1 talks to it over a connection that must stay.
fn beside_a_live_connection(options: TcpOptions, disturb: impl FnOnce(&Peer)) {
    let (one, two) = (Peer::start(1), Peer::start_at(2, "127.0.0.1:0", options));
    one.connect_to(&two);
    assert!(one.send(2, "before"));
    disturb(&two);
    assert!(one.send(2, "after"));
    let received: Vec<_> = two.recorder.wait_messages(2).into_iter().map(|(.., m)| m).collect();
    assert_eq!(received, ["before", "after"]);
    assert_eq!(one.recorder.count(|event| matches!(event, Event::Disconnected(..))), 0);
    assert_eq!(two.recorder.count(|event| matches!(event, Event::AnswersLost(1, _))), 0);
}

fn assert_closed_without_a_word(stream: TcpStream) {
    assert_eq!(raw_rest(stream), b"");
}

#[test]
fn what_does_not_begin_with_the_magic_is_closed_at_once() {
    beside_a_live_connection(options(), |two| {
        let random: Vec<u8> =
            (0..100_000_u32).map(|i| u8::try_from(i % 241).unwrap() | 1).collect();
        let http = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for bytes in [&http[..], b"K?", b"*1\r\n$4\r\nPING\r\n", &random] {
            let mut stream = TcpStream::connect(two.address).unwrap();
            // The other side may close before it has read everything.
            let _ = stream.write_all(bytes);
            assert_closed_without_a_word(stream);
        }
        let told = two.recorder.wait_refused("not a Kontiki peer");
        assert_eq!(told, "127.0.0.1: not a Kontiki peer");
    });
}

#[test]
fn a_greeting_that_stays_incomplete_is_closed_in_time() {
    let options = TcpOptions { greeting_timeout: Duration::from_millis(200), ..options() };
    beside_a_live_connection(options, |two| {
        let mut stream = TcpStream::connect(two.address).unwrap();
        stream.write_all(b"KTKP\x01\x00").unwrap();
        assert_closed_without_a_word(stream);
        two.recorder.wait_refused("the greeting is not complete in time");
    });
}

#[test]
fn a_huge_greeting_is_refused_by_its_length() {
    beside_a_live_connection(options(), |two| {
        let mut stream = TcpStream::connect(two.address).unwrap();
        stream.write_all(b"KTKP\x01\x00\x01\x00\x01\x00\x00\x00\xff\xff\xff\x7fabcd").unwrap();
        assert_closed_without_a_word(stream);
        two.recorder.wait_refused("the length of a greeting is 2147483647, the limit is 16384");
    });
}

#[test]
fn a_damaged_greeting_is_refused() {
    beside_a_live_connection(options(), |two| {
        let greeting = Greeting::Hello { to: 2, hello: hello(3), lane: Lane::Messages };
        let mut bytes = wire::encode_greeting(Versions::OURS, &greeting);
        *bytes.last_mut().unwrap() ^= 0x10;
        let mut stream = TcpStream::connect(two.address).unwrap();
        stream.write_all(&bytes).unwrap();
        assert_closed_without_a_word(stream);
        two.recorder.wait_refused("the checksum of a greeting does not hold");
    });
}

#[test]
fn a_probe_of_the_port_is_no_news() {
    beside_a_live_connection(options(), |two| {
        let probe = TcpStream::connect(two.address).unwrap();
        probe.shutdown(std::net::Shutdown::Write).unwrap();
        assert_closed_without_a_word(probe);
        TcpStream::connect(two.address).unwrap().write_all(b"x").unwrap();
        two.recorder.wait_refused("not a Kontiki peer");
        assert_eq!(two.recorder.count(|event| matches!(event, Event::Refused(_))), 1);
    });
}

#[test]
fn a_flood_of_silent_strangers_keeps_no_peer_out() {
    let options = TcpOptions { greetings_max: 4, ..options() };
    beside_a_live_connection(options, |two| {
        let mut strangers: Vec<_> =
            (0..20).map(|_| TcpStream::connect(two.address).unwrap()).collect();
        let three = Peer::start(3);
        three.connect_to(two);
        // The oldest had to go.
        assert_closed_without_a_word(strangers.remove(0));
    });
}

#[test]
fn connections_have_a_bound() {
    let options = TcpOptions { connections_max: 3, greetings_max: 3, ..options() };
    beside_a_live_connection(options, |two| {
        let _other = (raw_connection(two, 8), raw_connection(two, 9));
        assert_closed_without_a_word(TcpStream::connect(two.address).unwrap());
        two.recorder.wait_refused("3 connections are open");
    });
}

#[test]
fn strangers_of_one_address_are_reported_once() {
    let two = Peer::start(2);
    for _ in 0..100 {
        let mut stream = TcpStream::connect(two.address).unwrap();
        stream.write_all(b"x").unwrap();
        assert_closed_without_a_word(stream);
    }
    assert_eq!(two.recorder.count(|event| matches!(event, Event::Refused(_))), 1);
}
