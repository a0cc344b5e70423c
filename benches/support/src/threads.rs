//! The same work by several threads at once.

use std::{
    sync::{Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::latencies::Latencies;

/// Has `threads` threads do the work, each with its number, from 0; takes the latencies of all of them in, and says how long
/// the whole took. One thread is the caller's own.
///
/// # Panics
/// If the work does.
pub fn run(
    threads: usize,
    latencies: &mut Latencies,
    work: impl Fn(usize, &mut Latencies) + Sync,
) -> Duration {
    if threads == 1 {
        let begun = Instant::now();
        work(0, latencies);
        return begun.elapsed();
    }
    let started = Barrier::new(threads + 1);
    let all = Mutex::new(latencies);
    thread::scope(|scope| {
        for number in 0..threads {
            let (started, all, work) = (&started, &all, &work);
            scope.spawn(move || {
                let mut latencies = Latencies::default();
                started.wait();
                work(number, &mut latencies);
                all.lock().expect("no thread panics").add(&latencies);
            });
        }
        // Before the workers go, or what they do first would be free of charge.
        let begun = Instant::now();
        started.wait();
        begun
    })
    .elapsed()
}
