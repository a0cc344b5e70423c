//! Writing what is left of a log into a new one.

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use kontiki_disk::{Access, Directory, Disk};

use crate::{
    AppendError, Bounds, Log, LogId, OpenError, Pending, Wal,
    inspect::{Scan, Verdict},
    recovery::{lock, scan::io_error},
    repair::{
        Mark, RepairError,
        survey::{LiveFrame, Prefix, Survey},
    },
};

/// Writes the log that `survey` found into `into`: of each log its state, and its entries up to the first that cannot be
/// read; how many these are. It is durable and closed when this returns.
pub(super) fn write(
    survey: &Survey,
    disk: &Arc<dyn Disk>,
    into: &Path,
) -> Result<BTreeMap<LogId, u64>, RepairError> {
    let wal = begin(survey, disk, into)?;
    let mut logs = BTreeMap::new();
    for (id, bounds) in survey.logs() {
        logs.insert(id, Salvaged::begin(&wal, id, &bounds)?);
    }
    survey.visit(|found| match logs.get_mut(&found.frame.log) {
        Some(log) => log.append(&wal, found),
        None => Ok(()),
    })?;
    let count = |log: Salvaged| log.written.indexes().end - log.written.indexes().start;
    let written = logs.into_iter().map(|(id, log)| (id, count(log))).collect();
    wal.close().map_err(AppendError::Wal)?;
    drop(wal);
    match Scan::open_on(&**disk, into)?.verdict() {
        Verdict::Whole { closed: true, .. } => Ok(written),
        Verdict::Corrupt(damage) if !damage.is_empty() => {
            Err(OpenError::Corruption(damage[0].clone()).into())
        }
        _ => Err(RepairError::NotWhole { directory: into.display().to_string() }),
    }
}

/// The directory of the new log, if there is anything to write into it.
pub(super) fn create(
    disk: &Arc<dyn Disk>,
    into: &Path,
    survey: &Survey,
) -> Result<Arc<dyn Directory>, RepairError> {
    match disk.open_directory(into, Access::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => check_empty(into, opened)?,
    }
    if survey.newest.is_none() {
        return Err(RepairError::NothingLeft);
    }
    let locked = lock(&**disk, into)?;
    // Somebody else can have begun and ended in between.
    check_empty(into, Ok(Arc::clone(&locked)))?;
    Ok(locked)
}

fn check_empty(into: &Path, opened: io::Result<Arc<dyn Directory>>) -> Result<(), RepairError> {
    let directory = into.display().to_string();
    let files = opened.and_then(|there| there.list());
    match files.map_err(|source| io_error("open", &directory, source))?.is_empty() {
        true => Ok(()),
        false => Err(RepairError::NotEmpty { directory }),
    }
}

/// Takes away what an error has left, the mark last: without it the rest looks like a log. What cannot be removed stays.
pub(super) fn remove(disk: &dyn Disk, into: &Path) {
    let Ok(directory) = lock(disk, into) else { return };
    let names = directory.list().unwrap_or_default();
    let mut is_all_gone = true;
    for (name, _) in names.iter().filter(|(name, _)| name != Mark::FILE) {
        is_all_gone &= directory.remove(name).is_ok();
    }
    if is_all_gone && directory.sync().is_ok() {
        let _gone = directory.remove(Mark::FILE);
    }
}

/// An empty log for all that the other one can hold. It has another uuid: its segments have the same numbers, and a file of
/// the one among those of the other must be refused. The owner is the same, for it is the same node's.
fn begin(survey: &Survey, disk: &Arc<dyn Disk>, into: &Path) -> Result<Wal, RepairError> {
    let headers = survey.files.iter().map(|file| &file.header);
    let segment_bytes = headers.map(|header| header.segment_bytes).max();
    let (Some(segment_bytes), Some(newest)) = (segment_bytes, survey.newest) else {
        return Err(RepairError::NothingLeft);
    };
    let owner = survey.files[newest].header.owner;
    let mut options = Wal::options().segment_bytes(segment_bytes).owner(owner);
    options.ignores_mark = true;
    Ok(options.disk(Arc::clone(disk)).without_threads().open(into)?)
}

/// One log of the new one.
struct Salvaged {
    log: Log,
    written: Prefix,
}

impl Salvaged {
    fn begin(wal: &Wal, id: LogId, bounds: &Bounds) -> Result<Self, RepairError> {
        let log = wal.log(id).map_err(AppendError::Wal)?;
        if (bounds.first, bounds.term_before) != (1, 0) {
            persist(wal, || log.reset(bounds.first, bounds.term_before))?;
        }
        if let Some(state) = &bounds.state {
            persist(wal, || log.set_state(state.clone()))?;
        }
        Ok(Self { log, written: Prefix::new(bounds.first) })
    }

    /// Appends the entries of a frame if they can follow.
    fn append(&mut self, wal: &Wal, found: &LiveFrame) -> Result<(), RepairError> {
        let Some(indexes) = self.written.take(found) else { return Ok(()) };
        let entries = found.frame.entries().into_iter();
        let entries: Vec<Bytes> =
            entries.filter(|entry| indexes.contains(&entry.0)).map(|(_, bytes)| bytes).collect();
        persist(wal, || self.log.append(indexes.start, found.frame.term, &entries))
    }
}

/// Appends, as soon as there is room; what is appended becomes durable together.
fn persist(
    wal: &Wal,
    mut append: impl FnMut() -> Result<Pending, AppendError>,
) -> Result<(), RepairError> {
    loop {
        match append() {
            Ok(_) => return Ok(()),
            // Then there is something to do: a group to sync, or the next segment to prepare.
            Err(AppendError::Full { .. }) if wal.work(Duration::ZERO) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
