//! Where the benches write: on a real disk, or not at all.

use std::{env, fs, io, path::Path, path::PathBuf, process};

use tempfile::TempDir;

/// A fresh directory for one run, removed when dropped. It lies in `KONTIKI_BENCH_DIR`, or else
/// in `target`. Where that cannot be measured, says why and ends the process.
pub fn fresh_or_exit(target: &str) -> TempDir {
    let parent =
        env::var_os("KONTIKI_BENCH_DIR").map_or_else(|| PathBuf::from(target), PathBuf::from);
    fresh(&parent).unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        process::exit(2);
    })
}

/// A fresh directory in `parent`, or one line that says why not.
fn fresh(parent: &Path) -> Result<TempDir, String> {
    let cannot = |error: io::Error| format!("cannot write in {}: {error}", parent.display());
    fs::create_dir_all(parent).map_err(cannot)?;
    if let Some(kind) = memory_file_system(parent).map_err(cannot)? {
        return Err(format!(
            "{} is on {kind}, where a sync costs nothing; set KONTIKI_BENCH_DIR to a directory on \
             a real disk",
            parent.display()
        ));
    }
    tempfile::Builder::new().prefix("kontiki-bench-").tempdir_in(parent).map_err(cannot)
}

/// A directory below it for one row, removed when dropped: what was measured takes no room from
/// what comes.
///
/// # Panics
/// If it cannot be made.
pub fn row(place: &TempDir) -> TempDir {
    tempfile::tempdir_in(place).expect("a directory in one that was just made")
}

/// The name of the file system if it keeps its files in memory.
#[cfg(target_os = "linux")]
fn memory_file_system(path: &Path) -> io::Result<Option<&'static str>> {
    Ok(match rustix::fs::statfs(path)?.f_type {
        0x0102_1994 => Some("tmpfs"),
        0x8584_58f6 => Some("ramfs"),
        _ => None,
    })
}

/// Elsewhere the numbers of file systems differ; their users know where they run the benches.
#[cfg(not(target_os = "linux"))]
fn memory_file_system(_path: &Path) -> io::Result<Option<&'static str>> {
    Ok(None)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_system_in_memory_is_refused() {
        let memory = Path::new("/dev/shm");
        let kind = rustix::fs::statfs(memory).map(|system| system.f_type);
        if !matches!(kind, Ok(0x0102_1994)) {
            // Past the capture of the test harness, so that a passing run shows it too.
            io::stderr().write_all(b"skipped: /dev/shm is no tmpfs on this machine\n").unwrap();
            return;
        }
        let refusal = fresh(memory).unwrap_err();
        assert!(refusal.contains("/dev/shm is on tmpfs"), "{refusal}");
        assert!(refusal.contains("set KONTIKI_BENCH_DIR"), "{refusal}");
    }
}
