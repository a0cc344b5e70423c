//! What an operator hears of a log, through `tracing`: each event once, with the fields that the crate's documentation lists.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{
    collections::BTreeMap,
    fmt::{Debug, Write},
    fs,
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use kontiki_disk::{
    Disk, MemoryDisk,
    memory::{EIO, ENOSPC, Fault, Kind},
};
use kontiki_wal::{
    AppendError, Log, LogId, Wal,
    inspect::{FrameKind, Scan},
    repair,
};
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::with_default,
};

/// Level, message, and fields by name.
type Told = (Level, String, BTreeMap<String, String>);

/// Keeps the events of the log, and asks it at each.
#[derive(Clone, Default)]
struct Listener {
    told: Arc<Mutex<Vec<Told>>>,
    asks: Option<Wal>,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("kontiki_wal")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        unreachable!("the log has no spans")
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let message = fields.0.remove("message").unwrap();
        if let Some(wal) = &self.asks {
            wal.statistics();
        }
        self.told.lock().unwrap().push((*event.metadata().level(), message, fields.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields(BTreeMap<String, String>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

/// The events during `work`, a line each. The log has no threads here: all happens on this one.
fn events(work: impl FnOnce()) -> Vec<String> {
    heard(Listener::default(), work)
}

fn heard(listener: Listener, work: impl FnOnce()) -> Vec<String> {
    with_default(listener.clone(), work);
    let told = listener.told.lock().unwrap();
    let line = |(level, message, fields): &Told| {
        let mut line = format!("{level} {message}:");
        for (name, value) in fields {
            write!(line, " {name}={value}").unwrap();
        }
        line
    };
    told.iter().map(line).collect()
}

fn open(disk: &MemoryDisk) -> (Wal, Log) {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).without_threads();
    let wal = options.disk(Arc::new(disk.clone())).open("log").unwrap();
    let log = wal.log(LogId(1)).unwrap();
    (wal, log)
}

/// An entry of its own group.
fn push(log: &Log, bytes: usize) -> u64 {
    let pending = log.push(vec![7; bytes]).unwrap().1;
    let lsn = pending.lsn().0;
    pending.wait().unwrap();
    lsn
}

#[test]
fn an_opening_is_told_with_where_the_log_stands() {
    let disk = MemoryDisk::new();
    let told = events(|| drop(open(&disk)));
    assert_eq!(told, ["INFO opened: bytes=16384 directory=log lsn=0 segments=1"]);
    let (wal, log) = open(&disk);
    push(&log, 100);
    wal.close().unwrap();
    let end = wal.durable_lsn().0;
    drop((wal, log));
    let told = events(|| drop(open(&disk)));
    // The mark of the close is written again.
    let end = end - 48;
    assert_eq!(told, [format!("INFO opened: bytes=16384 directory=log lsn={end} segments=1")]);
}

#[test]
fn a_recovery_is_told_with_what_it_cuts_off() {
    let disk = MemoryDisk::new();
    let (_wal, log) = open(&disk);
    let end = push(&log, 100);
    drop(log.push(vec![7; 1000]).unwrap());
    let torn = push(&log, 1000);
    // Both came with one sync, and nothing attests that it was done.
    let crashed = disk.reopen();
    let offset = 4096 + end;
    crashed.corrupt("log/0000000000000001.wal", offset + 60, 1);
    let told = events(|| drop(open(&crashed)));
    let cut = torn - end;
    let repairing = format!(
        "WARN repairing after an unclean stop: bytes_cut={cut} directory=log headers_cut=2 lsn={end} \
         offset={offset} segment=0000000000000001.wal segments_cut=0"
    );
    let opened = format!("INFO opened: bytes=16384 directory=log lsn={end} segments=1");
    assert_eq!(told, [repairing, opened]);
}

#[test]
fn a_repair_is_told_with_what_it_did() {
    let disk = MemoryDisk::new();
    let (wal, log) = open(&disk);
    let [_, lost, _] = [100, 1000, 100].map(|bytes| push(&log, bytes));
    wal.close().unwrap();
    drop((wal, log));
    // Behind the header page, and the frames before.
    let scan = Scan::open_on(&disk, "log").unwrap();
    let frames = scan.frames().map(Result::unwrap);
    let frame = frames.filter(|frame| frame.kind == FrameKind::Entries).nth(1).unwrap();
    disk.corrupt("log/0000000000000001.wal", frame.offset + 60, 1);
    assert!(frame.lsn.0 < lost);

    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let told = events(|| drop(repair::salvage_on(&shared, "log", "new").unwrap()));
    let salvaged = told.last().unwrap();
    assert_eq!(salvaged, "WARN salvaged: directory=log harmed=1 into=new logs=1");
    let told = events(|| drop(repair::truncate_on(&disk, "log").unwrap()));
    let lsn = frame.lsn.0;
    let cut = format!(
        "WARN cut or mended in place: backup=log.backup-1 changed=1 directory=log lsn={lsn} removed=0"
    );
    assert_eq!(told, [cut]);
}

#[test]
fn a_rotation_is_told_once_the_next_segment_has_something_durable() {
    let disk = MemoryDisk::new();
    let (wal, log) = open(&disk);
    let told = events(|| {
        while wal.statistics().segments < 3 {
            drop(log.push(vec![7; 1000]).unwrap());
            wal.work(Duration::ZERO);
        }
    });
    let segments = Scan::open_on(&disk, "log").unwrap().segments();
    let rotated = segments[1..].iter().map(|segment| {
        let (lsn, file) = (segment.base.unwrap().0, &segment.file);
        format!("DEBUG rotated: bytes=16384 directory=log lsn={lsn} segment={file}")
    });
    assert_eq!(told, rotated.take(2).collect::<Vec<_>>());
}

#[test]
fn a_disk_without_room_is_told_once_and_so_is_its_end() {
    let disk = MemoryDisk::new();
    let (wal, log) = open(&disk);
    disk.set_capacity(Some(SEGMENT_BYTES));
    let told = events(|| {
        while let Ok((_, pending)) = log.push(vec![7; 1000]) {
            pending.wait().unwrap();
        }
        for _ in 0..5 {
            wal.work(Duration::ZERO);
            let refusal = log.push(vec![7; 1000]).unwrap_err();
            assert!(matches!(refusal, AppendError::NoSpace { .. }), "{refusal}");
        }
    });
    let [told] = &told[..] else { panic!("{told:?}") };
    let fields = "WARN cannot prepare a segment: bytes=16384 directory=log error=";
    assert!(told.starts_with(fields) && told.ends_with(" segment=0000000000000002.wal"), "{told}");
    assert!(told.contains("the file takes 16 KiB"), "{told}");

    disk.set_capacity(None);
    let told = events(|| {
        wal.work(Duration::ZERO);
        wal.work(Duration::ZERO);
    });
    let again = "INFO can prepare segments again: directory=log segment=0000000000000002.wal";
    assert_eq!(told, [again]);
    push(&log, 100);
    disk.inject(Kind::Create, 1, Fault::Fail(ENOSPC));
    let told = events(|| {
        for _ in 0..20 {
            push(&log, 1000);
            wal.work(Duration::ZERO);
        }
    });
    assert!(told.iter().any(|told| told.starts_with(fields)), "the next failure is news: {told:?}");
}

#[test]
fn a_removal_that_fails_is_told_once_until_one_succeeds() {
    let disk = MemoryDisk::new();
    let (wal, log) = open(&disk);
    while wal.statistics().sealed_segments < 4 {
        push(&log, 1000);
        wal.work(Duration::ZERO);
    }
    for kind in [Kind::Rename, Kind::Remove] {
        (1..=100).for_each(|nth| disk.inject(kind, nth, Fault::Fail(EIO)));
    }
    log.compact_before(log.last()).unwrap().wait().unwrap();
    let told = events(|| {
        for _ in 0..5 {
            wal.work(Duration::ZERO);
        }
    });
    let [told] = &told[..] else { panic!("{told:?}") };
    assert!(told.starts_with("WARN cannot remove segments: directory=log error="), "{told}");
    assert!(told.contains(" kept=[") && told.contains(" removed=["), "{told}");
}

#[test]
fn that_the_log_stops_is_told_once_with_the_error() {
    let disk = MemoryDisk::new();
    let (wal, log) = open(&disk);
    let (job, end) = loop {
        let end = push(&log, 500);
        if let Some(job) = wal.begin_segment() {
            break (job, end);
        }
    };
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    let told = events(|| {
        log.push("lost").unwrap().1.wait().unwrap_err();
        let result = job.run();
        wal.finish_segment(job, result);
        wal.work(Duration::ZERO);
        log.push("refused").unwrap_err();
        wal.close().unwrap_err();
    });
    let [told] = &told[..] else { panic!("{told:?}") };
    let fields = "ERROR the log stops: directory=log error=poisoned: a write or sync of 0000000000000001.wal failed: ";
    assert!(told.starts_with(fields) && told.ends_with(&format!(" lsn={end}")), "{told}");
}

/// Whoever writes events down can want to write down how the log stands, too.
#[test]
fn a_subscriber_may_ask_the_log_at_each_event() {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let disk = MemoryDisk::new();
        let (wal, log) = open(&disk);
        let listener = Listener { asks: Some(wal.clone()), ..Listener::default() };
        let told = heard(listener, || tell_of_everything(&disk, &wal, &log));
        sender.send(told).unwrap();
    });
    let told = receiver.recv_timeout(LONG).unwrap();
    for message in [
        "rotated",
        "cannot prepare a segment",
        "can prepare segments again",
        "cannot remove segments",
        "the log stops",
    ] {
        assert!(told.iter().any(|told| told.contains(message)), "{message}: {told:?}");
    }
}

fn tell_of_everything(disk: &MemoryDisk, wal: &Wal, log: &Log) {
    let work_until = |is_done: &dyn Fn() -> bool| {
        while !is_done() {
            if let Ok((_, pending)) = log.push(vec![7; 1000]) {
                pending.wait().unwrap();
            }
            wal.work(Duration::ZERO);
        }
    };
    disk.set_capacity(Some(SEGMENT_BYTES));
    work_until(&|| wal.statistics().preparation_failures > 0);
    disk.set_capacity(None);
    work_until(&|| wal.statistics().sealed_segments > 1);
    for kind in [Kind::Rename, Kind::Remove] {
        disk.inject(kind, 1, Fault::Fail(EIO));
    }
    log.compact_before(log.last()).unwrap().wait().unwrap();
    wal.work(Duration::ZERO);
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    log.push("lost").unwrap().1.wait().unwrap_err();
}

/// What takes so long never ends.
const LONG: Duration = Duration::from_secs(60);
const SEGMENT_BYTES: u64 = 16 << 10;

/// In the order of the sources; in a test's module none is told.
#[test]
fn every_event_that_is_told_is_in_the_documentation() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut files, mut directories) = (Vec::new(), vec![source.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let into = if path.is_dir() { &mut directories } else { &mut files };
            into.push(path);
        }
    }
    let documentation = fs::read_to_string(source.join("lib.rs")).unwrap();
    let mut told = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let is_told = |call: &&str| LEVELS.iter().any(|level| call.starts_with(level));
        for call in text.split("tracing::").skip(1).filter(is_told) {
            let message = message(call).expect("an event has a message");
            let is_documented = documentation.contains(&format!("| {message} |"))
                || documentation.contains(&format!("`{message}`"));
            assert!(is_documented, "{}: {message}", file.display());
            told += 1;
        }
    }
    assert!(told >= 10, "only {told} were found");
}

#[test]
fn the_message_of_a_call_is_found_wherever_the_call_stands() {
    for (call, expected) in [
        (r#"warn!(%error, "first"); f("second");"#, Some("first")),
        (r#"warn!(%error, "first"), Err(_) => f("second");"#, Some("first")),
        (r#"error!(count = f("second"), "first (and more)")"#, Some("first (and more)")),
        (r#"warn!(%error); f("second")"#, None),
    ] {
        assert_eq!(message(call), expected, "{call}");
    }
}

/// The message of a call that tells an event: the last of its arguments, between quotes.
fn message(call: &str) -> Option<&str> {
    let (mut depth, mut begun, mut last) = (0, None, None);
    for (at, byte) in call.bytes().enumerate() {
        match (byte, begun) {
            (b'"', None) => begun = Some(at + 1),
            (b'"', Some(begin)) => (begun, last) = (None, Some(&call[begin..at])),
            (b'(', None) => depth += 1,
            (b')', None) if depth == 1 => return last,
            (b')', None) => depth -= 1,
            _ => {}
        }
    }
    None
}

const LEVELS: [&str; 5] = ["error!(", "warn!(", "info!(", "debug!(", "trace!("];
