//! What is replicated: a change to the key space, as bytes in the log.
//!
//! ```text
//! u8 version (1) | u8 kind | fields
//!
//! kind 1  set        u8 condition | u8 reply | bytes key | bytes value
//! kind 2  set many   u32 pairs, at least 1 | pairs x (bytes key | bytes value)
//! kind 3  delete     u32 keys, at least 1  | keys x (bytes key)
//! kind 4  add        bytes key | i64 by
//! kind 5  flush all  nothing
//! ```
//!
//! `bytes` is a u32 length and as many bytes; numbers are little-endian. Nothing may follow the
//! last field. An encoded command is never longer than the RESP request it came from, so the bound
//! on a request is also the bound on a command.

use bytes::{BufMut, Bytes, BytesMut};

/// A change to the key space; borrows from the request on the way in, from the log on the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Give one key a value.
    Set { key: &'a [u8], value: &'a [u8], condition: Condition, reply: SetReply },
    /// Give several keys their values, all at once.
    SetMany { pairs: Vec<(&'a [u8], &'a [u8])> },
    /// Remove keys.
    Delete { keys: Vec<&'a [u8]> },
    /// Add to the number that a key holds; a missing key counts as 0.
    Add { key: &'a [u8], by: i64 },
    /// Remove every key.
    FlushAll,
}

/// When a [`Command::Set`] takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Always,
    IfAbsent,
    IfPresent,
}

/// What a [`Command::Set`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetReply {
    /// OK, or nil if the condition did not hold.
    Outcome,
    /// The value before, or nil if there was none.
    Old,
    /// 1, or 0 if the condition did not hold.
    Count,
}

/// Why bytes are not a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Written by a newer raftd: another node may well understand it.
    #[error(
        "command format {found}, this raftd knows format {VERSION}: \
         upgrade raftd on this node and start it again"
    )]
    Version { found: u8 },
    /// Of our own version, but no command: no node understands it.
    #[error("malformed command at byte {offset} of {length}")]
    Malformed { offset: usize, length: usize },
}

impl<'a> Command<'a> {
    /// The command as it goes into the log.
    ///
    /// # Panics
    /// If a field is 4 GiB long or more; requests are bounded far below that.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_bytes());
        out.put_u8(VERSION);
        match self {
            Self::Set { key, value, condition, reply } => {
                out.put_u8(KIND_SET);
                out.put_u8(condition.code());
                out.put_u8(reply.code());
                put_bytes(&mut out, key);
                put_bytes(&mut out, value);
            }
            Self::SetMany { pairs } => {
                out.put_u8(KIND_SET_MANY);
                put_count(&mut out, pairs.len());
                for (key, value) in pairs {
                    put_bytes(&mut out, key);
                    put_bytes(&mut out, value);
                }
            }
            Self::Delete { keys } => {
                out.put_u8(KIND_DELETE);
                put_count(&mut out, keys.len());
                keys.iter().for_each(|key| put_bytes(&mut out, key));
            }
            Self::Add { key, by } => {
                out.put_u8(KIND_ADD);
                put_bytes(&mut out, key);
                out.put_i64_le(*by);
            }
            Self::FlushAll => out.put_u8(KIND_FLUSH_ALL),
        }
        debug_assert_eq!(out.len(), self.encoded_bytes());
        out.freeze()
    }

    /// Reads a command back, trusting nothing in `bytes`.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields { bytes, offset: 0 };
        match fields.u8()? {
            VERSION => {}
            found => return Err(DecodeError::Version { found }),
        }
        let command = match fields.u8()? {
            KIND_SET => Self::Set {
                condition: Condition::decode(fields.u8()?).ok_or_else(|| fields.malformed())?,
                reply: SetReply::decode(fields.u8()?).ok_or_else(|| fields.malformed())?,
                key: fields.bytes()?,
                value: fields.bytes()?,
            },
            KIND_SET_MANY => Self::SetMany {
                pairs: fields.several(|fields| Ok((fields.bytes()?, fields.bytes()?)))?,
            },
            KIND_DELETE => Self::Delete { keys: fields.several(Fields::bytes)? },
            KIND_ADD => Self::Add { key: fields.bytes()?, by: fields.i64()? },
            KIND_FLUSH_ALL => Self::FlushAll,
            _ => return Err(fields.malformed()),
        };
        if fields.offset == bytes.len() { Ok(command) } else { Err(fields.malformed()) }
    }

    fn encoded_bytes(&self) -> usize {
        let field = |bytes: &[u8]| LENGTH_BYTES + bytes.len();
        2 + match self {
            Self::Set { key, value, .. } => 2 + field(key) + field(value),
            Self::SetMany { pairs } => {
                LENGTH_BYTES + pairs.iter().map(|(k, v)| field(k) + field(v)).sum::<usize>()
            }
            Self::Delete { keys } => LENGTH_BYTES + keys.iter().map(|k| field(k)).sum::<usize>(),
            Self::Add { key, .. } => field(key) + 8,
            Self::FlushAll => 0,
        }
    }
}

impl Condition {
    fn code(self) -> u8 {
        match self {
            Self::Always => 0,
            Self::IfAbsent => 1,
            Self::IfPresent => 2,
        }
    }

    fn decode(code: u8) -> Option<Self> {
        [Self::Always, Self::IfAbsent, Self::IfPresent].into_iter().find(|c| c.code() == code)
    }
}

impl SetReply {
    fn code(self) -> u8 {
        match self {
            Self::Outcome => 0,
            Self::Old => 1,
            Self::Count => 2,
        }
    }

    fn decode(code: u8) -> Option<Self> {
        [Self::Outcome, Self::Old, Self::Count].into_iter().find(|r| r.code() == code)
    }
}

/// What is left of a command while it is read.
struct Fields<'a> {
    bytes: &'a [u8],
    /// Where the next field begins; never beyond the end.
    offset: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let field = self.bytes[self.offset..].get(..length).ok_or_else(|| self.malformed())?;
        self.offset += length;
        Ok(field)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let field = self.take(N)?;
        Ok(field.try_into().expect("take returned as many bytes as asked for"))
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    fn length(&mut self) -> Result<usize, DecodeError> {
        let length = u32::from_le_bytes(self.array()?);
        usize::try_from(length).map_err(|_| self.malformed())
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        self.take(length)
    }

    /// A count, at least 1, and as many items. Each item takes at least a length, so the bytes
    /// that are there bound the count before it is used.
    fn several<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.length()?;
        if count == 0 || count > (self.bytes.len() - self.offset) / LENGTH_BYTES {
            return Err(self.malformed());
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn malformed(&self) -> DecodeError {
        DecodeError::Malformed { offset: self.offset, length: self.bytes.len() }
    }
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_count(out, bytes.len());
    out.put_slice(bytes);
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("requests are bounded far below 4 GiB"));
}

/// The first byte of every command.
const VERSION: u8 = 1;

const KIND_SET: u8 = 1;
const KIND_SET_MANY: u8 = 2;
const KIND_DELETE: u8 = 3;
const KIND_ADD: u8 = 4;
const KIND_FLUSH_ALL: u8 = 5;

const LENGTH_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_these_bytes() {
        let command = Command::Set {
            key: b"ab",
            value: b"xyz",
            condition: Condition::IfPresent,
            reply: SetReply::Old,
        };
        let golden = [1, 1, 2, 1, 2, 0, 0, 0, b'a', b'b', 3, 0, 0, 0, b'x', b'y', b'z'];
        assert_eq!(command.encode()[..], golden);
        assert_eq!(Command::decode(&golden), Ok(command));
    }

    #[test]
    fn every_command_comes_back_as_it_went() {
        for command in examples() {
            let bytes = command.encode();
            assert_eq!(Command::decode(&bytes), Ok(command));
        }
    }

    #[test]
    fn every_cut_and_every_addition_is_malformed() {
        for command in examples() {
            let bytes = command.encode();
            for end in 0..bytes.len() {
                let result = Command::decode(&bytes[..end]);
                assert!(matches!(result, Err(DecodeError::Malformed { .. })), "{command:?} {end}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert!(matches!(Command::decode(&longer), Err(DecodeError::Malformed { .. })));
        }
    }

    #[test]
    fn a_count_larger_than_the_bytes_is_malformed_before_it_is_used() {
        let bytes = [1, KIND_DELETE, 255, 255, 255, 255, 0, 0, 0, 0];
        assert_eq!(Command::decode(&bytes), Err(DecodeError::Malformed { offset: 6, length: 10 }));
    }

    #[test]
    fn another_version_is_told_from_a_malformed_command() {
        assert_eq!(Command::decode(&[2, 99]), Err(DecodeError::Version { found: 2 }));
    }

    fn examples() -> Vec<Command<'static>> {
        let mut examples = vec![
            Command::SetMany { pairs: vec![(b"a", b"1"), (b"", b"")] },
            Command::Delete { keys: vec![b"a", b"b", b""] },
            Command::Add { key: b"n", by: i64::MIN },
            Command::FlushAll,
        ];
        for condition in [Condition::Always, Condition::IfAbsent, Condition::IfPresent] {
            for reply in [SetReply::Outcome, SetReply::Old, SetReply::Count] {
                examples.push(Command::Set { key: b"k", value: b"v", condition, reply });
            }
        }
        examples
    }
}
