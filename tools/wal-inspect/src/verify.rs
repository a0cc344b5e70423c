//! `verify`: whether a log is whole, and if not, where it is damaged. One line for each finding.

use std::{
    io::{self, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clap::Args;
use kontiki_wal::{
    Corruption, Lsn,
    inspect::{Effort, Frame, FrameKind, Scan, SegmentSummary, Unread, Verdict},
};
use serde::Serialize;

use crate::{
    look::{Look, cores, log_directory},
    marked::{MarkRow, Marked},
    outcome::{Failure, Outcome, corruption_line, unread_line},
    place::{self, Entries, Place},
    progress, terminal,
};

pub(crate) const HELP: &str = "\
Every frame of every segment that is not freed is read and must be whole and follow on the one \
before; so must the index and the trailer of a sealed segment. That finds all that a disk does to a \
log. --deep also holds against each other what the log says more than once, which finds faults of \
a writer, and bytes that somebody made, under checksums that hold: the checkpoint of each segment \
against the frames of the segment before; indexes and terms of entries, cuts and freed segments \
against the checkpoint before them; the index and the trailer of a sealed segment against its \
frames; the room that each frame must leave; where segments follow on each other; and what frames \
say was durable, which never descends. Files that are no segments, or freed ones, hold nothing of \
the log and are not read.

Damage does not end it. Behind a damaged body it goes on with the next frame; behind a header page \
or a frame's header that does not hold, with the next segment. What could not be read is named, \
from where to where and why, and not counted. A frame whose body is damaged is counted, and its \
entries, as its header has them.

Examples, with the data directory of a node or the log's own:
  wal-inspect verify data/1
  wal-inspect verify data/1 --deep -j 4
  wal-inspect verify data/1 > /dev/null || echo \"exit code $?\"
  wal-inspect verify data/1 --json | jq 'select(.row == \"damage\") | {file, offset, log}'

JSON, a line for the verdict, then one for each finding; what there is nothing of is left out:
  row            verdict; damage: bytes that were durable are damaged or missing; unread: bytes
                 that damage keeps from being read, all others were; torn: what opening will cut off
  verdict        whole, live (whole, and a writer is at work), torn, corrupt, or unfinished (a
                 repair was begun and not ended: the log is not opened); with deep: whether the
                 look was; segments, frames, entries: how many were read, with freed segments and
                 prepared ones, which stats leaves out, and entries that are not live; end_lsn:
                 where the log ends, or the frames that can be read of its newest segment that
                 begins whole; closed: whether its last frame is the mark of a clean close; mark:
                 what a repair has left, with stage (done; cutting or salvaging: not ended) and
                 losses, a text for each; damages, unread: how many lines of each follow
  segment, file  of the others: number and file name of the segment, and offset, the place in that;
                 lsn: the same place in the stream
  end            of unread: where these bytes end in the file
  log, first_index, last_index, term
                 what is lost there, where that is known
  what           what is wrong, or why it was not read
  expected, found
                 two numbers that should be the same";

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Directory of the log, or the data directory of a node, which has it in wal below it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Hold what the log says in several places against each other, too.
    #[arg(long)]
    deep: bool,
    /// Read so many segments at a time; as many as there are cores, if not given.
    #[arg(long, short = 'j', value_name = "N", value_parser = parse_threads, allow_negative_numbers = true)]
    threads: Option<NonZeroUsize>,
    /// Print JSON objects, one a line, instead of text.
    #[arg(long)]
    json: bool,
}

pub(crate) fn verify(arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    let threads = arguments.threads.unwrap_or_else(cores);
    let effort = Effort { is_deep: arguments.deep, threads };
    let (look, verified) = progress::watched(&directory, || {
        let look = Look::with(&directory, effort)?;
        let verified = Verified::of(&look, arguments.deep)?;
        Ok::<_, Failure>((look, verified))
    })?;
    terminal::print(&if arguments.json { verified.json()? } else { verified.text() })?;
    if !arguments.json && matches!(verified.verdict.verdict, Word::Corrupt) {
        if arguments.deep && is_whole_at_a_plain_look(&directory)? {
            let _unheard = writeln!(io::stderr(), "wal-inspect: {ONLY_DEEP}");
        } else {
            look.remark_way_out(&directory);
        }
    }
    Ok(verified.outcome())
}

/// Then repair, which looks like that, has nothing to do and would send back.
fn is_whole_at_a_plain_look(directory: &Path) -> Result<bool, Failure> {
    let look = progress::watched(directory, || Look::at(directory))?;
    Ok(!matches!(look.scan.verdict(), Verdict::Corrupt(_)))
}

fn parse_threads(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| format!("{text:?} is no number of threads; at least 1 reads"))
}

/// What is told.
struct Verified {
    verdict: VerdictRow,
    findings: Vec<FindingRow>,
    /// What is said of the mark of a repair; empty without one.
    marked: String,
}

/// How the log is as a whole.
#[derive(Debug, Serialize)]
struct VerdictRow {
    row: &'static str,
    verdict: Word,
    deep: bool,
    segments: u64,
    frames: u64,
    entries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_lsn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<MarkRow>,
    damages: usize,
    unread: usize,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Whole,
    Live,
    Torn,
    Unfinished,
    Corrupt,
}

/// A place where something is wrong. What is not known of it is left out.
#[derive(Debug, Serialize)]
struct FindingRow {
    row: &'static str,
    #[serde(flatten)]
    place: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<u64>,
    #[serde(flatten)]
    of: Entries,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
    /// The same in one line.
    #[serde(skip)]
    line: String,
}

impl Verified {
    fn of(look: &Look, deep: bool) -> Result<Self, Failure> {
        let Look { scan, is_live, marked } = look;
        let segments = scan.segments();
        let (mut word, closed, findings) = match scan.verdict() {
            Verdict::Corrupt(damage) => {
                let damage = damage.iter().map(|found| FindingRow::damage(found, &segments));
                let unread = scan.unread().iter().map(FindingRow::unread);
                (Word::Corrupt, None, damage.chain(unread).collect())
            }
            _ if *is_live => (Word::Live, None, Vec::new()),
            Verdict::Whole { closed, .. } => (Word::Whole, Some(*closed), Vec::new()),
            Verdict::TornTail { end, segment, offset } => {
                (Word::Torn, None, vec![FindingRow::torn(scan, *end, segment, *offset)?])
            }
        };
        let end_lsn = match scan.verdict() {
            Verdict::Whole { end, .. } | Verdict::TornTail { end, .. } => Some(end.0),
            Verdict::Corrupt(_) => scan.tail().map(|tail| tail.lsn().0),
        };
        let (row, counts) = ("verdict", scan.counts());
        let unread = scan.unread().len();
        let damages = if matches!(word, Word::Corrupt) { findings.len() - unread } else { 0 };
        if marked.as_ref().is_some_and(Marked::is_unfinished) && !matches!(word, Word::Corrupt) {
            word = Word::Unfinished;
        }
        let verdict = VerdictRow {
            row,
            verdict: word,
            deep,
            segments: counts.segments,
            frames: counts.frames,
            entries: counts.entries,
            end_lsn,
            closed,
            mark: marked.as_ref().map(Marked::row),
            damages,
            unread,
        };
        let marked = marked.as_ref().map(Marked::text).unwrap_or_default();
        Ok(Self { verdict, findings, marked })
    }

    fn outcome(&self) -> Outcome {
        match self.verdict.verdict {
            Word::Whole | Word::Live => Outcome::Whole,
            Word::Torn => Outcome::TornTail,
            Word::Unfinished | Word::Corrupt => Outcome::Corrupt,
        }
    }

    fn json(&self) -> Result<String, Failure> {
        Ok(terminal::json_lines([&self.verdict])? + &terminal::json_lines(&self.findings)?)
    }

    fn text(&self) -> String {
        let VerdictRow { segments, frames, entries, end_lsn, .. } = &self.verdict;
        let end = end_lsn.map_or_else(String::new, |lsn| format!(", end lsn {lsn}"));
        let read = format!("{segments} segments, {frames} frames, {entries} entries{end}");
        let closed = if self.verdict.closed == Some(true) { "closed" } else { "not closed" };
        let found: String = self.findings.iter().map(|row| format!("{}\n", row.line)).collect();
        let marked = &self.marked;
        match self.verdict.verdict {
            Word::Whole => format!("whole: {read}, {closed}\n{marked}"),
            Word::Live => format!("live tail: {read}; a writer is at work\n{marked}"),
            Word::Unfinished => format!("{marked}{found}read: {read}\n"),
            Word::Corrupt if self.verdict.unread > 0 => format!(
                "{found}read: {segments} segments, {frames} frames, {entries} entries\n{marked}"
            ),
            Word::Torn | Word::Corrupt => format!("{found}{marked}"),
        }
    }
}

impl FindingRow {
    fn damage(found: &Corruption, segments: &[SegmentSummary]) -> Self {
        let (expected, value) = (found.expected, found.found);
        let is_compared = expected != value;
        let own = segments.iter().find(|segment| segment.file == found.segment);
        Self {
            row: "damage",
            place: Place::new(
                &found.segment,
                found.offset,
                own.and_then(|segment| lsn(segment, found.offset)),
            ),
            end: None,
            of: Entries::of(found),
            what: found.what.clone(),
            expected: is_compared.then_some(expected),
            found: is_compared.then_some(value),
            line: format!("corrupt: {}", corruption_line(found)),
        }
    }

    fn unread(unread: &Unread) -> Self {
        let lsn = unread.lsn.map(|lsn| lsn.0);
        Self {
            row: "unread",
            place: Place::new(&unread.file, unread.bytes.start, lsn),
            end: Some(unread.bytes.end),
            of: Entries::default(),
            what: unread.why.to_owned(),
            expected: None,
            found: None,
            line: format!("not read: {}", unread_line(unread)),
        }
    }

    fn torn(scan: &Scan, end: Lsn, file: &str, offset: u64) -> Result<Self, Failure> {
        let place = Place::new(file, offset, Some(end.0));
        // What is lost with it, if it is a frame whose header is whole.
        let mut lost = None;
        for frame in place.segment.into_iter().flat_map(|segment| scan.segment_frames(segment)) {
            lost = Some(frame?).filter(|frame| frame.lsn == end);
        }
        let entries = lost.as_ref().filter(|frame| frame.kind == FrameKind::Entries);
        let of = Entries {
            log: lost.as_ref().map(|frame| frame.log.0),
            first_index: entries.map(|frame| frame.first_index),
            last_index: entries.map(place::last_index),
            term: entries.map(|frame: &Frame| frame.term),
        };
        let what = "not attested; opening the log will cut it off".to_owned();
        let mut line = format!("torn tail: segment {file} offset {offset} lsn {}", end.0);
        of.push_text(&mut line);
        line.push_str(&format!(": {what}"));
        let (row, expected, found) = ("torn", None, None);
        Ok(Self { row, place, end: None, of, what, expected, found, line })
    }
}

/// A place among the frames of a segment as one in the stream; its pages and its index have none there.
fn lsn(segment: &SegmentSummary, offset: u64) -> Option<u64> {
    let ahead = offset.checked_sub(FRAMES_AT).filter(|&ahead| ahead <= segment.used_bytes)?;
    segment.base.map(|base| base.0 + ahead)
}

/// What is said to do about it.
const ONLY_DEEP: &str = "only --deep finds this: all that was written is there, but some of it is not what a writer writes, and repair does not \
     mend that. Keep the directory; go on with a replica that is whole, or with what dump shows (diff compares two)";

/// Where frames begin in a segment's file, behind the header page.
const FRAMES_AT: u64 = 4096;
