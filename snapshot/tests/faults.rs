//! The disk fails at one operation: what was published stays, and of what was not nothing is left.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use std::error::Error;

use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, Fault, Kind, Operation},
};
use kontiki_snapshot::{Finished, Store};

use crate::images::{bytes, feed, finish, header, names, open, publish, read, receive, sent};

/// Bytes of an image that is synced twice before its end.
const LONG: usize = 5 << 19;
/// Bytes that may be written without a sync, and a block more.
const UNSYNCED_BYTES_MAX: u64 = (1 << 20) + (64 << 10) + 8;

/// Makes a long image durable under its temporary name.
type Make = fn(&mut Store) -> Result<Finished, Box<dyn Error>>;

fn write_long(store: &mut Store) -> Result<Finished, Box<dyn Error>> {
    finish(store.create(header(2))?, 2, LONG)
}

fn receive_long(store: &mut Store) -> Result<Finished, Box<dyn Error>> {
    let (offer, file) = sent(2, LONG);
    Ok(feed(receive(store, offer), &file, 1 << 20)?)
}

#[test]
fn no_more_than_a_mebibyte_waits_for_a_sync() {
    for make in [write_long as Make, receive_long] {
        let disk = MemoryDisk::new();
        let mut store = open(&disk);
        disk.start_trace();
        make(&mut store).unwrap();
        let (mut written, mut synced, mut syncs) = (0, 0, 0);
        for Operation { kind, range, .. } in disk.take_trace() {
            match kind {
                Kind::Write => written = range.end,
                Kind::Sync => (synced, syncs) = (written, syncs + 1),
                _ => {}
            }
            assert!(written - synced <= UNSYNCED_BYTES_MAX, "{synced}, {written}");
        }
        assert!(written == synced && written > LONG as u64, "{synced}, {written}");
        assert_eq!(syncs, 3, "and no more syncs than that needs");
    }
}

#[test]
fn a_sync_that_fails_is_final_and_nothing_of_the_image_is_there() {
    for make in [write_long as Make, receive_long] {
        for nth in 1..=3 {
            for fault in [Fault::Fail(EIO), Fault::TakeBack(EIO)] {
                let disk = MemoryDisk::new();
                let mut store = open(&disk);
                publish(&mut store, 1, 100);
                disk.inject(Kind::Sync, nth, fault);
                let told = make(&mut store).unwrap_err().to_string();
                assert!(told.starts_with("a sync of 0000000000000002.tmp failed"), "{nth}: {told}");
                assert!(!disk.has_faults(), "{nth}: there are as many syncs");
                assert_eq!(names(&disk).len(), 1, "{nth}");
                assert_eq!(
                    publish(&mut store, 3, 100).header().place.index,
                    3,
                    "another one can be"
                );
            }
        }
    }
}

/// Once the sync has failed, the rest may come: the error comes again, and the end does not hide it.
#[test]
fn who_goes_on_behind_a_sync_that_failed_is_told_of_it_again() {
    let (disk, (offer, file)) = (MemoryDisk::new(), sent(2, LONG));
    let mut store = open(&disk);
    let mut receiver = receive(&mut store, offer);
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    let mut told = Vec::new();
    for piece in file.chunks(100_000) {
        told.extend(receiver.append(receiver.received(), piece).err());
    }
    let ended = receiver.finish().unwrap_err().to_string();
    assert!(ended.starts_with("a sync of 0000000000000001.tmp failed"), "{ended}");
    assert!(told.len() > 10 && told.iter().all(|error| error.to_string() == ended), "{told:?}");
    assert_eq!(names(&disk), [""; 0]);
}

/// Three images, written and received, each removing those before it. Gives the newest one that was published.
fn work(store: &mut Store) -> u64 {
    let mut published = 1;
    for index in 2..=4 {
        let made = if index == 3 {
            let (offer, file) = sent(index, 70_000);
            store
                .receive(offer, offer.bytes)
                .map_err(Into::into)
                .and_then(|receiver| Ok(feed(receiver, &file, 50_000)?))
        } else {
            store
                .create(header(index))
                .map_err(Into::into)
                .and_then(|writer| finish(writer, index, 70_000))
        };
        let is_published = made.is_ok_and(|finished: Finished| store.publish(finished).is_ok());
        if is_published {
            published = index;
        }
        // What it cannot remove the next one removes.
        let _ = store.prune(1);
    }
    published
}

fn newest(store: &Store) -> u64 {
    assert!(store.damaged().is_empty(), "{:?}", store.damaged());
    let index = store.images()[0].header().place.index;
    assert_eq!(read(&store.images()[0]).unwrap(), bytes(index, 70_000), "image {index}");
    index
}

#[test]
fn a_disk_that_fails_at_any_operation_leaves_the_newest_published_image_readable() {
    let mut met = 0;
    for kind in
        [Kind::Write, Kind::Sync, Kind::Create, Kind::Rename, Kind::Remove, Kind::SyncDirectory]
    {
        for nth in 1.. {
            let disk = MemoryDisk::new();
            let mut store = open(&disk);
            publish(&mut store, 1, 70_000);
            disk.inject(kind, nth, Fault::Fail(EIO));
            let published = work(&mut store);
            if disk.has_faults() {
                assert!(nth > 2, "{kind:?}: the work has some");
                break;
            }
            assert_eq!(newest(&store), published, "{kind:?} {nth}");
            drop(store);
            let lost = disk.image(|_| false);
            let kept = disk.image(|_| true);
            for (after, disk) in [("a kill", disk.reopen()), ("a cut", lost), ("a late cut", kept)]
            {
                let found = newest(&open(&disk));
                assert!(found >= published, "{kind:?} {nth}, {after}: {found} of {published}");
            }
            met += 1;
        }
    }
    assert!(met > 25, "{met} operations failed");
}
