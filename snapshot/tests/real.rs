//! A store on the machine's disk.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use std::{any::Any, io::ErrorKind, path::Path, sync::Arc};

use kontiki_disk::{Disk, real};
use kontiki_snapshot::{Store, StoreError};

use crate::images::{OWNER, bytes, feed, finish, header, publish, read, receive, sent};

fn begin() -> (tempfile::TempDir, Arc<dyn Disk>) {
    (tempfile::tempdir().unwrap(), real())
}

fn open(disk: &dyn Disk, directory: &Path) -> Store {
    Store::open(disk, directory, Some(OWNER)).unwrap()
}

/// Names of the files, without the lock.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != "LOCK").collect();
    names.sort();
    names
}

#[track_caller]
fn check_locked(disk: &dyn Disk, directory: &Path) {
    let refused = Store::open(disk, directory, Some(OWNER)).unwrap_err();
    let StoreError::Io { source, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(source.kind(), ErrorKind::WouldBlock, "{refused}");
}

#[test]
fn images_are_published_found_again_and_removed() {
    let (directory, disk) = begin();
    let directory = directory.path().join("node").join("images");
    let mut store = open(&*disk, &directory);
    for (index, count) in (1..).zip([0, 1, 65_536, 9 << 20]) {
        assert_eq!(read(&publish(&mut store, index, count)).unwrap(), bytes(index, count));
    }
    drop(store.create(header(5)).unwrap());
    assert_eq!(names(&directory).len(), 4, "what was not finished is gone");
    drop(store);
    std::fs::write(directory.join("00000000000000ff.tmp"), "of a life before").unwrap();
    let mut store = open(&*disk, &directory);
    assert_eq!(names(&directory).len(), 4);
    let lengths: Vec<u64> = store.images().iter().map(|image| image.verify().unwrap()).collect();
    assert_eq!(lengths, [9 << 20, 65_536, 1, 0]);
    let oldest = store.images()[3].clone();
    assert_eq!(store.prune(2).unwrap(), 2);
    assert_eq!(names(&directory).len(), 2);
    assert_eq!(read(&oldest).unwrap(), [0; 0], "who holds it reads on");
    drop((store, oldest));
    let store = open(&*disk, &directory);
    assert_eq!(read(&store.images()[0]).unwrap(), bytes(4, 9 << 20));
}

#[test]
fn an_image_is_received_and_what_is_not_one_leaves_nothing() {
    let (directory, disk) = begin();
    let mut store = open(&*disk, directory.path());
    let (offer, mut file) = sent(7, 200_000);
    let finished = feed(receive(&mut store, offer), &file, 12_345).unwrap();
    let received = store.publish(finished).unwrap();
    assert_eq!(std::fs::read(directory.path().join(received.name())).unwrap(), file);
    drop((store, received));
    let mut store = open(&*disk, directory.path());
    assert_eq!(read(&store.images()[0]).unwrap(), bytes(7, 200_000));

    (_, file) = sent(8, 200_000);
    file[100_000] ^= 1;
    let (offer, _) = sent(8, 200_000);
    let refused = feed(receive(&mut store, offer), &file, 12_345);
    assert!(matches!(refused, Err(StoreError::Corruption(_))), "{refused:?}");
    assert_eq!(names(directory.path()).len(), 1);
}

/// Has a store give something out.
type Make = fn(&mut Store) -> Box<dyn Any>;

/// As a view of a log does: nobody removes or replaces what is still read, or written.
#[test]
fn nobody_else_opens_the_store_while_it_or_anything_of_it_is_alive() {
    let make: [Make; 5] = [
        |store| Box::new(publish(store, 1, 100)),
        |store| Box::new(publish(store, 1, 100).read()),
        |store| Box::new(store.create(header(1)).unwrap()),
        |store| Box::new(receive(store, sent(1, 100).0)),
        |store| Box::new(finish(store.create(header(1)).unwrap(), 1, 10).unwrap()),
    ];
    for make in make {
        let (directory, disk) = begin();
        let mut store = open(&*disk, directory.path());
        check_locked(&*disk, directory.path());
        let alive = make(&mut store);
        drop(store);
        check_locked(&*disk, directory.path());
        drop(alive);
        open(&*disk, directory.path());
    }
}
