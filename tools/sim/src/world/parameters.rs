//! What a seed makes of a world: everything is drawn anew for each (swarm testing; Groce and others, 2012).

use std::time::Duration;

use kontiki::Options;

use crate::{
    random::Random,
    world::faults::{self, Planned},
};

/// A microsecond and a millisecond, in the nanoseconds of a world.
pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000 * US;

/// All that is drawn before a world begins.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Decides everything.
    pub seed: u64,
    /// Voters, numbered from 1.
    pub nodes: u64,
    /// Nodes whose disks may lie, rot or be wiped: a minority.
    pub sick: Vec<u64>,
    /// The state machine of every node keeps a disk of its own.
    pub keeps_itself: bool,
    /// In so many of a hundred starts the power goes, while the storm lasts.
    pub start_cuts: u64,
    /// In so many of a hundred a sync fails.
    pub start_failures: u64,
    /// Options of every node.
    pub options: Options,
    /// How the network treats messages while nothing is wrong with it.
    pub network: Rules,
    /// How long a group takes to be written and synced, from and to, in nanoseconds.
    pub sync: (u64, u64),
    /// Longest time that a read of the log takes, in nanoseconds.
    pub read_max: u64,
    /// Longest time until the thread of the images takes its next job, in nanoseconds, while the disk is not slow.
    pub keep_max: u64,
    /// How much faster or slower each node's clock runs, in millionths.
    pub drift: Vec<i64>,
    /// Clients, and how many operations they do together.
    pub clients: u64,
    /// Operations of all clients together, before all is well.
    pub operations: u64,
    /// Registers.
    pub keys: u64,
    /// Of a hundred operations: linearizable reads, reads of whatever is applied, swaps; the rest are writes.
    pub mix: [u64; 3],
    /// Longest time that a client waits before its next operation.
    pub think: u64,
    /// Few faults, and operations as long as there are any, so that leaders lead, and are deposed; whoever has written then
    /// reads the same on a node that still believes it leads.
    pub is_sparse: bool,
    /// Faults so far apart that there is a leader most of the time, and some that strike whoever leads by then.
    pub is_aimed: bool,
    /// Bytes that fill each command.
    pub filler: usize,
    /// What goes wrong, and when.
    pub faults: Vec<Planned>,
}

/// How messages travel.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Shortest and longest time on the way.
    pub delay: (u64, u64),
    /// Of a hundred messages so many are lost,
    pub loss: u64,
    /// of those of the protocol so many come twice,
    pub repeats: u64,
    /// and so many overtake others.
    pub overtakes: u64,
}

impl Rules {
    /// A network in which nothing goes wrong.
    pub const CALM: Self = Self { delay: (50 * US, 500 * US), loss: 0, repeats: 0, overtakes: 0 };
}

impl Parameters {
    /// Those of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x7061_7261_6d65_7465);
        let nodes = [3, 3, 3, 3, 5, 5, 1, 2, 4, 6, 7][pick(&mut random, 11)];
        let sick_count = random.below((nodes - 1) / 2 + 1);
        let mut ids: Vec<u64> = (1..=nodes).collect();
        let sick = (0..sick_count).map(|_| ids.swap_remove(pick(&mut random, ids.len()))).collect();
        let options = draw_options(&mut random);
        let network = draw_rules(&mut random);
        let sync_least = random.between(20, 500) * US;
        let sync = (sync_least, sync_least + random.between(0, 5) * MS);
        let drift_most = [0, 0, 1_000, 20_000][pick(&mut random, 4)];
        let drift = (0..nodes).map(|_| signed(&mut random, drift_most)).collect();
        let operations = random.between(200, 1_000);
        let clients = random.between(2, 24);
        let think = random.between(1, 30) * MS;
        let mut parameters = Self {
            seed,
            nodes,
            sick,
            network,
            sync,
            drift,
            clients,
            operations,
            keys: random.between(1, 6),
            mix: [random.between(5, 40), random.below(10), random.between(0, 30)],
            think,
            filler: filler(&mut random, options.command_bytes_max),
            // Of its own, so that what is drawn besides stays as it was.
            keeps_itself: Random::new(seed ^ 0x6b65_6570).chance(25),
            is_sparse: Random::new(seed ^ 0x0062_6574_7765_656e).chance(20),
            is_aimed: false,
            // Of its own as well. A slow one meets a log that was compacted, or cut off, in the meantime.
            read_max: [MS, MS, MS, 40 * MS][pick(&mut Random::new(seed ^ 0x7265_6164), 4)],
            keep_max: [3 * MS, 3 * MS, 40 * MS][pick(&mut Random::new(seed ^ 0x6b65_6570_0091), 3)],
            start_cuts: [0, 0, 10, 40][pick(&mut Random::new(seed ^ 0x7374_6172), 4)],
            start_failures: [0, 0, 0, 30][pick(&mut Random::new(seed ^ 0x6661_696c), 4)],
            options,
            faults: Vec::new(),
        };
        let mut storm = (operations * think / clients / 2).clamp(2_000 * MS, 20_000 * MS);
        let mut spacing = Random::new(seed ^ SPACING);
        let is_dense = spacing.chance(12);
        parameters.is_aimed = !parameters.is_sparse && !is_dense;
        if parameters.is_aimed {
            // Time to elect somebody between most of them, and to serve.
            let patience = parameters.options.election_timeout_max.as_nanos() / 2;
            let patience = u64::try_from(patience).expect("a few seconds");
            storm = FAULTS_MEAN * (spacing.between(400, 1_000) * MS + patience);
            parameters.think = think.max(storm * clients / operations);
        }
        if parameters.is_sparse {
            // More of them come to their end there.
            parameters.operations /= 2;
            parameters.think = think.max(2 * storm * clients / parameters.operations);
        }
        parameters.faults = faults::draw(&parameters, storm);
        draw_snapshots(&mut parameters);
        parameters
    }

    /// A majority of the nodes.
    pub fn majority(&self) -> usize {
        usize::try_from(self.nodes / 2 + 1).expect("a few")
    }
}

fn draw_options(random: &mut Random) -> Options {
    let ms = Duration::from_millis;
    let mut options = Options::default();
    let heartbeat = random.between(10, 100);
    options.heartbeat = ms(heartbeat);
    options.election_timeout_min = ms(heartbeat * random.between(3, 8));
    options.election_timeout_max = options.election_timeout_min * 2;
    options.disk_stall = ms(random.between(300, 2000));
    options.follower_stall = options.election_timeout_max;
    options.proposal_timeout = ms(random.between(500, 5000));
    options.segment_bytes = if random.chance(70) { 32 << 10 } else { 64 << 10 };
    options.command_bytes_max = 4 << 10;
    options.proposal_bytes_max = 64 << 10;
    options.proposals_max = [2, 16, 256][pick(random, 3)];
    options.reads_max = [1, 16, 256][pick(random, 3)];
    options.turn_bytes_max = [0, 1 << 10, 64 << 10][pick(random, 3)];
    options.append_bytes_max = [1, 2 << 10, 64 << 10][pick(random, 3)];
    options.inflight_messages_max = [1, 2, 16][pick(random, 3)];
    options.inflight_bytes_max = [1, 8 << 10, 64 << 10][pick(random, 3)];
    options.tail_bytes_max = [1, 2 << 10, 64 << 10][pick(random, 3)];
    options.fetch_bytes_max = [1, 2 << 10, 64 << 10][pick(random, 3)];
    options.unsynced_bytes_max = [8 << 10, 1 << 20][pick(random, 2)];
    options.events_max = 4;
    options
}

/// Snapshots every 5 to 200 entries, or none. Drawn by itself.
fn draw_snapshots(parameters: &mut Parameters) {
    let mut random = Random::new(parameters.seed ^ 0x0073_6e61_7073_686f);
    let options = &mut parameters.options;
    options.snapshot_log_bytes_min = if random.chance(75) {
        random.between(5, 200) * (parameters.filler as u64 + 32)
    } else {
        u64::MAX
    };
    options.snapshot_ratio = random.below(5);
    // Of its own: one image is hardly visible when the next is due.
    if options.snapshot_log_bytes_min < u64::MAX && Random::new(parameters.seed ^ OFTEN).chance(25)
    {
        options.snapshot_log_bytes_min = 5 * (parameters.filler as u64 + 32);
        options.snapshot_ratio = 0;
    }
    options.snapshot_piece_bytes = [20, 100, 1 << 10][pick(&mut random, 3)];
    // Of its own, so that what is drawn besides stays as it was. No slower than two pieces in an election timeout.
    let pieces = Random::new(parameters.seed ^ 0x7261_7465).between(4, 40);
    let piece_bytes = options.snapshot_piece_bytes as u64;
    let patience = u64::try_from(options.election_timeout_max.as_millis()).expect("a few seconds");
    let least = 1_000 / patience.max(1) + 1;
    options.snapshot_rate_max = if pieces > 30 { u64::MAX } else { piece_bytes * pieces * least };
    options.trailing_entries = [0, 3, 50][pick(&mut random, 3)];
}

const OFTEN: u64 = 0x6f66_7465_6e0f;

fn draw_rules(random: &mut Random) -> Rules {
    let least = random.between(20, 2_000) * US;
    let share =
        |random: &mut Random, most: u64| if random.chance(50) { 0 } else { random.below(most + 1) };
    Rules {
        delay: (least, least + random.between(0, 10) * MS),
        loss: if random.chance(60) { 0 } else { random.below(31) },
        repeats: share(random, 20),
        overtakes: share(random, 30),
    }
}

/// So that a world fills some segments.
fn filler(random: &mut Random, command_bytes_max: usize) -> usize {
    let most = command_bytes_max - 64;
    [100, 600, 1_500, most][pick(random, 4)].min(most)
}

fn signed(random: &mut Random, most: u64) -> i64 {
    let drawn = i64::try_from(random.below(2 * most + 1)).expect("small");
    drawn - i64::try_from(most).expect("small")
}

/// Of which it is drawn how far faults are apart: one that leaves the worlds of `tests/seeds.txt` what they were.
const SPACING: u64 = 0x00d4_86d3;
/// So many faults has a world, about.
const FAULTS_MEAN: u64 = 30;

/// A number below `count`.
pub(crate) fn pick(random: &mut Random, count: usize) -> usize {
    usize::try_from(random.below(count as u64)).expect("below a usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sick_are_a_minority_and_seeds_differ() {
        let drawn: Vec<Parameters> = (0..300).map(Parameters::draw).collect();
        for parameters in &drawn {
            assert!(
                parameters.sick.len() + parameters.majority()
                    <= usize::try_from(parameters.nodes).unwrap()
            );
            assert_eq!(parameters.drift.len() as u64, parameters.nodes);
        }
        assert!(drawn.iter().any(|parameters| !parameters.sick.is_empty()));
        for nodes in 1..=7 {
            assert!(drawn.iter().any(|parameters| parameters.nodes == nodes), "{nodes} nodes");
        }
    }
}
