//! The state machine: a map from keys to values, the same on every node.
//!
//! An image of it is, little-endian: u8 version (1), u64 number of keys, then for each key in
//! ascending order u32 length, key, u32 length, value. The image's own file is checksummed by the
//! library; lengths are bounded here all the same.

use std::io::{self, Read, Write};

use bytes::Bytes;
use kontiki::{ApplyContext, SnapshotWriter, StateMachine};
use redis_protocol::resp2::types::BytesFrame;
use rpds::RedBlackTreeMapSync;

use crate::{
    command::{Command, Condition, DecodeError, SetReply},
    reply,
    resp::{self, REQUEST_BYTES_MAX},
};

/// The key space.
///
/// Ordered, so that images and digests do not depend on anything but the content; and persistent, so that a snapshot of any number
/// of keys is captured at once and shares all of them with what goes on to change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Store {
    entries: Entries,
}

type Entries = RedBlackTreeMapSync<Bytes, Bytes>;

impl Store {
    /// The value of a key.
    pub(crate) fn value(&self, key: &[u8]) -> Option<Bytes> {
        self.entries.get(key).cloned()
    }

    /// Whether the key has a value.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.entries.contains_key(key)
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> usize {
        self.entries.size()
    }

    /// A fingerprint of the whole content: equal on nodes that hold the same. It reads everything.
    pub(crate) fn digest(&self) -> u64 {
        let mut hash = Fnv::default();
        for (key, value) in &self.entries {
            for part in [key, value] {
                hash.update(&part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hash.0
    }

    /// Answers with the RESP frame that goes to the client.
    ///
    /// What is malformed in our own version is malformed on every node: a reply, and all go on.
    /// A newer version is not: this node must stop rather than skip what others apply.
    fn take_in(&mut self, command: &[u8]) -> io::Result<Bytes> {
        match Command::decode(command) {
            Ok(command) => Ok(reply::encode(&self.execute(&command))),
            Err(cause @ DecodeError::Malformed { .. }) => {
                Ok(reply::encode(&reply::error(format!("ERR {cause}"))))
            }
            Err(cause @ DecodeError::Version { .. }) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, cause))
            }
        }
    }

    fn execute(&mut self, command: &Command<'_>) -> BytesFrame {
        match command {
            Command::Set { key, value, condition, reply } => {
                self.set(key, value, *condition, *reply)
            }
            Command::SetMany { pairs } => {
                for (key, value) in pairs {
                    self.put(key, Bytes::copy_from_slice(value));
                }
                reply::ok()
            }
            Command::Delete { keys } => {
                reply::count(keys.iter().filter(|&&key| self.entries.remove_mut(key)).count())
            }
            Command::Add { key, by } => self.add(key, *by),
            Command::FlushAll => {
                self.entries = Entries::default();
                reply::ok()
            }
        }
    }

    fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        condition: Condition,
        reply: SetReply,
    ) -> BytesFrame {
        let old = self.value(key);
        let holds = match condition {
            Condition::Always => true,
            Condition::IfAbsent => old.is_none(),
            Condition::IfPresent => old.is_some(),
        };
        if holds {
            self.put(key, Bytes::copy_from_slice(value));
        }
        match reply {
            SetReply::Outcome if holds => reply::ok(),
            SetReply::Outcome => BytesFrame::Null,
            SetReply::Old => reply::bulk(old),
            SetReply::Count => BytesFrame::Integer(i64::from(holds)),
        }
    }

    fn add(&mut self, key: &[u8], by: i64) -> BytesFrame {
        let old = match self.entries.get(key) {
            None => 0,
            Some(digits) => match resp::number(digits) {
                Some(number) => number,
                None => return reply::error("ERR value is not an integer or out of range"),
            },
        };
        let Some(new) = old.checked_add(by) else {
            return reply::error("ERR increment or decrement would overflow");
        };
        self.put(key, Bytes::from(new.to_string()));
        BytesFrame::Integer(new)
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
}

impl StateMachine for Store {
    fn apply(&mut self, _context: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
        self.take_in(command)
    }

    fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
        Ok(Box::new(Image(self.entries.clone())))
    }

    fn restore(&mut self, image: &mut dyn Read) -> io::Result<()> {
        let [version] = read_array(image)?;
        if version != IMAGE_VERSION {
            return Err(damaged(format!(
                "image format {version}, this raftd knows format {IMAGE_VERSION}: upgrade raftd"
            )));
        }
        let keys = u64::from_le_bytes(read_array(image)?);
        let mut entries = Entries::default();
        for place in 0..keys {
            let key = read_bytes(image)?;
            let value = read_bytes(image)?;
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(damaged(format!("key {place} of {keys} is not above the one before")));
            }
            entries.insert_mut(key, value);
        }
        if image.read(&mut [0])? != 0 {
            return Err(damaged(format!("bytes after the last of {keys} keys")));
        }
        self.entries = entries;
        Ok(())
    }
}

/// The content at one moment, shared with the living store.
struct Image(Entries);

impl SnapshotWriter for Image {
    fn write_to(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&[IMAGE_VERSION])?;
        let keys = u64::try_from(self.0.size()).expect("a usize is at most 64 bits");
        out.write_all(&keys.to_le_bytes())?;
        for (key, value) in &self.0 {
            for part in [key, value] {
                let length = u32::try_from(part.len()).expect("bounded by the request it came in");
                out.write_all(&length.to_le_bytes())?;
                out.write_all(part)?;
            }
        }
        Ok(())
    }
}

fn read_bytes(image: &mut dyn Read) -> io::Result<Bytes> {
    let length = u32::from_le_bytes(read_array(image)?);
    let length =
        usize::try_from(length).ok().filter(|&length| length <= REQUEST_BYTES_MAX).ok_or_else(
            || damaged(format!("a length of {length}, the limit is {REQUEST_BYTES_MAX}")),
        )?;
    let mut bytes = vec![0; length];
    image.read_exact(&mut bytes)?;
    Ok(Bytes::from(bytes))
}

fn read_array<const N: usize>(image: &mut dyn Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn damaged(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("image of the key space: {reason}"))
}

/// FNV-1a, 64 bit: the same on every build and machine, and no secret.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

const IMAGE_VERSION: u8 = 1;

#[cfg(test)]
mod tests;
