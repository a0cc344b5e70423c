//! `raftd demo`: three nodes on this machine, kept running until they are asked to stop.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{
    runtime::Builder,
    sync::{mpsc, watch},
    task::JoinSet,
    time::sleep_until,
};

use crate::{
    child::{ChildOptions, Stop, supervise},
    failure::{Failure, FailureKind, cannot_start},
    places::{IDS, NODES, PEER_PORT_OFFSET, client_port, data_directory, peer_port, peers},
    signals::StopSignals,
    story::Story,
};

/// What `raftd demo` is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Clients reach the nodes at this port and the two after it; the nodes reach each other at
    /// these plus 100
    #[arg(
        long,
        env = "RAFTD_DEMO_PORT",
        default_value_t = 7001,
        value_parser = clap::value_parser!(u16).range(1..=i64::from(u16::MAX - PEER_PORT_OFFSET - 2))
    )]
    port: u16,
    /// Directory of the three logs, kept between runs
    #[arg(long, env = "RAFTD_DEMO_DATA", value_name = "DIR", default_value = "raftd-demo")]
    data: PathBuf,
}

/// Runs the demo until it is asked to stop.
pub(crate) fn run(options: &DemoOptions, log: &str) -> Result<(), Failure> {
    // Nothing is made for ports that cannot be had; where something is, another demo comes first.
    if !options.data.join(CLAIM_FILE).exists() {
        check_ports(options.port)?;
    }
    // Held to the end; the system gives it back even if we are killed.
    let claim = Claim::take(&options.data, options.port)?;
    check_ports(options.port)?;
    claim.write()?;
    let program = std::env::current_exe().map_err(cannot_start)?;
    let children = IDS.map(|id| ChildOptions {
        id,
        program: program.clone(),
        data: data_directory(&options.data, id),
        peers: peers(options.port).to_string(),
        client: format!("127.0.0.1:{}", client_port(options.port, id)),
        log: log.to_owned(),
    });
    let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot_start)?;
    runtime.block_on(supervise_all(options, children))
}

async fn supervise_all(
    options: &DemoOptions,
    children: [ChildOptions; NODES],
) -> Result<(), Failure> {
    let mut signals = StopSignals::install().map_err(cannot_start)?;
    let (stop, stopping) = watch::channel(Stop::No);
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let mut supervisors = JoinSet::new();
    say(format!("starting three nodes, data in {}", options.data.display()));
    for child in children {
        supervisors.spawn(supervise(child, events.clone(), stopping.clone()));
    }

    let mut story = Story::new(options.port, options.data.clone());
    let mut progress_at = Instant::now() + PROGRESS_FIRST;
    let failure = loop {
        tokio::select! {
            signal = signals.next() => {
                say(format!("stopping ({signal}); once more to stop at once"));
                break None;
            }
            Some(event) = heard.recv() => {
                if let Err(failure) = story.tell(event, &mut |line| say(line)) {
                    break Some(failure);
                }
            }
            () = sleep_until(progress_at.into()), if !story.leader_announced() => {
                say("waiting for a leader: the nodes greet each other and elect one");
                progress_at += PROGRESS_NEXT;
            }
        }
    };

    // Nobody listens from here on, so no child waits to be heard.
    drop(heard);
    stop.send_replace(Stop::Gently);
    let all_stopped = async { while supervisors.join_next().await.is_some() {} };
    tokio::pin!(all_stopped);
    tokio::select! {
        () = &mut all_stopped => {
            say(format!("stopped; {}", left_of(&options.data)));
            failure.map_or(Ok(()), Err)
        }
        signal = signals.next() => {
            stop.send_replace(Stop::Now);
            all_stopped.await;
            let left = left_of(&options.data);
            let line = format!("stopped at once by a second signal ({signal}); {left}");
            Err(Failure::new(FailureKind::Run, line))
        }
    }
}

/// What is left of the data, in words: it can have been removed under the nodes.
fn left_of(data: &Path) -> String {
    match data.join(CLAIM_FILE).exists() {
        true => "the data is kept".to_owned(),
        false => format!("the data is gone: {} was removed or moved meanwhile", data.display()),
    }
}

/// The data directory as this demo's.
struct Claim {
    data: PathBuf,
    /// What the claim file is to say: the nodes know each other by the ports of their first start.
    text: String,
    /// Locked.
    file: File,
}

impl Claim {
    /// Takes the directory for this demo, and checks that it was not made for other ports.
    fn take(data: &Path, port: u16) -> Result<Self, Failure> {
        let shown = data.display();
        let cannot_use = |error| cannot_use(data, &error);
        if data.join("wal").exists() {
            let line = format!(
                "{shown} is the data of one node: choose another --data, of the demo's own"
            );
            return Err(Failure::new(FailureKind::Data, line));
        }
        fs::create_dir_all(data).map_err(cannot_use)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(data.join(CLAIM_FILE)).map_err(cannot_use)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::new(
                    FailureKind::Data,
                    format!(
                        "another demo uses {shown}: stop it, or choose another --data and --port"
                    ),
                ));
            }
            Err(TryLockError::Error(error)) => return Err(cannot_use(error)),
        }
        let mut found = String::new();
        let mut limited = Read::by_ref(&mut file).take(CLAIM_BYTES_MAX);
        limited.read_to_string(&mut found).map_err(cannot_use)?;
        let text = format!("port {port}\n");
        if !found.is_empty() && found != text {
            return Err(Failure::new(
                FailureKind::Data,
                format!(
                    "{shown} was made with --{}: use that, or choose another --data",
                    found.trim_end()
                ),
            ));
        }
        Ok(Self { data: data.to_owned(), text, file })
    }

    /// Keeps the ports. Not before they are known to be free: a start that fails binds nobody.
    fn write(&self) -> Result<(), Failure> {
        let mut file = &self.file;
        let written = file.rewind().and_then(|()| file.write_all(self.text.as_bytes()));
        written.map_err(|error| cannot_use(&self.data, &error))
    }
}

fn cannot_use(data: &Path, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::AlreadyExists => "it is no directory".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(
        FailureKind::Data,
        format!("cannot use {}: {reason}; choose another directory with --data", data.display()),
    )
}

/// All ports are tried before anything is started.
fn check_ports(port: u16) -> Result<(), Failure> {
    for id in IDS {
        for port in [client_port(port, id), peer_port(port, id)] {
            TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
                let advice = match error.kind() {
                    io::ErrorKind::PermissionDenied => "choose ports from 1024",
                    _ => "stop what uses it, or choose other ports",
                };
                Failure::new(
                    FailureKind::Address,
                    format!(
                        "cannot listen on 127.0.0.1:{port}: {error}; {advice} with --port (and \
                         another --data)"
                    ),
                )
            })?;
        }
    }
    Ok(())
}

/// Standard output may be closed; the demo goes on.
fn say(line: impl AsRef<str>) {
    let _ = writeln!(io::stdout(), "{}", line.as_ref());
    let _ = io::stdout().flush();
}

/// Holds the lock, and the port that the data was made with.
const CLAIM_FILE: &str = "demo.lock";
const CLAIM_BYTES_MAX: u64 = 64;

/// What children say waits here; a full channel makes them wait, not us.
const EVENTS_MAX: usize = 64;

const PROGRESS_FIRST: Duration = Duration::from_secs(1);
const PROGRESS_NEXT: Duration = Duration::from_secs(10);
