//! Coalesces messages into few large writes.

use std::{
    io::{self, ErrorKind, IoSlice, Write},
    ops::Range,
};

use bytes::Bytes;

use crate::transport::wire::{self, FrameKind};

/// Collects frames and writes them together: small chunks copied next to each other, because that
/// is cheaper than a slice for each, large ones by reference.
///
/// After an error nothing of it may be used again: some of the bytes have left.
#[derive(Debug, Default)]
pub(super) struct Gather {
    staged: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
enum Piece {
    Staged(Range<usize>),
    Chunk(Bytes),
}

impl Gather {
    /// Adds a frame; writes what is collected when it is enough for one write.
    pub(super) fn frame(
        &mut self,
        out: &mut impl Write,
        kind: FrameKind,
        group: u32,
        chunks: &[Bytes],
    ) -> io::Result<()> {
        self.stage(&wire::encode_frame_header(kind, group, chunks));
        for chunk in chunks {
            if chunk.len() < CHUNK_BYTES_MIN {
                self.stage(chunk);
            } else {
                self.pieces.push(Piece::Chunk(chunk.clone()));
            }
            if self.staged.len() >= STAGED_BYTES_MAX || self.pieces.len() >= SLICES_MAX {
                self.flush(out)?;
            }
        }
        Ok(())
    }

    /// Writes all that is collected.
    pub(super) fn flush(&mut self, out: &mut impl Write) -> io::Result<()> {
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(self.pieces.len());
        slices.extend(self.pieces.iter().map(|piece| match piece {
            Piece::Staged(range) => IoSlice::new(&self.staged[range.clone()]),
            Piece::Chunk(chunk) => IoSlice::new(chunk),
        }));
        write_all(out, &mut slices)?;
        self.pieces.clear();
        self.staged.clear();
        Ok(())
    }

    fn stage(&mut self, bytes: &[u8]) {
        let start = self.staged.len();
        self.staged.extend_from_slice(bytes);
        let end = self.staged.len();
        match self.pieces.last_mut() {
            Some(Piece::Staged(range)) => range.end = end,
            _ => self.pieces.push(Piece::Staged(start..end)),
        }
    }
}

fn write_all(out: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match out.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(bytes) => IoSlice::advance_slices(&mut slices, bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A chunk of at least so many bytes is not copied.
const CHUNK_BYTES_MIN: usize = 4 << 10;
const STAGED_BYTES_MAX: usize = 256 << 10;
const SLICES_MAX: usize = 64;

#[cfg(test)]
mod tests;
