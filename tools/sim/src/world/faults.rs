//! What goes wrong in a world: planned before it begins, so that each fault can be left out and the rest stays the same.

use kontiki_disk::memory::Kind;

use crate::{
    random::Random,
    world::parameters::{MS, Parameters, pick},
};

/// Something that goes wrong at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When.
    pub at: u64,
    /// What.
    pub fault: Fault,
    /// It strikes whoever leads by then, if somebody does.
    pub is_aimed: bool,
}

/// What can go wrong. Times are in nanoseconds, nodes numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "what each is says what its numbers are")]
pub enum Fault {
    /// The power of a node goes, and of what was not synced so many of a hundred sectors and names are kept; it comes back.
    PowerCut { node: u64, keeps: u64, down: u64 },
    /// A process is killed; what it wrote stays in the cache. It comes back.
    Kill { node: u64, down: u64 },
    /// As `PowerCut`, inside the next job of the disk, behind so many operations of it.
    CutInside { node: u64, operations: u64, keeps: u64, down: u64 },
    /// As `Kill`, inside the next job of the disk, behind so many operations of it.
    KillInside { node: u64, operations: u64, down: u64 },
    /// As `CutInside`, inside the next job of the keeper of images.
    CutInKeeper { node: u64, operations: u64, keeps: u64, down: u64 },
    /// A process is stopped as an operator would. It comes back.
    Stop { node: u64, down: u64 },
    /// A process does not run for a while.
    Pause { node: u64, time: u64 },
    /// Messages get through from nobody of the first to any of the second, for a while.
    Partition { links: Vec<(u64, u64)>, time: u64 },
    /// Messages of one node to another take longer, for a while.
    Clog { from: u64, to: u64, delay: u64, time: u64 },
    /// The queue of one node to another is full, for a while: nothing is taken.
    FullQueue { from: u64, to: u64, time: u64 },
    /// A later sync of a node's disk fails: as ext4's does, or as btrfs's, which takes back what was written.
    SyncFails { node: u64, nth: u64, takes_back: bool },
    /// A later write fails.
    WriteFails { node: u64, nth: u64 },
    /// A later change of a name fails, or the sync of the names.
    NameFails { node: u64, kind: Kind, nth: u64 },
    /// There is no space for a new file, for a while.
    DiskFull { node: u64, time: u64 },
    /// Each group takes so much longer, for a while.
    SlowDisk { node: u64, delay: u64, time: u64 },
    /// Nothing that a node writes or syncs comes back for a while.
    HungDisk { node: u64, time: u64 },
    /// A node's clock goes forward.
    ClockJump { node: u64, by: u64 },
    /// A bit of an older segment flips, of a sick disk.
    Rot { node: u64, draw: u64 },
    /// A sync of a sick disk, of a file or of the names, does nothing and says it did; after a while the power goes.
    Lie { node: u64, of_names: bool, time: u64, down: u64 },
    /// A sync of a sick disk writes everything so many sectors beside its place and says it did not; after a while the power goes.
    Misdirect { node: u64, sectors: i64, time: u64, down: u64 },
    /// A sick disk is exchanged for an empty one.
    Wipe { node: u64, down: u64 },
}

impl Planned {
    fn new(at: u64, fault: Fault) -> Self {
        Self { at, fault, is_aimed: false }
    }
}

impl Fault {
    /// Some become others that are near them.
    fn vary(&mut self, random: &mut Random) {
        let drawn = random.below(100);
        match *self {
            Self::Kill { node, down } if drawn < 50 => *self = Self::Stop { node, down },
            Self::CutInside { node, operations, down, .. } if drawn < 30 => {
                *self = Self::KillInside { node, operations, down };
            }
            Self::CutInside { node, operations, keeps, down } if drawn < 60 => {
                *self = Self::CutInKeeper { node, operations, keeps, down };
            }
            Self::Clog { from, to, time, .. } if drawn < 30 => {
                *self = Self::FullQueue { from, to, time };
            }
            _ => {}
        }
    }

    /// The same for `leader` instead of the node that was drawn. Sick disks stay the ones they are.
    pub(super) fn aim(&mut self, leader: u64) {
        match self {
            Self::PowerCut { node, .. }
            | Self::Kill { node, .. }
            | Self::CutInside { node, .. }
            | Self::KillInside { node, .. }
            | Self::CutInKeeper { node, .. }
            | Self::Stop { node, .. }
            | Self::Pause { node, .. }
            | Self::SyncFails { node, .. }
            | Self::WriteFails { node, .. }
            | Self::NameFails { node, .. }
            | Self::DiskFull { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::HungDisk { node, .. }
            | Self::ClockJump { node, .. } => *node = leader,
            Self::Partition { links, .. } => {
                let count = |node| links.iter().filter(|&&(a, b)| a == node || b == node).count();
                let ends = links.iter().map(|&(a, _)| a);
                let Some(first) = ends.max_by_key(|&node| count(node)) else { return };
                let swap = |node: &mut u64| match *node {
                    one if one == first => *node = leader,
                    one if one == leader => *node = first,
                    _ => {}
                };
                links.iter_mut().for_each(|(a, b)| {
                    swap(a);
                    swap(b);
                });
            }
            Self::Clog { from, to, .. } | Self::FullQueue { from, to, .. } => {
                if *to == leader {
                    *to = *from;
                }
                *from = leader;
            }
            Self::Rot { .. } | Self::Lie { .. } | Self::Misdirect { .. } | Self::Wipe { .. } => {}
        }
    }

    /// The kind, as coverage counts it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PowerCut { .. } => "power cut",
            Self::Kill { .. } => "kill",
            Self::CutInside { .. } => "power cut inside a job",
            Self::KillInside { .. } => "kill inside a job",
            Self::CutInKeeper { .. } => "power cut inside a job of the keeper",
            Self::Stop { .. } => "stop",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::Clog { .. } => "clog",
            Self::FullQueue { .. } => "full queue",
            Self::SyncFails { takes_back: false, .. } => "sync fails",
            Self::SyncFails { takes_back: true, .. } => "sync fails and takes back",
            Self::WriteFails { .. } => "write fails",
            Self::NameFails { kind: Kind::Create, .. } => "a create fails",
            Self::NameFails { kind: Kind::Rename, .. } => "a rename fails",
            Self::NameFails { kind: Kind::Remove, .. } => "a removal fails",
            Self::NameFails { .. } => "a sync of names fails",
            Self::DiskFull { .. } => "disk full",
            Self::SlowDisk { .. } => "slow disk",
            Self::HungDisk { .. } => "hung disk",
            Self::ClockJump { .. } => "clock jump",
            Self::Rot { .. } => "rot",
            Self::Lie { .. } => "lie",
            Self::Misdirect { .. } => "misdirected write",
            Self::Wipe { .. } => "wipe",
        }
    }
}

/// Kinds of faults, each with how often it is drawn where it is on.
const KINDS: [(Drawn, u64); 16] = [
    (Drawn::PowerCut, 6),
    (Drawn::Kill, 3),
    (Drawn::CutInside, 6),
    (Drawn::Pause, 3),
    (Drawn::Partition, 6),
    (Drawn::Clog, 3),
    (Drawn::SyncFails, 2),
    (Drawn::WriteFails, 1),
    (Drawn::NameFails, 1),
    (Drawn::DiskFull, 2),
    (Drawn::SlowDisk, 2),
    (Drawn::HungDisk, 1),
    (Drawn::ClockJump, 1),
    (Drawn::Rot, 2),
    (Drawn::Lie, 1),
    (Drawn::Misdirect, 1),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drawn {
    PowerCut,
    Kill,
    CutInside,
    Pause,
    Partition,
    Clog,
    SyncFails,
    WriteFails,
    NameFails,
    DiskFull,
    SlowDisk,
    HungDisk,
    ClockJump,
    Rot,
    Lie,
    Misdirect,
}

/// The faults of a world that storms for about so long, in their order.
pub(super) fn draw(parameters: &Parameters, storm: u64) -> Vec<Planned> {
    let mut random = Random::new(parameters.seed ^ 0x6661_756c_7473);
    let on: Vec<(Drawn, u64)> = KINDS
        .into_iter()
        .filter(|(kind, _)| random.chance(60) && fits(*kind, parameters))
        .collect();
    let weight: u64 = on.iter().map(|(_, weight)| weight).sum();
    let count = if weight == 0 { 0 } else { random.between(20, 40) };
    let mut planned: Vec<Planned> = (0..count)
        .map(|_| {
            let mut place = random.below(weight);
            let drawn = on.iter().find(|(_, weight)| {
                let is_here = place < *weight;
                place = place.saturating_sub(*weight);
                is_here
            });
            let kind = drawn.expect("below the sum").0;
            let at = random.between(50 * MS, storm);
            Planned::new(at, draw_one(kind, parameters, &mut random))
        })
        .collect();
    // One at most: the disk that comes after it is never let in.
    if !parameters.sick.is_empty() && random.chance(25) {
        let node = parameters.sick[pick(&mut random, parameters.sick.len())];
        let fault = Fault::Wipe { node, down: random.between(1, 500) * MS };
        planned.push(Planned::new(random.between(storm / 2, storm), fault));
    }
    if parameters.is_aimed {
        let mut random = Random::new(parameters.seed ^ 0x0061_696d_6564);
        for planned in &mut planned {
            planned.fault.vary(&mut random);
            // Whom nobody hears any more goes on writing what others overrule.
            let cuts_off = matches!(planned.fault, Fault::Partition { .. });
            planned.is_aimed = random.chance(if cuts_off { 80 } else { 40 });
        }
    }
    if parameters.is_sparse {
        let mut random = Random::new(parameters.seed ^ 0x7468_696e);
        planned.retain(|_| random.chance(15));
        planned.extend(draw_deaf(parameters, storm, &mut random));
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

/// Nodes that hear late, and whom then nobody hears for a while: a leader that is one believes it leads when another one has long
/// been elected.
fn draw_deaf(parameters: &Parameters, storm: u64, random: &mut Random) -> Vec<Planned> {
    let mut planned = Vec::new();
    let patience = parameters.options.election_timeout_min.as_nanos();
    let patience = u64::try_from(patience).expect("a few seconds");
    let count = if parameters.nodes < 3 { 0 } else { random.between(1, 6) };
    for _ in 0..count {
        let (at, node) = (random.between(50 * MS, storm), random.between(1, parameters.nodes));
        let others = || (1..=parameters.nodes).filter(|&other| other != node);
        // Later than that, and it gives up before it hears anything.
        let delay = random.between(patience / 4, patience * 3 / 4);
        let late =
            others().map(|from| Fault::Clog { from, to: node, delay, time: delay + 3 * patience });
        planned.extend(late.map(|fault| Planned::new(at, fault)));
        let links = others().map(|other| (node, other)).collect();
        let fault = Fault::Partition { links, time: 3 * patience };
        planned.push(Planned::new(at + delay, fault));
    }
    planned
}

fn fits(kind: Drawn, parameters: &Parameters) -> bool {
    match kind {
        Drawn::Rot | Drawn::Lie | Drawn::Misdirect => !parameters.sick.is_empty(),
        Drawn::Partition | Drawn::Clog => parameters.nodes > 1,
        _ => true,
    }
}

fn draw_one(kind: Drawn, parameters: &Parameters, random: &mut Random) -> Fault {
    let node = random.between(1, parameters.nodes);
    let sick = match parameters.sick.len() {
        0 => node,
        count => parameters.sick[pick(random, count)],
    };
    let time = random.between(20, 2_000) * MS;
    let down = random.between(1, 1_500) * MS;
    let keeps = [0, 30, 50, 90, 100][pick(random, 5)];
    match kind {
        Drawn::PowerCut => Fault::PowerCut { node, keeps, down },
        Drawn::Kill => Fault::Kill { node, down },
        Drawn::CutInside => Fault::CutInside { node, operations: random.below(5), keeps, down },
        Drawn::Pause => Fault::Pause { node, time },
        Drawn::Partition => Fault::Partition { links: links(parameters.nodes, random), time },
        Drawn::Clog => {
            let to = 1 + (node + random.below(parameters.nodes - 1)) % parameters.nodes;
            Fault::Clog { from: node, to, delay: random.between(1, 300) * MS, time }
        }
        Drawn::SyncFails => {
            let (nth, takes_back) = (random.between(1, 20), random.chance(50));
            Fault::SyncFails { node, nth, takes_back }
        }
        Drawn::WriteFails => Fault::WriteFails { node, nth: random.between(1, 20) },
        Drawn::NameFails => {
            let kind = [Kind::Create, Kind::Rename, Kind::Remove, Kind::SyncDirectory];
            Fault::NameFails { node, kind: kind[pick(random, 4)], nth: random.between(1, 5) }
        }
        Drawn::DiskFull => Fault::DiskFull { node, time },
        Drawn::SlowDisk => Fault::SlowDisk { node, delay: random.between(1, 1_000) * MS, time },
        Drawn::HungDisk => Fault::HungDisk { node, time: random.between(500, 8_000) * MS },
        Drawn::ClockJump => Fault::ClockJump { node, by: random.between(1, 2_000) * MS },
        Drawn::Rot => Fault::Rot { node: sick, draw: random.draw() },
        Drawn::Lie => {
            let (of_names, time) = (random.chance(25), random.between(1, 300) * MS);
            Fault::Lie { node: sick, of_names, time, down }
        }
        Drawn::Misdirect => {
            let sectors = [-64, -8, -1, 1, 8, 64][pick(random, 6)];
            Fault::Misdirect { node: sick, sectors, time: random.between(1, 300) * MS, down }
        }
    }
}

/// Which messages a partition stops: of some nodes to the others and back, of one to all, one way, or of any pairs.
fn links(nodes: u64, random: &mut Random) -> Vec<(u64, u64)> {
    let all = || (1..=nodes).flat_map(move |a| (1..=nodes).map(move |b| (a, b)));
    let all = all().filter(|(a, b)| a != b);
    let one = random.between(1, nodes);
    match random.below(5) {
        // One alone.
        0 => all.filter(|&(a, b)| a == one || b == one).collect(),
        // One hears and is not heard, or the other way round.
        1 => all.filter(|&(a, _)| a == one).collect(),
        2 => all.filter(|&(_, b)| b == one).collect(),
        // Two halves, with one that both reach where there are enough.
        3 => {
            let half = random.between(1, nodes - 1);
            let bridge = if nodes > 2 && random.chance(50) { one } else { 0 };
            all.filter(|&(a, b)| (a <= half) != (b <= half) && a != bridge && b != bridge).collect()
        }
        _ => all.filter(|_| random.chance(40)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_drawn_for_some_seed_and_those_of_sick_disks_for_sick_ones_only() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let parameters = Parameters::draw(seed);
            for planned in &parameters.faults {
                seen.insert(planned.fault.name());
                if let Fault::Rot { node, .. }
                | Fault::Lie { node, .. }
                | Fault::Misdirect { node, .. }
                | Fault::Wipe { node, .. } = planned.fault
                {
                    assert!(parameters.sick.contains(&node));
                }
                if let Fault::Clog { from, to, .. } = planned.fault {
                    assert!(from != to && to <= parameters.nodes);
                }
            }
        }
        assert_eq!(seen.len(), 25, "{seen:?}");
    }
}
