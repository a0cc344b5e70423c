//! A directory of segments in the short form that fuzz inputs have.
//!
//! ```text
//! u8 size of new segments     then per segment, in the order of their numbers:
//! u8 number, from 128 on counted from the largest backwards   u8 pages   u8 what is mended   u16 damage: offset / 8
//! u8 pieces   then per piece: u16 offset / 8   u16 length   bytes     what lies between them is zero
//! ```

use std::path::Path;

use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_wal::inspect::Scan;

use super::mend::{self, Chain};

/// Where the log lies on the disk.
pub const DIRECTORY: &str = "log";

/// What an input speaks of.
#[derive(Debug)]
pub struct Directory {
    /// The files, all synced.
    pub disk: MemoryDisk,
    /// Size of segments to open with.
    pub segment_bytes: u64,
    /// Bytes of all files.
    pub bytes: usize,
}

/// Makes the files that `input` speaks of, as far as it goes.
pub fn unpack(input: &[u8]) -> Directory {
    let mut rest = Rest(input);
    let segment_bytes = (16 << 10) + 4096 * (u64::from(rest.byte().unwrap_or(0)) % 5);
    let (disk, mut chain) = (MemoryDisk::new(), Chain::default());
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).expect("it is new");
    let mut bytes = 0;
    for _ in 0..SEGMENTS_MAX {
        let Some((sequence, file)) = segment(&mut rest, &mut chain) else { break };
        bytes += file.len();
        let name = format!("{sequence:016x}.wal");
        let Ok(handle) = directory.create(&name, file.len() as u64) else { continue };
        handle.write_at(0, &[&file]).expect("no fault is planned");
        handle.sync().expect("no fault is planned");
    }
    directory.sync().expect("no fault is planned");
    Directory { disk, segment_bytes, bytes }
}

/// The next segment: its number and its file.
fn segment(rest: &mut Rest<'_>, chain: &mut Chain) -> Option<(u64, Vec<u8>)> {
    let number = u64::from(rest.byte()?);
    let sequence = if number < 128 { number } else { (1 << 37) + number - 255 };
    let pages = usize::from(rest.byte()?) % (PAGES_MAX + 1);
    let (mended, damage, pieces) = (rest.byte()?, rest.short()?, rest.byte()?);
    let mut file = vec![0; pages * mend::PAGE];
    for _ in 0..pieces {
        let Some((at, bytes)) = rest.piece() else { break };
        let room = file.get_mut(at..).unwrap_or_default();
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
    }
    mend::segment(&mut file, sequence, mended, chain);
    if let (1.., Some(byte)) = (damage, file.get_mut(8 * usize::from(damage))) {
        *byte ^= 1;
    }
    Some((sequence, file))
}

/// The input that `unpack` makes the segments on `disk` of, with `mended` said of each. What lies behind the frames of a
/// segment is left out if those are mended: it would become frames again.
pub fn pack(disk: &MemoryDisk, mended: u8) -> Vec<u8> {
    let scan = Scan::open_on(disk, DIRECTORY).expect("a log that can be looked into");
    let mut input = vec![0];
    for segment in scan.segments() {
        let file = disk.contents(Path::new(DIRECTORY).join(&segment.file));
        let mut file = file.expect("it is listed");
        if mended & mend::FRAMES != 0 {
            let used = usize::try_from(segment.used_bytes).expect("64-bit only");
            let index = mend::index_at(&file, segment.sequence);
            file[mend::PAGE + used..index].fill(0);
        }
        let pages = u8::try_from(file.len() / mend::PAGE).expect("small segments");
        input.push(u8::try_from(segment.sequence).expect("a young log"));
        input.extend_from_slice(&[pages, mended, 0, 0]);
        let pieces = pieces(&file);
        input.push(u8::try_from(pieces.len()).expect("a few pieces"));
        for (at, bytes) in pieces {
            for number in [at / 8, bytes.len()] {
                input.extend_from_slice(&u16::try_from(number).expect("small").to_le_bytes());
            }
            input.extend_from_slice(bytes);
        }
    }
    input
}

/// Runs of bytes that are not zero, with short runs of zeros in them.
fn pieces(file: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    for at in (0..file.len()).step_by(8).filter(|&at| file[at..at + 8] != [0; 8]) {
        match pieces.last_mut() {
            Some((start, end)) if at - *end < 64 && at - *start < 32 << 10 => *end = at + 8,
            _ => pieces.push((at, at + 8)),
        }
    }
    pieces.into_iter().map(|(start, end)| (start, &file[start..end])).collect()
}

/// What is left of an input.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Option<u8> {
        self.0.split_off_first().copied()
    }

    fn short(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    /// Offset and bytes of a piece; the last one may be cut short.
    fn piece(&mut self) -> Option<(usize, &'a [u8])> {
        let (at, length) = (self.short()?, self.short()?);
        let (bytes, rest) = self.0.split_at(usize::from(length).min(self.0.len()));
        self.0 = rest;
        Some((8 * usize::from(at), bytes))
    }
}

const SEGMENTS_MAX: usize = 16;
const PAGES_MAX: usize = 16;
