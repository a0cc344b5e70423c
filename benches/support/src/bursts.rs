//! Appends that nobody waits for, one at a time: what one costs the thread that makes it.

use std::{error::Error, path::Path, time::Duration};

use bytes::Bytes;
use kontiki_wal::{Log, LogId, Wal};
use rustix::time::{ClockId, clock_gettime};

use crate::appends::append;

/// A log that takes bursts.
#[derive(Debug)]
pub struct Bursts {
    log: Log,
    appends: u64,
    entry: Bytes,
}

impl Bursts {
    /// A new log in `directory`, whose first small segment was passed, for bursts of `appends` each.
    ///
    /// # Errors
    /// The log's.
    pub fn create(directory: &Path, appends: u64) -> Result<Self, Box<dyn Error>> {
        let wal = Wal::options().open(directory.join("bursts"))?;
        let bursts = Self { log: wal.log(LogId(1))?, appends, entry: Bytes::from(vec![7; 128]) };
        while wal.statistics().recycled_segments < 2 {
            bursts.burst();
        }
        Ok(bursts)
    }

    /// CPU time of the appending thread for `count` appends, in bursts that stay below the bound of what is not synced.
    /// Between them it waits until all is durable, and compacts; that does not count.
    pub fn run(&self, count: u64) -> Duration {
        let bursts = count.div_ceil(self.appends);
        let elapsed: Duration = (0..bursts).map(|_| self.burst()).sum();
        elapsed.mul_f64(count as f64 / (bursts * self.appends) as f64)
    }

    fn burst(&self) -> Duration {
        let begun = cpu_time();
        for _ in 0..self.appends {
            drop(append(&self.log, || self.log.push(self.entry.clone())));
        }
        let elapsed = cpu_time() - begun;
        let compacted = self.log.compact_before(self.log.last()).expect("room");
        compacted.wait().expect("a disk that works");
        elapsed
    }
}

/// Of this thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |figure: i64| u64::try_from(figure).expect("time that has passed");
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
