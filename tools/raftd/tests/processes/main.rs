//! raftd as its users meet it: real processes, real sockets, a real disk.
//!
//! Every wait ends with an event or fails at a deadline. What a process wrote to standard error is
//! printed when its test fails.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod bad_input;
mod commands;
mod data;
mod demo;
mod kill;
mod network;
mod outcomes;
#[path = "../../../../raft/tests/cluster/ports.rs"]
mod ports;
mod recorded;
mod redis_tools;
mod snapshots;
mod status;
mod storm;
mod support;
#[path = "../../../../raft/tests/cluster/turns.rs"]
mod turns;
