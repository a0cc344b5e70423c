//! A whole cluster in one thread: the production code of nodes and logs over simulated disks, a simulated network and simulated
//! clocks. One number decides everything that happens; the same number, the same world.

mod agenda;
mod calm;
mod checks;
mod clients;
mod clock;
pub mod coverage;
mod disk;
pub mod faults;
pub mod history;
mod host;
pub mod machine;
pub mod network;
pub mod parameters;
mod storm;
mod traffic;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
};

use self::{
    agenda::{Agenda, Event},
    calm::Calm,
    checks::Checks,
    clients::Clients,
    coverage::Coverage,
    faults::Planned,
    history::Done,
    host::{ACTORS, Act, Actor, Host, Standing},
    machine::SharedLedger,
    network::Network,
    parameters::{MS, Parameters, pick},
    traffic::Links,
};
use crate::random::Random;

/// How a world ended in which everything held.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of the moments of all that happened, and of who did what: the same for the same seed.
    pub fingerprint: u64,
    /// Nanoseconds in the world.
    pub time: u64,
    /// Steps of it.
    pub events: u64,
    /// Operations of clients.
    pub operations: u64,
    /// What happened how often.
    pub coverage: Coverage,
    /// What clients did and saw.
    pub history: Vec<Done>,
}

/// Something that did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The world.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// When.
    pub at: u64,
    /// The faults that were left in, by their numbers.
    pub faults: Vec<(usize, Planned)>,
    /// What clients did and saw until then.
    pub history: Vec<Done>,
}

/// Takes each line of a trace.
pub type Trace<'a> = Box<dyn FnMut(String) + 'a>;

/// A world on its way.
struct World<'a> {
    parameters: Parameters,
    left_out: BTreeSet<usize>,
    now: u64,
    agenda: Agenda,
    hosts: Vec<Host>,
    network: Network,
    links: Links,
    clients: Clients,
    checks: Checks,
    ledger: SharedLedger,
    random: Random,
    /// Of its own, so that what is drawn besides stays as it was.
    start_cuts: Random,
    /// Which starts fail in a sync.
    start_failures: Random,
    /// Which messages of images come twice: drawn by itself, too.
    repeats: Random,
    /// Which messages come again much later.
    lates: Random,
    /// Which connections break in one direction only.
    ways: Random,
    /// Which acknowledged writes are looked for on all disks, and those that are to be.
    looks: Random,
    acknowledged: Vec<u64>,
    coverage: Coverage,
    hasher: DefaultHasher,
    events: u64,
    calm: Calm,
    /// Each step of a node is followed by a look at its disk.
    is_audited: bool,
    /// At the last look at each: which process, how many operations its disk had done, how much the node had claimed.
    audited: Vec<(u64, u64, u64)>,
    trace: Option<Trace<'a>>,
}

/// Lets the world of a seed happen, without some of its faults.
///
/// # Errors
/// What did not hold.
pub fn run(
    seed: u64,
    left_out: &BTreeSet<usize>,
    trace: Option<Trace<'_>>,
) -> Result<Report, Failure> {
    let mut world = World::new(seed, left_out.clone(), trace);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    let ended = ended.unwrap_or_else(|panic| Err(format!("panic: {}", panic_text(&*panic))));
    if let Err(what) = ended {
        let faults = world.parameters.faults.iter().cloned().enumerate();
        let faults = faults.filter(|(number, _)| !left_out.contains(number)).collect();
        let history = std::mem::take(&mut world.clients.history);
        return Err(Failure { seed, what, at: world.now, faults, history });
    }
    Ok(Report {
        fingerprint: world.hasher.finish(),
        time: world.now,
        events: world.events,
        operations: world.clients.begun,
        coverage: world.coverage.clone(),
        history: std::mem::take(&mut world.clients.history),
    })
}

impl<'a> World<'a> {
    fn new(seed: u64, left_out: BTreeSet<usize>, trace: Option<Trace<'a>>) -> Self {
        let parameters = Parameters::draw(seed);
        let hosts: Vec<Host> =
            (1..=parameters.nodes).map(|id| Host::new(id, &parameters)).collect();
        let clients = usize::try_from(parameters.clients).expect("a few");
        let mut world = Self {
            left_out,
            now: 0,
            agenda: Agenda::default(),
            network: Network::new(),
            links: Links::new(parameters.network),
            clients: Clients::new(&parameters),
            checks: Checks::new(parameters.majority()),
            ledger: SharedLedger::default(),
            random: Random::new(seed ^ 0x77_6f72_6c64),
            start_cuts: Random::new(seed ^ 0x0063_7574_7374),
            start_failures: Random::new(seed ^ 0x0066_6169_6c73),
            repeats: Random::new(seed ^ 0x0074_7769_6365),
            lates: Random::new(seed ^ 0x006c_6174_6573),
            ways: Random::new(seed ^ 0x7761_7973),
            looks: Random::new(seed ^ 0x6c6f_6f6b),
            acknowledged: Vec::new(),
            coverage: Coverage::default(),
            hasher: DefaultHasher::new(),
            events: 0,
            calm: Calm::new(clients),
            is_audited: seed.is_multiple_of(AUDITED),
            audited: vec![(0, 0, 0); hosts.len()],
            hosts,
            trace,
            parameters,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let at = self.random.below(50 * MS);
            self.queue(at, Event::Start { host });
        }
        self.call_clients();
        let mut last = 0;
        for fault in 0..self.parameters.faults.len() {
            last = self.parameters.faults[fault].at;
            if !self.left_out.contains(&fault) {
                self.queue(last, Event::Strike { fault });
            }
        }
        self.queue(last + 2_000 * MS, Event::Heal);
        self.queue(MS, Event::Connect);
        self.queue(AUDIT, Event::Audit);
    }

    /// Lets everything happen.
    fn run(&mut self) -> Result<(), String> {
        while let Some((at, event)) = self.agenda.pop() {
            self.now = at;
            self.events += 1;
            if self.events > EVENTS_MAX {
                return Err(format!("no end after {EVENTS_MAX} steps"));
            }
            self.hasher.write_u64(at);
            if matches!(event, Event::Look) && self.is_over()? {
                break;
            }
            self.happen(event)?;
        }
        self.compare_logs()?;
        for number in 0..self.hosts.len() {
            self.count_segments(number);
        }
        let [taken, begun, replaced] = self.ledger.look().snapshots;
        self.coverage.add_to("a snapshot is taken", taken);
        self.coverage.add_to("a start goes on from a snapshot", begun);
        self.coverage.add_to("a snapshot takes the place of a state", replaced);
        let kept_starts = self.ledger.look().kept_starts;
        self.coverage.add_to("a start goes on from the state machine's own disk", kept_starts);
        history::check(&self.clients.history, &self.ledger.look(), &mut self.coverage)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Act { host, actor } => self.act(host, actor)?,
            Event::Start { host } => self.start(host)?,
            Event::Deliver(sent) => self.deliver(&sent)?,
            Event::Connect => self.connect(),
            Event::Break { a, b } => self.break_connection(a, b),
            Event::Operate { client } => self.operate(client),
            Event::GiveUp { client, serial } => {
                if self.clients.give_up(client, serial, self.now) {
                    self.free(client);
                }
            }
            Event::Strike { fault } => self.strike(fault),
            Event::Relent { fault } => self.relent(fault),
            Event::Heal => self.heal(),
            Event::Audit => self.audit()?,
            Event::Look => self.queue(100 * MS, Event::Look),
        }
        for client in self.clients.poll_woken(self.now) {
            self.free(client);
        }
        for index in std::mem::take(&mut self.acknowledged) {
            self.check_acknowledged(index)?;
        }
        Ok(())
    }

    /// What a client was told is applied lies on the disks of a majority, as a power cut now would leave them. Of a disk that is not
    /// the one it was, or may hold something else than what was written to it, counts what the node had called durable: a wiped
    /// one holds nothing that came later.
    fn check_acknowledged(&mut self, index: u64) -> Result<(), String> {
        let applied = self.ledger.look().positions().find(|known| known.0 == index);
        let (_, term) = applied.ok_or_else(|| format!("index {index} was applied nowhere"))?;
        let mut holders = 0;
        for host in &self.hosts {
            let holds = if host.is_sound() && !host.is_doubtful() {
                let durable = host.durable()?;
                durable.image_end >= index || durable.term(index) == Some(term)
            } else {
                self.checks.has_claimed(host.id, index, term)
            };
            holders += usize::from(holds);
        }
        self.coverage.count("an acknowledged write is looked for on all disks");
        if 2 * holders <= self.hosts.len() {
            return Err(format!(
                "index {index} of term {term} is acknowledged, and durable on {holders} of {} nodes",
                self.hosts.len()
            ));
        }
        Ok(())
    }

    /// Queues an event for so much later.
    fn queue(&mut self, after: u64, event: Event) {
        self.agenda.add(self.now.saturating_add(after), event);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace(format!("{{\"at\":{},{}}}", self.now, line()));
        }
    }

    /// Plans what a host does next.
    fn plan(&mut self, host: usize) {
        self.hosts[host].plan(self.now);
        for actor in ACTORS {
            if let Some(at) = self.hosts[host].take_wake(actor) {
                self.agenda.add(at, Event::Act { host, actor });
            }
        }
    }

    fn act(&mut self, number: usize, actor: Actor) -> Result<(), String> {
        let now = self.now;
        let host = &mut self.hosts[number];
        if host.wake[actor as usize] != now {
            return Ok(());
        }
        if host.held_until(actor) > now {
            host.wake[actor as usize] = u64::MAX;
            host.call(actor, now);
            self.plan(number);
            return Ok(());
        }
        self.hasher.write_usize(number * ACTORS.len() + actor as usize);
        if actor == Actor::Fetcher {
            self.coverage.count("a fetch from the log");
        }
        let act = self.hosts[number].act(actor, now);
        self.take_met(number);
        if actor == Actor::Driver {
            self.observe(number)?;
        }
        if let Some(violation) = self.ledger.look().take_violation() {
            return Err(violation);
        }
        self.carry()?;
        // A cut is followed by a start.
        if self.is_audited && !matches!(act, Act::CutOff(_)) {
            self.compare_news(number)?;
        }
        match act {
            Act::GoesOn => self.plan(number),
            Act::Ended => self.ended(number)?,
            Act::CutOff(cut) => {
                self.coverage.count(match (cut.keeps, actor) {
                    (None, _) => "kill inside a job",
                    (_, Actor::Keeper) => "power cut inside a job of the keeper",
                    _ => "power cut inside a job",
                });
                self.cut_off(number, cut);
            }
        }
        Ok(())
    }

    fn observe(&mut self, number: usize) -> Result<(), String> {
        let host = &self.hosts[number];
        let (id, core) = (host.id, host.steps.as_ref().and_then(|steps| steps.core()));
        if host.standing == Standing::Wiped && core.is_some() {
            return Err(format!(
                "node {id} takes part with another disk than the one that was admitted"
            ));
        }
        let news = self.checks.observe(host)?;
        for _ in 0..news.commits {
            if self.random.chance(5) {
                let any = pick(&mut self.random, self.hosts.len());
                self.compare_disk(any)?;
            }
        }
        for event in self.hosts[number].take_events() {
            let what = match event {
                kontiki::Event::SnapshotNeeded { .. } => "a snapshot is needed",
                kontiki::Event::SnapshotRefused { .. } => "a snapshot is refused",
                kontiki::Event::SnapshotDamaged { .. } => "a rotten snapshot is noticed",
                kontiki::Event::SnapshotFailed { .. } => "a snapshot cannot be taken",
                _ => continue,
            };
            self.coverage.count(what);
        }
        if news.leads {
            self.coverage.count("a leader is elected");
        }
        if news.truncated {
            self.coverage.count("a durable suffix is cut off");
        }
        if self.trace.is_some()
            && let Some(core) = self.hosts[number].steps.as_ref().and_then(|steps| steps.core())
        {
            let status = core.status();
            let vote = self.checks.vote(id, status.term.0);
            self.note(|| {
                let kontiki_core::Status { role, term, committed, durable, last, .. } = status;
                format!(
                    "\"node\":{id},\"event\":\"turn\",\"role\":\"{role:?}\",\"term\":{term},\"vote\":{vote},\
                     \"commit\":{committed},\"durable\":{durable},\"last\":{}",
                    last.index
                )
            });
        }
        Ok(())
    }

    /// What the log of a process that ends has done with its files.
    fn count_segments(&mut self, number: usize) {
        let Some(steps) = &self.hosts[number].steps else { return };
        let statistics = steps.wal().statistics();
        self.coverage.add_to("a rotation", statistics.rotations);
        self.coverage.add_to("a segment is used again", statistics.recycled_segments);
    }

    /// Whatever a node has called durable is on its disk.
    fn audit(&mut self) -> Result<(), String> {
        (0..self.hosts.len()).try_for_each(|host| self.compare_disk(host))?;
        self.queue(AUDIT, Event::Audit);
        Ok(())
    }

    /// Looks at the disk of a node if it, or what the node claims, is not as it was when that was done last.
    fn compare_news(&mut self, number: usize) -> Result<(), String> {
        let host = &self.hosts[number];
        let now = (host.life, host.disk.operations(), self.checks.claims(host.id));
        if std::mem::replace(&mut self.audited[number], now) == now {
            return Ok(());
        }
        self.coverage.count("a look at a disk behind a step");
        self.compare_disk(number)
    }

    fn compare_disk(&self, number: usize) -> Result<(), String> {
        let host = &self.hosts[number];
        let can_tell = host.is_sound() && !host.is_doubtful();
        if can_tell { self.checks.compare_disk(host) } else { Ok(()) }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a text".to_owned())
}

/// Between two looks at all disks.
const AUDIT: u64 = 500 * MS;
/// A world that takes more steps does not come to an end.
const EVENTS_MAX: u64 = 5_000_000;
/// One world in so many is audited: that takes ten times as long as all the rest.
const AUDITED: u64 = 8;
