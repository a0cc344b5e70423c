//! Logs to look into, and what a run of the command gave.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ffi::OsStr,
    fs::{self, File, Permissions},
    iter,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use kontiki_core::{
    ClusterId, Configuration, Entry, HardState, Incarnation, LogIndex, Member, NodeId, Position,
    State, Term,
};
use kontiki_wal::{
    Log, LogId, Options, Wal,
    inspect::{Frame, FrameKind, Scan},
};
use serde_json::Value;
use tempfile::TempDir;

/// What a run of the command gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `wal-inspect` to its end.
pub(crate) fn wal_inspect<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Run {
    run(command().args(arguments))
}

/// The same from within `directory`.
pub(crate) fn run_in(directory: &Path, arguments: &[&str]) -> Run {
    run(command().args(arguments).current_dir(directory))
}

fn run(command: &mut Command) -> Run {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `wal-inspect` in an environment that says nothing of colour, whatever the tests' own says.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wal-inspect"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(name);
    }
    command
}

/// A copy of the program that anybody may run, whatever may be looked into above the built one; and where it lies.
pub(crate) fn program_for_anybody() -> (TempDir, PathBuf) {
    let place = TempDir::new().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("wal-inspect");
    // By another process: what this one writes, a child of another test's thread can still have open for writing.
    let mut copy = Command::new("cp");
    let copied = copy.arg(env!("CARGO_BIN_EXE_wal-inspect")).arg(&program).status().unwrap();
    assert!(copied.success());
    (place, program)
}

/// `wal-inspect verify DIRECTORY`.
pub(crate) fn verify(directory: &Path) -> Run {
    wal_inspect([OsStr::new("verify"), directory.as_os_str()])
}

/// `wal-inspect dump DIRECTORY ...`.
pub(crate) fn dump(directory: &Path, arguments: &[&str]) -> Run {
    let arguments = arguments.iter().map(OsStr::new);
    wal_inspect([OsStr::new("dump"), directory.as_os_str()].into_iter().chain(arguments))
}

/// `wal-inspect COMMAND DIRECTORY --json`, which ends well: its lines.
pub(crate) fn json(command: &str, directory: &Path) -> Vec<Value> {
    let run = wal_inspect([OsStr::new(command), directory.as_os_str(), OsStr::new("--json")]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A number in a line of JSON; 0 if it is left out.
pub(crate) fn number(row: &Value, field: &str) -> u64 {
    row[field].as_u64().unwrap_or(0)
}

/// The keys of all objects in lines of JSON, and of those in them.
pub(crate) fn fields(lines: &str) -> BTreeSet<String> {
    fn add(value: &Value, all: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(field, value)| {
                all.insert(field.clone());
                add(value, all);
            }),
            Value::Array(values) => values.iter().for_each(|value| add(value, all)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    lines.lines().for_each(|line| add(&serde_json::from_str(line).unwrap(), &mut all));
    all
}

/// Whether the help of a command has this word.
pub(crate) fn is_told(command: &str, word: &str) -> bool {
    let help = wal_inspect([command, "--help"]).stdout;
    help.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|told| told == word)
}

/// Runs `wal-inspect COMMAND` on a golden log, as text and as JSON, and compares what it prints with what it printed when that
/// was found right. `KONTIKI_FIXTURES=write` makes files that are not there; to change one, remove it first.
pub(crate) fn check_golden(command: &str, log: &str) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let fixture = tests.join("../../../tests/fixtures/format-1").join(log);
    let before = files(&fixture);
    for (ending, flag) in [("txt", None), ("jsonl", Some("--json"))] {
        let flag = flag.map(OsStr::new);
        let run = wal_inspect([OsStr::new(command), fixture.as_os_str()].into_iter().chain(flag));
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        assert_golden(&format!("{command}-{log}.{ending}"), &run.stdout);
    }
    assert_eq!(files(&fixture), before, "{command} changed a file");
}

/// `KONTIKI_FIXTURES=write` makes the file if it is not there; to change one, remove it first.
pub(crate) fn assert_golden(name: &str, printed: &str) {
    assert_golden_but_for(name, printed, &[]);
}

/// The same where a line may lack these parts of the golden one.
pub(crate) fn assert_golden_but_for(name: &str, printed: &str, optional: &[&str]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !file.exists() && env::var_os("KONTIKI_FIXTURES").is_some_and(|value| value == "write") {
        fs::write(&file, printed).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap();
    let lines = expected.split_inclusive('\n').zip(printed.lines().chain(iter::repeat("")));
    let expected: String = lines
        .map(|(expected, printed)| {
            let absent = optional.iter().filter(|&&part| !printed.contains(part));
            absent.fold(expected.to_owned(), |line, part| line.replace(part, ""))
        })
        .collect();
    for (number, (printed, expected)) in printed.lines().zip(expected.lines()).enumerate() {
        assert_eq!(printed, expected, "{name} line {}", number + 1);
    }
    assert_eq!(printed, expected, "{name}");
}

/// Small segments, and no thread that would write a mark whenever it likes.
pub(crate) fn options() -> Options {
    Wal::options().segment_bytes(16 << 10).without_threads()
}

/// Appends `count` lines to `log` in one frame and waits until they are durable.
pub(crate) fn append(log: &Log, term: u64, count: u64) {
    let first = log.last() + 1;
    let lines: Vec<Bytes> =
        (first..first + count).map(|index| Bytes::from(format!("line {index}"))).collect();
    log.append(first, term, &lines).unwrap().wait().unwrap();
}

/// Ten lines in term 3, then five in term 4, of log 7: two frames, the first attested by the
/// second, the second by nothing. As a crash right after the last acknowledgement leaves it.
pub(crate) fn crashed_log() -> TempDir {
    let writing = TempDir::new().unwrap();
    let wal = options().open(writing.path()).unwrap();
    let log = wal.log(LogId(7)).unwrap();
    append(&log, 3, 10);
    append(&log, 4, 5);
    copy_of(writing.path())
}

/// The same log after a clean close: everything is attested.
pub(crate) fn closed_log() -> TempDir {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(7)).unwrap();
    append(&log, 3, 10);
    append(&log, 4, 5);
    wal.close().unwrap();
    directory
}

/// Entries of each kind that Raft has, and one that it does not know, of log 1.
pub(crate) fn raft_log() -> TempDir {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    log.set_state(raft_state().encode()).unwrap().wait().unwrap();
    // Kind bytes as the core writes them: 2 is a leader's empty entry, 3 a configuration.
    let configuration = [&[3], raft_state().configurations[0].1.encode().as_ref()].concat();
    let entries = [
        Entry::encode_command(b"SET key \xff"),
        Bytes::from_static(&[2]),
        Bytes::from(configuration),
        Bytes::from_static(&[200, b'?']),
    ];
    log.append(1, 6, &entries).unwrap().wait().unwrap();
    copy_of(directory.path())
}

/// Of a node that has voted, in a cluster with a learner.
pub(crate) fn raft_state() -> State {
    let member = |id, address: &str, voter| Member {
        id: NodeId(id),
        incarnation: Incarnation(id),
        address: address.to_owned(),
        voter,
    };
    let members = vec![member(1, "one:7", true), member(2, "two:7", false)];
    let position = Position { term: Term(5), index: LogIndex(4) };
    State {
        cluster: ClusterId(0xc1),
        incarnation: Incarnation(0x1a),
        hard: HardState { term: Term(6), vote: Some(NodeId(2)) },
        configurations: vec![(position, Configuration { members })],
    }
}

/// A copy of the files as they are: what the disk holds while a writer lives, without the writer.
pub(crate) fn copy_of(directory: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for (name, bytes) in files(directory) {
        fs::write(copy.path().join(name), bytes).unwrap();
    }
    copy
}

/// Every file with its bytes.
pub(crate) fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// The frames of entries in a directory.
pub(crate) fn entries_frames(directory: &Path) -> Vec<Frame> {
    let scan = Scan::open(directory).unwrap();
    scan.frames().map(Result::unwrap).filter(|frame| frame.kind == FrameKind::Entries).collect()
}

/// Flips one bit `ahead` bytes behind a frame's first.
pub(crate) fn flip_bit(directory: &Path, frame: &Frame, ahead: u64) {
    let file = File::options().read(true).write(true).open(directory.join(&frame.file)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, frame.offset + ahead).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], frame.offset + ahead).unwrap();
}

/// Where a frame's payload begins to differ from its header.
pub(crate) const HEADER_BYTES: u64 = 48;
