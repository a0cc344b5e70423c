//! Other logs at the work of `kontiki_bench`, beside ours and the raw disk.
//! How to run the benches and what came out: README.md in the directory above.

#![forbid(unsafe_code)]

pub mod contest;
pub mod okaywal;
pub mod plot;
pub mod raft_engine;
pub mod replay;
