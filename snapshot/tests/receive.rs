//! An image comes from another store, in pieces: what is not the image that was offered ends it where it comes.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_snapshot::{Corruption, Header, MEMBERSHIP_BYTES_MAX, Offer, Owner, Place, StoreError};

use crate::images::{bytes, feed, finish, header, names, open, publish, read, receive, sent};

fn corruption(error: StoreError) -> Corruption {
    let StoreError::Corruption(corruption) = error else { panic!("{error:?}") };
    corruption
}

#[test]
fn an_image_is_received_in_pieces_of_any_length() {
    let (offer, file) = sent(7, 150_000);
    for piece in [1, 7, 47, 48, 49, 4096, 65_544, 70_000, file.len()] {
        let disk = MemoryDisk::new();
        let mut store = open(&disk);
        let finished = feed(receive(&mut store, offer), &file, piece).unwrap();
        assert_eq!(*finished.header(), header(7));
        let received = store.publish(finished).unwrap();
        assert_eq!(read(&received).unwrap(), bytes(7, 150_000), "pieces of {piece} bytes");
        let path = format!("images/{}", received.name());
        assert!(disk.contents(path).unwrap() == file, "pieces of {piece} bytes");
    }
}

#[test]
fn it_goes_on_where_it_was_broken_off() {
    let (offer, file) = sent(7, 300_000);
    let mut store = open(&MemoryDisk::new());
    let mut receiver = receive(&mut store, offer);
    for piece in file.chunks(70_000) {
        let offset = receiver.received();
        receiver.append(offset, piece).unwrap();
        let expected = offset + piece.len() as u64;
        assert_eq!(receiver.received(), expected);
        // It comes again, or one is lost.
        for wrong in [offset, offset + 200_000] {
            let refused = receiver.append(wrong, piece);
            let Err(StoreError::Offset { offset, expected: told }) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!((offset, told), (wrong, expected));
        }
        receiver.append(expected, &[]).unwrap();
    }
    assert_eq!(receiver.received(), offer.bytes);
    let received = store.publish(receiver.finish().unwrap()).unwrap();
    assert_eq!(read(&received).unwrap(), bytes(7, 300_000));
}

#[test]
fn another_image_than_was_offered_is_refused_at_its_header() {
    let (offer, file) = sent(7, 100);
    let header_bytes = 48 + header(7).membership.len();
    let Offer { owner, place, .. } = offer;
    for (wrong, offset, what, expected, found) in [
        (Offer { owner: Owner { cluster: 6, ..owner }, ..offer }, 16, "cluster of an image", 6, 5),
        (Offer { owner: Owner { log: 3, ..owner }, ..offer }, 12, "log of an image", 3, 1),
        (Offer { place: Place { index: 8, ..place }, ..offer }, 24, "index of an image", 8, 7),
        (Offer { place: Place { term: 9, ..place }, ..offer }, 32, "term of an image", 9, 2),
    ] {
        let disk = MemoryDisk::new();
        let mut store = kontiki_snapshot::Store::open(&disk, "images", None).unwrap();
        let mut receiver = receive(&mut store, wrong);
        receiver.append(0, &file[..header_bytes - 1]).unwrap();
        let at = receiver.received();
        let refused = corruption(receiver.append(at, &file[header_bytes - 1..][..1]).unwrap_err());
        assert_eq!((refused.offset, refused.what), (offset, what));
        assert_eq!((refused.expected, refused.found), (expected, found));
        assert_eq!(names(&disk), [""; 0]);
        assert_eq!(corruption(receiver.finish().unwrap_err()), refused);
    }
}

/// Every byte of the file, changed alone.
#[test]
fn no_damaged_unit_is_written_and_the_fault_is_told_again_each_time() {
    let (offer, file) = sent(7, 1000);
    let (header_end, block_end) = (55, 55 + 8 + 1000);
    for at in 0..file.len() {
        let disk = MemoryDisk::new();
        let mut store = open(&disk);
        let mut receiver = receive(&mut store, offer);
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        disk.start_trace();
        let mut told = None;
        for piece in damaged.chunks(100) {
            match receiver.append(receiver.received(), piece) {
                Ok(()) => assert!(told.is_none(), "byte {at}: it goes on behind a fault"),
                Err(error) => {
                    let known = told.get_or_insert_with(|| error.to_string());
                    assert_eq!(*known, error.to_string(), "byte {at}");
                    assert_eq!(names(&disk), [""; 0], "byte {at}");
                }
            }
        }
        let told = told.unwrap_or_else(|| panic!("byte {at} was taken"));
        assert_eq!(receiver.finish().unwrap_err().to_string(), told);
        let sound = [0, header_end, block_end].into_iter().rfind(|&end| end <= at).unwrap();
        let written = disk.take_trace().into_iter().map(|operation| operation.range.end).max();
        assert_eq!(written, Some(sound as u64), "byte {at}: what is written was checked");
        assert!(told.contains("expected") || told.contains("version"), "{told}");
    }
}

#[test]
fn what_ends_too_early_or_goes_on_behind_its_end_is_refused() {
    let (offer, file) = sent(7, 1000);
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    for end in [0, 1, 20, 48, 55, 60, 63, 1000, file.len() - 1] {
        let receiver = receive(&mut store, offer);
        let refused = corruption(feed(receiver, &file[..end], 333).unwrap_err());
        let (expected, found) = (offer.bytes, end as u64);
        assert_eq!((refused.offset, refused.what), (found, "end of an image"));
        assert_eq!((refused.expected, refused.found), (expected, found));
        assert_eq!(names(&disk), [""; 0]);
    }
    let mut receiver = receive(&mut store, offer);
    receiver.append(0, &file).unwrap();
    let refused = corruption(receiver.append(offer.bytes, b"x").unwrap_err());
    assert_eq!((refused.offset, refused.what), (offer.bytes, "length of an image"));
    assert_eq!((refused.expected, refused.found), (offer.bytes, offer.bytes + 1));
    assert!(receiver.finish().is_err(), "what failed once fails again");
    assert_eq!(names(&disk), [""; 0]);
}

/// Shorter: a unit would end behind it. Longer: the end comes before.
#[test]
fn an_offer_of_another_length_than_the_image_has_is_found_out() {
    let (offer, file) = sent(7, 1000);
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    for bytes in (0..offer.bytes).chain([offer.bytes + 1, u64::MAX]) {
        let wrong = Offer { bytes, ..offer };
        let mut receiver = receive(&mut store, wrong);
        let sent = file.len().min(usize::try_from(bytes).unwrap());
        let refused = match receiver.append(0, &file[..sent]) {
            Err(error) => error,
            Ok(()) => receiver.finish().unwrap_err(),
        };
        assert_eq!(corruption(refused).found, bytes);
        assert_eq!(names(&disk), [""; 0], "{bytes}");
    }
}

#[test]
fn an_image_beyond_the_bound_of_its_receiver_is_not_begun() {
    let (offer, _) = sent(7, 1000);
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    assert_eq!(
        store.receive(offer, offer.bytes - 1).unwrap_err().to_string(),
        format!("an image of {} bytes, the limit is {}", offer.bytes, offer.bytes - 1)
    );
    assert_eq!(names(&disk), [""; 0]);
    assert!(store.receive(offer, offer.bytes).is_ok());
}

#[test]
fn one_that_is_not_newer_is_refused_before_any_of_it_is_sent() {
    let (offer, _) = sent(7, 1000);
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 7, 10);
    let refused = store.receive(offer, u64::MAX);
    assert!(matches!(refused, Err(StoreError::Stale { index: 7, newest: 7 })), "{refused:?}");
    assert_eq!(names(&disk).len(), 1);
}

#[test]
fn the_longest_membership_comes_byte_for_byte() {
    let header = Header { membership: vec![9; MEMBERSHIP_BYTES_MAX], ..header(7) };
    let mut sender = open(&MemoryDisk::new());
    let writer = sender.create(header.clone()).unwrap();
    let image = sender.publish(finish(writer, 7, 70_000).unwrap()).unwrap();
    let mut file = vec![0; usize::try_from(image.bytes()).unwrap()];
    image.read_piece(0, &mut file).unwrap();
    let mut store = open(&MemoryDisk::new());
    let finished = feed(receive(&mut store, image.offer()), &file, 999).unwrap();
    let received = store.publish(finished).unwrap();
    assert_eq!(*received.header(), header);
    assert_eq!(read(&received).unwrap(), bytes(7, 70_000));
}

#[test]
fn an_image_of_another_release_is_told_by_its_version() {
    let (offer, mut file) = sent(7, 100);
    file[4] = 2;
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    let refused = feed(receive(&mut store, offer), &file, 100).unwrap_err();
    assert!(matches!(refused, StoreError::Version { found: 2, .. }), "{refused:?}");
    assert_eq!(names(&disk), [""; 0]);
}

#[test]
fn a_write_that_fails_is_final() {
    let (offer, file) = sent(7, 100_000);
    for nth in 1..=4 {
        let disk = MemoryDisk::new();
        let mut store = open(&disk);
        let mut receiver = receive(&mut store, offer);
        disk.inject(Kind::Write, nth, Fault::Fail(EIO));
        let told = receiver.append(0, &file).unwrap_err().to_string();
        assert!(told.starts_with("a write of 0000000000000001.tmp failed"), "{nth}: {told}");
        assert_eq!(names(&disk), [""; 0], "{nth}: its space is free at once");
        assert_eq!(receiver.append(0, &file).unwrap_err().to_string(), told);
        assert_eq!(receiver.finish().unwrap_err().to_string(), told);
    }
}
