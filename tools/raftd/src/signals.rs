//! The signals that ask the program to stop.

use std::{future::ready, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::yield_now,
    time::{Instant, sleep_until},
};

/// Ctrl-C, SIGTERM, and SIGHUP, which comes when the terminal is closed.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// The first of a request, and until when others belong to it.
    begun: Option<(&'static str, Instant)>,
}

impl StopSignals {
    /// Takes them over: from now on they no longer kill the program.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            begun: None,
        })
    }

    /// The name of the next one. Those that come with it are the same request: `timeout` signals
    /// the program and then the group it is in, and a terminal that is closed does so beside its
    /// shell. What has arrived is counted, not when: this program may be kept from running meanwhile.
    ///
    /// Nothing is lost if this is dropped before it is done.
    pub(crate) async fn next(&mut self) -> &'static str {
        let (name, end) = match self.begun {
            Some(begun) => begun,
            None => {
                let name = self.any().await;
                *self.begun.insert((name, Instant::now() + INSTANT))
            }
        };
        sleep_until(end).await;
        // What the system has for us is taken in before we look.
        yield_now().await;
        loop {
            tokio::select! {
                biased;
                _ = self.any() => {}
                () = ready(()) => break,
            }
        }
        self.begun = None;
        name
    }

    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }
}

/// Shorter than anybody takes to ask twice.
const INSTANT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::{runtime::Builder, time::timeout};

    use super::*;

    #[test]
    fn signals_that_came_together_are_one_however_late_they_are_looked_at() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut signals = StopSignals::install().unwrap();
            kill_process(getpid(), Signal::TERM).unwrap();
            let early = timeout(INSTANT / 4, signals.next()).await;
            assert!(early.is_err(), "what comes with it is waited for");
            kill_process(getpid(), Signal::INT).unwrap();
            // As if the program had not been given a processor.
            thread::sleep(2 * INSTANT);
            assert_eq!(signals.next().await, "SIGTERM");
            let second = timeout(2 * INSTANT, signals.next()).await;
            assert!(second.is_err(), "{second:?}");
        });
    }
}
