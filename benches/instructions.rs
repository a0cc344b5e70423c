//! Work for an instruction counter, which `.ci/instructions` runs twice with different counts and compares with its limits:
//! instructions are repeatable where seconds are not. Nothing is measured here.

#![forbid(unsafe_code)]

use std::{env, process, time::Duration};

use bytes::Bytes;
use kontiki_bench::{place, reads::read_all};
use kontiki_wal::{Log, LogId, Wal};

const USAGE: &str = "\
usage: cargo bench --bench instructions -- (append | read) COUNT

  append COUNT   appends so many entries of 128 B, one at a time, to a log, without a sync
  read COUNT     reads a log of 1,000 such entries so many times";

fn main() {
    let arguments: Vec<String> = env::args().skip(1).filter(|given| given != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (append_count, read_count) = match arguments[..] {
        ["append", count] => (count.parse(), Ok(0)),
        ["read", count] => (Ok(1000), count.parse()),
        // As Cargo runs it with all others: there is nothing to see.
        [] => (Ok(1), Ok(1)),
        _ => exit(),
    };
    let (Ok(append_count), Ok(read_count)) = (append_count, read_count) else { exit() };
    let place = place::fresh_or_exit(env!("CARGO_TARGET_TMPDIR"));
    let options = Wal::options().nonce(1).uuid([7; 16]).without_threads();
    let wal = options.open(place.path()).expect("a fresh directory");
    let log = wal.log(LogId(1)).expect("an open log");
    append(&log, append_count);
    if read_count > 0 {
        wal.work(Duration::ZERO);
    }
    (0..read_count).for_each(|_: u32| read_all(&log));
}

/// The first segment is small: it takes 15,000.
fn append(log: &Log, count: u32) {
    let entry = Bytes::from_static(&[7; 128]);
    for _ in 0..count {
        drop(log.push(entry.clone()).expect("room"));
    }
}

fn exit() -> ! {
    eprintln!("{USAGE}");
    process::exit(2);
}
