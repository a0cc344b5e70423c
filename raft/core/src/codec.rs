//! Bytes of messages. Little-endian; lengths are bounded before they are used, nothing is trusted.
//!
//! ```text
//! message            kind u8 | fields
//! 1 VoteRequest      vote kind u8 | term u64 | last term u64 | last index u64
//! 2 VoteResponse     vote kind u8 | term u64 | granted u8
//! 3 AppendEntries    term u64 | previous term u64 | previous index u64 | commit u64 | round u64 |
//!                    runs u32 | count u32 | runs x { term u64, count u32 } |
//!                    count x length u32 | payloads
//! 4 AppendResponse   term u64 | round u64 | outcome u8 (0 matched, 1 rejected, 2 fetching) |
//!                    matched u64; or previous and hint, term u64 and index u64 each; or at, the same
//! 5 ReadIndexRequest   term u64 | id u64
//! 6 ReadIndexResponse  term u64 | id u64 | known u8 | index u64 if known
//! 7 InstallSnapshot    term u64 | round u64 | at, term u64 and index u64
//! ```
//!
//! Indexes of entries do not travel: they follow `previous`. Terms travel once per run. `count` is
//! at most [`ENTRIES_MAX`].

use alloc::vec::Vec;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    AppendEntries, AppendOutcome, AppendResponse, Batch, Entry, InstallSnapshot, LogIndex, Message,
    Position, ReadId, ReadIndexRequest, ReadIndexResponse, Term, VoteKind, VoteRequest,
    VoteResponse,
};

/// What is wrong with bytes from a disk or a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than it says it has.
    #[error("{what} is cut short: {found} bytes, {needed} needed")]
    Short {
        /// What was read.
        what: &'static str,
        /// Bytes needed next.
        needed: usize,
        /// Bytes left.
        found: usize,
    },
    /// A kind, flag or version that this version does not know.
    #[error("{what} has the unknown kind {found}")]
    UnknownKind {
        /// What was read.
        what: &'static str,
        /// The byte found.
        found: u64,
    },
    /// A number beyond its limit.
    #[error("{what} is {found}, the limit is {limit}")]
    TooLarge {
        /// What was read.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The largest one allowed.
        limit: u64,
    },
    /// Numbers that contradict each other.
    #[error("{what} is not valid: {reason}")]
    Invalid {
        /// What was read.
        what: &'static str,
        /// Why it cannot be.
        reason: &'static str,
    },
}

/// Appends the message to `out` as chunks. Payloads of at least 4 KiB are chunks of their own, by
/// reference; everything else is copied together.
///
/// # Panics
/// If a payload, or the number of entries, does not fit into a u32; `Config` keeps both below.
pub fn encode_message(message: &Message, out: &mut Vec<Bytes>) {
    let mut head = BytesMut::with_capacity(64);
    match message {
        Message::VoteRequest(request) => {
            head.put_u8(VOTE_REQUEST);
            head.put_u8(vote_kind_byte(request.kind));
            head.put_u64_le(request.term.0);
            put_position(&mut head, request.last);
        }
        Message::VoteResponse(response) => {
            head.put_u8(VOTE_RESPONSE);
            head.put_u8(vote_kind_byte(response.kind));
            head.put_u64_le(response.term.0);
            head.put_u8(u8::from(response.granted));
        }
        Message::AppendEntries(request) => return encode_append(request, head, out),
        Message::AppendResponse(response) => encode_append_response(response, &mut head),
        Message::InstallSnapshot(request) => {
            head.put_u8(INSTALL_SNAPSHOT);
            head.put_u64_le(request.term.0);
            head.put_u64_le(request.round);
            put_position(&mut head, request.at);
        }
        Message::ReadIndexRequest(request) => {
            head.put_u8(READ_INDEX_REQUEST);
            head.put_u64_le(request.term.0);
            head.put_u64_le(request.id.0);
        }
        Message::ReadIndexResponse(response) => {
            head.put_u8(READ_INDEX_RESPONSE);
            head.put_u64_le(response.term.0);
            head.put_u64_le(response.id.0);
            head.put_u8(u8::from(response.index.is_some()));
            if let Some(index) = response.index {
                head.put_u64_le(index.0);
            }
        }
    }
    out.push(head.freeze());
}

/// Reads one whole message; the payloads of entries are slices of `bytes`.
///
/// # Errors
/// If the bytes are not exactly one valid message: an unknown kind, a length beyond the bytes,
/// entries whose terms are zero, fall, or exceed the message's, an empty payload, a number too
/// large to count on from.
pub fn decode_message(bytes: Bytes) -> Result<Message, DecodeError> {
    let mut reader = Reader::new("message", &bytes);
    let message = match reader.u8()? {
        VOTE_REQUEST => Message::VoteRequest(VoteRequest {
            kind: reader.vote_kind()?,
            term: reader.term()?,
            last: reader.position()?,
        }),
        VOTE_RESPONSE => Message::VoteResponse(VoteResponse {
            kind: reader.vote_kind()?,
            term: reader.term()?,
            granted: reader.flag()?,
        }),
        APPEND_ENTRIES => return decode_append(reader, &bytes).map(Message::AppendEntries),
        APPEND_RESPONSE => Message::AppendResponse(decode_append_response(&mut reader)?),
        INSTALL_SNAPSHOT => Message::InstallSnapshot(decode_install(&mut reader)?),
        READ_INDEX_REQUEST => Message::ReadIndexRequest(ReadIndexRequest {
            term: reader.term()?,
            id: ReadId(reader.u64()?),
        }),
        READ_INDEX_RESPONSE => {
            let (term, id) = (reader.term()?, ReadId(reader.u64()?));
            let index = if reader.flag()? { Some(reader.index()?) } else { None };
            Message::ReadIndexResponse(ReadIndexResponse { term, id, index })
        }
        kind => return Err(reader.unknown_kind(u64::from(kind))),
    };
    reader.finish()?;
    Ok(message)
}

fn encode_append(request: &AppendEntries, mut head: BytesMut, out: &mut Vec<Bytes>) {
    let entries = request.entries.entries();
    let runs = entries.chunk_by(|a, b| a.term == b.term);
    let copied = entries.iter().map(|entry| entry.payload.len()).filter(|l| *l < CHUNK_BYTES);
    head.reserve(64 + 12 * runs.clone().count() + 4 * entries.len() + copied.sum::<usize>());

    head.put_u8(APPEND_ENTRIES);
    head.put_u64_le(request.term.0);
    put_position(&mut head, request.previous);
    head.put_u64_le(request.commit.0);
    head.put_u64_le(request.round);
    head.put_u32_le(length_u32(runs.clone().count()));
    head.put_u32_le(length_u32(entries.len()));
    for run in runs {
        head.put_u64_le(run[0].term.0);
        head.put_u32_le(length_u32(run.len()));
    }
    for entry in entries {
        head.put_u32_le(length_u32(entry.payload.len()));
    }
    for entry in entries {
        if entry.payload.len() < CHUNK_BYTES {
            head.put_slice(&entry.payload);
        } else {
            out.push(head.split().freeze());
            out.push(entry.payload.clone());
        }
    }
    if !head.is_empty() {
        out.push(head.freeze());
    }
}

fn decode_append(mut reader: Reader<'_>, bytes: &Bytes) -> Result<AppendEntries, DecodeError> {
    let term = reader.term()?;
    let previous = reader.position()?;
    let (commit, round) = (reader.index()?, reader.u64()?);
    if previous.term > term {
        return Err(reader.invalid("the previous entry is of a later term"));
    }
    let runs = reader.count(RUN_BYTES)?;
    let count = reader.count(LENGTH_BYTES)?;
    // In memory an entry takes many times the bytes of a short one.
    if count > ENTRIES_MAX {
        let (found, limit) = (count as u64, ENTRIES_MAX as u64);
        return Err(DecodeError::TooLarge { what: "the number of entries", found, limit });
    }
    let mut terms = reader.fixed(runs * RUN_BYTES)?;
    let mut lengths = reader.fixed(count * LENGTH_BYTES)?;

    let mut entries = Vec::with_capacity(count);
    let mut at = previous;
    for _ in 0..runs {
        let (run_term, run_count) = (terms.term()?, terms.u32()? as usize);
        let rises = run_term > at.term || (run_term == at.term && entries.is_empty());
        if !rises || run_term > term || run_term == Term(0) {
            return Err(reader.invalid("terms of entries are zero, fall or exceed the leader's"));
        }
        if run_count == 0 || run_count > count - entries.len() {
            return Err(reader.invalid("runs of terms do not add up to the entries"));
        }
        for _ in 0..run_count {
            at = Position { term: run_term, index: at.index.next() };
            let payload = bytes.slice_ref(reader.take(lengths.u32()? as usize)?);
            if payload.is_empty() {
                return Err(reader.invalid("an entry has no payload"));
            }
            entries.push(Entry { index: at.index, term: at.term, payload });
        }
    }
    if entries.len() != count {
        return Err(reader.invalid("runs of terms do not add up to the entries"));
    }
    reader.finish()?;
    Ok(AppendEntries { term, previous, commit, round, entries: Batch::from(entries) })
}

fn encode_append_response(response: &AppendResponse, out: &mut BytesMut) {
    out.put_u8(APPEND_RESPONSE);
    out.put_u64_le(response.term.0);
    out.put_u64_le(response.round);
    match response.outcome {
        AppendOutcome::Matched(matched) => {
            out.put_u8(0);
            out.put_u64_le(matched.0);
        }
        AppendOutcome::Rejected { previous, hint } => {
            out.put_u8(1);
            put_position(out, previous);
            put_position(out, hint);
        }
        AppendOutcome::Fetching { at } => {
            out.put_u8(2);
            put_position(out, at);
        }
    }
}

fn decode_append_response(reader: &mut Reader<'_>) -> Result<AppendResponse, DecodeError> {
    let (term, round) = (reader.term()?, reader.u64()?);
    let outcome = match reader.u8()? {
        0 => AppendOutcome::Matched(reader.index()?),
        1 => AppendOutcome::Rejected { previous: reader.position()?, hint: reader.position()? },
        2 => AppendOutcome::Fetching { at: reader.position()? },
        kind => return Err(reader.unknown_kind(u64::from(kind))),
    };
    Ok(AppendResponse { term, round, outcome })
}

fn decode_install(reader: &mut Reader<'_>) -> Result<InstallSnapshot, DecodeError> {
    let (term, round, at) = (reader.term()?, reader.u64()?, reader.position()?);
    // What is in it was appended by this leader or an earlier one.
    if at.index == LogIndex(0) || at.term > term {
        return Err(reader.invalid("a snapshot is empty or of a later term"));
    }
    Ok(InstallSnapshot { term, round, at })
}

/// Bytes being read; every step is bounded by what is left.
pub(crate) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(DecodeError::Short {
            what: self.what,
            needed: length,
            found: self.bytes.len(),
        })?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?.get_u8())
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(self.take(4)?.get_u32_le())
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(self.take(8)?.get_u64_le())
    }

    /// Nothing may be left over.
    pub(crate) fn finish(&self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.invalid("bytes are left over")) }
    }

    pub(crate) fn invalid(&self, reason: &'static str) -> DecodeError {
        DecodeError::Invalid { what: self.what, reason }
    }

    pub(crate) fn unknown_kind(&self, found: u64) -> DecodeError {
        DecodeError::UnknownKind { what: self.what, found }
    }

    /// The next `length` bytes, as a reader of their own.
    fn fixed(&mut self, length: usize) -> Result<Reader<'a>, DecodeError> {
        Ok(Reader::new(self.what, self.take(length)?))
    }

    /// A count of things that take `each` bytes, no larger than what is left can hold.
    fn count(&mut self, each: usize) -> Result<usize, DecodeError> {
        let found = self.u32()?;
        let limit = self.bytes.len() / each;
        if found as usize > limit {
            let (found, limit) = (u64::from(found), limit as u64);
            return Err(DecodeError::TooLarge { what: "a count in a message", found, limit });
        }
        Ok(found as usize)
    }

    /// Terms and indexes are bounded far below overflow, so that they can be counted on.
    fn number(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let found = self.u64()?;
        if found > NUMBER_MAX {
            return Err(DecodeError::TooLarge { what, found, limit: NUMBER_MAX });
        }
        Ok(found)
    }

    fn term(&mut self) -> Result<Term, DecodeError> {
        self.number("a term").map(Term)
    }

    fn index(&mut self) -> Result<LogIndex, DecodeError> {
        self.number("an index").map(LogIndex)
    }

    fn position(&mut self) -> Result<Position, DecodeError> {
        let (term, index) = (self.term()?, self.index()?);
        if (term == Term(0)) != (index == LogIndex(0)) {
            return Err(self.invalid("only the place before the first entry has term or index 0"));
        }
        Ok(Position { term, index })
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.unknown_kind(u64::from(other))),
        }
    }

    fn vote_kind(&mut self) -> Result<VoteKind, DecodeError> {
        Ok(if self.flag()? { VoteKind::Real } else { VoteKind::Pre })
    }
}

fn vote_kind_byte(kind: VoteKind) -> u8 {
    match kind {
        VoteKind::Pre => 0,
        VoteKind::Real => 1,
    }
}

fn put_position(out: &mut BytesMut, position: Position) {
    out.put_u64_le(position.term.0);
    out.put_u64_le(position.index.0);
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("bounded by Config::validate")
}

const VOTE_REQUEST: u8 = 1;
const VOTE_RESPONSE: u8 = 2;
const APPEND_ENTRIES: u8 = 3;
const APPEND_RESPONSE: u8 = 4;
const READ_INDEX_REQUEST: u8 = 5;
const READ_INDEX_RESPONSE: u8 = 6;
const INSTALL_SNAPSHOT: u8 = 7;

const RUN_BYTES: usize = 12;
const LENGTH_BYTES: usize = 4;

/// Most entries of one AppendEntries. `append_bytes_max` is bounded so that no leader sends more.
pub const ENTRIES_MAX: usize = 1 << 18;

/// From this size on a payload travels by reference.
const CHUNK_BYTES: usize = 4096;

/// Largest term or index a peer may speak of: nobody counts that far.
const NUMBER_MAX: u64 = u64::MAX >> 2;

#[cfg(test)]
mod tests;
