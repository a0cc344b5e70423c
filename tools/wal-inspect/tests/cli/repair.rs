//! `repair`: what it says, what it does when it is told to, and what it leaves alone.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use kontiki_core::{HardState, NodeId, State, Term};
use kontiki_wal::{
    LogId, Wal,
    inspect::{Frame, FrameKind, Scan},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, Run, append, assert_golden, closed_log, copy_of, crashed_log, dump, fields,
    files, flip_bit, is_told, options, verify, wal_inspect,
};

pub(crate) fn repair<A: AsRef<OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Run {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
    let command = ["repair".into(), directory.as_os_str().to_owned()];
    wal_inspect(command.into_iter().chain(arguments))
}

pub(crate) const NONE: [&str; 0] = [];
pub(crate) const NOTHING_TO_REPAIR: &str = "\
nothing to repair: nothing that the log says was durable is damaged, as far as verify tells; what
contradicts itself is not looked for, and not mended: verify --deep finds it, and says what to do
";
pub(crate) const CUT: [&str; 2] = ["--truncate-tail", "--yes"];

pub(crate) fn salvage(directory: &Path, new: &Path) -> Run {
    repair(directory, [OsStr::new("--salvage"), new.as_os_str()])
}

/// A directory with a log in it, and room beside that.
pub(crate) struct Damaged {
    room: TempDir,
}

impl Damaged {
    pub(crate) fn of(log: &Path) -> Self {
        let room = TempDir::new().unwrap();
        fs::rename(copy_of(log).keep(), room.path().join("log")).unwrap();
        Self { room }
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.room.path().join("log")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    /// Damages the body of the last frame that is meant.
    pub(crate) fn flip(&self, is_it: impl Fn(&Frame) -> bool) -> Frame {
        let scan = Scan::open(self.log()).unwrap();
        let frame = scan.frames().map(Result::unwrap).filter(is_it).last().unwrap();
        flip_bit(&self.log(), &frame, HEADER_BYTES + 5);
        frame
    }

    /// What is beside the log, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.room.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

pub(crate) fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1/closed")
}

/// Fifteen entries in two frames, the last of them damaged.
pub(crate) fn damaged() -> Damaged {
    let damaged = Damaged::of(closed_log().path());
    damaged.flip(|frame| frame.kind == FrameKind::Entries);
    damaged
}

/// The log of a Raft node that has voted twice, and the newer vote is damaged.
fn damaged_node() -> Damaged {
    let writing = TempDir::new().unwrap();
    let wal = options().open(writing.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let state = |term, vote| {
        let hard = HardState { term: Term(term), vote: Some(NodeId(vote)) };
        State { hard, ..State::default() }.encode()
    };
    log.set_state(state(3, 1)).unwrap().wait().unwrap();
    append(&log, 3, 10);
    log.set_state(state(4, 2)).unwrap().wait().unwrap();
    append(&log, 4, 5);
    append(&wal.log(LogId(2)).unwrap(), 1, 1);
    wal.close().unwrap();
    let damaged = Damaged::of(writing.path());
    damaged.flip(|frame| frame.kind == FrameKind::State);
    damaged
}

/// The log of a Raft node that has voted once, and the header of that frame is damaged.
pub(crate) fn young_node(owner: [u8; 32]) -> Damaged {
    let writing = TempDir::new().unwrap();
    let wal = options().owner(owner).open(writing.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    let hard = HardState { term: Term(3), vote: Some(NodeId(1)) };
    let state = State { hard, ..State::default() }.encode();
    log.set_state(state).unwrap().wait().unwrap();
    append(&log, 3, 10);
    wal.close().unwrap();
    let damaged = Damaged::of(writing.path());
    let scan = Scan::open(damaged.log()).unwrap();
    let first = scan.frames().map(Result::unwrap).find(|frame| frame.kind == FrameKind::State);
    flip_bit(&damaged.log(), &first.unwrap(), 20);
    damaged
}

/// WAL-CASE 42: the dry run, which changes nothing.
#[test]
fn what_can_be_done_is_told_as_it_always_was() {
    let mut printed = String::new();
    let cases = [
        ("entries of the newest segment", Damaged::of(&fixture()), 38864),
        ("entries before segments that were freed", Damaged::of(&fixture()), 20760),
    ];
    for (what, damaged, lsn) in &cases {
        damaged.flip(|frame| frame.lsn.0 == *lsn);
        print(&mut printed, what, damaged);
    }
    let header = Damaged::of(&fixture());
    let name = header.log().join("0000000000000005.wal");
    let mut bytes = fs::read(&name).unwrap();
    bytes[100] ^= 1;
    fs::write(&name, bytes).unwrap();
    print(&mut printed, "a header page", &header);
    print(&mut printed, "the vote of a node", &damaged_node());
    assert_golden("repair.txt", &printed);
}

fn print(printed: &mut String, what: &str, damaged: &Damaged) {
    let before = files(&damaged.log());
    for flags in [&[][..], &["--json"]] {
        let run = repair(&damaged.log(), flags);
        assert_eq!((run.code, run.stderr.as_str()), (Some(2), ""), "{what}: {run:?}");
        let shown = run.stdout.replace(damaged.room.path().to_str().unwrap(), "ROOM");
        let line = ["wal-inspect", "repair", "ROOM/log"].iter().chain(flags);
        let line = line.copied().collect::<Vec<_>>().join(" ");
        printed.push_str(&format!("$ {line}  # {what}\n{shown}\n"));
    }
    assert_eq!(files(&damaged.log()), before, "{what}: a dry run changes nothing");
    assert_eq!(damaged.names(), ["log"], "{what}: a dry run makes nothing");
}

/// WAL-CASE 42
#[test]
fn a_cut_leaves_a_whole_log_and_a_backup_and_is_done_once() {
    let damaged = Damaged::of(closed_log().path());
    let frame = damaged.flip(|frame| frame.kind == FrameKind::Entries);
    let before = files(&damaged.log());
    let run = repair(&damaged.log(), CUT);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    let place = format!("cut in place at segment {} offset {} ", frame.file, frame.offset);
    assert!(run.stdout.starts_with(&place), "{run:?}");
    let loss = "  log 7: keeps index 1..=10 term 3; LOSES index 11..=15 term 4\n";
    assert!(run.stdout.ends_with(loss), "{run:?}");

    let run = verify(&damaged.log());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains(" 10 entries, "), "{run:?}");
    let backup = files(&damaged.beside("log.backup-1"));
    assert_eq!(backup[&frame.file], before[&frame.file]);
    let list = String::from_utf8(backup["BACKUP.txt"].clone()).unwrap();
    assert!(list.contains(&frame.file), "{list}");

    let after = files(&damaged.log());
    let run = repair(&damaged.log(), CUT);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.ends_with(NOTHING_TO_REPAIR), "{run:?}");
    assert_eq!(files(&damaged.log())[&frame.file], after[&frame.file]);
    assert_eq!(damaged.names(), ["log", "log.backup-1"], "no second backup");
    let wal = options().open(damaged.log()).unwrap();
    append(&wal.log(LogId(7)).unwrap(), 9, 1);
}

/// WAL-CASE 42
#[test]
fn a_backup_and_what_is_salvaged_can_be_read_by_nobody_who_could_not_read_the_log() {
    let damaged = damaged();
    fs::set_permissions(damaged.log(), Permissions::from_mode(0o700)).unwrap();
    assert_eq!(salvage(&damaged.log(), &damaged.beside("new")).code, Some(0));
    assert_eq!(repair(&damaged.log(), CUT).code, Some(0));
    for made in ["new", "log.backup-1"] {
        let files = fs::read_dir(damaged.beside(made)).unwrap().map(|file| file.unwrap().path());
        for path in files.chain([damaged.beside(made)]) {
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}", path.display());
        }
    }
}

#[test]
fn what_is_salvaged_is_a_whole_log_of_all_that_can_be_read_in_order() {
    let damaged = Damaged::of(&fixture());
    damaged.flip(|frame| frame.lsn.0 == 20760);
    let before = files(&damaged.log());
    let was = wal_inspect(["dump", fixture().to_str().unwrap(), "--kind", "entries", "--log", "2"]);
    // The data directory of a node, as it could be started from it.
    let new = damaged.beside("node/wal");
    let run = salvage(&damaged.log(), &new);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.stdout.starts_with(&format!("salvaged into {}:\n", new.display())), "{run:?}");
    assert_eq!(files(&damaged.log()), before, "the damaged log is left alone");
    assert_eq!(damaged.names(), ["log", "node"]);
    assert_eq!(fs::read_dir(damaged.beside("node")).unwrap().count(), 1, "nothing is left over");

    let run = verify(&damaged.beside("node"));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.lines().next().unwrap().ends_with(", closed"), "{run:?}");
    let run = dump(&new, &["--kind", "entries", "--log", "1"]);
    assert!(run.stdout.contains("index 17 ") && !run.stdout.contains("index 18 "), "{run:?}");
    let payloads = |run: &Run| {
        let lines = run.stdout.lines().filter(|line| line.starts_with("  index"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let found = payloads(&dump(&new, &["--log", "2", "--kind", "entries"]));
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|line| payloads(&was).contains(line)), "{found:?} {was:?}");
}

/// WAL-CASE 42
#[test]
fn nothing_is_salvaged_into_what_is_in_use_or_into_the_log_itself() {
    let damaged = damaged();
    let before = files(&damaged.log());
    let full = damaged.beside("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    let half = damaged.beside("half.unfinished");
    fs::create_dir(&half).unwrap();
    fs::write(half.join("0000000000000001.wal"), "half").unwrap();
    for (new, says) in [
        (full.clone(), "is not empty"),
        (damaged.beside("half"), "half.unfinished is not empty"),
        (damaged.log(), "which is to be left alone"),
        (damaged.log().join("below"), "which is to be left alone"),
    ] {
        let run = salvage(&damaged.log(), &new);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{new:?}: {run:?}");
        assert!(run.stderr.contains(says), "{new:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    assert_eq!(files(&damaged.log()), before);
    assert_eq!(files(&full).len(), 1);
    // An empty one will do.
    let empty = damaged.beside("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(salvage(&damaged.log(), &empty).code, Some(0));
    assert_eq!(verify(&empty).code, Some(0));
}

/// WAL-CASE 42, WAL-CASE 40
#[test]
fn a_log_that_has_a_writer_is_not_repaired() {
    let damaged = damaged();
    let other = closed_log();
    // Its lock is what counts, not what is in it.
    let writer = Wal::options().open(other.path()).unwrap();
    let before = files(other.path());
    let new = damaged.beside("new");
    let runs = [repair(other.path(), NONE), repair(other.path(), CUT), salvage(other.path(), &new)];
    for run in runs {
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
        let holder = format!("is in use by process {}; stop it first", std::process::id());
        assert!(run.stderr.contains(&holder), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
    }
    assert_eq!(files(other.path()), before);
    assert!(!new.exists());
    drop(writer);
}

#[test]
fn a_log_without_damage_needs_no_repair() {
    let torn = Damaged::of(crashed_log().path());
    torn.flip(|frame| frame.kind == FrameKind::Entries);
    for log in [Damaged::of(closed_log().path()), torn] {
        let mut before = files(&log.log());
        let run = repair(&log.log(), NONE);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        assert!(run.stdout == NOTHING_TO_REPAIR, "{run:?}");
        assert_eq!(repair(&log.log(), CUT).stdout, run.stdout);
        let mut after = files(&log.log());
        // Whoever asks for the lock leaves its number in it.
        before.remove("LOCK");
        after.remove("LOCK");
        assert_eq!(after, before, "nothing was changed");
        assert_eq!(log.names(), ["log"]);
    }
}

#[test]
fn what_is_no_log_is_not_repaired_and_not_made() {
    let room = TempDir::new().unwrap();
    for directory in [room.path().join("missing"), room.path().to_owned()] {
        for run in [
            repair(&directory, NONE),
            repair(&directory, CUT),
            salvage(&directory, &room.path().join("new")),
        ] {
            assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
            assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        }
    }
    assert_eq!(fs::read_dir(room.path()).unwrap().count(), 0);
}

/// WAL-CASE 42, WAL-CASE 35
#[test]
fn a_node_that_has_lost_its_vote_is_told_not_to_be_started() {
    let node = damaged_node();
    for run in [repair(&node.log(), NONE), salvage(&node.log(), &node.beside("new"))] {
        assert!(
            run.stdout.contains("; ITS STATE FALLS BACK TO AN OLDER ONE; raft term 3 vote 1\n")
        );
        assert!(run.stdout.contains("\nDANGER: "), "{run:?}");
    }
    let run = repair(&node.log(), ["--json"]);
    let rows: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let logs = rows.iter().filter(|row| row["row"] == "log" && row["way"] == "salvage");
    let dangerous: Vec<_> = logs.map(|row| (&row["log"], &row["dangerous"])).collect();
    assert_eq!(dangerous, [(&1.into(), &true.into()), (&2.into(), &false.into())]);
    let run = repair(&damaged().log(), NONE);
    assert!(!run.stdout.contains("DANGER"), "no node's: {run:?}");
}

/// WAL-CASE 42, WAL-CASE 35: nothing but the owner's bytes tells that it is a node's.
#[test]
fn a_young_node_that_has_lost_its_only_state_is_told_not_to_be_started() {
    for (owner, is_dangerous) in [([1; 32], true), ([0; 32], false)] {
        let node = young_node(owner);
        let run = repair(&node.log(), NONE);
        assert!(run.stdout.contains("; ITS STATE IS LOST"), "{run:?}");
        assert_eq!(run.stdout.contains("\nDANGER: "), is_dangerous, "{run:?}");
        let run = repair(&node.log(), ["--json"]);
        let told = format!("\"dangerous\":{is_dangerous}");
        let rows: Vec<&str> =
            run.stdout.lines().filter(|row| row.contains("\"dangerous\"")).collect();
        assert!(rows.len() == 2 && rows.iter().all(|row| row.contains(&told)), "{run:?}");
    }
}

/// WAL-CASE 42: what was done is told as fully as what would be.
#[test]
fn that_more_may_be_lost_is_told_of_what_was_done_too() {
    let (log, other) = (young_node([1; 32]), young_node([1; 32]));
    let unknown = "unknown: the log went on behind what can be told: more may be lost\n";
    for run in [salvage(&log.log(), &log.beside("new")), repair(&other.log(), CUT)] {
        assert!(run.stdout.starts_with(unknown), "{run:?}");
    }
}

/// WAL-CASE 42: a cut that goes on with one that was stopped copies files that are half cut.
#[test]
fn a_backup_names_the_older_ones_that_were_finished() {
    let damaged = damaged();
    for (older, list) in [("log.backup-1", "Segments of it\n"), ("log.backup-2", "")] {
        fs::create_dir(damaged.beside(older)).unwrap();
        fs::write(damaged.beside(older).join("BACKUP.txt"), list).unwrap();
    }
    assert_eq!(repair(&damaged.log(), CUT).code, Some(0));
    let list = fs::read_to_string(damaged.beside("log.backup-3/BACKUP.txt")).unwrap();
    assert!(list.contains("log.backup-1") && !list.contains("log.backup-2"), "{list}");
}

#[test]
fn every_field_of_its_json_is_told_of_in_the_help() {
    let is_told = |word: &str| is_told("repair", word);
    let node = damaged_node();
    let mut printed = repair(&node.log(), ["--json"]).stdout;
    let new = node.beside("new");
    let flags = ["--json".as_ref(), OsStr::new("--salvage"), new.as_os_str()];
    printed.push_str(&repair(&node.log(), flags).stdout);
    printed.push_str(&repair(&node.log(), ["--truncate-tail", "--yes", "--json"]).stdout);
    printed.push_str(&repair(&node.log(), ["--json"]).stdout);
    assert!(printed.lines().count() > 8, "{printed}");
    for field in fields(&printed) {
        assert!(is_told(&field), "repair --help says nothing of {field}");
    }
    for line in printed.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        assert!(is_told(row["row"].as_str().unwrap()), "{row}");
        assert!(row["state"].as_str().is_none_or(is_told), "{row}");
    }
}
