//! What a repair says of each index behind a damaged header: whole, lost, or not to be known.

use kontiki_wal::repair::{LogOutcome, TermRun};

use super::{
    repair::{diagnose, of_log, run, salvaged},
    *,
};

/// Flips two bits of the header of the frame whose only entry is `text`: nobody knows what it was.
fn damage_header(disk: &MemoryDisk, text: &str) {
    let (file, entry) = find(disk, text);
    flip(disk, &file, header_of(entry) + 24);
    flip(disk, &file, header_of(entry) + 33);
}

fn damage_body(disk: &MemoryDisk, text: &str) {
    let (file, entry) = find(disk, text);
    flip(disk, &file, entry);
}

/// Indexes and terms: kept, left out though whole, lost, and not to be known.
type Lists<'a> = (&'a [TermRun], &'a [TermRun], &'a [TermRun], &'a [(u64, u64)]);

fn lists(log: &LogOutcome) -> Lists<'_> {
    (&log.kept, &log.left_out, &log.lost, &log.unknown)
}

/// Entries 1 to 9 of both logs by turns, of term 3 up to the fifth and of term 4 from there on.
fn by_turns(session: &mut Session) {
    for index in 1..10 {
        let term = if index < 6 { 3 } else { 4 };
        acknowledge(session, L, append(index, term, &[&format!("this {index}")]));
        acknowledge(session, OTHER, append(index, term, &[&format!("other {index}")]));
    }
}

/// WAL-CASE 42, WAL-CASE 5: nothing says any more where the log stood.
#[test]
fn behind_a_damaged_header_in_the_newest_segment_each_index_is_whole_lost_or_unknown() {
    let mut session = start();
    by_turns(&mut session);
    let (_, disk) = session.close();
    damage_header(&disk, "this 3");
    damage_body(&disk, "this 5");
    damage_header(&disk, "this 7");
    damage_header(&disk, "other 9");
    let told = diagnose(&disk);
    assert!(!told.is_end_known);
    let whole = [run(4, 4, 3), run(6, 6, 4), run(8, 9, 4)];
    let expected: Lists<'_> = (&[run(1, 2, 3)], &whole, &[run(5, 5, 3)], &[(3, 3), (7, 7)]);
    assert_eq!(lists(of_log(&told.salvage, L)), expected);
    assert_eq!(lists(of_log(&told.truncation.as_ref().unwrap().logs, L)), expected);
    // That there was a ninth one nothing tells.
    let expected: Lists<'_> = (&[run(1, 2, 3)], &[run(3, 5, 3), run(6, 8, 4)], &[], &[]);
    assert_eq!(lists(of_log(&told.salvage, OTHER)), expected);

    // One flipped bit is told from the header that it made of.
    let mut session = start();
    by_turns(&mut session);
    let (_, disk) = session.close();
    let (file, entry) = find(&disk, "this 3");
    flip(&disk, &file, header_of(entry) + 24);
    let told = diagnose(&disk);
    let expected: Lists<'_> =
        (&[run(1, 2, 3)], &[run(4, 5, 3), run(6, 9, 4)], &[run(3, 3, 3)], &[]);
    assert_eq!(lists(of_log(&told.salvage, L)), expected);
}

/// WAL-CASE 42, WAL-CASE 33: over a gap that a reset made nothing was lost.
#[test]
fn an_index_that_a_reset_passed_over_is_not_called_unknown() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 1, &["this 1"]));
    acknowledge(&mut session, OTHER, append(1, 1, &["other 1"]));
    acknowledge(&mut session, L, Operation::Reset { next_index: 100, term_before: 5 });
    acknowledge(&mut session, L, append(100, 5, &["this 100"]));
    acknowledge(&mut session, OTHER, append(2, 1, &["other 2"]));
    let (_, disk) = session.close();
    damage_header(&disk, "other 1");
    let told = diagnose(&disk);
    let expected: Lists<'_> = (&[run(1, 1, 1)], &[run(100, 100, 5)], &[], &[]);
    assert_eq!(lists(of_log(&told.salvage, L)), expected);
    let expected: Lists<'_> = (&[], &[run(2, 2, 1)], &[], &[(1, 1)]);
    assert_eq!(lists(of_log(&told.salvage, OTHER)), expected);
}

/// WAL-CASE 42, WAL-CASE 5: the newest segment says where the logs stood, so what is not found is lost. What lies behind the
/// loss is not joined to what lies before it, and brought where nothing lies before.
#[test]
fn behind_a_damaged_header_in_an_older_segment_what_is_whole_is_not_called_lost() {
    const LATE: LogId = LogId(9);
    let mut session = start();
    by_turns(&mut session);
    acknowledge(&mut session, LATE, append(1, 4, &["late 1"]));
    fill_up_to(&mut session, L, 3);
    acknowledge(&mut session, LATE, append(2, 4, &["late 2"]));
    let (life, disk) = session.close();
    let last = life.world().log(L).last();
    damage_header(&disk, "this 3");
    let told = diagnose(&disk);
    assert!(told.is_end_known);
    let expected: Lists<'_> =
        (&[run(1, 2, 3)], &[run(4, 5, 3), run(6, last, 4)], &[run(3, 3, 3)], &[]);
    assert_eq!(lists(of_log(&told.salvage, L)), expected);
    let expected: Lists<'_> = (&[run(1, 2, 3)], &[run(3, 5, 3), run(6, 9, 4)], &[], &[]);
    assert_eq!(lists(of_log(&told.salvage, OTHER)), expected);
    assert!(of_log(&told.salvage, LATE).is_unharmed());
    let (found, _) = salvaged(&disk);
    assert_eq!(entries(&found, L), ["this 1", "this 2"]);
    assert_eq!(found.log(LATE), life.world().log(LATE));

    // A second loss in the same segment: what lies between the two is not joined to either side.
    damage_header(&disk, "other 6");
    let told = diagnose(&disk);
    let expected: Lists<'_> =
        (&[run(1, 2, 3)], &[run(3, 5, 3), run(7, 9, 4)], &[run(6, 6, 4)], &[]);
    assert_eq!(lists(of_log(&told.salvage, OTHER)), expected);
    let (found, _) = salvaged(&disk);
    assert_eq!(entries(&found, OTHER), ["other 1", "other 2"]);
}

/// WAL-CASE 42: what was replaced behind the loss does not live before it.
#[test]
fn what_a_frame_behind_a_loss_has_replaced_is_not_kept() {
    let mut session = start();
    acknowledge(&mut session, L, append(1, 3, &["old 1", "old 2", "old 3"]));
    acknowledge(&mut session, OTHER, append(1, 3, &["lost"]));
    // Under the same term, as no log of Raft has it.
    acknowledge(&mut session, L, append(2, 3, &["new"]));
    fill_up_to(&mut session, OTHER, 3);
    let (_, disk) = session.close();
    damage_header(&disk, "lost");
    let told = diagnose(&disk);
    let expected: Lists<'_> = (&[run(1, 1, 3)], &[run(2, 2, 3)], &[], &[]);
    assert_eq!(lists(of_log(&told.salvage, L)), expected);
    let (found, _) = salvaged(&disk);
    assert_eq!(entries(&found, L), ["old 1"]);
}
