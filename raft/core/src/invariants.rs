//! What holds between any two inputs, as code. Tests and simulations check it after every input.

use crate::local::Local;

/// Asserts the invariants of a node that do not depend on its role.
pub(crate) fn check(local: &Local) {
    local.log.check();
    local.durability.check(local.term(), local.log.last());
    assert!(local.log.last_position().term <= local.term(), "no entry is of a later term");
    // What is not durable is on its way.
    let last = local.log.last();
    assert!(local.log.durable() == last || local.durability.vouching_for(last).is_some());
}
