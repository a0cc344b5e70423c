//! Writing what is left of a log into a new one.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

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
/// read. It is durable and closed when this returns.
pub(super) fn write(survey: &Survey, disk: &Arc<dyn Disk>, into: &Path) -> Result<(), RepairError> {
    let wal = begin(survey, disk, into)?;
    let mut logs = BTreeMap::new();
    for (id, bounds) in survey.logs() {
        logs.insert(id, Salvaged::begin(&wal, id, &bounds)?);
    }
    survey.visit(|found| match logs.get_mut(&found.frame.log) {
        Some(log) => log.append(&wal, found),
        None => Ok(()),
    })?;
    drop(logs);
    wal.close().map_err(AppendError::Wal)?;
    drop(wal);
    match Scan::open_on(&**disk, into)?.verdict() {
        Verdict::Whole { closed: true, .. } => Ok(()),
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
    let directory = into.display().to_string();
    match disk.open_directory(into, Access::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        opened => {
            let failed = |source| io_error("open", &directory, source);
            if !opened.and_then(|there| there.list()).map_err(failed)?.is_empty() {
                return Err(RepairError::NotEmpty { directory });
            }
        }
    }
    if survey.newest.is_none() {
        return Err(RepairError::NothingLeft);
    }
    Ok(lock(&**disk, into)?)
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
