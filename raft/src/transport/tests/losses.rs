//! Connections that end: what comes back, what does not, and who is told.

use std::{
    net::Shutdown,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use proptest::prelude::*;

use super::*;

/// RAFT-CASE 60: the new process at the old address is greeted before anything is sent to it.
#[test]
fn a_peer_that_restarts_is_connected_to_again() {
    let one = Peer::start(1);
    let mut two = Peer::start_at(2, &free_address(), options());
    one.connect_to(&two);
    two.connect_to(&one);
    assert!(one.send(2, "to the first"));
    two.recorder.wait_messages(1);
    two.transport.stop();
    one.recorder.wait_count("the end", 1, |event| matches!(event, Event::Disconnected(2, _)));
    assert!(!one.send(2, "to nobody"));

    let two = Peer::start_at(2, &two.address.to_string(), options());
    one.recorder.wait_connected(2, 2);
    assert!(one.send(2, "to the second"));
    assert_eq!(two.recorder.wait_messages(1), [(1, 0, Bytes::from_static(b"to the second"))]);
    assert_eq!(two.recorder.events.lock()[0], Event::Hello(hello(1)));
}

/// The pause is a minute: only the peer's own connection explains that it ends.
#[test]
fn a_peer_that_comes_back_ends_the_pause() {
    let minute = Duration::from_secs(60);
    let patient = TcpOptions { backoff_min: minute, backoff_max: minute, ..options() };
    let one = Peer::start_at(1, "127.0.0.1:0", patient);
    let mut two = Peer::start_at(2, &free_address(), options());
    one.connect_to(&two);
    two.transport.stop();
    one.recorder.wait_count("the end", 1, |event| matches!(event, Event::Disconnected(2, _)));

    let two = Peer::start_at(2, &two.address.to_string(), options());
    two.connect_to(&one);
    one.recorder.wait_connected(2, 2);
}

#[test]
fn a_peer_that_moves_is_followed() {
    let one = Peer::start(1);
    let (old, new) = (Peer::start(2), Peer::start(2));
    one.connect_to(&old);
    one.transport.set_peers(&[(2, new.address.to_string())]);
    one.recorder.wait_connected(2, 2);
    assert!(one.send(2, "moved"));
    new.recorder.wait_messages(1);

    one.transport.set_peers(&[]);
    one.recorder.wait_count("the end", 2, |event| matches!(event, Event::Disconnected(2, _)));
    assert!(!one.send(2, "gone"));
    assert_alternating(&one.recorder);
}

/// RAFT-CASE 20 and 60: nothing of an earlier incarnation comes after something of a later one.
#[test]
fn a_newer_connection_of_a_peer_takes_over_after_the_older_has_ended() {
    let one = Peer::start(1);
    let mut older = raw_connection(&one, 2);
    older.write_all(&raw_frame(FrameKind::Message, b"older")).unwrap();
    one.recorder.wait_messages(1);
    let mut newer = raw_connection(&one, 2);
    newer.write_all(&raw_frame(FrameKind::Message, b"newer")).unwrap();
    one.recorder.wait_messages(2);

    assert_eq!(older.read(&mut [0; 1]).unwrap(), 0, "the older one is closed");
    let events = one.recorder.events.lock();
    let told: Vec<_> = events.iter().filter(|event| !matches!(event, Event::Hello(_))).collect();
    assert!(
        matches!(told[..], [Event::Message(..), Event::AnswersLost(2, _), Event::Message(..)]),
        "{told:?}"
    );
}

#[test]
fn a_silent_connection_is_closed() {
    let options = TcpOptions { silence_max: Duration::from_millis(50), ..options() };
    let one = Peer::start_at(1, "127.0.0.1:0", options);
    let raw = raw_connection(&one, 2);
    one.recorder.wait("the end", |events| {
        let reason = "nothing arrived for 50ms".to_owned();
        events.contains(&Event::AnswersLost(2, reason)).then_some(())
    });
    drop(raw);
}

#[test]
fn a_connection_that_takes_nothing_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = TcpOptions { silence_max: Duration::from_millis(50), ..options() };
    let one = Peer::start_at(1, "127.0.0.1:0", options);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let _never_reads = raw_accept(&listener, 2);
    one.recorder.wait_connected(2, 1);
    assert!(one.send(2, vec![7; 32 << 20]));
    // By the write, or by the acknowledgement that never comes.
    one.recorder.wait_count("the end", 1, is_loss);
    assert!(!one.send(2, "nothing is taken any more"));
}

#[test]
fn a_sender_with_nothing_to_say_says_that_it_lives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let options = TcpOptions { silence_max: Duration::from_millis(40), ..options() };
    let one = Peer::start_at(1, "127.0.0.1:0", options);
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let mut raw = raw_accept(&listener, 2);
    let mut bytes = [0; 60];
    raw.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes.to_vec(), raw_frame(FrameKind::Keepalive, b"").repeat(3));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        ..Default::default()
    })]

    /// RAFT-CASE 65: wherever the connections are cut, a message that was taken arrives once or
    /// never, in order, and every loss of a connection is told.
    #[test]
    fn no_message_is_delivered_twice(cuts in prop::collection::vec(0_u64..6000, 0..6)) {
        let (one, two) = (Peer::start(1), Peer::start(2));
        let proxy = CuttingProxy::start(two.address, cuts.clone());
        one.transport.set_peers(&[(2, proxy.address.to_string())]);

        let mut number = 0;
        while proxy.cut.load(Ordering::Acquire) < cuts.len() {
            send_next(&one, &mut number);
        }
        // The last connection is not cut, but it may not stand yet: until then a message may go
        // down with the one before.
        loop {
            let losses = one.recorder.count(is_loss);
            send_next(&one, &mut number);
            let last = Event::Message(1, 0, numbered(number));
            let arrived = || two.recorder.events.lock().last() == Some(&last);
            let deadline = Instant::now() + PATIENCE;
            while !arrived() && one.recorder.count(is_loss) == losses {
                prop_assert!(Instant::now() < deadline, "neither arrived nor lost");
                thread::yield_now();
            }
            if arrived() {
                break;
            }
        }

        let numbers: Vec<u64> = two.recorder.messages().iter()
            .map(|(.., message)| u64::from_le_bytes(message[..8].try_into().unwrap()))
            .collect();
        prop_assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        prop_assert!(one.recorder.count(is_loss) <= cuts.len());
        assert_alternating(&one.recorder);
    }
}

/// Sends the next number; one that is not taken is certainly not sent, so it may be tried again.
fn send_next(one: &Peer, number: &mut u64) {
    *number += 1;
    let deadline = Instant::now() + PATIENCE;
    while !one.send(2, numbered(*number)) {
        assert!(Instant::now() < deadline, "no connection");
        thread::yield_now();
    }
}

fn numbered(number: u64) -> Bytes {
    let mut message = number.to_le_bytes().to_vec();
    message.resize(8 + usize::try_from(number * 37 % 200).unwrap(), 0xab);
    message.into()
}

fn is_loss(event: &Event) -> bool {
    matches!(event, Event::Disconnected(..))
}

/// Each connection that stood was reported lost once, before the next one stood.
fn assert_alternating(recorder: &Recorder) {
    let mut connected = false;
    for event in recorder.events.lock().iter() {
        match event {
            Event::Connected(_) => assert!(!std::mem::replace(&mut connected, true)),
            Event::Disconnected(..) => assert!(std::mem::replace(&mut connected, false)),
            _ => {}
        }
    }
}

/// Stands between two nodes, and cuts the n-th connection after so many bytes.
struct CuttingProxy {
    address: SocketAddr,
    /// How many connections it has cut.
    cut: Arc<AtomicUsize>,
}

impl CuttingProxy {
    /// Its threads end with the process: the last connection has no limit.
    fn start(target: SocketAddr, limits: Vec<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&cut);
        thread::spawn(move || {
            let limits = limits.into_iter().chain(std::iter::repeat(u64::MAX));
            // One after the other, because a link has one connection at a time.
            for limit in limits {
                let (client, _) = listener.accept().unwrap();
                forward(&client, target, limit);
                counter.fetch_add(1, Ordering::Release);
            }
        });
        Self { address, cut }
    }
}

fn forward(client: &TcpStream, target: SocketAddr, limit: u64) {
    let Ok(server) = TcpStream::connect(target) else { return };
    thread::scope(|scope| {
        scope.spawn(|| std::io::copy(&mut &server, &mut { client }));
        let _ = std::io::copy(&mut client.take(limit), &mut &server);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}
