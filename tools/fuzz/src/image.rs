//! An image of a state machine, as a store receives it.

use std::io::{Read, Write};

use kontiki_disk::MemoryDisk;
use kontiki_snapshot::{Finished, Header, Image, Offer, Owner, Place, Receiver, Store, StoreError};

use super::within;

/// A byte of choices, then the image's file.
pub fn image(input: &[u8]) {
    let Some((&choices, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if choices & LONG != 0 {
        lengthen(&mut bytes);
    }
    if choices & MEND != 0 {
        mend(&mut bytes);
    }
    let mut offer = offer(&bytes);
    if choices & OTHER != 0 {
        offer.place.index ^= 1;
    }
    let disk = MemoryDisk::new();
    let mut store = Store::open(&disk, "images", Some(offer.owner)).expect("an empty disk");
    let receiver = store.receive(offer, offer.bytes).expect("an empty disk");
    let step = usize::from(choices >> 3) * 131;
    // What the disk has, with every sector that a power cut would bring back; a header as it comes and as it is kept; a block.
    let most = 2 * bytes.len() + 2 * blocks_at(&bytes).unwrap_or(0) + BLOCK_BYTES + SLACK_BYTES;
    let finished = within(most, || feed(receiver, &bytes, step));
    let Ok(finished) = finished else { return };
    assert_eq!(choices & OTHER, 0, "another image than was offered is taken");
    let header = finished.header().clone();
    let received = store.publish(finished).expect("a disk that works");
    assert_eq!(file(&received), bytes, "what is received is what was sent");
    let mut state = Vec::new();
    received.read().read_to_end(&mut state).expect("it was checked before");
    assert_eq!(file(&write(header, &state)), bytes, "one state is one image, byte for byte");
}

/// What a sender says who believes the file. Where it is too short to say it, something else.
fn offer(bytes: &[u8]) -> Offer {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let log = bytes.get(12..).and_then(|bytes| bytes.first_chunk());
    let [cluster, index, term] = [16, 24, 32].map(|at| number(at).unwrap_or_default());
    let owner = Owner { cluster, log: log.map_or(0, |log| u32::from_le_bytes(*log)) };
    Offer { owner, place: Place { index, term }, bytes: bytes.len() as u64 }
}

/// Hands the file over in pieces, each `step` bytes longer than the one before until it would be long; and tries one behind a
/// fault.
fn feed(mut receiver: Receiver, mut bytes: &[u8], step: usize) -> Result<Finished, StoreError> {
    let (mut length, mut failed) = (1, None);
    while !bytes.is_empty() {
        let (piece, later) = bytes.split_at(length.min(bytes.len()));
        let taken = receiver.append(receiver.received(), piece).err();
        if let Some(failed) = &failed {
            let again = taken.as_ref().expect("nothing is taken behind a fault");
            assert_eq!(again.to_string(), *failed, "what failed once fails again");
            break;
        }
        failed = taken.map(|error| error.to_string());
        bytes = later;
        length = (length + step) % PIECE_BYTES_MAX;
    }
    let finished = receiver.finish();
    assert!(finished.is_err() || failed.is_none(), "a fault is forgotten");
    finished
}

/// The image that a writer makes.
fn write(header: Header, state: &[u8]) -> Image {
    let mut store = Store::open(&MemoryDisk::new(), "images", None).expect("an empty disk");
    let mut writer = store.create(header).expect("an empty disk");
    writer.write_all(state).expect("a disk that works");
    let finished = writer.finish().expect("a disk that works");
    store.publish(finished).expect("a disk that works")
}

fn file(image: &Image) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(image.bytes()).expect("in memory")];
    let count = image.read_piece(0, &mut bytes).expect("a disk that works");
    assert_eq!(count, bytes.len());
    bytes
}

/// Where the blocks begin.
fn blocks_at(bytes: &[u8]) -> Option<usize> {
    let membership = u32::from_le_bytes(*bytes.get(40..)?.first_chunk()?);
    let at = 48_usize.checked_add(usize::try_from(membership).ok()?)?;
    (at <= bytes.len()).then_some(at)
}

/// Puts a full block before the others: more than the fuzzer writes.
fn lengthen(bytes: &mut Vec<u8>) {
    let Some(at) = blocks_at(bytes) else { return };
    let block = [&65_536_u32.to_le_bytes()[..], &[0; 4], &[7; 65_536]].concat();
    bytes.splice(at..at, block);
}

/// Makes the checksums and the total hold again, as FORMAT.md has them.
fn mend(bytes: &mut [u8]) {
    let Some(mut at) = blocks_at(bytes) else { return };
    let crc = crc32fast::hash(&bytes[12..at]);
    bytes[8..12].copy_from_slice(&crc.to_le_bytes());
    let (mut chain, mut total) = (crc32fast::hash(&bytes[..at]), 0_u64);
    while at + 8 <= bytes.len() {
        let length = u32::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"));
        let is_last = length == 0;
        let count = if is_last { 8 } else { usize::try_from(length).expect("64 bits") };
        let Some(end) = (at + 8).checked_add(count).filter(|&end| end <= bytes.len()) else {
            return;
        };
        if is_last {
            bytes[at + 8..end].copy_from_slice(&total.to_le_bytes());
        }
        let mut hasher = crc32fast::Hasher::new_with_initial(chain);
        hasher.update(&length.to_le_bytes());
        hasher.update(&bytes[at + 8..end]);
        chain = hasher.finalize();
        bytes[at + 4..at + 8].copy_from_slice(&chain.to_le_bytes());
        total += u64::from(length);
        at = end;
    }
}

/// Choices.
const MEND: u8 = 1;
const LONG: u8 = 2;
const OTHER: u8 = 4;
/// Of a block, with what stands before its bytes.
const BLOCK_BYTES: usize = (64 << 10) + 8;
/// Not a multiple of anything in the file.
const PIECE_BYTES_MAX: usize = 5_003;
/// The names, the handles.
const SLACK_BYTES: usize = 16 << 10;
