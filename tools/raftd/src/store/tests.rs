use super::*;

#[test]
fn a_set_answers_as_redis_does() {
    use Condition::{Always, IfAbsent, IfPresent};
    use SetReply::{Count, Old, Outcome};
    for (before, condition, reply, answer, after) in [
        (None, Always, Outcome, "+OK\r\n", Some("new")),
        (Some("old"), Always, Outcome, "+OK\r\n", Some("new")),
        (None, Always, Old, "$-1\r\n", Some("new")),
        (Some("old"), Always, Old, "$3\r\nold\r\n", Some("new")),
        (None, IfAbsent, Outcome, "+OK\r\n", Some("new")),
        (Some("old"), IfAbsent, Outcome, "$-1\r\n", Some("old")),
        (None, IfAbsent, Old, "$-1\r\n", Some("new")),
        (Some("old"), IfAbsent, Old, "$3\r\nold\r\n", Some("old")),
        (None, IfAbsent, Count, ":1\r\n", Some("new")),
        (Some("old"), IfAbsent, Count, ":0\r\n", Some("old")),
        (None, IfPresent, Outcome, "$-1\r\n", None),
        (Some("old"), IfPresent, Outcome, "+OK\r\n", Some("new")),
        (None, IfPresent, Old, "$-1\r\n", None),
        (Some("old"), IfPresent, Old, "$3\r\nold\r\n", Some("new")),
    ] {
        let mut store = Store::default();
        if let Some(value) = before {
            store.put(b"k", Bytes::from(value));
        }
        let command = Command::Set { key: b"k", value: b"new", condition, reply };
        assert_eq!(apply(&mut store, &command), answer, "{before:?} {condition:?} {reply:?}");
        assert_eq!(store.value(b"k").as_deref(), after.map(str::as_bytes), "{condition:?}");
    }
}

#[test]
fn numbers_are_added_to_and_refused_as_in_redis() {
    const NOT_A_NUMBER: &str = "-ERR value is not an integer or out of range\r\n";
    const OVERFLOW: &str = "-ERR increment or decrement would overflow\r\n";
    for (before, by, answer) in [
        (None, 1, ":1\r\n"),
        (Some("41"), 1, ":42\r\n"),
        (Some("-5"), -6, ":-11\r\n"),
        (Some("9223372036854775806"), 1, ":9223372036854775807\r\n"),
        (Some("9223372036854775807"), 1, OVERFLOW),
        (Some("-9223372036854775808"), -1, OVERFLOW),
        (Some("9223372036854775808"), 1, NOT_A_NUMBER),
        (Some("abc"), 1, NOT_A_NUMBER),
        (Some(" 1"), 1, NOT_A_NUMBER),
        (Some("01"), 1, NOT_A_NUMBER),
        (Some(""), 1, NOT_A_NUMBER),
    ] {
        let mut store = Store::default();
        if let Some(value) = before {
            store.put(b"n", Bytes::from(value));
        }
        assert_eq!(apply(&mut store, &Command::Add { key: b"n", by }), answer, "{before:?}");
        if answer.starts_with('-') {
            assert_eq!(store.value(b"n").as_deref(), before.map(str::as_bytes));
        }
    }
}

#[test]
fn delete_counts_each_key_once() {
    let mut store = example();
    let command = Command::Delete { keys: vec![b"a", b"a", b"none", b"b"] };
    assert_eq!(apply(&mut store, &command), ":2\r\n");
    assert_eq!(store.keys(), 1);
}

#[test]
fn the_later_of_two_values_for_one_key_wins() {
    let mut store = Store::default();
    let command = Command::SetMany { pairs: vec![(b"a", b"1"), (b"a", b"2")] };
    assert_eq!(apply(&mut store, &command), "+OK\r\n");
    assert_eq!(store.value(b"a").as_deref(), Some(&b"2"[..]));
}

#[test]
fn flush_all_leaves_nothing() {
    let mut store = example();
    assert_eq!(apply(&mut store, &Command::FlushAll), "+OK\r\n");
    assert_eq!(store, Store::default());
}

#[test]
fn a_malformed_command_is_a_reply_and_changes_nothing() {
    let mut store = example();
    let reply = store.take_in(&[1, 77]).unwrap();
    assert_eq!(reply, "-ERR malformed command at byte 2 of 2\r\n");
    assert_eq!(store, example());
}

#[test]
fn a_command_of_a_newer_version_stops_the_node() {
    let mut store = example();
    let error = store.take_in(&[2, 1]).unwrap_err();
    assert!(error.to_string().contains("upgrade raftd"), "{error}");
    assert_eq!(store, example());
}

#[test]
fn an_image_restores_the_content_and_replaces_everything() {
    let mut restored = Store::default();
    restored.put(b"other", Bytes::from("gone"));
    restored.restore(&mut &image(&example())[..]).unwrap();
    assert_eq!(restored, example());
    assert_eq!(restored.digest(), example().digest());
}

#[test]
fn an_image_is_of_the_moment_it_was_captured() {
    let mut store = example();
    let capture = store.snapshot().unwrap();
    store.execute(&Command::FlushAll);
    let mut bytes = Vec::new();
    capture.write_to(&mut bytes).unwrap();
    assert_eq!(bytes, image(&example()));
}

#[test]
fn a_small_image_is_these_bytes() {
    let mut store = Store::default();
    store.put(b"k", Bytes::from("vw"));
    let golden = [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, b'k', 2, 0, 0, 0, b'v', b'w'];
    assert_eq!(image(&store), golden);
}

#[test]
fn a_damaged_image_is_refused_and_the_content_stays() {
    let whole = image(&example());
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].to_vec()).collect();
    damaged.push([&whole[..], &[0]].concat());
    let mut newer = whole.clone();
    newer[0] = 2;
    damaged.push(newer);
    let mut huge_key = whole.clone();
    huge_key[9..13].fill(255);
    damaged.push(huge_key);
    let mut wrong_order = whole.clone();
    wrong_order[13] = b'z';
    damaged.push(wrong_order);

    for bytes in damaged {
        let mut store = example();
        assert!(store.restore(&mut &bytes[..]).is_err(), "{bytes:?}");
        assert_eq!(store, example());
    }
}

#[test]
fn the_digest_tells_contents_apart() {
    let digest = |pairs: &[(&str, &str)]| {
        let mut store = Store::default();
        for (key, value) in pairs {
            store.put(key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()));
        }
        store.digest()
    };
    assert_eq!(digest(&[("a", "1"), ("b", "2")]), digest(&[("b", "2"), ("a", "1")]));
    assert_ne!(digest(&[("a", "1")]), digest(&[("a", "2")]));
    assert_ne!(digest(&[("ab", "c")]), digest(&[("a", "bc")]));
    assert_ne!(digest(&[]), digest(&[("", "")]));
}

fn example() -> Store {
    let mut store = Store::default();
    for (key, value) in [("a", "1"), ("b", ""), ("c", "three")] {
        store.put(key.as_bytes(), Bytes::from(value));
    }
    store
}

fn image(store: &Store) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.snapshot().unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn apply(store: &mut Store, command: &Command<'_>) -> String {
    let reply = store.take_in(&command.encode()).unwrap();
    String::from_utf8(reply.to_vec()).unwrap()
}
