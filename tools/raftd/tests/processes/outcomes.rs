//! What clients are told when a command's outcome is not a plain reply; README.md, "Errors".

use std::{
    thread,
    time::{Duration, Instant},
};

use redis::{Connection, RedisError, Value};
use rustix::process::Signal;

use crate::support::{Cluster, info, poll, query, succeeds_soon};

/// A leader that is paused has the command, perhaps: nobody can say.
#[test]
fn an_outcome_that_nobody_knows_is_said_and_the_connection_stays() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let follower = (leader + 1) % 3;
    let mut client = cluster.nodes[follower].connect();
    query::<Value>(&mut client, &["SET", "key", "before"]).unwrap();

    let begun = Instant::now();
    cluster.nodes[leader].process.signal(Signal::STOP);
    let request = redis::cmd("SET").arg("key").arg("during").get_packed_command();
    client.send_packed_command(&request).unwrap();
    let was_in_time = begun.elapsed() < ELECTION_MIN;
    let reply = client.recv_response().and_then(Value::extract_error);
    // If this thread was held up as long as an election takes, the next leader may have served it.
    if was_in_time || reply.is_err() {
        let error = reply.unwrap_err();
        assert_eq!(error.code(), Some("UNKNOWNRESULT"), "{error}");
    }
    // The same connection goes on, and the other two serve.
    succeeds_soon(&mut client, &["SET", "other", "after"]);
    let value: String = query(&mut client, &["GET", "key"]).unwrap();
    assert!(value == "before" || value == "during", "{value}");

    cluster.nodes[leader].process.signal(Signal::CONT);
    cluster.assert_same_state();
    let again: String = query(&mut cluster.nodes[leader].connect(), &["GET", "key"]).unwrap();
    assert_eq!(again, value, "what was not applied then is not applied later either");
}

/// Two of three are gone: reads and writes are refused in time, and served again afterwards.
#[test]
fn without_a_majority_nothing_is_acknowledged_and_nobody_waits_for_ever() {
    for survivor_leads in [true, false] {
        let mut cluster = Cluster::start(3);
        let leader = cluster.leader();
        let survivor = if survivor_leads { leader } else { (leader + 1) % 3 };
        let mut client = cluster.nodes[survivor].connect();
        query::<Value>(&mut client, &["SET", "key", "before"]).unwrap();
        let others = [(survivor + 1) % 3, (survivor + 2) % 3];
        others.iter().for_each(|&other| cluster.nodes[other].process.kill());

        // The first may have reached the log before the leader noticed.
        let first = refused(&mut client, &["SET", "key", "during"]);
        assert!(is_one_of(&first, &["UNKNOWNRESULT", "CLUSTERDOWN"]), "{first}");
        // What is passed on over a connection whose end is not known yet is unknown as well.
        let node = &cluster.nodes[survivor];
        poll("the end of the leadership", || node.info("raft_leader").is_empty().then_some(()));
        let mut reader = cluster.nodes[survivor].connect();
        let reading = thread::spawn(move || refused(&mut reader, &["GET", "key"]));
        let second = refused(&mut client, &["SET", "key", "never"]);
        assert!(is_one_of(&second, &["CLUSTERDOWN"]), "{second}");
        let read = reading.join().unwrap();
        assert!(is_one_of(&read, &["CLUSTERDOWN", "TRYAGAIN"]), "{read}");
        assert_eq!(query::<String>(&mut client, &["PING"]).unwrap(), "PONG");

        others.iter().for_each(|&other| cluster.nodes[other].restart());
        succeeds_soon(&mut client, &["SET", "other", "after"]);
        let value: String = query(&mut client, &["GET", "key"]).unwrap();
        assert!(value == "before" || value == "during", "{value}");
        cluster.assert_same_state();
    }
}

/// Every reply that a client got before the end is true afterwards, and the end is no reset.
#[test]
fn a_stop_answers_what_it_has_taken_and_keeps_what_it_answered() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    let mut client = node.connect();
    node.process.signal(Signal::TERM);
    let mut acknowledged = 0;
    let end = loop {
        match query::<i64>(&mut client, &["INCR", "n"]) {
            Ok(count) => {
                assert_eq!(count, acknowledged + 1);
                acknowledged = count;
            }
            Err(error) => break error,
        }
    };
    assert!(end.is_io_error(), "{end}");
    assert_eq!(node.process.wait_end().status.code(), Some(0));
    node.restart();
    node.wait_ready();
    // The next one may have been taken and its answer lost on the way; not here, in one process.
    let counted: Option<i64> = query(&mut node.connect(), &["GET", "n"]).unwrap();
    let counted = counted.unwrap_or(0);
    assert!((acknowledged..=acknowledged + 1).contains(&counted), "{counted} of {acknowledged}");
}

/// A stop does not take the answer away from those who wait for a leader.
#[test]
fn a_stop_without_a_majority_answers_who_waits() {
    let mut cluster = Cluster::start(3);
    let mut other = cluster.nodes[0].connect();
    let mut clients: Vec<_> = (0..WAITING).map(|_| cluster.nodes[0].connect()).collect();
    cluster.nodes[1..].iter_mut().for_each(|node| node.process.kill());
    let processed = |client: &mut Connection| -> usize {
        info(client, "total_commands_processed").parse().unwrap()
    };
    let mut expected = processed(&mut other) + WAITING;
    let request = redis::cmd("SET").arg("key").arg("value").get_packed_command();
    clients.iter_mut().for_each(|client| client.send_packed_command(&request).unwrap());
    // Each question counts itself.
    poll("the requests", || {
        expected += 1;
        (processed(&mut other) == expected).then_some(())
    });
    cluster.nodes[0].process.signal(Signal::TERM);
    for client in &mut clients {
        let error = client.recv_response().and_then(Value::extract_error).unwrap_err();
        assert!(is_one_of(&error, &["UNKNOWNRESULT", "CLUSTERDOWN"]), "{error}");
    }
    assert_eq!(cluster.nodes[0].process.wait_end().status.code(), Some(0));
}

fn refused(client: &mut Connection, words: &[&str]) -> RedisError {
    let begun = Instant::now();
    let error = query::<Value>(client, words).expect_err("there is no majority");
    assert!(begun.elapsed() < ANSWER_MAX, "{words:?} took {:?}", begun.elapsed());
    error
}

/// The code of an error reply; redis-rs has its own names for those that Redis has too.
fn is_one_of(error: &RedisError, codes: &[&str]) -> bool {
    codes.contains(&error.code().unwrap_or(""))
}

/// Clients that wait at once.
const WAITING: usize = 20;

/// The time that a proposal may wait, and some more for a slow machine.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// No follower campaigns earlier, less what a message may take.
const ELECTION_MIN: Duration = Duration::from_millis(500);
