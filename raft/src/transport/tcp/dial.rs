//! Connects to an address, and stops doing so at once when told to.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{self, AddressFamily, SocketType},
};

use crate::transport::tcp::stop::{Stop, Wait};

/// Resolves `host:port` and connects to the first address that answers, each within `timeout`.
/// `None` if it was stopped meanwhile; a lookup of a name cannot be stopped and may hold it up.
pub(super) fn dial(address: &str, timeout: Duration, stop: &Stop) -> io::Result<Option<TcpStream>> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()?.take(ADDRESSES_MAX) {
        match connect(resolved, Instant::now() + timeout, stop) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect(address: SocketAddr, deadline: Instant, stop: &Stop) -> io::Result<Option<TcpStream>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let stream = TcpStream::from(socket(family)?);
    stream.set_nonblocking(true)?;
    match net::connect(&stream, &address) {
        Ok(()) => {}
        Err(Errno::INPROGRESS | Errno::INTR) => {
            match stop.wait_ready(&stream, PollFlags::OUT, Some(deadline))? {
                Wait::Ready => net::sockopt::socket_error(&stream)??,
                Wait::TimedOut => return Err(ErrorKind::TimedOut.into()),
                Wait::Stopped => return Ok(None),
            }
        }
        Err(error) => return Err(error.into()),
    }
    stream.set_nonblocking(false)?;
    // On loopback a connect to a free port may meet itself, and would keep the peer from binding.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    Ok(Some(stream))
}

#[cfg(target_os = "linux")]
fn socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    net::socket_with(family, SocketType::STREAM, net::SocketFlags::CLOEXEC, None)
}

#[cfg(not(target_os = "linux"))]
fn socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let socket = net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// A name with more addresses than this would hold up the others for too long.
const ADDRESSES_MAX: usize = 4;
