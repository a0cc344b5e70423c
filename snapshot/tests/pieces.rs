//! Pieces of an image's file, as who sends it reads them: every byte of them was checked.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use kontiki_disk::MemoryDisk;
use kontiki_snapshot::{Image, StoreError};

use crate::images::{open, publish, sent};

/// Of a full block with its prefix.
const FULL_BYTES: usize = 8 + (64 << 10);

/// Lengths of a state: no block, a part of one, one that is nearly full, one, two and one byte, two and a part.
const STATES: [usize; 8] =
    [0, 1000, 65_521, 65_535, 64 << 10, (128 << 10) - 9, (128 << 10) + 1, 140_000];

fn piece(image: &Image, offset: usize, length: usize) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![0; length];
    let count = image.read_piece(offset as u64, &mut bytes)?;
    bytes.truncate(count);
    Ok(bytes)
}

#[test]
fn pieces_of_any_length_from_anywhere_are_those_of_the_file() {
    for state in STATES {
        let (_, file) = sent(3, state);
        let image = publish(&mut open(&MemoryDisk::new()), 3, state);
        let ends = (0..file.len()).step_by(FULL_BYTES).map(|end| end + file.len() % FULL_BYTES);
        let near = ends.chain([0, 40, 80, file.len()]).flat_map(|at| at.saturating_sub(9)..at + 9);
        for offset in near.filter(|offset| *offset <= file.len()) {
            for length in [0, 1, 20, FULL_BYTES, 256 << 10] {
                let end = file.len().min(offset + length);
                assert_eq!(
                    piece(&image, offset, length).unwrap(),
                    file[offset..end],
                    "{length} bytes at {offset} of {}",
                    file.len()
                );
            }
        }
        let behind = piece(&image, file.len() + 1, 1).unwrap_err();
        assert!(matches!(behind, StoreError::Offset { .. }), "{behind}");
    }
}

#[test]
fn no_piece_has_a_byte_that_has_rotted_and_the_others_can_be_had() {
    let disk = MemoryDisk::new();
    let (_, file) = sent(3, 140_000);
    let image = publish(&mut open(&disk), 3, 140_000);
    let path = format!("images/{}", image.name());
    for bit in (0..file.len() * 8).step_by(8191) {
        let rotten = bit / 8;
        disk.corrupt(&path, rotten as u64, 1 << (bit % 8));
        for offset in (0..file.len()).step_by(4096) {
            let holds_it = (offset..offset + 4096).contains(&rotten);
            match piece(&image, offset, 4096) {
                Ok(bytes) => {
                    assert!(!holds_it, "the byte at {rotten}");
                    assert_eq!(bytes, file[offset..file.len().min(offset + 4096)]);
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Corruption(_)), "{error}");
                    // Of its own block, or of the one whose checksum goes on from it.
                    let apart = offset.abs_diff(rotten);
                    assert!(apart < 2 * FULL_BYTES, "{rotten} is far from {offset}");
                }
            }
        }
        disk.corrupt(&path, rotten as u64, 1 << (bit % 8));
    }
}
