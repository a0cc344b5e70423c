//! The log against a plain list of entries, and its rules one by one.

use alloc::vec;

use proptest::prelude::*;

use super::*;
use crate::{Configuration, HardState, NodeId, Snapshot, State};

fn entry(term: u64, index: u64) -> Entry {
    Entry { index: LogIndex(index), term: Term(term), payload: Entry::encode_command(b"0123") }
}

fn batch(term: u64, first: u64, count: u64) -> Batch {
    Batch::from((first..first + count).map(|index| entry(term, index)).collect::<Vec<_>>())
}

fn empty(tail_bytes_max: usize) -> Log {
    recovered(Position::default(), vec![], 0, tail_bytes_max)
}

fn recovered(
    compacted: Position,
    runs: Vec<(LogIndex, Term)>,
    last: u64,
    tail_bytes_max: usize,
) -> Log {
    let mut state = State::default();
    state.hard.term = Term(99);
    let place = (Position::default(), Configuration::default());
    let snapshot = Snapshot { at: compacted, configuration: place };
    let snapshot = Some(snapshot).filter(|snapshot| snapshot.at != Position::default());
    let applied = compacted.index;
    let recovered = Recovered { state, snapshot, applied, compacted, runs, last: LogIndex(last) };
    let mut config = Config::new(NodeId(1));
    config.tail_bytes_max = tail_bytes_max;
    Log::recover(&recovered, &config).unwrap()
}

/// One entry of these tests weighs this much.
fn weight() -> usize {
    entry(1, 1).bytes()
}

#[test]
fn terms_are_answered_for_what_the_log_holds_and_one_before() {
    let runs = vec![(LogIndex(5), Term(2)), (LogIndex(8), Term(4))];
    let log = recovered(Position::new(2, 4), runs, 9, 1000);
    let terms = (3..=10).map(|index| log.term_at(LogIndex(index)).map(|term| term.0));
    let expected = [None, Some(2), Some(2), Some(2), Some(2), Some(4), Some(4), None];
    assert_eq!(terms.collect::<Vec<_>>(), expected);
    assert_eq!(log.last_position(), Position::new(4, 9));
    assert!(log.holds(Position::default()), "the place before the first entry");
    assert_eq!((log.committed(), log.applied()), (LogIndex(4), LogIndex(4)));
}

#[test]
fn the_last_entry_at_most_of_a_term_skips_whole_terms() {
    let runs = vec![(LogIndex(1), Term(1)), (LogIndex(4), Term(5)), (LogIndex(9), Term(7))];
    let log = recovered(Position::default(), runs, 12, 1000);
    let cases = [((12, 7), (7, 12)), ((12, 6), (5, 8)), ((20, 4), (1, 3)), ((6, 9), (5, 6))];
    for ((index, term), (expected_term, expected_index)) in cases {
        let found = log.last_at_most(LogIndex(index), Term(term));
        assert_eq!(found, Position::new(expected_term, expected_index), "{index} {term}");
    }
    assert_eq!(log.last_at_most(LogIndex(12), Term(0)), Position::default());
}

#[test]
fn only_durable_entries_leave_the_tail() {
    let mut log = empty(3 * weight());
    for first in [1, 3, 5] {
        log.append(&batch(1, first, 2));
    }
    assert!(matches!(log.entries(LogIndex(1), 10_000), Slice::Entries(_)), "nothing is durable");
    log.durable_to(LogIndex(3));
    let wanted = Slice::Fetch { first: LogIndex(1), end: LogIndex(3) };
    assert_eq!(log.entries(LogIndex(1), 10_000), wanted);
    assert_eq!(log.entries(LogIndex(3), 10_000), Slice::Entries(batch(1, 3, 4)));
    log.check();
}

#[test]
fn small_batches_are_put_together_and_large_ones_cut() {
    let mut log = empty(10_000);
    log.append(&batch(1, 1, 4));
    log.append(&batch(1, 5, 1));
    log.append(&batch(2, 6, 1));
    let entries = |first, count: usize| log.entries(LogIndex(first), count * weight());
    assert_eq!(entries(1, 3), Slice::Entries(batch(1, 1, 3)));
    assert_eq!(entries(4, 2), Slice::Entries(batch(1, 4, 2)));
    let Slice::Entries(all) = entries(1, 99) else { panic!() };
    assert_eq!((all.len(), all.last()), (6, Some(LogIndex(6))));
    assert_eq!(entries(1, 0), Slice::Entries(batch(1, 1, 1)), "at least one");
}

#[test]
fn entries_before_the_log_are_compacted() {
    let log = recovered(Position::new(2, 4), vec![(LogIndex(5), Term(2))], 9, 1000);
    assert_eq!(log.entries(LogIndex(4), 1000), Slice::Compacted);
    let fetch = Slice::Fetch { first: LogIndex(5), end: LogIndex(10) };
    assert_eq!(log.entries(LogIndex(5), 1000), fetch);
}

#[test]
fn a_truncated_log_takes_other_entries_in_their_place() {
    let mut log = empty(10_000);
    log.append(&batch(1, 1, 5));
    log.durable_to(LogIndex(4));
    log.truncate_after(LogIndex(2));
    assert_eq!((log.last(), log.durable()), (LogIndex(2), LogIndex(2)));
    log.append(&batch(3, 3, 1));
    log.check();
    assert!(log.holds_all(&[entry(1, 2), entry(3, 3)]));
    assert!(!log.holds_all(&[entry(1, 3)]));
}

#[test]
#[should_panic(expected = "a committed entry can not be overruled")]
fn committed_entries_can_not_be_truncated() {
    let mut log = empty(10_000);
    log.append(&batch(1, 1, 5));
    log.commit_to(LogIndex(3));
    log.truncate_after(LogIndex(2));
}

#[test]
fn committed_entries_are_handed_out_once_in_order_and_within_the_bound() {
    let mut log = empty(3 * weight());
    log.append(&batch(1, 1, 2));
    log.append(&batch(1, 3, 2));
    log.append(&batch(1, 5, 2));
    log.commit_to(LogIndex(5));
    assert_eq!(log.hand_out(), Some(Slice::Entries(batch(1, 1, 2))));
    assert_eq!(log.hand_out(), Some(Slice::Entries(batch(1, 3, 2))));
    assert_eq!(log.hand_out(), None, "two batches are as much as it may have at once");
    // Meanwhile the rest leaves the memory; the applier will read it from the log.
    log.durable_to(LogIndex(6));
    log.append(&batch(1, 7, 3));
    log.applied_to(LogIndex(1));
    assert_eq!(log.hand_out(), None);
    log.applied_to(LogIndex(2));
    assert_eq!(log.hand_out(), Some(Slice::Fetch { first: LogIndex(5), end: LogIndex(6) }));
    assert_eq!(log.hand_out(), None);
    log.check();
}

/// One change to a log.
#[derive(Clone, Debug)]
enum Change {
    Append { term_step: u64, count: u64 },
    Truncate { by: u64 },
    Durable { by: u64 },
    Commit { by: u64 },
    Apply { by: u64 },
    Compact { by: u64 },
    Reset { ahead: u64, term_step: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (0u64..3, 1u64..4).prop_map(|(term_step, count)| Change::Append { term_step, count }),
        (1u64..5).prop_map(|by| Change::Truncate { by }),
        (1u64..5).prop_map(|by| Change::Durable { by }),
        (1u64..5).prop_map(|by| Change::Commit { by }),
        (1u64..5).prop_map(|by| Change::Apply { by }),
        (1u64..5).prop_map(|by| Change::Compact { by }),
        (1u64..5, 0u64..2).prop_map(|(ahead, term_step)| Change::Reset { ahead, term_step }),
    ]
}

/// The model has all entries from index 1 on, also those that are gone.
fn play(log: &mut Log, model: &mut Vec<Entry>, term: &mut u64, change: &Change) {
    let last = log.last().0;
    match *change {
        Change::Append { term_step, count } => {
            *term += term_step;
            let batch = batch(*term, last + 1, count);
            model.extend_from_slice(batch.entries());
            log.append(&batch);
        }
        Change::Truncate { by } => {
            let to = last.saturating_sub(by).max(log.committed().0);
            if to < last {
                log.truncate_after(LogIndex(to));
                model.truncate(usize::try_from(to).unwrap());
                *term += 1;
            }
        }
        Change::Durable { by } => log.durable_to(LogIndex((log.durable().0 + by).min(last))),
        Change::Commit { by } => {
            log.commit_to(LogIndex((log.committed().0 + by).min(last)));
            while log.hand_out().is_some() {}
        }
        Change::Apply { by } => {
            let handed = log.handed.0;
            log.applied_to(LogIndex((log.applied().0 + by).min(handed)));
        }
        Change::Compact { by } => {
            let to = (log.compacted().index.0 + by).min(log.applied().0);
            if to > log.compacted().index.0 {
                log.compact_to(LogIndex(to));
            }
        }
        Change::Reset { ahead, term_step } => {
            let at = log.committed().0 + ahead;
            *term += term_step;
            log.reset(Position::new(*term, at));
            model.truncate(usize::try_from(at - ahead).unwrap());
            model.extend((at - ahead + 1..=at).map(|index| entry(*term, index)));
        }
    }
}

proptest! {
    #[test]
    fn a_log_answers_like_a_list_of_its_entries(
        changes in prop::collection::vec(change(), 0..40), tail in 1usize..8
    ) {
        let (mut log, mut model, mut term) = (empty(tail * weight()), Vec::new(), 1);
        for change in &changes {
            play(&mut log, &mut model, &mut term, change);
            log.check();
            prop_assert_eq!(log.last().0, model.len() as u64);
            let gone = usize::try_from(log.compacted().index.0).unwrap();
            prop_assert!(log.holds_all(&model[gone..]));
            prop_assert!(gone == 0 || log.holds(model[gone - 1].position()));
            for first in &model {
                let expected = &model[usize::try_from(first.index.0).unwrap() - 1..];
                match log.entries(first.index, 5 * weight()) {
                    Slice::Entries(batch) => {
                        prop_assert!(first.index > log.compacted().index);
                        prop_assert!((1..=5).contains(&batch.len()));
                        prop_assert_eq!(batch.entries(), &expected[..batch.len()]);
                    }
                    Slice::Fetch { first: from, end } => {
                        prop_assert!(from == first.index && end <= log.durable().next());
                    }
                    Slice::Compacted => prop_assert!(first.index <= log.compacted().index),
                }
            }
        }
    }
}

#[test]
fn a_state_machine_that_keeps_itself_gets_only_what_is_durable_here() {
    let mut log = Log { applies_durable_only: true, ..empty(1000) };
    log.append(&batch(1, 1, 3));
    log.commit_to(LogIndex(3));
    assert_eq!(log.hand_out(), None, "others have it, this disk does not");
    log.durable_to(LogIndex(2));
    assert_eq!(log.hand_out(), Some(Slice::Entries(batch(1, 1, 2))));
    assert_eq!(log.hand_out(), None);
    log.durable_to(LogIndex(3));
    assert!(log.hand_out().is_some());
}

#[test]
fn a_start_goes_on_where_the_state_machine_stands() {
    let runs = vec![(LogIndex(5), Term(2))];
    let state = State { hard: HardState { term: Term(9), vote: None }, ..State::default() };
    let snapshot = Snapshot { at: Position::new(2, 6), configuration: Default::default() };
    let begun = |applied| {
        let (state, runs, snapshot) = (state.clone(), runs.clone(), Some(snapshot.clone()));
        let (compacted, applied, last) = (Position::new(1, 4), LogIndex(applied), LogIndex(8));
        let recovered = Recovered { state, snapshot, applied, compacted, runs, last };
        Log::recover(&recovered, &Config::new(NodeId(1)))
    };
    // Behind the snapshot, and before it: then what lies between is committed and handed out first.
    let log = begun(8).unwrap();
    assert_eq!((log.applied(), log.committed()), (LogIndex(8), LogIndex(8)));
    let mut log = begun(4).unwrap();
    assert_eq!((log.applied(), log.committed()), (LogIndex(4), LogIndex(6)));
    assert_eq!(log.hand_out(), Some(Slice::Fetch { first: LogIndex(5), end: LogIndex(7) }));
    log.check();
    assert!(begun(3).is_err() && begun(9).is_err());
}
