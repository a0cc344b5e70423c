//! What goes back to a client: RESP2 frames, and which error each error of the node becomes.
//!
//! The prefix of an error decides what client libraries do with it. `CLUSTERDOWN` and `TRYAGAIN`
//! are the two that they may send again by themselves (go-redis always; redis-rs and redis-py when
//! they talk to a cluster), so they are given only for what certainly was not applied. An unknown
//! outcome gets a prefix that no library knows, and the connection stays open: a closed connection
//! is what most of them answer with a retry.

use bytes::{Bytes, BytesMut};
use kontiki::{ProposeError, ReadError};
use redis_protocol::resp2::{encode::extend_encode, types::BytesFrame};

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
pub(crate) fn propose_error(error_found: &ProposeError) -> BytesFrame {
    let certainly_not_applied = error_found.is_certainly_not_applied();
    error(match error_found {
        ProposeError::TooLarge { bytes, limit } => {
            format!("ERR the command takes {bytes} bytes, the limit is {limit}")
        }
        ProposeError::Unknown { .. } => UNKNOWN_RESULT.to_owned(),
        // From here on: whatever may have been applied must not look like something to retry.
        other if !certainly_not_applied => format!("{UNKNOWN_RESULT} ({other})"),
        ProposeError::NotLeader { hint } => no_leader(hint.as_ref()),
        ProposeError::Overloaded => OVERLOADED.to_owned(),
        ProposeError::Superseded { .. } => {
            "TRYAGAIN a new leader put another command in its place: not applied, send it again"
                .to_owned()
        }
        ProposeError::NotAdmitted(reason) => not_admitted(reason),
        other => format!("ERR not applied: {other}"),
    })
}

/// The reply to a read that failed. A read changes nothing, so sending it again is always right.
pub(crate) fn read_error(error_found: &ReadError) -> BytesFrame {
    error(match error_found {
        ReadError::NotLeader { hint } => no_leader(hint.as_ref()),
        ReadError::Overloaded => OVERLOADED.to_owned(),
        ReadError::TimedOut => TIMED_OUT.to_owned(),
        ReadError::Stopped => STOPPED.to_owned(),
        ReadError::NotAdmitted(reason) => not_admitted(reason),
        ReadError::Fatal(cause) => {
            format!("ERR this node has failed and takes nothing more, use another one: {cause}")
        }
        other => format!("ERR {other}"),
    })
}

/// A leader that is known now was not when the request waited, or had lost its office when asked.
fn no_leader(known: Option<&(u64, String)>) -> String {
    match known {
        Some((id, _)) => format!("{LEADER_CHANGED} {id}; not applied, send it again"),
        None => NO_LEADER.to_owned(),
    }
}

/// No prefix that is sent again: here it would be refused again.
fn not_admitted(reason: &str) -> String {
    format!("ERR this node is not admitted; not applied, use another one: {reason}")
}

const UNKNOWN_RESULT: &str = "UNKNOWNRESULT the outcome of this command is unknown: \
     it may have been applied, or may still be; read before sending it again";
const NO_LEADER: &str =
    "CLUSTERDOWN no leader: a majority of the nodes is needed; not applied, send it again";
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
            let write = encode(&propose_error(&ProposeError::NotLeader { hint: hint.clone() }));
            assert_eq!(write, encode(&read_error(&ReadError::NotLeader { hint })));
            let line = String::from_utf8(write.to_vec()).unwrap();
            assert!(line.starts_with("-CLUSTERDOWN ") && line.contains(text), "{line}");
        }
    }

    #[test]
    fn a_node_that_is_not_admitted_asks_nobody_to_send_again() {
        let write = encode(&propose_error(&ProposeError::NotAdmitted("another disk".into())));
        assert_eq!(write, encode(&read_error(&ReadError::NotAdmitted("another disk".into()))));
        assert!(write.starts_with(b"-ERR ") && write.ends_with(b"another disk\r\n"), "{write:?}");
    }

    #[test]
    fn a_read_that_timed_out_blames_no_quorum_that_may_have_answered() {
        let line = String::from_utf8(encode(&read_error(&ReadError::TimedOut)).to_vec()).unwrap();
        assert!(
            line.starts_with("-TRYAGAIN ") && line.contains("or this node is behind"),
            "{line}"
        );
    }

    #[test]
    fn an_unknown_outcome_has_a_prefix_that_no_client_retries() {
        let reply = encode(&propose_error(&ProposeError::Unknown { position: None }));
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
            let reply = encode(&propose_error(&failure));
            let retried = reply.starts_with(b"-TRYAGAIN") || reply.starts_with(b"-CLUSTERDOWN");
            assert!(!retried || failure.is_certainly_not_applied(), "{failure:?}: {reply:?}");
        }
    }
}
