//! What is wrong is said in one line, with what to do; nothing is lost and nobody is disturbed.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use redis::Value;

use crate::{
    ports::free_addresses,
    support::{
        Cluster, Process, assert_refused, connect, free_ports, info, poll, query, serve_arguments,
        socket, succeeds_soon,
    },
    turns::turn,
};

#[test]
fn wrong_flags_and_addresses_are_one_line_and_exit_code_2() {
    for (arguments, expected) in [
        (&["serve", "--bogus"][..], "unexpected argument '--bogus'"),
        (&["serve"], "--peers"),
        (&["serve", "--id", "x"], "see raftd serve --help"),
        (&["demo", "--port", "x"], "'x'"),
        (&["demo", "--port", "x"], "see raftd demo --help"),
        (&["demo", "--port", "65500"], "65500"),
        (&["frobnicate"], "'frobnicate'"),
        (&["stat"], "'stat'; tip: a similar subcommand exists: 'status'; see raftd --help"),
        (&["serve", "--foo"], "unexpected argument '--foo' found; see raftd serve --help"),
        (&["serve", "--id", "0", "--data", "d", "--peers", "1=a:1"], "'0'"),
        (&["serve", "--id", "1", "--data", "d", "--peers", "1=a"], "HOST:PORT is needed"),
        (&["serve", "--id", "1", "--data", "d", "--peers", "a:1"], "is not ID=HOST:PORT"),
        (&["serve", "--id", "2", "--data", "d", "--peers", "1=a:1"], "name it in --peers"),
        (
            &["serve", "--id", "1", "--data", "d", "--peers", "1=a:1", "--client", "7001"],
            "HOST:PORT is needed",
        ),
        (&["--log", "=,=", "demo"], "is not a filter for logs"),
        (&["--log", "warn,nonsense", "demo"], "\"nonsense\" is no level"),
        (&["--log", "nonsense=", "demo"], "\"nonsense=\" is no level"),
        (&["--log", "warn,raftd=", "demo"], "\"raftd=\" is no level"),
        (
            &["serve", "--id", "1", "--data", "d", "--peers", "1=a:1", "--client", "a:1"],
            "for the peers and for the clients",
        ),
    ] {
        assert_refused(Process::start("raftd", arguments).wait_end(), 2, expected);
    }
}

#[test]
fn an_address_in_use_or_not_ours_is_exit_code_3() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("1");
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = holder.local_addr().unwrap().to_string();
    let free = format!("127.0.0.1:{}", free_ports(1)[0]);
    for (peer, client, expected) in [
        (&free, &used, "stop what uses it, or choose another port"),
        (&used, &free, "stop what uses it, or choose another port"),
        (&free, &"192.0.2.1:7001".to_owned(), "choose an address of this machine"),
        (&"192.0.2.1:7001".to_owned(), &free, "choose an address of this machine"),
    ] {
        let peers = format!("1={peer}");
        let ended =
            Process::start("raftd", &serve_arguments("1", &data, &peers, client)).wait_end();
        assert_refused(ended, 3, expected);
        assert!(!data.exists(), "an address that cannot be had claims no directory");
    }
}

#[test]
fn every_flag_can_be_given_in_the_environment_and_a_flag_goes_before_it() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let (data, ports) = (directory.path().join("7"), free_ports(2));
    let variables = [
        ("RAFTD_ID", "7"),
        ("RAFTD_DATA", data.to_str().unwrap()),
        ("RAFTD_PEERS", &format!("7=127.0.0.1:{}", ports[0])),
        ("RAFTD_LISTEN", &format!("0.0.0.0:{}", ports[0])),
        ("RAFTD_CLIENT", "not an address"),
        ("RAFTD_MAX_CLIENTS", "3"),
        ("RAFTD_LOG", "raftd=warn"),
        ("RUST_LOG", "info"),
    ];
    let client = format!("127.0.0.1:{}", ports[1]);
    let node = Process::start_in("node 7", &["serve", "--client", &client], &variables);
    node.wait_for("ready id=7");
    node.wait_for_log("listens for peers beyond this machine");
    assert_eq!(node.count_in_log("INFO"), 0, "RAFTD_LOG goes before RUST_LOG");
    let mut client = connect(ports[1]).unwrap();
    assert_eq!(info(&mut client, "maxclients"), "3");

    let wrong = Process::start_in("raftd", &["serve"], &variables).wait_end();
    assert_refused(wrong, 2, "not an address");
}

#[test]
fn a_first_start_says_whom_it_waits_for() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let free = free_addresses(3);
    let peers = format!("1={},2={}", free[0], free[1]);
    let arguments = serve_arguments("1", directory.path(), &peers, &free[2]);
    let node = Process::start("node 1", &arguments);
    let port = free[2].rsplit_once(':').unwrap().1.parse().unwrap();
    let mut client = poll("a client", || connect(port).ok());
    let error = query::<Value>(&mut client, &["SET", "key", "value"]).unwrap_err().to_string();
    assert!(error.contains("the first start needs all nodes"), "{error}");
    node.wait_for("waiting missing=2");
    node.wait_for_log("waits until all members have met");
}

#[test]
fn a_node_that_finds_no_majority_says_that_it_waits_for_a_leader() {
    let mut cluster = Cluster::start(3);
    cluster.nodes.iter_mut().for_each(|node| node.process.kill());
    cluster.nodes[0].restart();
    cluster.nodes[0].process.wait_for("waiting leader");
    cluster.nodes[1].restart();
    cluster.nodes[0].wait_ready();
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let variables = [("RAFTD_LOG", ""), ("RUST_LOG", "=,=")];
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let ended = Process::start_in("raftd", &["demo", "--data", data], &variables).wait_end();
    assert_refused(ended, 2, "is not a filter for logs");
}

#[test]
fn an_address_beyond_this_machine_is_warned_of() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(2);
    let peers = format!("1=127.0.0.1:{}", ports[0]);
    let client = format!("0.0.0.0:{}", ports[1]);
    let node = Process::start(
        "raftd",
        &serve_arguments("1", &directory.path().join("1"), &peers, &client),
    );
    node.wait_for("ready");
    node.wait_for_log("there is no authentication");
}

#[test]
fn a_node_ends_when_whoever_started_it_is_gone() {
    let mut cluster = Cluster::start(1);
    let process = &mut cluster.nodes[0].process;
    process.close_stdin();
    assert_eq!(process.wait_end().status.code(), Some(0));
}

#[test]
fn oversized_keys_and_values_are_refused_and_the_connection_goes_on() {
    let cluster = Cluster::start(1);
    let mut client = cluster.nodes[0].connect();
    let long_key = "k".repeat((64 << 10) + 1);
    let long_value = vec![b'v'; 9 << 20];
    let fits = vec![b'v'; (8 << 20) - 64];

    let refused = query::<Value>(&mut client, &["SET", &long_key, "v"]).unwrap_err();
    assert!(refused.to_string().contains("a key of 65537 bytes, the limit is 65536"));
    let refused = redis::cmd("SET").arg("k").arg(&long_value).query::<Value>(&mut client);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("the limit is 8388608"), "{refused}");

    redis::cmd("SET").arg("k").arg(&fits).exec(&mut client).unwrap();
    let length: usize = query(&mut client, &["STRLEN", "k"]).unwrap();
    assert_eq!(length, fits.len());
    let back: Vec<u8> = redis::cmd("GET").arg("k").query(&mut client).unwrap();
    assert!(back == fits);
}

#[test]
fn malformed_frames_close_their_own_connection_and_no_other() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut bystander = node.connect();
    query::<Value>(&mut bystander, &["SET", "key", "kept"]).unwrap();
    for (bytes, reason) in [
        (&b"*1\r\n$-5\r\n"[..], "invalid bulk length"),
        (b"*1000000000\r\n", "invalid multibulk length"),
        (b"*99999999999999999999\r\n", "invalid multibulk length"),
        (b"*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"*1\r\n$1\r\nabc\r\n", "must end with CR LF"),
        (b"*1\r\n$9223372036854775807\r\n", "invalid bulk length"),
        (&[b'x'; 70_000], "too big inline request"),
        (b"SET \"a\r\n", "unbalanced quotes"),
        (&b"*1\r\n".repeat(50_000), "expected '$', got '*'"),
    ] {
        let mut stranger = socket(node.client_port);
        // A request before it is answered first.
        stranger.write_all(b"PING\r\n").unwrap();
        stranger.write_all(bytes).unwrap();
        let mut reply = String::new();
        stranger.read_to_string(&mut reply).unwrap();
        let expected = format!("+PONG\r\n-ERR Protocol error: {reason}");
        let matches = reply.starts_with("+PONG\r\n-ERR Protocol error: ") && reply.contains(reason);
        assert!(matches, "{reply:?}, not {expected:?}");
        let kept: String = query(&mut bystander, &["GET", "key"]).unwrap();
        assert_eq!(kept, "kept");
    }
}

#[test]
fn a_web_request_is_not_answered() {
    let cluster = Cluster::start(1);
    let mut browser = socket(cluster.nodes[0].client_port);
    let request = b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\nFLUSHALL\r\n";
    browser.write_all(request).unwrap();
    let mut reply = Vec::new();
    // A reset, if the rest of the request was not read, is as good as an end.
    let _ = browser.read_to_end(&mut reply);
    assert_eq!(reply, b"");
}

#[test]
fn a_strangers_bytes_on_the_peer_port_disturb_nobody() {
    let cluster = Cluster::start(3);
    let mut client = cluster.nodes[0].connect();
    let noise: Vec<u8> =
        (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let lost = || cluster.nodes.iter().map(|node| node.process.count_in_log("peer lost"));
    let lost_before: Vec<_> = lost().collect();
    for round in 0..10 {
        for node in &cluster.nodes {
            for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[0; 4096], &noise] {
                let mut stranger = socket(node.peer_port);
                // It may be closed on us in the middle.
                let _ = stranger.write_all(bytes);
                // An election that a slow machine causes is not what this is about.
                succeeds_soon(&mut client, &["SET", "key", &round.to_string()]);
            }
        }
    }
    // Nobody lost a peer, and nobody died.
    cluster.assert_same_state();
    assert_eq!(lost().collect::<Vec<_>>(), lost_before);
}

#[test]
fn one_client_too_many_is_told_so_and_a_free_place_is_given_again() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    let ports = free_ports(2);
    let (peers, client) = (format!("1=127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
    let data = directory.path().join("1");
    let arguments =
        [&serve_arguments("1", &data, &peers, &client)[..], &["--max-clients", "2"]].concat();
    let node = Process::start("raftd", &arguments);
    node.wait_for("ready");

    let mut seated: Vec<_> = (0..2).map(|_| socket(ports[1])).collect();
    for client in &mut seated {
        client.write_all(b"PING\r\n").unwrap();
        client.read_exact(&mut [0; 7]).unwrap();
    }
    let mut reply = String::new();
    socket(ports[1]).read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "-ERR max number of clients reached\r\n");
    seated.pop();
    poll("a free place", || {
        let mut client = socket(ports[1]);
        client.write_all(b"PING\r\n").unwrap();
        let mut reply = [0; 7];
        client.read_exact(&mut reply).ok().filter(|()| reply == *b"+PONG\r\n")
    });
}

#[test]
fn a_client_that_reads_nothing_stops_only_itself() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut client = node.connect();
    let value = vec![b'v'; 1 << 20];
    redis::cmd("SET").arg("large").arg(&value).exec(&mut client).unwrap();
    let mut greedy = socket(node.client_port);
    greedy.set_write_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    let asking = thread::spawn(move || {
        // Ends when the server takes no more, or after far more than any buffer holds.
        (0..10_000).take_while(|_| greedy.write_all(b"GET large\r\n").is_ok()).count();
        greedy
    });
    for number in 1..=100 {
        assert_eq!(query::<usize>(&mut client, &["INCR", "n"]).unwrap(), number);
    }
    drop(asking.join().unwrap());
}
