//! Faults as they strike, and how hosts come back.

use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault as DiskFault, Kind},
};

use crate::world::{
    World,
    agenda::Event,
    disk::is_closed,
    faults::Fault,
    host::{Cut, Standing, Started},
    machine::Kept,
    parameters::{MS, pick},
};

impl World<'_> {
    /// A fault begins.
    pub(super) fn strike(&mut self, number: usize) {
        if self.calm.since.is_some() {
            return;
        }
        let leader = self.leader();
        let planned = &mut self.parameters.faults[number];
        if let Some(leader) = leader.filter(|_| planned.is_aimed) {
            planned.fault.aim(leader);
        }
        let fault = planned.fault.clone();
        self.note(|| format!("\"event\":\"fault\",\"number\":{number},\"fault\":\"{fault:?}\""));
        let place = |node: u64| usize::try_from(node - 1).expect("a few nodes");
        // What of it has an effect later is counted when it has.
        let has_struck = match &fault {
            Fault::Partition { links, time } => {
                self.links.block(links);
                self.break_later(links.iter().copied());
                self.queue(*time, Event::Relent { fault: number });
                let shape = shape(links, self.parameters.nodes);
                shape.inspect(|shape| self.coverage.count(shape)).is_some()
            }
            Fault::Clog { from, to, delay, time } => {
                self.links.clog((*from, *to), *delay);
                self.queue(*time, Event::Relent { fault: number });
                true
            }
            Fault::FullQueue { from, to, time } => {
                self.network.set_full((*from, *to), true);
                self.queue(*time, Event::Relent { fault: number });
                true
            }
            Fault::Stop { node, down } => self.ask_to_stop(place(*node), *down),
            Fault::PowerCut { node, keeps, down } => {
                let runs = self.hosts[place(*node)].steps.is_some();
                if runs {
                    self.cut_power(place(*node), *keeps, *down);
                }
                runs
            }
            Fault::Kill { node, down } => {
                let disk = self.hosts[place(*node)].disk.reopen();
                self.end_running(place(*node), disk, *down)
            }
            // The first start takes every disk: before it is over, what a sick one loses is not missed, and none can be spared.
            Fault::Lie { .. } | Fault::Misdirect { .. } | Fault::Wipe { .. }
                if self.hosts.iter().any(|host| !host.was_member) =>
            {
                return;
            }
            Fault::Wipe { node, down } => {
                let ends = self.end_running(place(*node), MemoryDisk::new(), *down);
                if ends {
                    let kept = &mut self.hosts[place(*node)].kept;
                    *kept = kept.as_ref().map(|_| Kept::default());
                    self.hosts[place(*node)].standing = Standing::Wiped;
                }
                ends
            }
            other => self.strike_host(number, other),
        };
        if has_struck {
            self.coverage.count(fault.name());
        }
    }

    /// A fault of one host that goes on; true if it has an effect at once.
    fn strike_host(&mut self, number: usize, fault: &Fault) -> bool {
        let Some((node, time)) = host_of(fault) else { return false };
        let place = usize::try_from(node - 1).expect("a few nodes");
        if let Some(time) = time {
            self.queue(time, Event::Relent { fault: number });
        }
        let (now, host) = (self.now, &mut self.hosts[place]);
        let runs = host.steps.is_some();
        let inject = |kind, nth, fault| {
            host.disk.inject(kind, nth, fault);
            false
        };
        if let Some(cut) = cut_of(fault) {
            host.cut_inside = Some(cut);
            return false;
        }
        match *fault {
            Fault::SyncFails { nth, takes_back: true, .. } => {
                inject(Kind::Sync, nth, DiskFault::TakeBack(EIO))
            }
            Fault::SyncFails { nth, .. } => inject(Kind::Sync, nth, DiskFault::Fail(EIO)),
            Fault::WriteFails { nth, .. } => inject(Kind::Write, nth, DiskFault::Fail(EIO)),
            Fault::NameFails { kind, nth, .. } => inject(kind, nth, DiskFault::Fail(EIO)),
            Fault::Lie { of_names: true, .. } => inject(Kind::SyncDirectory, 1, DiskFault::Lie),
            Fault::Lie { .. } => inject(Kind::Sync, 1, DiskFault::Lie),
            Fault::Misdirect { sectors, .. } => {
                inject(Kind::Sync, 1, DiskFault::Misdirect(sectors))
            }
            Fault::Rot { draw, .. } => host.rot(draw),
            Fault::Pause { time, .. } => {
                host.paused_until = host.paused_until.max(now + time);
                runs
            }
            Fault::DiskFull { .. } => {
                host.fill(true);
                runs
            }
            Fault::SlowDisk { delay, .. } => {
                host.slow += delay;
                runs
            }
            Fault::HungDisk { time, .. } => {
                host.hung_until = host.hung_until.max(now + time);
                runs
            }
            Fault::ClockJump { by, .. } => {
                host.clock.jump(by);
                runs
            }
            _ => false,
        }
    }

    /// A leader names who makes no progress while a fault lasts.
    fn count_stalled(&mut self) {
        let running = self.hosts.iter().filter_map(|host| host.steps.as_ref());
        let names = |status: kontiki::Status| status.followers.iter().any(|one| one.is_stalled);
        let named = running.filter(|steps| names(steps.node().status())).count();
        self.coverage.add_to("a stalled follower is named", named as u64);
    }

    /// A fault ends.
    pub(super) fn relent(&mut self, number: usize) {
        if self.calm.since.is_some() {
            return;
        }
        let place = |node: u64| usize::try_from(node - 1).expect("a few nodes");
        self.count_stalled();
        match self.parameters.faults[number].fault.clone() {
            Fault::Partition { links, .. } => self.links.unblock(&links),
            Fault::Clog { from, to, delay, .. } => self.links.unclog((from, to), delay),
            Fault::FullQueue { from, to, .. } => self.network.set_full((from, to), false),
            Fault::DiskFull { node, .. } => {
                let host = &mut self.hosts[place(node)];
                let is_held = host
                    .steps
                    .as_ref()
                    .is_some_and(|steps| steps.node().status().writes_held.is_some());
                host.fill(false);
                if is_held {
                    self.coverage.count("writes are held");
                }
            }
            Fault::SlowDisk { node, delay, .. } => self.hosts[place(node)].slow -= delay,
            Fault::Lie { node, down, .. } | Fault::Misdirect { node, down, .. }
                if self.hosts[place(node)].steps.is_some() =>
            {
                self.cut_power(place(node), 0, down);
            }
            _ => {}
        }
    }

    pub(super) fn cut_power(&mut self, number: usize, keeps: u64, down: u64) {
        let disk = self.hosts[number].after_power_cut(keeps);
        self.end_running(number, disk, down);
    }

    /// The process of a host has ended inside a job.
    pub(super) fn cut_off(&mut self, number: usize, cut: Cut) {
        match cut.keeps {
            Some(keeps) => self.cut_power(number, keeps, cut.down),
            None => {
                let disk = self.hosts[number].disk.reopen();
                self.end_running(number, disk, cut.down);
            }
        }
    }

    /// Asks a node to stop; it does in its next turn. False if it does not run, or its disk would not let it.
    fn ask_to_stop(&mut self, number: usize, down: u64) -> bool {
        let (now, host) = (self.now, &mut self.hosts[number]);
        let may_stop = host.hung_until <= now && host.stops.is_none();
        let Some(steps) = host.steps.as_ref().filter(|_| may_stop) else { return false };
        drop(steps.node().shutdown());
        host.stops = Some(down);
        self.plan(number);
        true
    }

    /// A node that was asked to stop has had its last turn: it answers whoever waits there, and nobody is left.
    fn stopped(&mut self, number: usize, down: u64) -> Result<(), String> {
        self.count_segments(number);
        let id = self.hosts[number].id;
        self.hosts[number].stop();
        self.note(|| format!("\"node\":{id},\"event\":\"stopped\""));
        for client in self.clients.poll_woken(self.now) {
            self.coverage.count("an answer because a node stops");
            self.free(client);
        }
        if let Some(client) = self.clients.lose(id, self.now).first() {
            return Err(format!("node {id} has stopped, and client {client} has no answer"));
        }
        let keeps = self.random.below(101);
        self.take_met(number);
        let host = &mut self.hosts[number];
        let disk = if keeps > 50 { host.disk.reopen() } else { host.after_power_cut(keeps) };
        if is_closed(&disk) {
            self.coverage.count("a log is closed for good");
        } else if !host.is_hurt && !host.is_doubtful() {
            return Err(format!("node {id} has stopped, and left its log open"));
        }
        self.bring_back(number, disk, down);
        Ok(())
    }

    /// The process of a host ends, if it runs; it finds `disk` when it comes back.
    fn end_running(&mut self, number: usize, disk: MemoryDisk, down: u64) -> bool {
        let id = self.hosts[number].id;
        if self.hosts[number].steps.is_none() {
            return false;
        }
        self.count_segments(number);
        for client in self.clients.lose(id, self.now) {
            self.free(client);
        }
        self.bring_back(number, disk, down);
        true
    }

    /// A host whose process has ended finds `disk` when it comes back.
    fn bring_back(&mut self, number: usize, disk: MemoryDisk, down: u64) {
        let id = self.hosts[number].id;
        self.take_met(number);
        self.hosts[number].end(&self.network, disk);
        let others = (1..=self.parameters.nodes).filter(|&other| other != id);
        self.break_later(others.map(|other| (id, other)).collect::<Vec<_>>());
        self.queue(down, Event::Start { host: number });
    }

    /// What a disk has done wrong since the last time is counted, and remembered.
    pub(super) fn take_met(&mut self, number: usize) {
        for name in self.hosts[number].take_met() {
            self.coverage.count(name);
        }
    }

    /// A node has ended by itself.
    pub(super) fn ended(&mut self, number: usize) -> Result<(), String> {
        let host = &mut self.hosts[number];
        let status = host.steps.as_ref().map(|steps| steps.node().status());
        let cause = status.as_ref().and_then(|status| status.fatal.clone()).unwrap_or_default();
        let id = host.id;
        if let Some(down) = host.stops.filter(|_| cause.is_empty()) {
            return self.stopped(number, down);
        }
        let is_corrupt = status.is_some_and(|status| status.corruption.is_some());
        let is_of_rot =
            host.explains(&cause) && (is_of_the_disk(&cause) || is_of_a_doubtful_disk(&cause));
        let is_excused = is_of_rot || host.is_hurt && !is_corrupt && is_of_the_disk(&cause);
        if !is_excused {
            return Err(format!("node {id} has ended without a cause: {cause}"));
        }
        if is_corrupt {
            host.standing = Standing::Refused;
        }
        self.coverage.count("a node ends by itself");
        self.note(|| format!("\"node\":{id},\"event\":\"ended\",\"cause\":{cause:?}"));
        let (keeps, down) = (self.random.below(101), self.random.between(1, 500) * MS);
        let host = &mut self.hosts[number];
        let disk = if keeps > 70 { host.disk.reopen() } else { host.after_power_cut(keeps) };
        self.end_running(number, disk, down);
        Ok(())
    }

    pub(super) fn start(&mut self, number: usize) -> Result<(), String> {
        let host = &mut self.hosts[number];
        let may_start = matches!(host.standing, Standing::Sound | Standing::Wiped);
        if host.steps.is_some() || !may_start {
            return Ok(());
        }
        if host.hung_until > self.now {
            let after = host.hung_until - self.now;
            self.queue(after, Event::Start { host: number });
            return Ok(());
        }
        if self.calm.since.is_none() && self.start_cuts.chance(self.parameters.start_cuts) {
            self.cut_start(number);
            return Ok(());
        }
        let host = &mut self.hosts[number];
        let (id, is_torn) = (host.id, host.is_torn());
        host.is_hurt = false;
        let fails = self.calm.since.is_none()
            && !host.disk.has_faults()
            // There are not many torn ones.
            && self.start_failures.chance(self.parameters.start_failures * if is_torn { 3 } else { 1 });
        if fails {
            let nth = self.start_failures.between(1, 5);
            host.disk.inject(Kind::Sync, nth, DiskFault::Fail(EIO));
        }
        let started = host.start(self.now, &self.parameters, &self.network, &self.ledger);
        self.take_met(number);
        let host = &mut self.hosts[number];
        if fails {
            let what = if is_torn { "a repair fails in a sync" } else { "a start fails in a sync" };
            self.coverage.add_to(what, u64::from(host.is_hurt));
            host.disk.forget_faults();
        }
        match started {
            Started::Runs => self.started(number, is_torn)?,
            Started::Later(reason) if host.is_full || host.is_hurt => {
                self.coverage.count("a start is put off");
                self.note(|| format!("\"node\":{id},\"event\":\"put off\",\"cause\":{reason:?}"));
                self.queue(200 * MS, Event::Start { host: number });
            }
            Started::Refused(reason) if host.explains(&reason) => {
                let found =
                    if host.has_lied { "a lie is found out" } else { "a damaged log is refused" };
                host.standing = Standing::Refused;
                self.coverage.count(found);
                self.note(|| format!("\"node\":{id},\"event\":\"refused\",\"cause\":{reason:?}"));
            }
            Started::Later(reason) | Started::Refused(reason) => {
                return Err(format!("node {id} does not start: {reason}"));
            }
        }
        self.carry()?;
        Ok(())
    }

    /// The power goes inside a start, or right behind it: what it has repaired and removed by then is kept or not.
    fn cut_start(&mut self, number: usize) {
        let random = &mut self.start_cuts;
        let operations = random.between(1, 12);
        let (keeps, down) = ([0, 50, 100][pick(random, 3)], random.between(1, 300) * MS);
        let host = &mut self.hosts[number];
        host.disk.cut_power_after(operations);
        // Whatever it finds, nobody hears of it.
        let _cut = host.start(self.now, &self.parameters, &self.network, &self.ledger);
        let (id, disk) = (host.id, host.after_power_cut(keeps));
        self.take_met(number);
        self.hosts[number].end(&self.network, disk);
        self.coverage.count("power cut inside a start");
        self.note(|| format!("\"node\":{id},\"event\":\"cut off in its start\""));
        self.queue(down, Event::Start { host: number });
    }

    fn started(&mut self, number: usize, is_torn: bool) -> Result<(), String> {
        let host = &mut self.hosts[number];
        let id = host.id;
        if is_torn {
            self.coverage.count("a torn tail is repaired");
        }
        self.note(|| format!("\"node\":{id},\"event\":\"start\""));
        let host = &mut self.hosts[number];
        if host.standing == Standing::Wiped {
            self.plan(number);
            return Ok(());
        }
        if !self.checks.take_start(host)? {
            if !host.has_lied {
                return Err(format!("node {id} has lost what was durable"));
            }
            // Nothing in its log tells: whoever knows that the disk lied takes it away.
            host.standing = Standing::Deceived;
            let disk = host.disk.reopen();
            self.coverage.count("a lie is not found out");
            self.end_running(number, disk, 0);
            return Ok(());
        }
        self.plan(number);
        Ok(())
    }
}

/// What a partition looks like; nothing, if it stops nobody.
fn shape(links: &[(u64, u64)], nodes: u64) -> Option<&'static str> {
    let goes_back = |&&(a, b): &&(u64, u64)| links.contains(&(b, a));
    let both_ways = links.iter().filter(goes_back).count();
    let stopped = |node: u64| links.iter().filter(|&&(a, _)| a == node).count() as u64;
    let is_alone = |node: u64| stopped(node) + 1 == nodes;
    Some(match both_ways {
        _ if links.is_empty() => return None,
        0 => "partition in one direction",
        both if both < links.len() => "partition of any directions",
        _ if (1..=nodes).any(is_alone) => "partition of one from all",
        _ if (1..=nodes).any(|node| stopped(node) == 0) => "partition with a bridge",
        _ => "partition in halves",
    })
}

/// Whom a fault of one host strikes, and for how long if it ends by itself.
fn host_of(fault: &Fault) -> Option<(u64, Option<u64>)> {
    match *fault {
        Fault::Pause { node, time }
        | Fault::DiskFull { node, time }
        | Fault::Lie { node, time, .. }
        | Fault::Misdirect { node, time, .. }
        | Fault::HungDisk { node, time }
        | Fault::SlowDisk { node, time, .. } => Some((node, Some(time))),
        Fault::CutInside { node, .. }
        | Fault::KillInside { node, .. }
        | Fault::CutInKeeper { node, .. }
        | Fault::SyncFails { node, .. }
        | Fault::WriteFails { node, .. }
        | Fault::NameFails { node, .. }
        | Fault::ClockJump { node, .. }
        | Fault::Rot { node, .. } => Some((node, None)),
        _ => None,
    }
}

/// A power cut or a kill that waits for the middle of a job.
fn cut_of(fault: &Fault) -> Option<Cut> {
    let (operations, keeps, down, of_keeper) = match *fault {
        Fault::CutInside { operations, keeps, down, .. } => (operations, Some(keeps), down, false),
        Fault::CutInKeeper { operations, keeps, down, .. } => (operations, Some(keeps), down, true),
        Fault::KillInside { operations, down, .. } => (operations, None, down, false),
        _ => return None,
    };
    Some(Cut { operations, keeps, down, of_keeper })
}

/// Whether a disk is to blame for an end. It is for no protocol that halts, and no panic.
fn is_of_the_disk(cause: &str) -> bool {
    let begins = ["the log failed", "the log refused a write: poisoned", "the snapshots failed"];
    begins.into_iter().any(|begin| cause.starts_with(begin))
}

/// Whether one is that holds something else than what was written to it.
fn is_of_a_doubtful_disk(cause: &str) -> bool {
    let begins = ["cannot read index", "cannot start on what the disk holds"];
    let is_of_its_image = cause.ends_with("has rotted since it came")
        || cause.contains("was not taken in: corruption in");
    begins.into_iter().any(|begin| cause.starts_with(begin))
        || (cause.starts_with("the snapshot at") && is_of_its_image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_has_rotted_is_no_excuse_for_a_state_machine_that_does_not_take_a_whole_image_in()
    {
        let read =
            "the snapshot at 2/9 was not taken in: corruption in x.image at offset 7: a checksum";
        for cause in [read, "the snapshot at 2/9 has rotted since it came"] {
            assert!(is_of_a_doubtful_disk(cause), "{cause}");
        }
        for cause in
            ["the snapshot at 2/9 was not taken in: invalid data", "the snapshot at 2/9 is behind"]
        {
            assert!(!is_of_a_doubtful_disk(cause), "{cause}");
        }
    }
}
