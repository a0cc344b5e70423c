//! Logs that somebody writes meanwhile.

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    process::Stdio,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Wal};
use tempfile::TempDir;

use crate::support::{append, command, dump, options, verify, wal_inspect};

#[test]
fn a_log_that_is_open_has_a_live_tail() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    append(&wal.log(LogId(1)).unwrap(), 1, 3);

    let run = verify(directory.path());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.starts_with("live tail: "), "{run:?}");
    let run = dump(directory.path(), &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.stdout.contains("\"line 3\""), "{run:?}");

    wal.close().unwrap();
    drop(wal);
    let run = verify(directory.path());
    assert!(run.stdout.starts_with("whole: "), "{run:?}");
}

/// WAL-CASE 41: some of the looks meet files that are used again at that moment.
#[test]
fn a_busy_writer_is_never_taken_for_corruption() {
    let directory = TempDir::new().unwrap();
    let wal = Wal::options().segment_bytes(16 << 10).open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    write_some(&log);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                write_some(&log);
                // Segments go at the front as they come at the end.
                if log.last() - log.first() > 1000 {
                    log.compact_before(log.last() - 500).unwrap().wait().unwrap();
                }
            }
        });
        let mut failed = None;
        // How many segments were made of used files while each of them looked.
        let commands = ["verify", "dump", "segments", "stats"];
        let mut recycled = [0; 4];
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut looks = 0;
        while failed.is_none()
            && !writer.is_finished()
            && (looks < 20 || recycled.iter().any(|&count| count < 10))
        {
            for (command, recycled) in commands.iter().zip(&mut recycled) {
                let before = wal.statistics().recycled_segments;
                let run = wal_inspect([OsStr::new(command), directory.path().as_os_str()]);
                *recycled += wal.statistics().recycled_segments - before;
                // A machine that is busy elsewhere lets the writer free all that a dump was about to read.
                let is_told = run.stderr.is_empty() || run.stderr.contains("used again meanwhile");
                if run.code != Some(0) || !is_told {
                    failed = Some((command, run.code, run.stderr));
                }
            }
            looks += 1;
            if Instant::now() > deadline {
                break;
            }
        }
        enough.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "look {looks}: {failed:?}");
        assert!(recycled.iter().all(|&count| count >= 10), "{looks} looks met {recycled:?}");
    });
}

/// WAL-CASE 41: the reader at the end of the pipe pauses until nothing of what is dumped is there any more.
#[test]
fn a_dump_under_which_every_file_is_used_again_is_no_corruption() {
    let directory = TempDir::new().unwrap();
    let wal = options().open(directory.path()).unwrap();
    let log = wal.log(LogId(1)).unwrap();
    fill(&wal, 12);
    let before = dump(directory.path(), &[]).stdout;
    let whole: HashSet<&str> = before.lines().collect();
    let mut child = command()
        .args([OsStr::new("dump"), directory.path().as_os_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    let recycled = wal.statistics().recycled_segments;
    for _ in 0..10 {
        log.compact_before(log.last()).unwrap().wait().unwrap();
        let segments = wal.statistics().sealed_segments + 3;
        fill(&wal, segments);
    }
    assert!(wal.statistics().recycled_segments >= recycled + 12, "{:?}", wal.statistics());
    output.read_to_string(&mut text).unwrap();
    let mut remarks = String::new();
    child.stderr.take().unwrap().read_to_string(&mut remarks).unwrap();
    assert_eq!((child.wait().unwrap().code(), remarks.as_str()), (Some(0), ""));
    // The writer has gone on in the segment that was the newest, before it went away from it.
    let mut segments = before.lines().filter_map(|line| line.strip_prefix("segment ")?.get(..16));
    let newest = format!("segment {}", segments.next_back().unwrap());
    let older = |text| str::lines(text).take_while(|line| !line.starts_with(&newest));
    let foreign = older(&text).find(|line| !whole.contains(line));
    assert_eq!(foreign, None, "nothing is shown that was not there");
    let (shown, there) = (older(&text).count(), older(&before).count());
    assert!(shown < there, "{shown} lines: nothing was used again under the dump");
}

/// Appends until so many segments were sealed.
fn fill(wal: &Wal, sealed: u64) {
    let log = wal.log(LogId(1)).unwrap();
    while wal.statistics().sealed_segments < sealed {
        match log.push("a line that is dumped".repeat(4)) {
            Ok((_, pending)) => drop(pending),
            Err(AppendError::Full { .. }) => assert!(wal.work(Duration::ZERO)),
            Err(error) => panic!("{error}"),
        }
        if log.last().is_multiple_of(20) {
            wal.work(Duration::ZERO);
        }
    }
}

/// Twenty lines, durable; waits for a segment where there is none yet.
pub(crate) fn write_some(log: &Log) {
    let lines = vec![Bytes::from_static(b"a line of the busy one"); 20];
    loop {
        match log.append(log.last() + 1, 1, &lines) {
            Ok(pending) => return pending.wait().unwrap(),
            Err(AppendError::Full { .. }) => {
                let (sender, room) = mpsc::channel::<()>();
                log.on_room(move || drop(sender));
                assert!(room.recv().is_err(), "nothing is ever sent");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
