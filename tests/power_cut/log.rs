//! A log that is written and cut, and what is known of it: what was printed and what it has shown.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kontiki_wal::inspect::{Scan, Verdict};

use crate::{
    examples::Examples,
    files::{files, number},
    lines::line,
    writer::Printed,
};

pub(crate) struct Log {
    directory: PathBuf,
    /// How many lines its writer keeps at least; all if `None`.
    keep: Option<u64>,
    /// The first index that it has shown.
    first: u64,
    /// For each index that it has shown, from 1 on, the round that wrote it.
    rounds: Vec<u64>,
}

impl Log {
    pub(crate) fn new(directory: PathBuf, keep: Option<u64>) -> Self {
        Self { directory, keep, first: 1, rounds: Vec::new() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The last index that it has shown; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.rounds.len() as u64
    }

    /// The number of its newest segment; 0 without one.
    pub(crate) fn newest_segment(&self) -> u64 {
        files(&self.directory, "wal").last().map_or(0, |segment| number(segment))
    }

    /// What its writer is started with.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let keep = self.keep.map(|keep| ["--keep".to_owned(), keep.to_string()]);
        let size = ["--segment-mib".to_owned(), SEGMENT_MIB.to_string()];
        let mapped = is_mapped().then(|| "--mapped".to_owned());
        let options = keep.into_iter().flatten().chain(size).chain(mapped).map(OsString::from);
        options.chain([self.directory.clone().into_os_string()]).collect()
    }

    /// Reads it by the example after a cut in `round`: every line is there that was printed or shown
    /// before and not dropped, what was dropped for good is not, and the next ones are this round's.
    /// Says how the log ends, if the cut left one.
    pub(crate) fn check(
        &mut self,
        examples: &Examples,
        printed: Printed,
        round: u64,
    ) -> Option<Verdict> {
        // Before its first segment has its name, nothing is a log.
        if files(&self.directory, "wal").is_empty() {
            assert!(printed.last == 0, "round {round}: the log is gone");
            return None;
        }
        let first_before = self.first;
        self.read(&examples.read_lines, round);
        let (first, last) = (self.first, self.last());
        assert!(
            last >= printed.last,
            "round {round}: index {} was printed, but the log ends at {last}",
            printed.last
        );
        let dropped_until = |last: u64| self.keep.map_or(1, |keep| (last + 1).saturating_sub(keep));
        // A printed index says that what it drops is gone for good, and nothing more is dropped.
        let least = match printed.count {
            0 => first_before,
            _ => first_before.max(dropped_until(printed.last)),
        };
        let most = dropped_until(last).max(1);
        assert!(
            (least..=most).contains(&first),
            "round {round}: {first} to {last} are there after {} was printed; \
             the first should be {least} to {most}",
            printed.last
        );
        let scan = Scan::open(&self.directory).expect("a readable log");
        let verdict = scan.verdict();
        assert!(!matches!(verdict, Verdict::Corrupt(_)), "round {round}: {verdict:?}");
        Some(verdict.clone())
    }

    /// Opens and closes it: now it is whole, and shows the same.
    pub(crate) fn finish(mut self, examples: &Examples, round: u64) {
        let mut append = Command::new(&examples.append_lines);
        let output = append.args(self.arguments()).stdin(Stdio::null()).output().expect("it runs");
        assert!(output.status.success(), "round {round}: {output:?}");
        let scan = Scan::open(&self.directory).expect("a readable log");
        let verdict = scan.verdict();
        assert!(matches!(verdict, Verdict::Whole { closed: true, .. }), "{verdict:?}");
        let (first, last) = (self.first, self.last());
        self.read(&examples.read_lines, round);
        assert_eq!((self.first, self.last()), (first, last), "round {round}: opened and closed");
        fs::remove_dir_all(&self.directory).expect("a directory of ours");
    }

    /// Takes in what the log shows. The lines are those that were written, without a gap.
    fn read(&mut self, read_lines: &Path, round: u64) {
        let output = Command::new(read_lines).arg(&self.directory).output().expect("read_lines");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "round {round}: {errors}");
        let text = String::from_utf8(output.stdout).expect("lines of ours");
        let index = |line: &str| line.split('\t').next().and_then(|index| index.parse().ok());
        let Some(first) = text.lines().next().map(|line| index(line).expect("index, tab, line"))
        else {
            assert!(self.rounds.is_empty(), "round {round}: the log is empty");
            return;
        };
        let mut last = first - 1;
        for found in text.lines() {
            last += 1;
            let place = usize::try_from(last - 1).expect("64-bit only");
            let writer = self.rounds.get(place).copied().unwrap_or(round);
            assert!(
                found == format!("{last}\t{}", line(writer, last)),
                "round {round}: index {last} is not the line that round {writer} wrote, but {:?}",
                &found[..found.len().min(80)]
            );
        }
        assert!(last >= self.last(), "round {round}: {} was shown, now {last} is", self.last());
        self.first = first;
        self.rounds.resize(usize::try_from(last).expect("64-bit only"), round);
    }
}

/// Small, so that many segments are filled, and enough for the longest line.
const SEGMENT_MIB: u64 = 1;

/// `KONTIKI_WRITE_MODE=mapped` writes with stores into maps.
pub(crate) fn is_mapped() -> bool {
    match env::var("KONTIKI_WRITE_MODE").as_deref() {
        Ok("mapped") => true,
        Ok("positional") | Err(_) => false,
        Ok(other) => panic!("KONTIKI_WRITE_MODE is mapped or positional, not {other:?}"),
    }
}
