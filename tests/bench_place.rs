//! The benches refuse to measure where a sync costs nothing.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]

#[path = "../benches/support/place.rs"]
#[expect(dead_code, reason = "the benches use the rest")]
mod place;

use std::{
    io::{self, Write},
    path::Path,
};

#[test]
fn a_file_system_in_memory_is_refused() {
    let memory = Path::new("/dev/shm");
    let kind = rustix::fs::statfs(memory).map(|system| system.f_type);
    if !matches!(kind, Ok(0x0102_1994)) {
        // Past the capture of the test harness, so that a passing run shows it too.
        io::stderr().write_all(b"skipped: /dev/shm is no tmpfs on this machine\n").unwrap();
        return;
    }
    let refusal = place::fresh(memory).unwrap_err();
    assert!(refusal.contains("/dev/shm is on tmpfs"), "{refusal}");
    assert!(refusal.contains("set KONTIKI_BENCH_DIR"), "{refusal}");
}
