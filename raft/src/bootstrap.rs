//! The first start, and who belongs to the cluster afterwards.
//!
//! Every empty disk draws a random *incarnation*. A cluster begins when every initial member has
//! heard every other one say the same list of members, with an empty log; its first configuration
//! names each member's incarnation, and its name is a hash of both. So a disk that was wiped is
//! known by its new incarnation and can neither vote nor form a second cluster under the old name.

use std::collections::BTreeMap;

use kontiki_core::{
    ClusterId, Configuration, HardState, Incarnation, Member, NodeId, Position, State,
};
use parking_lot::Mutex;

use crate::transport::Hello;

/// What this node says of itself and believes of its cluster.
#[derive(Debug)]
pub(crate) struct Identity(Mutex<Known>);

#[derive(Debug)]
struct Known {
    hello: Hello,
    configuration: Option<Configuration>,
}

/// What a peer's hello means to this node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It belongs to the same cluster, or to the same first start.
    Accept,
    /// Not with this one; the reason says what can be done.
    Refuse(String),
    /// It has the id of a member, and belongs to another cluster.
    OtherCluster(String),
    /// The cluster knows this node with another disk.
    NotAdmitted(String),
}

impl Identity {
    pub(crate) fn new(id: u64, members: Vec<(u64, String)>, state: &State, empty: bool) -> Self {
        let mut hello = Hello {
            node: id,
            incarnation: state.incarnation.0,
            cluster: 0,
            members,
            configuration: None,
            log_is_empty: empty,
        };
        let configuration = newest(state).cloned();
        if configuration.is_some() {
            (hello.cluster, hello.configuration) = (state.cluster.0, Some(announcement(state)));
        }
        Self(Mutex::new(Known { hello, configuration }))
    }

    pub(crate) fn hello(&self) -> Hello {
        self.0.lock().hello.clone()
    }

    /// The first start is complete, with this state.
    pub(crate) fn form(&self, state: &State) {
        let mut known = self.0.lock();
        known.hello.cluster = state.cluster.0;
        known.hello.configuration = Some(announcement(state));
        known.configuration = newest(state).cloned();
    }

    /// There is no configuration yet.
    pub(crate) fn is_starting(&self) -> bool {
        self.0.lock().configuration.is_none()
    }

    pub(crate) fn judge(&self, theirs: &Hello) -> Judgement {
        let known = self.0.lock();
        if theirs.node == known.hello.node {
            return Judgement::Refuse(format!(
                "node {} is this node's id too: every node needs its own",
                theirs.node
            ));
        }
        match &known.configuration {
            Some(configuration) => judge_member(&known.hello, configuration, theirs),
            None if theirs.configuration.is_some() => judge_cluster(&known.hello, theirs),
            None => judge_starter(&known.hello, theirs),
        }
    }
}

/// A node of a cluster looks at somebody who wants to talk to it.
fn judge_member(ours: &Hello, configuration: &Configuration, theirs: &Hello) -> Judgement {
    let known = configuration.members.iter().find(|member| member.id.0 == theirs.node);
    if theirs.cluster != 0 && theirs.cluster != ours.cluster {
        let reason = format!(
            "node {} belongs to cluster {:016x}, node {} to {:016x}: check addresses and data \
             directories",
            theirs.node, theirs.cluster, ours.node, ours.cluster
        );
        let judgement = if known.is_some() { Judgement::OtherCluster } else { Judgement::Refuse };
        return judgement(reason);
    }
    match known {
        Some(member) if member.incarnation.0 != theirs.incarnation => Judgement::Refuse(format!(
            "node {} has another disk than the one cluster {:016x} admitted ({:016x}, admitted \
             {:016x}): give it its old data directory back",
            theirs.node, ours.cluster, theirs.incarnation, member.incarnation.0
        )),
        // Who has the cluster's name is answered even if it is no member here (RAFT-CASE 12).
        None if theirs.cluster == 0 => Judgement::Refuse(format!(
            "node {} is not a member of cluster {:016x}",
            theirs.node, ours.cluster
        )),
        _ => Judgement::Accept,
    }
}

/// A node without a cluster looks at a member of one: it may be its own. Who does not speak for
/// the members that this node was started with can neither let it in nor end its first start.
fn judge_cluster(ours: &Hello, theirs: &Hello) -> Judgement {
    let Some(state) = announced(theirs) else {
        return Judgement::Refuse(format!(
            "node {} announced a configuration that cannot be read",
            theirs.node
        ));
    };
    let configuration = newest(&state);
    let named = configuration.map(addresses).unwrap_or_default();
    if named != ours.members || !ours.members.iter().any(|(id, _)| *id == theirs.node) {
        return Judgement::Refuse(format!(
            "node {} was started with the initial members {}; node {} belongs to cluster {:016x} \
             of {}: start it with the list and the addresses of its own cluster",
            ours.node,
            list(&ours.members),
            theirs.node,
            theirs.cluster,
            list(&named)
        ));
    }
    let members = configuration.into_iter().flat_map(|configuration| &configuration.members);
    let known =
        members.filter(|member| member.id.0 == ours.node).map(|member| member.incarnation.0);
    match known.last() {
        Some(incarnation) if incarnation == ours.incarnation => Judgement::Accept,
        incarnation => Judgement::NotAdmitted(format!(
            "cluster {:016x} knows node {node} with another disk ({:016x}, this one is {:016x}): stop \
             node {node} and give it its old data directory back",
            theirs.cluster,
            incarnation.unwrap_or_default(),
            ours.incarnation,
            node = ours.node
        )),
    }
}

/// Two nodes without a cluster look at each other.
fn judge_starter(ours: &Hello, theirs: &Hello) -> Judgement {
    if theirs.cluster != 0 || !theirs.log_is_empty {
        return Judgement::Refuse(format!(
            "node {} has a log but no configuration: its data directory is not usable",
            theirs.node
        ));
    }
    if ours.members != theirs.members {
        return Judgement::Refuse(format!(
            "node {} was started with the initial members {}, node {} with {}: start all with \
             the same list",
            ours.node,
            list(&ours.members),
            theirs.node,
            list(&theirs.members)
        ));
    }
    if !ours.members.iter().any(|(id, _)| *id == theirs.node) {
        return Judgement::Refuse(format!(
            "node {} is not in its own list of members",
            theirs.node
        ));
    }
    Judgement::Accept
}

/// The first start of this node, until its cluster has a configuration.
#[derive(Debug)]
pub(crate) struct FirstStart {
    id: u64,
    incarnation: Incarnation,
    members: Vec<(u64, String)>,
    /// Who has said the same list, with its disk.
    heard: BTreeMap<u64, Incarnation>,
}

impl FirstStart {
    /// `members` is sorted by id and names `id`.
    pub(crate) fn new(id: u64, incarnation: Incarnation, members: Vec<(u64, String)>) -> Self {
        Self { id, incarnation, members, heard: BTreeMap::from([(id, incarnation)]) }
    }

    /// Somebody said an acceptable hello: the state to make durable, once that is known.
    pub(crate) fn hear(&mut self, hello: &Hello) -> Option<State> {
        if hello.configuration.is_some() {
            return announced(hello).map(|announced| self.adopt(announced));
        }
        self.heard.insert(hello.node, Incarnation(hello.incarnation));
        self.complete()
    }

    /// The first configuration, if every member has been heard.
    pub(crate) fn complete(&self) -> Option<State> {
        let members = self
            .members
            .iter()
            .map(|(id, address)| {
                let incarnation = *self.heard.get(id)?;
                Some(Member { id: NodeId(*id), incarnation, address: address.clone(), voter: true })
            })
            .collect::<Option<Vec<_>>>()?;
        let configuration = Configuration { members };
        Some(State {
            cluster: cluster_id(&configuration),
            incarnation: self.incarnation,
            hard: HardState::default(),
            configurations: vec![(Position::default(), configuration)],
        })
    }

    /// A peer was quicker: its configuration names this disk, as [`Identity::judge`] has seen.
    fn adopt(&self, announced: State) -> State {
        tracing::info!(node = self.id, cluster = %announced.cluster, "adopts the configuration");
        State { incarnation: self.incarnation, hard: HardState::default(), ..announced }
    }
}

/// The name of a cluster: FNV-1a, 64 bits, over each member in the order of ids: id, incarnation,
/// length of the address (each a little-endian u64), address. Never 0.
pub(crate) fn cluster_id(configuration: &Configuration) -> ClusterId {
    let mut hash = FNV_OFFSET;
    let mut take = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    };
    for member in &configuration.members {
        take(&member.id.0.to_le_bytes());
        take(&member.incarnation.0.to_le_bytes());
        take(&(member.address.len() as u64).to_le_bytes());
        take(member.address.as_bytes());
    }
    ClusterId(hash.max(1))
}

/// The newest configuration of a state.
pub(crate) fn newest(state: &State) -> Option<&Configuration> {
    state.configurations.last().map(|(_, configuration)| configuration)
}

/// The members of a configuration as the transport and the application see them.
pub(crate) fn addresses(configuration: &Configuration) -> Vec<(u64, String)> {
    configuration.members.iter().map(|member| (member.id.0, member.address.clone())).collect()
}

/// A list of members for people.
pub(crate) fn list(members: &[(u64, String)]) -> String {
    let members = members.iter().map(|(id, address)| format!("{id}={address}"));
    members.collect::<Vec<_>>().join(",")
}

/// What a hello carries as the configuration: the state without what is this node's own.
fn announcement(state: &State) -> bytes::Bytes {
    let state = State { incarnation: Incarnation(0), hard: HardState::default(), ..state.clone() };
    state.encode()
}

/// The configuration of a hello, if it carries the one that the cluster it names began with. That
/// is the only one there is: a configuration from the log is not a node's to adopt without the log.
fn announced(hello: &Hello) -> Option<State> {
    let state = State::decode(hello.configuration.as_ref()?).ok()??;
    let [(position, configuration)] = state.configurations.as_slice() else { return None };
    let is_first = *position == Position::default()
        && state.cluster == cluster_id(configuration)
        && state.cluster.0 == hello.cluster;
    is_first.then_some(state)
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests;
