//! After the storm: nothing goes wrong any more, and all must come right.

use std::collections::{BTreeMap, BTreeSet};

use kontiki::Role;
use kontiki_core::{EntryKind, LogIndex, Term};

use crate::world::{
    World,
    agenda::Event,
    history::Done,
    host::{Host, LOG, Standing},
    parameters::MS,
};

/// The time after the last fault.
#[derive(Debug)]
pub(super) struct Calm {
    /// When it began, if it has.
    pub(super) since: Option<u64>,
    /// Of each client: its writes that were begun in it and applied, and its linearizable reads that were served.
    served: Vec<[u64; 2]>,
    /// The same of each node that was asked.
    served_by: BTreeMap<u64, [u64; 2]>,
}

/// What a client still has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Write,
    Read,
}

impl Calm {
    pub(super) fn new(clients: usize) -> Self {
        Self { since: None, served: vec![[0; 2]; clients], served_by: BTreeMap::new() }
    }

    /// A client's operation was served.
    pub(super) fn take_served(&mut self, done: &Done, wanted: Wanted) {
        let counts = self.since.is_some_and(|since| done.start >= since);
        self.served[done.client][wanted as usize] += u64::from(counts);
        self.served_by.entry(done.node).or_default()[wanted as usize] += u64::from(counts);
    }

    /// What a client has not done often enough yet; or, once it has, what nobody has done yet on one of the `sound` nodes, and on
    /// which: a node that passes nothing on is no less stuck for the others serving.
    pub(super) fn wants(&self, client: usize, sound: &[u64]) -> Option<(Wanted, Option<u64>)> {
        if let Some(wanted) = lacking(self.served[client], CALM_MIN) {
            return Some((wanted, None));
        }
        let of_node = |node: u64| self.served_by.get(&node).copied().unwrap_or_default();
        sound.iter().find_map(|&node| Some((lacking(of_node(node), 1)?, Some(node))))
    }
}

fn lacking([writes, reads]: [u64; 2], least: u64) -> Option<Wanted> {
    match (writes < least, reads < least) {
        (true, _) => Some(Wanted::Write),
        (false, true) => Some(Wanted::Read),
        (false, false) => None,
    }
}

impl World<'_> {
    /// From now on nothing goes wrong.
    pub(super) fn heal(&mut self) {
        self.note(|| "\"event\":\"heal\"".to_owned());
        self.calm.since = Some(self.now);
        self.links.heal();
        self.network.heal();
        for number in 0..self.hosts.len() {
            let host = &mut self.hosts[number];
            host.heal(self.now);
            if host.standing == Standing::Sound && host.steps.is_none() {
                self.queue(MS, Event::Start { host: number });
            }
            self.plan(number);
        }
        self.call_clients();
        self.queue(MS, Event::Look);
    }

    /// All is well, and everybody knows the same.
    pub(super) fn is_over(&mut self) -> Result<bool, String> {
        let Some(healed_at) = self.calm.since else { return Ok(false) };
        let sound = || self.hosts.iter().filter(|host| host.standing == Standing::Sound);
        let state = |host: &Host| {
            let steps = host.steps.as_ref()?;
            let cursors = steps.core()?.cursors();
            let has_all = cursors.committed.0 == self.checks.committed()
                && cursors.durable >= cursors.committed
                && steps.node().status().applied == cursors.committed.0;
            has_all.then(|| steps.machine().state().clone())
        };
        let states: BTreeSet<_> = sound().map(state).collect();
        let running = || sound().filter_map(|host| host.steps.as_ref());
        let leads = running().filter(|steps| steps.node().status().role == Role::Leader).count();
        // Nobody who has all is called stalled for longer than a heartbeat.
        let is_sound = |id| sound().any(|host| host.id == id);
        let followers = running().flat_map(|steps| steps.node().status().followers);
        let is_quiet = followers.filter(|one| is_sound(one.id)).all(|one| !one.is_stalled);
        // Nobody's log grows for want of a snapshot.
        let is_compacted = running().all(|steps| !steps.owes_snapshot());
        let nodes: Vec<u64> = sound().map(|host| host.id).collect();
        let clients = 0..self.calm.served.len();
        let is_served = clients.into_iter().all(|one| self.calm.wants(one, &nodes).is_none());
        let agree = states.len() == 1 && !states.contains(&None);
        let wiped = self.hosts.iter().filter(|host| host.standing == Standing::Wiped);
        let is_told = |host: &Host| {
            let steps = host.steps.as_ref();
            steps.is_some_and(|steps| steps.node().status().role == Role::NotAdmitted)
        };
        let told = wiped.clone().filter(|host| is_told(host)).count();
        if agree && leads == 1 && is_served && is_quiet && is_compacted && told == wiped.count() {
            self.coverage.add_to("a wiped disk is not admitted", told as u64);
            return Ok(true);
        }
        if self.now > healed_at + HEAL_MAX {
            let stand: Vec<String> = self.hosts.iter().map(Host::stands).collect();
            return Err(format!(
                "{} s after all faults have ended: {leads} leaders, images taken: {is_compacted}, writes and reads since then {:?}, by node {:?}; {}",
                HEAL_MAX / 1_000_000_000,
                self.calm.served,
                self.calm.served_by,
                stand.join("; ")
            ));
        }
        Ok(false)
    }

    /// What is committed is the same everywhere, byte for byte, and what was applied.
    pub(super) fn compare_logs(&self) -> Result<(), String> {
        self.checks.compare_applied(&self.ledger.look())?;
        for host in self.hosts.iter().filter(|host| host.standing == Standing::Sound) {
            let Some(steps) = &host.steps else { continue };
            let log = steps.wal().log(LOG).map_err(|error| error.to_string())?;
            for entry in log.read(log.first()..self.checks.committed() + 1, usize::MAX) {
                let entry = match entry {
                    Err(kontiki_wal::ReadError::Corruption(_)) if host.is_doubtful() => break,
                    entry => entry.map_err(|error| format!("node {}: {error}", host.id))?,
                };
                self.compare_entry(host.id, &entry)?;
            }
        }
        Ok(())
    }

    /// A committed entry is what was applied there, or no command.
    fn compare_entry(&self, id: u64, entry: &kontiki_wal::Entry) -> Result<(), String> {
        let kind = kontiki_core::Entry {
            index: LogIndex(entry.index),
            term: Term(entry.term),
            payload: entry.bytes.clone(),
        }
        .kind();
        let ledger = self.ledger.look();
        let is_right = match kind {
            Some(EntryKind::Command) => ledger.holds(entry.index, entry.term, &entry.bytes[1..]),
            _ => !ledger.positions().any(|(index, _)| index == entry.index),
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("node {id} holds at {} what was not applied there", entry.index))
        }
    }
}

/// Writes and reads that each client does once all is well.
const CALM_MIN: u64 = 2;
/// By then the world has recovered from everything.
const HEAL_MAX: u64 = 60_000 * MS;
