//! Wakes a thread that waits for a socket.

use std::{
    io,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

/// A pair of sockets that says "stop" by being closed: seen by every later wait too.
#[derive(Debug)]
pub(super) struct Stop {
    stopper: UnixStream,
    stopped: UnixStream,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Ready,
    TimedOut,
    Stopped,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        let (stopper, stopped) = UnixStream::pair()?;
        Ok(Self { stopper, stopped })
    }

    /// Ends every wait, now and later.
    pub(super) fn stop(&self) {
        // The only error is that this was done before.
        let _ = self.stopper.shutdown(Shutdown::Both);
    }

    /// Waits until `socket` is ready for `events`, or until the deadline if there is one.
    pub(super) fn wait_ready(
        &self,
        socket: &impl AsFd,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> io::Result<Wait> {
        let mut waits = [PollFd::new(&self.stopped, PollFlags::IN), PollFd::new(socket, events)];
        self.wait_any(&mut waits, deadline)
    }

    /// Waits for nothing but the deadline or the stop.
    pub(super) fn wait_until(&self, deadline: Instant) -> io::Result<Wait> {
        self.wait_any(&mut [PollFd::new(&self.stopped, PollFlags::IN)], Some(deadline))
    }

    fn wait_any(&self, waits: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<Wait> {
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
            match poll(waits, timeout.as_ref()) {
                Ok(0) => return Ok(Wait::TimedOut),
                Ok(_) if !waits[0].revents().is_empty() => return Ok(Wait::Stopped),
                Ok(_) => return Ok(Wait::Ready),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
