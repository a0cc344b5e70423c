//! Opening a log and reading all of it, warm.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use kontiki_bench::{
    appends::{UNCOMPACTED, Work},
    latencies::Latencies,
    reads::Stored,
    rounds::Contender,
};

use crate::{
    contest::CONTENDERS,
    okaywal::{self, Okaywal},
    raft_engine::{self, RaftEngine},
};

/// As tables and criterion show it.
pub const NAME: &str = "open and replay 2.1 M x 128 B";
/// What each of them wrote.
pub const ENTRIES: usize = APPENDS * WORK.entries_per_append();

/// The same entries, written by each of them and closed.
pub struct Replay {
    ours: Stored,
    raft_engine: PathBuf,
    okaywal: PathBuf,
}

impl Replay {
    /// Writes them below one directory.
    ///
    /// # Errors
    /// Those of any of them.
    pub fn write(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let appends = APPENDS as u64;
        let per_append = WORK.entries_per_append();
        let ours = Stored::write(directory, ENTRIES as u64, per_append, WORK.entry_bytes())?;
        let [raft_engine, okaywal] = ["raft-engine", "okaywal"].map(|name| directory.join(name));
        fs::create_dir(&raft_engine)?;
        RaftEngine::create(&raft_engine, WORK)?.run(appends, &mut Latencies::default());
        fs::create_dir(&okaywal)?;
        Okaywal::create(&okaywal, WORK)?.run(appends, &mut Latencies::default());
        Ok(Self { ours, raft_engine, okaywal })
    }

    /// Ours first.
    pub fn contenders(&self) -> [Contender<'_>; CONTENDERS] {
        [
            repeat("kontiki", || self.ours.open_and_replay()),
            repeat("map and checksum", || self.ours.map_and_checksum()),
            repeat("raft-engine", || {
                raft_engine::open_and_replay(&self.raft_engine, WORK, ENTRIES as u64)
            }),
            repeat("okaywal", || okaywal::open_and_replay(&self.okaywal, WORK, ENTRIES as u64)),
        ]
    }
}

/// One replay is a group; how long each took is not kept, there are too few for percentiles.
fn repeat<'a>(name: &'static str, mut replay: impl FnMut() -> Duration + 'a) -> Contender<'a> {
    Contender::new(name, move |times, _| (0..times).map(|_| replay()).sum())
}

const WORK: Work = UNCOMPACTED[0];
const APPENDS: usize = 8200;
