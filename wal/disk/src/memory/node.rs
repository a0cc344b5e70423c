//! One file of the memory disk: what the page cache shows, and what is on the medium.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use super::content::{Content, SECTOR_BYTES, Sector};

/// A file, whatever its names are; a removed file lives on in its handles.
#[derive(Debug)]
pub(super) struct Node {
    /// Never used twice on one disk; a fork keeps it.
    pub(super) id: u64,
    /// Locked only by who holds the disk's lock, so never waited for.
    pages: Mutex<Pages>,
}

impl Node {
    pub(super) fn new(id: u64, pages: Pages) -> Arc<Self> {
        Arc::new(Self { id, pages: Mutex::new(pages) })
    }

    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock()
    }
}

/// A file's bytes twice, and how the two differ.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    /// What reads see.
    cache: Content,
    /// What is left if nothing unsynced survives.
    durable: Content,
    /// Every sector in which the two may differ.
    unsynced: BTreeMap<u64, Unsynced>,
    /// A power cut may leave the file so long, which is as long as it was at the last sync that succeeded, or as long as it is.
    durable_bytes: u64,
}

/// A sector whose newest bytes are not known to be on the medium.
#[derive(Clone, Debug)]
struct Unsynced {
    /// A sync will write it. False after a sync that failed or lied.
    dirty: bool,
    /// What it held between the last sync and now, oldest first: any of them may have been
    /// written back.
    older: Vec<Arc<Sector>>,
}

/// How many of a sector's older contents are remembered; the oldest go first.
const OLDER_MAX: usize = 4;

impl Pages {
    /// A new file of zeros.
    pub(super) fn zeros(bytes: u64) -> Self {
        let zeros = Content::zeros(bytes);
        Self { cache: zeros.clone(), durable: zeros, unsynced: BTreeMap::new(), durable_bytes: 0 }
    }

    pub(super) fn cache(&self) -> &Content {
        &self.cache
    }

    pub(super) fn durable(&self) -> &Content {
        &self.durable
    }

    /// Makes room at the end for what is about to be appended.
    pub(super) fn grow(&mut self, bytes: u64) {
        self.cache.resize(self.cache.len() + bytes);
    }

    pub(super) fn write(&mut self, offset: u64, parts: &[&[u8]]) {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if bytes == 0 {
            return;
        }
        for sector in offset / SECTOR_BYTES..(offset + bytes).div_ceil(SECTOR_BYTES) {
            self.dirty(sector);
        }
        let mut at = offset;
        for part in parts {
            self.cache.write(at, part);
            at += part.len() as u64;
        }
    }

    /// Marks a sector that is about to be written.
    fn dirty(&mut self, sector: u64) {
        let cache = &self.cache;
        self.unsynced
            .entry(sector)
            .and_modify(|unsynced| {
                unsynced.dirty = true;
                unsynced.older.push(Arc::new(cache.sector(sector)));
                if unsynced.older.len() > OLDER_MAX {
                    unsynced.older.remove(0);
                }
            })
            .or_insert(Unsynced { dirty: true, older: Vec::new() });
    }

    /// A sync that succeeds: dirty sectors reach the medium; clean ones do not, whatever they hold.
    pub(super) fn sync(&mut self) {
        let Self { cache, durable, unsynced, durable_bytes } = self;
        durable.resize(cache.len());
        *durable_bytes = cache.len();
        unsynced.retain(|&sector, unsynced| {
            if unsynced.dirty {
                durable.set_sector(sector, &cache.sector(sector));
            }
            !unsynced.dirty
        });
    }

    /// A sync that fails as ext4's does: the pages stay readable and count as clean.
    pub(super) fn forget_dirty(&mut self) {
        for unsynced in self.unsynced.values_mut() {
            unsynced.dirty = false;
        }
    }

    /// Sectors that count as clean leave the cache, and come back as the medium has them.
    pub(super) fn evict(&mut self) {
        let Self { cache, durable, unsynced, .. } = self;
        let durable_end = durable.len();
        unsynced.retain(|&sector, unsynced| {
            let stays = unsynced.dirty || sector * SECTOR_BYTES >= durable_end;
            if !stays {
                cache.set_sector(sector, &durable.sector(sector));
            }
            stays
        });
    }

    /// A sync that fails as btrfs's does: the pages are those of the last one that succeeded.
    pub(super) fn take_back(&mut self) {
        let bytes = self.cache.len();
        self.cache = self.durable.clone();
        self.cache.resize(bytes);
        self.unsynced.clear();
    }

    /// A sync that says it succeeded and has written each sector so many further up or down. What it was written over shows that
    /// at once, as if it had left the cache; what was to be written does not show yet that it was not.
    pub(super) fn misdirect(&mut self, sectors: i64) {
        let dirty: Vec<u64> =
            self.unsynced.iter().filter(|(_, unsynced)| unsynced.dirty).map(|(&s, _)| s).collect();
        let written: Vec<Sector> = dirty.iter().map(|&sector| self.cache.sector(sector)).collect();
        self.forget_dirty();
        self.durable.resize(self.cache.len());
        self.durable_bytes = self.cache.len();
        let end = self.cache.len().div_ceil(SECTOR_BYTES);
        for (sector, bytes) in dirty.into_iter().zip(written) {
            let Some(place) = sector.checked_add_signed(sectors).filter(|&place| place < end)
            else {
                continue;
            };
            self.durable.set_sector(place, &bytes);
            if !self.unsynced.contains_key(&place) {
                self.cache.set_sector(place, &bytes);
            }
        }
    }

    /// Flips bits on the medium and in the cache.
    pub(super) fn corrupt(&mut self, offset: u64, mask: u8) {
        for content in [&mut self.cache, &mut self.durable] {
            if offset >= content.len() {
                continue;
            }
            let mut byte = [0];
            content.read(offset, &mut byte);
            content.write(offset, &[byte[0] ^ mask]);
        }
    }

    /// Calls `each` with (sector, version) for everything that a power cut may keep or lose.
    /// Versions count the contents since the last sync from 0, oldest first.
    pub(super) fn each_unsynced(&self, mut each: impl FnMut(u64, usize)) {
        for (&sector, unsynced) in &self.unsynced {
            for version in 0..=unsynced.older.len() {
                each(sector, version);
            }
        }
    }

    pub(super) fn length_durable(&self) -> bool {
        self.durable_bytes == self.cache.len()
    }

    /// The file after a power cut. `keep` is asked in the order of [`Self::each_unsynced`]; of
    /// the versions of one sector the newest kept one is what the medium holds.
    pub(super) fn image(
        &self,
        keep_length: bool,
        mut keep: impl FnMut(u64, usize) -> bool,
    ) -> Self {
        let mut content = self.durable.clone();
        content.resize(if keep_length { self.cache.len() } else { self.durable_bytes });
        let end = content.len();
        let mut keep = |sector, version| keep(sector, version) && sector * SECTOR_BYTES < end;
        for (&sector, unsynced) in &self.unsynced {
            for (version, bytes) in unsynced.older.iter().enumerate() {
                if keep(sector, version) {
                    content.set_sector(sector, bytes);
                }
            }
            if keep(sector, unsynced.older.len()) {
                content.set_sector(sector, &self.cache.sector(sector));
            }
        }
        if !keep_length {
            // Of the last sector more may have reached the medium than belongs to the file then.
            content.clear_tail();
        }
        Self {
            cache: content.clone(),
            durable: content,
            unsynced: BTreeMap::new(),
            durable_bytes: end,
        }
    }
}
