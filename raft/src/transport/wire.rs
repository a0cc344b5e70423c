//! The bytes of a connection: greetings and frames. Specified in PROTOCOL.md; change both or
//! neither. Everything here is pure; a length read from a peer is bounded before it is used.

use bytes::Bytes;

use crate::transport::{Hello, Lane, MESSAGE_BYTES_MAX};

/// The versions of the protocol that one side speaks, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: u16,
    pub(crate) max: u16,
}

impl Versions {
    /// What this build speaks.
    pub(crate) const OURS: Self = Self { min: 1, max: 1 };

    /// The newest version that both sides speak.
    pub(crate) fn common(self, theirs: Self) -> Result<u16, WireError> {
        let newest = self.max.min(theirs.max);
        if theirs.min <= theirs.max && newest >= self.min && newest >= theirs.min {
            Ok(newest)
        } else {
            Err(WireError::Versions { ours: self, theirs })
        }
    }
}

/// What a greeting carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// Who speaks, whom it believes to speak to, and what the connection is for.
    Hello { to: u64, hello: Hello, lane: Lane },
    /// Why the other side goes no further.
    Refusal(String),
}

/// The first bytes of a greeting, checked except for the checksum over header and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GreetingHeader {
    pub(crate) versions: Versions,
    pub(crate) body_bytes: usize,
    kind: u8,
    check: u32,
}

/// Encodes a whole greeting.
///
/// # Panics
/// If the hello is larger than allowed; see `check_hello`.
pub(crate) fn encode_greeting(versions: Versions, greeting: &Greeting) -> Vec<u8> {
    let (kind, body) = match greeting {
        Greeting::Hello { to, hello, lane } => (GREETING_HELLO, encode_hello(*to, hello, *lane)),
        Greeting::Refusal(reason) => (GREETING_REFUSAL, clip(reason).as_bytes().to_vec()),
    };
    let mut out = Vec::with_capacity(GREETING_HEADER_BYTES + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&versions.min.to_le_bytes());
    out.extend_from_slice(&versions.max.to_le_bytes());
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&length(body.len()).to_le_bytes());
    let check = greeting_check(&out, &body);
    out.extend_from_slice(&check.to_le_bytes());
    out.extend_from_slice(&body);
    out
}

/// False as soon as `bytes` cannot become a greeting: the first thing a stranger fails at.
pub(crate) fn begins_like_a_greeting(bytes: &[u8]) -> bool {
    let compared = bytes.len().min(MAGIC.len());
    bytes[..compared] == MAGIC[..compared]
}

/// Reads the header of a greeting; `body_bytes` is bounded when this returns.
pub(crate) fn decode_greeting_header(
    header: &[u8; GREETING_HEADER_BYTES],
) -> Result<GreetingHeader, WireError> {
    if !begins_like_a_greeting(header) {
        return Err(WireError::NotAPeer);
    }
    let mut fields = Fields { what: "greeting", rest: &header[MAGIC.len()..] };
    let versions = Versions { min: fields.u16()?, max: fields.u16()? };
    let kind = fields.u8()?;
    if fields.take(3)? != [0; 3] {
        return Err(WireError::Invalid { what: "greeting", reason: "reserved bytes are not zero" });
    }
    let body_bytes = bounded("greeting", fields.u32()?, GREETING_BODY_BYTES_MAX)?;
    Ok(GreetingHeader { versions, body_bytes, kind, check: fields.u32()? })
}

/// Reads the body that belongs to `header`; `raw` is the header as it came. A refusal is readable
/// in any version; of anything else the body is looked at only if this node speaks its version.
pub(crate) fn decode_greeting(
    header: &GreetingHeader,
    raw: &[u8; GREETING_HEADER_BYTES],
    body: &[u8],
) -> Result<Greeting, WireError> {
    if greeting_check(&raw[..GREETING_HEADER_BYTES - 4], body) != header.check {
        return Err(WireError::Checksum { what: "greeting" });
    }
    if header.kind == GREETING_REFUSAL {
        return Ok(Greeting::Refusal(readable(body)));
    }
    Versions::OURS.common(header.versions)?;
    match header.kind {
        GREETING_HELLO => {
            decode_hello(body).map(|(to, hello, lane)| Greeting::Hello { to, hello, lane })
        }
        kind => Err(WireError::UnknownKind { what: "greeting", kind }),
    }
}

/// Says what of a hello is beyond its limits, if anything is.
pub(crate) fn check_hello(hello: &Hello) -> Result<(), String> {
    if hello.members.len() > Hello::MEMBERS_MAX {
        let (found, limit) = (hello.members.len(), Hello::MEMBERS_MAX);
        return Err(format!("{found} members, the limit is {limit}"));
    }
    for (node, address) in &hello.members {
        if address.len() > Hello::ADDRESS_BYTES_MAX {
            let (found, limit) = (address.len(), Hello::ADDRESS_BYTES_MAX);
            return Err(format!("the address of node {node} has {found} bytes, limit {limit}"));
        }
        if address.chars().any(char::is_control) {
            return Err(format!("the address of node {node} has a control character"));
        }
    }
    match &hello.configuration {
        Some(configuration) if configuration.len() > Hello::CONFIGURATION_BYTES_MAX => {
            let (found, limit) = (configuration.len(), Hello::CONFIGURATION_BYTES_MAX);
            Err(format!("a configuration of {found} bytes, the limit is {limit}"))
        }
        _ => Ok(()),
    }
}

/// The body of a hello, also the payload of a hello frame.
///
/// # Panics
/// If it is larger than allowed; see `check_hello`.
pub(crate) fn encode_hello(to: u64, hello: &Hello, lane: Lane) -> Vec<u8> {
    check_hello(hello).expect("the limits of a hello hold since start and set_hello");
    let mut out = Vec::with_capacity(64);
    for field in [to, hello.node, hello.incarnation, hello.cluster] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    let empty = if hello.log_is_empty { FLAG_LOG_IS_EMPTY } else { 0 };
    let configured = if hello.configuration.is_some() { FLAG_CONFIGURATION } else { 0 };
    let images = if lane == Lane::Images { FLAG_IMAGES } else { 0 };
    out.push(empty | configured | images);
    out.push(u8::try_from(hello.members.len()).expect("bounded by MEMBERS_MAX"));
    for (node, address) in &hello.members {
        out.extend_from_slice(&node.to_le_bytes());
        out.push(u8::try_from(address.len()).expect("bounded by ADDRESS_BYTES_MAX"));
        out.extend_from_slice(address.as_bytes());
    }
    if let Some(configuration) = &hello.configuration {
        out.extend_from_slice(&length(configuration.len()).to_le_bytes());
        out.extend_from_slice(configuration);
    }
    out
}

/// Reads the body of a hello: whom it addresses, the hello, and what the connection is for.
pub(crate) fn decode_hello(body: &[u8]) -> Result<(u64, Hello, Lane), WireError> {
    let mut fields = Fields { what: "hello", rest: body };
    let to = fields.u64()?;
    let (node, incarnation, cluster) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let flags = fields.u8()?;
    if flags & !(FLAG_LOG_IS_EMPTY | FLAG_CONFIGURATION | FLAG_IMAGES) != 0 {
        return Err(WireError::Invalid { what: "hello", reason: "an unknown flag is set" });
    }
    let count = bounded("hello's member list", u32::from(fields.u8()?), Hello::MEMBERS_MAX)?;
    let mut members = Vec::with_capacity(count);
    for _ in 0..count {
        members.push((fields.u64()?, fields.address()?));
    }
    let mut configuration = None;
    if flags & FLAG_CONFIGURATION != 0 {
        let limit = Hello::CONFIGURATION_BYTES_MAX;
        let bytes = bounded("hello's configuration", fields.u32()?, limit)?;
        configuration = Some(Bytes::copy_from_slice(fields.take(bytes)?));
    }
    if !fields.rest.is_empty() {
        return Err(WireError::Invalid { what: "hello", reason: "bytes follow its end" });
    }
    let log_is_empty = flags & FLAG_LOG_IS_EMPTY != 0;
    let lane = if flags & FLAG_IMAGES != 0 { Lane::Images } else { Lane::Messages };
    Ok((to, Hello { node, incarnation, cluster, members, configuration, log_is_empty }, lane))
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// A message of a group.
    Message,
    /// The sender's hello, because it changed.
    Hello,
    /// Nothing: the sender is alive.
    Keepalive,
    /// Why the side that writes it closes the connection.
    Goodbye,
}

impl FrameKind {
    const fn code(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Hello => 2,
            Self::Keepalive => 3,
            Self::Goodbye => 4,
        }
    }

    fn from_code(kind: u8) -> Result<Self, WireError> {
        match kind {
            1 => Ok(Self::Message),
            2 => Ok(Self::Hello),
            3 => Ok(Self::Keepalive),
            4 => Ok(Self::Goodbye),
            kind => Err(WireError::UnknownKind { what: "frame", kind }),
        }
    }

    const fn payload_bytes_max(self) -> usize {
        match self {
            Self::Message => MESSAGE_BYTES_MAX,
            Self::Hello => GREETING_BODY_BYTES_MAX,
            Self::Keepalive => 0,
            Self::Goodbye => REASON_BYTES_MAX,
        }
    }
}

/// The header of a frame; its own checksum holds and its length is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) group: u32,
    pub(crate) payload_bytes: usize,
    payload_check: u32,
}

impl FrameHeader {
    /// Says whether `payload` is what the header announced.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<(), WireError> {
        assert_eq!(payload.len(), self.payload_bytes);
        if crc32fast::hash(payload) == self.payload_check {
            Ok(())
        } else {
            Err(WireError::Checksum { what: "payload of a frame" })
        }
    }
}

/// Encodes the header of a frame whose payload is `chunks`, back to back.
///
/// # Panics
/// If the payload is longer than its kind allows.
pub(crate) fn encode_frame_header(
    kind: FrameKind,
    group: u32,
    chunks: &[Bytes],
) -> [u8; FRAME_HEADER_BYTES] {
    let mut payload_bytes = 0;
    let mut hasher = crc32fast::Hasher::new();
    for chunk in chunks {
        payload_bytes += chunk.len();
        hasher.update(chunk);
    }
    assert!(payload_bytes <= kind.payload_bytes_max());

    let mut header = [0; FRAME_HEADER_BYTES];
    header[4] = kind.code();
    header[8..12].copy_from_slice(&group.to_le_bytes());
    header[12..16].copy_from_slice(&length(payload_bytes).to_le_bytes());
    header[16..].copy_from_slice(&hasher.finalize().to_le_bytes());
    let check = crc32fast::hash(&header[4..]);
    header[..4].copy_from_slice(&check.to_le_bytes());
    header
}

/// Reads the header of a frame.
pub(crate) fn decode_frame_header(
    header: &[u8; FRAME_HEADER_BYTES],
) -> Result<FrameHeader, WireError> {
    let mut fields = Fields { what: "frame", rest: header };
    if fields.u32()? != crc32fast::hash(&header[4..]) {
        return Err(WireError::Checksum { what: "header of a frame" });
    }
    let kind = FrameKind::from_code(fields.u8()?)?;
    let reserved = fields.take(3)?;
    let group = fields.u32()?;
    if reserved != [0; 3] || (group != 0 && kind != FrameKind::Message) {
        return Err(WireError::Invalid { what: "frame", reason: "reserved bytes are not zero" });
    }
    let payload_bytes = bounded("frame", fields.u32()?, kind.payload_bytes_max())?;
    Ok(FrameHeader { kind, group, payload_bytes, payload_check: fields.u32()? })
}

/// A whole goodbye frame. The reason is cut at `REASON_BYTES_MAX`.
pub(crate) fn encode_goodbye(reason: &str) -> Vec<u8> {
    let reason = Bytes::copy_from_slice(clip(reason).as_bytes());
    let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + reason.len());
    out.extend_from_slice(&encode_frame_header(
        FrameKind::Goodbye,
        0,
        std::slice::from_ref(&reason),
    ));
    out.extend_from_slice(&reason);
    out
}

/// A peer's text made fit for a log line: valid, on one line, bounded.
pub(crate) fn readable(text: &[u8]) -> String {
    let text = &text[..text.len().min(REASON_BYTES_MAX)];
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(text).chars().map(printable).collect()
}

/// What is wrong with the bytes of a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("not a Kontiki peer")]
    NotAPeer,
    #[error(
        "speaks protocol versions {} to {}, this node {} to {}",
        theirs.min, theirs.max, ours.min, ours.max
    )]
    Versions { ours: Versions, theirs: Versions },
    #[error("the checksum of a {what} does not hold")]
    Checksum { what: &'static str },
    #[error("a {what} of the unknown kind {kind}")]
    UnknownKind { what: &'static str, kind: u8 },
    #[error("the length of a {what} is {found}, the limit is {limit}")]
    TooLong { what: &'static str, found: usize, limit: usize },
    #[error("a {what} is cut short: {found} bytes where {needed} are needed")]
    Short { what: &'static str, needed: usize, found: usize },
    #[error("a {what} is not valid: {reason}")]
    Invalid { what: &'static str, reason: &'static str },
}

/// Reads little-endian fields from the front of bytes that nobody vouches for.
struct Fields<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let Some((front, rest)) = self.rest.split_at_checked(bytes) else {
            let (what, found) = (self.what, self.rest.len());
            return Err(WireError::Short { what, needed: bytes, found });
        };
        self.rest = rest;
        Ok(front)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked"))
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn address(&mut self) -> Result<String, WireError> {
        let bytes = u32::from(self.u8()?);
        let bytes = bounded("member's address", bytes, Hello::ADDRESS_BYTES_MAX)?;
        match std::str::from_utf8(self.take(bytes)?) {
            Ok(address) if !address.chars().any(char::is_control) => Ok(address.to_owned()),
            _ => Err(WireError::Invalid { what: "member's address", reason: "it is not text" }),
        }
    }
}

fn bounded(what: &'static str, found: u32, limit: usize) -> Result<usize, WireError> {
    let found = usize::try_from(found).expect("this is a 64-bit system");
    if found <= limit { Ok(found) } else { Err(WireError::TooLong { what, found, limit }) }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("every length of the protocol is bounded far below 4 GiB")
}

fn greeting_check(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

fn clip(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)]
}

const MAGIC: [u8; 4] = *b"KTKP";
pub(crate) const GREETING_HEADER_BYTES: usize = 20;
pub(crate) const FRAME_HEADER_BYTES: usize = 20;
/// What a stranger can make this node hold, at most.
pub(crate) const GREETING_BODY_BYTES_MAX: usize = 16 << 10;
/// Longest text of a refusal or goodbye.
pub(crate) const REASON_BYTES_MAX: usize = 1 << 10;

const GREETING_HELLO: u8 = 1;
const GREETING_REFUSAL: u8 = 2;
const FLAG_LOG_IS_EMPTY: u8 = 1;
const FLAG_CONFIGURATION: u8 = 2;
const FLAG_IMAGES: u8 = 4;

const HELLO_BYTES_MAX: usize = 4 * 8
    + 2
    + Hello::MEMBERS_MAX * (8 + 1 + Hello::ADDRESS_BYTES_MAX)
    + 4
    + Hello::CONFIGURATION_BYTES_MAX;
const _: () = assert!(HELLO_BYTES_MAX <= GREETING_BODY_BYTES_MAX);

#[cfg(test)]
mod tests;
