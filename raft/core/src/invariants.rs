//! What holds between any two inputs, as code. Tests and simulations check it after every input.

use crate::local::Local;

/// Asserts the invariants of a node that do not depend on its role.
pub(crate) fn check(local: &Local) {
    local.log.check();
    local.durability.check(local.term(), local.log.last());
    assert!(local.log.last_position().term <= local.term(), "no entry is of a later term");
    if let Some(snapshot) = &local.snapshot {
        let at = snapshot.at;
        assert!(local.log.compacted().index <= at.index, "nothing goes that no snapshot contains");
        assert!(local.snapshot_before <= at.index);
        let term = local.log.term_at(at.index);
        assert!(term.is_none_or(|term| term == at.term), "log and snapshot are of one history");
    }
    // What is not durable is on its way.
    let last = local.log.last();
    assert!(local.log.durable() == last || local.durability.vouching_for(last).is_some());
}
