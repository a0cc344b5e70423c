//! A file system on a loop device, whose power can be cut.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Mounted while this lives; unmounted also when the test panics.
pub(crate) struct Volume {
    image: PathBuf,
    mount_point: PathBuf,
    _directory: TempDir,
}

impl Volume {
    /// Makes and mounts one, or says what is missing for that.
    pub(crate) fn create(kind: &str, flags: &[&str]) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("not root".to_owned());
        }
        let directory = TempDir::with_prefix_in("power-cut-", env!("CARGO_TARGET_TMPDIR"))
            .expect("Cargo's own directory");
        let image = directory.path().join("image");
        let mount_point = directory.path().join("mounted");
        fs::create_dir(&mount_point).expect("a fresh directory");
        File::create(&image).and_then(|file| file.set_len(VOLUME_BYTES)).expect("a sparse file");
        let mkfs = format!("mkfs.{kind}");
        succeed(Command::new(&mkfs).args(flags).arg(&image))
            .map_err(|error| format!("no {mkfs} ({error})"))?;
        succeed(Command::new("perl").args(["-e", "1"]))
            .map_err(|error| format!("no perl ({error})"))?;
        mount(&image, &mount_point).map_err(|error| format!("no loop devices ({error})"))?;
        Ok(Self { image, mount_point, _directory: directory })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    /// Someone ready to cut the power at a word.
    pub(crate) fn cutter(&self) -> Cutter {
        let mut child = Command::new("perl")
            .args(["-e", CUT_SCRIPT])
            .arg(&self.mount_point)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("perl");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
        assert_eq!(ready, "ready\n", "the volume cannot be opened");
        Cutter { child }
    }

    /// What comes after a power cut: the file system is mounted anew, from what reached the disk.
    pub(crate) fn mount_again(&self) {
        succeed(Command::new("umount").arg(&self.mount_point)).expect("nobody uses it any more");
        mount(&self.image, &self.mount_point).expect("it was mounted before");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, because after a panic a writer may still have its files open for a moment.
        if let Err(error) = succeed(Command::new("umount").arg("-l").arg(&self.mount_point)) {
            eprintln!("{} stays mounted: {error}", self.mount_point.display());
        }
    }
}

pub(crate) struct Cutter {
    child: Child,
}

impl Cutter {
    /// Cuts the power: when this returns, no write reaches the disk any more.
    pub(crate) fn cut(mut self) {
        self.child.stdin.take().expect("piped").write_all(b"cut\n").expect("perl waits for it");
        assert!(self.child.wait().expect("our child").success(), "the ioctl failed");
    }
}

fn mount(image: &Path, mount_point: &Path) -> Result<(), String> {
    succeed(Command::new("mount").args(["-o", "loop"]).arg(image).arg(mount_point))
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// FS_IOC_SHUTDOWN with FSOP_GOING_FLAGS_NOLOGFLUSH: everything that was not synced is dropped.
const CUT_SCRIPT: &str = r#"
    open(my $volume, "<", $ARGV[0]) or die "open $ARGV[0]: $!";
    $| = 1;
    print "ready\n";
    <STDIN>;
    my $flags = pack("L", 2);
    ioctl($volume, 0x8004587d, $flags) or die "ioctl: $!";
"#;

/// Sparse; twenty rounds write about a third of it.
const VOLUME_BYTES: u64 = 1 << 30;
