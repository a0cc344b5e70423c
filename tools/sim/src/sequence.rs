//! Short sequences of steps, each the same every time: what the exhaustive matrix goes through.

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use kontiki_disk::{
    MemoryDisk,
    memory::{Cut, EIO, Fault, Kind},
};
use kontiki_wal::{AppendError, LogId};

use crate::{
    model::{LogModel, Operation},
    random::Random,
    session::{Life, PowerCut, Session},
};

/// The log that every step is about.
pub const LOG: LogId = LogId(1);

/// One step of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Two entries behind the last, over several sectors.
    Append,
    /// The last entry and one more, of the same lengths as [`Step::Append`] and a later term.
    Replace,
    /// Sets the state.
    SetState,
    /// Cuts off the last entry.
    Truncate,
    /// Drops all but the last entry.
    Compact,
    /// Drops all entries, and leaves a gap.
    Reset,
    /// Everything that is to be done is done: groups, segments prepared, sealed and freed.
    Sync,
    /// A group is written and synced, and the log does not know that yet.
    Group,
    /// Time passes until a log that is idle gets its mark.
    Idle,
    /// Closes the log and opens it again.
    Reopen,
    /// The process is killed, and the next one opens the log.
    Kill,
    /// The next sync fails; the process ends and the next one opens the log while the page cache lives.
    Fail,
    /// Entries until a segment is full and the next one has the first.
    Rotate,
}

impl Step {
    /// Every step.
    pub const ALL: [Self; 13] = [
        Self::Append,
        Self::Replace,
        Self::SetState,
        Self::Truncate,
        Self::Compact,
        Self::Reset,
        Self::Sync,
        Self::Group,
        Self::Idle,
        Self::Reopen,
        Self::Kill,
        Self::Fail,
        Self::Rotate,
    ];

    /// The operation of the step with this number on a log that holds `model`; `None` if it is more, or none.
    fn operation(self, number: u64, model: &LogModel) -> Option<Operation> {
        let (last, term) = (model.last(), model.last_term());
        let entries = || vec![filled(number, 300), filled(number + 100, 700)];
        Some(match self {
            Self::Append => {
                Operation::Append { first_index: last + 1, term: term.max(1), entries: entries() }
            }
            Self::Replace => Operation::Append {
                first_index: last.max(model.first),
                term: term + 1,
                entries: entries(),
            },
            Self::SetState => Operation::SetState { state: filled(number, 90) },
            Self::Truncate => {
                Operation::Truncate { last: last.saturating_sub(1).max(model.first - 1) }
            }
            Self::Compact => Operation::Compact { first: last.max(model.first) },
            Self::Reset => Operation::Reset { next_index: last + 3, term_before: term + 1 },
            _ => return None,
        })
    }
}

/// Bytes that no other step has.
fn filled(seed: u64, length: usize) -> Bytes {
    let mut random = Random::new(seed);
    (0..length).map(|_| random.draw().to_le_bytes()[0]).collect()
}

/// Where a sequence begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A disk without a log.
    Empty,
    /// A closed log with entries and state, one sealed segment and one that is half full.
    Lived,
    /// A killed log with a full segment that is not sealed, and whose index takes more than a sector.
    Crowded,
}

impl Start {
    /// The disk.
    ///
    /// # Panics
    /// If the log refuses what it must take.
    pub fn disk(self) -> MemoryDisk {
        let disk = MemoryDisk::new();
        if self == Self::Empty {
            return disk;
        }
        let (session, _) = Session::open(&disk).expect("an empty disk opens");
        let mut runner = Runner { session, lives: Vec::new() };
        let tiny = if self == Self::Crowded { 64 } else { 0 };
        for (step, number) in [Step::SetState, Step::Append].into_iter().zip(900..) {
            runner = runner.take(step, number).expect("a new log takes everything");
        }
        (0..tiny).for_each(|nth| runner.append(filled(2000 + nth, 4)).expect("a new log takes it"));
        runner = runner.take(Step::Rotate, 902).expect("a new log takes everything");
        if self == Self::Lived {
            return runner.session.close().1;
        }
        // The groups and nothing else.
        (0..9).for_each(|_| runner.session.work_on_sync());
        runner.session.kill().1
    }
}

/// Steps on one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Where it begins.
    pub start: Start,
    /// What is done then.
    pub steps: Vec<Step>,
}

/// What a sequence went through.
#[derive(Debug)]
pub struct Run {
    /// One for each opening of the log.
    pub lives: Vec<Life>,
    /// The first life and the first of its cuts that belong to the last step; those before belong to shorter sequences.
    pub last_step: (usize, usize),
}

impl Sequence {
    /// Every sequence of this length.
    pub fn all(start: Start, length: u32) -> impl Iterator<Item = Self> {
        let count = Step::ALL.len().pow(length);
        let steps = move |number: usize| {
            let digit = move |place| number / Step::ALL.len().pow(place) % Step::ALL.len();
            (0..length).rev().map(move |place| Step::ALL[digit(place)]).collect()
        };
        (0..count).map(move |number| Self { start, steps: steps(number) })
    }

    /// Goes through the steps on `disk`, ends with everything done and the log closed.
    ///
    /// # Errors
    /// What the log refused, or did not find again after a clean close or a kill.
    pub fn run(&self, disk: &MemoryDisk) -> Result<Run, String> {
        let (mut session, opening) = Session::open(disk).map_err(|error| error.to_string())?;
        let cuts = opening.into_iter().map(|cut| PowerCut { cut, acknowledged: 0, appended: 0 });
        session.life.cuts.extend(cuts);
        let mut runner = Runner { session, lives: Vec::new() };
        let mut last_step = (0, 0);
        for (&step, number) in self.steps.iter().zip(1..) {
            last_step = (runner.lives.len(), runner.session.life.cuts.len());
            let taken = runner.take(step, number);
            runner = taken.map_err(|error| format!("step {number}: {error}"))?;
        }
        Ok(Run { lives: runner.end(), last_step })
    }
}

struct Runner {
    session: Session,
    lives: Vec<Life>,
}

impl Runner {
    fn take(mut self, step: Step, number: u64) -> Result<Self, String> {
        match step {
            Step::Sync => self.session.settle(),
            Step::Group => (0..2).for_each(|_| self.session.work_on_sync()),
            Step::Idle => self.idle(),
            Step::Fail => {
                self.session.disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
                // Enough for a group that is on its way and one more.
                (0..6).for_each(|_| self.session.work_on_sync());
                return self.reopen(Step::Kill);
            }
            Step::Reopen | Step::Kill => return self.reopen(step),
            Step::Rotate => self.rotate(number).map_err(|error| error.to_string())?,
            _ => {
                let model = self.session.life.world().log(LOG);
                let operation = step.operation(number, &model).expect("one operation");
                let done = self.session.perform(LOG, &operation);
                done.map_err(|error| format!("{operation:?}: {error}"))?;
            }
        }
        Ok(self)
    }

    /// A mark is due when a step has seen twice, 50 ms apart, that nothing else is.
    fn idle(&mut self) {
        for _ in 0..4 {
            self.session.work_on_sync();
            self.session.sleep(Duration::from_millis(60));
        }
    }

    fn rotate(&mut self, number: u64) -> Result<(), AppendError> {
        let mut segments = self.session.wal.statistics().segments;
        for nth in 0..ROTATION_MAX {
            self.append(filled(number * 1000 + nth, 2500))?;
            let before = std::mem::replace(&mut segments, self.session.wal.statistics().segments);
            if before < segments {
                return Ok(());
            }
        }
        panic!("no segment was full after {ROTATION_MAX} entries");
    }

    fn append(&mut self, bytes: Bytes) -> Result<(), AppendError> {
        let model = self.session.life.world().log(LOG);
        let (first_index, term) = (model.last() + 1, model.last_term().max(1));
        let entries = vec![bytes];
        self.session.perform(LOG, &Operation::Append { first_index, term, entries })
    }

    /// Ends this life and begins the next one on the same disk.
    fn reopen(self, step: Step) -> Result<Self, String> {
        let Self { session, mut lives } = self;
        let appended = session.appended();
        let (acknowledged, (mut life, disk)) = match step {
            Step::Kill => (session.acknowledged(), session.kill()),
            _ => (appended, session.close()),
        };
        let (session, opening) = Session::open(&disk).map_err(|error| error.to_string())?;
        let found = life.find(session.life.world().digest(), acknowledged, appended);
        found.ok_or_else(|| format!("found after a stop: {:#?}", session.life.world()))?;
        let cuts = opening.into_iter().map(|cut| PowerCut { cut, acknowledged, appended });
        life.cuts.extend(cuts);
        lives.push(life);
        Ok(Self { session, lives })
    }

    /// Everything done, the log closed; the last cut is the disk that is left.
    fn end(self) -> Vec<Life> {
        let Self { session, mut lives } = self;
        let appended = session.appended();
        let (mut life, disk) = session.close();
        if let Some(last) = life.cuts.last() {
            let cut = Cut { operation: last.cut.operation.clone(), before: disk };
            life.cuts.push(PowerCut { cut, acknowledged: appended, appended });
        }
        lives.push(life);
        lives
    }
}

/// More entries than a segment holds.
const ROTATION_MAX: u64 = 12;

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", format!("{self:?}").to_lowercase())
    }
}

/// `START:STEP,STEP`, as a failure tells it and a replay takes it.
impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        write!(formatter, "{}:{}", format!("{:?}", self.start).to_lowercase(), steps.join(","))
    }
}

impl FromStr for Sequence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (start, steps) = text.split_once(':').ok_or(format!("{text}: START:STEP,STEP"))?;
        let start = match start {
            "empty" => Start::Empty,
            "lived" => Start::Lived,
            "crowded" => Start::Crowded,
            _ => return Err(format!("{start} is no start: empty, lived, crowded")),
        };
        let step = |name: &str| {
            let step = Step::ALL.into_iter().find(|step| step.to_string() == name);
            step.ok_or(format!("{name} is none of {:?}", Step::ALL))
        };
        let steps = steps.split(',').filter(|name| !name.is_empty()).map(step);
        Ok(Self { start, steps: steps.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(text: &str) -> Run {
        let sequence: Sequence = text.parse().unwrap();
        assert_eq!(sequence.to_string(), text);
        sequence.run(&sequence.start.disk()).unwrap()
    }

    fn world(text: &str) -> LogModel {
        (*run(text).lives.last().unwrap().world().log(LOG)).clone()
    }

    #[test]
    fn sequences_are_all_different_and_are_named_as_they_are_parsed() {
        let names: Vec<String> = Sequence::all(Start::Empty, 3).map(|s| s.to_string()).collect();
        assert_eq!(names.len(), 13 * 13 * 13);
        let mut different = names.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), names.len());
        assert!(names.iter().all(|name| name.parse::<Sequence>().unwrap().to_string() == *name));
        "empty:append,forget".parse::<Sequence>().unwrap_err();
    }

    #[test]
    fn steps_do_what_their_names_say() {
        let model = world("empty:append,replace,setstate,reopen,truncate");
        assert_eq!((model.first, model.last(), model.last_term()), (1, 2, 2));
        assert!(model.state.is_some());
        let model = world("empty:append,compact,sync,kill,reset");
        assert_eq!((model.first, model.last(), model.term_before), (5, 4, 2));
    }

    #[test]
    fn a_lived_log_seals_frees_and_uses_a_file_again_within_three_steps() {
        let run = run("lived:compact,sync,rotate");
        let traces: Vec<_> = run.lives.iter().flat_map(|life| &life.cuts).collect();
        let renames = traces.iter().filter(|cut| cut.cut.operation.kind == Kind::Rename);
        let names: Vec<_> = renames.map(|cut| cut.cut.operation.to_string()).collect();
        assert!(names.iter().any(|name| name.ends_with(".spare")), "{names:?}");
        assert!(names.iter().any(|name| name.contains(".spare to")), "{names:?}");
    }

    #[test]
    fn a_crowded_log_seals_a_segment_whose_index_takes_more_than_a_sector() {
        let run = run("crowded:sync");
        let writes = run.lives[0].cuts.iter().map(|cut| &cut.cut.operation);
        // With the first sector of the trailer page behind it.
        let end = (12 << 10) + 512;
        let index = writes.filter(|write| write.kind == Kind::Write && write.range.end == end);
        assert!(index.map(|write| end - write.range.start).any(|bytes| bytes > 1024));
    }

    #[test]
    fn cuts_of_the_last_step_are_those_that_a_shorter_sequence_does_not_have() {
        let (life, cut) = run("empty:append,sync,append").last_step;
        let shorter = run("empty:append,sync");
        assert_eq!(life, 0);
        assert!(cut > shorter.last_step.1 && cut < shorter.lives[0].cuts.len());
    }
}
