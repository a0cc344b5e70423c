//! Opening: what the files hold, whether it is torn or corrupt, and the repair of what is torn.

mod open;
mod read_only;
mod repair;
pub(crate) mod scan;
pub(crate) mod walk;

pub(crate) use open::open;
pub(crate) use read_only::{open_read_only, settle};
