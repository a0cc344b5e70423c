//! `repair`: what can be done about a damaged log and what each way loses; does it only if told to.

mod hints;
mod owner;
mod place;
mod report;
mod rows;
mod text;

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::Args;
use kontiki_wal::{
    OpenError,
    repair::{self, Diagnosis, LogOutcome, Mark, RepairError, Salvaged, Stage},
};
use rustix::{fs::Mode, process::umask};

use self::{
    owner::Owners,
    place::{beside, disk_refuses, remove_emptied},
    report::Report,
    rows::{Done, Way},
};
use crate::{
    look::{is_no_log, log_directory, no_log},
    outcome::{Failure, Outcome},
    progress, terminal,
};

pub(crate) const HELP: &str = "\
Without --truncate-tail and --salvage nothing is changed: it says what is damaged, and for each way \
what it would keep and lose. A torn tail, as a crash leaves it, is no damage: opening the log cuts \
it. What only verify --deep finds, a log that contradicts itself, is not looked for and not mended. \
All need the log to themselves: stop its writer first.

A sector that the disk cannot read (EIO) ends it, and verify, too. Copy the whole directory to \
another disk first, with ddrescue or a like tool that leaves zeros for what cannot be read, each \
file at its full length, and repair the copy.

  --truncate-tail --yes   cuts the log in place at the first damaged frame; all behind that goes, of
                          every log. Every file that it changes or removes is first copied into a
                          new directory beside the log's, DIR.backup-1, -2 and so on, which takes as
                          much room again; its BACKUP.txt says how to put them back. If only what
                          tells of frames is damaged (a segment's index or trailer), no frame goes.
                          Not possible where segments were freed behind the damage: what lies before
                          it needs them. When it failed or was stopped in the middle, do it again:
                          the log is not opened before; that makes another backup, of files that can
                          be half cut: its BACKUP.txt names the older one, which undoes all
  --salvage NEW_DIR       leaves the log alone, and writes a new one: of each log its newest whole
                          state, and its entries and their terms from the first index up to the
                          first that is lost, or that lies behind a damaged header: nothing tells
                          what else was behind that, and could have replaced some. NEW_DIR must be
                          empty or not there; while it is being written it has .unfinished behind
                          its name. It belongs to the same owner (the same node may open it) and
                          has another uuid (no file of the one is taken for one of the other). A
                          node has its log in wal below its data directory, so NEW_DIR is then
                          DATA/wal

What is made belongs to the user and the group of the log, as far as this process may give it away.

A log that either way takes something from is marked: the file REPAIR in its directory says what is \
lost, and is there before the first byte goes. Such a log opens, but no node of Kontiki starts from \
it: it can have forgotten a vote, a term or entries that it has acknowledged, and could break what \
the cluster has promised: two leaders in one term, or a committed entry overruled. While a majority \
of its peers is healthy, they have all that was committed: leave the node off, keep its directory, \
and replace it by a new member with an empty directory. (This version cannot change members yet; \
until then the others go on without it.) Where no majority is left, what is salvaged may be the \
newest copy there is: look into it with dump and diff. Remove the file, at your own risk, if nothing \
that was acknowledged is lost, or if no peer relies on the node any more.

Examples, with the data directory of a node or the log's own:
  wal-inspect repair data/1                         what is damaged, and what could be done
  wal-inspect repair data/1 --salvage salvaged/wal  a new log of what can be read
  wal-inspect repair data/1 --truncate-tail --yes   cut at the damage, in place, with a backup
  wal-inspect repair data/1 --json | jq 'select(.row == \"log\" and .unharmed == false)'

JSON, a line for each row; what there is nothing of is left out:
  healthy   nothing to repair; ended (true: a cut that was begun before is ended now)
  mark      what earlier repairs left: stage (done; cutting: do it again), losses: a text for each
  damage    segment, file, offset, log, first_index, last_index, term, what, expected, found: as
            verify tells it, but for lsn
  unknown   segment, file: of which nothing can be told
  way       way (truncate-tail or salvage); done (false in a dry run), possible, reason (why it is
            not); cut (segment, file, offset, lsn), changed, removed, backup; mark (the file that
            says, or would say, what is lost, and keeps a node from starting; none if nothing is);
            directory (of what was salvaged); end_known (false: the log went on behind all that can
            be told)
  log       what becomes of a log that way: way, log, unharmed; kept, lost (damaged or missing),
            left_out (whole, but behind the cut or the loss), returning (truncated, replaced or
            compacted behind a cut): lists of first_index, last_index, term; unknown (between
            these, and nothing of them can be read): the same without term; may_be_replaced (in
            what is lost, entries that are kept can have been replaced under their own term; not
            in a log of Raft); state (none, kept, may_be_older, older or lost); promise (term and
            vote of a Raft node with that state); dangerous (such a node must not be
            started; also if no state can be read that shows whether it is a node's, and the
            log has an owner, as a node's has)

Exit codes: 0 nothing to repair, or repaired; 2 corrupt, or begun and not ended (dry run), what is \
left of a salvage that was not ended, or salvaged, but nothing is left of a log that had entries; 3 cannot: no such log, a writer is there, this way is not possible, or \
the disk refuses; 4 usage.";

/// How many times a diagnosis reads a damaged log, about; what is done then reads what it wrote.
const LOOKS: u64 = 5;

#[derive(Debug, Args)]
pub(crate) struct RepairArguments {
    /// Directory of the log, or the data directory of a node, which has it in wal below it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Cut the log at the first damaged frame, in place, after a backup.
    #[arg(long, requires = "yes", conflicts_with = "salvage")]
    truncate_tail: bool,
    /// What the dry run says is lost may go.
    #[arg(long, requires = "truncate_tail", conflicts_with = "salvage")]
    yes: bool,
    /// Write what can be read into a new log in this directory.
    #[arg(long, value_name = "NEW_DIR")]
    salvage: Option<PathBuf>,
    /// Print JSON objects, one a line, instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn repair(arguments: &RepairArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    if is_no_log(&directory) {
        return Err(no_log(&directory));
    }
    keep_private(&directory)?;
    let (report, outcome) = match (&arguments.salvage, arguments.truncate_tail) {
        (Some(new), _) => salvage(&directory, new)?,
        (None, true) => (truncate(&directory)?, Outcome::Whole),
        (None, false) => {
            let diagnosis =
                progress::watched_times(LOOKS, &directory, || Diagnosis::of(&directory))?;
            let is_begun = diagnosis.mark.as_ref().is_some_and(|mark| mark.stage != Stage::Done);
            let is_whole = diagnosis.damage.is_empty() && !is_begun;
            let outcome = if is_whole { Outcome::Whole } else { Outcome::Corrupt };
            (Report::of_diagnosis(&diagnosis, &directory), outcome)
        }
    };
    terminal::print(&if arguments.json { report.json()? } else { report.text() })?;
    Ok(outcome)
}

/// What is made from here on can be read by nobody who could not read the log.
fn keep_private(directory: &Path) -> Result<(), Failure> {
    let metadata =
        fs::metadata(directory).map_err(|error| disk_refuses("open", directory, &error))?;
    let mode = metadata.mode();
    let held_back = Mode::from_raw_mode(!mode & 0o777);
    umask(umask(Mode::empty()) | held_back);
    Ok(())
}

fn truncate(directory: &Path) -> Result<Report, Failure> {
    let owners = Owners::of(directory)?;
    let before = Mark::of(directory)?;
    let truncated = progress::watched_times(LOOKS + 1, directory, || repair::truncate(directory));
    // Also after an error: the writer has to be able to read what keeps it from the log.
    owners.take_log(directory);
    let Some(truncation) = truncated? else {
        return Ok(Report::of_nothing_cut(before, Mark::of(directory)?));
    };
    owners.take(&truncation.backup);
    let way = Way::of_truncation(&truncation, Done::Yes);
    Ok(Report::of_done(way.with_mark(left_mark(directory)?)))
}

/// Where a repair says what the log in `directory` has lost, if it has.
fn left_mark(directory: &Path) -> Result<Option<PathBuf>, Failure> {
    Ok(Mark::of(directory)?.map(|_| directory.join(Mark::FILE)))
}

fn salvage(directory: &Path, new: &Path) -> Result<(Report, Outcome), Failure> {
    let place = beside(directory, new)?;
    let salvaged =
        progress::watched_times(LOOKS + 1, directory, || write_salvaged(directory, &place))?;
    let outcome = warn_of_nothing(directory, &salvaged.logs);
    let way = Way::of_salvage(&salvaged.logs, salvaged.is_end_known, Some(new));
    Ok((Report::of_done(way.with_mark(left_mark(new)?)), outcome))
}

/// Names on standard error the logs that had entries and keep none.
fn warn_of_nothing(directory: &Path, logs: &[LogOutcome]) -> Outcome {
    let had_some = |log: &&LogOutcome| !log.lost.is_empty() || !log.left_out.is_empty();
    let mut outcome = Outcome::Whole;
    for log in logs.iter().filter(|log| log.kept.is_empty()).filter(had_some) {
        outcome = Outcome::Corrupt;
        let (number, directory) = (log.log.0, directory.display());
        let line = format!(
            "log {number}: NO ENTRY IS SALVAGED, its first one is lost; `wal-inspect dump {directory} --log \
             {number}` shows what can be read"
        );
        let _unheard = writeln!(io::stderr(), "wal-inspect: {line}");
    }
    outcome
}

/// Under another name until it is whole and durable: what a stop leaves is never taken for the whole.
fn write_salvaged(directory: &Path, new: &Path) -> Result<Salvaged, Failure> {
    match fs::read_dir(new).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(true) => return Err(not_empty(new)),
        Err(error) => return Err(disk_refuses("read", new, &error)),
    }
    let mut name = new.file_name().map(OsString::from).unwrap_or_default();
    name.push(".unfinished");
    let unfinished = new.with_file_name(name);
    let owners = Owners::of(directory)?;
    let salvaged = match repair::salvage(directory, &unfinished) {
        Ok(salvaged) => salvaged,
        Err(error @ RepairError::NotEmpty { .. }) => return Err(error.into()),
        Err(error) if is_in_use(&error, &unfinished) || !unfinished.exists() => {
            return Err(error.into());
        }
        Err(error) => return Err(not_salvaged(error.into(), &unfinished)),
    };
    owners.take(&unfinished);
    fs::rename(&unfinished, new).map_err(|error| {
        let (new, unfinished) = (new.display(), unfinished.display());
        Failure::Repair(format!("rename to {new}: {error}; what is salvaged is in {unfinished}"))
    })?;
    let parent = new.parent().unwrap_or(new);
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|error| disk_refuses("sync", parent, &error))?;
    Ok(salvaged)
}

/// Whether somebody else works in `directory`: then it is left alone.
fn is_in_use(error: &RepairError, directory: &Path) -> bool {
    let RepairError::Open(OpenError::Locked { directory: used, .. }) = error else { return false };
    *used == directory.display().to_string()
}

fn not_salvaged(cause: Failure, unfinished: &Path) -> Failure {
    let left = if remove_emptied(unfinished) {
        "nothing is left of the new one".to_owned()
    } else {
        format!("remove {}", unfinished.display())
    };
    Failure::Repair(format!("{cause}; nothing is changed, {left}"))
}

fn not_empty(directory: &Path) -> Failure {
    RepairError::NotEmpty { directory: directory.display().to_string() }.into()
}

impl From<RepairError> for Failure {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::Open(error) => error.into(),
            RepairError::NotEmpty { directory } => Self::Repair(format!(
                "{directory} is not empty; choose another one, or remove what is in it"
            )),
            error => Self::Repair(match backup_of(&error) {
                Some(backup) if !remove_emptied(backup) => {
                    format!("{error}; remove {}", backup.display())
                }
                Some(_) | None => error.to_string(),
            }),
        }
    }
}

/// The directory of a backup that could not be made, or of which nothing is needed.
fn backup_of(error: &RepairError) -> Option<&Path> {
    match error {
        RepairError::NotBegun { backup, .. } => Some(backup),
        RepairError::Unfinished { source } => backup_of(source),
        _ => None,
    }
}
