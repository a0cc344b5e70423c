//! Where the nodes of a demo are: their ports and directories.

use std::path::{Path, PathBuf};

use crate::members::Members;

pub(crate) const NODES: usize = 3;
pub(crate) const IDS: [u64; NODES] = [1, 2, 3];

/// From the port for clients to the one for peers.
pub(crate) const PEER_PORT_OFFSET: u16 = 100;

/// Where one node of a demo keeps its log.
pub(crate) fn data_directory(demo: &Path, id: u64) -> PathBuf {
    demo.join(id.to_string())
}

pub(crate) fn peers(port: u16) -> Members {
    let list = IDS.map(|id| format!("{id}=127.0.0.1:{}", peer_port(port, id))).join(",");
    Members::parse(&list).expect("made of ids and ports that differ")
}

pub(crate) fn client_port(port: u16, id: u64) -> u16 {
    port + u16::try_from(id - 1).expect("ids are 1 to 3")
}

pub(crate) fn peer_port(port: u16, id: u64) -> u16 {
    client_port(port, id) + PEER_PORT_OFFSET
}
