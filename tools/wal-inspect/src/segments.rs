//! `segments`: a line for each segment, and what lies where in it.

use kontiki_wal::inspect::{Scan, SegmentSummary, Standing};
use serde::Serialize;

use crate::{
    arguments::ReportArguments,
    count::{Class, SegmentCount, pieces, unread, visit_frames},
    look::{Look, log_directory},
    outcome::{Failure, Outcome},
    picture::{LEGEND, Picture},
    progress, terminal,
};

pub(crate) const HELP: &str = "\
A row a segment, by number, files that wait to become one last; then a picture of each segment that
was read or is prepared.
An entry is live if it is in its log: not truncated, replaced, reset, forgotten or compacted.
The fields of --json; the table leaves out some, and the ending _bytes:
  segment           its number; file: its file's name; bytes: the file's length
  standing          sealed; full: waits to be sealed; active: takes frames; prepared: made ahead;
                    freed: to be removed, or used again while it was read;
                    damaged: needed, and not read, or only up to where it is damaged;
                    unknown: damage before it hides what it is; it can hold entries of any log;
                    spare: a freed one's file, kept; preparing: has no segment's name yet
  base_lsn          LSN of its first frame; end_lsn: behind its last one
  frames, entries   how many, live or not; logs: how many logs have entries in it
  live_bytes        live entries with their frames; dead_bytes: entries that are not live
  unread_bytes      of a damaged or unknown one: behind what was read and counted, as far as frames
                    can go. What is there can be live; verify tells how far frames went at least
  free_bytes        where no frame lies
  own_bytes         the rest, so that the five add up to bytes: header, index and trailer page,
                    checkpoint, and all other frames that hold no entries
  unattested_bytes  of frames at the end of the log of which no later one says that they were
                    synced. The newest sync is attested by what is written after it
  pinned_by         the logs with live entries in it: what keeps it from being freed
Pictures have colour on a terminal, unless NO_COLOR is set; with CLICOLOR_FORCE also elsewhere.

Examples, with the data directory of a node or the log's own:
  wal-inspect segments data/1
  wal-inspect segments data/1 --json | jq 'select(.live_bytes < .dead_bytes) | .file'

Exit codes: 0 done, 2 done but the log is corrupt (see standard error), 3 cannot read, 4 usage.";

pub(crate) fn segments(arguments: &ReportArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    let (look, segments) = progress::watched_times(2, &directory, || {
        let look = Look::at(&directory)?;
        let columns = (!arguments.json).then(terminal::columns);
        let segments = shown(&look.scan, columns)?;
        Ok::<_, Failure>((look, segments))
    })?;
    let rows = segments.iter().map(|(row, _)| row);
    terminal::print(&if arguments.json { terminal::json_lines(rows)? } else { text(&segments) })?;
    look.remark_mark();
    Ok(look.remark(&directory))
}

/// One segment.
#[derive(Debug, Serialize)]
struct SegmentRow {
    segment: u64,
    file: String,
    standing: &'static str,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    base_lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_lsn: Option<u64>,
    frames: u64,
    entries: u64,
    logs: usize,
    live_bytes: u64,
    dead_bytes: u64,
    own_bytes: u64,
    unread_bytes: u64,
    free_bytes: u64,
    unattested_bytes: u64,
    pinned_by: Vec<u32>,
}

/// Every file, with its picture, if there is one; pictures and numbers together are `columns` wide.
fn shown(
    scan: &Scan,
    columns: Option<usize>,
) -> Result<Vec<(SegmentRow, Option<String>)>, Failure> {
    let mut summaries = scan.segments();
    summaries.extend_from_slice(scan.spares());
    let numbers = summaries.iter().map(|summary| summary.sequence.to_string().len()).max();
    let cells = columns.map(|columns| columns - numbers.unwrap_or(0) - 1);
    summaries.into_iter().map(|summary| one(scan, summary, cells)).collect()
}

fn one(
    scan: &Scan,
    mut summary: SegmentSummary,
    cells: Option<usize>,
) -> Result<(SegmentRow, Option<String>), Failure> {
    let mut count = SegmentCount::default();
    // Only where the header page tells the length: a file without one can have any.
    let is_seen = summary.base.is_some() || summary.standing == Standing::Prepared;
    let cells = cells.filter(|_| is_seen);
    let mut picture = cells.map(|cells| Picture::new(summary.segment_bytes, cells));
    let is_there = visit_frames(scan, &summary, |frame, live| {
        count.take(frame, live);
        if let Some(picture) = &mut picture {
            pieces(frame, live).iter().for_each(|(range, class)| picture.add(range, *class));
        }
    })?;
    let unread = unread(scan, &summary);
    count.unread_bytes = unread.end - unread.start;
    if !is_there {
        count = SegmentCount::default();
        picture = None;
        summary = SegmentSummary {
            base: None,
            used_bytes: 0,
            index_bytes: 0,
            standing: Standing::Freed,
            ..summary
        };
    }
    let picture = picture.map(|mut picture| {
        picture.add(&unread, Class::Unread);
        picture.add(&summary.free(), Class::Free);
        picture.text()
    });
    Ok((row(scan, summary, &count), picture))
}

fn row(scan: &Scan, summary: SegmentSummary, count: &SegmentCount) -> SegmentRow {
    let (total, own_bytes, free) = (count.total(), count.own_bytes(&summary), summary.free());
    let end_lsn = summary.base.map(|base| base.0 + summary.used_bytes);
    let unattested = end_lsn.map_or(0, |end| end.saturating_sub(scan.attested().0));
    SegmentRow {
        segment: summary.sequence,
        file: summary.file,
        standing: name(summary.standing),
        bytes: summary.segment_bytes,
        base_lsn: summary.base.map(|base| base.0),
        end_lsn,
        frames: count.frames,
        entries: total.live_entries + total.dead_entries,
        logs: count.logs.len(),
        live_bytes: total.live_bytes,
        dead_bytes: total.dead_bytes,
        own_bytes,
        unread_bytes: count.unread_bytes,
        free_bytes: free.end - free.start,
        unattested_bytes: unattested.min(summary.used_bytes),
        pinned_by: count.live_logs().map(|log| log.0).collect(),
    }
}

fn text(segments: &[(SegmentRow, Option<String>)]) -> String {
    let mut text = terminal::table(&HEADER, segments.iter().map(|(row, _)| cells(row)));
    let numbers = segments.iter().map(|(row, _)| row.segment.to_string().len()).max().unwrap_or(0);
    text.push('\n');
    for (row, picture) in segments {
        let Some(picture) = picture else { continue };
        text.push_str(&format!("{:>numbers$} {picture}\n", row.segment));
    }
    text.push_str(&format!("\n{LEGEND}\n"));
    text
}

/// As the fields of JSON, without the ending that most share: so a row stays short.
const HEADER: [&str; 13] = [
    "segment",
    "file",
    "standing",
    "bytes",
    "base_lsn",
    "frames",
    "entries",
    "logs",
    "live",
    "dead",
    "unread",
    "free",
    "unattested",
];

/// What stands below [`HEADER`].
fn cells(row: &SegmentRow) -> Vec<String> {
    let base_lsn = row.base_lsn.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
    vec![
        row.segment.to_string(),
        row.file.clone(),
        row.standing.to_owned(),
        row.bytes.to_string(),
        base_lsn,
        row.frames.to_string(),
        row.entries.to_string(),
        row.logs.to_string(),
        row.live_bytes.to_string(),
        row.dead_bytes.to_string(),
        row.unread_bytes.to_string(),
        row.free_bytes.to_string(),
        row.unattested_bytes.to_string(),
    ]
}

fn name(standing: Standing) -> &'static str {
    match standing {
        Standing::Sealed => "sealed",
        Standing::Full => "full",
        Standing::Active => "active",
        Standing::Prepared => "prepared",
        Standing::Freed => "freed",
        Standing::Damaged => "damaged",
        Standing::Spare => "spare",
        Standing::Preparing => "preparing",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kontiki_wal::{AppendError, LogId, Wal};

    use super::*;

    /// WAL-CASE 41
    #[test]
    fn a_file_that_a_writer_uses_again_before_it_is_read_is_a_freed_segment() {
        let directory = tempfile::tempdir().unwrap();
        let options = Wal::options().segment_bytes(16 << 10).without_threads();
        let wal = options.open(directory.path()).unwrap();
        let log = wal.log(LogId(1)).unwrap();
        let fill = |sealed: u64| {
            while wal.statistics().sealed_segments < sealed {
                match log.push(vec![b'x'; 500]) {
                    Ok((_, pending)) => pending.wait().unwrap(),
                    Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
                    Err(error) => panic!("{error}"),
                }
            }
        };
        fill(4);
        let scan = Scan::open(directory.path()).unwrap();
        // What is appended after the look is not in it, and does not make another segment of this one.
        log.push("more").unwrap().1.wait().unwrap();
        let before = shown(&scan, Some(80)).unwrap();
        // A file that is only made ready to be used again still holds its old frames, whole.
        while wal.statistics().recycled_segments < 2 {
            log.compact_before(log.last()).unwrap().wait().unwrap();
            fill(wal.statistics().sealed_segments + 1);
        }
        let freed =
            |(row, _): &&(SegmentRow, Option<String>)| row.standing == name(Standing::Freed);
        assert_eq!(before.iter().filter(freed).count(), 0);
        let after = shown(&scan, Some(80)).unwrap();
        let freed: Vec<_> = after.iter().filter(freed).collect();
        assert!(!freed.is_empty(), "{after:?}");
        for (row, picture) in freed {
            assert_eq!((row.frames, row.live_bytes, row.dead_bytes), (0, 0, 0), "{row:?}");
            assert_eq!(*picture, None, "{row:?}");
        }
    }

    /// A file of any length can have the name of a spare.
    #[test]
    fn a_spare_has_no_picture_however_long_it_is() {
        let directory = tempfile::tempdir().unwrap();
        Wal::options().without_threads().open(directory.path()).unwrap().close().unwrap();
        let scan = Scan::open(directory.path()).unwrap();
        let spare = SegmentSummary {
            file: "0000000000000009.spare".to_owned(),
            sequence: 9,
            base: None,
            used_bytes: 0,
            index_bytes: 0,
            segment_bytes: 1 << 60,
            standing: Standing::Spare,
        };
        let (row, picture) = one(&scan, spare, Some(80)).unwrap();
        assert_eq!((row.bytes, row.standing, picture), (1 << 60, "spare", None));
        let pictures = |columns| shown(&scan, columns).unwrap().pop().unwrap().1;
        assert!(pictures(Some(80)).is_some(), "a segment has one");
        assert_eq!(pictures(None), None, "JSON needs none");
    }
}
