//! A durable replicated log: implement one trait, get a replicated, crash-safe service.
//!
//! A program implements [`StateMachine`] and starts a [`Node`] on each machine. Commands that are
//! proposed on any of them are written to the logs of a majority, synced, and applied on every
//! member in the same order. What was answered survives the loss of any minority.
//!
//! ```
//! use std::io;
//!
//! use bytes::Bytes;
//! use kontiki::{ApplyContext, Node, Read, SnapshotWriter, StateMachine};
//!
//! /// Adds up what is proposed.
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl StateMachine for Sum {
//!     fn apply(&mut self, _: &ApplyContext, command: &[u8]) -> io::Result<Bytes> {
//!         let number = command.first().copied().unwrap_or(0); // A bad command is no error.
//!         self.0 += u64::from(number);
//!         Ok(Bytes::copy_from_slice(&self.0.to_le_bytes()))
//!     }
//!
//!     fn snapshot(&self) -> io::Result<Box<dyn SnapshotWriter + Send>> {
//!         struct Image(u64);
//!         impl SnapshotWriter for Image {
//!             fn write_to(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
//!                 out.write_all(&self.0.to_le_bytes())
//!             }
//!         }
//!         Ok(Box::new(Image(self.0)))
//!     }
//!
//!     fn restore(&mut self, image: &mut dyn io::Read) -> io::Result<()> {
//!         let mut bytes = [0; 8];
//!         image.read_exact(&mut bytes)?;
//!         self.0 = u64::from_le_bytes(bytes);
//!         Ok(())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let directory = directory.path();
//! // A cluster of one; with three members the same lines run on three machines.
//! let node = Node::builder(1, directory)
//!     .listen("127.0.0.1:0")
//!     .initial_members([(1, "127.0.0.1:7001")])
//!     .start(Sum::default())?;
//!
//! let applied = node.propose(vec![5]).wait()?; // or .await
//! assert_eq!(applied.reply, 5u64.to_le_bytes().as_slice());
//! let batch = node.propose_batch(vec![vec![1].into(), vec![2].into()]).wait();
//! assert!(batch.iter().all(Result::is_ok)); // Each command has an outcome of its own.
//! assert_eq!(node.read(Read::Linearizable, |sum: &Sum| sum.0).wait()?, 8);
//! node.shutdown().wait();
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod applier;
mod board;
mod bootstrap;
mod builder;
mod clock;
#[cfg(test)]
mod document;
mod driver;
mod end;
mod entropy;
mod envelope;
mod error;
mod events;
mod fetcher;
mod forward;
mod inbox;
mod limiter;
mod loopback;
mod node;
mod options;
mod port;
mod proposal;
mod reading;
mod shared;
mod slot;
mod snapshots;
mod state_machine;
mod status;
pub mod steps;
mod storage;
pub mod transport;
mod waiting;
mod writer;

pub use crate::{
    builder::Builder,
    error::{ProposeError, ReadError, SnapshotCopyError, SnapshotError, StartError},
    events::{Event, Events},
    loopback::Loopback,
    node::{Node, Shutdown, TakingSnapshot},
    options::Options,
    proposal::{Applied, Proposal, ProposalBatch, ProposeResult, Ready},
    reading::{Read, Reading},
    snapshots::copies::{SnapshotCopy, load_snapshot, save_snapshot},
    state_machine::{ApplyContext, Position, SnapshotWriter, StateMachine},
    status::{FollowerMode, FollowerStatus, Role, Status},
    transport::{Hello, Inbound, TcpOptions, TcpTransport, Transport},
};
/// Of [`StartError::Log`].
pub use kontiki_wal::{Corruption, OpenError};
