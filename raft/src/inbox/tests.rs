use super::*;

fn inbox() -> Inbox {
    Inbox::new(&Options { inbound_bytes_max: 2000, ..Options::default() })
}

fn message(bytes: usize) -> Mail {
    let envelope = Envelope::Outcome { id: 1, results: Vec::new() };
    Mail::Message { from: 2, envelope, bytes }
}

fn taken(inbox: &Inbox) -> Vec<Mail> {
    let mut arrivals = Arrivals::default();
    inbox.take(&mut arrivals);
    arrivals.mail
}

#[test]
fn a_message_beyond_the_bound_is_taken_alone_and_lost_behind_others() {
    let inbox = inbox();
    for (first, second) in [(5000, 1), (1, 5000)] {
        inbox.mail(message(first));
        inbox.mail(message(second));
        let [Mail::Message { bytes, .. }] = taken(&inbox)[..] else { panic!("one is taken") };
        assert_eq!(bytes, first);
    }
}

#[test]
fn what_a_peer_repeats_waits_once() {
    let inbox = inbox();
    let hello = Hello {
        node: 2,
        incarnation: 7,
        cluster: 0,
        members: Vec::new(),
        configuration: None,
        log_is_empty: true,
    };
    for _ in 0..3 {
        for peer in [2, 3] {
            inbox.contact(peer);
            inbox.mail(Mail::Hello(Hello { node: peer, ..hello.clone() }));
            inbox.mail(message(1));
        }
    }
    let mut arrivals = Arrivals::default();
    inbox.take(&mut arrivals);
    assert_eq!(arrivals.contacts, [2, 3]);
    let hellos = arrivals.mail.iter().filter(|mail| matches!(mail, Mail::Hello(_)));
    assert_eq!(hellos.count(), 2);
}
