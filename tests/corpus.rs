//! The inputs that the fuzzer begins with, and those that it has found, each as a plain test: through the same entry
//! functions, without the fuzzer. What they check: `tools/fuzz/src`.
//!
//! `KONTIKI_CORPUS=write cargo test --test corpus` makes the inputs named `made-*` anew, out of real logs. What the fuzzer
//! found has other names, and stays.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

#[expect(unreachable_pub, reason = "it is a crate of its own where the fuzzer is built")]
#[path = "../tools/fuzz/src/lib.rs"]
mod fuzz;
#[path = "fixtures/made.rs"]
mod made;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Mutex,
};

use kontiki_disk::MemoryDisk;
use kontiki_sim::session::DIRECTORY;
use kontiki_snapshot::{Header, Place, Store};
use kontiki_wal::inspect::Scan;

/// WAL-CASE 29
#[test]
fn no_frame_makes_its_decoder_panic_or_hold_more_than_it_is_long() {
    run_all("frame", fuzz::frame);
}

/// WAL-CASE 29
#[test]
fn no_page_index_or_checkpoint_makes_its_decoder_panic_or_hold_more_than_it_is_long() {
    run_all("codecs", fuzz::codecs);
}

/// WAL-CASE 29
#[test]
fn every_directory_opens_as_a_log_that_goes_on_or_is_refused_and_left_alone() {
    run_all("recovery", fuzz::recovery);
}

/// WAL-CASE 29
#[test]
fn every_directory_can_be_looked_into_and_is_not_changed_by_it() {
    run_all("recovery", fuzz::look);
}

/// WAL-CASE 29, WAL-CASE 42
#[test]
fn every_directory_is_repaired_to_a_whole_log_or_refused() {
    run_all("recovery", fuzz::repair);
}

#[test]
fn every_image_is_refused_or_is_what_a_writer_writes() {
    run_all("image", fuzz::image);
}

/// What is packed and unpacked is the same log; so the corpus is of logs and not of noise.
#[test]
fn a_real_log_in_the_short_form_is_still_that_log() {
    let _alone = HEAP_IS_LIMITED.lock();
    for (name, disk) in made::disks() {
        let expected = Scan::open_on(&disk, DIRECTORY).unwrap();
        for mended in [0, fuzz::mend::ALL] {
            let unpacked = fuzz::directory::unpack(&fuzz::directory::pack(&disk, mended)).disk;
            let found = Scan::open_on(&unpacked, DIRECTORY).unwrap();
            assert_eq!(found.segments(), expected.segments(), "{name} {mended}");
            if mended == 0 {
                assert_eq!(found.verdict(), expected.verdict(), "{name}");
            }
        }
    }
}

#[test]
fn the_corpus_is_small() {
    let _alone = HEAP_IS_LIMITED.lock();
    for target in TARGETS {
        let inputs = inputs(target);
        assert!((10..100).contains(&inputs.len()), "{target} has {} inputs", inputs.len());
        for input in inputs {
            let bytes = fs::metadata(&input).unwrap().len();
            assert!(bytes < 64 << 10, "{} has {bytes} bytes", input.display());
        }
    }
}

fn run_all(target: &str, run: fn(&[u8])) {
    let _alone = HEAP_IS_LIMITED.lock();
    write_if_asked();
    for input in inputs(target) {
        // Seen only if it fails: the input that did it.
        println!("{}", input.display());
        run(&fs::read(&input).unwrap());
    }
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let found = fs::read_dir(corpus(target)).unwrap();
    let mut found: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/fuzz/corpus").join(target)
}

fn write_if_asked() {
    if std::env::var_os("KONTIKI_CORPUS").is_none_or(|value| value != "write") {
        return;
    }
    for target in TARGETS {
        for input in inputs(target) {
            if input.file_name().unwrap().to_str().unwrap().starts_with("made-") {
                fs::remove_file(input).unwrap();
            }
        }
    }
    write_images();
    write_checkpoints();
    for (name, disk) in made::disks() {
        let write = |target: &str, what: &str, bytes: &[u8]| {
            fs::write(corpus(target).join(format!("made-{name}{what}")), bytes).unwrap();
        };
        write("recovery", "", &fuzz::directory::pack(&disk, fuzz::mend::ALL));
        write("recovery", "-as-it-is", &fuzz::directory::pack(&disk, 0));
        write_frames(&disk, write);
        write_pages(&disk, write);
    }
}

/// Images of different lengths, as `fuzz::image` takes them: whole, with a full block to be put before their own, and as another
/// one than was offered; in pieces of one byte and of more and more.
fn write_images() {
    for (membership, state) in [(0, 0), (0, 1), (3, 100), (1000, 0), (100, 5000), (7, 30_000)] {
        let place = Place { index: 9, term: 2 };
        let header = Header { cluster: 1, log: 1, place, membership: vec![5; membership] };
        let mut store = Store::open(&MemoryDisk::new(), "images", None).unwrap();
        let mut writer = store.create(header).unwrap();
        writer.write_all(&vec![3; state]).unwrap();
        let finished = writer.finish().unwrap();
        let image = store.publish(finished).unwrap();
        let mut bytes = vec![0; usize::try_from(image.bytes()).unwrap()];
        image.read_piece(0, &mut bytes).unwrap();
        for choices in [0, 3, 4, 8, 251] {
            let name = format!("made-{membership}-{state}-{choices}");
            fs::write(corpus("image").join(name), [&[choices], &bytes[..]].concat()).unwrap();
        }
    }
}

/// Checkpoints that take more room in memory than written: of logs by the hundred, and of a log of terms by the hundred.
fn write_checkpoints() {
    let log = |log: u32, terms: u64| {
        let mut bytes = [log.to_le_bytes(), u32::try_from(terms).unwrap().to_le_bytes()].concat();
        [1, terms, 0].iter().for_each(|number: &u64| bytes.extend(number.to_le_bytes()));
        bytes.extend(u32::MAX.to_le_bytes());
        (1..=terms)
            .for_each(|term| bytes.extend([term.to_le_bytes(), term.to_le_bytes()].concat()));
        bytes
    };
    let write = |name: &str, logs: &[Vec<u8>]| {
        let count = u32::try_from(logs.len()).unwrap();
        let start = [&[0], &count.to_le_bytes()[..], &[0; 4]].concat();
        fs::write(corpus("codecs").join(name), [start, logs.concat()].concat()).unwrap();
    };
    let logs: Vec<Vec<u8>> = (0..300).map(|number| log(number, 0)).collect();
    write("made-of-300-logs-Checkpoint", &logs);
    write("made-of-500-terms-Checkpoint", &[log(7, 500)]);
}

/// One frame of each kind, as `fuzz::frame` takes it, and the checkpoint for the codecs.
fn write_frames(disk: &MemoryDisk, write: impl Fn(&str, &str, &[u8])) {
    for frame in Scan::open_on(disk, DIRECTORY).unwrap().frames().map(Result::unwrap) {
        let file = disk.contents(Path::new(DIRECTORY).join(&frame.file)).unwrap();
        let at = usize::try_from(frame.offset).unwrap();
        let bytes = &file[at..at + usize::try_from(frame.frame_bytes).unwrap()];
        let kind = format!("-{:?}", frame.kind);
        if bytes.len() < 1024 {
            let place = u32::try_from(frame.offset / 8).unwrap().to_le_bytes();
            let input = [&[1, 1, 2, 3, 4], &place[..3], bytes].concat();
            write("frame", &kind, &input);
        }
        if frame.checkpoint().next().is_some() {
            write("codecs", &kind, &[&[0], &frame.body.unwrap()[..]].concat());
        }
    }
}

/// Header page, trailer page and index of the newest sealed segment, as `fuzz::codecs` takes them.
fn write_pages(disk: &MemoryDisk, write: impl Fn(&str, &str, &[u8])) {
    for segment in Scan::open_on(disk, DIRECTORY).unwrap().segments() {
        let file = disk.contents(Path::new(DIRECTORY).join(&segment.file)).unwrap();
        let at = file.len() - 4096;
        if !file[at..].starts_with(b"KTSEALED") {
            continue;
        }
        write("codecs", "-header", &[&[3], &file[..96]].concat());
        write("codecs", "-trailer", &[&[1], &file[at..at + 56]].concat());
        let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        let (logs, frames) = (number(at + 36), number(at + 40));
        let index = at - usize::try_from(32 * logs + 8 * frames).unwrap();
        let (logs, frames) = (u16::try_from(logs).unwrap(), u16::try_from(frames).unwrap());
        let numbers = [logs.to_le_bytes(), frames.to_le_bytes()].concat();
        write("codecs", "-index", &[&[2], &numbers[..], &[1], &file[index..at]].concat());
    }
}

const TARGETS: [&str; 4] = ["frame", "codecs", "recovery", "image"];

/// Each test sets the limit of the one heap, and nobody else may want any of it then.
static HEAP_IS_LIMITED: Mutex<()> = Mutex::new(());
