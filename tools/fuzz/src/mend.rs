//! Makes checksums, links and places hold again after the fuzzer has changed what they are made of. Written from
//! FORMAT.md and not from the log's code.

/// Length of a header page and of a trailer page.
pub const PAGE: usize = 4096;

/// What is mended: the header page.
pub const HEADER_PAGE: u8 = 1;
/// Checksums and padding of frames.
pub const FRAMES: u8 = 2;
/// Links, and what a segment-start frame says of the segment before.
pub const LINKS: u8 = 4;
/// Watermarks above the frame's own LSN.
pub const WATERMARKS: u8 = 8;
/// Checksums of the index and the trailer page.
pub const TRAILER: u8 = 16;
/// The places that a trailer names.
pub const PLACES: u8 = 32;
/// All of them.
pub const ALL: u8 = 63;

/// Where the stream stands between two segments.
#[derive(Debug, Default)]
pub struct Chain {
    uuid: Option<[u8; 16]>,
    previous: u64,
    link: u32,
    /// `None` before a segment that does not follow on another: it may begin anywhere.
    lsn: Option<u64>,
}

/// Mends the file of segment `sequence`, which follows on `chain`.
pub fn segment(file: &mut [u8], sequence: u64, mended: u8, chain: &mut Chain) {
    if file.len() < 2 * PAGE {
        return;
    }
    let length = file.len();
    if mended & HEADER_PAGE != 0 {
        let found = *file[24..].first_chunk().expect("a page");
        file[24..40].copy_from_slice(chain.uuid.get_or_insert(found));
        file[0..8].copy_from_slice(b"KONTIKI\x01");
        file[40..48].copy_from_slice(&sequence.to_le_bytes());
        file[48..56].copy_from_slice(&(length as u64).to_le_bytes());
        seal(&mut file[..PAGE], 0);
    }
    let salt = salt(&file[24..40], sequence);
    if sequence != chain.previous + 1 {
        // What it follows on is not there.
        chain.lsn = None;
    }
    if mended & FRAMES != 0 {
        let start = frames(&mut file[..length - PAGE], salt, mended, chain);
        if mended & PLACES != 0 && file[length - PAGE..].starts_with(b"KTSEALED") {
            places(&mut file[length - PAGE..], sequence, start, chain);
        }
    }
    if mended & TRAILER != 0 {
        trailer(file, salt);
    }
    chain.previous = sequence;
}

/// Mends frame after frame; the segment's base LSN and where its frames end.
fn frames(space: &mut [u8], salt: u32, mended: u8, chain: &mut Chain) -> (u64, u64) {
    let (mut at, mut base) = (PAGE, chain.lsn.unwrap_or(0));
    let mended = if chain.lsn.is_some() { mended } else { mended & !LINKS };
    while let Some(end) = frame_end(space, at) {
        if at == PAGE && space[at + 16] == 1 && end == at + 80 {
            let body = at + 48;
            base = *chain.lsn.get_or_insert(u64_at(space, body + 16));
            if mended & LINKS != 0 {
                space.copy_within(24..40, body);
                space[body + 16..body + 24].copy_from_slice(&base.to_le_bytes());
                space[body + 24..body + 32].copy_from_slice(&chain.previous.to_le_bytes());
            }
        }
        if mended & LINKS != 0 || at > PAGE {
            space[at + 4..at + 8].copy_from_slice(&chain.link.to_le_bytes());
        }
        let lsn = base.wrapping_add((at - PAGE) as u64);
        if mended & WATERMARKS != 0 && u64_at(space, at + 40) > lsn {
            space[at + 40..at + 48].copy_from_slice(&lsn.to_le_bytes());
        }
        frame(space, at, salt, at as u64);
        chain.link = u32_at(space, at);
        at = end;
    }
    chain.lsn = Some(base.wrapping_add((at - PAGE) as u64));
    (base, at as u64)
}

/// Mends padding and checksums of the frame at `at`, if there is room for it.
pub fn frame(space: &mut [u8], at: usize, salt: u32, offset: u64) {
    let Some(end) = frame_end(space, at) else { return };
    let body = at + 48..at + 48 + u32_at(space, at + 12) as usize;
    space[body.end..end].fill(0);
    let crc = crc32fast::hash(&space[body]);
    space[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    let offset = u32::try_from(offset).expect("a segment is small");
    let crc = crc32fast::hash(&space[at + 4..at + 48]) ^ salt ^ mix32(offset);
    space[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// End of the frame at `at`, if its kind is known and it fits.
fn frame_end(space: &[u8], at: usize) -> Option<usize> {
    let header = space.get(at..at + 48)?;
    let end = at + (48 + u32_at(header, 12) as usize).next_multiple_of(8);
    ((1..=11).contains(&header[16]) && end <= space.len()).then_some(end)
}

fn places(page: &mut [u8], sequence: u64, (base, end): (u64, u64), chain: &Chain) {
    for (number, value) in [sequence, base, end].into_iter().enumerate() {
        page[8 + number * 8..16 + number * 8].copy_from_slice(&value.to_le_bytes());
    }
    page[32..36].copy_from_slice(&chain.link.to_le_bytes());
}

/// Mends the checksums of index and trailer.
fn trailer(file: &mut [u8], salt: u32) {
    let at = file.len() - PAGE;
    let (logs, frames) = (u32_at(file, at + 36) as usize, u32_at(file, at + 40) as usize);
    if let Some(start) = at.checked_sub(logs * 32 + frames * 8) {
        let table = crc32fast::hash(&file[start..start + logs * 32]);
        let index = crc32fast::hash(&file[start..at]);
        file[at + 44..at + 48].copy_from_slice(&table.to_le_bytes());
        file[at + 48..at + 52].copy_from_slice(&index.to_le_bytes());
    }
    seal(&mut file[at..], salt);
}

/// Where the index of a sealed segment begins; the end of the file of any other.
pub fn index_at(file: &[u8], sequence: u64) -> usize {
    let at = file.len() - PAGE;
    if !file[at..].starts_with(b"KTSEALED") || u64_at(file, at + 8) != sequence {
        return file.len();
    }
    at - u32_at(file, at + 36) as usize * 32 - u32_at(file, at + 40) as usize * 8
}

/// A page that begins with `start`.
pub fn page(start: &[u8]) -> Vec<u8> {
    let mut page = start[..start.len().min(PAGE - 4)].to_vec();
    page.resize(PAGE, 0);
    page
}

/// Writes a page's checksum to its end.
pub fn seal(page: &mut [u8], salt: u32) {
    let crc = crc32fast::hash(&page[..PAGE - 4]) ^ salt;
    page[PAGE - 4..].copy_from_slice(&crc.to_le_bytes());
}

fn salt(uuid: &[u8], sequence: u64) -> u32 {
    let sequence = u32::try_from(sequence & 0xffff_ffff).expect("masked");
    mix32(crc32fast::hash(uuid)).wrapping_add(sequence)
}

fn mix32(value: u32) -> u32 {
    let mixed = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    mixed ^ (mixed >> 16)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
