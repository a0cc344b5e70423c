//! Who takes turns at one kind of work.

use std::{error::Error, fs, path::Path};

use kontiki_bench::{
    appends::{Appends, SEQUENTIAL, WAITING, Work},
    raw::RawDisk,
    rounds::Contender,
};

use crate::{okaywal::Okaywal, raft_engine::RaftEngine};

/// How many they are.
pub const CONTENDERS: usize = 4;

/// What they are compared at: one appender, which syncs each append, and many that wait.
pub const WORKS: [Work; 7] = [
    SEQUENTIAL[0],
    SEQUENTIAL[3],
    SEQUENTIAL[4],
    SEQUENTIAL[5],
    WAITING[0],
    WAITING[1],
    WAITING[2],
];

/// Ours, the raw disk and the others, ready for the work.
pub struct Contest {
    ours: Appends,
    raw: RawDisk,
    raft_engine: RaftEngine,
    okaywal: Okaywal,
}

impl Contest {
    /// Makes and warms up all of them below one directory.
    ///
    /// # Errors
    /// Those of any of them.
    pub fn create(directory: &Path, work: Work) -> Result<Self, Box<dyn Error>> {
        let of = |name: &str| -> Result<_, Box<dyn Error>> {
            let directory = directory.join(name);
            fs::create_dir(&directory)?;
            Ok(directory)
        };
        Ok(Self {
            ours: Appends::create(directory, work)?,
            raw: RawDisk::create(directory, work.group_bytes())?,
            raft_engine: RaftEngine::create(&of("raft-engine")?, work)?,
            okaywal: Okaywal::create(&of("okaywal")?, work)?,
        })
    }

    /// Ours first.
    pub fn contenders(&mut self) -> [Contender<'_>; CONTENDERS] {
        [
            self.ours.contender(),
            self.raw.contender(),
            self.raft_engine.contender(),
            self.okaywal.contender(),
        ]
    }
}
