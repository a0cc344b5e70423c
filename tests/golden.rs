//! Logs as released versions of the format have left them: what is in `tests/fixtures` opens, and everything in it is there.
//!
//! `KONTIKI_FIXTURES=write cargo test --test golden` makes directories that are not there; those that are never change.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

#[path = "fixtures/made.rs"]
mod made;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Once,
};

use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_sim::session::{DIRECTORY, SEGMENT_BYTES};
use kontiki_wal::{
    LogId, OpenError, Wal,
    inspect::{Scan, Verdict},
};

/// First and last index, term of the entry before the first, runs of terms, state.
type Expected = (u32, u64, u64, u64, &'static [(u64, u64)], Option<&'static [u8]>);

/// What the log that was closed holds.
const CLOSED: [Expected; 4] = [
    (1, 17, 40, 2, &[(17, 2)], Some(b"voted for 2 in term 3")),
    (2, 1, 5, 0, &[(1, 1), (5, 3)], None),
    (3, 101, 102, 9, &[(101, 9)], None),
    (4, 1, 0, 0, &[], Some(b"only a state")),
];

/// What the log that was killed holds: one more group, which no sync had acknowledged.
const KILLED: [Expected; 4] =
    [CLOSED[0], (2, 1, 7, 0, &[(1, 1), (5, 3)], None), CLOSED[2], CLOSED[3]];

/// WAL-CASE 43
#[test]
fn a_log_of_version_1_that_was_closed_opens_and_all_of_it_is_there() {
    check("closed", &CLOSED);
    let scan = Scan::open(fixture("closed")).unwrap();
    assert!(matches!(scan.verdict(), Verdict::Whole { closed: true, .. }), "{:?}", scan.verdict());
}

/// WAL-CASE 43
#[test]
fn a_log_of_version_1_that_was_killed_opens_and_all_of_it_is_there() {
    check("killed", &KILLED);
    let scan = Scan::open(fixture("killed")).unwrap();
    assert!(matches!(scan.verdict(), Verdict::Whole { closed: false, .. }), "{:?}", scan.verdict());
}

/// What the constants above speak of is in the files: else they would show less than they seem to.
#[test]
fn the_golden_files_hold_sealed_segments_and_miss_a_freed_one() {
    for name in ["closed", "killed"] {
        let files = files(&fixture(name));
        let segments: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".wal")).collect();
        assert_ne!(segments[0].0, format!("{:016x}.wal", 1), "the first one was freed");
        let sealed = |bytes: &[u8]| bytes[bytes.len() - 4096..].starts_with(b"KTSEALED");
        let sealed = segments.iter().filter(|(_, bytes)| sealed(bytes)).count();
        assert!(sealed >= 2, "{name} has {sealed} sealed segments");
    }
}

/// WAL-CASE 43
#[test]
fn a_golden_file_of_a_later_version_or_with_an_unknown_needed_feature_is_refused_by_name() {
    let found = files(&fixture("closed"));
    let segments = found.iter().map(|(name, _)| name).filter(|name| name.ends_with(".wal"));
    for name in segments {
        let error = open_changed(name, 8, 2).unwrap_err();
        let OpenError::NewerFormat { segment, found: 2, supported: 1 } = &error else {
            panic!("{error}")
        };
        assert_eq!(segment, name);
        let error = open_changed(name, 12, 1 << 31).unwrap_err();
        let OpenError::UnknownFeatures { segment, found, supported: 0 } = &error else {
            panic!("{error}")
        };
        assert_eq!((segment, *found), (name, 1 << 31));
        open_changed(name, 16, 1 << 31).expect("a feature that is not needed for reading");
    }
}

/// Opens the log of `name` for reading, then a copy of it for writing, goes on in that, and opens it once more.
fn check(name: &str, expected: &[Expected]) {
    let fixture = fixture(name);
    let before = files(&fixture);
    let wal = Wal::open_read_only(&fixture).unwrap();
    assert_eq!(wal.damage(), []);
    check_logs(&wal, expected);
    assert_eq!(files(&fixture), before, "reading changes nothing");

    let copy = tempfile::tempdir().unwrap();
    for (name, bytes) in &before {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    let open = || Wal::options().segment_bytes(SEGMENT_BYTES).open(copy.path()).unwrap();
    let wal = open();
    check_logs(&wal, expected);
    let log = wal.log(LogId(9)).unwrap();
    log.push("one more").unwrap().1.wait().unwrap();
    wal.close().unwrap();
    drop((log, wal));
    let more: Expected = (9, 1, 1, 0, &[(1, 0)], None);
    check_logs_and(&open(), expected, Some(more));
}

fn check_logs(wal: &Wal, expected: &[Expected]) {
    check_logs_and(wal, expected, None);
}

fn check_logs_and(wal: &Wal, expected: &[Expected], more: Option<Expected>) {
    let ids = expected.iter().chain(&more).map(|expected| LogId(expected.0));
    assert_eq!(wal.logs(), ids.collect::<Vec<_>>());
    for &(id, first, last, term_before, runs, state) in expected {
        let log = wal.log(LogId(id)).unwrap();
        assert_eq!((log.first(), log.last()), (first, last), "log {id}");
        assert_eq!(log.term(first - 1), Some(term_before), "log {id}");
        assert_eq!(log.runs(), runs, "log {id}");
        assert_eq!(log.state().as_deref(), state, "log {id}");
        let mut next = first;
        for entry in log.read(first..last + 1, usize::MAX).map(Result::unwrap) {
            let run = runs.iter().rfind(|run| run.0 <= next).unwrap();
            assert_eq!((entry.index, entry.term), (next, run.1), "log {id}");
            assert_eq!(entry.bytes, made::entry(run.1, next), "log {id}, index {next}");
            next += 1;
        }
        assert_eq!(next, last + 1, "log {id}");
    }
}

/// Opens the closed log with a number in the header page of one segment changed and its checksum mended.
fn open_changed(changed: &str, at: usize, value: u32) -> Result<Wal, OpenError> {
    let disk = MemoryDisk::new();
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    for (name, mut bytes) in files(&fixture("closed")) {
        if name == changed {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let crc = crc32fast::hash(&bytes[..4092]);
            bytes[4092..4096].copy_from_slice(&crc.to_le_bytes());
        }
        let file = directory.create(&name, bytes.len() as u64).unwrap();
        file.write_at(0, &[&bytes]).unwrap();
    }
    drop(directory);
    let operations = disk.operations();
    let opened = kontiki_sim::session::open(&disk);
    assert!(opened.is_ok() || disk.operations() == operations, "a refused log is left alone");
    opened
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let file = |entry: fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
    };
    let mut files: Vec<(String, Vec<u8>)> = entries.map(file).collect();
    files.sort();
    files
}

fn fixture(name: &str) -> PathBuf {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(write_if_asked);
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1").join(name)
}

fn write_if_asked() {
    if std::env::var_os("KONTIKI_FIXTURES").is_none_or(|value| value != "write") {
        return;
    }
    let wanted = |(name, _): &(String, MemoryDisk)| name == "closed" || name == "killed";
    for (name, disk) in made::disks().into_iter().filter(wanted) {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
        let target = fixtures.join(name);
        if target.exists() {
            continue;
        }
        fs::create_dir_all(&target).unwrap();
        let directory = disk.open_directory(Path::new(DIRECTORY), Access::Read).unwrap();
        for (name, _) in directory.list().unwrap() {
            let bytes = disk.contents(Path::new(DIRECTORY).join(&name)).unwrap();
            fs::write(target.join(name), bytes).unwrap();
        }
    }
}
