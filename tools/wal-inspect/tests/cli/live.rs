//! Logs that somebody writes meanwhile.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use bytes::Bytes;
use kontiki_wal::{AppendError, Log, LogId, Wal};
use tempfile::TempDir;

use crate::support::{append, dump, options, verify};

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

/// WAL-CASE 41
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
        let mut looks = 0;
        // Some 16 KiB hold 600 entries: a dozen segments come and go.
        while failed.is_none() && (looks < 20 || log.first() < 8000) && !writer.is_finished() {
            let verified = verify(directory.path());
            let dumped = dump(directory.path(), &["--format", "jsonl"]);
            if verified.code != Some(0) || dumped.code != Some(0) {
                failed = Some((verified, dumped.stderr));
            }
            looks += 1;
        }
        enough.store(true, Ordering::Relaxed);
        assert!(failed.is_none(), "look {looks}: {failed:?}");
    });
}

/// Twenty lines, durable; waits for a segment where there is none yet.
fn write_some(log: &Log) {
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
