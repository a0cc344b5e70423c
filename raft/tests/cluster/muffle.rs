//! A transport that can lose one kind of message on one link, or pieces of images from one on.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use kontiki::{Hello, Inbound, StartError, Transport};

/// Says which message of the protocol is lost; shared by the transports of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Muffle(Arc<Mutex<Option<Rule>>>, Arc<Mutex<Images>>);

/// What was asked for and sent of images.
#[derive(Debug)]
struct Images {
    /// Offsets, in the order in which they were asked for.
    asked: Vec<u64>,
    pieces: usize,
    /// So many pieces pass, and the others are lost.
    passes: usize,
}

impl Default for Images {
    fn default() -> Self {
        Self { asked: Vec::new(), pieces: 0, passes: usize::MAX }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    from: u64,
    to: u64,
    kind: u8,
}

impl Muffle {
    /// From now on AppendEntries of `from` never reach `to`.
    pub(crate) fn lose_appends(&self, from: u64, to: u64) {
        *self.0.lock().unwrap() = Some(Rule { from, to, kind: APPEND_ENTRIES });
    }

    /// So many pieces of images pass from now on, and the others are lost.
    pub(crate) fn lose_pieces_behind(&self, pieces: usize) {
        let mut images = self.1.lock().unwrap();
        (images.pieces, images.passes) = (0, pieces);
    }

    /// How many pieces were sent since then, lost ones too.
    pub(crate) fn pieces(&self) -> usize {
        self.1.lock().unwrap().pieces
    }

    /// The offsets of pieces that were asked for since the last call.
    pub(crate) fn take_asked(&self) -> Vec<u64> {
        std::mem::take(&mut self.1.lock().unwrap().asked)
    }

    /// `inner`, which is node `id`'s, under this rule.
    pub(crate) fn over(&self, id: u64, inner: Box<dyn Transport>) -> Box<dyn Transport> {
        Box::new(Muffled { id, inner, muffle: self.clone() })
    }
}

#[derive(Debug)]
struct Muffled {
    id: u64,
    inner: Box<dyn Transport>,
    muffle: Muffle,
}

impl Transport for Muffled {
    fn start(&mut self, hello: Hello, inbound: Arc<dyn Inbound>) -> Result<SocketAddr, StartError> {
        self.inner.start(hello, inbound)
    }

    fn set_peers(&self, peers: &[(u64, String)]) {
        self.inner.set_peers(peers);
    }

    fn set_hello(&self, hello: Hello) {
        self.inner.set_hello(hello);
    }

    fn send(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        let first: Vec<u8> = message.iter().flatten().take(2).copied().collect();
        let lost = match first[..] {
            [PROTOCOL, kind] => {
                *self.muffle.0.lock().unwrap() == Some(Rule { from: self.id, to, kind })
            }
            [ASK, _] => {
                let bytes: Vec<u8> = message.iter().flatten().copied().collect();
                let offset = bytes[ASK_OFFSET_AT..].first_chunk().unwrap();
                self.muffle.1.lock().unwrap().asked.push(u64::from_le_bytes(*offset));
                false
            }
            _ => false,
        };
        lost || self.inner.send(to, group, message)
    }

    fn send_image(&self, to: u64, group: u32, message: Vec<Bytes>) -> bool {
        let mut images = self.muffle.1.lock().unwrap();
        images.pieces += 1;
        let lost = images.pieces > images.passes;
        drop(images);
        lost || self.inner.send_image(to, group, message)
    }

    fn stop(&mut self) {
        self.inner.stop();
    }
}

/// Tags of PROTOCOL.md.
const PROTOCOL: u8 = 0;
const APPEND_ENTRIES: u8 = 3;
const ASK: u8 = 3;
/// Behind the tag and the place of the image.
const ASK_OFFSET_AT: usize = 17;
