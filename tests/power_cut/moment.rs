//! The moments at which the power is cut, and what is written back before.

use std::{path::Path, thread, time::Duration};

use crate::{
    files::{
        files, hold_in_single_pages, is_being_reused, number, write_back, write_back_anywhere,
    },
    group::Group,
    lines::Random,
    volume::Cutter,
    writer::Writer,
};

/// When the power is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// Any time after the writer's start, recovery included.
    Opening,
    /// While lines flow.
    Flowing,
    /// A group is written and its sync has not begun.
    Unsynced,
    /// A freed file has the header of the segment that it is going to be, and not yet its name.
    Reuse,
}

impl Moment {
    /// Waits for the moment and cuts the power; the group that was not synced, if it is one of those.
    pub(crate) fn cut(
        self,
        cutter: Cutter,
        writer: &mut Writer,
        directory: &Path,
        random: &mut Random,
    ) -> Option<Group> {
        match self {
            Self::Opening => cut_at_any_time(cutter, directory, random),
            Self::Flowing => {
                writer.wait_until_printed(random.below(4000));
                cut_at_any_time(cutter, directory, random);
            }
            Self::Unsynced => {
                writer.wait_until_printed(1 + random.below(2000));
                return Some(cut_when_unsynced(cutter, writer, directory, random));
            }
            Self::Reuse => {
                writer.wait_until_printed(1 + random.below(2000));
                cut_when_reused(cutter, writer, directory, random);
            }
        }
        None
    }
}

/// Writes back and cuts while the writer is at work.
fn cut_at_any_time(cutter: Cutter, directory: &Path, random: &mut Random) {
    // No event to wait for: the moment itself is what is drawn.
    for _ in 0..random.below(10) {
        thread::sleep(Duration::from_micros(random.below(10_000)));
        write_back_anywhere(directory, random);
    }
    cutter.cut();
}

fn cut_when_unsynced(
    mut cutter: Cutter,
    writer: &mut Writer,
    directory: &Path,
    random: &mut Random,
) -> Group {
    let mut single_until = 0;
    freeze_when(writer, random, || {
        let segments = files(directory, "wal");
        for segment in segments.iter().filter(|segment| number(segment) > single_until) {
            hold_in_single_pages(segment);
        }
        single_until = segments.last().map_or(0, |segment| number(segment));
        segments.iter().any(|segment| cutter.dirty_pages(segment) > 0)
    });
    let group = Group::newest(directory);
    group.write_back_some(random);
    write_back_anywhere(directory, random);
    cutter.cut();
    writer.thaw();
    group
}

fn cut_when_reused(cutter: Cutter, writer: &mut Writer, directory: &Path, random: &mut Random) {
    freeze_when(writer, random, || {
        files(directory, "spare").iter().any(|spare| is_being_reused(spare))
    });
    // The header may be all that is on the disk, or it may not be there at all.
    if random.below(2) == 0 {
        files(directory, "spare").iter().for_each(|spare| write_back(spare, 0, 1));
    }
    cutter.cut();
    writer.thaw();
}

/// Stops the writer at one moment after the other, until it is one of those that are looked for.
fn freeze_when(writer: &mut Writer, random: &mut Random, mut is_it: impl FnMut() -> bool) {
    for _ in 0..FREEZES_MAX {
        writer.freeze();
        if is_it() {
            return;
        }
        writer.thaw();
        thread::sleep(Duration::from_micros(random.below(1000)));
    }
    // Such a moment did not come: any other will do. The tally tells whether they come at all.
    writer.freeze();
}

/// One stop in twenty meets a moment that is looked for, as a rule.
const FREEZES_MAX: usize = 1000;
