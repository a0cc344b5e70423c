//! One node of the demo: a `raftd serve` process that is started again when it dies.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tracing_subscriber::EnvFilter;

use crate::failure::FailureKind;

/// How to start one node.
#[derive(Clone, Debug)]
pub(crate) struct ChildOptions {
    pub(crate) id: u64,
    pub(crate) program: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) peers: String,
    pub(crate) client: String,
    pub(crate) log: String,
}

/// What the demo hears of a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ChildEvent {
    /// It serves clients and knows who leads.
    Ready { id: u64, process: u32, leader: String },
    /// It runs, but the cluster knows it with another disk and leaves it out.
    NotAdmitted { id: u64 },
    /// It runs, but these, most of the members, are of another cluster.
    Foreign { id: u64, members: String },
    /// It died and is started again.
    Died { id: u64, how: String },
    /// It waits for these nodes, because a first start needs all.
    Waits { missing: Vec<u64> },
    /// It is not started again: it died too often in a row, or for a reason that does not pass.
    GaveUp { id: u64, how: String },
}

/// How urgently children are to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    No,
    Gently,
    Now,
}

/// Keeps one node running until told to stop, or until it dies too often or for good.
pub(crate) async fn supervise(
    options: ChildOptions,
    events: mpsc::Sender<ChildEvent>,
    mut stop: watch::Receiver<Stop>,
) {
    let id = options.id;
    let (mut deaths_in_a_row, mut short_lives) = (0, 0);
    loop {
        let begun = Instant::now();
        let end = match spawn(&options) {
            Ok(process) => run(process, id, &events, &mut stop).await,
            Err(error) => End::Died {
                how: format!("could not be started: {}: {error}", options.program.display()),
                had_served: false,
                is_final: false,
            },
        };
        let End::Died { how, had_served, is_final } = end else { return };
        deaths_in_a_row = if had_served { 0 } else { deaths_in_a_row + 1 };
        if is_final || deaths_in_a_row >= DEATHS_IN_A_ROW_MAX {
            let how = match deaths_in_a_row {
                0 | 1 => how,
                times => format!("{how}, {times} times in a row without having served"),
            };
            let _ = events.send(ChildEvent::GaveUp { id, how }).await;
            return;
        }
        if events.send(ChildEvent::Died { id, how }).await.is_err() {
            return;
        }
        short_lives = if begun.elapsed() < LIFE { short_lives + 1 } else { 0 };
        tokio::select! {
            () = sleep(pause(short_lives)) => {}
            () = told(&mut stop, Stop::Gently) => return,
        }
    }
}

/// How long a node is left alone that ended so many times in a row soon after its start, whether
/// it served or not.
fn pause(short_lives: u32) -> Duration {
    BACKOFF * ((1 << short_lives.saturating_sub(1).min(BACKOFF_DOUBLINGS)) - 1)
}

/// How a process came to its end.
enum End {
    Died {
        how: String,
        had_served: bool,
        /// It would end the same way again.
        is_final: bool,
    },
    Stopped,
}

fn spawn(options: &ChildOptions) -> io::Result<Child> {
    Command::new(&options.program)
        .arg("serve")
        .args(["--id", &options.id.to_string()])
        .arg("--data")
        .arg(&options.data)
        .args(["--peers", &options.peers, "--client", &options.client])
        // The filter as the demo took it: as a flag it would be held to the rule for flags.
        .env_remove("RAFTD_LOG")
        .env(EnvFilter::DEFAULT_ENV, &options.log)
        // Its own entry among the peers is where each listens.
        .env_remove("RAFTD_LISTEN")
        // The pipe below is how a child learns that we are gone, whatever ended us.
        .arg("--exit-with-parent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Ctrl-C in the terminal is for us; we stop the children.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn run(
    mut process: Child,
    id: u64,
    events: &mpsc::Sender<ChildEvent>,
    stop: &mut watch::Receiver<Stop>,
) -> End {
    // Taken out, because waiting for a process closes its standard input: that tells it to stop.
    let stdin = process.stdin.take().expect("piped by spawn");
    let stdout = process.stdout.take().expect("piped by spawn");
    let stderr = process.stderr.take().expect("piped by spawn");
    let number = process.id().expect("nobody has waited for it yet");
    let announcing = tokio::spawn(forward_ready(id, number, stdout, events.clone()));
    let logging = tokio::spawn(forward_log(id, stderr));

    let died = tokio::select! {
        status = process.wait() => Some(status),
        () = told(stop, Stop::Gently) => None,
    };
    if died.is_none() {
        drop(stdin);
        stop_process(&mut process, stop).await;
    }
    // The pipes end with the process, so what it said last is soon passed on; before its end is told.
    let last_words = async { (logging.await, announcing.await) };
    let announced = timeout(LAST_WORDS, last_words).await.map(|(_, announced)| announced);
    let Some(status) = died else { return End::Stopped };
    let is_final = status.as_ref().is_ok_and(|status| FailureKind::is_final(status.code()));
    let had_served = announced.is_ok_and(|announced| announced.unwrap_or(false));
    End::Died { how: describe(status), had_served, is_final }
}

/// Waits for a process whose standard input was closed; by force when there is no time or no answer.
async fn stop_process(process: &mut Child, stop: &mut watch::Receiver<Stop>) {
    tokio::select! {
        _ = process.wait() => return,
        () = told(stop, Stop::Now) => {}
        () = sleep(GENTLE_STOP) => {}
    }
    // It may have ended by itself meanwhile.
    let _ = process.start_kill();
    let _ = process.wait().await;
}

/// Resolves when it is time to stop, so urgently or more; also when nobody can tell any more.
async fn told(stop: &mut watch::Receiver<Stop>, urgency: Stop) {
    let _ = stop.wait_for(|&told| told >= urgency).await;
}

/// Tells when the child serves, whom it waits for and that it is left out; returns whether it ever
/// served.
async fn forward_ready(
    id: u64,
    process: u32,
    stdout: impl AsyncRead + Unpin,
    events: mpsc::Sender<ChildEvent>,
) -> bool {
    let mut had_served = false;
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut words = line.split(' ');
        let kind = words.next();
        let mut word = |name| words.find_map(|word| word.strip_prefix(name));
        let event = match kind {
            Some("ready") => {
                had_served = true;
                let leader = word("leader=").unwrap_or("unknown").to_owned();
                ChildEvent::Ready { id, process, leader }
            }
            Some("waiting") => {
                let missing = word("missing=").unwrap_or("").split(',');
                ChildEvent::Waits { missing: missing.filter_map(|id| id.parse().ok()).collect() }
            }
            Some("not-admitted") => ChildEvent::NotAdmitted { id },
            Some("foreign") => {
                ChildEvent::Foreign { id, members: word("members=").unwrap_or("").to_owned() }
            }
            _ => continue,
        };
        let _ = events.send(event).await;
    }
    had_served
}

/// Passes a child's log on, each line with its id, and the line that it ends with.
async fn forward_log(id: u64, stderr: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let _ = writeln!(io::stderr(), "[node {id}] {}", String::from_utf8_lossy(&line));
    }
}

fn describe(status: io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("was lost: {error}"),
    }
}

/// Deaths of a child that never served in between: it does not get better by trying.
const DEATHS_IN_A_ROW_MAX: u32 = 5;

/// The first restart is at once; then after 1, 3, 7 and 15 times this, and no longer.
const BACKOFF: Duration = Duration::from_millis(250);
const BACKOFF_DOUBLINGS: u32 = 4;

/// A node that ran so long is started again at once.
const LIFE: Duration = Duration::from_secs(10);

/// After this, a child that was asked to stop is killed.
const GENTLE_STOP: Duration = Duration::from_secs(10);

const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_dies_again_and_again_is_given_more_and_more_time_up_to_a_bound() {
        let pauses: Vec<_> = (0..8).map(|lives| pause(lives).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 250, 750, 1750, 3750, 3750, 3750]);
    }
}
