use super::*;
use crate::seam::File;

const ALL: fn(usize) -> bool = |_| true;
const NOTHING: fn(usize) -> bool = |_| false;

fn open(disk: &MemoryDisk) -> Arc<dyn Directory> {
    disk.open_directory(Path::new("d"), Access::Write).unwrap()
}

/// A synced file of three sectors under a synced name.
fn with_file() -> (MemoryDisk, Arc<dyn Directory>, Arc<dyn File>) {
    let disk = MemoryDisk::new();
    let directory = open(&disk);
    let file = directory.create("a", 1536).unwrap();
    file.sync().unwrap();
    directory.sync().unwrap();
    (disk, directory, file)
}

fn first_bytes(disk: &MemoryDisk) -> [u8; 3] {
    let bytes = disk.contents("d/a").unwrap();
    [bytes[0], bytes[512], bytes[1024]]
}

fn names(disk: &MemoryDisk) -> Vec<(String, u64)> {
    disk.open_directory(Path::new("d"), Access::Read).unwrap().list().unwrap()
}

#[test]
fn each_unsynced_sector_is_kept_or_lost_by_itself() {
    let (disk, _directory, file) = with_file();
    file.write_at(0, &[&[1; 700], &[1; 836]]).unwrap();
    assert_eq!(disk.unsynced().len(), 3);

    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 0, 0]);
    assert_eq!(first_bytes(&disk.image(|item| item != 1)), [1, 0, 1]);
    assert_eq!(first_bytes(&disk.image(ALL)), [1, 1, 1]);
}

#[test]
fn an_older_content_of_a_sector_may_be_what_survives() {
    let (disk, _directory, file) = with_file();
    file.write_at(512, &[&[1]]).unwrap();
    file.write_at(512, &[&[2]]).unwrap();
    let sector = |version| Unsynced::Sector { file: "d/a".into(), sector: 1, version };
    assert_eq!(disk.unsynced(), [sector(0), sector(1)]);

    assert_eq!(first_bytes(&disk.image(|item| item == 0)), [0, 1, 0]);
    assert_eq!(first_bytes(&disk.image(ALL)), [0, 2, 0]);
    file.sync().unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 2, 0]);
    assert_eq!(disk.unsynced(), []);
}

#[test]
fn a_failed_sync_leaves_pages_that_no_later_sync_writes() {
    let (disk, _directory, file) = with_file();
    file.write_at(0, &[&[7]]).unwrap();
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    file.sync().unwrap();

    assert_eq!(first_bytes(&disk), [7, 0, 0], "still readable");
    assert_eq!(first_bytes(&disk.reopen()), [7, 0, 0], "also for the next process");
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 0, 0], "but not on the medium");

    let same_boot = disk.reopen();
    let file = open(&same_boot).open("a").unwrap();
    file.sync().unwrap();
    assert_eq!(first_bytes(&same_boot.image(NOTHING)), [0, 0, 0], "nor by a sync after reopening");
    file.write_at(0, &[&[7]]).unwrap();
    file.sync().unwrap();
    assert_eq!(first_bytes(&same_boot.image(NOTHING)), [7, 0, 0], "unless written again");
}

#[test]
fn what_a_failed_sync_left_in_the_cache_can_leave_it_and_what_is_dirty_does_not() {
    let (disk, _directory, file) = with_file();
    file.write_at(0, &[&[7]]).unwrap();
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    file.sync().unwrap_err();
    file.write_at(512, &[&[8]]).unwrap();
    disk.evict();
    assert_eq!(first_bytes(&disk), [0, 8, 0]);
    file.sync().unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 8, 0]);
}

#[test]
fn a_lying_sync_says_ok_and_writes_nothing() {
    let (disk, _directory, file) = with_file();
    file.write_at(0, &[&[7]]).unwrap();
    disk.inject(Kind::Sync, 1, Fault::Lie);
    disk.inject(Kind::Sync, 5, Fault::Lie);
    file.sync().unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 0, 0]);
    assert_eq!(disk.take_met(), [(Kind::Sync, Fault::Lie)], "and not the one that waits");
    assert_eq!(disk.take_met(), []);
}

#[test]
fn a_failed_sync_can_take_back_what_was_written() {
    let (disk, _directory, file) = with_file();
    file.write_at(0, &[&[7]]).unwrap();
    file.sync().unwrap();
    file.write_at(0, &[&[8; 700]]).unwrap();
    disk.inject(Kind::Sync, 1, Fault::TakeBack(EIO));
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(first_bytes(&disk), [7, 0, 0]);
    file.sync().unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [7, 0, 0]);
    assert_eq!(disk.unsynced(), []);
}

#[test]
fn a_misdirected_sync_writes_over_something_else_and_says_it_did_not() {
    let (disk, _directory, file) = with_file();
    file.write_at(0, &[&[1]]).unwrap();
    file.write_at(1024, &[&[3]]).unwrap();
    disk.inject(Kind::Sync, 1, Fault::Misdirect(1));
    file.sync().unwrap();
    assert_eq!(first_bytes(&disk), [1, 1, 3], "what was written is still in the cache");
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 1, 0], "the last one went beyond the file");
    file.write_at(0, &[&[2]]).unwrap();
    file.sync().unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [2, 1, 0]);
}

#[test]
fn a_failing_write_writes_its_first_half() {
    let (disk, _directory, file) = with_file();
    disk.inject(Kind::Write, 2, Fault::Fail(ENOSPC));
    file.write_at(1024, &[&[1]]).unwrap();
    assert_eq!(file.write_at(0, &[&[7; 1024]]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(first_bytes(&disk), [7, 0, 1]);
}

#[test]
fn a_planned_panic_does_nothing_else() {
    let (disk, _directory, file) = with_file();
    disk.inject(Kind::Write, 1, Fault::Panic);
    let write = || file.write_at(0, &[&[1]]);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(write)).is_err());
    assert_eq!(first_bytes(&disk), [0, 0, 0]);
    write().unwrap();
}

#[test]
fn each_change_of_a_directory_is_kept_or_lost_by_itself() {
    let (disk, directory, _file) = with_file();
    directory.create("b", 8).unwrap().sync().unwrap();
    directory.rename("b", "c").unwrap();
    directory.remove("a").unwrap();
    let changes = ["create b", "rename b to c", "remove a"];
    let listed = |item: &Unsynced| matches!(item, Unsynced::Change { what, .. } if changes.contains(&&**what));
    assert!(disk.unsynced().iter().all(listed));

    let after = |kept: &[usize]| -> Vec<String> {
        names(&disk.image(|item| kept.contains(&item))).into_iter().map(|(name, _)| name).collect()
    };
    assert_eq!(after(&[]), ["a"]);
    assert_eq!(after(&[0]), ["a", "b"]);
    assert_eq!(after(&[1]), ["a", "c"], "a rename may outlive the create before it");
    assert_eq!(after(&[2]), [""; 0]);
    assert_eq!(after(&[0, 1, 2]), ["c"]);
}

#[test]
fn a_renamed_file_keeps_one_of_its_names() {
    let (disk, directory, _file) = with_file();
    directory.rename("a", "b").unwrap();
    directory.create("a", 8).unwrap();
    let only_the_create = names(&disk.image(|item| item == 1));
    assert_eq!(only_the_create, [("a".to_string(), 1536)]);
}

#[test]
fn a_failed_sync_of_a_directory_leaves_its_changes_to_the_next_one() {
    let (disk, directory, _file) = with_file();
    directory.rename("a", "b").unwrap();
    disk.inject(Kind::SyncDirectory, 1, Fault::Fail(EIO));
    directory.sync().unwrap_err();
    assert_eq!(names(&disk)[0].0, "b");
    assert_eq!(names(&disk.image(NOTHING))[0].0, "a");
    directory.sync().unwrap();
    assert_eq!(names(&disk.image(NOTHING))[0].0, "b");
}

#[test]
fn a_new_file_is_empty_until_its_first_sync_is_durable() {
    let disk = MemoryDisk::new();
    let directory = open(&disk);
    let file = directory.create("a", 512).unwrap();
    directory.sync().unwrap();
    assert_eq!(disk.unsynced(), [Unsynced::Length { file: "d/a".into() }]);
    assert_eq!(names(&disk.image(NOTHING)), [("a".to_string(), 0)]);
    file.sync().unwrap();
    assert_eq!(names(&disk.image(NOTHING)), [("a".to_string(), 512)]);
}

#[test]
fn a_full_disk_takes_no_file_until_one_is_removed() {
    let (disk, directory, _file) = with_file();
    disk.set_capacity(Some(2000));
    assert_eq!(directory.create("b", 512).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(names(&disk).len(), 1);
    directory.remove("a").unwrap();
    directory.create("b", 512).unwrap();
}

#[test]
fn after_a_power_cut_everything_fails_and_nothing_changes() {
    let (disk, directory, file) = with_file();
    disk.cut_power_after(1);
    file.write_at(0, &[&[1]]).unwrap();
    let before = disk.contents("d/a");

    assert!(is_power_cut(&file.write_at(0, &[&[2]]).unwrap_err()));
    assert!(is_power_cut(&file.sync().unwrap_err()));
    assert!(is_power_cut(&file.read_at(0, &mut [0]).unwrap_err()));
    assert!(is_power_cut(&directory.list().unwrap_err()));
    assert!(is_power_cut(&directory.create("b", 1).unwrap_err()));
    assert!(is_power_cut(&directory.sync().unwrap_err()));
    assert_eq!(disk.contents("d/a"), before);
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 0, 0]);
}

#[test]
fn an_operation_waits_at_its_gate_and_others_pass() {
    let (disk, _directory, file) = with_file();
    let gate = disk.hold(Kind::Sync, 1);
    let held = Arc::clone(&file);
    let thread = std::thread::spawn(move || held.sync());

    gate.wait_reached();
    file.write_at(0, &[&[1]]).unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [0, 0, 0]);
    gate.release();
    thread.join().unwrap().unwrap();
    assert_eq!(first_bytes(&disk.image(NOTHING)), [1, 0, 0]);
}

#[test]
fn cuts_and_trace_tell_every_operation_and_the_disk_before_it() {
    let (disk, directory, file) = with_file();
    let operations = disk.operations();
    disk.start_cuts();
    disk.start_trace();
    file.write_at(4, &[&[1], &[2]]).unwrap();
    file.sync().unwrap();
    directory.rename("a", "b").unwrap();
    file.sync().unwrap();

    let told: Vec<String> = disk.take_trace().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["write a 4..6", "sync a", "rename a to b", "sync b"]);
    assert_eq!(disk.operations(), operations + 4);
    let cuts = disk.take_cuts();
    assert_eq!(cuts.len(), 4);
    assert_eq!(cuts[1].before.unsynced().len(), 1);
    assert_eq!(first_bytes(&cuts[1].before.image(NOTHING)), [0, 0, 0]);
    assert_eq!(names(&cuts[2].before.image(ALL))[0].0, "a");
}

#[test]
fn the_fingerprint_is_that_of_what_is_durable() {
    let (disk, _directory, file) = with_file();
    let before = disk.fingerprint();
    file.write_at(0, &[&[1]]).unwrap();
    assert_eq!(disk.fingerprint(), before);
    assert_eq!(disk.image(NOTHING).fingerprint(), before);
    file.sync().unwrap();
    assert_ne!(disk.fingerprint(), before);

    disk.corrupt("d/a", 0, 1);
    assert_eq!(disk.fingerprint(), before);
}

#[test]
fn an_image_and_a_reopened_disk_are_disks_of_their_own() {
    let (disk, _directory, _file) = with_file();
    for other in [disk.image(ALL), disk.reopen()] {
        let file = open(&other).open("a").unwrap();
        file.write_at(0, &[&[9]]).unwrap();
        assert_eq!(first_bytes(&other), [9, 0, 0]);
    }
    assert_eq!(first_bytes(&disk), [0, 0, 0]);
}

#[test]
fn of_a_file_that_grows_a_power_cut_leaves_what_was_synced_or_more() {
    let disk = MemoryDisk::new();
    let directory = open(&disk);
    let mut file = directory.create_growing("a").unwrap();
    directory.sync().unwrap();
    file.append(&[&[1; 512], &[1; 88]]).unwrap();
    file.sync().unwrap();
    file.append(&[&[2; 600]]).unwrap();
    let contents = |disk: MemoryDisk| disk.contents("d/a").unwrap();
    let whole = [[1; 600], [2; 600]].concat();
    assert_eq!(contents(disk.image(NOTHING)), whole[..600]);
    assert_eq!(contents(disk.image(ALL)), whole);
    let length = disk.unsynced().iter().position(|item| matches!(item, Unsynced::Length { .. }));
    let grown = contents(disk.image(|item| Some(item) == length));
    assert_eq!((&grown[..600], &grown[600..]), (&whole[..600], &[0; 600][..]), "and holds zeros");
    assert_eq!(contents(disk.image(|item| Some(item) != length)).len(), 600);
    file.sync().unwrap();
    assert_eq!(contents(disk.image(NOTHING)), whole);
    assert_eq!((file.len(), directory.open("a").unwrap().len()), (1200, 1200));
}

#[test]
fn a_file_that_cannot_grow_says_so() {
    let disk = MemoryDisk::new();
    let directory = open(&disk);
    let mut file = directory.create_growing("a").unwrap();
    assert_eq!(directory.create_growing("a").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    disk.set_capacity(Some(1000));
    file.append(&[&[1; 600]]).unwrap();
    assert_eq!(file.append(&[&[1; 600]]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.set_capacity(None);
    disk.inject(Kind::Write, 1, Fault::Fail(EIO));
    assert_eq!(file.append(&[&[1; 600]]).unwrap_err().raw_os_error(), Some(EIO));
}
