//! What can be asked.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use kontiki_wal::inspect::FrameKind;

use crate::{
    completions::{self, CompletionsArguments},
    diff::{self, DiffArguments},
    hexdump::{self, HexdumpArguments},
    probe::{self, ProbeArguments},
    repair::{self, RepairArguments},
    segments, stats,
    verify::{self, VerifyArguments},
};

const EXIT_CODES: &str = "\
Exit codes:
  0  whole; also a live tail, that is, a writer is at work. Bytes behind the end that belong to
     no frame are not told from room that was never used: opening writes over them
  1  torn tail (verify, and hexdump of what lies in it): a frame behind the last whole one whose
     body is damaged, or frames behind a damaged one, as a crash leaves them; opening cuts them
     off, and nothing that a frame which is left attests as durable is among them. Two logs that
     are different (diff)
  2  corrupt: bytes that were durable are damaged or missing; or a repair of the log was begun and
     not ended (verify, repair)
  3  cannot read: no such directory, no log in it, no permission, a newer format; or cannot
     repair, cannot measure, or cannot write the result
  4  usage: an unknown command, flag or value";

const EXAMPLES: &str = "\
Examples, with the data directory of a node or the log's own; more are in the help of each command:
  wal-inspect verify data/1               is it whole, and if not, where is it damaged?
  wal-inspect dump data/1 | less          what is in it, frame by frame";

const DUMP_EXAMPLES: &str = "\
Examples, with the data directory of a node or the log's own:
  wal-inspect dump data/1                          every frame, every entry
  wal-inspect dump data/1 --log 1 --index 100..200 the entries 100 to 199 of log 1
  wal-inspect dump data/1 --lsn 4096.. --term 7    entries of term 7, from LSN 4096 on
  wal-inspect dump data/1 --kind state             terms and votes over time
  wal-inspect dump data/1 --hex --preview 16       payloads in hexadecimal, 16 bytes of each
  wal-inspect dump data/1 --json | jq .            one JSON object a frame
  wal-inspect dump data/1 --follow --kind entries  goes on as the writer appends, until Ctrl-C

JSON, a line for each frame; what a frame does not have is left out:
  segment, file, offset      number and file name of the segment, and where the frame begins in it
  lsn, frame_bytes           where it begins in the stream, and its length
  kind                       as --kind takes it
  log                        of frames that belong to a log
  first_index, last_index    of entries; first_index also of truncate, compact and reset
  term                       of the entries; of the entry before first_index for compact and reset;
                             none for truncate
  durable_lsn, closed        everything below was durable; the mark of a clean close
  damage                     what is wrong with its body
  entries                    index, bytes (their number), payload or payload_hex, payload_cut if
                             more follows; of a Raft log raft: command, empty, configuration
                             (with members, of each: id, address, incarnation, voter) or unknown
  state                      bytes, payload or payload_hex; raft: term, vote, cluster, incarnation,
                             configurations (of each: index, term, members); raft_unreadable if it
                             cannot be read
  logs                       of a checkpoint: log, first_index, last_index, term_before, runs
                             (first index and term of each), state

--follow shows frames when they are whole in the file, which can be before they are durable. No
other process is told that a log has grown, so it looks again ten times a second. Ctrl-C, SIGTERM
and a closed pipe end it as the end of the log would. Frames that were freed before they could be
shown, or cannot be for damage, are named on standard error. A corrupt log that no writer has open,
or that ends in the damage, is not followed.

Exit codes: 0 done, 2 done but the log is corrupt (see standard error), 3 cannot read, 4 usage.";

/// Looks into a Kontiki log without changing it, also while a writer is at work; repairs a damaged one if asked to.
#[derive(Debug, Parser)]
#[command(version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"), subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints a script with which a shell completes the command line.
    #[command(after_help = completions::HELP, display_order = 1000)]
    Completions(CompletionsArguments),
    /// Prints the frames of the log, each with its place, and what they hold.
    #[command(after_help = DUMP_EXAMPLES)]
    Dump(DumpArguments),
    /// Says where the logs of two replicas part, if they do.
    #[command(after_help = diff::HELP)]
    Diff(DiffArguments),
    /// Prints the bytes of one frame field by field, and what is wrong with them.
    #[command(after_help = hexdump::HELP)]
    Hexdump(HexdumpArguments),
    /// Measures how quickly a directory's disk makes writes durable, and says what to make of that.
    #[command(after_help = probe::HELP)]
    Probe(ProbeArguments),
    /// Reads every frame of the log and says whether all are whole, and if not, where it is damaged.
    #[command(after_help = format!("{}\n\n{EXIT_CODES}", verify::HELP))]
    Verify(VerifyArguments),
    /// Says what can be done about a log that is damaged and what would be lost, or does it.
    #[command(after_help = repair::HELP)]
    Repair(RepairArguments),
    /// Shows each segment: how much of it is live, dead and free, and where.
    #[command(after_help = segments::HELP)]
    Segments(ReportArguments),
    /// Counts entries, frames and syncs, and says which log keeps which segments from being freed.
    #[command(after_help = stats::HELP)]
    Stats(ReportArguments),
}

#[derive(Debug, Default, Args)]
pub(crate) struct DumpArguments {
    /// Directory of the log, or the data directory of a node, which has it in wal below it.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
    /// The same as --format jsonl.
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Only frames of these logs.
    #[arg(long = "log", value_name = "LOG", value_delimiter = ',')]
    pub(crate) logs: Vec<u32>,
    /// Only entries with these indexes: A..B (without B), A..=B, A.., ..B or A.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(crate) index: Option<RangeInclusive<u64>>,
    /// Only entries of these terms.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(crate) term: Option<RangeInclusive<u64>>,
    /// Only frames that begin at these places in the stream.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(crate) lsn: Option<RangeInclusive<u64>>,
    /// Only frames of these kinds.
    #[arg(long = "kind", value_name = "KIND", value_enum, value_delimiter = ',')]
    pub(crate) kinds: Vec<Kind>,
    /// Stop after so many frames, at least 1.
    #[arg(long, value_name = "FRAMES", value_parser = parse_limit)]
    pub(crate) limit: Option<usize>,
    /// How many bytes of each payload to show; 0 for none.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub(crate) preview: usize,
    /// Show payloads in hexadecimal.
    #[arg(long)]
    pub(crate) hex: bool,
    /// Go on as the writer appends.
    #[arg(long, short)]
    pub(crate) follow: bool,
}

impl DumpArguments {
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Jsonl } else { self.format }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ReportArguments {
    /// Directory of the log, or the data directory of a node, which has it in wal below it.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Print JSON objects, one a line, instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line a frame, and below it an indented line for each thing that it holds.
    #[default]
    Text,
    /// A JSON object a line, one for each frame.
    Jsonl,
}

impl Format {
    /// What `--json` asks for, given or not.
    pub(crate) fn asked(json: bool) -> Self {
        if json { Self::Jsonl } else { Self::Text }
    }
}

/// The kinds of frames, by the names that they have in what is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    SegmentStart,
    Checkpoint,
    Entries,
    State,
    Truncate,
    Compact,
    Reset,
    Forget,
    Mark,
    Opened,
    Freed,
}

impl From<FrameKind> for Kind {
    fn from(kind: FrameKind) -> Self {
        match kind {
            FrameKind::SegmentStart => Self::SegmentStart,
            FrameKind::Checkpoint => Self::Checkpoint,
            FrameKind::Entries => Self::Entries,
            FrameKind::State => Self::State,
            FrameKind::Truncate => Self::Truncate,
            FrameKind::Compact => Self::Compact,
            FrameKind::Reset => Self::Reset,
            FrameKind::Forget => Self::Forget,
            FrameKind::Mark => Self::Mark,
            FrameKind::Opened => Self::Opened,
            FrameKind::Freed => Self::Freed,
        }
    }
}

impl Kind {
    /// As it is printed, and as `--kind` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SegmentStart => "segment-start",
            Self::Checkpoint => "checkpoint",
            Self::Entries => "entries",
            Self::State => "state",
            Self::Truncate => "truncate",
            Self::Compact => "compact",
            Self::Reset => "reset",
            Self::Forget => "forget",
            Self::Mark => "mark",
            Self::Opened => "opened",
            Self::Freed => "freed",
        }
    }
}

/// Reads a range as Rust writes it; a number alone is the range of that number.
fn parse_range(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is not a number; write A..B, as in 5..10"))
    };
    let Some((first, end)) = text.split_once("..") else {
        let only = number(text)?;
        return Ok(only..=only);
    };
    let first = if first.is_empty() { 0 } else { number(first)? };
    let last = match end.strip_prefix('=') {
        _ if end.is_empty() => Some(u64::MAX),
        Some(last) => Some(number(last)?),
        None => number(end)?.checked_sub(1),
    };
    last.filter(|&last| first <= last)
        .map(|last| first..=last)
        .ok_or_else(|| "the range is empty".to_owned())
}

fn parse_limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1 frame is shown".to_owned()),
        Ok(limit) => Ok(limit),
        Err(_) => Err(format!("{text:?} is not a number of frames")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    /// Clap fills longer ones up to its 100 columns, which is well only for a paragraph in one line.
    #[test]
    fn no_line_of_help_is_broken_in_its_middle() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let lines: Vec<&str> = [""].into_iter().chain(help.lines()).chain([""]).collect();
            for lines in lines.windows(3) {
                let is_list = lines[2].starts_with("  ");
                let is_paragraph = lines[0].is_empty() && (lines[2].is_empty() || is_list);
                let is_short = lines[1].len() <= 100;
                assert!(is_short || is_paragraph, "{}: {}", command.get_name(), lines[1]);
            }
        }
    }

    #[test]
    fn kinds_are_taken_by_the_names_that_are_printed() {
        for kind in Kind::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
    }

    #[test]
    fn ranges_are_read_as_rust_writes_them() {
        for (text, range) in [
            ("5..10", 5..=9),
            ("5..=10", 5..=10),
            ("5..", 5..=u64::MAX),
            ("..10", 0..=9),
            ("7", 7..=7),
            ("..", 0..=u64::MAX),
        ] {
            assert_eq!(parse_range(text), Ok(range), "{text}");
        }
        for text in ["", "a", "5..a", "-1", "10..5", "5..5", "..0", "5...9", "5..=4"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }
}
