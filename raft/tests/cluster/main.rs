//! Nodes of one process, with real threads and logs: what only a whole node can show.
#![expect(clippy::unwrap_used, reason = "what does not work in a test is what it is for")]

mod admission;
mod chaos;
mod copies;
mod durability;
mod failures;
mod harness;
mod muffle;
mod outcomes;
mod own_disk;
mod ports;
mod reads;
mod snapshots;
mod transfers;
mod turns;
