//! Waiting in a program that goes on until it is told to stop.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag, low_level,
};

/// Whether Ctrl-C or SIGTERM came. Who asks a second time is not kept waiting: that ends the process at once.
#[derive(Debug)]
pub(crate) struct Stop {
    asked: Arc<AtomicBool>,
    /// Readable once it was asked.
    wakeup: UnixStream,
}

impl Stop {
    /// From here on the two signals are requests.
    pub(crate) fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        let (sender, wakeup) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM] {
            // Before the flag is raised, so that the first one does not end the process. The exit code is a shell's.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
            low_level::pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(Self { asked, wakeup })
    }

    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits for `interval`, or until nobody reads `out` any more or a signal comes. False if it is time to stop.
    pub(crate) fn wait(&self, out: &impl AsFd, interval: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(interval).map_err(io::Error::other)?;
        // Nothing is asked of `out`: that its reader is gone is told unasked.
        let mut waits =
            [PollFd::new(&self.wakeup, PollFlags::IN), PollFd::new(out, PollFlags::empty())];
        match poll(&mut waits, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_read = !waits[1].revents().intersects(PollFlags::ERR | PollFlags::HUP);
        Ok(is_read && !self.is_asked())
    }
}
