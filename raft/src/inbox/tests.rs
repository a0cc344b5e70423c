use std::{
    future::Future,
    pin::Pin,
    task::{Context, Wake, Waker},
};

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

#[test]
fn a_message_counts_with_what_it_takes_decoded() {
    let inbox = inbox();
    inbox.mail(message(1));
    let results = vec![Err(ProposeError::Overloaded); 100];
    let envelope = Envelope::Outcome { id: 1, results };
    inbox.mail(Mail::Message { from: 2, envelope, bytes: 113 });
    assert_eq!(taken(&inbox).len(), 1, "100 results take more than 2000 bytes");
}

/// Whoever waits after `Overloaded` would be refused again at once, and again.
#[test]
fn ready_means_room_for_any_command_and_for_more_than_one() {
    let options = Options {
        command_bytes_max: 100,
        proposal_bytes_max: 150,
        proposals_max: 32,
        ..Options::default()
    };
    for (count, bytes, is_ready) in [(1, 50, true), (1, 51, false), (30, 0, true), (31, 0, false)] {
        let inbox = Inbox::new(&options);
        inbox.set_serving(true);
        inbox.admit_forwarded(count, bytes).unwrap();
        let ready = inbox.ready().wait_timeout(std::time::Duration::ZERO);
        assert_eq!(ready.is_ok(), is_ready, "{count} commands of {bytes} bytes");
    }
}

/// Else the room that it makes is found with the next heartbeat.
#[test]
fn what_was_applied_calls_for_a_turn_once_and_only_where_the_protocol_has_no_room() {
    let inbox = inbox();
    let calls = || {
        let mut arrivals = Arrivals::default();
        inbox.take(&mut arrivals);
        arrivals.completions.len()
    };
    inbox.note_applied(LogIndex(1));
    assert!(inbox.is_empty());
    inbox.set_overloaded(true);
    assert_eq!(calls(), 1, "it was applied during the turn that found no room");
    inbox.set_overloaded(true);
    assert!(inbox.is_empty(), "nothing was applied since");
    inbox.note_applied(LogIndex(2));
    inbox.note_applied(LogIndex(3));
    assert_eq!(calls(), 1);
    inbox.contact(2);
    inbox.note_applied(LogIndex(4));
    assert_eq!(calls(), 0, "there is a turn anyway");
    inbox.set_overloaded(false);
    inbox.note_applied(LogIndex(5));
    assert!(inbox.is_empty());
}

/// Remembers whether the inbox was unlocked when it was woken, or dropped; then panics.
struct Probe {
    inbox: Arc<Inbox>,
    unlocked: Arc<Mutex<Vec<bool>>>,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.unlocked.lock().push(self.inbox.state.try_lock().is_some());
        panic!("told to panic");
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.unlocked.lock().push(self.inbox.state.try_lock().is_some());
    }
}

/// An executor may do anything when it is woken: propose again, drop the future, panic.
#[test]
fn wakers_run_outside_the_lock_and_may_panic() {
    let (inbox, unlocked) = (Arc::new(inbox()), Arc::default());
    let waits = |future: &mut (dyn Future<Output = _> + Unpin)| {
        let probe = Probe { inbox: inbox.clone(), unlocked: Arc::clone(&unlocked) };
        let waker = Waker::from(Arc::new(probe));
        let poll = Pin::new(future).poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
    };
    let mut ready = inbox.ready();
    waits(&mut ready);
    inbox.set_serving(true);
    assert_eq!(ready.wait(), Ok(()));

    inbox.set_serving(false);
    let mut given_up = inbox.ready();
    waits(&mut given_up);
    drop(given_up);
    let mut ready: Vec<Ready> = (0..10).map(|_| inbox.ready()).collect();
    waits(&mut ready[0]);
    inbox.close(Closing::Stopped);
    ready.into_iter().for_each(|ready| assert_eq!(ready.wait(), Err(ProposeError::Stopped)));
    // Two wake-ups, three drops.
    assert_eq!(*unlocked.lock(), [true; 5]);
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_waiting() {
    let inbox = Arc::new(inbox());
    let mut settled = Settled::default();
    let mut proposals = [(); 2].map(|()| {
        inbox.admit_forwarded(1, 1).unwrap();
        Group::one(1)
    });
    for (_, proposal) in &mut proposals {
        let probe = Probe { inbox: inbox.clone(), unlocked: Arc::default() };
        let waker = Waker::from(Arc::new(probe));
        let _ = Pin::new(proposal).poll(&mut Context::from_waker(&waker));
    }
    let error = ProposeError::Overloaded;
    let proposals = proposals.map(|(group, proposal)| {
        group.fail(|_| error.clone(), &mut settled);
        proposal
    });
    inbox.settle(&mut settled);
    assert_eq!(inbox.open_proposals(), (0, 0));
    proposals.into_iter().for_each(|proposal| assert_eq!(proposal.wait(), Err(error.clone())));
}

#[test]
fn whoever_has_an_outcome_finds_the_room_it_took() {
    let inbox = inbox();
    inbox.admit_forwarded(1, 1).unwrap();
    let (group, proposal) = Group::one(1);
    let mut settled = Settled::default();
    group.fail(|_| ProposeError::Overloaded, &mut settled);
    let Err(proposal) = proposal.wait_timeout(std::time::Duration::ZERO) else {
        panic!("its room is still taken")
    };
    inbox.settle(&mut settled);
    assert_eq!(inbox.open_proposals(), (0, 0));
    assert_eq!(proposal.wait(), Err(ProposeError::Overloaded));
}

#[test]
fn an_outcome_that_is_on_its_way_when_a_thread_ends_arrives() {
    let (group, proposal) = Group::one(1);
    let mut settled = Settled::default();
    group.fail(|_| ProposeError::Overloaded, &mut settled);
    drop(settled);
    assert_eq!(proposal.wait(), Err(ProposeError::Overloaded));
}
