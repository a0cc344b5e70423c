//! What `INFO` tells: lines of `name:value` in sections, as Redis writes them.

use std::{borrow::Cow, fmt::Write as _};

use kontiki::{FollowerMode, FollowerStatus, Role, Status};

/// What the server knows of itself, at one moment.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) status: Status,
    pub(crate) port: u16,
    pub(crate) uptime_seconds: u64,
    pub(crate) clients: usize,
    pub(crate) clients_max: usize,
    pub(crate) connections: u64,
    pub(crate) commands: u64,
    /// `None` if the state machine could not be asked.
    pub(crate) keys: Option<usize>,
}

/// The sections asked for by name, in lower case; all of them for none, `all` or `everything`.
pub(crate) fn render(facts: &Facts, asked: &[String]) -> String {
    let everything = asked.is_empty()
        || asked.iter().any(|name| matches!(name.as_str(), "all" | "everything" | "default"));
    let mut out = String::new();
    for (name, section) in SECTIONS {
        if everything || asked.iter().any(|asked| asked.eq_ignore_ascii_case(name)) {
            let blank = if out.is_empty() { "" } else { "\r\n" };
            let _ = write!(out, "{blank}# {name}\r\n");
            for (field, value) in section(facts) {
                let _ = write!(out, "{field}:{value}\r\n");
            }
        }
    }
    out
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Starting => "starting",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::NotAdmitted => "not-admitted",
        Role::Stopped => "stopped",
        _ => "other",
    }
}

/// A section's name, and what makes its lines.
type Section = (&'static str, fn(&Facts) -> Fields);
type Fields = Vec<(Cow<'static, str>, String)>;

const SECTIONS: &[Section] = &[
    ("Server", server),
    ("Clients", clients),
    ("Stats", stats),
    ("Raft", raft),
    ("Keyspace", keyspace),
];

fn server(facts: &Facts) -> Fields {
    named([
        // Client libraries look here for what they may ask.
        ("redis_version", REDIS_VERSION.to_owned()),
        ("redis_mode", "standalone".to_owned()),
        ("raftd_version", env!("CARGO_PKG_VERSION").to_owned()),
        ("os", std::env::consts::OS.to_owned()),
        ("arch_bits", usize::BITS.to_string()),
        ("process_id", std::process::id().to_string()),
        ("tcp_port", facts.port.to_string()),
        ("uptime_in_seconds", facts.uptime_seconds.to_string()),
    ])
}

fn clients(facts: &Facts) -> Fields {
    named([
        ("connected_clients", facts.clients.to_string()),
        ("maxclients", facts.clients_max.to_string()),
    ])
}

fn stats(facts: &Facts) -> Fields {
    named([
        ("total_connections_received", facts.connections.to_string()),
        ("total_commands_processed", facts.commands.to_string()),
    ])
}

fn raft(facts: &Facts) -> Fields {
    let status = &facts.status;
    let (leader, leader_address) = match &status.leader {
        Some((id, address)) => (id.to_string(), address.clone()),
        None => (String::new(), String::new()),
    };
    let members: Vec<_> =
        status.members.iter().map(|(id, address)| format!("{id}={address}")).collect();
    let mut fields = named([
        ("raft_id", status.id.to_string()),
        ("raft_role", role_name(status.role).to_owned()),
        ("raft_term", status.term.to_string()),
        ("raft_leader", leader),
        ("raft_leader_address", leader_address),
        ("raft_last_index", status.last.index.to_string()),
        ("raft_last_term", status.last.term.to_string()),
        ("raft_durable_index", status.durable.to_string()),
        ("raft_commit_index", status.committed.to_string()),
        ("raft_applied_index", status.applied.to_string()),
        ("raft_snapshot_index", status.snapshot.index.to_string()),
        ("raft_snapshot_term", status.snapshot.term.to_string()),
        ("raft_first_index", status.log_first.to_string()),
        ("raft_members", members.join(",")),
        ("raft_foreign_members", ids(&status.foreign_members)),
        ("raft_cluster", format!("{:016x}", status.cluster)),
        ("raft_incarnation", format!("{:016x}", status.incarnation)),
        ("log_segments", status.log_segments.to_string()),
        ("log_syncs", status.log_syncs.to_string()),
        ("writes_held", status.writes_held.as_deref().unwrap_or("").replace(['\r', '\n'], " ")),
        ("fatal", status.fatal.as_deref().unwrap_or("").replace(['\r', '\n'], " ")),
    ]);
    fields.extend(status.followers.iter().map(follower));
    fields
}

/// A follower as its leader sees it, as Redis tells of its replicas.
fn follower(follower: &FollowerStatus) -> (Cow<'static, str>, String) {
    let mode = match follower.mode {
        FollowerMode::Probe => "probe",
        FollowerMode::Replicate => "replicate",
        FollowerMode::Snapshot => "snapshot",
        _ => "other",
    };
    let FollowerStatus { id, matched, lag, rate, inflight_messages, inflight_bytes, .. } = follower;
    let (asked, bytes) = (follower.snapshot_bytes_asked, follower.snapshot_bytes);
    let (stalled, lost) = (u8::from(follower.is_stalled), u8::from(follower.is_regressed));
    let value = format!(
        "mode={mode},matched={matched},lag={lag},rate={rate},inflight_messages={inflight_messages},\
         inflight_bytes={inflight_bytes},snapshot_bytes_asked={asked},snapshot_bytes={bytes},stalled={stalled},regressed={lost}"
    );
    (Cow::Owned(format!("{FOLLOWER_PREFIX}{id}")), value)
}

/// Before the id of a follower.
pub(crate) const FOLLOWER_PREFIX: &str = "raft_follower_";

fn named<const COUNT: usize>(fields: [(&'static str, String); COUNT]) -> Fields {
    fields.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect()
}

/// Ids of nodes, for people and programs.
pub(crate) fn ids(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

fn keyspace(facts: &Facts) -> Fields {
    match facts.keys {
        None | Some(0) => Vec::new(),
        Some(keys) => named([("db0", format!("keys={keys},expires=0,avg_ttl=0"))]),
    }
}

/// The version whose replies ours are like.
pub(crate) const REDIS_VERSION: &str = "7.0.0";
