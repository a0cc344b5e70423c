use super::*;

#[test]
fn every_command_of_the_table_is_found_in_any_case_and_once() {
    for command in COMMANDS {
        assert_eq!(find(command.name.to_uppercase().as_bytes()).unwrap().name, command.name);
        assert_eq!(COMMANDS.iter().filter(|other| other.name == command.name).count(), 1);
        assert_eq!(command.name, command.name.to_lowercase());
    }
}

#[test]
fn too_few_and_too_many_arguments_are_refused_by_name() {
    for command in COMMANDS {
        let least = usize::try_from(command.arity.abs()).unwrap();
        let name = [command.name];
        if least > 1 {
            let few = [&name[..], &vec!["x"; least - 2]].concat();
            assert_eq!(error(&few), wrong_number_text(command.name), "{few:?}");
        }
        if command.arity > 0 {
            let many = [&name[..], &vec!["x"; least]].concat();
            assert_eq!(error(&many), wrong_number_text(command.name), "{many:?}");
        }
    }
}

#[test]
fn the_options_of_set_are_those_of_redis_without_expiry() {
    use Condition::{Always, IfAbsent, IfPresent};
    use SetReply::{Old, Outcome};
    for (options, condition, reply) in [
        (&[][..], Always, Outcome),
        (&["NX"], IfAbsent, Outcome),
        (&["xx"], IfPresent, Outcome),
        (&["get", "nx"], IfAbsent, Old),
        (&["XX", "GET"], IfPresent, Old),
    ] {
        let words = [&["set", "k", "v"], options].concat();
        let expected = Command::Set { key: b"k", value: b"v", condition, reply }.encode();
        assert!(matches!(action(&words), Action::Write(bytes) if bytes == expected), "{words:?}");
    }
    for (options, expected) in [
        (&["NX", "XX"][..], SYNTAX),
        (&["XX", "NX"], SYNTAX),
        (&["often"], SYNTAX),
        (&["EX", "5"], "ERR keys do not expire here: SET with EX is not supported"),
        (&["pxat", "5"], "ERR keys do not expire here: SET with PXAT is not supported"),
        (&["KEEPTTL"], "ERR keys do not expire here: SET with KEEPTTL is not supported"),
    ] {
        assert_eq!(error(&[&["SET", "k", "v"], options].concat()), expected);
    }
}

#[test]
fn decrements_are_additions_of_the_opposite() {
    for (words, by) in [
        (&["INCR", "n"][..], 1),
        (&["DECR", "n"], -1),
        (&["INCRBY", "n", "-9223372036854775808"], i64::MIN),
        (&["DECRBY", "n", "7"], -7),
    ] {
        let expected = Command::Add { key: b"n", by }.encode();
        assert!(matches!(action(words), Action::Write(bytes) if bytes == expected), "{words:?}");
    }
    let least = ["DECRBY", "n", "-9223372036854775808"];
    assert_eq!(error(&least), "ERR decrement would overflow");
    assert_eq!(error(&["INCRBY", "n", "1.5"]), "ERR value is not an integer or out of range");
}

#[test]
fn an_oversized_key_is_refused_with_its_size_and_the_limit() {
    let fits = "k".repeat(KEY_BYTES_MAX);
    let over = "k".repeat(KEY_BYTES_MAX + 1);
    for words in [&["SET", &over, "v"][..], &["INCR", &over], &["MSET", "a", "1", &over, "v"]] {
        assert_eq!(error(words), "ERR a key of 65537 bytes, the limit is 65536");
    }
    assert!(matches!(action(&["SET", &fits, "v"]), Action::Write(_)));
}

#[test]
fn an_oversized_request_is_refused_with_its_size_and_the_limit() {
    let Action::Reply(BytesFrame::Error(line)) = parse(&Request::TooLarge { bytes: 9_000_000 })
    else {
        panic!("not an error");
    };
    assert_eq!(&*line, "ERR a request of 9000000 bytes, the limit is 8388608");
}

#[test]
fn what_is_not_known_is_answered_in_the_words_of_redis() {
    for (words, expected) in [
        (
            &["LPUSH", "a", "b"][..],
            "ERR unknown command 'LPUSH', with args beginning with: 'a' 'b' ",
        ),
        (&["SELECT", "1"], "ERR DB index is out of range"),
        (&["HELLO", "3"], "NOPROTO unsupported protocol version"),
        (&["HELLO", "x"], "ERR Protocol version is not an integer or out of range"),
        (&["MSET", "a", "1", "b"], "ERR wrong number of arguments for 'mset' command"),
        (&["CLIENT", "KILL"], "ERR unknown subcommand 'KILL' of CLIENT"),
        (&["FLUSHALL", "now"], SYNTAX),
        (
            &["CONFIG", "SET", "save", ""],
            "ERR only CONFIG GET is supported: options are given at start",
        ),
    ] {
        assert_eq!(error(words), expected, "{words:?}");
    }
}

#[test]
fn a_browser_is_not_answered() {
    for words in [&["POST", "/", "HTTP/1.1"][..], &["Host:", "localhost"]] {
        assert!(matches!(action(words), Action::Connection(ConnectionAction::Drop)));
    }
}

#[test]
fn an_encoded_command_is_never_longer_than_its_request() {
    for words in [
        &["SET", "", ""][..],
        &["SETNX", "", ""],
        &["GETSET", "k", "v"],
        &["MSET", "", ""],
        &["MSET", "", "", "", ""],
        &["DEL", ""],
        &["DEL", "", ""],
        &["INCR", ""],
        &["INCRBY", "", "1"],
        &["FLUSHALL"],
    ] {
        let Action::Write(command) = action(words) else { panic!("{words:?}") };
        // "*1\r\n", and "$1\r\n" and "\r\n" around each argument, at the least.
        let request = 4 + words.iter().map(|word| 6 + word.len()).sum::<usize>();
        assert!(command.len() <= request, "{words:?}: {} over {request}", command.len());
    }
}

fn action(words: &[&str]) -> Action {
    let arguments = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
    parse(&Request::Arguments(arguments))
}

fn error(words: &[&str]) -> String {
    match action(words) {
        Action::Reply(BytesFrame::Error(line)) => line.to_string(),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn wrong_number_text(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}
