//! The power goes at every operation of the disk while images are written, published and removed.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::io::{Read, Write};

use kontiki_disk::MemoryDisk;
use kontiki_snapshot::{Header, Place, Store};

/// Bytes of an image, enough for two blocks.
const BYTES: usize = 70_000;

fn write(store: &mut Store, index: u64) {
    let place = Place { index, term: 1 };
    let header = Header { cluster: 1, log: 1, place, membership: vec![7; 10] };
    let mut writer = store.create(header).unwrap();
    writer.write_all(&[u8::try_from(index).unwrap(); BYTES]).unwrap();
    let finished = writer.finish().unwrap();
    store.publish(finished).unwrap();
}

/// The newest image, if its bytes are what was written.
fn newest(disk: &MemoryDisk) -> Option<u64> {
    let store = Store::open(disk, "images", None).unwrap();
    assert!(store.damaged().is_empty(), "what has a name is whole: {:?}", store.damaged());
    let mut found = None;
    for image in store.images() {
        let (index, mut bytes) = (image.header().place.index, Vec::new());
        image.read().read_to_end(&mut bytes).unwrap();
        assert!(bytes == [u8::try_from(index).unwrap(); BYTES], "image {index}");
        found = found.max(Some(index));
    }
    found
}

#[test]
fn a_power_cut_anywhere_leaves_the_newest_published_image_or_a_newer_one_whole() {
    let disk = MemoryDisk::new();
    let mut store = Store::open(&disk, "images", None).unwrap();
    disk.start_cuts();
    // What was published before each operation.
    let mut cuts = Vec::new();
    for index in 1..=4 {
        write(&mut store, index);
        cuts.extend(disk.take_cuts().into_iter().map(|cut| (cut, index - 1)));
        store.prune(1).unwrap();
        cuts.extend(disk.take_cuts().into_iter().map(|cut| (cut, index)));
    }
    let mut states = 0;
    for (cut, published) in &cuts {
        let unsynced = cut.before.unsynced().len();
        // Each alone, all but each, none and all; of few every subset.
        let mut subsets: Vec<Box<dyn Fn(usize) -> bool>> =
            vec![Box::new(|_| false), Box::new(|_| true)];
        for item in 0..unsynced {
            subsets.push(Box::new(move |other| other == item));
            subsets.push(Box::new(move |other| other != item));
        }
        if unsynced <= 10 {
            (0..1_usize << unsynced).for_each(|set| {
                subsets.push(Box::new(move |item| set >> item & 1 == 1));
            });
        }
        for keep in subsets {
            let found = newest(&cut.before.image(keep));
            let least = Some(*published).filter(|&index| index > 0);
            assert!(found >= least, "{}: {found:?} of {least:?}", cut.operation);
            states += 1;
        }
    }
    assert!(cuts.len() > 30 && states > 1_000, "{} cuts, {states} states", cuts.len());
}
