use super::*;
use crate::document::assert_in_protocol;

/// The worked example of PROTOCOL.md, byte for byte.
const ANNOUNCEMENT: &[u8] = b"\
    KTKSTATE\x01\x78\xcc\x9b\x92\xfd\x8e\x97\
    \x9c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\
    \x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01\x00\x00\x00\x00\
    \x00\x00\x00\x88\x77\x66\x55\x44\x33\x22\x11\x01\x05a:7\
    01";

fn members() -> Vec<(u64, String)> {
    (1..=3).map(|id| (id, format!("host{id}:7000"))).collect()
}

fn starter(id: u64) -> FirstStart {
    FirstStart::new(id, Incarnation(100 + id), members())
}

fn identity(id: u64, state: &State) -> Identity {
    Identity::new(id, members(), state, true)
}

fn fresh(id: u64) -> State {
    State { incarnation: Incarnation(100 + id), ..State::default() }
}

fn hello(id: u64) -> Hello {
    identity(id, &fresh(id)).hello()
}

/// The state of node `id` in a cluster that all three have formed.
fn formed(id: u64) -> State {
    let mut start = starter(id);
    let mut others = (1..=3).filter(|other| *other != id);
    assert_eq!(start.hear(&hello(others.next().unwrap())), None);
    start.hear(&hello(others.next().unwrap())).unwrap()
}

#[test]
fn all_members_form_the_same_cluster_and_it_needs_all_of_them() {
    let (one, two) = (formed(1), formed(2));
    assert_eq!(one.cluster, two.cluster);
    assert_eq!(one.configurations, two.configurations);
    assert_ne!(one.cluster, ClusterId(0));
    assert_ne!(one.incarnation, two.incarnation);
}

#[test]
fn another_disk_makes_another_cluster() {
    let mut start = starter(1);
    start.hear(&hello(2));
    let other = start.hear(&Hello { incarnation: 9, ..hello(3) }).unwrap();
    assert_ne!(other.cluster, formed(1).cluster);
}

#[test]
fn the_name_of_a_cluster_is_part_of_the_format() {
    let name = cluster_id(newest(&formed(1)).unwrap());
    assert_eq!(name, ClusterId(0xd1b3_0a02_9596_2908));
}

#[test]
fn an_announced_configuration_is_that_of_the_document() {
    let incarnation = Incarnation(0x1122_3344_5566_7788);
    let start = FirstStart::new(1, incarnation, vec![(1, "a:701".to_owned())]);
    let state = start.complete().unwrap();
    assert_eq!(announcement(&state), ANNOUNCEMENT);
    assert_in_protocol(ANNOUNCEMENT);
}

#[test]
fn one_member_is_complete_at_once() {
    let start = FirstStart::new(1, Incarnation(7), vec![(1, "host:1".to_owned())]);
    assert!(start.complete().is_some());
}

#[test]
fn who_comes_late_adopts_the_configuration() {
    let announced = identity(1, &formed(1)).hello();
    assert_eq!(identity(3, &fresh(3)).judge(&announced), Judgement::Accept);
    assert_eq!(starter(3).hear(&announced), Some(formed(3)));
}

/// RAFT-CASE 45
#[test]
fn a_wiped_disk_is_refused_by_its_cluster_and_knows_it() {
    let wiped = State { incarnation: Incarnation(999), ..State::default() };
    let wiped = identity(3, &wiped);
    let member = identity(1, &formed(1));
    assert!(matches!(member.judge(&wiped.hello()), Judgement::Refuse(_)));
    assert!(matches!(wiped.judge(&member.hello()), Judgement::NotAdmitted(_)));
}

/// RAFT-CASE 45: who may end a first start is decided by the list this node was started with.
#[test]
fn only_a_member_with_the_same_list_can_say_that_a_node_is_not_admitted() {
    let wiped = identity(3, &State { incarnation: Incarnation(999), ..State::default() });
    let cluster_of = |list: Vec<(u64, String)>| {
        let member = |(id, address): (u64, String)| Member {
            id: NodeId(id),
            incarnation: Incarnation(100 + id),
            address,
            voter: true,
        };
        let members = list.into_iter().map(member).collect();
        let configuration = Configuration { members };
        let cluster = cluster_id(&configuration);
        State { cluster, configurations: vec![(Position::default(), configuration)], ..fresh(1) }
    };
    let mut elsewhere = members();
    elsewhere[0].1 = "elsewhere:1".to_owned();
    let mut larger = members();
    larger.push((9, "host9:7000".to_owned()));
    for (id, list) in [(1, elsewhere), (1, larger.clone()), (9, larger)] {
        let hello =
            Hello { node: id, ..Identity::new(1, list.clone(), &cluster_of(list), false).hello() };
        let Judgement::Refuse(reason) = wiped.judge(&hello) else { panic!("node {id} ends it") };
        assert!(reason.contains("host3:7000"), "{reason}");
    }
    let stranger = Hello { node: 9, ..identity(1, &formed(1)).hello() };
    assert!(matches!(wiped.judge(&stranger), Judgement::Refuse(_)));
    assert!(matches!(wiped.judge(&identity(1, &formed(1)).hello()), Judgement::NotAdmitted(_)));
}

/// RAFT-CASE 45
#[test]
fn a_node_of_another_cluster_is_refused() {
    let other = State { cluster: ClusterId(5), ..formed(2) };
    let hello = identity(2, &other).hello();
    let judgement = identity(1, &formed(1)).judge(&hello);
    assert!(matches!(judgement, Judgement::OtherCluster(_)), "{judgement:?}");
    // Who has no member's id tells nothing of this node's own place.
    let judgement = identity(1, &formed(1)).judge(&Hello { node: 9, ..hello });
    assert!(matches!(judgement, Judgement::Refuse(_)), "{judgement:?}");
}

#[test]
fn a_member_that_has_not_finished_its_first_start_is_accepted() {
    assert_eq!(identity(1, &formed(1)).judge(&hello(3)), Judgement::Accept);
}

#[test]
fn other_lists_are_refused_with_both() {
    let mut other = hello(2);
    other.members[0].1 = "elsewhere:1".to_owned();
    let Judgement::Refuse(reason) = identity(1, &fresh(1)).judge(&other) else {
        panic!("accepted")
    };
    assert!(reason.contains("1=elsewhere:1") && reason.contains("1=host1:7000"), "{reason}");
}

#[test]
fn strangers_and_doubles_are_refused() {
    let member = identity(1, &formed(1));
    assert!(matches!(member.judge(&hello(9)), Judgement::Refuse(_)));
    assert!(matches!(member.judge(&hello(1)), Judgement::Refuse(_)));
}

/// RAFT-CASE 45
#[test]
fn only_the_configuration_that_the_cluster_began_with_is_adopted() {
    let good = formed(1);
    let (_, configuration) = good.configurations[0].clone();
    let later = (Position::new(1, 5), configuration.clone());
    let mut other_disk = good.clone();
    other_disk.configurations[0].1.members[0].incarnation = Incarnation(7);
    let bad = [
        State { cluster: ClusterId(5), ..good.clone() },
        State { configurations: vec![later.clone()], ..good.clone() },
        State { configurations: vec![(Position::default(), configuration), later], ..good.clone() },
        State { configurations: Vec::new(), ..good.clone() },
        other_disk,
    ];
    let heard = hello(2);
    for state in bad {
        let hello = Hello {
            cluster: state.cluster.0,
            configuration: Some(announcement(&state)),
            ..identity(1, &good).hello()
        };
        let judgement = identity(3, &fresh(3)).judge(&hello);
        assert!(matches!(judgement, Judgement::Refuse(_)), "{judgement:?} of {state:?}");
        let mut start = starter(3);
        assert_eq!(start.hear(&hello), None, "nothing to make durable");
        start.hear(&heard);
        assert_eq!(start.complete(), None, "it does not count as heard");
    }
}
