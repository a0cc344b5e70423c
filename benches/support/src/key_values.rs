//! A state machine of any size: keys and values in a persistent map, as raftd has it, which says when and for how long it was
//! called.
//!
//! A command is u8 kind, then for `SET` the key (8 bytes) and its value, for `FILL` u64 first key, u64 count. An image is u64
//! number of keys, then for each the key, u32 length, value. All little-endian.

use std::{
    io::{self, Read, Write},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki::{ApplyContext, SnapshotWriter, StateMachine};
use rpds::RedBlackTreeMapSync;

use crate::bursts::cpu_time;

/// What a filled-in key and its value take.
pub const ENTRY_BYTES: u64 = (KEY_BYTES + VALUE_BYTES) as u64;

/// A command that gives `key` a value, `bytes` long in all.
pub fn set(key: u64, bytes: usize) -> Bytes {
    let mut command = vec![b'k'; bytes];
    command[0] = SET;
    command[1..][..KEY_BYTES].copy_from_slice(&key.to_le_bytes());
    Bytes::from(command)
}

/// A command that gives `count` keys from `first` on values of such a length that each has `ENTRY_BYTES`.
pub fn fill(first: u64, count: u64) -> Bytes {
    let mut command = vec![FILL];
    command.extend_from_slice(&first.to_le_bytes());
    command.extend_from_slice(&count.to_le_bytes());
    Bytes::from(command)
}

/// The state machine.
#[derive(Debug, Default)]
pub struct KeyValues {
    entries: Entries,
    probe: Probe,
    applied_at: Option<Instant>,
}

type Entries = RedBlackTreeMapSync<Bytes, Bytes>;

impl KeyValues {
    /// An empty one that tells `probe`.
    pub fn new(probe: Probe) -> Self {
        Self { probe, ..Self::default() }
    }

    /// Copies the key only where it is new: command bytes lie in the log and are not kept.
    fn put(&mut self, key: &[u8], value: Bytes) {
        match self.entries.get_mut(key) {
            Some(slot) => *slot = value,
            None => {
                self.entries.insert_mut(Bytes::copy_from_slice(key), value);
            }
        }
    }

    fn fill(&mut self, range: &[u8]) -> io::Result<()> {
        let [first, count] = [read_u64(&mut &range[..8])?, read_u64(&mut &range[8..])?];
        for key in first..first + count {
            // Each has bytes of its own, and not the same as the one before.
            let value = vec![(key % 251) as u8; VALUE_BYTES];
            self.put(&key.to_le_bytes(), Bytes::from(value));
        }
        Ok(())
    }
}

impl StateMachine for KeyValues {
    fn apply(&mut self, _: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        match command {
            [SET, rest @ ..] => {
                let (key, value) = rest.split_at(KEY_BYTES);
                self.put(key, Bytes::copy_from_slice(value));
            }
            [FILL, range @ ..] => self.fill(range)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        let now = Instant::now();
        if let Some(before) = self.applied_at.replace(now) {
            self.probe.applied(now - before);
        }
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        let begun = Instant::now();
        let image = Box::new(Image(self.entries.clone()));
        self.probe.captured(begun.elapsed());
        Ok(image)
    }

    fn restore(&mut self, image: &mut dyn Read) -> io::Result<()> {
        let (begun, worked) = (Instant::now(), cpu_time());
        let mut entries = Entries::default();
        for _ in 0..read_u64(image)? {
            let mut key = vec![0; KEY_BYTES];
            image.read_exact(&mut key)?;
            let mut length = [0; 4];
            image.read_exact(&mut length)?;
            let mut value = vec![0; u32::from_le_bytes(length) as usize];
            image.read_exact(&mut value)?;
            entries.insert_mut(Bytes::from(key), Bytes::from(value));
        }
        self.entries = entries;
        let processor = cpu_time() - worked;
        self.probe.restored(Restored { begun, ended: Instant::now(), processor });
        Ok(())
    }
}

/// The content at one moment, shared with the living state machine.
struct Image(Entries);

impl SnapshotWriter for Image {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(self.0.size() as u64).to_le_bytes())?;
        for (key, value) in &self.0 {
            out.write_all(key)?;
            let length = u32::try_from(value.len()).expect("values of a few KiB");
            out.write_all(&length.to_le_bytes())?;
            out.write_all(value)?;
        }
        Ok(())
    }
}

fn read_u64(bytes: &mut dyn Read) -> io::Result<u64> {
    let mut number = [0; 8];
    bytes.read_exact(&mut number)?;
    Ok(u64::from_le_bytes(number))
}

/// What the state machine saw, for whoever measures; outlives the node.
#[derive(Clone, Debug, Default)]
pub struct Probe(Arc<Mutex<Seen>>);

/// Since it was last taken.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The longest time from one applied command to the next, whatever the cause.
    pub gap: Duration,
    /// How long each capture took.
    pub captures: Vec<Duration>,
    /// How the last image was taken in.
    pub restored: Option<Restored>,
}

/// How an image was taken in.
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    /// When that began.
    pub begun: Instant,
    /// When it was done.
    pub ended: Instant,
    /// What the thread worked meanwhile, which others at work do not make longer.
    pub processor: Duration,
}

impl Probe {
    /// What was seen since the last time; it begins anew.
    pub fn take(&self) -> Seen {
        self.with(mem::take)
    }

    /// How the last image was taken in, if one was.
    pub fn last_restored(&self) -> Option<Restored> {
        self.with(|seen| seen.restored)
    }

    fn applied(&self, gap: Duration) {
        self.with(|seen| seen.gap = seen.gap.max(gap));
    }

    fn captured(&self, took: Duration) {
        self.with(|seen| seen.captures.push(took));
    }

    fn restored(&self, restored: Restored) {
        self.with(|seen| seen.restored = Some(restored));
    }

    /// A lock that nobody else wants while the state machine works costs nothing that shows.
    fn with<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const SET: u8 = 0;
const FILL: u8 = 1;
const KEY_BYTES: usize = 8;
/// With its key a KiB.
const VALUE_BYTES: usize = 1016;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_every_key() {
        let mut machine = KeyValues::default();
        machine.fill(&fill(3, 5)[1..]).unwrap();
        machine.put(&4_u64.to_le_bytes(), Bytes::from_static(b"another"));
        let mut image = Vec::new();
        machine.snapshot().unwrap().write_to(&mut image).unwrap();
        let probe = Probe::default();
        let mut other = KeyValues::new(probe.clone());
        other.restore(&mut &image[..]).unwrap();
        assert_eq!((other.entries.size(), &other.entries), (5, &machine.entries));
        assert!(probe.last_restored().is_some());
    }
}
