//! Greetings over a socket, each within a deadline for the whole of it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use crate::transport::wire::{self, GREETING_HEADER_BYTES, Greeting, Versions, WireError};

/// Why there is no greeting.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetingError {
    #[error("closed by the other side before a word")]
    Silent,
    #[error("closed by the other side in its greeting")]
    Closed,
    #[error("the greeting is not complete in time")]
    Late,
    #[error("{0}")]
    Io(io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// Writes a whole greeting. It fits into an empty socket, so this does not wait for a reader.
pub(super) fn write_greeting(
    mut stream: &TcpStream,
    versions: Versions,
    greeting: &Greeting,
) -> Result<(), GreetingError> {
    stream.write_all(&wire::encode_greeting(versions, greeting)).map_err(GreetingError::from_io)
}

/// Reads a whole greeting and not a byte more. What cannot become one fails with its first byte.
pub(super) fn read_greeting(
    stream: &TcpStream,
    deadline: Instant,
) -> Result<(Versions, Greeting), GreetingError> {
    let mut raw = [0; GREETING_HEADER_BYTES];
    read(stream, &mut raw, deadline, |begun| match wire::begins_like_a_greeting(begun) {
        true => Ok(()),
        false => Err(WireError::NotAPeer),
    })?;
    let header = wire::decode_greeting_header(&raw)?;
    let mut body = vec![0; header.body_bytes];
    read(stream, &mut body, deadline, |_| Ok(())).map_err(|error| match error {
        GreetingError::Silent => GreetingError::Closed,
        error => error,
    })?;
    Ok((header.versions, wire::decode_greeting(&header, &raw, &body)?))
}

fn read(
    mut stream: &TcpStream,
    room: &mut [u8],
    deadline: Instant,
    check: impl Fn(&[u8]) -> Result<(), WireError>,
) -> Result<(), GreetingError> {
    let mut filled = 0;
    while filled < room.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return Err(GreetingError::Late);
        }
        stream.set_read_timeout(Some(left)).map_err(GreetingError::Io)?;
        match stream.read(&mut room[filled..]) {
            Ok(0) if filled == 0 => return Err(GreetingError::Silent),
            Ok(0) => return Err(GreetingError::Closed),
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(GreetingError::from_io(error)),
        }
        check(&room[..filled])?;
    }
    Ok(())
}

impl GreetingError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            _ => Self::Io(error),
        }
    }
}
