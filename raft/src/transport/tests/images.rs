//! Pieces of images, which have a connection of their own.

use super::*;

/// A node that is busy with an image until it hears a message.
#[derive(Debug, Default)]
struct Busy {
    is_released: Mutex<bool>,
    changed: Condvar,
    recorder: Recorder,
}

const IMAGE: &[u8] = b"a piece";

impl Inbound for Busy {
    fn hello(&self, hello: Hello) -> Result<(), String> {
        self.recorder.hello(hello)
    }

    fn message(&self, from: u64, group: u32, message: Bytes) -> Result<(), String> {
        let mut is_released = self.is_released.lock();
        if message == IMAGE {
            while !*is_released {
                let late = self.changed.wait_for(&mut is_released, PATIENCE).timed_out();
                assert!(!late, "the message waits behind the image");
            }
        } else {
            *is_released = true;
            self.changed.notify_all();
        }
        drop(is_released);
        self.recorder.message(from, group, message)
    }

    fn contact(&self, from: u64) {
        self.recorder.contact(from);
    }

    fn connected(&self, peer: u64) {
        self.recorder.connected(peer);
    }

    fn disconnected(&self, peer: u64, reason: &str) {
        self.recorder.disconnected(peer, reason);
    }

    fn answers_lost(&self, peer: u64, reason: &str) {
        self.recorder.answers_lost(peer, reason);
    }

    fn refused(&self, reason: &str) {
        self.recorder.refused(reason);
    }
}

#[test]
fn a_message_does_not_wait_behind_an_image() {
    let one = Peer::start(1);
    let busy = Arc::new(Busy::default());
    let mut transport = TcpTransport::new("127.0.0.1:0", options());
    let inbound: Arc<dyn Inbound> = Arc::<Busy>::clone(&busy);
    let address = transport.start(hello(2), inbound).unwrap();
    one.transport.set_peers(&[(2, address.to_string())]);
    one.recorder.wait_connected(2, 1);

    assert!(one.transport.send_image(2, 0, vec![Bytes::from_static(IMAGE)]));
    // It is the other's turn when the image has greeted.
    busy.recorder.wait_count("two greetings", 2, |event| matches!(event, Event::Hello(_)));
    assert!(one.send(2, "a message"));
    let heard: Vec<Bytes> =
        busy.recorder.wait_messages(2).into_iter().map(|(.., message)| message).collect();
    assert!(heard.contains(&Bytes::from_static(IMAGE)), "{heard:?}");
}

#[test]
fn a_connection_for_images_is_made_for_them_and_closed_behind_them_and_tells_nobody() {
    let two = Peer::start(2);
    let one = Peer::start_at(1, "127.0.0.1:0", TcpOptions { silence_max: SILENCE, ..options() });
    one.connect_to(&two);
    for round in 1..=2 {
        assert!(one.transport.send_image(2, 7, vec![Bytes::from_static(IMAGE)]));
        assert_eq!(two.recorder.wait_messages(round)[round - 1], (1, 7, IMAGE.into()));
        wait_until(|| two.transport.accepted() == 1);
    }
    for peer in [&one, &two] {
        let told = |event: &Event| {
            matches!(event, Event::Disconnected(..) | Event::AnswersLost(..) | Event::Refused(_))
        };
        assert_eq!(peer.recorder.count(told), 0);
    }
    assert_eq!(one.recorder.count(|event| matches!(event, Event::Connected(_))), 1);
}

#[test]
fn images_for_a_peer_that_cannot_be_reached_are_dropped_and_later_ones_arrive() {
    let (one, address) = (Peer::start(1), free_address());
    one.transport.set_peers(&[(2, address.clone())]);
    // Taken for a connection that does not come about.
    assert!(one.transport.send_image(2, 0, vec![Bytes::from_static(b"lost")]));
    wait_until(|| one.transport.images_queued(2) == 0);
    let two = Peer::start_at(2, &address, options());
    // Not one alone: the connection for messages, made meanwhile, ends an earlier one for images.
    wait_until(|| {
        one.transport.send_image(2, 0, vec![Bytes::from_static(IMAGE)]);
        !two.recorder.messages().is_empty()
    });
    assert_eq!(two.recorder.messages()[0], (1, 0, IMAGE.into()));
    assert!(!one.transport.send_image(3, 0, vec![Bytes::from_static(IMAGE)]), "nobody");
}

/// No event tells what is waited for.
fn wait_until(happened: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < deadline, "it does not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

const SILENCE: Duration = Duration::from_millis(400);
