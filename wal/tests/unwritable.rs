//! Where nothing may be written: on a file system that is mounted read-only, and in a directory of somebody else's.
//! Reading works; opening for writing says what is wrong and makes no file.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod support;

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, ErrorKind, Write},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kontiki_wal::{LogId, OpenError, Wal, inspect::Scan};

use support::mode;

const ENTRIES: u64 = 40;

/// A closed log of several segments, and one that was killed, whose opening would write; neither has a lock yet.
fn write_logs(parent: &Path) {
    for (name, closes) in [("closed", true), ("killed", false)] {
        let writing = parent.join("writing");
        let wal = Wal::options()
            .segment_bytes(16 << 10)
            .write_mode(mode())
            .without_threads()
            .open(&writing)
            .unwrap();
        let log = wal.log(LogId(1)).unwrap();
        for number in 1..=ENTRIES {
            log.push(format!("{number} {}", "x".repeat(1000))).unwrap().1.wait().unwrap();
            wal.work(Duration::ZERO);
        }
        if closes {
            wal.close().unwrap();
        }
        fs::create_dir(parent.join(name)).unwrap();
        for (file, bytes) in contents(&writing) {
            fs::write(parent.join(name).join(file.file_name().unwrap()), bytes).unwrap();
        }
        drop((log, wal));
        fs::remove_dir_all(&writing).unwrap();
        fs::remove_file(parent.join(name).join("LOCK")).unwrap();
    }
}

/// All that the two sorts of places have in common.
fn check(parent: &Path, expected: ErrorKind) {
    let before = contents(parent);
    for name in ["closed", "killed"] {
        let path = parent.join(name);
        let wal = Wal::open_read_only(&path).unwrap();
        assert_eq!(wal.damage(), []);
        let log = wal.log(LogId(1)).unwrap();
        let read = log.read(1..ENTRIES + 1, usize::MAX).map(|entry| entry.unwrap().index);
        assert!(read.eq(1..=ENTRIES), "{name}");
        let scan = Scan::open(&path).unwrap();
        assert!(scan.frames().all(|frame| frame.unwrap().body.is_ok()) && !scan.is_live());
    }
    for name in ["closed", "killed", "new", "new/deep"] {
        let error =
            Wal::options().write_mode(mode()).open(parent.join(name)).map(drop).unwrap_err();
        let OpenError::Io { source, .. } = &error else { panic!("{name}: {error:?}") };
        assert_eq!(source.kind(), expected, "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    assert_eq!(contents(parent), before, "no file was made or changed");
}

/// Every file below a directory, with its bytes.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut contents = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents.extend(self::contents(&path));
            contents.insert(path, Vec::new());
        } else {
            let bytes = fs::read(&path).unwrap();
            contents.insert(path, bytes);
        }
    }
    contents
}

/// A file system of its own; unmounted also when the test panics.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = succeed(Command::new("umount").arg("-l").arg(self.0)) {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// Said to standard error itself: the harness keeps what a passing test prints.
fn skip(what: &str) {
    io::stderr().write_all(format!("skipped: {what}\n").as_bytes()).unwrap();
}

/// WAL-CASE 49
#[test]
fn a_log_on_a_read_only_file_system_is_read_and_not_opened_for_writing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    if let Err(error) = succeed(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(path)) {
        return skip(&format!("a read-only file system: it cannot be mounted ({error})"));
    }
    let _mounted = Mounted(path);
    write_logs(path);
    succeed(Command::new("mount").args(["-o", "remount,ro"]).arg(path)).unwrap();
    check(path, ErrorKind::ReadOnlyFilesystem);
}

/// WAL-CASE 49
#[test]
fn a_log_in_a_directory_of_somebody_else_is_read_and_not_opened_for_writing() {
    const PLACE: &str = "KONTIKI_TEST_MAY_NOT_WRITE_TO";
    if let Some(path) = env::var_os(PLACE) {
        return check(Path::new(&path), ErrorKind::PermissionDenied);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    write_logs(path);
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let all: Vec<PathBuf> = contents(path).into_keys().chain([path.to_owned()]).collect();
    for path in &all {
        mode(path, if path.is_dir() { 0o555 } else { 0o444 });
    }
    // Whom modes do not bind becomes nobody for this.
    if fs::write(path.join("probe"), "").is_ok() {
        fs::remove_file(path.join("probe")).unwrap();
        let test = "a_log_in_a_directory_of_somebody_else_is_read_and_not_opened_for_writing";
        let mut nobody = Command::new(env::current_exe().unwrap());
        nobody.args(["--exact", test, "--nocapture"]).env(PLACE, path).uid(65_534).gid(65_534);
        match nobody.output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
            }
            Err(error) => skip(&format!("a directory of somebody else: {error}")),
        }
    } else {
        check(path, ErrorKind::PermissionDenied);
    }
    for path in all.iter().filter(|path| path.is_dir()) {
        mode(path, 0o755);
    }
}
