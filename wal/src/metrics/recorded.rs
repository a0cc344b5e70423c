//! Metrics through the `metrics` facade. Their names are public: the crate's documentation lists them.

use std::{
    io,
    path::Path,
    sync::{OnceLock, atomic::Ordering},
    time::Duration,
};

use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::{
    Lsn, Statistics,
    core::State,
    stream::Group,
    sync::{AtomicU64, Instant, Mutex},
    waiters::guard,
};

/// The metrics of one log. What is told of a log that was opened for reading goes nowhere.
#[derive(Debug)]
pub(crate) struct Metrics {
    handles: Option<Handles>,
}

#[derive(Debug)]
struct Handles {
    counters: Vec<Counter>,
    gauges: Vec<Gauge>,
    sync_seconds: Histogram,
    group_entries: Histogram,
    group_bytes: Histogram,
    /// Counts the reports, so that one that was overtaken is known.
    reports: AtomicU64,
    told: Mutex<Told>,
}

/// What the recorder has heard. It is called without this lock, as it may come back with a report of its own.
#[derive(Debug)]
struct Told {
    report: Report,
    /// Came while another one was told; who tells that one tells it, too, so that a gauge never goes back.
    next: Option<Report>,
    is_telling: bool,
}

/// Where a log stands. All that is counted only grows from one report to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    number: u64,
    statistics: Statistics,
    end: Lsn,
    segments: u64,
    segments_bytes: u64,
    unsynced_bytes: u64,
}

/// Name, unit, meaning, and where it stands in a report.
type Row = (&'static str, Unit, &'static str, fn(&Report) -> u64);

impl Metrics {
    /// Of a log that tells nothing.
    pub(crate) fn none() -> Self {
        Self { handles: None }
    }

    /// Announces the metrics to the program's recorder, labelled with the log's directory. A recorder that is installed
    /// later hears nothing of this log.
    pub(crate) fn new(directory: &Path, state: &State) -> Self {
        let directory = directory.display().to_string();
        let histogram = |name, unit, text| {
            describe_histogram!(name, unit, text);
            histogram!(name, "directory" => directory.clone())
        };
        let handles = Handles {
            counters: Vec::from(COUNTERS.map(|(name, unit, text, _)| {
                describe_counter!(name, unit, text);
                counter!(name, "directory" => directory.clone())
            })),
            gauges: Vec::from(GAUGES.map(|(name, unit, text, _)| {
                describe_gauge!(name, unit, text);
                gauge!(name, "directory" => directory.clone())
            })),
            sync_seconds: histogram(
                "kontiki_wal_sync_seconds",
                Unit::Seconds,
                "time that the write and the sync of a group took",
            ),
            group_entries: histogram(
                "kontiki_wal_group_entries",
                Unit::Count,
                "entries that one sync made durable",
            ),
            group_bytes: histogram(
                "kontiki_wal_group_bytes",
                Unit::Bytes,
                "bytes written for one sync, padding included",
            ),
            reports: AtomicU64::new(1),
            told: Mutex::new(Told { report: Report::of(state, 0), next: None, is_telling: false }),
        };
        let metrics = Self { handles: Some(handles) };
        metrics.tell(metrics.report(state));
        metrics
    }

    /// What there is to tell. The log's lock is held, so that the reports have an order.
    pub(crate) fn report(&self, state: &State) -> Report {
        let reports = self.handles.as_ref().map(|handles| &handles.reports);
        let number = reports.map_or(0, |reports| reports.fetch_add(1, Ordering::Relaxed));
        Report::of(state, number)
    }

    /// Tells the recorder, which is foreign code: no lock is held, no job of this thread is out, and its panics stay here.
    pub(crate) fn tell(&self, report: Report) {
        let Some(handles) = &self.handles else { return };
        let mut step = handles.told.lock().begin(report);
        while let Some((before, report)) = step {
            handles.tell(&before, &report);
            step = handles.told.lock().go_on();
        }
    }

    /// Tells of a group that was synced, likewise.
    pub(crate) fn tell_group(&self, group: &GroupReport) {
        let (Some(handles), Some(&took)) = (&self.handles, group.took.get()) else { return };
        guard(|| handles.sync_seconds.record(took));
        guard(|| handles.group_entries.record(group.entries as f64));
        guard(|| handles.group_bytes.record(group.bytes as f64));
    }
}

impl Handles {
    fn tell(&self, before: &Report, report: &Report) {
        for (counter, (.., value)) in self.counters.iter().zip(COUNTERS) {
            guard(|| counter.increment(value(report) - value(before)));
        }
        for (gauge, (.., value)) in self.gauges.iter().zip(GAUGES) {
            guard(|| gauge.set(value(report) as f64));
        }
    }
}

impl Told {
    /// The report before and `report`, if it is news and nobody else is telling.
    fn begin(&mut self, report: Report) -> Option<(Report, Report)> {
        let newest = self.next.as_ref().unwrap_or(&self.report);
        if report.number >= newest.number {
            self.next = Some(report);
        }
        if self.is_telling { None } else { self.go_on() }
    }

    /// What is to be told next.
    fn go_on(&mut self) -> Option<(Report, Report)> {
        let next = self.next.take();
        self.is_telling = next.is_some();
        next.map(|next| (std::mem::replace(&mut self.report, next), next))
    }
}

/// A group, and how long its write and its sync took, once they have succeeded.
#[derive(Debug, Default)]
pub(crate) struct GroupReport {
    entries: u64,
    bytes: usize,
    took: OnceLock<Duration>,
}

impl GroupReport {
    pub(crate) fn of(group: &Group) -> Self {
        Self { entries: group.entries, bytes: group.bytes.len(), took: OnceLock::new() }
    }

    /// Does `sync`, which writes the group and syncs it. One that fails is not told: it took as long as the error did.
    pub(crate) fn time(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let begun = Instant::now();
        sync()?;
        self.took.get_or_init(|| begun.elapsed());
        Ok(())
    }
}

impl Report {
    fn of(state: &State, number: u64) -> Self {
        let stream = &state.stream;
        Self {
            number,
            statistics: state.statistics,
            end: stream.end(),
            segments: stream.segments().len() as u64,
            segments_bytes: stream.segments_bytes(),
            unsynced_bytes: stream.unsynced_bytes(),
        }
    }
}

const COUNTERS: [Row; 10] = [
    ("kontiki_wal_appended_entries_total", Unit::Count, "entries taken by appends", |report| {
        report.statistics.entries_appended
    }),
    (
        "kontiki_wal_appended_bytes_total",
        Unit::Bytes,
        "bytes of frames taken, of entries and of the log's own",
        |report| report.end.0,
    ),
    (
        "kontiki_wal_written_bytes_total",
        Unit::Bytes,
        "bytes written to segments for groups, padding included",
        |report| report.statistics.bytes_written,
    ),
    ("kontiki_wal_syncs_total", Unit::Count, "groups that were synced", |report| {
        report.statistics.syncs
    }),
    ("kontiki_wal_rotations_total", Unit::Count, "segments that the log went on in", |report| {
        report.statistics.rotations
    }),
    (
        "kontiki_wal_rotation_waits_total",
        Unit::Count,
        "rotations that had to wait because the next segment was not ready",
        |report| report.statistics.rotation_waits,
    ),
    (
        "kontiki_wal_sealed_segments_total",
        Unit::Count,
        "segments whose index and trailer were written",
        |report| report.statistics.sealed_segments,
    ),
    (
        "kontiki_wal_recycled_segments_total",
        Unit::Count,
        "segments made of the file of a freed one",
        |report| report.statistics.recycled_segments,
    ),
    (
        "kontiki_wal_pinned_segments_total",
        Unit::Count,
        "freed segments whose file could not be used again because a view of it lived",
        |report| report.statistics.pinned_segments,
    ),
    (
        "kontiki_wal_preparation_failures_total",
        Unit::Count,
        "times that the next segment could not be made, mostly for want of space",
        |report| report.statistics.preparation_failures,
    ),
];

const GAUGES: [Row; 3] = [
    ("kontiki_wal_segments", Unit::Count, "segments with frames", |report| report.segments),
    ("kontiki_wal_segments_bytes", Unit::Bytes, "length of all segments with frames", |report| {
        report.segments_bytes
    }),
    (
        "kontiki_wal_unsynced_bytes",
        Unit::Bytes,
        "bytes that were appended and not durable when the last group ended",
        |report| report.unsynced_bytes,
    ),
];
