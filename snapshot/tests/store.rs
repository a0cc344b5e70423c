//! A store of images as its users meet it.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use std::io::{ErrorKind, Read, Write};

use kontiki_disk::{
    Access, Disk, MemoryDisk,
    memory::{EIO, Fault, Kind},
};
use kontiki_snapshot::{Header, MEMBERSHIP_BYTES_MAX, Offer, Owner, Store, StoreError};

use crate::images::{OWNER, bytes, header, names, open, publish, read, sent};

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
        let mut told = Vec::new();
        assert_eq!(image.verify_telling(|read| told.push(read)).unwrap(), count as u64);
        assert!(told.is_sorted() && told.last().is_none_or(|&read| read <= image.bytes()));
        assert_eq!(told.is_empty(), count == 0, "{count} bytes: {told:?}");
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

#[test]
fn bytes_behind_the_end_are_told_at_the_end() {
    let (disk, (_, file)) = (MemoryDisk::new(), sent(7, 1000));
    let directory = disk.open_directory("images".as_ref(), Access::Write).unwrap();
    let mut longer = directory.create_growing("0000000000000007-0000000000000002.image").unwrap();
    longer.append(&[&file, b"x"]).unwrap();
    drop((directory, longer));
    let told = open(&disk).images()[0].verify().unwrap_err().to_string();
    let end = file.len() - 16;
    let (expected, found) = (file.len(), file.len() + 1);
    assert!(
        told.contains(&format!(
            "at offset {end}: length of an image (expected {expected:#x}, found {found:#x})"
        )),
        "{told}"
    );
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
    assert_eq!(names(&disk), [""; 0], "its space is free at once");
    assert!(
        matches!(writer.finish(), Err(StoreError::Io { .. })),
        "an image without some of its bytes"
    );
    assert_eq!(names(&disk), [""; 0]);

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
    let offer = Offer { owner: OWNER, place: header(3).place, bytes: 100 };
    assert!(store.create(header(3)).is_err() && store.receive(offer, 100).is_err());
    assert!(store.prune(1).is_err());
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
    let refused = Store::open(&disk, "images", Some(OWNER));
    assert!(matches!(refused, Err(StoreError::Version { found: 2, .. })), "{refused:?}");
    assert_eq!(names(&disk), [name]);
}

#[test]
fn an_image_of_another_cluster_or_log_is_told_and_nothing_is_changed() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    let name = publish(&mut store, 1, 100).name().to_owned();
    let writer = store.create(header(2)).unwrap();
    // As a kill would leave it.
    let disk = disk.reopen();
    drop((store, writer));
    assert_eq!(names(&disk).len(), 2, "one that was not finished lies there as well");
    let operations = disk.operations();
    for (owner, told) in [
        (
            Owner { cluster: 6, ..OWNER },
            "is of log 1 of cluster 0x5, and not of log 1 of cluster 0x6",
        ),
        (Owner { log: 2, ..OWNER }, "is of log 1 of cluster 0x5, and not of log 2 of cluster 0x5"),
    ] {
        let refused = Store::open(&disk, "images", Some(owner)).unwrap_err();
        assert!(matches!(refused, StoreError::OtherOwner { .. }), "{refused:?}");
        assert_eq!(refused.to_string(), format!("{name} {told}"));
    }
    assert_eq!(disk.operations(), operations);
    assert_eq!(
        Store::open(&disk, "images", None).unwrap().images().len(),
        1,
        "who asks for nobody's"
    );
    assert_eq!(open(&disk).images().len(), 1);
}

#[test]
fn an_image_of_another_cluster_or_log_is_not_begun() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk);
    for owner in [Owner { cluster: 6, ..OWNER }, Owner { log: 2, ..OWNER }] {
        let header = Header { cluster: owner.cluster, log: owner.log, ..header(2) };
        let offer = Offer { owner, place: header.place, bytes: 100 };
        let refusals = [store.create(header).map(drop), store.receive(offer, 100).map(drop)];
        for refused in refusals {
            let Err(StoreError::OtherOwner { image, expected: OWNER, found }) = refused else {
                panic!("{refused:?}")
            };
            assert_eq!((image.as_str(), found), ("0000000000000002-0000000000000002.image", owner));
        }
    }
    assert_eq!(names(&disk), [""; 0]);
}

#[test]
fn a_membership_beyond_its_limit_is_refused() {
    let mut store = open(&MemoryDisk::new());
    let header = Header { membership: vec![0; MEMBERSHIP_BYTES_MAX + 1], ..header(1) };
    let refused = store.create(header).unwrap_err();
    assert_eq!(refused.to_string(), "a membership of 1048577 bytes, the limit is 1048576");
}
