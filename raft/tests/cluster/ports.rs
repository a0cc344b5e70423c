//! Ports for nodes whose addresses must be known before they listen. raftd's tests, the unit tests
//! of the transport and the benches use this file too.
//!
//! They lie below the range from which the system gives outgoing connections their ports: one of
//! those could take the port of a node while it is down. A process takes them from blocks that it
//! claims by listening on the first port of each, so two test runs never share one.

use std::{
    net::TcpListener,
    process,
    sync::{Mutex, PoisonError},
};

/// A port that is free together with those so much above it; given out once.
pub(crate) fn free_port(offsets: &[u16]) -> u16 {
    static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(port) = blocks.last_mut().and_then(|block| block.take(offsets)) {
            return port;
        }
        blocks.push(Block::claim());
    }
}

/// `count` addresses on this machine.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    (0..count).map(|_| format!("127.0.0.1:{}", free_port(&[0]))).collect()
}

/// Ports of this process.
struct Block {
    next: u16,
    end: u16,
    /// Listens as long as the process lives: the claim.
    _claim: TcpListener,
}

impl Block {
    fn claim() -> Self {
        let count = (PORTS_END - PORTS_FIRST) / BLOCK_PORTS;
        // Another process begins elsewhere, so that few claims fail.
        let first = u16::try_from(process::id() % u32::from(count)).expect("below a u16");
        (first..count)
            .chain(0..first)
            .find_map(|block| {
                let port = PORTS_FIRST + block * BLOCK_PORTS;
                let claim = TcpListener::bind(("127.0.0.1", port)).ok()?;
                Some(Self { next: port + 1, end: port + BLOCK_PORTS, _claim: claim })
            })
            .expect("a block of ports that nobody has claimed")
    }

    fn take(&mut self, offsets: &[u16]) -> Option<u16> {
        let reach = offsets.iter().max().expect("an offset of 0 at least");
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        let found = (self.next..self.end.saturating_sub(*reach))
            .find(|port| offsets.iter().all(|offset| is_free(port + offset)))?;
        self.next = found + reach + 1;
        Some(found)
    }
}

const PORTS_FIRST: u16 = 10_000;
const PORTS_END: u16 = 32_000;
const BLOCK_PORTS: u16 = 1000;
