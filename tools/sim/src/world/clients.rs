//! Clients of a world: each does one operation after the other, on any node, and notes what it saw.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use kontiki::{Node, Proposal, Read, Reading};
use kontiki_core::Role;

use crate::{
    random::Random,
    world::{
        World,
        agenda::Event,
        calm::Wanted,
        history::{Call, Done, Outcome},
        host::{Host, Standing},
        machine::{Command, Registers},
        parameters::{MS, Parameters, pick},
    },
};

/// What is under way for one client.
#[derive(Debug)]
struct Pending {
    waits: Waits,
    call: Call,
    node: u64,
    start: u64,
    /// Counts the operations of all clients.
    serial: u64,
}

enum Waits {
    Write(Proposal),
    Read(Reading<(Option<u64>, u64)>),
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    pending: Vec<Option<Pending>>,
    /// Which have done enough for now: nothing of them is on the agenda.
    rests: Vec<bool>,
    woken: Arc<Mutex<Vec<usize>>>,
    /// What was done, in the order in which it ended.
    pub(crate) history: Vec<Done>,
    /// How many of them were told of.
    told: usize,
    random: Random,
    /// Operations that were begun.
    pub(crate) begun: u64,
    last_id: u64,
    /// Which node has served each client last, and not refused it since.
    served_by: Vec<Option<u64>>,
    /// The newest value that was seen of each register.
    seen: Vec<u64>,
    /// The node that each client reads on next, and the register, which it has just written to elsewhere.
    doubts: Vec<Option<(u64, u8)>>,
}

/// Tells that a client's operation has ended.
struct Bell {
    client: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.client);
    }
}

impl Clients {
    pub(crate) fn new(parameters: &Parameters) -> Self {
        let count = usize::try_from(parameters.clients).expect("a few");
        let keys = usize::try_from(parameters.keys).expect("a few");
        Self {
            pending: (0..count).map(|_| None).collect(),
            rests: vec![true; count],
            woken: Arc::default(),
            history: Vec::new(),
            told: 0,
            random: Random::new(parameters.seed ^ 0x636c_6965_6e74),
            begun: 0,
            last_id: 0,
            served_by: vec![None; count],
            seen: vec![0; keys],
            doubts: vec![None; count],
        }
    }

    /// The oldest operation that has ended and was not told of.
    pub(crate) fn take_news(&mut self) -> Option<Done> {
        let done = self.history.get(self.told).copied()?;
        self.told += 1;
        Some(done)
    }

    /// How long a client waits before its next operation, and how long it waits for its end.
    pub(crate) fn think(&mut self, parameters: &Parameters) -> u64 {
        1 + self.random.below(parameters.think)
    }

    pub(crate) fn patience(&mut self) -> u64 {
        self.random.between(100, 6_000) * MS
    }

    /// Begins the next operation of a client on one of these nodes, on the register that it doubts if there is one; its number,
    /// or `None` if it ended at once or no node is there.
    pub(crate) fn begin(
        &mut self,
        client: usize,
        nodes: &[(u64, &Node<Registers>)],
        now: u64,
        parameters: &Parameters,
        wanted: Option<Wanted>,
        doubted: Option<u8>,
    ) -> Option<u64> {
        if nodes.is_empty() || self.pending[client].is_some() {
            return None;
        }
        let known = nodes.iter().find(|(id, _)| Some(*id) == self.served_by[client]);
        let (id, node) = match known {
            Some(&known) if self.random.chance(80) => known,
            _ => nodes[pick(&mut self.random, nodes.len())],
        };
        let key = doubted
            .unwrap_or_else(|| u8::try_from(self.random.below(parameters.keys)).expect("a few"));
        let [reads, local, swaps] = parameters.mix;
        let drawn = match wanted {
            None => self.random.below(100),
            Some(Wanted::Read) => 0,
            Some(Wanted::Write) => 99,
        };
        self.begun += 1;
        let (call, waits) = if drawn < reads + local {
            let freshness = if drawn < reads { Read::Linearizable } else { Read::Local };
            let reading = node.read(freshness, move |registers: &Registers| registers.read(key));
            (Call::Read { key, is_local: drawn >= reads }, Waits::Read(reading))
        } else {
            self.last_id += 1;
            let is_swap = drawn < reads + local + swaps;
            let expected = is_swap.then(|| self.seen[usize::from(key)]);
            let command = Command { id: self.last_id, key, expected };
            let proposal = node.propose(command.encode(parameters.filler));
            (Call::Write(command), Waits::Write(proposal))
        };
        let serial = self.begun;
        self.pending[client] = Some(Pending { waits, call, node: id, start: now, serial });
        self.poll(client, now);
        self.pending[client].is_some().then_some(serial)
    }

    /// Looks at the operations that have ended since the last time; the clients that are free.
    pub(crate) fn poll_woken(&mut self, now: u64) -> Vec<usize> {
        let woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
        woken.into_iter().filter(|&client| self.poll(client, now)).collect()
    }

    /// True if the operation of a client ends with this look.
    fn poll(&mut self, client: usize, now: u64) -> bool {
        let Some(pending) = &mut self.pending[client] else { return false };
        let waker = Waker::from(Arc::new(Bell { client, woken: Arc::clone(&self.woken) }));
        let mut context = Context::from_waker(&waker);
        let outcome = match &mut pending.waits {
            Waits::Write(proposal) => match Pin::new(proposal).poll(&mut context) {
                Poll::Pending => return false,
                Poll::Ready(Ok(applied)) => {
                    Outcome::Wrote { done: applied.reply[..] == [1], index: applied.position.index }
                }
                Poll::Ready(Err(error)) if error.is_certainly_not_applied() => Outcome::Refused,
                Poll::Ready(Err(_)) => Outcome::Unknown,
            },
            Waits::Read(reading) => match Pin::new(reading).poll(&mut context) {
                Poll::Pending => return false,
                Poll::Ready(Ok((value, applied))) => Outcome::Read { value, applied },
                Poll::Ready(Err(_)) => Outcome::Refused,
            },
        };
        self.end(client, outcome, now);
        true
    }

    /// A client does not wait any longer for the operation of this number; true if it still did.
    pub(crate) fn give_up(&mut self, client: usize, serial: u64, now: u64) -> bool {
        let is_it = self.pending[client].as_ref().is_some_and(|pending| pending.serial == serial);
        if is_it {
            self.end(client, Outcome::Unknown, now);
        }
        is_it
    }

    /// Every client of a node that is gone loses sight of its operation; those clients.
    pub(crate) fn lose(&mut self, node: u64, now: u64) -> Vec<usize> {
        let of_node = |pending: &Option<Pending>| pending.as_ref().is_some_and(|p| p.node == node);
        let lost: Vec<usize> =
            (0..self.pending.len()).filter(|&client| of_node(&self.pending[client])).collect();
        lost.iter().for_each(|&client| self.end(client, Outcome::Unknown, now));
        lost
    }

    fn end(&mut self, client: usize, outcome: Outcome, now: u64) {
        let Some(Pending { call, node, start, .. }) = self.pending[client].take() else { return };
        let has_served = matches!(outcome, Outcome::Wrote { .. } | Outcome::Read { .. });
        self.served_by[client] = has_served.then_some(node);
        let known = match (call, outcome) {
            (Call::Write(command), Outcome::Wrote { done: true, .. }) => {
                Some((command.key, command.id))
            }
            (Call::Read { key, is_local: false }, Outcome::Read { value, .. }) => {
                Some((key, value.unwrap_or(0)))
            }
            _ => None,
        };
        if let Some((key, value)) = known {
            self.seen[usize::from(key)] = value;
        }
        self.history.push(Done { client, node, call, start, end: now, outcome });
    }
}

impl World<'_> {
    /// Every client that rests goes on.
    pub(super) fn call_clients(&mut self) {
        for client in 0..self.clients.rests.len() {
            if std::mem::take(&mut self.clients.rests[client]) {
                self.queue(MS, Event::Operate { client });
            }
        }
    }

    /// A client does its next operation, as long as there is something left to do.
    pub(super) fn operate(&mut self, client: usize) {
        let is_calm = self.calm.since.is_some();
        let sound = self.hosts.iter().filter(|host| host.standing == Standing::Sound);
        let sound: Vec<u64> = sound.map(|host| host.id).collect();
        let doubt = self.clients.doubts[client].take().filter(|_| !is_calm);
        let wanted = match doubt {
            Some((on, _)) => Some((Wanted::Read, Some(on))),
            None if is_calm => self.calm.wants(client, &sound),
            None => None,
        };
        let is_enough = match is_calm {
            true => wanted.is_none(),
            false => self.clients.begun >= self.parameters.operations,
        };
        if is_enough {
            self.clients.rests[client] = true;
            return;
        }
        let on = wanted.and_then(|(_, on)| on);
        let is_asked = |host: &&Host| !is_calm || sound.contains(&host.id);
        let hosts =
            self.hosts.iter().filter(is_asked).filter(|host| on.is_none_or(|on| on == host.id));
        let wanted = wanted.map(|(wanted, _)| wanted);
        let nodes: Vec<(u64, &Node<Registers>)> =
            hosts.filter_map(|host| Some((host.id, host.steps.as_ref()?.node()))).collect();
        if doubt.is_some() && !nodes.is_empty() {
            self.coverage.count("a read on a leader that is deposed");
        }
        let doubted = doubt.map(|(_, key)| key);
        let begun = self.clients.begin(client, &nodes, self.now, &self.parameters, wanted, doubted);
        (0..self.hosts.len()).for_each(|host| self.plan(host));
        match begun {
            Some(serial) => {
                let patience = self.clients.patience();
                self.queue(patience, Event::GiveUp { client, serial });
            }
            None => self.free(client),
        }
    }

    /// A client has nothing under way.
    pub(super) fn free(&mut self, client: usize) {
        if let Some(done) = self.clients.take_news() {
            self.note(|| done.json().trim_matches(['{', '}']).to_owned());
            let (what, served) = match done.outcome {
                Outcome::Wrote { done: true, .. } => ("a write is applied", Some(Wanted::Write)),
                Outcome::Wrote { .. } => ("a swap that does not write", None),
                Outcome::Read { .. } if done.is_local() => ("a local read", None),
                Outcome::Read { .. } => ("a linearizable read", Some(Wanted::Read)),
                Outcome::Refused => ("certainly not applied", None),
                Outcome::Unknown => ("an unknown outcome", None),
            };
            self.coverage.count(what);
            if let Outcome::Wrote { index, .. } = done.outcome
                && self.looks.chance(LOOKS)
            {
                self.acknowledged.push(index);
            }
            if let (Call::Write(command), Outcome::Wrote { .. }) = (done.call, done.outcome)
                && self.parameters.is_sparse
            {
                self.clients.doubts[client] = self.deposed().map(|on| (on, command.key));
            }
            if let Some(served) = served {
                self.calm.take_served(&done, served);
            }
        }
        let think = self.clients.think(&self.parameters);
        let think = if self.clients.doubts[client].is_some() { 1 } else { think };
        self.queue(think, Event::Operate { client });
    }

    /// A node that leads in an earlier term than another one: it has not heard yet that it is deposed.
    fn deposed(&self) -> Option<u64> {
        let leaders = self.leaders();
        if let [(_, oldest), _, ..] = leaders[..] { Some(oldest) } else { None }
    }

    /// The node that leads in the newest term in which one does.
    pub(super) fn leader(&self) -> Option<u64> {
        self.leaders().last().map(|&(_, id)| id)
    }

    /// Whoever believes it leads, in the order of their terms.
    fn leaders(&self) -> Vec<(u64, u64)> {
        let running = self.hosts.iter().filter_map(|host| Some((host.id, host.steps.as_ref()?)));
        let cores = running.filter_map(|(id, steps)| Some((id, steps.core()?.status())));
        let leaders = cores.filter(|(_, status)| status.role == Role::Leader);
        let mut terms: Vec<(u64, u64)> = leaders.map(|(id, status)| (status.term.0, id)).collect();
        terms.sort_unstable();
        terms
    }
}

impl std::fmt::Debug for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Write(_) => "Write",
            Self::Read(_) => "Read",
        })
    }
}

/// So many of a hundred acknowledged writes are looked for on all disks.
const LOOKS: u64 = 5;
