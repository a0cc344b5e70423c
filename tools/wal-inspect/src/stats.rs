//! `stats`: how large entries, frames and syncs are, what each log has, and what it keeps from being freed.

use std::collections::BTreeMap;

use kontiki_wal::{
    LogId, Lsn,
    inspect::{Bounds, Frame, FrameKind, Scan, SegmentSummary, Standing},
};
use serde::Serialize;

use crate::{
    arguments::ReportArguments,
    count::{LogCount, SegmentCount, unread, visit_frames},
    histogram::Histogram,
    look::{Look, log_directory},
    outcome::{Failure, Outcome},
    progress, terminal,
};

pub(crate) const HELP: &str = "\
An entry is live if it is in its log: not truncated, replaced, reset, forgotten or compacted. What
is counted; in --json a row is an object that says in \"row\" which it is:
  segments      those with frames: how many, and their bytes: live_bytes of live entries with their
                frames, dead_bytes of other entries, unread_bytes behind damage, free_bytes where
                no frame lies, own_bytes of the rest: the log's pages, and frames without entries
  entry_bytes   sizes of all entries, live or not, without their frames
  frame_bytes   sizes of frames of entries, with header, table and padding
  group_frames, group_bytes
                frames and bytes of each sync group: what one write and one sync put on the disk.
                A frame's watermark (durable_lsn in dump) is the LSN at which its group began, so
                the frames of a segment with one watermark are a group
  log           one log: first_index and last_index; live_entries, live_bytes, dead_entries,
                dead_bytes; oldest_segment: the oldest with a live entry of it; pinned_segments,
                pinned_bytes: all that have one, which are not freed before none has;
                alone_segments, alone_bytes: those of them that no other log keeps, but for the
                active one and damaged ones. Compacting this log to its end frees them
Sizes have count, sum, min, max, and buckets: count of those from first to last.

Sync groups do not tell whether the last group was synced, how long a sync took, how many appends
or threads shared it, or what was in segments that are freed. Marks alone are not counted: an idle
log writes one without a sync, a close syncs one. The zeros behind a group, up to the next 4 KiB,
are written with it and not counted.

Examples, with the data directory of a node or the log's own:
  wal-inspect stats data/1
  wal-inspect stats data/1 --json | jq 'select(.row == \"log\") | {log, alone_bytes}'

Exit codes: 0 done, 2 done but the log is corrupt (see standard error), 3 cannot read, 4 usage.";

pub(crate) fn stats(arguments: &ReportArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    let (look, report) = progress::watched_times(2, &directory, || {
        let look = Look::at(&directory)?;
        let report = Report::of(&look.scan)?;
        Ok::<_, Failure>((look, report))
    })?;
    terminal::print(&if arguments.json { report.json()? } else { report.text() })?;
    look.remark_mark();
    Ok(look.remark(&directory))
}

/// Everything that is told.
#[derive(Debug, Default)]
struct Report {
    segments: SegmentsRow,
    sizes: Sizes,
    logs: BTreeMap<LogId, LogRow>,
}

/// A row of JSON.
#[derive(Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Row<'a> {
    Segments(&'a SegmentsRow),
    EntryBytes(&'a Histogram),
    FrameBytes(&'a Histogram),
    GroupFrames(&'a Histogram),
    GroupBytes(&'a Histogram),
    Log(&'a LogRow),
}

/// All segments with frames together.
#[derive(Debug, Default, Serialize)]
struct SegmentsRow {
    segments: u64,
    bytes: u64,
    live_bytes: u64,
    dead_bytes: u64,
    own_bytes: u64,
    unread_bytes: u64,
    free_bytes: u64,
}

/// One log. Indexes are left out if it has no entries.
#[derive(Debug, Default, Serialize)]
struct LogRow {
    log: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_index: Option<u64>,
    #[serde(flatten)]
    count: LogCount,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_segment: Option<u64>,
    pinned_segments: u64,
    pinned_bytes: u64,
    alone_segments: u64,
    alone_bytes: u64,
}

/// How large things are.
#[derive(Debug, Default)]
struct Sizes {
    entry_bytes: Histogram,
    frame_bytes: Histogram,
    group_frames: Histogram,
    group_bytes: Histogram,
    group: Group,
}

/// The frames of one segment that one sync made durable, as far as they were seen.
#[derive(Debug, Default)]
struct Group {
    begin: Lsn,
    frames: u64,
    bytes: u64,
    /// Marks may lie in front of what somebody waits for.
    is_marks_only: bool,
}

impl Report {
    fn of(scan: &Scan) -> Result<Self, Failure> {
        let mut report = Self::default();
        for (log, bounds) in scan.logs() {
            report.logs.insert(log, LogRow::of(log, &bounds));
        }
        for segment in scan.segments().iter().filter(|segment| segment.base.is_some()) {
            let (mut count, mut sizes) = (SegmentCount::default(), Sizes::default());
            let is_there = visit_frames(scan, segment, |frame, live| {
                count.take(frame, live);
                sizes.take(frame);
            })?;
            if is_there {
                let unread = unread(scan, segment);
                count.unread_bytes = unread.end - unread.start;
                sizes.end_group();
                report.sizes.add(&sizes);
                report.add(segment, &count);
            }
        }
        Ok(report)
    }

    fn add(&mut self, segment: &SegmentSummary, count: &SegmentCount) {
        self.segments.add(segment, count);
        for (&log, counted) in &count.logs {
            let row = self.logs.entry(log).or_insert_with(|| LogRow::of(log, &Bounds::default()));
            row.count.add(counted);
        }
        let pinning: Vec<LogId> = count.live_logs().collect();
        // Behind damage other logs can have entries, too.
        let may_go = !matches!(segment.standing, Standing::Active | Standing::Damaged);
        let is_alone = pinning.len() == 1 && may_go;
        for log in pinning {
            let row = self.logs.get_mut(&log).expect("added above");
            row.oldest_segment.get_or_insert(segment.sequence);
            row.pinned_segments += 1;
            row.pinned_bytes += segment.segment_bytes;
            row.alone_segments += u64::from(is_alone);
            row.alone_bytes += if is_alone { segment.segment_bytes } else { 0 };
        }
    }

    fn json(&self) -> Result<String, Failure> {
        let Sizes { entry_bytes, frame_bytes, group_frames, group_bytes, .. } = &self.sizes;
        let rows = [
            Row::Segments(&self.segments),
            Row::EntryBytes(entry_bytes),
            Row::FrameBytes(frame_bytes),
            Row::GroupFrames(group_frames),
            Row::GroupBytes(group_bytes),
        ];
        terminal::json_lines(rows.into_iter().chain(self.logs.values().map(Row::Log)))
    }

    fn text(&self) -> String {
        let SegmentsRow {
            segments,
            bytes,
            live_bytes,
            dead_bytes,
            own_bytes,
            unread_bytes,
            free_bytes,
        } = &self.segments;
        let mut text = format!(
            "segments: {segments}, bytes {bytes}: live {live_bytes}, dead {dead_bytes}, \
             own {own_bytes}, unread {unread_bytes}, free {free_bytes}\n"
        );
        let Sizes { entry_bytes, frame_bytes, group_frames, group_bytes, .. } = &self.sizes;
        for (name, histogram) in [
            ("bytes of an entry", entry_bytes),
            ("bytes of a frame of entries", frame_bytes),
            ("frames of a sync group", group_frames),
            ("bytes of a sync group", group_bytes),
        ] {
            text.push_str(&format!("\n{name}: {}", histogram.text(terminal::columns())));
        }
        text.push('\n');
        text.push_str(&terminal::table(&LOG_HEADER, self.logs.values().map(LogRow::cells)));
        let mut pinning: Vec<&LogRow> = self.logs.values().collect();
        pinning.retain(|row| row.oldest_segment.is_some());
        pinning.sort_by_key(|row| (row.oldest_segment, row.log));
        text.push_str("\nwhat each log keeps from being freed, the oldest first:\n");
        text.push_str(&terminal::table(&PIN_HEADER, pinning.into_iter().map(LogRow::pin_cells)));
        text
    }
}

impl SegmentsRow {
    fn add(&mut self, segment: &SegmentSummary, count: &SegmentCount) {
        let (total, free) = (count.total(), segment.free());
        self.segments += 1;
        self.bytes += segment.segment_bytes;
        self.live_bytes += total.live_bytes;
        self.dead_bytes += total.dead_bytes;
        self.own_bytes += count.own_bytes(segment);
        self.unread_bytes += count.unread_bytes;
        self.free_bytes += free.end - free.start;
    }
}

impl LogRow {
    fn of(log: LogId, bounds: &Bounds) -> Self {
        let has_entries = bounds.first <= bounds.last;
        Self {
            log: log.0,
            first_index: has_entries.then_some(bounds.first),
            last_index: has_entries.then_some(bounds.last),
            ..Self::default()
        }
    }

    /// What stands below [`LOG_HEADER`].
    fn cells(&self) -> Vec<String> {
        let index =
            |index: Option<u64>| index.map_or_else(|| "-".to_owned(), |index| index.to_string());
        let mut cells = vec![self.log.to_string(), index(self.first_index), index(self.last_index)];
        let LogCount { live_entries, live_bytes, dead_entries, dead_bytes } = self.count;
        let counts = [live_entries, live_bytes, dead_entries, dead_bytes];
        cells.extend(counts.map(|count| count.to_string()));
        cells
    }

    /// What stands below [`PIN_HEADER`].
    fn pin_cells(&self) -> Vec<String> {
        let oldest = self.oldest_segment.unwrap_or(0);
        let (pinned, alone) = (self.pinned_segments, self.alone_segments);
        [self.log.into(), oldest, pinned, self.pinned_bytes, alone, self.alone_bytes]
            .map(|number: u64| number.to_string())
            .to_vec()
    }
}

const LOG_HEADER: [&str; 7] = [
    "log",
    "first_index",
    "last_index",
    "live_entries",
    "live_bytes",
    "dead_entries",
    "dead_bytes",
];

const PIN_HEADER: [&str; 6] =
    ["log", "oldest_segment", "pinned_segments", "pinned_bytes", "alone_segments", "alone_bytes"];

impl Sizes {
    /// Takes in the next frame of a segment.
    fn take(&mut self, frame: &Frame) {
        if frame.kind == FrameKind::Entries {
            self.frame_bytes.take(frame.frame_bytes);
            frame.entries().iter().for_each(|(_, entry)| self.entry_bytes.take(entry.len() as u64));
        }
        if self.group.frames == 0 || self.group.begin != frame.durable_lsn {
            self.end_group();
            self.group =
                Group { begin: frame.durable_lsn, is_marks_only: true, ..Group::default() };
        }
        self.group.frames += 1;
        self.group.bytes += frame.frame_bytes;
        self.group.is_marks_only &= frame.kind == FrameKind::Mark;
    }

    /// No more frames of the group come: groups end with their segment.
    fn end_group(&mut self) {
        let Group { frames, bytes, is_marks_only, .. } = std::mem::take(&mut self.group);
        if frames > 0 && !is_marks_only {
            self.group_frames.take(frames);
            self.group_bytes.take(bytes);
        }
    }

    fn add(&mut self, other: &Self) {
        self.entry_bytes.add(&other.entry_bytes);
        self.frame_bytes.add(&other.frame_bytes);
        self.group_frames.add(&other.group_frames);
        self.group_bytes.add(&other.group_bytes);
    }
}
