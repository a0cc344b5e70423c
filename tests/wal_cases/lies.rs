//! Disks that say Ok to a sync and have not done it.

use kontiki_disk::memory::{Fault, Kind};
use kontiki_sim::failure::{self, Failure, Place};

use super::{damage::read_all, *};

/// A log of three groups; the sync of the one with number `lied` lies.
fn three_groups(lied: u64) -> (Session, [String; 3]) {
    let mut session = start();
    session.disk.inject(Kind::Sync, lied, Fault::Lie);
    let texts = ["first", "second", "third"].map(|text| text.repeat(300));
    for (index, text) in (1..).zip(&texts) {
        acknowledge(&mut session, L, append(index, 5, &[text]));
    }
    assert!(!session.disk.has_faults());
    (session, texts)
}

/// WAL-CASE 27: every sector by itself, and all together.
#[test]
fn a_sync_that_lies_is_found_out_once_the_lost_bytes_were_attested() {
    for lied in [1, 2] {
        let (session, texts) = three_groups(lied);
        let (_, disk) = session.kill();
        corruption(&disk.image(NOTHING));
        let items = disk.unsynced().len();
        let mut harmless = 0;
        for lost in 0..items {
            let image = disk.image(|item| item != lost);
            // A sector that has nothing of the group but padding is not missed.
            match open(&image.reopen()) {
                Ok(wal) => {
                    assert_eq!(entries(&World::of(&wal), L), texts, "group {lied}, {lost} lost");
                    harmless += 1;
                }
                Err(_) => drop(corruption(&image)),
            }
        }
        assert!(items >= 3 && harmless <= 1, "group {lied}: {harmless} of {items} sectors");
    }
}

/// WAL-CASE 27: nothing attests the last group.
#[test]
fn a_sync_that_lies_about_the_last_group_is_a_cut() {
    let (session, texts) = three_groups(3);
    let (_, disk) = session.kill();
    assert_eq!(entries(&world(&disk.image(NOTHING)), L), texts[..2]);
    let (items, mut cuts) = (disk.unsynced().len(), 0);
    for lost in 0..items {
        let found = entries(&world(&disk.image(|item| item != lost)), L);
        assert!(found == texts[..2] || found == texts, "{lost} lost: {} entries", found.len());
        cuts += usize::from(found.len() == 2);
    }
    assert!(cuts >= 3, "{cuts} of {items}");
}

/// What one log cannot know (FORMAT.md, assumption 7): what attests the newest frames lies behind them, and a block at the end
/// that the disk lost takes it along.
#[test]
fn zeros_to_the_end_are_not_told_from_what_was_never_written() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 5, &["first"]));
    acknowledge(&mut session, L, append(2, 5, &["second"]));
    let (_, disk) = session.close();
    let (name, entry) = find(&disk, "second");
    let file = Path::new(DIRECTORY).join(name);
    let bytes = disk.contents(&file).unwrap();
    for at in header_of(entry)..bytes.len() as u64 {
        disk.corrupt(&file, at, bytes[usize::try_from(at).unwrap()]);
    }
    assert_eq!(entries(&world(&disk), L), ["first"]);
}

/// WAL-CASE 27: whichever sync of three lives lies, in whatever the log does: once it was closed, what is lost is told, by
/// opening or by reading, or nothing depended on it.
#[test]
fn no_sync_that_lies_loses_anything_silently() {
    let (mut told, mut harmless, mut places) = (0, 0, Vec::new());
    let lies = |seed| {
        let lie = |nth| Failure { kind: Kind::Sync, nth, fault: Fault::Lie };
        (1..).map_while(move |nth| failure::run(seed, 60, lie(nth)))
    };
    for failed in (5..9).flat_map(lies) {
        places.push(failed.place);
        let life = failed.record.lives.last().unwrap();
        let disk = &life.cuts.last().unwrap().cut.before;
        let items = disk.unsynced().len();
        for lost in 0..=items {
            // The last time all of them.
            let image = disk.image(|item| lost < items && item != lost);
            match read_all(&image) {
                None => told += 1,
                Some(found) => {
                    assert_eq!(&found, life.world(), "{}: {lost} lost", failed.operation);
                    harmless += 1;
                }
            }
        }
    }
    println!("{} syncs: {told} told, {harmless} harmless", places.len());
    for place in [Place::Opening, Place::Work, Place::Closing] {
        assert!(places.contains(&place), "{place:?}");
    }
    assert!(told > 100 && harmless > 100, "{told} told, {harmless} harmless");
}
