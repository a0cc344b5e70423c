//! A client that notes what it asked for and what it heard, and whether one register could have done all of that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use kontiki_sim::{
    linear::{self, Action, Operation, Verdict},
    random::Random,
};
use redis::{Connection, RedisError, RedisResult, Value};

use crate::{network::address, support::query};

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Get,
    Set(u64),
    /// Sets where nothing is.
    SetNew(u64),
}

/// What it heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The value; 0 where there is none.
    Seen(u64),
    /// It was applied, and has written or not.
    Done(bool),
    /// It was certainly not applied, or was a read.
    Refused,
    Unknown,
}

/// One operation.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    client: u64,
    node: u64,
    key: String,
    asked: Asked,
    pub(crate) heard: Heard,
    /// When it was sent, and when the answer came, since the test began.
    start: Duration,
    end: Duration,
}

impl Recorded {
    /// What it shows, if anything.
    fn operation(&self) -> Option<Operation> {
        let action = match (self.asked, self.heard) {
            (Asked::Get, Heard::Seen(value)) => Action::Get(value),
            (Asked::Set(value), Heard::Done(_) | Heard::Unknown) => Action::Put(value),
            (Asked::SetNew(new), Heard::Done(done)) => {
                Action::Swap { expected: 0, new, done: Some(done) }
            }
            (Asked::SetNew(new), Heard::Unknown) => Action::Swap { expected: 0, new, done: None },
            _ => return None,
        };
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap();
        let is_known = self.heard != Heard::Unknown;
        Some(Operation { start: nanos(self.start), end: is_known.then(|| nanos(self.end)), action })
    }
}

/// What all clients have recorded.
pub(crate) type History = Arc<Mutex<Vec<Recorded>>>;

/// One client, on its thread.
pub(crate) struct Client {
    number: u64,
    nodes: u64,
    random: Random,
    begun: Instant,
    values: u64,
    history: History,
}

impl Client {
    pub(crate) fn new(
        number: u64,
        nodes: u64,
        begun: Instant,
        seed: u64,
        history: History,
    ) -> Self {
        Self { number, nodes, random: Random::new(seed), begun, values: 0, history }
    }

    /// One operation after the other, each on some node, until it is told to stop.
    pub(crate) fn run(mut self, stop: &AtomicBool) {
        let mut connected = None;
        while !stop.load(Ordering::Relaxed) {
            let Some((node, mut connection)) = connected.take().or_else(|| self.connect()) else {
                // A node that is down refuses at once.
                thread::sleep(REFUSED);
                continue;
            };
            match self.operate(node, &mut connection) {
                Heard::Seen(_) | Heard::Done(_) => connected = Some((node, connection)),
                // Another node may do better, but not at once: nobody is helped by thousands of refusals.
                Heard::Refused => thread::sleep(REFUSED),
                // A late answer must not be taken for that of another question.
                Heard::Unknown => {}
            }
        }
    }

    fn connect(&mut self) -> Option<(u64, Connection)> {
        let node = self.random.between(1, self.nodes);
        connect(node, GREETING_MAX, ANSWER_MAX).ok().map(|connection| (node, connection))
    }

    /// One operation on one of the keys that are used now.
    fn operate(&mut self, node: u64, connection: &mut Connection) -> Heard {
        let key = key(self.begun.elapsed(), self.random.below(KEYS));
        self.values += 1;
        let value = self.number << 32 | self.values;
        let asked = match self.random.below(100) {
            0..45 => Asked::Get,
            45..85 => Asked::Set(value),
            _ => Asked::SetNew(value),
        };
        let who = (self.number, node);
        record(&self.history, self.begun, who, &key, asked, |key| ask(connection, key, asked))
    }
}

/// A client of a node, that is greeted and answered within these times.
pub(crate) fn connect(node: u64, greeting: Duration, answer: Duration) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://{}:6379", address(node)))?;
    let connection = client.get_connection_with_timeout(greeting)?;
    connection.set_read_timeout(Some(answer))?;
    Ok(connection)
}

/// Notes an operation of a client on a node, as it is done.
fn record(
    history: &History,
    begun: Instant,
    (client, node): (u64, u64),
    key: &str,
    asked: Asked,
    ask: impl FnOnce(&str) -> RedisResult<Heard>,
) -> Heard {
    let start = begun.elapsed();
    let heard = ask(key).unwrap_or_else(|error| judge(&error, asked));
    let (end, key) = (begun.elapsed(), key.to_owned());
    history.lock().unwrap().push(Recorded { client, node, key, asked, heard, start, end });
    heard
}

fn ask(connection: &mut Connection, key: &str, asked: Asked) -> RedisResult<Heard> {
    Ok(match asked {
        Asked::Get => Heard::Seen(query::<Option<u64>>(connection, &["GET", key])?.unwrap_or(0)),
        Asked::Set(value) => {
            query::<Value>(connection, &["SET", key, &value.to_string()])?;
            Heard::Done(true)
        }
        Asked::SetNew(value) => {
            let words = ["SET", key, &value.to_string(), "NX"];
            Heard::Done(query::<Option<String>>(connection, &words)?.is_some())
        }
    })
}

/// What an error says (README.md, "Errors").
fn judge(error: &RedisError, asked: Asked) -> Heard {
    let is_refusal = matches!(error.code(), Some("CLUSTERDOWN" | "TRYAGAIN" | "ERR"));
    if is_refusal || asked == Asked::Get && !error.is_io_error() {
        Heard::Refused
    } else {
        Heard::Unknown
    }
}

/// Writes through one node, then reads the same over a connection to another that does not run until `wake` is called; how
/// many of the reads were served.
pub(crate) fn read_late(
    history: &History,
    begun: Instant,
    (new, through): (u64, &mut Connection),
    (old, late): (u64, &mut Connection),
    wake: impl FnOnce(),
) -> usize {
    let keys: Vec<String> = (0..KEYS).map(|number| key(begun.elapsed(), number)).collect();
    for (key, number) in keys.iter().zip(1..) {
        let value = u64::try_from(begun.elapsed().as_nanos()).unwrap() << 8 | number;
        let asked = Asked::Set(value);
        record(history, begun, (0, new), key, asked, |key| ask(through, key, asked));
    }
    let start = begun.elapsed();
    for key in &keys {
        let request = redis::cmd("GET").arg(key).get_packed_command();
        late.send_packed_command(&request).unwrap();
    }
    wake();
    let mut served = 0;
    for key in keys {
        let answer = late.recv_response().and_then(Value::extract_error);
        let seen = answer.and_then(|value| Ok(redis::from_redis_value::<Option<u64>>(value)?));
        let heard = seen
            .map_or_else(|error| judge(&error, Asked::Get), |seen| Heard::Seen(seen.unwrap_or(0)));
        served += usize::from(matches!(heard, Heard::Seen(_)));
        let (node, asked, end) = (old, Asked::Get, begun.elapsed());
        history.lock().unwrap().push(Recorded { client: 0, node, key, asked, heard, start, end });
    }
    served
}

/// Reads every key once more: nothing that was acknowledged is gone.
pub(crate) fn read_all(history: &History, begun: Instant, connection: &mut Connection) {
    let keys: BTreeSet<String> =
        history.lock().unwrap().iter().map(|recorded| recorded.key.clone()).collect();
    for key in keys {
        let heard = record(history, begun, (0, 0), &key, Asked::Get, |key| {
            ask(connection, key, Asked::Get)
        });
        assert!(matches!(heard, Heard::Seen(_)), "{key}: {heard:?}");
    }
}

/// One of the keys that are used after so long.
fn key(elapsed: Duration, number: u64) -> String {
    format!("{}:{number}", elapsed.as_millis() / EPOCH.as_millis())
}

/// Whether each key did what one register does.
///
/// # Panics
/// If one did not, or nobody can say.
pub(crate) fn check(history: &[Recorded]) {
    let mut keys: BTreeMap<&str, Vec<Operation>> = BTreeMap::new();
    for recorded in history {
        keys.entry(&recorded.key).or_default().extend(recorded.operation());
    }
    for (key, operations) in keys {
        let verdict = linear::check(&operations, STEPS_MAX);
        assert!(verdict == Verdict::Linearizable, "key {key}: {verdict:?}");
    }
}

/// One line of JSON for each operation: as the simulator's (`tools/sim/README.md`), without an index, which no client is told.
pub(crate) fn lines(history: &[Recorded]) -> String {
    let mut lines = String::new();
    for Recorded { client, node, key, asked, heard, start, end } in history {
        let (kind, value) = match *asked {
            Asked::Get => ("\"read\"", String::new()),
            Asked::Set(value) => ("\"put\"", format!(",\"value\":{value}")),
            Asked::SetNew(value) => ("\"swap\",\"expected\":0", format!(",\"value\":{value}")),
        };
        let result = match *heard {
            Heard::Seen(value) => format!("\"read\",\"value\":{value}"),
            Heard::Done(wrote) => format!("\"applied\",\"wrote\":{wrote}"),
            Heard::Refused => "\"refused\"".to_owned(),
            Heard::Unknown => "\"unknown\"".to_owned(),
        };
        let (start, end) = (start.as_nanos(), end.as_nanos());
        writeln!(
            lines,
            "{{\"client\":{client},\"node\":{node},\"key\":\"{key}\",\"kind\":{kind}{value},\"result\":{result},\
             \"start\":{start},\"end\":{end}}}"
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
/// How long a client that was refused leaves the nodes alone.
const REFUSED: Duration = Duration::from_millis(20);
/// Steps of the search for an order, of one key.
const STEPS_MAX: u64 = 20_000_000;
