//! The power goes at every operation of the disk while images are written, received, published and removed; and again in the life
//! behind that.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod images;

use kontiki_disk::{
    MemoryDisk,
    memory::{Cut, Unsynced},
};
use kontiki_snapshot::{Image, Store};

use crate::images::{bytes, feed, open, publish, read, receive, sent};

/// Bytes of an image, enough for two blocks.
const BYTES: usize = 66_000;

/// Opens the store, publishes images, written and received by turns, and removes those before them. Gives the disk before each
/// operation, and the newest image that has to be there then: `least` at the beginning, and what the opening found counts from
/// then on, since whoever opens the store goes by it.
fn live(disk: &MemoryDisk, least: u64, count: u64) -> Vec<(Cut, u64)> {
    disk.start_cuts();
    let mut store = open(disk);
    let found = newest_of(&store);
    assert!(found >= least, "{found} of {least}");
    let mut cuts: Vec<_> = disk.take_cuts().into_iter().map(|cut| (cut, least)).collect();
    store.prune(1).unwrap();
    for index in found + 1..=found + count {
        if index % 2 == 0 {
            let (offer, file) = sent(index, BYTES);
            let finished = feed(receive(&mut store, offer), &file, 40_000).unwrap();
            store.publish(finished).unwrap();
        } else {
            publish(&mut store, index, BYTES);
        }
        cuts.extend(disk.take_cuts().into_iter().map(|cut| (cut, index - 1)));
        store.prune(1).unwrap();
        cuts.extend(disk.take_cuts().into_iter().map(|cut| (cut, index)));
    }
    cuts
}

fn newest_of(store: &Store) -> u64 {
    store.images().first().map_or(0, |image| image.header().place.index)
}

/// The newest image, if all that are there have the bytes that were written.
fn newest(disk: &MemoryDisk) -> u64 {
    let store = open(disk);
    assert!(store.damaged().is_empty(), "what has a name is whole: {:?}", store.damaged());
    let is_whole = |image: &Image| read(image).unwrap() == bytes(image.header().place.index, BYTES);
    assert!(store.images().iter().all(is_whole));
    newest_of(&store)
}

/// Cuts the power with each of the unsynced items alone kept, all but each, none and all; of few every subset. How many states.
fn check_closely(cut: &Cut, least: u64) -> usize {
    let unsynced = cut.before.unsynced().len();
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
    let states = subsets.len();
    for keep in subsets {
        let found = newest(&cut.before.image(keep));
        assert!(found >= least, "{}: {found} of {least}", cut.operation);
    }
    states
}

/// Cuts the power with every subset of the names, and all of the bytes or none. How many states.
fn check_names(cut: &Cut, least: u64) -> usize {
    let unsynced = cut.before.unsynced();
    let is_name = |item: usize| matches!(unsynced[item], Unsynced::Change { .. });
    let names: Vec<usize> = (0..unsynced.len()).filter(|&item| is_name(item)).collect();
    let mut states = 0;
    for set in 0..1_usize << names.len() {
        for bytes in [false, true] {
            let keep = |item| match names.iter().position(|&name| name == item) {
                Some(name) => set >> name & 1 == 1,
                None => bytes,
            };
            let found = newest(&cut.before.image(keep));
            assert!(found >= least, "{}: {found} of {least}, names {set:b}", cut.operation);
            states += 1;
        }
    }
    states
}

#[test]
fn a_power_cut_anywhere_leaves_the_newest_published_image_or_a_newer_one_whole() {
    let cuts = live(&MemoryDisk::new(), 0, 4);
    let states: usize = cuts.iter().map(|(cut, least)| check_closely(cut, *least)).sum();
    assert!(cuts.len() > 30 && states > 1_000, "{} cuts, {states} states", cuts.len());
}

/// Of a life that ended by a kill, with names that are not durable yet, or by a power cut.
#[test]
fn a_power_cut_anywhere_in_the_life_behind_a_kill_or_a_power_cut_does_so_as_well() {
    let (mut lives, mut states) = (0, 0);
    for (number, (cut, least)) in live(&MemoryDisk::new(), 0, 3).into_iter().enumerate() {
        let torn = cut.before.image(|item| item % 3 == number % 3);
        for disk in [cut.before.reopen(), torn] {
            for (cut, least) in live(&disk, least, 1) {
                states += check_names(&cut, least);
            }
            lives += 1;
        }
    }
    assert!(lives > 40 && states > 1_000, "{lives} lives, {states} states");
}
