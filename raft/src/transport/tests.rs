//! Transports over loopback sockets, with recorders for nodes and raw sockets for strangers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use crate::{
    StartError,
    transport::{
        Hello, Inbound, Lane, TcpOptions, TcpTransport, Transport,
        wire::{self, FrameKind, GREETING_HEADER_BYTES, Greeting, Versions},
    },
};

mod damage;
mod greetings;
mod images;
mod losses;
#[path = "../../tests/cluster/ports.rs"]
mod ports;
mod stops;
mod strangers;

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a recorder does not understand.
const UNKNOWN: &[u8] = b"kind 99";

/// What a recorder panics over.
const BOMB: &[u8] = b"bomb";

/// What a node was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Hello(Hello),
    Message(u64, u32, Bytes),
    Contact(u64),
    Connected(u64),
    Disconnected(u64, String),
    AnswersLost(u64, String),
    Refused(String),
}

/// A node that remembers what it was told, and refuses the nodes it is told to refuse.
#[derive(Debug, Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    changed: Condvar,
    refused_cluster: Mutex<Option<u64>>,
}

impl Recorder {
    fn record(&self, event: Event) {
        self.events.lock().push(event);
        self.changed.notify_all();
    }

    /// Waits until `find` finds something in what has happened so far.
    fn wait<T>(&self, what: &str, find: impl Fn(&[Event]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut events = self.events.lock();
        loop {
            if let Some(found) = find(&events) {
                return found;
            }
            let late = self.changed.wait_until(&mut events, deadline).timed_out();
            assert!(!late, "{what} did not happen; this did: {:?}", shortened(&events));
        }
    }

    fn wait_count(&self, what: &str, count: usize, matches: impl Fn(&Event) -> bool) {
        self.wait(what, |events| {
            (events.iter().filter(|event| matches(event)).count() >= count).then_some(())
        });
    }

    fn wait_connected(&self, peer: u64, times: usize) {
        self.wait_count("a connection", times, |event| *event == Event::Connected(peer));
    }

    fn wait_refused(&self, text: &str) -> String {
        self.wait(text, |events| {
            events.iter().find_map(|event| match event {
                Event::Refused(reason) if reason.contains(text) => Some(reason.clone()),
                _ => None,
            })
        })
    }

    fn count(&self, matches: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().iter().filter(|event| matches(event)).count()
    }

    fn messages(&self) -> Vec<(u64, u32, Bytes)> {
        let message = |event: &Event| match event {
            Event::Message(from, group, message) => Some((*from, *group, message.clone())),
            _ => None,
        };
        self.events.lock().iter().filter_map(message).collect()
    }

    fn wait_messages(&self, count: usize) -> Vec<(u64, u32, Bytes)> {
        self.wait_count("messages", count, |event| matches!(event, Event::Message(..)));
        self.messages()
    }
}

fn shortened(events: &[Event]) -> Vec<String> {
    let tail = &events[events.len().saturating_sub(20)..];
    tail.iter().map(|event| format!("{event:?}").chars().take(120).collect()).collect()
}

impl Inbound for Recorder {
    fn hello(&self, hello: Hello) -> Result<(), String> {
        let cluster = hello.cluster;
        self.record(Event::Hello(hello));
        match *self.refused_cluster.lock() {
            Some(refused) if refused == cluster => Err(format!("cluster {cluster} is another")),
            _ => Ok(()),
        }
    }

    fn message(&self, from: u64, group: u32, message: Bytes) -> Result<(), String> {
        assert!(message != BOMB, "as a bug of the node would");
        if message == UNKNOWN {
            return Err("a message of the unknown kind 99".to_owned());
        }
        self.record(Event::Message(from, group, message));
        Ok(())
    }

    fn contact(&self, from: u64) {
        self.record(Event::Contact(from));
    }

    fn connected(&self, peer: u64) {
        self.record(Event::Connected(peer));
    }

    fn disconnected(&self, peer: u64, reason: &str) {
        self.record(Event::Disconnected(peer, reason.to_owned()));
    }

    fn answers_lost(&self, peer: u64, reason: &str) {
        self.record(Event::AnswersLost(peer, reason.to_owned()));
    }

    fn refused(&self, reason: &str) {
        self.record(Event::Refused(reason.to_owned()));
    }
}

/// A transport that runs, and its recorder.
struct Peer {
    id: u64,
    address: SocketAddr,
    transport: TcpTransport,
    recorder: Arc<Recorder>,
}

impl Peer {
    fn start(id: u64) -> Self {
        Self::start_at(id, "127.0.0.1:0", options())
    }

    fn start_at(id: u64, address: &str, options: TcpOptions) -> Self {
        let recorder = Arc::new(Recorder::default());
        let mut transport = TcpTransport::new(address, options);
        let inbound: Arc<dyn Inbound> = Arc::<Recorder>::clone(&recorder);
        let address = transport.start(hello(id), inbound).unwrap();
        Self { id, address, transport, recorder }
    }

    /// Sends to `other` from now on, and waits until it can.
    fn connect_to(&self, other: &Self) {
        self.transport.set_peers(&[(other.id, other.address.to_string())]);
        self.recorder.wait_connected(other.id, 1);
    }

    fn send(&self, to: u64, message: impl Into<Bytes>) -> bool {
        self.transport.send(to, 0, vec![message.into()])
    }
}

/// An address that is free, also between a stop and the next start at it.
fn free_address() -> String {
    ports::free_addresses(1).remove(0)
}

/// Quick to come back, slow to give up.
fn options() -> TcpOptions {
    TcpOptions {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        greeting_timeout: Duration::from_secs(60),
        silence_max: Duration::from_secs(60),
        ..TcpOptions::default()
    }
}

fn hello(node: u64) -> Hello {
    Hello {
        node,
        incarnation: 100 + node,
        cluster: 7,
        members: vec![(1, "one:7001".into()), (2, "two:7002".into())],
        configuration: None,
        log_is_empty: true,
    }
}

/// A greeted connection to `peer` without a transport behind it.
fn raw_connection(peer: &Peer, from: u64) -> TcpStream {
    let mut stream = TcpStream::connect(peer.address).unwrap();
    let greeting = Greeting::Hello { to: peer.id, hello: hello(from), lane: Lane::Messages };
    stream.write_all(&wire::encode_greeting(Versions::OURS, &greeting)).unwrap();
    match raw_answer(&mut stream) {
        Greeting::Hello { to, hello, .. } => assert_eq!((to, hello.node), (from, peer.id)),
        Greeting::Refusal(reason) => panic!("refused: {reason}"),
    }
    stream
}

/// The other side of a greeting, as it comes over a raw socket.
fn raw_answer(stream: &mut TcpStream) -> Greeting {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut raw = [0; GREETING_HEADER_BYTES];
    stream.read_exact(&mut raw).unwrap();
    let header = wire::decode_greeting_header(&raw).unwrap();
    let mut body = vec![0; header.body_bytes];
    stream.read_exact(&mut body).unwrap();
    wire::decode_greeting(&header, &raw, &body).unwrap()
}

/// Accepts one connection as node `id` and greets it.
fn raw_accept(listener: &TcpListener, id: u64) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    let Greeting::Hello { to, hello: theirs, .. } = raw_answer(&mut stream) else {
        panic!("a greeting begins with a hello");
    };
    assert_eq!(to, id);
    let answer = Greeting::Hello { to: theirs.node, hello: hello(id), lane: Lane::Messages };
    stream.write_all(&wire::encode_greeting(Versions::OURS, &answer)).unwrap();
    stream
}

/// All that the other side says before it closes, however it closes.
fn raw_rest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = stream.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it stays open");
    }
    rest
}

fn raw_frame(kind: FrameKind, payload: &'static [u8]) -> Vec<u8> {
    let payload = Bytes::from_static(payload);
    let mut frame = wire::encode_frame_header(kind, 0, std::slice::from_ref(&payload)).to_vec();
    frame.extend_from_slice(&payload);
    frame
}

#[test]
fn messages_of_every_size_arrive_whole_and_in_order() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);

    let sizes = [0, 1, 19, 4095, 4096, 65_536, 65_537, 300_000, 1 << 20, 5_000_001, 3];
    let payload = |size: usize| {
        Bytes::from((0..size).map(|i| u8::try_from(i % 251).unwrap()).collect::<Vec<_>>())
    };
    for (group, size) in (0..).zip(sizes) {
        let whole = payload(size);
        let (head, tail) = (whole.slice(..size / 3), whole.slice(size / 3..));
        assert!(one.transport.send(2, group, vec![head, tail]));
    }

    let expected: Vec<_> =
        (0..).zip(sizes).map(|(group, size)| (1, group, payload(size))).collect();
    assert_eq!(two.recorder.wait_messages(sizes.len()), expected);
}

#[test]
fn ten_thousand_small_messages_keep_their_order() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    one.connect_to(&two);
    for number in 0..10_000_u64 {
        // The queue may be full for a moment: then this waits for the peer to take some.
        while !one.send(2, number.to_le_bytes().to_vec()) {
            two.recorder.wait_messages(usize::try_from(number).unwrap() / 2);
        }
    }
    let received = two.recorder.wait_messages(10_000);
    for (number, (_, _, message)) in (0..10_000_u64).zip(received) {
        assert_eq!(message[..], number.to_le_bytes());
    }
}

#[test]
fn a_message_to_nobody_or_over_the_limit_is_not_taken() {
    let (one, two) = (Peer::start(1), Peer::start(2));
    assert!(!one.send(2, "before anybody is a peer"));
    one.connect_to(&two);
    assert!(!one.send(3, "to a node that is no peer"));
    let chunk = Bytes::from(vec![0; 1 << 20]);
    assert!(!one.transport.send(2, 0, vec![chunk.clone(); 33]));
    assert!(one.transport.send(2, 0, vec![chunk; 32]));
    two.recorder.wait_messages(1);
}

#[test]
fn a_full_queue_takes_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = Peer::start_at(1, "127.0.0.1:0", TcpOptions { queue_messages_max: 4, ..options() });
    one.transport.set_peers(&[(2, listener.local_addr().unwrap().to_string())]);
    let _never_reads = raw_accept(&listener, 2);
    one.recorder.wait_connected(2, 1);

    let message = Bytes::from(vec![7; 8 << 20]);
    let taken = (0..1000).take_while(|_| one.send(2, message.clone())).count();
    assert!((4..1000).contains(&taken), "{taken}");
}

#[test]
fn a_long_message_is_contact_before_it_is_whole() {
    let one = Peer::start(1);
    let mut raw = raw_connection(&one, 2);
    let payload = Bytes::from(vec![0; 32 << 20]);
    let header = wire::encode_frame_header(FrameKind::Message, 0, std::slice::from_ref(&payload));
    raw.write_all(&header).unwrap();

    // Slowly: what comes at once is whole before anybody could ask for the sender.
    let mut parts = payload.chunks(1 << 10);
    while one.recorder.count(|event| *event == Event::Contact(2)) == 0 {
        raw.write_all(parts.next().expect("contact before the end")).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(one.recorder.messages().is_empty());
    parts.for_each(|part| raw.write_all(part).unwrap());
    assert_eq!(one.recorder.wait_messages(1)[0].2, payload);
}

#[test]
fn an_address_in_use_is_named() {
    let one = Peer::start(1);
    let mut second = TcpTransport::new(one.address.to_string(), options());
    match second.start(hello(2), Arc::new(Recorder::default())) {
        Err(StartError::Listen { address, source }) => {
            assert_eq!(address, one.address.to_string());
            assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_that_is_no_address_is_named() {
    for text in ["", "localhost", ":7001", "localhost:", "localhost:http", "localhost:70000"] {
        let mut transport = TcpTransport::new(text, options());
        match transport.start(hello(1), Arc::new(Recorder::default())) {
            Err(StartError::Address(named)) => assert_eq!(named, text),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_bound_of_zero_is_refused_with_its_name() {
    let mut transport =
        TcpTransport::new("127.0.0.1:0", TcpOptions { greetings_max: 0, ..options() });
    match transport.start(hello(1), Arc::new(Recorder::default())) {
        Err(StartError::Options { option, .. }) => assert_eq!(option, "greetings_max"),
        other => panic!("{other:?}"),
    }
}
