//! What a power cut may keep: which of the unsynced things make a difference, and which subsets of them are tried.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use kontiki_disk::{MemoryDisk, memory::Unsynced};

use crate::random::Random;

/// Which subsets of what is unsynced a cut tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Every one that keeps at most four things, however many there are: of up to four all. Of more also everything, all but
    /// each, and what loses any of the first four, or any of the last four, and nothing else.
    Whole,
    /// Nothing, everything, and this many that a seed draws; all if there are no more.
    Seeded(u64),
}

/// What a power cut leaves of `disk` that keeps the things whose bits are set.
pub(crate) fn image_of(disk: &MemoryDisk, subset: u128) -> MemoryDisk {
    disk.image(|item| subset >> item & 1 == 1)
}

/// The unsynced things that make a difference, by their numbers. A sector that was written with what it held before, as
/// the padding of a group is, makes none.
pub(crate) fn effective(disk: &MemoryDisk) -> Vec<usize> {
    let items = disk.unsynced();
    assert!(items.len() <= 128, "a cut has {} unsynced things", items.len());
    let mut differs: HashSet<(&Path, u64)> = HashSet::new();
    let mut durable = Contents::of(disk, &items, None);
    let mut versions = BTreeMap::new();
    for item in &items {
        let Unsynced::Sector { file, sector, version } = item else { continue };
        let written = versions.entry(version);
        let written = written.or_insert_with(|| Contents::of(disk, &items, Some(*version)));
        let (old, new) = (durable.sector(file, *sector), written.sector(file, *sector));
        if old.is_none() || old != new {
            differs.insert((file, *sector));
        }
    }
    let makes_a_difference = |item: &Unsynced| match item {
        Unsynced::Sector { file, sector, .. } => differs.contains(&(&**file, *sector)),
        Unsynced::Change { .. } | Unsynced::Length { .. } => true,
    };
    (0..items.len()).filter(|&item| makes_a_difference(&items[item])).collect()
}

/// The files of a disk whose names and lengths are as programs see them, and whose sectors are those of one version.
struct Contents {
    disk: MemoryDisk,
    files: HashMap<PathBuf, Option<Vec<u8>>>,
}

impl Contents {
    fn of(disk: &MemoryDisk, items: &[Unsynced], only: Option<usize>) -> Self {
        let keeps = |item: usize| match &items[item] {
            Unsynced::Sector { version, .. } => Some(*version) == only,
            Unsynced::Change { .. } | Unsynced::Length { .. } => true,
        };
        Self { disk: disk.image(keeps), files: HashMap::new() }
    }

    /// `None` if the file has no name any more.
    fn sector(&mut self, file: &Path, sector: u64) -> Option<&[u8]> {
        if !self.files.contains_key(file) {
            self.files.insert(file.to_owned(), self.disk.contents(file));
        }
        let start = usize::try_from(sector).expect("files here are small") * SECTOR_BYTES;
        let bytes = self.files[file].as_ref()?;
        bytes.get(start..)?.chunks(SECTOR_BYTES).next()
    }
}

const SECTOR_BYTES: usize = 512;

/// The subsets of `items` to try, as bits.
pub(crate) fn subsets(items: &[usize], depth: Depth) -> Vec<u128> {
    let all = bits(items);
    let mut subsets = match depth {
        Depth::Whole if items.len() > FEW_MAX => {
            assert!(items.len() <= MANY_MAX, "{} things are too many to choose from", items.len());
            let ends = [&items[..FEW_MAX], &items[items.len() - FEW_MAX..]];
            let lost = items.iter().map(|item| 1 << item);
            let lost = lost.chain(ends.into_iter().flat_map(every_subset));
            let nearly_all: Vec<u128> = lost.map(|lost| all & !lost).collect();
            [with_at_most(items, FEW_MAX), nearly_all].concat()
        }
        Depth::Seeded(count) if 1 << items.len().min(63) > count => {
            // Some subsets are nearly empty, some nearly full.
            let percent = |seed| [50, 25, 75, 90][usize::try_from(seed % 4).expect("below 4")];
            let draw = |seed| {
                let mut random = Random::new(seed);
                items.iter().filter(|_| random.chance(percent(seed))).fold(0, |s, i| s | 1 << i)
            };
            (0..count).map(draw).chain([0, all]).collect()
        }
        _ => every_subset(items).collect(),
    };
    subsets.sort_unstable();
    subsets.dedup();
    subsets
}

/// Every choice of so many unsynced things is tried. As many that are lost, whichever they are, would take twice as long.
const FEW_MAX: usize = 4;

/// 102,091 subsets.
const MANY_MAX: usize = 40;

fn bits(items: &[usize]) -> u128 {
    items.iter().fold(0, |bits, item| bits | 1 << item)
}

/// The subsets of `items` with at most so many of them.
fn with_at_most(items: &[usize], most: usize) -> Vec<u128> {
    let mut subsets = vec![0_u128];
    for item in items {
        let shorter = subsets.iter().filter(|subset| (subset.count_ones() as usize) < most);
        let longer: Vec<u128> = shorter.map(|subset| subset | 1 << item).collect();
        subsets.extend(longer);
    }
    subsets
}

fn every_subset(items: &[usize]) -> impl Iterator<Item = u128> {
    (0..1_u64 << items.len()).map(|number| {
        let chosen = items.iter().enumerate().filter(|(place, _)| number >> place & 1 == 1);
        chosen.fold(0, |bits, (_, item)| bits | 1 << item)
    })
}

#[cfg(test)]
mod tests {
    use kontiki_disk::memory::Kind;

    use super::*;
    use crate::sequence::Sequence;

    #[test]
    fn every_choice_of_four_things_is_kept_alone_and_four_at_each_end_are_lost_alone() {
        assert_eq!(subsets(&[], Depth::Whole), [0]);
        assert_eq!(subsets(&[1, 5], Depth::Whole), [0, 0b10, 0b10_0000, 0b10_0010]);
        assert_eq!(subsets(&[0, 1, 2, 3], Depth::Whole).len(), 16);
        assert_eq!(subsets(&[0, 1, 2, 3], Depth::Seeded(16)).len(), 16);
        let many: Vec<usize> = (0..40).collect();
        let all = (1 << 40) - 1;
        let whole = subsets(&many, Depth::Whole);
        // 1 + 40 + 780 + 9880 + 91390.
        let few = whole.iter().filter(|subset| subset.count_ones() <= 4).count();
        assert_eq!(few, 102_091);
        for lost in [0, 1 << 20, 0b1010, 0b1111, 0b1010 << 36, 0b1111 << 36] {
            assert!(whole.contains(&(all & !lost)), "{lost:x}");
        }
        assert!((16..=18).contains(&subsets(&many, Depth::Seeded(16)).len()));
    }

    #[test]
    fn padding_makes_no_difference_and_entries_do() {
        let sequence: Sequence = "empty:append,sync".parse().unwrap();
        let run = sequence.run(&MemoryDisk::new()).unwrap();
        let cuts = run.lives[0].cuts.iter().map(|cut| &cut.cut);
        let synced = cuts.filter(|cut| cut.operation.kind == Kind::Sync).map(|cut| &cut.before);
        let group = synced.filter(|disk| disk.unsynced().len() == 8).map(effective);
        // A start frame, a checkpoint and 1000 bytes of entries: three sectors of a page.
        assert_eq!(group.collect::<Vec<_>>()[0], [0, 1, 2]);
    }
}
