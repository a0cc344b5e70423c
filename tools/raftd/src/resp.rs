//! Reading RESP2 requests: arrays of bulk strings, or inline commands.
//!
//! Everything a client sends is bounded before it is used. The reader keeps its place between
//! calls, so a large request that arrives in many pieces is looked at once, and arguments are
//! slices of the bytes that were read. `redis-protocol`, which writes our replies, is not used
//! here: its decoder recurses as deep as the client likes and starts over with every piece.

use bytes::{Buf, Bytes, BytesMut};

/// Takes requests out of the bytes of one connection.
#[derive(Debug, Default)]
pub(crate) struct RequestReader {
    partial: Option<Partial>,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// The command's name and its arguments; at least the name.
    Arguments(Vec<Bytes>),
    /// More than [`REQUEST_BYTES_MAX`]: read to its end and thrown away, the connection goes on.
    TooLarge { bytes: usize },
}

/// Not RESP: the client gets this, and the connection is closed, since nobody can tell where its
/// next request would begin. The texts are those of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("Protocol error: invalid multibulk length, the limit is {ARGUMENTS_MAX}")]
    ArrayLength,
    #[error("Protocol error: invalid bulk length, the limit is {BULK_BYTES_MAX}")]
    BulkLength,
    #[error("Protocol error: expected '$', got '{}'", found.escape_ascii())]
    NotABulk { found: u8 },
    #[error("Protocol error: a bulk string must end with CR LF")]
    BulkEnd,
    #[error("Protocol error: too big inline request, the limit is {INLINE_BYTES_MAX}")]
    InlineTooLong,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// A request of which not everything has arrived.
#[derive(Debug)]
struct Partial {
    /// Arguments that are still to come, the one being read included.
    remaining: usize,
    /// Those that are here; empty once the request is too large.
    arguments: Vec<Bytes>,
    /// The length of the argument being read, once known.
    bulk_bytes: Option<usize>,
    /// What the whole request takes, as far as known.
    request_bytes: usize,
    /// Bytes of a too large request that are still to be thrown away.
    skip_bytes: usize,
}

impl RequestReader {
    /// Takes the next request from the front of `buffer`; `None` means that more has to arrive.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            if let Some(partial) = &mut self.partial {
                let request = partial.advance(buffer)?;
                if request.is_some() {
                    self.partial = None;
                }
                return Ok(request);
            }
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(line) = take_line(buffer, NUMBER_BYTES_MAX) else {
                        return if buffer.len() > NUMBER_BYTES_MAX {
                            Err(ProtocolError::ArrayLength)
                        } else {
                            Ok(None)
                        };
                    };
                    let count = number(&line[1..]).ok_or(ProtocolError::ArrayLength)?;
                    // Empty and nil arrays ask for nothing and are answered with nothing.
                    if count > 0 {
                        let count = usize::try_from(count).unwrap_or(usize::MAX);
                        self.partial = Some(Partial::new(count, line.len())?);
                    }
                }
                Some(_) => {
                    let Some(line) = take_line(buffer, INLINE_BYTES_MAX) else {
                        return if buffer.len() > INLINE_BYTES_MAX {
                            Err(ProtocolError::InlineTooLong)
                        } else {
                            Ok(None)
                        };
                    };
                    let arguments = split_inline(&line)?;
                    if !arguments.is_empty() {
                        return Ok(Some(Request::Arguments(arguments)));
                    }
                }
            }
        }
    }
}

impl Partial {
    fn new(arguments: usize, line_bytes: usize) -> Result<Self, ProtocolError> {
        if arguments > ARGUMENTS_MAX {
            return Err(ProtocolError::ArrayLength);
        }
        Ok(Self {
            remaining: arguments,
            // The count is the client's word: room is made as arguments arrive.
            arguments: Vec::with_capacity(arguments.min(16)),
            bulk_bytes: None,
            request_bytes: line_bytes,
            skip_bytes: 0,
        })
    }

    fn advance(&mut self, buffer: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            if self.skip_bytes > 0 {
                let skipped = self.skip_bytes.min(buffer.len());
                buffer.advance(skipped);
                self.skip_bytes -= skipped;
                if self.skip_bytes > 0 {
                    return Ok(None);
                }
            }
            if self.remaining == 0 {
                return Ok(Some(self.finish()));
            }
            let bulk_bytes = match self.bulk_bytes {
                Some(bytes) => bytes,
                None => match self.take_bulk_length(buffer)? {
                    Some(bytes) => bytes,
                    None => return Ok(None),
                },
            };
            if self.is_too_large() {
                self.arguments = Vec::new();
                self.skip_bytes = bulk_bytes + CRLF.len();
            } else {
                if buffer.len() < bulk_bytes + CRLF.len() {
                    return Ok(None);
                }
                let argument = buffer.split_to(bulk_bytes).freeze();
                if !buffer.starts_with(CRLF) {
                    return Err(ProtocolError::BulkEnd);
                }
                buffer.advance(CRLF.len());
                self.arguments.push(argument);
            }
            self.bulk_bytes = None;
            self.remaining -= 1;
        }
    }

    fn take_bulk_length(&mut self, buffer: &mut BytesMut) -> Result<Option<usize>, ProtocolError> {
        match buffer.first() {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&found) => return Err(ProtocolError::NotABulk { found }),
        }
        let Some(line) = take_line(buffer, NUMBER_BYTES_MAX) else {
            return if buffer.len() > NUMBER_BYTES_MAX {
                Err(ProtocolError::BulkLength)
            } else {
                Ok(None)
            };
        };
        let length = number(&line[1..])
            .and_then(|length| usize::try_from(length).ok())
            .filter(|&length| length <= BULK_BYTES_MAX)
            .ok_or(ProtocolError::BulkLength)?;
        self.bulk_bytes = Some(length);
        // Bounded: 128 Ki arguments of at most 512 MiB each.
        self.request_bytes += line.len() + CRLF.len() + length + CRLF.len();
        Ok(Some(length))
    }

    fn is_too_large(&self) -> bool {
        self.request_bytes > REQUEST_BYTES_MAX
    }

    fn finish(&mut self) -> Request {
        if self.is_too_large() {
            Request::TooLarge { bytes: self.request_bytes }
        } else {
            Request::Arguments(std::mem::take(&mut self.arguments))
        }
    }
}

/// Takes a line of at most `bytes_max` bytes off the front, without its end (LF or CR LF).
fn take_line(buffer: &mut BytesMut, bytes_max: usize) -> Option<Bytes> {
    let searched = &buffer[..buffer.len().min(bytes_max + 1)];
    let end = searched.iter().position(|&byte| byte == b'\n')?;
    let line = buffer.split_to(end).freeze();
    buffer.advance(1);
    Some(line.strip_suffix(b"\r").map_or_else(|| line.clone(), |inner| line.slice_ref(inner)))
}

/// A decimal number, as strict as Redis: no plus sign, no spaces, no leading zeros.
pub(crate) fn number(digits: &[u8]) -> Option<i64> {
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    let canonical = match unsigned {
        [b'0'] => digits.len() == 1,
        [first, ..] => matches!(first, b'1'..=b'9'),
        [] => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Splits an inline command at blanks; `"..."` with escapes and `'...'` keep theirs.
fn split_inline(line: &[u8]) -> Result<Vec<Bytes>, ProtocolError> {
    let mut arguments = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut argument = Vec::new();
        loop {
            match rest {
                [] => break,
                [byte, ..] if byte.is_ascii_whitespace() => break,
                [quote @ (b'"' | b'\''), after @ ..] => {
                    rest = take_quoted(*quote, after, &mut argument)
                        .ok_or(ProtocolError::UnbalancedQuotes)?;
                    // A closing quote must end the argument.
                    if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                        return Err(ProtocolError::UnbalancedQuotes);
                    }
                }
                [byte, after @ ..] => {
                    argument.push(*byte);
                    rest = after;
                }
            }
        }
        arguments.push(Bytes::from(argument));
        rest = rest.trim_ascii_start();
    }
    Ok(arguments)
}

/// Reads up to the closing quote into `argument`; what follows it, or `None` if there is none.
fn take_quoted<'a>(quote: u8, text: &'a [u8], argument: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return None,
            [byte, after @ ..] if *byte == quote => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                argument.push(hex(*high) << 4 | hex(*low));
                after
            }
            [b'\\', byte, after @ ..] if quote == b'"' => {
                argument.push(match byte {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                after
            }
            [b'\\', b'\'', after @ ..] if quote == b'\'' => {
                argument.push(b'\'');
                after
            }
            [byte, after @ ..] => {
                argument.push(*byte);
                after
            }
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// What one request may take, framing included: what a command may take in the log.
pub(crate) const REQUEST_BYTES_MAX: usize = 8 << 20;

/// A longer bulk string is no request but a mistake; as in Redis.
const BULK_BYTES_MAX: usize = 512 << 20;

/// Bounds the handles to arguments, 32 bytes each.
const ARGUMENTS_MAX: usize = 128 << 10;

/// As in Redis.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// More than the sign, the digits and the end of any length.
const NUMBER_BYTES_MAX: usize = 32;

const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests;
