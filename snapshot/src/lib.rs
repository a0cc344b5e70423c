//! Images of a state machine: whole or not at all.
//!
//! An image is written as a stream into a file with a temporary name, made durable, and then made visible by its name: whoever
//! finds one finds all of it. Every byte is under a checksum that is looked at before the byte is given out. FORMAT.md has the
//! bytes and what a power cut can leave.
//!
//! What is in one is its user's affair: for Raft's nodes, crate `kontiki`, that of the state machine.
//!
//! ```
//! use std::io::{Read, Write};
//! use kontiki_disk::MemoryDisk;
//! use kontiki_snapshot::{Header, Owner, Place, Store};
//!
//! let disk = MemoryDisk::new();
//! let mut store = Store::open(&disk, "snapshots", Some(Owner { cluster: 1, log: 1 }))?;
//! let place = Place { index: 9, term: 2 };
//! let header = Header { cluster: 1, log: 1, place, membership: b"...".to_vec() };
//!
//! let mut writer = store.create(header)?;
//! writer.write_all(b"all that the state machine holds")?;
//! let finished = writer.finish()?; // Durable, and not visible yet.
//! let image = store.publish(finished)?;
//!
//! let mut bytes = String::new();
//! image.read().read_to_string(&mut bytes)?;
//! assert_eq!(bytes, "all that the state machine holds");
//! assert_eq!(store.images()[0].header().place, place);
//!
//! // Another node takes it, in pieces of any length.
//! let mut other = Store::open(&MemoryDisk::new(), "snapshots", Some(Owner { cluster: 1, log: 1 }))?;
//! let mut receiver = other.receive(image.offer(), 1 << 30)?;
//! let mut piece = [0; 50];
//! while receiver.received() < image.bytes() {
//!     let count = image.read_piece(receiver.received(), &mut piece)?;
//!     receiver.append(receiver.received(), &piece[..count])?; // Checked before it is written.
//! }
//! let received = other.publish(receiver.finish()?)?;
//! assert_eq!(received.header(), image.header());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod block;
mod decoder;
mod fault;
mod header;
mod image;
mod receiver;
mod store;
mod temporary;
mod writer;

pub use self::{
    fault::{Corruption, StoreError},
    header::{Header, MEMBERSHIP_BYTES_MAX, Owner, Place},
    image::{Image, Reader},
    receiver::{Offer, Receiver},
    store::{Damaged, Store},
    temporary::Finished,
    writer::Writer,
};

/// The version of an image's bytes that this crate writes; an image with another one is refused.
pub const FORMAT_VERSION: u16 = 1;
