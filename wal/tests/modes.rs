//! Both ways of writing give the same bytes.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use bytes::Bytes;
use kontiki_wal::{LogId, Wal, WriteMode};

/// What a fixed trace of operations leaves in a directory: appends, replacements, states, cuts, seals, recycling, a kill and
/// a repair, a close.
fn trace(path: &Path, mode: WriteMode) -> BTreeMap<String, Vec<u8>> {
    let open = |nonce| {
        let options = Wal::options().segment_bytes(16 << 10).uuid([5; 16]).nonce(nonce);
        options.write_mode(mode).without_threads().open(path).unwrap()
    };
    let wal = open(1);
    work(&wal, 120, 0);
    // A kill: the mark of a close is missing.
    let copy = path.with_extension("killed");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    drop(wal);
    fs::remove_dir_all(path).unwrap();
    fs::rename(&copy, path).unwrap();
    let wal = open(2);
    work(&wal, 60, 200);
    wal.close().unwrap();
    drop(wal);
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap());
    files
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn work(wal: &Wal, rounds: u64, term: u64) {
    let (log, other) = (wal.log(LogId(1)).unwrap(), wal.log(LogId(2)).unwrap());
    for round in 1..=rounds {
        let entries =
            [Bytes::from(vec![1; 300]), Bytes::from(vec![2; usize::try_from(round).unwrap()])];
        let first = if round % 7 == 0 { log.last() } else { log.last() + 1 };
        log.append(first.max(log.first()), term + round, &entries).unwrap().wait().unwrap();
        if round % 5 == 0 {
            other.set_state(vec![3; 40]).unwrap().wait().unwrap();
            log.compact_before(log.last().saturating_sub(20).max(1)).unwrap().wait().unwrap();
        }
        wal.work(Duration::ZERO);
    }
    let statistics = wal.statistics();
    assert!(statistics.recycled_segments > 0 && statistics.sealed_segments > 0, "{statistics:?}");
}

/// WAL-CASE 44
#[test]
fn positional_and_mapped_writing_leave_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let positional = trace(&directory.path().join("positional"), WriteMode::Positional);
    let mapped = trace(&directory.path().join("mapped"), WriteMode::Mapped);
    assert!(positional.len() >= 4, "{:?}", positional.keys());
    assert_eq!(positional.keys().collect::<Vec<_>>(), mapped.keys().collect::<Vec<_>>());
    for (name, bytes) in &positional {
        assert!(bytes == &mapped[name], "{name} differs");
    }
}
