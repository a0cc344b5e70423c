//! `repair`: where it writes, whose that is, and what is left of what failed.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::geteuid,
};

use crate::{
    repair::{CUT, Damaged, damaged, repair, salvage},
    support::{Run, files, options, program_for_anybody, verify},
};

/// WAL-CASE 42: what looks like another place can be the log's own.
#[test]
fn nothing_is_salvaged_through_a_link_into_the_log() {
    let log = damaged();
    let before = files(&log.log());
    fs::create_dir(log.beside("real")).unwrap();
    symlink(log.log(), log.beside("link")).unwrap();
    symlink(log.beside("link"), log.beside("real/further")).unwrap();
    for new in ["link/new", "link/below/new", "real/further/new", "real/../link/new"] {
        let run = salvage(&log.log(), &log.beside(new));
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{new}: {run:?}");
        assert!(run.stderr.contains("which is to be left alone"), "{new}: {run:?}");
        assert_eq!(files(&log.log()), before, "{new}");
    }
    // Of the log, too, another name can be given.
    let run = salvage(&log.beside("link"), &log.log().join("new"));
    assert!(run.stderr.contains("which is to be left alone"), "{run:?}");
    symlink(log.beside("nowhere"), log.beside("dangling")).unwrap();
    let run = salvage(&log.log(), &log.beside("dangling"));
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    assert!(run.stderr.contains("a symbolic link to what is not there"), "{run:?}");

    symlink(log.beside("real"), log.beside("elsewhere")).unwrap();
    let run = salvage(&log.log(), &log.beside("elsewhere/new"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!(verify(&log.beside("real/new")).code, Some(0));
}

/// A run that may write no file of more than 4 KiB.
fn with_little_room(arguments: &[&str]) -> Run {
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_wal-inspect")])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// WAL-CASE 42
#[test]
fn of_a_backup_or_a_salvage_that_fails_nothing_is_left_and_the_log_is_unchanged() {
    let log = damaged();
    let before = files(&log.log());
    let (directory, new) = (log.log(), log.beside("new"));
    let (directory, new) = (directory.to_str().unwrap(), new.to_str().unwrap());
    for way in [&["--truncate-tail", "--yes"][..], &["--salvage", new]] {
        let run = with_little_room(&[&["repair", directory], way].concat());
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
        assert!(run.stderr.contains("; nothing is changed"), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        let after = files(&log.log());
        // Whoever holds the lock writes its number there.
        let mut segments = before.iter().filter(|(name, _)| name.ends_with(".wal"));
        assert!(segments.all(|(name, bytes)| after[name] == *bytes), "{run:?}");
        assert_eq!(log.names(), ["log"], "{run:?}");
    }
    assert_eq!(repair(&log.log(), CUT).code, Some(0));
    assert_eq!(log.names(), ["log", "log.backup-1"]);
}

/// WAL-CASE 42: another salvage can be under way there.
#[test]
fn a_place_that_somebody_else_works_in_is_left_alone() {
    let log = damaged();
    let unfinished = log.beside("new.unfinished");
    fs::create_dir(&unfinished).unwrap();
    let lock = File::create(unfinished.join("LOCK")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let run = salvage(&log.log(), &log.beside("new"));
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    let line = format!("{} is in use by another", unfinished.display());
    assert!(run.stderr.contains(&line) && !run.stderr.contains("remove"), "{run:?}");
    assert!(unfinished.join("LOCK").exists());
}

/// WAL-CASE 42: a mark can be left of a cut that was stopped, or of one that was not begun.
#[test]
fn while_a_mark_keeps_the_log_from_being_opened_every_error_says_so() {
    let log = damaged();
    fs::write(log.log().join("REPAIR"), "Kontiki repair: cutting\n").unwrap();
    let run = with_little_room(&["repair", log.log().to_str().unwrap(), CUT[0], CUT[1]]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    let is_said = "the log is not opened before it is: do it again\n";
    assert!(run.stderr.ends_with(is_said), "{run:?}");
    assert_eq!(log.names(), ["log"], "{run:?}");
    options().open(log.log()).map(drop).unwrap_err();
}

/// WAL-CASE 42: with a command that every system has.
#[test]
fn a_backup_can_be_checked_with_cksum() {
    let log = damaged();
    assert_eq!(repair(&log.log(), CUT).code, Some(0));
    let backup = log.beside("log.backup-1");
    let list = fs::read_to_string(backup.join("BACKUP.txt")).unwrap();
    let output = Command::new("sh").args(["-c", "cksum *.wal"]).current_dir(&backup).output();
    let printed = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(printed.lines().count() > 0 && list.ends_with(&printed), "{list}\n{printed}");
    assert!(!list.contains("LOCK") && list.contains("remove REPAIR"), "{list}");
}

fn owners(directory: &Path) -> Vec<(String, u32, u32)> {
    let files = fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    let of = |path: &Path| {
        let metadata = fs::metadata(path).unwrap();
        (path.display().to_string(), metadata.uid(), metadata.gid())
    };
    files.chain([directory.to_owned()]).map(|path| of(&path)).collect()
}

/// A log whose directory and files are of nobody that this test is.
fn of_somebody() -> Damaged {
    let log = damaged();
    for (path, ..) in owners(&log.log()) {
        chown(path, Some(SOMEBODY), Some(GROUP)).unwrap();
    }
    log
}

const SOMEBODY: u32 = 54_321;
const GROUP: u32 = 54_322;

fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        println!("skipped: only root can give files away");
    }
    is_root
}

/// WAL-CASE 42: whoever repairs as root does not lock the log's writer out.
#[test]
fn what_is_made_belongs_to_those_who_own_the_log() {
    if !is_root() {
        return;
    }
    let log = of_somebody();
    let new = log.beside("new");
    for run in [salvage(&log.log(), &new), repair(&log.log(), CUT)] {
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    }
    for directory in [log.log(), log.beside("log.backup-1"), new] {
        let owners = owners(&directory);
        assert!(owners.len() >= 3, "{owners:?}");
        let wrong: Vec<_> =
            owners.iter().filter(|(_, user, group)| (*user, *group) != (SOMEBODY, GROUP)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    assert!(log.log().join("REPAIR").exists());
}

/// WAL-CASE 42
#[test]
fn what_may_not_be_given_away_is_told() {
    if !is_root() {
        return;
    }
    let log = of_somebody();
    let room = log.beside("");
    for (path, ..) in owners(&log.log()).into_iter().chain([(room.display().to_string(), 0, 0)]) {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    let (code, told) = as_another(&["repair", log.log().to_str().unwrap(), CUT[0], CUT[1]]);
    assert_eq!(code, Some(0), "{told}");
    for made in ["log/REPAIR", "log.backup-1", "log.backup-1/BACKUP.txt"] {
        let is_it = format!("wal-inspect: {} is not {SOMEBODY}:", log.beside(made).display());
        let mut lines = told.lines().filter(|line| line.starts_with(&is_it));
        assert!(lines.all(|line| line.ends_with("; chown it")) && told.contains(&is_it), "{told}");
    }
}

/// Runs `wal-inspect` as a user to whom nothing belongs; its exit code, and what it says on standard error.
fn as_another(arguments: &[&str]) -> (Option<i32>, String) {
    let (_place, program) = program_for_anybody();
    let mut run = Command::new(&program);
    run.args(arguments).current_dir("/").stdin(Stdio::null());
    let output = run.uid(SOMEBODY + 1).gid(GROUP).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// What was asked for can be far below what is there, and only of that somebody can change the permission.
#[test]
fn what_may_not_be_searched_or_written_is_named_as_far_as_it_is_there() {
    if !is_root() {
        return;
    }
    let log = damaged();
    let open = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    open(&log.beside(""), 0o755);
    let closed = log.beside("closed");
    fs::create_dir_all(closed.join("wal")).unwrap();
    open(&closed, 0o700);
    let (code, told) = as_another(&["verify", closed.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains(&format!("{}: Permission denied", closed.display())), "{told}");

    open(&log.log(), 0o755);
    for path in owners(&log.log()) {
        open(Path::new(&path.0), 0o755);
    }
    let new = log.beside("far/below");
    let (code, told) =
        as_another(&["repair", log.log().to_str().unwrap(), "--salvage", new.to_str().unwrap()]);
    assert_eq!(code, Some(3), "{told}");
    let room = fs::canonicalize(log.beside("")).unwrap();
    assert!(told.contains(&format!("nothing may be made in {}", room.display())), "{told}");
}
