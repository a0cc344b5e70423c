//! `hexdump`: the bytes of one frame, field by field, and what is wrong with them.

use std::{
    io::{self, BufWriter, ErrorKind, Write},
    path::PathBuf,
};

use clap::{ArgGroup, Args};
use kontiki_wal::{
    Corruption, Lsn, OpenError,
    inspect::{HeaderPage, RawFrame, Standing, Unread, Verdict},
};
use serde::Serialize;

use crate::{
    arguments::Format,
    fields::Field,
    layout,
    look::{Look, is_at, log_directory},
    outcome::{Failure, Outcome, corruption_line},
    place::{self, Place},
    progress, terminal,
};

pub(crate) const HELP: &str = "\
Examples, with the data directory of a node or the log's own:
  wal-inspect hexdump data/1 --lsn 4096
  wal-inspect hexdump data/1 --lsn 4096 --header            the header page of its segment, too
  wal-inspect hexdump data/1 --segment 0000000000000003.wal --offset 4240
                                                            a place as verify names it
  wal-inspect hexdump data/1 --segment 3                    the header page of segment 3
  wal-inspect hexdump data/1 --lsn 4096 --json | jq .fields

Each line: place in the file, in hexadecimal; place in the frame; bytes; name by wal/FORMAT.md;
value; behind a ! what is wrong. A place in the middle of a frame means that frame; behind a header
that does not hold, only the place where a frame begins does. Of a frame whose header does not hold,
and was not changed by one flipped bit, the header alone is shown.

JSON, a line for the header page and one for the frame; what is not known is left out:
  what                   header page or frame
  segment, file, offset  number and file name of the segment, and where this begins in it
  lsn                    where the frame begins in the stream
  whole, damage          whether it holds, and if not, why
  fields                 of each: offset in the file, at in the frame, bytes in hexadecimal, name,
                         value, wrong

Exit codes: 0 whole, also where a writer has not finished it, 1 not whole, and behind the end of
the log (torn tail), 2 damaged, 3 cannot read, or no frame lies there, 4 usage.";

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("place").args(["lsn", "segment"]).required(true)))]
pub(crate) struct HexdumpArguments {
    /// Directory of the log, or the data directory of a node, which has it in wal below it.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The frame at this place in the stream.
    #[arg(long)]
    lsn: Option<u64>,
    /// The header page of this segment, given by number or by its file's name; with --offset a frame in it.
    #[arg(long, value_parser = parse_segment)]
    segment: Option<u64>,
    /// The frame at this place in the segment's file; 0 is the header page.
    #[arg(long, requires = "segment")]
    offset: Option<u64>,
    /// Show the header page of the frame's segment, too.
    #[arg(long)]
    header: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn hexdump(arguments: &HexdumpArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    let look = progress::watched(&directory, || Look::at(&directory))?;
    if let Some(segment) = arguments.segment {
        let file = place::file_name(segment);
        if !directory.join(&file).exists() {
            let line = format!("no segment {segment} ({file}) is in {}", directory.display());
            return Err(Failure::NoFrame(line));
        }
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let mut outcome = Outcome::Whole;
    match write(&look, arguments, &mut outcome, &mut out) {
        // The exit code tells what the reader did not wait for.
        Err(Failure::Write(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(outcome),
        result => result.map(|()| outcome),
    }
}

/// Each outcome is known before what it is about is written.
fn write(
    look: &Look,
    arguments: &HexdumpArguments,
    outcome: &mut Outcome,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let HexdumpArguments { segment, offset, header, json, .. } = arguments;
    let format = Format::asked(*json);
    let frame = match (*segment, *offset, arguments.lsn) {
        (Some(segment), offset, _) => {
            // No frame lies at 0: that is the page, as verify names it.
            let offset = offset.filter(|&offset| offset > 0);
            if *header || offset.is_none() {
                write_page(look, segment, format, outcome, out)?;
            }
            let Some(offset) = offset else { return Ok(()) };
            look.scan.raw_frame_at(segment, offset)?
        }
        (None, _, lsn) => {
            let frame = look.scan.raw_frame(Lsn(lsn.unwrap_or(0)))?;
            if let (Some(frame), true) = (&frame, header) {
                write_page(look, frame.segment, format, outcome, out)?;
            }
            frame
        }
    };
    let judged = match frame {
        Some(frame) => judge(look, frame)?,
        None => None,
    };
    let Some((frame, of_frame)) = judged else {
        out.flush()?;
        return Err(no_frame(look, arguments));
    };
    if *outcome == Outcome::Whole {
        *outcome = of_frame;
    }
    Ok(Shown::frame(&frame).write(format, out)?)
}

/// A page that does not hold is shown; the checksums of its frames cannot be told then.
fn write_page(
    look: &Look,
    segment: u64,
    format: Format,
    outcome: &mut Outcome,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let page = look.scan.header_page(segment)?;
    *outcome = match page.fault {
        None => Outcome::Whole,
        Some(OpenError::Corruption(_)) => Outcome::Corrupt,
        Some(_) => Outcome::CannotRead,
    };
    Ok(Shown::page(&page).write(format, out)?)
}

/// The frame and how it stands; `None` if what lies there is no frame and never was.
fn judge(look: &Look, frame: RawFrame) -> Result<Option<(RawFrame, Outcome)>, Failure> {
    let is_behind = |end: &Lsn| frame.lsn.is_none_or(|lsn| lsn >= *end);
    let is_written = frame.bytes.iter().any(|&byte| byte != 0);
    let outcome = match look.scan.verdict() {
        _ if frame.fault.is_none() => Some(Outcome::Whole),
        Verdict::Corrupt(damage) if is_damage(look, &frame, damage)? => Some(Outcome::Corrupt),
        Verdict::TornTail { end, .. } if is_behind(end) && is_written => {
            Some(if look.is_live { Outcome::Whole } else { Outcome::TornTail })
        }
        _ => None,
    };
    Ok(outcome.map(|outcome| (frame, outcome)))
}

/// Whether a frame was at this place of a corrupt log: what is damaged elsewhere makes none of unused room.
fn is_damage(look: &Look, frame: &RawFrame, damage: &[Corruption]) -> Result<bool, Failure> {
    let is_told = is_at(frame, damage);
    let is_written = frame.bytes.iter().any(|&byte| byte != 0);
    if is_told || !is_written {
        return Ok(is_told);
    }
    let is_within =
        |unread: &Unread| unread.file == frame.file && unread.bytes.contains(&frame.offset);
    if look.scan.unread().iter().any(is_within) {
        return Ok(true);
    }
    let Some(tail) = look.scan.tail() else { return Ok(true) };
    // Behind damage that ends the log may lie more of it.
    Ok(frame.lsn.is_some_and(|lsn| lsn < tail.lsn()) || look.ends_in_damage()?)
}

fn no_frame(
    look: &Look,
    HexdumpArguments { lsn, segment, offset, .. }: &HexdumpArguments,
) -> Failure {
    let mut line = "no frame lies at".to_owned();
    place::push(&mut line, "lsn", *lsn);
    place::push(&mut line, "segment", *segment);
    place::push(&mut line, "offset", *offset);
    if let (Some(segment), Some(offset)) = (*segment, *offset)
        && let Some(what) = behind_frames(look, segment, offset)
    {
        return Failure::NoFrame(format!(
            "{line}, but {what} of the segment: hexdump does not take it apart yet"
        ));
    }
    if let Verdict::Whole { end, .. } | Verdict::TornTail { end, .. } = look.scan.verdict() {
        line.push_str(&format!("; the log ends at lsn {}", end.0));
    }
    let unread = look.scan.unread().iter().map(|unread| unread.file.as_str()).collect::<Vec<_>>();
    if !unread.is_empty() {
        line.push_str(&format!("; not all is read of {}: see verify", unread.join(", ")));
    }
    Failure::NoFrame(line)
}

/// What a full segment has at `offset` behind its frames, if that is there.
fn behind_frames(look: &Look, number: u64, offset: u64) -> Option<&'static str> {
    let segments = look.scan.segments();
    let segment = segments.iter().find(|segment| segment.sequence == number)?;
    let is_full = !matches!(segment.standing, Standing::Active | Standing::Prepared);
    let trailer_at = segment.segment_bytes.checked_sub(PAGE_BYTES).filter(|_| is_full)?;
    if (trailer_at..segment.segment_bytes).contains(&offset) {
        return Some("the trailer page");
    }
    (trailer_at.saturating_sub(segment.index_bytes)..trailer_at)
        .contains(&offset)
        .then_some("the index")
}

/// A segment by its number, or by its file's path or name, which has it in hexadecimal.
fn parse_segment(text: &str) -> Result<u64, String> {
    let name = text.rsplit_once('/').map_or(text, |(_, name)| name);
    // A name need not have its ending: no number has as many digits.
    let number = match name.strip_suffix(".wal") {
        None if name.len() == NAME_DIGITS => u64::from_str_radix(name, 16).ok(),
        None => text.parse().ok(),
        Some(_) => place::segment_number(name),
    };
    number.ok_or_else(|| format!("{text:?} is neither a segment's number nor its file's name"))
}

/// What is shown of a frame or a header page.
#[derive(Debug, Serialize)]
struct Shown {
    what: &'static str,
    #[serde(flatten)]
    place: Place,
    whole: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
    fields: Vec<Field>,
}

impl Shown {
    fn frame(frame: &RawFrame) -> Self {
        let damage = frame.fault.as_ref().map(corruption_line);
        let fields = layout::of_frame(frame);
        let place = Place::new(&frame.file, frame.offset, frame.lsn.map(|lsn| lsn.0));
        Self { what: "frame", place, whole: damage.is_none(), damage, fields }
    }

    fn page(page: &HeaderPage) -> Self {
        let damage = page.fault.as_ref().map(|fault| match fault {
            OpenError::Corruption(corruption) => corruption_line(corruption),
            error => error.to_string(),
        });
        let (place, whole) = (Place::new(&page.file, 0, None), damage.is_none());
        let fields = layout::of_header_page(page);
        Self { what: "header page", place, whole, damage, fields }
    }

    fn write(&self, format: Format, out: &mut impl Write) -> io::Result<()> {
        match format {
            Format::Text => self.write_text(out)?,
            Format::Jsonl => terminal::write_json_line(self, out)?,
        }
        out.flush()
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Place { file, offset, lsn, .. } = &self.place;
        let mut line = format!("{} segment {file} offset {offset}", self.what);
        place::push(&mut line, "lsn", *lsn);
        writeln!(out, "{line}")?;
        for field in &self.fields {
            write_field(field, out)?;
        }
        match &self.damage {
            None => writeln!(out, "whole"),
            Some(damage) => writeln!(out, "damaged: {damage}"),
        }
    }
}

/// Eight bytes a line, with the name in the first; zeros that would take more are told by their number.
fn write_field(field: &Field, out: &mut impl Write) -> io::Result<()> {
    let mut ahead = 0;
    loop {
        let (line, rest) = field.bytes[ahead..].split_at(line_bytes(&field.bytes[ahead..]));
        let shown = match line.len() > LINE_BYTES {
            true => format!("00 x {}", line.len()),
            false => line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
        };
        let (offset, at) = (field.offset + ahead as u64, format!("+{}", field.at + ahead));
        let name = if ahead == 0 { &field.name } else { "" };
        let value = match &field.value {
            Some(value) if ahead == 0 => value.text(),
            None if line.iter().any(|&byte| byte != 0) => characters(line),
            _ => String::new(),
        };
        let mut text = format!("{offset:08x} {at:<6} {shown:<23}  {name:<20} {value}");
        if let (Some(wrong), true) = (&field.wrong, ahead == 0) {
            text.push_str(&format!("  ! {wrong}"));
        }
        writeln!(out, "{}", text.trim_end())?;
        ahead += line.len();
        if rest.is_empty() {
            return Ok(());
        }
    }
}

/// How many of the bytes come into the next line.
fn line_bytes(bytes: &[u8]) -> usize {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    zeros.max(bytes.len().min(LINE_BYTES))
}

/// The bytes as characters, a dot for each that is not printable ASCII.
fn characters(bytes: &[u8]) -> String {
    let character = |&byte: &u8| match byte {
        b' '..=b'~' => char::from(byte),
        _ => '.',
    };
    format!("|{}|", bytes.iter().map(character).collect::<String>())
}

const LINE_BYTES: usize = 8;

/// Of the header page and the trailer page of a segment.
const PAGE_BYTES: u64 = 4096;

/// Of a segment's file name.
const NAME_DIGITS: usize = 16;
