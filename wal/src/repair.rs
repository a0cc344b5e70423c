//! A log whose durable bytes are damaged: what is left of it, and two ways to go on.
//!
//! [`Diagnosis`] tells what each way would keep and lose, and changes nothing. [`truncate`] cuts the log in place at the first
//! damaged frame, after a backup of every file that it changes or removes. [`salvage`] leaves the log alone and writes what
//! can be read into a new one. Which bytes are damaged is [`inspect::Verdict`](crate::inspect::Verdict)'s word; what a crash
//! leaves is no damage, and opening the log deals with it.
//!
//! Neither way brings back what is lost. A log that others rely on, as peers on the votes and acknowledgements of a Raft node,
//! has broken its promises then: `wal-inspect repair --help` says what to do. Such a log opens, and nothing in its frames tells
//! that it once had more; so a repair that took something leaves a [`Mark`], which whoever has promised something asks for.

mod backup;
mod beyond;
mod contents;
mod cut;
mod island;
mod mark;
mod new_log;
mod spans;
mod survey;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use kontiki_disk::{Access, Directory, Disk};

pub use self::mark::{Mark, Stage};
use self::{
    contents::Contents,
    cut::{Plan, write_again},
    survey::Survey,
};
use crate::{
    AppendError, Bounds, Corruption, LogId, Lsn, OpenError,
    inspect::Effort,
    recovery::{Depth, lock, repair::sync, scan::io_error, settle},
    segment::file_name,
};

/// What is damaged in a log, and what could be done.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What is damaged, as [`Verdict::Corrupt`](crate::inspect::Verdict::Corrupt) has it; empty if there is nothing to repair.
    /// What only a [deep](Effort::is_deep) look finds is neither told nor mended: no rot makes it.
    pub damage: Vec<Corruption>,
    /// File names of the segments of which nothing is known: their header pages are damaged, or what lies in them cannot be
    /// placed.
    pub unknown: Vec<String>,
    /// False if the log went on behind the last frame that can be placed: more than what is told here may be lost.
    pub is_end_known: bool,
    /// Cutting the log in place, or why that is impossible.
    pub truncation: Result<Truncation, String>,
    /// What [`salvage`] would write: every log, ascending.
    pub salvage: Vec<LogOutcome>,
    /// What an earlier repair has left.
    pub mark: Option<Mark>,
    /// [`truncate`] would leave a [`Mark`]: something goes, or went in an earlier repair.
    pub is_cut_marked: bool,
    /// [`salvage`] would leave one in the new log.
    pub is_salvage_marked: bool,
}

/// A cut in place.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Truncation {
    /// Where the first damaged frame lies, which goes with all behind it; `None` if only what tells of frames is damaged.
    pub cut: Option<CutPlace>,
    /// File names of the segments that are changed.
    pub changed: Vec<String>,
    /// File names of the segments that are removed.
    pub removed: Vec<String>,
    /// The directory of the backup of all these.
    pub backup: PathBuf,
    /// Every log, ascending.
    pub logs: Vec<LogOutcome>,
    /// As [`Diagnosis::is_end_known`].
    pub is_end_known: bool,
}

/// What was written into a new log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Salvaged {
    /// Every log, ascending.
    pub logs: Vec<LogOutcome>,
    /// As [`Diagnosis::is_end_known`].
    pub is_end_known: bool,
}

/// Where a log is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CutPlace {
    /// File name of the segment.
    pub segment: String,
    /// Where the first frame that goes begins in the file, or would.
    pub offset: u64,
    /// The same in the stream.
    pub lsn: Lsn,
}

/// What becomes of one log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogOutcome {
    /// Which.
    pub log: LogId,
    /// Entries that stay.
    pub kept: Vec<TermRun>,
    /// Entries that are damaged or missing.
    pub lost: Vec<TermRun>,
    /// First and last index of each run before some that are lost or left out, of which nothing can be read: of which term they
    /// were, or whether the log was reset over them, is not known.
    pub unknown: Vec<(u64, u64)>,
    /// Entries that are whole, and go all the same: they lie behind the cut, or behind what is lost.
    pub left_out: Vec<TermRun>,
    /// Entries that were truncated, replaced or compacted behind a cut: they are in the log again.
    pub returning: Vec<TermRun>,
    /// Frames of which nothing can be told lay behind entries that stay. Where one of them replaced some under their own term,
    /// which never happens in a log of Raft, the older ones stay.
    pub may_be_replaced: bool,
    /// The log is empty, as it was, and goes on at another index, or after another term.
    pub is_moved: bool,
    /// What becomes of the log's state.
    pub state: StateOutcome,
    /// The state with which the log goes on.
    pub state_bytes: Option<Bytes>,
    /// The newest state that could be read.
    pub newest_state: Option<Bytes>,
    /// The log was made with owner bytes that are not all zero, as a node's is: see [`Options::owner`](crate::Options::owner).
    pub has_owner: bool,
}

impl LogOutcome {
    /// The log goes on as if nothing had happened, as far as anything tells: where [`Diagnosis::is_end_known`] is false, what is
    /// lost can have been of every log.
    pub fn is_unharmed(&self) -> bool {
        let entries = [&self.lost, &self.left_out, &self.returning];
        let is_state_there = matches!(self.state, StateOutcome::None | StateOutcome::Kept);
        let are_entries_there = entries.iter().all(|runs| runs.is_empty()) && !self.may_be_replaced;
        are_entries_there && is_state_there && !self.is_moved
    }

    /// How many entries stay.
    fn kept_count(&self) -> u64 {
        self.kept.iter().map(|run| run.last - run.first + 1).sum()
    }
}

/// Entries of one log whose indexes follow each other, all of one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermRun {
    /// Index of the first.
    pub first: u64,
    /// Index of the last.
    pub last: u64,
    /// Their term.
    pub term: u64,
}

/// What becomes of a log's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateOutcome {
    /// There was none.
    None,
    /// The newest one stays.
    Kept,
    /// A newer one can have been in what cannot be read.
    MayBeOlder,
    /// The log falls back to an older one.
    Older,
    /// There was one, and there is none any more.
    Lost,
}

/// Why a log was not repaired.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// The log, or the directory of a backup or a new log, cannot be opened, read or written.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A cut was begun and is not finished; its backup is. The log is not opened before [`truncate`] has ended it.
    #[error(
        "{source}; a cut is begun and not finished, and the log is not opened before it is: do it again"
    )]
    Unfinished {
        /// Why.
        source: Box<RepairError>,
    },
    /// No backup or no mark of a cut could be made. The log is as it was; what was written of the backup is removed, as far as
    /// the disk takes that.
    #[error("{source}; nothing is changed")]
    NotBegun {
        /// The directory of the backup, in which nothing is left.
        backup: PathBuf,
        /// Why.
        source: Box<OpenError>,
    },
    /// The log cannot be cut in place; nothing was changed.
    #[error("the log cannot be cut in place: {reason}")]
    NoCut {
        /// Why.
        reason: String,
    },
    /// The directory for the new log has files in it; nothing was changed.
    #[error("{directory} is not empty")]
    NotEmpty {
        /// The directory.
        directory: String,
    },
    /// No segment begins whole, so nothing tells where a log stood; nothing was written.
    #[error("nothing is left of the log: no segment begins whole")]
    NothingLeft,
    /// The new log refused what it was given.
    #[error("the new log: {0}")]
    Append(#[from] AppendError),
    /// A writer was there while a log was salvaged from its directory; nothing is left of the new one.
    #[error("{directory} was changed while it was read: stop its writer, and do it again")]
    Changed {
        /// The directory.
        directory: String,
    },
    /// What was written is not what was meant: something else has changed the files.
    #[error("{directory} is damaged after the repair")]
    NotWhole {
        /// The directory.
        directory: String,
    },
}

impl Diagnosis {
    /// Looks at the log in `directory` of the real disk, which nobody may have open for writing.
    ///
    /// # Errors
    /// `Locked`, the disk's, a newer format, segments of two logs, or `RepairUnfinished` for what is left of a salvage.
    pub fn of(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::of_on(&*kontiki_disk::real(), directory)
    }

    /// Looks at the log in `directory` of `disk`.
    ///
    /// # Errors
    /// As for [`Diagnosis::of`].
    pub fn of_on(disk: &dyn Disk, directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = directory.as_ref();
        let directory = open_unlocked(disk, path)?;
        let mark = Mark::of_repairable(&*directory)?;
        let survey = Survey::of(&*directory)?;
        let planned = plan(&survey)?;
        let contents = Contents::of(&survey, planned.as_ref().ok().map(|(plan, _)| plan))?;
        let truncation = match planned {
            Ok((plan, logs)) => {
                Ok(contents.truncation(&plan, &logs, backup::place(disk, &*directory)?))
            }
            Err(reason) => Err(reason),
        };
        check_unlocked(&*directory)?;
        let (salvage, is_end_known) = (contents.salvage(), survey.is_end_known());
        let unknown = unknown(&survey)?;
        let had_losses = mark.as_ref().is_some_and(|mark| !mark.losses.is_empty());
        let of_cut =
            truncation.as_ref().map(|truncation| mark::losses_of_cut(truncation, &unknown));
        let of_salvage =
            mark::losses_of_salvage(directory.path(), &salvage, is_end_known, &unknown);
        Ok(Self {
            damage: survey.damage.clone(),
            is_end_known,
            is_cut_marked: of_cut.is_ok_and(|losses| had_losses || !losses.is_empty()),
            is_salvage_marked: had_losses || !of_salvage.is_empty(),
            unknown,
            truncation,
            salvage,
            mark,
        })
    }
}

/// Cuts the log in `directory` of the real disk at the first damaged frame, under the writer's lock; `None` if nothing is
/// damaged. Everything that is changed or removed is copied first; then a [`Mark`] says what the log has lost, unless that is
/// nothing. After an error or a stop in the middle it has to be called again, and an opening is refused until then: what it
/// wrote can be in the cache only.
///
/// # Errors
/// See [`RepairError`].
pub fn truncate(directory: impl AsRef<Path>) -> Result<Option<Truncation>, RepairError> {
    truncate_on(&*kontiki_disk::real(), directory)
}

/// As [`truncate`], on `disk`.
///
/// # Errors
/// As for [`truncate`].
pub fn truncate_on(
    disk: &dyn Disk,
    directory: impl AsRef<Path>,
) -> Result<Option<Truncation>, RepairError> {
    let path = directory.as_ref();
    // Opening it for writing would make one that is not there.
    open_unlocked(disk, path)?;
    let directory = lock(disk, path)?;
    let truncated = truncate_locked(disk, &*directory).map_err(|error| {
        match (error, Mark::read(&*directory)) {
            // To do it again would end the same way.
            (error @ RepairError::NoCut { .. }, _) => error,
            (error, Ok(Some(Mark { stage: Stage::Cutting, .. }))) => {
                RepairError::Unfinished { source: Box::new(error) }
            }
            (error, _) => error,
        }
    })?;
    if let Some(Truncation { cut, changed, removed, backup, .. }) = &truncated {
        let (directory, backup) = (path.display(), backup.display());
        let lsn = cut.as_ref().map(|cut| cut.lsn.0);
        let (changed, removed) = (changed.len(), removed.len());
        tracing::warn!(%directory, lsn, changed, removed, %backup, "cut or mended in place");
    }
    Ok(truncated)
}

fn truncate_locked(
    disk: &dyn Disk,
    directory: &dyn Directory,
) -> Result<Option<Truncation>, RepairError> {
    let before = Mark::of_repairable(directory)?;
    let survey = Survey::of(directory)?;
    if survey.damage.is_empty() {
        // A cut that was stopped at its end can be in the cache only.
        write_again(&survey)?;
        sync(directory)?;
        if let Some(mark) = before.filter(|mark| mark.stage == Stage::Cutting) {
            mark.finish(directory)?;
        }
        return Ok(None);
    }
    let (plan, logs) = plan(&survey)?.map_err(|reason| RepairError::NoCut { reason })?;
    let contents = Contents::of(&survey, Some(&plan))?;
    let truncation = contents.truncation(&plan, &logs, backup::place(disk, directory)?);
    let names = [&truncation.changed[..], &truncation.removed].concat();
    let not_begun = |source| {
        let backup = truncation.backup.clone();
        RepairError::NotBegun { backup, source: Box::new(source) }
    };
    let losses = mark::losses_of_cut(&truncation, &unknown(&survey)?);
    let backup = backup::make(disk, directory, &truncation.backup, &names).map_err(not_begun)?;
    let mark = Mark::begin(directory, Stage::Cutting, before, losses)
        .inspect_err(|_| backup::remove(&*backup))
        .map_err(not_begun)?;
    write_again(&survey)?;
    plan.perform(&survey, directory, &*backup)?;
    if !settle(directory, Depth::All(Effort::default()))?.damage.is_empty() {
        return Err(RepairError::NotWhole { directory: directory.path().display().to_string() });
    }
    mark.finish(directory)?;
    Ok(Some(truncation))
}

/// Writes what can be read of the log in `directory` of the real disk into a new log in `into`, which is not there or empty:
/// of each log its newest whole state, and its entries with their terms, from the first index up to the first that is lost.
/// The owner is the same, the uuid another. Changes nothing in `directory`. All is durable when this returns; after an error
/// nothing is left in `into`, as far as the disk takes that, and what a stop left there is not opened: remove it. A [`Mark`] says what the new log lacks, unless that is nothing.
///
/// # Errors
/// See [`RepairError`].
pub fn salvage(
    directory: impl AsRef<Path>,
    into: impl AsRef<Path>,
) -> Result<Salvaged, RepairError> {
    salvage_on(&kontiki_disk::real(), directory, into)
}

/// As [`salvage`], on `disk`.
///
/// # Errors
/// As for [`salvage`].
pub fn salvage_on(
    disk: &Arc<dyn Disk>,
    directory: impl AsRef<Path>,
    into: impl AsRef<Path>,
) -> Result<Salvaged, RepairError> {
    let directory = open_unlocked(&**disk, directory.as_ref())?;
    let before = Mark::of_repairable(&*directory)?;
    let survey = Survey::of(&*directory)?;
    let logs = Contents::of(&survey, None)?.salvage();
    let is_end_known = survey.is_end_known();
    let original = directory.path();
    let losses = mark::losses_of_salvage(original, &logs, is_end_known, &unknown(&survey)?);
    let new = new_log::create(disk, into.as_ref(), &survey)?;
    let write = || -> Result<(), RepairError> {
        let mark = Mark::begin(&*new, Stage::Salvaging, before, losses)?;
        // Its one writer is the new log's.
        drop(new);
        let written = new_log::write(&survey, disk, into.as_ref())?;
        check_unlocked(&*directory)?;
        // What is told was read before: a writer that came and went since then can have used the files again.
        let is_told =
            |log: &LogOutcome| written.get(&log.log).copied().unwrap_or(0) == log.kept_count();
        if !logs.iter().all(is_told) {
            return Err(RepairError::Changed { directory: original.display().to_string() });
        }
        Ok(mark.finish(&*lock(&**disk, into.as_ref())?)?)
    };
    write().inspect_err(|_| new_log::remove(&**disk, into.as_ref()))?;
    let harmed = logs.iter().filter(|log| !log.is_unharmed()).count();
    let (directory, into, logs_count) = (original.display(), into.as_ref().display(), logs.len());
    tracing::warn!(%directory, %into, logs = logs_count, harmed, "salvaged");
    Ok(Salvaged { logs, is_end_known })
}

/// File names of the segments of which nothing is known.
fn unknown(survey: &Survey) -> Result<Vec<String>, OpenError> {
    Ok(survey.unknown()?.into_iter().map(file_name).collect())
}

fn open_unlocked(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn Directory>, OpenError> {
    let opened = disk.open_directory(path, Access::Read);
    let directory =
        opened.map_err(|source| io_error("open", &path.display().to_string(), source))?;
    check_unlocked(&*directory)?;
    Ok(directory)
}

/// What a writer has under way looks like damage, and what it frees like a loss.
fn check_unlocked(directory: &dyn Directory) -> Result<(), OpenError> {
    let path = directory.path().display().to_string();
    match directory.is_locked() {
        Ok(true) => Err(OpenError::Locked { directory: path, holder: directory.lock_holder() }),
        Ok(false) => Ok(()),
        Err(source) => Err(io_error("look for the lock of", &path, source)),
    }
}

/// The cut, and the logs after it; `Err` in the inner result says why there is none.
type Planned = Result<(Plan, BTreeMap<LogId, Bounds>), String>;

fn plan(survey: &Survey) -> Result<Planned, OpenError> {
    let plan = match Plan::of(survey)? {
        Ok(plan) => plan,
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(match plan.judge(survey) {
        Ok(catalog) => {
            let bounds = |log| (log, catalog.bounds(log).into_owned());
            let logs = catalog.logs().map(bounds).collect();
            Ok((plan, logs))
        }
        Err(error @ (OpenError::Io { .. } | OpenError::TooManyFiles { .. })) => return Err(error),
        Err(OpenError::MissingSegment { missing, .. }) => Err(format!(
            "what lies before the damage needs segment {missing}, which was freed later, or is lost"
        )),
        Err(error) => Err(format!("what lies before the damage cannot stand alone: {error}")),
    })
}
