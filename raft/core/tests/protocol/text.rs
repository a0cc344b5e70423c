//! Outputs, messages and status as scenarios write them: one line each. A position is `term/index`, as in the core.

use kontiki_core::{
    AppendOutcome, Apply, Entry, EntryKind, FollowerMode, FollowerStatus, Message, NodeId, Output,
    Position, Role, State, Status, VoteKind,
};

pub(crate) fn output_text(node: NodeId, output: &Output) -> String {
    let text = match output {
        Output::Write { seq, state, entries } => {
            let state = state.as_ref().map(state_text);
            let entries =
                (!entries.is_empty()).then(|| format!(" {}", entries_text(entries.entries())));
            format!("write #{seq}{}{}", state.unwrap_or_default(), entries.unwrap_or_default())
        }
        Output::Reset { seq, at, state } => {
            format!("reset #{seq} behind {at}{}", state_text(state))
        }
        Output::Compact { last } => format!("compact to {last}"),
        Output::FetchSnapshot { from, at } => format!("fetch snapshot {at} from {from}"),
        Output::Send { to, message } => format!("-> {to} {}", message_text(message)),
        Output::Apply(Apply::Snapshot { at }) => format!("apply snapshot {at}"),
        Output::Apply(Apply::Entries(batch)) => format!("apply {}", entries_text(batch.entries())),
        Output::Apply(Apply::Range { first, end }) => format!("apply {first}..{end} from the log"),
        Output::Fetch { first, end, .. } => format!("fetch {first}..{end} from the log"),
        Output::ReadReady { id, index } => format!("read {id} may run at {index}"),
        Output::ReadFailed { id } => format!("read {id} failed"),
        Output::RoleChanged { role, term, leader } => {
            let leader = leader.filter(|leader| *leader != node);
            let of = leader.map_or(String::new(), |leader| format!(" of {leader}"));
            format!("is {}{of} in term {term}", role_text(*role))
        }
        Output::PeerRegressed { peer, matched, reported } => {
            format!("sees {peer} regressed from {matched} to {reported}")
        }
        Output::Halt { reason } => format!("halts: {reason}"),
        other => format!("{other:?}"),
    };
    format!("{node} {text}")
}

pub(crate) fn message_text(message: &Message) -> String {
    let term = message.term();
    match message {
        Message::VoteRequest(request) => {
            format!("{}VoteRequest term {term} last {}", kind_text(request.kind), request.last)
        }
        Message::VoteResponse(response) => {
            let answer = if response.granted { "granted" } else { "refused" };
            format!("{}VoteResponse term {term} {answer}", kind_text(response.kind))
        }
        Message::AppendEntries(request) => {
            let (round, previous, commit) = (request.round, request.previous, request.commit);
            let place = format!("term {term} round {round} previous {previous} commit {commit}");
            let entries = request.entries.entries();
            let entries = (!entries.is_empty()).then(|| format!(" + {}", entries_text(entries)));
            format!("AppendEntries {place}{}", entries.unwrap_or_default())
        }
        Message::AppendResponse(response) => {
            let outcome = outcome_text(&response.outcome);
            format!("AppendResponse term {term} round {} {outcome}", response.round)
        }
        // The number of the question is drawn at random; the answer repeats it.
        Message::ReadIndexRequest(_) => format!("ReadIndexRequest term {term}"),
        Message::ReadIndexResponse(response) => match response.index {
            Some(index) => format!("ReadIndexResponse term {term} index {index}"),
            None => format!("ReadIndexResponse term {term} refused"),
        },
        Message::InstallSnapshot(request) => {
            format!("InstallSnapshot term {term} round {} at {}", request.round, request.at)
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn status_text(status: &Status) -> String {
    let leader = status.leader.filter(|leader| *leader != status.id);
    let of = leader.map_or(String::new(), |leader| format!(" of {leader}"));
    let (id, role, term) = (status.id, role_text(status.role), status.term);
    let (last, durable, committed) = (status.last, status.durable, status.committed);
    let log = format!("last {last} durable {durable} committed {committed}");
    let is_whole = status.compacted == Position::default();
    let compacted = (!is_whole).then(|| format!(" compacted {}", status.compacted));
    let applied = status.applied;
    let compacted = compacted.unwrap_or_default();
    format!("{id} is {role}{of} in term {term}: {log} applied {applied}{compacted}")
}

pub(crate) fn follower_text(follower: &FollowerStatus) -> String {
    let mode = match follower.mode {
        FollowerMode::Probe => "probe",
        FollowerMode::Replicate => "replicate",
        FollowerMode::Snapshot => "snapshot",
    };
    let (id, matched, next) = (follower.id, follower.matched, follower.next);
    let (messages, bytes) = (follower.inflight_messages, follower.inflight_bytes);
    let regressed = if follower.regressed { " regressed" } else { "" };
    let inflight = format!("inflight {messages} ({bytes} bytes)");
    format!("  {id}: {mode} matched {matched} next {next} {inflight}{regressed}")
}

pub(crate) fn entries_text(entries: &[Entry]) -> String {
    let texts: Vec<_> = entries.iter().map(entry_text).collect();
    if texts.is_empty() { "nothing".into() } else { texts.join(", ") }
}

fn entry_text(entry: &Entry) -> String {
    match entry.kind() {
        Some(EntryKind::Empty) => format!("{} (empty)", entry.position()),
        _ => format!("{} {}", entry.position(), String::from_utf8_lossy(&entry.body())),
    }
}

fn outcome_text(outcome: &AppendOutcome) -> String {
    match outcome {
        AppendOutcome::Matched(index) => format!("matched {index}"),
        AppendOutcome::Rejected { previous, hint } => format!("rejected {previous} hint {hint}"),
        AppendOutcome::Fetching { at } => format!("fetching {at}"),
    }
}

pub(crate) fn state_text(state: &State) -> String {
    let vote = state.hard.vote.map_or("none".into(), |vote| vote.to_string());
    format!(" term {} vote {vote}", state.hard.term)
}

fn role_text(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
        Role::Learner => "learner",
    }
}

fn kind_text(kind: VoteKind) -> &'static str {
    match kind {
        VoteKind::Pre => "pre-",
        VoteKind::Real => "",
    }
}
