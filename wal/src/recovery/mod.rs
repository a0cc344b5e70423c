//! Opening: what the files hold, whether it is torn or corrupt, and the repair of what is torn.

mod check;
pub(crate) mod older;
mod open;
mod parallel;
mod read_only;
mod repair;
mod replay;
pub(crate) mod scan;
pub(crate) mod walk;

pub(crate) use open::open;
pub(crate) use read_only::{Depth, open_read_only, settle};
