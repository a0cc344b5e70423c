//! The command as its users run it, on logs that kontiki-wal wrote.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

mod damage;
mod diff;
mod dump;
mod follow;
mod golden;
mod hexdump;
mod live;
mod probe;
mod repair;
mod repair_lists;
mod repair_marks;
mod repair_places;
mod segments;
mod standing;
mod stats;
mod support;
mod terminal;
mod usage;
mod verify;
