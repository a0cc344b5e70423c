//! A disk that promised more than it has: a file system on a sparse image, on another one that is smaller, which has no room
//! for what was written as zeros and is written again.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{major, minor, syncfs};
use tempfile::TempDir;

use crate::volume::{mount, succeed};

/// Mounted while this lives.
pub(crate) struct ThinVolume {
    store: PathBuf,
    mount_point: PathBuf,
    _directory: TempDir,
}

impl ThinVolume {
    /// Makes and mounts one, or says what is missing for that.
    pub(crate) fn create() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        let directory = TempDir::with_prefix_in("thin-", env!("CARGO_TARGET_TMPDIR"))
            .expect("Cargo's own directory");
        let (store, mount_point) =
            (directory.path().join("store"), directory.path().join("mounted"));
        for path in [&store, &mount_point] {
            fs::create_dir(path).expect("a fresh directory");
        }
        let size = format!("size={STORE_BYTES}");
        let tmpfs = ["-t", "tmpfs", "-o", &size, "kontiki-thin"];
        succeed(Command::new("mount").args(tmpfs).arg(&store))
            .map_err(|error| format!("no tmpfs ({error})"))?;
        // From here on what is mounted is unmounted, also when the rest fails.
        let volume = Self { store, mount_point, _directory: directory };
        let image = volume.image();
        File::create(&image).and_then(|file| file.set_len(VOLUME_BYTES)).expect("a sparse file");
        // Without a journal: one that cannot be written takes the whole file system away, which is a power cut and no full disk.
        let flags = ["-q", "-F", "-b", "4096", "-O", "^has_journal"];
        succeed(Command::new("mkfs.ext4").args(flags).arg(&image))
            .map_err(|error| format!("no mkfs.ext4 ({error})"))?;
        volume.mount()?;
        volume.dig().map_err(|error| format!("no fallocate ({error})"))?;
        Ok(volume)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    /// All that was written so far is below; then the room of its zeros is given away, as by a disk that keeps none, and all
    /// other room, too.
    pub(crate) fn fill(&self) {
        syncfs(File::open(&self.mount_point).expect("mounted")).expect("there is room yet");
        self.dig().expect("it could do that before");
        let mut filler = File::create(self.filler()).expect("a fresh file");
        let piece = vec![1; 4096];
        let full = loop {
            if let Err(error) = filler.write_all(&piece) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull, "{full}");
    }

    /// There is room again.
    pub(crate) fn give_room(&self) {
        fs::remove_file(self.filler()).expect("it was made to fill the disk");
    }

    /// The page cache forgets everything.
    pub(crate) fn mount_again(&self) {
        succeed(Command::new("umount").arg(&self.mount_point)).expect("nobody uses it any more");
        self.mount().expect("it was mounted before");
    }

    /// A loop device calls a write whole though only its beginning had room (Linux 6.18), which is a lie and no failed sync. A
    /// write of one page has room or has not.
    fn mount(&self) -> Result<(), String> {
        mount(&self.image(), &self.mount_point)
            .map_err(|error| format!("no loop devices ({error})"))?;
        let device = fs::metadata(&self.mount_point).expect("mounted").dev();
        let numbers = format!("{}:{}", major(device), minor(device));
        let knob = format!("/sys/dev/block/{numbers}/queue/max_sectors_kb");
        fs::write(&knob, "4").map_err(|error| format!("writes of one page need {knob}: {error}"))
    }

    fn dig(&self) -> Result<(), String> {
        succeed(Command::new("fallocate").arg("--dig-holes").arg(self.image()))
    }

    fn image(&self) -> PathBuf {
        self.store.join("image")
    }

    fn filler(&self) -> PathBuf {
        self.store.join("filler")
    }
}

impl Drop for ThinVolume {
    fn drop(&mut self) {
        // Lazily, because after a panic a writer may still have its files open for a moment.
        for path in [&self.mount_point, &self.store] {
            // The inner one is not mounted where its making failed.
            let _ = succeed(Command::new("umount").arg("-l").arg(path));
        }
    }
}

/// What there is, and what the file system believes that there is.
const STORE_BYTES: u64 = 64 << 20;
const VOLUME_BYTES: u64 = 256 << 20;
