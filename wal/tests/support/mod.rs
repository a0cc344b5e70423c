//! What several tests of the log share.

use kontiki_wal::WriteMode;

/// `KONTIKI_WRITE_MODE=mapped` runs the tests on the machine's disk with stores into maps.
pub(crate) fn mode() -> WriteMode {
    match std::env::var("KONTIKI_WRITE_MODE").as_deref() {
        Ok("mapped") => WriteMode::Mapped,
        Ok("positional") | Err(_) => WriteMode::Positional,
        Ok(other) => panic!("KONTIKI_WRITE_MODE is mapped or positional, not {other:?}"),
    }
}
