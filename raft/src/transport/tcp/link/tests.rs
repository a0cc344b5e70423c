use std::{net::TcpListener, thread};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn link(options: &TcpOptions) -> Link {
    Link::new(2, Lane::Messages, "two:7002".into(), options).unwrap()
}

fn stream() -> Arc<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Arc::new(TcpStream::connect(listener.local_addr().unwrap()).unwrap())
}

fn connected(options: &TcpOptions) -> Link {
    let link = link(options);
    assert!(link.open(&stream()) && link.connect());
    link
}

fn offer(link: &Link, bytes: usize) -> bool {
    link.offer(0, vec![Bytes::from(vec![0; bytes])])
}

#[test]
fn what_waits_is_taken_together_and_in_order() {
    let link = connected(&TcpOptions::default());
    assert!((0..100).all(|bytes| offer(&link, bytes)));
    let mut taken = Vec::new();
    assert_eq!(link.take(&mut taken, PATIENCE), Next::Write { hello: false });
    assert!(taken.iter().map(|message| message.bytes).eq(0..100));
}

#[test]
fn what_is_taken_counts_until_it_is_written() {
    let link = connected(&TcpOptions {
        queue_messages_max: 3,
        queue_bytes_max: 100,
        ..TcpOptions::default()
    });
    let mut taken = Vec::new();
    assert!(offer(&link, 60) && !offer(&link, 60) && offer(&link, 40));
    link.take(&mut taken, PATIENCE);
    assert!(!offer(&link, 1), "100 bytes are on their way");
    assert!(offer(&link, 0) && !offer(&link, 0), "three messages are on their way");
    // Returning means written: there is room again for all but the last.
    link.take(&mut taken, PATIENCE);
    assert!(offer(&link, 100) && !offer(&link, 1));
}

#[test]
fn an_empty_queue_takes_a_message_of_any_length() {
    let link = connected(&TcpOptions { queue_bytes_max: 100, ..TcpOptions::default() });
    assert!(offer(&link, MESSAGE_BYTES_MAX));
    assert!(!offer(&link, 0));
    assert!(!offer(&connected(&TcpOptions::default()), MESSAGE_BYTES_MAX + 1));
}

/// RAFT-CASE 65: nothing of a connection that ended is there for the next one.
#[test]
fn what_waited_for_a_lost_connection_is_dropped() {
    let link = connected(&TcpOptions::default());
    let mut taken = Vec::new();
    assert!(offer(&link, 1));
    link.take(&mut taken, PATIENCE);
    assert!(offer(&link, 2));
    link.lose();
    assert_eq!(link.take(&mut taken, PATIENCE), Next::Lost);
    link.close();
    assert!(!offer(&link, 3), "not connected");

    assert!(link.open(&stream()));
    assert!(!offer(&link, 4), "not greeted");
    assert!(link.connect());
    assert!(offer(&link, 5));
    taken.clear();
    link.take(&mut taken, PATIENCE);
    assert_eq!(taken.iter().map(|message| message.bytes).collect::<Vec<_>>(), [5]);
}

#[test]
fn a_sleeping_sender_is_woken_by_an_offer_a_hello_a_loss_and_a_stop() {
    type Wake = fn(&Link);
    let wakes: [(Wake, Next); 4] = [
        (|link| assert!(offer(link, 1)), Next::Write { hello: false }),
        (Link::say_hello, Next::Write { hello: true }),
        (Link::lose, Next::Lost),
        (Link::stop, Next::Stopped),
    ];
    for (wake, expected) in wakes {
        let link = connected(&TcpOptions::default());
        thread::scope(|scope| {
            let sender = scope.spawn(|| link.take(&mut Vec::new(), PATIENCE));
            while !link.state.lock().sleeping {
                thread::yield_now();
            }
            wake(&link);
            assert_eq!(sender.join().unwrap(), expected);
        });
    }
}

#[test]
fn nothing_to_do_ends_in_a_keepalive() {
    let link = connected(&TcpOptions::default());
    assert_eq!(link.take(&mut Vec::new(), Duration::from_millis(1)), Next::Keepalive);
}

#[test]
fn a_nudge_ends_a_pause_and_is_used_up() {
    let link = link(&TcpOptions::default());
    link.nudge();
    assert!(link.pause(PATIENCE * 1000));
    let begun = Instant::now();
    assert!(link.pause(Duration::from_millis(2)));
    assert!(begun.elapsed() >= Duration::from_millis(2));
}

#[test]
fn a_stopped_link_opens_no_more() {
    let link = connected(&TcpOptions::default());
    link.stop();
    assert!(!offer(&link, 1));
    link.close();
    assert!(!link.pause(PATIENCE * 1000));
    assert!(!link.open(&stream()));
}

/// Between a socket and its greeting: the stop must not be lost.
#[test]
fn a_stop_during_a_greeting_is_seen_by_connect() {
    let link = link(&TcpOptions::default());
    let stream = stream();
    assert!(link.open(&stream));
    link.stop();
    assert!(!link.connect());
    assert!(!offer(&link, 1));
}
