//! What nodes say to each other beside the protocol, and how it travels: PROTOCOL.md, "Messages".

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kontiki_core::{Entry, EntryKind, LogIndex, Message, Position as LogPosition, Term, codec};

use crate::{
    Applied, Position, ProposeError,
    proposal::ProposeResult,
    snapshots::download::{Ask, Piece},
};

/// One message between nodes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// Of the protocol.
    Protocol(Message),
    /// Commands that a follower passes on to its leader, as payloads of entries.
    Propose { id: u64, payloads: Vec<Bytes> },
    /// What became of them.
    Outcome { id: u64, results: Vec<ProposeResult> },
    /// A node wants a piece of an image.
    Ask(Ask),
    /// The piece; none if there is no image.
    Piece(Option<Piece>),
}

/// The chunks of a message of the protocol.
pub(crate) fn encode_protocol(message: &Message) -> Vec<Bytes> {
    let mut chunks = vec![Bytes::from_static(&[PROTOCOL])];
    codec::encode_message(message, &mut chunks);
    chunks
}

/// The chunks of commands that are passed on; large ones travel by reference.
pub(crate) fn encode_propose(id: u64, payloads: &[Bytes]) -> Vec<Bytes> {
    let mut chunks = Chunks::new(PROPOSE, id, payloads.len());
    payloads.iter().for_each(|payload| chunks.put(payload));
    chunks.finish()
}

/// The chunks of an answer; large replies travel by reference.
pub(crate) fn encode_outcome(id: u64, results: &[ProposeResult]) -> Vec<Bytes> {
    let mut chunks = Chunks::new(OUTCOME, id, results.len());
    results.iter().for_each(|result| chunks.put_result(result));
    chunks.finish()
}

/// The question for a piece of an image.
pub(crate) fn encode_ask(ask: Ask) -> Vec<Bytes> {
    let mut bytes = BytesMut::with_capacity(29);
    bytes.put_u8(ASK);
    put_place(&mut bytes, ask.at);
    bytes.put_u64_le(ask.offset);
    bytes.put_u32_le(length(ask.bytes));
    vec![bytes.freeze()]
}

/// The answer; what the image holds travels by reference.
pub(crate) fn encode_piece(piece: Option<&Piece>) -> Vec<Bytes> {
    let mut head = BytesMut::with_capacity(34);
    head.put_u8(PIECE);
    head.put_u8(u8::from(piece.is_some()));
    let Some(Piece { at, total, offset, bytes }) = piece else { return vec![head.freeze()] };
    put_place(&mut head, *at);
    head.put_u64_le(*total);
    head.put_u64_le(*offset);
    vec![head.freeze(), bytes.clone()]
}

fn put_place(bytes: &mut BytesMut, at: LogPosition) {
    bytes.put_u64_le(at.term.0);
    bytes.put_u64_le(at.index.0);
}

fn take_place(bytes: &mut Bytes) -> Result<LogPosition, String> {
    let (term, index) = (take_u64(bytes)?, take_u64(bytes)?);
    let is_small = term < NUMBER_MAX && index < NUMBER_MAX;
    if !is_small || (term == 0) != (index == 0) {
        return Err(format!("{term}/{index} is no place of an entry"));
    }
    Ok(LogPosition::new(term, index))
}

fn take_piece(mut bytes: Bytes) -> Result<Piece, String> {
    let (at, total, offset) =
        (take_place(&mut bytes)?, take_u64(&mut bytes)?, take_u64(&mut bytes)?);
    let end = offset.checked_add(bytes.len() as u64);
    if at.index.0 == 0 || end.is_none_or(|end| end > total) {
        return Err(format!("a piece of {} bytes at {offset} of {total}", bytes.len()));
    }
    Ok(Piece { at, total, offset, bytes })
}

/// Reads one message, trusting nothing in it; payloads and replies are slices of `bytes`.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Envelope, String> {
    match take_u8(&mut bytes)? {
        PROTOCOL => {
            codec::decode_message(bytes).map(Envelope::Protocol).map_err(|error| error.to_string())
        }
        PROPOSE => {
            let (id, count) = (take_u64(&mut bytes)?, take_count(&mut bytes, 5)?);
            let payloads =
                (0..count).map(|_| take_command(&mut bytes)).collect::<Result<_, _>>()?;
            expect_end(&bytes)?;
            Ok(Envelope::Propose { id, payloads })
        }
        OUTCOME => {
            let (id, count) = (take_u64(&mut bytes)?, take_count(&mut bytes, 1)?);
            let results = (0..count).map(|_| take_result(&mut bytes)).collect::<Result<_, _>>()?;
            expect_end(&bytes)?;
            Ok(Envelope::Outcome { id, results })
        }
        ASK => {
            let (at, offset) = (take_place(&mut bytes)?, take_u64(&mut bytes)?);
            let ask = Ask { at, offset, bytes: take_length(&mut bytes)? };
            expect_end(&bytes)?;
            Ok(Envelope::Ask(ask))
        }
        PIECE if take_bool(&mut bytes)? => Ok(Envelope::Piece(Some(take_piece(bytes)?))),
        PIECE => {
            expect_end(&bytes)?;
            Ok(Envelope::Piece(None))
        }
        tag => Err(format!("a message of the unknown kind {tag}")),
    }
}

impl Envelope {
    /// About what it takes in memory beside the bytes it came in.
    pub(crate) fn memory_bytes(&self) -> usize {
        match self {
            Self::Protocol(Message::AppendEntries(append)) => {
                append.entries.len() * size_of::<Entry>()
            }
            Self::Protocol(_) | Self::Ask(_) | Self::Piece(_) => 0,
            Self::Propose { payloads, .. } => payloads.len() * size_of::<Bytes>(),
            Self::Outcome { results, .. } => results.len() * size_of::<ProposeResult>(),
        }
    }
}

/// Chunks under construction: small parts are copied together, large ones stand alone.
struct Chunks {
    done: Vec<Bytes>,
    open: BytesMut,
}

impl Chunks {
    fn new(tag: u8, id: u64, count: usize) -> Self {
        let mut open = BytesMut::new();
        open.put_u8(tag);
        open.put_u64_le(id);
        open.put_u32_le(length(count));
        Self { done: Vec::new(), open }
    }

    fn put(&mut self, bytes: &Bytes) {
        self.open.put_u32_le(length(bytes.len()));
        if bytes.len() < OWN_CHUNK_BYTES {
            self.open.put_slice(bytes);
        } else {
            self.done.push(self.open.split().freeze());
            self.done.push(bytes.clone());
        }
    }

    fn put_position(&mut self, position: Position) {
        self.open.put_u64_le(position.term);
        self.open.put_u64_le(position.index);
    }

    fn put_result(&mut self, result: &ProposeResult) {
        match result {
            Ok(applied) => {
                self.open.put_u8(0);
                self.put_position(applied.position);
                self.put(&applied.reply);
            }
            Err(ProposeError::NotLeader { hint }) => {
                self.open.put_u8(1);
                self.open.put_u8(u8::from(hint.is_some()));
                if let Some((id, address)) = hint {
                    self.open.put_u64_le(*id);
                    self.put(&Bytes::copy_from_slice(address.as_bytes()));
                }
            }
            Err(ProposeError::Overloaded) => self.open.put_u8(2),
            Err(ProposeError::TooLarge { bytes, limit }) => {
                self.open.put_u8(3);
                self.open.put_u64_le(*bytes as u64);
                self.open.put_u64_le(*limit as u64);
            }
            Err(ProposeError::Superseded { position }) => {
                self.open.put_u8(4);
                self.put_position(*position);
            }
            Err(ProposeError::Unknown { position }) => self.put_unknown(*position),
            // No leader's, or its last words; both say that nothing was appended.
            Err(ProposeError::NotAdmitted(_) | ProposeError::Stopped) => {
                self.open.put_slice(&[1, 0]);
            }
            // The leader's own failure says nothing about the follower's: whoever asked there only
            // learns that nobody knows.
            Err(ProposeError::Fatal(_)) => self.put_unknown(None),
        }
    }

    fn put_unknown(&mut self, position: Option<Position>) {
        self.open.put_u8(5);
        self.open.put_u8(u8::from(position.is_some()));
        if let Some(position) = position {
            self.put_position(position);
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.freeze());
        }
        self.done
    }
}

fn take_result(bytes: &mut Bytes) -> Result<ProposeResult, String> {
    Ok(match take_u8(bytes)? {
        0 => {
            let position = take_position(bytes)?;
            Ok(Applied { position, reply: take_bytes(bytes)? })
        }
        1 => Err(ProposeError::NotLeader { hint: take_hint(bytes)? }),
        2 => Err(ProposeError::Overloaded),
        3 => {
            let (length, limit) = (take_u64(bytes)?, take_u64(bytes)?);
            let [length, limit] = [length, limit].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            Err(ProposeError::TooLarge { bytes: length, limit })
        }
        4 => Err(ProposeError::Superseded { position: take_position(bytes)? }),
        5 => {
            let position = if take_bool(bytes)? { Some(take_position(bytes)?) } else { None };
            Err(ProposeError::Unknown { position })
        }
        kind => return Err(format!("a result of the unknown kind {kind}")),
    })
}

fn take_hint(bytes: &mut Bytes) -> Result<Option<(u64, String)>, String> {
    if !take_bool(bytes)? {
        return Ok(None);
    }
    let id = take_u64(bytes)?;
    let address = take_bytes(bytes)?;
    let address = std::str::from_utf8(&address).map_err(|_| "an address that is not text")?;
    Ok(Some((id, address.to_owned())))
}

/// A follower passes on commands and nothing else: a configuration would change the members.
fn take_command(bytes: &mut Bytes) -> Result<Bytes, String> {
    let payload = take_bytes(bytes)?;
    let entry = Entry { index: LogIndex(0), term: Term(0), payload };
    match entry.kind() {
        Some(EntryKind::Command) => Ok(entry.payload),
        kind => Err(format!("an entry of kind {kind:?} among proposals")),
    }
}

/// A count of parts that take at least `part_bytes` each.
fn take_count(bytes: &mut Bytes, part_bytes: usize) -> Result<usize, String> {
    let count = take_length(bytes)?;
    if count == 0 || count > bytes.len() / part_bytes {
        return Err(format!("{count} parts announced in {} bytes", bytes.len()));
    }
    // In memory a part takes many times the bytes of a short one.
    if count > PARTS_MAX {
        return Err(format!("{count} parts announced, at most {PARTS_MAX}"));
    }
    Ok(count)
}

fn take_bytes(bytes: &mut Bytes) -> Result<Bytes, String> {
    let length = take_length(bytes)?;
    if length > bytes.len() {
        return Err(format!("{length} bytes announced, {} are there", bytes.len()));
    }
    Ok(bytes.split_to(length))
}

fn take_position(bytes: &mut Bytes) -> Result<Position, String> {
    Ok(Position { term: take_u64(bytes)?, index: take_u64(bytes)? })
}

fn take_bool(bytes: &mut Bytes) -> Result<bool, String> {
    match take_u8(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("{other} where 0 or 1 is needed")),
    }
}

fn take_length(bytes: &mut Bytes) -> Result<usize, String> {
    let length = bytes.try_get_u32_le().map_err(|_| CUT_SHORT)?;
    usize::try_from(length).map_err(|_| CUT_SHORT.to_owned())
}

fn take_u64(bytes: &mut Bytes) -> Result<u64, String> {
    bytes.try_get_u64_le().map_err(|_| CUT_SHORT.to_owned())
}

fn take_u8(bytes: &mut Bytes) -> Result<u8, String> {
    bytes.try_get_u8().map_err(|_| CUT_SHORT.to_owned())
}

fn expect_end(bytes: &Bytes) -> Result<(), String> {
    if bytes.is_empty() { Ok(()) } else { Err(format!("{} bytes too many", bytes.len())) }
}

fn length(count: usize) -> u32 {
    u32::try_from(count).expect("bounded by PARTS_MAX and MESSAGE_BYTES_MAX")
}

const PROTOCOL: u8 = 0;
const PROPOSE: u8 = 1;
const OUTCOME: u8 = 2;
const ASK: u8 = 3;
const PIECE: u8 = 4;

/// Terms and indexes of messages are below it, so that they can be counted on from.
const NUMBER_MAX: u64 = 1 << 62;

/// Most commands or results of one message; as many as entries.
pub(crate) const PARTS_MAX: usize = codec::ENTRIES_MAX;

const CUT_SHORT: &str = "a message that is cut short";

/// From this size on a part is sent by reference.
const OWN_CHUNK_BYTES: usize = 4 << 10;

#[cfg(test)]
mod tests;
