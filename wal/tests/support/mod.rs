//! What several tests of the log share.

use kontiki_wal::WriteMode;

/// `KONTIKI_WRITE_MODE=mapped` runs the tests on the machine's disk with stores into maps.
pub(crate) fn mode() -> WriteMode {
    match std::env::var("KONTIKI_WRITE_MODE") {
        Ok(mode) if mode == "mapped" => WriteMode::Mapped,
        _ => WriteMode::Positional,
    }
}
