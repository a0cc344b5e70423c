//! Images of the state machine: who keeps them, what a start makes of them, and how a node that is behind gets one.
//!
//! ```text
//! applier    captures the state machine, quickly                                          |> driver
//! driver     says which configuration and cluster the capture is of                       |> keeper
//! keeper     writes it out and syncs it, under a name that nobody looks for               |> driver
//! driver     waits until the own log is durable as far as that                            |> keeper
//! keeper     makes it visible: from now on it counts, whatever happens                    |> driver
//! core       lets entries go that it contains                                             |> log
//! ```

use kontiki_core::{Configuration, LogIndex, Position, Snapshot, Term};
use kontiki_snapshot::{Header, Owner, Place};

use crate::storage::GROUP;

pub(crate) mod copies;
pub(crate) mod download;
pub(crate) mod keeper;
pub(crate) mod start;

/// Where the images lie, below the directory of their node.
pub(crate) const IMAGES_DIRECTORY: &str = "snapshots";

/// Images that are kept: one to fall back to where the log still covers the gap.
pub(crate) const IMAGES_KEPT: usize = 2;

/// Of the bytes that a header keeps for its user.
const VERSION: u8 = 1;

pub(crate) fn owner(cluster: u64) -> Owner {
    Owner { cluster, log: GROUP }
}

pub(crate) fn place(at: Position) -> Place {
    Place { index: at.index.0, term: at.term.0 }
}

pub(crate) fn position(place: Place) -> Position {
    Position { term: Term(place.term), index: LogIndex(place.index) }
}

/// What an image says ahead of the state machine's bytes.
pub(crate) fn header(cluster: u64, snapshot: &Snapshot) -> Header {
    let (position, configuration) = &snapshot.configuration;
    let mut membership = vec![VERSION];
    membership.extend_from_slice(&position.term.0.to_le_bytes());
    membership.extend_from_slice(&position.index.0.to_le_bytes());
    membership.extend_from_slice(&configuration.encode());
    Header { cluster, log: GROUP, place: place(snapshot.at), membership }
}

/// What a header says, trusting nothing in it.
pub(crate) fn snapshot(header: &Header) -> Result<Snapshot, String> {
    let bytes = &header.membership[..];
    let (version, bytes) = bytes.split_first().ok_or("a membership without a byte")?;
    if *version != VERSION {
        return Err(format!("a membership of version {version}, known is {VERSION}"));
    }
    let (term, bytes) = bytes.split_first_chunk().ok_or("a membership that is cut short")?;
    let (index, bytes) = bytes.split_first_chunk().ok_or("a membership that is cut short")?;
    let place = Place { term: u64::from_le_bytes(*term), index: u64::from_le_bytes(*index) };
    let configuration = Configuration::decode(bytes).map_err(|error| error.to_string())?;
    let configuration = (position(place), configuration);
    let snapshot = Snapshot { at: position(header.place), configuration };
    snapshot.validate().map_err(|error| error.to_string())?;
    Ok(snapshot)
}

#[cfg(test)]
pub(crate) mod tests {
    use kontiki_core::{Incarnation, Member, NodeId};

    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id: NodeId(id),
            incarnation: Incarnation(id),
            address: format!("a:{id}"),
            voter: true,
        }
    }

    /// The first configuration of node 1 by itself.
    pub(crate) fn alone() -> (Position, Configuration) {
        (Position::default(), Configuration { members: vec![member(1)] })
    }

    #[test]
    fn a_header_says_what_it_was_told_and_nothing_broken_is_believed() {
        let configuration = Configuration { members: (1..=3).map(member).collect() };
        let known = Snapshot {
            at: Position::new(2, 9),
            configuration: (Position::new(1, 4), configuration),
        };
        let header = header(7, &known);
        assert_eq!(snapshot(&header), Ok(known));
        assert_eq!((header.cluster, header.place.index), (7, 9));
        for end in 0..header.membership.len() {
            let cut = Header { membership: header.membership[..end].to_vec(), ..header.clone() };
            assert!(snapshot(&cut).is_err(), "cut at {end}");
        }
        let mut newer = header.clone();
        newer.membership[0] = 2;
        assert!(snapshot(&newer).unwrap_err().contains("version 2"));
        let ahead = Header { place: Place { index: 3, term: 1 }, ..header };
        assert!(snapshot(&ahead).is_err(), "its configuration lies behind it");
    }
}
