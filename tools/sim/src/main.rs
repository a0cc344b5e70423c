//! `sim`: lets simulated clusters happen, each from a seed, and stops at the first in which something does not hold.

#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    ops::Range,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use kontiki_sim::{
    explore::{Limits, explore},
    minimise::minimise,
    world::{self, Failure, Report, coverage::Coverage},
};

const HELP: &str = "\
Examples:
  sim --seed 7                          one world, and what happened in it
  sim --seed 7 --trace t.ndjson         the same, with every step of it
  sim --seeds 0..20000 -j 2             many worlds; stops at the first that fails
  sim --time 10m                        worlds from a random seed on, for ten minutes
  sim --seed 7 --without 3,5            the same world without two of its faults
  sim --explore 1000000                 every short sequence of steps of three cores

A failure names the seed, what did not hold, the faults that it takes, and the command that shows it
again.

Exit codes: 0 all held, 1 something did not, 3 a file cannot be written, 4 usage.";

/// Simulated clusters: the production code over simulated disks, networks and clocks, each from one seed.
#[derive(Debug, Parser)]
#[command(version, after_help = HELP)]
struct Arguments {
    /// The world of this seed only.
    #[arg(long, conflicts_with_all = ["seeds", "time"])]
    seed: Option<u64>,
    /// The worlds of these seeds.
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<Range<u64>>,
    /// Worlds for so long, such as 30s or 10m.
    #[arg(long, value_parser = parse_time)]
    time: Option<Duration>,
    /// So many at a time.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    jobs: u64,
    /// Without these of the seed's faults.
    #[arg(long, value_name = "FAULTS", value_delimiter = ',', requires = "seed")]
    without: Vec<usize>,
    /// Writes what clients did and saw, an operation a line.
    #[arg(long, value_name = "FILE", requires = "seed")]
    history: Option<PathBuf>,
    /// Writes every step, a line each.
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// No worlds: all that can happen to three cores in a few steps, about so many states of it.
    #[arg(long, value_name = "STATES", conflicts_with_all = ["seed", "seeds", "time"])]
    explore: Option<usize>,
    /// Fails if something that the product can do never occurred.
    #[arg(long)]
    cover: bool,
    /// Does not look for the fewest faults that make a world fail.
    #[arg(long)]
    as_is: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match (arguments.seed, arguments.explore) {
        (Some(seed), _) => one(seed, &arguments),
        (None, Some(states)) => search(states),
        (None, None) => many(&arguments),
    };
    done.unwrap_or_else(|error| {
        // Whoever reads has seen enough.
        if error.kind() != io::ErrorKind::BrokenPipe {
            eprintln!("sim: {error}");
        }
        ExitCode::from(3)
    })
}

/// Every short sequence of steps.
fn search(states: usize) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match explore(Limits { states, ..Limits::USUAL }) {
        Ok(explored) => {
            writeln!(out, "{explored:?}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(what) => {
            writeln!(out, "FAILED: {what}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// One world.
fn one(seed: u64, arguments: &Arguments) -> io::Result<ExitCode> {
    let left_out: BTreeSet<usize> = arguments.without.iter().copied().collect();
    let mut file = arguments.trace.as_ref().map(File::create).transpose()?.map(BufWriter::new);
    let ended = match &mut file {
        None => world::run(seed, &left_out, None),
        Some(file) => {
            let mut failed = Ok(());
            let write = |line: String| {
                if failed.is_ok() {
                    failed = writeln!(file, "{line}");
                }
            };
            let ended = world::run(seed, &left_out, Some(Box::new(write)));
            failed?;
            file.flush()?;
            ended
        }
    };
    if let Some(path) = &arguments.history {
        let history =
            ended.as_ref().map_or_else(|failure| &failure.history, |report| &report.history);
        let mut file = BufWriter::new(File::create(path)?);
        history.iter().try_for_each(|done| writeln!(file, "{}", done.json()))?;
        file.flush()?;
    }
    match ended {
        Ok(report) => {
            print(seed, &report)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            tell(&failure, &left_out, arguments)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn print(seed: u64, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Report { fingerprint, time, events, operations, coverage, .. } = report;
    writeln!(
        out,
        "seed {seed}: all held; fingerprint {fingerprint:016x}, {:.1} s, {events} steps, {operations} operations",
        *time as f64 / 1e9
    )?;
    write!(out, "{coverage}")
}

/// What did not hold, with the fewest faults that it takes.
fn tell(failure: &Failure, left_out: &BTreeSet<usize>, arguments: &Arguments) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Failure { seed, what, at, .. } = failure;
    writeln!(out, "seed {seed} FAILED at {:.6} s: {what}", *at as f64 / 1e9)?;
    let left_out = if arguments.as_is { left_out.clone() } else { minimise(failure, left_out) };
    let Err(Failure { faults, what, at, .. }) = world::run(*seed, &left_out, None) else {
        return writeln!(
            out,
            "and held when it was tried again: the world is not the same each time"
        );
    };
    writeln!(out, "with {} faults, at {:.6} s: {what}", faults.len(), at as f64 / 1e9)?;
    for (number, planned) in &faults {
        writeln!(out, "  {number} at {:.6} s: {:?}", planned.at as f64 / 1e9, planned.fault)?;
    }
    let mut lines = std::collections::VecDeque::new();
    let keep = |line: String| {
        lines.push_back(line);
        if lines.len() > LINES_KEPT {
            lines.pop_front();
        }
    };
    let _failed = world::run(*seed, &left_out, Some(Box::new(keep)));
    writeln!(out, "the last that happened:")?;
    lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
    let without: Vec<String> = left_out.iter().map(ToString::to_string).collect();
    let without = if without.is_empty() {
        String::new()
    } else {
        format!(" --without {}", without.join(","))
    };
    writeln!(out, "again: sim --seed {seed}{without} --trace trace.ndjson")
}

/// How all worlds together went.
#[derive(Default)]
struct Sum {
    coverage: Coverage,
    worlds: u64,
    failure: Option<Failure>,
}

fn many(arguments: &Arguments) -> io::Result<ExitCode> {
    let begun = Instant::now();
    let first = arguments.seeds.as_ref().map_or_else(draw, |seeds| seeds.start);
    let end = arguments.seeds.as_ref().map_or(u64::MAX, |seeds| seeds.end);
    writeln!(io::stdout(), "seeds from {first} on")?;
    let (next, sum) = (AtomicU64::new(first), Mutex::new(Sum::default()));
    let is_over = || {
        let has_failed = sum.lock().unwrap_or_else(PoisonError::into_inner).failure.is_some();
        has_failed || arguments.time.is_some_and(|time| begun.elapsed() >= time)
    };
    let work = || {
        while !is_over() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                break;
            }
            let ended = world::run(seed, &BTreeSet::new(), None);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            match ended {
                Ok(report) => {
                    sum.worlds += 1;
                    sum.coverage.add(&report.coverage);
                }
                Err(failure) => sum.failure = Some(failure),
            }
            progress(sum.worlds, begun);
        }
    };
    thread::scope(|scope| (0..arguments.jobs).for_each(|_| drop(scope.spawn(work))));
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if let Some(failure) = &sum.failure {
        tell(failure, &BTreeSet::new(), arguments)?;
        return Ok(ExitCode::FAILURE);
    }
    let Sum { worlds, coverage, .. } = &sum;
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    writeln!(io::stdout(), "{worlds} worlds held, {:.0} a minute", *worlds as f64 / minutes)?;
    write!(io::stdout(), "{coverage}")?;
    let missing = coverage.missing();
    if arguments.cover && !missing.is_empty() {
        writeln!(io::stdout(), "never occurred: {}", missing.join(", "))?;
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn progress(worlds: u64, begun: Instant) {
    if io::stderr().is_terminal() {
        let _unseen = write!(io::stderr(), "\r{worlds} worlds, {} s", begun.elapsed().as_secs());
    }
}

/// A seed that nobody chose.
fn draw() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() << 20 | u64::from(now.subsec_micros()))
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let parts = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    parts
        .filter(|(a, b)| a < b)
        .map(|(a, b)| a..b)
        .ok_or_else(|| format!("{text:?} is no range A..B"))
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(number) => (number, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let seconds: u64 =
        number.parse().map_err(|_| format!("{text:?} is no time such as 30s or 10m"))?;
    Ok(Duration::from_secs(seconds * factor))
}

/// So much of what happened before a failure is printed.
const LINES_KEPT: usize = 40;
