use std::{
    io::Read,
    net::TcpListener,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use super::*;

fn connections(connections_max: usize, greetings_max: usize) -> Connections {
    Connections::new(&TcpOptions { connections_max, greetings_max, ..TcpOptions::default() })
}

/// Both ends of a connection; the first is the accepted one.
fn pair() -> (Arc<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Arc::new(listener.accept().unwrap().0), client)
}

fn accept(connections: &Connections) -> (ConnectionId, TcpStream) {
    let (stream, client) = pair();
    (connections.accept(stream).unwrap(), client)
}

fn wait_closed(client: &mut TcpStream) {
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

/// RAFT-CASE 20 and 60: the thread of the older connection may still be handing a message on.
#[test]
fn a_newer_connection_waits_until_the_older_has_ended() {
    let connections = connections(9, 9);
    let (older, mut client) = accept(&connections);
    assert!(connections.serve(older, 2, Lane::Messages));
    let (newer, _client) = accept(&connections);

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            assert!(connections.serve(newer, 2, Lane::Messages));
            ended.load(Ordering::SeqCst)
        });
        wait_closed(&mut client);
        // No event tells that it goes on waiting: one that did not would have gone by now.
        thread::sleep(Duration::from_millis(20));
        ended.store(true, Ordering::SeqCst);
        connections.end(older);
        assert!(waiting.join().unwrap(), "the newer did not wait");
    });
}

#[test]
fn a_connection_for_messages_takes_over_from_one_for_images_and_not_the_other_way_round() {
    let connections = connections(9, 9);
    let (image, mut client) = accept(&connections);
    assert!(connections.serve(image, 2, Lane::Images));
    let (message, _client) = accept(&connections);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| connections.serve(message, 2, Lane::Messages));
        wait_closed(&mut client);
        connections.end(image);
        assert!(waiting.join().unwrap());
    });
    let (image, _client) = accept(&connections);
    assert!(connections.serve(image, 2, Lane::Images));
    let serving = connections.state.lock();
    assert!(serving.open.values().all(|open| open.stage != Stage::Ending));
}

#[test]
fn connections_of_different_peers_leave_each_other_alone() {
    let connections = connections(9, 9);
    for peer in 1..=3 {
        let (id, _client) = accept(&connections);
        assert!(connections.serve(id, peer, Lane::Messages));
    }
    let serving = connections.state.lock();
    assert!(serving.open.values().all(|open| open.stage != Stage::Ending));
}

#[test]
fn the_oldest_that_has_not_greeted_makes_room() {
    let connections = connections(9, 2);
    let (greeted, _client) = accept(&connections);
    assert!(connections.serve(greeted, 2, Lane::Messages));
    let (oldest, mut closed) = accept(&connections);
    let (second, _second) = accept(&connections);
    let (third, _third) = accept(&connections);
    wait_closed(&mut closed);
    assert!(!connections.serve(oldest, 2, Lane::Messages), "its greeting comes too late");
    assert_eq!(connections.state.lock().open[&greeted].stage, Stage::Serves(2, Lane::Messages));
    assert!(
        connections.serve(second, 4, Lane::Messages) && connections.serve(third, 5, Lane::Messages)
    );
}

#[test]
fn no_more_are_taken_in_than_may_be_open_and_none_after_a_stop() {
    let connections = connections(2, 9);
    let (first, _first) = accept(&connections);
    let (_second, mut closed) = accept(&connections);
    assert!(connections.accept(pair().0).is_none());
    connections.end(first);
    let (_third, _client) = accept(&connections);

    connections.stop();
    wait_closed(&mut closed);
    assert!(connections.accept(pair().0).is_none());
}
