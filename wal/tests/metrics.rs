//! What a program's recorder hears of a log: `cargo test -p kontiki-wal --features metrics --test metrics`.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]
#![expect(clippy::cast_possible_truncation, reason = "what is counted here is small")]

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::resume_unwind,
    path::Path,
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use kontiki_disk::{
    MemoryDisk,
    memory::{EIO, ENOSPC, Fault, Kind},
};
use kontiki_wal::{Log, LogId, Options, Wal};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, with_local_recorder,
};

/// Keeps all it is told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    /// Kind, unit and meaning by name.
    described: BTreeMap<String, [String; 3]>,
    /// A counter's sum, a gauge's last value, all values of a histogram; by name and directory.
    values: BTreeMap<(String, String), Vec<f64>>,
}

/// One metric of one log.
struct Metric {
    heard: Heard,
    key: (String, String),
}

impl Heard {
    fn describe(&self, kind: &str, name: &KeyName, unit: Option<Unit>, text: &SharedString) {
        let row = [kind, unit.unwrap().as_str(), text].map(str::to_owned);
        self.0.lock().unwrap().described.insert(name.as_str().to_owned(), row);
    }

    fn metric(&self, key: &Key) -> Arc<Metric> {
        let labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
        let [("directory", directory)] = labels[..] else { panic!("{labels:?}") };
        let key = (key.name().to_owned(), directory.to_owned());
        Arc::new(Metric { heard: self.clone(), key })
    }

    /// All values of a metric of the log in `directory`, named without what all names have in common.
    fn values(&self, directory: &str, name: &str) -> Vec<f64> {
        let key = (format!("kontiki_wal_{name}"), directory.to_owned());
        self.0.lock().unwrap().values.get(&key).cloned().unwrap_or_default()
    }

    /// A counter or a gauge of the log in `log`.
    fn value(&self, name: &str) -> u64 {
        let [value] = self.values("log", name)[..] else { panic!("{name} is not one value") };
        value as u64
    }
}

impl Metric {
    fn update(&self, update: impl FnOnce(&mut Vec<f64>)) {
        update(self.heard.0.lock().unwrap().values.entry(self.key.clone()).or_default());
    }
}

impl CounterFn for Metric {
    fn increment(&self, value: u64) {
        self.update(|values| *values = vec![values.iter().sum::<f64>() + value as f64]);
    }

    fn absolute(&self, _: u64) {
        unreachable!("several openings of a directory add up");
    }
}

impl GaugeFn for Metric {
    fn increment(&self, _: f64) {
        unreachable!("a gauge is set");
    }

    fn decrement(&self, _: f64) {
        unreachable!("a gauge is set");
    }

    fn set(&self, value: f64) {
        self.update(|values| *values = vec![value]);
    }
}

impl HistogramFn for Metric {
    fn record(&self, value: f64) {
        self.update(|values| values.push(value));
    }
}

impl Recorder for Heard {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", &name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", &name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", &name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.metric(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.metric(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.metric(key))
    }
}

/// Does as its program likes whenever it is told anything, by name.
#[derive(Clone)]
struct Unruly(Arc<dyn Fn(&str) + Send + Sync>);

struct UnrulyMetric(Unruly, String);

impl Unruly {
    fn metric(&self, key: &Key) -> Arc<UnrulyMetric> {
        Arc::new(UnrulyMetric(self.clone(), key.name().to_owned()))
    }
}

impl UnrulyMetric {
    fn hear(&self) {
        self.0.0(&self.1);
    }
}

impl CounterFn for UnrulyMetric {
    fn increment(&self, _: u64) {
        self.hear();
    }

    fn absolute(&self, _: u64) {}
}

impl GaugeFn for UnrulyMetric {
    fn increment(&self, _: f64) {}

    fn decrement(&self, _: f64) {}

    fn set(&self, _: f64) {
        self.hear();
    }
}

impl HistogramFn for UnrulyMetric {
    fn record(&self, _: f64) {
        self.hear();
    }
}

impl Recorder for Unruly {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.metric(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.metric(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.metric(key))
    }
}

fn options(disk: &MemoryDisk) -> Options {
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).without_threads();
    options.disk(Arc::new(disk.clone()))
}

/// Opened while the recorder is installed; it need not be later.
fn open(heard: &impl Recorder, options: Options, directory: impl AsRef<Path>) -> (Wal, Log) {
    let wal = with_local_recorder(heard, || options.open(directory)).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    (wal, log)
}

/// Appends entries of 1000 bytes, each a group of its own; compacts behind itself if asked to.
fn fill(wal: &Wal, log: &Log, entries: u64, compacts: bool) {
    for _ in 0..entries {
        log.push(vec![7; 1000]).unwrap().1.wait().unwrap();
        if compacts {
            log.compact_before(log.last()).unwrap().wait().unwrap();
        }
        wal.work(Duration::ZERO);
    }
}

#[test]
fn the_table_in_the_documentation_lists_every_metric_with_kind_unit_and_meaning() {
    let heard = Heard::default();
    open(&heard, options(&MemoryDisk::new()), "log");
    let rows = include_str!("../src/lib.rs").lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("//! | `kontiki_wal_")?.split(" | ").collect();
        let [name, kind, unit, text] = cells[..] else { panic!("{line}") };
        let name = format!("kontiki_wal_{}", name.trim_end_matches('`'));
        Some((name, [kind, unit, text.trim_end_matches(" |")].map(str::to_owned)))
    });
    let documented: BTreeMap<String, [String; 3]> = rows.collect();
    assert_eq!(heard.0.lock().unwrap().described, documented);
}

#[test]
fn a_group_is_told_with_its_entries_bytes_and_time_and_what_waits_after_it() {
    let heard = Heard::default();
    let (wal, log) = open(&heard, options(&MemoryDisk::new()), "log");
    let before = log.push("one").unwrap().1;
    let begin = before.lsn().0;
    before.wait().unwrap();
    let appended = heard.value("appended_bytes_total");
    drop(log.append(2, 1, &[Bytes::from("two"), Bytes::from("three")]).unwrap());
    let end = log.append(4, 1, &[Bytes::from(vec![4; 4000])]).unwrap().lsn().0;
    assert_eq!(heard.value("appended_entries_total"), 1, "nothing is told for an entry");

    let job = wal.begin_sync(Duration::ZERO).unwrap();
    let result = job.run();
    let behind = log.push("comes meanwhile").unwrap().1.lsn().0;
    assert_eq!(heard.value("syncs_total"), 1);
    wal.finish_sync(job, result);
    assert_eq!(heard.value("unsynced_bytes"), behind - end);
    assert_eq!(heard.value("syncs_total"), 2);
    assert_eq!(heard.value("appended_entries_total"), 5);
    assert_eq!(heard.value("appended_bytes_total") - appended, behind - begin);
    assert_eq!(heard.values("log", "group_entries"), [1.0, 3.0]);
    // The first one begins with the segment's frames; the second one at its end, which is in the first page of them.
    assert_eq!(heard.values("log", "group_bytes"), [4096.0, (8192 - begin) as f64]);
    assert_eq!(heard.value("written_bytes_total"), 4096 + 8192 - begin);
    let seconds = heard.values("log", "sync_seconds");
    assert!(seconds.len() == 2 && seconds.iter().all(|&time| 0.0 < time && time < 60.0));
    wal.work(Duration::ZERO);
    assert_eq!(heard.value("unsynced_bytes"), 0);
}

#[test]
fn what_happens_to_segments_is_told_as_the_statistics_have_it() {
    let (heard, disk) = (Heard::default(), MemoryDisk::new());
    let (wal, log) = open(&heard, options(&disk), "log");
    assert_eq!((heard.value("segments"), heard.value("segments_bytes")), (1, SEGMENT_BYTES));
    fill(&wal, &log, 40, false);
    let segments = wal.statistics().segments;
    assert!(segments >= 3);
    assert_eq!(heard.value("segments"), segments);
    assert_eq!(heard.value("segments_bytes"), segments * SEGMENT_BYTES);
    assert_eq!(heard.value("rotations_total"), segments - 1);
    assert_eq!(heard.value("appended_entries_total"), 40);
    assert_eq!(heard.values("log", "group_entries"), [1.0; 40]);

    fill(&wal, &log, 100, true);
    // Refused until a segment is prepared: twice one cannot be, which is one failure, and once more after a success.
    for failures in 1..=2 {
        (1..=2).for_each(|nth| disk.inject(Kind::Create, nth, Fault::Fail(ENOSPC)));
        while wal.statistics().preparation_failures < failures {
            while log.push(vec![7; 1000]).is_ok() {}
            let job = wal.begin_segment().unwrap();
            let result = job.run();
            wal.finish_segment(job, result);
        }
        assert_eq!(heard.value("preparation_failures_total"), failures, "told before a group");
        wal.work(Duration::ZERO);
        fill(&wal, &log, 20, false);
        assert!(!disk.has_faults());
    }
    let statistics = wal.statistics();
    assert_eq!(statistics.preparation_failures, 2);
    for (name, value) in [
        ("appended_entries", statistics.entries_appended),
        ("written_bytes", statistics.bytes_written),
        ("syncs", statistics.syncs),
        ("rotations", statistics.rotations),
        ("rotation_waits", statistics.rotation_waits),
        ("sealed_segments", statistics.sealed_segments),
        ("recycled_segments", statistics.recycled_segments),
        ("preparation_failures", statistics.preparation_failures),
    ] {
        assert_eq!(heard.value(&format!("{name}_total")), value, "{name}");
        assert!(value > 0, "{name}");
    }
    let entries = heard.values("log", "group_entries").iter().sum::<f64>() as u64;
    assert_eq!(entries, statistics.entries_synced);
    assert_eq!(statistics.entries_synced, statistics.entries_appended, "all are durable");
}

#[test]
fn a_segment_that_a_view_pins_is_told() {
    let (heard, directory) = (Heard::default(), tempfile::tempdir().unwrap());
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).without_threads();
    let (wal, log) = open(&heard, options, directory.path());
    fill(&wal, &log, 3, false);
    let view = log.read(1..2, usize::MAX).next().unwrap().unwrap();
    fill(&wal, &log, 40, true);
    let shown = directory.path().display().to_string();
    assert_eq!(heard.values(&shown, "pinned_segments_total"), [1.0]);
    drop(view);
}

#[test]
fn each_log_is_told_by_its_directory_and_openings_of_one_add_up() {
    let (heard, disk) = (Heard::default(), MemoryDisk::new());
    for (directory, entries) in [("a", 3), ("b", 5), ("a", 2)] {
        let (wal, log) = open(&heard, options(&disk), directory);
        fill(&wal, &log, entries, false);
        wal.close().unwrap();
    }
    assert_eq!(heard.values("a", "appended_entries_total"), [5.0]);
    assert_eq!(heard.values("b", "appended_entries_total"), [5.0]);
    // Each close syncs its mark, which is no entry.
    assert_eq!(heard.values("b", "group_entries"), [1.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
}

#[test]
fn a_sync_that_fails_is_no_sync_and_a_log_for_reading_tells_nothing() {
    let (heard, disk) = (Heard::default(), MemoryDisk::new());
    let (wal, log) = open(&heard, options(&disk), "log");
    fill(&wal, &log, 1, false);
    disk.inject(Kind::Sync, 1, Fault::Fail(EIO));
    log.push("lost").unwrap().1.wait().unwrap_err();
    assert_eq!(heard.value("syncs_total"), 1);
    assert_eq!(heard.values("log", "sync_seconds").len(), 1);
    assert_eq!(heard.value("appended_entries_total"), 2);

    let reading = Heard::default();
    with_local_recorder(&reading, || options(&disk).open_read_only("log")).unwrap();
    let told = reading.0.lock().unwrap();
    assert!(told.described.is_empty() && told.values.is_empty());
}

#[test]
fn a_recorder_that_panics_harms_no_append() {
    // Without a word of the panic hook: there are hundreds.
    let panics = Unruly(Arc::new(|_| resume_unwind(Box::new("of the recorder"))));
    let disk = MemoryDisk::new();
    let (wal, log) = open(&panics, options(&disk), "log");
    fill(&wal, &log, 40, true);
    wal.close().unwrap();
    drop((wal, log));

    // With threads, which must outlive it.
    let options = Wal::options().segment_bytes(SEGMENT_BYTES).disk(Arc::new(disk));
    let (wal, log) = open(&panics, options, "log");
    let (sender, receiver) = mpsc::channel();
    for _ in 0..3 {
        let sender = sender.clone();
        let tell = move |outcome| sender.send(outcome).unwrap();
        log.push("told by the log's thread").unwrap().1.on_durable(tell);
        receiver.recv_timeout(LONG).unwrap().unwrap();
    }
    wal.close().unwrap();
}

/// Of each metric once, while others append.
#[test]
fn a_recorder_may_append_to_the_log_it_is_told_of_and_wait() {
    let (own, told) = (Arc::new(OnceLock::<Log>::new()), Arc::new(Mutex::new(BTreeSet::new())));
    let (of_recorder, names) = (Arc::clone(&own), Arc::clone(&told));
    let appends = Unruly(Arc::new(move |name| {
        let Some(log) = of_recorder.get() else { return };
        let is_news = names.lock().unwrap().insert(name.to_owned());
        if is_news {
            log.push("of the recorder").unwrap().1.wait().unwrap();
        }
    }));
    let options = Wal::options().disk(Arc::new(MemoryDisk::new()));
    let (wal, log) = open(&appends, options, "log");
    own.set(wal.log(LogId(2)).unwrap()).unwrap();
    let (sender, receiver) = mpsc::channel();
    for _ in 0..3 {
        let (log, sender) = (log.clone(), sender.clone());
        thread::spawn(move || {
            (0..20).for_each(|_| log.push("of a writer").unwrap().1.wait().unwrap());
            sender.send(()).unwrap();
        });
    }
    (0..3).for_each(|_| receiver.recv_timeout(LONG).unwrap());
    assert_eq!(log.last(), 60);
    assert_eq!(told.lock().unwrap().len(), 16, "all counters, gauges and histograms");
}

/// What takes so long never ends.
const LONG: Duration = Duration::from_secs(60);
const SEGMENT_BYTES: u64 = 16 << 10;
