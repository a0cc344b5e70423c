use std::collections::BTreeMap;

use super::*;

const L: LogId = LogId(1);

/// A catalog and the place of the next frame, one segment per frame.
struct World {
    catalog: Catalog,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        Self { catalog: Catalog::empty(), sequence: 0 }
    }

    /// Takes a change in as the only frame of a new segment; the segment's number.
    fn apply(&mut self, change: Change) -> u64 {
        self.sequence += 1;
        self.catalog.open_segment(self.sequence);
        self.apply_there(change);
        self.sequence
    }

    /// The same in the segment that is there.
    fn apply_there(&mut self, change: Change) {
        self.catalog.check(L, &change).unwrap();
        let growth = self.growth(&change);
        let before = self.catalog.checkpoint_bytes();
        let end = Lsn(100 * self.sequence);
        self.catalog.apply(L, change, Place::new(self.sequence, 4096), end);
        assert!(self.catalog.checkpoint_bytes() <= before + growth, "growth is an upper bound");
        self.check();
    }

    /// As the log reckons it before it takes the change in.
    fn growth(&self, change: &Change) -> u64 {
        match *change {
            Change::Entries { first, count, term } => {
                let plan = self.catalog.plan_append(L, Some(first), Some(term), count.into());
                plan.unwrap().growth
            }
            _ => self.catalog.growth(L, change),
        }
    }

    fn entries(&mut self, first: u64, count: u16, term: u64) -> u64 {
        self.apply(Change::Entries { first, count, term })
    }

    /// What holds at all times.
    fn check(&self) {
        let body = self.catalog.checkpoint();
        let checkpoint = checkpoint::decode(&body.into()).expect("a checkpoint is sound");
        let mut logs = 0;
        for (log, bounds) in checkpoint.into_logs() {
            logs += 1;
            let entry = self.catalog.log(log).unwrap();
            assert_eq!(bounds, entry.bounds);
            for index in bounds.first..=bounds.last {
                let location = self.catalog.locate(log, index).expect("a live entry has a place");
                let frame = location.frame.expect("nothing is sealed");
                assert!(frame.first <= index && index < location.end.min(frame.end));
            }
            assert!(self.catalog.locate(log, bounds.last + 1).is_none());
            if bounds.first > bounds.last {
                assert!(entry.extents.is_empty(), "an empty log holds no segment");
            }
        }
        assert_eq!(logs, self.catalog.logs.len());
        assert_eq!(self.catalog.missing(&BTreeMap::new()), None);
    }

    fn bounds(&self) -> Bounds {
        self.catalog.bounds(L).into_owned()
    }

    fn place(&self, index: u64) -> u64 {
        self.catalog.locate(L, index).unwrap().sequence
    }

    /// Nothing lives in it, once the log has gone on elsewhere.
    fn is_dead(&self, sequence: u64) -> bool {
        self.catalog.segments.is_dead(sequence)
    }
}

#[test]
fn an_append_at_or_below_the_last_index_replaces_the_suffix() {
    let mut world = World::new();
    let old = world.entries(1, 10, 1);
    let new = world.entries(4, 2, 3);
    let bounds = world.bounds();
    assert_eq!((bounds.first, bounds.last), (1, 5));
    assert_eq!(bounds.runs[..], [(1, 1), (4, 3)]);
    assert_eq!((world.place(3), world.place(4)), (old, new));
    world.entries(1, 1, 7);
    assert_eq!(world.bounds().runs[..], [(1, 7)]);
    assert!(world.is_dead(old) && world.is_dead(new));
}

#[test]
fn a_segment_is_dead_without_live_entries_and_the_active_one_never() {
    let mut world = World::new();
    let old = world.entries(1, 3, 1);
    let last = world.entries(4, 1, 1);
    world.apply(Change::Compact { first: 3, term_before: 1 });
    assert_eq!(world.catalog.segments.dead().count(), 0, "index 3 lives");
    let active = world.apply(Change::Compact { first: 5, term_before: 1 });
    assert_eq!(world.catalog.segments.dead().collect::<Vec<_>>(), [old, last, active - 1]);
    world.catalog.segments.free(&[old, last]);
    assert!(world.catalog.segments.numbers().runs().eq([(active - 1, active)]));
    let checkpoint = checkpoint::decode(&world.catalog.checkpoint().into()).unwrap();
    assert_eq!(checkpoint.segments, [(active - 1, active)]);
}

#[test]
fn a_log_that_lost_all_it_had_in_a_segment_is_held_by_it_again_with_the_next_entry() {
    let losses = [
        Change::Compact { first: 4, term_before: 1 },
        Change::Truncate { first: 1 },
        Change::Reset { next: 9, term_before: 1 },
        Change::Forget,
    ];
    for loss in losses {
        let mut world = World::new();
        let sequence = world.entries(1, 3, 1);
        world.apply_there(loss);
        assert!(world.is_dead(sequence));
        let next = world.bounds().last + 1;
        for first in [next, next + 1] {
            world.apply_there(Change::Entries { first, count: 1, term: 1 });
        }
        world.apply(Change::State(Bytes::new()));
        assert_eq!(world.catalog.segments.dead().count(), 0);
        assert_eq!((world.place(next), world.place(next + 1)), (sequence, sequence));
        assert_eq!(world.catalog.segments_of(L).collect::<Vec<_>>(), [sequence]);
    }
}

#[test]
fn a_logs_place_in_the_index_is_taken_once_in_each_segment_whatever_becomes_of_the_log() {
    let entries = Change::Entries { first: 1, count: 1, term: 1 };
    let mut world = World::new();
    world.apply(Change::State(Bytes::new()));
    let state = || Change::State(Bytes::new());
    for last in [state(), Change::Forget, state()] {
        assert_eq!(world.catalog.index_bytes(L), index::LOG_BYTES + index::FRAME_BYTES);
        world.apply_there(entries.clone());
        for change in [Change::Truncate { first: 1 }, Change::Forget, state(), last] {
            world.apply_there(change);
            assert_eq!(world.catalog.index_bytes(L), index::FRAME_BYTES);
            let plan = world.catalog.plan_append(L, None, None, 1).unwrap();
            assert_eq!(plan.index_bytes, index::FRAME_BYTES);
        }
        world.apply(Change::State(Bytes::new()));
    }
}

#[test]
fn truncating_below_a_compacted_front_frees_the_frame_that_held_both() {
    let mut world = World::new();
    let frame = world.entries(1, 10, 1);
    world.apply(Change::Compact { first: 5, term_before: 1 });
    world.apply(Change::Truncate { first: 5 });
    let bounds = world.bounds();
    assert_eq!((bounds.first, bounds.last, bounds.term(4)), (5, 4, Some(1)));
    assert!(world.is_dead(frame));
    world.entries(5, 1, 2);
    assert_eq!(world.bounds().runs[..], [(5, 2)]);
}

#[test]
fn a_reset_keeps_the_state_and_a_forgotten_log_leaves_nothing() {
    let mut world = World::new();
    world.apply(Change::State(Bytes::from_static(b"vote")));
    let frame = world.entries(1, 3, 1);
    world.apply(Change::Reset { next: 50, term_before: 9 });
    let bounds = world.bounds();
    assert_eq!((bounds.first, bounds.last, bounds.term(49)), (50, 49, Some(9)));
    assert_eq!(bounds.state.as_deref(), Some(&b"vote"[..]));
    assert!(world.is_dead(frame));
    world.apply(Change::Forget);
    assert_eq!(world.catalog.logs().count(), 0);
    let one_run = checkpoint::EMPTY_BYTES + checkpoint::SEGMENTS_BYTES;
    assert_eq!(world.catalog.checkpoint_bytes(), one_run);
}

#[test]
fn what_cannot_follow_is_refused_with_the_numbers() {
    let mut world = World::new();
    world.entries(1, 4, 5);
    world.apply(Change::Compact { first: 3, term_before: 5 });
    let check = |change| world.catalog.check(L, &change).map_err(|error| error.to_string());
    let entries = |first, term| Change::Entries { first, count: 1, term };
    let refused = [
        (entries(6, 5), "index 6 leaves a gap, the next is 5"),
        (entries(2, 5), "index 2 is below the first, 3"),
        (entries(5, 4), "term 4 is below 5, the term of the entry before"),
        (Change::Truncate { first: 2 }, "index 1 is below the first, 3"),
        (Change::Compact { first: 6, term_before: 0 }, "index 6 is beyond last + 1 = 5"),
        (Change::Reset { next: 0, term_before: 0 }, "index 0 is below the first, 1"),
    ];
    for (change, message) in refused {
        assert_eq!(check(change), Err(message.to_owned()));
    }
    let reset = Change::Reset { next: u64::MAX, term_before: 0 };
    assert_eq!(check(reset.clone()), Ok(()));
    world.apply(reset);
    let at_the_end = Change::Entries { first: u64::MAX, count: 1, term: 0 };
    assert!(matches!(world.catalog.check(L, &at_the_end), Err(AppendError::Beyond { .. })));
}

/// WAL-CASE 29: what a checkpoint of a few bytes says costs a few bytes.
#[test]
fn a_million_segments_in_a_checkpoint_are_one_run_in_memory() {
    let checkpoint = checkpoint(&[(1, 1 << 20)], &[]);
    let mut catalog = Catalog::restore((1 << 20) + 1, checkpoint);
    assert_eq!(catalog.segments.held_count(), 1, "the active one");
    assert!(catalog.segments.can_free(&[1, 500, 1 << 20]));
    catalog.attach(500, &[], None);
    assert_eq!(catalog.segments.dead().collect::<Vec<_>>(), [500], "its file is there");
    catalog.segments.free(&[500]);
    let left = catalog.segments.numbers().runs();
    assert!(left.eq([(1, 499), (501, (1 << 20) + 1)]));
    assert_eq!(catalog.segments.held_count(), 1);
    let two_runs = checkpoint::EMPTY_BYTES + 2 * checkpoint::SEGMENTS_BYTES;
    assert_eq!(catalog.checkpoint_bytes(), two_runs);
}

/// A checkpoint of these segments and logs.
fn checkpoint(segments: &[(u64, u64)], logs: &[(LogId, Bounds)]) -> Checkpoint {
    let mut body = Vec::new();
    checkpoint::encode_segments(u32::try_from(logs.len()).unwrap(), segments, &mut body);
    logs.iter().for_each(|(log, bounds)| checkpoint::encode_log(*log, bounds, &mut body));
    checkpoint::decode(&body.into()).unwrap()
}

/// A catalog that an opening makes of a checkpoint and of what the older segments hold; where each entry lies.
fn attach(first: u64, last: u64, found: &[(u64, u64, u64)]) -> Result<Vec<u64>, Missing> {
    let runs = (first <= last).then_some((first, 1)).into_iter().collect();
    let bounds = Bounds { first, last, term_before: 0, runs, state: None };
    let mut catalog = Catalog::restore(4, checkpoint(&[(1, 3)], &[(L, bounds)]));
    let mut sealed = BTreeMap::new();
    for &(sequence, first, end) in found {
        let spans = vec![Span { log: L, first, end }];
        catalog.attach(sequence, &spans, None);
        sealed.insert(sequence, spans);
    }
    if let Some(missing) = catalog.missing(&sealed) {
        catalog.drop_missing(&sealed);
        assert_eq!(catalog.missing(&sealed), None);
        return Err(missing);
    }
    Ok((first..=last).map(|index| catalog.locate(L, index).unwrap().sequence).collect())
}

#[test]
fn each_live_entry_is_found_in_the_newest_segment_that_holds_it() {
    // A replaced suffix, a compacted prefix, a truncated tail, and what a reset left behind.
    assert_eq!(attach(1, 4, &[(1, 1, 4), (2, 2, 5)]).unwrap(), [1, 2, 2, 2]);
    assert_eq!(attach(3, 4, &[(1, 1, 3), (2, 3, 5)]).unwrap(), [2, 2]);
    assert_eq!(attach(1, 2, &[(1, 1, 10), (2, 8, 11)]).unwrap(), [1, 1]);
    assert_eq!(attach(5, 6, &[(1, 90, 99), (2, 5, 7)]).unwrap(), [2, 2]);
    assert_eq!(attach(50, 50, &[(1, 1, 10), (2, 50, 51)]).unwrap(), [2]);
    assert_eq!(attach(9, 8, &[(1, 1, 10)]).unwrap(), []);
}

/// WAL-CASE 16: the half that finds what is missing.
#[test]
fn live_entries_that_no_segment_holds_are_named_up_to_the_next_one_that_is_held() {
    let missing = |found: &[(u64, u64, u64)]| {
        let missing = attach(1, 9, found).unwrap_err();
        assert_eq!(missing.log, L);
        (missing.first, missing.last)
    };
    assert_eq!(missing(&[(1, 1, 4), (3, 7, 10)]), (4, 6));
    assert_eq!(missing(&[(1, 1, 2), (2, 4, 5), (3, 7, 10)]), (2, 3), "the first ones");
    assert_eq!(missing(&[(3, 7, 10)]), (1, 6));
    assert_eq!(missing(&[(1, 1, 9)]), (9, 9));
    assert_eq!(missing(&[(1, 1, 3)]), (3, 9));
    assert_eq!(missing(&[]), (1, 9));
}
