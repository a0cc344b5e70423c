//! What goes back to a client: RESP2 frames, and which error each error of the node becomes.
//!
//! The prefix of an error decides what client libraries do with it. `CLUSTERDOWN` and `TRYAGAIN`
//! are the two that they may send again by themselves (go-redis always; redis-rs and redis-py when
//! they talk to a cluster), so they are given only for what certainly was not applied. An unknown
//! outcome gets a prefix that no library knows, and the connection stays open: a closed connection
//! is what most of them answer with a retry.

use std::{fmt, sync::Arc};

use bytes::{Bytes, BytesMut};
use kontiki::{ProposeError, ReadError, Role, Status};
use redis_protocol::resp2::{encode::extend_encode, types::BytesFrame};

use crate::info;

/// What this node knows of why a request was not served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[default]
    Unknown,
    /// The first start is not complete.
    FirstStart,
    /// Its own disk takes no writes, for this reason.
    WritesHeld(Arc<str>),
    /// These members answer as nodes of another cluster than its own.
    OtherCluster(Vec<u64>),
}

impl Trouble {
    pub(crate) fn of(status: &Status) -> Self {
        match &status.writes_held {
            Some(cause) => Self::WritesHeld(Arc::clone(cause)),
            None if status.role == Role::Starting => Self::FirstStart,
            None if !status.foreign_members.is_empty() => {
                Self::OtherCluster(status.foreign_members.clone())
            }
            None => Self::Unknown,
        }
    }
}

impl fmt::Display for Trouble {
    /// What is added to an error that does not speak of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritesHeld(cause) => write!(f, "; this node cannot write: {cause}"),
            Self::OtherCluster(members) => write!(
                f,
                "; this node and node {} are of different clusters and refuse each other: check \
                 their data directories",
                info::ids(members)
            ),
            Self::Unknown | Self::FirstStart => Ok(()),
        }
    }
}

/// `+OK`.
pub(crate) fn ok() -> BytesFrame {
    simple("OK")
}

/// A simple string.
pub(crate) fn simple(text: &'static str) -> BytesFrame {
    BytesFrame::SimpleString(Bytes::from_static(text.as_bytes()))
}

/// A bulk string of fixed text.
pub(crate) fn text(text: &'static str) -> BytesFrame {
    BytesFrame::BulkString(Bytes::from_static(text.as_bytes()))
}

/// A bulk string, or nil.
pub(crate) fn bulk(bytes: Option<Bytes>) -> BytesFrame {
    bytes.map_or(BytesFrame::Null, BytesFrame::BulkString)
}

/// A count as an integer.
pub(crate) fn count(count: usize) -> BytesFrame {
    BytesFrame::Integer(i64::try_from(count).expect("counts of things in memory fit"))
}

/// An error; `line` begins with its prefix. Bytes that would end the line become spaces.
pub(crate) fn error(line: impl Into<String>) -> BytesFrame {
    let line = line.into().replace(['\r', '\n'], " ");
    BytesFrame::Error(line.into())
}

/// Appends a frame to `out`.
pub(crate) fn write(out: &mut BytesMut, frame: &BytesFrame) {
    extend_encode(out, frame, false).expect("the buffer was extended to the frame's length");
}

/// Appends the beginning of an array; `length` frames make the rest.
pub(crate) fn write_array_header(out: &mut BytesMut, length: usize) {
    out.extend_from_slice(format!("*{length}\r\n").as_bytes());
}

/// A frame by itself.
pub(crate) fn encode(frame: &BytesFrame) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out, frame);
    out.freeze()
}

/// The reply to a write that failed. The table is in README.md, "Errors"; change both or neither.
pub(crate) fn propose_error(error_found: &ProposeError, trouble: &Trouble) -> BytesFrame {
    let certainly_not_applied = error_found.is_certainly_not_applied();
    error(match error_found {
        ProposeError::TooLarge { bytes, limit } => {
            format!("ERR the command takes {bytes} bytes, the limit is {limit}")
        }
        ProposeError::Unknown { .. } => format!("{UNKNOWN_RESULT}{trouble}"),
        // From here on: whatever may have been applied must not look like something to retry.
        other if !certainly_not_applied => format!("{UNKNOWN_RESULT} ({other})"),
        ProposeError::NotLeader { hint } => no_leader(hint.as_ref(), trouble),
        ProposeError::Overloaded => format!("{OVERLOADED}{trouble}"),
        ProposeError::Superseded { .. } => {
            "TRYAGAIN a new leader put another command in its place: not applied, send it again"
                .to_owned()
        }
        ProposeError::Stopped => STOPPED.to_owned(),
        ProposeError::NotAdmitted(reason) => not_admitted(reason),
        other => format!("ERR not applied: {other}"),
    })
}

/// The reply to a read that failed. A read changes nothing, so sending it again is always right.
pub(crate) fn read_error(error_found: &ReadError, trouble: &Trouble) -> BytesFrame {
    error(match error_found {
        ReadError::NotLeader { hint } => no_leader(hint.as_ref(), trouble),
        ReadError::Overloaded => format!("{OVERLOADED}{trouble}"),
        ReadError::TimedOut => format!("{TIMED_OUT}{trouble}"),
        ReadError::Stopped => STOPPED.to_owned(),
        ReadError::NotAdmitted(reason) => not_admitted(reason),
        ReadError::Fatal(cause) => {
            format!("ERR this node has failed and takes nothing more, use another one: {cause}")
        }
        other => format!("ERR {other}"),
    })
}

/// A leader that is known now was not when the request waited, or had lost its office when asked.
fn no_leader(known: Option<&(u64, String)>, trouble: &Trouble) -> String {
    match (known, trouble) {
        (Some((id, _)), _) => format!("{LEADER_CHANGED} {id}; not applied, send it again"),
        (None, Trouble::FirstStart) => FIRST_START.to_owned(),
        (None, trouble) => format!("{NO_LEADER}{trouble}"),
    }
}

/// No prefix that is sent again: here it would be refused again.
fn not_admitted(reason: &str) -> String {
    format!("ERR this node is not admitted; not applied, use another one: {reason}")
}

const UNKNOWN_RESULT: &str = "UNKNOWNRESULT the outcome of this command is unknown: \
     it may have been applied, or may still be; read before sending it again";
const NO_LEADER: &str = "CLUSTERDOWN no leader: a majority of the nodes is needed that run, reach \
     one another and can write; not applied, send it again";
const FIRST_START: &str = "CLUSTERDOWN no leader: the first start needs all nodes, and they have \
     not all met; not applied, send it again";
const LEADER_CHANGED: &str = "CLUSTERDOWN the leader changes, by now it may be node";
const OVERLOADED: &str = "TRYAGAIN too much is waiting on this node; not applied, send it again";
const TIMED_OUT: &str = "TRYAGAIN the read was not served in time: no quorum confirmed it, \
     or this node is behind; send it again";
const STOPPED: &str = "CLUSTERDOWN this node is stopping; not applied, use another one";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_is_made_of() {
        assert_eq!(encode(&error("ERR a\r\n+OK")), "-ERR a  +OK\r\n");
    }

    #[test]
    fn a_majority_is_asked_for_only_where_no_leader_is_known() {
        for (hint, text) in
            [(None, "a majority of the nodes"), (Some((2, "b:1".to_owned())), "may be node 2")]
        {
            let (write, read) =
                (ProposeError::NotLeader { hint: hint.clone() }, ReadError::NotLeader { hint });
            let write = encode(&propose_error(&write, &Trouble::Unknown));
            assert_eq!(write, encode(&read_error(&read, &Trouble::Unknown)));
            let line = String::from_utf8(write.to_vec()).unwrap();
            assert!(line.starts_with("-CLUSTERDOWN ") && line.contains(text), "{line}");
        }
    }

    #[test]
    fn a_node_that_knows_why_it_serves_nobody_says_it() {
        let none = ProposeError::NotLeader { hint: None };
        let line = |error, trouble| {
            String::from_utf8(encode(&propose_error(error, trouble)).to_vec()).unwrap()
        };
        let first_start = line(&none, &Trouble::FirstStart);
        assert!(first_start.starts_with("-CLUSTERDOWN ") && !first_start.contains("majority"));
        assert!(first_start.contains("needs all nodes"), "{first_start}");

        let held = Trouble::WritesHeld("the disk is full".into());
        let unknown = ProposeError::Unknown { position: None };
        for error in [&none, &unknown, &ProposeError::Overloaded] {
            let line = line(error, &held);
            assert!(line.contains("this node cannot write: the disk is full"), "{line}");
        }
        let foreign = line(&none, &Trouble::OtherCluster(vec![2, 3]));
        assert!(foreign.contains("node 2,3 are of different clusters"), "{foreign}");
        let late = encode(&read_error(&ReadError::TimedOut, &held));
        assert!(late.ends_with(b"this node cannot write: the disk is full\r\n"), "{late:?}");
    }

    #[test]
    fn a_node_that_is_not_admitted_asks_nobody_to_send_again() {
        let reason = || "another disk".into();
        let write = propose_error(&ProposeError::NotAdmitted(reason()), &Trouble::Unknown);
        let read = read_error(&ReadError::NotAdmitted(reason()), &Trouble::Unknown);
        let write = encode(&write);
        assert_eq!(write, encode(&read));
        assert!(write.starts_with(b"-ERR ") && write.ends_with(b"another disk\r\n"), "{write:?}");
    }

    #[test]
    fn a_node_that_stops_refuses_writes_as_it_does_reads() {
        let write = propose_error(&ProposeError::Stopped, &Trouble::Unknown);
        let read = read_error(&ReadError::Stopped, &Trouble::Unknown);
        let write = encode(&write);
        assert_eq!(write, encode(&read));
        assert!(write.starts_with(b"-CLUSTERDOWN "), "{write:?}");
    }

    #[test]
    fn a_read_that_timed_out_blames_no_quorum_that_may_have_answered() {
        let late = read_error(&ReadError::TimedOut, &Trouble::Unknown);
        let line = String::from_utf8(encode(&late).to_vec()).unwrap();
        assert!(
            line.starts_with("-TRYAGAIN ") && line.contains("or this node is behind"),
            "{line}"
        );
    }

    #[test]
    fn an_unknown_outcome_has_a_prefix_that_no_client_retries() {
        let unknown = ProposeError::Unknown { position: None };
        let reply = encode(&propose_error(&unknown, &Trouble::Unknown));
        assert!(reply.starts_with(b"-UNKNOWNRESULT "), "{reply:?}");
    }

    #[test]
    fn a_prefix_that_clients_retry_is_given_only_to_what_was_not_applied() {
        let cause: std::sync::Arc<str> = "disk".into();
        for failure in [
            ProposeError::NotLeader { hint: None },
            ProposeError::Overloaded,
            ProposeError::TooLarge { bytes: 2, limit: 1 },
            ProposeError::Unknown { position: None },
            ProposeError::Stopped,
            ProposeError::NotAdmitted(cause.clone()),
            ProposeError::Fatal(cause),
        ] {
            let reply = encode(&propose_error(&failure, &Trouble::Unknown));
            let retried = reply.starts_with(b"-TRYAGAIN") || reply.starts_with(b"-CLUSTERDOWN");
            assert!(!retried || failure.is_certainly_not_applied(), "{failure:?}: {reply:?}");
        }
    }
}
