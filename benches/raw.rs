//! Ways to write that the log could use, without the log: `cargo bench --bench raw`.
//! What came out, and what was concluded: README.md in this directory.

#![forbid(unsafe_code)]

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use kontiki_bench::{
    arguments::Arguments,
    device::Device,
    latencies::Latencies,
    place,
    raw::{FILE_BYTES, RawDisk},
    rounds::{self, Contender, ROUNDS},
    table,
};
use kontiki_disk::{Access, WriteMode};

fn main() {
    let arguments = Arguments::parse_or_exit("raw");
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let device = Device::of(place.path()).ok();
    println!("medians of {ROUNDS} rounds of {:?} each, range in brackets\n", arguments.round);
    table::print_contest_head();
    for (name, bytes) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)] {
        if !arguments.wants(name) {
            continue;
        }
        let row = place::row(&place);
        let mut raw = RawDisk::create(row.path(), bytes).expect("room for 64 MiB");
        let mapped = Mapped::create(row.path(), bytes).expect("room for 64 MiB");
        let direct = Direct::create(row.path(), bytes).expect("a file system with direct writes");
        let mut contenders = [
            Contender::new(rounds::RAW_DISK, |times, latencies| {
                raw.run(times, latencies).expect("a disk that works")
            }),
            Contender::new("store into the map, fdatasync", |times, latencies| {
                mapped.run(times, latencies).expect("a disk that works")
            }),
            Contender::new("direct, one at a time", |times, latencies| {
                direct.run(1, times, latencies)
            }),
            Contender::new("direct, two in flight", |times, latencies| {
                direct.run(2, times, latencies)
            }),
        ];
        let all = rounds::measure(&mut contenders, arguments.round, device.as_ref());
        // A direct write that is durable when it returns needs no flush where the device can write past its cache.
        rounds::check(&all[..2], bytes, 1);
        rounds::check_bytes(&all[2..], bytes);
        table::print_contest(name, 1, &all);
    }
}

/// A file that is written by stores into its map, as the log does with `WriteMode::Mapped`.
struct Mapped {
    file: Arc<dyn kontiki_disk::File>,
    bytes: Vec<u8>,
}

impl Mapped {
    fn create(place: &Path, length: usize) -> io::Result<Self> {
        let disk = kontiki_disk::real_writing(WriteMode::Mapped);
        let directory = disk.open_directory(&place.join("mapped"), Access::Write)?;
        let file = directory.create("file", FILE_BYTES)?;
        // In small pieces, so that the cache holds small folios: a store dirties a whole one. It is the best case of a map.
        let zeros = vec![0; 4 << 10];
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_at(offset, &[&zeros])?;
        }
        file.sync()?;
        directory.sync()?;
        Ok(Self { file, bytes: vec![1; length] })
    }

    fn run(&self, times: u64, latencies: &mut Latencies) -> io::Result<Duration> {
        let begun = Instant::now();
        for number in 0..times {
            let offset = offset(number, self.bytes.len());
            latencies.time(|| {
                self.file.write_at(offset, &[&self.bytes])?;
                self.file.sync()
            })?;
        }
        Ok(begun.elapsed())
    }
}

/// A file that is written past the cache, each write durable when it returns.
struct Direct {
    file: File,
    bytes: Vec<u8>,
    length: usize,
}

impl Direct {
    /// Over a file of its own: what goes past the cache throws out of it what another one has there.
    fn create(place: &Path, length: usize) -> io::Result<Self> {
        let directory = place.join("direct");
        fs::create_dir(&directory)?;
        RawDisk::create(&directory, length)?;
        let path = directory.join(format!("raw-{length}"));
        let flags = rustix::fs::OFlags::DIRECT | rustix::fs::OFlags::DSYNC;
        let flags = i32::try_from(flags.bits()).expect("flags of open");
        let file = File::options().write(true).custom_flags(flags).open(path)?;
        Ok(Self { file, bytes: vec![1; length + ALIGN], length })
    }

    /// `writers` threads write in turn. A write counts when it and all before it are done.
    fn run(&self, writers: u64, times: u64, latencies: &mut Latencies) -> Duration {
        let (done, next) = (Mutex::new(0), Condvar::new());
        let begun = Instant::now();
        thread::scope(|scope| {
            let writer = |writer: u64| {
                let (done, next) = (&done, &next);
                move || {
                    let mut latencies = Latencies::default();
                    for number in (writer..times).step_by(usize::try_from(writers).expect("two")) {
                        latencies.time(|| {
                            self.write(number).expect("a disk that works");
                            let mut done = done.lock().expect("no writer panics");
                            while *done != number {
                                done = next.wait(done).expect("no writer panics");
                            }
                            *done += 1;
                        });
                        next.notify_all();
                    }
                    latencies
                }
            };
            let writers: Vec<_> = (0..writers).map(|number| scope.spawn(writer(number))).collect();
            for writer in writers {
                latencies.add(&writer.join().expect("no writer panics"));
            }
        });
        begun.elapsed()
    }

    fn write(&self, number: u64) -> io::Result<()> {
        let start = self.bytes.as_ptr().align_offset(ALIGN);
        let bytes = &self.bytes[start..start + self.length];
        self.file.write_all_at(bytes, offset(number, self.length))
    }
}

/// Where write `number` goes: one behind the other, around the file.
fn offset(number: u64, length: usize) -> u64 {
    let length = length as u64;
    number % (FILE_BYTES / length) * length
}

/// What direct writes are aligned to, in the file and in memory.
const ALIGN: usize = 4 << 10;
