//! How long groups take to become durable: ways of writing and sizes in turns, so that whatever else the machine does hits all.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use kontiki_wal::{Probe, Wal, WriteMode};

use crate::{
    device::{Counters, Device},
    outcome::Failure,
    stop::Stop,
};

/// How bytes get to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A positional write and a sync at the end of a file that grows: what a log does that prepares nothing.
    Growing,
    /// A positional write and a sync in a prepared segment.
    Positional,
    /// A store into the map of a prepared segment, and a sync.
    Mapped,
}

/// What was measured of groups of one size that were written in one way.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) way: Way,
    pub(crate) bytes: usize,
    /// In nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    pub(crate) busy: Duration,
    /// What the device counted meanwhile, if it does.
    pub(crate) counted: Counters,
}

pub(crate) const WAYS: [Way; 3] = [Way::Growing, Way::Positional, Way::Mapped];
pub(crate) const SIZES: [usize; 4] = [512, 4 << 10, 64 << 10, 1 << 20];

impl Way {
    /// As it is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Growing => "growing",
            Self::Positional => "positional",
            Self::Mapped => "mapped",
        }
    }
}

impl Cell {
    fn new(way: Way, bytes: usize) -> Self {
        let latencies = Histogram::new_with_max(LATENCY_MAX_NANOSECONDS, 3);
        let latencies = latencies.expect("bounds that the histogram takes");
        Self { way, bytes, latencies, busy: Duration::ZERO, counted: Counters::default() }
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.latencies.len()
    }

    pub(crate) fn syncs_per_second(&self) -> f64 {
        self.syncs() as f64 / self.busy.as_secs_f64()
    }

    /// What so much of the syncs took at most, in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// Measures in `directory` until the time is up, but every cell for at least a moment. `None` if it was stopped before that.
pub(crate) fn measure(
    directory: &Path,
    segment_bytes: u64,
    until: Instant,
    stop: &Stop,
    device: Option<&Device>,
) -> Result<Option<Vec<Cell>>, Failure> {
    let mut writers = Vec::new();
    for way in WAYS {
        if stop.is_asked() {
            return Ok(None);
        }
        writers.push(Writer::create(way, directory, segment_bytes)?);
    }
    let mut cells: Vec<Cell> =
        SIZES.iter().flat_map(|&bytes| WAYS.map(|way| Cell::new(way, bytes))).collect();
    let mut turns = 0;
    loop {
        // Another one begins each round.
        let number = (turns + turns / cells.len()) % cells.len();
        let turn_end = Instant::now() + TURN;
        let is_first_round = turns < cells.len();
        let end = if is_first_round { turn_end } else { turn_end.min(until) };
        cells[number]
            .take_turn(&mut writers[number % WAYS.len()], end, device)
            .map_err(|error| Failure::Place { directory: directory.to_owned(), error })?;
        turns += 1;
        let is_whole = turns >= cells.len();
        if stop.is_asked() || is_whole && Instant::now() >= until {
            return Ok(is_whole.then_some(cells));
        }
    }
}

impl Cell {
    /// Writes and syncs until `end`, at least once.
    fn take_turn(
        &mut self,
        writer: &mut Writer,
        end: Instant,
        device: Option<&Device>,
    ) -> io::Result<()> {
        // Anything but zeros, so that no layer below can save itself the work.
        let group: Vec<u8> = (0..=u8::MAX).map(|byte| byte | 1).cycle().take(self.bytes).collect();
        let counters = || device.and_then(|device| device.counters().ok());
        let before = counters();
        loop {
            writer.make_room(group.len() as u64)?;
            let begun = Instant::now();
            writer.write(&group)?;
            let now = Instant::now();
            let latency = now - begun;
            self.busy += latency;
            self.latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
            if now >= end {
                break;
            }
        }
        if let (Some(before), Some(after)) = (before, counters()) {
            self.counted = self.counted + (after - before);
        }
        Ok(())
    }
}

/// A file that takes groups.
#[derive(Debug)]
enum Writer {
    /// A file, its length, and the length at which it begins anew.
    Growing {
        file: File,
        bytes: u64,
        bytes_max: u64,
    },
    Segment(Probe),
}

impl Writer {
    fn create(way: Way, directory: &Path, segment_bytes: u64) -> Result<Self, Failure> {
        let path = directory.join(way.name());
        let mode = match way {
            Way::Growing => {
                let file = File::create_new(path);
                let file = file
                    .map_err(|error| Failure::Place { directory: directory.to_owned(), error })?;
                return Ok(Self::Growing { file, bytes: 0, bytes_max: segment_bytes });
            }
            Way::Positional => WriteMode::Positional,
            Way::Mapped => WriteMode::Mapped,
        };
        let options = Wal::options().segment_bytes(segment_bytes).write_mode(mode);
        Ok(Self::Segment(Probe::create(&options, path)?))
    }

    /// What is not to be measured.
    fn make_room(&mut self, more: u64) -> io::Result<()> {
        if let Self::Growing { file, bytes, bytes_max } = self
            && *bytes + more > *bytes_max
        {
            file.set_len(0)?;
            file.sync_all()?;
            *bytes = 0;
        }
        Ok(())
    }

    fn write(&mut self, group: &[u8]) -> io::Result<()> {
        match self {
            Self::Growing { file, bytes, .. } => {
                file.write_all_at(group, *bytes)?;
                *bytes += group.len() as u64;
                file.sync_data()
            }
            Self::Segment(probe) => probe.write(group),
        }
    }
}

/// How long one cell is measured before it is another's turn.
const TURN: Duration = Duration::from_millis(50);

/// What took longer is counted as this: a minute.
const LATENCY_MAX_NANOSECONDS: u64 = 60_000_000_000;
