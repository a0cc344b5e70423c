//! Cuts the power under the example `append_lines`, on a real file system, and looks whether every
//! index that it printed is there afterwards. `kill -9` would not show that: what a process wrote
//! outlives it in the page cache. It needs root and loop devices, and says so where it has to be
//! skipped.

#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod examples;
mod lines;
mod volume;
mod writer;

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use kontiki_wal::inspect::{Scan, Verdict};

use crate::{
    examples::Examples,
    lines::{Random, line},
    volume::Volume,
    writer::Writer,
};

/// Cuts on each file system; `POWER_CUTS` asks for more.
const CUTS: u64 = 20;

#[test]
fn every_printed_index_is_there_after_a_power_cut_on_ext4() {
    cut_often("ext4", &["-q", "-F"]);
}

#[test]
fn every_printed_index_is_there_after_a_power_cut_on_xfs() {
    cut_often("xfs", &["-q", "-f"]);
}

fn cut_often(kind: &str, flags: &[&str]) {
    let volume = match Volume::create(kind, flags) {
        Ok(volume) => volume,
        Err(reason) => return say(&format!("skipped: power_cut on {kind}: {reason}")),
    };
    let examples = Examples::build();
    let number = |name: &str, default| {
        env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (cuts, seed) = (number("POWER_CUTS", CUTS), number("POWER_CUT_SEED", 1));
    say(&format!("power_cut on {kind} runs with POWER_CUT_SEED={seed}"));
    let mut random = Random::new(seed);
    // For each line that is in the log, in order, the round that wrote it.
    let mut kept: Vec<u64> = Vec::new();
    let mut printed_in_all = 0;

    for round in 0..cuts {
        let directory = volume.path().join("log");
        let cutter = volume.cutter();
        let mut writer =
            Writer::start(&examples.append_lines, &directory, round, kept.len() as u64);
        // One round in four is cut at any moment after its start, recovery included; the others
        // while lines flow.
        if round % 4 > 0 {
            writer.wait_until_printed(random.below(4000));
        }
        // No event to wait for: the moment itself is what is drawn.
        thread::sleep(Duration::from_micros(random.below(50_000)));
        cutter.cut();
        let printed = writer.end();
        volume.mount_again();

        read_lines(&examples.read_lines, &directory, &mut kept, round);
        let found = kept.len() as u64;
        assert!(
            found >= printed.last,
            "{kind}, round {round}, seed {seed}: index {} was printed, but the log ends at {found}",
            printed.last
        );
        printed_in_all += printed.count;
    }
    let scan = Scan::open(volume.path().join("log")).expect("a readable log");
    assert!(!matches!(scan.verdict(), Verdict::Corrupt(_)), "{:?}", scan.verdict());
    let used = scan.segments().into_iter().filter(|segment| segment.used_bytes > 0);
    assert!(used.count() > 1, "seed {seed}: no change of segment was among it");
    assert!(printed_in_all > 1000, "only {printed_in_all} lines were printed: cut too early?");
    say(&format!("power_cut on {kind}: {cuts} cuts, {printed_in_all} lines printed, all there"));
}

/// Whether the first segment has its name. A cut before that leaves nothing that is a log.
fn is_a_log(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.flatten().any(|entry| entry.path().extension() == Some(OsStr::new("wal")))
}

/// Reads the log by the example. Lines that were there after the last cut are still there; the others are this round's,
/// without a gap.
fn read_lines(example: &Path, directory: &Path, kept: &mut Vec<u64>, round: u64) {
    if !is_a_log(directory) {
        assert!(kept.is_empty(), "round {round}: the log is gone");
        return;
    }
    let output = Command::new(example).arg(directory).output().expect("read_lines");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "round {round}: {errors}");
    let mut index = 0;
    for found in output.stdout.split_inclusive(|byte| *byte == b'\n') {
        let writer = kept.get(index).copied().unwrap_or(round);
        index += 1;
        let expected = format!("{index}\t{}\n", line(writer, index as u64));
        assert!(
            found == expected.as_bytes(),
            "round {round}: index {index} is not the line that round {writer} wrote, but {:?}",
            String::from_utf8_lossy(&found[..found.len().min(80)])
        );
    }
    assert!(index >= kept.len(), "round {round}: {} lines were there, now {index}", kept.len());
    kept.resize(index, round);
}

/// Past the test harness, which shows what a test prints only when it fails.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").expect("standard error");
}
