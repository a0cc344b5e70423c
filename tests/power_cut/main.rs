//! Cuts the power under the example `append_lines`, on a real file system, and looks whether every
//! index that it printed is there afterwards, and what it dropped is not. `kill -9` would not show
//! that: what a process wrote outlives it in the page cache.
//!
//! Before a cut random ranges of the log's files are written back, as the kernel may at any moment, so
//! that what was not synced is on the disk in parts. The rounds take turns between a log that grows,
//! in fresh files, and one that drops its old lines and uses its files again.
//!
//! And it takes the room away from a disk that promised more than it has.
//!
//! It needs root, loop devices and Linux 6.5, and says so where it has to be skipped. A seed repeats what
//! is written, dropped and written back; where the writer stands when it is cut is chance.

#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

mod examples;
mod files;
mod group;
mod lines;
mod log;
mod moment;
mod tally;
mod thin;
mod volume;
mod writer;

use std::{
    env,
    io::{self, Write},
    mem,
};

use kontiki_wal::inspect::Verdict;

use crate::{
    examples::Examples, group::Outcome, lines::Random, log::Log, moment::Moment, tally::Tally,
    thin::ThinVolume, volume::Volume, writer::Writer,
};

/// Cuts on each file system; `POWER_CUTS` asks for more.
const CUTS: u64 = 20;

#[test]
fn what_was_printed_holds_after_a_power_cut_on_ext4() {
    cut_often("ext4", &["-q", "-F"]);
}

#[test]
fn what_was_printed_holds_after_a_power_cut_on_xfs() {
    cut_often("xfs", &["-q", "-f"]);
}

/// WAL-CASE 26: what was written as zeros has no room any more when it is written again, so a sync fails. The log stops with an
/// error, also where it stores into maps, and all that was printed is there: before, and when the page cache has forgotten it.
#[test]
fn what_was_printed_holds_on_a_disk_that_promised_more_than_it_has() {
    let mut examples = None;
    for again in [false, true] {
        let volume = match ThinVolume::create() {
            Ok(volume) => volume,
            Err(reason) => return say(&format!("skipped: power_cut on a thin disk: {reason}")),
        };
        let examples = examples.get_or_insert_with(Examples::build);
        let mut log = Log::new(volume.path().join("log"), None);
        let mut writer = Writer::start(&examples.append_lines, &log, 0);
        writer.wait_until_printed(100);
        writer.freeze();
        volume.fill();
        writer.thaw();
        let (printed, error) = writer.end_with_error();
        say(&format!("power_cut on a thin disk: {} lines: {}", printed.last, error.trim_end()));
        assert!(error.contains("poisoned: "), "{error}");
        if again {
            volume.mount_again();
        }
        log.check(examples, printed, 0);
        volume.give_room();
        log.finish(examples, 0);
    }
}

/// In turns, for the log that grows and for the one that drops old lines.
const MOMENTS: [[Moment; 4]; 2] = [
    [Moment::Opening, Moment::Flowing, Moment::Unsynced, Moment::Unsynced],
    [Moment::Opening, Moment::Flowing, Moment::Unsynced, Moment::Reuse],
];

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
    let mode = if log::is_mapped() { "mapped" } else { "positional" };
    say(&format!("power_cut on {kind}: POWER_CUT_SEED={seed} KONTIKI_WRITE_MODE={mode}"));
    let mut random = Random::new(seed);
    let mut tally = Tally::default();
    let new_log = |keeps: bool, round: u64| {
        Log::new(volume.path().join(format!("log-{round}")), keeps.then_some(KEPT_LINES))
    };
    let mut logs = [new_log(false, 0), new_log(true, 1)];

    for round in 0..cuts {
        let (which, turn) = (usize::from(round % 2 == 1), round / 2);
        if turn > 0 && turn % TURNS_OF_A_LOG == 0 {
            let log = mem::replace(&mut logs[which], new_log(which == 1, round));
            log.finish(&examples, round);
        }
        let log = &mut logs[which];
        let moment = MOMENTS[which][usize::try_from(turn % 4).expect("below 4")];
        let newest_segment = log.newest_segment();
        let cutter = volume.cutter();
        let mut writer = Writer::start(&examples.append_lines, log, round);
        let group = moment.cut(cutter, &mut writer, log.directory(), &mut random);
        let printed = writer.end();
        volume.mount_again();

        let outcome = group.map(|group| group.outcome());
        let verdict = log.check(&examples, printed, round);
        tally.lines += printed.count;
        tally.rotations += log.newest_segment().saturating_sub(newest_segment.max(1));
        tally.torn_tails += u64::from(matches!(verdict, Some(Verdict::TornTail { .. })));
        tally.torn_groups += u64::from(outcome == Some(Outcome::Torn));
        tally.look_at(log.directory());
    }
    for log in logs {
        log.finish(&examples, cuts);
    }
    say(&format!("power_cut on {kind}: {cuts} cuts, {tally}"));
    tally.check(cuts, seed);
}

/// Past the test harness, which shows what a test prints only when it fails.
fn say(text: &str) {
    writeln!(io::stderr(), "{text}").expect("standard error");
}

/// About a megabyte, as a segment: with each one that is filled another is freed.
const KEPT_LINES: u64 = 300;

/// After so many a log is begun anew, so that the volume and the reading stay small.
const TURNS_OF_A_LOG: u64 = 5;
