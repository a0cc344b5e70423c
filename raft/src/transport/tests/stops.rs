//! A stop comes through, whatever the threads are waiting for: every timeout here is a minute or
//! more, so a stop that had to wait for one would be seen.

use rustix::net::{self, AddressFamily, SocketType};

use super::*;

fn assert_stops_promptly(mut peer: Peer) -> Arc<Recorder> {
    let begun = Instant::now();
    peer.transport.stop();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    peer.recorder
}

/// A listener whose queue is full: a connect to it gets no answer.
fn deaf_listener() -> (std::os::fd::OwnedFd, SocketAddr, Vec<TcpStream>) {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    net::listen(&socket, 0).unwrap();
    let address = SocketAddr::try_from(net::getsockname(&socket).unwrap()).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fillers.push(filler);
    }
    (socket, address, fillers)
}

#[test]
fn a_stop_ends_a_connect_without_an_answer() {
    let deaf = deaf_listener();
    let options = TcpOptions { connect_timeout: Duration::from_secs(60), ..options() };
    let one = Peer::start_at(1, "127.0.0.1:0", options);
    one.transport.set_peers(&[(2, deaf.1.to_string())]);
    assert_stops_promptly(one);
}

#[test]
fn a_stop_ends_a_greeting_without_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start(1);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let (mut stream, _) = listener.accept().unwrap();
    raw_answer(&mut stream);
    assert_stops_promptly(one);
}

#[test]
fn a_stop_ends_the_wait_for_a_greeting() {
    let one = Peer::start(1);
    let mut stranger = TcpStream::connect(one.address).unwrap();
    stranger.write_all(b"KTKP").unwrap();
    let recorder = assert_stops_promptly(one);
    assert_eq!(recorder.count(|event| matches!(event, Event::Refused(_))), 0);
}

#[test]
fn a_stop_ends_idle_connections_on_both_sides() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    two.connect_to(&one);
    let stopped = assert_stops_promptly(one);
    let reason = "closed by this node".to_owned();
    assert_eq!(stopped.count(|event| *event == Event::Disconnected(2, reason.clone())), 1);
    two.recorder.wait_count("the end", 1, |event| matches!(event, Event::Disconnected(1, _)));
    two.recorder.wait_count("the end", 1, |event| matches!(event, Event::AnswersLost(1, _)));
    assert_stops_promptly(two);
}

#[test]
fn a_stop_ends_a_write_that_nobody_reads() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start(1);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let _never_reads = raw_accept(&listener, 2);
    one.recorder.wait_connected(2, 1);
    let message = Bytes::from(vec![7; 16 << 20]);
    while one.send(2, message.clone()) {}
    assert_stops_promptly(one);
}

#[test]
fn a_stop_ends_the_pause_after_a_failed_connect() {
    let options = TcpOptions {
        backoff_min: Duration::from_secs(60),
        backoff_max: Duration::from_secs(60),
        ..options()
    };
    let one = Peer::start_at(1, "127.0.0.1:0", options);
    one.transport.set_peers(&[(2, free_address())]);
    assert_stops_promptly(one);
}

#[test]
fn a_second_stop_and_a_send_after_it_do_nothing() {
    let (mut one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    one.transport.stop();
    one.transport.stop();
    assert!(!one.send(2, "too late"));
    one.transport.set_peers(&[(2, two.address.to_string())]);
    one.transport.set_hello(hello(1));
}

#[test]
fn a_panic_of_the_node_ends_its_connection_and_nothing_else() {
    let (one, two, three) = (Peer::start(1), Peer::start(2), Peer::start(3));
    one.connect_to(&two);
    three.connect_to(&two);
    assert!(one.send(2, BOMB));
    one.recorder.wait_connected(2, 2);
    assert!(one.send(2, "again") && three.send(2, "still"));
    two.recorder.wait_messages(2);
    assert_eq!(three.recorder.count(|event| matches!(event, Event::Disconnected(..))), 0);
    assert_stops_promptly(two);
}

#[test]
fn the_port_is_free_after_a_stop() {
    let mut one = Peer::start_at(1, &free_address(), options());
    one.transport.stop();
    Peer::start_at(1, &one.address.to_string(), options());
}
