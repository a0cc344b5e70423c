//! What goes wrong in a world: planned before it begins, so that each fault can be left out and the rest stays the same.

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
    /// A process does not run for a while.
    Pause { node: u64, time: u64 },
    /// Messages get through from nobody of the first to any of the second, for a while.
    Partition { links: Vec<(u64, u64)>, time: u64 },
    /// Messages of one node to another take longer, for a while.
    Clog { from: u64, to: u64, delay: u64, time: u64 },
    /// A later sync of a node's disk fails: as ext4's does, or as btrfs's, which takes back what was written.
    SyncFails { node: u64, nth: u64, takes_back: bool },
    /// A later write fails.
    WriteFails { node: u64, nth: u64 },
    /// There is no space for a new file, for a while.
    DiskFull { node: u64, time: u64 },
    /// Each group takes so much longer, for a while.
    SlowDisk { node: u64, delay: u64, time: u64 },
    /// Nothing comes back from a disk for a while.
    HungDisk { node: u64, time: u64 },
    /// A node's clock goes forward.
    ClockJump { node: u64, by: u64 },
    /// A bit of an older segment flips, of a sick disk.
    Rot { node: u64, draw: u64 },
    /// A sync of a sick disk does nothing and says it did; after a while the power goes.
    Lie { node: u64, time: u64, down: u64 },
    /// A sync of a sick disk writes everything so many sectors beside its place and says it did not; after a while the power goes.
    Misdirect { node: u64, sectors: i64, time: u64, down: u64 },
    /// A sick disk is exchanged for an empty one.
    Wipe { node: u64, down: u64 },
}

impl Fault {
    /// The kind, as coverage counts it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::PowerCut { .. } => "power cut",
            Self::Kill { .. } => "kill",
            Self::CutInside { .. } => "power cut inside a job",
            Self::Pause { .. } => "pause",
            Self::Partition { .. } => "partition",
            Self::Clog { .. } => "clog",
            Self::SyncFails { takes_back: false, .. } => "sync fails",
            Self::SyncFails { takes_back: true, .. } => "sync fails and takes back",
            Self::WriteFails { .. } => "write fails",
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
const KINDS: [(Kind, u64); 15] = [
    (Kind::PowerCut, 6),
    (Kind::Kill, 3),
    (Kind::CutInside, 6),
    (Kind::Pause, 3),
    (Kind::Partition, 6),
    (Kind::Clog, 3),
    (Kind::SyncFails, 2),
    (Kind::WriteFails, 1),
    (Kind::DiskFull, 2),
    (Kind::SlowDisk, 2),
    (Kind::HungDisk, 1),
    (Kind::ClockJump, 1),
    (Kind::Rot, 2),
    (Kind::Lie, 1),
    (Kind::Misdirect, 1),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    PowerCut,
    Kill,
    CutInside,
    Pause,
    Partition,
    Clog,
    SyncFails,
    WriteFails,
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
    let on: Vec<(Kind, u64)> = KINDS
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
            Planned { at, fault: draw_one(kind, parameters, &mut random) }
        })
        .collect();
    // One at most: the disk that comes after it is never let in.
    if !parameters.sick.is_empty() && random.chance(25) {
        let node = parameters.sick[pick(&mut random, parameters.sick.len())];
        let fault = Fault::Wipe { node, down: random.between(1, 500) * MS };
        planned.push(Planned { at: random.between(storm / 2, storm), fault });
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn fits(kind: Kind, parameters: &Parameters) -> bool {
    match kind {
        Kind::Rot | Kind::Lie | Kind::Misdirect => !parameters.sick.is_empty(),
        Kind::Partition | Kind::Clog => parameters.nodes > 1,
        _ => true,
    }
}

fn draw_one(kind: Kind, parameters: &Parameters, random: &mut Random) -> Fault {
    let node = random.between(1, parameters.nodes);
    let sick = parameters.sick.first().copied().unwrap_or(node);
    let time = random.between(20, 2_000) * MS;
    let down = random.between(1, 1_500) * MS;
    let keeps = [0, 30, 50, 90, 100][pick(random, 5)];
    match kind {
        Kind::PowerCut => Fault::PowerCut { node, keeps, down },
        Kind::Kill => Fault::Kill { node, down },
        Kind::CutInside => Fault::CutInside { node, operations: random.below(5), keeps, down },
        Kind::Pause => Fault::Pause { node, time },
        Kind::Partition => Fault::Partition { links: links(parameters.nodes, random), time },
        Kind::Clog => {
            let to = 1 + (node + random.below(parameters.nodes - 1)) % parameters.nodes;
            Fault::Clog { from: node, to, delay: random.between(1, 300) * MS, time }
        }
        Kind::SyncFails => {
            let (nth, takes_back) = (random.between(1, 20), random.chance(50));
            Fault::SyncFails { node, nth, takes_back }
        }
        Kind::WriteFails => Fault::WriteFails { node, nth: random.between(1, 20) },
        Kind::DiskFull => Fault::DiskFull { node, time },
        Kind::SlowDisk => Fault::SlowDisk { node, delay: random.between(1, 1_000) * MS, time },
        Kind::HungDisk => Fault::HungDisk { node, time: random.between(500, 8_000) * MS },
        Kind::ClockJump => Fault::ClockJump { node, by: random.between(1, 2_000) * MS },
        Kind::Rot => Fault::Rot { node: sick, draw: random.draw() },
        Kind::Lie => Fault::Lie { node: sick, time: random.between(1, 300) * MS, down },
        Kind::Misdirect => {
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
        assert_eq!(seen.len(), 17, "{seen:?}");
    }
}
