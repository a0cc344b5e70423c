//! After the storm: nothing goes wrong any more, and all must come right.

use std::collections::BTreeSet;

use kontiki::Role;

use crate::world::{
    World,
    agenda::Event,
    host::{Host, LOG, Standing},
    parameters::MS,
};

/// The time after the last fault.
#[derive(Debug)]
pub(super) struct Calm {
    /// When it began, if it has.
    pub(super) since: Option<u64>,
    /// Writes of each client that were applied in it.
    writes: Vec<u64>,
}

impl Calm {
    pub(super) fn new(clients: usize) -> Self {
        Self { since: None, writes: vec![0; clients] }
    }

    /// A client's write was applied.
    pub(super) fn take_write(&mut self, client: usize) {
        self.writes[client] += u64::from(self.since.is_some());
    }

    /// A client has written often enough.
    pub(super) fn is_enough(&self, client: usize) -> bool {
        self.writes[client] >= CALM_WRITES
    }
}

impl World<'_> {
    /// From now on nothing goes wrong.
    pub(super) fn heal(&mut self) {
        self.note(|| "\"event\":\"heal\"".to_owned());
        self.calm.since = Some(self.now);
        self.links.heal();
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
                && cursors.durable >= cursors.committed;
            has_all.then(|| steps.machine().state().clone())
        };
        let states: BTreeSet<_> = sound().map(state).collect();
        let leaders = sound().filter_map(|host| host.steps.as_ref());
        let leads = leaders.filter(|steps| steps.node().status().role == Role::Leader).count();
        let is_served = (0..self.calm.writes.len()).all(|client| self.calm.is_enough(client));
        let agree = states.len() == 1 && !states.contains(&None);
        if agree && leads == 1 && is_served {
            return Ok(true);
        }
        if self.now > healed_at + HEAL_MAX {
            let stand: Vec<String> = self.hosts.iter().map(Host::stands).collect();
            return Err(format!(
                "{} s after all faults have ended: {leads} leaders, writes since then {:?}; {}",
                HEAL_MAX / 1_000_000_000,
                self.calm.writes,
                stand.join("; ")
            ));
        }
        Ok(false)
    }

    /// What is committed is the same everywhere, byte for byte.
    pub(super) fn compare_logs(&self) -> Result<(), String> {
        let mut first: Option<Vec<kontiki_wal::Entry>> = None;
        for host in self.hosts.iter().filter(|host| host.standing == Standing::Sound) {
            let Some(steps) = &host.steps else { continue };
            let log = steps.wal().log(LOG).map_err(|error| error.to_string())?;
            let entries = log.read(1..self.checks.committed() + 1, usize::MAX);
            let entries: Result<Vec<_>, _> = entries.collect();
            let entries = match entries {
                Err(kontiki_wal::ReadError::Corruption(_)) if host.is_rotten => continue,
                entries => entries.map_err(|error| format!("node {}: {error}", host.id))?,
            };
            let known = first.get_or_insert_with(|| entries.clone());
            if *known != entries {
                return Err(format!("node {} has other committed entries than the first", host.id));
            }
        }
        Ok(())
    }
}

/// Writes that each client does once all is well.
const CALM_WRITES: u64 = 3;
/// By then the world has recovered from everything.
const HEAL_MAX: u64 = 60_000 * MS;
