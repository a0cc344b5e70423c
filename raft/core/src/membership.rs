//! Who is in the cluster, as this node knows it now.

use alloc::vec::Vec;

use crate::{Configuration, NodeId, Position};

/// The configuration in force. Used from the moment it is in the log, durable or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    configuration: Configuration,
}

impl Membership {
    /// The newest of `configurations` that the log holds; the others were truncated. `None` if it
    /// holds none of them.
    pub(crate) fn recover(
        configurations: &[(Position, Configuration)],
        holds: impl Fn(Position) -> bool,
    ) -> Option<Self> {
        let (_, configuration) =
            configurations.iter().rev().find(|(position, _)| holds(*position))?;
        Some(Self { configuration: configuration.clone() })
    }

    pub(crate) fn new(configuration: Configuration) -> Self {
        Self { configuration }
    }

    pub(crate) fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    pub(crate) fn is_member(&self, id: NodeId) -> bool {
        self.configuration.members.iter().any(|member| member.id == id)
    }

    pub(crate) fn is_voter(&self, id: NodeId) -> bool {
        self.voters().any(|voter| voter == id)
    }

    pub(crate) fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.configuration.members.iter().filter(|member| member.voter).map(|member| member.id)
    }

    /// Everybody but `own`.
    pub(crate) fn peers(&self, own: NodeId) -> Vec<NodeId> {
        let ids = self.configuration.members.iter().map(|member| member.id);
        ids.filter(|id| *id != own).collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::String, vec};

    use super::*;
    use crate::{Incarnation, Member};

    fn configuration(voters: &[u64], learner: u64) -> Configuration {
        let member = |id, voter| Member {
            id: NodeId(id),
            incarnation: Incarnation(1),
            address: String::new(),
            voter,
        };
        let mut members: Vec<_> = voters.iter().map(|id| member(*id, true)).collect();
        members.push(member(learner, false));
        Configuration { members }
    }

    #[test]
    fn a_configuration_whose_entry_is_gone_is_ignored() {
        let (old, new) = (configuration(&[1, 2], 9), configuration(&[1, 2, 3], 9));
        let both = vec![(Position::default(), old.clone()), (Position::new(4, 7), new.clone())];
        let held = Membership::recover(&both, |_| true).unwrap();
        assert_eq!(held.configuration(), &new);
        let truncated = Membership::recover(&both, |position| position.index.0 == 0).unwrap();
        assert_eq!(truncated.configuration(), &old);
        assert_eq!(Membership::recover(&[], |_| true), None);
    }

    #[test]
    fn learners_are_members_and_not_voters() {
        let all = [(Position::default(), configuration(&[1, 2], 9))];
        let membership = Membership::recover(&all, |_| true).unwrap();
        assert!(membership.is_member(NodeId(9)) && !membership.is_voter(NodeId(9)));
        assert_eq!(membership.voters().collect::<Vec<_>>(), [NodeId(1), NodeId(2)]);
        assert_eq!(membership.peers(NodeId(1)), [NodeId(2), NodeId(9)]);
    }
}
