//! A disk in memory that keeps what was synced apart from what was not, and can fail, wait and
//! lose its power.
//!
//! # What it models
//!
//! A file has a page cache and a medium. A write goes to the cache and makes its 512-byte sectors
//! dirty; a sync writes dirty sectors to the medium. Until then a power cut keeps or loses each
//! sector by itself, and may keep one of the older contents that it had since the last sync; a
//! sector is never torn. A sync that fails does what ext4's does: the pages count as clean, stay
//! readable, and no later sync writes them unless they are written again. (A real page is 4 KiB;
//! sectors are harsher, since writing one does not save its neighbours.)
//!
//! A new file reads as zeros. Its length is durable after its first successful sync; before, a
//! power cut may leave the name with an empty file.
//!
//! A directory has the names that programs see and the names on the medium. Each create, rename
//! and remove is kept or lost by itself until a sync of the directory succeeds; one that fails
//! leaves everything visible and pending. A rename is one step: the medium shows the old name or
//! the new one. A change whose ground was lost (a create whose name is still taken by a file that
//! was renamed or removed before) does nothing. A directory itself is durable once it was opened.
//!
//! # How a test uses it
//!
//! [`MemoryDisk::inject`] and its neighbours plan faults. [`MemoryDisk::unsynced`] lists what a
//! power cut may keep or lose now, [`MemoryDisk::image`] is the disk after a power cut that kept
//! what the caller chose, [`MemoryDisk::reopen`] the same disk after a `kill -9`: the cache stays.
//! [`MemoryDisk::start_cuts`] takes a copy before every operation, so that one run of a workload
//! gives all its power cuts.

mod content;
mod entries;
mod fault;
mod handles;
mod node;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use parking_lot::{Mutex, MutexGuard};

pub use self::fault::{EDQUOT, EIO, ENOSPC, Fault, Gate, Kind, Operation, is_power_cut};
use self::{
    entries::{Entries, Names},
    fault::Plan,
    handles::{Lock, MemoryDirectory},
    node::{Node, Pages},
};
use crate::{
    seam::{Access, Directory, Disk},
    size,
};

/// A disk in memory; a clone is another handle of the same disk. See the module's text.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

/// Something that a power cut keeps or loses by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// What was done to a directory, in words.
    Change {
        /// The directory.
        directory: PathBuf,
        /// What was done.
        what: String,
    },
    /// The length of a new file: lost, the file is empty.
    Length {
        /// The file; its last name if it was removed.
        file: PathBuf,
    },
    /// The bytes of one sector.
    Sector {
        /// The file; its last name if it was removed.
        file: PathBuf,
        /// Which sector, counted from 0.
        sector: u64,
        /// Which of the contents that it had since the last sync, oldest first. If several are
        /// kept the newest of them is on the medium.
        version: usize,
    },
}

/// One operation, and the disk just before it.
#[derive(Clone, Debug)]
pub struct Cut {
    /// What was about to happen.
    pub operation: Operation,
    /// The disk before it, as [`MemoryDisk::reopen`] gives it.
    pub before: MemoryDisk,
}

impl MemoryDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans `fault` for the `nth` operation of `kind` from now on; 1 is the next one.
    ///
    /// # Panics
    /// If `nth` is 0, or a fault was planned for something that cannot have it
    /// ([`Fault::Lie`] for anything but the two syncs, [`Fault::TakeBack`] and [`Fault::Misdirect`] for
    /// anything but a file's sync).
    pub fn inject(&self, kind: Kind, nth: u64, fault: Fault) {
        self.state.lock().plan.add(kind, nth, fault);
    }

    /// Makes the `nth` operation of `kind` from now on wait, before it does anything, until the
    /// gate is released or dropped.
    #[must_use]
    pub fn hold(&self, kind: Kind, nth: u64) -> Gate {
        self.state.lock().plan.hold(kind, nth)
    }

    /// Forgets every fault and every gate that was planned and has not met its operation.
    pub fn forget_faults(&self) {
        self.state.lock().plan.forget_rules();
    }

    /// Whether a fault or a gate that was planned has not met its operation yet.
    pub fn has_faults(&self) -> bool {
        self.state.lock().plan.has_rules()
    }

    /// The faults that have met their operation since the last call, each with the kind of that.
    pub fn take_met(&self) -> Vec<(Kind, Fault)> {
        std::mem::take(&mut self.state.lock().met)
    }

    /// Cuts the power after `operations` more operations: the next one finds it off, and from then
    /// on everything, reads included, fails (see [`is_power_cut`]) and changes nothing. 0 cuts it
    /// now.
    pub fn cut_power_after(&self, operations: u64) {
        self.state.lock().plan.cut_power_after(operations);
    }

    /// Limits the bytes that all files with a name may take together; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// How many operations were let through since the disk was made, failed ones included.
    /// Operations are what [`Kind`] lists: looking is none.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Forgets the trace and begins a new one.
    pub fn start_trace(&self) {
        self.state.lock().trace = Some(Vec::new());
    }

    /// The operations since [`Self::start_trace`], failed ones included; ends the trace.
    pub fn take_trace(&self) -> Vec<Operation> {
        self.state.lock().trace.take().unwrap_or_default()
    }

    /// Begins to keep a copy of the disk before every operation.
    pub fn start_cuts(&self) {
        self.state.lock().cuts = Some(Vec::new());
    }

    /// The operations since [`Self::start_cuts`] or the last call, each with the disk before it.
    pub fn take_cuts(&self) -> Vec<Cut> {
        self.state.lock().cuts.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// What a power cut may keep or lose now, in an order that stays until the next operation.
    pub fn unsynced(&self) -> Vec<Unsynced> {
        self.state.lock().unsynced()
    }

    /// The disk after a power cut now. `keep` is asked once for each item of [`Self::unsynced`],
    /// by its place in that list. The new disk has no locks, no faults, and nothing unsynced.
    pub fn image(&self, keep: impl FnMut(usize) -> bool) -> Self {
        Self::from_state(self.state.lock().image(keep))
    }

    /// The disk as the next process finds it after a `kill -9`: nothing is lost, nothing more is
    /// durable, pages that a failed sync left clean are still clean. No locks, no faults.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self::from_state(self.state.lock().reopen())
    }

    /// A hash of what is durable: names, lengths and bytes. Two disks with the same fingerprint
    /// and nothing unsynced are the same to whoever opens them.
    pub fn fingerprint(&self) -> u64 {
        self.state.lock().fingerprint()
    }

    /// Whatever counts as clean leaves the page cache, as it may at any time: what a sync that failed has left there reads as the
    /// medium has it from now on.
    pub fn evict(&self) {
        self.state.lock().evict();
    }

    /// Has that happen before the `nth` read or view of a file from now on; 1 is the next, 0 is never.
    pub fn evict_before_read(&self, nth: u64) {
        self.state.lock().evicts_before = nth;
    }

    /// Before which call from now on that happens; 0 if before none, or it has happened.
    pub fn evicts_before(&self) -> u64 {
        self.state.lock().evicts_before
    }

    /// Flips the bits of `mask` in one byte of a file, in the cache and on the medium.
    ///
    /// # Panics
    /// If there is no such file or it ends before `offset`.
    pub fn corrupt(&self, file: impl AsRef<Path>, offset: u64, mask: u8) {
        let state = self.state.lock();
        state.visible(file.as_ref()).expect("the file exists").pages().corrupt(offset, mask);
    }

    /// All bytes of a file as programs see them; `None` if there is none.
    pub fn contents(&self, file: impl AsRef<Path>) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let pages = state.visible(file.as_ref())?.pages();
        let mut bytes = vec![0; size(pages.cache().len())];
        pages.cache().read(0, &mut bytes);
        Some(bytes)
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Lets `operation` through, or fails as planned. The fault that comes with the lock is the
    /// operation's to carry out. An operation on a file is told by the name it has by now.
    fn admit(
        &self,
        mut operation: Operation,
        node: Option<&Node>,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state.lock();
        state.plan.check_power()?;
        let (fault, gate) = state.plan.next(operation.kind);
        if let Some(gate) = gate {
            drop(state);
            gate.pass();
            state = self.state.lock();
        }
        state.plan.spend()?;
        state.operations += 1;
        state.met.extend(fault.map(|fault| (operation.kind, fault)));
        if let Some(node) = node
            && let Some(name) = state.entries(&operation.directory).name_of(node)
        {
            operation.name = name.to_string();
        }
        if state.cuts.is_some() {
            let before = Self::from_state(state.reopen());
            let cut = Cut { operation: operation.clone(), before };
            state.cuts.as_mut().expect("looked above").push(cut);
        }
        if fault == Some(Fault::Panic) {
            drop(state);
            panic!("{operation} panics as planned");
        }
        if let Some(trace) = &mut state.trace {
            trace.push(operation);
        }
        Ok((state, fault))
    }

    /// The lock for looking, which fails only when the power is off.
    fn look(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        state.plan.check_power()?;
        Ok(state)
    }
}

impl Disk for MemoryDisk {
    fn open_directory(&self, path: &Path, access: Access) -> io::Result<Arc<dyn Directory>> {
        let mut state = self.look()?;
        let lock = match access {
            Access::Write => Some(state.lock_directory(path)?),
            Access::Read if state.directories.contains_key(path) => None,
            Access::Read => {
                let message = format!("no directory {}", path.display());
                return Err(io::Error::new(io::ErrorKind::NotFound, message));
            }
        };
        drop(state);
        Ok(Arc::new(MemoryDirectory::new(self.clone(), path, lock)))
    }
}

#[derive(Debug, Default)]
struct State {
    directories: BTreeMap<PathBuf, Entries>,
    locks: BTreeMap<PathBuf, Weak<Lock>>,
    nodes_made: u64,
    capacity: Option<u64>,
    plan: Plan,
    /// So many reads on clean pages leave the cache; 0 is never.
    evicts_before: u64,
    operations: u64,
    met: Vec<(Kind, Fault)>,
    trace: Option<Vec<Operation>>,
    cuts: Option<Vec<Cut>>,
}

impl State {
    fn lock_directory(&mut self, path: &Path) -> io::Result<Arc<Lock>> {
        if self.is_locked(path) {
            let message = format!("{} is locked", path.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        let lock = Arc::new(Lock);
        self.locks.insert(path.to_owned(), Arc::downgrade(&lock));
        self.directories.entry(path.to_owned()).or_default();
        Ok(lock)
    }

    fn is_locked(&self, path: &Path) -> bool {
        self.locks.get(path).is_some_and(|lock| lock.strong_count() > 0)
    }

    fn evict(&self) {
        let names = self.directories.values().flat_map(|entries| entries.visible.values());
        names.for_each(|node| node.pages().evict());
    }

    /// Of a read of a file that comes now.
    fn count_read(&mut self) {
        if self.evicts_before == 1 {
            self.evict();
        }
        self.evicts_before = self.evicts_before.saturating_sub(1);
    }

    /// The names of a directory that a handle was given out for.
    fn entries(&mut self, path: &Path) -> &mut Entries {
        self.directories.get_mut(path).expect("directories are never removed")
    }

    fn visible(&self, file: &Path) -> Option<&Arc<Node>> {
        let name = file.file_name()?.to_str()?;
        self.directories.get(file.parent()?)?.visible.get(name)
    }

    /// A new file under a name, in a directory that a handle was given out for.
    fn make_file(&mut self, directory: &Path, name: &str, bytes: u64) -> io::Result<Arc<Node>> {
        if self.entries(directory).visible.contains_key(name) {
            let message = format!("{name} exists already");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        if self.capacity.is_some_and(|capacity| self.bytes_used() + bytes > capacity) {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.nodes_made += 1;
        let node = Node::new(self.nodes_made, Pages::zeros(bytes));
        self.entries(directory).create(name.into(), Arc::clone(&node));
        Ok(node)
    }

    /// Bytes of all files with a name.
    fn bytes_used(&self) -> u64 {
        let directories = self.directories.values();
        directories
            .flat_map(|entries| entries.visible.values())
            .map(|n| n.pages().cache().len())
            .sum()
    }

    fn unsynced(&self) -> Vec<Unsynced> {
        let mut items = Vec::new();
        for (directory, entries) in &self.directories {
            for change in &entries.pending {
                items.push(Unsynced::Change {
                    directory: directory.clone(),
                    what: change.to_string(),
                });
            }
            for (node, name) in reachable(entries).values() {
                let file = directory.join(&**name);
                let pages = node.pages();
                if !pages.length_durable() {
                    items.push(Unsynced::Length { file: file.clone() });
                }
                pages.each_unsynced(|sector, version| {
                    items.push(Unsynced::Sector { file: file.clone(), sector, version });
                });
            }
        }
        items
    }

    fn image(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut index = 0;
        let mut keep_next = || {
            index += 1;
            keep(index - 1)
        };
        let mut directories = BTreeMap::new();
        for (path, entries) in &self.directories {
            let mut names = entries.image(|_| keep_next());
            let mut nodes = BTreeMap::new();
            for (&id, (node, _)) in &reachable(entries) {
                let pages = node.pages();
                let keep_length = pages.length_durable() || keep_next();
                let pages = pages.image(keep_length, |_, _| keep_next());
                nodes.insert(id, Node::new(id, pages));
            }
            for node in names.values_mut() {
                *node = Arc::clone(&nodes[&node.id]);
            }
            let entries = Entries { visible: names.clone(), durable: names, pending: Vec::new() };
            directories.insert(path.clone(), entries);
        }
        Self {
            directories,
            nodes_made: self.nodes_made,
            capacity: self.capacity,
            ..Self::default()
        }
    }

    fn reopen(&self) -> Self {
        let mut nodes = BTreeMap::new();
        let mut copy = |node: &mut Arc<Node>| {
            let copy = nodes.entry(node.id);
            *node = Arc::clone(copy.or_insert_with(|| Node::new(node.id, node.pages().clone())));
        };
        let mut directories = self.directories.clone();
        for entries in directories.values_mut() {
            entries.visible.values_mut().for_each(&mut copy);
            entries.durable.values_mut().for_each(&mut copy);
            entries.pending.iter_mut().for_each(|change| change.each_node(&mut copy));
        }
        Self {
            directories,
            nodes_made: self.nodes_made,
            capacity: self.capacity,
            ..Self::default()
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, entries) in &self.directories {
            hasher.write(path.as_os_str().as_encoded_bytes());
            hasher.write_usize(entries.durable.len());
            for (name, node) in &entries.durable {
                hasher.write(name.as_bytes());
                hasher.write_u8(0xff);
                node.pages().durable().hash(&mut hasher);
            }
        }
        hasher.finish()
    }
}

/// Every file of a directory that some power cut may leave, by its number, with its newest name.
fn reachable(entries: &Entries) -> BTreeMap<u64, (Arc<Node>, Arc<str>)> {
    let mut nodes = BTreeMap::new();
    let mut add = |names: &Names| {
        for (name, node) in names {
            nodes.entry(node.id).or_insert((Arc::clone(node), Arc::clone(name)));
        }
    };
    add(&entries.visible);
    add(&entries.durable);
    for change in entries.pending.iter().rev() {
        let (name, node) = change.newest();
        nodes.entry(node.id).or_insert((Arc::clone(node), Arc::clone(name)));
    }
    nodes
}

#[cfg(test)]
mod tests;
