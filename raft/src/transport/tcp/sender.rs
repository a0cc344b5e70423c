//! The thread behind a link: connects, greets, writes what waits, and begins again.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::transport::{
    Lane,
    tcp::{
        Shared, TcpOptions,
        dial::dial,
        gather::Gather,
        greeting::{GreetingError, read_greeting, write_greeting},
        link::{Link, Next, shut},
    },
    wire::{self, FRAME_HEADER_BYTES, FrameKind, Greeting, Versions},
};

/// The work of one sender thread.
pub(super) struct Sender {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

/// How a try to have a connection ended.
enum End {
    Stopped,
    Unreachable(String),
    Refused(String),
    /// There is nothing to send for now.
    Idle,
    Lost,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, link: Arc<Link>) -> Self {
        Self { shared, link }
    }

    pub(super) fn run(self) {
        let mut backoff = Backoff::new(&self.shared.options);
        let mut reported = String::new();
        while self.link.wait_wanted() {
            let begun = Instant::now();
            match self.connection() {
                End::Stopped => return,
                End::Idle => continue,
                End::Lost => reported.clear(),
                End::Refused(reason) => self.shared.refuse_peer(reason),
                End::Unreachable(reason) if reason == reported => {}
                End::Unreachable(reason) => {
                    tracing::warn!("{reason}; this is tried again until it works");
                    reported = reason;
                }
            }
            if !self.link.pause(backoff.next(begun.elapsed())) {
                return;
            }
        }
    }

    /// One connection, from the first try to its end.
    fn connection(&self) -> End {
        let Link { address, stop, .. } = &*self.link;
        let stream = match dial(address, self.shared.options.connect_timeout, stop) {
            Ok(Some(stream)) => Arc::new(stream),
            Ok(None) => return End::Stopped,
            Err(error) => {
                self.link.close();
                return self.unreachable(&error);
            }
        };
        if !self.link.open(&stream) {
            return End::Stopped;
        }
        let end = match self.greet(&stream) {
            Ok(()) => self.serve(&stream),
            Err(end) => end,
        };
        shut(&stream);
        match end {
            End::Idle => self.link.rest(),
            _ => self.link.close(),
        }
        end
    }

    fn greet(&self, stream: &TcpStream) -> Result<(), End> {
        let options = &self.shared.options;
        configure(stream, options.silence_max).map_err(|error| self.unreachable(&error))?;

        let hello = self.shared.hello.lock().clone();
        let own = hello.node;
        let greeting = Greeting::Hello { to: self.link.peer, hello, lane: self.link.lane };
        let deadline = Instant::now() + options.greeting_timeout;
        let answer = write_greeting(stream, Versions::OURS, &greeting)
            .and_then(|()| read_greeting(stream, deadline));
        let hello = match answer {
            Ok((_, Greeting::Refusal(reason))) => {
                return Err(self.refused(format_args!("refuses this node: {reason}")));
            }
            Ok((_, Greeting::Hello { to, hello, lane })) if to == own && lane == self.link.lane => {
                hello
            }
            Ok((_, Greeting::Hello { to, .. })) if to == own => {
                return Err(self.refused(format_args!("takes the connection for another one")));
            }
            Ok((_, Greeting::Hello { to, .. })) => {
                return Err(self.refused(format_args!("answers node {to}, not node {own}")));
            }
            Err(GreetingError::Wire(error)) => return Err(self.refused(format_args!("{error}"))),
            Err(error) => return Err(self.unreachable(&error)),
        };
        let verdict = if hello.node == self.link.peer {
            self.shared.inbound.hello(hello)
        } else {
            Err(format!("this is node {}, not node {}", hello.node, self.link.peer))
        };
        verdict.map_err(|reason| {
            // Best effort: the peer learns of the end in any case.
            let _ = { stream }.write_all(&wire::encode_goodbye(&reason));
            self.refused(format_args!("{reason}"))
        })?;
        stream.set_read_timeout(None).map_err(|error| self.unreachable(&error))
    }

    /// Writes until the connection is lost. A second thread waits for the end that the peer may
    /// make of it: without one, the first write into the void would be the first to tell.
    fn serve(&self, stream: &TcpStream) -> End {
        thread::scope(|scope| {
            let watcher = thread::Builder::new().name(format!("kontiki-watch-{}", self.link.peer));
            let watcher = match watcher.spawn_scoped(scope, || watch(&self.link, stream)) {
                Ok(watcher) => watcher,
                Err(error) => return self.unreachable(&error),
            };
            let _shut_before_join = Shut(stream);
            if !self.link.connect() {
                return End::Stopped;
            }
            if self.link.lane == Lane::Messages {
                self.shared.inbound.connected(self.link.peer);
            }
            let written = self.write(stream);
            shut(stream);
            let watched = watcher.join().expect("the watcher does not panic");

            if matches!(written, Ok(Written::Idle)) {
                return End::Idle;
            }
            // Before the call, so that every message that was taken is behind it.
            self.link.close();
            let reason = match (watched, written) {
                (Ok(goodbye), _) => format!("closed by the peer: {goodbye}"),
                (Err(_), Err(error)) if error.kind() == ErrorKind::WouldBlock => {
                    format!("nothing can be written for {:?}", self.shared.options.silence_max)
                }
                (Err(_), Err(error)) => error.to_string(),
                (Err(_), Ok(Written::Stopped)) => "closed by this node".to_owned(),
                (Err(ending), Ok(Written::Lost | Written::Idle)) => ending,
            };
            match self.link.lane {
                Lane::Messages => self.shared.inbound.disconnected(self.link.peer, &reason),
                Lane::Images => tracing::debug!("images for node {}: {reason}", self.link.peer),
            }
            End::Lost
        })
    }

    fn write(&self, mut stream: &TcpStream) -> io::Result<Written> {
        let keepalive_pause = self.shared.options.silence_max / 4;
        let mut gather = Gather::default();
        let mut messages = Vec::new();
        loop {
            match self.link.take(&mut messages, keepalive_pause) {
                Next::Stopped => return Ok(Written::Stopped),
                Next::Lost => return Ok(Written::Lost),
                Next::Keepalive if self.link.lane == Lane::Images => return Ok(Written::Idle),
                Next::Keepalive => gather.frame(&mut stream, FrameKind::Keepalive, 0, &[])?,
                Next::Write { hello } => {
                    if hello {
                        let Link { peer, lane, .. } = &*self.link;
                        let body = wire::encode_hello(*peer, &self.shared.hello.lock(), *lane);
                        gather.frame(&mut stream, FrameKind::Hello, 0, &[Bytes::from(body)])?;
                    }
                    for message in &messages {
                        let kind = FrameKind::Message;
                        gather.frame(&mut stream, kind, message.group, &message.chunks)?;
                    }
                }
            }
            gather.flush(&mut stream)?;
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> End {
        let Link { peer, address, .. } = &*self.link;
        End::Unreachable(format!("node {peer} at {address}: {error}"))
    }

    fn refused(&self, reason: std::fmt::Arguments<'_>) -> End {
        let Link { peer, address, .. } = &*self.link;
        End::Refused(format!("node {peer} at {address}: {reason}"))
    }
}

impl Drop for Sender {
    /// Also when an `Inbound` call panicked: without its thread a link takes nothing.
    fn drop(&mut self) {
        self.link.stop();
        self.link.close();
    }
}

/// Why the writing ended without an error.
enum Written {
    Stopped,
    Idle,
    Lost,
}

/// Waits for the end of a connection. `Ok` is the reason that the peer gives, if it gives one.
fn watch(link: &Link, mut stream: &TcpStream) -> Result<String, String> {
    let mut read = || {
        let mut header = [0; FRAME_HEADER_BYTES];
        stream.read_exact(&mut header).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => "closed by the peer".to_owned(),
            _ => error.to_string(),
        })?;
        let header = wire::decode_frame_header(&header).map_err(|error| error.to_string())?;
        if header.kind != FrameKind::Goodbye {
            return Err("the peer sends on a connection that is for this node to send".to_owned());
        }
        let mut reason = vec![0; header.payload_bytes];
        stream.read_exact(&mut reason).map_err(|error| error.to_string())?;
        header.check(&reason).map_err(|error| error.to_string())?;
        Ok(wire::readable(&reason))
    };
    let farewell = read();
    shut(stream);
    link.lose();
    farewell
}

/// Ends the connection when it goes, so that a scope never waits for its watcher in vain.
struct Shut<'a>(&'a TcpStream);

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        shut(self.0);
    }
}

fn configure(stream: &TcpStream, silence_max: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A write that makes no progress for so long ends the connection; so does, where the system
    // can say it, a small write that is never acknowledged.
    stream.set_write_timeout(Some(silence_max))?;
    #[cfg(target_os = "linux")]
    {
        let millis = u32::try_from(silence_max.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(stream, millis)?;
    }
    Ok(())
}

/// How long to wait before the next try: doubles up to a limit, less a random part so that nodes
/// which lost each other together do not come back together.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(options: &TcpOptions) -> Self {
        let max = options.backoff_max.max(options.backoff_min);
        Self { min: options.backoff_min, max, next: options.backoff_min }
    }

    /// The next pause, after a connection that lived for `lived`.
    fn next(&mut self, lived: Duration) -> Duration {
        if lived > self.max {
            self.next = self.min;
        }
        let pause = self.next;
        self.next = self.max.min(2 * pause);
        // Without entropy there is no jitter, which harms nobody.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_begin_anew_after_a_long_life() {
        let options = TcpOptions {
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(35),
            ..TcpOptions::default()
        };
        let mut backoff = Backoff::new(&options);
        for expected in [10, 20, 35, 35] {
            let pause = backoff.next(Duration::ZERO);
            let expected = Duration::from_millis(expected);
            assert!(expected / 2 <= pause && pause <= expected, "{pause:?} for {expected:?}");
        }
        assert!(backoff.next(Duration::from_secs(1)) <= Duration::from_millis(10));
    }
}
