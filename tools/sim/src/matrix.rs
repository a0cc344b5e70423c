//! The crash matrix: every power cut of a workload, and everything that it may have kept.
//!
//! For each cut the log is opened on what is left and must hold what some history of operations
//! made, one that contains everything acknowledged before the cut and nothing that was not yet
//! appended. Then recovery itself is cut at each of its disk operations, and must find the same
//! again. At last the log is used on: what was lost is appended again with other bytes, and the
//! power cut once more.
//!
//! A disk that was seen before is not tried again.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    str::FromStr,
    sync::Arc,
};

use bytes::Bytes;
use kontiki_disk::{MemoryDisk, memory::Unsynced};
use kontiki_wal::{
    LogId,
    inspect::{Scan, Verdict},
};

use crate::{
    model::{Operation, World},
    random::Random,
    session::{DIRECTORY, Life, PowerCut, Session, open},
    workload::{LOGS, Record, draw},
};

/// Which of the unsynced things a power cut keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// All but the one with this number, and but for what the same sector held before it.
    AllBut(usize),
    /// A subset drawn with this seed.
    Seeded(u64),
}

impl Choice {
    /// Nothing, everything, everything but each single thing, and seeded subsets.
    pub fn all(items: usize) -> Vec<Self> {
        let mut choices = vec![Self::Nothing];
        if items > 0 {
            choices.push(Self::Everything);
        }
        if items > 1 {
            choices.extend((0..items).map(Self::AllBut));
        }
        if items > 2 {
            choices.extend((0..SEEDS).map(Self::Seeded));
        }
        choices
    }

    /// Whether the thing with this number survives; of a sector that was written several times since its last sync,
    /// `elders` lead from each version to the first.
    fn keeps(self, item: usize, elders: &[usize]) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::AllBut(lost) => item > lost || elders[item] != elders[lost],
            Self::Seeded(seed) => {
                // Some subsets are nearly empty, some nearly full.
                let percent = [50, 25, 75, 90][usize::try_from(seed % 4).expect("below 4")];
                Random::new(seed << 32 | item as u64).chance(percent)
            }
        }
    }

    /// What a power cut leaves of `disk`.
    pub fn image(self, disk: &MemoryDisk) -> MemoryDisk {
        let elders: Vec<usize> = disk.unsynced().iter().enumerate().map(elder).collect();
        disk.image(|item| self.keeps(item, &elders))
    }
}

/// The number of the first version of the same sector.
fn elder((number, item): (usize, &Unsynced)) -> usize {
    match item {
        Unsynced::Sector { version, .. } => number - version,
        _ => number,
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("nothing"),
            Self::Everything => formatter.write_str("everything"),
            Self::AllBut(item) => write!(formatter, "but{item}"),
            Self::Seeded(seed) => write!(formatter, "seed{seed}"),
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        match (text, text.strip_prefix("but"), text.strip_prefix("seed")) {
            ("nothing", ..) => Ok(Self::Nothing),
            ("everything", ..) => Ok(Self::Everything),
            (_, Some(item), _) => Ok(Self::AllBut(usize::try_from(number(item)?).expect("64 bit"))),
            (_, _, Some(seed)) => Ok(Self::Seeded(number(seed)?)),
            _ => Err(format!("{text} is no choice: nothing, everything, but3, seed3")),
        }
    }
}

/// Operations of a second life.
const AGAIN_MAX: usize = 3;

/// Seeded subsets at each cut.
const SEEDS: u64 = 16;

/// How much was tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Power cuts of the workload.
    pub cuts: usize,
    /// Disks that a power cut of the workload may leave.
    pub images: usize,
    /// Disks that a power cut during or after a recovery may leave.
    pub recovery_images: usize,
    /// Logs that were used on after a recovery.
    pub second_lives: usize,
    /// Processes killed and followed by others.
    pub kills: usize,
    /// Disks that a power cut in a second life or after a kill may leave.
    pub other_images: usize,
    /// Of all these disks, the different ones: each was recovered.
    pub recovered: usize,
}

/// The checks over one recorded workload.
#[derive(Debug)]
pub struct Matrix {
    record: Arc<Record>,
    /// What was found on each disk, by fingerprint: the digest of its world.
    seen: HashMap<u64, u64>,
    /// Fingerprints of the disks whose recovery was cut, too, and that were used on.
    checked: HashSet<u64>,
    /// How much was tried so far.
    pub tally: Tally,
}

impl Matrix {
    /// A matrix over `record`, of which no cut was checked yet.
    pub fn new(record: Record) -> Self {
        Self {
            record: Arc::new(record),
            seen: HashMap::new(),
            checked: HashSet::new(),
            tally: Tally::default(),
        }
    }

    /// The workload.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Checks every cut with everything that it may keep.
    ///
    /// # Errors
    /// The first violation, beginning with `LIFE/CUT/CHOICE`, which [`Self::check`] checks alone.
    pub fn check_all(&mut self) -> Result<(), String> {
        for life in 0..self.record.lives.len() {
            for cut in 0..self.record.lives[life].cuts.len() {
                self.check_cut(life, cut)?;
            }
        }
        Ok(())
    }

    /// Checks one cut of one life with everything that it may keep.
    ///
    /// # Errors
    /// As for [`Self::check_all`].
    pub fn check_cut(&mut self, life: usize, cut: usize) -> Result<(), String> {
        let items = self.record.lives[life].cuts[cut].cut.before.unsynced().len();
        for choice in Choice::all(items) {
            self.check(life, cut, choice)?;
        }
        self.tally.cuts += 1;
        Ok(())
    }

    /// Checks one cut of one life that kept what `choice` says.
    ///
    /// # Errors
    /// What was violated.
    pub fn check(&mut self, life: usize, cut: usize, choice: Choice) -> Result<(), String> {
        let record = Arc::clone(&self.record);
        let lived = &record.lives[life];
        let PowerCut { cut: at, acknowledged, appended } = &lived.cuts[cut];
        let place = format!("{life}/{cut}/{choice} (before {})", at.operation);
        let image = choice.image(&at.before);
        self.tally.images += 1;

        let is_new = self.checked.insert(image.fingerprint());
        let known = self.seen.get(&image.fingerprint()).copied();
        let digest = match known.filter(|_| !is_new) {
            Some(digest) => digest,
            None => self.recover(&image).map_err(|error| format!("{place}: {error}"))?,
        };
        let found = find(lived, digest, *acknowledged, *appended, &image);
        let found = found.map_err(|error| format!("{place}: {error}"))?;
        if is_new {
            let again = &lived.operations[found..];
            let other: Vec<_> = again.iter().take(AGAIN_MAX).map(other_bytes).collect();
            self.live_on(&image, &other).map_err(|error| format!("{place}, others: {error}"))?;
            self.live_on(&image, again).map_err(|error| format!("{place}, the same: {error}"))?;
        }
        Ok(())
    }

    /// Checks a process that is killed at one cut, its successor that opens the log while the
    /// page cache lives, and then a power cut: during that opening, and after it.
    ///
    /// # Errors
    /// What was violated.
    pub fn check_kill(&mut self, life: usize, cut: usize) -> Result<(), String> {
        let record = Arc::clone(&self.record);
        let lived = &record.lives[life];
        let PowerCut { cut: at, acknowledged, appended } = &lived.cuts[cut];
        let (acknowledged, appended) = (*acknowledged, *appended);
        let place = |error| format!("{life}/{cut}/kill (before {}): {error}", at.operation);

        let disk = at.before.reopen();
        let (session, opening) = Session::open(&disk).map_err(|error| place(error.to_string()))?;
        let digest = session.life.world().digest();
        find(lived, digest, acknowledged, appended, &at.before).map_err(place)?;
        // What was shown to the caller must be durable by now.
        self.recover_again(&disk, digest)
            .map_err(|error| place(format!("shown, then lost: kept{error}")))?;
        session.kill();
        for (number, cut) in opening.iter().enumerate() {
            self.check_images(lived, &cut.before, acknowledged, appended)
                .map_err(|error| place(format!("recovery cut {number}{error}")))?;
        }
        self.tally.kills += 1;
        Ok(())
    }

    /// Recovers a disk that was not seen before, and cuts the recovery wherever it can be cut.
    fn recover(&mut self, image: &MemoryDisk) -> Result<u64, String> {
        let disk = image.reopen();
        disk.start_cuts();
        let digest = recover(&disk)?;
        self.saw(image, digest);
        for (number, cut) in disk.take_cuts().iter().enumerate() {
            let place = format!("recovery cut {number} (before {})", cut.operation);
            self.recover_again(&cut.before, digest).map_err(|error| format!("{place}{error}"))?;
        }
        Ok(digest)
    }

    /// Whatever a power cut leaves of `disk` must be recovered to the same world.
    fn recover_again(&mut self, disk: &MemoryDisk, digest: u64) -> Result<(), String> {
        for choice in Choice::all(disk.unsynced().len()) {
            let image = choice.image(disk);
            self.tally.recovery_images += 1;
            let found = self.look(&image).map_err(|error| format!("/{choice}: {error}"))?;
            if found != digest {
                return Err(format!("/{choice}: something else than one recovery finds"));
            }
        }
        Ok(())
    }

    /// Uses the log on. What was lost is done again, with the same bytes or with others of the
    /// same lengths: whatever was cut off must not come back behind it.
    fn live_on(&mut self, image: &MemoryDisk, again: &[(LogId, Operation)]) -> Result<(), String> {
        let mut random = Random::new(image.fingerprint());
        let (mut session, _) = Session::open(&image.reopen()).map_err(|error| error.to_string())?;
        // What was shown to the caller must be durable by now.
        self.recover_again(&session.disk, session.life.world().digest())
            .map_err(|error| format!("shown, then lost: kept{error}"))?;
        for number in 0..AGAIN_MAX {
            let (log, operation) = again.get(number).cloned().unwrap_or_else(|| {
                let log = LOGS[0];
                (log, draw(&mut random, &session.life.world().log(log)))
            });
            session.perform(log, &operation).map_err(|error| format!("again: {error}"))?;
            session.work_on_sync();
        }
        session.settle();
        let (appended, (life, disk)) = (session.appended(), session.kill());
        self.tally.second_lives += 1;

        for (number, cut) in life.cuts.iter().enumerate() {
            self.check_images(&life, &cut.cut.before, cut.acknowledged, cut.appended)
                .map_err(|error| format!("cut {number}{error}"))?;
        }
        self.check_images(&life, &disk, appended, appended)
            .map_err(|error| format!("at the end{error}"))
    }

    /// Whatever a power cut leaves of `disk` must hold one of the histories of `life`.
    fn check_images(
        &mut self,
        life: &Life,
        disk: &MemoryDisk,
        acknowledged: usize,
        appended: usize,
    ) -> Result<(), String> {
        for choice in Choice::all(disk.unsynced().len()) {
            let image = choice.image(disk);
            self.tally.other_images += 1;
            self.look(&image)
                .and_then(|digest| find(life, digest, acknowledged, appended, &image))
                .map_err(|error| format!("/{choice}: {error}"))?;
        }
        Ok(())
    }

    /// What is found on a disk, without cutting its recovery.
    fn look(&mut self, image: &MemoryDisk) -> Result<u64, String> {
        if let Some(&digest) = self.seen.get(&image.fingerprint()) {
            return Ok(digest);
        }
        let digest = recover(&image.reopen())?;
        self.saw(image, digest);
        Ok(digest)
    }

    fn saw(&mut self, image: &MemoryDisk, digest: u64) {
        self.tally.recovered += 1;
        self.seen.insert(image.fingerprint(), digest);
    }
}

/// Opens the log, and stops at once; what it held. Whoever looked at it before has found no damage: a stop is none.
fn recover(disk: &MemoryDisk) -> Result<u64, String> {
    if let Verdict::Corrupt(damage) = look_into(disk)? {
        return Err(format!("a look finds damage: {damage:?}"));
    }
    let opened = catch_unwind(AssertUnwindSafe(|| open(disk).map(|wal| (World::of(&wal), wal))));
    let (world, wal) = opened
        .map_err(|_| "the log panicked".to_string())?
        .map_err(|error| format!("the log does not open: {error}"))?;
    // As a killed process: nothing more is written.
    disk.cut_power_after(0);
    drop(wal);
    Ok(world.digest())
}

fn look_into(disk: &MemoryDisk) -> Result<Verdict, String> {
    let scan = Scan::open_on(disk, DIRECTORY);
    scan.map(|scan| scan.verdict().clone()).map_err(|error| format!("a look fails: {error}"))
}

/// The place in `life` that was found on `image`, if it is one that may be found.
fn find(
    life: &Life,
    digest: u64,
    acknowledged: usize,
    appended: usize,
    image: &MemoryDisk,
) -> Result<usize, String> {
    life.find(digest, acknowledged, appended).ok_or_else(|| {
        let found = open(&image.reopen()).map(|wal| World::of(&wal));
        let expected = &life.worlds[acknowledged];
        let done = &life.operations[acknowledged..appended];
        format!(
            "no history of {acknowledged} (acknowledged) to {appended} (appended) operations \
             ends in what was found:\n{found:#?}\nacknowledged was\n{expected:#?}\nand then {done:?}"
        )
    })
}

/// The same operation with as many, but different bytes.
fn other_bytes((log, operation): &(LogId, Operation)) -> (LogId, Operation) {
    let other = |bytes: &Bytes| bytes.iter().map(|byte| !byte).collect::<Bytes>();
    let operation = match operation {
        Operation::Append { first_index, term, entries } => Operation::Append {
            first_index: *first_index,
            term: *term,
            entries: entries.iter().map(other).collect(),
        },
        Operation::Push { bytes } => Operation::Push { bytes: other(bytes) },
        Operation::SetState { state } => Operation::SetState { state: other(state) },
        same => same.clone(),
    };
    (*log, operation)
}
