//! The small durable state of a Raft log, and membership: types and bytes.
//!
//! ```text
//! state          magic (8) | version u8 = 1 | cluster u64 | incarnation u64 | term u64 | vote u64 |
//!                count u8 | count x { term u64, index u64, configuration }
//! configuration  count u8 | count x { id u64, incarnation u64, flags u8 (bit 0: voter),
//!                length u8, address }
//! ```
//!
//! Little-endian; a vote of 0 is none. No checksum: the log's frame has one.

use alloc::{string::String, vec::Vec};

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    ClusterId, Incarnation, LogIndex, NodeId, Position, Term,
    codec::{DecodeError, Reader},
};

/// Term and vote: what must be durable before a node speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// Newest term seen.
    pub term: Term,
    /// Whom this node voted for in `term`.
    pub vote: Option<NodeId>,
}

/// One member as configurations name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Id, never 0.
    pub id: NodeId,
    /// The disk it was admitted with.
    pub incarnation: Incarnation,
    /// `host:port`, at most [`ADDRESS_BYTES_MAX`] bytes.
    pub address: String,
    /// Votes, or only follows (a learner).
    pub voter: bool,
}

/// The members of the cluster, at most [`MEMBERS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configuration {
    /// Sorted by id, each id once.
    pub members: Vec<Member>,
}

impl Configuration {
    /// The bytes of a configuration, as in the state and in an entry of kind
    /// [`EntryKind::Configuration`](crate::EntryKind::Configuration).
    ///
    /// # Panics
    /// If there are more than [`MEMBERS_MAX`] members, they are not sorted by id, an id is 0 or an
    /// address has more than [`ADDRESS_BYTES_MAX`] bytes; ask [`Configuration::validate`] first.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Reads what `encode` wrote, trusting nothing.
    ///
    /// # Errors
    /// If the bytes are not exactly one valid configuration.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("configuration", bytes);
        let configuration = Self::decode_from(&mut reader)?;
        reader.finish()?;
        Ok(configuration)
    }

    /// Checks what `encode` relies on.
    ///
    /// # Errors
    /// What is too large or not valid.
    pub fn validate(&self) -> Result<(), DecodeError> {
        let invalid = |reason| Err(DecodeError::Invalid { what: "configuration", reason });
        within("members of a configuration", self.members.len(), MEMBERS_MAX)?;
        for member in &self.members {
            within("bytes of an address", member.address.len(), ADDRESS_BYTES_MAX)?;
        }
        if self.members.first().is_some_and(|member| member.id == NodeId(0)) {
            return invalid("a member has the id 0");
        }
        if self.members.windows(2).any(|pair| pair[0].id >= pair[1].id) {
            return invalid("members are not sorted by id, each id once");
        }
        Ok(())
    }

    fn encode_into(&self, out: &mut BytesMut) {
        if let Err(error) = self.validate() {
            panic!("{error}");
        }
        let short = |length: usize| u8::try_from(length).expect("bounded by validate");
        out.put_u8(short(self.members.len()));
        for member in &self.members {
            out.put_u64_le(member.id.0);
            out.put_u64_le(member.incarnation.0);
            out.put_u8(if member.voter { VOTER } else { 0 });
            out.put_u8(short(member.address.len()));
            out.put_slice(member.address.as_bytes());
        }
    }

    fn decode_from(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let count = usize::from(reader.u8()?);
        within("members of a configuration", count, MEMBERS_MAX)?;
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, incarnation) = (NodeId(reader.u64()?), Incarnation(reader.u64()?));
            let voter = match reader.u8()? {
                0 => false,
                VOTER => true,
                flags => return Err(reader.unknown_kind(u64::from(flags))),
            };
            let length = usize::from(reader.u8()?);
            within("bytes of an address", length, ADDRESS_BYTES_MAX)?;
            let address = core::str::from_utf8(reader.take(length)?)
                .map_err(|_| reader.invalid("an address is not UTF-8"))?;
            members.push(Member { id, incarnation, address: address.into(), voter });
        }
        let configuration = Self { members };
        configuration.validate()?;
        Ok(configuration)
    }
}

/// What the log's state holds for Raft, at most 4 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The cluster this node belongs to; 0 before the first start is complete.
    pub cluster: ClusterId,
    /// This disk.
    pub incarnation: Incarnation,
    /// Term and vote.
    pub hard: HardState,
    /// The two newest configurations, oldest first, with their places; configuration 0 is at
    /// `Position (0, 0)`. Empty before the first start is complete.
    pub configurations: Vec<(Position, Configuration)>,
}

impl State {
    /// Bytes for the log's state.
    ///
    /// # Panics
    /// If there are more than two configurations, or one is not valid
    /// ([`Configuration::validate`]).
    #[must_use]
    pub fn encode(&self) -> Bytes {
        assert!(self.configurations.len() <= CONFIGURATIONS_MAX);
        let mut out = BytesMut::new();
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u64_le(self.cluster.0);
        out.put_u64_le(self.incarnation.0);
        out.put_u64_le(self.hard.term.0);
        out.put_u64_le(self.hard.vote.map_or(0, |vote| vote.0));
        out.put_u8(u8::try_from(self.configurations.len()).expect("at most two"));
        for (position, configuration) in &self.configurations {
            out.put_u64_le(position.term.0);
            out.put_u64_le(position.index.0);
            configuration.encode_into(&mut out);
        }
        out.freeze()
    }

    /// Reads what `encode` wrote, trusting nothing. `Ok(None)` if the magic is not ours.
    ///
    /// # Errors
    /// If the magic is ours and the rest is of another version, cut short or not valid.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some(body) = bytes.strip_prefix(&MAGIC) else {
            return Ok(None);
        };
        let mut reader = Reader::new("state", body);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(reader.unknown_kind(u64::from(version)));
        }
        let cluster = ClusterId(reader.u64()?);
        let incarnation = Incarnation(reader.u64()?);
        let term = Term(reader.u64()?);
        let vote = Some(NodeId(reader.u64()?)).filter(|vote| *vote != NodeId(0));
        let count = usize::from(reader.u8()?);
        within("configurations of a state", count, CONFIGURATIONS_MAX)?;
        let mut configurations = Vec::with_capacity(count);
        for _ in 0..count {
            let term = Term(reader.u64()?);
            let position = Position { term, index: LogIndex(reader.u64()?) };
            configurations.push((position, Configuration::decode_from(&mut reader)?));
        }
        reader.finish()?;
        let hard = HardState { term, vote };
        Ok(Some(Self { cluster, incarnation, hard, configurations }))
    }
}

fn within(what: &'static str, found: usize, limit: usize) -> Result<(), DecodeError> {
    if found <= limit {
        return Ok(());
    }
    Err(DecodeError::TooLarge { what, found: found as u64, limit: limit as u64 })
}

/// Most members of one configuration: two configurations of this size fit into a state.
pub const MEMBERS_MAX: usize = 16;

/// Longest address of a member.
pub const ADDRESS_BYTES_MAX: usize = 90;

/// Says that a log's state is ours.
const MAGIC: [u8; 8] = *b"KTKSTATE";
const VERSION: u8 = 1;
const VOTER: u8 = 1;
const CONFIGURATIONS_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use alloc::{format, vec};

    use super::*;

    fn state(members: u64, address: &str) -> State {
        let member = |id| Member {
            id: NodeId(id),
            incarnation: Incarnation(id * 100),
            address: address.into(),
            voter: id != 3,
        };
        let configuration = Configuration { members: (1..=members).map(member).collect() };
        State {
            cluster: ClusterId(7),
            incarnation: Incarnation(8),
            hard: HardState { term: Term(9), vote: Some(NodeId(2)) },
            configurations: vec![
                (Position::default(), configuration.clone()),
                (Position::new(3, 4), configuration),
            ],
        }
    }

    #[test]
    fn a_state_comes_back_and_another_magic_is_not_ours() {
        let state = state(3, "host:1");
        assert_eq!(State::decode(&state.encode()), Ok(Some(state)));
        assert_eq!(State::decode(b"KTKSTATF-and-more"), Ok(None));
        assert_eq!(State::decode(b""), Ok(None));
    }

    #[test]
    fn the_largest_state_fits_into_what_a_log_keeps() {
        let longest = format!("{:a>90}", "");
        assert!(state(16, &longest).encode().len() <= 4096);
    }

    #[test]
    fn the_bytes_are_those_of_the_description() {
        let mut one = state(1, "a:1");
        one.configurations.truncate(1);
        let mut expected = vec![];
        expected.extend_from_slice(b"KTKSTATE\x01");
        for number in [7u64, 8, 9, 2] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        expected.push(1);
        expected.extend_from_slice(&[0; 16]);
        expected.push(1);
        expected.extend_from_slice(&1u64.to_le_bytes());
        expected.extend_from_slice(&100u64.to_le_bytes());
        expected.extend_from_slice(b"\x01\x03a:1");
        assert_eq!(one.encode(), expected);
    }

    #[test]
    fn every_cut_and_every_longer_one_is_refused() {
        let bytes = state(3, "host:1").encode();
        for end in MAGIC.len()..bytes.len() {
            assert!(State::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
        let longer = [&bytes[..], b"\0"].concat();
        assert!(State::decode(&longer).is_err());
    }

    #[test]
    fn unsorted_members_and_another_version_are_refused() {
        let mut bytes = state(3, "host:1").encode().to_vec();
        bytes[8] = 2;
        assert!(matches!(State::decode(&bytes), Err(DecodeError::UnknownKind { found: 2, .. })));

        let mut configuration = state(3, "host:1").configurations[0].1.clone();
        configuration.members.swap(0, 1);
        assert!(configuration.validate().is_err());
    }
}
