//! `verify`: whether a log is whole, and if not, where it is damaged. One line for each finding.

use std::io::{self, ErrorKind, Write};

use kontiki_wal::inspect::{Frame, FrameKind, Scan, Verdict};

use crate::{
    arguments::VerifyArguments,
    look::{Look, log_directory},
    outcome::{Failure, Outcome, corruption_line},
    place, progress,
};

pub(crate) fn verify(arguments: &VerifyArguments) -> Result<Outcome, Failure> {
    let directory = log_directory(&arguments.directory);
    let (outcome, lines) = progress::watched(&directory, || findings(&Look::at(&directory)?))?;
    match io::stdout().write_all(lines.as_bytes()) {
        // The exit code tells what the reader did not wait for.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(outcome),
    }
}

fn findings(Look { scan, is_live }: &Look) -> Result<(Outcome, String), Failure> {
    let contents = Contents::of(scan)?;
    Ok(match scan.verdict() {
        Verdict::Corrupt(corruptions) => {
            let lines = corruptions
                .iter()
                .map(|corruption| format!("corrupt: {}\n", corruption_line(corruption)))
                .collect();
            (Outcome::Corrupt, lines)
        }
        Verdict::Whole { end, .. } | Verdict::TornTail { end, .. } if *is_live => {
            let text = contents.text();
            (Outcome::Whole, format!("live tail: {text}, end lsn {}; a writer is at work\n", end.0))
        }
        Verdict::Whole { end, closed } => {
            let closed = if *closed { "closed" } else { "not closed" };
            (Outcome::Whole, format!("whole: {}, end lsn {}, {closed}\n", contents.text(), end.0))
        }
        Verdict::TornTail { end, segment, offset } => {
            let mut line = format!("torn tail: segment {segment} offset {offset} lsn {}", end.0);
            if let Some(frame) = &contents.torn {
                push_frame(&mut line, frame);
            }
            line.push_str(": not attested; opening the log will cut it off\n");
            (Outcome::TornTail, line)
        }
    })
}

/// What is lost with a frame of entries.
fn push_frame(line: &mut String, frame: &Frame) {
    place::push(line, "log", Some(frame.log.0));
    if frame.kind == FrameKind::Entries {
        let last = place::last_index(frame);
        place::push(line, "index", Some(place::range(frame.first_index, last)));
        place::push(line, "term", Some(frame.term));
    }
}

/// How much was read.
#[derive(Debug, Default)]
struct Contents {
    segments: usize,
    frames: u64,
    entries: u64,
    /// The frame at the end of the log that is not whole, if its header is.
    torn: Option<Frame>,
}

impl Contents {
    fn of(scan: &Scan) -> Result<Self, Failure> {
        let mut contents = Self { segments: scan.segments().len(), ..Self::default() };
        for frame in scan.frames() {
            let frame = frame?;
            contents.frames += 1;
            if frame.kind == FrameKind::Entries {
                contents.entries += u64::from(frame.count);
            }
            if let Verdict::TornTail { end, .. } = scan.verdict()
                && frame.lsn == *end
            {
                contents.torn = Some(frame);
            }
        }
        Ok(contents)
    }

    fn text(&self) -> String {
        let Self { segments, frames, entries, .. } = self;
        format!("{segments} segments, {frames} frames, {entries} entries")
    }
}
