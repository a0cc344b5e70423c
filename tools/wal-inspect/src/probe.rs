//! `probe`: how quickly a place makes groups durable, in which way of writing, and what Kontiki makes of that.

use std::{
    fs::File,
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use serde::Serialize;
use tempfile::TempDir;

use crate::{
    measure::{Cell, Way, measure},
    outcome::{Failure, Outcome},
    progress,
    stale::{clean, make_own},
    stop::Stop,
    surroundings::Surroundings,
    terminal,
};

pub(crate) const HELP: &str = "\
Writes to a directory of its own below DIR, which it removes at the end, and reads or changes nothing \
else there: DIR may hold a log, also one that is in use, whose writer it slows down. It begins only \
where there is room for four segments: three are its own, and the fourth is left to such a writer. A \
sync that hangs cannot be broken off; if the process is killed, its kontiki-probe-* stays, which the \
next probe tells of, and removes if it is given --clean. What other programs do to the disk meanwhile \
counts, too.

What is told; in --json a row is an object that says in \"row\" which it is, and what the system \
does not tell is left out:
  place      directory; file_system, mount_point, mount_source, mount_options; device, its
             write_cache and is_rotational; free_bytes, free_files; open_files and open_files_max:
             the process's soft and hard limit; fallocate: works, or why not
  measured   a way of writing groups of so many bytes, each synced before the next: syncs (their
             number), syncs_per_second, bytes_per_second (MB/s in the table; of the groups as they
             are asked for), p50_us, p99_us, max_us (microseconds that a write with its sync took);
             flushes_per_sync and kib_per_sync, as the device counts them. The ways, in turns:
               growing     a positional write at the end of a file that grows: no log does this here
               positional  a positional write into a segment, which is filled with zeros before
               mapped      a store into the map of such a segment
             Into a segment each group is written with zeros up to the next 4 KiB, as a log does,
             into a file that grows without
  warning    warning: what is wrong with the place
  choice     write_mode: how Kontiki writes unless it is told otherwise; quicker_mode, if the other
             one is quicker for small groups here; reasons

Examples:
  wal-inspect probe data/1                     what a node on this disk can expect
  wal-inspect probe --seconds 60 /mnt/disk
  wal-inspect probe --clean data/1             remove what killed probes have left, and measure
  wal-inspect probe --json . | jq 'select(.row == \"measured\") | {way, bytes, p99_us}'

Exit codes: 0 done, also when Ctrl-C ended it after everything was measured once; 3 cannot measure, 4 \
usage.";

#[derive(Debug, Args)]
pub(crate) struct ProbeArguments {
    /// Where a log is, or is to be.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// How long it takes in all, about; each size and way is measured at least once.
    #[arg(long, default_value_t = 10, value_parser = parse_seconds, allow_negative_numbers = true)]
    pub(crate) seconds: u64,
    /// Size of the segments that are written to: 4 MiB to 1 GiB, a multiple of 4 KiB.
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 64 << 20,
        value_parser = parse_segment_bytes,
        allow_negative_numbers = true
    )]
    pub(crate) segment_bytes: u64,
    /// Remove first what probes that were killed have left in DIR.
    #[arg(long)]
    pub(crate) clean: bool,
    /// Print JSON objects, one a line, instead of text.
    #[arg(long)]
    pub(crate) json: bool,
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds) if (1..=3600).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?} is not 1 to 3600 seconds")),
    }
}

fn parse_segment_bytes(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(bytes) if (4 << 20..=1 << 30).contains(&bytes) && bytes.is_multiple_of(4096) => {
            Ok(bytes)
        }
        _ => Err(format!("{text:?} is not 4 MiB to 1 GiB in bytes and a multiple of 4096")),
    }
}

pub(crate) fn probe(arguments: &ProbeArguments) -> Result<Outcome, Failure> {
    let until = Instant::now() + Duration::from_secs(arguments.seconds);
    let stop = Stop::install()?;
    let (what, time) = ("measuring", Duration::from_secs(arguments.seconds));
    let report = progress::timed(what, time, || Report::of(arguments, until, &stop))?;
    terminal::print(&if arguments.json { report.json()? } else { report.text() })?;
    Ok(Outcome::Whole)
}

/// Everything that is told.
#[derive(Debug)]
struct Report {
    place: Place,
    measured: Vec<Measured>,
    warnings: Vec<String>,
    choice: Choice,
    segment_bytes: u64,
}

/// A row of JSON.
#[derive(Serialize)]
#[serde(tag = "row", rename_all = "snake_case")]
enum Row<'a> {
    Place(&'a Place),
    Measured(&'a Measured),
    Warning { warning: &'a str },
    Choice(&'a Choice),
}

#[derive(Debug, Serialize)]
struct Place {
    #[serde(flatten)]
    surroundings: Surroundings,
    fallocate: String,
}

#[derive(Debug, Serialize)]
struct Measured {
    way: &'static str,
    bytes: usize,
    syncs: u64,
    syncs_per_second: f64,
    bytes_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    flushes_per_sync: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kib_per_sync: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Choice {
    write_mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quicker_mode: Option<&'static str>,
    reasons: Vec<String>,
}

impl Report {
    fn of(arguments: &ProbeArguments, until: Instant, stop: &Stop) -> Result<Self, Failure> {
        let failed = |error| Failure::Place { directory: arguments.directory.clone(), error };
        let stale = clean(arguments).map_err(failed)?;
        let (surroundings, device) = Surroundings::of(&arguments.directory).map_err(failed)?;
        let segment_bytes = arguments.segment_bytes;
        check_room(surroundings.free_bytes, segment_bytes, &stale).map_err(failed)?;
        let (own, _lock) = make_own(&arguments.directory).map_err(failed)?;
        let fallocate = fallocate(&own).map_err(failed)?;
        let cells = measure(own.path(), segment_bytes, until, stop, device.as_ref());
        // What cannot be removed is told, unless there is worse to tell.
        let removed = own.close();
        let interrupted =
            || failed(io::Error::other("stopped before everything was measured once"));
        let cells = cells?.ok_or_else(interrupted)?;
        removed.map_err(failed)?;

        let has_device = device.is_some();
        Ok(Self {
            measured: cells.iter().map(|cell| Measured::of(cell, has_device)).collect(),
            warnings: [warnings(&surroundings, &cells), stale].concat(),
            choice: Choice::of(&cells, surroundings.is_memory()),
            place: Place { surroundings, fallocate },
            segment_bytes,
        })
    }

    fn json(&self) -> Result<String, Failure> {
        let rows = [Row::Place(&self.place)]
            .into_iter()
            .chain(self.measured.iter().map(Row::Measured))
            .chain(self.warnings.iter().map(|warning| Row::Warning { warning }))
            .chain([Row::Choice(&self.choice)]);
        terminal::json_lines(rows)
    }

    fn text(&self) -> String {
        let mut text = self.place.text(self.segment_bytes);
        text.push('\n');
        text.push_str(&terminal::table(&HEADER, self.measured.iter().map(Measured::cells)));
        text.push_str("flushes and KiB: of the device for each sync\n\n");
        for warning in &self.warnings {
            text.push_str(&format!("WARNING: {warning}\n"));
        }
        let Choice { write_mode, reasons, .. } = &self.choice;
        text.push_str(&format!("Kontiki's choice: {write_mode} writes into prepared segments\n"));
        for reason in reasons {
            text.push_str(&format!("  {reason}\n"));
        }
        text
    }
}

impl Place {
    fn text(&self, segment_bytes: u64) -> String {
        let around = &self.surroundings;
        let unknown = || "unknown".to_owned();
        let mount = around.mount.as_ref().map_or_else(unknown, |mount| {
            let (from, at) = (&mount.mount_source, &mount.mount_point);
            format!("{} from {from} at {at} ({})", mount.file_system, mount.mount_options)
        });
        let device = around.device.as_ref().map_or_else(unknown, |name| {
            let cache = around.write_cache.as_deref().unwrap_or("unknown");
            let kind = if around.is_rotational == Some(true) { ", rotational" } else { "" };
            format!("{name}, write cache: {cache}{kind}")
        });
        let files = around.free_files.map(|files| format!(", {files} files"));
        let limit = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |n| n.to_string());
        let log = match around.open_files_max {
            Some(files) => {
                let gib = files.saturating_mul(segment_bytes) >> 30;
                format!(": a log of at most {gib} GiB in segments of {} MiB", segment_bytes >> 20)
            }
            None => String::new(),
        };
        format!(
            "directory: {}\nfile system: {mount}\ndevice: {device}\nfree: {} MiB{}\n\
             open files: {}, raised as needed to {}{log}\nfallocate: {}\n",
            around.directory,
            around.free_bytes >> 20,
            files.unwrap_or_default(),
            limit(around.open_files),
            limit(around.open_files_max),
            self.fallocate,
        )
    }
}

impl Measured {
    fn of(cell: &Cell, has_device: bool) -> Self {
        let rounded = |figure: f64| (figure * 100.0).round() / 100.0;
        let per_sync = |count: u64| has_device.then(|| rounded(count as f64 / cell.syncs() as f64));
        Self {
            way: cell.way.name(),
            bytes: cell.bytes,
            syncs: cell.syncs(),
            syncs_per_second: rounded(cell.syncs_per_second()),
            bytes_per_second: (cell.syncs_per_second() * cell.bytes as f64).round(),
            p50_us: cell.quantile_us(0.5),
            p99_us: cell.quantile_us(0.99),
            max_us: cell.quantile_us(1.0),
            flushes_per_sync: per_sync(cell.counted.flushes),
            kib_per_sync: per_sync(cell.counted.kib_written),
        }
    }

    /// What stands below [`HEADER`].
    fn cells(&self) -> Vec<String> {
        let per_sync = |figure: Option<f64>| figure.map_or("-".to_owned(), |n| format!("{n:.2}"));
        let mut cells = vec![self.bytes.to_string(), self.way.to_owned()];
        let whole = [self.syncs_per_second, self.p50_us, self.p99_us, self.max_us];
        cells.extend(whole.map(|figure| format!("{figure:.0}")));
        cells.push(format!("{:.1}", self.bytes_per_second / 1e6));
        cells.extend([self.flushes_per_sync, self.kib_per_sync].map(per_sync));
        cells
    }
}

const HEADER: [&str; 9] =
    ["bytes", "way", "syncs/s", "p50_us", "p99_us", "max_us", "MB/s", "flushes", "KiB"];

/// What whoever keeps a log here must know.
fn warnings(around: &Surroundings, cells: &[Cell]) -> Vec<String> {
    let (directory, file_system) = (&around.directory, around.file_system());
    let mut warnings = Vec::new();
    if around.is_memory() {
        warnings.push(format!(
            "{directory} is on {file_system}, which is memory: a sync does nothing there, nothing \
             outlives the machine's power, and no figure here says anything of a disk"
        ));
    }
    if file_system == "overlay" {
        warnings.push(format!(
            "{directory} is on overlay, as in a container: what lies below it is not shown, and can go \
             with the container; give the log a volume"
        ));
    }
    if NETWORK.contains(&file_system) || file_system.starts_with("fuse") {
        warnings.push(format!(
            "{directory} is on {file_system}: whether a synced byte is on a disk is for others to say"
        ));
    }
    let prepared = cells.iter().filter(|cell| cell.way != Way::Growing);
    let (syncs, flushes) = prepared.fold((0, 0), |(syncs, flushes), cell| {
        (syncs + cell.syncs(), flushes + cell.counted.flushes)
    });
    if around.write_cache.as_deref() == Some("write back") && flushes * 2 < syncs {
        warnings.push(format!(
            "syncs do not reach the disk: it was told to flush its cache {flushes} times for {syncs} \
             syncs (a file system mounted without barriers, or one that lies); a power cut can take \
             what was acknowledged"
        ));
    }
    warnings
}

impl Choice {
    /// What is measured in memory is no reason for anything.
    fn of(cells: &[Cell], is_memory: bool) -> Self {
        let rate = |way: Way, bytes: usize| {
            let cell = cells.iter().find(|cell| cell.way == way && cell.bytes == bytes);
            cell.map_or(0.0, Cell::syncs_per_second)
        };
        let gain = |way: Way, over: Way, bytes: usize| rate(way, bytes) / rate(over, bytes);
        let gains = |way: Way, over: Way| {
            SHOWN.map(|(bytes, name)| format!("{:.2} at {name}", gain(way, over, bytes))).join(", ")
        };
        let is_quicker = !is_memory
            && SHOWN[..2]
                .iter()
                .all(|&(bytes, _)| gain(Way::Mapped, Way::Positional, bytes) >= QUICKER);
        let advice = if is_quicker {
            "quicker for small groups: a program whose groups are small sets \
             kontiki_wal::Options::write_mode to WriteMode::Mapped, and accepts that an error of the \
             medium ends it by a signal"
        } else {
            "no reason to map: a write that fails is an error then, not a signal"
        };
        Self {
            write_mode: Way::Positional.name(),
            quicker_mode: is_quicker.then_some(Way::Mapped.name()),
            reasons: vec![
                format!(
                    "syncs/s of positional against growing: {}; what preparing segments gives",
                    gains(Way::Positional, Way::Growing)
                ),
                format!(
                    "syncs/s of mapped against positional: {}; {advice}",
                    gains(Way::Mapped, Way::Positional)
                ),
            ],
        }
    }
}

/// A segment more than it takes must be free: the writer of a log must not meet a full disk for a measurement.
fn check_room(free_bytes: u64, segment_bytes: u64, stale: &[String]) -> io::Result<()> {
    let needed = 4 * segment_bytes;
    if free_bytes >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let stale: String = stale.iter().map(|line| format!("; {line}")).collect();
    Err(io::Error::other(format!(
        "{} MiB are free, and four segments of {} MiB take {} MiB: make room, or measure with smaller \
         ones (--segment-bytes){stale}",
        mib(free_bytes),
        mib(segment_bytes),
        mib(needed)
    )))
}

/// Whether the file system reserves space. Where it does not, a segment's space is written.
#[cfg(target_os = "linux")]
fn fallocate(own: &TempDir) -> io::Result<String> {
    use rustix::fs::{FallocateFlags, fallocate};

    let file = File::create_new(own.path().join("reserved"))?;
    Ok(match fallocate(&file, FallocateFlags::empty(), 0, 1 << 20) {
        Ok(()) => "works".to_owned(),
        Err(error) => format!("{}: zeros are written instead", io::Error::from(error)),
    })
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_own: &TempDir) -> io::Result<String> {
    Ok("not on this system: zeros are written instead".to_owned())
}

/// Sizes that decide, with their names; the small ones first.
const SHOWN: [(usize, &str); 4] =
    [(512, "512 B"), (4 << 10, "4 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];

/// By so much must mapped writes be quicker to be worth a word: less is what two runs differ by.
const QUICKER: f64 = 1.2;

/// File systems whose disk is another machine's.
const NETWORK: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "virtiofs"];
