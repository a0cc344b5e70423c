//! The signals that ask the program to stop.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, SIGTERM, and SIGHUP, which comes when the terminal is closed.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// When the last one was taken for a request.
    asked: Option<Instant>,
}

impl StopSignals {
    /// Takes them over: from now on they no longer kill the program.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            asked: None,
        })
    }

    /// The name of the next one. Those that come with it are the same request: `timeout` signals the
    /// program and then the group it is in, and a terminal that is closed does so beside its shell.
    pub(crate) async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.interrupt.recv() => "SIGINT",
                _ = self.terminate.recv() => "SIGTERM",
                _ = self.hangup.recv() => "SIGHUP",
            };
            if self.asked.is_none_or(|asked| asked.elapsed() >= INSTANT) {
                self.asked = Some(Instant::now());
                return name;
            }
        }
    }
}

/// Shorter than anybody takes to ask twice.
const INSTANT: Duration = Duration::from_millis(200);
