//! Every figure as a share of the raw disk's, in one table: `cargo bench --bench ratio`.
//! What the columns mean: README.md in this directory.

#![forbid(unsafe_code)]

mod support {
    pub(crate) mod appends;
    pub(crate) mod commits;
    pub(crate) mod device;
    pub(crate) mod frames;
    pub(crate) mod place;
    #[path = "../../raft/tests/cluster/ports.rs"]
    pub(crate) mod ports;
    pub(crate) mod raw;
    pub(crate) mod rounds;
}

use std::{env, path::Path, process, time::Duration};

use support::{
    appends::{Appends, WORKS, Work},
    commits::{self, Cluster, IN_FLIGHT},
    device::Device,
    place,
    raw::RawDisk,
    rounds::{self, Measured, PerGroup, ROUNDS, Spread},
};

const USAGE: &str = "\
usage: cargo bench --bench ratio [-- [--quick] [FILTER]]

  --quick   rounds of 20 ms: shows that it works, not how fast it is
  FILTER    only the work whose name contains it

KONTIKI_BENCH_DIR is the directory to measure in; the default is Cargo's target directory.";

fn main() {
    let arguments = Arguments::parse_or_exit();
    let place = place::fresh_or_exit();
    let device = Device::of(place.path())
        .inspect_err(|error| eprintln!("the device's counters are left out: {error}"))
        .ok();
    println!("medians of {ROUNDS} rounds of {:?} each, range in brackets", arguments.round);
    println!();
    print_row([
        "work",
        "ours, entries/s",
        "raw disk, entries/s",
        "share",
        "flushes per group",
        "KiB per group",
    ]);
    print_row(["---", "---", "---", "---", "---", "---"]);
    for work in WORKS {
        let name = format!("append {}", work.name);
        if name.contains(&arguments.filter) {
            let row = place::row(&place);
            let measured = append(work, row.path(), &arguments, device.as_ref());
            print_measured(&name, work.group_entries(), &measured);
        }
    }
    for in_flight in IN_FLIGHT {
        let name = format!("commit, {in_flight} in flight");
        if name.contains(&arguments.filter) {
            let row = place::row(&place);
            let measured = commit(in_flight, row.path(), &arguments, device.as_ref());
            print_measured(&name, in_flight as u64, &measured);
        }
    }
}

fn append(
    work: Work,
    directory: &Path,
    arguments: &Arguments,
    device: Option<&Device>,
) -> Measured {
    let appends = Appends::create(directory, work).expect("a fresh directory");
    let mut raw = RawDisk::create(directory, work.group_bytes()).expect("room for 64 MiB");
    rounds::measure(
        &mut |groups| appends.run(groups),
        &mut |groups| raw.run(groups).expect("a disk that works"),
        arguments.round,
        device,
    )
}

/// The cluster is a new one each time: a log that the last work made long would weigh on the next.
fn commit(
    in_flight: usize,
    directory: &Path,
    arguments: &Arguments,
    device: Option<&Device>,
) -> Measured {
    let cluster = Cluster::start(directory).expect("three nodes");
    let mut raw =
        RawDisk::create(directory, commits::group_bytes(in_flight)).expect("room for 64 MiB");
    rounds::measure(
        &mut |groups| cluster.run(groups * in_flight as u64, in_flight),
        &mut |groups| raw.run(groups).expect("a disk that works"),
        arguments.round,
        device,
    )
}

fn print_measured(name: &str, group_entries: u64, measured: &Measured) {
    let rate = |spread: Spread| {
        let [median, least, greatest] = [spread.median, spread.least, spread.greatest]
            .map(|groups| thousands(groups * group_entries as f64));
        format!("{median} ({least} .. {greatest})")
    };
    let Spread { median, least, greatest } = measured.share;
    let both = |figure: fn(PerGroup) -> f64| match (measured.ours_device, measured.raw_device) {
        (Some(ours), Some(raw)) => format!("{:.2} / {:.2}", figure(ours), figure(raw)),
        _ => "not counted".to_owned(),
    };
    print_row([
        name,
        &rate(measured.ours),
        &rate(measured.raw),
        &format!("**{median:.2}** ({least:.2} .. {greatest:.2})"),
        &both(|device| device.flushes),
        &both(|device| device.kib_written),
    ]);
}

/// A row of Markdown, so that the table can be kept as it is.
fn print_row(cells: [&str; 6]) {
    println!("| {} |", cells.join(" | "));
}

/// `1234.5` as `1,235`.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

struct Arguments {
    filter: String,
    round: Duration,
}

impl Arguments {
    fn parse_or_exit() -> Self {
        let mut arguments = Self { filter: String::new(), round: Duration::from_secs(1) };
        // Cargo says `--bench` when it benches and nothing when it tests the bench.
        let mut quick = !env::args().any(|argument| argument == "--bench");
        for argument in env::args().skip(1) {
            match argument.as_str() {
                "--bench" => {}
                "--quick" => quick = true,
                "--help" | "-h" => {
                    println!("{USAGE}");
                    process::exit(0);
                }
                flag if flag.starts_with('-') => {
                    eprintln!("unknown flag {flag}\n\n{USAGE}");
                    process::exit(2);
                }
                filter => filter.clone_into(&mut arguments.filter),
            }
        }
        if quick {
            arguments.round = Duration::from_millis(20);
        }
        arguments
    }
}
