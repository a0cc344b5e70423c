//! The deterministic world that Kontiki is tested in: a disk that loses what was not synced, one
//! thread that calls every step, and randomness from a seed. What fails once fails again.
//!
//! [`workload::run`] leads a log through a seeded life; [`matrix::Matrix`] cuts the power at every
//! place of it and checks what is recovered against [`model::World`]; [`exhaustive::Exhaustive`]
//! does so for every short [`sequence::Sequence`] of steps. [`failure::run`] lets one operation of
//! the disk fail. [`lives::run`] lets many lives follow each other, each ended in another way.
//!
//! [`world::run`] does the same to whole clusters: see README.md. [`explore::explore`] takes the protocol alone through every
//! short sequence of steps.
//!
//! ```no_run
//! use kontiki_sim::{matrix::Matrix, workload};
//!
//! let mut matrix = Matrix::new(workload::run(1, 200));
//! matrix.check_all().unwrap();
//! println!("{:?}", matrix.tally);
//! ```
#![forbid(unsafe_code)]

pub mod exhaustive;
pub mod explore;
pub mod failure;
pub mod linear;
pub mod lives;
pub mod matrix;
pub mod minimise;
pub mod model;
pub mod random;
pub mod sequence;
pub mod session;
pub mod subset;
pub mod workload;
pub mod world;
