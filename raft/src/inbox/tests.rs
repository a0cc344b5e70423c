use super::*;

fn inbox() -> Inbox {
    Inbox::new(&Options { inbound_bytes_max: 1000, ..Options::default() })
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
