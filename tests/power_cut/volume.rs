//! A file system on a loop device, whose power can be cut.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
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
        let file = File::open(&image).expect("made above");
        succeed(Command::new("perl").args(["-e", PROBE_SCRIPT]).stdin(file))
            .map_err(|error| format!("no perl, or no Linux from 6.5 on ({error})"))?;
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
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut cutter = Cutter { child, answers };
        assert_eq!(cutter.answer(), "ready", "the volume cannot be opened");
        cutter
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
    answers: BufReader<ChildStdout>,
}

impl Cutter {
    /// How many pages of the file were written and are not on their way to the disk yet.
    pub(crate) fn dirty_pages(&mut self, file: &Path) -> u64 {
        self.ask(file.to_str().expect("a name of ours"));
        self.answer().parse().expect("a number")
    }

    /// Cuts the power: when this returns, no write reaches the disk any more.
    pub(crate) fn cut(mut self) {
        self.ask("cut");
        assert!(self.child.wait().expect("our child").success(), "the ioctl failed");
    }

    fn ask(&mut self, question: &str) {
        let mut input = self.child.stdin.as_ref().expect("piped");
        writeln!(input, "{question}").expect("perl waits for it");
    }

    fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("a line");
        answer.trim_end().to_owned()
    }
}

pub(crate) fn mount(image: &Path, mount_point: &Path) -> Result<(), String> {
    succeed(Command::new("mount").args(["-o", "loop"]).arg(image).arg(mount_point))
}

pub(crate) fn succeed(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

/// What neither std nor rustix has. "cut" is FS_IOC_SHUTDOWN with FSOP_GOING_FLAGS_NOLOGFLUSH, which
/// drops everything that was not synced. Any other line is a file, whose dirty pages cachestat counts.
const CUT_SCRIPT: &str = r#"
    open(my $volume, "<", $ARGV[0]) or die "open $ARGV[0]: $!";
    $| = 1;
    print "ready\n";
    while (<STDIN>) {
        chomp;
        last if $_ eq "cut";
        open(my $file, "<", $_) or die "open $_: $!";
        my ($all, $counts) = (pack("QQ", 0, 0), "\0" x 40);
        syscall(451, fileno($file), $all, $counts, 0) == 0 or die "cachestat: $!";
        my ($cached, $dirty) = unpack("QQ", $counts);
        print "$dirty\n";
    }
    my $flags = pack("L", 2);
    ioctl($volume, 0x8004587d, $flags) or die "ioctl: $!";
"#;

/// Whether there is cachestat.
const PROBE_SCRIPT: &str = r#"
    my ($all, $counts) = (pack("QQ", 0, 0), "\0" x 40);
    syscall(451, fileno(STDIN), $all, $counts, 0) == 0 or die "cachestat: $!";
"#;

/// Sparse; what is written stays far below it, because logs that grow are begun anew.
const VOLUME_BYTES: u64 = 1 << 30;
