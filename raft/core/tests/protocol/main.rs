//! The protocol under a world of its own: nodes, a network, disks and a clock, all in one thread
//! and all in the hands of the test. Each case of the list the project keeps is cited by number.
#![expect(clippy::unwrap_used, reason = "a test that can not go on fails where it stands")]

mod checker;
mod cluster;
mod determinism;
mod disk;
mod durability;
mod elections;
mod reads;
mod replication;
mod restart;
mod scenarios;
mod schedules;
mod snapshots;
mod story;
mod text;
