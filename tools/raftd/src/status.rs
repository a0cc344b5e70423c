//! `raftd status`: how nodes stand, asked of them as any client would.

use std::{
    collections::HashMap,
    fmt,
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use clap::Args;
use comfy_table::{Table, presets};
use redis_protocol::resp2::{decode::decode_bytes_mut, types::BytesFrame};

use crate::{
    failure::{Failure, FailureKind},
    info::FOLLOWER_PREFIX,
    members::parse_address,
};

/// What `raftd status` is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusOptions {
    /// Where clients reach the nodes; without any, the nodes of a demo
    #[arg(
        value_name = "HOST:PORT",
        default_values = ["127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"],
        value_parser = parse_address
    )]
    addresses: Vec<String>,
}

/// Asks every node and prints what they say; fails if one did not answer or takes no part.
pub(crate) fn run(options: &StatusOptions) -> Result<(), Failure> {
    let answers: Vec<_> = options.addresses.iter().map(|address| (address, ask(address))).collect();
    let known =
        answers.iter().filter_map(|(address, answer)| Some((*address, answer.as_ref().ok()?)));
    let text = render(&known.collect::<Vec<_>>());
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has seen enough, as in `| head`.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(Failure::new(FailureKind::Run, format!("cannot print: {error}")));
        }
        _ => {}
    }
    complaint(&answers).map_or(Ok(()), |text| Err(Failure::new(FailureKind::Run, text)))
}

/// Who is of no use to the cluster, and why.
fn complaint(answers: &[(&String, io::Result<Fields>)]) -> Option<String> {
    let silent =
        answers.iter().filter_map(|(address, answer)| Some((address, answer.as_ref().err()?)));
    let silent: Vec<_> = silent.map(|(address, error)| format!("{address}: {error}")).collect();
    let mut told = Vec::new();
    if !silent.is_empty() {
        let (count, all) = (silent.len(), answers.len());
        let advice = if count == all { "; `raftd demo` starts three nodes here" } else { "" };
        told.push(format!("{count} of {all} did not answer: {}{advice}", silent.join("; ")));
    }
    let useless = answers.iter().filter_map(|(address, answer)| {
        Some(format!("{address} {}", answer.as_ref().ok()?.uselessness()?))
    });
    told.extend(useless);
    (!told.is_empty()).then(|| told.join("; "))
}

/// The fields of a node's `INFO raft`.
#[derive(Debug)]
struct Fields(HashMap<String, String>);

impl Fields {
    fn of(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// What a node does not tell, an older one say, is a dash.
    fn value(&self, name: &str) -> String {
        let value = self.0.get(name).filter(|value| !value.is_empty());
        value.map_or_else(|| "-".to_owned(), Clone::clone)
    }

    /// Why this node takes no part, if so.
    fn uselessness(&self) -> Option<&'static str> {
        match self.value("raft_role").as_str() {
            _ if self.value("fatal") != "-" => Some("has failed"),
            "not-admitted" => Some("is not admitted"),
            "stopped" => Some("is stopped"),
            _ => None,
        }
    }

    /// Id and fields of each follower, in ascending order of ids.
    fn followers(&self) -> Vec<(u64, Fields)> {
        let follower = |(name, value): (&String, &String)| {
            let id = name.strip_prefix(FOLLOWER_PREFIX)?.parse().ok()?;
            Some((id, Self::of(&value.replace(',', "\n").replace('=', ":"))))
        };
        let mut followers: Vec<_> = self.0.iter().filter_map(follower).collect();
        followers.sort_by_key(|(id, _)| *id);
        followers
    }
}

fn ask(address: &str) -> io::Result<Fields> {
    // A name can have addresses of both families, and the node listens on one of them.
    let mut failed = io::Error::other("it is no address");
    let connection = address.to_socket_addrs()?.find_map(|resolved| {
        let connected = TcpStream::connect_timeout(&resolved, PATIENCE);
        connected.map_err(|error| failed = error).ok()
    });
    let Some(mut connection) = connection else { return Err(failed) };
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    connection.write_all(b"INFO raft\r\n")?;
    let (mut received, mut piece) = (bytes::BytesMut::new(), [0; 4096]);
    loop {
        let count = connection.read(&mut piece)?;
        received.extend_from_slice(&piece[..count]);
        if count == 0 || received.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::other("it does not answer as a node of raftd"));
        }
        match decode_bytes_mut(&mut received).map_err(io::Error::other)? {
            None => {}
            Some((BytesFrame::BulkString(text), ..)) => {
                let fields = Fields::of(&String::from_utf8_lossy(&text));
                let is_node = fields.0.contains_key("raft_id");
                return is_node
                    .then_some(fields)
                    .ok_or_else(|| io::Error::other("no node of raftd"));
            }
            Some((BytesFrame::Error(text), ..)) => return Err(io::Error::other(text.to_string())),
            Some(_) => return Err(io::Error::other("it does not answer as a node of raftd")),
        }
    }
}

/// One table of the nodes, and one for the followers of each leader.
fn render(nodes: &[(&String, &Fields)]) -> String {
    if nodes.is_empty() {
        return String::new();
    }
    let row = |(address, fields): &(&String, &Fields)| {
        let values = NODE_COLUMNS[1..].iter().map(|(_, name)| fields.value(name));
        std::iter::once((*address).clone()).chain(values).collect()
    };
    let mut text = table(&NODE_COLUMNS, nodes.iter().map(row));
    for (_, fields) in nodes {
        for (label, name) in [("cannot write", "writes_held"), ("has failed", "fatal")] {
            if fields.value(name) != "-" {
                let _ = fmt::write(
                    &mut text,
                    format_args!(
                        "node {} {label}: {}\n",
                        fields.value("raft_id"),
                        fields.value(name)
                    ),
                );
            }
        }
    }
    for (_, leader) in nodes.iter().filter(|(_, fields)| fields.value("raft_role") == "leader") {
        let row = |(id, follower): &(u64, Fields)| {
            let values = FOLLOWER_COLUMNS[1..].iter().map(|(_, name)| follower.value(name));
            std::iter::once(id.to_string()).chain(values).collect()
        };
        let (id, term) = (leader.value("raft_id"), leader.value("raft_term"));
        let _ = fmt::write(
            &mut text,
            format_args!("\nfollowers of node {id}, leader in term {term}\n"),
        );
        text += &table(&FOLLOWER_COLUMNS, leader.followers().iter().map(row));
    }
    text
}

/// Without lines, two blanks between columns.
fn table(columns: &[(&str, &str)], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    let header = columns.iter().map(|(title, _)| *title);
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Titles and the fields that stand below them.
const NODE_COLUMNS: [(&str, &str); 12] = [
    ("clients", ""),
    ("id", "raft_id"),
    ("role", "raft_role"),
    ("term", "raft_term"),
    ("leader", "raft_leader"),
    ("applied", "raft_applied_index"),
    ("commit", "raft_commit_index"),
    ("durable", "raft_durable_index"),
    ("first", "raft_first_index"),
    ("last", "raft_last_index"),
    ("snapshot", "raft_snapshot_index"),
    ("segments", "log_segments"),
];

const FOLLOWER_COLUMNS: [(&str, &str); 11] = [
    ("id", ""),
    ("mode", "mode"),
    ("matched", "matched"),
    ("lag", "lag"),
    ("entries/s", "rate"),
    ("messages in flight", "inflight_messages"),
    ("bytes in flight", "inflight_bytes"),
    ("snapshot asked", "snapshot_bytes_asked"),
    ("of bytes", "snapshot_bytes"),
    ("stalled", "stalled"),
    ("lost its disk", "regressed"),
];

/// For each step of asking a node.
const PATIENCE: Duration = Duration::from_secs(3);

/// Longer than what a node says of itself and its followers.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_or_takes_no_part_is_complained_of() {
        let node = |text| Ok(Fields::of(text));
        let address = "h:1".to_owned();
        let told = |answer| complaint(&[(&address, node("raft_role:leader")), (&address, answer)]);
        assert_eq!(told(node("raft_role:follower\r\nfatal:")), None);
        for (answer, text) in [
            (Err(io::Error::other("refused")), "1 of 2 did not answer: h:1: refused"),
            (node("raft_role:not-admitted"), "h:1 is not admitted"),
            (node("raft_role:stopped"), "h:1 is stopped"),
            (node("raft_role:leader\r\nfatal:disk"), "h:1 has failed"),
        ] {
            assert_eq!(told(answer).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_leader_is_shown_with_its_followers_and_what_is_not_told_is_a_dash() {
        let leader = Fields::of(
            "# Raft\r\nraft_id:1\r\nraft_role:leader\r\nraft_term:4\r\nraft_leader:1\r\n\
             raft_follower_3:mode=snapshot,matched=7,lag=13,rate=0,inflight_messages=0,\
             inflight_bytes=0,snapshot_bytes_asked=5,snapshot_bytes=8,stalled=1,regressed=0\r\n\
             raft_follower_2:mode=replicate,matched=20,lag=0,rate=9\r\nwrites_held:no space: 5\r\n",
        );
        let text = render(&[(&"h:1".to_owned(), &leader)]);
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["h:1", "1", "leader", "4", "1", "-", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(text.lines().nth(2), Some("node 1 cannot write: no space: 5"));
        assert_eq!(text.lines().nth(4), Some("followers of node 1, leader in term 4"));
        assert_eq!(rows[6], ["2", "replicate", "20", "0", "9", "-", "-", "-", "-", "-", "-"]);
        assert_eq!(rows[7], ["3", "snapshot", "7", "13", "0", "0", "0", "5", "8", "1", "0"]);
    }
}
