//! The cases of a log's failures, each by itself, over the simulated disk and without threads
//! unless the case is about threads. `crash_matrix.rs` cuts whole workloads everywhere instead.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

mod cached;
mod damage;
mod failure;
mod lies;
mod lives;
mod power;
mod repair;
mod repair_cuts;
mod repair_ends;
mod repair_lists;
mod repair_marks;
mod sealed;
mod waiting;

use std::path::Path;

use bytes::Bytes;
use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_sim::{
    model::{Operation, World},
    session::{DIRECTORY, Session, open},
};
use kontiki_wal::{AppendError, LogId, OpenError};

const L: LogId = LogId(7);
const OTHER: LogId = LogId(8);

const ALL: fn(usize) -> bool = |_| true;
const NOTHING: fn(usize) -> bool = |_| false;

/// A log on a new disk.
fn start() -> Session {
    start_on(&MemoryDisk::new())
}

fn start_on(disk: &MemoryDisk) -> Session {
    Session::open(disk).unwrap().0
}

/// Its first segment holds what lags behind; those behind that are freed, up to the last.
fn before_a_gap() -> Session {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["lags behind"]));
    fill_up_to(&mut session, OTHER, 4);
    let last = session.life.world().log(OTHER).last();
    acknowledge(&mut session, OTHER, Operation::Compact { first: last + 1 });
    session.settle();
    session
}

fn append(first_index: u64, term: u64, entries: &[&str]) -> Operation {
    let entries = entries.iter().map(|text| Bytes::copy_from_slice(text.as_bytes())).collect();
    Operation::Append { first_index, term, entries }
}

fn state(text: &'static str) -> Operation {
    Operation::SetState { state: Bytes::from_static(text.as_bytes()) }
}

/// Does `operation`; it is not durable yet.
fn take(session: &mut Session, log: LogId, operation: Operation) {
    session.perform(log, &operation).unwrap();
}

/// Does `operation` and waits until it is durable.
fn acknowledge(session: &mut Session, log: LogId, operation: Operation) {
    take(session, log, operation);
    session.settle();
    assert!(!session.failed());
}

/// Fills segments with entries of `log` until the log goes on in segment number `sequence`.
fn fill_up_to(session: &mut Session, log: LogId, sequence: usize) {
    let model = session.life.world().log(log);
    let (mut index, term) = (model.last() + 1, model.last_term().max(1));
    while session.wal.statistics().segments + freed(&session.disk) < sequence as u64 {
        acknowledge(session, log, append(index, term, &[&"filler ".repeat(100)]));
        index += 1;
    }
}

/// How many segments are gone: the number of the first that is there, counted from 0.
fn freed(disk: &MemoryDisk) -> u64 {
    let first = segments(disk).first().map(|name| name.split('.').next().unwrap().to_owned());
    first.map_or(0, |digits| u64::from_str_radix(&digits, 16).unwrap() - 1)
}

/// Names of the segments, oldest first.
fn segments(disk: &MemoryDisk) -> Vec<String> {
    let mut names: Vec<String> = files(disk).into_iter().map(|(name, _)| name).collect();
    names.retain(|name| name.ends_with(".wal"));
    names
}

/// Names and bytes of all files.
fn files(disk: &MemoryDisk) -> Vec<(String, Vec<u8>)> {
    let directory = disk.open_directory(Path::new(DIRECTORY), Access::Read).unwrap();
    let names = directory.list().unwrap().into_iter();
    names
        .map(|(name, _)| {
            let bytes = disk.contents(Path::new(DIRECTORY).join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// Name and offset of the only place where `needle` lies.
fn find(disk: &MemoryDisk, needle: &str) -> (String, u64) {
    let segments = files(disk).into_iter().filter(|(name, _)| name.ends_with(".wal"));
    let mut found = segments.flat_map(|(name, bytes)| {
        let windows = bytes.windows(needle.len()).enumerate();
        let places = windows.filter(|(_, window)| *window == needle.as_bytes());
        places.map(|(at, _)| (name.clone(), at as u64)).collect::<Vec<_>>()
    });
    let place = found.next().expect("the bytes are on the disk");
    assert_eq!(found.next(), None, "{needle} lies in one place only");
    place
}

/// Offset of the header of the frame whose only entry begins at `entry`.
fn header_of(entry: u64) -> u64 {
    entry - 4 - 48
}

fn flip(disk: &MemoryDisk, file: &str, offset: u64) {
    disk.corrupt(Path::new(DIRECTORY).join(file), offset, 0x10);
}

/// What is found on a disk.
fn world(disk: &MemoryDisk) -> World {
    World::of(&open(&disk.reopen()).unwrap())
}

fn entries(world: &World, log: LogId) -> Vec<String> {
    let entries = &world.log(log).entries;
    entries.iter().map(|(_, bytes)| String::from_utf8(bytes.to_vec()).unwrap()).collect()
}

/// Opens a disk that must be refused, and checks that the attempt changed nothing.
fn refused(disk: &MemoryDisk) -> OpenError {
    let before = files(disk);
    let tried = disk.reopen();
    let operations = tried.operations();
    let error = open(&tried).map(drop).expect_err("the damage is seen");
    assert_eq!(tried.operations(), operations, "a refused log is left alone");
    assert_eq!(files(&tried), before);
    error
}

fn corruption(disk: &MemoryDisk) -> kontiki_wal::Corruption {
    match refused(disk) {
        OpenError::Corruption(corruption) => corruption,
        error => panic!("not a corruption: {error}"),
    }
}
