//! `probe`: what it tells of a place, and that it leaves nothing there.

use std::{
    ffi::OsStr,
    fs::{self, DirEntry, Permissions},
    io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Run, append, command, files, options, program_for_anybody, wal_inspect};

/// A short one, with small segments.
const SHORT: [&str; 3] = ["probe", "--seconds=1", "--segment-bytes=4194304"];

pub(crate) fn probe(directory: &Path, arguments: &[&str]) -> Run {
    let arguments = SHORT.iter().chain(arguments).map(OsStr::new);
    wal_inspect(arguments.chain([directory.as_os_str()]))
}

fn rows(run: &Run) -> Vec<Value> {
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Those that say they are this.
fn named<'a>(rows: &'a [Value], name: &str) -> Vec<&'a Value> {
    rows.iter().filter(|row| row["row"] == name).collect()
}

#[test]
fn every_way_and_size_is_measured_and_one_is_chosen() {
    let directory = TempDir::new().unwrap();
    let rows = rows(&probe(directory.path(), &["--json"]));
    let shown = fs::canonicalize(directory.path()).unwrap();
    let [place] = named(&rows, "place")[..] else { panic!("{rows:?}") };
    assert_eq!(place["directory"], shown.to_str().unwrap());
    assert!(place["free_bytes"].as_u64().unwrap() > 0, "{place}");

    let measured = named(&rows, "measured");
    let cells: Vec<_> = measured
        .iter()
        .map(|row| (row["bytes"].as_u64().unwrap(), row["way"].as_str().unwrap()))
        .collect();
    let expected: Vec<_> = [512, 4096, 65_536, 1 << 20]
        .into_iter()
        .flat_map(|bytes| ["growing", "positional", "mapped"].map(|way| (bytes, way)))
        .collect();
    assert_eq!(cells, expected);
    for row in measured {
        let number = |field: &str| row[field].as_f64().unwrap();
        assert!(number("syncs") >= 1.0 && number("p50_us") > 0.0, "{row}");
        assert!(number("p50_us") <= number("p99_us"), "{row}");
        assert!(number("p99_us") <= number("max_us"), "{row}");
        // All of it is known of one sync, and the rate is that of its time.
        if number("syncs") == 1.0 {
            assert!(
                (number("syncs_per_second") * number("max_us") / 1e6 - 1.0).abs() < 0.1,
                "{row}"
            );
        }
    }
    let [choice] = named(&rows, "choice")[..] else { panic!("{rows:?}") };
    assert_eq!(choice["write_mode"], "positional");
    assert_eq!(choice["reasons"].as_array().unwrap().len(), 2);
    assert_eq!(files(directory.path()).len(), 0, "nothing is left");
}

#[test]
fn a_log_that_is_in_use_is_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(kontiki_wal::LogId(7)).unwrap();
    append(&log, 1, 10);
    let before = files(directory.path());
    assert_eq!(probe(directory.path(), &["--json"]).code, Some(0));
    assert_eq!(files(directory.path()), before);
    append(&log, 1, 10);
    wal.close().unwrap();
}

/// At whatever moment it comes: before anything was measured there is nothing to tell.
#[test]
fn a_signal_ends_it_and_leaves_no_file() {
    for (signal, file) in [(Signal::INT, ""), (Signal::TERM, "mapped/0000000000000001.wal")] {
        let directory = TempDir::new().unwrap();
        let begun = Instant::now();
        let mut child = command()
            .args(["probe", "--seconds=60", "--json", "--segment-bytes=4194304"])
            .arg(directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Once its directory is there it is at work, and once the last segment is, it measures.
        let is_there = |own: io::Result<DirEntry>| own.unwrap().path().join(file).exists();
        while !fs::read_dir(directory.path()).unwrap().any(is_there) {
            assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
            thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(50), "it ended by itself");
        let told = String::from_utf8(output.stdout).unwrap();
        let remarks = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => assert!(told.contains("\"row\":\"choice\"") && remarks.is_empty()),
            Some(3) => assert!(told.is_empty() && remarks.contains("stopped before everything")),
            other => panic!("{other:?}: {remarks}"),
        }
        assert!(fs::read_dir(directory.path()).unwrap().next().is_none(), "something is left");
    }
}

/// A probe holds a lock on its directory; who is killed holds none any more.
#[test]
fn what_a_killed_probe_has_left_is_told_and_removed_if_that_is_asked_for() {
    let directory = TempDir::new().unwrap();
    let left = directory.path().join("kontiki-probe-left");
    fs::create_dir_all(left.join("mapped")).unwrap();
    fs::write(left.join("mapped/segment"), vec![0; 3 << 20]).unwrap();
    let used = directory.path().join("kontiki-probe-used");
    fs::create_dir(&used).unwrap();
    let user = fs::File::open(&used).unwrap();
    flock(&user, FlockOperation::NonBlockingLockExclusive).unwrap();
    fs::write(directory.path().join("kontiki-probe-notes"), "of somebody").unwrap();

    let told = rows(&probe(directory.path(), &["--json"]));
    let warned: Vec<&str> =
        named(&told, "warning").iter().map(|row| row["warning"].as_str().unwrap()).collect();
    let line = format!(
        "{}, 3 MiB, was left by a probe that was killed: probe --clean removes it",
        left.display()
    );
    assert!(warned.contains(&line.as_str()) && left.exists(), "{warned:?}");
    assert!(warned.iter().all(|line| !line.contains("-used") && !line.contains("-notes")));

    let run = probe(directory.path(), &["--json", "--clean"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let removed = format!("wal-inspect: {}, 3 MiB, was left by", left.display());
    assert!(
        run.stderr.starts_with(&removed) && run.stderr.ends_with(", and is removed\n"),
        "{run:?}"
    );
    assert!(!run.stdout.contains("--clean"), "{run:?}");
    assert!(!left.exists() && used.exists());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn where_it_cannot_measure_it_says_so_in_a_line_and_ends_with_3() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, what) in
        [(directory.path().join("absent"), "No such file or directory"), (file, "Not a directory")]
    {
        let run = probe(&path, &[]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
        let begin = format!("wal-inspect: cannot measure in {}: {what}", path.display());
        assert!(run.stderr.starts_with(&begin), "{run:?}");
    }
}

#[test]
fn a_directory_that_may_not_be_written_is_told_in_a_line_with_3() {
    let directory = TempDir::new().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o555)).unwrap();
    // Whom modes do not bind becomes nobody for this.
    let (_place, program) = program_for_anybody();
    let mut probe = Command::new(&program);
    probe.args(SHORT).arg(directory.path());
    if rustix::process::geteuid().is_root() {
        probe.uid(65_534).gid(65_534);
    }
    let output = probe.output().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.lines().count() == 1 && told.contains("Permission denied"), "{told}");
}

/// Where memory is mounted, as on most Linux systems.
#[test]
fn a_directory_in_memory_is_warned_of() {
    let Ok(directory) = TempDir::new_in("/dev/shm") else {
        eprintln!("skipped: no /dev/shm to write to");
        return;
    };
    let rows = rows(&probe(directory.path(), &["--json"]));
    assert_eq!(named(&rows, "place")[0]["file_system"], "tmpfs");
    let warned = named(&rows, "warning");
    assert!(warned.iter().any(|row| row["warning"].as_str().unwrap().contains("which is memory")));
}

/// In a file system of its own, of 12 MiB, where the system lets a test mount one.
#[test]
fn where_there_is_no_room_for_four_segments_it_writes_nothing_and_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let mount = "mount -t tmpfs -o size=12m kontiki \"$0\" || exit 77";
    let run = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        let script = format!("{mount}; {script}");
        unshare.arg(script).arg(directory.path()).arg(env!("CARGO_BIN_EXE_wal-inspect"));
        unshare.args(SHORT).arg(directory.path()).output()
    };
    if !run("true").is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no file system can be mounted here");
        return;
    }
    // Whatever was written there, and removed again, has changed the directory's time.
    let script = "touch -d @1 \"$0\"; \"$@\"; code=$?; stat -c %Y \"$0\"; exit $code";
    let output = run(script).unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1\n", "nothing is told or written");
    let shown = directory.path().display();
    let line = format!(
        "wal-inspect: cannot measure in {shown}: 12 MiB are free, and four segments of 4 MiB take 16 MiB: \
         make room, or measure with smaller ones (--segment-bytes)\n"
    );
    assert_eq!(told, line);
}

#[test]
fn every_field_is_told_of_in_the_help() {
    let directory = TempDir::new().unwrap();
    let help = wal_inspect(["probe", "--help"]).stdout;
    let is_told = |word: &str| {
        help.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|told| told == word)
    };
    for row in rows(&probe(directory.path(), &["--json"])) {
        assert!(is_told(row["row"].as_str().unwrap()), "{row}");
        for field in row.as_object().unwrap().keys() {
            assert!(is_told(field), "nothing is said of {field}");
        }
    }
}
