//! Images as released versions of the format have left them: they open, and everything in them is there.
//!
//! `KONTIKI_FIXTURES=write cargo test -p kontiki-snapshot --test golden` makes images that are not there; those that are never
//! change.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use std::{fs, path::PathBuf, sync::Mutex};

use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_snapshot::{Header, Offer, Place};

use crate::images::{OWNER, bytes, feed, finish, open, read, receive};

/// Place, length of the membership, bytes of the state machine: one block that is not full, and two full ones before such a one.
const IMAGES: [(Place, usize, usize); 2] =
    [(Place { index: 3, term: 2 }, 5, 100), (Place { index: 40, term: 7 }, 300, 131_172)];

fn header(place: Place, membership: usize) -> Header {
    let membership = bytes(place.term, membership);
    Header { cluster: OWNER.cluster, log: OWNER.log, place, membership }
}

fn fixture(place: Place) -> PathBuf {
    let Place { index, term } = place;
    let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1"));
    fixtures.join(format!("{index:016x}-{term:016x}.image"))
}

/// The file of an image as this version writes it.
fn written(place: Place, membership: usize, count: usize) -> Vec<u8> {
    let mut store = open(&MemoryDisk::new());
    let writer = store.create(header(place, membership)).unwrap();
    let image = store.publish(finish(writer, place.index, count).unwrap()).unwrap();
    let mut file = vec![0; usize::try_from(image.bytes()).unwrap()];
    image.read_piece(0, &mut file).unwrap();
    file
}

fn golden(place: Place, membership: usize, count: usize) -> Vec<u8> {
    static WRITING: Mutex<()> = Mutex::new(());
    let _alone = WRITING.lock().unwrap();
    let path = fixture(place);
    let is_asked = std::env::var_os("KONTIKI_FIXTURES").is_some_and(|value| value == "write");
    if is_asked && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written(place, membership, count)).unwrap();
    }
    fs::read(path).unwrap()
}

#[test]
fn images_of_version_1_open_and_all_of_them_is_there() {
    let disk = MemoryDisk::new();
    let directory = disk.open_directory("images".as_ref(), Access::Write).unwrap();
    for (place, membership, count) in IMAGES {
        let (file, name) = (golden(place, membership, count), fixture(place));
        let mut copy =
            directory.create_growing(name.file_name().unwrap().to_str().unwrap()).unwrap();
        copy.append(&[&file]).unwrap();
    }
    drop(directory);
    let store = open(&disk);
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    assert_eq!(store.images().len(), IMAGES.len());
    for (image, (place, membership, count)) in store.images().iter().rev().zip(IMAGES) {
        assert_eq!(*image.header(), header(place, membership));
        assert!(read(image).unwrap() == bytes(place.index, count), "{}", image.name());
    }
}

#[test]
fn images_of_version_1_are_received() {
    let mut store = open(&MemoryDisk::new());
    for (place, membership, count) in IMAGES {
        let file = golden(place, membership, count);
        let offer = Offer { owner: OWNER, place, bytes: file.len() as u64 };
        let finished = feed(receive(&mut store, offer), &file, 1000).unwrap();
        let image = store.publish(finished).unwrap();
        assert_eq!(*image.header(), header(place, membership));
        assert!(read(&image).unwrap() == bytes(place.index, count), "{}", image.name());
    }
}

/// Until there is a version 2: a node of this version and one of an earlier release make the same file of the same state.
#[test]
fn images_of_version_1_are_what_this_version_writes() {
    for (place, membership, count) in IMAGES {
        assert!(golden(place, membership, count) == written(place, membership, count), "{place:?}");
    }
}
