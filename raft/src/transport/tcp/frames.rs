//! Reads frames from a connection.

use std::{
    io::{self, ErrorKind, Read},
    time::Duration,
};

use bytes::Bytes;

use crate::transport::wire::{self, FRAME_HEADER_BYTES, FrameHeader, FrameKind, WireError};

/// A whole frame, checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameKind,
    pub(super) group: u32,
    pub(super) payload: Bytes,
}

/// Why no frame follows.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("closed by the other side")]
    Closed,
    #[error("closed by the other side in the middle of a frame")]
    Cut,
    #[error("nothing arrived for {0:?}")]
    Silent(Duration),
    #[error("{0}")]
    Io(io::Error),
    #[error("{0}")]
    Wire(#[from] WireError),
}

/// Cuts what a source gives into frames.
///
/// Short payloads are copied out of the read buffer: a slice of it would keep all of the buffer
/// alive for as long as somebody keeps one small entry. Long ones are read into their own
/// allocation, which never exceeds `TRUST_BYTES` or twice what has really arrived.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    source: R,
    /// What the source waits before it gives up, for the report.
    silence_max: Duration,
    buffer: Box<[u8]>,
    /// The bytes that were read and are not yet part of a frame: `start <= end <= buffer.len()`.
    start: usize,
    end: usize,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(source: R, buffer_bytes: usize, silence_max: Duration) -> Self {
        assert!(buffer_bytes >= 8 * FRAME_HEADER_BYTES);
        let buffer = vec![0; buffer_bytes].into_boxed_slice();
        Self { source, silence_max, buffer, start: 0, end: 0 }
    }

    /// The next frame. `arriving` is called whenever a part of a long one has arrived.
    pub(super) fn next(&mut self, arriving: &mut dyn FnMut()) -> Result<Frame, ReadError> {
        let header = self.header()?;
        let payload = if header.payload_bytes <= self.buffer.len() / 4 {
            self.short(header.payload_bytes)?
        } else {
            self.long(header.payload_bytes, arriving)?
        };
        header.check(&payload)?;
        Ok(Frame { kind: header.kind, group: header.group, payload })
    }

    fn header(&mut self) -> Result<FrameHeader, ReadError> {
        loop {
            let waiting = &self.buffer[self.start..self.end];
            if let Some((header, _)) = waiting.split_first_chunk() {
                let header = wire::decode_frame_header(header)?;
                self.start += FRAME_HEADER_BYTES;
                return Ok(header);
            }
            let between_frames = waiting.is_empty();
            self.fill().map_err(|error| match error {
                ReadError::Cut if between_frames => ReadError::Closed,
                error => error,
            })?;
        }
    }

    fn short(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        while self.end - self.start < bytes {
            self.fill()?;
        }
        let payload = Bytes::copy_from_slice(&self.buffer[self.start..][..bytes]);
        self.start += bytes;
        Ok(payload)
    }

    fn long(&mut self, bytes: usize, arriving: &mut dyn FnMut()) -> Result<Bytes, ReadError> {
        let mut payload = vec![0; bytes.min(TRUST_BYTES.max(self.buffer.len()))];
        let mut filled = (self.end - self.start).min(bytes);
        payload[..filled].copy_from_slice(&self.buffer[self.start..][..filled]);
        self.start += filled;
        while filled < bytes {
            if filled == payload.len() {
                let grown = bytes.min(2 * filled);
                payload.reserve_exact(grown - filled);
                payload.resize(grown, 0);
            }
            filled += self.read_into(&mut payload[filled..])?;
            arriving();
        }
        Ok(payload.into())
    }

    /// Reads more into the buffer, which has room for a whole short frame behind `start`.
    fn fill(&mut self) -> Result<(), ReadError> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.end < self.buffer.len() / 4 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        assert!(self.end < self.buffer.len());
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read_into(&mut buffer[self.end..]);
        self.buffer = buffer;
        self.end += read?;
        Ok(())
    }

    fn read_into(&mut self, room: &mut [u8]) -> Result<usize, ReadError> {
        loop {
            match self.source.read(room) {
                Ok(0) => return Err(ReadError::Cut),
                Ok(bytes) => return Ok(bytes),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        return Err(ReadError::Silent(self.silence_max));
                    }
                    _ => return Err(ReadError::Io(error)),
                },
            }
        }
    }
}

/// What a greeted peer is trusted with before it has sent it.
const TRUST_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
