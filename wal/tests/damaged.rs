//! Looks at damaged logs: all that is damaged is told at once, and whatever is not shown is told to be unread.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{path::Path, sync::Arc, time::Duration};

use kontiki_disk::{Access, Disk, MemoryDisk};
use kontiki_wal::{
    LogId, Wal,
    inspect::{Counts, Effort, Frame, FrameKind, Scan, Verdict},
};

const DIRECTORY: &str = "log";

fn open(disk: &MemoryDisk) -> Wal {
    let options = Wal::options().segment_bytes(16 << 10).disk(Arc::new(disk.clone()));
    options.without_threads().open(Path::new(DIRECTORY)).unwrap()
}

fn scan(disk: &MemoryDisk) -> Scan {
    Scan::open_on(disk, DIRECTORY).unwrap()
}

/// Two logs in seven segments, of which the second and the third are freed; closed.
fn log() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let [one, two] = [1, 2].map(|log| wal.log(LogId(log)).unwrap());
    two.set_state("state").unwrap().wait().unwrap();
    two.push("holds the first segment").unwrap().1.wait().unwrap();
    while wal.statistics().sealed_segments < 5 {
        while wal.work(Duration::ZERO) {}
        one.push("x".repeat(900)).unwrap().1.wait().unwrap();
        if wal.statistics().sealed_segments >= 3 && one.first() == 1 {
            one.compact_before(one.last()).unwrap().wait().unwrap();
        }
        if one.last() % 5 == 0 && wal.statistics().sealed_segments > 3 {
            two.push("y".repeat(100)).unwrap().1.wait().unwrap();
        }
    }
    for _ in 0..8 {
        while wal.work(Duration::ZERO) {}
        one.push("x".repeat(900)).unwrap().1.wait().unwrap();
    }
    wal.close().unwrap();
    disk
}

/// A place of the log that is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Damage {
    file: String,
    /// Of the frame; 0 for the header page.
    offset: u64,
    /// Which bytes behind that, of which bits are flipped.
    ahead: &'static [u64],
}

impl Damage {
    fn of_page(file: &str) -> Self {
        Self { file: file.to_owned(), offset: 0, ahead: &[100] }
    }

    /// Two bits, so that nobody knows what the header was.
    fn of_header(frame: &Frame) -> Self {
        Self { file: frame.file.clone(), offset: frame.offset, ahead: &[24, 33] }
    }

    fn of_body(frame: &Frame) -> Self {
        Self { file: frame.file.clone(), offset: frame.offset, ahead: &[50] }
    }

    fn make(&self, disk: &MemoryDisk) {
        let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
        let file = directory.open(&self.file).unwrap();
        for at in self.ahead.iter().map(|ahead| self.offset + ahead) {
            let mut byte = [0];
            file.read_at(at, &mut byte).unwrap();
            file.write_at(at, &[&[byte[0] ^ 0x10]]).unwrap();
        }
    }

    /// Frames behind it need not be found.
    fn may_hide(&self) -> bool {
        // A segment that is not sealed says in the body of its first frame where it lies.
        self.ahead != [50] || self.offset == 4096
    }

    /// What lies there cannot be seen for `other`.
    fn is_hidden_by(&self, other: &Self, told: &[(String, u64)]) -> bool {
        let is_told = told.contains(&(other.file.clone(), other.offset));
        self.file == other.file && self.offset > other.offset && other.may_hide() && is_told
    }
}

/// Every header page; of every frame but the mark of the close, which nothing attests, the header and the body.
fn damages(frames: &[Frame]) -> Vec<Damage> {
    let mut damages: Vec<Damage> = Vec::new();
    for frame in &frames[..frames.len() - 1] {
        if frame.kind == FrameKind::SegmentStart {
            damages.push(Damage::of_page(&frame.file));
        }
        damages.push(Damage::of_header(frame));
        if frame.frame_bytes > 48 {
            damages.push(Damage::of_body(frame));
        }
    }
    damages
}

fn place(frame: &Frame) -> (String, u64) {
    (frame.file.clone(), frame.offset)
}

/// Sees that the look finds `damages` and nothing else, and of the log's `frames` shows all that it does not tell to be unread.
fn check(disk: &MemoryDisk, frames: &[Frame], damages: &[Damage]) {
    let scan = scan(disk);
    let Verdict::Corrupt(found) = scan.verdict() else { panic!("{damages:?}: not corrupt") };
    let told: Vec<(String, u64)> =
        found.iter().map(|found| (found.segment.clone(), found.offset)).collect();
    for damage in damages {
        let is_told = told.contains(&(damage.file.clone(), damage.offset));
        let is_hidden = damages.iter().any(|other| damage.is_hidden_by(other, &told));
        // What only a segment that another damage hides could attest is no damage for certain.
        let frame =
            frames.iter().find(|frame| place(frame) == (damage.file.clone(), damage.offset));
        let is_unattested = frame.is_some_and(|frame| frame.lsn >= scan.attested());
        let is_unknown = is_unattested && damages.iter().any(|other| other.offset == 0);
        assert!(is_told || is_hidden || is_unknown, "{damages:?}: only {told:?} are told");
    }
    let is_made = |told: &(String, u64)| {
        damages.iter().any(|damage| (damage.file.as_str(), damage.offset) == (&told.0, told.1))
    };
    assert!(told.iter().all(is_made), "{damages:?}: {told:?} are told");

    let shown: Vec<Frame> = scan.frames().map(Result::unwrap).collect();
    let unread = |frame: &Frame| {
        scan.unread().iter().any(|unread| {
            let end = frame.offset + frame.frame_bytes;
            unread.file == frame.file
                && unread.bytes.start <= frame.offset
                && end <= unread.bytes.end
        })
    };
    for frame in frames {
        let is_shown = shown.iter().any(|shown| place(shown) == place(frame));
        assert_ne!(is_shown, unread(frame), "{damages:?}: {frame:?}");
    }
    assert!(shown.iter().all(|shown| frames.iter().any(|frame| place(frame) == place(shown))));
    let is_some_unread = !scan.unread().is_empty();
    assert!(is_some_unread || damages.iter().all(|damage| damage.ahead == [50]), "{damages:?}");
    assert!(!is_some_unread || damages.iter().any(Damage::may_hide), "{damages:?}");
    let entries = shown.iter().filter(|frame| frame.kind == FrameKind::Entries);
    let Counts { frames: counted, entries: counted_entries, .. } = scan.counts();
    assert_eq!(counted, shown.len() as u64, "{damages:?}");
    assert_eq!(counted_entries, entries.map(|frame| u64::from(frame.count)).sum::<u64>());
    let all_unread = scan.unread().iter().filter(|unread| unread.bytes.start <= 4096).count();
    let read = scan.segments().len() - all_unread;
    assert_eq!(scan.counts().segments, read as u64, "{damages:?}");
}

#[test]
fn wherever_one_damage_is_all_else_is_shown_or_told_to_be_unread() {
    let whole = log();
    let frames: Vec<Frame> = scan(&whole).frames().map(Result::unwrap).collect();
    assert!(scan(&whole).unread().is_empty());
    let segments = scan(&whole).segments();
    let numbers: Vec<u64> = segments.iter().map(|segment| segment.sequence).collect();
    assert_eq!(numbers, [1, 4, 5, 6, 7], "{segments:?}");
    assert_eq!(scan(&whole).counts().segments, 5);
    for damage in damages(&frames) {
        let disk = whole.reopen();
        damage.make(&disk);
        check(&disk, &frames, std::slice::from_ref(&damage));
    }
}

#[test]
fn wherever_two_damages_are_both_are_told_and_all_else_is_shown_or_told_to_be_unread() {
    let whole = log();
    let frames: Vec<Frame> = scan(&whole).frames().map(Result::unwrap).collect();
    let damages = damages(&frames);
    // Each with each would take minutes; so each with some, of every kind.
    for (number, first) in damages.iter().enumerate() {
        for second in damages[number + 1..].iter().step_by(7) {
            if first.file == second.file && first.offset == second.offset {
                continue;
            }
            let disk = whole.reopen();
            first.make(&disk);
            second.make(&disk);
            check(&disk, &frames, &[first.clone(), second.clone()]);
        }
    }
}

/// Segments that are full and not sealed yet: nothing but the one behind tells where they end.
#[test]
fn damage_in_segments_that_are_not_sealed_hides_none_behind_them() {
    let whole = log();
    let frames: Vec<Frame> = scan(&whole).frames().map(Result::unwrap).collect();
    for segment in scan(&whole).segments().iter().filter(|segment| segment.sequence > 3) {
        let directory = whole.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
        let file = directory.open(&segment.file).unwrap();
        file.write_at((16 << 10) - 4096, &[&[0; 4096]]).unwrap();
    }
    assert!(matches!(scan(&whole).verdict(), Verdict::Whole { .. }));
    let damages = damages(&frames);
    for (number, first) in damages.iter().enumerate() {
        let disk = whole.reopen();
        first.make(&disk);
        check(&disk, &frames, std::slice::from_ref(first));
        for second in damages[number + 1..].iter().step_by(11) {
            if first.file == second.file && first.offset == second.offset {
                continue;
            }
            let disk = disk.reopen();
            second.make(&disk);
            check(&disk, &frames, &[first.clone(), second.clone()]);
        }
    }
}

#[test]
fn a_deep_look_finds_no_more_in_what_is_not_read() {
    let whole = log();
    let frames: Vec<Frame> = scan(&whole).frames().map(Result::unwrap).collect();
    for damage in damages(&frames) {
        let disk = whole.reopen();
        damage.make(&disk);
        let deep = Effort { is_deep: true, ..Effort::default() };
        let deep = Scan::open_on_with(&disk, DIRECTORY, deep).unwrap();
        let Verdict::Corrupt(found) = deep.verdict() else { panic!("{damage:?}: not corrupt") };
        let places: Vec<_> = found.iter().map(|found| (&found.segment, found.offset)).collect();
        assert_eq!(places, [(&damage.file, damage.offset)], "{damage:?}");
    }
}

#[test]
fn a_missing_file_is_told_together_with_a_damaged_page() {
    let whole = log();
    let segments = scan(&whole).segments();
    // Nothing else tells whether what the page of the newest one hides has freed a file.
    let (newest, older) = segments.split_last().unwrap();
    for damaged in older {
        for missing in segments.iter().filter(|segment| segment.file != damaged.file) {
            // Nor that there is one behind the last but one.
            if missing == newest && damaged.sequence + 1 == newest.sequence {
                continue;
            }
            let disk = whole.reopen();
            Damage::of_page(&damaged.file).make(&disk);
            let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
            directory.remove(&missing.file).unwrap();
            let scan = scan(&disk);
            let Verdict::Corrupt(found) = scan.verdict() else { panic!("not corrupt") };
            let mut expected = [(&damaged.file, 0), (&missing.file, 0)];
            expected.sort_unstable();
            let told: Vec<_> = found.iter().map(|found| (&found.segment, found.offset)).collect();
            assert_eq!(told, expected);
            assert_eq!(scan.counts().segments, segments.len() as u64 - 2);
        }
    }
}

/// The frame that replaced entries is lost; the term that they have is not the one that the log ends with.
#[test]
fn entries_that_were_replaced_in_what_is_not_read_are_not_live() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let [one, two] = [1, 2].map(|log| wal.log(LogId(log)).unwrap());
    let fill = |sealed| {
        while wal.statistics().sealed_segments < sealed {
            while wal.work(Duration::ZERO) {}
            two.push("y".repeat(900)).unwrap().1.wait().unwrap();
        }
    };
    let entries = ["a", "b", "c"].map(Into::into);
    one.append(1, 1, &entries).unwrap().wait().unwrap();
    fill(1);
    one.append(2, 5, &entries).unwrap().wait().unwrap();
    fill(3);
    wal.close().unwrap();
    let disk = disk.reopen();
    let frames: Vec<Frame> = scan(&disk).frames().map(Result::unwrap).collect();
    let of_one = |frame: &&Frame| frame.kind == FrameKind::Entries && frame.log == LogId(1);
    let of_one: Vec<&Frame> = frames.iter().filter(of_one).collect();
    assert_eq!(of_one.iter().map(|frame| frame.segment).collect::<Vec<_>>(), [1, 2]);
    Damage::of_page(&of_one[1].file).make(&disk);
    let scan = scan(&disk);
    assert_eq!(scan.live(of_one[0]), 1..2);
    let (_, bounds) = scan.logs().into_iter().find(|(log, _)| *log == LogId(1)).unwrap();
    assert_eq!((bounds.first, bounds.last), (1, 4), "the segments behind tell");
}

/// Before a gap nothing but its own frames tells how far a segment without a trailer went.
#[test]
fn of_a_segment_before_a_gap_no_more_is_said_to_be_unread_than_was_written() {
    let whole = log();
    let directory = whole.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
    let first = directory.open("0000000000000001.wal").unwrap();
    first.write_at((16 << 10) - 4096, &[&[0; 4096]]).unwrap();
    drop((first, directory));
    let frames: Vec<Frame> = scan(&whole).frames().map(Result::unwrap).collect();
    let of_first: Vec<&Frame> = frames.iter().filter(|frame| frame.segment == 1).collect();
    let end = of_first.last().map(|frame| frame.offset + frame.frame_bytes).unwrap();
    for frame in &of_first[1..of_first.len() - 1] {
        let disk = whole.reopen();
        Damage::of_header(frame).make(&disk);
        let scan = scan(&disk);
        let unread = &scan.unread()[0];
        assert_eq!((unread.sequence, unread.bytes.clone()), (1, frame.offset..end));
        assert_eq!(unread.lsn, Some(frame.lsn));
    }
}

/// The frame that could have freed it is in a segment that is not there any more, or whose header page does not hold.
#[test]
fn a_file_is_not_called_missing_where_a_frame_that_could_have_freed_it_is_not_read() {
    let name = |number: u64| format!("{number:016x}.wal");
    for is_lost in [true, false] {
        let disk = MemoryDisk::new();
        let wal = open(&disk);
        let log = wal.log(LogId(1)).unwrap();
        while wal.statistics().segments < 4 {
            wal.work(Duration::ZERO);
            log.push("x".repeat(900)).unwrap().1.wait().unwrap();
        }
        let looked = scan(&disk);
        let of_the_first = looked.segment_frames(1).map(Result::unwrap);
        let newest = of_the_first.filter(|frame| frame.kind == FrameKind::Entries).last().unwrap();
        log.compact_before(newest.first_index + 1).unwrap().wait().unwrap();
        drop(looked);
        let freeing = wal.begin_sync(Duration::ZERO).unwrap();
        let freed = freeing.run();
        wal.finish_sync(freeing, freed);
        let removal = wal.begin_segment().unwrap();
        let removed = removal.run();
        wal.finish_segment(removal, removed);
        if is_lost {
            // Sealed, it tells of the one that is lost.
            while wal.work(Duration::ZERO) {}
        }
        let disk = disk.image(|_| true);
        assert_eq!(disk.contents(Path::new(DIRECTORY).join(name(1))), None, "it was freed");
        Damage::of_page(&name(2)).make(&disk);
        if is_lost {
            let directory = disk.open_directory(Path::new(DIRECTORY), Access::Write).unwrap();
            directory.remove(&name(4)).unwrap();
        } else {
            Damage::of_page(&name(4)).make(&disk);
        }
        let scan = scan(&disk);
        let Verdict::Corrupt(damage) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
        let told: Vec<&str> = damage.iter().map(|damage| &*damage.segment).collect();
        assert_eq!(told, [name(2), name(4)], "lost: {is_lost}");
    }
}

/// Nothing tells that its only group was ever synced.
#[test]
fn behind_damage_a_segment_of_one_group_that_does_not_begin_whole_is_torn() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < 3 {
        while wal.work(Duration::ZERO) {}
        log.push("x".repeat(900)).unwrap().1.wait().unwrap();
    }
    let disk = disk.image(|_| true);
    let [first, .., newest] = &scan(&disk).segments()[..] else { panic!("three segments") };
    Damage::of_page(&first.file).make(&disk);
    Damage { file: newest.file.clone(), offset: 4096, ahead: &[24, 33] }.make(&disk);
    let scan = scan(&disk);
    let Verdict::Corrupt(damage) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
    let told: Vec<&str> = damage.iter().map(|damage| &*damage.segment).collect();
    assert_eq!(told, [&*first.file]);
}

/// What is needed was durable, though nothing in it tells.
#[test]
fn behind_damage_a_needed_segment_of_one_group_that_does_not_begin_whole_is_damaged() {
    let disk = MemoryDisk::new();
    let wal = open(&disk);
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().segments < 3 {
        if log.push("x".repeat(900)).is_err() {
            let job = wal.begin_segment().expect("the next segment is due");
            let result = job.run();
            wal.finish_segment(job, result);
        }
    }
    // The second of them attests all before.
    (0..2).for_each(|_| log.push("newest").unwrap().1.wait().unwrap());
    let disk = disk.image(|_| true);
    let frames: Vec<Frame> = scan(&disk).frames().map(Result::unwrap).collect();
    let of_second: Vec<&Frame> = frames.iter().filter(|frame| frame.segment == 2).collect();
    assert!(of_second.iter().all(|frame| frame.durable_lsn == of_second[0].durable_lsn));
    let damages = [Damage::of_header(&frames[3]), Damage::of_header(of_second[0])];
    damages.iter().for_each(|damage| damage.make(&disk));
    check(&disk, &frames, &damages);
    let scan = scan(&disk);
    let Verdict::Corrupt(found) = scan.verdict() else { panic!("{:?}", scan.verdict()) };
    assert_eq!(found.len(), 2, "{found:?}");
}
