//! Every command through a client library, on every node of a cluster.

use redis::{Connection, RedisResult, Value};

use crate::support::{Cluster, info, query};

#[test]
fn every_command_works_on_every_node() {
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        let mut client = node.connect();
        strings(&mut client);
        numbers(&mut client);
        several_keys(&mut client);
        connection(&mut client);
        server(&mut client);
    }
    cluster.assert_same_state();
}

#[test]
fn what_one_node_acknowledged_every_other_node_reads() {
    let cluster = Cluster::start(3);
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.connect()).collect();
    for round in 0..100 {
        let value = round.to_string();
        let writer = round % clients.len();
        assert_eq!(ask(&mut clients[writer], &["SET", "shared", &value]), ok());
        for reader in &mut clients {
            assert_eq!(ask(reader, &["GET", "shared"]), bulk(&value), "round {round}");
        }
    }
}

#[test]
fn a_pipeline_is_answered_in_its_order() {
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        let mut client = node.connect();
        let mut pipeline = redis::pipe();
        let mut expected = Vec::new();
        pipeline.cmd("DEL").arg("n").ignore();
        for number in 1..=500_i64 {
            pipeline.cmd("INCR").arg("n").cmd("GET").arg("n");
            expected.extend([Value::Int(number), bulk(&number.to_string())]);
            if number % 50 == 0 {
                pipeline.cmd("ECHO").arg("here");
                expected.push(bulk("here"));
            }
        }
        let replies: Vec<Value> = pipeline.query(&mut client).unwrap();
        assert_eq!(replies, expected);
    }
}

#[test]
fn a_single_node_keeps_its_keys_over_a_kill_and_a_stop() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    assert_eq!(ask(&mut node.connect(), &["SET", "kept", "1"]), ok());
    node.process.kill();
    node.restart();
    node.wait_ready();
    assert_eq!(ask(&mut node.connect(), &["INCR", "kept"]), Value::Int(2));
    node.process.signal(rustix::process::Signal::TERM);
    assert_eq!(node.process.wait_end().status.code(), Some(0));
    node.restart();
    node.wait_ready();
    assert_eq!(ask(&mut node.connect(), &["GET", "kept"]), bulk("2"));
}

fn strings(client: &mut Connection) {
    ask(client, &["FLUSHALL"]);
    for (words, expected) in [
        (&["GET", "a"][..], Value::Nil),
        (&["SET", "a", "1", "XX"], Value::Nil),
        (&["SET", "a", "1"], ok()),
        (&["SET", "a", "2", "NX"], Value::Nil),
        (&["SET", "a", "2", "GET"], bulk("1")),
        (&["SET", "a", "3", "XX", "GET"], bulk("2")),
        (&["GET", "a"], bulk("3")),
        (&["SETNX", "a", "x"], Value::Int(0)),
        (&["SETNX", "b", "x"], Value::Int(1)),
        (&["GETSET", "b", "y"], bulk("x")),
        (&["STRLEN", "b"], Value::Int(1)),
        (&["SET", "", ""], ok()),
        (&["GET", ""], bulk("")),
        (&["TYPE", "a"], Value::SimpleString("string".into())),
        (&["TYPE", "none"], Value::SimpleString("none".into())),
        (&["TTL", "a"], Value::Int(-1)),
        (&["TTL", "none"], Value::Int(-2)),
        (&["PTTL", "a"], Value::Int(-1)),
    ] {
        assert_eq!(ask(client, words), expected, "{words:?}");
    }
    let binary: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    redis::cmd("SET").arg("binary").arg(&binary).exec(client).unwrap();
    let back: Vec<u8> = redis::cmd("GET").arg("binary").query(client).unwrap();
    assert_eq!(back, binary);
    assert_refused(client, &["SET", "a", "1", "EX", "5"], "keys do not expire here");
}

fn numbers(client: &mut Connection) {
    ask(client, &["FLUSHALL"]);
    for (words, expected) in [
        (&["INCR", "n"][..], Value::Int(1)),
        (&["INCRBY", "n", "41"], Value::Int(42)),
        (&["DECR", "n"], Value::Int(41)),
        (&["DECRBY", "n", "40"], Value::Int(1)),
        (&["GET", "n"], bulk("1")),
        (&["SET", "n", "9223372036854775807"], ok()),
    ] {
        assert_eq!(ask(client, words), expected, "{words:?}");
    }
    assert_refused(client, &["INCR", "n"], "would overflow");
    ask(client, &["SET", "word", "abc"]);
    assert_refused(client, &["INCR", "word"], "not an integer");
}

fn several_keys(client: &mut Connection) {
    for (words, expected) in [
        (&["FLUSHALL", "ASYNC"][..], ok()),
        (&["DBSIZE"], Value::Int(0)),
        (&["MSET", "a", "1", "b", "2", "c", "3"], ok()),
        (&["DBSIZE"], Value::Int(3)),
        (&["MGET", "c", "none", "a"], Value::Array(vec![bulk("3"), Value::Nil, bulk("1")])),
        (&["EXISTS", "a", "a", "none"], Value::Int(2)),
        (&["DEL", "a", "none"], Value::Int(1)),
        (&["UNLINK", "b", "c"], Value::Int(2)),
        (&["DBSIZE"], Value::Int(0)),
    ] {
        assert_eq!(ask(client, words), expected, "{words:?}");
    }
    assert_refused(client, &["MSET", "a", "1", "b"], "wrong number of arguments for 'mset'");
}

fn connection(client: &mut Connection) {
    for (words, expected) in [
        (&["PING"][..], Value::SimpleString("PONG".into())),
        (&["PING", "hello"], bulk("hello")),
        (&["ECHO", "hello"], bulk("hello")),
        (&["SELECT", "0"], ok()),
        (&["CLIENT", "GETNAME"], Value::Nil),
        (&["CLIENT", "SETNAME", "tester"], ok()),
        (&["CLIENT", "GETNAME"], bulk("tester")),
        (&["CLIENT", "SETINFO", "LIB-NAME", "x"], ok()),
        (&["RESET"], Value::SimpleString("RESET".into())),
        (&["CLIENT", "GETNAME"], Value::Nil),
    ] {
        assert_eq!(ask(client, words), expected, "{words:?}");
    }
    assert!(matches!(ask(client, &["CLIENT", "ID"]), Value::Int(1..)));
    let hello: Vec<Value> = query(client, &["HELLO", "2"]).unwrap();
    assert_eq!(hello[4..6], [bulk("proto"), Value::Int(2)]);
    let refused = query::<Value>(client, &["HELLO", "3"]).unwrap_err();
    assert_eq!(refused.code(), Some("NOPROTO"));
    assert_refused(client, &["CLIENT", "SETINFO", "LIB-VER", "a b"], "lib-ver cannot contain");
    assert_refused(client, &["CLIENT", "SETNAME", "a b"], "Client names cannot contain");
    assert_refused(client, &["SELECT", "1"], "DB index is out of range");
    assert_refused(client, &["LPUSH", "a", "b"], "unknown command 'LPUSH'");
}

fn server(client: &mut Connection) {
    ask(client, &["SET", "a", "1"]);
    // INFO tells what this node has applied, which may be less than the leader has: a linearizable
    // read waits for it.
    assert_eq!(ask(client, &["GET", "a"]), bulk("1"));
    assert_eq!(info(client, "db0"), "keys=1,expires=0,avg_ttl=0");
    assert_eq!(info(client, "raft_members").split(',').count(), 3);
    let raft: String = query(client, &["INFO", "raft"]).unwrap();
    assert!(raft.starts_with("# Raft\r\n") && !raft.contains("# Server"), "{raft}");
    let count: usize = query(client, &["COMMAND", "COUNT"]).unwrap();
    let commands: Vec<Value> = query(client, &["COMMAND"]).unwrap();
    assert_eq!(commands.len(), count);
    let described: Vec<Value> = query(client, &["COMMAND", "INFO", "get", "none"]).unwrap();
    assert!(matches!(described[..], [Value::Array(_), Value::Nil]));
    let save: Vec<String> = query(client, &["CONFIG", "GET", "save"]).unwrap();
    assert_eq!(save, ["save", ""]);
}

fn ask(client: &mut Connection, words: &[&str]) -> Value {
    query(client, words).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn assert_refused(client: &mut Connection, words: &[&str], reason: &str) {
    let result: RedisResult<Value> = query(client, words);
    let error = result.expect_err("it should be refused").to_string();
    assert!(error.contains(reason), "{words:?}: {error}");
}

fn ok() -> Value {
    Value::Okay
}

fn bulk(text: &str) -> Value {
    Value::BulkString(text.as_bytes().to_vec())
}
