//! What a host's disk holds, whoever runs on it, and how it rots.

use std::path::{Path, PathBuf};

use kontiki_core::{Configuration, State};
use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_snapshot::Store;
use kontiki_wal::inspect::{Scan, Verdict};

use crate::{
    random::Random,
    world::{
        host::{DIRECTORY, Host, LOG},
        parameters::pick,
    },
};

/// A bit that has flipped, and the byte that it is in since.
#[derive(Debug)]
pub(super) struct Flip {
    directory: PathBuf,
    name: String,
    offset: u64,
    byte: Option<u8>,
}

impl Flip {
    /// A file that was removed, used again or written anew there is whole again, as soon as that is durable.
    fn is_there(&self, disk: &MemoryDisk) -> bool {
        let is_in = |disk: &MemoryDisk| {
            byte_at(disk, &self.directory, &self.name, self.offset) == self.byte
        };
        self.byte.is_some() && (is_in(disk) || is_in(&disk.image(|_| false)))
    }
}

fn byte_at(disk: &MemoryDisk, directory: &Path, name: &str, offset: u64) -> Option<u8> {
    let mut byte = [0];
    let opened = disk.open_directory(directory, Access::Read).and_then(|opened| opened.open(name));
    opened.and_then(|file| file.read_at(offset, &mut byte)).ok().map(|()| byte[0])
}

impl Host {
    /// A bit flips in a segment that is full, where what is newer can be what a crash leaves; or in an image.
    pub(super) fn rot(&mut self, draw: u64) -> bool {
        // Of its own, so that what is drawn besides stays as it was.
        let mut of_images = Random::new(draw ^ 0x696d_6167);
        if of_images.chance(30) && self.rot_image(&mut of_images) {
            return true;
        }
        let directory = log_directory();
        let mut names = self.files(&directory, ".wal");
        names.truncate(names.len().saturating_sub(2));
        if names.is_empty() {
            return false;
        }
        let mut random = Random::new(draw);
        let (name, bytes) = &names[pick(&mut random, names.len())];
        // The header page in a quarter of all cases: that is what an opening looks at.
        let offset =
            if random.chance(25) { random.below(128) } else { random.between(4096, bytes - 1) };
        self.flip(&directory, name, offset, 1 << random.below(8));
        true
    }

    fn flip(&mut self, directory: &Path, name: &str, offset: u64, bits: u8) {
        self.disk.corrupt(directory.join(name), offset, bits);
        let (directory, name) = (directory.to_owned(), name.to_owned());
        let byte = byte_at(&self.disk, &directory, &name, offset);
        self.flips.push(Flip { directory, name, offset, byte });
    }

    /// Bits have flipped, and nothing was written over them since.
    pub(super) fn is_rotten(&self) -> bool {
        !self.flips.is_empty()
    }

    /// Forgets the bits that are not there any more.
    pub(super) fn forget_flips(&mut self) {
        self.flips.retain(|flip| flip.is_there(&self.disk));
    }

    /// What went wrong with the disk explains what a node says of its files: that names one in which a bit has flipped, or the image
    /// does. A disk that has lied can explain anything.
    pub(super) fn explains(&self, text: &str) -> bool {
        let is_named = |flip: &Flip| match flip.name.ends_with(".image") {
            true => text.contains("snapshot"),
            false => text.contains(&flip.name),
        };
        self.has_lied || self.flips.iter().any(is_named)
    }

    fn rot_image(&mut self, random: &mut Random) -> bool {
        let directory = images_directory();
        let Some((name, bytes)) = self.files(&directory, ".image").pop() else { return false };
        if bytes == 0 {
            return false; // All of it was lost by a disk that lied.
        }
        let (offset, bits) = (random.below(bytes), 1 << random.below(8));
        self.flip(&directory, &name, offset, bits);
        true
    }

    /// Names, in order, and lengths.
    fn files(&self, directory: &Path, ending: &str) -> Vec<(String, u64)> {
        let opened = self.disk.open_directory(directory, Access::Read);
        let mut files = opened.and_then(|opened| opened.list()).unwrap_or_default();
        files.retain(|(name, _)| name.ends_with(ending));
        files
    }

    /// What the last power cut has left ends in a part of a group.
    pub(super) fn is_torn(&self) -> bool {
        let scan = Scan::open_on(&self.disk, log_directory());
        scan.is_ok_and(|scan| matches!(scan.verdict(), Verdict::TornTail { .. }))
    }

    /// What is there after a power cut now that keeps nothing that was not synced; an error where the log that is left is
    /// damaged.
    pub(super) fn durable(&self) -> Result<Durable, String> {
        let image = self.disk.image(|_| false);
        if image.open_directory(&log_directory(), Access::Read).is_err() {
            return Ok(Durable::default());
        }
        let scan = Scan::open_on(&image, log_directory()).map_err(|error| error.to_string())?;
        if let Verdict::Corrupt(corruptions) = scan.verdict() {
            return Err(format!("{corruptions:?}"));
        }
        let image_end = newest_image(&image)?;
        let bounds = scan.logs().into_iter().find(|(log, _)| *log == LOG);
        let Some((_, bounds)) = bounds else { return Ok(Durable::default()) };
        if image_end + 1 < bounds.first {
            return Err(format!(
                "the log begins at index {}, and the newest image ends at {image_end}",
                bounds.first
            ));
        }
        let ends = bounds.runs().iter().skip(1).map(|run| run.0).chain([bounds.last + 1]);
        let runs = bounds.runs().iter().zip(ends);
        let terms = runs.flat_map(|(&(first, term), end)| (first..end).map(move |_| term));
        let state = bounds.state.as_ref().map(|bytes| State::decode(bytes));
        let state = state.transpose().map_err(|error| error.to_string())?.flatten();
        Ok(Durable { image_end, first: bounds.first, terms: terms.collect(), state })
    }
}

/// The log of a node ends as one does that was closed: the next start finds it whole, and knows that nothing was lost.
pub(super) fn is_closed(disk: &MemoryDisk) -> bool {
    let scan = Scan::open_on(disk, log_directory());
    scan.is_ok_and(|scan| matches!(scan.verdict(), Verdict::Whole { closed: true, .. }))
}

/// What of a node's log is durable.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// The last entry that is in an image.
    pub(super) image_end: u64,
    /// The first entry in the log,
    pub(super) first: u64,
    /// and the terms from there on.
    terms: Vec<u64>,
    /// What it remembers of terms and votes.
    pub(super) state: Option<State>,
}

impl Durable {
    /// The term of an entry of the log.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        let place = usize::try_from(index.checked_sub(self.first)?).expect("a short log");
        self.terms.get(place).copied()
    }
}

/// Where the newest image ends that is whole. Images that are there and are not were not synced, which no store leaves.
fn newest_image(disk: &MemoryDisk) -> Result<u64, String> {
    let directory = images_directory();
    if disk.open_directory(&directory, Access::Read).is_err() {
        return Ok(0);
    }
    let store = Store::open(disk, &directory, None).map_err(|error| error.to_string())?;
    if let Some(damaged) = store.damaged().first() {
        return Err(damaged.error.to_string());
    }
    let Some(newest) = store.images().first() else { return Ok(0) };
    newest.verify().map_err(|error| error.to_string())?;
    // A version, a place, and the members as of the image (kontiki, "snapshots").
    let members = newest.header().membership.get(17..).unwrap_or_default();
    Configuration::decode(members).map_err(|error| error.to_string())?;
    Ok(newest.header().place.index)
}

fn images_directory() -> PathBuf {
    Path::new(DIRECTORY).join("snapshots")
}

fn log_directory() -> PathBuf {
    Path::new(DIRECTORY).join("wal")
}
