//! The images that the tests write, read and send.
#![allow(dead_code, reason = "no test uses all of it")]

use std::io::{self, Read, Write};

use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_snapshot::{
    Finished, Header, Image, Offer, Owner, Place, Receiver, Store, StoreError, Writer,
};

pub(crate) const OWNER: Owner = Owner { cluster: 5, log: 1 };

pub(crate) fn open(disk: &dyn Disk) -> Store {
    Store::open(disk, "images", Some(OWNER)).unwrap()
}

pub(crate) fn header(index: u64) -> Header {
    let Owner { cluster, log } = OWNER;
    Header { cluster, log, place: Place { index, term: 2 }, membership: b"members".to_vec() }
}

/// Bytes that no two images share.
pub(crate) fn bytes(index: u64, count: usize) -> Vec<u8> {
    let cycle = index.to_le_bytes().into_iter().cycle();
    cycle.zip((0..251_u8).cycle()).map(|(a, b)| a ^ b).take(count).collect()
}

/// Writes those, and ends the image.
pub(crate) fn finish(
    mut writer: Writer,
    index: u64,
    count: usize,
) -> Result<Finished, Box<dyn std::error::Error>> {
    writer.write_all(&bytes(index, count))?;
    Ok(writer.finish()?)
}

pub(crate) fn publish(store: &mut Store, index: u64, count: usize) -> Image {
    let writer = store.create(header(index)).unwrap();
    store.publish(finish(writer, index, count).unwrap()).unwrap()
}

pub(crate) fn read(image: &Image) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    image.read().read_to_end(&mut bytes).map(|_| bytes)
}

/// An image's file, and what its sender says of it.
pub(crate) fn sent(index: u64, count: usize) -> (Offer, Vec<u8>) {
    let image = publish(&mut open(&MemoryDisk::new()), index, count);
    let mut file = vec![0; usize::try_from(image.bytes()).unwrap()];
    assert_eq!(image.read_piece(0, &mut file).unwrap(), file.len());
    (image.offer(), file)
}

/// Begins to receive an image of any length.
pub(crate) fn receive(store: &mut Store, offer: Offer) -> Receiver {
    store.receive(offer, u64::MAX).unwrap()
}

/// Hands the file over in pieces of `piece` bytes, and ends it.
pub(crate) fn feed(
    mut receiver: Receiver,
    file: &[u8],
    piece: usize,
) -> Result<Finished, StoreError> {
    for piece in file.chunks(piece) {
        receiver.append(receiver.received(), piece)?;
    }
    receiver.finish()
}

pub(crate) fn names(disk: &dyn Disk) -> Vec<String> {
    let directory = disk.open_directory("images".as_ref(), Access::Read).unwrap();
    directory.list().unwrap().into_iter().map(|(name, _)| name).collect()
}
