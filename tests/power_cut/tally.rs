//! What a run of cuts has met, so that one that met nothing does not pass.

use std::{fmt, path::Path};

use crate::{
    files::{files, is_being_reused, is_recycled},
    log::is_mapped,
};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Lines that were printed.
    pub(crate) lines: u64,
    /// Segments that came after another one.
    pub(crate) rotations: u64,
    /// Cuts that left frames behind the end of the log.
    pub(crate) torn_tails: u64,
    /// Cuts after which a part of a group that was not synced was on the disk.
    pub(crate) torn_groups: u64,
    /// Cuts that left a segment in a used file, not full yet.
    recycled: u64,
    /// Cuts that left a used file with its new header and not its new name.
    reused: u64,
}

impl Tally {
    /// Looks at what a cut has left; nothing has written since.
    pub(crate) fn look_at(&mut self, directory: &Path) {
        let (segments, spares) = (files(directory, "wal"), files(directory, "spare"));
        self.recycled += u64::from(segments.iter().any(|segment| is_recycled(segment)));
        self.reused += u64::from(spares.iter().any(|spare| is_being_reused(spare)));
    }

    pub(crate) fn check(&self, cuts: u64, seed: u64) {
        assert!(self.lines > 100 * cuts, "seed {seed}: cut too early: {self}");
        assert!(self.rotations > cuts, "seed {seed}: too few changes of segment: {self}");
        assert!(self.recycled > 0, "seed {seed}: no file was used again: {self}");
        assert!(self.reused > 0, "seed {seed}: no cut came while a file was reused: {self}");
        // Seldom so with stores into maps: a page that is mapped cannot be dropped alone, and a store dirties a whole folio.
        if is_mapped() {
            return;
        }
        assert!(self.torn_groups > 0, "seed {seed}: nothing unsynced was on the disk: {self}");
        assert!(self.torn_tails > 0, "seed {seed}: no frame was there without its elders: {self}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, rotations, torn_tails, torn_groups, recycled, reused } = self;
        write!(
            f,
            "{lines} lines printed, {rotations} changes of segment; {torn_groups} cuts left a part of \
             an unsynced group, {torn_tails} a torn tail, {recycled} a segment in a recycled file, \
             {reused} a file on its way to be one"
        )
    }
}
