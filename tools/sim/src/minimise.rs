//! Finds the faults that a failure takes, by leaving out the others: parts of them at a time, ever smaller ones (delta
//! debugging; Zeller and Hildebrandt 2002).

use std::collections::BTreeSet;

use crate::world::{self, Failure};

/// The faults that can be left out so that the world of `failure` still fails, those of `left_out` among them. What fails then
/// need not be the same.
pub fn minimise(failure: &Failure, left_out: &BTreeSet<usize>) -> BTreeSet<usize> {
    let mut left_out = left_out.clone();
    let mut kept: Vec<usize> = failure.faults.iter().map(|(number, _)| *number).collect();
    let mut part = kept.len().div_ceil(2);
    while part > 0 {
        let mut start = 0;
        while start < kept.len() {
            let end = kept.len().min(start + part);
            let mut tried = left_out.clone();
            tried.extend(&kept[start..end]);
            if world::run(failure.seed, &tried, None).is_err() {
                left_out = tried;
                kept.drain(start..end);
            } else {
                start = end;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    left_out
}
