//! A client that notes what it asked for and what it heard, and whether one register could have done all of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kontiki_sim::{
    linear::{self, Action, Operation, Verdict},
    random::Random,
};
use redis::{Connection, RedisError, Value};

use crate::{network::address, support::query};

/// What a client asked for, and heard.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    client: u64,
    node: u64,
    key: String,
    /// When it was sent, and when the answer came, since the test began.
    start: Duration,
    end: Duration,
    /// What it did, if anything.
    action: Option<Action>,
    /// Somebody knows its outcome.
    pub(crate) is_known: bool,
}

/// One client, on its thread.
pub(crate) struct Client {
    number: u64,
    nodes: u64,
    random: Random,
    begun: Instant,
    connected: Option<(u64, Connection)>,
    values: u64,
    pub(crate) history: Vec<Recorded>,
}

impl Client {
    pub(crate) fn new(number: u64, nodes: u64, begun: Instant, seed: u64) -> Self {
        let random = Random::new(seed ^ number << 32);
        Self { number, nodes, random, begun, connected: None, values: 0, history: Vec::new() }
    }

    /// One operation after the other, each on some node, until it is told to stop.
    pub(crate) fn run(mut self, stop: &Arc<AtomicBool>) -> Vec<Recorded> {
        while !stop.load(Ordering::Relaxed) {
            match self.connected.take().or_else(|| self.connect()) {
                Some((node, mut connection)) => {
                    if self.operate(node, &mut connection) {
                        self.connected = Some((node, connection));
                    }
                }
                // Nobody listens there: not at once again.
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        self.history
    }

    fn connect(&mut self) -> Option<(u64, Connection)> {
        let node = self.random.between(1, self.nodes);
        let client = redis::Client::open(format!("redis://{}:6379", address(node))).unwrap();
        let connection = client.get_connection_with_timeout(GREETING_MAX).ok()?;
        connection.set_read_timeout(Some(ANSWER_MAX)).unwrap();
        Some((node, connection))
    }

    /// False if the connection is of no use any more: a late answer must not be taken for that of another question.
    fn operate(&mut self, node: u64, connection: &mut Connection) -> bool {
        let key = key(self.begun.elapsed(), self.random.below(KEYS));
        self.values += 1;
        let value = self.number << 32 | self.values;
        let text = value.to_string();
        let drawn = self.random.below(100);
        let start = self.begun.elapsed();
        let asked = match drawn {
            0..45 => query::<Option<u64>>(connection, &["GET", &key])
                .map(|seen| Action::Get(seen.unwrap_or(0))),
            45..85 => query::<Value>(connection, &["SET", &key, &text]).map(|_| Action::Put(value)),
            _ => query::<Option<String>>(connection, &["SET", &key, &text, "NX"])
                .map(|done| Action::Swap { expected: 0, new: value, done: Some(done.is_some()) }),
        };
        let end = self.begun.elapsed();
        let unknown = match drawn {
            0..45 => None,
            45..85 => Some(Action::Put(value)),
            _ => Some(Action::Swap { expected: 0, new: value, done: None }),
        };
        let (action, is_known, goes_on) = match &asked {
            Ok(action) => (Some(*action), true, true),
            Err(error) if is_refusal(error) => (None, true, self.random.chance(50)),
            Err(error) => (unknown, false, !error.is_io_error() && !error.is_connection_dropped()),
        };
        let client = self.number;
        self.history.push(Recorded { client, node, key, start, end, action, is_known });
        goes_on
    }
}

/// Reads every key once more: nothing that was acknowledged is gone.
pub(crate) fn read_all(
    history: &[Recorded],
    begun: Instant,
    connection: &mut Connection,
) -> Vec<Recorded> {
    let keys: BTreeSet<&String> = history.iter().map(|recorded| &recorded.key).collect();
    let read = |key: &String| {
        let start = begun.elapsed();
        let seen: Option<u64> = query(connection, &["GET", key]).unwrap();
        let (end, action) = (begun.elapsed(), Some(Action::Get(seen.unwrap_or(0))));
        Recorded { client: 0, node: 0, key: key.clone(), start, end, action, is_known: true }
    };
    keys.into_iter().map(read).collect()
}

/// Reads what is written now, over a connection to a node that does not run until `wake` is called.
pub(crate) fn read_late(
    begun: Instant,
    connection: &mut Connection,
    wake: impl FnOnce(),
) -> Vec<Recorded> {
    let start = begun.elapsed();
    let keys: Vec<String> = (0..KEYS).map(|number| key(start, number)).collect();
    for key in &keys {
        let request = redis::cmd("GET").arg(key).get_packed_command();
        connection.send_packed_command(&request).unwrap();
    }
    wake();
    let mut hear = |key: String| {
        let answer = connection.recv_response().and_then(Value::extract_error).ok()?;
        let seen: Option<u64> = redis::from_redis_value(answer).ok()?;
        let (end, action) = (begun.elapsed(), Some(Action::Get(seen.unwrap_or(0))));
        Some(Recorded { client: 0, node: 0, key, start, end, action, is_known: true })
    };
    keys.into_iter().filter_map(&mut hear).collect()
}

/// One of the keys that are used after so long.
fn key(elapsed: Duration, number: u64) -> String {
    format!("{}:{number}", elapsed.as_millis() / EPOCH.as_millis())
}

/// The command was certainly not applied (README.md, "Errors").
fn is_refusal(error: &RedisError) -> bool {
    matches!(error.code(), Some("CLUSTERDOWN" | "TRYAGAIN" | "ERR"))
}

/// Whether each key did what one register does.
///
/// # Panics
/// If one did not, or nobody can say.
pub(crate) fn check(history: &[Recorded]) {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
    for Recorded { key, start, end, action, is_known, .. } in history {
        if let Some(action) = *action {
            let end = is_known.then(|| nanos(*end));
            keys.entry(key).or_default().push(Operation { start: nanos(*start), end, action });
        }
    }
    for (key, operations) in keys {
        let verdict = linear::check(&operations, STEPS_MAX);
        assert!(verdict == Verdict::Linearizable, "key {key}: {verdict:?}");
    }
}

/// One line of JSON for each operation: see `tools/sim/README.md`.
pub(crate) fn lines(history: &[Recorded]) -> String {
    let mut lines = String::new();
    for Recorded { client, node, key, start, end, action, is_known } in history {
        let (kind, value, result) = match (action, is_known) {
            (None, _) => ("", 0, "refused"),
            (Some(Action::Get(value)), _) => ("read", *value, "read"),
            (Some(Action::Put(value)), true) => ("put", *value, "applied"),
            (Some(Action::Put(value)), false) => ("put", *value, "unknown"),
            (Some(Action::Swap { new, .. }), true) => ("swap", *new, "applied"),
            (Some(Action::Swap { new, .. }), false) => ("swap", *new, "unknown"),
        };
        let wrote = match action {
            Some(Action::Swap { done: Some(done), .. }) => format!(",\"wrote\":{done}"),
            _ => String::new(),
        };
        let (start, end) = (start.as_nanos(), end.as_nanos());
        writeln!(
            lines,
            "{{\"client\":{client},\"node\":{node},\"key\":\"{key}\",\"kind\":\"{kind}\",\"value\":{value},\
             \"result\":\"{result}\"{wrote},\"start\":{start},\"end\":{end}}}"
        )
        .unwrap();
    }
    lines
}

/// Keys at the same time.
const KEYS: u64 = 3;
/// Then others are used: a short history of each is quickly searched.
const EPOCH: Duration = Duration::from_secs(2);
const GREETING_MAX: Duration = Duration::from_millis(500);
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Steps of the search for an order, of one key.
const STEPS_MAX: u64 = 20_000_000;
