use std::io::Write as _;

use bytes::Bytes;
use kontiki_core::{ClusterId, Term};
use kontiki_disk::MemoryDisk;
use kontiki_wal::LogId;

use super::*;
use crate::{Options, entropy::Entropy, snapshots::tests::alone};

/// Found by a simulated world: the last segment was full, and the next one not made yet.
#[test]
fn a_start_behind_an_image_waits_for_the_room_that_it_needs() {
    let options =
        Options { segment_bytes: 32 << 10, command_bytes_max: 1 << 10, ..Options::default() };
    let disk = MemoryDisk::new();
    // Without threads: nothing is made ahead by itself.
    let open = |entropy: Entropy| {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Storage::open_with(Path::new("d"), 1, &options, Some(disk), &entropy).unwrap()
    };
    let Storage { wal, log, mut store, mut state, .. } = open(Entropy::given(|| 7));
    let configuration = alone();
    (state.cluster, state.hard.term) = (ClusterId(5), Term(1));
    state.configurations = vec![configuration.clone()];
    let payload = [Bytes::from(vec![1; 600])];
    while let Ok(pending) = log.append(log.last() + 1, 1, &payload) {
        pending.wait().unwrap();
    }
    // To the last byte, by a log of somebody else's.
    let other = wal.log(LogId(2)).unwrap();
    log.set_state(state.encode()).unwrap().wait().unwrap();
    let mut next = 2;
    while let Ok(pending) = other.set_state(vec![1; 64]) {
        pending.wait().unwrap();
    }
    // States leave room for what makes some.
    while let Ok(pending) = other.reset(next, 1) {
        pending.wait().unwrap();
        next += 1;
    }
    let at = Position::new(1, log.last() + 10);
    let refused = log.reset(at.index.0 + 1, 1).unwrap_err();
    assert!(matches!(refused, AppendError::Full { .. }), "{refused}");
    let snapshot = Snapshot { at, configuration };
    let images = store.as_mut().unwrap();
    let mut writer = images.create(snapshots::header(5, &snapshot)).unwrap();
    writer.write_all(b"all").unwrap();
    let finished = writer.finish().unwrap();
    images.publish(finished).unwrap();
    drop((wal, log, other, store));
    for entropy in [Entropy::given(|| 7), Entropy::System] {
        let storage = open(entropy);
        assert_eq!(storage.log.first(), at.index.0 + 1);
        assert_eq!(storage.base.unwrap().snapshot, snapshot);
    }
}

#[test]
fn how_far_a_start_is_is_told_once_a_second() {
    let mut progress = Progress::new(10);
    assert_eq!(progress.due(3), None);
    progress.told_at = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    assert_eq!((progress.due(4), progress.due(5)), (Some((4, 10)), None));
}
