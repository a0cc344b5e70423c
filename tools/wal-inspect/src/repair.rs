//! `repair`: what can be done about a damaged log and what each way loses; does it only if told to.

mod report;

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf, absolute},
};

use clap::Args;
use kontiki_wal::repair::{self, Diagnosis, RepairError, Salvaged};
use rustix::{fs::Mode, process::umask};

use self::report::{Done, Report, Way};
use crate::{
    look::{is_no_log, log_directory, no_log},
    outcome::{Failure, Outcome},
    progress, terminal,
};

pub(crate) const HELP: &str = "\
Without --truncate-tail and --salvage nothing is changed: it says what is damaged, and for each way
what it would keep and lose. A torn tail, as a crash leaves it, is no damage: opening the log cuts
it. What only verify --deep finds, a log that contradicts itself, is not looked for and not mended.
All need the log to themselves: stop its writer first.

A sector that the disk cannot read (EIO) ends it, and verify, too. Copy the whole directory to
another disk first, with ddrescue or a like tool that leaves zeros for what cannot be read, each
file at its full length, and repair the copy.

  --truncate-tail --yes   cuts the log in place at the first damaged frame; all behind that goes, of
                          every log. Every file that it changes or removes is first copied into a
                          new directory beside the log's, DIR.backup-1, -2 and so on, which takes as
                          much room again; its BACKUP.txt says how to put them back. If only what
                          tells of frames is damaged (a segment's index or trailer), no frame goes.
                          Not possible where segments were freed behind the damage: what lies before
                          it needs them. When it failed or was stopped in the middle, do it again before
                          the log is opened; that makes another backup, of files that can be half
                          cut: its BACKUP.txt names the older one, which undoes all
  --salvage NEW_DIR       leaves the log alone, and writes a new one: of each log its newest whole
                          state, and its entries and their terms from the first index up to the
                          first that is lost. NEW_DIR must be empty or not there; while it is being
                          written it has .unfinished behind its name. It belongs to the same owner
                          (the same node may open it) and has another uuid (no file of the one is
                          taken for one of the other). A node has its log in wal below its data
                          directory, so NEW_DIR is then DATA/wal

A replicated node must not be started from either if its line says so. It has forgotten a vote, a
term or entries that it has acknowledged, and can break what the cluster has promised: two leaders
in one term, or a committed entry overruled. While a majority of its peers is healthy, they have
all that was committed: leave the node off, keep its directory, and replace it by a new member
with an empty directory. (This version cannot change members yet; until then the others go on
without it.) Where no majority is left, what is salvaged may be the newest copy there is: look
into it with dump and diff.

Examples, with the data directory of a node or the log's own:
  wal-inspect repair data/1                         what is damaged, and what could be done
  wal-inspect repair data/1 --salvage salvaged/wal  a new log of what can be read
  wal-inspect repair data/1 --truncate-tail --yes   cut at the damage, in place, with a backup
  wal-inspect repair data/1 --json | jq 'select(.row == \"log\" and .unharmed == false)'

JSON, a line for each row; what there is nothing of is left out:
  damage    segment, offset, log, first_index, last_index, term, what: as verify tells it
  unknown   segment: of which nothing can be told
  way       way (truncate-tail or salvage); done (false in a dry run), possible, reason (why it is
            not); cut (segment, offset, lsn), changed, removed, backup; directory (of what was
            salvaged); end_known (false: the log went on behind what can be told)
  log       what becomes of a log that way: way, log, unharmed; kept, lost (damaged or missing),
            left_out (whole, but behind the cut or the loss), returning (truncated, replaced or
            compacted behind a cut): lists of first_index, last_index, term; unknown (between
            these, and nothing of them can be read): the same without term; may_be_replaced (in
            what is lost, entries that are kept can have been replaced under their own term; not
            in a log of Raft); state (none, kept, may_be_older, older or lost); promise (term and
            vote of a Raft node with that state); dangerous (such a node must not be
            started; also if no state can be read that shows whether it is a node's, and the
            log has an owner, as a node's has)

Exit codes: 0 nothing to repair, or repaired; 2 corrupt (dry run); 3 cannot: no such log, a writer
is there, this way is not possible, or the disk refuses; 4 usage.";

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
        (Some(new), _) => (salvage(&directory, new)?, Outcome::Whole),
        (None, true) => (truncate(&directory)?, Outcome::Whole),
        (None, false) => {
            let diagnosis = progress::watched(&directory, || Diagnosis::of(&directory))?;
            let is_whole = diagnosis.damage.is_empty();
            let outcome = if is_whole { Outcome::Whole } else { Outcome::Corrupt };
            (Report::of_diagnosis(&diagnosis), outcome)
        }
    };
    terminal::print(&if arguments.json { report.json()? } else { report.text() })?;
    Ok(outcome)
}

/// What is made from here on can be read by nobody who could not read the log.
fn keep_private(directory: &Path) -> Result<(), Failure> {
    let mode = fs::metadata(directory)?.mode();
    let held_back = Mode::from_raw_mode(!mode & 0o777);
    umask(umask(Mode::empty()) | held_back);
    Ok(())
}

fn truncate(directory: &Path) -> Result<Report, Failure> {
    let truncated = progress::watched(directory, || repair::truncate(directory))?;
    Ok(truncated.map_or_else(Report::default, |truncation| {
        Report::of_done(Way::of_truncation(&truncation, Done::Yes))
    }))
}

fn salvage(directory: &Path, new: &Path) -> Result<Report, Failure> {
    if absolute(new)?.starts_with(absolute(directory)?) {
        let (new, directory) = (new.display(), directory.display());
        let line = format!("{new} lies in {directory}, which is to be left alone");
        return Err(Failure::Repair(line));
    }
    let salvaged = progress::watched(directory, || write_salvaged(directory, new))?;
    Ok(Report::of_done(Way::of_salvage(&salvaged.logs, salvaged.is_end_known, Some(new))))
}

/// Under another name until it is whole and durable: what a stop leaves is never taken for the whole.
fn write_salvaged(directory: &Path, new: &Path) -> Result<Salvaged, Failure> {
    match fs::read_dir(new).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(true) => return Err(not_empty(new)),
        Err(error) => return Err(disk_refuses("read", new, &error)),
    }
    // So that it has a name even where it is given as a dot.
    let new = &absolute(new)?;
    let mut name = new.file_name().map(OsString::from).unwrap_or_default();
    name.push(".unfinished");
    let unfinished = new.with_file_name(name);
    let salvaged = repair::salvage(directory, &unfinished)?;
    fs::rename(&unfinished, new).map_err(|error| disk_refuses("rename to", new, &error))?;
    let parent = new.parent().unwrap_or(new);
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|error| disk_refuses("sync", parent, &error))?;
    Ok(salvaged)
}

fn disk_refuses(operation: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Repair(format!("{operation} {}: {error}", path.display()))
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
            error => Self::Repair(error.to_string()),
        }
    }
}
