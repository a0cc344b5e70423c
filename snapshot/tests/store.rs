//! A store of images as its users meet it.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    error::Error,
    io::{ErrorKind, Read, Write},
};

use kontiki_disk::{
    Disk, MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_snapshot::{Header, Image, MEMBERSHIP_BYTES_MAX, Place, Store, StoreError};

fn open(disk: &MemoryDisk) -> Store {
    Store::open(disk, "images").unwrap()
}

fn header(index: u64) -> Header {
    Header { cluster: 5, log: 1, place: Place { index, term: 2 }, membership: b"members".to_vec() }
}

/// Bytes that no two images share.
fn bytes(index: u64, count: usize) -> Vec<u8> {
    index
        .to_le_bytes()
        .into_iter()
        .cycle()
        .zip((0..251_u8).cycle())
        .map(|(a, b)| a ^ b)
        .take(count)
        .collect()
}

fn publish(store: &mut Store, index: u64, count: usize) -> Image {
    let mut writer = store.create(header(index)).unwrap();
    writer.write_all(&bytes(index, count)).unwrap();
    let finished = writer.finish().unwrap();
    store.publish(finished).unwrap()
}

fn read(image: &Image) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image.read().read_to_end(&mut bytes).map(|_| bytes)
}

fn names(disk: &MemoryDisk) -> Vec<String> {
    let directory = disk.open_directory("images".as_ref(), kontiki_disk::Access::Read).unwrap();
    directory.list().unwrap().into_iter().map(|(name, _)| name).collect()
}

#[test]
fn images_of_every_length_read_back_in_this_process_and_the_next() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    let lengths = [0, 1, 65_535, 65_536, 65_537, 200_000];
    for (index, count) in (1..).zip(lengths) {
        assert_eq!(read(&publish(&mut store, index, count)).unwrap(), bytes(index, count));
    }
    drop(store);
    let store = open(&disk.image(|_| false));
    for (image, (index, count)) in store.images().iter().rev().zip((1..).zip(lengths)) {
        assert_eq!(*image.header(), header(index));
        assert_eq!(image.verify().unwrap(), count as u64);
        assert_eq!(read(image).unwrap(), bytes(index, count));
    }
    assert_eq!(store.images().len(), lengths.len());
}

#[test]
fn what_is_not_finished_or_not_published_is_not_there() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 3, 100);
    let mut writer = store.create(header(4)).unwrap();
    writer.write_all(&[1; 100_000]).unwrap();
    let finished = store.create(header(5)).unwrap().finish().unwrap();
    let later = disk.image(|_| true);
    assert_eq!(names(&later).len(), 3);
    assert_eq!(open(&later).images().len(), 1);
    assert_eq!(names(&later).len(), 1, "what a stop has left is removed");
    drop((writer, finished));
    assert_eq!(names(&disk).len(), 1, "and so is what is dropped");
}

#[test]
fn an_image_that_is_not_newer_is_refused() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 3, 100);
    let two = store.create(header(4)).unwrap().finish().unwrap();
    publish(&mut store, 5, 100);
    let stale = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::Stale { newest: 5, .. })), "{result:?}");
    };
    stale(store.create(header(5)).map(drop));
    stale(store.publish(two).map(drop));
    assert_eq!(names(&disk).len(), 2, "nothing of it is left");
}

#[test]
fn older_images_go_and_who_reads_one_reads_on() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    let first = publish(&mut store, 1, 200_000);
    let mut reader = first.read();
    let mut half = vec![0; 100_000];
    reader.read_exact(&mut half).unwrap();
    (2..=4).for_each(|index| drop(publish(&mut store, index, 10)));
    assert_eq!(store.prune(2).unwrap(), 2);
    assert_eq!(names(&disk).len(), 2);
    reader.read_to_end(&mut half).unwrap();
    assert_eq!(half, bytes(1, 200_000));
    assert_eq!(store.prune(2).unwrap(), 0);
}

#[test]
fn an_image_is_received_in_pieces_and_goes_on_where_it_was_broken_off() {
    let (one, other) = (MemoryDisk::new(), MemoryDisk::new());
    let (mut sender, mut receiver) = (open(&one), open(&other));
    let image = publish(&mut sender, 7, 300_000);
    let mut receiving = receiver.receive().unwrap();
    let mut piece = vec![0; 70_000];
    loop {
        let offset = receiving.received();
        let count = image.read_piece(offset, &mut piece).unwrap();
        if count == 0 {
            break;
        }
        receiving.append(offset, &piece[..count]).unwrap();
        // It comes again, or one is lost.
        for wrong in [offset, offset + 200_000] {
            let refused = receiving.append(wrong, &piece[..count]);
            assert!(matches!(refused, Err(StoreError::Offset { .. })), "{refused:?}");
        }
    }
    assert_eq!(receiving.received(), image.bytes());
    let finished = receiving.finish().unwrap();
    assert_eq!(finished.header(), image.header());
    let received = receiver.publish(finished).unwrap();
    assert_eq!(read(&received).unwrap(), bytes(7, 300_000));
}

#[test]
fn what_is_received_damaged_or_short_is_refused_and_leaves_nothing() {
    let (one, other) = (MemoryDisk::new(), MemoryDisk::new());
    let (mut sender, mut receiver) = (open(&one), open(&other));
    let image = publish(&mut sender, 7, 1000);
    let mut whole = vec![0; usize::try_from(image.bytes()).unwrap()];
    image.read_piece(0, &mut whole).unwrap();
    let mut flipped = whole.clone();
    flipped[500] ^= 1;
    let longer = [&whole[..], b"x"].concat();
    for wrong in [&flipped[..], &whole[..whole.len() - 1], &whole[..20], &longer, &[]] {
        let mut receiving = receiver.receive().unwrap();
        receiving.append(0, wrong).unwrap();
        let refused = receiving.finish();
        assert!(matches!(refused, Err(StoreError::Corruption(_))), "{refused:?}");
        assert_eq!(names(&other), [""; 0]);
    }
}

#[test]
fn no_flipped_bit_is_read_over() {
    let disk = MemoryDisk::new();
    let image = publish(&mut open(&disk), 3, 70_000);
    let whole = bytes(3, 70_000);
    let file = format!("images/{}", image.name());
    let name = image.name().to_owned();
    drop(image);
    let bits: Vec<u64> = (0..image_bytes(&disk, &name) * 8).step_by(61).collect();
    for bit in bits {
        disk.corrupt(&file, bit / 8, 1 << (bit % 8));
        let store = open(&disk);
        if let [image] = store.images() {
            let mut given = Vec::new();
            let error = image.read().read_to_end(&mut given).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "bit {bit}: {error}");
            assert!(whole.starts_with(&given), "bit {bit}: a wrong byte was given out");
        } else {
            assert_eq!(store.damaged().len(), 1, "bit {bit}");
        }
        drop(store);
        disk.corrupt(&file, bit / 8, 1 << (bit % 8));
    }
    assert_eq!(read(&open(&disk).images()[0]).unwrap(), whole);
}

fn image_bytes(disk: &MemoryDisk, name: &str) -> u64 {
    disk.contents(format!("images/{name}")).unwrap().len() as u64
}

#[test]
fn a_damaged_header_is_told_and_the_older_image_is_offered() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 1, 100);
    let name = publish(&mut store, 2, 100).name().to_owned();
    drop(store);
    disk.corrupt(format!("images/{name}"), 30, 4);
    let mut store = open(&disk);
    assert_eq!(store.images().len(), 1);
    assert_eq!(store.images()[0].header().place.index, 1);
    let told = store.damaged()[0].error.to_string();
    assert!(told.starts_with(&format!("corruption in {name} at offset 8: checksum")), "{told}");
    assert_eq!(store.prune(2).unwrap(), 0, "it is kept until it is replaced");
    publish(&mut store, 3, 100);
    assert_eq!(store.prune(2).unwrap(), 1);
    assert_eq!(names(&disk).len(), 2);
}

#[test]
fn a_damaged_image_is_replaced_by_one_of_its_place_which_stays() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 1, 100);
    let name = publish(&mut store, 5, 100).name().to_owned();
    drop(store);
    disk.corrupt(format!("images/{name}"), 30, 4);
    let mut store = open(&disk);
    publish(&mut store, 5, 200);
    assert!(store.damaged().is_empty());
    assert_eq!(store.prune(1).unwrap(), 1);
    drop(store);
    let store = open(&disk.image(|_| true));
    assert_eq!(read(&store.images()[0]).unwrap(), bytes(5, 200));
    assert_eq!(store.images().len(), 1);
}

#[test]
fn an_image_that_was_found_damaged_gives_way_to_the_older_one() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 1, 100);
    let image = publish(&mut store, 5, 100);
    disk.corrupt(format!("images/{}", image.name()), 100, 1);
    let error = image.verify().unwrap_err();
    store.set_aside(&image, error);
    assert_eq!(store.images()[0].header().place.index, 1);
    assert_eq!(store.prune(1).unwrap(), 1, "one whole one is there");
    publish(&mut store, 5, 300);
    assert_eq!(read(&store.images()[0]).unwrap(), bytes(5, 300));
}

#[test]
fn what_failed_once_fails_again() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    let mut writer = store.create(header(2)).unwrap();
    disk.inject(Kind::Write, 1, Fault::Fail(EIO));
    assert!(writer.write_all(&[1; 200_000]).is_err());
    assert!(writer.write_all(&[1; 10]).is_err());
    assert!(
        matches!(writer.finish(), Err(StoreError::Io { .. })),
        "an image without some of its bytes"
    );
    let mut receiving = store.receive().unwrap();
    disk.inject(Kind::Write, 1, Fault::Fail(EIO));
    assert!(receiving.append(0, &[1; 100]).is_err() && receiving.append(0, &[1; 100]).is_err());
    assert!(matches!(receiving.finish(), Err(StoreError::Io { .. })));

    let image = publish(&mut store, 3, 200_000);
    for offset in [100, image.bytes() - 5] {
        disk.corrupt(format!("images/{}", image.name()), offset, 1);
        let (mut reader, mut piece) = (image.read(), vec![0; 1 << 20]);
        let mut given = 0;
        let error = loop {
            match reader.read(&mut piece) {
                Ok(count) => given += count,
                Err(error) => break error,
            }
        };
        assert!(given <= 200_000, "{given}");
        let again = reader.read(&mut piece).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        disk.corrupt(format!("images/{}", image.name()), offset, 1);
    }
}

#[test]
fn behind_a_sync_of_names_that_failed_nothing_is_done() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    publish(&mut store, 1, 100);
    let finished = store.create(header(2)).unwrap().finish().unwrap();
    disk.inject(Kind::SyncDirectory, 1, Fault::Fail(EIO));
    assert!(matches!(store.publish(finished), Err(StoreError::Io { .. })));
    assert!(
        store.create(header(3)).is_err() && store.receive().is_err() && store.prune(1).is_err()
    );
    assert_eq!(store.images().len(), 1);
}

#[test]
fn an_image_of_another_release_is_left_alone_with_all_that_lies_there() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    let name = publish(&mut store, 1, 100).name().to_owned();
    drop(store.create(header(2)).unwrap());
    drop(store);
    disk.corrupt(format!("images/{name}"), 4, 3);
    let refused = Store::open(&disk, "images");
    assert!(matches!(refused, Err(StoreError::Version { found: 2, .. })), "{refused:?}");
    assert_eq!(names(&disk), [name]);
}

#[test]
fn a_membership_beyond_its_limit_is_refused() {
    let mut store = open(&MemoryDisk::new());
    let header = Header { membership: vec![0; MEMBERSHIP_BYTES_MAX + 1], ..header(1) };
    assert!(matches!(store.create(header), Err(StoreError::TooLarge { .. })));
}

#[test]
fn a_disk_that_fails_leaves_no_half_of_an_image() {
    for (kind, nth) in [
        (Kind::Create, 1),
        (Kind::Write, 1),
        (Kind::Write, 2),
        (Kind::Write, 3),
        (Kind::Write, 4),
        (Kind::Sync, 1),
        (Kind::Rename, 1),
        (Kind::SyncDirectory, 1),
    ] {
        let disk = MemoryDisk::new();
        let mut store = open(&disk);
        publish(&mut store, 1, 100);
        disk.inject(kind, nth, Fault::Fail(EIO));
        let written = (|| -> Result<(), Box<dyn Error>> {
            let mut writer = store.create(header(2))?;
            writer.write_all(&bytes(2, 100_000))?;
            let finished = writer.finish()?;
            store.publish(finished)?;
            Ok(())
        })();
        let told = written.unwrap_err().to_string();
        assert!(told.contains("failed: Input/output error"), "{kind:?} {nth}: {told}");
        drop(store);
        let store = open(&disk.image(|_| false));
        assert_eq!(store.images().len(), 1, "{kind:?} {nth}");
        assert_eq!(read(&store.images()[0]).unwrap(), bytes(1, 100));
    }
}
