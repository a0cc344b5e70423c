//! The seam over the memory disk.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    MemoryDisk,
    fault::{Fault, Kind, Operation},
    node::Node,
};
use crate::{
    check_name, read_only,
    seam::{Directory, File, GrowingFile},
    size,
};

/// The directory's lock: held as long as one `Arc` of it lives.
#[derive(Debug)]
pub(super) struct Lock;

/// A directory of the memory disk.
#[derive(Debug)]
pub(super) struct MemoryDirectory {
    disk: MemoryDisk,
    path: PathBuf,
    /// `None`: opened for reading.
    lock: Option<Arc<Lock>>,
    /// The handles given out, by the file's number.
    files: Mutex<BTreeMap<u64, Weak<MemoryFile>>>,
}

impl MemoryDirectory {
    pub(super) fn new(disk: MemoryDisk, path: &Path, lock: Option<Arc<Lock>>) -> Self {
        Self { disk, path: path.to_owned(), lock, files: Mutex::default() }
    }

    fn handle(&self, name: &str, node: &Arc<Node>) -> Arc<MemoryFile> {
        let mut files = self.files.lock();
        if let Some(file) = files.get(&node.id).and_then(Weak::upgrade) {
            return file;
        }
        files.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(MemoryFile {
            disk: self.disk.clone(),
            directory: self.path.clone(),
            name: name.to_owned(),
            bytes: node.pages().cache().len(),
            node: Arc::clone(node),
            lock: self.lock.clone(),
            published: AtomicU64::new(0),
        });
        files.insert(node.id, Arc::downgrade(&file));
        file
    }

    fn operation(&self, kind: Kind, name: &str, to: &str, bytes: u64) -> Operation {
        Operation {
            kind,
            directory: self.path.clone(),
            name: name.to_owned(),
            to: to.to_owned(),
            range: 0..bytes,
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(read_only(&self.path.display().to_string())),
        }
    }
}

impl Directory for MemoryDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut state = self.disk.look()?;
        let names = &state.entries(&self.path).visible;
        Ok(names
            .iter()
            .map(|(name, node)| (name.to_string(), node.pages().cache().len()))
            .collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        self.check_writable()?;
        let (mut state, fault) =
            self.disk.admit(self.operation(Kind::Create, name, "", bytes), None)?;
        fail(fault)?;
        let node = state.make_file(&self.path, name, bytes)?;
        Ok(self.handle(name, &node))
    }

    fn create_growing(&self, name: &str) -> io::Result<Box<dyn GrowingFile>> {
        check_name(name)?;
        self.check_writable()?;
        let (mut state, fault) =
            self.disk.admit(self.operation(Kind::Create, name, "", 0), None)?;
        fail(fault)?;
        let node = state.make_file(&self.path, name, 0)?;
        let (disk, directory) = (self.disk.clone(), self.path.clone());
        let (name, lock) = (name.to_owned(), self.lock.clone());
        Ok(Box::new(MemoryGrowingFile { disk, directory, name, node, bytes: 0, _lock: lock }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut state = self.disk.look()?;
        let node = state.entries(&self.path).visible.get(name).ok_or_else(|| not_found(name))?;
        Ok(self.handle(name, node))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from)?;
        check_name(to)?;
        self.check_writable()?;
        let (mut state, fault) =
            self.disk.admit(self.operation(Kind::Rename, from, to, 0), None)?;
        fail(fault)?;
        if state.entries(&self.path).rename(from, to) { Ok(()) } else { Err(not_found(from)) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        self.check_writable()?;
        let (mut state, fault) =
            self.disk.admit(self.operation(Kind::Remove, name, "", 0), None)?;
        fail(fault)?;
        if state.entries(&self.path).remove(name) { Ok(()) } else { Err(not_found(name)) }
    }

    fn is_locked(&self) -> io::Result<bool> {
        Ok(self.disk.look()?.is_locked(&self.path))
    }

    fn sync(&self) -> io::Result<()> {
        let (mut state, fault) =
            self.disk.admit(self.operation(Kind::SyncDirectory, "", "", 0), None)?;
        match fault {
            None => state.entries(&self.path).sync(),
            Some(Fault::Lie) => {}
            fault => return fail(fault),
        }
        Ok(())
    }
}

/// A file of the memory disk.
#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    directory: PathBuf,
    name: String,
    bytes: u64,
    node: Arc<Node>,
    lock: Option<Arc<Lock>>,
    /// End of what may be viewed; only grows.
    published: AtomicU64,
}

impl MemoryFile {
    fn operation(&self, kind: Kind, range: Range<u64>) -> Operation {
        Operation {
            kind,
            directory: self.directory.clone(),
            name: self.name.clone(),
            to: String::new(),
            range,
        }
    }
}

impl File for MemoryFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.look()?;
        state.count_read();
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.bytes) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.node.pages().cache().read(offset, into);
        Ok(())
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        if self.lock.is_none() {
            return Err(read_only(&self.name));
        }
        let count: u64 = parts.iter().map(|part| part.len() as u64).sum();
        assert!(offset >= self.published.load(Ordering::Acquire), "published bytes never change");
        let end = offset.checked_add(count).filter(|&end| end <= self.bytes);
        let end = end.expect("a write ends inside the file");
        let (_state, fault) =
            self.disk.admit(self.operation(Kind::Write, offset..end), Some(&self.node))?;
        if fault.is_some() {
            let half = &parts.concat()[..size(count / 2)];
            self.node.pages().write(offset, &[half]);
            return fail(fault);
        }
        self.node.pages().write(offset, parts);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (_state, fault) =
            self.disk.admit(self.operation(Kind::Sync, 0..0), Some(&self.node))?;
        sync(&self.node, fault)
    }

    fn publish(&self, end: u64) {
        assert!(self.lock.is_some(), "{} was opened for reading only", self.name);
        assert!(end <= self.bytes, "only what is inside the file can be published");
        self.published.fetch_max(end, Ordering::AcqRel);
    }

    fn view(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        let published = self.published.load(Ordering::Acquire);
        assert!(range.start <= range.end && range.end <= published, "only what is published shows");
        let mut bytes = vec![0; size(range.end - range.start)];
        self.read_at(range.start, &mut bytes)?;
        Ok(Bytes::from_owner(View { bytes, _file: self }))
    }
}

/// A file of the memory disk that is appended to.
#[derive(Debug)]
struct MemoryGrowingFile {
    disk: MemoryDisk,
    directory: PathBuf,
    name: String,
    node: Arc<Node>,
    bytes: u64,
    _lock: Option<Arc<Lock>>,
}

impl MemoryGrowingFile {
    fn operation(&self, kind: Kind, range: Range<u64>) -> Operation {
        let (directory, name) = (self.directory.clone(), self.name.clone());
        Operation { kind, directory, name, to: String::new(), range }
    }
}

impl GrowingFile for MemoryGrowingFile {
    fn len(&self) -> u64 {
        self.bytes
    }

    fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let count: u64 = parts.iter().map(|part| part.len() as u64).sum();
        let operation = self.operation(Kind::Write, self.bytes..self.bytes + count);
        {
            let state = self.disk.look()?;
            if state.capacity.is_some_and(|capacity| state.bytes_used() + count > capacity) {
                return Err(io::Error::from_raw_os_error(super::ENOSPC));
            }
        }
        let (_state, fault) = self.disk.admit(operation, Some(&self.node))?;
        let mut pages = self.node.pages();
        if fault.is_some() {
            let half = &parts.concat()[..size(count / 2)];
            pages.grow(count / 2);
            pages.write(self.bytes, &[half]);
            return fail(fault);
        }
        pages.grow(count);
        pages.write(self.bytes, parts);
        self.bytes += count;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let (_state, fault) =
            self.disk.admit(self.operation(Kind::Sync, 0..0), Some(&self.node))?;
        sync(&self.node, fault)
    }
}

/// Does what a sync of a file does that meets this fault.
fn sync(node: &Node, fault: Option<Fault>) -> io::Result<()> {
    let mut pages = node.pages();
    match fault {
        None => pages.sync(),
        Some(Fault::Misdirect(sectors)) => pages.misdirect(sectors),
        Some(Fault::Lie) => pages.forget_dirty(),
        Some(Fault::TakeBack(_)) => {
            pages.take_back();
            return fail(fault);
        }
        Some(Fault::Fail(_) | Fault::Panic) => {
            pages.forget_dirty();
            return fail(fault);
        }
    }
    Ok(())
}

/// A copy that holds the directory's lock as a lent map would.
struct View {
    bytes: Vec<u8>,
    _file: Arc<MemoryFile>,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn fail(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::Fail(error) | Fault::TakeBack(error)) => {
            Err(io::Error::from_raw_os_error(error))
        }
        Some(Fault::Lie | Fault::Misdirect(_)) => {
            unreachable!("only a sync can say what is not so")
        }
        Some(Fault::Panic) => unreachable!("panicked when it was let through"),
        None => Ok(()),
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}
