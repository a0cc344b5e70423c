//! The exhaustive matrix: short sequences of steps, cut at every operation of the disk, with every subset of what a cut
//! may keep, as far as subsets can be counted.
//!
//! What is found on each disk must be what a prefix of the operations made, one with everything acknowledged; a second
//! recovery, and one that follows on a power cut in the first, must find the same; and an append must work then.
//!
//! A disk that was seen before is not tried again: that is most of them, since sequences share their beginnings.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use bytes::Bytes;
use kontiki_disk::MemoryDisk;
use kontiki_wal::OpenError;

use crate::{
    model::{Operation, World},
    sequence::{LOG, Run, Sequence},
    session::{Life, PowerCut, Session, open},
    subset::{Depth, effective, image_of, subsets},
};

/// How much was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sequences of steps.
    pub sequences: usize,
    /// Power cuts that no shorter sequence has.
    pub cuts: usize,
    /// Disks that these may leave.
    pub images: usize,
    /// Processes killed and followed by others.
    pub kills: usize,
    /// Of the disks that cuts may leave, the different ones: each was recovered with power cuts, and used on with power cuts.
    pub used_on: usize,
    /// Different disks in all, with those that a power cut in a recovery or in the append after it leaves: what was found
    /// on each was one of the things that may be.
    pub states: usize,
}

/// The checks, and what they have seen.
#[derive(Debug, Default)]
pub struct Exhaustive {
    /// What was found on each disk, by fingerprint: the digest of its world.
    seen: HashMap<u64, u64>,
    /// Fingerprints of the disks that were used on.
    checked: HashSet<u64>,
    /// How much was tried so far.
    pub tally: Tally,
}

impl Exhaustive {
    /// Checks every cut of `sequence` that no shorter sequence has. `disk` is what its start makes.
    ///
    /// # Errors
    /// The first violation, beginning with `SEQUENCE/LIFE/CUT/SUBSET`, which [`Self::replay`] checks alone.
    pub fn check(
        &mut self,
        sequence: &Sequence,
        disk: &MemoryDisk,
        depth: Depth,
    ) -> Result<(), String> {
        let place = |error| format!("{sequence}{error}");
        let run = run(sequence, disk).map_err(|error| format!("{sequence}: {error}"))?;
        self.tally.sequences += 1;
        for (number, life) in run.lives.iter().enumerate().skip(run.last_step.0) {
            let digests: Vec<u64> = life.worlds.iter().map(World::digest).collect();
            let is_first = number == run.last_step.0;
            for cut in if is_first { run.last_step.1 } else { 0 }..life.cuts.len() {
                self.check_cut(life, &digests, cut, depth)
                    .map_err(|error| place(format!("/{number}/{cut}/{error}")))?;
            }
        }
        Ok(())
    }

    /// Checks one cut of one life of a sequence that kept one subset: what [`Self::check`] said of it.
    ///
    /// # Errors
    /// What was violated, or is no such place.
    pub fn replay(place: &str) -> Result<(), String> {
        let parts: Vec<&str> = place.split('/').collect();
        let [sequence, life, cut, subset] = parts[..] else {
            return Err(format!("{place}: SEQUENCE/LIFE/CUT/SUBSET"));
        };
        let number = |text: &str| text.parse::<usize>().map_err(|error| format!("{text}: {error}"));
        let sequence: Sequence = sequence.parse()?;
        let Run { lives, .. } = run(&sequence, &sequence.start.disk())?;
        let life = lives.get(number(life)?).ok_or("no such life")?;
        let cut = life.cuts.get(number(cut)?).ok_or("no such cut")?;
        let digests: Vec<u64> = life.worlds.iter().map(World::digest).collect();
        if subset == "kill" {
            return Self::default().check_kill(&digests, cut);
        }
        let subset = u128::from_str_radix(subset, 16).map_err(|error| error.to_string())?;
        for (item, unsynced) in cut.cut.before.unsynced().iter().enumerate() {
            println!("{} {unsynced:?}", if subset >> item & 1 == 1 { "kept" } else { "lost" });
        }
        Self::default().check_subset(life, &digests, cut, subset)
    }

    fn check_cut(
        &mut self,
        life: &Life,
        digests: &[u64],
        cut: usize,
        depth: Depth,
    ) -> Result<(), String> {
        let cut = &life.cuts[cut];
        self.tally.cuts += 1;
        for subset in subsets(&effective(&cut.cut.before), depth) {
            let before = &cut.cut.operation;
            self.check_subset(life, digests, cut, subset)
                .map_err(|error| format!("{subset:x} (before {before}): {error}"))?;
        }
        if depth == Depth::Whole {
            let killed = caught(|| self.check_kill(digests, cut));
            killed.map_err(|error| format!("kill (before {}): {error}", cut.cut.operation))?;
        }
        Ok(())
    }

    /// The process is killed at a cut, the next one opens the log while the page cache lives: what that shows is durable.
    fn check_kill(&mut self, digests: &[u64], cut: &PowerCut) -> Result<(), String> {
        let disk = cut.cut.before.reopen();
        let (session, _) = Session::open(&disk).map_err(does_not_open)?;
        let digest = session.life.world().digest();
        self.tally.kills += 1;
        if !digests[cut.acknowledged..=cut.appended].contains(&digest) {
            return Err(format!("not what was acknowledged: {:#?}", session.life.world()));
        }
        self.recover_again(&disk, digest).map_err(|error| format!("shown, then lost{error}"))?;
        session.kill();
        Ok(())
    }

    fn check_subset(
        &mut self,
        life: &Life,
        digests: &[u64],
        cut: &PowerCut,
        subset: u128,
    ) -> Result<(), String> {
        let image = image_of(&cut.cut.before, subset);
        self.tally.images += 1;
        let digest = if self.checked.insert(image.fingerprint()) {
            self.tally.used_on += 1;
            caught(|| self.recover(&image))?
        } else {
            self.seen[&image.fingerprint()]
        };
        if digests[cut.acknowledged..=cut.appended].contains(&digest) {
            return Ok(());
        }
        let found = open(&image.reopen()).map(|wal| World::of(&wal));
        Err(format!(
            "no history of {} (acknowledged) to {} (appended) operations ends in what was \
             found:\n{found:#?}\nacknowledged was\n{:#?}\nand then {:?}",
            cut.acknowledged,
            cut.appended,
            life.worlds[cut.acknowledged],
            &life.operations[cut.acknowledged..cut.appended],
        ))
    }

    /// Recovers a disk, with a power cut at each operation of that and one afterwards, and appends then.
    fn recover(&mut self, image: &MemoryDisk) -> Result<u64, String> {
        let disk = image.reopen();
        let (session, opening) = Session::open(&disk).map_err(does_not_open)?;
        let digest = session.life.world().digest();
        self.saw(image, digest);
        for (number, cut) in opening.iter().enumerate() {
            self.recover_again(&cut.before, digest)
                .map_err(|error| format!("recovery cut {number} ({}){error}", cut.operation))?;
        }
        self.recover_again(&disk, digest).map_err(|error| format!("shown, then lost{error}"))?;

        self.append(session).map_err(|error| format!("the next append: {error}"))?;
        Ok(digest)
    }

    /// One append, of the lengths that [`Step::Append`](crate::sequence::Step::Append) has so that it meets what was cut,
    /// and a power cut at each operation of it.
    fn append(&mut self, mut session: Session) -> Result<(), String> {
        let model = session.life.world().log(LOG);
        let (first_index, term) = (model.last() + 1, model.last_term() + 1);
        let entries = vec![Bytes::from_static(&[0xaa; 300]), Bytes::from_static(&[0xbb; 700])];
        let append = Operation::Append { first_index, term, entries };
        session.perform(LOG, &append).map_err(|error| error.to_string())?;
        session.settle();
        if session.acknowledged() != session.appended() {
            return Err("it is never acknowledged".to_string());
        }
        let (life, disk) = session.kill();
        let digests: Vec<u64> = life.worlds.iter().map(World::digest).collect();
        if self.look(&image_of(&disk, 0))? != digests[1] {
            return Err("it was acknowledged and is not found".to_string());
        }
        for (number, PowerCut { cut, acknowledged, appended }) in life.cuts.iter().enumerate() {
            for subset in subsets(&effective(&cut.before), SECOND_DEPTH) {
                let place = || format!("cut {number} ({}), {subset:x} kept", cut.operation);
                let found = self.look(&image_of(&cut.before, subset));
                let found = found.map_err(|error| format!("{}: {error}", place()))?;
                if !digests[*acknowledged..=*appended].contains(&found) {
                    return Err(format!("{}: something else", place()));
                }
            }
        }
        Ok(())
    }

    /// Whatever a power cut leaves of `disk` must be recovered to the same world.
    fn recover_again(&mut self, disk: &MemoryDisk, digest: u64) -> Result<(), String> {
        for subset in subsets(&effective(disk), SECOND_DEPTH) {
            let found = self.look(&image_of(disk, subset));
            let found = found.map_err(|error| format!(", {subset:x} kept: {error}"))?;
            if found != digest {
                return Err(format!(", {subset:x} kept: something else than one recovery finds"));
            }
        }
        Ok(())
    }

    /// What is found on a disk.
    fn look(&mut self, image: &MemoryDisk) -> Result<u64, String> {
        if let Some(&digest) = self.seen.get(&image.fingerprint()) {
            return Ok(digest);
        }
        let disk = image.reopen();
        let wal = open(&disk).map_err(does_not_open)?;
        let digest = World::of(&wal).digest();
        // As a killed process: nothing more is written.
        disk.cut_power_after(0);
        drop(wal);
        self.saw(image, digest);
        Ok(digest)
    }

    fn saw(&mut self, image: &MemoryDisk, digest: u64) {
        let before = self.seen.insert(image.fingerprint(), digest);
        self.tally.states += usize::from(before.is_none());
    }
}

fn does_not_open(error: OpenError) -> String {
    format!("the log does not open: {error}")
}

/// A panic of the log is a violation as any other.
fn caught<T>(step: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let caught = catch_unwind(AssertUnwindSafe(step));
    caught.unwrap_or_else(|_| Err("the log panicked".to_string()))
}

fn run(sequence: &Sequence, disk: &MemoryDisk) -> Result<Run, String> {
    caught(|| sequence.run(&disk.reopen()))
}

/// Of a power cut in a recovery, and in the append after it.
const SECOND_DEPTH: Depth = Depth::Seeded(16);

#[cfg(test)]
mod tests {
    use kontiki_disk::memory::{Fault, Kind};

    use super::*;

    #[test]
    fn a_disk_that_lies_is_found_out() {
        let sequence: Sequence = "lived:append,sync,append".parse().unwrap();
        let disk = sequence.start.disk();
        let check = |disk: &MemoryDisk| {
            let Run { lives, .. } = sequence.run(disk)?;
            let digests: Vec<u64> = lives[0].worlds.iter().map(World::digest).collect();
            let mut exhaustive = Exhaustive::default();
            let mut cuts = 0..lives[0].cuts.len();
            cuts.try_for_each(|cut| exhaustive.check_cut(&lives[0], &digests, cut, Depth::Whole))
        };
        check(&disk.reopen()).unwrap();
        let liar = disk.reopen();
        liar.inject(Kind::Sync, 1, Fault::Lie);
        check(&liar).unwrap_err();
    }
}
