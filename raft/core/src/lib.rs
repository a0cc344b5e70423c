//! The Raft protocol of Kontiki, pure: inputs in, outputs out. No files, sockets, clocks, threads
//! or entropy; the same inputs give the same outputs.
//!
//! Give [`Raft`] one input, poll [`Raft::poll_output`] until `None`, sleep until
//! [`Raft::poll_timeout`] or the next input. Whatever must not be said before it is on disk is held
//! back in here until [`Raft::handle_written`]; the runtime needs no ordering rules beyond keeping
//! writes and applies in order.
//!
//! A cluster of one elects itself and commits a command:
//!
//! ```
//! use kontiki_core::{
//!     Apply, Config, Configuration, Entry, Incarnation, Instant, LogIndex, Member, NodeId, Output,
//!     Position, Raft, Recovered, State,
//! };
//!
//! let member = Member {
//!     id: NodeId(1),
//!     incarnation: Incarnation(1),
//!     address: "localhost:7001".into(),
//!     voter: true,
//! };
//! let configuration = Configuration { members: vec![member] };
//! let state = State {
//!     configurations: vec![(Position::default(), configuration)],
//!     ..State::default()
//! };
//! let recovered =
//!     Recovered { state, snapshot: None, applied: LogIndex(0), compacted: Position::default(), runs: vec![], last: LogIndex(0) };
//! let mut raft = Raft::new(Config::new(NodeId(1)), recovered, 42, Instant(0)).unwrap();
//! let mut applied = Vec::new();
//!
//! // What a runtime does, with a disk that is always quick.
//! let mut turn = |raft: &mut Raft, now| {
//!     while let Some(output) = raft.poll_output() {
//!         match output {
//!             Output::Write { seq, .. } => raft.handle_written(now, seq),
//!             Output::Apply(Apply::Entries(batch)) => {
//!                 applied.extend(batch.entries().iter().map(|entry| entry.body()));
//!                 raft.handle_applied(now, batch.last().unwrap());
//!             }
//!             _ => {}
//!         }
//!     }
//! };
//!
//! let now = raft.poll_timeout().unwrap();
//! raft.handle_timeout(now);
//! turn(&mut raft, now);
//! raft.propose(now, vec![Entry::encode_command(b"sail west")]).unwrap();
//! turn(&mut raft, now);
//! assert_eq!(applied.last().unwrap(), "sail west");
//! ```
//!
//! # Inside
//!
//! `raft` is the face: it dispatches by role and changes roles. `follower`, `candidate` and
//! `leader` are the roles; `local` is what a node has in every role. The rest are leaves that know
//! no parent: `log` (cursors, runs, tail), `durability` (writes under way, answers held back),
//! `progress` (a follower as its leader sees it), `snapshot`, `reads`, `membership`, `quorum`, `timers`,
//! `random`. `invariants` says what holds between inputs.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod batch;
mod candidate;
pub mod codec;
mod config;
mod durability;
mod entry;
mod follower;
mod invariants;
mod leader;
mod local;
mod log;
mod membership;
mod message;
mod output;
mod positions;
mod progress;
mod quorum;
mod raft;
mod random;
mod reads;
mod snapshot;
mod state;
mod status;
mod time;
mod timers;

pub use crate::{
    batch::Batch,
    config::{Config, ConfigError},
    entry::{Entry, EntryKind},
    message::{
        AppendEntries, AppendOutcome, AppendResponse, InstallSnapshot, Message, ReadIndexRequest,
        ReadIndexResponse, VoteKind, VoteRequest, VoteResponse,
    },
    output::{Apply, HaltReason, Output},
    positions::{
        ClusterId, FetchId, GroupId, Incarnation, LogIndex, NodeId, Position, ReadId, Term,
        WriteSeq,
    },
    raft::{ProposeError, Raft, Recovered},
    snapshot::Snapshot,
    state::{ADDRESS_BYTES_MAX, Configuration, HardState, MEMBERS_MAX, Member, State},
    status::{Cursors, FollowerMode, FollowerStatus, Role, Status},
    time::Instant,
};
