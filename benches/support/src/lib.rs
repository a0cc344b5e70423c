//! What the benches share: works on the log and on the raw disk, rounds in turns, percentiles, the device's counters.
//! How to run them and what came out: README.md in the directory above.

#![forbid(unsafe_code)]

pub mod appends;
pub mod arguments;
pub mod bursts;
pub mod commits;
#[path = "../../../tools/wal-inspect/src/device.rs"]
pub mod device;
pub mod frames;
pub mod key_values;
pub mod latencies;
pub mod place;
#[path = "../../../raft/tests/cluster/ports.rs"]
mod ports;
pub mod rates;
pub mod raw;
pub mod reads;
pub mod replicas;
pub mod rounds;
pub mod table;
pub mod threads;
mod window;
