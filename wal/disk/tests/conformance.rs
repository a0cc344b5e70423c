//! What the seam promises, tried on every disk there is.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    io::{ErrorKind, Read},
    os::unix::fs::symlink,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use kontiki_disk::{Access, Directory, Disk, File, MemoryDisk, WriteMode, real, real_writing};

/// Runs `test` on all disks, each with the path of a directory that does not exist yet.
fn on_each_disk(test: impl Fn(&dyn Disk, &Path)) {
    println!("on the memory disk:");
    test(&MemoryDisk::new(), Path::new("home/log"));
    println!("on the real disk:");
    let home = tempfile::tempdir().unwrap();
    test(&*real(), &home.path().join("log"));
    println!("on the real disk, by stores into maps:");
    let home = tempfile::tempdir().unwrap();
    test(&*real_writing(WriteMode::Mapped), &home.path().join("log"));
}

/// As [`on_each_disk`], with the directory open.
fn in_a_directory(test: impl Fn(Arc<dyn Directory>)) {
    on_each_disk(|disk, path| test(disk.open_directory(path, Access::Write).unwrap()));
}

/// As [`in_a_directory`], with a file of 8 KiB.
fn with_a_file(test: impl Fn(Arc<dyn Directory>, Arc<dyn File>)) {
    in_a_directory(|directory| {
        let file = directory.create("a", 8192).unwrap();
        test(directory, file);
    });
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.map(drop).expect_err("it fails").kind()
}

fn panics(act: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(act)).is_err()
}

fn names(directory: &dyn Directory) -> Vec<String> {
    directory.list().unwrap().into_iter().map(|(name, _)| name).collect()
}

fn bytes_of(file: &dyn File, offset: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; count];
    file.read_at(offset, &mut bytes).unwrap();
    bytes
}

#[test]
fn opening_for_writing_makes_the_directory_and_its_parents() {
    on_each_disk(|disk, path| {
        let deep = path.join("b/c");
        assert_eq!(kind(disk.open_directory(&deep, Access::Read)), ErrorKind::NotFound);
        let directory = disk.open_directory(&deep, Access::Write).unwrap();
        assert_eq!(directory.path(), deep);
        assert_eq!(directory.list().unwrap(), []);
        disk.open_directory(&deep, Access::Read).unwrap();
    });
}

/// WAL-CASE 40, within one process.
#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    on_each_disk(|disk, path| {
        let directory = disk.open_directory(path, Access::Write).unwrap();
        assert_eq!(kind(disk.open_directory(path, Access::Write)), ErrorKind::WouldBlock);
        let reader = disk.open_directory(path, Access::Read).unwrap();
        assert!(reader.is_locked().unwrap());
        let elsewhere = path.with_file_name("other");
        disk.open_directory(&elsewhere, Access::Write).unwrap();
        drop(directory);
        assert!(!reader.is_locked().unwrap());
        disk.open_directory(path, Access::Write).unwrap();
    });
}

/// WAL-CASE 38, WAL-CASE 40: the lock goes with the last view, not with the directory.
#[test]
fn files_and_views_hold_the_lock_as_well() {
    on_each_disk(|disk, path| {
        let directory = disk.open_directory(path, Access::Write).unwrap();
        let file = directory.create("a", 8192).unwrap();
        file.write_at(0, &[b"kept"]).unwrap();
        file.publish(4);
        directory.remove("a").unwrap();
        drop(directory);
        assert_eq!(kind(disk.open_directory(path, Access::Write)), ErrorKind::WouldBlock);

        let view = file.view(0..4).unwrap();
        assert_eq!(kind(disk.open_directory(path, Access::Write)), ErrorKind::WouldBlock);
        let part = view.slice(1..3);
        drop(view);
        assert_eq!(part, &b"ep"[..], "a view outlives the name and the handles");
        assert_eq!(kind(disk.open_directory(path, Access::Write)), ErrorKind::WouldBlock);
        drop(part);
        disk.open_directory(path, Access::Write).unwrap();
    });
}

/// The directory's sync would not reach a name that was made in the other one.
#[test]
fn no_name_is_changed_in_a_directory_that_took_the_place_of_the_one_that_was_opened() {
    let home = tempfile::tempdir().unwrap();
    let (place, aside) = (home.path().join("log"), home.path().join("aside"));
    let directory = real().open_directory(&place, Access::Write).unwrap();
    let file = directory.create("a", 8192).unwrap();
    std::fs::rename(&place, &aside).unwrap();
    assert_eq!(kind(directory.create("b", 8192)), ErrorKind::NotFound);

    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("a"), "another's").unwrap();
    let refused = directory.create("b", 8192).map(drop).unwrap_err();
    assert!(refused.to_string().contains("another directory lies at"), "{refused}");
    assert!(directory.rename("a", "b").is_err() && directory.remove("a").is_err());
    assert_eq!(std::fs::read(place.join("a")).unwrap(), b"another's");
    file.write_at(0, &[b"the file that is open goes on"]).unwrap();

    std::fs::remove_dir_all(&place).unwrap();
    std::fs::rename(&aside, &place).unwrap();
    directory.rename("a", "b").unwrap();
    assert_eq!(names(&*directory), ["b"]);
}

/// WAL-CASE 40, between processes.
#[test]
fn a_killed_process_leaves_no_lock_behind() {
    const HOLDER: &str = "KONTIKI_TEST_HOLDS_LOCK_OF";
    if let Some(path) = std::env::var_os(HOLDER) {
        let _directory = real().open_directory(Path::new(&path), Access::Write).unwrap();
        println!("\nheld");
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap(); // Until it is killed.
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_no_lock_behind", "--nocapture"])
        .env(HOLDER, home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while line != "held\n" {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut output, &mut line).unwrap() > 0, "it ended");
    }

    let refused = real().open_directory(home.path(), Access::Write).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    let holder = format!("process {}", child.id());
    assert!(refused.to_string().ends_with(&holder), "{refused}");

    child.kill().unwrap();
    child.wait().unwrap();
    real().open_directory(home.path(), Access::Write).unwrap();
}

#[test]
fn files_are_listed_with_their_lengths_in_order_and_without_the_lock() {
    in_a_directory(|directory| {
        for (name, bytes) in [("c", 512), ("a", 0), ("b", 4097)] {
            directory.create(name, bytes).unwrap();
        }
        let expected = [("a", 0), ("b", 4097), ("c", 512)].map(|(name, n)| (name.to_string(), n));
        assert_eq!(directory.list().unwrap(), expected);
    });
}

#[test]
fn what_is_no_plain_file_is_neither_listed_nor_opened() {
    let home = tempfile::tempdir().unwrap();
    let directory = real().open_directory(home.path(), Access::Write).unwrap();
    std::fs::create_dir(home.path().join("subdirectory")).unwrap();
    assert_eq!(directory.list().unwrap(), []);
    assert!(directory.open("subdirectory").is_err());
}

#[test]
fn a_new_file_is_zeros_of_the_length_asked_for() {
    with_a_file(|directory, file| {
        assert_eq!((file.len(), file.is_empty()), (8192, false));
        assert_eq!(bytes_of(&*file, 0, 8192), [0; 8192]);
        assert!(directory.create("empty", 0).unwrap().is_empty());
    });
}

#[test]
fn a_taken_name_is_not_created_again() {
    with_a_file(|directory, file| {
        file.write_at(0, &[b"x"]).unwrap();
        assert_eq!(kind(directory.create("a", 512)), ErrorKind::AlreadyExists);
        assert_eq!(bytes_of(&*directory.open("a").unwrap(), 0, 1), b"x");
        assert_eq!(file.len(), 8192);
    });
}

#[test]
fn a_file_that_does_not_fit_leaves_nothing_behind() {
    let disk = MemoryDisk::new();
    disk.set_capacity(Some(8192));
    let directory = disk.open_directory(Path::new("d"), Access::Write).unwrap();
    assert_eq!(kind(directory.create("a", 8193)), ErrorKind::StorageFull);
    assert_eq!(directory.list().unwrap(), []);

    let home = tempfile::tempdir().unwrap();
    let directory = real().open_directory(home.path(), Access::Write).unwrap();
    // More than any disk has, or than one file may take: either way an error and no file.
    assert!(directory.create("a", 1 << 60).is_err());
    assert_eq!(directory.list().unwrap(), []);
}

#[test]
fn what_is_not_there_is_not_found() {
    in_a_directory(|directory| {
        assert_eq!(kind(directory.open("a")), ErrorKind::NotFound);
        assert_eq!(kind(directory.rename("a", "b")), ErrorKind::NotFound);
        assert_eq!(kind(directory.remove("a")), ErrorKind::NotFound);
    });
}

#[test]
fn only_plain_names_are_taken_and_never_the_locks() {
    with_a_file(|directory, _file| {
        for name in ["", ".", "..", "LOCK", "a/b", "../a", "nul\0"] {
            assert_eq!(kind(directory.create(name, 8)), ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(kind(directory.open(name)), ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(kind(directory.remove(name)), ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(kind(directory.rename("a", name)), ErrorKind::InvalidInput, "{name:?}");
            assert_eq!(kind(directory.rename(name, "a")), ErrorKind::InvalidInput, "{name:?}");
        }
        assert_eq!(names(&*directory), ["a"]);
    });
}

#[test]
fn a_rename_replaces_what_had_the_name_and_handles_stay_valid() {
    with_a_file(|directory, a| {
        let b = directory.create("b", 512).unwrap();
        a.write_at(0, &[b"a"]).unwrap();
        b.write_at(0, &[b"b"]).unwrap();
        directory.rename("a", "b").unwrap();
        directory.rename("b", "b").unwrap();
        directory.sync().unwrap();

        assert_eq!(directory.list().unwrap(), [("b".to_string(), 8192)]);
        assert_eq!(bytes_of(&*directory.open("b").unwrap(), 0, 1), b"a");
        a.write_at(1, &[b"c"]).unwrap();
        assert_eq!(bytes_of(&*directory.open("b").unwrap(), 0, 2), b"ac");
        assert_eq!(bytes_of(&*b, 0, 1), b"b", "the file that lost its name lives in its handle");
    });
}

#[test]
fn a_removed_file_lives_in_its_handle() {
    with_a_file(|directory, file| {
        directory.remove("a").unwrap();
        directory.sync().unwrap();
        assert_eq!(directory.list().unwrap(), []);
        file.write_at(5, &[b"still"]).unwrap();
        file.sync().unwrap();
        assert_eq!(bytes_of(&*file, 5, 5), b"still");
        directory.create("a", 16).unwrap();
        assert_eq!(file.len(), 8192);
    });
}

#[test]
fn parts_are_written_one_behind_the_other_at_their_place() {
    with_a_file(|_directory, file| {
        file.write_at(4090, &[b"one", b"", b"-two-", b"three"]).unwrap();
        assert_eq!(bytes_of(&*file, 4089, 15), b"\0one-two-three\0");
        file.write_at(4093, &[b"+"]).unwrap();
        file.write_at(0, &[]).unwrap();
        file.write_at(8192, &[]).unwrap();
        assert_eq!(bytes_of(&*file, 4089, 15), b"\0one+two-three\0");
        file.write_at(8191, &[b"z"]).unwrap();
        file.sync().unwrap();
        assert_eq!(bytes_of(&*file, 8190, 2), b"\0z");
    });
}

#[test]
fn a_read_past_the_end_fails() {
    with_a_file(|_directory, file| {
        file.read_at(8192, &mut []).unwrap();
        file.read_at(8188, &mut [0; 4]).unwrap();
        assert_eq!(kind(file.read_at(8189, &mut [0; 4])), ErrorKind::UnexpectedEof);
        assert_eq!(kind(file.read_at(1 << 40, &mut [0])), ErrorKind::UnexpectedEof);
    });
}

#[test]
fn a_write_past_the_end_panics_and_writes_nothing() {
    with_a_file(|directory, file| {
        assert!(panics(|| drop(file.write_at(8190, &[b"x", b"yz"]))));
        assert!(panics(|| drop(file.write_at(u64::MAX, &[b"x"]))));
        assert_eq!(bytes_of(&*file, 8190, 2), [0, 0]);
        assert_eq!(directory.list().unwrap(), [("a".to_string(), 8192)]);
    });
}

#[test]
fn a_view_shows_what_is_published_and_nothing_else() {
    with_a_file(|_directory, file| {
        file.write_at(0, &[b"shown", b"not yet"]).unwrap();
        file.publish(5);
        assert_eq!(file.clone().view(0..5).unwrap(), &b"shown"[..]);
        assert_eq!(file.clone().view(1..4).unwrap(), &b"how"[..]);
        assert!(file.clone().view(5..5).unwrap().is_empty());
        assert!(panics(|| drop(file.clone().view(0..6))));
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
        let backwards = 4..3;
        assert!(panics(|| drop(file.clone().view(backwards))));

        file.publish(3);
        assert_eq!(file.clone().view(3..5).unwrap(), &b"wn"[..], "publishing never shrinks");
        file.publish(12);
        assert_eq!(file.clone().view(5..12).unwrap(), &b"not yet"[..]);
        assert!(panics(|| file.publish(8193)));
    });
}

#[test]
fn an_empty_file_has_an_empty_view() {
    in_a_directory(|directory| {
        let file = directory.create("empty", 0).unwrap();
        file.publish(0);
        assert!(file.view(0..0).unwrap().is_empty());
    });
}

#[test]
fn what_is_published_is_never_written_again() {
    with_a_file(|directory, file| {
        file.write_at(0, &[b"for ever"]).unwrap();
        file.publish(8);
        let view = file.clone().view(0..8).unwrap();
        assert!(panics(|| drop(file.write_at(7, &[b"x"]))));
        let again = directory.open("a").unwrap();
        assert!(panics(|| drop(again.write_at(0, &[b"x"]))), "nor through another handle");
        directory.rename("a", "b").unwrap();
        let renamed = directory.open("b").unwrap();
        assert!(panics(|| drop(renamed.write_at(0, &[b"x"]))), "nor under another name");

        renamed.write_at(8, &[b"!"]).unwrap();
        file.publish(9);
        assert_eq!(view, &b"for ever"[..]);
        assert_eq!(file.view(0..9).unwrap(), &b"for ever!"[..]);
    });
}

#[test]
fn a_view_keeps_its_file_published_and_the_last_one_frees_it() {
    with_a_file(|directory, file| {
        file.write_at(0, &[b"old"]).unwrap();
        file.publish(3);
        let view = file.view(0..3).unwrap();
        let file = directory.open("a").unwrap();
        assert!(panics(|| drop(file.write_at(0, &[b"new"]))), "a view lives");
        drop((file, view));

        let file = directory.open("a").unwrap();
        file.write_at(0, &[b"new"]).unwrap();
        assert_eq!(bytes_of(&*file, 0, 3), b"new");
    });
}

#[test]
fn a_reader_sees_what_is_written_and_changes_nothing() {
    on_each_disk(|disk, path| {
        let directory = disk.open_directory(path, Access::Write).unwrap();
        let file = directory.create("a", 512).unwrap();
        let reader = disk.open_directory(path, Access::Read).unwrap();
        let seen = reader.open("a").unwrap();
        file.write_at(0, &[b"live"]).unwrap();

        assert_eq!(bytes_of(&*seen, 0, 4), b"live");
        assert_eq!(kind(seen.write_at(0, &[b"x"])), ErrorKind::PermissionDenied);
        assert!(panics(|| seen.publish(1)));
        assert_eq!(kind(reader.create("b", 8)), ErrorKind::PermissionDenied);
        assert_eq!(kind(reader.rename("a", "b")), ErrorKind::PermissionDenied);
        assert_eq!(kind(reader.remove("a")), ErrorKind::PermissionDenied);
        assert_eq!(names(&*reader), ["a"]);
        drop((directory, file));
        disk.open_directory(path, Access::Write).unwrap();
    });
}

#[test]
fn what_was_synced_is_there_for_the_next_opening() {
    on_each_disk(|disk, path| {
        let directory = disk.open_directory(path, Access::Write).unwrap();
        let file = directory.create("a", 512).unwrap();
        file.write_at(100, &[b"durable"]).unwrap();
        file.sync().unwrap();
        directory.sync().unwrap();
        drop((directory, file));

        let directory = disk.open_directory(path, Access::Write).unwrap();
        let file = directory.open("a").unwrap();
        assert_eq!(file.len(), 512);
        assert_eq!(bytes_of(&*file, 99, 9), b"\0durable\0");
        file.publish(107);
        assert_eq!(file.view(100..107).unwrap(), &b"durable"[..]);
    });
}

/// A link that leads nowhere would look like a name that is free, and what another one leads to is not ours.
#[test]
fn a_link_is_no_file_of_the_directory() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("elsewhere"), "somebody's").unwrap();
    for access in [Access::Write, Access::Read] {
        let directory = real().open_directory(&home.path().join("log"), access).unwrap();
        for (name, leads_to) in [("a", "nowhere"), ("b", "../elsewhere")] {
            // The second time it is there already.
            let _made = symlink(leads_to, home.path().join("log").join(name));
            assert_eq!(kind(directory.open(name)), ErrorKind::InvalidInput, "{name} {access:?}");
        }
        assert!(names(&*directory).is_empty());
    }
}

/// Nobody else would ever open it.
#[test]
fn a_pipe_is_no_file_of_the_directory_and_nobody_waits_at_it() {
    let home = tempfile::tempdir().unwrap();
    assert!(Command::new("mkfifo").arg(home.path().join("pipe")).status().unwrap().success());
    for access in [Access::Write, Access::Read] {
        let directory = real().open_directory(home.path(), access).unwrap();
        assert_eq!(kind(directory.open("pipe")), ErrorKind::InvalidInput, "{access:?}");
        assert!(names(&*directory).is_empty());
    }
}

#[test]
fn a_file_that_grows_is_read_like_any_other() {
    in_a_directory(|directory| {
        let mut file = directory.create_growing("a").unwrap();
        assert!(file.is_empty());
        assert_eq!(kind(directory.create_growing("a")), ErrorKind::AlreadyExists);
        file.append(&[b"one, ", b"", b"two"]).unwrap();
        file.sync().unwrap();
        file.append(&[&[7; 10_000]]).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len(), 10_008);
        let opened = directory.open("a").unwrap();
        assert_eq!(opened.len(), 10_008);
        assert_eq!(bytes_of(&*opened, 0, 9), b"one, two\x07");
        directory.rename("a", "b").unwrap();
        assert_eq!(directory.list().unwrap(), [("b".to_owned(), 10_008)]);
    });
}
