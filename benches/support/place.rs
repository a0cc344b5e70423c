//! Where the benches write: on a real disk, or not at all.

use std::{env, fs, io, path::Path, path::PathBuf, process};

use tempfile::TempDir;

/// A fresh directory for one run, removed when dropped. It lies in `KONTIKI_BENCH_DIR`, or else
/// in Cargo's target directory. Where that cannot be measured, says why and ends the process.
pub(crate) fn fresh_or_exit() -> TempDir {
    fresh(&parent()).unwrap_or_else(|refusal| {
        eprintln!("{refusal}");
        process::exit(2);
    })
}

/// A fresh directory in `parent`, or one line that says why not.
pub(crate) fn fresh(parent: &Path) -> Result<TempDir, String> {
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
pub(crate) fn row(place: &TempDir) -> TempDir {
    tempfile::tempdir_in(place).expect("a directory in one that was just made")
}

fn parent() -> PathBuf {
    env::var_os("KONTIKI_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from)
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
