//! Opening: what the files hold, whether it is torn or corrupt, and the repair of what is torn.

mod check;
mod checks;
mod look;
pub(crate) mod older;
mod open;
mod parallel;
mod read_only;
pub(crate) mod repair;
mod replay;
pub(crate) mod scan;
mod standing;
pub(crate) mod walk;

pub(crate) use check::check_seal;
pub(crate) use look::{Depth, Look, newest_whole, settle};
pub(crate) use open::{judge, lock, open};
pub(crate) use read_only::open_read_only;
