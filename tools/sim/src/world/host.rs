//! One machine of a world: a disk, a clock, and the node that runs on it, if one does. Every step of node and log is called
//! from here, each when its moment has come.

use std::{io, sync::Arc, time::Duration};

use kontiki::{Event, Events, Node, OpenError, StartError, steps::Steps};
use kontiki_core::Instant;
use kontiki_disk::{
    MemoryDisk,
    memory::{Fault, Kind},
};
use kontiki_wal::{
    LogId,
    steps::{SegmentJob, SyncJob},
};

use crate::{
    random::Random,
    world::{
        clock::Clock,
        disk::Flip,
        machine::{Kept, Registers, SharedLedger},
        network::Network,
        parameters::{MS, Parameters, US},
    },
};

/// Where every node has its data.
pub(crate) const DIRECTORY: &str = "data";
/// The log of every node.
pub(crate) const LOG: LogId = LogId(1);

/// What a host does at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Actor {
    Driver,
    Applier,
    Fetcher,
    Syncer,
    Preparer,
    Keeper,
}

pub(crate) const ACTORS: [Actor; 6] =
    [Actor::Driver, Actor::Applier, Actor::Fetcher, Actor::Syncer, Actor::Preparer, Actor::Keeper];

/// Why a node does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It runs, or will again.
    Sound,
    /// It does not start from its damaged log.
    Refused,
    /// It has another disk than the one that the cluster knows.
    Wiped,
    /// Its disk has lost what it had acknowledged, and nothing in it tells.
    Deceived,
}

/// How far a job of the log is.
#[derive(Debug)]
enum Stage<Job> {
    None,
    Begun(Job),
    Ran(Job, io::Result<()>),
}

impl<Job> Stage<Job> {
    /// The job that is out, which runs now unless it has.
    fn end(self, run: impl FnOnce(&Job) -> io::Result<()>) -> Option<(Job, io::Result<()>)> {
        match self {
            Self::None => None,
            Self::Begun(job) => {
                let result = run(&job);
                Some((job, result))
            }
            Self::Ran(job, result) => Some((job, result)),
        }
    }
}

/// What became of a host in one of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    GoesOn,
    /// The node has ended by itself.
    Ended,
    /// The power went inside a job, or the process was killed there.
    CutOff(Cut),
}

/// The end of a process inside a job of its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Behind so many operations of the job.
    pub(crate) operations: u64,
    /// So many of a hundred things that were not synced are kept; all of the cache where only the process is killed.
    pub(crate) keeps: Option<u64>,
    /// For so long.
    pub(crate) down: u64,
    /// Of the keeper, and no other job.
    pub(crate) of_keeper: bool,
}

/// What became of an attempt to start.
#[derive(Debug)]
pub(crate) enum Started {
    Runs,
    /// The disk keeps it from it for now.
    Later(String),
    /// The log is damaged.
    Refused(String),
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) id: u64,
    pub(crate) disk: MemoryDisk,
    /// What its state machine keeps on a disk of its own, in worlds in which it does.
    pub(crate) kept: Option<Kept>,
    pub(crate) standing: Standing,
    // Jobs go before the log that they belong to.
    sync: Stage<SyncJob>,
    segment: Stage<SegmentJob>,
    pub(crate) steps: Option<Steps<Registers>>,
    /// What the node tells.
    events: Option<Events>,
    /// Counts the processes.
    pub(crate) life: u64,
    pub(crate) clock: Clock,
    random: Random,
    /// When each actor is to be called; `u64::MAX` if it is not.
    pub(crate) wake: [u64; ACTORS.len()],
    /// For when each was put on the agenda last.
    planned: [u64; ACTORS.len()],
    pub(crate) paused_until: u64,
    /// Until then the disk does nothing.
    pub(crate) hung_until: u64,
    /// The process ends inside the next job.
    pub(crate) cut_inside: Option<Cut>,
    /// It was asked to stop, for so long.
    pub(crate) stops: Option<u64>,
    /// How long a group takes; `slow` is how much longer for now.
    sync_time: (u64, u64),
    /// How long a read of the log takes at most.
    read_max: u64,
    /// How long a job of the images waits at most.
    keep_max: u64,
    pub(crate) slow: u64,
    /// An operation of its disk has failed in the life of this process.
    pub(crate) is_hurt: bool,
    /// There is no space for a new file.
    pub(crate) is_full: bool,
    /// The bits of its files that have flipped.
    pub(super) flips: Vec<Flip>,
    /// A sync of its disk did nothing, or something else, and said it did.
    pub(crate) has_lied: bool,
    /// Power cuts that took something which was not synced, since they were counted.
    losses: u64,
    /// It has taken part in the cluster.
    pub(crate) was_member: bool,
}

impl Host {
    pub(crate) fn new(id: u64, parameters: &Parameters) -> Self {
        let drift = parameters.drift[usize::try_from(id - 1).expect("a few nodes")];
        Self {
            id,
            disk: MemoryDisk::new(),
            kept: parameters.keeps_itself.then(Kept::default),
            standing: Standing::Sound,
            sync: Stage::None,
            segment: Stage::None,
            steps: None,
            events: None,
            life: 0,
            clock: Clock::new(drift),
            random: Random::new(parameters.seed ^ (id << 32) ^ 0x686f_7374),
            wake: [u64::MAX; ACTORS.len()],
            planned: [u64::MAX; ACTORS.len()],
            paused_until: 0,
            hung_until: 0,
            cut_inside: None,
            stops: None,
            sync_time: parameters.sync,
            read_max: parameters.read_max,
            keep_max: parameters.keep_max,
            slow: 0,
            is_hurt: false,
            is_full: false,
            flips: Vec::new(),
            has_lied: false,
            losses: 0,
            was_member: false,
        }
    }

    fn instant(&self, now: u64) -> Instant {
        Instant(self.clock.shows(now))
    }

    /// Starts the node on what the disk holds.
    pub(crate) fn start(
        &mut self,
        now: u64,
        parameters: &Parameters,
        network: &Network,
        ledger: &SharedLedger,
    ) -> Started {
        self.life += 1;
        let members = (1..=parameters.nodes).map(|id| (id, address(id)));
        let mut random = Random::new(self.random.draw());
        let started = Node::builder(self.id, DIRECTORY)
            .initial_members(members)
            .options(parameters.options.clone())
            .disk(Arc::new(self.disk.clone()))
            .transport(network.transport(self.id, self.life))
            .start_in_steps(
                Registers::new(self.id, ledger.clone(), self.kept.clone()),
                self.instant(now),
                move || random.draw(),
            );
        match started {
            Ok(steps) => {
                self.events = Some(steps.node().events());
                self.steps = Some(steps);
                Started::Runs
            }
            Err(error) => {
                network.remove(self.id);
                match &error {
                    StartError::Log(
                        OpenError::Corruption(_) | OpenError::MissingSegment { .. },
                    )
                    | StartError::Snapshot { .. }
                    | StartError::Gap { .. } => Started::Refused(error.to_string()),
                    _ => Started::Later(error.to_string()),
                }
            }
        }
    }

    /// Ends the process: nothing of it happens any more. The next one finds `disk`.
    pub(crate) fn end(&mut self, network: &Network, disk: MemoryDisk) {
        network.remove(self.id);
        // What the log still tries when it is dropped must not happen; and it must not wait for a job that never comes back.
        self.disk.cut_power_after(0);
        let sync = std::mem::replace(&mut self.sync, Stage::None);
        if let (Some(steps), Stage::Begun(job) | Stage::Ran(job, _)) = (&self.steps, sync) {
            steps.wal().finish_sync(job, Err(io::ErrorKind::Interrupted.into()));
        }
        self.segment = Stage::None;
        self.steps = None;
        self.disk = disk;
        self.wake = [u64::MAX; ACTORS.len()];
        (self.cut_inside, self.stops) = (None, None);
    }

    /// Stops the node, which has had its last turn: what is out of its jobs is done before.
    pub(crate) fn stop(&mut self) {
        let Some(steps) = self.steps.take() else { return };
        let sync = std::mem::replace(&mut self.sync, Stage::None);
        if let Some((job, result)) = sync.end(SyncJob::run) {
            steps.wal().finish_sync(job, result);
        }
        let segment = std::mem::replace(&mut self.segment, Stage::None);
        if let Some((job, result)) = segment.end(SegmentJob::run) {
            steps.wal().finish_segment(job, result);
        }
        steps.stop();
    }

    /// The disk after a power cut now that keeps so many of a hundred things that were not synced.
    pub(crate) fn after_power_cut(&mut self, keeps: u64) -> MemoryDisk {
        let (random, mut lost) = (&mut self.random, false);
        let disk = self.disk.image(|_| {
            let is_kept = random.chance(keeps);
            lost |= !is_kept;
            is_kept
        });
        self.losses += u64::from(lost);
        disk
    }

    /// Plans when each actor that has something to do is called; what is planned for an earlier moment stays.
    pub(crate) fn plan(&mut self, now: u64) {
        let Some(steps) = &self.steps else { return };
        let (clock, random) = (self.clock, &mut self.random);
        let mut at = |is_due: bool, most: u64, timeout: Option<Instant>| match (is_due, timeout) {
            (true, _) => now + 1 + random.below(most),
            (false, Some(timeout)) => clock.moment(timeout.0).max(now + 1),
            (false, None) => u64::MAX,
        };
        let driver = at(steps.has_arrivals(), 200 * US, steps.turn_at());
        let applier = at(steps.has_work(), 300 * US, steps.apply_at());
        let fetcher = at(steps.has_fetches(), self.read_max, None);
        let keeper = at(steps.has_snapshot_jobs(), self.keep_max + self.slow, None);
        for (actor, at) in [
            (Actor::Driver, driver),
            (Actor::Applier, applier),
            (Actor::Fetcher, fetcher),
            (Actor::Keeper, keeper),
        ] {
            self.call(actor, at);
        }
    }

    /// Until when a pause, or the disk, keeps an actor from what it does.
    pub(crate) fn held_until(&self, actor: Actor) -> u64 {
        match actor {
            Actor::Syncer | Actor::Preparer | Actor::Keeper => {
                self.paused_until.max(self.hung_until)
            }
            Actor::Driver | Actor::Applier | Actor::Fetcher => self.paused_until,
        }
    }

    /// Calls an actor at a moment, unless it is called before.
    pub(crate) fn call(&mut self, actor: Actor, at: u64) {
        let at = at.max(self.held_until(actor));
        let wake = &mut self.wake[actor as usize];
        *wake = at.min(*wake);
    }

    /// When an actor is to be called, if that is not on the agenda yet.
    pub(crate) fn take_wake(&mut self, actor: Actor) -> Option<u64> {
        let (wake, planned) = (self.wake[actor as usize], &mut self.planned[actor as usize]);
        let is_new = wake != u64::MAX && *planned != wake;
        *planned = if is_new { wake } else { *planned };
        is_new.then_some(wake)
    }

    /// From now on nothing goes wrong; what waited for the disk goes on.
    pub(crate) fn heal(&mut self, now: u64) {
        self.disk.forget_faults();
        self.fill(false);
        (self.slow, self.paused_until, self.hung_until, self.cut_inside) = (0, 0, 0, None);
        self.call(Actor::Syncer, now + 1);
        self.call(Actor::Preparer, now + 1);
    }

    /// From now on there is no space on its disk, or there is again.
    pub(crate) fn fill(&mut self, is_full: bool) {
        self.is_full = is_full;
        self.disk.set_capacity(is_full.then_some(0));
    }

    /// Takes in the faults that its disk has met since the last time; their names.
    pub(crate) fn take_met(&mut self) -> Vec<&'static str> {
        self.forget_flips();
        let losses = usize::try_from(std::mem::take(&mut self.losses)).expect("a few");
        let mut names = vec!["a power cut loses what was not synced"; losses];
        for (kind, fault) in self.disk.take_met() {
            let says_so = matches!(fault, Fault::Fail(_) | Fault::TakeBack(_) | Fault::Panic);
            self.is_hurt |= says_so;
            self.has_lied |= !says_so;
            names.push(match (fault, kind) {
                (Fault::Lie, _) => "lie",
                (Fault::Misdirect(_), _) => "misdirected write",
                (Fault::TakeBack(_), _) => "sync fails and takes back",
                (_, Kind::Sync) => "sync fails",
                (_, Kind::Write) => "write fails",
                (_, Kind::Create) => "a create fails",
                (_, Kind::Rename) => "a rename fails",
                (_, Kind::Remove) => "a removal fails",
                (_, Kind::SyncDirectory) => "a sync of names fails",
            });
        }
        names
    }

    /// What the node has told since the last time.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        let Some(events) = &mut self.events else { return Vec::new() };
        std::iter::from_fn(|| events.try_next()).collect()
    }

    /// The log may have work.
    fn stir(&mut self, now: u64) {
        let (sync, prepare) = (self.random.below(100 * US), self.random.below(500 * US));
        if matches!(self.sync, Stage::None) {
            self.call(Actor::Syncer, now + 1 + sync);
        }
        if matches!(self.segment, Stage::None) {
            self.call(Actor::Preparer, now + 1 + prepare);
        }
    }

    /// Does what an actor does, and says what became of the host.
    pub(crate) fn act(&mut self, actor: Actor, now: u64) -> Act {
        self.wake[actor as usize] = u64::MAX;
        let instant = self.instant(now);
        let Some(steps) = &mut self.steps else { return Act::GoesOn };
        match actor {
            Actor::Driver => {
                let goes_on = steps.turn(instant);
                self.was_member |= steps.core().is_some();
                self.stir(now);
                if goes_on { Act::GoesOn } else { Act::Ended }
            }
            Actor::Applier => {
                steps.apply(instant);
                Act::GoesOn
            }
            Actor::Fetcher => {
                steps.fetch();
                Act::GoesOn
            }
            Actor::Keeper => {
                let cut = self.cut_inside.take_if(|_| steps.has_snapshot_jobs());
                if let Some(cut) = cut {
                    self.disk.cut_power_after(cut.operations);
                }
                steps.keep();
                cut.map_or(Act::GoesOn, Act::CutOff)
            }
            Actor::Syncer => self.work_on_sync(now),
            Actor::Preparer => self.work_on_segment(now),
        }
    }

    /// Begins, runs or finishes a sync, whichever is next.
    fn work_on_sync(&mut self, now: u64) -> Act {
        let Some(steps) = &self.steps else { return Act::GoesOn };
        let wal = steps.wal();
        let (least, most) = self.sync_time;
        let takes = least + self.random.below(most - least + 1) + self.slow;
        let (stage, pause) = match std::mem::replace(&mut self.sync, Stage::None) {
            Stage::None => match wal.begin_sync(Duration::from_nanos(self.clock.shows(now))) {
                Some(job) => (Stage::Begun(job), takes / 2),
                None => (Stage::None, IDLE),
            },
            Stage::Begun(job) => {
                if let Some(cut) = self.cut_inside.take_if(|cut| !cut.of_keeper) {
                    self.disk.cut_power_after(cut.operations);
                    let _cut = job.run();
                    self.sync = Stage::Begun(job);
                    return Act::CutOff(cut);
                }
                let result = job.run();
                (Stage::Ran(job, result), takes / 2)
            }
            Stage::Ran(job, result) => {
                wal.finish_sync(job, result);
                (Stage::None, 0)
            }
        };
        self.sync = stage;
        self.call(Actor::Syncer, now + 1 + pause);
        Act::GoesOn
    }

    /// Begins, runs or finishes the preparation of a segment, whichever is next.
    fn work_on_segment(&mut self, now: u64) -> Act {
        let Some(steps) = &self.steps else { return Act::GoesOn };
        let wal = steps.wal();
        let takes = self.random.below(3 * MS) + self.slow;
        let (stage, pause) = match std::mem::replace(&mut self.segment, Stage::None) {
            Stage::None => match wal.begin_segment() {
                Some(job) => (Stage::Begun(job), takes),
                None => (Stage::None, IDLE),
            },
            Stage::Begun(job) => {
                if let Some(cut) = self.cut_inside.take_if(|cut| !cut.of_keeper) {
                    self.disk.cut_power_after(cut.operations);
                    let _cut = job.run();
                    return Act::CutOff(cut);
                }
                let result = job.run();
                (Stage::Ran(job, result), takes)
            }
            Stage::Ran(job, result) => {
                // A disk without space is asked again after a while.
                let pause = if result.is_err() { IDLE } else { 0 };
                wal.finish_segment(job, result);
                (Stage::None, pause)
            }
        };
        self.segment = stage;
        self.call(Actor::Preparer, now + 1 + pause);
        Act::GoesOn
    }

    /// Its disk has what the cluster believes it has.
    pub(crate) fn is_sound(&self) -> bool {
        self.standing == Standing::Sound
    }

    /// Its disk may hold something else than what was written to it.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.has_lied || self.is_rotten()
    }

    /// How it stands, in a few words.
    pub(crate) fn stands(&self) -> String {
        let (id, standing) = (self.id, self.standing);
        let Some(steps) = &self.steps else { return format!("node {id} {standing:?}, down") };
        let status = steps.node().status();
        let kontiki::Status { role, term, last, committed, applied, .. } = status;
        format!(
            "node {id} {standing:?} {role:?} term {term} last {last} commit {committed} applied {applied}"
        )
    }
}

/// After so long an idle log is looked at again.
const IDLE: u64 = 60 * MS;

fn address(id: u64) -> String {
    format!("node:{id}")
}
