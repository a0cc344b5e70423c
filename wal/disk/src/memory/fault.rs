//! What goes wrong on the memory disk, and when.

use std::{
    error, fmt, io, mem,
    ops::Range,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

/// The system's number for a medium error.
pub const EIO: i32 = Errno::IO.raw_os_error();
/// The system's number for a full disk.
pub const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
/// The system's number for a used-up quota.
pub const EDQUOT: i32 = Errno::DQUOT.raw_os_error();

/// What changes a disk, or makes a change durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `File::write_at`.
    Write,
    /// `File::sync`.
    Sync,
    /// `Directory::create`.
    Create,
    /// `Directory::rename`.
    Rename,
    /// `Directory::remove`.
    Remove,
    /// `Directory::sync`.
    SyncDirectory,
}

/// One operation, as a trace tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What was done.
    pub kind: Kind,
    /// In which directory.
    pub directory: PathBuf,
    /// The file's name at that moment, the last one if it was removed; for a rename the old name;
    /// empty for a directory's sync.
    pub name: String,
    /// A rename's new name; empty otherwise.
    pub to: String,
    /// A write's bytes; of a create, 0 to the length; empty otherwise.
    pub range: Range<u64>,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, directory, name, to, range } = self;
        match kind {
            Kind::Write => write!(formatter, "write {name} {}..{}", range.start, range.end),
            Kind::Sync => write!(formatter, "sync {name}"),
            Kind::Create => write!(formatter, "create {name}, {} bytes", range.end),
            Kind::Rename => write!(formatter, "rename {name} to {to}"),
            Kind::Remove => write!(formatter, "remove {name}"),
            Kind::SyncDirectory => write!(formatter, "sync directory {}", directory.display()),
        }
    }
}

/// How an operation goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It answers this error number of the system. A write has then written its first half, a
    /// sync has left its pages clean without writing them, the others have done nothing.
    Fail(i32),
    /// A sync answers this error number, and the bytes are what they were after the last one that succeeded, for who reads
    /// them, too: so btrfs does it (Rebello and others, 2020). A file that has grown keeps its length, with zeros.
    TakeBack(i32),
    /// A sync answers `Ok` and has done what a failed one does.
    Lie,
    /// A sync answers `Ok`, and every sector has been written so many sectors further up, or down if negative, over what was
    /// there; what would lie outside the file is lost.
    Misdirect(i64),
    /// The operation panics, and has done nothing.
    Panic,
}

/// Holds back one operation, so that a test can act in the meantime. Dropping it releases.
#[derive(Debug)]
pub struct Gate {
    inner: Arc<GateInner>,
}

impl Gate {
    /// Waits until the operation has arrived.
    ///
    /// # Panics
    /// If it does not come within 30 seconds: a test that fails tells more than one that hangs.
    pub fn wait_reached(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut stage = self.inner.stage.lock();
        while !stage.reached {
            let late = self.inner.changed.wait_until(&mut stage, deadline).timed_out();
            assert!(!late, "the operation that should wait at the gate never came");
        }
    }

    /// Lets the operation go on, or pass at once if it has not come yet.
    pub fn release(&self) {
        self.inner.stage.lock().released = true;
        self.inner.changed.notify_all();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

/// The half of a gate that the operation meets.
#[derive(Debug, Default)]
pub(super) struct GateInner {
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stage {
    reached: bool,
    released: bool,
}

impl GateInner {
    pub(super) fn pass(&self) {
        let mut stage = self.stage.lock();
        stage.reached = true;
        self.changed.notify_all();
        while !stage.released {
            self.changed.wait(&mut stage);
        }
    }
}

/// Everything that is planned to go wrong.
#[derive(Debug, Default)]
pub(super) struct Plan {
    rules: Vec<Rule>,
    power: Power,
}

#[derive(Debug)]
struct Rule {
    kind: Kind,
    /// 1: the next operation of the kind.
    nth: u64,
    effect: Effect,
}

#[derive(Debug)]
enum Effect {
    Fault(Fault),
    Hold(Arc<GateInner>),
}

#[derive(Debug, Default)]
enum Power {
    #[default]
    On,
    /// This many operations are left.
    Left(u64),
    Off,
}

impl Plan {
    pub(super) fn add(&mut self, kind: Kind, nth: u64, fault: Fault) {
        let fits = match fault {
            Fault::Fail(_) | Fault::Panic => true,
            Fault::Lie => matches!(kind, Kind::Sync | Kind::SyncDirectory),
            Fault::TakeBack(_) | Fault::Misdirect(_) => kind == Kind::Sync,
        };
        assert!(fits, "{kind:?} cannot go wrong in this way: {fault:?}");
        self.rule(kind, nth, Effect::Fault(fault));
    }

    pub(super) fn hold(&mut self, kind: Kind, nth: u64) -> Gate {
        let inner = Arc::new(GateInner::default());
        self.rule(kind, nth, Effect::Hold(Arc::clone(&inner)));
        Gate { inner }
    }

    pub(super) fn forget_rules(&mut self) {
        self.rules.clear();
    }

    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    pub(super) fn cut_power_after(&mut self, operations: u64) {
        self.power = if operations == 0 { Power::Off } else { Power::Left(operations) };
    }

    pub(super) fn check_power(&self) -> io::Result<()> {
        match self.power {
            Power::Off => Err(io::Error::other(PowerCut)),
            Power::On | Power::Left(_) => Ok(()),
        }
    }

    /// Takes one operation from what the power lasts for. The power goes when the last one that
    /// is left has been let through and the next one asks, so that its effect is still seen.
    pub(super) fn spend(&mut self) -> io::Result<()> {
        self.check_power()?;
        if let Power::Left(left) = self.power {
            self.power = if left == 0 { Power::Off } else { Power::Left(left - 1) };
        }
        self.check_power()
    }

    /// What is planned for the operation of `kind` that comes now.
    pub(super) fn next(&mut self, kind: Kind) -> (Option<Fault>, Option<Arc<GateInner>>) {
        let (mut fault, mut gate) = (None, None);
        for rule in mem::take(&mut self.rules) {
            match rule {
                Rule { kind: of, nth: 1, effect } if of == kind => match effect {
                    Effect::Fault(planned) => fault = Some(planned),
                    Effect::Hold(planned) => gate = Some(planned),
                },
                Rule { kind: of, nth, effect } if of == kind => {
                    self.rules.push(Rule { kind, nth: nth - 1, effect });
                }
                other => self.rules.push(other),
            }
        }
        (fault, gate)
    }

    fn rule(&mut self, kind: Kind, nth: u64, effect: Effect) {
        assert!(nth > 0, "operations to come count from 1");
        self.rules.push(Rule { kind, nth, effect });
    }
}

/// True for the error of everything that is tried after a power cut.
pub fn is_power_cut(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<PowerCut>())
}

#[derive(Debug)]
struct PowerCut;

impl fmt::Display for PowerCut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the power was cut")
    }
}

impl error::Error for PowerCut {}
