//! Accepts connections and gives each its thread.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::event::PollFlags;

use crate::transport::tcp::{
    Shared, join,
    receiver::Receiver,
    stop::{Stop, Wait},
};

/// The thread that listens.
#[derive(Debug)]
pub(super) struct Listener {
    stop: Arc<Stop>,
    thread: JoinHandle<()>,
}

impl Listener {
    pub(super) fn start(socket: TcpListener, shared: Arc<Shared>) -> io::Result<Self> {
        // Another thread never takes the connection that was seen, but a client may take it back.
        socket.set_nonblocking(true)?;
        let stop = Arc::new(Stop::new()?);
        let accepting = Accepting { socket, stop: Arc::clone(&stop), shared };
        let thread =
            thread::Builder::new().name("kontiki-listen".into()).spawn(move || accepting.run())?;
        Ok(Self { stop, thread })
    }

    /// Closes the port and joins the thread.
    pub(super) fn stop(self) {
        self.stop.stop();
        join(self.thread);
    }
}

struct Accepting {
    socket: TcpListener,
    stop: Arc<Stop>,
    shared: Arc<Shared>,
}

impl Accepting {
    fn run(self) {
        loop {
            match self.stop.wait_ready(&self.socket, PollFlags::IN, None) {
                Ok(Wait::Stopped) => return,
                Ok(Wait::Ready | Wait::TimedOut) => {}
                Err(error) => self.fail(&error),
            }
            match self.socket.accept() {
                Ok((stream, address)) => self.welcome(stream, address.ip()),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock
                    | ErrorKind::Interrupted
                    | ErrorKind::ConnectionAborted => {}
                    _ => self.fail(&error),
                },
            }
        }
    }

    fn welcome(&self, stream: TcpStream, address: IpAddr) {
        let stream = Arc::new(stream);
        let Some(id) = self.shared.connections.accept(Arc::clone(&stream)) else {
            let limit = self.shared.options.connections_max;
            self.shared.refuse_stranger(format!("{address}: {limit} connections are open"));
            return;
        };
        let receiver = Receiver::new(Arc::clone(&self.shared), id, stream, address);
        match thread::Builder::new().name("kontiki-receive".into()).spawn(move || receiver.run()) {
            Ok(thread) => self.shared.connections.keep(thread),
            // The closure is gone, and the receiver in it has taken the connection out.
            Err(error) => self.fail(&error),
        }
    }

    /// No descriptor or no thread is left, mostly: that passes by itself, and no event tells when.
    fn fail(&self, error: &io::Error) {
        if let Some(report) = self.shared.strangers.pass(Instant::now(), error.to_string()) {
            tracing::error!("cannot accept a connection: {report}");
        }
        let _ = self.stop.wait_until(Instant::now() + PAUSE);
    }
}

const PAUSE: Duration = Duration::from_millis(100);
