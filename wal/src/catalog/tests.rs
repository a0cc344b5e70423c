use super::*;

const L: LogId = LogId(1);

/// A catalog and the place of the next frame, one segment per frame.
struct World {
    catalog: Catalog,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        Self { catalog: Catalog::new(), sequence: 0 }
    }

    /// Takes a change in as a frame of 100 bytes that ends at LSN `100 * sequence`.
    fn apply(&mut self, change: Change) -> u64 {
        self.catalog.check(L, &change).unwrap();
        let growth = self.catalog.growth(L, &change);
        let before = self.catalog.checkpoint_bytes();
        self.sequence += 1;
        let place = Place::new(self.sequence, 4096);
        self.catalog.apply(L, change, place, 100, Lsn(100 * self.sequence));
        assert!(self.catalog.checkpoint_bytes() <= before + growth, "growth is an upper bound");
        self.check();
        self.sequence
    }

    fn entries(&mut self, first: u64, count: u16, term: u64) -> u64 {
        self.apply(Change::Entries { first, count, term })
    }

    /// What holds at all times.
    fn check(&self) {
        let body = self.catalog.checkpoint();
        let logs = checkpoint::decode(&body).expect("a checkpoint is sound");
        assert_eq!(logs.len(), self.catalog.logs.len());
        for (log, bounds) in &logs {
            let entry = self.catalog.log(*log).unwrap();
            assert_eq!(bounds, &entry.bounds);
            for index in bounds.first..=bounds.last {
                let (location, end) = entry.locate(index).expect("a live entry has a frame");
                assert!(location.first <= index && index < end && end <= location.end());
            }
            assert!(entry.locate(bounds.last + 1).is_none());
            if bounds.first > bounds.last {
                assert!(entry.frames.is_empty(), "an empty log holds no segment");
            }
        }
    }

    fn bounds(&self) -> Bounds {
        self.catalog.bounds(L).into_owned()
    }

    fn place(&self, index: u64) -> u64 {
        self.catalog.log(L).unwrap().locate(index).unwrap().0.place.sequence()
    }

    fn is_dead(&self, sequence: u64) -> bool {
        self.catalog.is_dead(sequence, Lsn(u64::MAX))
    }
}

#[test]
fn an_append_at_or_below_the_last_index_replaces_the_suffix() {
    let mut world = World::new();
    let old = world.entries(1, 10, 1);
    let new = world.entries(4, 2, 3);
    let bounds = world.bounds();
    assert_eq!((bounds.first, bounds.last), (1, 5));
    assert_eq!(bounds.runs, [(1, 1), (4, 3)]);
    assert_eq!((world.place(3), world.place(4)), (old, new));
    world.entries(1, 1, 7);
    assert_eq!(world.bounds().runs, [(1, 7)]);
    assert!(world.is_dead(old) && world.is_dead(new));
}

#[test]
fn a_segment_is_dead_once_what_killed_its_last_entry_is_durable() {
    let mut world = World::new();
    let old = world.entries(1, 3, 1);
    world.entries(4, 1, 1);
    world.apply(Change::Compact { first: 3, term_before: 1 });
    assert!(!world.is_dead(old), "index 3 lives");
    let killer = world.apply(Change::Compact { first: 4, term_before: 1 });
    let end = 100 * killer;
    assert!(!world.catalog.is_dead(old, Lsn(end - 1)));
    assert!(world.catalog.is_dead(old, Lsn(end)));
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
    assert_eq!(world.bounds().runs, [(5, 2)]);
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
    assert_eq!(world.catalog.checkpoint_bytes(), checkpoint::EMPTY_BYTES);
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

fn location(sequence: u64, first: u64, count: u16) -> Location {
    Location { first, place: Place::new(sequence, 4096), frame_bytes: 100, count }
}

fn attach(first: u64, last: u64, found: &[(u64, u64, u16)]) -> Result<Vec<u64>, Missing> {
    let runs = if first <= last { vec![(first, 1)] } else { vec![] };
    let bounds = Bounds { first, last, term_before: 0, runs, state: None };
    let mut catalog = Catalog::new();
    catalog.restore(vec![(L, bounds)]);
    let found = found.iter().map(|&(sequence, first, count)| location(sequence, first, count));
    let found = BTreeMap::from([(L, found.collect())]);
    if let Some(missing) = catalog.missing(&found) {
        return Err(missing);
    }
    catalog.attach(found);
    let log = catalog.log(L).unwrap();
    Ok((first..=last).map(|index| log.locate(index).unwrap().0.place.sequence()).collect())
}

#[test]
fn each_live_entry_is_found_in_the_newest_frame_that_holds_it() {
    // A replaced suffix, a compacted prefix, a truncated tail, and what a reset left behind.
    assert_eq!(attach(1, 4, &[(1, 1, 3), (2, 2, 3)]).unwrap(), [1, 2, 2, 2]);
    assert_eq!(attach(3, 4, &[(1, 1, 2), (2, 3, 2)]).unwrap(), [2, 2]);
    assert_eq!(attach(1, 2, &[(1, 1, 9), (2, 8, 3)]).unwrap(), [1, 1]);
    assert_eq!(attach(5, 6, &[(1, 90, 9), (2, 5, 2)]).unwrap(), [2, 2]);
    assert_eq!(attach(50, 50, &[(1, 1, 9), (2, 50, 1)]).unwrap(), [2]);
    assert_eq!(attach(9, 8, &[(1, 1, 9)]).unwrap(), []);
}

/// WAL-CASE 16: the half that names what is missing.
#[test]
fn a_live_entry_without_a_frame_is_named_with_its_neighbours() {
    let missing = |first, last, found: &[(u64, u64, u16)]| {
        let missing = attach(first, last, found).unwrap_err();
        (missing.index, missing.before, missing.after)
    };
    assert_eq!(missing(1, 9, &[(1, 1, 3), (3, 7, 3)]), (4, Some(1), Some(3)));
    assert_eq!(missing(1, 9, &[(3, 7, 3)]), (1, None, Some(3)));
    assert_eq!(missing(1, 9, &[(1, 1, 8)]), (9, Some(1), None));
    assert_eq!(missing(1, 9, &[]), (1, None, None));
}
