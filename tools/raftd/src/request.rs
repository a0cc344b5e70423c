//! What a request asks for: the table of commands, and one parser for each.

use bytes::Bytes;
use redis_protocol::resp2::types::BytesFrame;

use crate::{
    command::{Command, Condition, SetReply},
    reply,
    resp::{self, Request},
    store::Store,
};

/// What is to be done for one request.
#[derive(Debug)]
pub(crate) enum Action {
    /// Answer at once.
    Reply(BytesFrame),
    /// Replicate this encoded [`Command`]; its reply is the answer.
    Write(Bytes),
    /// Ask the state machine.
    Read(Query),
    /// Ask this node's state machine as it is now, which may be behind: for comparing nodes.
    Digest,
    /// Take a snapshot, and answer when it is durable.
    Save,
    /// Something about this connection.
    Connection(ConnectionAction),
    /// What this server can tell of itself; the sections asked for, in lower case.
    Info(Vec<String>),
}

/// What concerns one connection only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConnectionAction {
    Id,
    Name,
    SetName(Bytes),
    /// Greets, and takes a new name if one is given.
    Hello(Option<Bytes>),
    Reset,
    /// Answer OK and close.
    Quit,
    /// Close without a word: a web page is talking to us through a browser.
    Drop,
}

/// A question to the key space.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Query {
    Value(Bytes),
    Values(Vec<Bytes>),
    Exists(Vec<Bytes>),
    Length(Bytes),
    Type(Bytes),
    TimeToLive(Bytes),
    Keys,
}

/// One command that clients may send.
pub(crate) struct Specification {
    pub(crate) name: &'static str,
    /// Name included; negative means at least.
    pub(crate) arity: i64,
    pub(crate) flags: &'static [&'static str],
    /// First and last key and the step between them, as `COMMAND` tells them.
    pub(crate) keys: (i64, i64, i64),
    pub(crate) group: &'static str,
    pub(crate) summary: &'static str,
    parse: fn(&[Bytes]) -> Result<Action, BytesFrame>,
}

/// Finds out what a request asks for; what is wrong with it becomes its reply.
pub(crate) fn parse(request: &Request) -> Action {
    let arguments = match request {
        Request::Arguments(arguments) => arguments,
        Request::TooLarge { bytes } => {
            return Action::Reply(reply::error(format!(
                "ERR a request of {bytes} bytes, the limit is {}",
                resp::REQUEST_BYTES_MAX
            )));
        }
    };
    let name = &arguments[0];
    let Some(specification) = find(name) else {
        return unknown(name, &arguments[1..]);
    };
    let count = i64::try_from(arguments.len()).expect("arguments are bounded");
    let arity = specification.arity;
    if (arity >= 0 && count != arity) || count < -arity {
        return Action::Reply(wrong_number(specification.name));
    }
    (specification.parse)(arguments).unwrap_or_else(Action::Reply)
}

/// The specification of a command, whatever its case.
pub(crate) fn find(name: &[u8]) -> Option<&'static Specification> {
    COMMANDS.iter().find(|command| command.name.as_bytes().eq_ignore_ascii_case(name))
}

impl Query {
    /// Runs on the state machine.
    pub(crate) fn answer(&self, store: &Store) -> BytesFrame {
        match self {
            Self::Value(key) => reply::bulk(store.value(key)),
            Self::Values(keys) => {
                BytesFrame::Array(keys.iter().map(|key| reply::bulk(store.value(key))).collect())
            }
            Self::Exists(keys) => {
                reply::count(keys.iter().filter(|key| store.contains(key)).count())
            }
            Self::Length(key) => reply::count(store.value(key).map_or(0, |value| value.len())),
            Self::Type(key) => reply::simple(if store.contains(key) { "string" } else { "none" }),
            // Nothing expires: -1 is "no expiry", -2 "no such key".
            Self::TimeToLive(key) => BytesFrame::Integer(if store.contains(key) { -1 } else { -2 }),
            Self::Keys => reply::count(store.keys()),
        }
    }
}

type Parsed = Result<Action, BytesFrame>;

fn get(arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::Value(arguments[1].clone())))
}

fn get_many(arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::Values(arguments[1..].to_vec())))
}

fn exists(arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::Exists(arguments[1..].to_vec())))
}

fn length(arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::Length(arguments[1].clone())))
}

fn key_type(arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::Type(arguments[1].clone())))
}

fn time_to_live(arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::TimeToLive(arguments[1].clone())))
}

fn keys(_arguments: &[Bytes]) -> Parsed {
    Ok(Action::Read(Query::Keys))
}

fn set(arguments: &[Bytes]) -> Parsed {
    let mut condition = Condition::Always;
    let mut answer = SetReply::Outcome;
    for option in &arguments[3..] {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" if condition != Condition::IfPresent => condition = Condition::IfAbsent,
            b"XX" if condition != Condition::IfAbsent => condition = Condition::IfPresent,
            b"GET" => answer = SetReply::Old,
            name @ (b"EX" | b"PX" | b"EXAT" | b"PXAT" | b"KEEPTTL") => {
                return Err(reply::error(format!(
                    "ERR keys do not expire here: SET with {} is not supported",
                    String::from_utf8_lossy(name)
                )));
            }
            _ => return Err(reply::error(SYNTAX)),
        }
    }
    write_value(&arguments[1], &arguments[2], condition, answer)
}

fn set_if_absent(arguments: &[Bytes]) -> Parsed {
    write_value(&arguments[1], &arguments[2], Condition::IfAbsent, SetReply::Count)
}

fn exchange(arguments: &[Bytes]) -> Parsed {
    write_value(&arguments[1], &arguments[2], Condition::Always, SetReply::Old)
}

fn write_value(key: &[u8], value: &[u8], condition: Condition, reply: SetReply) -> Parsed {
    check_key(key)?;
    write(&Command::Set { key, value, condition, reply })
}

fn set_many(arguments: &[Bytes]) -> Parsed {
    let (pairs, rest) = arguments[1..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(wrong_number("mset"));
    }
    for [key, _] in pairs {
        check_key(key)?;
    }
    write(&Command::SetMany {
        pairs: pairs.iter().map(|[key, value]| (&key[..], &value[..])).collect(),
    })
}

fn delete(arguments: &[Bytes]) -> Parsed {
    write(&Command::Delete { keys: arguments[1..].iter().map(|key| &key[..]).collect() })
}

fn increment(arguments: &[Bytes]) -> Parsed {
    add(&arguments[1], 1)
}

fn decrement(arguments: &[Bytes]) -> Parsed {
    add(&arguments[1], -1)
}

fn increment_by(arguments: &[Bytes]) -> Parsed {
    add(&arguments[1], integer(&arguments[2])?)
}

fn decrement_by(arguments: &[Bytes]) -> Parsed {
    let by = integer(&arguments[2])?
        .checked_neg()
        .ok_or_else(|| reply::error("ERR decrement would overflow"))?;
    add(&arguments[1], by)
}

fn add(key: &[u8], by: i64) -> Parsed {
    check_key(key)?;
    write(&Command::Add { key, by })
}

fn flush_all(arguments: &[Bytes]) -> Parsed {
    match arguments {
        [_] => {}
        [_, mode] if is(mode, "ASYNC") || is(mode, "SYNC") => {}
        _ => return Err(reply::error(SYNTAX)),
    }
    write(&Command::FlushAll)
}

fn write(command: &Command<'_>) -> Parsed {
    Ok(Action::Write(command.encode()))
}

fn ping(arguments: &[Bytes]) -> Parsed {
    match arguments {
        [_] => answer(reply::simple("PONG")),
        [_, message] => answer(BytesFrame::BulkString(message.clone())),
        _ => Err(wrong_number("ping")),
    }
}

fn echo(arguments: &[Bytes]) -> Parsed {
    answer(BytesFrame::BulkString(arguments[1].clone()))
}

fn select(arguments: &[Bytes]) -> Parsed {
    match integer(&arguments[1])? {
        0 => answer(reply::ok()),
        _ => Err(reply::error("ERR DB index is out of range")),
    }
}

fn info(arguments: &[Bytes]) -> Parsed {
    let sections = arguments[1..].iter();
    Ok(Action::Info(sections.map(|name| lossy(name).to_ascii_lowercase()).collect()))
}

fn command(arguments: &[Bytes]) -> Parsed {
    let Some(subcommand) = arguments.get(1) else {
        return answer(BytesFrame::Array(COMMANDS.iter().map(Specification::describe).collect()));
    };
    let named = || {
        let names = arguments[2..].iter();
        names.map(|name| find(name)).collect::<Vec<_>>()
    };
    if is(subcommand, "COUNT") {
        answer(reply::count(COMMANDS.len()))
    } else if is(subcommand, "INFO") && arguments.len() == 2 {
        answer(BytesFrame::Array(COMMANDS.iter().map(Specification::describe).collect()))
    } else if is(subcommand, "INFO") {
        let described = named().into_iter();
        answer(BytesFrame::Array(
            described
                .map(|found| found.map_or(BytesFrame::Null, Specification::describe))
                .collect(),
        ))
    } else if is(subcommand, "DOCS") {
        let documented: Vec<_> = if arguments.len() == 2 {
            COMMANDS.iter().collect()
        } else {
            named().into_iter().flatten().collect()
        };
        answer(BytesFrame::Array(
            documented.into_iter().flat_map(Specification::document).collect(),
        ))
    } else if is(subcommand, "LIST") && arguments.len() == 2 {
        answer(BytesFrame::Array(COMMANDS.iter().map(|c| reply::text(c.name)).collect()))
    } else {
        Err(unknown_subcommand("COMMAND", subcommand))
    }
}

/// Only what tools ask before they begin: there is nothing to configure from a client.
fn config(arguments: &[Bytes]) -> Parsed {
    if !is(&arguments[1], "GET") {
        return Err(reply::error("ERR only CONFIG GET is supported: options are given at start"));
    }
    if arguments.len() < 3 {
        return Err(wrong_number("config|get"));
    }
    let asked = |name: &str| arguments[2..].iter().any(|pattern| is(pattern, name));
    let everything = arguments[2..].iter().any(|pattern| pattern == "*");
    let pairs = CONFIGURATION.iter().filter(|(name, _)| everything || asked(name));
    answer(BytesFrame::Array(
        pairs.flat_map(|(name, value)| [reply::text(name), reply::text(value)]).collect(),
    ))
}

fn client(arguments: &[Bytes]) -> Parsed {
    let connection = |action| Ok(Action::Connection(action));
    match arguments {
        [_, sub] if is(sub, "ID") => connection(ConnectionAction::Id),
        [_, sub] if is(sub, "GETNAME") => connection(ConnectionAction::Name),
        [_, sub, name] if is(sub, "SETNAME") => {
            connection(ConnectionAction::SetName(check_name("Client names", name)?))
        }
        [_, sub, option, value] if is(sub, "SETINFO") => {
            if !is(option, "LIB-NAME") && !is(option, "LIB-VER") {
                return Err(reply::error(format!("ERR Unrecognized option '{}'", lossy(option))));
            }
            check_name(&lossy(option).to_lowercase(), value)?;
            answer(reply::ok())
        }
        [_, sub, ..] if ["ID", "GETNAME", "SETNAME", "SETINFO"].iter().any(|s| is(sub, s)) => {
            Err(wrong_number(&format!("client|{}", lossy(sub).to_lowercase())))
        }
        [_, sub, ..] => Err(unknown_subcommand("CLIENT", sub)),
        _ => Err(wrong_number("client")),
    }
}

fn hello(arguments: &[Bytes]) -> Parsed {
    let Some(version) = arguments.get(1) else {
        return Ok(Action::Connection(ConnectionAction::Hello(None)));
    };
    match resp::number(version) {
        Some(2) => {}
        Some(_) => return Err(reply::error("NOPROTO unsupported protocol version")),
        None => {
            return Err(reply::error("ERR Protocol version is not an integer or out of range"));
        }
    }
    match &arguments[2..] {
        [] => Ok(Action::Connection(ConnectionAction::Hello(None))),
        [option, name] if is(option, "SETNAME") => {
            Ok(Action::Connection(ConnectionAction::Hello(Some(check_name("Client names", name)?))))
        }
        [option, ..] if is(option, "AUTH") => Err(reply::error(NO_PASSWORD)),
        [option, ..] => {
            Err(reply::error(format!("ERR Syntax error in HELLO option '{}'", lossy(option))))
        }
    }
}

fn auth(_arguments: &[Bytes]) -> Parsed {
    Err(reply::error(NO_PASSWORD))
}

fn debug(arguments: &[Bytes]) -> Parsed {
    match arguments {
        [_, sub] if is(sub, "DIGEST") => Ok(Action::Digest),
        [_, sub, ..] => Err(unknown_subcommand("DEBUG", sub)),
        _ => Err(wrong_number("debug")),
    }
}

fn save(_arguments: &[Bytes]) -> Parsed {
    Ok(Action::Save)
}

fn reset(_arguments: &[Bytes]) -> Parsed {
    Ok(Action::Connection(ConnectionAction::Reset))
}

fn quit(_arguments: &[Bytes]) -> Parsed {
    Ok(Action::Connection(ConnectionAction::Quit))
}

fn answer(frame: BytesFrame) -> Parsed {
    Ok(Action::Reply(frame))
}

impl Specification {
    fn describe(&self) -> BytesFrame {
        let flags = self.flags.iter().map(|flag| reply::simple(flag)).collect();
        let (first, last, step) = self.keys;
        BytesFrame::Array(vec![
            reply::text(self.name),
            BytesFrame::Integer(self.arity),
            BytesFrame::Array(flags),
            BytesFrame::Integer(first),
            BytesFrame::Integer(last),
            BytesFrame::Integer(step),
        ])
    }

    fn document(&self) -> [BytesFrame; 2] {
        let fields = [("summary", self.summary), ("group", self.group)];
        let fields =
            fields.into_iter().flat_map(|(key, value)| [reply::text(key), reply::text(value)]);
        [reply::text(self.name), BytesFrame::Array(fields.collect())]
    }
}

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

fn integer(argument: &[u8]) -> Result<i64, BytesFrame> {
    resp::number(argument)
        .ok_or_else(|| reply::error("ERR value is not an integer or out of range"))
}

/// A key that is written is kept as long as its value, and compared on every way to it.
fn check_key(key: &[u8]) -> Result<(), BytesFrame> {
    if key.len() <= KEY_BYTES_MAX {
        return Ok(());
    }
    Err(reply::error(format!("ERR a key of {} bytes, the limit is {KEY_BYTES_MAX}", key.len())))
}

/// `what` is how the refusal calls it, as Redis does.
fn check_name(what: &str, name: &Bytes) -> Result<Bytes, BytesFrame> {
    if name.len() > NAME_BYTES_MAX {
        return Err(reply::error(format!(
            "ERR a name of {} bytes, the limit is {NAME_BYTES_MAX}",
            name.len()
        )));
    }
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(reply::error(format!(
            "ERR {what} cannot contain spaces, newlines or special characters."
        )));
    }
    Ok(Bytes::copy_from_slice(name))
}

fn wrong_number(name: &str) -> BytesFrame {
    reply::error(format!("ERR wrong number of arguments for '{name}' command"))
}

fn unknown(name: &[u8], arguments: &[Bytes]) -> Action {
    // A browser can be made to send these to a port on this machine; no client does.
    if is(name, "POST") || is(name, "HOST:") {
        return Action::Connection(ConnectionAction::Drop);
    }
    let mut line = format!("ERR unknown command '{}', with args beginning with: ", lossy(name));
    for argument in arguments.iter().take(8) {
        line.push_str(&format!("'{}' ", lossy(argument)));
    }
    Action::Reply(reply::error(line))
}

fn unknown_subcommand(command: &str, subcommand: &[u8]) -> BytesFrame {
    reply::error(format!("ERR unknown subcommand '{}' of {command}", lossy(subcommand)))
}

/// A client's bytes inside an error line: cut to 128 bytes, and made text.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(128)]).into_owned()
}

/// A key that is written may be so long.
pub(crate) const KEY_BYTES_MAX: usize = 64 << 10;

const NAME_BYTES_MAX: usize = 1 << 10;

const SYNTAX: &str = "ERR syntax error";
const NO_PASSWORD: &str = "ERR there is no authentication: connect without a password";

/// What benchmarks and tools ask for: nothing is saved by a timer, the log is the truth.
const CONFIGURATION: &[(&str, &str)] = &[
    ("save", ""),
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("timeout", "0"),
];

/// Every command, the hot ones first: they are found by walking.
pub(crate) const COMMANDS: &[Specification] = {
    const READ: &[&str] = &["readonly", "fast"];
    const WRITE: &[&str] = &["write", "denyoom"];
    const REMOVE: &[&str] = &["write"];
    const OTHER: &[&str] = &["loading", "stale", "fast"];
    const NONE: (i64, i64, i64) = (0, 0, 0);
    const ONE: (i64, i64, i64) = (1, 1, 1);
    const ALL: (i64, i64, i64) = (1, -1, 1);

    macro_rules! table {
        ($($name:literal $arity:literal $flags:ident $keys:expr, $group:literal, $parse:ident, $summary:literal;)*) => {
            &[$(Specification {
                name: $name, arity: $arity, flags: $flags, keys: $keys,
                group: $group, summary: $summary, parse: $parse,
            }),*]
        };
    }
    table! {
        "get"       2 READ   ONE,  "string", get, "The value of a key";
        "set"      -3 WRITE  ONE,  "string", set, "Give a key a value; NX, XX, GET";
        "del"      -2 REMOVE ALL,  "generic", delete, "Remove keys";
        "incr"      2 WRITE  ONE,  "string", increment, "Add 1 to a number";
        "exists"   -2 READ   ALL,  "generic", exists, "How many of the keys exist";
        "mget"     -2 READ   ALL,  "string", get_many, "The values of several keys at one moment";
        "mset"     -3 WRITE  (1, -1, 2), "string", set_many, "Give several keys their values at once";
        "ping"     -1 OTHER  NONE, "connection", ping, "PONG, or the message";
        "incrby"    3 WRITE  ONE,  "string", increment_by, "Add to a number";
        "decr"      2 WRITE  ONE,  "string", decrement, "Take 1 from a number";
        "decrby"    3 WRITE  ONE,  "string", decrement_by, "Take from a number";
        "setnx"     3 WRITE  ONE,  "string", set_if_absent, "Give a key a value if it has none";
        "getset"    3 WRITE  ONE,  "string", exchange, "Give a key a value, answer the old one";
        "strlen"    2 READ   ONE,  "string", length, "The length of a value in bytes";
        "unlink"   -2 REMOVE ALL,  "generic", delete, "Remove keys";
        "type"      2 READ   ONE,  "generic", key_type, "string, or none";
        "ttl"       2 READ   ONE,  "generic", time_to_live, "-1: nothing expires; -2: no such key";
        "pttl"      2 READ   ONE,  "generic", time_to_live, "-1: nothing expires; -2: no such key";
        "dbsize"    1 READ   NONE, "server", keys, "How many keys there are";
        "flushall" -1 REMOVE NONE, "server", flush_all, "Remove every key";
        "echo"      2 OTHER  NONE, "connection", echo, "The message";
        "select"    2 OTHER  NONE, "connection", select, "There is database 0 only";
        "save"      1 OTHER  NONE, "server", save, "Take a snapshot of this node, now";
        "info"     -1 OTHER  NONE, "server", info, "server, clients, raft, keyspace";
        "command"  -1 OTHER  NONE, "server", command, "The commands: COUNT, INFO, DOCS, LIST";
        "config"   -2 OTHER  NONE, "server", config, "GET of what tools ask for";
        "client"   -2 OTHER  NONE, "connection", client, "ID, SETNAME, GETNAME, SETINFO";
        "hello"    -1 OTHER  NONE, "connection", hello, "Protocol 2, and who is here";
        "auth"     -2 OTHER  NONE, "connection", auth, "Refused: there is no authentication";
        "debug"    -2 OTHER  NONE, "server", debug, "DIGEST: a fingerprint of this node's keys";
        "reset"     1 OTHER  NONE, "connection", reset, "Forget the connection's name";
        "quit"     -1 OTHER  NONE, "connection", quit, "Close the connection";
    }
};

#[cfg(test)]
mod tests;
