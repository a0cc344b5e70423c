//! `hexdump`: fields, what is wrong with them, and places where no frame lies.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use kontiki_wal::{LogId, inspect::Frame};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    HEADER_BYTES, Run, append, closed_log, command, crashed_log, entries_frames, files, flip_bit,
    options, verify, wal_inspect,
};

fn hexdump(directory: &Path, arguments: &[&str]) -> Run {
    let before = files(directory);
    let arguments = arguments.iter().map(OsStr::new);
    let run =
        wal_inspect([OsStr::new("hexdump"), directory.as_os_str()].into_iter().chain(arguments));
    assert_eq!(files(directory), before, "hexdump changed a file");
    run
}

fn at(directory: &Path, frame: &Frame) -> Run {
    hexdump(directory, &["--lsn", &frame.lsn.0.to_string()])
}

/// The lines with something wrong.
fn wrong(run: &Run) -> Vec<String> {
    let lines = run.stdout.lines().filter(|line| line.contains("  ! "));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn a_frame_is_found_by_any_of_its_lsns_and_by_its_place() {
    let log = closed_log();
    let frame = entries_frames(log.path()).remove(1);
    let run = at(log.path(), &frame);
    assert_eq!(run.code, Some(0), "{run:?}");
    let head =
        format!("frame segment {} offset {} lsn {}\n", frame.file, frame.offset, frame.lsn.0);
    assert!(run.stdout.starts_with(&head) && run.stdout.ends_with("\nwhole\n"), "{run:?}");
    let inside = (frame.lsn.0 + frame.frame_bytes - 1).to_string();
    assert_eq!(hexdump(log.path(), &["--lsn", &inside]).stdout, run.stdout);
    let offset = frame.offset.to_string();
    let path = log.path().join(&frame.file).to_str().unwrap().to_owned();
    let name = frame.file.strip_suffix(".wal").unwrap().to_owned();
    for segment in [frame.file.clone(), name, path, frame.segment.to_string()] {
        let by_place = hexdump(log.path(), &["--segment", &segment, "--offset", &offset]);
        assert_eq!(by_place.stdout, run.stdout);
        let page = hexdump(log.path(), &["--segment", &segment]).stdout;
        assert!(page.starts_with(&format!("header page segment {} ", frame.file)), "{page}");
        let both = hexdump(log.path(), &["--lsn", &inside, "--header"]);
        assert_eq!(both.stdout, format!("{page}{}", run.stdout));
    }
}

#[test]
fn json_has_the_same_fields() {
    let log = closed_log();
    let frame = entries_frames(log.path()).remove(1);
    let lsn = frame.lsn.0.to_string();
    let run = hexdump(log.path(), &["--lsn", &lsn, "--header", "--json"]);
    let shown: Vec<Value> =
        run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&shown[0]["what"], &shown[1]["what"]), (&"header page".into(), &"frame".into()));
    assert_eq!((&shown[1]["lsn"], &shown[1]["whole"]), (&frame.lsn.0.into(), &true.into()));
    let field = |name: &str| {
        let fields = shown[1]["fields"].as_array().unwrap();
        fields.iter().find(|field| field["name"] == name).unwrap().clone()
    };
    assert_eq!(field("first_index")["value"], 11);
    assert_eq!(field("first_index")["bytes"], "0b00000000000000");
    assert_eq!(field("first_index")["offset"], frame.offset + 24);
    assert_eq!(field("entry 15")["bytes"], "6c696e65203135");
    // All bytes of the frame, one behind the other.
    let fields = shown[1]["fields"].as_array().unwrap().iter();
    let bytes: String = fields.map(|field| field["bytes"].as_str().unwrap()).collect();
    assert_eq!(bytes.len() as u64, 2 * frame.frame_bytes);
}

/// WAL-CASE 5
#[test]
fn one_flipped_bit_of_a_header_is_pointed_at_with_what_it_was() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).remove(0);
    let whole = at(log.path(), &frame).stdout;
    for (ahead, is) in [
        (0, "header_crc"),
        (5, "link"),
        (8, "body_crc"),
        (12, "body_len"),
        (16, "kind"),
        (17, "flags"),
        (18, "count"),
        (20, "log"),
        (31, "first_index"),
        (32, "term"),
        (47, "durable_lsn"),
    ] {
        flip_bit(log.path(), &frame, ahead);
        let run = at(log.path(), &frame);
        assert_eq!(run.code, Some(2), "{is}: {run:?}");
        let line = whole.lines().find(|line| line.contains(&format!(" {is} "))).unwrap();
        let value = line.rsplit(&format!(" {is} ")).next().unwrap().trim();
        let was = format!("! it was {value} before one bit flipped");
        let pointed = wrong(&run);
        assert!(pointed.iter().any(|line| line.contains(is) && line.ends_with(&was)), "{run:?}");
        assert!(pointed[0].contains(" header_crc "), "the checksum, too: {run:?}");
        assert!(run.stdout.contains("|line 10|"), "the length is known: {run:?}");
        assert!(run.stdout.contains("\ndamaged: segment "), "{run:?}");
        flip_bit(log.path(), &frame, ahead);
    }
}

#[test]
fn a_header_that_more_bits_were_flipped_in_is_shown_without_a_body() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).remove(0);
    flip_bit(log.path(), &frame, 24);
    flip_bit(log.path(), &frame, 33);
    let run = at(log.path(), &frame);
    assert_eq!(run.code, Some(2), "{run:?}");
    let pointed = wrong(&run);
    assert_eq!(pointed.len(), 1, "{run:?}");
    assert!(pointed[0].contains("! the rest of the header, here, gives 0x"), "{run:?}");
    assert!(!run.stdout.contains(" +48 "), "{run:?}");
    let next = entries_frames(log.path());
    assert!(next.is_empty(), "the chain of frames ends here");
}

/// WAL-CASE 6
#[test]
fn a_flipped_bit_of_a_body_is_told_by_its_checksum_and_one_of_the_padding_by_itself() {
    let log = crashed_log();
    let frame = entries_frames(log.path()).remove(0);
    for (ahead, says) in [
        (HEADER_BYTES, "body_crc 0x"),
        (HEADER_BYTES + 45, "body_crc 0x"),
        (frame.frame_bytes - 1, "padding |"),
    ] {
        flip_bit(log.path(), &frame, ahead);
        let run = at(log.path(), &frame);
        assert_eq!(run.code, Some(2), "{run:?}");
        let pointed = wrong(&run);
        assert!(pointed[0].contains(says), "{run:?}");
        assert!(run.stdout.contains("\ndamaged: segment "), "{run:?}");
        flip_bit(log.path(), &frame, ahead);
    }
}

#[test]
fn a_damaged_header_page_is_shown_and_the_frames_under_it_cannot_be_judged() {
    let log = closed_log();
    let frame = entries_frames(log.path()).remove(0);
    let file = File::options().write(true).open(log.path().join(&frame.file)).unwrap();
    file.write_all_at(b"!", 60).unwrap();
    let run = hexdump(log.path(), &["--segment", "1"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    let pointed = wrong(&run);
    assert!(pointed[0].contains(" crc 0x"), "{run:?}");
    assert!(pointed[0].contains("! the rest of the page gives 0x"), "{run:?}");
    assert!(run.stdout.contains("damaged: segment "), "{run:?}");
    let run = hexdump(log.path(), &["--segment", "1", "--offset", "4096"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run:?}");

    fs::write(log.path().join(&frame.file), [7; 100]).unwrap();
    let run = hexdump(log.path(), &["--segment", "1"]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stdout.contains("damaged: segment "), "{run:?}");
}

/// WAL-CASE 7: what nothing attests is no damage.
#[test]
fn a_torn_frame_is_shown_as_one_and_a_writers_as_none() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    append(&wal.log(LogId(7)).unwrap(), 3, 10);
    let frame = entries_frames(directory.path()).remove(0);
    flip_bit(directory.path(), &frame, HEADER_BYTES + 45);
    let run = at(directory.path(), &frame);
    assert_eq!(run.code, Some(0), "it may still be on its way: {run:?}");
    assert!(run.stdout.contains("\ndamaged: "), "{run:?}");

    let log = crashed_log();
    let frame = entries_frames(log.path()).pop().unwrap();
    flip_bit(log.path(), &frame, HEADER_BYTES + 25);
    let run = at(log.path(), &frame);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stdout.contains("\ndamaged: "), "{run:?}");
    let run = hexdump(log.path(), &["--segment", "1", "--offset", "8192"]);
    assert_eq!(run.code, Some(3), "nothing was written there: {run:?}");
}

/// What was never written, and what a file held before it became this segment.
#[test]
fn damage_elsewhere_makes_no_frame_of_room_that_is_free() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(7)).unwrap();
    while wal.statistics().sealed_segments < 2 {
        append(&log, 3, 10);
        wal.work(Duration::ZERO);
    }
    append(&log, 3, 10);
    drop((log, wal));
    let last = entries_frames(directory.path()).pop().unwrap();
    let path = directory.path().join("0000000000000001.wal");
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(b"rot", (16 << 10) - 4000).unwrap();
    assert_eq!(verify(directory.path()).code, Some(2));
    let active = File::options().write(true).open(directory.path().join(&last.file)).unwrap();
    for rubbish in [&[0; 64], &[7; 64]] {
        active.write_all_at(rubbish, 12_000).unwrap();
        let run = hexdump(directory.path(), &["--segment", &last.file, "--offset", "12000"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
    }
    let offset = last.offset.to_string();
    let run = hexdump(directory.path(), &["--segment", &last.file, "--offset", &offset]);
    assert_eq!(run.code, Some(0), "{run:?}");
}

#[test]
fn a_damaged_frame_behind_damage_that_ends_the_log_is_one() {
    let log = closed_log();
    let frames = entries_frames(log.path());
    flip_bit(log.path(), &frames[0], 24);
    flip_bit(log.path(), &frames[0], 33);
    flip_bit(log.path(), &frames[1], HEADER_BYTES + 25);
    let run = at(log.path(), &frames[1]);
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(wrong(&run).iter().any(|line| line.contains(" body_crc ")), "{run:?}");
}

#[test]
fn a_closed_pipe_makes_no_damaged_frame_a_whole_one() {
    let log = closed_log();
    let frame = entries_frames(log.path()).remove(0);
    flip_bit(log.path(), &frame, HEADER_BYTES);
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let arguments = ["--lsn", &frame.lsn.0.to_string()].map(OsString::from);
    let status = command().arg("hexdump").arg(log.path()).args(arguments).stdout(writer).status();
    assert_eq!(status.unwrap().code(), Some(2));
}

#[test]
fn where_no_frame_lies_is_told() {
    let log = closed_log();
    let end = entries_frames(log.path()).pop().map(|frame| frame.lsn.0 + frame.frame_bytes + 48);
    let end = end.unwrap().to_string();
    for arguments in [
        &["--lsn", &end][..],
        &["--lsn", "18446744073709551615"],
        &["--segment", "1", "--offset", "8192"],
        &["--segment", "1", "--offset", "4000"],
        &["--segment", "1", "--offset", "18446744073709551615"],
    ] {
        let run = hexdump(log.path(), arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
        let place = format!("{} {}", &arguments[0][2..], arguments[1]);
        assert!(run.stderr.contains(&format!("no frame lies at {place}")), "{run:?}");
        assert!(run.stderr.ends_with(&format!("; the log ends at lsn {end}\n")), "{run:?}");
    }
    let run = hexdump(log.path(), &["--segment", "9"]);
    assert_eq!(run.code, Some(3), "{run:?}");
    // A name is in hexadecimal, also without its ending.
    for name in ["000000000000000a", "0000000000000010"] {
        let run = hexdump(log.path(), &["--segment", name]);
        assert_eq!(run.code, Some(3), "{run:?}");
        assert!(run.stderr.contains(&format!("{name}.wal")), "{run:?}");
    }
    for arguments in [
        &[][..],
        &["--offset", "4096"],
        &["--lsn", "1", "--segment", "1"],
        &["--segment", "one"],
        &["--segment", "000000000000000g"],
    ] {
        let run = hexdump(log.path(), arguments);
        assert_eq!((run.code, run.stderr.lines().count()), (Some(4), 1), "{run:?}");
    }
}

/// verify names these places, too.
#[test]
fn a_place_of_a_page_or_an_index_is_told_as_that() {
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1/closed");
    let page = hexdump(&log, &["--segment", "3"]);
    assert!(page.stdout.starts_with("header page "), "{page:?}");
    assert_eq!(hexdump(&log, &["--segment", "3", "--offset", "0"]).stdout, page.stdout);
    let at = |segment: &str, offset: u64| {
        let run = hexdump(&log, &["--segment", segment, "--offset", &offset.to_string()]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(3), ""), "{run:?}");
        run.stderr
    };
    let told = |what: &str| format!(", but {what} of the segment: hexdump does not take it apart");
    let trailer_at = 12 << 10;
    assert!(at("3", trailer_at).contains(&told("the trailer page")), "{}", at("3", trailer_at));
    assert!(at("3", trailer_at - 8).contains(&told("the index")), "{}", at("3", trailer_at - 8));
    for (segment, offset) in [("6", trailer_at), ("3", trailer_at + 4096)] {
        assert!(!at(segment, offset).contains("hexdump does not"), "{}", at(segment, offset));
    }
}
