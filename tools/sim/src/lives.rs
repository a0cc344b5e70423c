//! Many lives of one directory, each behind the other, and whatever ends them: a close, a kill, a power cut, a sync that fails in an
//! opening or at work. What one life was shown the next ones find again, and whatever was acknowledged.
//!
//! [`crate::matrix`] looks at everything that one stop may leave; this looks for what takes several stops: what an opening relies on
//! that the life before it left in the page cache only.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use kontiki_disk::{
    Access, Disk, MemoryDisk,
    memory::{EIO, Fault, Kind, is_power_cut},
};
use kontiki_wal::{AppendError, LogId, OpenError, WalError, inspect::Scan};

use crate::{
    matrix::Choice,
    model::{LogModel, Operation, World},
    random::Random,
    session::{DIRECTORY, Life, SEGMENT_BYTES, Session, options},
};

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as what is counted")]
pub struct Tally {
    pub openings: u64,
    pub openings_failed: u64,
    pub idle_lives: u64,
    pub closes: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub poisoned: u64,
    pub rots: u64,
    pub openings_without_cache: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            openings: self.openings + other.openings,
            openings_failed: self.openings_failed + other.openings_failed,
            idle_lives: self.idle_lives + other.idle_lives,
            closes: self.closes + other.closes,
            kills: self.kills + other.kills,
            power_cuts: self.power_cuts + other.power_cuts,
            poisoned: self.poisoned + other.poisoned,
            rots: self.rots + other.rots,
            openings_without_cache: self.openings_without_cache + other.openings_without_cache,
        }
    }
}

/// Leads one directory through the lives of `seed`.
///
/// # Errors
/// What was violated, behind what was done in each life.
///
/// # Panics
/// If the log refuses a valid operation for another reason than a failure.
pub fn run(seed: u64) -> Result<Tally, String> {
    let mut random = Random::new(seed);
    let habits = Habits::draw(&mut random);
    let disk = MemoryDisk::new();
    let left = Left { life: Life::new(World::default()), acknowledged: 0, appended: 0 };
    let (tally, story) = (Tally::default(), vec![format!("{habits:?}")]);
    // Of its own, so that what is drawn besides stays as it was. Without rot: a table of logs that has rotted, and was made good in the
    // cache only, is damage to who reads it later.
    let evicts = !habits.rots && Random::new(seed ^ HABIT).chance(40);
    let evictions = evicts.then(|| Random::new(seed ^ OPENINGS));
    let mut lives = Lives { random, evictions, habits, disk, left, tally, story };
    for _ in 0..habits.lives {
        if let Err(error) = lives.live() {
            return Err(format!("{}\n{error}", lives.story.join("\n")));
        }
    }
    // What the last one left.
    lives.habits.failure_percent = 0;
    lives.live().map_err(|error| format!("{}\n{error}", lives.story.join("\n")))?;
    Ok(lives.tally)
}

/// How a directory is used, the same in all its lives: so each kind of use is met without the others, too.
#[derive(Clone, Copy, Debug)]
struct Habits {
    lives: u64,
    operations_max: u64,
    /// In so many of 100 lives nothing is appended.
    idle_percent: u64,
    /// So many of 100 entries end where a page does, or a mark or two before that.
    aligned_percent: u64,
    /// A life ends by a close, a kill, or a power cut; of 100.
    close_percent: u64,
    kill_percent: u64,
    /// One bit of a trailer, or of a table of logs, rots some day.
    rots: bool,
    /// In so many of 100 lives a sync fails, or every operation from one on.
    failure_percent: u64,
    /// So many of 100 operations are those of a log that is never compacted.
    laggard_percent: u64,
    /// So many of 100 steps of work are the segments'.
    segments_percent: u64,
    /// So often what counts as clean leaves the page cache.
    evict_percent: u64,
    bytes_max: u64,
}

/// What a life leaves: what may be found after it.
struct Left {
    life: Life,
    acknowledged: usize,
    appended: usize,
}

struct Lives {
    random: Random,
    /// Draws when in an opening what counts as clean leaves the page cache, if it ever does.
    evictions: Option<Random>,
    habits: Habits,
    disk: MemoryDisk,
    left: Left,
    tally: Tally,
    story: Vec<String>,
}

const LAGGARD: LogId = LogId(1);
const PASSING: LogId = LogId(2);

impl Habits {
    fn draw(random: &mut Random) -> Self {
        let of = |random: &mut Random, choices: [u64; 4]| {
            choices[usize::try_from(random.below(4)).expect("below 4")]
        };
        Self {
            lives: random.between(3, 12),
            operations_max: of(random, [2, 6, 12, 20]),
            idle_percent: of(random, [0, 20, 40, 60]),
            aligned_percent: of(random, [0, 0, 30, 80]),
            close_percent: of(random, [10, 30, 50, 70]),
            kill_percent: of(random, [20, 40, 60, 80]),
            rots: random.chance(30),
            failure_percent: of(random, [0, 20, 50, 80]),
            laggard_percent: of(random, [0, 5, 20, 40]),
            segments_percent: of(random, [20, 50, 50, 80]),
            evict_percent: of(random, [0, 0, 2, 20]),
            bytes_max: of(random, [100, 900, 2000, 4000]),
        }
    }
}

impl Lives {
    fn live(&mut self) -> Result<(), String> {
        self.plan_failure();
        if let Some(evictions) = &mut self.evictions {
            self.disk.evict_before_read(evictions.between(1, 40));
        }
        // What an opening draws no other one does.
        let options = options(&self.disk).nonce(self.random.draw());
        let opened = Session::open_with(&self.disk, options);
        let is_evicted = self.evictions.is_some() && self.disk.evicts_before() == 0;
        self.disk.evict_before_read(0);
        if is_evicted {
            self.story.push("clean pages leave the cache in an opening".into());
            self.tally.openings_without_cache += 1;
        }
        let mut session = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let has_failed = !self.disk.take_met().is_empty() || is_off(&self.disk);
                let asks_again = is_evicted && error.to_string().contains("open the log again");
                if !(has_failed && matches!(error, OpenError::Io { .. }) || asks_again) {
                    return Err(format!("the log does not open: {error}"));
                }
                self.story.push(format!("does not open: {error}"));
                self.tally.openings_failed += 1;
                self.disk = self.disk.reopen();
                self.cut_power_or_not();
                return Ok(());
            }
        };
        self.tally.openings += 1;
        let found = session.life.world();
        let Left { life, acknowledged, appended } = &self.left;
        if life.find(found.digest(), *acknowledged, *appended).is_none() {
            let (found, kept) = (describe(found), describe(&life.worlds[*acknowledged]));
            return Err(format!("opens: {found}\nacknowledged was: {kept}"));
        }
        self.story.push(format!("opens: {}", describe(found)));
        self.use_it(&mut session);
        self.end(session)
    }

    /// Lets a sync or everything from some operation on fail in this life, or nothing.
    fn plan_failure(&mut self) {
        if !self.random.chance(self.habits.failure_percent) {
            return;
        }
        let reach = [2, 6, 6, 40][usize::try_from(self.random.below(4)).expect("below 4")];
        let nth = self.random.between(1, reach);
        if self.random.chance(60) {
            self.story.push(format!("sync {nth} fails"));
            self.disk.inject(Kind::Sync, nth, Fault::Fail(EIO));
        } else {
            self.story.push(format!("killed after {nth} operations"));
            self.disk.cut_power_after(nth);
        }
    }

    fn use_it(&mut self, session: &mut Session) {
        let is_idle = self.random.chance(self.habits.idle_percent);
        let operations =
            if is_idle { 0 } else { self.random.between(1, self.habits.operations_max) };
        self.tally.idle_lives += u64::from(is_idle);
        let mut done = 0;
        while done < operations && !session.failed() {
            if self.random.chance(40) {
                self.work(session);
            } else if self.operate(session) {
                done += 1;
            } else {
                break;
            }
        }
        for _ in 0..self.random.below(24) {
            self.work(session);
        }
    }

    fn work(&mut self, session: &mut Session) {
        if self.random.chance(self.habits.evict_percent) {
            self.story.push("  clean pages leave the cache".into());
            session.disk.evict();
        }
        if self.random.chance(20) {
            session.sleep(Duration::from_millis(70));
        }
        if self.random.chance(self.habits.segments_percent) {
            session.work_on_segment();
        } else {
            session.work_on_sync();
        }
    }

    /// False if the log has stopped.
    fn operate(&mut self, session: &mut Session) -> bool {
        let lags = self.random.chance(self.habits.laggard_percent);
        let log = if lags { LAGGARD } else { PASSING };
        let model = session.life.world().log(log);
        let operation = self.draw(session, log, &model);
        self.story.push(format!("  {log:?} {}", name(&operation)));
        match session.perform(log, &operation) {
            Ok(()) => true,
            Err(
                AppendError::Wal(WalError::Poisoned { .. })
                | AppendError::Full { .. }
                | AppendError::NoSpace { .. },
            ) => false,
            Err(error) => panic!("{log:?}, {}: {error}", name(&operation)),
        }
    }

    fn draw(&mut self, session: &mut Session, log: LogId, model: &LogModel) -> Operation {
        let next = model.last() + 1;
        let compacts = log == PASSING && self.random.chance(30);
        if compacts && !model.entries.is_empty() {
            return Operation::Compact { first: next - self.random.below(2) };
        }
        match self.random.below(100) {
            0..10 => {
                let length = self.random.between(1, 100);
                return Operation::SetState { state: self.filled(length) };
            }
            10..13 if log == PASSING => {
                return Operation::Truncate {
                    last: self.random.between(model.first - 1, model.last()),
                };
            }
            13..15 if log == PASSING => {
                return Operation::Reset {
                    next_index: next + self.random.below(5),
                    term_before: model.last_term() + self.random.below(2),
                };
            }
            _ => {}
        }
        let replaces = self.random.chance(10) && log == PASSING;
        let first_index = if replaces { self.random.between(model.first, next) } else { next };
        let term = model.term(first_index - 1) + u64::from(self.random.chance(20));
        let length = if self.random.chance(self.habits.aligned_percent) {
            self.aligned(session)
        } else {
            self.random.between(0, self.habits.bytes_max)
        };
        Operation::Append { first_index, term, entries: vec![self.filled(length)] }
    }

    /// The length of an entry whose frame ends some marks before the end of a page.
    fn aligned(&mut self, session: &mut Session) -> u64 {
        session.settle();
        let scan = Scan::open_on(&session.disk, DIRECTORY).ok();
        let used = scan.and_then(|scan| scan.segments().last().map(|last| last.used_bytes));
        // The first frame of an opening stands behind one that says so.
        let opened = if session.appended() == 0 { 48 } else { 0 };
        let behind = used.unwrap_or(0) + opened + 48 * self.random.below(3);
        let left = PAGE - behind % PAGE;
        let frame = if left < 64 { left + PAGE } else { left };
        (frame - 48 - 4).min(PAGE)
    }

    fn filled(&mut self, length: u64) -> Bytes {
        let byte = self.random.draw().to_le_bytes()[0];
        (0..length).map(|_| byte).collect()
    }

    fn end(&mut self, mut session: Session) -> Result<(), String> {
        let how = self.random.below(100);
        if session.failed() {
            self.tally.poisoned += 1;
        } else if how < self.habits.close_percent {
            if self.random.chance(50) {
                session.settle();
            }
            let closed = session.wal.close();
            self.story.push(format!("closes: {closed:?}"));
            self.tally.closes += u64::from(closed.is_ok());
            if closed.is_ok() && session.acknowledged() != session.appended() {
                return Err("closed, and not everything is acknowledged".into());
            }
        }
        let (acknowledged, appended) = (session.acknowledged(), session.appended());
        self.story.push(format!("ends: {acknowledged} of {appended} acknowledged"));
        let (life, disk) = session.kill();
        self.left = Left { life, acknowledged, appended };
        self.disk = disk;
        self.cut_power_or_not();
        if self.habits.rots && self.random.chance(30) {
            self.habits.rots = false;
            self.rot();
        }
        Ok(())
    }

    /// Flips a bit in the trailer page or the table of logs of a sealed segment, where that costs no more than a scan: of a trailer
    /// before a gap nothing else tells.
    fn rot(&mut self) {
        let Ok(scan) = Scan::open_on(&self.disk, DIRECTORY) else { return };
        let segments = scan.segments();
        let sealed: Vec<usize> =
            (0..segments.len()).filter(|&number| segments[number].index_bytes > 0).collect();
        if sealed.is_empty() {
            return;
        }
        let number = sealed[usize::try_from(self.random.below(sealed.len() as u64)).expect("few")];
        let segment = &segments[number];
        let follows =
            segments.get(number + 1).is_some_and(|next| next.sequence == segment.sequence + 1);
        let offset = if follows && self.random.chance(70) {
            segment.segment_bytes - 1 - self.random.below(PAGE)
        } else {
            segment.segment_bytes - PAGE - segment.index_bytes + self.random.below(32)
        };
        self.story.push(format!("{} rots at {offset}", segment.file));
        self.tally.rots += 1;
        self.disk.corrupt(
            Path::new(DIRECTORY).join(&segment.file),
            offset,
            1 << self.random.below(8),
        );
    }

    fn cut_power_or_not(&mut self) {
        if self.random.chance(self.habits.kill_percent) {
            self.tally.kills += 1;
            return;
        }
        let choice = match self.random.below(4) {
            0 => Choice::Nothing,
            1 => Choice::Everything,
            _ => Choice::Seeded(self.random.draw() >> 32),
        };
        self.story.push(format!("power cut that keeps {choice}"));
        self.disk = choice.image(&self.disk);
        self.tally.power_cuts += 1;
    }
}

fn is_off(disk: &MemoryDisk) -> bool {
    let looked = disk.open_directory(Path::new(DIRECTORY), Access::Read);
    looked.is_err_and(|error| is_power_cut(&error))
}

fn name(operation: &Operation) -> String {
    match operation {
        Operation::Append { first_index, term, entries } => {
            let bytes: Vec<usize> = entries.iter().map(Bytes::len).collect();
            format!("append {first_index} of term {term}, {bytes:?} bytes")
        }
        Operation::SetState { state } => format!("state of {} bytes", state.len()),
        other => format!("{other:?}"),
    }
}

fn describe(world: &World) -> String {
    let of = |log| {
        let model = world.log(log);
        format!("{}..={}", model.first, model.last())
    };
    format!("laggard {}, passing {}", of(LAGGARD), of(PASSING))
}

/// Drawn apart.
const OPENINGS: u64 = 0x006f_7065_6e69_6e67;
const HABIT: u64 = 0x6576_6963_7473;
const PAGE: u64 = 4096;
const _: () = assert!(SEGMENT_BYTES == 4 * PAGE, "two pages of frames");
