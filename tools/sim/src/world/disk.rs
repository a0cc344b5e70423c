//! What a host's disk holds, whoever runs on it, and how it rots.

use std::path::{Path, PathBuf};

use kontiki_disk::{Access, Disk};
use kontiki_wal::inspect::{Scan, Verdict};

use crate::world::host::{DIRECTORY, Host, LOG};

impl Host {
    /// A bit flips in a segment that is full: what is newer can be what a crash leaves.
    pub(super) fn rot(&mut self, draw: u64) -> bool {
        let directory = log_directory();
        let Ok(opened) = self.disk.open_directory(&directory, Access::Read) else { return false };
        let mut names: Vec<(String, u64)> = opened.list().unwrap_or_default();
        names.retain(|(name, _)| name.ends_with(".wal"));
        names.truncate(names.len().saturating_sub(2));
        if names.is_empty() {
            return false;
        }
        let (name, bytes) = &names[usize::try_from(draw % names.len() as u64).expect("a few")];
        // The header page in a quarter of all cases: that is what an opening looks at.
        let offset =
            if draw.is_multiple_of(4) { draw / 7 % 128 } else { 4096 + draw / 7 % (bytes - 4096) };
        self.disk.corrupt(directory.join(name), offset, 1 << (draw % 8));
        self.is_rotten = true;
        true
    }

    /// What the last power cut has left ends in a part of a group.
    pub(super) fn is_torn(&self) -> bool {
        let scan = Scan::open_on(&self.disk, log_directory());
        scan.is_ok_and(|scan| matches!(scan.verdict(), Verdict::TornTail { .. }))
    }

    /// The terms of the entries, from index 1, that are there after a power cut now that keeps nothing that was not synced; an error
    /// where the log that is left is damaged.
    pub(super) fn durable_terms(&self) -> Result<Vec<u64>, String> {
        let image = self.disk.image(|_| false);
        if image.open_directory(&log_directory(), Access::Read).is_err() {
            return Ok(Vec::new());
        }
        let scan = Scan::open_on(&image, log_directory()).map_err(|error| error.to_string())?;
        if let Verdict::Corrupt(corruptions) = scan.verdict() {
            return Err(format!("{corruptions:?}"));
        }
        let bounds = scan.logs().into_iter().find(|(log, _)| *log == LOG);
        let Some((_, bounds)) = bounds else { return Ok(Vec::new()) };
        let ends = bounds.runs().iter().skip(1).map(|run| run.0).chain([bounds.last + 1]);
        let runs = bounds.runs().iter().zip(ends);
        Ok(runs.flat_map(|(&(first, term), end)| (first..end).map(move |_| term)).collect())
    }
}

fn log_directory() -> PathBuf {
    Path::new(DIRECTORY).join("wal")
}
