//! Every power cut of a node that takes images of its state machine and drops what they contain from its log: what is started
//! anew has all that was acknowledged, and nothing that was not proposed.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    io::{self, Read, Write},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use kontiki::{
    ApplyContext, Loopback, Node, Options, Proposal, SnapshotWriter, StateMachine, steps::Steps,
};
use kontiki_core::Instant;
use kontiki_disk::{MemoryDisk, memory::Cut};
use kontiki_sim::matrix::Choice;
use kontiki_wal::LogId;

/// The numbers of the commands, in their order.
#[derive(Clone, Default)]
struct Numbers(Vec<u64>);

impl StateMachine for Numbers {
    fn apply(&mut self, _: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        self.0.push(u64::from_le_bytes(*command.first_chunk().expect("a number")));
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Ok(Box::new(self.clone()))
    }

    fn restore(&mut self, image: &mut dyn Read) -> io::Result<()> {
        let mut bytes = Vec::new();
        image.read_to_end(&mut bytes)?;
        let (numbers, rest) = bytes.as_chunks();
        assert_eq!(rest, []);
        self.0 = numbers.iter().map(|number| u64::from_le_bytes(*number)).collect();
        Ok(())
    }
}

impl SnapshotWriter for Numbers {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        self.0.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
    }
}

/// A place where the power may go: the disk, and what was proposed and acknowledged by then.
struct Place {
    cut: Cut,
    acknowledged: u64,
    proposed: u64,
}

/// A node by itself, led through its steps.
struct Driven {
    steps: Steps<Numbers>,
    disk: MemoryDisk,
    now: u64,
    open: Vec<Proposal>,
    places: Vec<Place>,
    acknowledged: u64,
    proposed: u64,
}

impl Driven {
    fn start(disk: &MemoryDisk) -> Self {
        let mut options = Options::default();
        options.segment_bytes = 32 << 10;
        options.command_bytes_max = 4 << 10;
        options.proposal_bytes_max = 64 << 10;
        options.snapshot_log_bytes_min = 8 << 10;
        options.snapshot_ratio = 1;
        options.trailing_entries = 2;
        let mut drawn = disk.fingerprint();
        let steps = Node::builder(1, "data")
            .initial_members([(1, "a:1")])
            .options(options)
            .disk(Arc::new(disk.clone()))
            .transport(Loopback::new().transport(1))
            .start_in_steps(Numbers::default(), Instant(0), move || {
                drawn += 1;
                drawn
            });
        let steps = steps.unwrap_or_else(|error| panic!("the node does not start: {error}"));
        let (open, places) = (Vec::new(), Vec::new());
        Self { steps, disk: disk.clone(), now: 0, open, places, acknowledged: 0, proposed: 0 }
    }

    /// A command of so many bytes.
    fn propose(&mut self, bytes: usize) {
        let mut command = vec![0; bytes];
        command[..8].copy_from_slice(&self.proposed.to_le_bytes());
        self.open.push(self.steps.node().propose(command));
        self.proposed += 1;
    }

    /// A millisecond: everything that is due.
    fn step(&mut self) {
        self.now += 1;
        let now = Instant(self.now * 1_000_000);
        assert!(self.steps.turn(now));
        self.collect();
        while self.steps.wal().work(Duration::from_nanos(now.0)) {}
        self.collect();
        while self.steps.has_work() {
            self.steps.apply(now);
        }
        while self.steps.has_snapshot_jobs() {
            self.steps.keep();
            self.collect();
        }
        for proposal in std::mem::take(&mut self.open) {
            match proposal.wait_timeout(Duration::ZERO) {
                Ok(applied) => {
                    applied.unwrap();
                    self.acknowledged += 1;
                }
                Err(open) => self.open.push(open),
            }
        }
    }

    /// What the disk did since the last time: nobody was answered meanwhile.
    fn collect(&mut self) {
        let (acknowledged, proposed) = (self.acknowledged, self.proposed);
        let cuts = self.disk.take_cuts().into_iter();
        self.places.extend(cuts.map(|cut| Place { cut, acknowledged, proposed }));
    }

    /// Steps until all that was proposed is applied.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.step();
            if self.open.is_empty() && self.proposed == self.acknowledged {
                return;
            }
        }
        panic!("{} of {} are applied", self.acknowledged, self.proposed);
    }
}

/// RAFT-CASE 49, RAFT-CASE 51, RAFT-CASE 59: an image is visible before the log that it contains is dropped.
#[test]
fn a_power_cut_anywhere_in_the_life_of_images_leaves_what_was_acknowledged() {
    let disk = MemoryDisk::new();
    disk.start_cuts();
    let mut life = Driven::start(&disk);
    for round in 0..40 {
        (0..3).for_each(|_| life.propose(1000 + 10 * round));
        life.step();
        if round % 2 == 0 {
            life.settle();
        }
    }
    life.settle();
    let status = life.steps.node().status();
    let log = life.steps.wal().log(LogId(1)).unwrap();
    assert!(status.snapshot.index > 60 && log.first() > 50, "{status:?}");
    let images =
        life.places.iter().filter(|place| place.cut.operation.directory.ends_with("snapshots"));
    assert!(images.count() > 10, "operations on images are cut, too");

    let (mut tried, mut with_image) = (0, 0);
    for Place { cut, acknowledged, proposed } in &life.places {
        let choices = Choice::all(cut.before.unsynced().len()).into_iter();
        for choice in choices.filter(|choice| !matches!(choice, Choice::Seeded(4..))) {
            let what = format!("cut before {}, {choice}", cut.operation);
            let mut after = Driven::start(&choice.image(&cut.before));
            after.propose(8);
            after.settle();
            let numbers = &after.steps.machine().0;
            let (ours, rest) = numbers.split_at(numbers.len() - 1);
            assert_eq!(rest, [0], "{what}");
            let count = ours.len() as u64;
            assert!(ours.iter().copied().eq(0..count), "{what}: {ours:?}");
            assert!((*acknowledged..=*proposed).contains(&count), "{what}: {count}");
            with_image += usize::from(after.steps.node().status().snapshot.index > 0);
            tried += 1;
        }
    }
    println!("{} places, {tried} disks, {with_image} with an image", life.places.len());
    assert!(tried > 1000 && with_image > 500, "{tried} disks, {with_image} with an image");
}
